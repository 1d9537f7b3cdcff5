// OpenBLAS, loaded by hand. Which of its kernels it runs is decided while it loads, and releases up to 0.3.25 take
// recent Xeons for Prescott, ten times slower than they are; so the core type is set in the environment first. It gets
// one thread: gemm.cpp cuts the work, and two thread pools would fight over the cores.

#include "monoid/kernels/cpu/blas.h"

#include <dlfcn.h>

#include <cstdlib>
#include <limits>
#include <string_view>
#include <type_traits>

#include "monoid/core/error.h"
#include "monoid/kernels/cpu/simd.h"

namespace monoid::cpu {
namespace {

// The C interface of CBLAS, declared here so that building needs no BLAS header.
constexpr int kRowMajor = 101, kAsIs = 111, kTransposed = 112;
template <class T>
using CblasGemm = void (*)(int order, int transpose_a, int transpose_b, int m, int n, int k, T alpha, const T* a,
                           int lda, const T* b, int ldb, T beta, T* c, int ldc);

struct Blas {
  CblasGemm<float> sgemm = nullptr;
  CblasGemm<double> dgemm = nullptr;
  std::string description;
};

// OpenBLAS's name for this CPU; nullptr leaves the choice to it. Cooperlake and SapphireRapids share SkylakeX's sgemm
// with larger blocks and measured no faster.
const char* core_type() {
#if defined(__x86_64__)
  if (isa() == Isa::avx512) return "SkylakeX";
  if (isa() == Isa::avx2) return __builtin_cpu_is("amd") ? "Zen" : "Haswell";
#endif
  return nullptr;
}

/// Sets an environment variable while it lives; a value that is already there wins.
class EnvironmentDefault {
 public:
  EnvironmentDefault(const char* name, const char* value) : name_(name) {
    set_ = value && !std::getenv(name) && setenv(name, value, 0) == 0;
  }
  ~EnvironmentDefault() {
    if (set_) unsetenv(name_);
  }
  EnvironmentDefault(const EnvironmentDefault&) = delete;
  EnvironmentDefault& operator=(const EnvironmentDefault&) = delete;

 private:
  const char* name_;
  bool set_ = false;
};

void* open_library() {
  const EnvironmentDefault core("OPENBLAS_CORETYPE", core_type());
  const EnvironmentDefault threads("OPENBLAS_NUM_THREADS", "1");  // spares it a pool that we would never use
  for (const char* name : {"libopenblas.so.0", "libopenblas.so"}) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  }
  fail("matmul: OpenBLAS is not installed (", dlerror(), "); install it: apt-get install libopenblas0-pthread");
}

template <class Function>
Function symbol(void* library, const char* name) {
  void* address = dlsym(library, name);
  check(address, "matmul: the OpenBLAS found here has no ", name, "; install Debian's libopenblas0-pthread");
  return reinterpret_cast<Function>(address);
}

Blas load() {
  void* library = open_library();
  symbol<void (*)(int)>(library, "openblas_set_num_threads")(1);
  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ...": the first two words are the name and the version.
  const std::string_view config = symbol<const char* (*)()>(library, "openblas_get_config")();
  const char* core = symbol<const char* (*)()>(library, "openblas_get_corename")();
  return {symbol<CblasGemm<float>>(library, "cblas_sgemm"), symbol<CblasGemm<double>>(library, "cblas_dgemm"),
          str(config.substr(0, config.find(' ', config.find(' ') + 1)), " (", core, ")")};
}

const Blas& blas() {
  static const Blas loaded = load();
  return loaded;
}

int narrow(const char* what, int64_t value) {
  check(value <= std::numeric_limits<int>::max(), "matmul: ", what, " ", value, " is beyond OpenBLAS's 32-bit sizes");
  return static_cast<int>(value);
}

}  // namespace

template <class T>
void blas_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda,
               const T* b, int64_t ldb, T* c, int64_t ldc) {
  CblasGemm<T> function;
  if constexpr (std::is_same_v<T, float>) {
    function = blas().sgemm;
  } else {
    function = blas().dgemm;
  }
  function(kRowMajor, transpose_a ? kTransposed : kAsIs, transpose_b ? kTransposed : kAsIs, narrow("extent", m),
           narrow("extent", n), narrow("extent", k), alpha, a, narrow("leading dimension", lda), b,
           narrow("leading dimension", ldb), T(1), c, narrow("leading dimension", ldc));
}

template void blas_gemm(bool, bool, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*, int64_t,
                        float*, int64_t);
template void blas_gemm(bool, bool, int64_t, int64_t, int64_t, double, const double*, int64_t, const double*, int64_t,
                        double*, int64_t);

std::string blas_description() {
  try {
    return blas().description;
  } catch (const Error& error) {
    return error.message();
  }
}

}  // namespace monoid::cpu
