#include "monoid/ops/attention.h"

#include <cmath>

#include "monoid/ops/rotary.h"
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

AttentionResult empty_result(const Tensor& q, const Tensor& v) {
  return {
      Tensor::empty(q.shape().with(3, v.size(3)), q.dtype(), q.device()),
      Tensor::empty({q.size(0), q.size(2), q.size(1)}, q.dtype() == DType::f64 ? DType::f64 : DType::f32, q.device())};
}

// Heads first .. first + count - 1 of a row of heads.
Tensor heads_of(const Tensor& x, int64_t first, int64_t count, int64_t channels) {
  const Strides& steps = x.strides();
  return x.as_strided({x.size(0), x.size(1), count, channels}, {steps[0], steps[1], channels, 1},
                      x.offset() + first * channels);
}

// Rotates queries and keys [batch, time, (heads + key_heads) * channel], or their gradient: in one go where they share
// a table.
void rotate(const AttentionRotary& rotary, bool transposed, int64_t heads, int64_t key_heads, int64_t channels,
            const Tensor& from, const Tensor& to) {
  const auto part = [&](const Tensor& table, int64_t first, int64_t count) {
    Tensor target = heads_of(to, first, count, channels);
    kernels::rotary(heads_of(from, first, count, channels), table, rotary.pairs, rotary.at, transposed, target);
  };
  if (rotary.queries.raw() == rotary.keys.raw()) return part(rotary.queries, 0, heads + key_heads);
  part(rotary.queries, 0, heads);
  part(rotary.keys, heads, key_heads);
}

}  // namespace

AttentionResult attention_with_sums(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in,
                                    const AttentionOptions& options) {
  check_arguments(q_in, k_in, v_in, options);
  const Tensor q = with_rows(q_in), k = with_rows(k_in), v = with_rows(v_in);
  const Tensor first_key = dense(options.first_key), end_key = dense(options.end_key);
  const AttentionSpec spec = specify(q, k, options);
  AttentionResult result = empty_result(q, v);
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

Tensor packed_attention(const Tensor& projection, int64_t heads, int64_t key_heads, const AttentionOptions& options,
                        const AttentionRotary& rotary) {
  constexpr const char* op = "packed_attention";
  check_defined(op, "the projection", projection);
  check(projection.rank() == 3 && heads > 0 && key_heads > 0 && projection.size(2) % (heads + 2 * key_heads) == 0, op,
        ": the projection is ", describe(projection), ", wanted [batch, time, (", heads, " + 2 * ", key_heads,
        ") * channel]");
  const Tensor packed = with_contiguous_rows(projection);
  const int64_t channels = packed.size(2) / (heads + 2 * key_heads), turning = heads + key_heads;
  const Tensor v = heads_of(packed, turning, key_heads, channels);
  AttentionRotary turn{dense(rotary.queries), dense(rotary.keys), rotary.pairs, {}};
  check(turn.queries.defined() == turn.keys.defined(), op, ": one table of two; give both or neither");
  Tensor turned = packed;
  if (turn.queries.defined()) {
    turn.at = check_rotary(heads_of(packed, 0, heads, channels), turn.queries, rotary.at);
    check_rotary(heads_of(packed, heads, key_heads, channels), turn.keys, rotary.at);
    turned = Tensor::empty(packed.shape().with(2, turning * channels), packed.dtype(), packed.device());
    rotate(turn, false, heads, key_heads, channels, packed, turned);
  }
  const Tensor q = heads_of(turned, 0, heads, channels), k = heads_of(turned, heads, key_heads, channels);
  check_arguments(q, k, v, options);
  const Tensor first_key = dense(options.first_key), end_key = dense(options.end_key);
  const AttentionSpec spec = specify(q, k, options);
  AttentionResult result = empty_result(q, v);
  kernels::attention(q, k, v, first_key, end_key, spec, result.output, result.log_sum_exp);
  const Tensor output = result.output.view({packed.size(0), packed.size(1), heads * channels});
  Tape::record(op, {projection}, {output}, [=](const Tensors& cotangents) -> Tensors {
    const Tensor gradient = Tensor::empty(packed.shape(), packed.dtype(), packed.device());
    const Tensor cotangent = with_contiguous_rows(cotangents[0]);
    const bool turns = turn.queries.defined();
    const Tensor into = turns ? Tensor::empty(turned.shape(), turned.dtype(), turned.device()) : gradient;
    Tensor q_gradient = heads_of(into, 0, heads, channels), k_gradient = heads_of(into, heads, key_heads, channels);
    Tensor v_gradient = heads_of(gradient, turning, key_heads, channels);
    kernels::attention_gradient(q, k, v, first_key, end_key, spec, result.output, result.log_sum_exp,
                                heads_of(cotangent, 0, heads, channels), {}, q_gradient, k_gradient, v_gradient);
    if (turns) rotate(turn, true, heads, key_heads, channels, into, gradient);
    return {gradient};
  });
  return output;
}

}  // namespace monoid
