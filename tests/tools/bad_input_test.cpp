#include "monoid/core/error.h"
#include "monoid/core/safetensors.h"
#include "monoid/tests/tools/process.h"

using namespace monoid;
using namespace monoid::test;

TEST_CASE("train explains a wrong name with the nearest right one", "[tools][train]") {
  const TemporaryFolder folder;
  run_badly("train", {"--model", "minml"}, {"unknown model 'minml'", "minlm"});
  run_badly("train", {"--steeps", "10"}, {"unknown flag --steeps; did you mean --steps?"});
  run_badly("train", {"--batchsize=10"}, {"unknown flag --batchsize; did you mean --batch-size?"});
  run_badly("train", {"tinyshakespeare.txt"}, {"does not know what 'tinyshakespeare.txt' is for"});
  run_badly("train", {"--steps", "many"}, {"--steps", "many"});
  run_badly("train", {"--dataset", "shakespear"}, {"no 'shakespear'", "did you mean shakespeare_char?"});
  run_badly("train", {"--preset", "minlm-shakespear"}, {"no 'minlm-shakespear'", "did you mean minlm-shakespeare?"});
  run_badly("train", tiny_run(folder, "run", {"--set", "depht=3"}), {"unknown config key 'depht'", "depth"});
  run_badly("train", tiny_run(folder, "run", {"--set", "depth"}), {"--set wants key=value, got 'depth'"});
  run_badly("train", tiny_run(folder, "run", {"--set", "depth=two"}), {"'depth' is \"two\"", "an integer"});
  run_badly("train", tiny_run(folder, "run", {"--vocab", "word"}), {"no kind 'word'; use char or byte"});
  run_badly("train", tiny_run(folder, "run", {"--dtype", "bf16"}), {"--dtype is bf16, wanted f32 or f64"});
  run_badly("train", tiny_run(folder, "run", {"--device", "gpu"}), {"gpu"});
  CHECK_FALSE(std::filesystem::exists(folder / "run"));
}

TEST_CASE("train refuses numbers out of range before it touches anything", "[tools][train]") {
  const TemporaryFolder folder;
  for (const auto& [flag, value] : {std::pair("--batch-size", "0"),
                                    {"--context", "0"},
                                    {"--steps", "-1"},
                                    {"--log-every", "0"},
                                    {"--lr", "-1"},
                                    {"--lr", "nan"},
                                    {"--beta1", "1"},
                                    {"--dropout", "1"},
                                    {"--val-fraction", "1"},
                                    {"--grad-accum", "0"}}) {
    run_badly("train", tiny_run(folder, "run", {str(flag, "=", value)}), {str(flag, " is "), "wanted"});
  }
  CHECK_FALSE(std::filesystem::exists(folder / "run"));
}

TEST_CASE("train explains a text it cannot use", "[tools][train]") {
  const TemporaryFolder folder;
  const ScopedVariable data("MONOID_DATA", folder / "nothing"), cache("XDG_CACHE_HOME", folder / "nothing");
  const std::string out = folder / "run";
  run_badly("train", {"--data", folder / "missing.txt", "--out", out}, {"there is no file", "missing.txt"});
  write_file(folder / "empty.txt", "");
  run_badly("train", {"--data", folder / "empty.txt", "--out", out}, {"empty.txt", "is empty"});
  write_file(folder / "binary.txt", "abc\xff\xfe");
  run_badly("train", {"--data", folder / "binary.txt", "--out", out}, {"byte 3", "not valid UTF-8; use --vocab byte"});
  run_badly("train", {"--dataset", "enwik8", "--out", out}, {"there is no enwik8 in", "put the 100,000,000 bytes"});
  run_badly("train", {"--dataset", "enwik8", "--data", "x", "--out", out}, {"both given"});
  run_badly("train", tiny_run(folder, "run", {"--context", "2700"}),
            {"the training text has 2700 tokens and --context 2700 needs at least 2701"});
  run_badly("train", tiny_run(folder, "run", {"--context", "300"}),
            {"the validation text has 300 tokens and --context 300 needs at least 301"});
  CHECK_FALSE(std::filesystem::exists(folder / "run"));
}

TEST_CASE("train explains a config file it cannot use", "[tools][train]") {
  const TemporaryFolder folder;
  const auto with = [&](const std::string& json, const std::vector<std::string>& parts) {
    write_file(folder / "config.json", json);
    run_badly("train", tiny_run(folder, "run", {"--config", folder / "config.json"}), parts);
  };
  with(R"({"stepps": 3})", {"config.json", "'stepps'", "steps"});
  with(R"({"steps": "3"})", {"config.json", "'steps' is \"3\"", "an integer"});
  with(R"({"set": [1]})", {"config.json", "'set'", "wanted an object"});
  with(R"([1, 2])", {"config.json", "is not a JSON object"});
  with(R"({"steps": )", {"config.json", "is not a JSON object"});
  run_badly("train", {"--config", folder / "none.json"}, {"there is no file", "none.json"});
}

