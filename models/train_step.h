#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "monoid/core/random.h"
#include "monoid/core/stream.h"
#include "monoid/core/tape.h"
#include "monoid/ops/optim.h"

namespace monoid {

/// What a training step found: the mean loss of its batches, and the norm of the gradient before clipping.
struct StepResult {
  double loss = 0;
  double gradient_norm = 0;
};

/// A step that has been queued. On a GPU the host runs ahead: ask for the result of one step after queueing the next,
/// and the GPU never waits.
class PendingStep {
 public:
  /// Waits for the step. A norm that is not finite means that the parameters were left as they were.
  StepResult wait() const;

 private:
  friend class TrainStep;

  /// Where a result comes to lie on the host.
  struct Landing {
    Tensor losses, norm;  // [batches] and [], on the CPU
    std::optional<Event> done;
  };
  std::shared_ptr<Landing> landing_;
};

struct TrainStepOptions {
  double clip = 0;    // largest norm of all gradients together; 0: the limits of the optimizer's groups
  bool graph = true;  // on a GPU, capture the step once and replay it
};

/// The `clip` of a step that is to limit gradients to a norm: one limit for all together, or 0 where the optimizer's
/// groups have their own.
double common_clip(const AdamW& optimizer, double clip);

/// One training step, from batches to updated parameters: forward and backward of every batch, the mean of their
/// gradients clipped, and the optimizer's update. On a GPU the second step of each shape of batch is captured as one
/// graph and replayed from then on; the learning rate, the update counts and the place in the stream of random numbers
/// live on the device, and the next batches are copied there while a step runs. Replayed or not, the bits are the same.
///
///   TrainStep step(device, [&](const Tensors& batch, Generator* random) {
///     return model.loss(batch[0], batch[1], nullptr, random);
///   }, optimizer, {.clip = 1});
///   const PendingStep pending = step.run({{tokens, targets}}, learning_rate);
class TrainStep {
 public:
  /// Builds the mean loss [] of one batch, whose tensors are on the device. Random numbers (dropout) come from the
  /// generator alone. It may not look at values on the host: that cannot be captured, and is an Error naming the op.
  using Loss = std::function<Tensor(const Tensors& batch, Generator* random)>;

  /// `optimizer` must outlive it.
  TrainStep(Device device, Loss loss, AdamW& optimizer, const TrainStepOptions& options = {});

  /// Queues one step. `batches` are CPU tensors, all of the same shapes; more than one accumulates gradients. `random`
  /// moves on as if the step had run eagerly; null for none.
  PendingStep run(std::span<const Tensors> batches, double learning_rate, Generator* random = nullptr);

 private:
  struct Found {
    Tensor losses, norm;  // [batches] and [], on the device
  };
  struct Recording;

  Found compute(std::span<const Tensors> batches, Generator* random);
  PendingStep land(const Found& found);
  Found run_on_device(std::span<const Tensors> batches, Generator* random);
  Recording& recording_for(std::span<const Tensors> batches, const Generator* random);

  Device device_;
  Loss loss_;
  AdamW& optimizer_;
  TrainStepOptions options_;
  std::vector<std::shared_ptr<Recording>> recordings_;           // one a shape of batch, the latest last
  std::vector<std::shared_ptr<PendingStep::Landing>> landings_;  // used again once nobody holds them
};

}  // namespace monoid
