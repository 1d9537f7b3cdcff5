#pragma once

#include <cstdint>

// The tensor cores of Hopper: products of four warps together, 64 rows, that run while the warps do other things and
// read tiles straight from shared memory. Compute capability 9.0a only.

namespace monoid::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool kHasWarpgroups = true;

/// Where a tile of bf16 lies whose rows of 128 bytes are permuted in groups of eight (HeadTile): blocks of 64 columns
/// are `block_bytes` apart, groups of eight rows 1024.
__device__ __forceinline__ uint64_t tile_descriptor(const void* tile, int block_bytes) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(tile));
  return (address & 0x3ffff) >> 4 | static_cast<uint64_t>(block_bytes >> 4) << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}

/// Before products read registers, or shared memory that ordinary stores and copies have written.
__device__ __forceinline__ void products_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until all groups of products but the last `kPending` are done.
template <int kPending>
__device__ __forceinline__ void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/// What this thread wrote to shared memory is seen by products after the next barrier.
__device__ __forceinline__ void publish_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// x += left right (or x = without `adds`), columns from register `at` on: scores take both sides from shared memory, as
// rows of the sum; a mix takes the left from registers, the right as rows of the result.
template <int at, int N>
__device__ __forceinline__ void group_scores_64(float (&x)[2][N], uint64_t left, uint64_t right, bool adds) {
  asm volatile(
      "{ .reg .pred adds; setp.ne.b32 adds, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
      "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, adds, 1, 1, 0, 0; }"
      : "+f"(x[0][at + 0]), "+f"(x[0][at + 1]), "+f"(x[1][at + 0]), "+f"(x[1][at + 1]), "+f"(x[0][at + 2]),
        "+f"(x[0][at + 3]), "+f"(x[1][at + 2]), "+f"(x[1][at + 3]), "+f"(x[0][at + 4]), "+f"(x[0][at + 5]),
        "+f"(x[1][at + 4]), "+f"(x[1][at + 5]), "+f"(x[0][at + 6]), "+f"(x[0][at + 7]), "+f"(x[1][at + 6]),
        "+f"(x[1][at + 7]), "+f"(x[0][at + 8]), "+f"(x[0][at + 9]), "+f"(x[1][at + 8]), "+f"(x[1][at + 9]),
        "+f"(x[0][at + 10]), "+f"(x[0][at + 11]), "+f"(x[1][at + 10]), "+f"(x[1][at + 11]), "+f"(x[0][at + 12]),
        "+f"(x[0][at + 13]), "+f"(x[1][at + 12]), "+f"(x[1][at + 13]), "+f"(x[0][at + 14]), "+f"(x[0][at + 15]),
        "+f"(x[1][at + 14]), "+f"(x[1][at + 15])
      : "l"(left), "l"(right), "r"(static_cast<int>(adds)));
}
template <int at, int N>
__device__ __forceinline__ void group_scores_128(float (&x)[2][N], uint64_t left, uint64_t right, bool adds) {
  asm volatile(
      "{ .reg .pred adds; setp.ne.b32 adds, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
      "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, "
      "%41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, "
      "%61, %62, %63}, %64, %65, adds, 1, 1, 0, 0; }"
      : "+f"(x[0][at + 0]), "+f"(x[0][at + 1]), "+f"(x[1][at + 0]), "+f"(x[1][at + 1]), "+f"(x[0][at + 2]),
        "+f"(x[0][at + 3]), "+f"(x[1][at + 2]), "+f"(x[1][at + 3]), "+f"(x[0][at + 4]), "+f"(x[0][at + 5]),
        "+f"(x[1][at + 4]), "+f"(x[1][at + 5]), "+f"(x[0][at + 6]), "+f"(x[0][at + 7]), "+f"(x[1][at + 6]),
        "+f"(x[1][at + 7]), "+f"(x[0][at + 8]), "+f"(x[0][at + 9]), "+f"(x[1][at + 8]), "+f"(x[1][at + 9]),
        "+f"(x[0][at + 10]), "+f"(x[0][at + 11]), "+f"(x[1][at + 10]), "+f"(x[1][at + 11]), "+f"(x[0][at + 12]),
        "+f"(x[0][at + 13]), "+f"(x[1][at + 12]), "+f"(x[1][at + 13]), "+f"(x[0][at + 14]), "+f"(x[0][at + 15]),
        "+f"(x[1][at + 14]), "+f"(x[1][at + 15]), "+f"(x[0][at + 16]), "+f"(x[0][at + 17]), "+f"(x[1][at + 16]),
        "+f"(x[1][at + 17]), "+f"(x[0][at + 18]), "+f"(x[0][at + 19]), "+f"(x[1][at + 18]), "+f"(x[1][at + 19]),
        "+f"(x[0][at + 20]), "+f"(x[0][at + 21]), "+f"(x[1][at + 20]), "+f"(x[1][at + 21]), "+f"(x[0][at + 22]),
        "+f"(x[0][at + 23]), "+f"(x[1][at + 22]), "+f"(x[1][at + 23]), "+f"(x[0][at + 24]), "+f"(x[0][at + 25]),
        "+f"(x[1][at + 24]), "+f"(x[1][at + 25]), "+f"(x[0][at + 26]), "+f"(x[0][at + 27]), "+f"(x[1][at + 26]),
        "+f"(x[1][at + 27]), "+f"(x[0][at + 28]), "+f"(x[0][at + 29]), "+f"(x[1][at + 28]), "+f"(x[1][at + 29]),
        "+f"(x[0][at + 30]), "+f"(x[0][at + 31]), "+f"(x[1][at + 30]), "+f"(x[1][at + 31])
      : "l"(left), "l"(right), "r"(static_cast<int>(adds)));
}
template <int at, int N>
__device__ __forceinline__ void group_mix_64(float (&x)[2][N], const uint32_t (&left)[4], uint64_t right) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, "
      "%11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "
      "%31}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
      : "+f"(x[0][at + 0]), "+f"(x[0][at + 1]), "+f"(x[1][at + 0]), "+f"(x[1][at + 1]), "+f"(x[0][at + 2]),
        "+f"(x[0][at + 3]), "+f"(x[1][at + 2]), "+f"(x[1][at + 3]), "+f"(x[0][at + 4]), "+f"(x[0][at + 5]),
        "+f"(x[1][at + 4]), "+f"(x[1][at + 5]), "+f"(x[0][at + 6]), "+f"(x[0][at + 7]), "+f"(x[1][at + 6]),
        "+f"(x[1][at + 7]), "+f"(x[0][at + 8]), "+f"(x[0][at + 9]), "+f"(x[1][at + 8]), "+f"(x[1][at + 9]),
        "+f"(x[0][at + 10]), "+f"(x[0][at + 11]), "+f"(x[1][at + 10]), "+f"(x[1][at + 11]), "+f"(x[0][at + 12]),
        "+f"(x[0][at + 13]), "+f"(x[1][at + 12]), "+f"(x[1][at + 13]), "+f"(x[0][at + 14]), "+f"(x[0][at + 15]),
        "+f"(x[1][at + 14]), "+f"(x[1][at + 15])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right));
}
template <int at, int N>
__device__ __forceinline__ void group_mix_128(float (&x)[2][N], const uint32_t (&left)[4], uint64_t right) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, "
      "%11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "
      "%31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, "
      "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, %68, 1, 1, "
      "1, 1;"
      : "+f"(x[0][at + 0]), "+f"(x[0][at + 1]), "+f"(x[1][at + 0]), "+f"(x[1][at + 1]), "+f"(x[0][at + 2]),
        "+f"(x[0][at + 3]), "+f"(x[1][at + 2]), "+f"(x[1][at + 3]), "+f"(x[0][at + 4]), "+f"(x[0][at + 5]),
        "+f"(x[1][at + 4]), "+f"(x[1][at + 5]), "+f"(x[0][at + 6]), "+f"(x[0][at + 7]), "+f"(x[1][at + 6]),
        "+f"(x[1][at + 7]), "+f"(x[0][at + 8]), "+f"(x[0][at + 9]), "+f"(x[1][at + 8]), "+f"(x[1][at + 9]),
        "+f"(x[0][at + 10]), "+f"(x[0][at + 11]), "+f"(x[1][at + 10]), "+f"(x[1][at + 11]), "+f"(x[0][at + 12]),
        "+f"(x[0][at + 13]), "+f"(x[1][at + 12]), "+f"(x[1][at + 13]), "+f"(x[0][at + 14]), "+f"(x[0][at + 15]),
        "+f"(x[1][at + 14]), "+f"(x[1][at + 15]), "+f"(x[0][at + 16]), "+f"(x[0][at + 17]), "+f"(x[1][at + 16]),
        "+f"(x[1][at + 17]), "+f"(x[0][at + 18]), "+f"(x[0][at + 19]), "+f"(x[1][at + 18]), "+f"(x[1][at + 19]),
        "+f"(x[0][at + 20]), "+f"(x[0][at + 21]), "+f"(x[1][at + 20]), "+f"(x[1][at + 21]), "+f"(x[0][at + 22]),
        "+f"(x[0][at + 23]), "+f"(x[1][at + 22]), "+f"(x[1][at + 23]), "+f"(x[0][at + 24]), "+f"(x[0][at + 25]),
        "+f"(x[1][at + 24]), "+f"(x[1][at + 25]), "+f"(x[0][at + 26]), "+f"(x[0][at + 27]), "+f"(x[1][at + 26]),
        "+f"(x[1][at + 27]), "+f"(x[0][at + 28]), "+f"(x[0][at + 29]), "+f"(x[1][at + 28]), "+f"(x[1][at + 29]),
        "+f"(x[0][at + 30]), "+f"(x[0][at + 31]), "+f"(x[1][at + 30]), "+f"(x[1][at + 31])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right));
}
#else
inline constexpr bool kHasWarpgroups = false;
__device__ __forceinline__ void publish_to_products() {}
#endif

}  // namespace monoid::cuda
