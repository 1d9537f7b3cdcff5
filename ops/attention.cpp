#include "monoid/ops/attention.h"

#include <cmath>

#include "monoid/ops/rows.h"

namespace monoid {
namespace {

constexpr const char* kOp = "attention";

void check_heads(const char* argument, const Tensor& x) {
  check_defined(kOp, argument, x);
  check(is_floating(x.dtype()) && x.rank() == 4, kOp, ": ", argument, " is ", describe(x),
        ", wanted floating-point numbers [batch, time, head, channel]");
}

void check_keys(const char* argument, const Tensor& counts, const Tensor& q) {
  if (!counts.defined()) return;
  check(counts.dtype() == DType::i32 && counts.device() == q.device(), kOp, ": ", argument, " is ", describe(counts),
        ", wanted i32 on ", q.device());
  check_shape(kOp, argument, counts, {q.size(0)});
}

void check_arguments(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  check_heads("q", q);
  check_heads("k", k);
  check_heads("v", v);
  check_same_device_and_dtype(kOp, q, k);
  check_same_device_and_dtype(kOp, q, v);
  check_shape(kOp, "k", k, {q.size(0), k.size(1), k.size(2), q.size(3)});
  check_shape(kOp, "v", v, {q.size(0), k.size(1), k.size(2), v.size(3)});
  check(k.size(2) > 0 && q.size(2) % k.size(2) == 0, kOp, ": q has ", q.size(2), " heads and k has ", k.size(2),
        "; wanted a multiple, so that each key head serves as many");
  check_keys("first_key", options.first_key, q);
  check_keys("end_key", options.end_key, q);
  using Kind = AttentionMask::Kind;
  const bool has_width = options.mask.kind == Kind::window || options.mask.kind == Kind::blocks;
  check(!has_width || options.mask.width >= 1, kOp, ": the mask's width is ", options.mask.width,
        ", wanted at least 1");
  check(options.dropout >= 0 && options.dropout <= 1, kOp, ": dropout is ", options.dropout, ", wanted 0 to 1");
  check(options.dropout == 0 || options.generator, kOp, ": dropout ", options.dropout,
        " needs random numbers; give a generator");
}

AttentionSpec specify(const Tensor& q, const Tensor& k, const AttentionOptions& options) {
  AttentionSpec spec{options.mask, options.scale.value_or(1 / std::sqrt(static_cast<double>(q.size(3)))),
                     options.dropout};
  if (options.dropout == 0) return spec;
  spec.seed = options.generator->seed();
  // As many numbers as dropout_row counts: rows of keys are padded to fours.
  spec.first = options.generator->reserve(q.size(0) * q.size(1) * q.size(2) * ((k.size(1) + 3) / 4 * 4));
  spec.base = options.generator->base();
  check(!spec.base.defined() || spec.base.device() == q.device(), kOp, ": the generator's base is on ",
        spec.base.defined() ? spec.base.device() : kCpu, " and q is ", describe(q), "; set_base() one on its device");
  return spec;
}

Tensor with_rows(const Tensor& x) { return x.defined() ? with_contiguous_rows(x) : x; }
Tensor dense(const Tensor& x) { return x.defined() ? contiguous_or_copy(x) : x; }

}  // namespace

AttentionResult attention_with_sums(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in,
                                    const AttentionOptions& options) {
  check_arguments(q_in, k_in, v_in, options);
  const Tensor q = with_rows(q_in), k = with_rows(k_in), v = with_rows(v_in);
  const Tensor first_key = dense(options.first_key), end_key = dense(options.end_key);
  const AttentionSpec spec = specify(q, k, options);
  AttentionResult result{
      Tensor::empty(q.shape().with(3, v.size(3)), q.dtype(), q.device()),
      Tensor::empty({q.size(0), q.size(2), q.size(1)}, q.dtype() == DType::f64 ? DType::f64 : DType::f32, q.device())};
  kernels::attention(q, k, v, first_key, end_key, spec, result.output, result.log_sum_exp);
  Tape::record(
      kOp, {q_in, k_in, v_in}, {result.output, result.log_sum_exp},
      [=, wants_q = q_in.requires_grad(), wants_k = k_in.requires_grad(),
       wants_v = v_in.requires_grad()](const Tensors& cotangents) -> Tensors {
        const auto like = [](bool wanted, const Tensor& x) { return wanted ? Tensor::empty_like(x) : Tensor(); };
        Tensor q_gradient = like(wants_q, q), k_gradient = like(wants_k, k), v_gradient = like(wants_v, v);
        const Tensor output_cotangent =
            cotangents[0].defined() ? with_rows(cotangents[0]) : Tensor::zeros_like(result.output);
        kernels::attention_gradient(q, k, v, first_key, end_key, spec, result.output, result.log_sum_exp,
                                    output_cotangent, dense(cotangents[1]), q_gradient, k_gradient, v_gradient);
        return {q_gradient, k_gradient, v_gradient};
      });
  return result;
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  return attention_with_sums(q, k, v, options).output;
}

}  // namespace monoid
