#include "monoid/models/checkpoint.h"

#include "monoid/models/catalog.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/support/temporary_folder.h"

namespace monoid {
namespace {

namespace fs = std::filesystem;

const char* const kSmall = R"({"num_tokens": 7, "dim": 6, "depth": 2, "enable_conv": true})";

std::unique_ptr<LanguageModel> small_model(uint64_t seed = 1, const std::string& config = kSmall) {
  Generator init(seed);
  return make_model("minlm", config, init);
}

size_t entries(const test::TemporaryFolder& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder.path()), {}));
}

std::string load_error(const fs::path& folder) {
  try {
    load_model(folder);
  } catch (const Error& error) {
    return error.message();
  }
  return "no error";
}

void check_same_model(LanguageModel& a, LanguageModel& b) {
  CHECK(a.type() == b.type());
  CHECK(a.config() == b.config());
  const auto left = state_dict(a), right = state_dict(b);
  REQUIRE(left.size() == right.size());
  for (size_t i = 0; i < left.size(); ++i) {
    CHECK(left[i].name == right[i].name);
    test::check_identical(left[i].value, right[i].value);
  }
}

}  // namespace

TEST_CASE("a saved model loads with the same configuration, dtype and bits", "[checkpoint]") {
  const test::TemporaryFolder scratch;
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    const auto model = small_model();
    cast_to(*model, dtype);
    save_model(scratch / "model", *model);
    check_same_model(*load_model(scratch / "model"), *model);
    CHECK(parameters(*load_model(scratch / "model")).front().value.requires_grad());
  }
  CHECK(entries(scratch) == 1);  // nothing temporary is left
}

TEST_CASE("config.json is Hugging Face style, and older keys are read too", "[checkpoint]") {
  const test::TemporaryFolder scratch;
  const fs::path folder = scratch / "a" / "b/";
  const auto model = small_model();
  save_model(folder, *model);
  const std::string config = test::read_file(folder / "config.json");
  CHECK_THAT(config, ContainsSubstring("\"model_type\": \"minlm\"") && ContainsSubstring("\"dtype\": \"float32\"") &&
                         ContainsSubstring("\"num_tokens\": 7"));
  test::write_file(folder / "config.json",
                   R"({"model_type": "minlm", "torch_dtype": "float32", "architectures": ["MinLM"],
                                    "num_tokens": 7, "dim": 6, "depth": 2, "enable_conv": true})");
  check_same_model(*load_model(folder), *model);
}

TEST_CASE("a checkpoint is replaced as a whole, and anything else is left alone", "[checkpoint]") {
  const test::TemporaryFolder scratch;
  const auto first = small_model(1), second = small_model(2);
  save_model(scratch / "model", *first);
  test::write_file(scratch / "model" / "stale.json", "{}");
  save_model(scratch / "model", *second);
  check_same_model(*load_model(scratch / "model"), *second);
  CHECK_FALSE(fs::exists(scratch / "model" / "stale.json"));

  fs::create_directories(scratch / "home");
  test::write_file(scratch / "home" / "letter.txt", "dear");
  CHECK_THROWS_WITH(save_model(scratch / "home", *first), ContainsSubstring("no checkpoint and will not be replaced"));
  CHECK(test::read_file(scratch / "home" / "letter.txt") == "dear");
  test::write_file(scratch / "file", "x");
  CHECK_THROWS_WITH(save_model(scratch / "file", *first), ContainsSubstring("not a folder"));
}

TEST_CASE("a save that fails half way leaves the old checkpoint and nothing else", "[checkpoint]") {
  const test::TemporaryFolder scratch;
  const auto model = small_model();
  save_model(scratch / "model", *model);
  CHECK_THROWS_WITH(replace_folder_atomically(scratch / "model",
                                              [](const fs::path& temporary) {
                                                test::write_file(temporary / "model.safetensors", "half");
                                                fail("disk: full");
                                              }),
                    ContainsSubstring("disk: full"));
  check_same_model(*load_model(scratch / "model"), *model);
  CHECK(entries(scratch) == 1);
  CHECK_THROWS_WITH(save_model("/proc/monoid/model", *model), ContainsSubstring("cannot write /proc/monoid/model"));
}

TEST_CASE("a damaged checkpoint is one clear sentence", "[checkpoint]") {
  const test::TemporaryFolder scratch;
  const fs::path folder = scratch / "model";
  CHECK_THAT(load_error(folder), ContainsSubstring("there is no checkpoint folder"));
  save_model(folder, *small_model());
  const std::string parameters = test::read_file(folder / "model.safetensors"),
                    config = test::read_file(folder / "config.json");

  test::write_file(folder / "model.safetensors", parameters.substr(0, parameters.size() / 2));
  CHECK_THAT(load_error(folder), ContainsSubstring("model.safetensors"));
  fs::remove(folder / "model.safetensors");
  CHECK_THAT(load_error(folder), ContainsSubstring("has no model.safetensors"));
  test::write_file(folder / "model.safetensors", parameters);

  test::write_file(folder / "config.json", config.substr(0, config.size() / 2));
  CHECK_THAT(load_error(folder), ContainsSubstring("config.json is not a JSON object; the file is damaged"));
  test::write_file(folder / "config.json", "{}");
  CHECK_THAT(load_error(folder), ContainsSubstring("has no \"model_type\""));
  test::write_file(folder / "config.json", R"({"model_type": 3})");
  CHECK_THAT(load_error(folder), ContainsSubstring("'model_type' in") && ContainsSubstring("is 3, wanted a string"));
  test::write_file(folder / "config.json", R"({"model_type": "minllm"})");
  CHECK_THAT(load_error(folder), ContainsSubstring("did you mean 'minlm'?"));
  test::write_file(folder / "config.json", R"({"model_type": "minlm", "dtype": "float12"})");
  CHECK_THAT(load_error(folder), ContainsSubstring("float12"));
  test::write_file(folder / "config.json", R"({"model_type": "minlm", "dmi": 4})");
  CHECK_THAT(load_error(folder), ContainsSubstring("config.json") && ContainsSubstring("did you mean 'dim'?"));
  fs::remove(folder / "config.json");
  CHECK_THAT(load_error(folder), ContainsSubstring("cannot read") && ContainsSubstring("config.json"));
}

TEST_CASE("a checkpoint of another shape lists what does not fit", "[checkpoint]") {
  const test::TemporaryFolder scratch;
  save_model(scratch / "model", *small_model());
  save_model(scratch / "other", *small_model(1, R"({"num_tokens": 7, "dim": 8, "depth": 3, "enable_conv": true})"));
  fs::copy_file(scratch / "other" / "config.json", scratch / "model" / "config.json",
                fs::copy_options::overwrite_existing);
  const std::string message = load_error(scratch / "model");
  CHECK_THAT(message,
             ContainsSubstring("model.safetensors: load_state_dict: ") && ContainsSubstring("tensors do not fit"));
  CHECK_THAT(message, ContainsSubstring("missing: layers.2.conv.depthwise.weight [8, 3]"));
  CHECK_THAT(message, ContainsSubstring("wrong shape: embedding.weight is [7, 6], wanted [7, 8]"));
}

}  // namespace monoid
