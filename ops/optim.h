#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "monoid/core/tape.h"

namespace monoid {

struct AdamWOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  bool decoupled = true;  // false: Adam, whose decay is an L2 term in the gradient
};

/// Parameters that are treated alike.
struct ParameterGroup {
  std::string name;                         // its part of the names in a saved state; unique
  Tensors parameters = {};                  // contiguous leaves, f32 or f64, each in one group only
  double learning_rate_scale = 1;           // multiplies the learning rate of a step
  std::optional<double> weight_decay = {};  // instead of the options'
  double clip_norm = 0;                     // `clip` limits the norm of the group's gradients to it; 0: it does not
};

/// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019) and Adam (Kingma and Ba, 2015), step
/// for step as torch.optim computes them:
///   p *= 1 - lr * decay;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
///   p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
/// t counts the updates of one parameter: a parameter without a gradient is skipped and keeps its t.
class AdamW {
 public:
  /// Errors: a parameter that is undefined, not contiguous, not f32 or f64, or listed twice; two groups of one name;
  /// numbers out of their range.
  AdamW(std::vector<ParameterGroup> groups, const AdamWOptions& options);

  /// One update from the gradients that the parameters hold.
  void step() { step(options_.learning_rate); }
  void step(double learning_rate);

  /// Scales the gradients of every group with a clip_norm by min(1, clip_norm / (norm + 1e-6)), as
  /// torch.nn.utils.clip_grad_norm_, and returns the norm over all groups before that. A norm that is not finite is
  /// returned and scales nothing: skip the step then.
  double clip();
  /// The same with one norm over the gradients of all groups together, whatever limits of their own they have.
  double clip(double norm);

  void zero_grad();

  const std::vector<ParameterGroup>& groups() const { return groups_; }

  /// "<group>.<index>.exp_avg", ".exp_avg_sq" and ".step" of every parameter updated so far: all that a bit-exact
  /// resume needs. The tensors share the optimizer's memory.
  std::map<std::string, Tensor> state() const;
  /// Replaces the whole state. Errors: names that fit no parameter, incomplete triples, wrong shapes or dtypes.
  void load_state(const std::map<std::string, Tensor>& state);
  /// The state as a .safetensors file.
  void save(const std::filesystem::path& path) const;
  void load(const std::filesystem::path& path);

 private:
  struct Moments {
    Tensor mean, mean_square;  // undefined before the first update
    int64_t step = 0;
  };

  /// visit(group, name of the parameter, parameter, its moments) in order.
  template <class Self, class Visit>
  static void for_each(Self& self, Visit visit);

  std::vector<ParameterGroup> groups_;
  AdamWOptions options_;
  std::vector<Moments> moments_;  // one a parameter, groups in order
};

}  // namespace monoid
