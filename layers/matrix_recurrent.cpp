#include "monoid/layers/matrix_recurrent.h"

#include <cmath>

#include "monoid/ops/matmul.h"
#include "monoid/ops/matrix_scan.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

const MatrixRecurrentOptions& validated(const MatrixRecurrentOptions& options) {
  options.validate("MatrixRecurrent");
  return options;
}

}  // namespace

int64_t MatrixRecurrentOptions::order() const {
  return std::llround(std::sqrt(static_cast<double>(state_size / heads)));
}

int64_t MatrixRecurrentOptions::parameters() const {
  return channels * state_size + heads * order() * chunk() + channels * channels;
}

void MatrixRecurrentOptions::validate(const char* owner) const {
  const auto check_positive = [&](const char* name, int64_t value) {
    check(value >= 1, owner, ": ", name, " is ", value, ", wanted at least 1");
  };
  check_positive("channels", channels);
  check_positive("heads", heads);
  check_positive("state_size", state_size);
  check(state_size % heads == 0 && order() * order() == state_size / heads, owner, ": a state of ", state_size, " in ",
        heads, " heads makes no square matrices; state_size / heads must be a square number");
  check(channels % (heads * order()) == 0, owner, ": ", channels, " channels cannot be dealt to the ", heads * order(),
        " rows of ", heads, " matrices of order ", order(), "; make it a multiple");
  check(dropout >= 0 && dropout < 1, owner, ": dropout is ", dropout, ", wanted 0 <= dropout < 1");
}

// The rows of an identity matrix have the variance 1 / order, hence the deviation of from_matrices.
MatrixRecurrent::MatrixRecurrent(const MatrixRecurrentOptions& options, Generator& init)
    : options_(validated(options)),
      to_matrices_(constant_parameter({options.state_size, options.channels}, 0)),
      from_matrices_(normal_parameter({options.heads, options.order(), options.chunk()},
                                      0.02 * std::sqrt(static_cast<double>(options.order())), init)),
      to_out_(normal_parameter({options.channels, options.channels}, options.out_deviation, init)),
      dropout_(options.dropout) {}

OutputAndState MatrixRecurrent::forward(const Tensor& x, const Tensor& initial, const Tensor& residual,
                                        Generator* dropout, const Padding& padding) const {
  const int64_t batch = x.size(0), time = x.size(1), order = options_.order();
  // A zero M is X = I: padding moves nothing.
  const Tensor packed = padding.zeroed(dropout_.forward(linear(x, to_matrices_), dropout));
  const ScanResult scan = mru_scan(reshape(packed, {batch, time, options_.heads, order, order}), initial);
  if (folds(batch * time)) {
    const Tensor rows = reshape(scan.states, {batch, time, options_.state_size});
    return {dropout_.of_linear(rows, folded(), residual, dropout), scan.final};
  }
  const Tensor rows = reshape(matmul(scan.states, from_matrices_), {batch, time, options_.channels});
  return {dropout_.of_linear(rows, to_out_, residual, dropout), scan.final};
}

Shape MatrixRecurrent::state_shape(int64_t batch) const {
  return {batch, options_.heads, options_.order(), options_.order()};
}

// Whether it is less work to multiply from_matrices into to_out than into all the states. Products as small as a head's
// cost several times their operations.
bool MatrixRecurrent::folds(int64_t steps) const {
  constexpr int64_t kSmallProduct = 8;
  const int64_t small = kSmallProduct * options_.state_size * options_.chunk();
  const int64_t folded = options_.channels * small + steps * options_.channels * options_.state_size;
  return folded < steps * (small + options_.channels * options_.channels);
}

// to_out of from_matrices of the states, as one weight [channels, state_size].
Tensor MatrixRecurrent::folded() const {
  const int64_t channels = options_.channels, heads = options_.heads, order = options_.order();
  const Tensor by_row = permute(reshape(to_out_, {channels, heads, order, options_.chunk()}), {1, 2, 3, 0});
  return transpose(reshape(matmul(unsqueeze(from_matrices_, 1), by_row), {options_.state_size, channels}), 0, 1);
}

void MatrixRecurrent::visit(Visitor& visitor) {
  visitor.parameter("to_matrices", to_matrices_);
  visitor.parameter("from_matrices", from_matrices_);
  visitor.parameter("to_out", to_out_);
}

}  // namespace monoid
