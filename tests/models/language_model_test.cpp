#include "monoid/models/language_model.h"

#include "monoid/models/catalog.h"
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

}  // namespace monoid
