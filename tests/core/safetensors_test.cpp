#include "monoid/core/safetensors.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "monoid/core/random.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/support/temporary_folder.h"

namespace monoid {
namespace {

std::string with_length(const std::string& header, const std::string& data = "") {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + header + data;
}

std::string one_tensor(const std::string& fields) { return "{\"w\":{" + fields + "}}"; }

// Files by their bytes: what a test writes and what read_safetensors makes of it.
class File {
 public:
  explicit File(const std::string& bytes) {
    std::ofstream stream(path_, std::ios::binary);
    stream << bytes;
  }
  SafeTensors read() const { return read_safetensors(path_); }

 private:
  test::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "weights.safetensors";
};

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

SafeTensors written_and_read(const SafeTensors& content) {
  const test::TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors", content);
  return read_safetensors(folder / "x.safetensors");
}

}  // namespace

TEST_CASE("tensors of every dtype and shape come back bit for bit", "[safetensors]") {
  Generator generator(1);
  const float nan = std::nanf("0x123");
  SafeTensors content;
  content.tensors = {{"f32", random_normal({3, 5}, generator)},
                     {"f64", random_normal({2, 1, 2}, generator, 0, 1, DType::f64)},
                     {"bf16", random_normal({7}, generator).to(DType::bf16)},
                     {"i32", Tensor::from<int32_t>(std::vector<int32_t>{-1, 2147483647, -2147483647 - 1}, {3})},
                     {"i64", random_integers({4}, generator, int64_t{1} << 40)},
                     {"u8", Tensor::full({5}, 255, DType::u8)},
                     {"bool", Tensor::full({3}, 1, DType::boolean)},
                     {"rank 0", Tensor::scalar(2.5)},
                     {"zero elements", Tensor::empty({3, 0, 2})},
                     {"special", Tensor::from<float>(std::vector<float>{nan, INFINITY, -INFINITY, -0.0f}, {4})},
                     {"", Tensor::scalar(1)},
                     {"a \"name\"\n\xc3\xa9", Tensor::scalar(2)}};
  content.metadata = {{"source", "a test"}, {"q\"", "line\nline"}};
  const SafeTensors again = written_and_read(content);
  REQUIRE(again.tensors.size() == content.tensors.size());
  for (const auto& [name, tensor] : content.tensors) {
    CAPTURE(name);
    REQUIRE(again.tensors.contains(name));
    const Tensor& read = again.tensors.at(name);
    CHECK(str(describe(read)) == str(describe(tensor)));
    CHECK(std::memcmp(read.raw(), tensor.raw(), tensor.bytes()) == 0);
  }
  CHECK(again.metadata ==
        std::map<std::string, std::string>{{"format", "pt"}, {"source", "a test"}, {"q\"", "line\nline"}});
}

TEST_CASE("strided and offset views are written as their elements", "[safetensors]") {
  const Tensor base = Tensor::arange(24, DType::f32).view({4, 6});
  const SafeTensors again = written_and_read(
      {{{"transposed", base.as_strided({6, 4}, {1, 6}, 0)}, {"row", base.as_strided({6}, {1}, 12)}}, {}});
  CHECK(again.tensors.at("transposed").to_vector<float>()[1] == 6);
  test::check_identical(again.tensors.at("transposed"), base.as_strided({6, 4}, {1, 6}, 0).clone());
  CHECK(again.tensors.at("row").to_vector<float>() == std::vector<float>{12, 13, 14, 15, 16, 17});
}

TEST_CASE("no tensors at all is a legal file", "[safetensors]") {
  CHECK(written_and_read({}).tensors.empty());
  CHECK(File(with_length("{}")).read().tensors.empty());
  CHECK(File(with_length("{\"__metadata__\":{}}   ")).read().metadata.empty());
}

TEST_CASE("the file is laid out by falling alignment, then by name, from a multiple of 256 bytes", "[safetensors]") {
  const test::TemporaryFolder folder;
  write_safetensors(folder / "x", {{{"b", Tensor::full({1}, 1, DType::u8)},
                                    {"a", Tensor::full({3}, 1, DType::u8)},
                                    {"z", Tensor::full({1}, 1, DType::f64)},
                                    {"m", Tensor::full({1}, 1, DType::bf16)}},
                                   {}});
  const std::string bytes = bytes_of(folder / "x");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  CHECK((length + 8) % 256 == 0);
  const std::string expected =
      "{\"__metadata__\":{\"format\":\"pt\"},"
      "\"z\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]},"
      "\"m\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[8,10]},"
      "\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[10,13]},"
      "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[13,14]}}";
  CHECK(bytes.substr(8, expected.size()) == expected);
  CHECK(bytes.find_first_not_of(' ', 8 + expected.size()) == 8 + length);
  CHECK(bytes.size() == 8 + length + 14);
}

TEST_CASE("every half-precision number widens exactly", "[safetensors]") {
  std::string data;
  for (int bits = 0; bits < 1 << 16; ++bits) data += {static_cast<char>(bits), static_cast<char>(bits >> 8)};
  const SafeTensors content =
      File(with_length(one_tensor(R"("dtype":"F16","shape":[65536],"data_offsets":[0,131072])"), data)).read();
  const Tensor wide = content.tensors.at("w");
  REQUIRE(wide.dtype() == DType::f32);
  int mismatches = 0;
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const float sign = bits >> 15 ? -1.0f : 1.0f;
    float expected = std::ldexp(static_cast<float>(exponent ? fraction + 1024 : fraction), std::max(exponent, 1) - 25);
    if (exponent == 31) expected = fraction ? NAN : INFINITY;
    const float value = wide.data<float>()[bits];
    const bool same = std::isnan(expected) ? std::isnan(value)
                                           : value == sign * expected && std::signbit(value) == std::signbit(sign);
    if (!same && ++mismatches < 4) FAIL_CHECK(str("half ", bits, " became ", value, " instead of ", sign * expected));
  }
  CHECK(mismatches == 0);
}

