#include "monoid/tools/text/progress.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "monoid/core/error.h"

namespace monoid {

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const auto total = static_cast<int64_t>(std::llround(seconds));
  const auto two = [](int64_t value) { return str(std::setw(2), std::setfill('0'), value); };
  if (total < 60) return str(total, "s");
  if (total < 3600) return str(total / 60, "m ", two(total % 60), "s");
  return str(total / 3600, "h ", two(total / 60 % 60), "m");
}

std::string format_count(double count) {
  std::string digits = str(std::llround(count));
  for (auto at = std::ssize(digits) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), 1, ',');
  return digits;
}

Progress::Progress(int64_t steps) : steps_(steps), terminal_(isatty(STDOUT_FILENO) == 1) {}

std::string Progress::place(int64_t step) const { return str("step ", step, "/", steps_); }

void Progress::step(int64_t step, double loss, double tokens_per_second, double seconds_left, bool report) {
  constexpr auto kBetween = std::chrono::milliseconds(100);
  const bool show = terminal_ ? Clock::now() - shown_ >= kBetween : report;
  if (!show) return;
  const std::string text = str(place(step), "  loss ", std::fixed, std::setprecision(4), loss, "  ",
                               format_count(tokens_per_second), " tokens/s  ", format_duration(seconds_left), " left");
  if (terminal_) {
    std::cout << "\r\x1b[K" << text << std::flush;
    open_ = true;
    shown_ = Clock::now();
  } else {
    std::cout << text << std::endl;
  }
}

void Progress::line(const std::string& text) {
  if (open_) std::cout << "\r\x1b[K";
  open_ = false;
  std::cout << text << std::endl;
}

}  // namespace monoid
