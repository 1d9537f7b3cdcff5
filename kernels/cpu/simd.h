#pragma once

namespace monoid::cpu {

// Kernels are plain loops that the compiler vectorises; this picks, at run time, for which instruction set. The body
// is inlined into one copy per set, so no file needs its own flags and one binary runs on every x86-64 machine.

enum class Isa { baseline, avx2, avx512 };

/// What this CPU offers; MONOID_ISA=baseline|avx2|avx512 lowers it, for tests and comparisons.
Isa isa();
const char* name(Isa isa);

namespace detail {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
template <class Body>
[[gnu::target("avx512f,avx512dq,avx512bw,avx512vl,avx512cd,avx2,fma,bmi,bmi2,prefer-vector-width=512"),
  gnu::flatten]] void
run_avx512(Body& body) {
  body();
}
template <class Body>
[[gnu::target("avx2,fma,bmi,bmi2"), gnu::flatten]] void run_avx2(Body& body) {
  body();
}
#else
template <class Body>
void run_avx512(Body& body) {
  body();
}
template <class Body>
void run_avx2(Body& body) {
  body();
}
#endif
}  // namespace detail

/// Runs body() compiled for this CPU: vectorised([&] { for (...) y[i] = f(x[i]); }). Everything it calls must be
/// inline and branch-free for the loop to vectorise (kernels/cpu/vector_math.h).
template <class Body>
void vectorised(Body&& body) {
  switch (isa()) {
    case Isa::avx512:
      return detail::run_avx512(body);
    case Isa::avx2:
      return detail::run_avx2(body);
    case Isa::baseline:
      return body();
  }
}

}  // namespace monoid::cpu
