// Embedding: rows of a table by token, and the gradient of the table. The gradient sorts positions by token (a stable
// radix sort, eight bits a pass: counts by block, their scan, a scatter in order), then adds the rows of each token in
// sorted order: pieces of 64 positions in parallel, then the pieces of a token that spans several. No atomics on
// floats, balanced however skewed the tokens are. Floor: one read of dy, one write of the table's rows in use.

#include "monoid/kernels/cuda/device/overlap.cuh"
#include "monoid/kernels/cuda/device/reduce.cuh"
#include "monoid/kernels/cuda/device/vector_io.cuh"
#include "monoid/kernels/cuda/faults.h"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/indexing.h"

namespace monoid::cuda {
namespace {

// ------------------------------------------------------------------------------------------------------------ forward

constexpr int kRowsPerBlock = 8;  // a warp each

template <class T, int N, class I>
__global__ void copy_rows(const T* weight, int64_t weight_step, int64_t table_rows, const I* tokens, int64_t count,
                          int64_t channels, T* result, int64_t result_step, FaultRecord* faults) {
  wait_for_previous();
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.y;
  if (n >= count) return;
  const int64_t token = tokens[n];
  const bool inside = token >= 0 && token < table_rows;
  if (!inside && threadIdx.x == 0)
    report(faults, Fault::embedding_index, n, static_cast<double>(token), static_cast<double>(table_rows));
  for (int64_t c = threadIdx.x * N; c < channels; c += kWarp * N) {
    Pack<T, N> pack{};
    if (inside) pack = *reinterpret_cast<const Pack<T, N>*>(weight + token * weight_step + c);
    *reinterpret_cast<Pack<T, N>*>(result + n * result_step + c) = pack;
  }
}

// --------------------------------------------------------------------------------------------------------------- sort

constexpr int kDigits = 256;
constexpr int kDigitBits = 8;
constexpr int kSortThreads = 256;
constexpr int kChunk = 1024;  // positions a block
constexpr int kScanThreads = 1024;

// Tokens as keys; one outside the table gets the key behind all others.
template <class I>
__global__ void make_keys(const I* tokens, int count, int table_rows, int* keys, int* positions) {
  const int n = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (n >= count) return;
  const int64_t token = tokens[n];
  keys[n] = token >= 0 && token < table_rows ? static_cast<int>(token) : table_rows;
  positions[n] = n;
}

__device__ __forceinline__ int digit_of(int key, int shift) { return key >> shift & (kDigits - 1); }

// counts[digit][block]: how many keys of a block have a digit.
__global__ void __launch_bounds__(kSortThreads) count_digits(const int* keys, int count, int shift, int* counts) {
  __shared__ int found[kDigits];
  found[threadIdx.x] = 0;
  __syncthreads();
  const int begin = static_cast<int>(blockIdx.x) * kChunk, end = min(begin + kChunk, count);
  for (int n = begin + static_cast<int>(threadIdx.x); n < end; n += kSortThreads)
    atomicAdd(&found[digit_of(keys[n], shift)], 1);
  __syncthreads();
  counts[threadIdx.x * gridDim.x + blockIdx.x] = found[threadIdx.x];
}

// values[i] = the sum of those before it, by one block.
__global__ void __launch_bounds__(kScanThreads) exclusive_scan(int* values, int count) {
  __shared__ int warp_sums[kWarp];
  __shared__ int carry;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  if (threadIdx.x == 0) carry = 0;
  for (int base = 0; base < count; base += kScanThreads) {
    const int i = base + static_cast<int>(threadIdx.x);
    const int value = i < count ? values[i] : 0;
    int sum = value;
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int left = __shfl_up_sync(kAllLanes, sum, distance);
      if (lane >= distance) sum += left;
    }
    if (lane == kWarp - 1) warp_sums[warp] = sum;
    __syncthreads();
    int before = carry;
    for (int w = 0; w < warp; ++w) before += warp_sums[w];
    if (i < count) values[i] = before + sum - value;
    __syncthreads();
    if (threadIdx.x == kScanThreads - 1) carry = before + sum;
    __syncthreads();
  }
}

// Moves keys and positions to where their digit's turn comes, equal digits in their old order.
__global__ void __launch_bounds__(kSortThreads) scatter(const int* keys, const int* positions, int count, int shift,
                                                        const int* starts, int* new_keys, int* new_positions) {
  constexpr int kWarps = kSortThreads / kWarp;
  __shared__ int next[kDigits];
  __shared__ int of_warp[kWarps][kDigits];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  next[threadIdx.x] = starts[threadIdx.x * gridDim.x + blockIdx.x];
  const int begin = static_cast<int>(blockIdx.x) * kChunk;
  for (int round = 0; round < kChunk / kSortThreads; ++round) {
    for (int w = 0; w < kWarps; ++w) of_warp[w][threadIdx.x] = 0;
    __syncthreads();
    const int n = begin + round * kSortThreads + static_cast<int>(threadIdx.x);
    const bool there = n < count;
    const int key = there ? keys[n] : 0, digit = there ? digit_of(key, shift) : kDigits;
    const unsigned peers = __match_any_sync(kAllLanes, digit);
    const int rank = __popc(peers & ((1u << lane) - 1));
    if (there && rank == 0) of_warp[warp][digit] = __popc(peers);
    __syncthreads();
    if (there) {
      int place = next[digit] + rank;
      for (int w = 0; w < warp; ++w) place += of_warp[w][digit];
      new_keys[place] = key;
      new_positions[place] = positions[n];
    }
    __syncthreads();
    for (int w = 0; w < kWarps; ++w) next[threadIdx.x] += of_warp[w][threadIdx.x];
  }
}

struct Sorted {
  Tensor keys, positions;  // i32 [count]
};

template <class I>
Sorted sort_by_token(const Launch& launch, const Tensor& tokens, int table_rows) {
  const auto count = static_cast<int>(tokens.elements());
  const auto buffer = [&] { return Tensor::empty({count}, DType::i32, tokens.device()); };
  Sorted from{buffer(), buffer()}, to{buffer(), buffer()};
  launch(make_keys<I>, static_cast<unsigned>(blocks_for(count, kSortThreads)), kSortThreads, tokens.data<I>(), count,
         table_rows, from.keys.data<int32_t>(), from.positions.data<int32_t>());
  const auto blocks = static_cast<unsigned>(blocks_for(count, kChunk));
  Tensor counts = Tensor::empty({kDigits, blocks}, DType::i32, tokens.device());
  for (int shift = 0; shift == 0 || table_rows >> shift != 0; shift += kDigitBits) {
    launch(count_digits, blocks, kSortThreads, from.keys.data<int32_t>(), count, shift, counts.data<int32_t>());
    launch(exclusive_scan, 1, kScanThreads, counts.data<int32_t>(), static_cast<int>(counts.elements()));
    launch(scatter, blocks, kSortThreads, from.keys.data<int32_t>(), from.positions.data<int32_t>(), count, shift,
           counts.data<int32_t>(), to.keys.data<int32_t>(), to.positions.data<int32_t>());
    std::swap(from, to);
  }
  return from;
}

// ------------------------------------------------------------------------------------------------------------- adding

constexpr int kPiece = 64;       // sorted positions that a block adds up
constexpr int kInFlight = 8;     // rows asked for before the first is added
constexpr int kAddThreads = 64;  // a pack of channels each

// Rows of one token that lie in several pieces: those of a piece that go on from the piece before are in `heads`, those
// that go on into the next are in `tails` (in `heads` too where they do both).
struct Partials {
  float *heads, *tails;  // [pieces, channels]
};

template <class T, int N>
__global__ void __launch_bounds__(kAddThreads)
    add_pieces(const T* dy, int64_t dy_step, const int* keys, const int* positions, int count, int table_rows,
               int64_t channels, T* dweight, int64_t row_step, Partials partials) {
  __shared__ int piece_keys[kPiece + 2];  // with the neighbours on both sides, -1 where there is none
  __shared__ int piece_positions[kPiece];
  const int begin = static_cast<int>(blockIdx.x) * kPiece, length = min(kPiece, count - begin);
  for (int i = static_cast<int>(threadIdx.x); i < kPiece + 2; i += kAddThreads) {
    const int n = begin + i - 1;
    piece_keys[i] = n >= 0 && n < count ? keys[n] : -1;
    if (i < length) piece_positions[i] = positions[begin + i];
  }
  __syncthreads();
  const int64_t c = (static_cast<int64_t>(blockIdx.y) * kAddThreads + threadIdx.x) * N;
  if (c >= channels) return;
  const int* const key_at = piece_keys + 1;
  const bool goes_on = key_at[-1] == key_at[0], followed = key_at[length] == key_at[length - 1];
  float sum[N] = {};
  int first = 0;  // of the rows in `sum`
  for (int base = 0; base < length; base += kInFlight) {
    float rows[kInFlight][N];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      if (base + j < length) load<N>(dy + piece_positions[base + j] * dy_step + c, rows[j]);
    }
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      const int i = base + j;
      if (i >= length) break;
#pragma unroll
      for (int n = 0; n < N; ++n) sum[n] = i == first ? rows[j][n] : sum[n] + rows[j][n];
      const bool last = i + 1 == length;
      if (!last && key_at[i + 1] == key_at[i]) continue;
      if (first == 0 && goes_on) {
        store<N>(partials.heads + blockIdx.x * channels + c, sum);
      } else if (last && followed) {
        store<N>(partials.tails + blockIdx.x * channels + c, sum);
      } else if (key_at[i] < table_rows) {
        store<N>(dweight + key_at[i] * row_step + c, sum);
      }
      first = i + 1;
    }
  }
}

