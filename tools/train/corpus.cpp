#include "monoid/tools/train/corpus.h"

#include "monoid/tools/text/files.h"

namespace monoid {

Corpus load_corpus(const TrainOptions& options) {
  Text text = !options.data.empty()
                  ? load_text(options.data)
                  : load_dataset(options.dataset.empty() ? "source" : options.dataset, options.data_dir);
  if (!options.vocab.empty()) text.kind = Vocabulary::parse_kind(options.vocab);
  if (options.val_fraction > 0) {
    text.validation_fraction = options.val_fraction;
    text.test_fraction = 0;
  }
  const Vocabulary vocabulary(text.kind, text.content);
  Corpus corpus{text.name, checksum(text.content), vocabulary, vocabulary.encode(text.content), {}};
  corpus.split = split_tokens(corpus.tokens, text.validation_fraction, text.test_fraction);
  return corpus;
}

}  // namespace monoid
