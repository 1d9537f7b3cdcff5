#pragma once

#include "monoid/kernels/cuda/gate_loop_outer.cuh"

namespace monoid::cuda {

/// What the forward and the gradient launch alike.
template <class T>
struct OuterRun {
  Launch launch;
  OuterShape<T> shape;
  Device device;

  OuterRun(const Tensor& qkv, const Tensor& z, const GateLoopOptions& options)
      : launch("gate_loop_scan", qkv), shape{.rule = TransitionRule<float>(options)}, device(qkv.device()) {
    const int64_t inner = qkv.size(2) / 3, rows = z.size(0) * z.size(2);
    check(rows < (1 << 16) && z.size(1) < (1 << 30), "gate_loop_scan: z is ", describe(z),
          ", more heads in all batches than 65535 or too many steps for CUDA; split the batch");
    shape.batch = static_cast<int>(z.size(0));
    shape.time = static_cast<int>(z.size(1));
    shape.heads = static_cast<int>(z.size(2));
    shape.size = static_cast<int>(inner / z.size(2));
    shape.chunks = static_cast<int>(blocks_for(z.size(1), kChunk));
    shape.query = rows_at(qkv.data<T>(), qkv);
    shape.key = rows_at(qkv.data<T>() + inner, qkv);
    shape.value = rows_at(qkv.data<T>() + 2 * inner, qkv);
    shape.z = {z.data<T>(), z.strides()[0], z.strides()[1], z.strides()[2]};
  }

  HeadRows<const T> rows_at(const T* base, const Tensor& of) const {
    return {base, of.strides()[0], of.strides()[1], shape.size};
  }
  HeadRows<T> rows(T* base, const Tensor& of) const { return {base, of.strides()[0], of.strides()[1], shape.size}; }

  int64_t heads() const { return int64_t{shape.batch} * shape.heads; }
  dim3 grid() const { return {static_cast<unsigned>(shape.chunks), static_cast<unsigned>(heads()), 1}; }
  Tensor matrices(int64_t slots) const {
    return Tensor::empty({heads(), slots, shape.size, shape.size, 2}, DType::f32, device);
  }

  template <bool kReverse>
  void pass(Tensor& states, const Tensor& transitions, const Tensor& entering, Tensor* leaving) const {
    const auto pairs = static_cast<unsigned>(shape.size) * static_cast<unsigned>(shape.size);
    launch.overlapped(pass_kernel<T, kReverse>,
                      dim3(static_cast<unsigned>(blocks_for(pairs, kTileThreads)), static_cast<unsigned>(heads())),
                      kTileThreads, states.data<float>(), transitions.data<float>(),
                      entering.defined() ? entering.data<T>() : nullptr,
                      leaving && leaving->defined() ? leaving->data<T>() : nullptr, shape.chunks,
                      static_cast<int>(states.size(1)), pairs);
  }

  /// The states that enter each chunk, and the one after the last.
  Tensor states(const Tensor& initial, Tensor* final, Tensor* transitions_out = nullptr) const {
    Tensor states = matrices(shape.chunks + 1),
           transitions = Tensor::empty({heads(), shape.chunks, 2}, DType::f32, device);
    launch.overlapped(summary_kernel<T>, grid(), kTileThreads, shape, states.data<float>(), transitions.data<float>());
    pass<false>(states, transitions, initial, final);
    if (transitions_out) *transitions_out = transitions;
    return states;
  }
};

}  // namespace monoid::cuda
