#include <functional>

#include "monoid/models/catalog.h"
#include "monoid/models/decoder.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/support/cuda.h"

namespace monoid {
namespace {

// Small configurations that between them have every kind of state.
struct Case {
  const char* model;
  const char* config;
};
const Case kCases[] = {
    {"minlm", R"({"num_tokens": 11, "dim": 6, "depth": 2})"},
    {"minlm", R"({"num_tokens": 11, "dim": 6, "depth": 2, "enable_conv": true, "conv_kernel_size": 4})"},
    {"minlm", R"({"num_tokens": 11, "dim": 6, "depth": 2, "use_lstm": true, "enable_conv": true})"},
    {"hybridlm", R"({"num_tokens": 11, "dim": 6, "depth": 2, "heads": 2, "dim_head": 4})"},
    {"stacked-min-gru", R"({"num_tokens": 11, "num_layers": 2, "input_size": 4, "hidden_size": 6})"},
    {"min-gru-attention", R"({"vocab_size": 11, "hidden_size": 6, "attention_head_dim": 4, "num_attention_heads": 2,
                              "num_key_value_heads": 1, "attention_layers_idx": [1], "num_hidden_layers": 3,
                              "initializer_range": 0.3})"},
    {"mru-lm", R"({"vocab_size": 11, "embedding_size": 8, "n_state_heads": 2, "state_size": 8})"},
    {"mru-lm", R"({"vocab_size": 11, "embedding_size": 8, "n_state_heads": 2, "state_size": 8, "n_attn_heads": 2,
                   "key_size": 8, "value_size": 4, "layers": ["attn", "mru", "attn"], "max_sequence_length": 9})"},
    {"block-recurrent", R"({"num_tokens": 11, "dim": 6, "depth": 3, "dim_head": 4, "heads": 2, "block_width": 3,
                            "max_seq_len": 3, "recurrent_layers": [3, 2], "read_recurrent_layers": [1, 2],
                            "num_state_vectors": 2, "use_compressed_mem": true, "compressed_mem_factor": 2})"},
    {"gate-loop", R"({"num_tokens": 11, "dim": 6, "depth": 2})"},
    {"gate-loop", R"({"num_tokens": 11, "dim": 6, "depth": 2, "gate_loop_heads": 2, "post_ln_norm": true})"},
    {"gate-loop", R"({"num_tokens": 11, "dim": 6, "depth": 2, "use_gate_looped_attn": false, "heads": 2, "dim_head": 4,
                      "rotary_emb": true})"},
    {"gate-loop", R"({"num_tokens": 11, "dim": 6, "depth": 2, "use_gate_looped_attn": false, "heads": 2, "dim_head": 4,
                      "rotary_emb": true, "attn_softmax_normalize": false})"},
    {"gate-loop", R"({"num_tokens": 11, "dim": 6, "depth": 2, "use_gate_looped_attn": false, "heads": 2, "dim_head": 4,
                      "data_dependent_rel_pos": true, "ablate_complex": true})"},
    {"gate-loop", R"({"num_tokens": 11, "dim": 6, "depth": 2, "use_gate_looped_attn": false, "heads": 2, "dim_head": 4,
                      "data_dependent_rel_pos": true, "ablate_complex": true, "attn_softmax_normalize": true})"},
};

using Sequences = std::vector<std::vector<int64_t>>;

Sequences sequences_of(const std::vector<int64_t>& lengths) {
  Generator generator(5);
  Sequences sequences;
  for (const int64_t length : lengths)
    sequences.push_back(random_integers({length}, generator, 11).to_vector<int64_t>());
  return sequences;
}

std::unique_ptr<LanguageModel> make(const Case& what, DType dtype, Device device = kCpu) {
  Generator init(1);
  auto model = make_model(what.model, what.config, init);
  cast_to(*model, dtype);
  move_to(*model, device);
  return model;
}

Tensor row_of(const std::vector<int64_t>& sequence) { return Tensor::from(sequence, {1, std::ssize(sequence)}); }

}  // namespace

TEST_CASE("a left-padded batch computes what each sequence does alone: logits, state, and what follows", "[padding]") {
  for (const Case& what : kCases) {
    for (const auto& [dtype, tolerance] : {std::pair{DType::f64, 1e-12}, {DType::f32, 1e-5}}) {
      const auto model = make(what, dtype);
      const Sequences sequences = sequences_of({5, 1, 12, 2});
      const PaddedTokens batch = pad_left(sequences);
      State state;
      const Tensor logits = model->forward(batch.tokens, &state, nullptr, batch.padding);
      const Tensor next = Tensor::from(std::vector<int64_t>{1, 2, 3, 4}, {4, 1});
      const Tensor following = model->forward(next, &state);
      for (int64_t row = 0; row < 4; ++row) {
        CAPTURE(what.config, dtype == DType::f64, row);
        const auto& sequence = sequences[static_cast<size_t>(row)];
        State alone;
        const Tensor expected = model->forward(row_of(sequence), &alone);
        const Tensor own = slice(slice(logits, 0, row, row + 1), 1, -std::ssize(sequence), 12);
        test::check_close_in_norm(own, expected, tolerance);
        const Tensor expected_next = model->forward(slice(next, 0, row, row + 1), &alone);
        test::check_close_in_norm(slice(following, 0, row, row + 1), expected_next, tolerance);
      }
    }
  }
}

