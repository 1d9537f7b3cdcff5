#include "monoid/kernels/matmul_precision.h"

#include <atomic>

namespace monoid {
namespace {

std::atomic<MatmulPrecision> current{MatmulPrecision::exact};

}  // namespace

void set_matmul_precision(MatmulPrecision precision) { current = precision; }
MatmulPrecision matmul_precision() { return current; }

}  // namespace monoid
