// minGRU scan and its gradient on CUDA: z = sigmoid(gate). Floor (elements moved per state): 3 forward, 6 backward.
// An element costs two exponentials and one division; at bf16 that and the time split fill the issue slots.

#include "monoid/kernels/cuda/scan_gated.cuh"

namespace monoid::cuda {
namespace {

struct MinGru {
  static constexpr int kParts = 2;

  __device__ static GatedInput input(const float (&parts)[2]) {
    const auto& [x, k] = parts;
    const float e = exp_of_minus(fabsf(k)), q = exp_of_negative_part(x);
    const float shared = reciprocal_approximate((1 + e) * (1 + q));
    return {SignedGate::of(e * (shared * (1 + q)), k), g_of(x, q * (shared * (1 + e)))};
  }
  __device__ static void spread(float logit, const float (&)[2], float (&factors)[1]) { factors[0] = logit; }
};

}  // namespace

void min_gru_scan(const Tensor& packed, const Tensor& initial, Tensor& states, Tensor& final) {
  gated_scan<MinGru>("min_gru_scan", packed, initial, states, final);
}

void min_gru_scan_gradient(const Tensor& packed, const Tensor& initial, const Tensor& states,
                           const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& packed_gradient,
                           Tensor& initial_gradient) {
  gated_scan_gradient<MinGru>("min_gru_scan", packed, initial, states, states_cotangent, final_cotangent,
                              packed_gradient, initial_gradient);
}

}  // namespace monoid::cuda