TEST_CASE("a failed write is an error and the file that was there stays whole", "[safetensors]") {
  const test::TemporaryFolder folder;
  const auto path = folder / "x";
  write_safetensors(path, {{{"w", Tensor::full({2}, 7)}}, {}});
  CHECK_THROWS_WITH(write_safetensors(path, {{{"__metadata__", Tensor::scalar(1)}}, {}}),
                    ContainsSubstring("rename it"));
  CHECK_THROWS_WITH(write_safetensors(path, {{{"w", Tensor()}}, {}}), ContainsSubstring("'w' is undefined"));
  CHECK_THROWS_WITH(write_safetensors(path, {{{"w\xff", Tensor::scalar(1)}}, {}}), ContainsSubstring("not UTF-8"));
  CHECK_THROWS_WITH(write_safetensors(path, {{}, {{"k", "\xc3"}}}), ContainsSubstring("not UTF-8"));
  CHECK_THROWS_WITH(write_safetensors(folder / "absent" / "x", {}), ContainsSubstring("create its folder"));
  CHECK(read_safetensors(path).tensors.at("w").to_vector<float>() == std::vector<float>{7, 7});
}

TEST_CASE("a path that is no file is refused", "[safetensors]") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH(read_safetensors(folder / "absent"),
                    ContainsSubstring("absent") && ContainsSubstring("no such file"));
  CHECK_THROWS_WITH(read_safetensors(folder.path()), ContainsSubstring("not a file"));
}

