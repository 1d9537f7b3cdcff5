// Softmax of rows. A group of threads keeps a row in registers: one read, the log-sum-exp, one write. Rows beyond what
// registers hold are read twice, the second time mostly from the L2 cache. Floor: one read (gradients: two), one write.

#include "monoid/kernels/softmax.h"

#include "monoid/kernels/cuda/device/log_sum.cuh"
#include "monoid/kernels/cuda/device/math.cuh"
#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/cuda/strided.h"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 256;       // of a block of groups
constexpr int kMostThreads = 1024;  // of a group
constexpr int kElements = 16;       // of a row in the registers of a thread
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// x - greatest without a NaN at infinities, as on the CPU.
struct Shifted {
  float shift;
  __device__ explicit Shifted(float greatest) : shift(greatest == -kInfinity ? 0.f : greatest) {}
  __device__ float operator()(float x) const { return x == shift ? 0.f : x - shift; }
};

// An operation folds a row of its inputs (x, or y and dy) to a State, where kNeutral (and 0 for dy) changes nothing,
// and has each output from the inputs and the Result of the folded state.

template <class Math>
struct Softmax {
  using State = LogSum;
  static constexpr int kInputs = 1;
  static constexpr float kNeutral = -kInfinity;
  __device__ State operator()(State a, State b) const { return combine(a, b); }
  template <int N>
  __device__ static void absorb(State& state, const float (&in)[kInputs][N]) {
    state.template add<Math>(in[0]);
  }
  struct Result {
    Shifted below;
    float scale;
    __device__ explicit Result(State s) : below(s.greatest), scale(s.sum == 0 ? 0.f : 1 / s.sum) {}
    __device__ float operator()(float x) const { return Math::exp(below(x)) * scale; }
  };
};

template <class Math>
struct LogSoftmax : Softmax<Math> {
  struct Result {
    Shifted below;
    float log_sum;
    __device__ explicit Result(LogSum s) : below(s.greatest), log_sum(s.sum == 0 ? 0.f : logf(s.sum)) {}
    __device__ float operator()(float x) const { return below(x) - log_sum; }
  };
};

template <class Math>
struct SoftmaxGradient {
  using State = float;
  static constexpr int kInputs = 2;
  static constexpr float kNeutral = 0;
  __device__ State operator()(State a, State b) const { return a + b; }
  template <int N>
  __device__ static void absorb(State& state, const float (&in)[kInputs][N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) state = fmaf(in[0][i], in[1][i], state);
  }
  struct Result {
    float mean;
    __device__ explicit Result(State s) : mean(s) {}
    __device__ float operator()(float y, float dy) const { return y * (dy - mean); }
  };
};

template <class Math>
struct LogSoftmaxGradient {
  // The second number tells whether the row has any probability.
  struct State {
    float sum = 0, greatest = -kInfinity;
  };
  static constexpr int kInputs = 2;
  static constexpr float kNeutral = -kInfinity;
  __device__ State operator()(State a, State b) const { return {a.sum + b.sum, fmaxf(a.greatest, b.greatest)}; }
  template <int N>
  __device__ static void absorb(State& state, const float (&in)[kInputs][N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      state.sum += in[1][i];
      state.greatest = fmaxf(state.greatest, in[0][i]);
    }
  }
  struct Result {
    float sum, any;
    __device__ explicit Result(State s) : sum(s.sum), any(s.greatest == -kInfinity ? 0.f : 1.f) {}
    __device__ float operator()(float y, float dy) const { return any * (dy - Math::exp(y) * sum); }
  };
};

template <class Operation, class T>
struct Rows {
  const T* in[Operation::kInputs];
  T* out;
  Axes<Operation::kInputs> leading;
  int64_t count, length;
  int width;  // threads on a row
};

// Elements of a row that belong to a thread: packs (single elements where rows are not aligned), threads side by side.
template <int kPack, class T>
struct Chunk {
  int lane, width;
  int64_t length;

  __device__ int64_t index(int64_t first, int k) const { return first + (k * width + lane) * kPack; }

