// Scans of matrix products of any order, one step after the other: a block walks a chain, a number a thread, with its
// state in global memory, which the L1 cache holds. Twice order numbers are loaded for each that is computed; the
// orders of models have kernels of their own (matrix_scan.cu). And the matrices X = (strict_lower(M) + diag(d))
// (diag(d) + strict_upper(M)) on their own: a number a thread from M in the cache. Floor there: a matrix read, one
// written.

#include "monoid/kernels/cuda/matrix_scan.cuh"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
struct AnyScan {
  Matrices<const T> x = {}, states = {}, cotangents = {};
  Matrices<const float> entering = {}, initial = {};  // what enters the walk; what entered at time 0
  Matrices<T> out = {};
  Matrices<float> leaving = {};
  float* held = nullptr;  // three matrices a chain
  int time = 0, heads = 0, order = 0;
  FaultRecord* faults = nullptr;
};

/// Calls body(row, column) for the entries of a matrix, spread over the block, and waits for it.
template <class Body>
__device__ void for_entries(int order, const Body& body) {
  for (int i = static_cast<int>(threadIdx.x); i < order * order; i += kThreads) body(i / order, i % order);
  __syncthreads();
}

template <class T>
__global__ void __launch_bounds__(kThreads) any_forward(AnyScan<T> scan) {
  const int batch = static_cast<int>(blockIdx.x) / scan.heads, head = static_cast<int>(blockIdx.x) % scan.heads;
  const int order = scan.order, size = order * order;
  float *state = scan.held + static_cast<int64_t>(blockIdx.x) * 3 * size, *next = state + size;
  const bool enters = scan.entering.base != nullptr;
  for_entries(order, [&](int i, int j) {
    state[i * order + j] = enters ? scan.entering.at(batch, head)[i * order + j] : static_cast<float>(i == j);
  });
  bool sound = true;
  for (int t = 0; t < scan.time; ++t) {
    const T* x = scan.x.at(batch, head, t);
    bool finite = true;
    for_entries(order, [&](int i, int j) {
      float sum = 0;
      if (t == 0 && !enters) {
        sum = widen(x[i * order + j]);
      } else {
        for (int k = 0; k < order; ++k) sum = fmaf(state[i * order + k], widen(x[k * order + j]), sum);
      }
      next[i * order + j] = sum;
      scan.out.at(batch, head, t)[i * order + j] = narrow<T>(sum);
      finite = finite && sum * 0 == 0;
    });
    if (sound && !finite) report_overflow(scan.faults, batch, head, t);
    sound = finite;
    float* const before = state;
    state = next;
    next = before;
  }
  for_entries(order, [&](int i, int j) { scan.leaving.at(batch, head)[i * order + j] = state[i * order + j]; });
}

template <class T>
__global__ void __launch_bounds__(kThreads) any_backward(AnyScan<T> scan) {
  const int batch = static_cast<int>(blockIdx.x) / scan.heads, head = static_cast<int>(blockIdx.x) % scan.heads;
  const int order = scan.order, size = order * order;
  float *carry = scan.held + static_cast<int64_t>(blockIdx.x) * 3 * size, *adjoint = carry + size;
  for_entries(order, [&](int i, int j) {
    carry[i * order + j] = scan.entering.base ? scan.entering.at(batch, head)[i * order + j] : 0;
  });
  for (int t = scan.time - 1; t >= 0; --t) {
    const T* x = scan.x.at(batch, head, t);
    for_entries(order, [&](int i, int j) {
      const float cotangent = scan.cotangents.base ? widen(scan.cotangents.at(batch, head, t)[i * order + j]) : 0;
      adjoint[i * order + j] = carry[i * order + j] + cotangent;
    });
    for_entries(order, [&](int i, int j) {
      float sum = 0, gradient = 0;
      for (int k = 0; k < order; ++k) sum = fmaf(adjoint[i * order + k], widen(x[j * order + k]), sum);
      carry[i * order + j] = sum;
      if (t > 0) {
        const T* before = scan.states.at(batch, head, t - 1);
        for (int k = 0; k < order; ++k) gradient = fmaf(widen(before[k * order + i]), adjoint[k * order + j], gradient);
      } else if (scan.initial.base) {
        const float* before = scan.initial.at(batch, head);
        for (int k = 0; k < order; ++k) gradient = fmaf(before[k * order + i], adjoint[k * order + j], gradient);
      } else {
        gradient = adjoint[i * order + j];
      }
      scan.out.at(batch, head, t)[i * order + j] = narrow<T>(gradient);
    });
  }
  if (!scan.leaving.base) return;
  for_entries(order, [&](int i, int j) { scan.leaving.at(batch, head)[i * order + j] = carry[i * order + j]; });
}

