#include "monoid/core/tensor.h"

#include <cmath>
#include <numeric>

#include "monoid/core/random.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {
namespace {

Tensor counted(const Shape& shape, DType dtype = DType::f32) {
  return Tensor::arange(shape.elements()).view(shape).to(dtype);
}

// The same elements with gaps between them: every other column of a wider tensor, filled with another value.
Tensor spread(const Tensor& x) {
  Shape wide = x.shape();
  wide[-1] *= 2;
  const Tensor base = Tensor::full(wide, 99, x.dtype());
  Strides strides = contiguous_strides(wide);
  strides[-1] = 2;
  Tensor view = base.as_strided(x.shape(), strides, 0);
  view.copy_from(x);
  return view;
}

}  // namespace

TEST_CASE("factories fill what they say", "[tensor]") {
  CHECK(Tensor::zeros({2, 2}).to_vector<float>() == std::vector<float>(4, 0));
  CHECK(Tensor::ones({3}, DType::bf16).to_vector<double>() == std::vector<double>(3, 1));
  CHECK(Tensor::full({2}, -7, DType::i32).to_vector<int32_t>() == std::vector<int32_t>{-7, -7});
  CHECK(Tensor::full({2}, 3, DType::boolean).to_vector<bool>() == std::vector<bool>{true, true});
  CHECK(Tensor::arange(4, DType::f64).to_vector<double>() == std::vector<double>{0, 1, 2, 3});
  CHECK(Tensor::arange(0).elements() == 0);
  CHECK(Tensor::scalar(2.5).item() == 2.5);
  CHECK(Tensor::from(std::vector<uint8_t>{1, 2, 3, 4}, {2, 2}).to_vector<uint8_t>() ==
        std::vector<uint8_t>{1, 2, 3, 4});
  CHECK_THROWS_WITH(Tensor::from(std::vector<float>{1, 2}, {3}), ContainsSubstring("2 values do not fill shape [3]"));
  CHECK_THROWS_WITH(Tensor::empty({2, -1}), ContainsSubstring("negative extent in shape [2, -1]"));
}

TEST_CASE("an undefined tensor says so instead of crashing", "[tensor]") {
  const Tensor nothing;
  CHECK_FALSE(nothing.defined());
  CHECK_FALSE(nothing.requires_grad());
  CHECK(str(describe(nothing)) == "undefined");
  CHECK_THROWS_WITH(nothing.shape(), ContainsSubstring("used before it was defined"));
  CHECK_THROWS_WITH(check_defined("scan", "gates", nothing), ContainsSubstring("scan: gates is undefined"));
}

TEST_CASE("views share memory and see each other's writes", "[tensor]") {
  Tensor base = counted({3, 4});
  Tensor column = base.as_strided({3}, {4}, 2);
  CHECK(column.to_vector<float>() == std::vector<float>{2, 6, 10});
  CHECK_FALSE(column.is_contiguous());
  column.fill(-1);
  CHECK(base.to_vector<float>() == std::vector<float>{0, 1, -1, 3, 4, 5, -1, 7, 8, 9, -1, 11});
  CHECK(base.view({2, 6}).to_vector<float>() == base.to_vector<float>());
  CHECK(base.as_strided({2, 3}, {0, 1}, 4).to_vector<float>() == std::vector<float>{4, 5, -1, 4, 5, -1});
  CHECK(base.as_strided({4}, {-1}, 3).to_vector<float>() == std::vector<float>{3, -1, 1, 0});
  CHECK_FALSE(base.owns_storage_alone());
}

TEST_CASE("a view that would leave its storage is refused", "[tensor]") {
  const Tensor base = counted({3, 4});
  CHECK_THROWS_WITH(base.as_strided({4, 4}, {4, 1}, 0), ContainsSubstring("leaves its storage of 12 elements"));
  CHECK_THROWS_WITH(base.as_strided({4}, {1}, 9), ContainsSubstring("leaves its storage"));
  CHECK_THROWS_WITH(base.as_strided({2}, {-1}, 0), ContainsSubstring("leaves its storage"));
  CHECK_THROWS_WITH(base.as_strided({2}, {1, 1}, 0), ContainsSubstring("differ in rank"));
  CHECK_THROWS_WITH(base.view({5}), ContainsSubstring("does not hold the 12 elements of f32[3, 4]"));
  CHECK_THROWS_WITH(base.as_strided({4, 3}, {1, 4}, 0).view({12}), ContainsSubstring("not contiguous; clone() it"));
}

TEST_CASE("tensors without elements keep their shape through every copy", "[tensor]") {
  const Tensor empty = Tensor::empty({2, 0, 3});
  CHECK(empty.is_contiguous());
  CHECK(empty.detach().is_contiguous());
  CHECK(empty.as_strided({3, 0, 2}, {1, 3, 3}, 0).clone().shape() == Shape{3, 0, 2});
  CHECK(empty.to(DType::f64).shape() == empty.shape());
  CHECK(empty.view({0}).to_vector<float>().empty());
  CHECK(str(empty) == "f32[2, 0, 3] {}");
}

TEST_CASE("data is handed out as the stored type only", "[tensor]") {
  const Tensor x = counted({2}, DType::f64);
  CHECK(x.data<double>()[1] == 1);
  CHECK_THROWS_WITH(x.data<float>(), ContainsSubstring("data of f64[2] was asked for as f32"));
}

