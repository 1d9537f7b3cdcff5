#include "monoid/ops/rotary.h"

#include <cmath>

#include "monoid/ops/rows.h"

namespace monoid {
namespace {

// [2, position, pair] of factor(t, i) * (cos, sin)(angle(t, i)).
template <class Angle, class Factor>
Tensor build(int64_t positions, int64_t pairs, DType dtype, Device device, Angle angle, Factor factor) {
  check(dtype == DType::f32 || dtype == DType::f64, "rotary: tables are f32, or f64 for f64 operands, got ", dtype);
  Tensor table = Tensor::empty({2, positions, pairs}, DType::f64);
  double *cosines = table.data<double>(), *sines = cosines + positions * pairs;
  for (int64_t t = 0; t < positions; ++t) {
    for (int64_t i = 0; i < pairs; ++i) {
      cosines[t * pairs + i] = factor(t, i) * std::cos(angle(t, i));
      sines[t * pairs + i] = factor(t, i) * std::sin(angle(t, i));
    }
  }
  return table.to(dtype).to(device);
}

std::vector<double> values(const Tensor& frequencies) {
  check_defined("rotary", "the tensor of frequencies", frequencies);
  check(is_floating(frequencies.dtype()) && frequencies.rank() == 1, "rotary: frequencies are ", describe(frequencies),
        ", wanted floating-point numbers [pair]");
  return frequencies.to_vector<double>();
}

void check_rotated(int64_t rotated) {
  check(rotated >= 0 && rotated % 2 == 0, "rotary: ", rotated, " rotated channels, wanted pairs of them");
}

void check_counts(const char* name, const Tensor& counts, const Tensor& x, const Shape& shape) {
  if (!counts.defined()) return;
  check(counts.dtype() == DType::i32 && counts.device() == x.device(), "rotary: ", name, " is ", describe(counts),
        ", wanted i32 on ", x.device());
  check_shape("rotary", name, counts, shape);
}

Tensor dense(const Tensor& x) { return x.defined() ? contiguous_or_copy(x) : x; }

}  // namespace

Tensor rotary_frequencies(int64_t rotated, double theta, const RotaryScaling& scaling, int64_t time) {
  check_rotated(rotated);
  check(scaling.factor > 0, "rotary: the scaling factor is ", scaling.factor, ", wanted more than 0");
  const auto width = static_cast<double>(rotated);
  double divisor = 1;
  if (scaling.kind == RotaryScaling::Kind::linear) divisor = scaling.factor;
  if (scaling.kind == RotaryScaling::Kind::dynamic && time > scaling.trained_time) {
    check(scaling.trained_time > 0 && rotated > 2, "rotary: dynamic scaling wants the time trained on and more than 2 ",
          "channels, got ", scaling.trained_time, " and ", rotated);
    const double longer = static_cast<double>(time) / static_cast<double>(scaling.trained_time);
    theta *= std::pow(scaling.factor * longer - (scaling.factor - 1), width / (width - 2));
  }
  std::vector<double> frequencies;
  for (int64_t i = 0; i < rotated; i += 2) {
    frequencies.push_back(std::pow(theta, -static_cast<double>(i) / width) / divisor);
  }
  return Tensor::from(frequencies, {rotated / 2});
}

Tensor rotary_table(const Tensor& frequencies, int64_t positions, DType dtype, Device device) {
  const std::vector<double> each = values(frequencies);
  return build(
      positions, frequencies.size(0), dtype, device,
      [&](int64_t t, int64_t i) { return static_cast<double>(t) * each[static_cast<size_t>(i)]; },
      [](int64_t, int64_t) { return 1.0; });
}

XPosTables xpos_tables(const XPos& form, int64_t positions, DType dtype, Device device) {
  const std::vector<double> each = values(form.frequencies);
  check(form.decay.size() == each.size(), "rotary: ", form.decay.size(), " decays for ", each.size(), " frequencies");
  const auto power = [&](int64_t t) { return (static_cast<double>(t) - form.center) / form.unit; };
  const auto table = [&](double sign) {
    return build(
        positions, form.frequencies.size(0), dtype, device,
        [&](int64_t t, int64_t i) {
          return (form.angle_of_p ? power(t) : static_cast<double>(t)) * each[static_cast<size_t>(i)];
        },
        [&](int64_t t, int64_t i) { return std::pow(form.decay[static_cast<size_t>(i)], sign * power(t)); });
  };
  return {table(1), table(-1)};
}

XPos block_recurrent_xpos(int64_t rotated, int64_t positions, double theta) {
  XPos form{rotary_frequencies(rotated, theta), {}, static_cast<double>(positions / 2)};
  const auto width = static_cast<double>(rotated);
  for (int64_t i = 0; i < rotated; i += 2) {
    form.decay.push_back((static_cast<double>(i) + 0.4 * width) / (1.4 * width));
  }
  return form;
}

XPos mru_xpos(int64_t rotated, int64_t positions) {
  check_rotated(rotated);
  const auto width = static_cast<double>(rotated);
  std::vector<double> frequencies, decay;
  for (int64_t i = 2; i <= rotated; i += 2) {
    frequencies.push_back(std::pow(10000.0, -static_cast<double>(i) / width));
    decay.push_back((static_cast<double>(i) / (width / 2) + 0.4 * width) / (1 + 0.4 * width));
  }
  return {Tensor::from(frequencies, {rotated / 2}), decay, static_cast<double>(positions) / 2, 512, true};
}

RotaryPositions check_rotary(const Tensor& x, const Tensor& table, const RotaryPositions& at) {
  check_defined("rotary", "x", x);
  check_defined("rotary", "the table", table);
  check(is_floating(x.dtype()) && x.rank() == 4, "rotary: x is ", describe(x),
        ", wanted floating-point numbers [batch, time, head, channel]");
  const DType wanted = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  check(table.dtype() == wanted && table.device() == x.device() && table.rank() == 3 && table.size(0) == 2 &&
            2 * table.size(2) <= x.size(3),
        "rotary: the table is ", describe(table), ", wanted ", wanted, " [2, position, pair] on ", x.device(),
        " with at most ", x.size(3) / 2, " pairs for x ", describe(x));
  check_counts("ids", at.ids, x, {x.size(0), x.size(1)});
  check_counts("first_key", at.first_key, x, {x.size(0)});
  check_counts("end_key", at.end_key, x, {x.size(0)});
  check(at.ids.defined() || at.end_key.defined() || (at.offset >= 0 && at.offset + x.size(1) <= table.size(1)),
        "rotary: positions ", at.offset, " to ", at.offset + x.size(1), " of a table of ", table.size(1),
        "; build a longer one");
  return {at.offset, dense(at.ids), dense(at.first_key), dense(at.end_key)};
}

Tensor rotary(const Tensor& x, const Tensor& table, RotaryPairs pairs, const RotaryPositions& at) {
  const RotaryPositions places = check_rotary(x, table, at);
  const Tensor rows = with_contiguous_rows(x), dense_table = contiguous_or_copy(table);
  const auto rotated = [=](const Tensor& from, bool transposed) {
    Tensor to = Tensor::empty_like(from);
    kernels::rotary(with_contiguous_rows(from), dense_table, pairs, places, transposed, to);
    return to;
  };
  Tensor y = rotated(rows, false);
  Tape::record("rotary", {x}, {y}, [rotated](const Tensors& dy) -> Tensors { return {rotated(dy[0], true)}; });
  return y;
}

}  // namespace monoid
