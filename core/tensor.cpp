#include "monoid/core/tensor.h"

#include <limits>
#include <ostream>

#include "monoid/core/copy.h"
#include "monoid/core/tape.h"

namespace monoid {
namespace {

bool is_row_major(const Shape& shape, const Strides& strides) {
  if (shape.elements() == 0) return true;
  int64_t step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    if (shape[axis] != 1 && strides[axis] != step) return false;
    step *= shape[axis];
  }
  return true;
}

}  // namespace

const Tensor::Impl& Tensor::impl() const {
  check(impl_, "tensor: used before it was defined (an absent optional operand, or grad() before backward)");
  return *impl_;
}

Tensor::Impl& Tensor::impl() { return const_cast<Impl&>(std::as_const(*this).impl()); }

Tensor Tensor::over(const Shape& shape, DType dtype, const std::function<std::shared_ptr<Storage>(size_t)>& storage) {
  for (int64_t extent : shape) check(extent >= 0, "tensor: negative extent in shape ", shape);
  auto impl = std::make_shared<Impl>();
  impl->shape = shape;
  impl->strides = contiguous_strides(shape);
  impl->elements = shape.elements();
  impl->dtype = dtype;
  const auto most = std::numeric_limits<int64_t>::max() / static_cast<int64_t>(size_of(dtype));
  check(impl->elements <= most, "tensor: ", dtype, shape, " has more bytes than 64 bits count");
  impl->storage = storage(static_cast<size_t>(impl->elements) * size_of(dtype));
  return Tensor(std::move(impl));
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  return over(shape, dtype, [&](size_t bytes) { return std::make_shared<Storage>(bytes, device); });
}

Tensor Tensor::wrap(void* data, const Shape& shape, DType dtype, Device device, std::function<void()> release) {
  return over(shape, dtype,
              [&](size_t bytes) { return std::make_shared<Storage>(data, bytes, device, std::move(release)); });
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor result = empty(shape, dtype, device);
  runtime(device.kind).fill_zero(result.raw(), result.bytes(), device.index);
  return result;
}

Tensor Tensor::ones(const Shape& shape, DType dtype, Device device) { return full(shape, 1, dtype, device); }

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor result = empty(shape, dtype, device);
  result.fill(value);
  return result;
}

Tensor Tensor::arange(int64_t count, DType dtype, Device device) {
  std::vector<int64_t> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = i;
  return from(values, {count}).to(dtype).to(device);
}

template <class T>
Tensor Tensor::from(std::span<const T> values, const Shape& shape, Device device) {
  check(static_cast<int64_t>(values.size()) == shape.elements(), "tensor: ", values.size(),
        " values do not fill shape ", shape, " of ", shape.elements(), " elements");
  Tensor result = empty(shape, dtype_of<T>, device);
  runtime(device.kind).copy(result.raw(), device, values.data(), kCpu, result.bytes());
  return result;
}

Tensor Tensor::as_strided(const Shape& shape, const Strides& strides, int64_t offset) const {
  check(shape.rank() == strides.rank(), "as_strided: shape ", shape, " and strides ", strides, " differ in rank");
  int64_t lowest = offset, highest = offset;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const int64_t reach = strides[axis] * (shape[axis] - 1);
    (reach < 0 ? lowest : highest) += reach;
  }
  const auto capacity = static_cast<int64_t>(storage()->bytes() / size_of(dtype()));
  check(shape.elements() == 0 || (lowest >= 0 && highest < capacity), "as_strided: shape ", shape, " with strides ",
        strides, " at offset ", offset, " leaves its storage of ", capacity, " elements");
  auto view = std::make_shared<Impl>();
  view->storage = storage();
  view->shape = shape;
  view->strides = strides;
  view->offset = offset;
  view->elements = shape.elements();
  view->dtype = dtype();
  view->contiguous = view->elements == 0 || is_row_major(shape, strides);
  return Tensor(std::move(view));
}

Tensor Tensor::view(const Shape& shape) const {
  check(is_contiguous(), "view: ", describe(*this), " has strides ", strides(), " and is not contiguous; clone() it");
  check(shape.elements() == elements(), "view: shape ", shape, " does not hold the ", elements(), " elements of ",
        describe(*this));
  return as_strided(shape, contiguous_strides(shape), offset());
}

void* Tensor::raw() const {
  return static_cast<char*>(storage()->data()) + static_cast<size_t>(offset()) * size_of(dtype());
}

void* Tensor::checked_address(DType expected) const {
  check(dtype() == expected, "tensor: data of ", describe(*this), " was asked for as ", expected);
  return raw();
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  if (!device().is_cpu() || dtype() != dtype_of<T> || !is_contiguous()) {
    Tensor dense = is_contiguous() ? detach() : clone();
    return dense.to(kCpu).to(dtype_of<T>).template to_vector<T>();
  }
  const T* first = data<T>();
  return std::vector<T>(first, first + elements());
}

double Tensor::item() const {
  check(elements() == 1, "item: ", describe(*this), " has ", elements(), " elements, wanted exactly 1");
  return to_vector<double>().front();
}

