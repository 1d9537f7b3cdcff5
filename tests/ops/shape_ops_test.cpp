#include "monoid/ops/shape_ops.h"

#include <functional>

#include "monoid/core/random.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid::test {
namespace {

// 0, 1, 2, ... in a shape: every element tells where it came from.
Tensor counting(const Shape& shape, DType dtype = DType::f32) {
  return Tensor::arange(shape.elements(), dtype).view(shape);
}

Tensor numbers(const std::vector<float>& values, const Shape& shape) { return Tensor::from(values, shape); }

// The gradient of <weights, f(x)> for weights 1, 2, 3, ...: a linear f shows its transpose.
Tensor gradient_of(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) {
  Tensor leaf = x.clone().set_requires_grad();
  Tape tape;
  const Tensor y = f(leaf);
  Tensor weights = counting(y.shape(), y.dtype());
  for (int64_t i = 0; i < weights.elements(); ++i) weights.data<float>()[i] += 1;
  tape.backward(y, weights);
  return leaf.grad();
}

bool shares_storage(const Tensor& a, const Tensor& b) { return a.storage() == b.storage(); }

}  // namespace

TEST_CASE("views share the storage of their tensor and read the right elements", "[shape]") {
  const Tensor x = counting({2, 3, 4});
  const std::vector<std::pair<Tensor, Tensor>> cases = {
      {reshape(x, {4, -1}), counting({4, 6})},
      {select(select(transpose(x, 0, 2), 0, 1), 0, -1), numbers({9, 21}, {2})},
      {select(permute(x, {1, 2, 0}), 1, 3), numbers({3, 15, 7, 19, 11, 23}, {3, 2})},
      {slice(x, -1, 1, 3), numbers({1, 2, 5, 6, 9, 10, 13, 14, 17, 18, 21, 22}, {2, 3, 2})},
      {slice(slice(x, 2, -1, 4), 1, 0, -2), numbers({3, 15}, {2, 1, 1})},
      {expand(slice(slice(x, 2, 0, 1), 1, 0, 1), {2, 2, 2}), numbers({0, 0, 0, 0, 12, 12, 12, 12}, {2, 2, 2})},
      {squeeze(unsqueeze(x, 1), -3), x},
      {unsqueeze(x, -1), counting({2, 3, 4, 1})},
      {split(x, 1, {1, 0, 2})[2], slice(x, 1, 1, 3)},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(i);
    CHECK(shares_storage(cases[i].first, x));
    check_identical(cases[i].first, cases[i].second);
  }
  Tensor written = slice(x, 0, 1, 2);
  written.fill(-1);
  CHECK(x.to_vector<float>()[12] == -1);
}

TEST_CASE("reshape is a view exactly where the strides allow one, and always right", "[shape]") {
  const Tensor x = counting({4, 6, 2});
  struct Case {
    Tensor x;
    Shape shape;
    bool view;
  };
  const std::vector<Case> cases = {
      {x, {48}, true},
      {x, {2, 2, 3, 2, 2, 1}, true},
      {slice(x, 0, 1, 3), {24}, true},
      {slice(x, 1, 0, 4), {4, 8}, true},
      {slice(x, 1, 0, 4), {2, 2, 4, 2}, true},
      {slice(x, 1, 0, 4), {32}, false},
      {slice(x, 2, 0, 1), {24}, true},  // every second element
      {slice(x, 2, 0, 1), {4, 1, 2, 3}, true},
      {transpose(x, 0, 1), {6, 4, 1, 2}, true},
      {transpose(x, 0, 1), {3, 2, 2, 2, 2}, true},
      {transpose(x, 0, 1), {24, 2}, false},
      {transpose(x, 1, 2), {4, 12}, false},
      {expand(unsqueeze(slice(x, 2, 0, 1), 0), {3, 4, 6, 1}), {3, 24}, true},
      {expand(unsqueeze(slice(x, 2, 0, 1), 0), {3, 4, 6, 1}), {72}, false},
      {expand(Tensor::scalar(7), {4, 5}), {20}, true},
      {slice(transpose(x, 0, 2), 1, 2, 2), {0, 9}, true},
      {Tensor::scalar(3), {1, 1}, true},
      {slice(slice(slice(transpose(x, 0, 1), 0, 5, 6), 1, 3, 4), 2, 1, 2), {}, true},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    const Tensor y = reshape(cases[i].x, cases[i].shape);
    CAPTURE(i, y.strides());
    CHECK(shares_storage(y, cases[i].x) == cases[i].view);
    check_identical(y, cases[i].x.clone().view(cases[i].shape));
  }
}

