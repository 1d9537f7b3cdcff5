#include <array>
#include <optional>

#include "monoid/layers/embedding.h"
#include "monoid/layers/linear.h"
#include "monoid/models/carried_state.h"
#include "monoid/models/decoder.h"
#include "monoid/ops/attention.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/rotary.h"
#include "monoid/tests/models/model_support.h"
#include "monoid/tests/support/cuda.h"

namespace monoid {
namespace {

constexpr int64_t kTokens = 11, kHeads = 2, kChannels = 4, kWidth = kHeads * kChannels, kPositions = 1000;

// Two layers of causal attention with rotated keys: the least that has caches.
class Toy : public LanguageModel {
 public:
  explicit Toy(DType dtype, Device device = kCpu) {
    Generator init(1);
    embedding_.emplace(kTokens, kWidth, init);
    for (std::optional<Linear>& layer : qkv_) layer.emplace(kWidth, 3 * kWidth, Bias::none, init);
    to_logits_.emplace(kWidth, kTokens, Bias::none, init);
    cast_to(*this, dtype);
    move_to(*this, device);
    table_ = rotary_table(rotary_frequencies(kChannels), kPositions, dtype == DType::f64 ? dtype : DType::f32, device);
  }

  std::string type() const override { return "toy"; }
  int64_t vocabulary() const override { return kTokens; }
  std::string config() const override { return "{}"; }
  bool has_bounded_state() const override { return false; }

  Tensor forward(const Tensor& tokens, State* state = nullptr, Generator* = nullptr,
                 const Tensor& padding = {}) override {
    StateUpdate update("toy", state, tokens, padding);
    const RotaryPositions at{.offset = update.offset(), .first_key = update.first_key(), .end_key = update.end_key()};
    Tensor x = embedding_->forward(tokens);
    for (size_t i = 0; i < qkv_.size(); ++i) {
      const Tensors packed = split(qkv_[i]->forward(x), 2, {kWidth, kWidth, kWidth});
      const auto heads = [&](size_t part) {
        return reshape(packed[part], {tokens.size(0), tokens.size(1), kHeads, kChannels});
      };
      const auto rotated = [&](size_t part) { return rotary(heads(part), table_, RotaryPairs::halves, at); };
      const auto [keys, values] = update.append(str("layers.", i), rotated(1), heads(2));
      const Tensor seen =
          attention(rotated(0), keys, values, {.first_key = update.first_key(), .end_key = update.end_key()});
      x = x + reshape(seen, x.shape());
    }
    update.commit();
    return to_logits_->forward(x);
  }

  void visit(Visitor& visitor) override {
    visitor.child("embedding", *embedding_);
    for (size_t i = 0; i < qkv_.size(); ++i) visitor.child(str("layers.", i), *qkv_[i]);
    visitor.child("to_logits", *to_logits_);
  }

