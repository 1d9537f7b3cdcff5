#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "monoid/core/random.h"

namespace monoid {

/// Everything that decides a training run. Defaults, then --preset, then --config (or, with --resume, the run's own
/// config.json), then the command line: the later one wins.
struct TrainOptions {
  std::string model = "minlm";
  std::string dataset, data, data_dir, vocab;
  double val_fraction = 0;
  std::string out;
  int64_t steps = 1000, batch_size = 16, context = 256, grad_accum = 1;
  int64_t segments = 1;
  bool carry_state = false;
  double lr = 1e-3, min_lr = 1e-4, start_lr = -1;
  int64_t warmup = 100, decay_steps = 0;
  double weight_decay = 0.1, beta1 = 0.9, beta2 = 0.99, clip = 1, dropout = -1;
  int64_t eval_every = 200, log_every = 10, save_every = 200, sample_length = 500;
  int64_t seed = 1337;
  std::string device = "cpu", dtype = "f32";
  int64_t threads = 0;
  bool cuda_graph = true, tf32 = false, recompute = false;

  std::vector<std::string> set;  // model settings, each key=value; the later one wins
  bool resume = false, overwrite = false;

  /// Calls field(flag name, value, help) for each option that has a value, --set apart.
  template <class Field>
  void visit(Field&& field) {
    field("model", model, "The model to train (--list-models)");
    field("dataset", dataset, "source (monoid's own files, the default), shakespeare_char, enwik8 or tinystories");
    field("data", data, "A text file to train on instead, plain or gzipped");
    field("data-dir", data_dir, "Folder to look for datasets in, before $MONOID_DATA and ~/.cache/monoid");
    field("vocab", vocab, "char or byte (default: what the dataset is usually read as)");
    field("val-fraction", val_fraction, "Part of the text to validate on (0: the dataset's own, else 0.1)");
    field("out", out, "Run folder (default: runs/MODEL-DATASET)");
    field("steps", steps, "Steps to train in all");
    field("batch-size", batch_size, "Crops in a batch");
    field("context", context, "Tokens in a crop");
    field("grad-accum", grad_accum, "Batches whose gradients make one step");
    field("segments", segments, "Pieces of a crop: the state is carried from one to the next, gradients are not");
    field("carry-state", carry_state,
          "Read the text in order, in batch-size streams, and carry the state from step to step");
    field("lr", lr, "Learning rate after the warm-up");
    field("min-lr", min_lr, "Learning rate at the end of the cosine");
    field("start-lr", start_lr, "Learning rate at the start of the warm-up (-1: up from 0)");
    field("warmup", warmup, "Steps of linear warm-up");
    field("decay-steps", decay_steps, "Step at which the cosine ends (0: at --steps)");
    field("weight-decay", weight_decay, "AdamW's decay of tensors with two axes or more");
    field("beta1", beta1, "AdamW's first moment");
    field("beta2", beta2, "AdamW's second moment");
    field("clip", clip, "Largest norm of the gradient, or of each group that the model limits by itself (0: none)");
    field("dropout", dropout, "Dropout probability (-1: the model's own)");
    field("eval-every", eval_every, "Steps between evaluations of the whole validation text (0: only at the end)");
    field("log-every", log_every, "Steps between lines of the log");
    field("save-every", save_every, "Steps between checkpoints (0: only at the end)");
    field("sample-length", sample_length, "Tokens of text to write when done");
    field("seed", seed, "Fixes parameters, batches and dropout");
    field("device", device, "cpu, cuda or cuda:N");
    field("dtype", dtype, "f32, bf16 (cuda, with f32 masters) or f64 (cpu)");
    field("cuda-graph", cuda_graph, "Replay each step as one CUDA graph; the numbers are the same without");
    field("tf32", tf32, "Products of f32 in TF32 (cuda): several times faster, operands rounded to 11 bits");
    field("recompute", recompute,
          "Keep only what each layer reads, and make the rest again in backward: far less memory, a third more time");
    field("threads", threads, "CPU threads (0: as many as the machine has); results do not depend on it");
  }

  /// Values out of range and contradictions are Errors that name the flag.
  void validate() const;
  /// All values as JSON, --set as an object.
  std::string json() const;
  /// Overwrites the values that the JSON has; an unknown key is an Error with the nearest name. What config.json says
  /// about the model besides is passed over.
  void read_json(const std::string& json, const std::string& origin);
  /// A resumed run goes on as it began: an option that changes its numbers and differs from `begun` is an Error.
  void check_continues(const TrainOptions& begun) const;
  /// What --set, --dropout and the text change of the model's configuration, as a JSON object.
  std::string model_settings(int64_t vocabulary) const;
  /// Where the cosine ends.
  int64_t schedule_end() const { return decay_steps > 0 ? decay_steps : steps; }
  /// Whether batches hand their state on.
  bool carries() const { return carry_state || segments > 1; }
};

/// Independent streams of random numbers that one --seed gives.
enum class RandomStream : uint64_t { parameters, batches, dropout, sample };
Generator random_stream(const TrainOptions& options, RandomStream which);

/// The options of this call, or the exit code if there is nothing to train (--help, --list-models, a mistake).
struct TrainCommand {
  TrainOptions options;
  std::optional<int> exit_code;
};
TrainCommand read_train_command(int argc, const char* const* argv);

/// The presets that come with monoid: tools/train/presets/NAME.json.
std::vector<std::string> preset_names();

}  // namespace monoid
