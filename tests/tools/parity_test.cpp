#include <sys/wait.h>

#include "monoid/core/random.h"
#include "monoid/core/safetensors.h"
#include "monoid/core/tape.h"
#include "monoid/layers/norm.h"
#include "monoid/ops/elementwise.h"
#include "monoid/ops/reduce.h"
#include "monoid/ops/shape_ops.h"
#include "monoid/tests/support/catch.h"
#include "monoid/tests/support/compare.h"
#include "monoid/tests/support/temporary_folder.h"
#include "monoid/tools/parity/compare.h"

namespace monoid::parity {
namespace {

const std::string kGoldens = std::string(MONOID_SOURCE_DIR) + "/tests/goldens/";

struct Ended {
  int code;
  std::string output;  // both streams
};

Ended run_parity(const std::string& arguments) {
  const test::TemporaryFolder folder;
  const std::string output = (folder / "output").string();
  const std::string command = std::string(MONOID_BINARY_DIR) + "/bin/parity " + arguments + " > " + output + " 2>&1";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, test::read_file(output)};
}

const Row& row(const std::vector<Row>& rows, const std::string& name) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const Row& entry) { return entry.name == name; });
  REQUIRE(found != rows.end());
  return *found;
}

}  // namespace

TEST_CASE("every golden file agrees with its reference in f64, tensor by tensor", "[parity]") {
  int files = 0;
  for (const auto& file : std::filesystem::directory_iterator(kGoldens)) {
    const Golden golden = Golden::read(file.path());
    const std::vector<Row> rows = compare(golden, recompute(golden, {}), default_tolerance(DType::f64, golden));
    REQUIRE(rows.size() >= 4);
    for (const Row& entry : rows) {
      CAPTURE(file.path(), entry.name, entry.difference);
      CHECK(std::string(text(entry.verdict)) == "ok");
    }
    ++files;
  }
  CHECK(files >= 3);
}

TEST_CASE("goldens agree in f32 to its precision, and not to more", "[parity]") {
  const Golden golden = Golden::read(kGoldens + "minlm_gru.safetensors");
  const Recomputed recomputed = recompute(golden, {.dtype = DType::f32});
  CHECK(all_agree(compare(golden, recomputed, default_tolerance(DType::f32))));
  CHECK_FALSE(all_agree(compare(golden, recomputed, 1e-9)));
}

TEST_CASE("the comparison notices a wrong, misshapen, absent or infinite tensor", "[parity]") {
  Golden golden{"test", "{}", {}};
  golden.tensors["out/same"] = Tensor::full({2}, 2, DType::f64);
  golden.tensors["out/near"] = Tensor::full({2}, 2, DType::f64);
  golden.tensors["out/far"] = Tensor::full({2}, 2, DType::f64);
  golden.tensors["out/nan"] = Tensor::full({2}, 2, DType::f64);
  golden.tensors["out/zero"] = Tensor::zeros({2}, DType::f64);
  golden.tensors["grad/shape"] = Tensor::ones({2}, DType::f64);
  golden.tensors["grad_in/absent"] = Tensor::ones({2}, DType::f64);
  golden.tensors["param/unseen"] = Tensor::ones({2}, DType::f64);
  const Recomputed recomputed{
      {"out/same", Tensor::full({2}, 2, DType::f64)},       {"out/near", Tensor::full({2}, 2 + 1e-6, DType::f64)},
      {"out/far", Tensor::full({2}, 2 + 1e-5, DType::f64)}, {"out/nan", Tensor::full({2}, std::nan(""), DType::f64)},
      {"out/zero", Tensor::full({2}, 1e-3, DType::f64)},    {"grad/shape", Tensor::ones({1, 2}, DType::f64)}};
  const std::vector<Row> rows = compare(golden, recomputed, 1e-6);
  CHECK(rows.size() == 7);
  CHECK(row(rows, "out/same").difference == 0);
  CHECK(row(rows, "out/same").verdict == Verdict::agrees);
  CHECK(row(rows, "out/near").verdict == Verdict::agrees);
  CHECK(row(rows, "out/near").difference == Approx(5e-7));
  CHECK(row(rows, "out/far").verdict == Verdict::differs);
  CHECK(row(rows, "out/nan").verdict == Verdict::differs);
  CHECK(row(rows, "out/zero").verdict == Verdict::differs);
  CHECK(row(rows, "grad/shape").verdict == Verdict::wrong_shape);
  CHECK(row(rows, "grad_in/absent").verdict == Verdict::not_recomputed);
  CHECK_FALSE(all_agree(rows));
  CHECK_FALSE(all_agree({}));
}

