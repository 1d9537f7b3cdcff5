// Scans of matrices at the sizes of models, and the algorithms that can put one together beside each other.

#include <algorithm>
#include <cmath>
#include <memory>

#include "monoid/core/random.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/matrix_scan.h"
#include "monoid/tools/bench/cases.h"

namespace monoid::bench {
namespace {

struct MatrixShape {
  int64_t batch, head, time, order;

  Shape shape() const { return {batch, time, head, order, order}; }
  std::string text() const {
    return str(batch, " x ", time, " x ", head, " of ", order, " x ", order, time >= 4096 ? ", long" : "");
  }
};

const MatrixShape kMatrixShapes[] = {
    {64, 6, 256, 8}, {80, 3, 512, 16}, {8, 12, 4096, 8}, {8, 6, 256, 8}, {8, 3, 256, 16}};

// What a model starts from: M near 0, so that a product of thousands stays in range.
Tensor small_entries(const MatrixShape& size) {
  Generator generator(3);
  return random_normal(size.shape(), generator, 0, 0.02);
}

// Matrices read, states written; with the gradient matrices, states and cotangents read, gradients written. Products of
// each step: one forward, two more backward.
Floor floor_of(const MatrixShape& size, const Target& target) {
  const auto elements = static_cast<double>(size.shape().elements());
  const double unit = elements * static_cast<double>(size_of(target.dtype)), order = static_cast<double>(size.order);
  return {elements / (order * order), 2 * unit, 6 * unit, 2 * order * elements};
}

CaseMaker scan_case(const char* name, bool made, Op op) {
  return {name, [=](const Target& target) {
            std::vector<Case> cases;
            for (const MatrixShape& size : kMatrixShapes) {
              const Tensor m = small_entries(size);
              for (Case& item :
                   both_directions(target, name, size.text(), {made ? ldu_matrix(m) : m}, op, floor_of(size, target))) {
                cases.push_back(std::move(item));
              }
            }
            return cases;
          }};
}

// ------------------------------------------------------------------------------------------------------- algorithms

double largest(const Tensor& x) {
  double most = 0;
  for (const double value : x.to_vector<double>()) most = std::isnan(value) ? value : std::max(most, std::abs(value));
  return most;
}

double error_of(const Tensor& found, const Tensor& exact) {
  return largest(found.to(kCpu).to(DType::f64) - exact) / largest(exact);
}

// States, and the gradient for a given cotangent of them.
Tensors both(Tensor x, const Tensor& cotangent, MatrixScanAlgorithm algorithm) {
  x.set_requires_grad();
  Tape tape;
  const Tensor states = matrix_scan(x, {}, algorithm).states;
  tape.backward(states, cotangent);
  return {states.detach(), x.grad()};
}

// The same numbers by every algorithm: its error against one step after the other in f64, and its time.
std::vector<Case> algorithm_cases(const Target& target) {
  const MatrixShape size = target.device.is_cuda() ? MatrixShape{64, 6, 256, 8} : MatrixShape{8, 6, 256, 8};
  const Tensor x = ldu_matrix(small_entries(size)).to(target.dtype);
  Generator generator(7);
  const Tensor cotangent = random_normal(size.shape(), generator).to(target.dtype);
  const Tensors exact = both(x.to(DType::f64), cotangent.to(DType::f64), MatrixScanAlgorithm::sequential);
  const Floor floor = floor_of(size, target);
  std::vector<Case> cases;
  for (const auto& [name, algorithm] :
       {std::pair{"chunked", MatrixScanAlgorithm::chunked}, std::pair{"sequential", MatrixScanAlgorithm::sequential},
        std::pair{"brent_kung", MatrixScanAlgorithm::brent_kung},
        std::pair{"hillis_steele", MatrixScanAlgorithm::hillis_steele}}) {
    const Tensor here = x.to(target.device), cotangent_here = cotangent.to(target.device);
    const Tensors found = both(here.detach(), cotangent_here, algorithm);
    const std::string prefix = str("matrix_scan/algorithms/", name);
    Case forward{prefix, size.text(), floor.forward_bytes, floor.forward_flops, floor.items};
    Case total{prefix + "+backward", size.text(), floor.total_bytes, 3 * floor.forward_flops, floor.items};
    forward.error = error_of(found[0], exact[0]);
    total.error = std::max(forward.error, error_of(found[1], exact[1]));
    forward.run = [=, way = algorithm] { matrix_scan(here, {}, way); };
    total.run = [=, way = algorithm] { both(here.detach(), cotangent_here, way); };
    for (Case* item : {&forward, &total}) {
      if (target.device.is_cuda()) item->timed = timed_on_device(target.device, item->run);
      cases.push_back(*item);
    }
  }
  return cases;
}

}  // namespace

std::vector<CaseMaker> matrix_scan_cases() {
  return {
      scan_case("matrix_scan", true, [](const Tensors& t) { return Tensors{matrix_scan(t[0]).states}; }),
      scan_case("mru_scan", false, [](const Tensors& t) { return Tensors{mru_scan(t[0]).states}; }),
      {"matrix_scan/algorithms", algorithm_cases},
  };
}

}  // namespace monoid::bench
