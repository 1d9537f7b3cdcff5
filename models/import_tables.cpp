#include "monoid/models/import_tables.h"

namespace monoid {
namespace {

// A layer there is a ModuleList: 0 convolution (or nothing), 1 norm, 2 minGRU or minLSTM, 3 norm, 4 feed-forward.
ImportTable min_lm() {
  return {.source = "lucidrains/minGRU-pytorch minLM",
          .model = "minlm",
          .rules = {{"token_emb.", "embedding."},
                    {"layers.*.0.net.0.weight", "layers.*.conv.depthwise.weight", 1},
                    {"layers.*.0.net.0.bias", "layers.*.conv.depthwise.bias"},
                    {"layers.*.0.net.1.weight", "layers.*.conv.pointwise.weight", 2},
                    {"layers.*.0.net.1.bias", "layers.*.conv.pointwise.bias"},
                    {"layers.*.1.", "layers.*.mixer_norm."},
                    {"layers.*.2.", "layers.*.mixer."},
                    {"layers.*.3.", "layers.*.feed_forward_norm."},
                    {"layers.*.4.0.", "layers.*.feed_forward.up."},
                    {"layers.*.4.2.", "layers.*.feed_forward.down."},
                    {"norm.", "norm."},
                    {"to_logits.", "to_logits."}},
          .ignored = {}};
}

}  // namespace

const std::vector<ImportTable>& import_tables() {
  static const std::vector<ImportTable> tables{min_lm()};
  return tables;
}

}  // namespace monoid
