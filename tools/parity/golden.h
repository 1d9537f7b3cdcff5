#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "monoid/core/tensor.h"

namespace monoid::parity {

/// A small random instance of a reference implementation: its parameters (`param/NAME`), inputs (`in/NAME`), outputs
/// (`out/NAME`), and gradients of `out/loss` by parameter (`grad/NAME`) and by input (`grad_in/NAME`).
struct Golden {
  std::string source;  // which implementation
  std::string config;  // JSON text, in its own argument names
  std::map<std::string, Tensor> tensors;
  std::string note = {};

  static Golden read(const std::filesystem::path& path);

  bool has(const std::string& name) const { return tensors.contains(name); }
  /// The tensor of the full name ("in/ids"), or an Error that the file has none.
  const Tensor& get(const std::string& name) const;
  /// All tensors below "param/", "grad/", ..., without the prefix.
  std::map<std::string, Tensor> group(const std::string& prefix) const;
  /// How many of "out/logits.0", "out/logits.1", ... there are.
  int count(const std::string& prefix) const;
  /// Whether the reference rounded its results to f32 on the way, as its note says.
  bool rounded_to_f32() const;
};

}  // namespace monoid::parity