TEST_CASE("masked outputs count only where the attention mask is 1", "[parity]") {
  Golden golden{"test", "{}", {}};
  golden.tensors["in/attention_mask"] = Tensor::from(std::vector<int64_t>{0, 1, 1, 1}, {2, 2});
  for (const char* name : {"out/masked_logits", "out/logits"})
    golden.tensors[name] = Tensor::ones({2, 2, 3}, DType::f64);
  Tensor off = Tensor::ones({2, 2, 3}, DType::f64);
  off.data<double>()[2] = 5;
  const std::vector<Row> rows = compare(golden, {{"out/masked_logits", off}, {"out/logits", off}}, 1e-6);
  CHECK(row(rows, "out/masked_logits").verdict == Verdict::agrees);
  CHECK(row(rows, "out/logits").verdict == Verdict::differs);
  off.data<double>()[3] = 5;
  CHECK(row(compare(golden, {{"out/masked_logits", off}}, 1e-6), "out/masked_logits").verdict == Verdict::differs);
}

TEST_CASE("a gradient where the reference has none is noticed, and one number is one number", "[parity]") {
  Golden golden{"test", "{}", {}};
  golden.tensors["out/loss"] = Tensor::ones({1}, DType::f64);
  for (const char* name : {"param/unused", "param/zero"}) golden.tensors[name] = Tensor::ones({2}, DType::f64);
  const std::vector<Row> rows = compare(golden,
                                        {{"out/loss", Tensor::ones({}, DType::f64)},
                                         {"grad/unused", Tensor::ones({2}, DType::f64)},
                                         {"grad/zero", Tensor::zeros({2}, DType::f64)}},
                                        1e-6);
  REQUIRE(rows.size() == 2);
  CHECK(row(rows, "out/loss").verdict == Verdict::agrees);
  CHECK(row(rows, "grad/unused").verdict == Verdict::unexpected);
  CHECK_FALSE(all_agree(rows));
}

TEST_CASE("a file whose reference rounded to f32 gets a tolerance for that", "[parity]") {
  Golden golden{"test", "{}", {}, "logits are float32-rounded. loss shifts inside"};
  CHECK(default_tolerance(DType::f64, golden) == 1e-5);
  CHECK(default_tolerance(DType::f32, golden) == 1e-4);
  golden.note = "loss = mean(y**2)";
  CHECK(default_tolerance(DType::f64, golden) == 1e-6);
}

TEST_CASE("a layer is recomputed from its inputs, with their gradients and its parameters'", "[parity]") {
  struct Layer : Module {
    RmsNorm norm{3};
    void visit(Visitor& visitor) override { visitor.child("norm", norm); }
  };
  Generator generator(1);
  const Tensor x = random_normal({2, 3}, generator, 0, 1, DType::f64);
  const Golden golden{"lucidrains/minGRU-pytorch minLM",
                      "{}",
                      {{"param/norm.weight", Tensor::full({3}, 2)},
                       {"in/x", x},
                       {"grad_in/x", x},
                       {"in/ids", Tensor::zeros({2}, DType::i64)}}};
  Layer layer, again;
  const Recomputed result = recompute_layer(layer, golden, {}, [&](const auto& inputs) -> Recomputed {
    CHECK(inputs.at("ids").dtype() == DType::i64);
    return {{"out/y", layer.norm.forward(inputs.at("x"))}};
  });
  cast_to(again, DType::f64);
  parameters(again)[0].value.fill(2);
  Tensor leaf = x.clone().set_requires_grad();
  Tape tape;
  const Tensor y = again.norm.forward(leaf), loss = mean(square(y));
  tape.backward(loss);
  test::check_identical(result.at("out/y"), y.detach());
  test::check_identical(result.at("out/loss"), loss.detach());
  test::check_identical(result.at("grad_in/x"), leaf.grad());
  test::check_identical(result.at("grad/norm.weight"), parameters(again)[0].value.grad());
}

TEST_CASE("a language model's segments, resumed and masked logits are recomputed where a file has them", "[parity]") {
  const Golden golden = Golden::read(kGoldens + "minlm_gru.safetensors");
  const Tensor ids = golden.get("in/ids"), logits = golden.get("out/logits");  // of 19 ids
  Golden more = golden;
  more.tensors["out/logits.0"] = slice(logits, 1, 0, 9);
  more.tensors["out/logits.1"] = slice(logits, 1, 9, 18);
  more.tensors["out/logits_resumed"] = slice(logits, 1, 14, 19);
  // The first row moved 3 to the right: what it holds there is what it computed 3 to the left.
  Tensor moved = ids.clone(), mask = Tensor::ones(ids.shape(), DType::i64), masked = Tensor::zeros_like(logits);
  slice(slice(moved, 0, 0, 1), 1, 3, 19).copy_from(slice(slice(ids, 0, 0, 1), 1, 0, 16));
  slice(slice(mask, 0, 0, 1), 1, 0, 3).fill(0);
  slice(slice(masked, 0, 0, 1), 1, 3, 19).copy_from(slice(slice(logits, 0, 0, 1), 1, 0, 16));
  slice(masked, 0, 1, 2).copy_from(slice(logits, 0, 1, 2));
  const auto verdict = [](const Golden& file, const std::string& name) {
    return row(compare(file, recompute(file, {}), 1e-9), name).verdict;
  };
  for (const char* name : {"out/logits", "out/logits.0", "out/logits.1", "out/logits_resumed", "out/loss"}) {
    CAPTURE(name);
    CHECK(verdict(more, name) == Verdict::agrees);
  }
  CHECK(verdict(more, "grad/layers.0.2.to_hidden_and_gate.weight") == Verdict::differs);  // they stop in between
  Golden padded = golden;
  padded.tensors["in/ids"] = moved;
  padded.tensors["in/attention_mask"] = mask;
  padded.tensors["out/masked_logits"] = masked;
  CHECK(verdict(padded, "out/masked_logits") == Verdict::agrees);
  padded.tensors["in/attention_mask"] = Tensor::ones(ids.shape(), DType::i64);
  CHECK(verdict(padded, "out/masked_logits") == Verdict::differs);
}

