#include <cmath>
#include <nlohmann/json.hpp>

#include "monoid/core/safetensors.h"
#include "monoid/tests/tools/process.h"

using namespace monoid;
using namespace monoid::test;

namespace {

using Json = nlohmann::ordered_json;

std::vector<double> losses(const std::filesystem::path& run) {
  std::vector<double> found;
  std::istringstream lines(read_file(run / "log.jsonl"));
  for (std::string line; std::getline(lines, line);) found.push_back(Json::parse(line)["train_loss"]);
  return found;
}

}  // namespace

TEST_CASE("a run that carries its state goes on bit for bit, past the ends of its streams too", "[tools][train]") {
  const TemporaryFolder folder;
  // 2700 tokens in 2 streams of 16 at a time: 84 pieces.
  const Arguments flags{"--carry-state", "true", "--eval-every", "0", "--dropout", "0.1", "--decay-steps", "100"};
  const auto with = [&](Arguments more) {
    more.insert(more.begin(), flags.begin(), flags.end());
    return more;
  };
  run_well("train", tiny_run(folder, "whole", with({"--steps", "100"})));
  run_well("train", tiny_run(folder, "parts", with({"--steps", "40"})));
  const SafeTensors state = read_safetensors(folder / "parts/checkpoint/state.safetensors");
  CHECK(state.tensors.at("layers.1.hidden").shape() == Shape{2, 12});
  CHECK(Json::parse(read_file(folder / "parts/checkpoint/trainer.json"))["position"] == 40);
  for (const char* steps : {"84", "90", "100"})
    run_well("train", {"--resume", "--out", folder / "parts", "--steps", steps});
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.safetensors", "trainer.json"}) {
    CAPTURE(file);
    CHECK((read_file(folder / "whole/checkpoint" / file) == read_file(folder / "parts/checkpoint" / file)));
  }
  CHECK(losses(folder / "whole") == losses(folder / "parts"));
  run_badly("train", {"--resume", "--out", folder / "parts", "--steps", "120", "--carry-state", "false"},
            {"--resume", "carry-state"});
  std::filesystem::remove(folder / "parts/checkpoint/state.safetensors");
  run_badly("train", {"--resume", "--out", folder / "parts", "--steps", "120"}, {"has no state.safetensors"});
}

TEST_CASE("crops in segments train, and see more than their segments alone", "[tools][train]") {
  const TemporaryFolder folder;
  // One step that changes nothing: its loss is that of the fresh model.
  const auto loss = [&](const char* name, const Arguments& more) {
    Arguments flags{"--steps", "1", "--lr", "0", "--min-lr", "0"};
    flags.insert(flags.end(), more.begin(), more.end());
    run_well("train", tiny_run(folder, name, flags));
    return losses(folder / name)[0];
  };
  const double whole = loss("whole", {});
  CHECK(loss("segments", {"--segments", "4"}) == Approx(whole).epsilon(1e-5));  // the state bridges the borders
  run_well("train", tiny_run(folder, "run", {"--steps", "10", "--segments", "2", "--grad-accum", "2"}));
  const std::vector<double> run = losses(folder / "run");
  CHECK(run.back() < run.front());
  run_badly("train", tiny_run(folder, "odd", {"--segments", "5"}), {"--segments 5 does not divide --context 16"});
  run_badly("train", tiny_run(folder, "both", {"--segments", "2", "--carry-state", "true"}),
            {"--carry-state", "use one"});
  run_badly("train", tiny_run(folder, "whole", {"--segments", "2", "--recompute", "true"}),
            {"--recompute is given with --segments"});
  run_badly("train", tiny_run(folder, "none", {"--segments", "0"}), {"--segments is 0"});
  run_badly("train", tiny_run(folder, "rate", {"--start-lr", "-2"}), {"--start-lr is -2"});
}

TEST_CASE("a model that remembers every token cannot carry its state for ever, and says so", "[tools][train]") {
  const TemporaryFolder folder;
  write_file(folder / "text.txt", some_text(3000));
  const Arguments flags{"--model",         "hybridlm",
                        "--data",          folder / "text.txt",
                        "--out",           folder / "run",
                        "--steps",         "2",
                        "--set",           "dim=8",
                        "--set",           "depth=1",
                        "--set",           "heads=2",
                        "--set",           "dim_head=4",
                        "--batch-size",    "2",
                        "--context",       "16",
                        "--sample-length", "4"};
  const auto with = [&](Arguments more) {
    more.insert(more.begin(), flags.begin(), flags.end());
    return more;
  };
  run_badly("train", with({"--carry-state", "true"}), {"--carry-state: hybridlm remembers every token it has read"});
  run_well("train", with({"--segments", "2"}));  // within a crop it can
}

TEST_CASE("the learning rate may start above zero", "[tools][train]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "run", {"--steps", "3", "--start-lr", "4e-4", "--lr", "8e-4", "--warmup", "2"}));
  std::istringstream lines(read_file(folder / "run/log.jsonl"));
  std::string first, second;
  std::getline(lines, first);
  std::getline(lines, second);
  CHECK(Json::parse(first)["lr"] == Approx(4e-4));
  CHECK(Json::parse(second)["lr"] == Approx(6e-4));
}

TEST_CASE("a preset is found by its name or by its model's, and the error lists them", "[tools][train]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "tiny", {"--preset", "tiny", "--steps", "1"}));
  CHECK(Json::parse(read_file(folder / "tiny/config.json"))["warmup"] == 2);
  const std::string config = read_file(folder / "tiny/config.json");
  CHECK(Json::parse(config)["eval-every"] == 250);  // of minlm-tiny
  run_badly("train", {"--preset", "huge"}, {"there is no 'huge' and no 'minlm-huge'", "the presets are", "minlm-tiny"});
}