TEST_CASE("each broken rule of the format is an error that names the file, the tensor and the rule", "[safetensors]") {
  const std::string good = R"("dtype":"U8","shape":[2],"data_offsets":[0,2])";
  const std::string entry = "{" + good + "}";
  struct Bad {
    std::string bytes, message;
  };
  const auto tensor = [](const std::string& fields, const std::string& message) {
    return Bad{with_length(one_tensor(fields), "12"), message};
  };
  const auto header = [](const std::string& text, const std::string& message) {
    return Bad{with_length(text, "12"), message};
  };
  std::string too_long(8, '\0'), deep(100'000, '[');
  too_long[3] = 6;  // 6 << 24 = 100,663,296
  const std::vector<Bad> all = {
      {"", "0 bytes, too few"},
      {"1234567", "7 bytes, too few"},
      {std::string(8, '\0'), "does not begin with '{'"},
      {std::string(8, '\xff') + "{}", "over the format's limit of 100000000"},
      {too_long + "{}", "claims 100663296 bytes, over the format's limit"},
      {std::string("\x03\0\0\0\0\0\0\0{}", 10), "claims 3 bytes, but only 2 follow"},
      header("", "does not begin with '{'"),
      header(" {}", "does not begin with '{'"),
      header("\xef\xbb\xbf{}", "does not begin with '{'"),
      header("[]", "does not begin with '{'"),
      header("{", "not JSON"),
      header("{}{}", "not JSON"),
      header("{} x", "not JSON"),
      header(std::string("{}\0", 3), "zero byte"),
      header("{/**/}", "not JSON"),
      header("{\"w\":" + entry + ",}", "not JSON"),
      header("{'w':1}", "not JSON"),
      header("{\"w\xff\":" + entry + "}", "not JSON"),
      header("{\"\\ud800\":" + entry + "}", "not JSON"),
      header("{\"w\":" + entry + ",\"w\":" + entry + "}", "names 'w' twice"),
      header("{\"w\":" + entry + ",\"\\u0077\":" + entry + "}", "names 'w' twice"),
      header(R"({"__metadata__":{},"__metadata__":{}})", "names '__metadata__' twice"),
      header(R"({"__metadata__":{"a":"1","a":"2"}})", "metadata names 'a' twice"),
      header(R"({"__metadata__":{"a":1}})", "metadata 'a' is the number 1, wanted text"),
      header(R"({"__metadata__":{"a":{}}})", "metadata 'a' is an object, wanted text"),
      header(R"({"__metadata__":{"a":["b"]}})", "metadata 'a' is an array, wanted text"),
      header(R"({"__metadata__":{"a":null}})", "metadata 'a' is null, wanted text"),
      header(R"({"__metadata__":"x"})", "'__metadata__' is the text 'x', wanted an object"),
      header(R"({"w":1})", "'w' is the number 1, wanted an object"),
      header(R"({"w":null})", "'w' is null, wanted an object"),
      header("{\"w\":" + deep, "'w' is an array, wanted an object"),
      tensor(R"("dtype":"U8","shape":)" + deep, "'shape' holds an array"),
      tensor(R"("dtype":{"a":1},"shape":[2],"data_offsets":[0,2])", "'dtype' holds an object"),
      tensor(R"("dtype":8,"shape":[2],"data_offsets":[0,2])", "'dtype' holds the number 8, wanted text"),
      tensor(R"("shape":[2],"data_offsets":[0,2])", "tensor 'w' has no dtype"),
      tensor(R"("dtype":"U8","data_offsets":[0,2])", "tensor 'w' has no shape"),
      tensor(R"("dtype":"U8","shape":[2])", "tensor 'w' has no data_offsets"),
      tensor(good + R"(,"strides":[1])", "unknown key 'strides'"),
      tensor(good + R"(,"dtype":"U8")", "'w' names 'dtype' twice"),
      tensor(good + R"(,"shape":[2])", "'w' names 'shape' twice"),
      tensor(R"("dtype":"I16","shape":[1],"data_offsets":[0,2])", "dtype 'I16', which monoid does not store"),
      tensor(R"("dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2])", "dtype 'F8_E4M3'"),
      tensor(R"("dtype":"u8","shape":[2],"data_offsets":[0,2])", "dtype 'u8'"),
      tensor(R"("dtype":"U8","shape":[-2],"data_offsets":[0,2])", "'shape' holds the number -2"),
      tensor(R"("dtype":"U8","shape":[2.0],"data_offsets":[0,2])", "'shape' holds the number '2.0'"),
      tensor(R"("dtype":"U8","shape":[1e400],"data_offsets":[0,2])", "not JSON"),
      tensor(R"("dtype":"U8","shape":[99999999999999999999999],"data_offsets":[0,2])", "'shape' holds the number"),
      tensor(R"("dtype":"U8","shape":["2"],"data_offsets":[0,2])", "'shape' holds the text '2'"),
      tensor(R"("dtype":"U8","shape":[true],"data_offsets":[0,2])", "'shape' holds true"),
      tensor(R"("dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,2])", "overflows 64 bits"),
      tensor(R"("dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,2])", "overflows 64 bits"),
      tensor(R"("dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0])", "overflows 64 bits"),
      tensor(R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,2])", "rank 9, over the limit of 8"),
      tensor(R"("dtype":"U8","shape":[2],"data_offsets":[2,0])", "run backwards"),
      tensor(R"("dtype":"U8","shape":[2],"data_offsets":[0])", "has 1 data_offsets, wanted 2"),
      tensor(R"("dtype":"U8","shape":[2],"data_offsets":[])", "has 0 data_offsets, wanted 2"),
      tensor(R"("dtype":"U8","shape":[2],"data_offsets":[0,1,2])", "has 3 data_offsets, wanted 2"),
      tensor(R"("dtype":"U8","shape":[3],"data_offsets":[0,2])", "U8[3] needs 3 bytes, but its data_offsets span 2"),
      tensor(R"("dtype":"U8","shape":[1],"data_offsets":[0,1])", "cover 1 bytes of data, but the file holds 2"),
      tensor(R"("dtype":"U8","shape":[3],"data_offsets":[0,3])", "cover 3 bytes of data, but the file holds 2"),
      tensor(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])", "begins at byte 1 of the data, leaving a hole"),
      tensor(R"("dtype":"U8","shape":[2],"data_offsets":[18446744073709551613,18446744073709551615])", "a hole"),
      tensor(R"("dtype":"BOOL","shape":[2],"data_offsets":[0,2])", "bytes other than 0 and 1"),
      header("{\"v\":" + entry + ",\"w\":" + entry + "}", "inside the tensor before it"),
      {with_length("{}", "1"), "cover 0 bytes of data, but the file holds 1"},
  };
  for (const Bad& bad : all) {
    CAPTURE(bad.bytes.substr(0, 200));
    CHECK_THROWS_WITH(File(bad.bytes).read(),
                      ContainsSubstring(bad.message) && ContainsSubstring("weights.safetensors"));
  }
}

}  // namespace monoid
