#pragma once

#include "monoid/core/random.h"
#include "monoid/core/tape.h"

namespace monoid {

/// Sets each element of x (f32 or f64) to 0 with the given probability in [0, 1] and multiplies the others by
/// 1 / (1 - probability) (Srivastava et al., "Dropout", 2014). Element i takes number i of what it reserves from the
/// generator, so results do not depend on threads or device, and the gradient recomputes the mask instead of keeping
/// it. Probability 0 is x itself and takes no numbers; probability 1 is all zeros.
Tensor dropout(const Tensor& x, double probability, Generator& generator);

}  // namespace monoid
