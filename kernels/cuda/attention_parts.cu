// Heads that share a key head have one block a tile of keys between them, which for one key head and short sequences
// leaves most of a GPU idle. Here each part of the heads sees the key head as its own. Floor: a read a part, one write.

#include "monoid/kernels/cuda/attention_parts.h"

#include <algorithm>

#include "monoid/kernels/cuda/device/attention.cuh"

namespace monoid::cuda {
namespace {

template <class T>
struct PartsCall {
  Heads<const T> parts[2];
  Heads<T> sums[2];
  int count;
  uint32_t keys, rows;
};

template <class T>
__global__ void __launch_bounds__(256) add_parts_kernel(const __grid_constant__ PartsCall<T> args) {
  constexpr int kPack = kWide<T>;
  const Heads<T>& sums = args.sums[blockIdx.y];
  const uint32_t packs = static_cast<uint32_t>(sums.channels + kPack - 1) / kPack;
  const uint32_t at = blockIdx.x * 256 + threadIdx.x, row = at / packs;
  if (!sums.data || row >= args.rows) return;
  const int batch = static_cast<int>(row / args.keys), key = static_cast<int>(row % args.keys);
  const int channel = static_cast<int>(at % packs) * kPack;
  float sum[kPack] = {};
#pragma unroll 4
  for (int part = 0; part < args.count; ++part) {
    const HeadRows<const T> from = args.parts[blockIdx.y].rows(batch, part);
    float x[kPack];
    load<kPack>(from.data + key * from.step + channel, x);
#pragma unroll
    for (int i = 0; i < kPack; ++i) sum[i] += x[i];
  }
  store_pack(sums.rows(batch, 0), key, channel, Raw<T, kPack>(sum));
}

// One key head under as many names as there are parts.
Tensor shown(const Tensor& x, int64_t parts) {
  return x.as_strided(x.shape().with(2, parts), {x.strides()[0], x.strides()[1], 0, x.strides()[3]}, x.offset());
}

// Room for the gradients of all parts, in rows of whole packs.
Tensor room_for(const Tensor& gradient, int64_t parts) {
  constexpr int64_t kPack = 8;
  if (!gradient.defined()) return {};
  const Shape shape = gradient.shape().with(2, parts);
  const Tensor all =
      Tensor::empty(shape.with(3, blocks_for(shape[3], kPack) * kPack), gradient.dtype(), gradient.device());
  return all.as_strided(shape, all.strides(), 0);
}

}  // namespace

int64_t parts_of_heads(const Launch& launch, const Tensor& q, const Tensor& k) {
  constexpr int64_t kRows = 128;
  if (k.size(2) != 1) return 1;
  const int64_t blocks = blocks_for(k.size(1), kRows) * k.size(0), wanted = 3 * launch.device().multiprocessors;
  int64_t parts = 1;
  while (blocks > 0 && parts * blocks < wanted && q.size(2) % (2 * parts) == 0) parts *= 2;
  return parts;
}

void attention_gradient_in_parts(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& first_key,
                                 const Tensor& end_key, const AttentionSpec& spec, const Tensor& output,
                                 const Tensor& log_sum_exp, const Tensor& output_cotangent,
                                 const Tensor& log_sum_exp_cotangent, Tensor& q_gradient, Tensor& k_gradient,
                                 Tensor& v_gradient) {
  const Launch launch("attention", q);
  const int64_t parts = parts_of_heads(launch, q, k);
  Tensor k_parts = room_for(k_gradient, parts), v_parts = room_for(v_gradient, parts);
  attention_gradient(q, shown(k, parts), shown(v, parts), first_key, end_key, spec, output, log_sum_exp,
                     output_cotangent, log_sum_exp_cotangent, q_gradient, k_parts, v_parts);
  dispatch_storage("attention", q.dtype(), [&]<class T>() {
    const PartsCall<T> args{{Heads<const T>(k_parts), Heads<const T>(v_parts)},
                            {Heads<T>(k_gradient), Heads<T>(v_gradient)},
                            static_cast<int>(parts),
                            static_cast<uint32_t>(k.size(1)),
                            static_cast<uint32_t>(k.size(0) * k.size(1))};
    const int64_t packs = blocks_for(std::max(k.size(3), v.size(3)), kWide<T>);
    launch(add_parts_kernel<T>, dim3(static_cast<unsigned>(blocks_for(args.rows * packs, 256)), 2), 256, args);
  });
}

}  // namespace monoid::cuda
