#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "monoid/core/device.h"
#include "monoid/core/dtype.h"
#include "monoid/core/memory.h"
#include "monoid/core/shape.h"

namespace monoid {

/// A handle to a strided view of shared device memory. Copying a Tensor copies the handle: both see the same data,
/// the same gradient and the same place on the tape.
class Tensor {
 public:
  /// Undefined: no data. The value of an absent optional operand.
  Tensor() = default;

  static Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = kCpu);
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = kCpu);
  static Tensor ones(const Shape& shape, DType dtype = DType::f32, Device device = kCpu);
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32, Device device = kCpu);
  /// 0, 1, ..., count - 1.
  static Tensor arange(int64_t count, DType dtype = DType::i64, Device device = kCpu);
  /// Copies `values` in row-major order; their number must be shape.elements().
  template <class T>
  static Tensor from(std::span<const T> values, const Shape& shape, Device device = kCpu);
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape, Device device = kCpu) {
    return from(std::span<const T>(values), shape, device);
  }
  /// A contiguous tensor over memory of somebody else's, which stays valid until the last view of it calls `release`.
  static Tensor wrap(void* data, const Shape& shape, DType dtype, Device device, std::function<void()> release = {});
  static Tensor scalar(double value, DType dtype = DType::f32, Device device = kCpu) {
    return full({}, value, dtype, device);
  }
  /// Uninitialised, with the shape, dtype and device of another.
  static Tensor empty_like(const Tensor& other) { return empty(other.shape(), other.dtype(), other.device()); }
  static Tensor zeros_like(const Tensor& other) { return zeros(other.shape(), other.dtype(), other.device()); }

  bool defined() const { return impl_ != nullptr; }
  explicit operator bool() const { return defined(); }

  const Shape& shape() const { return impl().shape; }
  const Strides& strides() const { return impl().strides; }
  int rank() const { return impl().shape.rank(); }
  /// Extent of one axis; negative counts from the end.
  int64_t size(int axis) const { return impl().shape[axis]; }
  int64_t elements() const { return impl().elements; }
  DType dtype() const { return impl().dtype; }
  Device device() const { return impl().storage->device(); }
  size_t bytes() const { return static_cast<size_t>(elements()) * size_of(dtype()); }
  bool is_contiguous() const { return impl().contiguous; }

  /// Address of the first element on its device; T must be the stored type.
  template <class T>
  T* data() {
    return static_cast<T*>(checked_address(dtype_of<T>));
  }
  template <class T>
  const T* data() const {
    return static_cast<const T*>(checked_address(dtype_of<T>));
  }
  void* raw() const;
  const std::shared_ptr<Storage>& storage() const { return impl().storage; }
  /// Elements between the start of the storage and the first element.
  int64_t offset() const { return impl().offset; }

  /// Another view of the same memory, outside the tape; ops/shape_ops.h has the differentiable views.
  Tensor as_strided(const Shape& shape, const Strides& strides, int64_t offset) const;
  /// The same memory under another shape of as many elements; needs a contiguous tensor, outside the tape.
  Tensor view(const Shape& shape) const;

  /// Row-major copy on the host, converted to T. Waits for the device.
  template <class T>
  std::vector<T> to_vector() const;
  /// The only element of a one-element tensor.
  double item() const;

  /// Copies of the data, outside the tape (ops/elementwise.h has the differentiable cast).
  Tensor to(Device device) const;
  Tensor to(DType dtype) const;
  Tensor clone() const;
  /// Overwrites this tensor's data: shapes must agree, dtype and device are converted.
  void copy_from(const Tensor& source);
  void fill(double value);

  // The tape's part. A leaf asks for its gradient; `backward` adds it to grad().
  Tensor& set_requires_grad(bool value = true);
  /// True for such a leaf and for everything recorded from one.
  bool requires_grad() const;
  /// Accumulated gradient; undefined before the first backward.
  Tensor grad() const;
  void set_grad(const Tensor& grad);
  void clear_grad() { set_grad({}); }
  /// Adds to grad(). A gradient that nobody else holds is taken over without a copy: move it in.
  void accumulate_grad(Tensor gradient);
  /// The same data without the tape.
  Tensor detach() const;

  /// How many handles share the storage: 1 means that nobody else can see a write.
  bool owns_storage_alone() const;

 private:
  friend class Tape;

  struct Impl {
    std::shared_ptr<Storage> storage;
    Shape shape;
    Strides strides;
    int64_t offset = 0;
    int64_t elements = 0;
    DType dtype = DType::f32;
    bool contiguous = true;
    bool requires_grad = false;
    uint64_t tape = 0;  // the tape that recorded this tensor; 0 for a leaf
    int64_t slot = -1;  // its place there
    std::shared_ptr<Impl> grad;
  };

  static Tensor over(const Shape& shape, DType dtype,
                     const std::function<std::shared_ptr<Storage>(size_t bytes)>& storage);
  explicit Tensor(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  const Impl& impl() const;
  Impl& impl();
  void* checked_address(DType expected) const;

  std::shared_ptr<Impl> impl_;
};

/// Shape, dtype, device, and the first and last values of each axis.
std::ostream& operator<<(std::ostream& stream, const Tensor& tensor);
/// "f32[4, 512] on cuda:0", or "undefined": how errors describe a tensor. Only a promise until it is streamed, so that
/// a check that holds formats nothing; it must not outlive the tensor.
struct Description {
  const Tensor& tensor;
};
inline Description describe(const Tensor& tensor) { return {tensor}; }
std::ostream& operator<<(std::ostream& stream, const Description& description);

/// Checks shared by the ops; each names the op, what it saw and what it wanted.
void check_defined(std::string_view op, std::string_view argument, const Tensor& tensor);
void check_same_device_and_dtype(std::string_view op, const Tensor& a, const Tensor& b);
void check_shape(std::string_view op, std::string_view argument, const Tensor& tensor, const Shape& wanted);

}  // namespace monoid