// The block of the piece in which a token's rows begin adds what the next pieces hold of it.
template <class T>
__global__ void __launch_bounds__(kAddThreads)
    add_partials(const int* keys, int count, int table_rows, int64_t channels, T* dweight, int64_t row_step,
                 Partials partials) {
  const int piece = static_cast<int>(blockIdx.x), end = (piece + 1) * kPiece, begin = piece * kPiece;
  if (end >= count || keys[end] != keys[end - 1]) return;
  const int key = keys[end];
  const bool began_before = begin > 0 && keys[begin - 1] == key;
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kAddThreads + threadIdx.x;
  if (began_before || key >= table_rows || c >= channels) return;
  int low = end, high = count;  // the first position behind the token's rows
  while (low < high) {
    const int middle = (low + high) / 2;
    keys[middle] == key ? low = middle + 1 : high = middle;
  }
  const int last = (low - 1) / kPiece;
  float sum = partials.tails[piece * channels + c];
#pragma unroll 8
  for (int q = piece + 1; q <= last; ++q) sum += partials.heads[q * channels + c];
  dweight[key * row_step + c] = narrow<T>(sum);
}

}  // namespace

void embedding(const Tensor& weight, const Tensor& tokens, Tensor& result) {
  const Launch launch("embedding", weight);
  const int64_t count = tokens.elements(), channels = weight.size(1);
  if (channels == 0) return;
  dispatch_storage("embedding", weight.dtype(), [&]<class T>() {
    dispatch_index("embedding", tokens.dtype(), [&]<class I>() {
      constexpr int kPack = kWide<T>;
      const int64_t weight_step = weight.strides()[0], result_step = result.strides()[0];
      const bool packed = aligned_for<kPack>(weight.data<T>(), weight_step) &&
                          aligned_for<kPack>(result.data<T>(), result_step) && channels % kPack == 0;
      launch.overlapped(packed ? copy_rows<T, kPack, I> : copy_rows<T, 1, I>,
                        static_cast<unsigned>(blocks_for(count, kRowsPerBlock)), dim3(kWarp, kRowsPerBlock),
                        weight.data<T>(), weight_step, weight.size(0), tokens.data<I>(), count, channels,
                        result.data<T>(), result_step, fault_record(launch.index()));
    });
  });
}

