#include "monoid/ops/gate_loop.h"

#include "monoid/kernels/recall.h"
#include "monoid/ops/sequences.h"

namespace monoid {
namespace {

// What a packed projection of three parts is to a scan, and what that writes.
struct Packed {
  int64_t channels;
  Tensor output;

  Packed(const char* op, const char* argument, const Tensor& packed) {
    check_sequence(op, argument, packed);
    check(packed.size(2) % 3 == 0, op, ": ", argument, " is ", describe(packed),
          ", wanted 3 * channel values along the last axis");
    channels = packed.size(2) / 3;
    output = Tensor::empty({packed.size(0), packed.size(1), channels}, packed.dtype(), packed.device());
  }
};

Tensor state_like(const char* op, const Tensor& sequence, const Tensor& initial, const Shape& shape) {
  if (initial.defined()) {
    check_same_device_and_dtype(op, sequence, initial);
    check_shape(op, "initial state", initial, shape);
  }
  return Tensor::empty(shape, sequence.dtype(), sequence.device());
}

// Room for the states that a gradient will make the others from; none where no gradient is coming.
Tensor room_to_keep(bool wanted, const Tensor& sequence, std::initializer_list<int64_t> state) {
  if (!wanted) return {};
  std::vector<int64_t> extents{sequence.size(0), recall_groups(sequence.size(1))};
  extents.insert(extents.end(), state);
  return Tensor::empty(Shape(extents), sequence.dtype() == DType::f64 ? DType::f64 : DType::f32, sequence.device());
}

constexpr const char* kGateLoop = "gate_loop_scan";

GateLoopResult channel_gate_loop(const Tensor& qkv, const Tensor& z, const GateLoopOptions& options,
                                 const Tensor& initial, const Tensor& output, Tensor final) {
  const Tensor entering = dense(initial);
  Tensor y = output, kept = room_to_keep(Tape::records({qkv, z, initial}), qkv, {y.size(2), 2});
  kernels::gate_loop_scan(qkv, z, entering, y, final, kept, options);
  Tape::record(kGateLoop, {qkv, z, initial}, {y, final}, [=](const Tensors& cotangents) -> Tensors {
    Tensor qkv_gradient = Tensor::empty_like(qkv), z_gradient = Tensor::empty_like(z);
    Tensor initial_gradient = gradient_of(initial);
    kernels::gate_loop_scan_gradient(qkv, z, kept, readable(cotangents[0]), dense(cotangents[1]), qkv_gradient,
                                     z_gradient, initial_gradient, options);
    return {qkv_gradient, z_gradient, initial_gradient};
  });
  return {y, final};
}

GateLoopResult outer_gate_loop(const Tensor& qkv, const Tensor& z, const GateLoopOptions& options,
                               const Tensor& initial, const Tensor& output, Tensor final) {
  const Tensor entering = dense(initial);
  Tensor y = output;
  kernels::gate_loop_outer_scan(qkv, z, entering, y, final, options);
  Tape::record(kGateLoop, {qkv, z, initial}, {y, final}, [=](const Tensors& cotangents) -> Tensors {
    Tensor qkv_gradient = Tensor::empty_like(qkv), z_gradient = Tensor::empty_like(z);
    Tensor initial_gradient = gradient_of(initial);
    kernels::gate_loop_outer_scan_gradient(qkv, z, entering, readable(cotangents[0]), dense(cotangents[1]),
                                           qkv_gradient, z_gradient, initial_gradient, options);
    return {qkv_gradient, z_gradient, initial_gradient};
  });
  return {y, final};
}

}  // namespace

GateLoopResult gate_loop_scan(const Tensor& qkv, const Tensor& z, const GateLoopOptions& options,
                              const Tensor& initial) {
  const auto [channels, output] = Packed(kGateLoop, "qkv", qkv);
  check_sequence(kGateLoop, "z", z, 2);
  check_same_device_and_dtype(kGateLoop, qkv, z);
  const int64_t heads = z.size(2);
  check(z.size(0) == qkv.size(0) && z.size(1) == qkv.size(1), kGateLoop, ": z is ", describe(z), " but qkv is ",
        describe(qkv), "; wanted the same batch and time");
  check(heads > 0 ? channels % heads == 0 && channels > 0 : channels == 0, kGateLoop, ": z is ", describe(z), ", so ",
        heads, " heads, which do not share ", channels, " channels; wanted a divisor of these");
  const int64_t size = heads > 0 ? channels / heads : 1;
  const Tensor final = state_like(kGateLoop, qkv, initial, {qkv.size(0), heads, size, size, 2});
  return size == 1 ? channel_gate_loop(qkv, z, options, initial, output, final)
                   : outer_gate_loop(qkv, z, options, initial, output, final);
}

GateLoopResult simple_gate_loop_scan(const Tensor& packed, const Tensor& initial, Direction direction) {
  const char* op = "simple_gate_loop_scan";
  auto [channels, y] = Packed(op, "the packed projection", packed);
  Tensor final = state_like(op, packed, initial, {packed.size(0), channels});
  const Tensor entering = readable(initial);
  Tensor kept = room_to_keep(Tape::records({packed, initial}), packed, {channels});
  kernels::simple_gate_loop_scan(packed, entering, y, final, kept, direction);
  Tape::record(op, {packed, initial}, {y, final}, [=](const Tensors& cotangents) -> Tensors {
    Tensor packed_gradient = Tensor::empty_like(packed), initial_gradient = gradient_of(initial);
    kernels::simple_gate_loop_scan_gradient(packed, kept, readable(cotangents[0]), readable(cotangents[1]),
                                            packed_gradient, initial_gradient, direction);
    return {packed_gradient, initial_gradient};
  });
  return {y, final};
}

}  // namespace monoid
