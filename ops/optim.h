#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
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
  Tensors parameters = {};                  // contiguous leaves, each in one group only
  double learning_rate_scale = 1;           // multiplies the learning rate of a step
  std::optional<double> weight_decay = {};  // instead of the options'
  double clip_norm = 0;                     // `clip` limits the norm of the group's gradients to it; 0: it does not
};

/// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019) and Adam (Kingma and Ba, 2015), step
/// for step as torch.optim computes them:
///   p *= 1 - lr * decay;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
///   p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
/// t counts the updates of one parameter: a parameter without a gradient is skipped and keeps its t. A bf16 parameter
/// is rounded from an f32 master of the optimizer's own, so that small updates add up; its moments are f32 as well.
class AdamW {
 public:
  /// Errors: a parameter that is undefined, not contiguous, not floating-point, listed twice, or on another device than
  /// the first; two groups of one name; numbers out of their range.
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

  /// Clipping and the update in one, queued without waiting for any of it, as a captured graph needs: the gradients are
  /// scaled as they are read, and a norm that is not finite updates nothing. The learning rate is the last one given to
  /// `set_learning_rate`. `norm` as for `clip`; 0 for the groups' own limits. Returns the norm, f64 [].
  Tensor clip_and_step(double norm = 0);
  /// Replaces the learning rate on the device, in order with the other work queued there.
  void set_learning_rate(double learning_rate);

  void zero_grad();

  const std::vector<ParameterGroup>& groups() const { return groups_; }

  /// "<group>.<index>.exp_avg", ".exp_avg_sq", ".step" and, for bf16, ".master" of every parameter updated so far: all
  /// that a bit-exact resume needs. The tensors share the optimizer's memory, the steps apart.
  std::map<std::string, Tensor> state() const;
  /// Replaces the whole state. Errors: names that fit no parameter, incomplete sets, wrong shapes or dtypes.
  void load_state(const std::map<std::string, Tensor>& state);
  /// The state as a .safetensors file.
  void save(const std::filesystem::path& path) const;
  void load(const std::filesystem::path& path);

 private:
  struct Moments {
    Tensor mean, mean_square, master;  // undefined before the first update
  };

  /// visit(group, name of the parameter, parameter, its moments, its place) in order.
  template <class Self, class Visit>
  static void for_each(Self& self, Visit visit);
  /// Norms and scales of the gradients, as kernels::gradient_norms gives them.
  std::pair<Tensor, Tensor> measure(std::span<const double> limits);
  std::vector<double> limits() const;
  double limit(std::span<const double> limits);
  void update(const Tensor& scales);

  std::vector<ParameterGroup> groups_;
  AdamWOptions options_;
  std::vector<Moments> moments_;  // one a parameter, groups in order
  Tensor counts_;                 // f64: updates of each
  Tensor learning_rate_;          // f64 []
};

}  // namespace monoid
