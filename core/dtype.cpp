#include "monoid/core/dtype.h"

#include <array>
#include <ostream>

namespace monoid {
namespace {

struct Names {
  DType dtype;
  const char* name;
  const char* long_name;
};

constexpr std::array<Names, 7> kNames{{{DType::f32, "f32", "float32"},
                                       {DType::f64, "f64", "float64"},
                                       {DType::bf16, "bf16", "bfloat16"},
                                       {DType::i32, "i32", "int32"},
                                       {DType::i64, "i64", "int64"},
                                       {DType::u8, "u8", "uint8"},
                                       {DType::boolean, "bool", "boolean"}}};

}  // namespace

const char* name(DType dtype) {
  for (const Names& entry : kNames) {
    if (entry.dtype == dtype) return entry.name;
  }
  return "?";
}

std::ostream& operator<<(std::ostream& stream, DType dtype) { return stream << name(dtype); }

DType parse_dtype(std::string_view text) {
  for (const Names& entry : kNames) {
    if (text == entry.name || text == entry.long_name) return entry.dtype;
  }
  fail("dtype: '", text, "' is not a dtype; use f32, f64, bf16, i32, i64, u8 or bool");
}

}  // namespace monoid
