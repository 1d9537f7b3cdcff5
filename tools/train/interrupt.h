#pragma once

namespace monoid {

/// From here on the first SIGINT or SIGTERM is only noted, so that the step can be finished and saved; a second one
/// ends the process as usual. Writing to a closed pipe or over a size limit becomes an ordinary error.
void catch_interrupts();
/// The signal that came, or 0.
int interrupt();

}  // namespace monoid
