// Gather: a thread for each element. Its transpose adds every dy to an element of dx: where no two can meet, because
// the axis of dy has one element, each is simply written there; otherwise it is the gradient of an embedding whose rows
// are single elements and whose tokens are places in dx (embedding.cu), in the order of a stable sort. Floor: one read
// of the index, of x or dy, one write.

#include "monoid/kernels/cuda/faults.h"
#include "monoid/kernels/cuda/launch.h"
#include "monoid/kernels/cuda/strided.h"
#include "monoid/kernels/indexing.h"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 256;

// The element of a tensor that an element of the index names: its line, and its place along the axis.
template <class I>
struct Places {
  Axes<1> line;
  int64_t step, extent;  // of the axis
  const I* index;
  int64_t count;
  FaultRecord* faults;

  // -1 for an index out of range.
  __device__ int64_t operator()(int64_t n) const {
    const int64_t at = index[n];
    if (at >= 0 && at < extent) return line.offset(n) + at * step;
    report(faults, Fault::gather_index, n, static_cast<double>(at), static_cast<double>(extent));
    return -1;
  }
};

// Visits x[.., index, ..] for an `index` of the same other extents.
template <class I>
Places<I> places_in(const Launch& launch, const Tensor& x, int axis, const Tensor& index) {
  axis = x.shape().resolve(axis);
  Strides steps = x.strides();
  steps[axis] = 0;
  const Places<I> places{
      Axes<1>(index.shape(), {steps}), x.strides()[axis], x.size(axis), index.data<I>(), index.elements(),
      fault_record(launch.index())};
  check(places.line.rank <= 1 || places.count <= kMostIndices, "gather: index ", describe(index), " has more than ",
        kMostIndices, " elements; gather in slices");
  return places;
}

__device__ __forceinline__ int64_t own_element() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

template <class T, class I>
__global__ void __launch_bounds__(kThreads)
    gather_elements(const __grid_constant__ Places<I> places, const T* x, T* result) {
  const int64_t n = own_element();
  if (n >= places.count) return;
  const int64_t place = places(n);
  result[n] = place >= 0 ? x[place] : T();
}

template <class T, class I>
__global__ void __launch_bounds__(kThreads)
    scatter_elements(const __grid_constant__ Places<I> places, const T* dy, T* dx) {
  const int64_t n = own_element();
  if (n >= places.count) return;
  const int64_t place = places(n);
  if (place >= 0) dx[place] = dy[n];
}

template <class I>
__global__ void __launch_bounds__(kThreads) write_places(const __grid_constant__ Places<I> places, int64_t* tokens) {
  const int64_t n = own_element();
  if (n < places.count) tokens[n] = places(n);
}

unsigned blocks_of(const Tensor& index) { return static_cast<unsigned>(blocks_for(index.elements(), kThreads)); }

}  // namespace

void gather(const Tensor& x, int axis, const Tensor& index, Tensor& result) {
  const Launch launch("gather", x);
  dispatch_index("gather", index.dtype(), [&]<class I>() {
    dispatch_bits(x.dtype(), [&]<class T>() {
      launch(gather_elements<T, I>, blocks_of(index), kThreads, places_in<I>(launch, x, axis, index),
             static_cast<const T*>(x.raw()), static_cast<T*>(result.raw()));
    });
  });
}

void gather_gradient(const Tensor& dy, int axis, const Tensor& index, Tensor& dx) {
  const Launch launch("gather_gradient", dy);
  const Tensor dense = dy.is_contiguous() ? dy : dy.clone();
  dispatch_index("gather", index.dtype(), [&]<class I>() {
    const Places<I> places = places_in<I>(launch, dx, axis, index);
    if (index.size(axis) == 1) {
      return dispatch_bits(dy.dtype(), [&]<class T>() {
        launch(scatter_elements<T, I>, blocks_of(index), kThreads, places, static_cast<const T*>(dense.raw()),
               static_cast<T*>(dx.raw()));
      });
    }
    Tensor tokens = Tensor::empty({index.elements()}, DType::i64, dy.device());
    launch(write_places<I>, blocks_of(index), kThreads, places, tokens.data<int64_t>());
    Tensor elements = dx.view({dx.elements(), 1});
    embedding_gradient(dense.view({dense.elements(), 1}), tokens, elements);
  });
}

}  // namespace monoid::cuda
