#include "monoid/ops/conv.h"

#include "monoid/core/tape.h"
#include "monoid/kernels/conv.h"
#include "monoid/kernels/matmul.h"
#include "monoid/ops/rows.h"

namespace monoid {
namespace {

void check_operands(std::string_view op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_defined(op, "the input", x);
  check_defined(op, "the weight", weight);
  check_same_device_and_dtype(op, x, weight);
  check(x.rank() == 3, op, ": input is ", describe(x), ", wanted [batch, time, channel]");
  if (bias.defined()) {
    check_same_device_and_dtype(op, x, bias);
    check_shape(op, "bias", bias, {weight.size(0)});
  }
}

Tensor with_rows(const Tensor& x) { return x.defined() ? with_contiguous_rows(x) : x; }

Tensor times(const Tensor& x, int64_t begin, int64_t end) {
  return x.as_strided(x.shape().with(1, end - begin), x.strides(), x.offset() + begin * x.strides()[1]);
}

// The last kernel - 1 rows of [tail, x].
Tensor final_tail(const Tensor& x, const Tensor& tail, int64_t kernel) {
  const int64_t length = kernel - 1, from_x = std::min(length, x.size(1)), from_tail = length - from_x;
  Tensor result = Tensor::empty({x.size(0), length, x.size(2)}, x.dtype(), x.device());
  if (from_tail > 0) {
    Tensor old = times(result, 0, from_tail);
    if (tail.defined()) {
      old.copy_from(times(tail, length - from_tail, length));
    } else {
      old.fill(0);
    }
  }
  if (from_x > 0) times(result, from_tail, length).copy_from(times(x, x.size(1) - from_x, x.size(1)));
  return result;
}

}  // namespace

ConvResult causal_depthwise_conv1d(const Tensor& input, const Tensor& weight, const Tensor& bias,
                                   const Tensor& initial) {
  constexpr const char* op = "causal_depthwise_conv1d";
  check_operands(op, input, weight, bias);
  check(weight.rank() == 2 && weight.size(1) >= 1 && weight.size(0) == input.size(2), op, ": weight is ",
        describe(weight), ", wanted [", input.size(2), ", kernel] with a kernel of at least 1 for input ",
        describe(input));
  const int64_t kernel = weight.size(1);
  if (initial.defined()) {
    check_same_device_and_dtype(op, input, initial);
    check_shape(op, "tail", initial, input.shape().with(1, kernel - 1));
  }
  const Tensor x = with_rows(input), tail = with_rows(initial);
  ConvResult result{Tensor::empty(x.shape(), x.dtype(), x.device()), final_tail(x, tail, kernel)};
  kernels::causal_conv(x, weight, bias, tail, result.output);
  const auto gradient = [x, weight, tail, wants_x = input.requires_grad(), wants_weight = weight.requires_grad(),
                         wants_bias = bias.requires_grad(),
                         wants_tail = initial.requires_grad()](const Tensors& output_gradients) -> Tensors {
    const Tensor dy = output_gradients[0].defined() ? with_rows(output_gradients[0]) : Tensor::zeros_like(x);
    const Tensor dfinal = with_rows(output_gradients[1]);
    const auto like = [&](bool wanted, const Shape& shape) {
      return wanted ? Tensor::empty(shape, x.dtype(), x.device()) : Tensor();
    };
    Tensor dx = like(wants_x, x.shape()), dweight = like(wants_weight, weight.shape());
    Tensor dbias = like(wants_bias, {x.size(2)}), dtail = like(wants_tail, x.shape().with(1, weight.size(1) - 1));
    kernels::causal_conv_gradient(dy, dfinal, x, weight, tail, dx, dtail, dweight, dbias);
    return {dx, dweight, dbias, dtail};
  };
  Tape::record(op, {input, weight, bias, initial}, {result.output, result.tail}, gradient);
  return result;
}

namespace {

// x [batch, time, channel] between zeros; negative counts cut instead.
Tensor padded(const Tensor& x, int64_t before, int64_t after) {
  if (before <= 0 && after <= 0) return times(x, -before, x.size(1) + after);
  Tensor result = Tensor::zeros(x.shape().with(1, before + x.size(1) + after), x.dtype(), x.device());
  const int64_t first = std::max<int64_t>(0, -before), last = x.size(1) - std::max<int64_t>(0, -after);
  if (last > first) times(result, before + first, before + last).copy_from(times(x, first, last));
  return result;
}

// [batch, kernel, time, channel]: the sequence as each tap sees it, without copying anything.
Tensor windows(const Tensor& x, int64_t kernel) {
  const Strides& step = x.strides();
  return x.as_strided({x.size(0), kernel, std::max<int64_t>(0, x.size(1) - kernel + 1), x.size(2)},
                      {step[0], step[1], step[1], step[2]}, x.offset());
}

Tensor with_tap_axis(const Tensor& x) {
  return x.as_strided(x.shape().inserted(1, 1), x.strides().inserted(1, 0), x.offset());
}

// A GPU is fastest with one wide product over the windows laid out side by side: the copy is cheap there, and bf16 is
// rounded once. A CPU multiplies tap by tap, over shifted views, into one tile of the output, and copies nothing.
bool lays_out_windows(const Tensor& x) { return x.device().is_cuda(); }

// [batch * time, kernel * channel]: a row for each window of x [batch, time + kernel - 1, channel].
Tensor laid_out(const Tensor& x, int64_t kernel) {
  const Tensor seen = windows(x, kernel);
  const Strides& step = seen.strides();
  const Shape shape{x.size(0), seen.size(2), kernel, x.size(2)};
  return seen.as_strided(shape, {step[0], step[2], step[1], step[3]}, seen.offset())
      .clone()
      .view({shape[0] * shape[1], kernel * shape[3]});
}

Tensor rows_of(const Tensor& x) { return x.as_strided({x.size(0) * x.size(1), x.size(2)}, {x.size(2), 1}, x.offset()); }

// The weight [out, in, kernel] by tap: [kernel, out, in]; backwards in time and transposed for the gradient of x,
// [kernel, in, out].
Tensor by_tap(const Tensor& weight) {
  const Strides& step = weight.strides();
  return weight.as_strided({weight.size(2), weight.size(0), weight.size(1)}, {step[2], step[0], step[1]},
                           weight.offset());
}

Tensor by_tap_backwards(const Tensor& weight) {
  const Strides& step = weight.strides();
  return weight.as_strided({weight.size(2), weight.size(1), weight.size(0)}, {-step[2], step[1], step[0]},
                           weight.offset() + (weight.size(2) - 1) * step[2]);
}

// y[t] = bias + sum_j x[t + j] taps[j]^T, with x [batch, time + kernel - 1, in], taps [kernel, out, in] and a
// contiguous y [batch, time, out].
void convolve(const Tensor& x, const Tensor& taps, const Tensor& bias, Tensor& y) {
  const int64_t kernel = taps.size(0), out = taps.size(1), in = taps.size(2);
  if (lays_out_windows(x)) {
    const Strides& step = taps.strides();
    const Tensor wide = taps.as_strided({out, kernel, in}, {step[1], step[0], step[2]}, taps.offset()).clone();
    Tensor rows = rows_of(y);
    kernels::matmul(laid_out(x, kernel), wide.as_strided({kernel * in, out}, {1, kernel * in}, 0), bias, {}, rows);
  } else {
    Tensor output = with_tap_axis(y);
    kernels::matmul(windows(x, kernel), taps.clone().as_strided({1, kernel, in, out}, {0, out * in, 1, in}, 0), bias,
                    {}, output);
  }
}

// The gradient of the weight, [out, in, kernel], from dy [batch, time, out].
Tensor weight_gradient(const Tensor& x, const Tensor& dy, int64_t kernel) {
  const int64_t out = dy.size(2), in = x.size(2);
  if (lays_out_windows(x)) {
    Tensor wide = Tensor::empty({out, kernel * in}, x.dtype(), x.device());
    const Tensor rows = rows_of(contiguous_or_copy(dy));
    kernels::matmul(rows.as_strided({out, rows.size(0)}, {1, out}, rows.offset()), laid_out(x, kernel), {}, {}, wide);
    return wide.as_strided({out, in, kernel}, {kernel * in, 1, in}, 0);
  }
  Tensor taps = Tensor::empty({1, kernel, out, in}, x.dtype(), x.device());
  const Tensor columns = dy.as_strided({dy.size(0), 1, out, dy.size(1)},
                                       {dy.strides()[0], 0, dy.strides()[2], dy.strides()[1]}, dy.offset());
  kernels::matmul(columns, windows(x, kernel), {}, {}, taps);
  return taps.as_strided({out, in, kernel}, {in, 1, out * in}, 0);
}

}  // namespace

Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t pad_left, int64_t pad_right) {
  check_operands("conv1d", x, weight, bias);
  check(weight.rank() == 3 && weight.size(2) >= 1 && weight.size(1) == x.size(2), "conv1d: weight is ",
        describe(weight), ", wanted [out, ", x.size(2), ", kernel] with a kernel of at least 1 for input ",
        describe(x));
  const int64_t out = weight.size(0), kernel = weight.size(2);
  const int64_t time = x.size(1) + pad_left + pad_right - kernel + 1;
  check(pad_left >= 0 && pad_right >= 0, "conv1d: padding (", pad_left, ", ", pad_right, ") is negative");
  check(time >= 0, "conv1d: input ", describe(x), " padded by (", pad_left, ", ", pad_right,
        ") is shorter than the kernel of ", kernel, "; pad it more");
  Tensor y = Tensor::empty({x.size(0), time, out}, x.dtype(), x.device());
  convolve(padded(x, pad_left, pad_right), by_tap(weight), bias, y);
  Tape::record("conv1d", {x, weight, bias}, {y}, [=](const Tensors& output_gradients) -> Tensors {
    const Tensor& dy = output_gradients[0];
    Tensors gradients(3);
    if (x.requires_grad()) {
      gradients[0] = Tensor::empty(x.shape(), x.dtype(), x.device());
      convolve(padded(dy, kernel - 1 - pad_left, kernel - 1 - pad_right), by_tap_backwards(weight), {}, gradients[0]);
    }
    if (weight.requires_grad()) gradients[1] = weight_gradient(padded(x, pad_left, pad_right), dy, kernel);
    if (bias.requires_grad()) {
      // Column sums are the product with a row of ones.
      Tensor total = Tensor::empty({1, 1, out}, x.dtype(), x.device());
      kernels::matmul(Tensor::ones({dy.size(0), 1, time}, x.dtype(), x.device()), dy, {}, {}, total);
      gradients[2] = total.view({out});
    }
    return gradients;
  });
  return y;
}

}  // namespace monoid
