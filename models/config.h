#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "monoid/core/error.h"

namespace monoid {

/// {"type": "linear" or "dynamic", "factor": 2.0} or {"type": "default"}, as Hugging Face's configurations write it:
/// with "rope_type" in the place of "type" or beside it, and "original_max_position_embeddings", which nothing here
/// uses.
struct RopeScaling {
  std::string type = "linear";
  double factor = 1;
};

/// Sees each key of a configuration once, in order: what Visitor is to a module. An empty optional is JSON's null.
class ConfigVisitor {
 public:
  virtual ~ConfigVisitor() = default;
  virtual void key(const char* name, bool& value) = 0;
  virtual void key(const char* name, int64_t& value) = 0;
  virtual void key(const char* name, double& value) = 0;
  virtual void key(const char* name, std::string& value) = 0;
  virtual void key(const char* name, std::optional<int64_t>& value) = 0;
  virtual void key(const char* name, std::optional<bool>& value) = 0;
  virtual void key(const char* name, std::optional<RopeScaling>& value) = 0;
  virtual void key(const char* name, std::vector<int64_t>& value) = 0;
  virtual void key(const char* name, std::vector<std::string>& value) = 0;
  virtual void key(const char* name, std::optional<std::vector<int64_t>>& value) = 0;
};

using ConfigKeys = std::function<void(ConfigVisitor&)>;

/// Overwrites the keys that the JSON object has. Text that is no JSON object, an unknown key (with the nearest known
/// one) and a value of another type are Errors; `owner` begins their message.
void read_config(const std::string& owner, const std::string& json, const ConfigKeys& keys);
/// All keys as the text of a JSON object, in order.
std::string write_config(const ConfigKeys& keys);

// Range checks for `validate()`: each Error names the model, the key and its value.
/// An integer of at least `low` and less than 2^31.
void check_range(const char* owner, const char* key, int64_t value, int64_t low);
/// A width computed from other keys, before it is cut to an integer: at least 1 and less than 2^31.
void check_width(const char* owner, const char* formula, double value);
/// A number above 0 and not infinite.
void check_positive(const char* owner, const char* key, double value);
/// 0 <= value < 1.
void check_probability(const char* owner, const char* key, double value);

/// For aggregates with `kType`, `visit(ConfigVisitor&)` and `validate()`.
template <class Config>
Config parse_config(const std::string& json) {
  Config config;
  read_config(Config::kType, json, [&](ConfigVisitor& visitor) { config.visit(visitor); });
  config.validate();
  return config;
}

/// The configuration itself once validate() has passed: what a constructor keeps.
template <class Config>
const Config& validated(const Config& config) {
  config.validate();
  return config;
}

template <class Config>
std::string to_json(Config config) {
  return write_config([&](ConfigVisitor& visitor) { config.visit(visitor); });
}

}  // namespace monoid
