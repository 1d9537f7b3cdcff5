#include "monoid/ops/matrix_scan.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

using Scan = std::function<ScanResult(const Tensor& x, const Tensor& initial)>;

std::vector<OpSample> scan_samples(const Scan& scan, SampleMaker& make) {
  const auto run = [=](const Tensors& in) {
    const ScanResult result = scan(in[0], in.size() > 1 ? in[1] : Tensor());
    return Tensors{result.states, result.final};
  };
  // Matrices as a model has them: a part of a wider projection.
  const auto inside = [=](const Tensors& in) {
    const Tensor part = slice(in[0], 2, 1, 9);
    const ScanResult result = scan(reshape(part, {part.size(0), part.size(1), 2, 2, 2}), in[1]);
    return Tensors{result.states, result.final};
  };
  return {
      {"2 x 5 x 2 of order 2, with a state", {make.normal({2, 5, 2, 2, 2}, 0.7), make.normal({2, 2, 2, 2}, 0.7)}, run},
      {"order 3, no state", {make.normal({1, 4, 2, 3, 3}, 0.6)}, run},
      {"part of a projection", {make.normal({1, 3, 10}, 0.7), make.normal({1, 2, 2, 2}, 0.7)}, inside},
      {"order 1", {make.normal({1, 5, 1, 1, 1}), make.normal({1, 1, 1, 1})}, run},
      {"one step of order 8", {make.normal({1, 1, 1, 8, 8}, 0.4), make.normal({1, 1, 8, 8}, 0.4)}, run},
      {"no steps, so the final state is the initial one",
       {make.normal({2, 0, 1, 2, 2}), make.normal({2, 1, 2, 2})},
       run},
      {"no chains", {make.normal({2, 3, 0, 4, 4}), make.normal({2, 0, 4, 4})}, run},
  };
}

std::vector<OpSample> matrix_scan_samples(SampleMaker& make) {
  std::vector<OpSample> samples;
  for (const auto& [name, algorithm] :
       {std::pair{"chunked", MatrixScanAlgorithm::chunked}, std::pair{"sequential", MatrixScanAlgorithm::sequential},
        std::pair{"Brent-Kung", MatrixScanAlgorithm::brent_kung},
        std::pair{"Hillis-Steele", MatrixScanAlgorithm::hillis_steele}}) {
    const auto scan = [algorithm](const Tensor& x, const Tensor& initial) {
      return matrix_scan(x, initial, algorithm);
    };
    for (OpSample& sample : scan_samples(scan, make)) {
      sample.label = str(name, ", ", sample.label);
      samples.push_back(std::move(sample));
    }
  }
  return samples;
}

std::vector<OpSample> mru_scan_samples(SampleMaker& make) {
  return scan_samples([](const Tensor& m, const Tensor& initial) { return mru_scan(m, initial); }, make);
}

std::vector<OpSample> ldu_samples(SampleMaker& make) {
  const auto run = [](const Tensors& in) { return Tensors{ldu_matrix(in[0])}; };
  return {
      {"2 x 3 of order 4", {make.normal({2, 3, 4, 4})}, run},
      {"order 8, transposed",
       {make.normal({2, 8, 8})},
       [](const Tensors& in) { return Tensors{ldu_matrix(transpose(in[0], -1, -2))}; }},
      {"one of order 3", {make.normal({3, 3})}, run},
      {"one of order 1", {make.normal({1, 1})}, run},
      {"none", {make.normal({0, 2, 2})}, run},
  };
}

}  // namespace

OpList matrix_scan_ops() {
  return {
      {"matrix_scan", matrix_scan_samples},
      {"mru_scan", mru_scan_samples},
      {"ldu_matrix", ldu_samples},
  };
}

}  // namespace monoid
