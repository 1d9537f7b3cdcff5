#include "monoid/models/block_recurrent.h"

#include "monoid/models/carried_state.h"
#include "monoid/models/decoder.h"
#include "monoid/models/train_step.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/models/model_support.h"
#include "monoid/tests/support/cuda.h"

namespace monoid {
namespace {

using Layers = std::vector<int64_t>;

std::vector<BlockRecurrentConfig> variants() {
  const BlockRecurrentConfig small{.num_tokens = 11,
                                   .dim = 6,
                                   .depth = 3,
                                   .dim_head = 4,
                                   .heads = 2,
                                   .ff_mult = 2,
                                   .max_seq_len = 8,
                                   .block_width = 4,
                                   .recurrent_layers = Layers{2},
                                   .num_state_vectors = 3};
  std::vector<BlockRecurrentConfig> all(6, small);
  all[1].use_compressed_mem = true;
  all[1].compressed_mem_factor = 3;  // a key is left over
  all[2].recurrent_layers = Layers{3};
  all[2].read_recurrent_layers = Layers{1};
  all[2].all_layers_qk_rmsnorm = true;
  all[3].recurrent_layers = Layers{3, 2};  // two states, both read in layer 2
  all[3].read_recurrent_layers = Layers{2, 2};
  all[3].use_compressed_mem = true;
  all[3].compressed_mem_factor = 1;
  all[4].recurrent_layers = Layers{};
  all[4].block_width = 1;
  all[5].block_width = 16;
  all[5].max_seq_len = 16;
  all[5].recurrent_layers = Layers{1, 3};
  all[5].use_compressed_mem = true;
  return all;
}

BlockRecurrent make(const BlockRecurrentConfig& config, DType dtype = DType::f64) {
  Generator init(1);
  BlockRecurrent model(config, init);
  cast_to(model, dtype);
  return model;
}

}  // namespace

TEST_CASE("block-recurrent's parameter count follows the closed form", "[block_recurrent]") {
  for (const BlockRecurrentConfig& config : variants()) {
    BlockRecurrent model = make(config);
    CHECK(parameter_count(model) == config.parameters());
  }
  const BlockRecurrentConfig measured{
      .num_tokens = 65, .dim = 384, .heads = 6, .max_seq_len = 256, .block_width = 128, .recurrent_layers = Layers{4}};
  CHECK(measured.parameters() == 10378496);
}

TEST_CASE("block-recurrent's states start small, their places as large as what is normed", "[block_recurrent][init]") {
  BlockRecurrentConfig config = variants().front();
  config.dim = 400;
  config.num_state_vectors = 100;
  BlockRecurrent model = make(config);
  const auto deviation = [&](const std::string& name) {
    for (const NamedTensor& parameter : parameters(model)) {
      if (parameter.name == "layers.1.attention.state." + name) return std::sqrt(mean(square(parameter.value)).item());
    }
    return 0.0;
  };
  CHECK(deviation("beginning") == Approx(0.1).epsilon(0.02));
  CHECK(deviation("places") == Approx(1).epsilon(0.02));
  CHECK(deviation("pace") == Approx(0.1).epsilon(0.15));
}

TEST_CASE("block-recurrent passes the gradient check by every parameter and by its state",
          "[block_recurrent][gradient]") {
  for (BlockRecurrentConfig config : variants()) {
    config.num_tokens = 5;
    if (config.block_width == 16) config.block_width = 2;
    BlockRecurrent model = make(config);
    CAPTURE(model.config());
    test::check_model_gradients(model, test::tokens_of(model, {2, 3}));  // into the next block
    test::check_model_gradients(model, test::tokens_of(model, {1, 1}));
  }
}

TEST_CASE("block-recurrent: one call, chunks and single steps give the same logits and state",
          "[block_recurrent][streaming]") {
  for (const BlockRecurrentConfig& config : variants()) {
    BlockRecurrent in_double = make(config), in_float = make(config, DType::f32);
    test::check_model_streaming(in_double, 1e-12);
    test::check_model_streaming(in_float, 2e-5);
    test::check_gradients_through_state(in_double, 1e-11);
    test::check_state_through_file(in_float);
  }
}

TEST_CASE("block-recurrent names its state, which does not grow", "[block_recurrent][streaming]") {
  BlockRecurrent model = make(variants()[1], DType::f32);
  CHECK(model.has_bounded_state());
  for (const int64_t time : {3, 17}) {
    State state;
    model.forward(test::tokens_of(model, {5, time}), &state);
    CHECK(state.size() == 2 + 3 * 2 + 1);
    CHECK(state.steps() == time);
    CHECK(model.pauses_after(state) == (time == 3));
    CHECK(state.find("remembered").to_vector<int64_t>() == std::vector<int64_t>(5, time / 4));
    CHECK(state.find("layers.0.past").shape() == Shape{5, 2 + 4, 8});
    CHECK(state.find("layers.0.block").shape() == Shape{5, 4, 8});
    CHECK(state.find("layers.1.states").shape() == Shape{5, 3, 6});
  }
}

TEST_CASE("block-recurrent reads nothing, and nobody's text", "[block_recurrent][streaming]") {
  for (const BlockRecurrentConfig& config : variants()) {
    BlockRecurrent model = make(config);
    for (const Shape& shape : {Shape{2, 0}, Shape{0, 9}, Shape{0, 1}, Shape{0, 0}}) {
      State state;
      CHECK(model.forward(test::tokens_of(model, shape), &state).shape() == Shape{shape[0], shape[1], 11});
      CHECK(model.forward(test::tokens_of(model, {shape[0], 1}), &state).shape() == Shape{shape[0], 1, 11});
      CHECK(state.steps() == shape[1] + 1);
    }
  }
}

// What each token sees of the others, as far as one layer looks.
TEST_CASE("tokens see their block and the one before, and more only through states and compressed memory",
          "[block_recurrent]") {
  BlockRecurrentConfig config = variants().front();
  config.depth = 1;
  const auto seen = [&](int64_t changed_token, int64_t from) {
    BlockRecurrent model = make(config);
    const Tensor tokens = test::tokens_of(model, {1, 15});
    Tensor changed = tokens.clone();
    changed.data<int64_t>()[changed_token] = (changed.data<int64_t>()[changed_token] + 1) % model.vocabulary();
    const std::vector<double> difference =
        sum(abs(model.forward(changed) - model.forward(tokens)), 2).to_vector<double>();
    for (int64_t t = 0; t < from; ++t) CHECK(difference[static_cast<size_t>(t)] == 0);
    std::vector<bool> found;
    for (size_t t = 0; t < 15; ++t) found.push_back(difference[t] != 0);
    return found;
  };
  const auto between = [](size_t first, size_t end) {
    std::vector<bool> expected(15);
    for (size_t t = first; t < end; ++t) expected[t] = true;
    return expected;
  };
  config.recurrent_layers = Layers{};
  CHECK(seen(5, 5) == between(5, 12));
  CHECK(seen(3, 3) == between(3, 8));
  config.recurrent_layers = Layers{1};
  CHECK(seen(5, 5) == between(5, 15));
  CHECK(seen(2, 2) == between(2, 15));
  config.recurrent_layers = Layers{};
  config.use_compressed_mem = true;
  config.compressed_mem_factor = 4;  // a key a block, and places for two
  CHECK(seen(1, 1) == between(1, 15));
}

TEST_CASE("memories and states that came in are forgotten as often as the configuration says, only in training",
          "[block_recurrent]") {
  BlockRecurrentConfig config = variants().front();
  const auto after = [&](double memories, double states, bool training) {
    config.xl_memories_dropout = memories;
    config.state_dropout = states;
    BlockRecurrent model = make(config);
    State state;
    model.forward(test::tokens_of(model, {2, 8}), &state);
    Generator random(3);
    return model.forward(test::tokens_of(model, {2, 4}, 5), &state, training ? &random : nullptr);
  };
  BlockRecurrent model = make(config);
  const Tensor kept = after(0, 0, true), fresh = model.forward(test::tokens_of(model, {2, 4}, 5));
  test::check_identical(after(1, 1, false), kept);
  test::check_close_in_norm(after(1, 1, true), fresh, 1e-14);
  const auto apart = [](const Tensor& a, const Tensor& b) { return sum(abs(a - b)).item(); };
  for (const Tensor& one : {after(1, 0, true), after(0, 1, true)}) {
    CHECK(apart(one, kept) > 1e-3);
    CHECK(apart(one, fresh) > 1e-3);
  }
}

TEST_CASE("block-recurrent's loss reaches every parameter", "[block_recurrent]") {
  for (BlockRecurrentConfig config : variants()) {
    BlockRecurrent model = make(config);
    CAPTURE(model.config());
    if (config.block_width == 16) continue;  // nothing comes after the first block
    test::check_gradient_reaches_all_but(model, {});
  }
  BlockRecurrentConfig config = variants().front();
  config.max_seq_len = config.block_width = 16;
  BlockRecurrent one_block = make(config);
  const std::string state = "layers.1.attention.state.";
  std::set<std::string> writing;
  for (const char* name :
       {"self_query.weight", "cross_query.weight", "self_norm.q_scale", "self_norm.k_scale", "cross_norm.q_scale",
        "cross_norm.k_scale", "to_out.weight", "to_update.weight", "to_update.bias", "pace"})
    writing.insert(state + name);
  test::check_gradient_reaches_all_but(one_block, writing);
}

TEST_CASE("a captured block-recurrent trains on segments, and forgets, as an eager one and the CPU do",
          "[block_recurrent][cuda][graph]") {
  if (!test::cuda_or_skip()) return;
  BlockRecurrentConfig config = variants()[1];
  config.xl_memories_dropout = config.state_dropout = 0.4;
  const auto train = [&](Device device, bool graph) {
    BlockRecurrent model = make(config, DType::f32);
    move_to(model, device);
    ParameterGroup group{.name = "all"};
    for (const NamedTensor& parameter : parameters(model)) group.parameters.push_back(parameter.value);
    AdamW optimizer({group}, {});
    CarriedState carried;
    TrainStep step(device,
                   [&](const Tensors& batch, Generator* random) {
                     return carried.loss(model, batch[0], batch[1], batch.size() > 2, random);
                   },
                   optimizer, {.clip = 1, .graph = graph});
    Generator random(5);
    Tensors found;
    for (uint64_t i = 0; i < 8; ++i) {
      Generator data(i);
      std::vector<Tensors> segments;
      for (int segment = 0; segment < 3; ++segment)
        segments.push_back({random_integers({2, 8}, data, 11), random_integers({2, 8}, data, 11)});
      segments[0].push_back(Tensor::zeros({1}, DType::i64));
      found.push_back(Tensor::scalar(step.run(segments, 1e-2, &random).wait().loss, DType::f64));
    }
    for (const NamedTensor& parameter : parameters(model)) found.push_back(parameter.value.detach().to(kCpu));
    return found;
  };
  const Tensors captured = train(test::kCuda, true), eager = train(test::kCuda, false), host = train(kCpu, false);
  for (size_t i = 0; i < host.size(); ++i) {
    test::check_identical(captured[i], eager[i]);
    test::check_close_in_norm(captured[i], host[i], 1e-3);
  }
}

TEST_CASE("block-recurrent computes on CUDA what it does on the CPU: whole, in chunks and step by step",
          "[block_recurrent][cuda][streaming]") {
  if (!test::cuda_or_skip()) return;
  for (const BlockRecurrentConfig& config : variants()) {
    BlockRecurrent host = make(config, DType::f32), device = make(config, DType::f32);
    CAPTURE(host.config());
    move_to(device, test::kCuda);
    const Tensor tokens = test::tokens_of(host, {3, 39});
    const Tensor expected = host.forward(tokens), there = tokens.to(test::kCuda);
    test::check_close_in_norm(device.forward(there).to(kCpu), expected, 1e-4);
    for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{1}, {5}, {16, 1}}) {
      State state;
      test::check_close_in_norm(test::run_in_chunks(device, there, state, lengths).to(kCpu), expected, 1e-4);
    }
  }
}