TEST_CASE("every recipe has an import table", "[parity]") {
  for (const RecipeEntry& entry : recipes()) CHECK(import_table(entry.source).source == entry.source);
}

TEST_CASE("parity prints a table a file and says how many agree", "[parity][process]") {
  const Ended good = run_parity(kGoldens + "minlm_gru.safetensors " + kGoldens + "minlm_lstm.safetensors");
  CHECK(good.code == 0);
  CHECK_THAT(good.output, ContainsSubstring("lucidrains/minGRU-pytorch minLM, f64 on cpu"));
  CHECK_THAT(good.output, ContainsSubstring("out/decode.step_logits"));
  CHECK_THAT(good.output, ContainsSubstring("grad/layers.1.2.to_hidden_and_f_i_gate.weight"));
  CHECK_THAT(good.output, ContainsSubstring("2 of 2 files agree"));
  const Ended strict = run_parity("--dtype f32 --tolerance 1e-9 " + kGoldens + "minlm_gru.safetensors");
  CHECK(strict.code == 1);
  CHECK_THAT(strict.output, ContainsSubstring("DIFFERS") && ContainsSubstring("0 of 1 files agree"));
}

TEST_CASE("parity fails on a golden tensor that it cannot recompute", "[parity][process]") {
  const test::TemporaryFolder folder;
  SafeTensors file = read_safetensors(kGoldens + "minlm_gru.safetensors");
  file.tensors["out/decode.hidden.7"] = Tensor::ones({1});
  write_safetensors(folder / "more.safetensors", file);
  const Ended more = run_parity((folder / "more.safetensors").string());
  CHECK(more.code == 1);
  CHECK_THAT(more.output, ContainsSubstring("out/decode.hidden.7") && ContainsSubstring("NOT RECOMPUTED"));
}

TEST_CASE("parity explains bad files in one sentence and goes on with the next", "[parity][process]") {
  const test::TemporaryFolder folder;
  SafeTensors file = read_safetensors(kGoldens + "minlm_gru.safetensors");
  const auto changed = [&](const char* name, auto change) {
    SafeTensors copy = file;
    change(copy);
    write_safetensors(folder / name, copy);
    return run_parity((folder / name).string());
  };
  const Ended unknown = changed("source", [](SafeTensors& copy) { copy.metadata["source"] = "nobody/nothing"; });
  CHECK(unknown.code == 1);
  CHECK_THAT(unknown.output, ContainsSubstring("unknown source 'nobody/nothing'; the known ones are") &&
                                 ContainsSubstring("lucidrains/minGRU-pytorch minLM"));
  CHECK_THAT(changed("plain", [](SafeTensors& copy) { copy.metadata.clear(); }).output,
             ContainsSubstring("no golden file"));
  const Ended less = changed("less", [](SafeTensors& copy) { copy.tensors.erase("param/norm.weight"); });
  CHECK(less.code == 1);
  CHECK_THAT(less.output, ContainsSubstring("missing: norm.weight [24]"));
  CHECK_THAT(changed("ids", [](SafeTensors& copy) { copy.tensors.erase("in/ids"); }).output,
             ContainsSubstring("no 'in/ids'"));

  const std::string bytes = test::read_file(kGoldens + "minlm_gru.safetensors");
  test::write_file(folder / "half", bytes.substr(0, bytes.size() / 2));
  const Ended several = run_parity((folder / "half").string() + " " + (folder / "absent").string() + " " + kGoldens +
                                   "minlm_gru.safetensors");
  CHECK(several.code == 1);
  CHECK_THAT(several.output,
             ContainsSubstring("half") && ContainsSubstring("absent") && ContainsSubstring("1 of 3 files agree"));
  CHECK(run_parity("--dtype f12 " + kGoldens + "minlm_gru.safetensors").code != 0);
  CHECK(run_parity("--device moon " + kGoldens + "minlm_gru.safetensors").code != 0);
  CHECK(run_parity("--tolerance -1 " + kGoldens + "minlm_gru.safetensors").code != 0);
  CHECK(run_parity("").code != 0);
}

}  // namespace monoid::parity
