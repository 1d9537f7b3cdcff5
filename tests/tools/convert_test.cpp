#include "monoid/tools/convert/convert.h"
#include "monoid/core/error.h"
#include "monoid/core/safetensors.h"
#include "monoid/models/checkpoint.h"
#include "monoid/models/import.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/tools/process.h"

using namespace monoid;
using namespace monoid::test;

namespace fs = std::filesystem;

namespace {

const fs::path kGoldens = fs::path(MONOID_SOURCE_DIR) / "tests/goldens";

// What a golden file says of its parameters, as a PyTorch user would have saved them.
SafeTensors parameters_of(const SafeTensors& golden) {
  SafeTensors content;
  for (const auto& [name, tensor] : golden.tensors) {
    if (name.starts_with("param/")) content.tensors[name.substr(6)] = tensor;
  }
  return content;
}

}  // namespace

TEST_CASE("checkpoints of every reference go in and come back bit for bit", "[tools][convert]") {
  const TemporaryFolder folder;
  int converted = 0;
  for (const auto& file : fs::directory_iterator(kGoldens)) {
    const SafeTensors golden = read_safetensors(file.path());
    if (import_table(golden.metadata.at("source")).model.empty()) continue;
    const std::string name = file.path().stem();
    CAPTURE(name);
    SafeTensors original = parameters_of(golden);
    original.metadata = {{"config", golden.metadata.at("config")}, {"source", golden.metadata.at("source")}};
    write_safetensors(folder / (name + ".safetensors"), original);
    CHECK_THAT(run_well("convert", {folder / (name + ".safetensors"), "--out", folder / name}),
               ContainsSubstring("-> checkpoint " + (folder / name).string()));
    // The file that comes back knows its source and arguments, and gives the same checkpoint again.
    run_well("convert", {folder / name, "--out", folder / "back.safetensors", "--overwrite"});
    const SafeTensors back = read_safetensors(folder / "back.safetensors");
    const ImportTable& table = import_table(golden.metadata.at("source"));
    for (const auto& [tensor_name, tensor] : back.tensors) {
      CAPTURE(tensor_name);
      REQUIRE(original.tensors.contains(tensor_name));
      check_identical(tensor, original.tensors.at(tensor_name));
    }
    CHECK(back.tensors.size() + (table.ignored.empty() ? 0 : original.tensors.size()) >= original.tensors.size());
    run_well("convert", {folder / "back.safetensors", "--out", folder / "again", "--overwrite"});
    CHECK((read_file(folder / "again/model.safetensors") == read_file(folder / name / "model.safetensors")));
    CHECK(read_file(folder / "again/config.json") == read_file(folder / name / "config.json"));
    ++converted;
  }
  CHECK(converted >= 3);
}

TEST_CASE("the source, the arguments and a prefix are found or given, and a vocabulary makes it speak",
          "[tools][convert]") {
  const TemporaryFolder folder;
  const SafeTensors golden = read_safetensors(kGoldens / "minlm_lstm.safetensors");
  SafeTensors plain;
  for (const auto& [name, tensor] : parameters_of(golden).tensors) plain.tensors["module." + name] = tensor;
  plain.tensors["epoch"] = Tensor::ones({1});
  write_safetensors(folder / "plain.safetensors", plain);
  const fs::path file = folder / "plain.safetensors";
  run_badly("convert", {file, "--out", folder / "out", "--prefix", "module."}, {"does not say", "--config FILE"});
  write_file(folder / "config.json", golden.metadata.at("config"));
  CHECK_THAT(run_well("convert", {file, "--out", folder / "out", "--prefix", "module."}),
             ContainsSubstring("minlm, ") && ContainsSubstring("lucidrains/minGRU-pytorch minLM"));
  run_badly("convert", {file, "--out", folder / "out", "--prefix", "module."}, {"exists already", "--overwrite"});

  // The original arguments of a file win over those beside it, and Hugging Face's own keys are passed over.
  write_file(folder / "mine.json",
             R"({"model_type": "x", "torch_dtype": "float32", "num_tokens": 17, "dim": 24, "depth":
                                       2, "ff_mult": 2, "expansion": 1.5, "use_lstm": true})");
  write_file(folder / "vocab.json",
             R"({"kind": "char", "characters": ["\n", "a", "b", "c", "d", "e", "f", "g", "h", "i",
                                        "j", "k", "l", "m", "n", "o", "p"]})");
  run_well("convert", {file, "--out", folder / "speaks", "--prefix", "module.", "--config", folder / "mine.json",
                       "--vocab", folder / "vocab.json", "--source", "lucidrains/minGRU-pytorch minLM"});
  CHECK(run_well("generate", {"--checkpoint", folder / "speaks", "--prompt", "abc", "--length", "7"}).size() == 11);
  run_badly("convert", {file, "--out", folder / "no", "--prefix", "module.", "--vocab", "byte"},
            {"--vocab byte has 256 tokens and the model 17"});
  CHECK_FALSE(fs::exists(folder / "no"));
}

