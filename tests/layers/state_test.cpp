#include "monoid/layers/state.h"

#include <filesystem>

#include "monoid/core/random.h"
#include "monoid/core/safetensors.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"

namespace monoid {

TEST_CASE("a state keeps its tensors in order by name, and replaces by name", "[state]") {
  State state;
  CHECK(state.empty());
  state.set("z", Tensor::ones({2, 3}));
  state.set("a", Tensor::ones({2, 1}));
  state.set("z", Tensor::zeros({2, 3}));
  REQUIRE(state.size() == 2);
  CHECK(state.tensors()[0].name == "z");
  CHECK(state.find("z").to_vector<float>()[0] == 0);
  CHECK_FALSE(state.find("missing").defined());
  CHECK_THROWS_WITH(state.set("b", Tensor()), ContainsSubstring("b"));
}

TEST_CASE("asking a state for what it does not hold says what it holds", "[state]") {
  State state;
  state.set("layers.0.hidden", Tensor::ones({2, 3}));
  CHECK_THROWS_WITH(state.get("minlm", "layers.0.conv_tail", {2, 3}),
                    ContainsSubstring("no 'layers.0.conv_tail'") && ContainsSubstring("it holds layers.0.hidden"));
  CHECK_THROWS_WITH(state.get("minlm", "layers.0.hidden", {4, 3}),
                    ContainsSubstring("f32[2, 3]") && ContainsSubstring("wanted [4, 3]"));
}

TEST_CASE("a state survives a file with its order and bits", "[state]") {
  Generator generator(3);
  State state;
  state.set("z.hidden", random_normal({2, 3}, generator, 0, 1, DType::f64));
  state.set("a.tail", random_normal({2, 0, 3}, generator));
  state.set("m.hidden", random_normal({2, 5}, generator));
  const auto path = std::filesystem::temp_directory_path() / "monoid_state_test.safetensors";
  state.save(path);
  const State loaded = State::load(path);
  REQUIRE(loaded.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(loaded.tensors()[i].name == state.tensors()[i].name);
    test::check_identical(loaded.tensors()[i].value, state.tensors()[i].value);
  }
  write_safetensors(path, {{{"x", Tensor::ones({1})}}, {}});
  CHECK_THROWS_WITH(State::load(path), ContainsSubstring("not a saved state"));
  std::filesystem::remove(path);
}

}  // namespace monoid
