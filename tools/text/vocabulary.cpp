#include "monoid/tools/text/vocabulary.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "monoid/core/error.h"

namespace monoid {
namespace {

using Json = nlohmann::ordered_json;

constexpr char32_t kLastCharacter = 0x10FFFF;

// Takes the character at `at` and moves past it; overlong forms, surrogates and stray bytes are errors.
char32_t next_character(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned first = byte(at);
  if (first < 0x80) {
    ++at;
    return first;
  }
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  char32_t character = first & (0x7Fu >> length);
  bool valid = first >= 0xC2 && first <= 0xF4;
  for (size_t i = 1; i < length; ++i) {
    valid = valid && (byte(at + i) & 0xC0u) == 0x80u;
    character = character << 6 | (byte(at + i) & 0x3Fu);
  }
  constexpr char32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  valid = valid && character >= kLeast[length] && character <= kLastCharacter &&
          !(character >= 0xD800 && character <= 0xDFFF);
  check(valid, "vocabulary: byte ", at, " of the text is not valid UTF-8; use --vocab byte");
  at += length;
  return character;
}

std::string utf8(char32_t character) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80u | (character >> shift & 0x3Fu)); };
  if (character < 0x80) return {static_cast<char>(character)};
  if (character < 0x800) return {static_cast<char>(0xC0u | character >> 6), tail(0)};
  if (character < 0x10000) return {static_cast<char>(0xE0u | character >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xF0u | character >> 18), tail(12), tail(6), tail(0)};
}

// 'q' (U+0071); control characters show their number only.
std::string describe_character(char32_t character) {
  std::ostringstream out;
  if (character >= 0x20 && character != 0x7F) out << "'" << utf8(character) << "' ";
  out << "(U+" << std::uppercase << std::hex;
  out.width(4);
  out.fill('0');
  out << static_cast<uint32_t>(character) << ")";
  return out.str();
}

}  // namespace

Vocabulary::Kind Vocabulary::parse_kind(std::string_view name) {
  if (name == "char") return Kind::character;
  if (name == "byte") return Kind::byte;
  fail("vocabulary: there is no kind '", name, "'; use char or byte");
}

Vocabulary::Vocabulary(Kind kind, std::string_view text) : kind_(kind) {
  if (kind == Kind::byte) return;
  std::vector<bool> seen(kLastCharacter + 1);
  for (size_t at = 0; at < text.size();) seen[next_character(text, at)] = true;
  for (char32_t character = 0; character <= kLastCharacter; ++character) {
    if (seen[character]) characters_.push_back(character);
  }
  index_characters();
}

Vocabulary::Vocabulary(std::vector<char32_t> characters) : kind_(Kind::character), characters_(std::move(characters)) {
  index_characters();
}

void Vocabulary::index_characters() {
  check(characters_.size() <= size_t{std::numeric_limits<Token>::max()} + 1, "vocabulary: the text has ",
        characters_.size(), " distinct characters, more than 65536; use --vocab byte");
  tokens_.assign(characters_.empty() ? 0 : characters_.back() + 1, -1);
  for (size_t token = 0; token < characters_.size(); ++token) {
    tokens_[characters_[token]] = static_cast<int32_t>(token);
  }
}

Vocabulary Vocabulary::from_json(std::string_view json, std::string_view origin) {
  try {
    const Json object = Json::parse(json);
    if (parse_kind(object.at("kind").get<std::string>()) == Kind::byte) return Vocabulary(Kind::byte, {});
    std::vector<char32_t> characters;
    for (const auto& entry : object.at("characters")) {
      const auto text = entry.get<std::string>();
      size_t at = 0;
      characters.push_back(next_character(text, at));
      check(at == text.size(), "'", text, "' is more than one character");
    }
    check(std::is_sorted(characters.begin(), characters.end(), std::less_equal<>()),
          "the characters are not sorted and distinct");
    return Vocabulary(std::move(characters));
  } catch (const Error& error) {
    fail("vocabulary: ", origin, " is damaged: ", error.message());
  } catch (const Json::exception& error) {
    fail("vocabulary: ", origin, " is damaged: ", error.what());
  }
}

std::string Vocabulary::json() const {
  Json object{{"kind", kind_ == Kind::byte ? "byte" : "char"}};
  if (kind_ == Kind::character) {
    Json characters = Json::array();
    for (const char32_t character : characters_) characters.push_back(utf8(character));
    object["characters"] = std::move(characters);
  }
  return object.dump(1) + "\n";
}

std::vector<Token> Vocabulary::encode(std::string_view text) const {
  std::vector<Token> result;
  result.reserve(text.size());
  if (kind_ == Kind::byte) {
    for (const char byte : text) result.push_back(static_cast<unsigned char>(byte));
    return result;
  }
  std::set<char32_t> unknown;
  for (size_t at = 0; at < text.size();) {
    const char32_t character = next_character(text, at);
    const int32_t token = character < tokens_.size() ? tokens_[character] : -1;
    if (token < 0) unknown.insert(character);
    result.push_back(static_cast<Token>(token));
  }
  if (unknown.empty()) return result;

  constexpr size_t kShown = 8;
  std::string names;
  for (auto [i, it] = std::pair(size_t{0}, unknown.begin()); it != unknown.end() && i < kShown; ++i, ++it) {
    names += (i ? ", " : "") + describe_character(*it);
  }
  if (unknown.size() > kShown) names += str(" and ", unknown.size() - kShown, " more");
  fail("vocabulary: the model was trained without ",
       unknown.size() == 1 ? "this character: " : "these characters: ", names);
}

std::string Vocabulary::decode(Token token) const {
  check(token < size(), "vocabulary: token ", token, " is outside a vocabulary of ", size());
  return kind_ == Kind::byte ? std::string(1, static_cast<char>(token)) : utf8(characters_[token]);
}

std::string Vocabulary::decode(std::span<const Token> tokens) const {
  std::string text;
  for (const Token token : tokens) text += decode(token);
  return text;
}

}  // namespace monoid
