// GateLoop with heads of several channels on CUDA, forward (gate_loop_outer.cuh has the idea). Floor (elements moved
// per channel and step): 4; what is moved besides are the states between chunks, 16 d bytes a channel and chunk twice
// over. Operations: about 12 d + 256 per channel and step, in f32 for both dtypes: that is what takes the time.

#include "monoid/kernels/cuda/gate_loop_outer_run.cuh"

namespace monoid::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kTileThreads)
    read_kernel(const __grid_constant__ OuterShape<T> shape, const float* states, HeadRows<T> y) {
  __shared__ TileOperands operands;
  __shared__ Products products;
  __shared__ float scores[kChunk][kChunk + 1];
  wait_for_previous();
  const Chunk<T> chunk(shape);
  const int size = shape.size;
  products.fill(chunk);
  write_scores(chunk, operands, shape.query, shape.key, scores);
  const float* const state = states + chunk.place(shape.chunks + 1, chunk.index) * chunk.plane();
  __syncthreads();
  for (int j = 0; j < size; j += kTile) {
    TileProduct tile;
    tile.add<false>(
        operands, chunk.steps, [&](int t, int s) { return s <= t ? scores[t][s] * products.between(t, s).re : 0; },
        [&](int s, int column) { return chunk.read(shape.value, s, j + column); });
    tile.add<false>(
        operands, 2 * size,
        [&](int t, int n) {
          const float q = chunk.read(shape.query, t, n / 2);
          return n % 2 == 0 ? q * products.forward[t].re : -q * products.forward[t].im;
        },
        [&](int n, int column) {
          return j + column < size ? state[(int64_t{n / 2} * size + j + column) * 2 + n % 2] : 0;
        });
    tile.visit([&](int t, int column, float x) {
      if (t < chunk.steps && j + column < size)
        y.at(chunk.batch, chunk.head, chunk.begin + t)[j + column] = narrow<T>(x);
    });
  }
}

}  // namespace

void gate_loop_outer_scan(const Tensor& qkv, const Tensor& z, const Tensor& initial, Tensor& y, Tensor& final,
                          const GateLoopOptions& options) {
  dispatch_storage("gate_loop_scan", qkv.dtype(), [&]<class T>() {
    const OuterRun<T> run(qkv, z, options);
    const Tensor states = run.states(initial, &final);
    run.launch.overlapped(read_kernel<T>, run.grid(), kTileThreads, run.shape, states.data<float>(),
                          run.rows(y.data<T>(), y));
  });
}

}  // namespace monoid::cuda
