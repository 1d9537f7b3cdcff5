#pragma once

#include <memory>
#include <string>
#include <vector>

#include "monoid/models/language_model.h"

namespace monoid {

/// The language models by name, in the order they are listed to people.
std::vector<std::string> model_names();
/// One line that says what the model is.
std::string model_summary(const std::string& model);

/// The model's default configuration: the text of a JSON object with every key it knows. An unknown model is an Error
/// with the nearest name.
std::string default_config(const std::string& model);
/// The configuration key of the vocabulary's size, and of the dropout probability ("" where the model has none): the
/// models keep their references' names.
std::string vocabulary_key(const std::string& model);
std::string dropout_key(const std::string& model);

/// Builds a model with random parameters in f32 on the CPU. Keys absent from `config_json` keep their defaults; an
/// unknown key, a value of the wrong type or out of range is an Error. The generator's seed fixes every parameter.
std::unique_ptr<LanguageModel> make_model(const std::string& model, const std::string& config_json, Generator& init);

}  // namespace monoid
