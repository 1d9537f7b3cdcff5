#include "monoid/core/stream.h"

#include "monoid/core/runtime.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/cuda.h"

namespace monoid {

using test::check_identical;
using test::cuda_or_skip;
using test::kCuda;
using test::kSecondCuda;
using test::second_cuda_or_skip;

TEST_CASE("the CPU has no streams, events or graphs and says so", "[stream]") {
  CHECK_THROWS_WITH(Stream(kCpu), ContainsSubstring("cpu has no streams"));
  CHECK_THROWS_WITH(Event(kCpu), ContainsSubstring("cpu has no streams"));
  CHECK_THROWS_WITH(Graph(kCpu, [] {}), ContainsSubstring("cpu has no streams"));
  CHECK_THROWS_WITH(Graph().replay(), ContainsSubstring("before anything was recorded"));
}

TEST_CASE("a GPU that does not exist is an error with its number", "[stream]") {
  CHECK_FALSE(is_available({DeviceKind::cuda, 63}));
  CHECK_THROWS_WITH(Tensor::empty({1}, DType::f32, {DeviceKind::cuda, 63}),
                    ContainsSubstring("cuda:63 cannot be used") || ContainsSubstring("no cuda backend"));
}

TEST_CASE("tensors go to the GPU and come back unchanged", "[stream][cuda]") {
  if (!cuda_or_skip()) return;
  for (int64_t count : {0, 1, 3, 1000, 1 << 20}) {
    const Tensor there = Tensor::arange(count, DType::i64).to(kCuda);
    CHECK(there.device() == kCuda);
    check_identical(there.to(kCpu), Tensor::arange(count, DType::i64));
  }
  check_identical(Tensor::zeros({5}, DType::f32, kCuda).to(kCpu), Tensor::zeros({5}));
}

TEST_CASE("tensors go from one GPU to another, each of which has its own memory and streams", "[stream][cuda][two]") {
  if (!second_cuda_or_skip()) return;
  const MemoryStats before = memory_stats(kCuda);
  const Tensor numbers = Tensor::arange(1000, DType::i64), second = numbers.to(kSecondCuda);
  CHECK(second.device() == kSecondCuda);
  CHECK(memory_stats(kCuda).allocated == before.allocated);
  const Tensor first = second.to(kCuda);
  check_identical(first.to(kCpu), numbers);
  check_identical(first.to(kSecondCuda).to(kCpu), numbers);
  const Stream side(kSecondCuda);
  const StreamScope scope(side);
  check_identical(second.clone().to(kCpu), numbers);
}

TEST_CASE("freed GPU memory serves the next request, and statistics follow", "[stream][cuda]") {
  if (!cuda_or_skip()) return;
  empty_cache(kCuda);
  reset_peak_memory(kCuda);
  const MemoryStats before = memory_stats(kCuda);
  const void* first = Tensor::empty({1 << 20}, DType::f32, kCuda).raw();
  const Tensor again = Tensor::empty({1 << 20}, DType::f32, kCuda);
  const MemoryStats after = memory_stats(kCuda);
  CHECK(again.raw() == first);
  CHECK(after.misses == before.misses + 1);
  CHECK(after.allocated == before.allocated + (4 << 20));
  set_memory_limit(64 << 20, kCuda);
  CHECK_THROWS_WITH(Tensor::empty({1 << 28}, DType::f32, kCuda), ContainsSubstring("out of memory on cuda:0"));
  set_memory_limit(0, kCuda);
  CHECK_THROWS_WITH(Tensor::empty({int64_t{1} << 40}, DType::f32, kCuda), ContainsSubstring("requested"));
}

TEST_CASE("work on a stream of its own overlaps until an event orders it", "[stream][cuda]") {
  if (!cuda_or_skip()) return;
  const Stream side(kCuda);
  Event ready(kCuda), done(kCuda);
  Tensor x = pinned({1 << 20}, DType::f32), there = Tensor::empty({1 << 20}, DType::f32, kCuda);
  x.fill(3);
  {
    const StreamScope scope(side);
    CHECK(Stream::current(kCuda).native() == side.native());
    copy_async(x, there);
    ready.record();
  }
  CHECK(Stream::current(kCuda).native() != side.native());
  ready.wait();
  Tensor back = pinned({1 << 20}, DType::f32);
  copy_async(there, back);
  done.record();
  done.synchronize();
  CHECK(done.done());
  check_identical(back, Tensor::full({1 << 20}, 3));
  CHECK(done.milliseconds_since(ready) >= 0);
}

TEST_CASE("a graph replays what was recorded on the values of the moment", "[stream][cuda][graph]") {
  if (!cuda_or_skip()) return;
  Tensor in = Tensor::full({1000}, 1, DType::f32, kCuda), out = Tensor::zeros({1000}, DType::f32, kCuda);
  const Graph graph(kCuda, [&] {
    CHECK(Graph::capturing());
    const Tensor between = in.clone();
    out.copy_from(between);
  });
  CHECK_FALSE(Graph::capturing());
  check_identical(out.to(kCpu), Tensor::zeros({1000}));
  for (double value : {2.0, 5.0}) {
    in.fill(value);
    graph.replay();
    check_identical(out.to(kCpu), Tensor::full({1000}, value));
  }
}

TEST_CASE("what a graph allocates is not handed out while it lives", "[stream][cuda][graph]") {
  if (!cuda_or_skip()) return;
  Tensor in = Tensor::full({1 << 16}, 1, DType::f32, kCuda), out = Tensor::empty_like(in);
  const void* between = nullptr;
  {
    const Graph graph(kCuda, [&] {
      const Tensor copy = in.clone();
      between = copy.raw();
      out.copy_from(copy);
    });
    std::vector<Tensor> others;
    for (int i = 0; i < 8; ++i) {
      others.push_back(Tensor::full({1 << 16}, 7, DType::f32, kCuda));
      CHECK(others.back().raw() != between);
    }
    graph.replay();
    check_identical(out.to(kCpu), Tensor::full({1 << 16}, 1));
    for (const Tensor& other : others) check_identical(other.to(kCpu), Tensor::full({1 << 16}, 7));
  }
  const size_t reserved = memory_stats(kCuda).reserved;
  empty_cache(kCuda);
  CHECK(memory_stats(kCuda).reserved <= reserved);
}

TEST_CASE("what cannot be captured is an error that names the last op", "[stream][cuda][graph]") {
  if (!cuda_or_skip()) return;
  const Tensor x = Tensor::ones({4}, DType::f32, kCuda);
  CHECK_THROWS_WITH(Graph(kCuda, [&] { x.clone().to_vector<float>(); }),
                    ContainsSubstring("after 'copy'") && ContainsSubstring("cannot be captured"));
  CHECK_THROWS_WITH(Graph(kCuda, [&] { Tensor::ones({4}).clone(); }),
                    ContainsSubstring("runs on cpu while a graph of cuda:0 is recorded"));
  const Graph fine(kCuda, [&] { x.clone(); });  // an error leaves nothing behind
  fine.replay();
  synchronize(kCuda);
}

}  // namespace monoid