TEST_CASE("a view does not touch the tensor it came from", "[shape]") {
  Tensor x = counting({3, 2}).set_requires_grad();
  Tape tape;
  const Tensor same = reshape(x, {3, 2});
  CHECK(same.requires_grad());
  tape.backward(slice(same, 0, 1, 2), Tensor::ones({1, 2}));
  check_identical(x.grad(), numbers({0, 0, 1, 1, 0, 0}, {3, 2}));
  CHECK(x.grad().storage() != x.storage());
}

TEST_CASE("gradients run through chains of views", "[shape]") {
  const Tensor x = counting({2, 3, 4});
  const auto chain = [](const Tensor& t) {
    return reshape(select(transpose(slice(t, 2, 1, 4), 0, 1), 0, 2), {-1});  // t[0:2, 2, 1:4] in a row
  };
  Tensor expected = Tensor::zeros({2, 3, 4});
  for (int64_t i = 0; i < 6; ++i) expected.data<float>()[i / 3 * 12 + 8 + 1 + i % 3] = static_cast<float>(i + 1);
  check_identical(gradient_of(x, chain), expected);
  const auto repeated = [](const Tensor& t) { return reshape(expand(unsqueeze(t, 0), {3, 2}), {6}); };
  check_identical(gradient_of(Tensor::zeros({2}), repeated), numbers({1 + 3 + 5, 2 + 4 + 6}, {2}));
  const auto overlapping = [](const Tensor& t) { return concat({slice(t, 0, 0, 2), slice(t, 0, 1, 3)}, 0); };
  check_identical(gradient_of(Tensor::zeros({3}), overlapping), numbers({1, 2 + 3, 4}, {3}));
}

TEST_CASE("concat and stack put tensors side by side, split takes them apart", "[shape]") {
  const Tensor a = counting({2, 2}), b = counting({2, 1}), none = Tensor::zeros({2, 0});
  check_identical(concat({a, none, b}, 1), numbers({0, 1, 0, 2, 3, 1}, {2, 3}));
  check_identical(concat({a, transpose(a, 0, 1)}, 0), numbers({0, 1, 2, 3, 0, 2, 1, 3}, {4, 2}));
  check_identical(stack({a, a}, -1), numbers({0, 0, 1, 1, 2, 2, 3, 3}, {2, 2, 2}));
  check_identical(stack({Tensor::scalar(1), Tensor::scalar(2)}, 0), numbers({1, 2}, {2}));
  const Tensors many(20, Tensor::full({1}, 3, DType::i64));
  check_identical(concat(many, 0), Tensor::full({20}, 3, DType::i64));
  const Tensors pieces = split(concat(many, 0), 0, std::vector<int64_t>(20, 1));
  REQUIRE(pieces.size() == 20);
  check_identical(pieces[19], many[19]);
}

TEST_CASE("flip and pad move and add elements, whatever the strides", "[shape]") {
  const Tensor x = counting({2, 3});
  check_identical(flip(x, 1), numbers({2, 1, 0, 5, 4, 3}, {2, 3}));
  check_identical(flip(transpose(x, 0, 1), 0), numbers({2, 5, 1, 4, 0, 3}, {3, 2}));
  check_identical(flip(flip(x, 0), 0), x);
  CHECK_FALSE(shares_storage(flip(x, 0), x));
  CHECK(flip(Tensor::zeros({0, 2}), 0).shape() == Shape{0, 2});
  check_identical(pad(x, 1, 1, 2, 9), numbers({9, 0, 1, 2, 9, 9, 9, 3, 4, 5, 9, 9}, {2, 6}));
  check_identical(pad(transpose(x, 0, 1), 0, 1, 0), numbers({0, 0, 0, 3, 1, 4, 2, 5}, {4, 2}));
  check_identical(pad(Tensor::ones({1}, DType::i32), 0, 1, 0, -2), Tensor::from(std::vector<int32_t>{-2, 1}, {2}));
  check_identical(pad(x, 0, 0, 0), x);
}

