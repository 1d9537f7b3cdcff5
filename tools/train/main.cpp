#include <iostream>

#include "monoid/core/parallel.h"
#include "monoid/core/runtime.h"
#include "monoid/models/catalog.h"
#include "monoid/models/checkpoint.h"
#include "monoid/ops/matmul.h"
#include "monoid/tools/text/command_line.h"
#include "monoid/tools/train/interrupt.h"
#include "monoid/tools/train/trainer.h"

namespace monoid {
namespace {

std::unique_ptr<LanguageModel> new_model(const TrainOptions& options, const Corpus& corpus) {
  Generator parameters = random_stream(options, RandomStream::parameters);
  auto model = make_model(options.model, options.model_settings(corpus.vocabulary.size()), parameters);
  cast_to(*model, parse_dtype(options.dtype));
  return model;
}

int train(int argc, const char* const* argv) {
  const TrainCommand command = read_train_command(argc, argv);
  if (command.exit_code) return *command.exit_code;
  const TrainOptions& options = command.options;
  if (options.threads > 0) set_threads(static_cast<int>(options.threads));
  set_matmul_precision(options.tf32 ? MatmulPrecision::tf32 : MatmulPrecision::exact);
  catch_interrupts();

  RunFolder folder(options);
  const Corpus corpus = load_corpus(options);
  const auto model = options.resume ? load_model(folder.checkpoint()) : new_model(options, corpus);
  move_to(*model, Device::parse(options.device));
  Trainer trainer(options, corpus, *model, folder);
  options.resume ? trainer.resume() : folder.begin();
  folder.write_config(options, *model);

  std::cout << model->type() << ", " << format_count(static_cast<double>(parameter_count(*model))) << " parameters, on "
            << corpus.name << " (" << format_count(static_cast<double>(corpus.split.train.size()))
            << " tokens to train on, " << corpus.vocabulary.size() << " distinct), in " << options.out << ", on "
            << device_info(Device::parse(options.device)).name << " in " << options.dtype << std::endl;
  return trainer.run();
}

}  // namespace
}  // namespace monoid

int main(int argc, char** argv) {
  return monoid::run_tool("train", [&] { return monoid::train(argc, argv); });
}
