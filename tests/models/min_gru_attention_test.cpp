#include "monoid/models/min_gru_attention.h"

#include "monoid/models/decoder.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/tests/models/model_support.h"

namespace monoid {
namespace {

std::vector<MinGruAttentionConfig> variants() {
  const MinGruAttentionConfig small{.vocab_size = 11,
                                    .hidden_size = 6,
                                    .mlp_expansion_factor = 2,
                                    .attention_head_dim = 4,
                                    .num_attention_heads = 2,
                                    .num_key_value_heads = 1,
                                    .attention_layers_idx = {1},
                                    .num_hidden_layers = 3,
                                    .initializer_range = 0.3};
  std::vector<MinGruAttentionConfig> all(4, small);
  all[1].attention_layers_idx = {};
  all[1].gru_expansion_factor = 1;
  all[1].conv_kernel_size = 1;
  all[1].tie_word_embeddings = false;
  all[2].attention_layers_idx = {0, 2};
  all[2].num_key_value_heads = 2;
  all[2].use_mingru_bias = all[2].use_attention_bias = all[2].use_mlp_bias = true;
  all[2].use_conv_bias = false;
  all[2].mlp_hidden_act = "gelu_new";
  all[3].rope_scaling = RopeScaling{"linear", 4};
  all[3].conv_hidden_act = "relu";
  return all;
}

MinGruAttention make(const MinGruAttentionConfig& config, DType dtype = DType::f64) {
  Generator init(1);
  MinGruAttention model(config, init);
  cast_to(model, dtype);
  return model;
}

}  // namespace

TEST_CASE("min-gru-attention's parameter count follows the closed form", "[min_gru_attention]") {
  for (const MinGruAttentionConfig& config : variants()) {
    MinGruAttention model = make(config);
    CHECK(parameter_count(model) == config.parameters());
  }
  const MinGruAttentionConfig measured{.vocab_size = 65,
                                       .hidden_size = 384,
                                       .num_attention_heads = 6,
                                       .num_key_value_heads = 6,
                                       .attention_layers_idx = {2, 4},
                                       .num_hidden_layers = 6,
                                       .tie_word_embeddings = false};
  CHECK(measured.parameters() == 11859072);
}

TEST_CASE("min-gru-attention passes the gradient check by every parameter and by its state",
          "[min_gru_attention][gradient]") {
  for (MinGruAttentionConfig config : variants()) {
    config.vocab_size = 5;
    config.conv_hidden_act = "silu";  // relu has a kink
    MinGruAttention model = make(config);
    test::check_model_gradients(model, test::tokens_of(model, {2, 3}));
  }
}

TEST_CASE("min-gru-attention: one call, chunks and single steps give the same logits and state",
          "[min_gru_attention][streaming]") {
  for (const MinGruAttentionConfig& config : variants()) {
    MinGruAttention in_double = make(config), in_float = make(config, DType::f32);
    test::check_model_streaming(in_double, 1e-12);
    test::check_model_streaming(in_float, 2e-5);
    test::check_gradients_through_state(in_double, 1e-11);
    test::check_state_through_file(in_float);
  }
}

TEST_CASE("min-gru-attention names its state", "[min_gru_attention][streaming]") {
  MinGruAttention model = make(variants().front(), DType::f32);
  State state;
  model.forward(test::tokens_of(model, {3, 5}), &state);
  CHECK(state.find("layers.0.hidden").shape() == Shape{3, 12});
  CHECK(state.find("layers.0.conv_tail").shape() == Shape{3, 3, 6});
  CHECK(state.filled("layers.1.keys").shape() == Shape{3, 5, 1, 4});
  CHECK_FALSE(model.has_bounded_state());
  CHECK(make(variants()[1]).has_bounded_state());
}

TEST_CASE("min-gru-attention sees nothing that comes later, and far positions as well as near ones",
          "[min_gru_attention]") {
  MinGruAttention model = make(variants().front());
  const Tensor tokens = test::tokens_of(model, {1, 9});
  Tensor changed = tokens.clone();
  changed.data<int64_t>()[5] = (changed.data<int64_t>()[5] + 1) % model.vocabulary();
  const Tensor difference = abs(model.forward(changed) - model.forward(tokens));
  CHECK(sum(slice(difference, 1, 0, 5)).item() == 0);
  CHECK(sum(slice(difference, 1, 5, 9)).item() > 0);
  // Rotary positions are relative: without the recurrence the first window would not matter.
  CHECK(std::isfinite(sum(model.forward(test::tokens_of(model, {1, 3000}))).item()));
}

TEST_CASE("dynamic rope scaling changes nothing up to the time trained on, and stretches what is longer",
          "[min_gru_attention]") {
  MinGruAttentionConfig config = variants().front();
  config.max_position_embeddings = 8;
  MinGruAttention plain = make(config);
  config.rope_scaling = RopeScaling{"dynamic", 2};
  MinGruAttention dynamic = make(config);
  const Tensor tokens = test::tokens_of(plain, {2, 12}), start = contiguous(slice(tokens, 1, 0, 8));
  test::check_identical(dynamic.forward(start), plain.forward(start));
  const Tensor longer = abs(dynamic.forward(tokens) - plain.forward(tokens));
  CHECK(sum(slice(longer, 1, 1, 12)).item() > 1e-6);
}

TEST_CASE("dynamic rope scaling goes by the longest sequence of a batch, not by its padding", "[min_gru_attention]") {
  MinGruAttentionConfig config = variants().front();
  config.max_position_embeddings = 4;
  config.rope_scaling = RopeScaling{"dynamic", 2};
  MinGruAttention model = make(config);
  const Tensor alone = test::tokens_of(model, {2, 6});
  const Tensor batch = concat({Tensor::zeros({2, 3}, DType::i64), alone}, 1);
  const Tensor padding = Tensor::from(std::vector<int32_t>{5, 3}, {2});  // the second sequence is the longest
  State padded_state, state;
  const Tensor padded = model.forward(batch, &padded_state, nullptr, padding), read = model.forward(alone, &state);
  test::check_close(slice(slice(padded, 0, 1, 2), 1, 3, 9), slice(read, 0, 1, 2), 1e-12, 1e-12);
  const Tensor next = Tensor::zeros({2, 1}, DType::i64);
  test::check_close(slice(model.forward(next, &padded_state), 0, 1, 2), slice(model.forward(next, &state), 0, 1, 2),
                    1e-12, 1e-12);
}

TEST_CASE("min-gru-attention's loss reaches every parameter", "[min_gru_attention]") {
  for (const MinGruAttentionConfig& config : variants()) {
    MinGruAttention model = make(config);
    test::check_gradient_reaches_all_but(model, {});
  }
}

TEST_CASE("min-gru-attention refuses a configuration that makes no model", "[min_gru_attention]") {
  const auto refusal = [](auto change) {
    MinGruAttentionConfig config = variants().front();
    change(config);
    try {
      config.validate();
    } catch (const Error& error) {
      return error.message();
    }
    return std::string("nothing");
  };
  CHECK_THAT(refusal([](auto& c) {
               c.attention_layers_idx = {1, 3};
             }),
             ContainsSubstring("attention_layers_idx has 3, and the layers are 0 to 2"));
  CHECK_THAT(refusal([](auto& c) { c.num_key_value_heads = 3; }),
             ContainsSubstring("num_attention_heads is 2, wanted a multiple of num_key_value_heads, 3"));
  CHECK_THAT(refusal([](auto& c) { c.attention_head_dim = 5; }), ContainsSubstring("an even number"));
  CHECK_THAT(refusal([](auto& c) { c.mlp_hidden_act = "geluu"; }),
             ContainsSubstring("mlp_hidden_act is 'geluu'; wanted one of gelu, "));
  CHECK_THAT(refusal([](auto& c) {
               c.rope_scaling = RopeScaling{"yarn", 2};
             }),
             ContainsSubstring("of the type 'yarn', wanted default, linear or dynamic"));
  CHECK_THROWS_WITH(parse_config<MinGruAttentionConfig>(R"({"rope_scaling": {"factor": 2}})"),
                    ContainsSubstring("rope_scaling") && ContainsSubstring("or null"));
  const auto read = parse_config<MinGruAttentionConfig>(
      R"({"rope_scaling": {"rope_type": "dynamic", "factor": 2}, "num_hidden_layers": 12})");
  CHECK(parse_config<MinGruAttentionConfig>(to_json(read)).rope_scaling->type == "dynamic");
}

TEST_CASE("min-gru-attention reads rope_scaling, head sizes and layers as the reference saves and takes them",
          "[min_gru_attention]") {
  const auto read = [](const std::string& json) { return parse_config<MinGruAttentionConfig>(json); };
  const auto both = read(R"({"rope_scaling": {"type": "dynamic", "rope_type": "dynamic", "factor": 2,
                                              "original_max_position_embeddings": 2048}})");
  CHECK(both.rotary().scaling.kind == RotaryScaling::Kind::dynamic);
  CHECK(both.rotary().scaling.factor == 2);
  CHECK(read(R"({"rope_scaling": {"rope_type": "default"}})").rotary().scaling.kind == RotaryScaling::Kind::none);
  CHECK_THROWS_WITH(read(R"({"rope_scaling": {"type": "linear"}})"), ContainsSubstring("or null"));
  CHECK_THROWS_WITH(read(R"({"rope_scaling": {"type": "linear", "factor": 2, "factors": 3}})"),
                    ContainsSubstring("or null"));
  const auto divided = read(R"({"hidden_size": 576, "attention_head_dim": null})");
  CHECK(divided.attention().head_channels == 32);
  CHECK(read(to_json(divided)).head_dim() == 32);
  CHECK_THROWS_WITH(read(R"({"hidden_size": 18, "attention_head_dim": null})"),
                    ContainsSubstring("attention_head_dim is 1, wanted 2 to"));
  CHECK(read(R"({"attention_layers_idx": null})").attention_layers_idx == std::vector<int64_t>{4, 9});
  CHECK(read(R"({"attention_layers_idx": []})").attention_layers_idx.empty());
}

}  // namespace monoid
