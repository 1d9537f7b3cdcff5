#pragma once

#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace monoid {

/// The one exception of the library. `message()` is a sentence for people; `what()` adds the place that raised it.
class Error : public std::runtime_error {
 public:
  explicit Error(std::string message, std::source_location site = std::source_location::current());

  const std::string& message() const noexcept { return message_; }
  const std::source_location& site() const noexcept { return site_; }

 private:
  std::string message_;
  std::source_location site_;
};

/// Streams every part after the other: str("width ", 3, " of ", shape).
template <class... Parts>
std::string str(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

/// A boolean that remembers where it was written, so that `check` needs no macro.
struct Condition {
  template <class Bool>
  requires std::is_constructible_v<bool, const Bool&> Condition(
      const Bool& value, std::source_location where = std::source_location::current())
      : holds(static_cast<bool>(value)), site(where) {}

  bool holds;
  std::source_location site;
};

/// A format-free message that remembers where it was written; the first part names the op.
struct Message {
  Message(std::string_view value, std::source_location where = std::source_location::current())
      : text(value), site(where) {}
  Message(const char* value, std::source_location where = std::source_location::current()) : text(value), site(where) {}

  std::string text;
  std::source_location site;
};

/// Throws Error(parts...) unless the condition holds. The parts are only formatted on failure.
template <class... Parts>
void check(Condition condition, const Parts&... parts) {
  if (!condition.holds) [[unlikely]]
    throw Error(str(parts...), condition.site);
}

/// Throws Error(parts...): check(false, ...) for the end of a function that returns.
template <class... Parts>
[[noreturn]] void fail(Message first, const Parts&... parts) {
  throw Error(str(first.text, parts...), first.site);
}

/// The candidate nearest to `word` by edit distance, or that begins with it, for "did you mean"; empty where nothing
/// is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace monoid
