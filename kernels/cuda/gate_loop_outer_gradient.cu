// The gradient of GateLoop with heads of several channels (gate_loop_outer.cuh has the idea). States and adjoints that
// enter each chunk are made first; then a block a chunk has all that is left. With P = q k^T, R = dy v^T, S the state
// that enters the chunk and D the adjoint that comes back to its last one:
//
//   dq_t = sum over s <= t of Re(w_ts) R_ts k_s + Re(A_t S) dy_t        dk_s likewise with q_t and conj(A_end / A_s) D
//   dv_s = sum over t >= s of Re(w_ts) P_ts dy_t + Re(conj(A_end / A_s) D)^T k_s
//
// and for a, the sums of conj(w) P R over rows and columns. Floor (elements moved per channel and step): 7.

#include "monoid/kernels/cuda/gate_loop_outer_run.cuh"

namespace monoid::cuda {
namespace {

template <class T>
struct OuterGradients {
  HeadRows<const T> cotangent;
  HeadRows<T> query, key, value, z;
};

template <class T>
__global__ void __launch_bounds__(kTileThreads)
    adjoint_summary_kernel(const __grid_constant__ OuterShape<T> shape, HeadRows<const T> cotangent, float* adjoints) {
  __shared__ TileOperands operands;
  __shared__ Products products;
  wait_for_previous();
  const Chunk<T> chunk(shape);
  products.fill(chunk);
  write_summary(
      chunk, operands, shape.query, cotangent, [&](int t) { return conjugate(products.forward[t]); },
      adjoints + chunk.place(shape.chunks, chunk.index) * chunk.plane());
}

/// Sums that the gradient of a is made of, a step each.
struct ReadSums {
  float re[kChunk], im[kChunk];
};

/// <D, conj(S)> over a whole matrix, by the block.
__device__ Complex<float> whole_product(const float* adjoint, const float* state, int64_t pairs, float* shared) {
  float re = 0, im = 0;
  for (int64_t i = threadIdx.x; i < pairs; i += kTileThreads) {
    const float2 d = reinterpret_cast<const float2*>(adjoint)[i], s = reinterpret_cast<const float2*>(state)[i];
    re = fmaf(d.x, s.x, fmaf(d.y, s.y, re));
    im = fmaf(d.y, s.x, fmaf(-d.x, s.y, im));
  }
  shared[threadIdx.x] = re, shared[kTileThreads + threadIdx.x] = im;
  for (int apart = kTileThreads / 2; apart > 0; apart /= 2) {
    __syncthreads();
    if (threadIdx.x < apart) {
      shared[threadIdx.x] += shared[threadIdx.x + apart];
      shared[kTileThreads + threadIdx.x] += shared[kTileThreads + threadIdx.x + apart];
    }
  }
  __syncthreads();
  const Complex<float> result(shared[0], shared[kTileThreads]);
  __syncthreads();
  return result;
}

template <class T>
__global__ void __launch_bounds__(kTileThreads)
    gradient_kernel(const __grid_constant__ OuterShape<T> shape, const __grid_constant__ OuterGradients<T> to,
                    const float* states, const float* adjoints) {
  __shared__ union {
    TileOperands operands;
    float sums[2 * kTileThreads];
  } shared;
  TileOperands& operands = shared.operands;
  __shared__ Products products;
  __shared__ float keys[kChunk][kChunk + 1], values[kChunk][kChunk + 1];  // P and R
  __shared__ ReadSums reads, writes;
  wait_for_previous();
  const Chunk<T> chunk(shape);
  const int size = shape.size, thread = static_cast<int>(threadIdx.x);
  const float* const state = states + chunk.place(shape.chunks + 1, chunk.index) * chunk.plane();
  const float* const adjoint = adjoints + chunk.place(shape.chunks, chunk.index) * chunk.plane();
  products.fill(chunk);
  if (thread < kChunk) reads.re[thread] = reads.im[thread] = writes.re[thread] = writes.im[thread] = 0;
  const Complex<float> after = whole_product(adjoint, state + chunk.plane(), int64_t{size} * size, shared.sums);
  write_scores(chunk, operands, shape.query, shape.key, keys);
  write_scores(chunk, operands, to.cotangent, shape.value, values);
  __syncthreads();

  // What the state that entered and the adjoint that comes back give to q and k, row i of them at channel i; weight
  // times matrix is (re, im) . (x, y) for the real part, and its imaginary part serves the gradient of a alone.
  const auto through = [&](TileProduct& tile, int i, const float* matrix, const HeadRows<const T>& by, auto weight) {
    tile.template add<true>(
        operands, 2 * size, [&](int t, int n) { return chunk.read(by, t, n / 2) * part(weight(t), n); },
        [&](int n, int row) { return i + row < size ? matrix[int64_t{2} * size * (i + row) + n] : 0; });
  };
  const auto at_query = [&](int t) { return conjugate(products.forward[t]); };  // Re(A S) = (re, -im) . S
  const auto at_query_im = [&](int t) { return Complex<float>(products.forward[t].im, products.forward[t].re); };
  const auto at_key = [&](int s) { return products.to_end(s); };  // Re(conj(W) D) = (re, im) . D
  const auto at_key_im = [&](int s) {
    const Complex<float> w = products.to_end(s);
    return Complex<float>(-w.im, w.re);
  };
  for (int i = 0; i < size; i += kTile) {
    const auto query = [&](int t, int column) { return chunk.read(shape.query, t, i + column); };
    const auto key = [&](int s, int column) { return chunk.read(shape.key, s, i + column); };
    TileProduct turned;
    through(turned, i, state, to.cotangent, at_query_im);
    turned.add_row_sums(reads.im, query);
    TileProduct tile;
    through(tile, i, state, to.cotangent, at_query);
    tile.add_row_sums(reads.re, query);
    tile.template add<false>(
        operands, chunk.steps, [&](int t, int s) { return s <= t ? values[t][s] * products.between(t, s).re : 0; },
        key);
    tile.visit([&](int t, int column, float x) {
      if (t < chunk.steps && i + column < size)
        to.query.at(chunk.batch, chunk.head, chunk.begin + t)[i + column] = narrow<T>(x);
    });

    TileProduct turned_back;
    through(turned_back, i, adjoint, shape.value, at_key_im);
    turned_back.add_row_sums(writes.im, key);
    TileProduct back;
    through(back, i, adjoint, shape.value, at_key);
    back.add_row_sums(writes.re, key);
    back.template add<false>(
        operands, chunk.steps, [&](int s, int t) { return s <= t ? values[t][s] * products.between(t, s).re : 0; },
        query);
    back.visit([&](int s, int column, float x) {
      if (s < chunk.steps && i + column < size)
        to.key.at(chunk.batch, chunk.head, chunk.begin + s)[i + column] = narrow<T>(x);
    });

    TileProduct last;
    last.template add<false>(
        operands, 2 * size, [&](int s, int n) { return chunk.read(shape.key, s, n / 2) * part(products.to_end(s), n); },
        [&](int n, int column) {
          return i + column < size ? adjoint[(int64_t{n / 2} * size + i + column) * 2 + n % 2] : 0;
        });
    last.template add<false>(
        operands, chunk.steps, [&](int s, int t) { return s <= t ? keys[t][s] * products.between(t, s).re : 0; },
        [&](int t, int column) { return chunk.read(to.cotangent, t, i + column); });
    last.visit([&](int s, int column, float x) {
      if (s < chunk.steps && i + column < size)
        to.value.at(chunk.batch, chunk.head, chunk.begin + s)[i + column] = narrow<T>(x);
    });
  }
  __syncthreads();

  // dlambda_t = (what steps from t on read) - (what they wrote) + <D, conj(S)> at the end.
  if (thread < kChunk) {
    const int t = thread;
    Complex<float> sum(reads.re[t] - writes.re[t], writes.im[t] * -1.f - reads.im[t]);
    for (int s = 0; s < kChunk; ++s) {  // what a step reads of itself, it wrote
      if (s == t) continue;
      const int later = max(s, t), earlier = min(s, t);
      const float both = keys[later][earlier] * values[later][earlier], signed_both = s < t ? both : -both;
      const Complex<float> by = products.between(later, earlier);
      sum = sum + Complex<float>(signed_both * by.re, -signed_both * by.im);
    }
    shared.sums[t] = sum.re, shared.sums[kChunk + t] = sum.im;
  }
  __syncthreads();
  if (thread < chunk.steps) {
    Complex<float> change = after;
    for (int t = chunk.steps - 1; t >= thread; --t)
      change = change + Complex<float>(shared.sums[t], shared.sums[kChunk + t]);
    const PolarGate<float> gate = Products::gate(chunk, thread);
    const float inverse_size = 1 / gate.size;
    const Complex<float> z =
        gate.pull_back(gate.unit * Complex<float>(change.re * inverse_size, change.im * inverse_size));
    T* const out = to.z.at(chunk.batch, chunk.head, chunk.begin + thread);
    out[0] = narrow<T>(z.re), out[1] = narrow<T>(z.im);
  }
}

}  // namespace

void gate_loop_outer_scan_gradient(const Tensor& qkv, const Tensor& z, const Tensor& initial, const Tensor& y_cotangent,
                                   const Tensor& final_cotangent, Tensor& qkv_gradient, Tensor& z_gradient,
                                   Tensor& initial_gradient, const GateLoopOptions& options) {
  dispatch_storage("gate_loop_scan", qkv.dtype(), [&]<class T>() {
    const OuterRun<T> run(qkv, z, options);
    const int64_t inner = qkv.size(2) / 3;
    OuterGradients<T> to;
    if (y_cotangent.defined()) to.cotangent = run.rows_at(y_cotangent.data<T>(), y_cotangent);
    T* const packed = qkv_gradient.data<T>();
    to.query = run.rows(packed, qkv_gradient);
    to.key = run.rows(packed + inner, qkv_gradient);
    to.value = run.rows(packed + 2 * inner, qkv_gradient);
    to.z = {z_gradient.data<T>(), z_gradient.strides()[0], z_gradient.strides()[1], z_gradient.strides()[2]};
    Tensor transitions, adjoints = run.matrices(run.shape.chunks);
    const Tensor states = run.states(initial, nullptr, &transitions);
    run.launch.overlapped(adjoint_summary_kernel<T>, run.grid(), kTileThreads, run.shape, to.cotangent,
                          adjoints.data<float>());
    run.template pass<true>(adjoints, transitions, final_cotangent, &initial_gradient);
    run.launch.overlapped(gradient_kernel<T>, run.grid(), kTileThreads, run.shape, to, states.data<float>(),
                          adjoints.template data<float>());
  });
}

}  // namespace monoid::cuda