// --------------------------------------------------------------------------------------------------------------- LDU

/// A matrix of M in any place, and its d.
template <class T>
struct LduSource {
  const T* m;
  int order;

  __device__ float at(int i, int j) const { return widen(m[i * order + j]); }
  __device__ float diagonal(int i) const {
    float sum = 0;
    for (int k = 0; k < order; ++k) sum += at(k, k);
    return ldu_diagonal(at(i, i), sum / static_cast<float>(order));
  }
  __device__ float lower(int i, int k) const { return i == k ? diagonal(i) : at(i, k); }
  __device__ float upper(int k, int j) const { return k == j ? diagonal(j) : at(k, j); }
};

template <class M, class T>
__global__ void __launch_bounds__(kThreads) ldu_kernel(const M* m, int64_t step, int order, int64_t count, T* x) {
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= count) return;
  const int entry = static_cast<int>(index % (order * order)), i = entry / order, j = entry % order;
  const LduSource<M> source{m + index / (order * order) * step, order};
  float sum = 0;
  for (int k = 0; k <= min(i, j); ++k) sum = fmaf(source.lower(i, k), source.upper(k, j), sum);
  x[index] = narrow<T>(sum);
}

/// The gradient of d_i times d_i / 2, as d depends on m_ii.
template <class M, class X>
__device__ float diagonal_gradient(const LduSource<M>& source, const X* dx, int i) {
  const int order = source.order;
  float sum = 0;
  for (int k = i; k < order; ++k) {
    sum = fmaf(widen(dx[i * order + k]), source.upper(i, k), sum);
    sum = fmaf(source.lower(k, i), widen(dx[k * order + i]), sum);
  }
  return 0.5f * sum * source.diagonal(i);
}

template <class M, class X>
__global__ void __launch_bounds__(kThreads)
    ldu_gradient_kernel(const M* m, int64_t step, int order, int64_t count, const X* x_gradient, M* m_gradient) {
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= count) return;
  const int entry = static_cast<int>(index % (order * order)), i = entry / order, j = entry % order;
  const int64_t matrix = index / (order * order);
  const LduSource<M> source{m + matrix * step, order};
  const X* dx = x_gradient + matrix * order * order;
  float sum = 0;
  if (i > j) {
    for (int k = j; k < order; ++k) sum = fmaf(widen(dx[i * order + k]), source.upper(j, k), sum);
  } else if (i < j) {
    for (int k = i; k < order; ++k) sum = fmaf(source.lower(k, i), widen(dx[k * order + j]), sum);
  } else {
    for (int k = 0; k < order; ++k) sum += diagonal_gradient(source, dx, k);
    sum = diagonal_gradient(source, dx, i) - sum / static_cast<float>(order);
  }
  m_gradient[index] = narrow<M>(sum);
}

int64_t step_of(const Tensor& m) { return m.size(-1) * m.size(-1); }

/// X in f32, for scans that have no way of their own around it.
Tensor made(const Tensor& m) {
  const Tensor dense = m.is_contiguous() ? m : m.clone();
  Tensor x = Tensor::empty(m.shape(), DType::f32, m.device());
  dispatch_storage("mru_scan", m.dtype(), [&]<class T>() {
    const Launch launch("mru_scan", m);
    launch(ldu_kernel<T, float>, static_cast<unsigned>(blocks_for(m.elements(), kThreads)), kThreads, dense.data<T>(),
           step_of(m), m.size(-1), m.elements(), x.data<float>());
  });
  return x;
}

template <class T>
void run_any(void (*kernel)(AnyScan<T>), const Tensor& x, AnyScan<T> scan) {
  const Launch launch("matrix_scan", x);
  const int64_t chains = x.size(0) * x.size(2), order = x.size(4);
  check(x.size(1) < (int64_t{1} << 31) && chains < (int64_t{1} << 31) && order < (1 << 15), "matrix_scan: x is ",
        describe(x), ", more than a CUDA scan indexes");
  const Tensor held = Tensor::empty({chains, 3, order, order}, DType::f32, x.device());
  scan.held = static_cast<float*>(held.raw());
  scan.time = static_cast<int>(x.size(1));
  scan.heads = static_cast<int>(x.size(2));
  scan.order = static_cast<int>(order);
  scan.faults = fault_record(launch.index());
  launch(kernel, static_cast<unsigned>(chains), kThreads, scan);
}

}  // namespace

