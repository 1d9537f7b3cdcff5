#include "monoid/models/language_model.h"

#include "monoid/core/memory.h"
#include "monoid/core/tape.h"
#include "monoid/models/catalog.h"
#include "monoid/tests/models/model_support.h"
#include "monoid/tests/support/catch.h"

namespace monoid {

TEST_CASE("every model's optimizer groups hold each trained tensor once", "[models][optimizer]") {
  for (const std::string& name : model_names()) {
    CAPTURE(name);
    Generator init(1);
    const auto model = make_model(name, "{}", init);
    const auto groups = model->parameter_groups({.weight_decay = 0.1, .clip = 1, .context = 64});
    size_t grouped = 0;
    for (const ParameterGroup& group : groups) grouped += group.parameters.size();
    CHECK(grouped == parameters(*model).size());
    AdamW(groups, {});  // refuses a tensor that is in two, and two groups of one name
    for (const ParameterGroup& group : model->parameter_groups({.clip = 0})) CHECK(group.clip_norm == 0);
  }
}

TEST_CASE("matrices decay, gains and biases do not, and one limit is for all gradients", "[models][optimizer]") {
  Generator init(1);
  const auto model = make_model("minlm", R"({"dim": 6, "depth": 1})", init);
  const auto groups = model->parameter_groups({.weight_decay = 0.25, .clip = 1});
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].weight_decay == 0.25);
  CHECK(groups[1].weight_decay == 0.0);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(groups[i].clip_norm == 0);
    CHECK(groups[i].learning_rate_scale == 1);
    for (const Tensor& parameter : groups[i].parameters) CHECK((parameter.rank() >= 2) == (i == 0));
  }
}

TEST_CASE("layers recomputed in backward give the same bits from less memory, dropout included",
          "[models][recompute]") {
  for (const std::string& name : model_names()) {
    CAPTURE(name);
    Generator init(1);
    const auto model = make_model(name, name == "minlm" ? R"({"dropout": 0.2})" : "{}", init);
    if (name == "block-recurrent") {
      CHECK_THROWS_WITH(model->recompute_layers(true), ContainsSubstring("cannot be run again one by one"));
      continue;
    }
    struct Found {
      Tensor loss;
      Tensors gradients;
      uint64_t offset;
      size_t peak;
    };
    const auto run = [&](bool recompute) {
      model->recompute_layers(recompute);
      zero_grad(*model);
      Generator random(5);
      reset_peak_memory();
      const size_t before = memory_stats().allocated;
      Tape tape;
      const Tensor loss =
          model->loss(test::tokens_of(*model, {2, 192}), test::tokens_of(*model, {2, 192}, 3), nullptr, &random);
      const size_t peak = memory_stats().peak_allocated - before;
      tape.backward(loss);
      return Found{loss, test::gradients(*model), random.offset(), peak};
    };
    const Found kept = run(false), again = run(true);
    test::check_identical(again.loss, kept.loss);
    CHECK(again.offset == kept.offset);
    for (size_t i = 0; i < kept.gradients.size(); ++i) {
      REQUIRE(again.gradients[i].defined() == kept.gradients[i].defined());
      if (kept.gradients[i].defined()) test::check_identical(again.gradients[i], kept.gradients[i]);
    }
    CHECK(again.peak < kept.peak / 2);
  }
}

}  // namespace monoid
