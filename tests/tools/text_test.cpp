#include <zlib.h>

#include "monoid/core/error.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/temporary_folder.h"
#include "monoid/tools/text/batches.h"
#include "monoid/tools/text/dataset.h"
#include "monoid/tools/text/files.h"
#include "monoid/tools/text/vocabulary.h"

using namespace monoid;
using namespace monoid::test;

namespace {

using Kind = Vocabulary::Kind;

void write_gzip(const std::filesystem::path& path, const std::string& text) {
  gzFile file = gzopen(path.c_str(), "wb");
  REQUIRE(gzwrite(file, text.data(), static_cast<unsigned>(text.size())) == static_cast<int>(text.size()));
  REQUIRE(gzclose(file) == Z_OK);
}

std::string noise(size_t size) {
  std::string text(size, ' ');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(random_bits(7, i) >> 24);
  return text;
}

std::vector<Token> counting(int64_t count) {
  std::vector<Token> tokens(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) tokens[static_cast<size_t>(i)] = static_cast<Token>(i);
  return tokens;
}

}  // namespace

TEST_CASE("a text reads the same plain and gzipped", "[tools][text]") {
  const TemporaryFolder folder;
  const std::string text = noise(3 << 20);  // longer than one read, with every byte
  write_file(folder / "plain", text);
  write_gzip(folder / "packed.gz", text);
  CHECK(read_text(folder / "plain") == text);
  CHECK(read_text(folder / "packed.gz") == text);
}

TEST_CASE("a text file that cannot be read is an error that names it", "[tools][text]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(read_text(folder / "missing"),
                    ContainsSubstring("there is no file") && ContainsSubstring((folder / "missing").string()));
  CHECK_THROWS_WITH(read_text(folder.path()), ContainsSubstring("is a folder"));
  write_file(folder / "empty", "");
  CHECK_THROWS_WITH(read_text(folder / "empty"), ContainsSubstring("is empty"));
  write_gzip(folder / "whole.gz", noise(1 << 16));
  const std::string packed = read_file(folder / "whole.gz");
  write_file(folder / "cut.gz", packed.substr(0, packed.size() / 2));
  CHECK_THROWS_WITH(read_text(folder / "cut.gz"), ContainsSubstring("cut short"));
  std::string damaged = packed;
  damaged[packed.size() - 6] ^= 1;  // in the stored check sum
  write_file(folder / "damaged.gz", damaged);
  CHECK_THROWS_WITH(read_text(folder / "damaged.gz"), ContainsSubstring("cannot read"));
}

TEST_CASE("a character vocabulary holds the sorted distinct code points", "[tools][text]") {
  const std::string text = "b\u00e9a\nb\u20aca\U0001F600";
  const Vocabulary vocabulary(Kind::character, text);
  CHECK(vocabulary.size() == 6);
  CHECK(vocabulary.encode(text) == std::vector<Token>{2, 3, 1, 0, 2, 4, 1, 5});
  CHECK(vocabulary.decode(vocabulary.encode(text)) == text);
}

TEST_CASE("a byte vocabulary spells anything", "[tools][text]") {
  const Vocabulary vocabulary(Kind::byte, "only this");
  const std::string text = noise(1000);
  CHECK(vocabulary.size() == 256);
  CHECK(vocabulary.decode(vocabulary.encode(text)) == text);
  CHECK(vocabulary.encode("\xff") == std::vector<Token>{255});
}

TEST_CASE("a vocabulary survives its JSON", "[tools][text]") {
  const std::string text = "\"\\\t\x01 z\u00e9\u20ac\U0001F600";
  for (const Kind kind : {Kind::character, Kind::byte}) {
    const Vocabulary vocabulary(kind, text);
    const Vocabulary read = Vocabulary::from_json(vocabulary.json(), "vocab.json");
    CHECK(read.kind() == kind);
    CHECK(read.size() == vocabulary.size());
    CHECK(read.encode(text) == vocabulary.encode(text));
  }
  for (const char* damaged : {"", "{", "{}", R"({"kind":"word"})", R"({"kind":"char"})",
                              R"({"kind":"char","characters":["b","a"]})", R"({"kind":"char","characters":["ab"]})",
                              R"({"kind":"char","characters":[1]})", R"({"kind":"char","characters":[""]})"}) {
    CAPTURE(damaged);
    CHECK_THROWS_WITH(Vocabulary::from_json(damaged, "x/vocab.json"), ContainsSubstring("x/vocab.json is damaged"));
  }
}

