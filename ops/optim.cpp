#include "monoid/ops/optim.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "monoid/core/safetensors.h"
#include "monoid/core/stream.h"
#include "monoid/kernels/elementwise.h"
#include "monoid/kernels/optim.h"

namespace monoid {
namespace {

constexpr const char* kMean = ".exp_avg";
constexpr const char* kMeanSquare = ".exp_avg_sq";
constexpr const char* kStep = ".step";
constexpr const char* kMaster = ".master";

// The parameter's gradient, undefined if it has none; the kernels want it contiguous.
Tensor dense_gradient(Tensor& parameter) {
  const Tensor gradient = parameter.grad();
  if (!gradient.defined()) return {};
  check_same_device_and_dtype("AdamW", parameter, gradient);
  if (!gradient.is_contiguous()) parameter.set_grad(gradient.clone());
  return parameter.grad();
}

// What the state of a parameter is kept in.
DType dtype_of_state(const Tensor& parameter) { return parameter.dtype() == DType::f64 ? DType::f64 : DType::f32; }

// A stored part of the state in memory of the optimizer's own, beside its parameter.
Tensor adopted(const std::string& name, const Tensor& stored, const Tensor& parameter) {
  const DType dtype = dtype_of_state(parameter);
  check(stored.shape() == parameter.shape() && stored.dtype() == dtype, "AdamW: state '", name, "' is ",
        describe(stored), ", but its parameter is ", describe(parameter), ", whose state is ", dtype);
  Tensor own = Tensor::empty(parameter.shape(), dtype, parameter.device());
  own.copy_from(stored);
  return own;
}

void scale_in_place(Tensor gradient, double scale) {
  if (gradient.is_contiguous()) {
    kernels::unary(UnaryFunction::scale, gradient, {scale}, gradient);
  } else {
    Tensor scaled = Tensor::empty_like(gradient);
    kernels::unary(UnaryFunction::scale, gradient, {scale}, scaled);
    gradient.copy_from(scaled);
  }
}

}  // namespace

template <class Self, class Visit>
void AdamW::for_each(Self& self, Visit visit) {
  size_t place = 0;
  for (auto& group : self.groups_) {
    for (size_t i = 0; i < group.parameters.size(); ++i, ++place) {
      visit(group, str(group.name, '.', i), group.parameters[i], self.moments_[place], static_cast<int64_t>(place));
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
  std::optional<Device> device;
  for (const ParameterGroup& group : groups_) {
    check(names.insert(group.name).second, "AdamW: two groups are named '", group.name, "'");
    check(group.clip_norm >= 0 && group.weight_decay.value_or(options.weight_decay) >= 0, "AdamW: group '", group.name,
          "' has clip_norm ", group.clip_norm, " and weight_decay ", group.weight_decay.value_or(options.weight_decay),
          ", wanted 0 or more");
    for (const Tensor& parameter : group.parameters) {
      check_defined("AdamW", "a parameter of group '" + group.name + "'", parameter);
      const bool storage_only = parameter.dtype() == DType::bf16 && parameter.device().is_cpu();
      check(parameter.is_contiguous() && is_floating(parameter.dtype()) && !storage_only,
            "AdamW: a parameter of group '", group.name, "' is ", describe(parameter), " with strides ",
            parameter.strides(), ", wanted contiguous f32 or f64 (or bf16 on cuda)");
      if (!device) device = parameter.device();
      check(parameter.device() == *device, "AdamW: parameters are on ", *device, " and ", parameter.device(),
            "; make an optimizer a device");
      check(parameter.elements() == 0 || seen.insert(parameter.raw()).second, "AdamW: parameter ", describe(parameter),
            " of group '", group.name, "' is listed twice; it would be updated twice a step");
      moments_.emplace_back();
    }
  }
  counts_ = Tensor::zeros({std::ssize(moments_)}, DType::f64, device.value_or(kCpu));
  learning_rate_ = Tensor::scalar(options.learning_rate, DType::f64, device.value_or(kCpu));
}

void AdamW::update(const Tensor& scales) {
  std::vector<AdamWItem> items;
  for_each(*this, [&](const ParameterGroup& group, const std::string& name, Tensor& parameter, Moments& moments,
                      int64_t place) {
    const Tensor gradient = dense_gradient(parameter);
    if (!gradient.defined()) return;
    if (!moments.mean.defined()) {
      check(!Graph::capturing(), "AdamW: the first step of parameter '", name,
            "' cannot be captured, because it makes the optimizer's state; take one step before");
      moments.mean = Tensor::zeros(parameter.shape(), dtype_of_state(parameter), parameter.device());
      moments.mean_square = Tensor::zeros_like(moments.mean);
      if (parameter.dtype() == DType::bf16) moments.master = parameter.to(DType::f32);
    }
    check(moments.mean.device() == parameter.device(), "AdamW: parameter '", name, "' moved to ", parameter.device(),
          " but its state is on ", moments.mean.device(), "; make the optimizer after moving the model");
    items.push_back({parameter, gradient, moments.master, moments.mean, moments.mean_square, place,
                     &group - groups_.data(), group.learning_rate_scale,
                     group.weight_decay.value_or(options_.weight_decay)});
  });
  kernels::adamw(counts_, learning_rate_, scales, items,
                 {options_.beta1, options_.beta2, options_.epsilon, options_.decoupled});
}

void AdamW::set_learning_rate(double learning_rate) { learning_rate_.fill(learning_rate); }

void AdamW::step(double learning_rate) {
  set_learning_rate(learning_rate);
  update({});
}

std::pair<Tensor, Tensor> AdamW::measure(std::span<const double> limits) {
  std::vector<GradientItem> items;
  for_each(*this, [&](const ParameterGroup& group, const std::string&, Tensor& parameter, const Moments&, int64_t) {
    const Tensor gradient = dense_gradient(parameter);
    if (gradient.defined()) items.push_back({gradient, &group - groups_.data()});
  });
  Tensor norms = Tensor::empty({std::ssize(groups_) + 1}, DType::f64, counts_.device());
  Tensor scales = Tensor::empty({std::ssize(groups_)}, DType::f64, counts_.device());
  kernels::gradient_norms(norms, scales, items, limits);
  return {norms, scales};
}

std::vector<double> AdamW::limits() const {
  std::vector<double> limits;
  for (const ParameterGroup& group : groups_) limits.push_back(group.clip_norm);
  return limits;
}

double AdamW::limit(std::span<const double> limits) {
  const auto [norms, scales] = measure(limits);
  const std::vector<double> factors = scales.to_vector<double>();
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (std::isnan(factors[i]) || factors[i] == 1) continue;
    for (const Tensor& parameter : groups_[i].parameters) {
      if (parameter.grad().defined()) scale_in_place(parameter.grad(), factors[i]);
    }
  }
  return norms.to_vector<double>().back();
}

double AdamW::clip() { return limit(limits()); }

double AdamW::clip(double norm) {
  check(norm > 0, "AdamW: clip to ", norm, ", wanted a norm above 0");
  return limit(std::vector<double>{norm});
}

Tensor AdamW::clip_and_step(double norm) {
  check(norm >= 0, "AdamW: clip to ", norm, ", wanted 0 (the groups' own limits) or a norm above it");
  const auto [norms, scales] = measure(norm > 0 ? std::vector<double>{norm} : limits());
  update(scales);
  return norms.as_strided({}, {}, scales.elements());
}

void AdamW::zero_grad() {
  for (ParameterGroup& group : groups_) {
    for (Tensor& parameter : group.parameters) parameter.clear_grad();
  }
}

std::map<std::string, Tensor> AdamW::state() const {
  std::map<std::string, Tensor> state;
  const std::vector<double> counts = counts_.to_vector<double>();
  for_each(*this,
           [&](const ParameterGroup&, const std::string& name, const Tensor&, const Moments& moments, int64_t place) {
             const auto count = static_cast<int64_t>(counts[static_cast<size_t>(place)]);
             if (count == 0) return;
             state[name + kMean] = moments.mean;
             state[name + kMeanSquare] = moments.mean_square;
             state[name + kStep] = Tensor::from(std::vector<int64_t>{count}, {});
             if (moments.master.defined()) state[name + kMaster] = moments.master;
           });
  return state;
}

void AdamW::load_state(const std::map<std::string, Tensor>& state) {
  std::vector<Moments> loaded;
  std::vector<double> counts;
  std::set<std::string> known;
  for_each(*this, [&](const ParameterGroup&, const std::string& name, const Tensor& parameter, const Moments&,
                      int64_t) {
    std::vector<std::string> parts{name + kMean, name + kMeanSquare, name + kStep};
    if (parameter.dtype() == DType::bf16) parts.push_back(name + kMaster);
    known.insert(parts.begin(), parts.end());
    const auto present = std::count_if(parts.begin(), parts.end(), [&](const auto& part) { return state.count(part); });
    check(present == 0 || present == std::ssize(parts), "AdamW: the state of '", name, "' is incomplete; wanted ",
          kMean, ", ", kMeanSquare, " and ", kStep, parts.size() > 3 ? ", and .master for bf16" : "");
    Moments& moments = loaded.emplace_back();
    counts.push_back(0);
    if (present == 0) return;
    const auto part = [&](size_t i) { return adopted(parts[i], state.at(parts[i]), parameter); };
    moments = {part(0), part(1), parts.size() > 3 ? part(3) : Tensor()};
    const int64_t step = state.at(parts[2]).to_vector<int64_t>().at(0);
    check(step >= 1, "AdamW: state '", parts[2], "' is ", step, ", wanted 1 or more");
    counts.back() = static_cast<double>(step);
  });
  for (const auto& [name, tensor] : state) {
    check(known.count(name) == 1, "AdamW: state '", name, "' belongs to none of the optimizer's parameters");
  }
  moments_ = std::move(loaded);
  counts_.copy_from(Tensor::from(counts, {std::ssize(counts)}));
}

void AdamW::save(const std::filesystem::path& path) const {
  std::map<std::string, Tensor> tensors = state();
  for (auto& [name, tensor] : tensors) tensor = tensor.to(kCpu);
  write_safetensors(path, {std::move(tensors), {}});
}
void AdamW::load(const std::filesystem::path& path) { load_state(read_safetensors(path).tensors); }

}  // namespace monoid
