// Complex scans and gate loops. Floors count each input, output and gradient once.

#include "monoid/core/random.h"
#include "monoid/ops/complex_scan.h"
#include "monoid/ops/gate_loop.h"
#include "monoid/tools/bench/cases.h"

namespace monoid::bench {
namespace {

struct Extents {
  int64_t batch, time, channel;
};

// From cache, small, from memory, and long.
const Extents kExtents[] = {{4, 64, 384}, {4, 512, 768}, {8, 4096, 2048}, {1, 65536, 512}};

struct Heads {
  int64_t batch, time, heads, size;
};
const Heads kHeads[] = {{4, 256, 8, 64}, {8, 4096, 8, 64}, {4, 4096, 8, 128}};

/// Elements of the dtype that are moved per channel and step.
struct Units {
  double forward, backward;
};

using Inputs = std::function<Tensors(const Extents& extents, Generator& generator)>;

CaseMaker channel_case(const char* name, Units units, Inputs inputs, Op op) {
  return {name, [=](const Target& target) {
            std::vector<Case> cases;
            for (const Extents& extents : kExtents) {
              Generator generator(3);
              const auto [batch, time, channel] = extents;
              const double elements = static_cast<double>(batch * time * channel),
                           unit = elements * static_cast<double>(size_of(target.dtype));
              for (Case& item :
                   both_directions(target, name, str(batch, " x ", time, " x ", channel), inputs(extents, generator),
                                   op, {elements, units.forward * unit, (units.forward + units.backward) * unit})) {
                cases.push_back(std::move(item));
              }
            }
            return cases;
          }};
}

CaseMaker outer_case() {
  const char* name = "gate_loop_outer_scan";
  return {name, [=](const Target& target) {
            std::vector<Case> cases;
            for (const auto& [batch, time, heads, size] : kHeads) {
              Generator generator(3);
              const Tensors inputs{random_normal({batch, time, 3 * heads * size}, generator),
                                   random_normal({batch, time, heads, 2}, generator)};
              const double elements = static_cast<double>(batch * time * heads * size);
              const double angles = 2. / static_cast<double>(size);
              const double unit = elements * static_cast<double>(size_of(target.dtype));
              // Chunks of 64: 2 * 64 * 2 operations a channel for the pairs of a chunk, 8 a channel and row of the
              // state.
              const double flops = elements * (256 + 8 * static_cast<double>(size));
              for (Case& item :
                   both_directions(target, name, str(batch, " x ", time, ", ", heads, " heads of ", size), inputs,
                                   [](const Tensors& t) { return Tensors{gate_loop_scan(t[0], t[1]).output}; },
                                   {elements, (4 + angles) * unit, (11 + 3 * angles) * unit, flops})) {
                cases.push_back(std::move(item));
              }
            }
            return cases;
          }};
}

}  // namespace

std::vector<CaseMaker> gate_loop_cases() {
  return {
      channel_case(
          "complex_scan", {6, 10},
          [](const Extents& e, Generator& generator) {
            const Shape pairs{e.batch, e.time, e.channel, 2};
            return Tensors{random_uniform(pairs, generator, -0.7, 0.7), random_normal(pairs, generator)};
          },
          [](const Tensors& t) { return Tensors{complex_scan(t[0], t[1]).states}; }),
      channel_case(
          "gate_loop_scan", {6, 11},
          [](const Extents& e, Generator& generator) {
            return Tensors{random_normal({e.batch, e.time, 3 * e.channel}, generator),
                           random_normal({e.batch, e.time, e.channel, 2}, generator)};
          },
          [](const Tensors& t) { return Tensors{gate_loop_scan(t[0], t[1]).output}; }),
      channel_case(
          "simple_gate_loop_scan", {4, 7},
          [](const Extents& e, Generator& generator) {
            return Tensors{random_normal({e.batch, e.time, 3 * e.channel}, generator)};
          },
          [](const Tensors& t) { return Tensors{simple_gate_loop_scan(t[0]).output}; }),
      outer_case(),
  };
}

}  // namespace monoid::bench
