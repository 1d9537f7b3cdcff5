// A reader of files from elsewhere: thousands of damaged files, each of which must read or be an Error.

#include <fstream>
#include <iterator>

#include "monoid/core/random.h"
#include "monoid/core/safetensors.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/temporary_folder.h"

namespace monoid {
namespace {

constexpr int kFiles = 6000;

const std::vector<std::string> kTokens = {"{",
                                          "}",
                                          "[",
                                          "]",
                                          ",",
                                          ":",
                                          "\"",
                                          "\\",
                                          "null",
                                          "true",
                                          "-1",
                                          "0",
                                          "1e9",
                                          "9223372036854775808",
                                          "18446744073709551616",
                                          "\"dtype\"",
                                          "\"shape\"",
                                          "\"data_offsets\"",
                                          "\"__metadata__\"",
                                          "\"F32\"",
                                          "\"F16\"",
                                          "\"BOOL\"",
                                          "\"I64\"",
                                          "\"\\ud800\"",
                                          "\xff",
                                          std::string(1, '\0'),
                                          "[[[[[[[[",
                                          "{\"a\":{\"a\":{\"a\":"};

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : generator_(seed) {}

  std::string mutate(std::string bytes) {
    for (int64_t times = 1 + below(3); times > 0; --times) mutate_once(bytes);
    return bytes;
  }

 private:
  size_t below(size_t bound) { return static_cast<size_t>(generator_.below(static_cast<int64_t>(bound))); }
  size_t position(const std::string& bytes) { return below(bytes.size() + 1); }

  void mutate_once(std::string& bytes) {
    switch (below(8)) {
      case 0:  // flip a bit
        if (!bytes.empty()) bytes[below(bytes.size())] ^= static_cast<char>(1 << below(8));
        break;
      case 1:  // cut the end off
        bytes.resize(position(bytes));
        break;
      case 2:  // claim another header length
        for (size_t i = below(8); i < std::min<size_t>(8, bytes.size()); ++i) bytes[i] = static_cast<char>(below(256));
        break;
      case 3:  // put a token in
        bytes.insert(position(bytes), kTokens[below(kTokens.size())]);
        break;
      case 4: {  // put a token over what is there
        const std::string& token = kTokens[below(kTokens.size())];
        bytes.replace(position(bytes), token.size(), token);
        break;
      }
      case 5: {  // repeat a piece
        const size_t from = position(bytes), length = below(64);
        bytes.insert(position(bytes), bytes.substr(from, length));
        break;
      }
      case 6:  // drop a piece
        bytes.erase(position(bytes), below(32));
        break;
      case 7:  // change a digit
        for (size_t tries = 0; tries < 64 && !bytes.empty(); ++tries) {
          char& byte = bytes[below(bytes.size())];
          if (byte >= '0' && byte <= '9') {
            byte = static_cast<char>('0' + below(10));
            break;
          }
        }
        break;
    }
  }

  Generator generator_;
};

// The claimed header length of a mutant set right again, so that the damage gets as far as the JSON.
void repair_length(std::string& bytes, size_t data_bytes) {
  if (bytes.size() < 8 + data_bytes) return;
  const uint64_t length = bytes.size() - 8 - data_bytes;
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
}

}  // namespace

TEST_CASE("a damaged safetensors file is read or refused with an error, never a crash", "[safetensors][fuzz]") {
  const test::TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  write_safetensors(path, {{{"embedding.weight", Tensor::full({3, 4}, 1)},
                            {"half", Tensor::full({5}, 2, DType::bf16)},
                            {"index", Tensor::arange(3)},
                            {"mask", Tensor::full({4}, 1, DType::boolean)},
                            {"nothing", Tensor::empty({2, 0})},
                            {"scale", Tensor::scalar(3, DType::f64)}},
                           {{"note", "text"}}});
  std::ifstream stream(path, std::ios::binary);
  const std::string valid{std::istreambuf_iterator<char>(stream), {}};
  constexpr size_t kDataBytes = 48 + 10 + 24 + 4 + 8;

  int read = 0, refused = 0;
  for (int n = 0; n < kFiles; ++n) {
    CAPTURE(n);
    std::string bytes = Mutator(static_cast<uint64_t>(n)).mutate(valid);
    if (n % 2) repair_length(bytes, kDataBytes);
    std::ofstream(path, std::ios::binary) << bytes;
    try {
      for (const auto& [name, tensor] : read_safetensors(path).tensors) tensor.to_vector<double>();
      ++read;
    } catch (const Error& error) {
      if (error.message().find("x.safetensors") == std::string::npos) FAIL_CHECK("no file name: " << error.message());
      ++refused;
    }
  }
  INFO(read << " read, " << refused << " refused");
  CHECK(read + refused == kFiles);
  CHECK(read > 0);
  CHECK(refused > kFiles / 2);
}

}  // namespace monoid
