#include "monoid/ops/optim.h"

#include <cmath>
#include <set>

#include "monoid/core/safetensors.h"
#include "monoid/kernels/elementwise.h"
#include "monoid/kernels/optim.h"

namespace monoid {
namespace {

constexpr const char* kMean = ".exp_avg";
constexpr const char* kMeanSquare = ".exp_avg_sq";
constexpr const char* kStep = ".step";

// The parameter's gradient, undefined if it has none; the kernels want it contiguous.
Tensor dense_gradient(Tensor& parameter) {
  const Tensor gradient = parameter.grad();
  if (!gradient.defined()) return {};
  check_same_device_and_dtype("AdamW", parameter, gradient);
  if (!gradient.is_contiguous()) parameter.set_grad(gradient.clone());
  return parameter.grad();
}

// A stored moment in memory of the optimizer's own, beside its parameter.
Tensor adopted(const std::string& name, const Tensor& stored, const Tensor& parameter) {
  check(stored.shape() == parameter.shape() && stored.dtype() == parameter.dtype(), "AdamW: state '", name, "' is ",
        describe(stored), ", but its parameter is ", describe(parameter));
  Tensor own = Tensor::empty_like(parameter);
  own.copy_from(stored);
  return own;
}

Tensors gradients_of(const ParameterGroup& group) {
  Tensors gradients;
  for (const Tensor& parameter : group.parameters) {
    const Tensor gradient = parameter.grad();
    if (gradient.defined()) gradients.push_back(gradient);
  }
  return gradients;
}

double sum_of_squares(const ParameterGroup& group, const Tensors& gradients) {
  if (gradients.empty()) return 0;
  Tensor sums = Tensor::zeros({static_cast<int64_t>(gradients.size())}, DType::f64, gradients[0].device());
  for (size_t i = 0; i < gradients.size(); ++i) {
    check(gradients[i].device() == sums.device(), "AdamW: group '", group.name, "' has gradients on ", sums.device(),
          " and ", gradients[i].device(), "; keep a group on one device");
    const Tensor dense = gradients[i].is_contiguous() ? gradients[i] : gradients[i].clone();
    kernels::sum_of_squares(dense, sums, static_cast<int64_t>(i));
  }
  double square = 0;
  for (double sum : sums.to_vector<double>()) square += sum;
  return square;
}

void limit_norm(const Tensors& gradients, double norm, double limit) {
  const double scale = limit / (norm + 1e-6);
  if (!std::isfinite(norm) || scale >= 1) return;
  for (Tensor gradient : gradients) {
    if (gradient.is_contiguous()) {
      kernels::unary(UnaryFunction::scale, gradient, {scale}, gradient);
    } else {
      Tensor scaled = Tensor::empty_like(gradient);
      kernels::unary(UnaryFunction::scale, gradient, {scale}, scaled);
      gradient.copy_from(scaled);
    }
  }
}

}  // namespace

template <class Self, class Visit>
void AdamW::for_each(Self& self, Visit visit) {
  size_t slot = 0;
  for (auto& group : self.groups_) {
    for (size_t i = 0; i < group.parameters.size(); ++i) {
      visit(group, str(group.name, '.', i), group.parameters[i], self.moments_[slot++]);
    }
  }
}

AdamW::AdamW(std::vector<ParameterGroup> groups, const AdamWOptions& options)
    : groups_(std::move(groups)), options_(options) {
  const auto in_unit = [](double beta) { return beta >= 0 && beta < 1; };
  check(in_unit(options.beta1) && in_unit(options.beta2), "AdamW: beta1 ", options.beta1, " and beta2 ", options.beta2,
        ", wanted 0 <= beta < 1");
  check(options.epsilon >= 0, "AdamW: epsilon is ", options.epsilon, ", wanted 0 or more");
  std::set<std::string> names;
  std::set<const void*> seen;
  for (const ParameterGroup& group : groups_) {
    check(names.insert(group.name).second, "AdamW: two groups are named '", group.name, "'");
    check(group.clip_norm >= 0 && group.weight_decay.value_or(options.weight_decay) >= 0, "AdamW: group '", group.name,
          "' has clip_norm ", group.clip_norm, " and weight_decay ", group.weight_decay.value_or(options.weight_decay),
          ", wanted 0 or more");
    for (const Tensor& parameter : group.parameters) {
      check_defined("AdamW", "a parameter of group '" + group.name + "'", parameter);
      check(parameter.is_contiguous() && (parameter.dtype() == DType::f32 || parameter.dtype() == DType::f64),
            "AdamW: a parameter of group '", group.name, "' is ", describe(parameter), " with strides ",
            parameter.strides(), ", wanted contiguous f32 or f64");
      check(parameter.elements() == 0 || seen.insert(parameter.raw()).second, "AdamW: parameter ", describe(parameter),
            " of group '", group.name, "' is listed twice; it would be updated twice a step");
      moments_.emplace_back();
    }
  }
}

void AdamW::step(double learning_rate) {
  for_each(*this, [&](const ParameterGroup& group, const std::string& name, Tensor& parameter, Moments& moments) {
    const Tensor gradient = dense_gradient(parameter);
    if (!gradient.defined()) return;
    if (!moments.mean.defined()) {
      moments.mean = Tensor::zeros_like(parameter);
      moments.mean_square = Tensor::zeros_like(parameter);
    }
    check(moments.mean.device() == parameter.device(), "AdamW: parameter '", name, "' moved to ", parameter.device(),
          " but its state is on ", moments.mean.device(), "; make the optimizer after moving the model");
    const double count = static_cast<double>(++moments.step);
    const double rate = learning_rate * group.learning_rate_scale;
    const double decay = group.weight_decay.value_or(options_.weight_decay);
    kernels::adamw(parameter, gradient, moments.mean, moments.mean_square,
                   {.beta1 = options_.beta1,
                    .beta2 = options_.beta2,
                    .epsilon = options_.epsilon,
                    .keep = options_.decoupled ? 1 - rate * decay : 1,
                    .l2 = options_.decoupled ? 0 : decay,
                    .step_size = rate / (1 - std::pow(options_.beta1, count)),
                    .root_bias_correction = std::sqrt(1 - std::pow(options_.beta2, count))});
  });
}

double AdamW::clip() {
  double total = 0;
  for (const ParameterGroup& group : groups_) {
    const Tensors gradients = gradients_of(group);
    const double square = sum_of_squares(group, gradients);
    total += square;
    if (group.clip_norm > 0) limit_norm(gradients, std::sqrt(square), group.clip_norm);
  }
  return std::sqrt(total);
}

double AdamW::clip(double norm) {
  check(norm > 0, "AdamW: clip to ", norm, ", wanted a norm above 0");
  double total = 0;
  for (const ParameterGroup& group : groups_) total += sum_of_squares(group, gradients_of(group));
  for (const ParameterGroup& group : groups_) limit_norm(gradients_of(group), std::sqrt(total), norm);
  return std::sqrt(total);
}

void AdamW::zero_grad() {
  for (ParameterGroup& group : groups_) {
    for (Tensor& parameter : group.parameters) parameter.clear_grad();
  }
}

std::map<std::string, Tensor> AdamW::state() const {
  std::map<std::string, Tensor> state;
  for_each(*this, [&](const ParameterGroup&, const std::string& name, const Tensor&, const Moments& moments) {
    if (moments.step == 0) return;
    state[name + kMean] = moments.mean;
    state[name + kMeanSquare] = moments.mean_square;
    state[name + kStep] = Tensor::from(std::vector<int64_t>{moments.step}, {});
  });
  return state;
}

void AdamW::load_state(const std::map<std::string, Tensor>& state) {
  std::vector<Moments> loaded;
  size_t used = 0;
  for_each(*this, [&](const ParameterGroup&, const std::string& name, const Tensor& parameter, const Moments&) {
    const auto mean = state.find(name + kMean), square = state.find(name + kMeanSquare),
               step = state.find(name + kStep);
    const size_t present = (mean != state.end()) + (square != state.end()) + (step != state.end());
    check(present == 0 || present == 3, "AdamW: the state of '", name, "' is incomplete; wanted ", kMean, ", ",
          kMeanSquare, " and ", kStep);
    used += present;
    Moments& moments = loaded.emplace_back();
    if (present == 0) return;
    moments = {adopted(mean->first, mean->second, parameter), adopted(square->first, square->second, parameter),
               step->second.to_vector<int64_t>().at(0)};
    check(moments.step >= 1, "AdamW: state '", step->first, "' is ", moments.step, ", wanted 1 or more");
  });
  if (used != state.size()) {
    std::set<std::string> known;
    for_each(*this, [&](const ParameterGroup&, const std::string& name, const Tensor&, const Moments&) {
      known.insert({name + kMean, name + kMeanSquare, name + kStep});
    });
    for (const auto& [name, tensor] : state) {
      check(known.count(name) == 1, "AdamW: state '", name, "' belongs to none of the optimizer's parameters");
    }
  }
  moments_ = std::move(loaded);
}

void AdamW::save(const std::filesystem::path& path) const { write_safetensors(path, {state(), {}}); }
void AdamW::load(const std::filesystem::path& path) { load_state(read_safetensors(path).tensors); }

}  // namespace monoid
