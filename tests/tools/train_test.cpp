#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "monoid/core/error.h"
#include "monoid/tests/tools/process.h"

using namespace monoid;
using namespace monoid::test;

namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

std::vector<Json> read_log(const fs::path& run) {
  std::vector<Json> entries;
  std::istringstream lines(read_file(run / "log.jsonl"));
  for (std::string line; std::getline(lines, line);) entries.push_back(Json::parse(line));
  return entries;
}

std::vector<std::string> keys(const Json& object) {
  std::vector<std::string> names;
  for (const auto& [key, value] : object.items()) names.push_back(key);
  return names;
}

// All that a run computes: two runs are the same if these are.
void check_same_run(const fs::path& a, const fs::path& b) {
  for (const char* file :
       {"checkpoint/model.safetensors", "checkpoint/optimizer.safetensors", "checkpoint/trainer.json",
        "checkpoint/vocab.json", "best/model.safetensors", "sample.txt"}) {
    CAPTURE(file);
    const std::string first = read_file(a / file);
    CHECK(!first.empty());
    CHECK((first == read_file(b / file)));
  }
  const std::vector<Json> log_a = read_log(a), log_b = read_log(b);
  REQUIRE(log_a.size() == log_b.size());
  for (size_t i = 0; i < log_a.size(); ++i) {
    Json first = log_a[i], second = log_b[i];
    first.erase("tokens_per_s");
    second.erase("tokens_per_s");
    CHECK(first == second);
  }
}

