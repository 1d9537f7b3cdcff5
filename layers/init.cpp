#include "monoid/layers/init.h"

#include <cmath>

namespace monoid {

Tensor uniform_parameter(const Shape& shape, double bound, Generator& init) {
  return random_uniform(shape, init, -bound, bound).set_requires_grad();
}

Tensor fan_in_parameter(const Shape& shape, int64_t fan_in, Generator& init) {
  check(fan_in >= 1, "init: a weight of shape ", shape, " has no inputs; every extent must be at least 1");
  return uniform_parameter(shape, 1 / std::sqrt(static_cast<double>(fan_in)), init);
}

Tensor xavier_parameter(int64_t out, int64_t in, Generator& init) {
  check(in >= 1 && out >= 1, "init: a weight [", out, ", ", in, "] is empty; every extent must be at least 1");
  return uniform_parameter({out, in}, std::sqrt(6 / static_cast<double>(in + out)), init);
}

Tensor normal_parameter(const Shape& shape, double deviation, Generator& init) {
  return random_normal(shape, init, 0, deviation).set_requires_grad();
}

Tensor constant_parameter(const Shape& shape, double value) { return Tensor::full(shape, value).set_requires_grad(); }

Tensor zero_bias(int64_t extent, Bias bias) {
  return bias == Bias::learned ? constant_parameter({extent}, 0) : Tensor();
}

}  // namespace monoid
