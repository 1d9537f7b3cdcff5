#pragma once

#include <chrono>
#include <deque>
#include <optional>

#include "monoid/models/carried_state.h"
#include "monoid/models/train_step.h"
#include "monoid/tools/text/evaluation.h"
#include "monoid/tools/text/progress.h"
#include "monoid/tools/train/corpus.h"
#include "monoid/tools/train/feed.h"
#include "monoid/tools/train/log.h"
#include "monoid/tools/train/options.h"
#include "monoid/tools/train/run_folder.h"
#include "monoid/tools/train/schedule.h"
#include "monoid/tools/train/trainer_state.h"

namespace monoid {

/// Trains a model on a corpus, in a run folder. All of them must outlive it.
class Trainer {
 public:
  Trainer(const TrainOptions& options, const Corpus& corpus, LanguageModel& model, const RunFolder& folder);

  /// Goes back to where the folder's checkpoint was written. An Error if the text is not the one it was trained on.
  void resume();

  /// Trains to the last step and writes a sample, or stops after a signal: the process' exit code. A loss that is not
  /// finite is an Error that names the step; the last good checkpoint stays.
  int run();

 private:
  /// A step on its way: on a GPU the next one is queued before this one is through.
  struct Queued {
    int64_t number;
    double learning_rate;
    PendingStep pending;
  };
  struct Step {
    int64_t number;
    double learning_rate;
    StepResult result;
  };

  void queue_step();
  /// Waits until at most `ahead` steps are on their way; the result of the last one waited for.
  std::optional<Step> settle(size_t ahead);
  void record(const Step& step, const std::optional<Evaluation>& validation);
  Evaluation validate();
  void save();
  void save_best();
  void write_trained(const std::filesystem::path& folder);
  std::string write_sample();
  int finish(int signal);

  bool due(int64_t every) const;
  [[noreturn]] void stop_at(const std::string& what, int64_t step) const;

  const TrainOptions& options_;
  const Corpus& corpus_;
  LanguageModel& model_;
  const RunFolder& folder_;
  Device device_;
  Schedule schedule_;
  Feed feed_;
  Windows windows_;
  AdamW optimizer_;
  CarriedState carried_;
  TrainStep train_step_;
  std::deque<Queued> queued_;
  TrainerState state_;
  Progress progress_;
  std::optional<Log> log_;

  std::optional<int64_t> saved_step_;
  std::chrono::steady_clock::time_point started_;
  int64_t steps_here_ = 0;   // since this process began
  double step_seconds_ = 0;  // in steps since the last line of the log
  int64_t steps_since_line_ = 0;
};

}  // namespace monoid