// Waits until the run has logged a step.
void wait_for_step(const fs::path& run, int64_t step) {
  for (int i = 0; i < 3000; ++i) {
    std::istringstream lines(read_file(run / "log.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const Json entry = Json::parse(line, nullptr, false);
      if (entry.is_object() && entry["step"] >= step) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  FAIL("the run never logged step " << step);
}

}  // namespace

TEST_CASE("a run leaves its config, log, checkpoints and a sample", "[tools][train]") {
  const TemporaryFolder folder;
  const std::string out = run_well("train", tiny_run(folder, "run",
                                                     {"--steps", "6", "--eval-every", "3", "--save-every", "2",
                                                      "--dropout", "0.25", "--log-every", "2"}));
  CHECK_THAT(out, ContainsSubstring("step 2/6  loss "));
  CHECK_THAT(out, ContainsSubstring("tokens/s"));
  CHECK_THAT(out, ContainsSubstring("step 3/6  validation loss "));
  CHECK_THAT(out, ContainsSubstring("peak memory"));
  CHECK(out.find('\r') == std::string::npos);

  const std::vector<Json> log = read_log(folder / "run");
  REQUIRE(log.size() == 4);  // 2, 3 (evaluated), 4, 6 (both)
  const std::vector<std::string> usual{"step", "train_loss", "lr", "grad_norm", "tokens_per_s"};
  std::vector<std::string> evaluated = usual;
  evaluated.insert(evaluated.end(), {"val_loss", "val_bpc"});
  const int64_t steps[] = {2, 3, 4, 6};
  for (size_t i = 0; i < 4; ++i) {
    CHECK(log[i]["step"] == steps[i]);
    CHECK(keys(log[i]) == (i % 2 ? evaluated : usual));
    CHECK(log[i]["tokens_per_s"] > 0);
  }
  CHECK(log[1]["val_bpc"].get<double>() == Approx(log[1]["val_loss"].get<double>() / std::log(2)));

  const Json config = Json::parse(read_file(folder / "run/config.json"));
  CHECK(config["steps"] == 6);
  CHECK(config["lr"] == 1e-3);
  CHECK(config["set"] == Json::parse(R"({"dim": 8, "depth": 2, "enable_conv": true})"));
  CHECK(config["model_config"]["dropout"] == 0.25);
  CHECK(config["model_config"]["dim"] == 8);
  CHECK(config["parameters"] > 0);
  CHECK(read_file(folder / "run/sample.txt").size() == 21);  // 20 characters and the last line break
  for (const char* file : {"checkpoint/config.json", "checkpoint/model.safetensors", "checkpoint/optimizer.safetensors",
                           "checkpoint/trainer.json", "checkpoint/vocab.json", "best/model.safetensors"}) {
    CAPTURE(file);
    CHECK(fs::file_size(folder / "run" / file) > 0);
  }
}

TEST_CASE("training goes on bit for bit from a checkpoint, whatever the threads", "[tools][train]") {
  const TemporaryFolder folder;
  const Arguments flags{"--decay-steps", "20", "--eval-every", "5", "--dropout", "0.2", "--grad-accum", "2"};
  const auto with = [&](Arguments more) {
    more.insert(more.begin(), flags.begin(), flags.end());
    return more;
  };
  run_well("train", tiny_run(folder, "whole", with({"--steps", "20"})));
  run_well("train", tiny_run(folder, "halves", with({"--steps", "10"})));
  // What a crash after the checkpoint would have left.
  write_file(folder / "halves/log.jsonl",
             read_file(folder / "halves/log.jsonl") + R"({"step":11,"train_loss":9})" + "\n" + R"({"step":12,"tra)");
  run_well("train", {"--resume", "--out", folder / "halves", "--steps", "20", "--threads", "3"});
  check_same_run(folder / "whole", folder / "halves");

  run_well("train", tiny_run(folder, "threads", with({"--steps", "20", "--threads", "4"})));
  check_same_run(folder / "whole", folder / "threads");
  run_well("train", tiny_run(folder, "seed", with({"--steps", "20", "--seed", "4"})));
  CHECK(read_log(folder / "seed").back()["train_loss"] != read_log(folder / "whole").back()["train_loss"]);
}

TEST_CASE("a signal saves the run, and it goes on as if nothing had been", "[tools][train]") {
  const TemporaryFolder folder;
  const int signal = GENERATE(SIGINT, SIGTERM);
  const std::string run_folder = folder / "run";
  Process process("train",
                  tiny_run(folder, "run", {"--steps", "1000000", "--decay-steps", "100", "--eval-every", "0"}));
  wait_for_step(run_folder, 3);
  process.kill(signal);
  const ProcessResult result = process.wait();
  CAPTURE(result.out, result.err);
  CHECK(result.code == 128 + signal);
  CHECK_THAT(result.out, ContainsSubstring("go on with --resume"));
  const int64_t step = Json::parse(read_file(run_folder + "/checkpoint/trainer.json"))["step"];
  CHECK(read_log(run_folder).back()["step"] == step);

  const std::string steps = std::to_string(step + 2);
  run_well("train", {"--resume", "--out", run_folder, "--steps", steps});
  run_well("train", tiny_run(folder, "whole", {"--steps", steps, "--decay-steps", "100", "--eval-every", "0"}));
  check_same_run(folder / "whole", folder / "run");
}

TEST_CASE("a loss that is not finite stops the run and spares the last good checkpoint", "[tools][train]") {
  const TemporaryFolder folder;
  run_badly("train", tiny_run(folder, "run", {"--steps", "20", "--lr", "1e30", "--clip", "0", "--save-every", "1"}),
            {"at step ", "so training stops", "the checkpoint of step ", "is good"});
  run_well("generate", {"--checkpoint", folder / "run", "--length", "5", "--prompt", "a"});
  const std::string saved = read_file(folder / "run/checkpoint/trainer.json");
  CHECK(Json::parse(saved)["step"] < 20);
}

TEST_CASE("a model of matrices says so where their products are why training stops", "[tools][train]") {
  const TemporaryFolder folder;
  write_file(folder / "text.txt", some_text(6000));
  run_badly("train", {"--model",      "mru-lm",
                      "--data",       folder / "text.txt",
                      "--out",        folder / "run",
                      "--set",        "embedding_size=8",
                      "--set",        "n_state_heads=2",
                      "--set",        "state_size=8",
                      "--context",    "256",
                      "--batch-size", "2",
                      "--steps",      "50",
                      "--warmup",     "0",
                      "--lr",         "30",
                      "--clip",       "0"},
            {"so training stops", "the state of a matrix scan", "left the range of f32", "lower the learning rate"});
}

TEST_CASE("f64, bytes and gzipped text train as well", "[tools][train]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "run", {"--steps", "2", "--dtype", "f64", "--vocab", "byte"}));
  CHECK(Json::parse(read_file(folder / "run/config.json"))["model_config"]["num_tokens"] == 256);
  CHECK_THAT(read_file(folder / "run/checkpoint/model.safetensors").substr(0, 2000), ContainsSubstring("F64"));
  run_well("train", {"--resume", "--out", folder / "run", "--steps", "3"});
}

TEST_CASE("a preset is overridden by a config file, and that by the command line", "[tools][train]") {
  const TemporaryFolder folder;
  write_file(folder / "text.txt", some_text(3000));
  write_file(folder / "config.json", R"({"steps": 2, "lr": 0.5, "batch-size": 3, "context": 8,
                                         "set": {"dim": 8, "depth": 1}})");
  run_well("train", {"--preset", "quickstart", "--config", folder / "config.json", "--lr", "0.25", "--data",
                     folder / "text.txt", "--set", "depth=2", "--out", folder / "run"});
  const Json config = Json::parse(read_file(folder / "run/config.json"));
  CHECK(config["lr"] == 0.25);
  CHECK(config["batch-size"] == 3);
  CHECK(config["warmup"] == 30);  // the preset's
  CHECK(config["model_config"]["dim"] == 8);
  CHECK(config["model_config"]["depth"] == 2);

  // The run's own config gives the same run again.
  run_well("train", {"--config", folder / "run/config.json", "--out", folder / "again"});
  check_same_run(folder / "run", folder / "again");
}

TEST_CASE("every preset is one that train takes", "[tools][train]") {
  const TemporaryFolder folder;
  write_file(folder / "text.txt", some_text(3000));
  // What makes a model small, where it has been said.
  const std::map<std::string, Arguments> small{
      {"minlm", {"--set", "dim=8", "--set", "depth=2"}},
      {"hybridlm", {"--set", "dim=8", "--set", "depth=1", "--set", "heads=2", "--set", "dim_head=4"}},
      {"min-gru-attention",
       {"--set", "hidden_size=8", "--set", "attention_head_dim=4", "--set", "num_attention_heads=2", "--set",
        "num_key_value_heads=1", "--set", "attention_layers_idx=[1]", "--set", "num_hidden_layers=2"}},
      {"mru-lm",
       {"--set", "embedding_size=8", "--set", "n_state_heads=2", "--set", "state_size=8", "--set", "n_attn_heads=2",
        "--set", "key_size=8", "--set", "value_size=8"}},
      {"block-recurrent",
       {"--set", "dim=8", "--set", "depth=2", "--set", "heads=2", "--set", "dim_head=4", "--set", "block_width=4",
        "--set", "max_seq_len=8", "--set", "recurrent_layers=[1]", "--set", "num_state_vectors=2"}},
      {"gate-loop", {"--set", "dim=8", "--set", "depth=1", "--set", "gate_loop_heads=4"}},
      {"stacked-min-gru", {"--set", "input_size=8", "--set", "hidden_size=8", "--set", "num_layers=1"}}};
  int presets = 0;
  for (const auto& file : fs::directory_iterator(fs::path(MONOID_SOURCE_DIR) / "tools/train/presets")) {
    const std::string name = file.path().stem();
    CAPTURE(name);
    ++presets;
    Arguments flags{"--preset", name,           "--data", folder / "text.txt", "--out", folder / name,     "--steps",
                    "1",        "--batch-size", "1",      "--context",         "16",    "--sample-length", "5"};
    const auto settings = small.find(Json::parse(read_file(file.path()))["model"]);
    if (settings != small.end()) flags.insert(flags.end(), settings->second.begin(), settings->second.end());
    run_well("train", flags);
  }
  CHECK(presets >= 4);
}

TEST_CASE("train lists its models and says what it is", "[tools][train]") {
  CHECK_THAT(str("\n", run_well("train", {"--list-models"})), ContainsSubstring("\nminlm\n"));
  const std::string version = run_well("train", {"--version"});
  CHECK_THAT(version, ContainsSubstring("monoid "));
  CHECK_THAT(version, ContainsSubstring("matrix products: "));
  const std::string help = run_well("train", {"--help"});
  for (const char* flag :
       {"model",   "dataset",    "data",      "data-dir",     "out",       "steps",       "batch-size", "context",
        "lr",      "min-lr",     "warmup",    "weight-decay", "beta1",     "beta2",       "clip",       "grad-accum",
        "dropout", "eval-every", "log-every", "save-every",   "seed",      "device",      "dtype",      "threads",
        "config",  "preset",     "set",       "resume",       "overwrite", "list-models", "vocab",      "version"}) {
    CHECK_THAT(help, ContainsSubstring(str("--", flag, " ")));
  }
  CHECK_THAT(help, ContainsSubstring("minlm-shakespeare"));
  const ScopedVariable elsewhere("MONOID_SOURCE", "/nowhere");
  CHECK_THAT(run_well("train", {"--help"}), ContainsSubstring("--model"));
}

TEST_CASE("on a terminal the progress is one line that is rewritten", "[tools][train]") {
  const TemporaryFolder folder;
  const std::string shown = run_on_terminal("train", tiny_run(folder, "run", {"--steps", "3"}));
  CHECK_THAT(shown, ContainsSubstring("\r\x1b[Kstep 1/3  loss "));
  CHECK_THAT(shown, ContainsSubstring("\r\x1b[Kstep 3/3  validation loss "));
}