TEST_CASE("item is the one element, and an error for more or fewer", "[tensor]") {
  CHECK(Tensor::full({1, 1, 1}, 4, DType::bf16).item() == 4);
  CHECK(Tensor::full({}, 1, DType::boolean).item() == 1);
  CHECK_THROWS_WITH(Tensor::zeros({2}).item(), ContainsSubstring("item: f32[2] has 2 elements"));
  CHECK_THROWS_WITH(Tensor::zeros({0}).item(), ContainsSubstring("has 0 elements"));
}

TEST_CASE("dtypes convert: floats truncate to integers, anything but zero is true", "[tensor]") {
  const Tensor x = Tensor::from(std::vector<float>{-1.9f, 0.0f, 0.5f, 200.0f}, {4});
  CHECK(x.to(DType::i32).to_vector<int32_t>() == std::vector<int32_t>{-1, 0, 0, 200});
  CHECK(x.to(DType::i64).to_vector<int64_t>() == std::vector<int64_t>{-1, 0, 0, 200});
  CHECK(x.to(DType::boolean).to_vector<bool>() == std::vector<bool>{true, false, true, true});
  CHECK(x.to(DType::bf16).to(DType::f32).to_vector<float>()[0] == float(bfloat16(-1.9f)));
  CHECK(counted({3}).to(DType::u8).to_vector<uint8_t>() == std::vector<uint8_t>{0, 1, 2});
  CHECK(x.to(DType::f32).storage() == x.storage());
}

TEST_CASE("copy_from converts across every pair of dtypes and layouts", "[tensor]") {
  const auto dtypes = {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64, DType::u8};
  const Tensor values = counted({3, 5});
  for (DType from : dtypes) {
    for (DType to : dtypes) {
      const Tensor source = values.to(from);
      const Tensor transposed = source.as_strided({5, 3}, {1, 5}, 0);
      for (const Tensor& original : {source, spread(source), transposed, spread(transposed)}) {
        Tensor dense = Tensor::zeros(original.shape(), to);
        Tensor gaps = spread(dense);
        dense.copy_from(original);
        gaps.copy_from(original);
        CAPTURE(from, to, original.strides());
        CHECK(dense.to_vector<double>() == original.to_vector<double>());
        CHECK(gaps.to_vector<double>() == original.to_vector<double>());
        const Tensor between = gaps.as_strided(gaps.shape(), gaps.strides(), 1);
        CHECK(between.to_vector<double>() == std::vector<double>(15, 99));
      }
    }
  }
  Tensor x = counted({3});
  CHECK_THROWS_WITH(x.copy_from(counted({4})), ContainsSubstring("source f32[4] does not fit f32[3]"));
}

TEST_CASE("a copy of a large strided tensor is exact", "[tensor]") {
  Generator generator(3);
  const Tensor x = random_normal({257, 131}, generator);
  const Tensor transposed = x.as_strided({131, 257}, {1, 131}, 0).clone();
  REQUIRE(transposed.is_contiguous());
  test::check_identical(transposed.as_strided({257, 131}, {1, 257}, 0).clone(), x);
}

TEST_CASE("clone is independent, a handle is not", "[tensor]") {
  Tensor x = counted({3});
  const Tensor handle = x, copy = x.clone();
  x.fill(9);
  CHECK(handle.to_vector<float>() == std::vector<float>{9, 9, 9});
  CHECK(copy.to_vector<float>() == std::vector<float>{0, 1, 2});
}

TEST_CASE("a tensor prints its dtype, its shape and its edges", "[tensor]") {
  CHECK(str(counted({2, 2})) == "f32[2, 2] {0, 1, 2, 3}");
  CHECK(str(counted({8}, DType::i64)) == "i64[8] {0, 1, 2, 3, 4, 5, 6, 7}");
  CHECK(str(counted({10}, DType::i64)) == "i64[10] {0, 1, 2, 3, ..., 6, 7, 8, 9}");
  CHECK(str(counted({2, 3}).as_strided({3, 2}, {1, 3}, 0)) == "f32[3, 2] {0, 3, 1, 4, 2, 5}");
  CHECK(str(Tensor::scalar(0.5, DType::f64)) == "f64[] {0.5}");
  CHECK(str(Tensor()) == "undefined");
}

TEST_CASE("only floating-point leaves take a gradient, of their own shape", "[tensor]") {
  Tensor x = counted({2});
  CHECK_THROWS_WITH(counted({2}, DType::i64).set_requires_grad(), ContainsSubstring("i64[2] is not floating point"));
  CHECK_THROWS_WITH(x.set_grad(counted({3})), ContainsSubstring("gradient f32[3] does not fit f32[2]"));
  CHECK_FALSE(x.grad().defined());
  const Tensor gradient = Tensor::ones({2});
  x.accumulate_grad(gradient);
  x.accumulate_grad(Tensor::full({2}, 2));
  CHECK(x.grad().to_vector<float>() == std::vector<float>{3, 3});
  CHECK(gradient.to_vector<float>() == std::vector<float>{1, 1});
  x.clear_grad();
  CHECK_FALSE(x.grad().defined());
}

}  // namespace monoid
