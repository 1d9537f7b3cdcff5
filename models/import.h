#pragma once

#include <map>
#include <string>
#include <vector>

#include "monoid/layers/module.h"

namespace monoid {

/// How one family of parameter names is called here. `*` stands for one number between dots, the same on both sides.
/// Names that end in a dot match everything below them. The first rule that matches decides.
struct ImportRule {
  std::string reference;
  std::string ours;
  int unit_axis = -1;  // an axis of extent 1 that only the reference has, such as a depthwise weight's [out, 1, kernel]
  // Where one packed tensor here is several there: the reference's is number `part` of `parts` equal pieces of axis 0.
  // Such rules share their `ours`.
  int part = 0, parts = 1;
};

/// A tensor of the reference that only repeats another one: checked on the way in, made again on the way out. The stars
/// of both names are the same; both are the reference's.
struct ImportEcho {
  enum class Kind { copy, zeros };  // a tied weight; a buffer of zeros that has the other's shape

  std::string reference;
  std::string of;
  Kind kind = Kind::copy;
};

/// The names of one reference implementation.
struct ImportTable {
  std::string source;  // "lucidrains/minGRU-pytorch minLM"
  std::string model;   // our catalog name; empty for a layer
  std::vector<ImportRule> rules;
  std::vector<std::string> ignored;  // patterns of buffers and unused parameters there that have no place here
  std::vector<ImportEcho> echoes = {};
  std::string tie_key = {};  // the argument that makes the first echo one, true where nobody says otherwise
};

std::vector<std::string> import_sources();
/// An unknown source is an Error that lists the known ones.
const ImportTable& import_table(const std::string& source);

/// Whether the reference's tensor of this name only repeats another one.
bool is_echo(const ImportTable& table, const std::string& name);
/// Loads a reference's tensors into a module, as strictly as load_state_dict. Echoes that the module itself has no
/// place for must be what they echo.
void load_reference(Module& module, const ImportTable& table, const std::map<std::string, Tensor>& reference);
/// All tensors of a module as the reference has them, its echoes among them.
std::map<std::string, Tensor> export_reference(Module& module, const ImportTable& table);

// The steps of these.
/// Renames a reference's tensors to ours, ready for load_state_dict. A name that no rule knows stays as it is, so that
/// the strict load lists it.
std::map<std::string, Tensor> import_tensors(const ImportTable& table, const std::map<std::string, Tensor>& reference);
/// The way back: our names and shapes to the reference's.
std::map<std::string, Tensor> export_tensors(const ImportTable& table, const std::vector<NamedTensor>& ours);

}  // namespace monoid
