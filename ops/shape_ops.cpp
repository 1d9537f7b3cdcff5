#include "monoid/ops/shape_ops.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "monoid/kernels/indexing.h"
#include "monoid/kernels/join.h"
#include "monoid/ops/reduce.h"

namespace monoid {
namespace {

int resolve_axis(const char* op, const Tensor& x, int axis) {
  check_defined(op, "x", x);
  const int resolved = axis < 0 ? axis + x.rank() : axis;
  check(resolved >= 0 && resolved < x.rank(), op, ": axis ", axis, " is out of range for ", describe(x));
  return resolved;
}

// Elements first .. first + extent of an axis.
Tensor window(const Tensor& x, int axis, int64_t first, int64_t extent) {
  return x.as_strided(x.shape().with(axis, extent), x.strides(), x.offset() + first * x.strides()[axis]);
}

// A tensor of `shape` filled by pieces along an axis; undefined ones are zeros.
Tensor joined(const std::vector<JoinPiece>& pieces, int axis, const Shape& shape, DType dtype, Device device) {
  Tensor whole = Tensor::empty(shape, dtype, device);
  kernels::join(pieces, axis, whole);
  return whole;
}

// The gradient of a window into a tensor of `shape`: zero around it.
Tensor embed_window(const Tensor& piece, const Shape& shape, int axis, int64_t first) {
  const int64_t extent = piece.size(axis), behind = shape[axis] - first - extent;
  return joined({{{}, first}, {piece, extent}, {{}, behind}}, axis, shape, piece.dtype(), piece.device());
}

// Strides that show a tensor under another shape of as many elements without moving any, if there are such.
std::optional<Strides> strides_of_view(const Tensor& x, const Shape& shape) {
  if (x.is_contiguous() || x.elements() == 0) return contiguous_strides(shape);
  Strides strides = shape;
  int target = shape.rank() - 1;
  int64_t run = 1;  // elements in the run of source axes that step evenly, ending at `axis`
  int64_t filled = 1;
  int64_t step = 0;
  int last = -1;  // the source axis before (inside) this one, extents of 1 skipped
  for (int axis = x.rank() - 1; axis >= -1; --axis) {
    if (axis >= 0 && x.size(axis) == 1) continue;
    const bool continues = axis >= 0 && last >= 0 && x.strides()[axis] == x.strides()[last] * x.size(last);
    if (last >= 0 && !continues) {
      // The run ends here: the target axes must fill it exactly.
      for (; target >= 0 && (filled < run || shape[target] == 1); --target) {
        strides[target] = step * filled;
        filled *= shape[target];
      }
      if (filled != run) return std::nullopt;
      run = filled = 1;
    }
    if (axis < 0) break;
    if (!continues) step = x.strides()[axis];
    run *= x.size(axis);
    last = axis;
  }
  for (; target >= 0; --target) strides[target] = 1;
  return strides;
}

// The wanted shape with its -1, if any, replaced.
Shape complete_shape(const Tensor& x, Shape shape) {
  int open = -1;
  int64_t known = 1;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] == -1) {
      check(open < 0, "reshape: ", shape, " has more than one -1, so ", describe(x), " does not determine it");
      open = axis;
    } else {
      check(shape[axis] >= 0, "reshape: negative extent in ", shape, "; only -1 has a meaning");
      known *= shape[axis];
    }
  }
  if (open >= 0) {
    check(known > 0 && x.elements() % known == 0, "reshape: no extent in place of -1 lets ", shape, " hold the ",
          x.elements(), " elements of ", describe(x));
    shape[open] = x.elements() / known;
  }
  check(shape.elements() == x.elements(), "reshape: ", shape, " has ", shape.elements(), " elements, ", describe(x),
        " has ", x.elements());
  return shape;
}

}  // namespace

Tensor reshape(const Tensor& x, const Shape& shape) {
  check_defined("reshape", "x", x);
  const Shape wanted = complete_shape(x, shape);
  const std::optional<Strides> strides = strides_of_view(x, wanted);
  if (!strides) return reshape(contiguous(x), wanted);
  Tensor y = x.as_strided(wanted, *strides, x.offset());
  Tape::record("reshape", {x}, {y},
               [shape = x.shape()](const Tensors& dy) -> Tensors { return {reshape(dy[0], shape)}; });
  return y;
}

Tensor transpose(const Tensor& x, int axis_a, int axis_b) {
  const int a = resolve_axis("transpose", x, axis_a), b = resolve_axis("transpose", x, axis_b);
  Shape shape = x.shape();
  Strides strides = x.strides();
  std::swap(shape[a], shape[b]);
  std::swap(strides[a], strides[b]);
  Tensor y = x.as_strided(shape, strides, x.offset());
  Tape::record("transpose", {x}, {y}, [a, b](const Tensors& dy) -> Tensors { return {transpose(dy[0], a, b)}; });
  return y;
}