TEST_CASE("a batch of prompts of different lengths decodes as each of them does alone", "[padding][decoder]") {
  for (const Case& what : kCases) {
    const auto model = make(what, DType::f64);
    const Sequences prompts = sequences_of({3, 9, 1});
    const PaddedTokens batch = pad_left(prompts);
    const auto follow = [&](int64_t rows, const Tensor& tokens, const Tensor& padding) {
      Decoder decoder(*model, rows);
      Tensors logits{decoder.prefill(tokens, padding)};
      for (int64_t token = 0; token < 4; ++token)
        logits.push_back(decoder.step(Tensor::full({rows}, static_cast<double>(token), DType::i64)));
      return stack(logits, 1);
    };
    const Tensor together = follow(3, batch.tokens, batch.padding);
    for (int64_t row = 0; row < 3; ++row) {
      CAPTURE(what.config, row);
      const Tensor alone = follow(1, row_of(prompts[static_cast<size_t>(row)]), {});
      test::check_close_in_norm(slice(together, 0, row, row + 1), alone, 1e-6);  // logits leave a decoder in f32
    }
  }
}

TEST_CASE("the loss of a padded batch, and its gradient, are those of its sequences", "[padding][gradient]") {
  for (const Case& what : kCases) {
    CAPTURE(what.config);
    const auto model = make(what, DType::f64);
    const Sequences sequences = sequences_of({4, 7});
    const PaddedTokens batch = pad_left(sequences);
    Tensor targets = batch.tokens.clone();
    slice(slice(targets, 0, 0, 1), 1, 0, 3).fill(-100);
    const auto gradients = [&](const std::function<void()>& backward) {
      zero_grad(*model);
      backward();
      Tensors found;
      for (const NamedTensor& parameter : parameters(*model))
        found.push_back(parameter.value.grad().defined() ? parameter.value.grad().clone() : Tensor());
      return found;
    };
    const Tensors together = gradients([&] {
      Tape tape;
      tape.backward(model->loss(batch.tokens, targets, nullptr, nullptr, batch.padding));
    });
    const Tensors alone = gradients([&] {
      for (const auto& sequence : sequences) {
        Tape tape;
        const Tensor loss = model->loss(row_of(sequence), row_of(sequence));
        tape.backward(loss, Tensor::scalar(static_cast<double>(sequence.size()) / 11, DType::f64));
      }
    });
    for (size_t i = 0; i < alone.size(); ++i) {
      REQUIRE(together[i].defined() == alone[i].defined());
      if (alone[i].defined()) test::check_close_in_norm(together[i], alone[i], 1e-11);
    }
  }
}

TEST_CASE("padding that cannot be is refused by name", "[padding]") {
  const auto model = make(kCases[0], DType::f64);
  const PaddedTokens batch = pad_left(sequences_of({2, 3}));
  CHECK_THROWS_WITH(model->forward(batch.tokens, nullptr, nullptr, Tensor::zeros({2}, DType::i64)),
                    ContainsSubstring("minlm: padding is i64[2], wanted i32[2]"));
  CHECK_THROWS_WITH(model->forward(batch.tokens, nullptr, nullptr, Tensor::zeros({3}, DType::i32)),
                    ContainsSubstring("padding is i32[3], wanted i32[2]"));
  State state;
  model->forward(batch.tokens, &state, nullptr, batch.padding);
  CHECK_THROWS_WITH(model->forward(batch.tokens, &state, nullptr, batch.padding),
                    ContainsSubstring("this state is further on"));
  Decoder decoder(*model, 2);
  CHECK_THROWS_WITH(decoder.prefill(batch.tokens, Tensor::full({2}, 3, DType::i32)),
                    ContainsSubstring("a sequence of 3 tokens has 3 of padding"));
  CHECK_THROWS_WITH(pad_left({}), ContainsSubstring("at least one token"));
  CHECK_THROWS_WITH(pad_left({{1}, {}}), ContainsSubstring("at least one token"));
  CHECK_FALSE(pad_left({{1, 2}, {3, 4}}).padding.defined());
}

TEST_CASE("padded batches decode on CUDA as on the CPU, captured or not", "[cuda][padding][decoder]") {
  if (!test::cuda_or_skip()) return;
  for (const Case& what : kCases) {
    const PaddedTokens batch = pad_left(sequences_of({3, 9, 1}));
    const auto follow = [&](Device device, bool graph) {
      const auto model = make(what, DType::f32, device);
      Decoder decoder(*model, 3, graph);
      Tensors logits{decoder.prefill(batch.tokens, batch.padding).clone()};
      for (int64_t token = 0; token < 5; ++token)
        logits.push_back(decoder.step(Tensor::full({3}, static_cast<double>(token), DType::i64)).clone());
      return stack(logits, 1);
    };
    CAPTURE(what.config);
    const Tensor captured = follow(test::kCuda, true);
    test::check_identical(captured, follow(test::kCuda, false));
    test::check_close_in_norm(captured, follow(kCpu, false), 1e-4);
  }
}

}  // namespace monoid
