#include "monoid/tools/train/trainer.h"

#include <sys/resource.h>

#include <cmath>
#include <iomanip>

#include "monoid/core/atomic_file.h"
#include "monoid/core/error.h"
#include "monoid/core/memory.h"
#include "monoid/models/checkpoint.h"
#include "monoid/ops/matrix_scan.h"
#include "monoid/tools/text/files.h"
#include "monoid/tools/text/generation.h"
#include "monoid/tools/text/trained.h"
#include "monoid/tools/train/interrupt.h"
#include "monoid/tools/train/loss_plot.h"

namespace monoid {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char kOptimizerFile[] = "optimizer.safetensors";
constexpr const char kStateFile[] = "state.safetensors";  // of the model, where it is carried
constexpr double kSampleTemperature = 0.8;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

AdamW make_optimizer(LanguageModel& model, const TrainOptions& options) {
  AdamWOptions adam;
  adam.beta1 = options.beta1;
  adam.beta2 = options.beta2;
  return AdamW(
      model.parameter_groups({.weight_decay = options.weight_decay, .clip = options.clip, .context = options.context}),
      adam);
}

std::string mebibytes(double bytes) { return format_count(bytes / (1 << 20)) + " MiB"; }

std::string describe(const Evaluation& validation) {
  return str(std::fixed, std::setprecision(4), "validation loss ", validation.loss, " (", validation.bits(),
             " bits per character)");
}

}  // namespace

Trainer::Trainer(const TrainOptions& options, const Corpus& corpus, LanguageModel& model, const RunFolder& folder)
    : options_(options),
      corpus_(corpus),
      model_(model),
      folder_(folder),
      device_(Device::parse(options.device)),
      schedule_{options.lr, options.min_lr, options.warmup, options.schedule_end(),
                options.start_lr >= 0 ? std::optional(options.start_lr) : std::nullopt},
      feed_(options, corpus.split.train),
      windows_(corpus.split.validation, options.context, "validation"),
      optimizer_(make_optimizer(model, options)),
      train_step_(device_,
                  [this](const Tensors& batch, Generator* random) {
                    if (!options_.carries()) return model_.training_loss(batch[0], batch[1], nullptr, random);
                    return carried_.loss(model_, batch[0], batch[1], Feed::begins(batch), random);
                  },
                  optimizer_, {.clip = common_clip(optimizer_, options.clip), .graph = options.cuda_graph}),
      progress_(options.steps) {
  check(!options.carry_state || model.has_bounded_state(), "--carry-state: ", model.type(),
        " remembers every token it has read, so its state grows without end; leave it out");
  model.recompute_layers(options.recompute);
  state_.dropout = random_stream(options, RandomStream::dropout);
  state_.context = options.context;
  state_.text = corpus.name;
  state_.text_checksum = corpus.checksum;
}

void Trainer::resume() {
  const std::filesystem::path checkpoint = folder_.checkpoint();
  const TrainerState saved = read_trainer_state(checkpoint / kTrainerFile);
  check(saved.text_checksum == corpus_.checksum, "--resume: the text ", corpus_.name,
        " has changed since the run began on ", saved.text, "; start a new run in another --out");
  optimizer_.load(checkpoint / kOptimizerFile);
  feed_.generator() = saved.batches;
  feed_.set_position(saved.position);
  if (options_.carry_state) {
    const std::filesystem::path file = checkpoint / kStateFile;
    if (std::filesystem::exists(file)) carried_.set_state(State::load(file, device_));
    check(saved.position == 0 || !carried_.state().empty(), "--resume: ", checkpoint.string(), " has no ", kStateFile);
  }
  state_ = saved;
  saved_step_ = saved.step;
}

int Trainer::run() {
  log_.emplace(folder_ / kLogFile, state_.step);
  started_ = Clock::now();
  if (!saved_step_) save();

  const size_t ahead = device_.is_cpu() ? 0 : 1;
  while (state_.step < options_.steps && !interrupt()) {
    const Clock::time_point start = Clock::now();
    queue_step();
    const bool pause = due(options_.log_every) || due(options_.eval_every) || due(options_.save_every);
    const std::optional<Step> step = settle(pause ? 0 : ahead);
    step_seconds_ += seconds_since(start);
    std::optional<Evaluation> validation;
    if (due(options_.eval_every)) validation = validate();
    if (step) record(*step, validation);
    if (due(options_.save_every)) save();
  }
  settle(0);
  return finish(interrupt());
}

void Trainer::queue_step() {
  const std::vector<Tensors> batches = feed_.next();
  const double learning_rate = schedule_(state_.step);
  queued_.push_back({state_.step + 1, learning_rate, train_step_.run(batches, learning_rate, &state_.dropout)});
  ++state_.step;
  ++steps_here_;
  ++steps_since_line_;
}

