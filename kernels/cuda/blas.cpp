// cuBLASLt speaks of columns, we of rows: c^T = b^T a^T is the same memory, so its A is our b and its B our a.

#include "monoid/kernels/cuda/blas.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <tuple>
#include <vector>

#include "monoid/core/stream.h"

namespace monoid::cuda {
namespace {

constexpr size_t kWorkspace = 32 << 20;
constexpr int kCandidates = 16;
constexpr int kWidest = 16;  // no access of a kernel is wider

void check_blas(cublasStatus_t status) {
  check(status == CUBLAS_STATUS_SUCCESS, "matmul: cuBLASLt says ", cublasLtGetStatusString(status), " (",
        cublasLtGetStatusName(status), ")");
}

template <class Handle, cublasStatus_t (*destroy)(Handle)>
struct Destroy {
  using pointer = Handle;
  void operator()(Handle handle) const { destroy(handle); }
};
template <class Handle, cublasStatus_t (*destroy)(Handle)>
using Owned = std::unique_ptr<Handle, Destroy<Handle, destroy>>;
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using MatrixLayout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

cudaDataType_t type_of(DType dtype) { return dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF; }

template <class Value>
void set(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute, const Value& value) {
  check_blas(cublasLtMatmulDescSetAttribute(description, attribute, &value, sizeof(value)));
}
template <class Value>
void set(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, const Value& value) {
  check_blas(cublasLtMatrixLayoutSetAttribute(layout, attribute, &value, sizeof(value)));
}
template <class Value>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const Value& value) {
  check_blas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)));
}

MatrixLayout layout_of(DType dtype, int64_t rows, int64_t columns, const BlasLayout& in, int64_t batch) {
  const auto height = static_cast<uint64_t>(in.by_columns ? rows : columns);
  const auto width = static_cast<uint64_t>(in.by_columns ? columns : rows);
  cublasLtMatrixLayout_t made = nullptr;
  check_blas(cublasLtMatrixLayoutCreate(&made, type_of(dtype), height, width, in.leading));
  MatrixLayout layout(made);
  set(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<int32_t>(batch));
  set(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, in.step);
  return layout;
}

// A product with its algorithm chosen.
struct Plan {
  Description description;
  MatrixLayout a, b, c;
  bool runs = false;  // cuBLASLt has an algorithm
  cublasLtMatmulAlgo_t algorithm{};
  size_t workspace = 0;

  void aim(const BlasOperands& on) const {
    if (on.bias) set(description.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, on.bias);
  }
};

cublasLtHandle_t handle(int index) {
  static std::map<int, cublasLtHandle_t> handles;
  cublasLtHandle_t& known = handles[index];
  if (!known) check_blas(cublasLtCreate(&known));
  return known;
}

cublasStatus_t queue(const Launch& launch, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                     size_t workspace_bytes, const BlasOperands& on) {
  const float one = 1, zero = 0;
  const Device device{DeviceKind::cuda, launch.index()};
  const Tensor workspace = Tensor::empty({static_cast<int64_t>(workspace_bytes)}, DType::u8, device);
  return cublasLtMatmul(handle(launch.index()), plan.description.get(), &one, on.b, plan.b.get(), on.a, plan.a.get(),
                        on.addend ? &one : &zero, on.addend ? on.addend : on.c, plan.c.get(), on.c, plan.c.get(),
                        &algorithm, workspace.raw(), workspace_bytes, launch.stream());
}

