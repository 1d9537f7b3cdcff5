#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace monoid {

using Token = uint16_t;

/// The tokens of a text: either its sorted distinct UTF-8 characters, or all 256 bytes.
class Vocabulary {
 public:
  enum class Kind { character, byte };

  /// "char" or "byte"; anything else is an Error.
  static Kind parse_kind(std::string_view name);

  /// The vocabulary that spells `text`. Characters need valid UTF-8: an Error gives the place and suggests bytes.
  Vocabulary(Kind kind, std::string_view text);
  /// Reads what `json` wrote; `origin` names the file in errors.
  static Vocabulary from_json(std::string_view json, std::string_view origin);
  std::string json() const;

  Kind kind() const { return kind_; }
  int64_t size() const { return static_cast<int64_t>(kind_ == Kind::byte ? 256 : characters_.size()); }

  /// Characters that the vocabulary lacks are an Error that names them.
  std::vector<Token> encode(std::string_view text) const;
  std::string decode(Token token) const;
  std::string decode(std::span<const Token> tokens) const;

 private:
  explicit Vocabulary(std::vector<char32_t> characters);
  void index_characters();

  Kind kind_ = Kind::byte;
  std::vector<char32_t> characters_;  // by token
  std::vector<int32_t> tokens_;       // by character; -1 where there is none
};

}  // namespace monoid
