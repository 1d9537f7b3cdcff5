#include <algorithm>

#include "monoid/core/tape.h"
#include "monoid/models/block_recurrent.h"
#include "monoid/models/gate_loop.h"
#include "monoid/models/hybrid_lm.h"
#include "monoid/models/min_gru_attention.h"
#include "monoid/models/min_lm.h"
#include "monoid/models/mru_lm.h"
#include "monoid/models/stacked_min_gru.h"
#include "monoid/ops/optim.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/catch.h"

namespace monoid {
namespace {

const std::string kText = "to be, or not to be: that is the question: whether 'tis nobler i";

Tensor tokens_of(const std::string& text) {
  return Tensor::from(std::vector<int64_t>(text.begin(), text.end()), {1, static_cast<int64_t>(text.size())});
}

// Trains until the loss is below `wanted`, and returns the last loss.
double train(LanguageModel& model, const std::string& text, int steps, double wanted, double learning_rate) {
  AdamW optimizer(model.parameter_groups({.clip = 1, .context = std::ssize(text) - 1}),
                  {.learning_rate = learning_rate});
  const Tensor tokens = tokens_of(text.substr(0, text.size() - 1)), targets = tokens_of(text.substr(1));
  double last = 0;
  for (int step = 0; step < steps; ++step) {
    Tape tape;
    const Tensor loss = model.loss(tokens, targets);
    last = loss.item();
    if (last < wanted) break;
    tape.backward(loss);
    optimizer.clip(1);
    optimizer.step();
    optimizer.zero_grad();
  }
  return last;
}

// The likeliest token each time, one token a call.
std::string continue_greedily(LanguageModel& model, const std::string& start, size_t length) {
  State state;
  std::string text = start;
  Tensor logits = model.forward(tokens_of(start), &state);
  while (text.size() < length) {
    const std::vector<float> last = select(logits, 1, -1).to_vector<float>();
    text += static_cast<char>(std::max_element(last.begin(), last.end()) - last.begin());
    logits = model.forward(tokens_of(text.substr(text.size() - 1)), &state);
  }
  return text;
}

void check_learns_by_heart(LanguageModel& model, double learning_rate = 1e-2) {
  REQUIRE(kText.size() == 64);
  CHECK(train(model, kText, 300, 0.02, learning_rate) < 0.02);
  CHECK(continue_greedily(model, "to b", kText.size()) == kText);
}

}  // namespace

TEST_CASE("minLM learns a 64-character text by heart and recites it token by token", "[minlm][learning]") {
  for (const bool use_lstm : {false, true}) {
    for (const bool enable_conv : {false, true}) {
      CAPTURE(use_lstm, enable_conv);
      Generator init(1);
      MinLm model(
          {.num_tokens = 128, .dim = 32, .depth = 2, .ff_mult = 2, .use_lstm = use_lstm, .enable_conv = enable_conv},
          init);
      check_learns_by_heart(model);
    }
  }
}

TEST_CASE("hybridLM learns a 64-character text by heart and recites it token by token", "[hybrid_lm][learning]") {
  for (const bool convex_mix : {false, true}) {
    CAPTURE(convex_mix);
    Generator init(1);
    HybridLm model(
        {.num_tokens = 128, .dim = 32, .depth = 2, .ff_mult = 2, .heads = 2, .dim_head = 16, .convex_mix = convex_mix},
        init);
    check_learns_by_heart(model);
  }
}

TEST_CASE("gate-loop learns a 64-character text by heart and recites it token by token",
          "[gate_loop_model][learning]") {
  const GateLoopConfig small{.num_tokens = 128, .dim = 32, .depth = 2, .dim_head = 16, .heads = 2, .ff_mult = 2};
  std::vector<GateLoopConfig> all(4, small);
  all[1].gate_loop_heads = 4;
  all[1].post_ln_norm = true;
  all[2].use_gate_looped_attn = false;
  all[2].rotary_emb = true;
  all[3].use_gate_looped_attn = false;
  all[3].attn_softmax_normalize = false;
  for (const GateLoopConfig& config : all) {
    CAPTURE(to_json(config));
    Generator init(1);
    GateLoop model(config, init);
    check_learns_by_heart(model);
  }
}

TEST_CASE("min-gru-attention learns a 64-character text by heart and recites it token by token",
          "[min_gru_attention][learning]") {
  Generator init(1);
  MinGruAttention model({.vocab_size = 128,
                         .hidden_size = 32,
                         .attention_head_dim = 16,
                         .num_attention_heads = 2,
                         .num_key_value_heads = 1,
                         .attention_layers_idx = {1},
                         .num_hidden_layers = 2,
                         .initializer_range = 0.1},
                        init);
  check_learns_by_heart(model);
}

TEST_CASE("block-recurrent learns a 64-character text by heart and recites it token by token",
          "[block_recurrent][learning]") {
  Generator init(1);
  BlockRecurrent model({.num_tokens = 128,
                        .dim = 32,
                        .depth = 2,
                        .dim_head = 16,
                        .heads = 2,
                        .max_seq_len = 16,
                        .block_width = 16,
                        .num_state_vectors = 8},
                       init);
  check_learns_by_heart(model);
}

TEST_CASE("stacked-min-gru learns a 64-character text by heart and recites it token by token",
          "[stacked_min_gru][learning]") {
  Generator init(1);
  StackedMinGru model({.num_tokens = 128, .num_layers = 2, .input_size = 32, .hidden_size = 48}, init);
  check_learns_by_heart(model);
}

TEST_CASE("MRU-LM learns a 64-character text by heart and recites it token by token", "[mru_lm][learning]") {
  using Layers = std::vector<std::string>;
  for (const Layers& layers :
       {Layers{"mru", "mlp", "mru", "mlp"}, {"attn", "mlp", "attn", "mlp"}, {"mru", "mlp", "attn", "mlp"}}) {
    CAPTURE(layers);
    Generator init(1);
    MruLm model({.vocab_size = 128,
                 .embedding_size = 32,
                 .n_state_heads = 2,
                 .state_size = 32,
                 .n_attn_heads = 2,
                 .key_size = 32,
                 .value_size = 32,
                 .layers = layers,
                 .max_sequence_length = 64},
                init);
    check_learns_by_heart(model, 5e-3);
  }
}

}  // namespace monoid
