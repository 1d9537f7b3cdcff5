// minLSTM scan and its gradient on CUDA: z = sigmoid(i) / (sigmoid(f) + sigmoid(i)), as in kernels/cpu/scan_gated.cpp.
// Floor (elements moved per state): 4 forward, 8 backward.

#include "monoid/kernels/cuda/scan_gated.cuh"

namespace monoid::cuda {
namespace {

struct MinLstm {
  static constexpr int kParts = 3;

  __device__ static GatedInput input(const float (&parts)[3]) {
    // An infinite gate would meet itself as inf - inf; this large a number behaves the same.
    const float x = parts[0], f = at_least(parts[1], -1e30f), i = at_least(parts[2], -1e30f);
    const float scale = fmaxf(-fminf(f, i), 0);
    const float one = exp_of_minus(scale), q = exp_of_negative_part(x);
    const float take = one + exp_of_minus(f + scale), keep = one + exp_of_minus(i + scale);
    const float shared = reciprocal_approximate((take + keep) * (1 + q));
    return {SignedGate::of(fminf(take, keep) * (shared * (1 + q)), take - keep), g_of(x, q * (shared * (take + keep)))};
  }
  __device__ static void spread(float logit, const float (&parts)[3], float (&factors)[2]) {
    factors[0] = -logit * sigmoid_of_minus(parts[1]);
    factors[1] = logit * sigmoid_of_minus(parts[2]);
  }
};

}  // namespace

void min_lstm_scan(const Tensor& packed, const Tensor& initial, Tensor& states, Tensor& final) {
  gated_scan<MinLstm>("min_lstm_scan", packed, initial, states, final);
}

void min_lstm_scan_gradient(const Tensor& packed, const Tensor& initial, const Tensor& states,
                            const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& packed_gradient,
                            Tensor& initial_gradient) {
  gated_scan_gradient<MinLstm>("min_lstm_scan", packed, initial, states, states_cotangent, final_cotangent,
                               packed_gradient, initial_gradient);
}

}  // namespace monoid::cuda