TEST_CASE("characters outside the vocabulary are named", "[tools][text]") {
  const Vocabulary vocabulary(Kind::character, "abc");
  CHECK_THROWS_WITH(vocabulary.encode("ab\u00e9"), ContainsSubstring("this character: '\u00e9' (U+00E9)"));
  CHECK_THROWS_WITH(vocabulary.encode("z\ny"),
                    ContainsSubstring("these characters: (U+000A), 'y' (U+0079), 'z' (U+007A)"));
  CHECK_THROWS_WITH(vocabulary.encode("0123456789"), ContainsSubstring("'7' (U+0037) and 2 more"));
}

TEST_CASE("text that is not UTF-8 is an error that suggests bytes", "[tools][text]") {
  for (const char* bad : {"ab\x80", "ab\xc0\xaf", "ab\xe2\x82", "ab\xed\xa0\x80", "ab\xf4\x90\x80\x80", "ab\xff"}) {
    CHECK_THROWS_WITH(Vocabulary(Kind::character, bad),
                      ContainsSubstring("byte 2 of the text is not valid UTF-8; use --vocab byte"));
  }
}

TEST_CASE("splits are the usual ones", "[tools][text]") {
  const auto sizes = [](int64_t count, double validation, double test) {
    const std::vector<Token> tokens = counting(count);
    const Split split = split_tokens(tokens, validation, test);
    return std::vector<size_t>{split.train.size(), split.validation.size(), split.test.size()};
  };
  CHECK(sizes(1'115'394, 0.1, 0) == std::vector<size_t>{1'003'854, 111'540, 0});
  CHECK(sizes(1'000'000, 0.05, 0.05) == std::vector<size_t>{900'000, 50'000, 50'000});
  CHECK(sizes(10, 0.25, 0) == std::vector<size_t>{7, 3, 0});
  const std::vector<Token> tokens = counting(100);
  const Split split = split_tokens(tokens, 0.1, 0.1);
  CHECK(split.train.back() == 79);
  CHECK(split.validation.front() == 80);
  CHECK(split.test.front() == 90);
  CHECK_THROWS_WITH(sizes(100, 0, 0), ContainsSubstring("validation part above 0"));
  CHECK_THROWS_WITH(sizes(100, 1, 0), ContainsSubstring("something left to train on"));
}

TEST_CASE("random crops are shifted by one, in range, and continue from a saved offset", "[tools][text]") {
  const std::vector<Token> tokens = counting(20);
  RandomCrops crops(tokens, 16, 6, Generator(3));
  std::vector<int> starts(20, 0);
  uint64_t offset = 0;
  std::vector<int64_t> tenth;
  for (int i = 0; i < 50; ++i) {
    if (i == 10) offset = crops.generator().offset();
    const Batch batch = crops.next();
    const auto inputs = batch.tokens.to_vector<int64_t>(), targets = batch.targets.to_vector<int64_t>();
    if (i == 10) tenth = inputs;
    for (size_t k = 0; k < inputs.size(); ++k) {
      REQUIRE(inputs[k] == inputs[k / 6 * 6] + static_cast<int64_t>(k % 6));
      REQUIRE(targets[k] == inputs[k] + 1);
      REQUIRE(targets[k] < 20);
    }
    for (size_t row = 0; row < 16; ++row) ++starts[static_cast<size_t>(inputs[row * 6])];
  }
  for (int start = 0; start < 14; ++start) CHECK(starts[static_cast<size_t>(start)] > 20);  // 57 expected

  RandomCrops resumed(tokens, 16, 6, Generator(3, offset));
  CHECK(resumed.next().tokens.to_vector<int64_t>() == tenth);
}

TEST_CASE("streams read the text on from call to call, side by side, and begin anew together", "[tools][text]") {
  const std::vector<Token> tokens = counting(26);  // streams of (26 - 1) / 3 = 8 tokens: two pieces of 4
  Streams streams(tokens, 3, 4);
  std::vector<std::vector<int64_t>> pieces;
  for (int call = 0; call < 3; ++call) {
    CHECK(streams.at_beginning() == (call != 1));
    CHECK(streams.position() == call % 2);
    const Batch batch = streams.next();
    CHECK(batch.tokens.shape() == Shape{3, 4});
    pieces.push_back(batch.tokens.to_vector<int64_t>());
    const auto targets = batch.targets.to_vector<int64_t>();
    for (size_t i = 0; i < targets.size(); ++i) CHECK(targets[i] == pieces.back()[i] + 1);
  }
  CHECK(pieces[0] == std::vector<int64_t>{0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19});
  CHECK(pieces[1] == std::vector<int64_t>{4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23});
  CHECK(pieces[2] == pieces[0]);
  streams.set_position(1);
  CHECK(streams.next().tokens.to_vector<int64_t>() == pieces[1]);
  CHECK_THROWS_WITH(streams.set_position(2), ContainsSubstring("not one of the 2 pieces"));
  CHECK_THROWS_WITH(Streams(tokens, 3, 9), ContainsSubstring("too few for 3 streams of --context 9"));
}

TEST_CASE("windows cover the text once, without overlap", "[tools][text]") {
  const std::vector<Token> tokens = counting(111'540 % 65'536);
  CHECK(Windows(std::vector<Token>(111'540), 256, "validation").count() == 435);
  const Windows windows(tokens, 256, "validation");
  const Batch batch = windows.at(2, 3);
  CHECK(batch.tokens.shape() == Shape{3, 256});
  CHECK(batch.tokens.to_vector<int64_t>().front() == 512);
  CHECK(batch.targets.to_vector<int64_t>().back() == 5 * 256);
  CHECK_THROWS_WITH(windows.at(windows.count() - 1, 2), ContainsSubstring("windows: asked for"));
  CHECK(Windows(counting(257), 256, "validation").count() == 1);
}

TEST_CASE("a context longer than the data is an error with both numbers", "[tools][text]") {
  const std::vector<Token> tokens = counting(16);
  CHECK_THROWS_WITH(Windows(tokens, 16, "validation"),
                    ContainsSubstring("the validation text has 16 tokens and --context 16 needs at least 17"));
  CHECK_THROWS_WITH(RandomCrops(tokens, 1, 99, Generator(1)),
                    ContainsSubstring("the training text has 16 tokens and --context 99 needs at least 100"));
}

TEST_CASE("datasets are found in the data folder, $MONOID_DATA and the cache", "[tools][text]") {
  const TemporaryFolder folder;
  const ScopedVariable data("MONOID_DATA", folder / "data"), cache("XDG_CACHE_HOME", folder / "cache");
  CHECK_THROWS_WITH(load_dataset("shakespeare_char"),
                    ContainsSubstring("there is no tinyshakespeare.txt in " + (folder / "data").string() + ", " +
                                      (folder / "cache/monoid").string()));
  write_file(folder / "cache/monoid/tinyshakespeare.txt", "from the cache");
  CHECK(load_dataset("shakespeare_char").content == "from the cache");
  std::filesystem::create_directories(folder / "data/shakespeare_char");
  write_gzip(folder / "data/shakespeare_char/input.txt.gz", "from the variable");
  CHECK(load_dataset("shakespeare_char").content == "from the variable");
  write_file(folder / "mine/input.txt", "from the flag");
  CHECK(load_dataset("shakespeare_char", folder / "mine").content == "from the flag");

  write_file(folder / "data/enwik8_prefix", "<page>");
  const Text enwik8 = load_dataset("enwik8");
  CHECK(enwik8.kind == Kind::byte);
  CHECK(enwik8.validation_fraction == 0.1);

  CHECK_THROWS_WITH(load_dataset("shakespear"), ContainsSubstring("did you mean shakespeare_char?"));
}

TEST_CASE("monoid's own sources are a text, the same each time", "[tools][text]") {
  const Text text = load_dataset("source");
  CHECK(text.content.size() > 50'000);
  CHECK(text.content.find("// core/tensor.h\n") < text.content.find("// ops/registry.h\n"));
  CHECK(checksum(load_dataset("source").content) == checksum(text.content));
  const TemporaryFolder empty;
  const ScopedVariable elsewhere("MONOID_SOURCE", empty.path());
  CHECK_THROWS_WITH(load_dataset("source"), ContainsSubstring("holds no source files"));
}
