#include "monoid/kernels/cpu/vector_math.h"

#include <limits>
#include <vector>

#include "monoid/kernels/cpu/simd.h"
#include "monoid/tests/support/catch.h"

namespace monoid {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kSmallest = std::numeric_limits<float>::min();

// Floats between low and high, evenly spread over their bit patterns: as many near 1e-30 as near 1.
std::vector<float> sweep(float low, float high) {
  std::vector<float> values;
  constexpr uint32_t kStep = 4099;
  for (uint64_t pattern = 0; pattern < std::bit_cast<uint32_t>(kInfinity); pattern += kStep) {
    const float magnitude = std::bit_cast<float>(static_cast<uint32_t>(pattern));
    for (float value : {magnitude, -magnitude}) {
      if (value >= low && value <= high) values.push_back(value);
    }
  }
  return values;
}

struct Worst {
  double ulps = 0;
  float at = 0, value = 0;
  double wanted = 0;
};

// The largest error of function(float) against function(double), in units of the last place of the result. Results
// that are both below the smallest normal number agree.
template <class Function>
Worst worst_error(const std::vector<float>& x, Function function) {
  std::vector<float> y(x.size());
  const float* in = x.data();
  float* out = y.data();
  cpu::vectorised([&, count = x.size()] {
    for (size_t i = 0; i < count; ++i) out[i] = function(in[i]);
  });
  Worst worst;
  for (size_t i = 0; i < x.size(); ++i) {
    const double wanted = function(static_cast<double>(x[i]));
    const float nearest = static_cast<float>(wanted);
    if (nearest == y[i]) continue;
    if (std::abs(wanted) < 1.001 * kSmallest && std::abs(y[i]) < 1.001 * kSmallest) continue;
    const float size = std::max(std::abs(nearest), kSmallest);
    const double unit = std::nextafter(size, kInfinity) - static_cast<double>(size);
    const double ulps = std::abs(y[i] - wanted) / unit;
    if (!(ulps <= worst.ulps)) worst = {ulps, x[i], y[i], wanted};
  }
  return worst;
}

template <class Function>
void check_accuracy(const char* name, float low, float high, double limit, Function function) {
  const Worst worst = worst_error(sweep(low, high), function);
  CAPTURE(name, worst.at, worst.value, worst.wanted);
  CHECK(worst.ulps < limit);
}

// A vectorised call: the compiler may fold a scalar one.
template <class Function>
float at(float x, Function function) {
  std::vector<float> in(17, x), out(17);
  cpu::vectorised([&, count = in.size()] {
    for (size_t i = 0; i < count; ++i) out[i] = function(in[i]);
  });
  for (float value : out) CHECK((value == out[0] || (std::isnan(value) && std::isnan(out[0]))));
  return out[0];
}

}  // namespace

TEST_CASE("float functions agree with the double ones over their whole range", "[vector_math]") {
  constexpr float kMost = std::numeric_limits<float>::max();
  check_accuracy("exp", -110, 100, 1.1, [](auto x) { return cpu::exp(x); });
  check_accuracy("exp2", -160, 130, 1.6, [](auto x) { return cpu::exp2(x); });
  check_accuracy("expm1", -200, 100, 1.6, [](auto x) { return cpu::expm1(x); });
  check_accuracy("log", 0, kMost, 1.1, [](auto x) { return cpu::log(x); });
  check_accuracy("log1p", -1, kMost, 1.6, [](auto x) { return cpu::log1p(x); });
  check_accuracy("tanh", -100, 100, 2.6, [](auto x) { return cpu::tanh(x); });
  check_accuracy("sigmoid", -110, 110, 2.6, [](auto x) { return cpu::sigmoid(x); });
  check_accuracy("softplus", -110, kMost, 2.1, [](auto x) { return cpu::softplus(x); });
  check_accuracy("log_add_exp", -110, 110, 2.1, [](auto x) { return cpu::log_add_exp(x, decltype(x)(1.5)); });
  check_accuracy("erf", -20, 20, 1.6, [](auto x) { return cpu::erf(x); });
  check_accuracy("gaussian", -20, 20, 1.6, [](auto x) { return cpu::gaussian(x); });
  check_accuracy("normal_cdf", -4, 20, 4.1, [](auto x) { return cpu::normal_cdf(x, cpu::gaussian(x)); });
  check_accuracy("normal_cdf far out", -20, -4, 7.1, [](auto x) { return cpu::normal_cdf(x, cpu::gaussian(x)); });
}

