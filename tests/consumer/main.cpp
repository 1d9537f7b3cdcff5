#include <iostream>

#include "monoid/layers/min_gru.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/optim.h"
#include "monoid/ops/reduce.h"
#include "monoid/ops/scan.h"
#include "monoid/ops/shape_ops.h"

using namespace monoid;

// A minGRU learns to hold the last marked value of a sequence. The answer is itself a scan.
int main() {
  Generator random(1);
  MinGru memory({.channels = 2, .inner = 32, .bias = Bias::learned}, random);
  Tensors trained;
  for (const auto& [name, value] : parameters(memory)) trained.push_back(value);
  AdamW optimizer({{.name = "memory", .parameters = trained}}, {.learning_rate = 0.03});

  for (int step = 0; step <= 250; ++step) {
    const Tensor value = random_uniform({16, 64, 1}, random);
    const Tensor mark = cast(less(random_uniform({16, 64, 1}, random), Tensor::scalar(0.1)), DType::f32);
    const Tensor wanted = linear_scan(1 - mark, mark * value).states;  // h = (1 - mark) h + mark value

    Tape tape;
    const Tensor held = slice(memory.forward(concat({value, mark}, 2)).output, 2, 0, 1);
    const Tensor loss = mean(square(held - wanted));
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
    if (step % 50 == 0) std::cout << "step " << step << ": loss " << loss.item() << '\n';
  }

  // With no tape nothing is recorded. In pieces, the state handed on: the same output, bit for bit.
  const Tensor x = random_uniform({1, 64, 2}, random);
  const auto [first, state] = memory.forward(slice(x, 1, 0, 40));
  const auto [second, last] = memory.forward(slice(x, 1, 40, 64), state);
  const Tensor difference = abs(concat({first, second}, 1) - memory.forward(x).output);
  std::cout << "in two pieces, off by " << sum(difference).item() << '\n';
}
