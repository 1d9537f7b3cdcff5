#include "monoid/models/import.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>

#include "monoid/models/import_tables.h"
#include "monoid/ops/shape_ops.h"

namespace monoid {
namespace {

// Matches a name against a pattern and returns what the stars stood for, then the rest below a trailing dot.
std::optional<std::vector<std::string>> match(std::string_view pattern, std::string_view name) {
  std::vector<std::string> captured;
  while (!pattern.empty()) {
    if (name.empty()) return std::nullopt;
    if (pattern.front() == '*') {
      const std::string_view part = name.substr(0, name.find('.'));
      captured.emplace_back(part);
      name.remove_prefix(part.size());
    } else if (pattern.front() == name.front()) {
      name.remove_prefix(1);
      if (pattern == ".") {
        captured.emplace_back(name);
        name = {};
      }
    } else {
      return std::nullopt;
    }
    pattern.remove_prefix(1);
  }
  if (!name.empty()) return std::nullopt;
  return captured;
}

std::string fill_in(const std::string& pattern, const std::vector<std::string>& captured) {
  std::string name;
  size_t next = 0;
  for (const char character : pattern) name += character == '*' ? captured.at(next++) : std::string(1, character);
  if (pattern.ends_with('.')) name += captured.at(next);
  return name;
}

using Side = std::string ImportRule::*;

// The renamed tensor and the rule that did it; nullptr if none matched.
std::pair<std::string, const ImportRule*> rename(const ImportTable& table, const std::string& name, Side from,
                                                 Side to) {
  for (const ImportRule& rule : table.rules) {
    if (const auto captured = match(rule.*from, name)) return {fill_in(rule.*to, *captured), &rule};
  }
  return {name, nullptr};
}

bool is_echo(const ImportEcho& echo, const Tensor& tensor, const Tensor& of) {
  if (!(tensor.shape() == of.shape())) return false;
  const std::vector<double> values = tensor.to_vector<double>();
  if (echo.kind == ImportEcho::Kind::copy) return values == of.to_vector<double>();
  return std::all_of(values.begin(), values.end(), [](double value) { return value == 0; });
}

// One packed tensor of ours under the several names of the reference.
void split_into(const ImportTable& table, const ImportRule& like, const std::string& name, const Tensor& packed,
                std::map<std::string, Tensor>& reference) {
  check(packed.rank() >= 1 && packed.size(0) % like.parts == 0, "export: ", name, " is ", describe(packed), ", wanted ",
        like.parts, " equal pieces along axis 0");
  const int64_t extent = packed.size(0) / like.parts;
  for (const ImportRule& rule : table.rules) {
    if (rule.ours != like.ours) continue;
    const auto captured = match(rule.ours, name);
    reference[fill_in(rule.reference, *captured)] =
        contiguous(slice(packed, 0, rule.part * extent, (rule.part + 1) * extent));
  }
}

}  // namespace

std::vector<std::string> import_sources() {
  std::vector<std::string> sources;
  for (const ImportTable& table : import_tables()) sources.push_back(table.source);
  return sources;
}

const ImportTable& import_table(const std::string& source) {
  const auto& tables = import_tables();
  const auto found =
      std::find_if(tables.begin(), tables.end(), [&](const auto& table) { return table.source == source; });
  if (found == tables.end()) {
    std::string known;
    for (const std::string& name : import_sources()) known += "\n  " + name;
    fail("import: unknown source '", source, "'; the known ones are", known);
  }
  return *found;
}

std::map<std::string, Tensor> import_tensors(const ImportTable& table, const std::map<std::string, Tensor>& reference) {
  std::map<std::string, Tensor> ours;
  std::map<std::string, Tensors> pieces;  // of the packed ones
  const auto add = [&](const std::string& name, const Tensor& value) {
    check(ours.emplace(name, value).second, "import: two tensors of ", table.source, " become '", name, "'");
  };
  for (const auto& [name, tensor] : reference) {
    const bool is_ignored = std::any_of(table.ignored.begin(), table.ignored.end(),
                                        [&](const std::string& pattern) { return match(pattern, name).has_value(); });
    if (is_ignored) continue;
    const auto [renamed, rule] = rename(table, name, &ImportRule::reference, &ImportRule::ours);
    Tensor value = tensor;
    if (rule && rule->unit_axis >= 0) {
      check(tensor.rank() > rule->unit_axis && tensor.size(rule->unit_axis) == 1, "import: ", name, " is ",
            describe(tensor), ", wanted an extent of 1 at axis ", rule->unit_axis);
      value = tensor.view(tensor.shape().without(rule->unit_axis));
    }
    if (rule && rule->parts > 1) {
      Tensors& found = pieces[renamed];
      found.resize(static_cast<size_t>(rule->parts));
      found.at(static_cast<size_t>(rule->part)) = value;
    } else {
      add(renamed, value);
    }
  }
  for (const auto& [name, parts] : pieces) {
    for (size_t i = 0; i < parts.size(); ++i)
      check(parts[i].defined(), "import: '", name, "' is ", parts.size(), " tensors of ", table.source, ", and number ",
            i, " of them is missing");
    add(name, concat(parts, 0));
  }
  return ours;
}

std::map<std::string, Tensor> export_tensors(const ImportTable& table, const std::vector<NamedTensor>& ours) {
  std::map<std::string, Tensor> reference;
  for (const auto& [name, tensor] : ours) {
    const auto [renamed, rule] = rename(table, name, &ImportRule::ours, &ImportRule::reference);
    check(rule, "export: ", table.source, " has no name for '", name, "'");
    const bool has_unit_axis = rule->unit_axis >= 0;
    const Tensor value = has_unit_axis ? tensor.view(tensor.shape().inserted(rule->unit_axis, 1)) : tensor;
    if (rule->parts == 1) {
      reference[renamed] = value;
    } else {
      split_into(table, *rule, name, value, reference);
    }
  }
  return reference;
}

bool is_echo(const ImportTable& table, const std::string& name) {
  return std::any_of(table.echoes.begin(), table.echoes.end(),
                     [&](const ImportEcho& echo) { return match(echo.reference, name).has_value(); });
}

void load_reference(Module& module, const ImportTable& table, const std::map<std::string, Tensor>& reference) {
  std::set<std::string> own;
  for (const NamedTensor& entry : state_dict(module)) own.insert(entry.name);
  std::map<std::string, Tensor> rest = reference;
  for (const auto& [name, tensor] : reference) {
    for (const ImportEcho& echo : table.echoes) {
      const auto captured = match(echo.reference, name);
      if (!captured || own.contains(rename(table, name, &ImportRule::reference, &ImportRule::ours).first)) continue;
      const std::string of = fill_in(echo.of, *captured);
      const auto original = reference.find(of);
      check(original != reference.end(), "import: there is '", name, "' but no '", of, "', which it belongs to");
      check(is_echo(echo, tensor, original->second), "import: '", name, "' is not ",
            echo.kind == ImportEcho::Kind::copy ? "equal to '" + of + "', to which the model ties it"
                                                : "all zero, as it is in the reference");
      rest.erase(name);
    }
  }
  load_state_dict(module, import_tensors(table, rest));
}

std::map<std::string, Tensor> export_reference(Module& module, const ImportTable& table) {
  std::map<std::string, Tensor> reference = export_tensors(table, state_dict(module));
  const std::map<std::string, Tensor> originals = reference;
  for (const auto& [name, tensor] : originals) {
    for (const ImportEcho& echo : table.echoes) {
      const auto captured = match(echo.of, name);
      if (!captured) continue;
      reference.emplace(fill_in(echo.reference, *captured),
                        echo.kind == ImportEcho::Kind::copy ? tensor : Tensor::zeros_like(tensor));
    }
  }
  return reference;
}

}  // namespace monoid