TEST_CASE("contiguous copies only what is not", "[shape]") {
  const Tensor x = counting({2, 3});
  CHECK(shares_storage(contiguous(x), x));
  CHECK(shares_storage(contiguous(slice(x, 0, 1, 2)), x));
  const Tensor y = contiguous(transpose(x, 0, 1));
  CHECK(y.is_contiguous());
  check_identical(y, numbers({0, 3, 1, 4, 2, 5}, {3, 2}));
}

TEST_CASE("copies of permuted tensors put every element in its place", "[shape]") {
  for (const Shape& shape :
       {Shape{2, 2, 2}, Shape{1, 70, 33}, Shape{37, 1, 65}, Shape{3, 5, 7}, Shape{130, 9, 2}, Shape{4, 0, 3}}) {
    for (const std::vector<int>& axes : std::vector<std::vector<int>>{{0, 2, 1}, {1, 0, 2}, {2, 1, 0}, {1, 2, 0}}) {
      CAPTURE(shape, axes);
      const Tensor x = counting(shape), y = permute(x, axes), copy = contiguous(y);
      REQUIRE(copy.is_contiguous());
      const Strides steps = contiguous_strides(y.shape());
      int64_t wrong = 0;
      for (int64_t n = 0; n < y.elements(); ++n) {
        int64_t from = 0;
        for (int i = 0; i < 3; ++i) from += n / steps[i] % y.size(i) * y.strides()[i];
        wrong += copy.data<float>()[n] != static_cast<float>(from);
      }
      CHECK(wrong == 0);
      Tensor back = Tensor::zeros(shape);
      Tensor back_view = permute(back, axes);
      back_view.copy_from(copy);  // dense reads, strided writes
      check_identical(back, x);
    }
  }
}

TEST_CASE("gather reads along an axis, for any shape, layout and integer type", "[shape][gather]") {
  Generator generator(8);
  for (const auto& [shape, axis, count] :
       {std::tuple{Shape{7}, 0, 3}, std::tuple{Shape{5, 33}, 1, 70}, std::tuple{Shape{300, 3}, 0, 301},
        std::tuple{Shape{4, 5, 6}, 1, 1}, std::tuple{Shape{2, 4000}, 1, 4099}, std::tuple{Shape{3, 2, 4}, 0, 0}}) {
    CAPTURE(shape, axis, count);
    const Tensor index = random_integers(shape.with(axis, count), generator, shape[axis]);
    const Tensor x = counting(shape);
    Tensor expected = Tensor::empty(index.shape());
    Tensor expected_gradient = Tensor::zeros(shape);
    const Strides steps = contiguous_strides(shape), index_steps = contiguous_strides(index.shape());
    for (int64_t n = 0; n < index.elements(); ++n) {
      int64_t from = index.data<int64_t>()[n] * steps[axis];
      for (int i = 0; i < shape.rank(); ++i) {
        if (i != axis) from += n / index_steps[i] % index.size(i) * steps[i];
      }
      expected.data<float>()[n] = x.data<float>()[from];
      expected_gradient.data<float>()[from] += static_cast<float>(n + 1);
    }
    check_identical(gather(x, axis, index), expected);
    check_identical(gather(x, axis - shape.rank(), index.to(DType::i32)), expected);
    // The same through a tensor whose axes lie the other way round.
    const int last = shape.rank() - 1;
    const Tensor turned = transpose(contiguous(transpose(x, 0, last)), 0, last);
    check_identical(gather(turned, axis, index), expected);
    check_close(gradient_of(x, [&, at = axis](const Tensor& t) { return gather(t, at, index); }), expected_gradient,
                1e-6);
  }
  check_identical(gather(counting({2, 2}, DType::u8), 0, Tensor::ones({1, 2}, DType::i64)),
                  Tensor::from(std::vector<uint8_t>{2, 3}, {1, 2}));
}

