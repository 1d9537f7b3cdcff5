#pragma once

#include <optional>
#include <vector>

#include "monoid/layers/block_reader.h"
#include "monoid/layers/embedding.h"
#include "monoid/layers/geglu_feed_forward.h"
#include "monoid/models/config.h"
#include "monoid/models/language_model.h"

namespace monoid {

/// The configuration of BlockRecurrentTransformer (lucidrains/block-recurrent-transformer-pytorch): its names and
/// defaults, and those of its trainer.
struct BlockRecurrentConfig {
  static constexpr const char* kType = "block-recurrent";

  int64_t num_tokens = 256;
  int64_t dim = 512;
  int64_t depth = 6;
  int64_t dim_head = 64;
  int64_t heads = 8;
  bool all_layers_qk_rmsnorm = false;
  double ff_mult = 4;
  int64_t max_seq_len = 1024;  // kept for who reads the file: sequences of any length are read
  int64_t block_width = 512;
  std::optional<std::vector<int64_t>> recurrent_layers = {};  // counted from 1; null: the one in the middle
  std::optional<std::vector<int64_t>> read_recurrent_layers =
      {};                                         // where each state is read; null: where it is written
  std::optional<int64_t> num_state_vectors = {};  // null: as many as a block has tokens
  int64_t ignore_index = -100;                    // targets of this do not count in the loss
  bool use_compressed_mem = false;
  int64_t compressed_mem_factor = 4;
  // In training, how often what came in of memories, or of states, is forgotten.
  double xl_memories_dropout = 0, state_dropout = 0;
  bool use_flash_attn = false;  // kept for who reads the file: attention is always in blocks that fit

  /// Counted from 0: the layers that write a state, in order, and where each state is read.
  struct Route {
    int64_t write, read;
  };
  std::vector<Route> routes() const;
  /// Of a layer, counted from 0.
  BlockRecurrentOptions attention(int64_t layer) const;
  int64_t feed_forward_inner() const { return static_cast<int64_t>(static_cast<double>(dim) * ff_mult * 2 / 3); }
  /// Parameters of the model, without building it.
  int64_t parameters() const;

  void visit(ConfigVisitor& visitor);
  /// Throws an Error naming the first value out of range.
  void validate() const;
};

/// The Block-Recurrent Transformer. Sequences are read in blocks of block_width tokens, which see themselves and the
/// block before. Per layer: LayerNorm -> attention (BlockRecurrentAttention), residual -> LayerNorm -> GEGLU
/// feed-forward, residual. Then LayerNorm and logits. Layers that hand nothing down to others from block to block read
/// all blocks of a call at once.
class BlockRecurrent : public LanguageModel {
 public:
  BlockRecurrent(const BlockRecurrentConfig& config, Generator& init);

  std::string type() const override { return BlockRecurrentConfig::kType; }
  int64_t vocabulary() const override { return config_.num_tokens; }
  std::string config() const override { return to_json(config_); }
  int64_t ignored_target() const override { return config_.ignore_index; }
  /// A call may begin and end inside of a block. Its state: "remembered" i32 [batch], the blocks that memories are of;
  /// "layers.N.past" and "layers.N.block", keys and values side by side of the memory and of the block that is not
  /// full; "layers.N.states" [batch, num_state_vectors, dim] where a state is written. Sequences with padding count
  /// their blocks from their first token, so that they may stand apart: then further tokens are read one by one.
  Tensor forward(const Tensor& tokens, State* state = nullptr, Generator* dropout = nullptr,
                 const Tensor& padding = {}) override;
  /// Where all sequences come to the end of a block together, whose states are written then.
  bool pauses_after(const State& state) const override;
  void recompute_layers(bool wanted) override;
  void visit(Visitor& visitor) override;

 private:
  class Layer : public Module {
   public:
    Layer(const BlockRecurrentConfig& config, int64_t index, Generator& init);
    void visit(Visitor& visitor) override;

    LayerNorm attention_norm;
    BlockRecurrentAttention attention;
    LayerNorm feed_forward_norm;
    GegluFeedForward feed_forward;
    std::vector<int64_t> reads;  // the layers whose states are read here
  };
  // Layers first .. end - 1, which need each other block by block if they are more than one.
  struct Group {
    int64_t first, end;
  };

  Tensor run(const Tensor& x, const BlockSpan& span, std::vector<BlockMemory>& memories) const;
  Tensor through(const Group& group, Tensor x, const BlockSpan& span, std::vector<BlockMemory>& memories) const;

  BlockRecurrentConfig config_;
  Embedding embedding_;
  std::vector<Layer> layers_;
  std::vector<Group> groups_;
  LayerNorm norm_;
  Linear to_logits_;
  BlockTables tables_;
};

}  // namespace monoid
