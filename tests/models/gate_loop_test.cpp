#include "monoid/models/gate_loop.h"

#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/tests/models/model_support.h"

namespace monoid {
namespace {

// Gate loops: a channel a head; wider heads after each residual a norm; real transitions and nothing behind the scan;
// no transitions.
std::vector<GateLoopConfig> gate_looped() {
  const GateLoopConfig small{.num_tokens = 11, .dim = 6, .depth = 2, .ff_mult = 2};
  std::vector<GateLoopConfig> all(4, small);
  all[1].gate_loop_heads = 2;
  all[1].dim_gate_looped_attn = 8;
  all[1].sub_ln = all[1].post_ln_norm = true;
  all[2].gate_loop_heads = 3;
  all[2].ablate_complex = true;
  all[2].attn_add_swish_gating = false;
  all[3].ablate_state_transition = true;
  return all;
}

// Attention: softmax; the same with rotary positions; scores as weights, without and with positions.
std::vector<GateLoopConfig> attending() {
  const GateLoopConfig small{
      .num_tokens = 11, .dim = 6, .depth = 2, .dim_head = 4, .heads = 2, .ff_mult = 2, .use_gate_looped_attn = false};
  std::vector<GateLoopConfig> all(4, small);
  all[1].rotary_emb = all[1].post_ln_norm = true;
  all[2].attn_softmax_normalize = all[2].attn_add_swish_gating = false;
  all[3].attn_softmax_normalize = false;
  all[3].rotary_emb = true;
  return all;
}

// Data-dependent positions: scores as weights; softmax and rotary positions too, as in the reference's script; real
// transitions; none.
std::vector<GateLoopConfig> data_dependent() {
  std::vector<GateLoopConfig> all(4, attending().front());
  for (GateLoopConfig& config : all) config.data_dependent_rel_pos = true;
  all[1].attn_softmax_normalize = all[1].rotary_emb = true;
  all[2].ablate_complex = true;
  all[3].ablate_state_transition = true;
  return all;
}

std::vector<GateLoopConfig> variants() {
  std::vector<GateLoopConfig> all = gate_looped();
  for (const auto& more : {attending(), data_dependent()}) all.insert(all.end(), more.begin(), more.end());
  return all;
}

GateLoop make(const GateLoopConfig& config, DType dtype = DType::f64) {
  Generator init(1);
  GateLoop model(config, init);
  cast_to(model, dtype);
  return model;
}

Tensor gradient_of(GateLoop& model, const std::string& name) {
  Tape tape;
  tape.backward(model.loss(test::tokens_of(model, {2, 9}), test::tokens_of(model, {2, 9}, 3)));
  for (const NamedTensor& parameter : parameters(model)) {
    if (parameter.name == name) return parameter.value.grad();
  }
  return {};
}

}  // namespace

TEST_CASE("gate-loop's parameter count follows the closed form", "[gate_loop_model]") {
  for (const GateLoopConfig& config : variants()) {
    GateLoop model = make(config);
    CHECK(parameter_count(model) == config.parameters());
  }
  CHECK(GateLoopConfig{.num_tokens = 65, .dim = 384, .depth = 6}.parameters() == 13342080);
}

TEST_CASE("gate-loop passes the gradient check by every parameter and by its state", "[gate_loop_model][gradient]") {
  std::vector<GateLoopConfig> all = gate_looped();
  for (const GateLoopConfig& config : attending()) all.push_back(config);
  for (GateLoopConfig config : all) {
    config.num_tokens = 5;
    config.frac_gradient_state_transition = 1;
    GateLoop model = make(config);
    test::check_model_gradients(model, test::tokens_of(model, {2, 3}));
  }
}

TEST_CASE("gate-loop passes the gradient check through data-dependent positions", "[gate_loop_model][gradient]") {
  // A product that is complex may be about to vanish, where 1 / p is no line over any step; a real one is not.
  for (const bool softmax : {false, true}) {
    GateLoopConfig config = data_dependent()[2];
    config.num_tokens = 5;
    config.frac_gradient_state_transition = 1;
    config.attn_softmax_normalize = softmax;
    GateLoop model = make(config);
    const Tensor tokens = test::tokens_of(model, {2, 3});
    test::check_layer_gradients("gate-loop", model, {},
                                [&](const Tensors&) -> Tensors { return {model.forward(tokens)}; });
  }
}

TEST_CASE("gate-loop passes on the fraction of the transitions' gradient that it is told", "[gate_loop_model]") {
  for (GateLoopConfig config : {gate_looped()[0], gate_looped()[1], data_dependent()[2]}) {
    config.depth = 1;
    config.frac_gradient_state_transition = 1;
    GateLoop whole = make(config);
    config.frac_gradient_state_transition = 0.25;
    GateLoop part = make(config);
    const std::string to_a = "layers.0.mixer.to_a.weight",
                      to_logits = config.post_ln_norm ? "head.weight" : "norm.weight";
    test::check_close_in_norm(gradient_of(part, to_a) * 4, gradient_of(whole, to_a), 1e-12);
    test::check_identical(gradient_of(part, to_logits), gradient_of(whole, to_logits));
  }
}

TEST_CASE("gate-loop: one call, chunks and single steps give the same logits and state",
          "[gate_loop_model][streaming]") {
  for (const GateLoopConfig& config : variants()) {
    GateLoop in_double = make(config), in_float = make(config, DType::f32);
    test::check_model_streaming(in_double, 1e-12);
    test::check_model_streaming(in_float, 2e-5);
    // Products of 1e-10 beside others of 1, and their inverses, leave six digits of a gradient.
    test::check_gradients_through_state(in_double, config.data_dependent_rel_pos ? 1e-6 : 1e-11);
    test::check_state_through_file(in_float);
  }
}

TEST_CASE("gate-loop names its state", "[gate_loop_model][streaming]") {
  const auto state_after = [](const GateLoopConfig& config) {
    GateLoop model = make(config, DType::f32);
    State state;
    model.forward(test::tokens_of(model, {3, 5}), &state);
    return state;
  };
  CHECK(state_after(gate_looped()[0]).find("layers.1.state").shape() == Shape{3, 6, 1, 1, 2});
  CHECK(state_after(gate_looped()[1]).find("layers.1.state").shape() == Shape{3, 2, 4, 4, 2});
  CHECK(state_after(attending()[1]).filled("layers.0.keys").shape() == Shape{3, 5, 2, 4});
  CHECK(state_after(attending()[2]).find("layers.0.state").shape() == Shape{3, 2, 4, 4, 2});
  for (const auto& [config, bounded] : std::vector<std::pair<GateLoopConfig, bool>>{
           {gate_looped()[0], true}, {attending()[0], false}, {attending()[2], true}, {attending()[3], false}})
    CHECK(make(config).has_bounded_state() == bounded);
}

TEST_CASE("gate-loop sees nothing that comes later", "[gate_loop_model]") {
  for (const GateLoopConfig& config : variants()) {
    CAPTURE(to_json(config));
    GateLoop model = make(config);
    const Tensor tokens = test::tokens_of(model, {1, 9});
    Tensor changed = tokens.clone();
    changed.data<int64_t>()[5] = (changed.data<int64_t>()[5] + 1) % model.vocabulary();
    const Tensor difference = abs(model.forward(changed) - model.forward(tokens));
    CHECK(sum(slice(difference, 1, 0, 5)).item() == 0);
    CHECK(sum(slice(difference, 1, 5, 6)).item() > 0);
    CHECK(sum(slice(difference, 1, 6, 9)).item() > 0);
  }
}

TEST_CASE("gate-loop's data-dependent positions train in f32 as in f64, heads of the usual width too",
          "[gate_loop_model]") {
  for (const bool softmax : {true, false}) {
    GateLoopConfig config = data_dependent()[0];
    config.dim_head = 64;
    config.attn_softmax_normalize = softmax;
    const std::string to_a = "layers.0.mixer.to_a.weight";
    GateLoop in_double = make(config), in_float = make(config, DType::f32);
    test::check_close_in_norm(gradient_of(in_float, to_a).to(DType::f64), gradient_of(in_double, to_a), 1e-2);
  }
}

TEST_CASE("gate-loop's stored frequencies are what turns it, also after they were replaced", "[gate_loop_model]") {
  GateLoop model = make(attending()[1]);
  const Tensor tokens = test::tokens_of(model, {2, 7}), before = model.forward(tokens);
  std::map<std::string, Tensor> tensors;
  for (const NamedTensor& entry : state_dict(model)) tensors[entry.name] = entry.value.clone();
  REQUIRE(tensors.contains("layers.0.mixer.frequencies"));
  for (auto& [name, value] : tensors) {
    if (name.ends_with("frequencies")) value = value * 0.5;
  }
  load_state_dict(model, tensors);
  CHECK(max(abs(model.forward(tokens) - before)).item() > 1e-4);
  for (auto& [name, value] : tensors) {
    if (name.ends_with("frequencies")) value = value * 2;
  }
  load_state_dict(model, tensors);
  test::check_identical(model.forward(tokens), before);
}

TEST_CASE("gate-loop's loss reaches every parameter that the reference's does", "[gate_loop_model]") {
  for (const GateLoopConfig& config : variants()) {
    CAPTURE(to_json(config));
    GateLoop model = make(config);
    std::set<std::string> unused;
    const bool has_transitions = config.use_gate_looped_attn || config.data_dependent_rel_pos;
    if (config.ablate_state_transition && has_transitions) {
      for (const char* layer : {"layers.0", "layers.1"}) {
        unused.insert(str(layer, ".mixer.to_a.weight"));
        if (config.use_gate_looped_attn) unused.insert(str(layer, ".mixer.to_a.bias"));
      }
    }
    test::check_gradient_reaches_all_but(model, unused);
  }
}

TEST_CASE("gate-loop refuses a configuration that makes no model", "[gate_loop_model]") {
  const auto refusal = [](const std::string& json) {
    try {
      parse_config<GateLoopConfig>(json);
    } catch (const Error& error) {
      return error.message();
    }
    return std::string("nothing");
  };
  CHECK(refusal(R"({"gate_loop_heads": 5})") == "gate-loop: gate_loop_heads is 5, wanted a divisor of dim, 512");
  CHECK_THAT(refusal(R"({"gate_loop_heads": 512, "dim_gate_looped_attn": 128})"),
             ContainsSubstring("wanted a divisor of dim_gate_looped_attn, 128"));
  CHECK_THAT(refusal(R"({"gate_loop_heads": 0})"), ContainsSubstring("gate_loop_heads is 0"));
  CHECK_THAT(refusal(R"({"frac_gradient_state_transition": 2})"), ContainsSubstring("is 2, wanted 0 to 1"));
  CHECK_THAT(refusal(R"({"use_gate_looped_attn": false, "dim_head": 5, "rotary_emb": true})"),
             ContainsSubstring("dim_head is 5, wanted an even number"));
  CHECK_THAT(refusal(R"({"attn_softmax_normalize": 1})"), ContainsSubstring("true or false or null"));
  CHECK(refusal(R"({"dim_head": 5, "rotary_emb": true})") == "nothing");  // nothing here has heads of 5
}

}  // namespace monoid
