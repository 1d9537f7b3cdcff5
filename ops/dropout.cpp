#include "monoid/ops/dropout.h"

#include "monoid/kernels/dropout.h"

namespace monoid {

Tensor dropout(const Tensor& x, double probability, Generator& generator) {
  check_defined("dropout", "x", x);
  check(is_floating(x.dtype()), "dropout: x is ", describe(x), ", wanted a floating-point tensor");
  check(probability >= 0 && probability <= 1, "dropout: probability is ", probability, ", wanted 0 to 1");
  if (probability == 0) return x;
  const uint64_t seed = generator.seed(), first = generator.reserve(x.elements());
  const Tensor base = generator.base();
  check(!base.defined() || base.device() == x.device(), "dropout: the generator's base is on ",
        base.defined() ? base.device() : kCpu, " and x is ", describe(x), "; set_base() one on its device");
  const auto masked = [=](const Tensor& from) {
    Tensor to = Tensor::empty_like(from);
    kernels::dropout(from, probability, seed, first, base, to);
    return to;
  };
  Tensor y = masked(x);
  Tape::record("dropout", {x}, {y}, [masked](const Tensors& dy) -> Tensors { return {masked(dy[0])}; });
  return y;
}

}  // namespace monoid
