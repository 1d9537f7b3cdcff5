#include "monoid/core/shape.h"

#include "monoid/tests/support/catch.h"

namespace monoid {

TEST_CASE("axes count from both ends and are checked", "[shape]") {
  const Shape shape{2, 3, 5};
  CHECK(shape[0] == 2);
  CHECK(shape[-1] == 5);
  CHECK(shape.back() == 5);
  CHECK(shape.resolve(-3) == 0);
  CHECK_THROWS_WITH(shape[3], ContainsSubstring("axis 3 is out of range for [2, 3, 5] of rank 3"));
  CHECK_THROWS_WITH(shape[-4], ContainsSubstring("axis -4"));
  CHECK_THROWS_WITH(Shape{}[0], ContainsSubstring("rank 0"));
}

TEST_CASE("elements multiply, and more than 64 bits is an error", "[shape]") {
  CHECK(Shape{}.elements() == 1);
  CHECK(Shape{2, 3, 5}.elements() == 30);
  CHECK(Shape{2, 0, 5}.elements() == 0);
  CHECK_THROWS_WITH((Shape{int64_t{1} << 32, int64_t{1} << 32}).elements(), ContainsSubstring("64 bits"));
  CHECK_THROWS_WITH(contiguous_strides({0, int64_t{1} << 32, int64_t{1} << 32}), ContainsSubstring("64 bits"));
}

TEST_CASE("shapes are edited by axis", "[shape]") {
  const Shape shape{2, 3, 5};
  CHECK(shape.without(1) == Shape{2, 5});
  CHECK(shape.without(-1) == Shape{2, 3});
  CHECK(shape.with(-2, 7) == Shape{2, 7, 5});
  CHECK(shape.inserted(0, 1) == Shape{1, 2, 3, 5});
  CHECK(shape.inserted(-1, 1) == Shape{2, 3, 5, 1});
  CHECK(shape.inserted(3, 9) == Shape{2, 3, 5, 9});
  CHECK_THROWS_WITH(shape.inserted(5, 1), ContainsSubstring("cannot insert an axis at 5"));
  CHECK_FALSE(Shape{1} == Shape{});
  CHECK_FALSE(Shape{2, 3} == Shape{3, 2});
}

TEST_CASE("the rank has a limit that is said", "[shape]") {
  Shape shape{1, 1, 1, 1, 1, 1, 1, 1};
  CHECK_THROWS_WITH(shape.push_back(1), ContainsSubstring("maximum rank 8"));
  CHECK_THROWS_WITH(Shape(std::vector<int64_t>(9, 1)), ContainsSubstring("rank 9 is over the limit of 8"));
}

TEST_CASE("row-major strides survive extents of zero and one", "[shape]") {
  CHECK(contiguous_strides({2, 3, 5}) == Strides{15, 5, 1});
  CHECK(contiguous_strides({}) == Strides{});
  CHECK(contiguous_strides({4, 1}) == Strides{1, 1});
  CHECK(contiguous_strides({2, 0, 5}) == Strides{5, 5, 1});
}

TEST_CASE("shapes broadcast as numpy's do", "[shape]") {
  CHECK(broadcast_shapes("add", {2, 3}, {3}) == Shape{2, 3});
  CHECK(broadcast_shapes("add", {3}, {2, 1}) == Shape{2, 3});
  CHECK(broadcast_shapes("add", {}, {4}) == Shape{4});
  CHECK(broadcast_shapes("add", {1, 5, 1}, {7, 1, 3}) == Shape{7, 5, 3});
  CHECK(broadcast_shapes("add", {0, 1}, {1, 4}) == Shape{0, 4});
  CHECK_THROWS_WITH(broadcast_shapes("add", {2, 3}, {2}),
                    ContainsSubstring("add: shapes [2, 3] and [2] do not broadcast"));
  CHECK_THROWS_WITH(broadcast_shapes("add", {0}, {2}), ContainsSubstring("do not broadcast"));
}

}  // namespace monoid
