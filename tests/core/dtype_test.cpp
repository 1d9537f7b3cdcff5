#include "monoid/core/dtype.h"

#include <cmath>
#include <limits>

#include "monoid/tests/support/catch.h"

namespace monoid {
namespace {

constexpr uint32_t kNumbers = 1 << 16;

float value_of(uint32_t bits) { return std::bit_cast<float>(bits << 16); }
uint32_t rounded(float value) { return bfloat16(value).bits; }

}  // namespace

TEST_CASE("every bf16 number survives the way to f32 and back", "[dtype]") {
  uint32_t mismatches = 0;
  for (uint32_t bits = 0; bits < kNumbers; ++bits) {
    const float wide = value_of(bits);
    const bool same = std::isnan(wide) ? std::isnan(value_of(rounded(wide))) : rounded(wide) == bits;
    if (!same && ++mismatches < 4) FAIL_CHECK(str(wide, " with bits ", bits, " became ", rounded(wide)));
  }
  CHECK(mismatches == 0);
}

TEST_CASE("f32 rounds to the nearest bf16, ties to the even one, over all gaps between neighbours", "[dtype]") {
  uint32_t mismatches = 0;
  for (uint32_t bits = 0; bits < kNumbers; ++bits) {
    if (!std::isfinite(value_of(bits))) continue;
    const uint32_t low = bits << 16, even = bits % 2 == 0 ? bits : bits + 1;
    const bool right = rounded(std::bit_cast<float>(low + 0x7fff)) == bits &&
                       rounded(std::bit_cast<float>(low + 0x8000)) == even &&
                       rounded(std::bit_cast<float>(low + 0x8001)) == bits + 1;
    if (!right && ++mismatches < 4) FAIL_CHECK(str("around ", value_of(bits), " with bits ", bits));
  }
  CHECK(mismatches == 0);
}

TEST_CASE("bf16 keeps NaN, infinity and the sign of zero", "[dtype]") {
  CHECK(rounded(INFINITY) == 0x7f80);
  CHECK(rounded(-INFINITY) == 0xff80);
  CHECK(rounded(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(rounded(-0.0f) == 0x8000);
  CHECK(rounded(std::bit_cast<float>(1u)) == 0);
  // A NaN whose payload lies in the dropped half must not turn into an infinity.
  for (uint32_t nan : {0x7f800001u, 0xff800001u, 0x7fffffffu, 0x7fc00000u}) {
    CAPTURE(nan);
    CHECK(std::isnan(value_of(rounded(std::bit_cast<float>(nan)))));
  }
}

TEST_CASE("dtypes are read by both of their names and printed by the short one", "[dtype]") {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64, DType::u8, DType::boolean}) {
    CHECK(parse_dtype(name(dtype)) == dtype);
    CHECK(str(dtype) == name(dtype));
    dispatch_any(dtype, [&]<class T>() {
      CHECK(dtype_of<T> == dtype);
      CHECK(sizeof(T) == size_of(dtype));
    });
  }
  CHECK(parse_dtype("bfloat16") == DType::bf16);
  CHECK_THROWS_WITH(parse_dtype("f16"), ContainsSubstring("use f32, f64, bf16"));
}

TEST_CASE("dispatch names the op, the dtype it saw and the cure", "[dtype]") {
  CHECK_THROWS_WITH(dispatch_real("exp", DType::bf16, []<class T>() {}),
                    ContainsSubstring("exp: computes in f32 or f64, got bf16; cast() it first"));
  CHECK_THROWS_WITH(dispatch_index("gather", DType::f32, []<class T>() {}),
                    ContainsSubstring("gather: wants i32 or i64 indices, got f32"));
}

}  // namespace monoid