TEST_CASE("train refuses a run folder that exists, or that cannot be", "[tools][train]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "run", {"--steps", "1"}));
  run_badly("train", tiny_run(folder, "run"), {"exists already", "--resume", "--overwrite"});
  run_badly("train", tiny_run(folder, "run", {"--resume", "--overwrite"}), {"both given"});
  run_badly("train", tiny_run(folder, "new", {"--resume"}), {"there is no run in"});
  write_file(folder / "file", "not a folder");
  run_badly("train", tiny_run(folder, "file/run"), {"cannot make the run folder"});
  run_badly("train", tiny_run(folder, "file"), {"exists already"});
  CHECK(read_file(folder / "file") == "not a folder");

  write_file(folder / "run/notes.md", "mine");
  run_well("train", tiny_run(folder, "run", {"--steps", "1", "--overwrite"}));
  CHECK(read_file(folder / "run/notes.md") == "mine");
}

TEST_CASE("a disk that fills up costs neither the sentence nor the last checkpoint", "[tools][train]") {
  const TemporaryFolder folder;
  const ProcessOptions full{.file_limit = 4096};
  run_badly("train", tiny_run(folder, "fresh", {"--steps", "4"}), {"model.safetensors", "File too large"}, full);

  run_well("train", tiny_run(folder, "run", {"--steps", "4"}));
  const std::string before = read_file(folder / "run/checkpoint/model.safetensors");
  run_badly("train", {"--resume", "--out", folder / "run", "--steps", "8"}, {"File too large"}, full);
  CHECK(read_file(folder / "run/checkpoint/model.safetensors") == before);
  run_well("train", {"--resume", "--out", folder / "run", "--steps", "8"});
}

TEST_CASE("damaged checkpoints are explained", "[tools][train]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "run", {"--steps", "1"}));
  const std::string checkpoint = folder / "run/checkpoint";
  const Arguments resume{"--resume", "--out", folder / "run", "--steps", "2"};
  const auto damage = [&](const std::string& file, const std::string& content, const std::vector<std::string>& parts) {
    const std::string whole = read_file(checkpoint + "/" + file);
    write_file(checkpoint + "/" + file, content);
    run_badly("train", resume, parts);
    if (file != "optimizer.safetensors") {
      run_badly("generate", {"--checkpoint", folder / "run", "--prompt", "a"}, parts);
      run_badly("eval", {"--checkpoint", folder / "run", "--data", folder / "text.txt"}, parts);
    }
    write_file(checkpoint + "/" + file, whole);
  };
  const std::string model = read_file(checkpoint + "/model.safetensors");
  damage("model.safetensors", model.substr(0, model.size() / 2), {"model.safetensors"});
  damage("model.safetensors", model.substr(0, 5), {"model.safetensors"});
  damage("config.json", R"({"model_type": "minlm")", {"config.json"});
  damage("trainer.json", "{}", {"trainer.json"});
  const std::string optimizer = read_file(checkpoint + "/optimizer.safetensors");
  damage("optimizer.safetensors", optimizer.substr(0, optimizer.size() - 1), {"optimizer.safetensors"});

  SafeTensors other = read_safetensors(checkpoint + "/model.safetensors");
  other.tensors.begin()->second = Tensor::zeros({3, 5});
  write_safetensors(folder / "other.safetensors", other);
  damage("model.safetensors", read_file(folder / "other.safetensors"), {other.tensors.begin()->first, "[3, 5]"});
  run_well("train", resume);
}

TEST_CASE("a resumed run must go on as it began", "[tools][train]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "run", {"--steps", "2"}));
  const Arguments resume{"--resume", "--out", folder / "run", "--steps", "3"};
  const auto with = [&](Arguments more) {
    more.insert(more.begin(), resume.begin(), resume.end());
    return more;
  };
  run_badly("train", with({"--lr", "0.5"}), {"the run was started with --lr 0.001, not 0.5"});
  run_badly("train", with({"--set", "dim=16"}), {"the run was started with --set", "\"dim\":8", "\"dim\":16"});
  run_badly("train", with({"--model", "minml"}), {"unknown model"});
  write_file(folder / "text.txt", some_text(3001));
  run_badly("train", resume, {"the text text.txt has changed since the run began"});
}

TEST_CASE("generate and eval explain what they cannot do", "[tools][generate][eval]") {
  const TemporaryFolder folder;
  run_well("train", tiny_run(folder, "run", {"--steps", "1"}));
  const std::string run = folder / "run", text = folder / "text.txt";
  run_badly("generate", {"--checkpoint", folder / "none"}, {"there is no model.safetensors in"});
  run_badly("generate", {}, {"--checkpoint is required"});
  run_badly("generate", {"--checkpoint", run, "--promt", "a"}, {"unknown flag --promt; did you mean --prompt?"});
  run_badly("generate", {"--checkpoint", run, "--prompt", "a\u00e9z"},
            {"these characters", "'\u00e9' (U+00E9)", "'z'"});
  run_badly("generate", {"--checkpoint", run, "--temperature=-1"}, {"--temperature is -1"});
  run_badly("generate", {"--checkpoint", run, "--length=-1"}, {"--length is -1"});
  run_badly("eval", {"--checkpoint", run}, {"either --data FILE or --dataset NAME"});
  run_badly("eval", {"--checkpoint", run, "--data", folder / "none"}, {"there is no file"});
  run_badly("eval", {"--checkpoint", run, "--data", text, "--context", "3000"},
            {"the evaluated text has 3000 tokens and --context 3000 needs at least 3001"});
  run_badly("eval", {"--checkpoint", run, "--data", text, "--part", "half"}, {"--part is 'half'"});
  write_file(folder / "other.txt", "QQQ");
  run_badly("eval", {"--checkpoint", run, "--data", folder / "other.txt"}, {"this character: 'Q' (U+0051)"});
}
