#include "monoid/ops/conv.h"

#include "monoid/ops/registry.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

std::vector<OpSample> causal_samples(SampleMaker& make) {
  const auto run = [](const Tensors& in) {
    const ConvResult result = causal_depthwise_conv1d(in[0], in[1], in[2], in[3]);
    return Tensors{result.output, result.tail};
  };
  // Channels 1..3 of 5, as a part of a packed projection; and a view whose channels are apart.
  const auto packed = [](const Tensors& in) {
    return Tensors{causal_depthwise_conv1d(slice(in[0], 2, 1, 4), in[1], in[2]).output};
  };
  const auto channels_first = [run](const Tensors& in) {
    return run({transpose(in[0], 1, 2), in[1], in[2], transpose(in[3], 1, 2)});
  };
  const auto sample = [&](const char* label, int64_t time, int64_t channels, int64_t kernel, bool bias, bool tail) {
    return OpSample{
        label,
        {make.normal({2, time, channels}), make.normal({channels, kernel}), bias ? make.normal({channels}) : Tensor(),
         tail ? make.normal({2, kernel - 1, channels}) : Tensor()},
        run};
  };
  return {
      sample("kernel 4, bias, tail", 5, 3, 4, true, true),
      sample("kernel 3, nothing optional", 4, 2, 3, false, false),
      sample("kernel 1", 3, 2, 1, true, true),
      sample("time 1, the update of decoding", 1, 3, 4, true, true),
      sample("time 2, shorter than kernel 5", 2, 2, 5, false, true),
      sample("time 2, shorter than kernel 5, no tail", 2, 2, 5, true, false),
      sample("kernel 11, more than one round of taps", 3, 1, 11, true, true),
      sample("time 0", 0, 2, 3, true, true),
      {"a part of the channels", {make.normal({2, 4, 5}), make.normal({3, 2}), make.normal({3})}, packed},
      {"channels first",
       {make.normal({2, 3, 4}), make.normal({3, 3}), Tensor(), make.normal({2, 3, 2})},
       channels_first},
  };
}

std::vector<OpSample> dense_samples(SampleMaker& make) {
  const auto sample = [&](const char* label, const Shape& x, const Shape& weight, bool bias, int64_t left,
                          int64_t right) {
    return OpSample{label,
                    {make.normal(x), make.normal(weight), bias ? make.normal({weight[0]}) : Tensor()},
                    [=](const Tensors& in) { return Tensors{conv1d(in[0], in[1], in[2], left, right)}; }};
  };
  return {
      sample("kernel 3, same length, bias", {2, 4, 2}, {3, 2, 3}, true, 1, 1),
      sample("kernel 3, causal, no bias", {2, 3, 2}, {2, 2, 3}, false, 2, 0),
      sample("no padding", {1, 5, 2}, {2, 2, 2}, true, 0, 0),
      sample("kernel 1", {2, 3, 2}, {3, 2, 1}, true, 0, 0),
      sample("time 1, kernel 4", {2, 1, 2}, {2, 2, 4}, true, 3, 1),
      sample("more padding than kernel", {1, 2, 2}, {2, 2, 2}, true, 3, 2),
      sample("time 0", {2, 0, 2}, {2, 2, 3}, true, 2, 0),
  };
}

}  // namespace

OpList conv_ops() { return {{"causal_depthwise_conv1d", causal_samples}, {"conv1d", dense_samples}}; }

}  // namespace monoid
