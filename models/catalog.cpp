#include "monoid/models/catalog.h"

#include <algorithm>

#include "monoid/models/block_recurrent.h"
#include "monoid/models/gate_loop.h"
#include "monoid/models/hybrid_lm.h"
#include "monoid/models/min_gru_attention.h"
#include "monoid/models/min_lm.h"
#include "monoid/models/mru_lm.h"
#include "monoid/models/stacked_min_gru.h"

namespace monoid {
namespace {

struct Entry {
  std::string name;
  std::string summary;
  std::string vocabulary_key, dropout_key;
  std::string (*default_config)();
  std::unique_ptr<LanguageModel> (*make)(const std::string& config_json, Generator& init);
};

template <class Model, class Config>
Entry entry(const char* summary, const char* vocabulary_key, const char* dropout_key) {
  return {Config::kType,
          summary,
          vocabulary_key,
          dropout_key,
          [] { return to_json(Config{}); },
          [](const std::string& json, Generator& init) -> std::unique_ptr<LanguageModel> {
            return std::make_unique<Model>(parse_config<Config>(json), init);
          }};
}

const std::vector<Entry>& catalog() {
  static const std::vector<Entry> entries{
      entry<MinLm, MinLmConfig>("minGRU or minLSTM layers (use_lstm), optional convolutions", "num_tokens", "dropout"),
      entry<HybridLm, HybridLmConfig>("minGRU and attention side by side in each layer", "num_tokens", ""),
      entry<MinGruAttention, MinGruAttentionConfig>("minGRU layers, attention with rotary positions in some places",
                                                    "vocab_size", ""),
      entry<StackedMinGru, StackedMinGruConfig>("two-strand modules of a causal convolution and a minGRU", "num_tokens",
                                                "dropout"),
      entry<MruLm, MruLmConfig>("matrix recurrent units, attention and feed-forward layers in any order (layers)",
                                "vocab_size", "dropout_rate"),
      entry<BlockRecurrent, BlockRecurrentConfig>("attention in blocks, and states that tokens read and blocks write",
                                                  "num_tokens", ""),
      entry<GateLoop, GateLoopConfig>("GateLoop: complex gated recurrences, or full attention beside them",
                                      "num_tokens", ""),
  };
  return entries;
}

const Entry& find(const std::string& model) {
  for (const Entry& entry : catalog()) {
    if (entry.name == model) return entry;
  }
  std::string names;
  for (const std::string& name : model_names()) names += (names.empty() ? "" : ", ") + name;
  const std::string near = nearest(model, model_names());
  fail("unknown model '", model, "'", near.empty() ? "" : "; did you mean '" + near + "'?",
       near.empty() ? "; the models are " + names : "");
}

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const Entry& entry : catalog()) names.push_back(entry.name);
  return names;
}

std::string model_summary(const std::string& model) { return find(model).summary; }

std::string default_config(const std::string& model) { return find(model).default_config(); }

std::string vocabulary_key(const std::string& model) { return find(model).vocabulary_key; }

std::string dropout_key(const std::string& model) { return find(model).dropout_key; }

std::unique_ptr<LanguageModel> make_model(const std::string& model, const std::string& config_json, Generator& init) {
  return find(model).make(config_json, init);
}

}  // namespace monoid
