#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace monoid {

/// "3m 12s"
std::string format_duration(double seconds);
/// "6,540"
std::string format_count(double count);

/// What the user sees of a run: on a terminal one line that is rewritten as steps go by, elsewhere plain lines.
class Progress {
 public:
  explicit Progress(int64_t steps);

  /// After each step. `report` asks for a line that stays where the output is no terminal.
  void step(int64_t step, double loss, double tokens_per_second, double seconds_left, bool report);
  /// A line that stays.
  void line(const std::string& text);
  /// "step 120/1200": how its lines begin.
  std::string place(int64_t step) const;

 private:
  using Clock = std::chrono::steady_clock;

  int64_t steps_;
  bool terminal_;
  bool open_ = false;  // a live line is on the screen
  Clock::time_point shown_{};
};

}  // namespace monoid