TEST_CASE("infinity, NaN, zero and overflow have the limits of the mathematical functions", "[vector_math]") {
  struct Edge {
    const char* name;
    float (*function)(float);
    float x, wanted;
  };
  const auto exp = [](float x) { return cpu::exp(x); };
  const auto exp2 = [](float x) { return cpu::exp2(x); };
  const auto expm1 = [](float x) { return cpu::expm1(x); };
  const auto log = [](float x) { return cpu::log(x); };
  const auto log1p = [](float x) { return cpu::log1p(x); };
  const auto tanh = [](float x) { return cpu::tanh(x); };
  const auto sigmoid = [](float x) { return cpu::sigmoid(x); };
  const auto softplus = [](float x) { return cpu::softplus(x); };
  const auto erf = [](float x) { return cpu::erf(x); };
  const auto gaussian = [](float x) { return cpu::gaussian(x); };
  const auto normal_cdf = [](float x) { return cpu::normal_cdf(x, cpu::gaussian(x)); };
  const Edge edges[] = {{"exp", exp, -kInfinity, 0},
                        {"exp", exp, kInfinity, kInfinity},
                        {"exp", exp, 88.73f, kInfinity},
                        {"exp", exp, -1e4f, 0},
                        {"exp", exp, 3e38f, kInfinity},
                        {"exp", exp, 0, 1},
                        {"exp2", exp2, -kInfinity, 0},
                        {"exp2", exp2, 128, kInfinity},
                        {"exp2", exp2, -126, kSmallest},
                        {"exp2", exp2, 127, 0x1p127f},
                        {"exp2", exp2, kInfinity, kInfinity},
                        {"expm1", expm1, -kInfinity, -1},
                        {"expm1", expm1, kInfinity, kInfinity},
                        {"expm1", expm1, 1e4f, kInfinity},
                        {"expm1", expm1, 0, 0},
                        {"log", log, 0, -kInfinity},
                        {"log", log, -0.0f, -kInfinity},
                        {"log", log, -1, kNaN},
                        {"log", log, -kInfinity, kNaN},
                        {"log", log, kInfinity, kInfinity},
                        {"log", log, 1, 0},
                        {"log1p", log1p, -1, -kInfinity},
                        {"log1p", log1p, -1.5f, kNaN},
                        {"log1p", log1p, -kInfinity, kNaN},
                        {"log1p", log1p, kInfinity, kInfinity},
                        {"log1p", log1p, 0, 0},
                        {"log1p", log1p, 1e-40f, 1e-40f},
                        {"tanh", tanh, -kInfinity, -1},
                        {"tanh", tanh, kInfinity, 1},
                        {"tanh", tanh, 0, 0},
                        {"sigmoid", sigmoid, -kInfinity, 0},
                        {"sigmoid", sigmoid, kInfinity, 1},
                        {"sigmoid", sigmoid, -1e4f, 0},
                        {"sigmoid", sigmoid, 1e4f, 1},
                        {"softplus", softplus, -kInfinity, 0},
                        {"softplus", softplus, -1e4f, 0},
                        {"softplus", softplus, 1e4f, 1e4f},
                        {"softplus", softplus, kInfinity, kInfinity},
                        {"erf", erf, -kInfinity, -1},
                        {"erf", erf, kInfinity, 1},
                        {"erf", erf, 0, 0},
                        {"gaussian", gaussian, -kInfinity, 0},
                        {"gaussian", gaussian, kInfinity, 0},
                        {"gaussian", gaussian, 1e30f, 0},
                        {"gaussian", gaussian, 0, 1},
                        {"normal_cdf", normal_cdf, -kInfinity, 0},
                        {"normal_cdf", normal_cdf, kInfinity, 1},
                        {"normal_cdf", normal_cdf, 1e30f, 1},
                        {"normal_cdf", normal_cdf, 0, 0.5f}};
  for (const Edge& edge : edges) {
    CAPTURE(edge.name, edge.x, edge.wanted);
    const float value = at(edge.x, edge.function);
    CHECK((value == edge.wanted || (std::isnan(value) && std::isnan(edge.wanted))));
    CHECK(std::isnan(at(kNaN, edge.function)));
  }
}

TEST_CASE("log_add_exp treats -infinity as the logarithm of zero", "[vector_math]") {
  const auto with = [](float b) { return [b](float a) { return cpu::log_add_exp(a, b); }; };
  CHECK(at(-kInfinity, with(-kInfinity)) == -kInfinity);
  CHECK(at(-kInfinity, with(2)) == 2);
  CHECK(at(2, with(-kInfinity)) == 2);
  CHECK(at(kInfinity, with(kInfinity)) == kInfinity);
  CHECK(at(kInfinity, with(-kInfinity)) == kInfinity);
  CHECK(std::isnan(at(kNaN, with(-kInfinity))));
  CHECK(std::isnan(at(-kInfinity, with(kNaN))));
  CHECK(cpu::log_add_exp(-1e300, -1e300) == -1e300);
}

}  // namespace monoid
