#include "monoid/models/config.h"

#include "monoid/models/catalog.h"
#include "monoid/models/min_lm.h"
#include "monoid/tests/support/catch.h"

namespace monoid {
namespace {

struct Everything {
  static constexpr const char* kType = "everything";
  bool flag = false;
  int64_t count = 1;
  double rate = 0.5;
  std::string name = "plain";
  std::optional<int64_t> heads;
  std::optional<bool> maybe = true;
  std::vector<int64_t> layers{4, 9};
  std::vector<std::string> kinds{"mru"};

  void visit(ConfigVisitor& visitor) {
    visitor.key("flag", flag);
    visitor.key("count", count);
    visitor.key("rate", rate);
    visitor.key("name", name);
    visitor.key("heads", heads);
    visitor.key("maybe", maybe);
    visitor.key("layers", layers);
    visitor.key("kinds", kinds);
  }
  void validate() const {}
};

std::string parse_error(const std::string& json) {
  try {
    parse_config<Everything>(json);
  } catch (const Error& error) {
    return error.message();
  }
  return "no error";
}

std::string min_lm_error(const std::string& json) {
  Generator init(0);
  try {
    make_model("minlm", json, init);
  } catch (const Error& error) {
    return error.message();
  }
  return "no error";
}

}  // namespace

TEST_CASE("a configuration of every type goes through JSON and back", "[config]") {
  const Everything config{.flag = true,
                          .count = -3,
                          .rate = 0.1,
                          .name = "a \"quoted\" name",
                          .heads = 8,
                          .maybe = std::nullopt,
                          .layers = {},
                          .kinds = {"attn", "mlp"}};
  const std::string json = to_json(config);
  CHECK(to_json(parse_config<Everything>(json)) == json);
  const Everything back = parse_config<Everything>(json);
  CHECK(back.rate == 0.1);
  CHECK(back.heads == 8);
  CHECK_FALSE(back.maybe.has_value());
  CHECK(back.kinds == std::vector<std::string>{"attn", "mlp"});
  CHECK(parse_config<Everything>("{}").layers == std::vector<int64_t>{4, 9});
  CHECK(parse_config<Everything>(R"({"rate": 2})").rate == 2);
}

TEST_CASE("a configuration that cannot be read says which key, what it saw and what it wanted", "[config]") {
  CHECK(parse_error(R"({"conut": 3})") == "everything: unknown config key 'conut'; did you mean 'count'?");
  CHECK_THAT(parse_error(R"({"zzzzzzzzzz": 3})"), ContainsSubstring("the keys are flag, count, rate"));
  CHECK(parse_error(R"({"count": 4.5})") == "everything: config key 'count' is 4.5, wanted an integer");
  CHECK(parse_error(R"({"count": "4"})") == "everything: config key 'count' is \"4\", wanted an integer");
  CHECK(parse_error(R"({"count": true})") == "everything: config key 'count' is true, wanted an integer");
  CHECK_THAT(parse_error(R"({"count": 18446744073709551615})"), ContainsSubstring("wanted an integer"));
  CHECK(parse_error(R"({"flag": 1})") == "everything: config key 'flag' is 1, wanted true or false");
  CHECK(parse_error(R"({"heads": "x"})") == "everything: config key 'heads' is \"x\", wanted an integer or null");
  CHECK(parse_error(R"({"layers": [1, "x"]})") ==
        "everything: config key 'layers' is [1,\"x\"], wanted a list, each an integer");
  CHECK_THAT(parse_error("[1]"), ContainsSubstring("everything: the config is not a JSON object: [1]"));
  CHECK_THAT(parse_error("{\"count\": "), ContainsSubstring("not a JSON object"));
}

TEST_CASE("the catalog knows every model's keys, and unknown models by their nearest name", "[catalog]") {
  REQUIRE_FALSE(model_names().empty());
  CHECK(model_names().front() == "minlm");
  for (const std::string& name : model_names()) {
    CAPTURE(name);
    CHECK_FALSE(model_summary(name).empty());
    for (const std::string& key : {vocabulary_key(name), dropout_key(name)})
      CHECK_THAT(default_config(name), ContainsSubstring(key.empty() ? "{" : str('"', key, "\":")));
  }
  Generator init(0);
  CHECK_THROWS_WITH(make_model("minml", "{}", init), ContainsSubstring("unknown model 'minml'; did you mean 'minlm'?"));
  CHECK_THROWS_WITH(default_config("transformer-xxl"), ContainsSubstring("the models are minlm"));
}

TEST_CASE("minLM refuses values out of range by name", "[catalog]") {
  CHECK(min_lm_error(R"({"dim": 0})") == "minlm: dim is 0, wanted 1 to 2147483647");
  CHECK_THAT(min_lm_error(R"({"depth": -1})"), ContainsSubstring("minlm: depth is -1"));
  CHECK_THAT(min_lm_error(R"({"num_tokens": 0})"), ContainsSubstring("minlm: num_tokens is 0"));
  CHECK_THAT(min_lm_error(R"({"conv_kernel_size": 0})"), ContainsSubstring("minlm: conv_kernel_size is 0"));
  CHECK(min_lm_error(R"({"dropout": 1})") == "minlm: dropout is 1, wanted 0 <= dropout < 1");
  CHECK_THAT(min_lm_error(R"({"dropout": -0.1})"), ContainsSubstring("dropout is -0.1"));
  CHECK(min_lm_error(R"({"dim": 2, "expansion": 0.3})") == "minlm: dim * expansion is 0.6, wanted 1 to 2147483647");
  CHECK_THAT(min_lm_error(R"({"ff_mult": 1e300})"), ContainsSubstring("minlm: dim * ff_mult is"));
  CHECK_THAT(min_lm_error(R"({"use_lsmt": true})"), ContainsSubstring("did you mean 'use_lstm'?"));
}

}  // namespace monoid
