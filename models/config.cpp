#include "monoid/models/config.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

namespace monoid {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();

// Takes the known keys out of an object. What a value must be is said once, by the type it is read into.
class Reader : public ConfigVisitor {
 public:
  Reader(const std::string& owner, const Json& object) : owner_(owner), object_(object) {}

  void key(const char* name, bool& value) override { read(name, value); }
  void key(const char* name, int64_t& value) override { read(name, value); }
  void key(const char* name, double& value) override { read(name, value); }
  void key(const char* name, std::string& value) override { read(name, value); }
  void key(const char* name, std::optional<int64_t>& value) override { read(name, value); }
  void key(const char* name, std::optional<bool>& value) override { read(name, value); }
  void key(const char* name, std::optional<RopeScaling>& value) override { read(name, value); }
  void key(const char* name, std::vector<int64_t>& value) override { read(name, value); }
  void key(const char* name, std::vector<std::string>& value) override { read(name, value); }
  void key(const char* name, std::optional<std::vector<int64_t>>& value) override { read(name, value); }

  void check_nothing_is_left() const {
    for (const auto& [name, value] : object_.items()) {
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      const std::string near = nearest(name, known_);
      fail(std::string_view(owner_), ": unknown config key '", name, "'",
           near.empty() ? str("; the keys are ", list()) : "; did you mean '" + near + "'?");
    }
  }

 private:
  template <class T>
  void read(const char* name, T& value) {
    known_.push_back(name);
    const auto found = object_.find(name);
    if (found == object_.end()) return;
    check(convert(*found, value), owner_, ": config key '", name, "' is ", found->dump(), ", wanted ", wanted(value));
  }

  static bool convert(const Json& json, bool& value) {
    if (!json.is_boolean()) return false;
    value = json.get<bool>();
    return true;
  }
  static bool convert(const Json& json, int64_t& value) {
    if (!json.is_number_integer()) return false;
    if (json.is_number_unsigned() && json.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) return false;
    value = json.get<int64_t>();
    return true;
  }
  static bool convert(const Json& json, double& value) {
    if (!json.is_number()) return false;
    value = json.get<double>();
    return true;
  }
  static bool convert(const Json& json, std::string& value) {
    if (!json.is_string()) return false;
    value = json.get<std::string>();
    return true;
  }
  static bool convert(const Json& json, RopeScaling& value) {
    if (!json.is_object()) return false;
    for (const auto& [name, unused] : json.items()) {
      if (name != "type" && name != "rope_type" && name != "factor" && name != "original_max_position_embeddings")
        return false;
    }
    const auto type = json.contains("type") ? json.find("type") : json.find("rope_type");
    if (type == json.end() || !convert(*type, value.type)) return false;
    return json.contains("factor") ? convert(json["factor"], value.factor) : value.type == "default";
  }
  template <class T>
  static bool convert(const Json& json, std::optional<T>& value) {
    if (json.is_null()) {
      value.reset();
      return true;
    }
    return convert(json, value.emplace());
  }
  template <class T>
  static bool convert(const Json& json, std::vector<T>& value) {
    if (!json.is_array()) return false;
    value.clear();
    for (const Json& element : json) {
      if (!convert(element, value.emplace_back())) return false;
    }
    return true;
  }

  static std::string wanted(bool) { return "true or false"; }
  static std::string wanted(int64_t) { return "an integer"; }
  static std::string wanted(double) { return "a number"; }
  static std::string wanted(const std::string&) { return "a string"; }
  static std::string wanted(const RopeScaling&) { return R"({"type": a string, "factor": a number})"; }
  template <class T>
  static std::string wanted(const std::optional<T>&) {
    return wanted(T{}) + " or null";
  }
  template <class T>
  static std::string wanted(const std::vector<T>&) {
    return "a list, each " + wanted(T{});
  }

  std::string list() const {
    std::string names;
    for (const std::string& name : known_) names += (names.empty() ? "" : ", ") + name;
    return names;
  }

  const std::string& owner_;
  const Json& object_;
  std::vector<std::string> known_;
};

class Writer : public ConfigVisitor {
 public:
  void key(const char* name, bool& value) override { object[name] = value; }
  void key(const char* name, int64_t& value) override { object[name] = value; }
  void key(const char* name, double& value) override { object[name] = value; }
  void key(const char* name, std::string& value) override { object[name] = value; }
  void key(const char* name, std::optional<int64_t>& value) override { object[name] = value ? Json(*value) : Json(); }
  void key(const char* name, std::optional<bool>& value) override { object[name] = value ? Json(*value) : Json(); }
  void key(const char* name, std::optional<RopeScaling>& value) override {
    object[name] = value ? Json{{"type", value->type}, {"factor", value->factor}} : Json();
  }
  void key(const char* name, std::vector<int64_t>& value) override { object[name] = value; }
  void key(const char* name, std::vector<std::string>& value) override { object[name] = value; }
  void key(const char* name, std::optional<std::vector<int64_t>>& value) override {
    object[name] = value ? Json(*value) : Json();
  }

  Json object = Json::object();
};

}  // namespace

void read_config(const std::string& owner, const std::string& json, const ConfigKeys& keys) {
  const Json object = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  check(object.is_object(), owner, ": the config is not a JSON object: ", json.substr(0, 60));
  Reader reader(owner, object);
  keys(reader);
  reader.check_nothing_is_left();
}

std::string write_config(const ConfigKeys& keys) {
  Writer writer;
  keys(writer);
  return writer.object.dump(2);
}

void check_range(const char* owner, const char* key, int64_t value, int64_t low) {
  check(value >= low && value <= kLargest, owner, ": ", key, " is ", value, ", wanted ", low, " to ", kLargest);
}

void check_width(const char* owner, const char* formula, double value) {
  check(value >= 1 && value <= static_cast<double>(kLargest), owner, ": ", formula, " is ", value, ", wanted 1 to ",
        kLargest);
}

void check_positive(const char* owner, const char* key, double value) {
  check(value > 0 && value <= std::numeric_limits<double>::max(), owner, ": ", key, " is ", value,
        ", wanted a number above 0");
}

void check_probability(const char* owner, const char* key, double value) {
  check(value >= 0 && value < 1, owner, ": ", key, " is ", value, ", wanted 0 <= ", key, " < 1");
}

}  // namespace monoid
