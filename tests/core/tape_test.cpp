#include "monoid/core/tape.h"

#include <cmath>

#include "monoid/core/random.h"
#include "monoid/tests/support/catch.h"

namespace monoid {
namespace {

// y = x * x written by hand, as a user of the library would.
Tensor squared(const Tensor& x) {
  Tensor y = Tensor::empty_like(x);
  for (int64_t i = 0; i < x.elements(); ++i) y.data<double>()[i] = x.data<double>()[i] * x.data<double>()[i];
  Tape::record("squared", {x}, {y}, [x](const Tensors& dy) -> Tensors {
    Tensor dx = Tensor::empty_like(x);
    for (int64_t i = 0; i < x.elements(); ++i) dx.data<double>()[i] = 2 * x.data<double>()[i] * dy[0].data<double>()[i];
    return {dx};
  });
  return y;
}

Tensor leaf(double value) { return Tensor::full({1}, value, DType::f64).set_requires_grad(); }

}  // namespace

TEST_CASE("a user-defined op chains through the tape", "[tape]") {
  const Tensor x = leaf(1.5);
  Tape tape;
  tape.backward(squared(squared(x)));
  CHECK(x.grad().item() == Approx(4 * std::pow(1.5, 3)));
}

TEST_CASE("gradients of a leaf accumulate over uses and over backward calls", "[tape]") {
  const Tensor x = leaf(3);
  for (int round = 1; round <= 2; ++round) {
    Tape tape;
    const Tensors outputs{squared(x), squared(x), squared(x)};
    const Tensor one = Tensor::ones({1}, DType::f64);
    tape.backward(outputs, {one, one, one});
    CHECK(x.grad().item() == Approx(18 * round));
  }
}

TEST_CASE("a gradient that somebody holds is not written to when another joins it", "[tape]") {
  const Tensor x = leaf(3);
  const auto same = [&] {
    const Tensor y = x.detach().clone();
    Tape::record("same", {x}, {y}, [](const Tensors& dy) -> Tensors { return {dy[0]}; });
    return y;
  };
  Tape tape;
  const Tensor one = Tensor::ones({1}, DType::f64), two = Tensor::full({1}, 2, DType::f64);
  tape.backward({same(), same(), squared(x)}, {one, two, one});
  CHECK(x.grad().item() == 9);
  CHECK(one.item() == 1);
  CHECK(two.item() == 2);
}

TEST_CASE("an op that adds at no cost gets the gradients so far, and the tape adds what it leaves", "[tape]") {
  for (const bool takes : {true, false}) {
    CAPTURE(takes);
    const Tensor x = leaf(3), unused = leaf(1);
    Tape tape;
    const Tensor y = x.detach().clone();
    Tensors seen;
    Tape::record("adding", {x, unused, x}, {y}, [&](const Tensors& dy, Tensors& so_far) -> Tensors {
      seen = so_far;
      Tensor dx = dy[0].clone();
      if (takes) dx.fill(dx.item() + std::exchange(so_far[0], {}).item());
      return {dx, {}, {}};
    });
    const Tensor one = Tensor::ones({1}, DType::f64);
    tape.backward({y, squared(x)}, {one, one});
    REQUIRE(seen.size() == 3);
    CHECK(seen[0].item() == 6);  // of squared, which ran after and so comes first on the way back
    CHECK_FALSE(seen[1].defined());
    CHECK_FALSE(seen[2].defined());  // one input twice: given once
    CHECK(x.grad().item() == 7);
    CHECK_FALSE(unused.grad().defined());
  }
}

TEST_CASE("no tape, nothing recorded", "[tape]") {
  const Tensor x = leaf(2);
  CHECK_FALSE(squared(x).requires_grad());
  Tape tape;
  {
    NoTape pause;
    CHECK_FALSE(squared(x).requires_grad());
  }
  CHECK(squared(x).requires_grad());
  CHECK_FALSE(squared(x.detach()).requires_grad());
}

TEST_CASE("the innermost tape records, and a value crosses tapes only detached", "[tape]") {
  const Tensor x = leaf(2);
  Tape outer;
  const Tensor y = squared(x);
  {
    Tape inner;
    CHECK_THROWS_WITH(squared(y), ContainsSubstring("detach()"));
    CHECK_FALSE(squared(y.detach()).requires_grad());
  }
  outer.backward(y);
  CHECK(x.grad().item() == Approx(4));
}

TEST_CASE("misuse of a tape is an error that says so", "[tape]") {
  const Tensor x = leaf(2);
  Tape tape;
  const Tensor y = squared(x);
  CHECK_THROWS_WITH(tape.backward(x.detach()), ContainsSubstring("does not depend"));
  Tape again;
  const Tensor z = squared(x);
  again.backward(z);
  CHECK_THROWS_WITH(again.backward(z), ContainsSubstring("already walked"));
  CHECK_THROWS_WITH(squared(x), ContainsSubstring("already ran backward"));
}

TEST_CASE("backward through an op without a gradient throws", "[tape]") {
  const Tensor x = leaf(2);
  Tape tape;
  Tensor y = Tensor::zeros({1}, DType::f64);
  Tape::record_nondifferentiable("round", {x}, {y});
  CHECK_THROWS_WITH(tape.backward(y), ContainsSubstring("round: has no gradient"));
}

TEST_CASE("checkpoint recomputes in backward and reaches captured parameters", "[tape]") {
  Tensor x = leaf(1.5), unused = leaf(1);
  int runs = 0;
  const auto block = [&](const Tensors& inputs) {
    ++runs;
    return Tensors{squared(squared(inputs[0])), inputs[1]};
  };
  {
    Tape tape;
    const Tensors outputs = checkpoint(block, {x, unused});
    CHECK(tape.size() == 1);
    tape.backward(outputs[0]);
  }
  CHECK(runs == 2);
  CHECK(x.grad().item() == Approx(4 * std::pow(1.5, 3)));
  Tape tape;
  const Tensors from_parameter = checkpoint([&](const Tensors&) { return Tensors{squared(x)}; }, {});
  x.grad().fill(0);
  tape.backward(from_parameter[0]);
  CHECK(x.grad().item() == Approx(3));
}

TEST_CASE("check_finite names the op whose gradient is not finite", "[tape]") {
  const Tensor x = leaf(2);
  Tape tape;
  tape.check_finite(true);
  const Tensor y = squared(x);
  CHECK_THROWS_WITH(tape.backward(y, Tensor::full({1}, INFINITY, DType::f64)), ContainsSubstring("squared"));
}

TEST_CASE("a million chained nodes neither recurse nor overflow", "[tape]") {
  const Tensor x = leaf(1);
  Tape tape;
  Tensor y = x;
  for (int i = 0; i < 1'000'000; ++i) y = squared(y);
  tape.backward(y, Tensor::zeros({1}, DType::f64));
  CHECK(x.grad().item() == 0);
}

}  // namespace monoid
