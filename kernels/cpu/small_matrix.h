#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "monoid/kernels/cpu/lanes.h"
#include "monoid/kernels/cpu/vector_math.h"

namespace monoid::cpu {

// Products of matrices that fit into registers and the L1 cache: kOrder rows of kOrder numbers, one row after the
// other. A row is a vector (or a few), a column of the left factor is broadcast: each loaded vector of b meets a block
// of rows of a, whose sums stay in registers. L is the widest Lanes of the machine, for which `run` compiles loops over
// products. SmallMatrix<L, T, 0> is the same for an order known only at run time.

/// Runs body() compiled for the instruction set that has registers like L's.
template <class L, class Body>
void run_with(const Body& body) {
  if constexpr (sizeof(typename L::Vector) == 64) {
    detail::run_avx512(body);
  } else {
    isa() == Isa::avx2 ? detail::run_avx2(body) : body();
  }
}

template <class L, class T, int kOrder>
struct SmallMatrix {
  static constexpr int kBytes = std::min(static_cast<int>(sizeof(typename L::Vector)), kOrder* int{sizeof(T)});
  using Part = Lanes<T, kBytes>;
  using Vector = typename Part::Vector;
  static constexpr int kParts = kOrder / Part::kCount;
  static constexpr int kBlock = std::clamp(8 / kParts, 1, kOrder);  // rows of a at a time: eight sums

  explicit SmallMatrix(int64_t) {}
  static constexpr int64_t order() { return kOrder; }
  static constexpr int64_t size() { return kOrder * kOrder; }
  template <class Body>
  static void run(const Body& body) {
    run_with<L>(body);
  }

  /// c = a b, or transpose(a) b; plus `add` where there is one.
  template <bool kTransposeA = false>
  void multiply(const T* a, const T* b, T* c, const T* add = nullptr) const {
    for (int first = 0; first < kOrder; first += kBlock) {
      Vector sums[kBlock][kParts];
      each_sum([&](auto row, auto part) {
        if (add) {
          Part::load(sums[row][part], add + (first + row) * kOrder + part * Part::kCount);
        } else {
          sums[row][part] = Vector{};
        }
      });
#pragma GCC unroll 4
      for (int k = 0; k < kOrder; ++k) {
        Vector right[kParts];
        unrolled<kParts>([&](auto part) { Part::load(right[part], b + k * kOrder + part * Part::kCount); });
        each_sum([&](auto row, auto part) {
          sums[row][part] += (kTransposeA ? a[k * kOrder + first + row] : a[(first + row) * kOrder + k]) * right[part];
        });
      }
      each_sum(
          [&](auto row, auto part) { Part::store(sums[row][part], c + (first + row) * kOrder + part * Part::kCount); });
    }
  }

  /// Square tiles of one vector a row, transposed in log2 steps that exchange halves.
  void transpose(const T* from, T* to) const {
    constexpr int kCount = Part::kCount;
    for (int i = 0; i < kParts; ++i) {
      for (int j = 0; j < kParts; ++j) {
        Vector rows[kCount];
        unrolled<kCount>([&](auto r) { Part::load(rows[r], from + (i * kCount + r) * kOrder + j * kCount); });
        exchange<kCount / 2>(rows);
        unrolled<kCount>([&](auto r) { Part::store(rows[r], to + (j * kCount + r) * kOrder + i * kCount); });
      }
    }
  }

 private:
  template <class Body>
  static void each_sum(Body body) {
    unrolled<kBlock>([&](auto row) { unrolled<kParts>([&](auto part) { body(row, part); }); });
  }

  // Off-diagonal blocks of kHalf x kHalf change places in each block of twice that, then in their halves.
  template <int kHalf>
  static void exchange(Vector (&rows)[Part::kCount]) {
    if constexpr (kHalf > 0) {
      unrolled<Part::kCount>([&](auto row) {
        constexpr int kRow = row;
        if constexpr ((kRow & kHalf) == 0) {
          const auto halves = [&]<int... kLanes>(std::integer_sequence<int, kLanes...>) {
            const Vector upper = rows[kRow], lower = rows[kRow + kHalf];
            rows[kRow] = __builtin_shufflevector(upper, lower,
                                                 ((kLanes & kHalf) == 0 ? kLanes : kLanes - kHalf + Part::kCount)...);
            rows[kRow + kHalf] = __builtin_shufflevector(
                upper, lower, ((kLanes & kHalf) == 0 ? kLanes + kHalf : kLanes + Part::kCount)...);
          };
          halves(std::make_integer_sequence<int, Part::kCount>{});
        }
      });
      exchange<kHalf / 2>(rows);
    }
  }
};

template <class L, class T>
struct SmallMatrix<L, T, 0> {
  explicit SmallMatrix(int64_t order) : order_(order) {}
  int64_t order() const { return order_; }
  int64_t size() const { return order_ * order_; }
  template <class Body>
  static void run(const Body& body) {
    run_with<L>(body);
  }

