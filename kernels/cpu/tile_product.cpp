// The inner product loops of attention. A block of c stays in registers, 6 rows of 256 bytes with AVX-512 (24 sums, of
// which 8 hide the latency of a multiply-add), while every a[i, k] is broadcast over a row of b: 10 loads for 24
// multiply-adds, so the loads are never what it waits for. Floor: 2 multiply-adds a cycle.

#include "monoid/kernels/cpu/tile_product.h"

#include "monoid/kernels/cpu/lanes.h"

namespace monoid::cpu {
namespace {

template <class L, int kRows, int kVectors, class T>
void block(const Matrix<const T>& a, const Matrix<const T>& b, const Matrix<T>& c, bool clear) {
  typename L::Vector sums[kRows][kVectors], row[kVectors];
  unrolled<kRows>([&](auto i) {
    unrolled<kVectors>([&](auto j) {
      if (clear) {
        sums[i][j] = typename L::Vector{};
      } else {
        L::load(sums[i][j], c.data + i * c.row_step + j * L::kCount);
      }
    });
  });
  const T* from_a = a.data;
  const T* from_b = b.data;
  for (int64_t k = 0; k < a.columns; ++k) {
    unrolled<kVectors>([&](auto j) { L::load(row[j], from_b + j * L::kCount); });
    unrolled<kRows>([&](auto i) {
      const T factor = from_a[i * a.row_step];
      unrolled<kVectors>([&](auto j) { sums[i][j] += factor * row[j]; });
    });
    from_a += a.column_step;
    from_b += b.row_step;
  }
  unrolled<kRows>([&](auto i) {
    unrolled<kVectors>([&](auto j) { L::store(sums[i][j], c.data + i * c.row_step + j * L::kCount); });
  });
}

// The columns [first, first + width) of c, kVectors registers wide, from top to bottom, so that b stays close.
template <class L, int kVectors, class T>
void strip(const Matrix<const T>& a, const Matrix<const T>& b, const Matrix<T>& c, int64_t first, bool clear) {
  constexpr int64_t kWidth = kVectors * L::kCount;
  int64_t i = 0;
  const auto rows = [&](auto count) {
    for (; i + count <= c.rows; i += count) {
      block<L, count(), kVectors>(a.block(i, 0, count, a.columns), b.block(0, first, b.rows, kWidth),
                                  c.block(i, first, count, kWidth), clear);
    }
  };
  rows(std::integral_constant<int, 6>{});
  rows(std::integral_constant<int, 4>{});
  rows(std::integral_constant<int, 2>{});
  rows(std::integral_constant<int, 1>{});
}

}  // namespace

template <class T>
void tile_product(const Matrix<const T>& a, const Matrix<const T>& b, const Matrix<T>& c, bool clear) {
  with_lanes<T>([&]<class L>() {
    constexpr int kWide = sizeof(typename L::Vector) == 64 ? 4 : 2;  // half as many registers, half as long
    int64_t vectors = c.columns / L::kCount, first = 0;
    const auto strips = [&](auto width) {
      for (; vectors >= width; vectors -= width, first += width * L::kCount) {
        strip<L, width()>(a, b, c, first, clear);
      }
    };
    strips(std::integral_constant<int, kWide>{});
    if constexpr (kWide == 4) strips(std::integral_constant<int, 2>{});
    strips(std::integral_constant<int, 1>{});
  });
}

template void tile_product(const Matrix<const float>&, const Matrix<const float>&, const Matrix<float>&, bool);
template void tile_product(const Matrix<const double>&, const Matrix<const double>&, const Matrix<double>&, bool);

}  // namespace monoid::cpu
