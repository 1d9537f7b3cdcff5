#include "monoid/models/import.h"

#include <filesystem>

#include "monoid/core/random.h"
#include "monoid/core/safetensors.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {
namespace {

const std::string kMinLm = "lucidrains/minGRU-pytorch minLM";

struct Renamed {
  std::string reference, ours;
  Shape reference_shape, our_shape;
};

std::map<std::string, Tensor> tensors(const std::vector<std::pair<std::string, Shape>>& entries) {
  Generator generator(1);
  std::map<std::string, Tensor> made;
  for (const auto& [name, shape] : entries) made[name] = random_normal(shape, generator);
  return made;
}

}  // namespace

TEST_CASE("minLM's parameters are found under the reference's names and shapes, and go back to them", "[import]") {
  const ImportTable& table = import_table(kMinLm);
  for (const Renamed& pair : std::vector<Renamed>{
           {"token_emb.weight", "embedding.weight", {5, 2}, {5, 2}},
           {"layers.10.0.net.0.weight", "layers.10.conv.depthwise.weight", {2, 1, 3}, {2, 3}},
           {"layers.10.0.net.0.bias", "layers.10.conv.depthwise.bias", {2}, {2}},
           {"layers.10.0.net.1.weight", "layers.10.conv.pointwise.weight", {2, 2, 1}, {2, 2}},
           {"layers.10.2.to_hidden_and_gate.weight", "layers.10.mixer.to_hidden_and_gate.weight", {6, 2}, {6, 2}},
           {"layers.3.4.2.bias", "layers.3.feed_forward.down.bias", {2}, {2}},
           {"layers.3.1.weight", "layers.3.mixer_norm.weight", {2}, {2}},
           {"norm.weight", "norm.weight", {2}, {2}},
       }) {
    CAPTURE(pair.reference);
    const auto reference = tensors({{pair.reference, pair.reference_shape}});
    const auto ours = import_tensors(table, reference);
    REQUIRE(ours.contains(pair.ours));
    CHECK(ours.at(pair.ours).shape() == pair.our_shape);
    const auto back = export_tensors(table, {{pair.ours, ours.at(pair.ours)}});
    REQUIRE(back.contains(pair.reference));
    test::check_identical(back.at(pair.reference), reference.at(pair.reference));
  }
}

TEST_CASE("a star stands for one part of a name, and names without a rule stay as they are", "[import]") {
  const auto ours = import_tensors(
      import_table(kMinLm), tensors({{"layers.0.1.2.1.weight", {1}}, {"layers.0.9.weight", {1}}, {"norm", {1}}}));
  CHECK(ours.contains("layers.0.mixer_norm.2.1.weight"));  // below layers.0.1., not layers.(0.1).2.
  CHECK(ours.contains("layers.0.9.weight"));
  CHECK(ours.contains("norm"));
}

TEST_CASE("several tensors of a reference become one packed tensor, and go back", "[import]") {
  const std::string source = "Fritschek/MinGRU-x-Mamba WrappedMinGRU";
  const ImportTable& table = import_table(source);
  auto reference = tensors({{"layers.0.bwd.linear_z.weight", {3, 2}},
                            {"layers.0.bwd.linear_h.weight", {3, 2}},
                            {"layers.1.linear_h.bias", {3}},
                            {"layers.1.linear_z.bias", {3}}});
  const auto ours = import_tensors(table, reference);
  CHECK(ours.size() == 2);
  const Tensor weight = ours.at("layers.0.bwd.to_hidden_and_gate.weight");
  REQUIRE(weight.shape() == Shape{6, 2});
  CHECK(ours.at("layers.1.to_hidden_and_gate.bias").shape() == Shape{6});
  // The candidate state first, then the gate.
  test::check_identical(slice(weight, 0, 0, 3), reference.at("layers.0.bwd.linear_h.weight"));
  test::check_identical(slice(weight, 0, 3, 6), reference.at("layers.0.bwd.linear_z.weight"));

  std::vector<NamedTensor> all;
  for (const auto& [name, value] : ours) all.push_back({name, value});
  const auto back = export_tensors(table, all);
  for (const auto& [name, value] : reference) test::check_identical(back.at(name), value);

  CHECK_THROWS_WITH(export_tensors(table, {{"layers.1.to_hidden_and_gate.bias", Tensor::ones({5})}}),
                    ContainsSubstring("f32[5], wanted 2 equal pieces"));
  reference.erase("layers.1.linear_h.bias");
  CHECK_THROWS_WITH(import_tensors(table, reference),
                    ContainsSubstring("'layers.1.to_hidden_and_gate.bias' is 2 tensors") &&
                        ContainsSubstring("number 0 of them is missing"));
}

