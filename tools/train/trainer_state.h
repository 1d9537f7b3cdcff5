#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>

#include "monoid/core/random.h"

namespace monoid {

/// What trainer.json holds: with the parameters and the optimizer's moments, all that a run needs to go on bit for bit.
struct TrainerState {
  int64_t step = 0;
  Generator batches{0}, dropout{0};  // a generator's seed and offset are the place in the data
  int64_t position = 0;              // in streams, the place in the data
  double best_loss = std::numeric_limits<double>::infinity();
  int64_t context = 0;
  std::string text;  // which text the run reads, to notice another one
  uint32_t text_checksum = 0;
};

void write_trainer_state(const std::filesystem::path& file, const TrainerState& state);
/// A missing or damaged file is an Error that names it.
TrainerState read_trainer_state(const std::filesystem::path& file);

}  // namespace monoid