TEST_CASE("convert keeps the dtype of what it reads", "[tools][convert]") {
  const TemporaryFolder folder;
  const SafeTensors golden = read_safetensors(kGoldens / "minlm_gru.safetensors");
  for (const DType dtype : {DType::bf16, DType::f64}) {
    SafeTensors content = parameters_of(golden);
    for (auto& [name, tensor] : content.tensors) tensor = tensor.to(dtype);
    content.metadata["config"] = golden.metadata.at("config");
    write_safetensors(folder / "in.safetensors", content);
    run_well("convert", {folder / "in.safetensors", "--out", folder / "model", "--overwrite"});
    CHECK(monoid::parameters(*load_model(folder / "model")).front().value.dtype() == dtype);
  }
}

TEST_CASE("convert explains what does not fit", "[tools][convert]") {
  const TemporaryFolder folder;
  const SafeTensors golden = read_safetensors(kGoldens / "minlm_gru.safetensors");
  const auto refuse = [&](const Arguments& more, const std::vector<std::string>& parts, auto change) {
    SafeTensors content = parameters_of(golden);
    content.metadata = {{"config", golden.metadata.at("config")}, {"source", golden.metadata.at("source")}};
    change(content);
    write_safetensors(folder / "in.safetensors", content);
    Arguments arguments{folder / "in.safetensors", "--out", folder / "out"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    run_badly("convert", arguments, parts);
    CHECK_FALSE(fs::exists(folder / "out"));
  };
  const auto nothing = [](SafeTensors&) {};
  refuse({}, {"missing: norm.weight [24]"}, [](SafeTensors& content) { content.tensors.erase("norm.weight"); });
  refuse({}, {"unexpected: extra [1]"}, [](SafeTensors& content) { content.tensors["extra"] = Tensor::ones({1}); });
  refuse({}, {"wrong shape: norm.weight is [3], wanted [24]"},
         [](SafeTensors& content) { content.tensors["norm.weight"] = Tensor::ones({3}); });
  refuse({"--source", "lucidrains/minLM"}, {"unknown source 'lucidrains/minLM'", "minGRU-pytorch minLM"}, nothing);
  refuse({"--source", "Fritschek/MinGRU-x-Mamba WrappedMinGRU"}, {"is a layer, and a checkpoint holds"}, nothing);
  refuse({"--prefix", "model."}, {"no tensor below --prefix model."}, nothing);
  refuse({}, {"unknown config key 'dmi'; did you mean 'dim'?"},
         [](SafeTensors& content) { content.metadata["config"] = R"({"dmi": 24})"; });
  refuse({}, {"is not a JSON object"}, [](SafeTensors& content) { content.metadata["config"] = "["; });
  refuse({}, {"no reference has these arguments and tensors", "lucidrains/minGRU-pytorch minLM"},
         [](SafeTensors& content) {
           content.metadata.erase("source");
           content.tensors.erase("norm.weight");
         });
  run_badly("convert", {folder / "missing.safetensors", "--out", folder / "out"},
            {"there is no", "missing.safetensors"});
  write_file(folder / "half.safetensors", "abc");
  run_badly("convert", {folder / "half.safetensors", "--out", folder / "out"}, {"half.safetensors"});
  fs::create_directory(folder / "empty");
  run_badly("convert", {folder / "empty", "--out", folder / "out"}, {"no model.safetensors"});
  run_badly("convert", {folder / "in.safetensors"}, {"--out"});
  CHECK_THAT(run_well("convert", {"--help"}), ContainsSubstring("References:") && ContainsSubstring("minLM"));
}

TEST_CASE("what a run trained goes to the reference's names and comes back", "[tools][convert]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "run", {"--steps", "2"}));
  run_well("convert", {folder / "run", "--out", folder / "run.safetensors"});
  CHECK(read_safetensors(folder / "run.safetensors").tensors.contains("layers.1.0.net.0.weight"));
  run_well("convert",
           {folder / "run.safetensors", "--out", folder / "back", "--vocab", folder / "run/checkpoint/vocab.json"});
  CHECK((read_file(folder / "back/model.safetensors") == read_file(folder / "run/checkpoint/model.safetensors")));
  CHECK((read_file(folder / "back/vocab.json") == read_file(folder / "run/checkpoint/vocab.json")));
}