Tensor permute(const Tensor& x, const std::vector<int>& axes) {
  check_defined("permute", "x", x);
  check(static_cast<int>(axes.size()) == x.rank(), "permute: ", axes.size(), " axes for ", describe(x),
        "; name each of its ", x.rank(), " axes once");
  Shape shape = x.shape();
  Strides strides = x.strides();
  std::vector<int> inverse(axes.size(), -1);
  for (int i = 0; i < x.rank(); ++i) {
    const int axis = resolve_axis("permute", x, axes[static_cast<size_t>(i)]);
    check(inverse[static_cast<size_t>(axis)] < 0, "permute: axis ", axis, " of ", describe(x), " is named twice");
    inverse[static_cast<size_t>(axis)] = i;
    shape[i] = x.size(axis);
    strides[i] = x.strides()[axis];
  }
  Tensor y = x.as_strided(shape, strides, x.offset());
  Tape::record("permute", {x}, {y}, [inverse](const Tensors& dy) -> Tensors { return {permute(dy[0], inverse)}; });
  return y;
}

Tensor slice(const Tensor& x, int axis, int64_t begin, int64_t end) {
  axis = resolve_axis("slice", x, axis);
  const int64_t extent = x.size(axis);
  const int64_t first = begin < 0 ? begin + extent : begin, last = end < 0 ? end + extent : end;
  check(0 <= first && first <= last && last <= extent, "slice: [", begin, ", ", end, ") is not a range of axis ", axis,
        " of ", describe(x));
  Tensor y = window(x, axis, first, last - first);
  Tape::record("slice", {x}, {y}, [shape = x.shape(), axis, first](const Tensors& dy) -> Tensors {
    return {embed_window(dy[0], shape, axis, first)};
  });
  return y;
}

Tensor select(const Tensor& x, int axis, int64_t index) {
  axis = resolve_axis("select", x, axis);
  const int64_t at = index < 0 ? index + x.size(axis) : index;
  check(0 <= at && at < x.size(axis), "select: index ", index, " is outside axis ", axis, " of ", describe(x));
  Tensor y = x.as_strided(x.shape().without(axis), x.strides().without(axis), x.offset() + at * x.strides()[axis]);
  Tape::record("select", {x}, {y}, [shape = x.shape(), axis, at](const Tensors& dy) -> Tensors {
    return {embed_window(unsqueeze(dy[0], axis), shape, axis, at)};
  });
  return y;
}

Tensor expand(const Tensor& x, const Shape& shape) {
  check_defined("expand", "x", x);
  const int added = shape.rank() - x.rank();
  check(added >= 0, "expand: ", shape, " has fewer axes than ", describe(x));
  Strides strides = shape;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const int64_t extent = axis < added ? 1 : x.size(axis - added);
    check(shape[axis] >= 0 && (extent == shape[axis] || extent == 1), "expand: ", describe(x), " does not repeat to ",
          shape, "; extents agree from the last axis backwards or are 1");
    strides[axis] = axis >= added && extent == shape[axis] ? x.strides()[axis - added] : 0;
  }
  Tensor y = x.as_strided(shape, strides, x.offset());
  Tape::record("expand", {x}, {y},
               [shape = x.shape()](const Tensors& dy) -> Tensors { return {sum_to(dy[0], shape)}; });
  return y;
}

Tensor squeeze(const Tensor& x, int axis) {
  axis = resolve_axis("squeeze", x, axis);
  check(x.size(axis) == 1, "squeeze: axis ", axis, " of ", describe(x), " has extent ", x.size(axis), ", wanted 1");
  Tensor y = x.as_strided(x.shape().without(axis), x.strides().without(axis), x.offset());
  Tape::record("squeeze", {x}, {y}, [axis](const Tensors& dy) -> Tensors { return {unsqueeze(dy[0], axis)}; });
  return y;
}

Tensor unsqueeze(const Tensor& x, int axis) {
  check_defined("unsqueeze", "x", x);
  const int at = axis < 0 ? axis + x.rank() + 1 : axis;
  check(0 <= at && at <= x.rank(), "unsqueeze: axis ", axis, " is not a place for a new axis in ", describe(x));
  Tensor y = x.as_strided(x.shape().inserted(at, 1), x.strides().inserted(at, 1), x.offset());
  Tape::record("unsqueeze", {x}, {y}, [at](const Tensors& dy) -> Tensors { return {squeeze(dy[0], at)}; });
  return y;
}