Tensor Tensor::to(Device target) const {
  if (target == device()) return detach();
  Tensor dense = is_contiguous() ? *this : clone();
  Tensor result = empty(shape(), dtype(), target);
  runtime(target.is_cpu() ? device().kind : target.kind)
      .copy(result.raw(), target, dense.raw(), device(), result.bytes());
  return result;
}

Tensor Tensor::to(DType target) const {
  if (target == dtype()) return detach();
  Tensor result = empty(shape(), target, device());
  kernels::copy(*this, result);
  return result;
}

Tensor Tensor::clone() const {
  Tensor result = empty_like(*this);
  kernels::copy(*this, result);
  return result;
}

void Tensor::copy_from(const Tensor& source) {
  check(source.shape() == shape(), "copy_from: source ", describe(source), " does not fit ", describe(*this));
  kernels::copy(source.to(device()), *this);
}

void Tensor::fill(double value) { kernels::fill(*this, value); }

Tensor& Tensor::set_requires_grad(bool value) {
  check(!value || is_floating(dtype()), "set_requires_grad: ", describe(*this), " is not floating point");
  check(impl().tape == 0, "set_requires_grad: ", describe(*this), " was computed on a tape; only leaves can be set, ",
        "detach() it first");
  impl().requires_grad = value;
  return *this;
}

bool Tensor::requires_grad() const { return impl_ && (impl_->requires_grad || impl_->tape != 0); }

Tensor Tensor::grad() const { return Tensor(impl().grad); }

void Tensor::set_grad(const Tensor& grad) {
  check(!grad.defined() || grad.shape() == shape(), "set_grad: gradient ", describe(grad), " does not fit ",
        describe(*this));
  impl().grad = grad.impl_;
}

void Tensor::accumulate_grad(Tensor gradient) {
  check_shape("accumulate_grad", "gradient", gradient, shape());
  if (impl().grad) {
    Tensor total(impl().grad);
    kernels::accumulate(gradient, total);
  } else {
    // A gradient that somebody else can see is copied: later sums are written in place.
    impl().grad = (gradient.is_contiguous() && gradient.owns_storage_alone() ? gradient : gradient.clone()).impl_;
  }
}

Tensor Tensor::detach() const { return as_strided(shape(), strides(), offset()); }

bool Tensor::owns_storage_alone() const { return impl_.use_count() == 1 && impl().storage.use_count() == 1; }

std::ostream& operator<<(std::ostream& stream, const Description& description) {
  const Tensor& tensor = description.tensor;
  if (!tensor.defined()) return stream << "undefined";
  stream << tensor.dtype() << tensor.shape();
  return tensor.device().is_cpu() ? stream : stream << " on " << tensor.device();
}

std::ostream& operator<<(std::ostream& stream, const Tensor& tensor) {
  stream << describe(tensor);
  if (!tensor.defined()) return stream;
  const std::vector<double> values = tensor.to_vector<double>();
  constexpr size_t kEdge = 4;
  stream << " {";
  for (size_t i = 0; i < values.size(); ++i) {
    if (values.size() > 2 * kEdge && i == kEdge) {
      stream << ", ...";
      i = values.size() - kEdge;
    }
    stream << (i ? ", " : "") << values[i];
  }
  return stream << '}';
}

void check_defined(std::string_view op, std::string_view argument, const Tensor& tensor) {
  check(tensor.defined(), op, ": ", argument, " is undefined, wanted a tensor");
}

void check_same_device_and_dtype(std::string_view op, const Tensor& a, const Tensor& b) {
  check(a.device() == b.device(), op, ": operands are on two devices, ", describe(a), " and ", describe(b),
        "; move one with to(device)");
  check(a.dtype() == b.dtype(), op, ": operands have two dtypes, ", describe(a), " and ", describe(b), "; cast() one");
}

void check_shape(std::string_view op, std::string_view argument, const Tensor& tensor, const Shape& wanted) {
  check(tensor.shape() == wanted, op, ": ", argument, " is ", describe(tensor), ", wanted shape ", wanted);
}

template Tensor Tensor::from(std::span<const float>, const Shape&, Device);
template Tensor Tensor::from(std::span<const double>, const Shape&, Device);
template Tensor Tensor::from(std::span<const bfloat16>, const Shape&, Device);
template Tensor Tensor::from(std::span<const int32_t>, const Shape&, Device);
template Tensor Tensor::from(std::span<const int64_t>, const Shape&, Device);
template Tensor Tensor::from(std::span<const uint8_t>, const Shape&, Device);
template Tensor Tensor::from(std::span<const bool>, const Shape&, Device);
template std::vector<float> Tensor::to_vector() const;
template std::vector<double> Tensor::to_vector() const;
template std::vector<bfloat16> Tensor::to_vector() const;
template std::vector<int32_t> Tensor::to_vector() const;
template std::vector<int64_t> Tensor::to_vector() const;
template std::vector<uint8_t> Tensor::to_vector() const;
template std::vector<bool> Tensor::to_vector() const;

}  // namespace monoid