  template <bool kTransposeA = false>
  void multiply(const T* a, const T* b, T* c, const T* add = nullptr) const {
    for (int64_t i = 0; i < order_; ++i) {
      T* sums = c + i * order_;
      for (int64_t j = 0; j < order_; ++j) sums[j] = add ? add[i * order_ + j] : T(0);
      for (int64_t k = 0; k < order_; ++k) {
        const T left = kTransposeA ? a[k * order_ + i] : a[i * order_ + k];
        const T* right = b + k * order_;
#pragma GCC ivdep
        for (int64_t j = 0; j < order_; ++j) sums[j] += left * right[j];
      }
    }
  }

  void transpose(const T* from, T* to) const {
    for (int64_t i = 0; i < order_; ++i)
      for (int64_t j = 0; j < order_; ++j) to[j * order_ + i] = from[i * order_ + j];
  }

 private:
  int64_t order_;
};

/// Calls body(SmallMatrix) for the widest registers of this CPU: 2, 4, 8, 16 and 32 have code of their own.
template <class T, class Body>
void with_small_matrix(int64_t order, const Body& body) {
  const auto with = [&]<class L>() {
    switch (order) {
      case 2:
        return body(SmallMatrix<L, T, 2>(order));
      case 4:
        return body(SmallMatrix<L, T, 4>(order));
      case 8:
        return body(SmallMatrix<L, T, 8>(order));
      case 16:
        return body(SmallMatrix<L, T, 16>(order));
      case 32:
        return body(SmallMatrix<L, T, 32>(order));
      default:
        return body(SmallMatrix<L, T, 0>(order));
    }
  };
  if (isa() == Isa::avx512) {
    with.template operator()<Lanes<T, 64>>();
  } else {
    with.template operator()<Lanes<T, 32>>();
  }
}

// --------------------------------------------------------------------------------------------------------------- LDU

/// The factors of X = lower upper, made from M; `lower`, `upper` are matrices, the diagonal of both is d.
template <class Matrix, class T>
void ldu_factors(const Matrix& matrix, const T* m, T* lower, T* upper) {
  const int64_t order = matrix.order();
  T mean = 0;
  for (int64_t i = 0; i < order; ++i) mean += m[i * order + i];
  mean /= static_cast<T>(order);
  for (int64_t i = 0; i < order; ++i) {
    for (int64_t j = 0; j < order; ++j) {
      const T entry = m[i * order + j];
      lower[i * order + j] = j < i ? entry : T(0);
      upper[i * order + j] = j > i ? entry : T(0);
    }
  }
  for (int64_t i = 0; i < order; ++i)
    lower[i * order + i] = upper[i * order + i] = cpu::exp((m[i * order + i] - mean) / 2);
}

/// dM from dX: the factors get dX transpose(upper) and transpose(lower) dX; d_i = exp((m_ii - mean) / 2) is in both.
/// The three scratch matrices are overwritten.
template <class Matrix, class T>
void ldu_gradient(const Matrix& matrix, const T* lower, const T* upper, const T* x_gradient, T* m_gradient, T* turned,
                  T* lower_gradient, T* upper_gradient) {
  const int64_t order = matrix.order();
  matrix.transpose(upper, turned);
  matrix.multiply(x_gradient, turned, lower_gradient);
  matrix.template multiply<true>(lower, x_gradient, upper_gradient);
  T mean = 0;
  for (int64_t i = 0; i < order; ++i) {
    for (int64_t j = 0; j < order; ++j)
      m_gradient[i * order + j] = j < i ? lower_gradient[i * order + j] : upper_gradient[i * order + j];
    const int64_t ii = i * order + i;
    m_gradient[ii] = (lower_gradient[ii] + upper_gradient[ii]) * lower[ii] / 2;
    mean += m_gradient[ii];
  }
  mean /= static_cast<T>(order);
  for (int64_t i = 0; i < order; ++i) m_gradient[i * order + i] -= mean;
}

}  // namespace monoid::cpu