std::optional<Trainer::Step> Trainer::settle(size_t ahead) {
  std::optional<Step> last;
  while (queued_.size() > ahead) {
    const Queued queued = std::move(queued_.front());
    queued_.pop_front();
    const StepResult result = queued.pending.wait();
    if (!std::isfinite(result.loss)) stop_at(str("the loss is ", result.loss), queued.number);
    if (!std::isfinite(result.gradient_norm))
      stop_at(str("the norm of the gradient is ", result.gradient_norm), queued.number);
    last = Step{queued.number, queued.learning_rate, result};
  }
  return last;
}

void Trainer::record(const Step& step, const std::optional<Evaluation>& validation) {
  const double tokens = static_cast<double>(options_.grad_accum * options_.batch_size * options_.context);
  const double speed = tokens * static_cast<double>(steps_since_line_) / step_seconds_;
  const double left =
      seconds_since(started_) / static_cast<double>(steps_here_) * static_cast<double>(options_.steps - state_.step);
  const bool line_due = due(options_.log_every);
  progress_.step(step.number, step.result.loss, speed, left, line_due);
  if (validation) progress_.line(progress_.place(state_.step) + "  " + describe(*validation));
  if (!line_due && !validation) return;
  log_->write({step.number, step.result.loss, step.learning_rate, step.result.gradient_norm, speed, validation});
  if (validation) write_loss_plot(folder_ / kLogFile, folder_ / kPlotFile, options_.model + " on " + corpus_.name);
  steps_since_line_ = 0;
  step_seconds_ = 0;
}

Evaluation Trainer::validate() {
  const Evaluation validation = evaluate(model_, windows_, options_.batch_size);
  if (!std::isfinite(validation.loss)) stop_at(str("the validation loss is ", validation.loss), state_.step);
  if (validation.loss < state_.best_loss) {
    state_.best_loss = validation.loss;
    save_best();
  }
  return validation;
}

// Parameters that no longer give a finite loss must not replace good ones, so a checkpoint is tried before it is kept.
void Trainer::save() {
  if (saved_step_ == state_.step) return;
  const Batch trial = windows_.at(0, 1);
  const double loss = model_.loss(trial.tokens.to(device_), trial.targets.to(device_)).item();
  if (!std::isfinite(loss)) stop_at(str("the loss after the step is ", loss), state_.step);

  replace_folder_atomically(folder_.checkpoint(), [&](const std::filesystem::path& temporary) {
    write_trained(temporary);
    optimizer_.save(temporary / kOptimizerFile);
    if (options_.carry_state && !carried_.state().empty()) carried_.state().save(temporary / kStateFile);
  });
  saved_step_ = state_.step;
}

void Trainer::save_best() {
  replace_folder_atomically(folder_.best(), [&](const std::filesystem::path& temporary) { write_trained(temporary); });
}

void Trainer::write_trained(const std::filesystem::path& folder) {
  state_.batches = feed_.generator();
  state_.position = feed_.position();
  write_model(folder, model_);
  write_file_atomically(folder / kVocabularyFile, corpus_.vocabulary.json());
  write_trainer_state(folder / kTrainerFile, state_);
}

std::string Trainer::write_sample() {
  std::string text;
  Generator generator = random_stream(options_, RandomStream::sample);
  generate(model_, corpus_.vocabulary, "", options_.sample_length, {.temperature = kSampleTemperature}, generator,
           [&](const std::string& piece) {
             text += piece;
             return true;
           });
  write_file_atomically(folder_ / kSampleFile, text + "\n");
  return text;
}

int Trainer::finish(int signal) {
  save();
  if (!signal && options_.sample_length > 0) progress_.line(str("\n", write_sample(), "\n"));

  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const std::string done = signal ? str("stopped by a signal after step ", state_.step, ", go on with --resume")
                                  : str("done after step ", state_.step);
  progress_.line(str(done, ": ", format_duration(seconds_since(started_)), ", peak memory ",
                     mebibytes(static_cast<double>(memory_stats(device_).peak_reserved)), " in tensors, ",
                     mebibytes(static_cast<double>(usage.ru_maxrss) * 1024), " in all; saved in ",
                     folder_.path().string()));
  constexpr int kSignalExit = 128;  // as a shell reports a signal
  return signal ? kSignalExit + signal : 0;
}

bool Trainer::due(int64_t every) const {
  return state_.step == options_.steps || (every > 0 && state_.step % every == 0);
}

void Trainer::stop_at(const std::string& what, int64_t step) const {
  const std::optional<MatrixOverflow> overflow = take_matrix_overflow(device_);
  fail(what.c_str(), " at step ", step, ", so training stops; ",
       saved_step_ ? str("the checkpoint of step ", *saved_step_, " in ", folder_.checkpoint().string(), " is good")
                   : str("there is no good checkpoint"),
       overflow ? str("; ", describe(*overflow)) : ", try a lower --lr");
}

}  // namespace monoid
