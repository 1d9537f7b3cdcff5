// Attention at the shapes of peers: FLOP/s of the visible pairs, decoding against the bytes of its cache, and a
// sequence whose matrix of scores would not fit anywhere.

#include "monoid/ops/attention.h"

#include <memory>

#include "monoid/core/random.h"
#include "monoid/core/runtime.h"
#include "monoid/ops/rotary.h"
#include "monoid/tools/bench/cases.h"

namespace monoid::bench {
namespace {

struct Sizes {
  int64_t batch, time, heads, key_heads, channels;
  const char* note = "";
};

std::string described(const Sizes& n) {
  return str(n.batch, " x ", n.time, ", ", n.heads, n.key_heads == n.heads ? "" : str(" on ", n.key_heads),
             " heads of ", n.channels, n.note);
}

Tensors operands(const Sizes& n, int64_t queries) {
  Generator generator(19);
  const Shape keys{n.batch, n.time, n.key_heads, n.channels};
  return {random_normal({n.batch, queries, n.heads, n.channels}, generator), random_normal(keys, generator),
          random_normal(keys, generator)};
}

// How many keys the queries of one head of one sequence see together.
double visible_pairs(const AttentionMask& mask, int64_t time) {
  double pairs = 0;
  for (int64_t i = 0; i < time; ++i) {
    const KeyRange seen = mask.range(i, time);
    pairs += static_cast<double>(seen.end - seen.first);
  }
  return pairs;
}

// Rates count operations: two products forward, five more backward (scores are made again).
std::vector<Case> trained(const Target& target, const char* name, const Sizes& n, const AttentionMask& mask,
                          const std::string& note = {}) {
  const Tensors inputs = operands(n, n.time);
  const double flops = 4 * static_cast<double>(n.batch * n.heads * n.channels) * visible_pairs(mask, n.time);
  double elements = 0;
  for (const Tensor& input : inputs) elements += static_cast<double>(input.elements());
  const double output = static_cast<double>(inputs[0].elements()), width = static_cast<double>(size_of(target.dtype));
  Target here = target;
  here.verify = target.verify && flops < 4e10;  // more takes minutes on the CPU
  std::vector<Case> cases =
      both_directions(here, name, described(n) + note, inputs,
                      [=](const Tensors& t) { return Tensors{attention(t[0], t[1], t[2], {.mask = mask})}; },
                      {flops, width * (elements + output), width * (3 * elements + 4 * output), flops});
  cases[1].flops = cases[1].items = 3.5 * flops;
  return cases;
}

CaseMaker training_case(const char* name, const std::vector<Sizes>& on_cpu, const std::vector<Sizes>& on_cuda,
                        const AttentionMask& mask) {
  return {name, [=](const Target& target) {
            std::vector<Case> cases;
            for (const Sizes& sizes : target.device.is_cuda() ? on_cuda : on_cpu) {
              for (Case& item : trained(target, name, sizes, mask)) cases.push_back(std::move(item));
            }
            return cases;
          }};
}

// The peak of the tensors of one forward and backward, beyond its inputs.
std::vector<Case> long_case(const Target& target) {
  const bool big = target.device.is_cuda();
  const Sizes sizes{1, 65536, big ? 16 : 1, big ? 16 : 1, 64};
  const AttentionMask mask = big ? AttentionMask::causal() : AttentionMask::window(4096);
  Tensors leaves;
  for (const Tensor& input : operands(sizes, sizes.time))
    leaves.push_back(input.to(target.dtype).to(target.device).set_requires_grad());
  reset_peak_memory(target.device);
  const size_t before = memory_stats(target.device).allocated;
  {
    Tape tape;
    const Tensor output = attention(leaves[0], leaves[1], leaves[2], {.mask = mask});
    tape.backward(output, leaves[0].detach());
  }
  synchronize(target.device);
  const size_t peak = memory_stats(target.device).peak_allocated - before;
  return trained(target, "attention/long", sizes, mask, str(big ? "" : ", window 4096", ", peak ", peak >> 20, " MiB"));
}

// One query a sequence over caches of 256 MB of keys and as much of values: bytes are what it costs.
std::vector<Case> decode_cases(const Target& target) {
  std::vector<Case> cases;
  const int64_t bytes = (target.device.is_cuda() ? 256 : 64) << 20;
  for (const Sizes& n :
       {Sizes{1, 0, 16, 16, 64}, Sizes{8, 0, 16, 16, 64}, Sizes{8, 0, 32, 8, 128}, Sizes{8, 0, 8, 1, 64}}) {
    Sizes sizes = n;
    sizes.time = bytes / static_cast<int64_t>(size_of(target.dtype)) / (n.batch * n.key_heads * n.channels);
    Tensors inputs;
    for (const Tensor& input : operands(sizes, 1)) inputs.push_back(input.to(target.dtype).to(target.device));
    const double cache = static_cast<double>(inputs[1].bytes() + inputs[2].bytes());
    Case decode{"attention/decode", described(sizes), cache, 0, cache};
    decode.run = [=] { attention(inputs[0], inputs[1], inputs[2]); };
    if (target.device.is_cuda()) decode.timed = timed_on_device(target.device, decode.run);
    cases.push_back(std::move(decode));
  }
  return cases;
}

CaseMaker rotary_case(const char* name, RotaryPairs pairs) {
  return {name, [=](const Target& target) {
            Generator generator(23);
            const Shape shape = target.device.is_cuda() ? Shape{4, 4096, 16, 64} : Shape{4, 1024, 8, 64};
            const Tensor table = rotary_table(rotary_frequencies(shape[3]), shape[1]);
            const double elements = static_cast<double>(shape.elements());
            const double unit = elements * static_cast<double>(size_of(target.dtype));
            const auto tables =
                std::make_shared<std::pair<Tensor, Tensor>>(table.to(target.device), table.to(DType::f64));
            return both_directions(target, name, str(shape[0], " x ", shape[1], ", ", shape[2], " heads of ", shape[3]),
                                   {random_normal(shape, generator)},
                                   [=](const Tensors& t) {
                                     const bool exact = t[0].dtype() == DType::f64;
                                     return Tensors{rotary(t[0], exact ? tables->second : tables->first, pairs)};
                                   },
                                   {elements, 2 * unit, 4 * unit});
          }};
}

}  // namespace

std::vector<CaseMaker> attention_cases() {
  const std::vector<Sizes> causal_on_cpu{
      {4, 1024, 8, 8, 64}, {1, 4096, 8, 8, 64}, {8, 256, 4, 4, 64}, {4, 1024, 8, 1, 64}, {2, 1024, 8, 8, 128}};
  const std::vector<Sizes> causal_on_cuda{{8, 1024, 16, 16, 64},  {4, 4096, 16, 16, 64},  {1, 16384, 16, 16, 64},
                                          {8, 1024, 16, 16, 128}, {4, 4096, 16, 16, 128}, {1, 16384, 16, 16, 128},
                                          {4, 2048, 16, 16, 64},  {4, 4096, 16, 4, 64},   {4, 4096, 16, 1, 64}};
  const std::vector<Sizes> local_on_cpu{{4, 2048, 8, 1, 64}},
      local_on_cuda{{16, 2048, 8, 1, 64}, {4, 16384, 16, 16, 64}};
  return {
      training_case("attention/causal", causal_on_cpu, causal_on_cuda, AttentionMask::causal()),
      training_case("attention/full", {{4, 1024, 8, 8, 64}}, {{4, 4096, 16, 16, 64}}, AttentionMask::full()),
      training_case("attention/window 512", local_on_cpu, local_on_cuda, AttentionMask::window(512)),
      training_case("attention/blocks of 512", local_on_cpu, local_on_cuda, AttentionMask::blocks(512)),
      {"attention/long", long_case},
      {"attention/decode", decode_cases},
      rotary_case("rotary/interleaved", RotaryPairs::interleaved),
      rotary_case("rotary/halves", RotaryPairs::halves),
  };
}

}  // namespace monoid::bench