TEST_CASE("block-recurrent decodes over the borders of blocks: captured, eager and on the CPU",
          "[block_recurrent][cuda][decoder]") {
  if (!test::cuda_or_skip()) return;
  for (const BlockRecurrentConfig& config : variants()) {
    const auto follow = [&](Device device, bool graph) {
      BlockRecurrent model = make(config, DType::f32);
      move_to(model, device);
      Decoder decoder(model, 2, graph);
      Tensors logits{decoder.prefill(test::tokens_of(model, {2, 5})).clone()};
      for (int64_t token = 0; token < 21; ++token)
        logits.push_back(decoder.step(Tensor::full({2}, static_cast<double>(token % 11), DType::i64)).clone());
      return stack(logits, 1);
    };
    const Tensor captured = follow(test::kCuda, true);
    test::check_identical(captured, follow(test::kCuda, false));
    test::check_close_in_norm(captured, follow(kCpu, false), 1e-4);
  }
}

TEST_CASE("block-recurrent's loss leaves out the targets that the configuration names", "[block_recurrent]") {
  BlockRecurrentConfig config = variants().front();
  BlockRecurrent usual = make(config);
  config.ignore_index = 3;
  BlockRecurrent named = make(config);
  const Tensor tokens = Tensor::from(std::vector<int64_t>{1, 3, 2, 3, 5}, {1, 5});
  const Tensor marked = Tensor::from(std::vector<int64_t>{1, -100, 2, -100, 5}, {1, 5});
  test::check_identical(named.loss(tokens, tokens), usual.loss(tokens, marked));
  CHECK(named.loss(tokens, tokens).item() != usual.loss(tokens, tokens).item());
  CHECK_THROWS_WITH(named.loss(tokens, marked), ContainsSubstring("-100"));
}

