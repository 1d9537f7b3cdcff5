#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "monoid/core/tensor.h"

namespace monoid {

class Module;

/// Sees each parameter, buffer and child of a module once, in a fixed order.
class Visitor {
 public:
  virtual ~Visitor() = default;
  virtual void parameter(const std::string& name, Tensor& value) = 0;
  virtual void buffer(const std::string& name, Tensor& value) = 0;
  virtual void child(const std::string& name, Module& module) = 0;
};

/// Anything with parameters. `visit` names them, everything else (state_dict, loading, moving, counting) is a free
/// function over it. Layers have their own honest `forward`. A module moves but does not copy: a copy of its tensor
/// handles would share the parameters.
class Module {
 public:
  Module() = default;
  Module(Module&&) = default;
  Module& operator=(Module&&) = default;
  virtual ~Module() = default;

  virtual void visit(Visitor& visitor) = 0;
};

struct NamedTensor {
  std::string name;
  Tensor value;
};

/// Trained, or only stored (and never given a gradient).
enum class Role { parameter, buffer };

/// Calls `action` for every tensor of the module and its children, with dotted names ("layers.0.norm.weight").
void for_each_tensor(Module& module,
                     const std::function<void(const std::string& name, Tensor& value, Role role)>& action);

/// The trained tensors, as handles: what an optimizer takes. Moving or casting the module replaces them.
std::vector<NamedTensor> parameters(Module& module);
/// Parameters and buffers.
std::vector<NamedTensor> state_dict(Module& module);

/// Overwrites every parameter and buffer; dtype and device are converted. Strict: a missing, unexpected or differently
/// shaped tensor is an Error that lists all of them, and then nothing is changed.
void load_state_dict(Module& module, const std::map<std::string, Tensor>& tensors);

/// Replaces every tensor by a copy on the device, or every floating-point tensor by one of the dtype. Handles taken
/// before (an optimizer's) keep the old tensors.
void move_to(Module& module, Device device);
void cast_to(Module& module, DType dtype);

/// Elements of all parameters, without buffers.
int64_t parameter_count(Module& module);
/// Forgets the gradients of all parameters.
void zero_grad(Module& module);

}  // namespace monoid