 private:
  std::optional<Embedding> embedding_;
  std::array<std::optional<Linear>, 2> qkv_;
  std::optional<Linear> to_logits_;
  Tensor table_;
};

}  // namespace

TEST_CASE("a model with caches streams, hands gradients through them, and goes on from a file", "[cache][streaming]") {
  Toy model(DType::f64);
  test::check_model_streaming(model, 1e-12);
  test::check_gradients_through_state(model, 1e-11);
  test::check_state_through_file(model);
  test::check_model_gradients(model, test::tokens_of(model, {2, 3}));
}

TEST_CASE("caches grow by doubling, or have the room that was asked for, and keep their place", "[cache]") {
  Toy model(DType::f64);
  State state, roomy;
  roomy.reserve(40);
  for (State* each : {&state, &roomy}) model.forward(test::tokens_of(model, {2, 5}), each);
  std::string names;
  for (const NamedTensor& entry : state.tensors()) names += entry.name + " ";
  CHECK(names == "steps layers.0.keys layers.0.values layers.1.keys layers.1.values ");
  CHECK(state.find("layers.0.keys").shape() == Shape{2, 5, kHeads, kChannels});
  CHECK(roomy.find("layers.0.keys").shape() == Shape{2, 40, kHeads, kChannels});
  CHECK(roomy.room() == 35);
  const void* place = roomy.find("layers.1.values").raw();
  for (int i = 0; i < 35; ++i) {
    const Tensor token = test::tokens_of(model, {2, 1}, static_cast<uint64_t>(i));
    test::check_identical(model.forward(token, &roomy), model.forward(token, &state));
  }
  CHECK(roomy.find("layers.1.values").raw() == place);
  CHECK(state.find("layers.0.keys").size(1) == 40);  // 5, 10, 20, 40
  CHECK(state.steps() == 40);
  CHECK(state.find("steps").to_vector<int64_t>() == std::vector<int64_t>{40, 40});
}

TEST_CASE("a snapshot of a state with caches goes on as if it were alone", "[cache]") {
  Toy model(DType::f64);
  const auto tokens = [&](int64_t time, uint64_t seed) { return test::tokens_of(model, {2, time}, seed); };
  State one;
  one.reserve(50);
  model.forward(tokens(4, 1), &one);
  State other = one;  // shares the memory of the caches
  const Tensor first = model.forward(tokens(3, 2), &one);
  const Tensor second = model.forward(tokens(3, 3), &other);
  const Tensor rest = tokens(6, 4);
  const auto alone = [&](uint64_t seed) { return model.forward(concat({tokens(4, 1), tokens(3, seed), rest}, 1)); };
  test::check_close_in_norm(model.forward(rest, &one), slice(alone(2), 1, 7, 13), 1e-12);
  test::check_close_in_norm(model.forward(rest, &other), slice(alone(3), 1, 7, 13), 1e-12);
  test::check_close_in_norm(first, slice(alone(2), 1, 4, 7), 1e-12);
  test::check_close_in_norm(second, slice(alone(3), 1, 4, 7), 1e-12);
}

TEST_CASE("prompts of different lengths go through caches as each alone", "[cache][padding]") {
  Toy model(DType::f64);
  const std::vector<std::vector<int64_t>> prompts{{1, 2, 3}, {4}, {5, 6, 7, 8, 9, 10, 0}};
  const PaddedTokens batch = pad_left(prompts);
  State together;
  Tensor logits = model.forward(batch.tokens, &together, nullptr, batch.padding);
  std::vector<State> alone(3);
  for (int64_t step = 0; step < 5; ++step) {
    for (int64_t row = 0; row < 3; ++row) {
      CAPTURE(step, row);
      const auto& prompt = prompts[static_cast<size_t>(row)];
      const Tensor tokens = step == 0 ? Tensor::from(prompt, {1, std::ssize(prompt)})
                                      : Tensor::full({1, 1}, static_cast<double>(step), DType::i64);
      const Tensor expected = model.forward(tokens, &alone[static_cast<size_t>(row)]);
      test::check_close_in_norm(slice(slice(logits, 0, row, row + 1), 1, -tokens.size(1), logits.size(1)), expected,
                                1e-12);
    }
    logits = model.forward(Tensor::full({3, 1}, static_cast<double>(step + 1), DType::i64), &together);
  }
}

TEST_CASE("a state with caches that does not fit is refused, and stays as it was", "[cache]") {
  Toy model(DType::f64);
  State state;
  model.forward(test::tokens_of(model, {2, 5}), &state);
  CHECK_THROWS_WITH(model.forward(test::tokens_of(model, {3, 1}), &state),
                    ContainsSubstring("toy: the state's 'steps' is i32[2]"));
  State foreign;
  foreign.set("hidden", Tensor::ones({2, 3}));
  CHECK_THROWS_WITH(model.forward(test::tokens_of(model, {2, 1}), &foreign), ContainsSubstring("has no 'steps'"));
  CHECK(state.steps() == 5);
  CHECK(state.room() == 0);
}

TEST_CASE("a decoder with caches goes past their room, and starts again with a longer prompt", "[cache][decoder]") {
  Toy model(DType::f64);
  Decoder decoder(model, 2);
  for (const int64_t prompt : {3, 7}) {
    const Tensor tokens = test::tokens_of(model, {2, prompt + 300});
    Tensor logits = decoder.prefill(slice(tokens, 1, 0, prompt));
    for (int64_t t = prompt; t < prompt + 300; ++t) logits = decoder.step(contiguous(select(tokens, 1, t)));
    const Tensor whole = model.forward(tokens);
    test::check_close_in_norm(logits.to(DType::f64), contiguous(select(whole, 1, -1)), 1e-6);
  }
}

TEST_CASE("a captured decoder with caches has the bits of an eager one", "[cache][decoder][cuda][graph]") {
  if (!test::cuda_or_skip()) return;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Toy model(dtype, test::kCuda), host(DType::f32);
    const PaddedTokens batch = pad_left({{1, 2, 3}, {4, 5, 6, 7, 8}});
    const auto follow = [&](LanguageModel& of, bool graph) {
      Decoder decoder(of, 2, graph);
      Tensors logits;
      for (int turn = 0; turn < 2; ++turn) {
        logits.push_back(
            decoder.prefill(turn ? slice(batch.tokens, 1, 2, 5) : batch.tokens, turn ? Tensor() : batch.padding)
                .clone());
        for (int64_t t = 0; t < 280; ++t)
          logits.push_back(decoder.step(Tensor::full({2}, static_cast<double>(t % kTokens), DType::i64)).clone());
      }
      return stack(logits, 1);
    };
    const Tensor captured = follow(model, true);
    test::check_identical(captured, follow(model, false));
    test::check_close_in_norm(captured, follow(host, false), dtype == DType::f32 ? 1e-4 : 5e-2);
  }
}

}  // namespace monoid