void embedding_gradient(const Tensor& dy, const Tensor& tokens, Tensor& dweight) {
  const Launch launch("embedding_gradient", dy);
  const int64_t count = tokens.elements(), channels = dweight.size(1);
  if (count == 0 || channels == 0) return;
  check(count < int64_t{1} << 30 && dweight.size(0) < int64_t{1} << 30, "embedding: the gradient of ", count,
        " tokens in a table of ", dweight.size(0), " rows; at most 2^30 of each on CUDA");
  const auto table_rows = static_cast<int>(dweight.size(0)), positions = static_cast<int>(count);
  const Sorted sorted = dispatch_index("embedding", tokens.dtype(),
                                       [&]<class I>() { return sort_by_token<I>(launch, tokens, table_rows); });
  const auto pieces = static_cast<unsigned>(blocks_for(count, kPiece));
  Tensor heads = Tensor::empty({pieces, channels}, DType::f32, dy.device()), tails = Tensor::empty_like(heads);
  const Partials partials{heads.data<float>(), tails.data<float>()};
  dispatch_storage("embedding", dy.dtype(), [&]<class T>() {
    constexpr int kPack = 4;
    const int64_t dy_step = dy.strides()[0], row_step = dweight.strides()[0];
    const bool packed = aligned_for<kPack>(dy.data<T>(), dy_step) && aligned_for<kPack>(dweight.data<T>(), row_step) &&
                        channels % kPack == 0;
    const auto tiles = [&](int pack) { return static_cast<unsigned>(blocks_for(channels, kAddThreads * pack)); };
    launch(packed ? add_pieces<T, kPack> : add_pieces<T, 1>, dim3(pieces, tiles(packed ? kPack : 1)), kAddThreads,
           dy.data<T>(), dy_step, sorted.keys.data<int32_t>(), sorted.positions.data<int32_t>(), positions, table_rows,
           channels, dweight.data<T>(), row_step, partials);
    launch(add_partials<T>, dim3(pieces, tiles(1)), kAddThreads, sorted.keys.data<int32_t>(), positions, table_rows,
           channels, dweight.data<T>(), row_step, partials);
  });
}

}  // namespace monoid::cuda
