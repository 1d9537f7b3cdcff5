// New keys and values into their caches: a thread moves sixteen bytes where addresses allow, keys and values in one
// launch. The end is read from the device, so that a replayed graph appends at the place it is told. Floor: the new
// rows read and written once.

#include "monoid/kernels/cache.h"
#include "monoid/kernels/cuda/faults.h"
#include "monoid/kernels/cuda/launch.h"

namespace monoid::cuda {
namespace {

constexpr int kThreads = 128;

// Lengths and steps are in units of what a thread moves.
struct Rows {
  const char* from;
  char* to;
  int64_t in[3], out[3];  // batch, time, head
  int64_t width;          // of a head
};

struct Arguments {
  Rows rows[2];
  const int32_t* ends;
  int64_t time, heads, items[2], capacity;
  FaultRecord* faults;
};

template <class Unit>
__global__ void __launch_bounds__(kThreads) append(const __grid_constant__ Arguments of) {
  const Rows& rows = of.rows[blockIdx.y];
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= of.items[blockIdx.y]) return;
  const int64_t unit = item % rows.width, head = item / rows.width % of.heads;
  const int64_t both = item / rows.width / of.heads, step = both % of.time, sequence = both / of.time;
  const int64_t end = of.ends[sequence];
  if (end < of.time || end > of.capacity) {
    report(of.faults, Fault::cache_position, sequence, static_cast<double>(end), static_cast<double>(of.capacity));
    return;
  }
  const int64_t source = sequence * rows.in[0] + step * rows.in[1] + head * rows.in[2] + unit;
  const int64_t place = end - of.time + step;
  const int64_t target = sequence * rows.out[0] + place * rows.out[1] + head * rows.out[2] + unit;
  reinterpret_cast<Unit*>(rows.to)[target] = reinterpret_cast<const Unit*>(rows.from)[source];
}

bool fits(const Tensor& x, int64_t elements, size_t bytes) {
  bool whole = reinterpret_cast<uintptr_t>(x.raw()) % bytes == 0 && x.size(3) % elements == 0;
  for (int axis = 0; axis < 3; ++axis) whole = whole && x.strides()[axis] % elements == 0;
  return whole;
}

Rows rows_of(const Tensor& x, Tensor& cache, int64_t elements) {
  Rows rows{static_cast<const char*>(x.raw()), static_cast<char*>(cache.raw()), {}, {}, x.size(3) / elements};
  for (int axis = 0; axis < 3; ++axis) {
    rows.in[axis] = x.strides()[axis] / elements;
    rows.out[axis] = cache.strides()[axis] / elements;
  }
  return rows;
}

}  // namespace

void append_to_cache(const Tensor& k, const Tensor& v, const Tensor& end_key, Tensor& k_cache, Tensor& v_cache) {
  const Launch launch("append_to_cache", k);
  const size_t element = size_of(k.dtype());
  const auto run = [&](auto kernel, size_t bytes) {
    const auto elements = static_cast<int64_t>(bytes / element);
    Arguments of{{rows_of(k, k_cache, elements), rows_of(v, v_cache, elements)},
                 end_key.data<int32_t>(),
                 k.size(1),
                 k.size(2),
                 {k.elements() / elements, v.elements() / elements},
                 k_cache.size(1),
                 fault_record(launch.index())};
    const int64_t items = of.items[0] > of.items[1] ? of.items[0] : of.items[1];
    launch(kernel, dim3(static_cast<unsigned>(blocks_for(items, kThreads)), 2), kThreads, of);
  };
  constexpr size_t kWideBytes = sizeof(uint4);
  const auto all_fit = [&](size_t bytes) {
    const auto elements = static_cast<int64_t>(bytes / element);
    return fits(k, elements, bytes) && fits(v, elements, bytes) && fits(k_cache, elements, bytes) &&
           fits(v_cache, elements, bytes);
  };
  if (all_fit(kWideBytes)) return run(append<uint4>, kWideBytes);
  dispatch_bits(k.dtype(), [&]<class Unit>() { run(append<Unit>, sizeof(Unit)); });
}

}  // namespace monoid::cuda