void any_matrix_scan(const Tensor& x, const Tensor& initial, Tensor& states, Tensor& final, MatrixForm form,
                     TimeCut cut) {
  if (form == MatrixForm::ldu) {
    Tensor wide = x.dtype() == DType::f32 ? states : Tensor::empty(x.shape(), DType::f32, x.device());
    any_matrix_scan(made(x), initial, wide, final, MatrixForm::plain, cut);
    if (x.dtype() != DType::f32) states.copy_from(wide);
    return;
  }
  dispatch_storage("matrix_scan", x.dtype(), [&]<class T>() {
    run_any<T>(any_forward<T>, x,
               {.x = matrices_of<const T>(x),
                .entering = matrices_of<const float>(initial),
                .out = matrices_of<T>(states),
                .leaving = matrices_of<float>(final)});
  });
}

void any_matrix_scan_gradient(const Tensor& x, const Tensor& initial, const Tensor& states,
                              const Tensor& states_cotangent, const Tensor& final_cotangent, Tensor& x_gradient,
                              Tensor& initial_gradient, MatrixForm form, TimeCut cut) {
  if (form == MatrixForm::ldu) {
    const auto wide = [](const Tensor& y) { return y.defined() ? y.to(DType::f32) : y; };
    Tensor gradient = Tensor::empty(x.shape(), DType::f32, x.device());
    any_matrix_scan_gradient(made(x), initial, wide(states), wide(states_cotangent), final_cotangent, gradient,
                             initial_gradient, MatrixForm::plain, cut);
    const Tensor dense = x.is_contiguous() ? x : x.clone();
    dispatch_storage("mru_scan", x.dtype(), [&]<class T>() {
      const Launch launch("mru_scan", x);
      launch(ldu_gradient_kernel<T, float>, static_cast<unsigned>(blocks_for(x.elements(), kThreads)), kThreads,
             dense.data<T>(), step_of(x), x.size(-1), x.elements(), gradient.data<float>(), x_gradient.data<T>());
    });
    return;
  }
  dispatch_storage("matrix_scan", x.dtype(), [&]<class T>() {
    run_any<T>(any_backward<T>, x,
               {.x = matrices_of<const T>(x),
                .states = matrices_of<const T>(states),
                .cotangents = matrices_of<const T>(states_cotangent),
                .entering = matrices_of<const float>(final_cotangent),
                .initial = matrices_of<const float>(initial),
                .out = matrices_of<T>(x_gradient),
                .leaving = matrices_of<float>(initial_gradient)});
  });
}

void ldu_matrix(const Tensor& m, Tensor& x) {
  const int64_t step = m.rank() > 2 ? m.strides()[-3] : 0;
  dispatch_storage("ldu_matrix", m.dtype(), [&]<class T>() {
    const Launch launch("ldu_matrix", m);
    launch(ldu_kernel<T, T>, static_cast<unsigned>(blocks_for(m.elements(), kThreads)), kThreads, m.data<T>(), step,
           m.size(-1), m.elements(), x.data<T>());
  });
}

void ldu_matrix_gradient(const Tensor& m, const Tensor& x_cotangent, Tensor& m_gradient) {
  const int64_t step = m.rank() > 2 ? m.strides()[-3] : 0;
  dispatch_storage("ldu_matrix", m.dtype(), [&]<class T>() {
    const Launch launch("ldu_matrix", m);
    launch(ldu_gradient_kernel<T, T>, static_cast<unsigned>(blocks_for(m.elements(), kThreads)), kThreads, m.data<T>(),
           step, m.size(-1), m.elements(), x_cotangent.data<T>(), m_gradient.data<T>());
  });
}

void take_matrix_overflow(const Tensor& somewhere, MatrixOverflow& found) {
  const Launch launch("matrix_scan", somewhere);
  const unsigned long long key = take_overflow(launch.index());
  found = {};
  if (key == kNoOverflow) return;
  found.head = static_cast<int64_t>(key & ((1u << kOverflowHeadBits) - 1));
  found.batch = static_cast<int64_t>(key >> kOverflowHeadBits & ((1u << kOverflowBatchBits) - 1));
  found.time = static_cast<int64_t>(key >> (kOverflowHeadBits + kOverflowBatchBits));
}

}  // namespace monoid::cuda
