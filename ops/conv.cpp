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

// weight [out, in, kernel] as a contiguous [kernel, out, in].
Tensor by_tap(const Tensor& weight) {
  const Strides& step = weight.strides();
  return weight
      .as_strided({weight.size(2), weight.size(0), weight.size(1)}, {step[2], step[0], step[1]}, weight.offset())
      .clone();
}

}  // namespace

// One product a tap, over a shifted view of x, summed by the kernel into the same tile of the output.
Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t pad_left, int64_t pad_right) {
  check_operands("conv1d", x, weight, bias);
  check(weight.rank() == 3 && weight.size(2) >= 1 && weight.size(1) == x.size(2), "conv1d: weight is ",
        describe(weight), ", wanted [out, ", x.size(2), ", kernel] with a kernel of at least 1 for input ",
        describe(x));
  const int64_t out = weight.size(0), in = weight.size(1), kernel = weight.size(2);
  const int64_t time = x.size(1) + pad_left + pad_right - kernel + 1;
  check(pad_left >= 0 && pad_right >= 0, "conv1d: padding (", pad_left, ", ", pad_right, ") is negative");
  check(time >= 0, "conv1d: input ", describe(x), " padded by (", pad_left, ", ", pad_right,
        ") is shorter than the kernel of ", kernel, "; pad it more");
  Tensor y = Tensor::empty({x.size(0), time, out}, x.dtype(), x.device());
  {
    const Tensor taps = by_tap(weight);
    Tensor output = with_tap_axis(y);
    kernels::matmul(windows(padded(x, pad_left, pad_right), kernel),
                    taps.as_strided({1, kernel, in, out}, {0, out * in, 1, in}, 0), bias, {}, output);
  }
  Tape::record("conv1d", {x, weight, bias}, {y}, [=](const Tensors& output_gradients) -> Tensors {
    const Tensor& dy = output_gradients[0];
    Tensors gradients(3);
    if (x.requires_grad()) {
      const Tensor taps = by_tap(weight);
      gradients[0] = Tensor::empty(x.shape(), x.dtype(), x.device());
      Tensor dx = with_tap_axis(gradients[0]);
      kernels::matmul(windows(padded(dy, kernel - 1 - pad_left, kernel - 1 - pad_right), kernel),
                      taps.as_strided({1, kernel, out, in}, {0, -out * in, in, 1}, (kernel - 1) * out * in), {}, {},
                      dx);
    }
    if (weight.requires_grad()) {
      Tensor dtaps = Tensor::empty({1, kernel, out, in}, x.dtype(), x.device());
      const Tensor columns = dy.as_strided({dy.size(0), 1, out, time},
                                           {dy.strides()[0], 0, dy.strides()[2], dy.strides()[1]}, dy.offset());
      kernels::matmul(columns, windows(padded(x, pad_left, pad_right), kernel), {}, {}, dtaps);
      gradients[1] = dtaps.as_strided({out, in, kernel}, {in, 1, out * in}, 0);
    }
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