TEST_CASE("block-recurrent refuses a configuration that makes no model", "[block_recurrent]") {
  const auto refusal = [](auto change) {
    BlockRecurrentConfig config = variants().front();
    change(config);
    try {
      config.validate();
    } catch (const Error& error) {
      return error.message();
    }
    return std::string("nothing");
  };
  CHECK_THAT(refusal([](auto& c) { c.recurrent_layers = Layers{4}; }),
             ContainsSubstring("recurrent_layers has 4, and the layers are 1 to 3"));
  CHECK_THAT(refusal([](auto& c) {
               c.recurrent_layers = Layers{2, 2};
             }),
             ContainsSubstring("recurrent_layers has 2 more than once"));
  CHECK_THAT(refusal([](auto& c) { c.read_recurrent_layers = Layers{3}; }),
             ContainsSubstring("the state of layer 2 is read in layer 3, wanted one from 1 to 2"));
  CHECK_THAT(refusal([](auto& c) { c.read_recurrent_layers = Layers{}; }),
             ContainsSubstring("wanted one for each of the 1 recurrent_layers"));
  CHECK_THAT(refusal([](auto& c) { c.max_seq_len = 10; }),
             ContainsSubstring("max_seq_len is 10, wanted a multiple of block_width, 4"));
  CHECK_THAT(refusal([](auto& c) { c.dim_head = 5; }), ContainsSubstring("an even number"));
  CHECK_THAT(refusal([](auto& c) {
               c.recurrent_layers.reset();
               c.depth = 1;
             }),
             ContainsSubstring("recurrent_layers has 0"));
  const auto read = parse_config<BlockRecurrentConfig>(R"({"recurrent_layers": null, "read_recurrent_layers": [1]})");
  CHECK_FALSE(read.recurrent_layers);
  CHECK(*parse_config<BlockRecurrentConfig>(to_json(read)).read_recurrent_layers == Layers{1});
}

}  // namespace monoid