TEST_CASE("tensors listed as ignored are dropped", "[import]") {
  const ImportTable table{.source = "test", .model = "", .rules = {{"a.", "b."}}, .ignored = {"a.*.beta", "unused."}};
  const auto ours = import_tensors(table, tensors({{"a.0.beta", {1}}, {"a.0.gamma", {1}}, {"unused.x.y", {1}}}));
  CHECK(ours.size() == 1);
  CHECK(ours.contains("b.0.gamma"));
}

TEST_CASE("echoes of other tensors are checked on the way in and made again on the way out", "[import]") {
  using Kind = ImportEcho::Kind;
  struct Two : Module {
    Tensor gamma = Tensor::zeros({2}).set_requires_grad(), embedding = Tensor::zeros({3, 2}).set_requires_grad();
    void visit(Visitor& visitor) override {
      visitor.parameter("norm.gamma", gamma);
      visitor.parameter("embedding", embedding);
    }
  };
  const ImportTable table{.source = "test",
                          .model = "",
                          .rules = {{"layers.0.gamma", "norm.gamma"}, {"wte", "embedding"}, {"head", "head"}},
                          .ignored = {},
                          .echoes = {{"layers.*.beta", "layers.*.gamma", Kind::zeros}, {"head", "wte"}}};
  auto reference = tensors({{"layers.0.gamma", {2}}, {"wte", {3, 2}}});
  Two module;
  load_reference(module, table, reference);  // a file may leave echoes out
  reference["layers.0.beta"] = Tensor::zeros({2});
  reference["head"] = reference["wte"].clone();
  load_reference(module, table, reference);
  const auto back = export_reference(module, table);
  CHECK(back.size() == 4);
  for (const auto& [name, value] : reference) test::check_identical(back.at(name), value);

  const auto error = [&](const char* name, const Tensor& value) {
    auto changed = reference;
    if (value.defined()) changed[name] = value;
    if (!value.defined()) changed.erase(name);
    try {
      load_reference(module, table, changed);
    } catch (const Error& thrown) {
      return thrown.message();
    }
    return std::string("no error");
  };
  CHECK_THAT(error("layers.0.beta", Tensor::ones({2})), ContainsSubstring("'layers.0.beta' is not all zero"));
  CHECK_THAT(error("head", Tensor::ones({3, 2})), ContainsSubstring("'head' is not equal to 'wte'"));
  CHECK_THAT(error("head", Tensor::ones({2})), ContainsSubstring("'head' is not equal to 'wte'"));
  CHECK_THAT(error("wte", Tensor()), ContainsSubstring("there is 'head' but no 'wte'"));
}

TEST_CASE("the parameters of every golden file go in and come back under the reference's names", "[import]") {
  for (const auto& file : std::filesystem::directory_iterator(std::string(MONOID_SOURCE_DIR) + "/tests/goldens")) {
    const SafeTensors golden = read_safetensors(file.path());
    const ImportTable& table = import_table(golden.metadata.at("source"));
    std::map<std::string, Tensor> reference;
    for (const auto& [name, tensor] : golden.tensors) {
      const std::string own = name.starts_with("param/") ? name.substr(6) : "";
      if (!own.empty() && !is_echo(table, own)) reference[own] = tensor;
    }
    for (const ImportEcho& echo : table.echoes) reference.erase(echo.reference);
    std::vector<NamedTensor> ours;
    for (const auto& [name, tensor] : import_tensors(table, reference)) ours.push_back({name, tensor});
    const auto back = export_tensors(table, ours);
    CAPTURE(file.path());
    CHECK(back.size() >= 2);
    for (const auto& [name, tensor] : back) {
      CAPTURE(name);
      REQUIRE(reference.contains(name));
      test::check_identical(tensor, reference.at(name));
    }
  }
}

TEST_CASE("an unknown source lists the known ones; an unknown name cannot be exported", "[import]") {
  CHECK_THROWS_WITH(import_table("lucidrains/nothing"),
                    ContainsSubstring("unknown source 'lucidrains/nothing'") && ContainsSubstring(kMinLm));
  CHECK_THROWS_WITH(export_tensors(import_table(kMinLm), {{"strange", Tensor::ones({1})}}),
                    ContainsSubstring("no name for 'strange'"));
  CHECK_THROWS_WITH(import_tensors(import_table(kMinLm), tensors({{"layers.0.0.net.0.weight", {2, 2, 3}}})),
                    ContainsSubstring("layers.0.0.net.0.weight is f32[2, 2, 3]"));
}

}  // namespace monoid