Plan describe(const BlasProblem& p) {
  Plan plan;
  const auto compute = p.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  cublasLtMatmulDesc_t made = nullptr;
  check_blas(cublasLtMatmulDescCreate(&made, compute, CUDA_R_32F));
  plan.description.reset(made);
  const auto operation = [](const BlasLayout& x) { return x.by_columns ? CUBLAS_OP_T : CUBLAS_OP_N; };
  set(made, CUBLASLT_MATMUL_DESC_TRANSA, operation(p.b));
  set(made, CUBLASLT_MATMUL_DESC_TRANSB, operation(p.a));
  if (p.adds_bias) {
    set(made, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(made, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(p.output));
  }
  plan.a = layout_of(p.input, p.m, p.k, p.a, p.batch);
  plan.b = layout_of(p.input, p.k, p.n, p.b, p.batch);
  plan.c = layout_of(p.output, p.m, p.n, p.c, p.batch);
  return plan;
}

// The algorithms cuBLASLt thinks best, best first. Partial sums of a split k stay in f32 and are added in order.
std::vector<cublasLtMatmulHeuristicResult_t> candidates(int index, const Plan& plan, uint32_t alignment) {
  cublasLtMatmulPreference_t made = nullptr;
  check_blas(cublasLtMatmulPreferenceCreate(&made));
  const Preference preference(made);
  set(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
  set(made, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (const auto operand : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                             CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    set(made, operand, alignment);
  std::vector<cublasLtMatmulHeuristicResult_t> found(kCandidates);
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle(index), plan.description.get(), plan.b.get(), plan.a.get(), plan.c.get(),
                                     plan.c.get(), made, kCandidates, found.data(), &count);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) check_blas(status);
  found.resize(static_cast<size_t>(count));
  std::erase_if(found, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
  return found;
}

bool tuning_allowed() {
  static const bool allowed = [] {
    const char* wish = std::getenv("MONOID_CUDA_TUNE");
    return !wish || std::string_view(wish) != "0";
  }();
  return allowed;
}

// The fastest of the candidates, of which the first must be beaten clearly. They take turns, because a GPU that heats
// up slows down. The output is written again and again, with the same values.
size_t fastest(const Launch& launch, const Plan& plan, const std::vector<cublasLtMatmulHeuristicResult_t>& candidates,
               const BlasOperands& on) {
  constexpr int kRounds = 5, kRuns = 5;
  constexpr double kClearly = 0.98;
  const Device device{DeviceKind::cuda, launch.index()};
  std::vector<std::array<double, kRounds>> times(candidates.size());
  for (int round = -1; round < kRounds; ++round) {  // the first one warms up
    for (size_t i = 0; i < candidates.size(); ++i) {
      Event start(device), end(device);
      bool ran = true;
      start.record();
      for (int run = 0; run < kRuns; ++run)
        ran &= queue(launch, plan, candidates[i].algo, candidates[i].workspaceSize, on) == CUBLAS_STATUS_SUCCESS;
      end.record();
      const double time = end.milliseconds_since(start);
      if (round >= 0) times[i][static_cast<size_t>(round)] = ran ? time : 1e30;
    }
  }
  const auto median = [&](size_t i) {
    std::sort(times[i].begin(), times[i].end());
    return times[i][kRounds / 2];
  };
  size_t winner = 0;
  double best = kClearly * median(0);
  for (size_t i = 1; i < candidates.size(); ++i) {
    const double time = median(i);
    if (time < best) best = time, winner = i;
  }
  return winner;
}

// Into how many slices an algorithm cuts k.
int slices_of(const cublasLtMatmulAlgo_t& algorithm) {
  int slices = 0;
  size_t written = 0;
  check_blas(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &slices, sizeof(slices),
                                                  &written));
  return slices;
}

// The first algorithm that cuBLASLt thinks of, or the fastest of those that give the same bits: for bf16 on the grid of
// the tensor cores all that cut k as the first one does, whatever their tiles. So neither tuning nor its noise changes
// a result, and a product that is first met while a graph is captured, when nothing can be timed, does without. f32 has
// nothing to gain.
Plan make_plan(const Launch& launch, const BlasProblem& problem, const BlasOperands& on, uint32_t alignment) {
  Plan plan = describe(problem);
  plan.aim(on);
  auto found = candidates(launch.index(), plan, alignment);
  if (found.empty()) return plan;
  size_t chosen = 0;
  const bool same_bits = problem.input == DType::bf16 && alignment == kWidest;
  if (same_bits && tuning_allowed() && !Graph::capturing() && on.addend != on.c) {
    const int slices = slices_of(found.front().algo);
    std::erase_if(found, [&](const auto& candidate) { return slices_of(candidate.algo) != slices; });
    chosen = fastest(launch, plan, found, on);
  }
  plan.runs = true;
  plan.algorithm = found[chosen].algo;
  plan.workspace = found[chosen].workspaceSize;
  return plan;
}

// The largest power of two, up to kWidest bytes, on whose grid every line of every operand starts.
uint32_t alignment_of(const BlasProblem& p, const BlasOperands& on) {
  uintptr_t bits = kWidest;
  for (const void* address : {on.a, on.b, on.bias, on.addend, static_cast<const void*>(on.c)})
    bits |= reinterpret_cast<uintptr_t>(address);
  for (const BlasLayout& x : {p.a, p.b}) bits |= static_cast<uintptr_t>(x.leading | x.step) * size_of(p.input);
  bits |= static_cast<uintptr_t>(p.c.leading | p.c.step) * size_of(p.output);
  return static_cast<uint32_t>(bits & (~bits + 1));
}

}  // namespace

bool blas_product(const Launch& launch, const BlasProblem& problem, const BlasOperands& operands) {
  using Key = std::tuple<BlasProblem, int, uint32_t, bool>;
  static std::mutex mutex;  // a plan's description is changed below
  static auto& plans = *new std::map<Key, Plan>;
  const uint32_t alignment = alignment_of(problem, operands);
  const std::lock_guard lock(mutex);
  const Key key{problem, launch.index(), alignment, operands.addend == operands.c};
  auto place = plans.find(key);
  if (place == plans.end()) place = plans.emplace(key, make_plan(launch, problem, operands, alignment)).first;
  const Plan& plan = place->second;
  if (!plan.runs) return false;
  plan.aim(operands);
  check_blas(queue(launch, plan, plan.algorithm, plan.workspace, operands));
  return true;
}

}  // namespace monoid::cuda