TEST_CASE("an index outside gather's axis is an error that names value and position", "[shape][gather]") {
  const Tensor x = counting({2, 3});
  const auto index = [](int64_t bad) { return Tensor::from(std::vector<int64_t>{0, 1, 2, bad}, {2, 2}); };
  CHECK_THROWS_WITH(gather(x, 1, index(3)), ContainsSubstring("gather: index 3 at [1, 1] of i64[2, 2] is outside axis "
                                                              "1 of f32[2, 3]; wanted 0 to 2"));
  CHECK_THROWS_WITH(gather(x, 1, index(-1)), ContainsSubstring("index -1 at [1, 1]"));
  CHECK_THROWS_WITH(gather(x, 0, index(0)), ContainsSubstring("only axis 0 may differ"));
  CHECK_THROWS_WITH(gather(x, 1, Tensor::zeros({2, 2})), ContainsSubstring("wants i32 or i64 indices, got f32"));
  CHECK_THROWS_WITH(gather(x, 2, index(0)), ContainsSubstring("gather: axis 2 is out of range for f32[2, 3]"));
}

TEST_CASE("a shape op that cannot be done names the op, the tensor and the reason", "[shape]") {
  const Tensor x = counting({2, 3});
  CHECK_THROWS_WITH(reshape(x, {4}), ContainsSubstring("reshape: [4] has 4 elements, f32[2, 3] has 6"));
  CHECK_THROWS_WITH(reshape(x, {-1, -1}), ContainsSubstring("more than one -1"));
  CHECK_THROWS_WITH(reshape(x, {4, -1}), ContainsSubstring("no extent in place of -1"));
  CHECK_THROWS_WITH(reshape(Tensor::zeros({0}), {0, -1}), ContainsSubstring("no extent in place of -1"));
  CHECK_THROWS_WITH(reshape(x, {-2, -3}), ContainsSubstring("negative extent"));
  CHECK_THROWS_WITH(transpose(x, 0, 2), ContainsSubstring("transpose: axis 2 is out of range for f32[2, 3]"));
  CHECK_THROWS_WITH(permute(x, {0}), ContainsSubstring("permute: 1 axes for f32[2, 3]"));
  CHECK_THROWS_WITH(permute(x, {0, -2}), ContainsSubstring("axis 0 of f32[2, 3] is named twice"));
  CHECK_THROWS_WITH(slice(x, 1, 2, 4), ContainsSubstring("slice: [2, 4) is not a range of axis 1 of f32[2, 3]"));
  CHECK_THROWS_WITH(slice(x, 1, 2, 1), ContainsSubstring("is not a range"));
  CHECK_THROWS_WITH(slice(x, 1, -4, 1), ContainsSubstring("is not a range"));
  CHECK_THROWS_WITH(select(x, 0, 2), ContainsSubstring("select: index 2 is outside axis 0 of f32[2, 3]"));
  CHECK_THROWS_WITH(select(Tensor::scalar(1), 0, 0), ContainsSubstring("axis 0 is out of range for f32[]"));
  CHECK_THROWS_WITH(expand(x, {2, 4}), ContainsSubstring("expand: f32[2, 3] does not repeat to [2, 4]"));
  CHECK_THROWS_WITH(expand(x, {3}), ContainsSubstring("has fewer axes"));
  CHECK_THROWS_WITH(squeeze(x, 0), ContainsSubstring("squeeze: axis 0 of f32[2, 3] has extent 2, wanted 1"));
  CHECK_THROWS_WITH(unsqueeze(x, 3), ContainsSubstring("unsqueeze: axis 3"));
  CHECK_THROWS_WITH(split(x, 1, {1, 1}), ContainsSubstring("split: the pieces add up to 2, axis 1"));
  CHECK_THROWS_WITH(split(x, 1, {2, 2}), ContainsSubstring("split: a piece of 2 from 2 leaves axis 1"));
  CHECK_THROWS_WITH(concat({}, 0), ContainsSubstring("concat: no tensors"));
  CHECK_THROWS_WITH(concat({x, counting({3, 3})}, 1), ContainsSubstring("f32[3, 3] does not continue f32[2, 3]"));
  CHECK_THROWS_WITH(concat({x, x.to(DType::f64)}, 1), ContainsSubstring("concat: "));
  CHECK_THROWS_WITH(stack({x, counting({3, 2})}, 0), ContainsSubstring("stack: f32[3, 2] has not the shape of"));
  CHECK_THROWS_WITH(pad(x, 0, -1, 0), ContainsSubstring("pad: cannot add -1 and 0 elements to f32[2, 3]"));
  CHECK_THROWS_WITH(flip(Tensor(), 0), ContainsSubstring("flip: x is undefined"));
}

}  // namespace monoid::test