  __device__ __forceinline__ void load_from(const T* row, int64_t first, float neutral, float (&to)[kElements]) const {
#pragma unroll
    for (int k = 0; k < kElements / kPack; ++k) {
      const int64_t at = index(first, k);
      float pack[kPack];
#pragma unroll
      for (float& value : pack) value = neutral;
      if (at < length) load<kPack>(row + at, pack);
#pragma unroll
      for (int i = 0; i < kPack; ++i) to[k * kPack + i] = pack[i];
    }
  }
  __device__ __forceinline__ void store_to(T* row, int64_t first, const float (&from)[kElements]) const {
#pragma unroll
    for (int k = 0; k < kElements / kPack; ++k) {
      const int64_t at = index(first, k);
      float pack[kPack];
#pragma unroll
      for (int i = 0; i < kPack; ++i) pack[i] = from[k * kPack + i];
      if (at < length) store<kPack>(row + at, pack);
    }
  }
};

template <int kPack, class Operation, class T>
__global__ void __launch_bounds__(kMostThreads) softmax_rows(const __grid_constant__ Rows<Operation, T> rows) {
  using State = typename Operation::State;
  constexpr int kInputs = Operation::kInputs;
  __shared__ __align__(16) unsigned char memory[kWarp * sizeof(State)];
  const int width = rows.width, lane = static_cast<int>(threadIdx.x) % width;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / width) + threadIdx.x / width;
  // Threads without a row stay for the barriers.
  const Chunk<kPack, T> mine{lane, width, row < rows.count ? rows.length : 0};
  int64_t at[kInputs] = {};
  if (row < rows.count) rows.leading.offsets(static_cast<uint32_t>(row), at);

  float values[kInputs][kElements];
  const auto load_chunk = [&](int64_t first) {
#pragma unroll
    for (int n = 0; n < kInputs; ++n)
      mine.load_from(rows.in[n] + at[n], first, n == 0 ? Operation::kNeutral : 0.f, values[n]);
  };
  State state{};
  const int64_t chunk = static_cast<int64_t>(width) * kElements, last = (rows.length - 1) / chunk * chunk;
  for (int64_t first = 0; first <= last; first += chunk) {
    load_chunk(first);
    Operation::absorb(state, values);
  }
  const typename Operation::Result result(group_reduce(state, width, reinterpret_cast<State*>(memory), Operation()));
  // Backwards: the last chunk is still here, those before it were read last.
  for (int64_t first = last; first >= 0; first -= chunk) {
    if (first != last) load_chunk(first);
    float out[kElements];
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      if constexpr (kInputs == 1) {
        out[i] = result(values[0][i]);
      } else {
        out[i] = result(values[0][i], values[1][i]);
      }
    }
    mine.store_to(rows.out + row * rows.length, first, out);
  }
}

template <template <class> class OperationFor, class... In>
void run(std::string_view op, Tensor& out, const In&... in) {
  const Launch launch(op, out);
  dispatch_storage(op, out.dtype(), [&]<class T>() {
    using Operation = OperationFor<MathFor<T>>;
    constexpr int kInputs = Operation::kInputs, kPack = kWide<T>;
    const Shape leading = out.shape().without(-1);
    Rows<Operation, T> rows{
        {in.template data<T>()...}, out.data<T>(),      Axes<kInputs>(leading, {in.strides().without(-1)...}),
        leading.elements(),         out.shape().back(), 0};
    if (out.elements() == 0) return;
    check(rows.count <= kMostIndices, op, ": ", describe(out), " has more than ", kMostIndices, " rows; cut it");
    rows.width = static_cast<int>(
        std::bit_ceil(static_cast<uint64_t>(std::min<int64_t>(blocks_for(rows.length, kElements), kMostThreads))));
    bool packed = rows.length % kPack == 0 && aligned_for<kPack>(rows.out);
    for (int n = 0; n < kInputs; ++n)
      packed = packed && aligned_for<kPack>(rows.in[n]) && rows.leading.steps_divide(n, rows.leading.rank, kPack);
    const int threads = std::max(kThreads, rows.width);
    const auto blocks = static_cast<unsigned>(blocks_for(rows.count, threads / rows.width));
    launch(packed ? softmax_rows<kPack, Operation, T> : softmax_rows<1, Operation, T>, blocks, threads, rows);
  });
}

}  // namespace

void softmax(const Tensor& x, Tensor& y) { run<Softmax>("softmax", y, x); }
void log_softmax(const Tensor& x, Tensor& y) { run<LogSoftmax>("log_softmax", y, x); }
void softmax_gradient(const Tensor& y, const Tensor& dy, Tensor& dx) { run<SoftmaxGradient>("softmax", dx, y, dy); }
void log_softmax_gradient(const Tensor& y, const Tensor& dy, Tensor& dx) {
  run<LogSoftmaxGradient>("log_softmax", dx, y, dy);
}

}  // namespace monoid::cuda