Tensors split(const Tensor& x, int axis, const std::vector<int64_t>& sizes) {
  axis = resolve_axis("split", x, axis);
  Tensors pieces;
  int64_t first = 0;
  for (int64_t size : sizes) {
    check(0 <= size && first + size <= x.size(axis), "split: a piece of ", size, " from ", first, " leaves axis ", axis,
          " of ", describe(x));
    pieces.push_back(window(x, axis, first, size));
    first += size;
  }
  check(first == x.size(axis), "split: the pieces add up to ", first, ", axis ", axis, " of ", describe(x), " has ",
        x.size(axis));
  Tape::record("split", {x}, pieces,
               [shape = x.shape(), dtype = x.dtype(), device = x.device(), axis, sizes](const Tensors& dy) -> Tensors {
                 std::vector<JoinPiece> parts;
                 for (size_t i = 0; i < sizes.size(); ++i) parts.push_back({dy[i], sizes[i]});
                 return {joined(parts, axis, shape, dtype, device)};
               });
  return pieces;
}

Tensor contiguous(const Tensor& x) {
  check_defined("contiguous", "x", x);
  if (x.is_contiguous()) return x;
  Tensor y = x.clone();
  Tape::record("contiguous", {x}, {y}, [](const Tensors& dy) { return dy; });
  return y;
}

Tensor concat(const Tensors& tensors, int axis) {
  check(!tensors.empty(), "concat: no tensors, wanted at least one");
  const Tensor& first = tensors.front();
  axis = resolve_axis("concat", first, axis);
  int64_t total = 0;
  std::vector<int64_t> sizes;
  std::vector<JoinPiece> pieces;
  for (const Tensor& tensor : tensors) {
    check_defined("concat", "a tensor", tensor);
    check_same_device_and_dtype("concat", first, tensor);
    check(tensor.rank() == first.rank() && tensor.shape().with(axis, 0) == first.shape().with(axis, 0),
          "concat: ", describe(tensor), " does not continue ", describe(first), " along axis ", axis,
          "; the other extents must agree");
    sizes.push_back(tensor.size(axis));
    total += sizes.back();
    pieces.push_back({tensor, sizes.back()});
  }
  Tensor y = joined(pieces, axis, first.shape().with(axis, total), first.dtype(), first.device());
  Tape::record("concat", tensors, {y}, [axis, sizes](const Tensors& dy) { return split(dy[0], axis, sizes); });
  return y;
}

Tensor stack(const Tensors& tensors, int axis) {
  check(!tensors.empty(), "stack: no tensors, wanted at least one");
  Tensors layers;
  for (const Tensor& tensor : tensors) {
    check_defined("stack", "a tensor", tensor);
    check(tensor.shape() == tensors.front().shape(), "stack: ", describe(tensor), " has not the shape of ",
          describe(tensors.front()));
    layers.push_back(unsqueeze(tensor, axis));
  }
  return concat(layers, axis);
}

Tensor flip(const Tensor& x, int axis) {
  axis = resolve_axis("flip", x, axis);
  Strides backwards = x.strides();
  backwards[axis] *= -1;
  const int64_t last = x.offset() + std::max<int64_t>(x.size(axis) - 1, 0) * x.strides()[axis];
  Tensor y = x.as_strided(x.shape(), backwards, last).clone();
  Tape::record("flip", {x}, {y}, [axis](const Tensors& dy) -> Tensors { return {flip(dy[0], axis)}; });
  return y;
}

Tensor pad(const Tensor& x, int axis, int64_t before, int64_t after, double value) {
  axis = resolve_axis("pad", x, axis);
  check(before >= 0 && after >= 0, "pad: cannot add ", before, " and ", after, " elements to ", describe(x),
        "; slice() takes elements away");
  const int64_t extent = x.size(axis);
  const auto filling = [&](int64_t count) {
    return JoinPiece{
        value == 0 ? Tensor() : expand(Tensor::scalar(value, x.dtype(), x.device()), x.shape().with(axis, count)),
        count};
  };
  const Tensor y = joined({filling(before), {x, extent}, filling(after)}, axis,
                          x.shape().with(axis, before + extent + after), x.dtype(), x.device());
  Tape::record("pad", {x}, {y}, [axis, before, extent](const Tensors& dy) -> Tensors {
    return {slice(dy[0], axis, before, before + extent)};
  });
  return y;
}

Tensor gather(const Tensor& x, int axis, const Tensor& index) {
  axis = resolve_axis("gather", x, axis);
  check_defined("gather", "index", index);
  check(index.device() == x.device(), "gather: operands are on two devices, ", describe(x), " and ", describe(index));
  check(index.rank() == x.rank() && index.shape().with(axis, 0) == x.shape().with(axis, 0), "gather: index ",
        describe(index), " does not fit ", describe(x), "; only axis ", axis, " may differ");
  const Tensor places = contiguous(index);
  Tensor y = Tensor::empty(index.shape(), x.dtype(), x.device());
  kernels::gather(x, axis, places, y);
  Tape::record("gather", {x}, {y}, [shape = x.shape(), axis, places](const Tensors& dy) -> Tensors {
    Tensor dx = Tensor::zeros(shape, dy[0].dtype(), dy[0].device());
    kernels::gather_gradient(dy[0], axis, places, dx);
    return {dx};
  });
  return y;
}

}  // namespace monoid
