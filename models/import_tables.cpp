#include "monoid/models/import_tables.h"

namespace monoid {
namespace {

// A layer there is a ModuleList: 0 convolution (or nothing), 1 norm, 2 minGRU or minLSTM, 3 norm, 4 feed-forward.
ImportTable min_lm() {
  return {.source = "lucidrains/minGRU-pytorch minLM",
          .model = "minlm",
          .rules = {{"token_emb.", "embedding."},
                    {"layers.*.0.net.0.weight", "layers.*.conv.depthwise.weight", 1},
                    {"layers.*.0.net.0.bias", "layers.*.conv.depthwise.bias"},
                    {"layers.*.0.net.1.weight", "layers.*.conv.pointwise.weight", 2},
                    {"layers.*.0.net.1.bias", "layers.*.conv.pointwise.bias"},
                    {"layers.*.1.", "layers.*.mixer_norm."},
                    {"layers.*.2.", "layers.*.mixer."},
                    {"layers.*.3.", "layers.*.feed_forward_norm."},
                    {"layers.*.4.0.", "layers.*.feed_forward.up."},
                    {"layers.*.4.2.", "layers.*.feed_forward.down."},
                    {"norm.", "norm."},
                    {"to_logits.", "to_logits."}},
          .ignored = {}};
}

// A layer there is a ModuleList: 0 norm, 1 mixer, 2 norm, 3 feed-forward.
ImportTable hybrid_lm() {
  return {.source = "lucidrains/minGRU-pytorch hybridLM",
          .model = "hybridlm",
          .rules = {{"token_emb.", "embedding."},
                    {"layers.*.0.", "layers.*.mixer_norm."},
                    {"layers.*.1.to_mix.0.", "layers.*.mixer.mix_norm."},
                    {"layers.*.1.to_mix.1.", "layers.*.mixer.to_mix."},
                    {"layers.*.1.", "layers.*.mixer."},
                    {"layers.*.2.", "layers.*.feed_forward_norm."},
                    {"layers.*.3.0.", "layers.*.feed_forward.up."},
                    {"layers.*.3.2.", "layers.*.feed_forward.down."},
                    {"norm.", "norm."},
                    {"to_logits.", "to_logits."}},
          .ignored = {}};
}

// linear_h and linear_z are one projection here, so that the scan reads it in one piece.
ImportTable stacked_mamba_min_gru() {
  return {.source = "Fritschek/MinGRU-x-Mamba StackedMambaMinGRU",
          .model = "",
          .rules = {{"layers.*.min_gru.linear_h.", "layers.*.min_gru.to_hidden_and_gate.", -1, 0, 2},
                    {"layers.*.min_gru.linear_z.", "layers.*.min_gru.to_hidden_and_gate.", -1, 1, 2},
                    {"layers.*.", "layers.*."},
                    {"final_down_projection.", "final_down_projection."}},
          .ignored = {}};
}

// A layer has linear_h and linear_z itself, or forward and backward ones.
ImportTable wrapped_min_gru() {
  return {.source = "Fritschek/MinGRU-x-Mamba WrappedMinGRU",
          .model = "",
          .rules = {{"layers.*.fwd.linear_h.", "layers.*.fwd.to_hidden_and_gate.", -1, 0, 2},
                    {"layers.*.fwd.linear_z.", "layers.*.fwd.to_hidden_and_gate.", -1, 1, 2},
                    {"layers.*.bwd.linear_h.", "layers.*.bwd.to_hidden_and_gate.", -1, 0, 2},
                    {"layers.*.bwd.linear_z.", "layers.*.bwd.to_hidden_and_gate.", -1, 1, 2},
                    {"layers.*.linear_h.", "layers.*.to_hidden_and_gate.", -1, 0, 2},
                    {"layers.*.linear_z.", "layers.*.to_hidden_and_gate.", -1, 1, 2}},
          .ignored = {}};
}

// A block there is a convolution and a minGRU, or attention.
ImportTable min_gru_attention() {
  return {.source = "vasqu/minGRU-torch MinGRUForCausalLM",
          .model = "min-gru-attention",
          .rules = {{"backbone.embeddings.", "embedding."},
                    {"backbone.layers.*.block.norm.", "layers.*.mixer_norm."},
                    {"backbone.layers.*.block.conv1d.weight", "layers.*.mixer.conv.weight", 1},
                    {"backbone.layers.*.block.conv1d.bias", "layers.*.mixer.conv.bias"},
                    {"backbone.layers.*.block.attn.q_proj.", "layers.*.mixer.to_query."},
                    {"backbone.layers.*.block.attn.k_proj.", "layers.*.mixer.to_key_value.", -1, 0, 2},
                    {"backbone.layers.*.block.attn.v_proj.", "layers.*.mixer.to_key_value.", -1, 1, 2},
                    {"backbone.layers.*.block.attn.o_proj.", "layers.*.mixer.to_out."},
                    {"backbone.layers.*.block.", "layers.*.mixer.min_gru."},
                    {"backbone.layers.*.feed_forward.norm.", "layers.*.mlp_norm."},
                    {"backbone.layers.*.feed_forward.up_proj.", "layers.*.up."},
                    {"backbone.layers.*.feed_forward.down_proj.", "layers.*.down."},
                    {"backbone.norm_f.", "norm."},
                    {"lm_head.", "head."}},
          .ignored = {},
          .echoes = {{"lm_head.weight", "backbone.embeddings.weight"}},
          .tie_key = "tie_word_embeddings"};
}

// Layers of three kinds in one list; position_embedding is computed where it is needed.
ImportTable mru_lm() {
  return {.source = "mikayahlevi/mru-lm hybrid_lm_network",
          .model = "mru-lm",
          .rules = {{"wte.", "embedding."},
                    {"pre_lns.*.", "layers.*.norm."},
                    {"layers.*.state_matrices_up.weight", "layers.*.mixer.to_matrices"},
                    {"layers.*.state_matrices_down", "layers.*.mixer.from_matrices"},
                    {"layers.*.mru_out.weight", "layers.*.mixer.to_out"},
                    {"layers.*.query_layer.weight", "layers.*.mixer.to_query"},
                    {"layers.*.key_layer.weight", "layers.*.mixer.to_key"},
                    {"layers.*.value_layer.weight", "layers.*.mixer.to_value"},
                    {"layers.*.attention_down.weight", "layers.*.mixer.attention_out"},
                    {"layers.*.mlp.0.", "layers.*.mixer.up."},
                    {"layers.*.mlp.2.", "layers.*.mixer.down."},
                    {"final_ln.", "norm."}},
          .ignored = {"position_embedding."},
          .echoes = {{"lm_head.weight", "wte.weight"}}};
}

// A layer there is a pair: 0 attention with its norm and state, 1 norm and feed-forward. Norms have a bias of zeros.
ImportTable block_recurrent() {
  return {.source = "lucidrains/block-recurrent-transformer-pytorch",
          .model = "block-recurrent",
          .rules = {{"token_emb.", "embedding."},
                    {"layers.*.0.norm.gamma", "layers.*.attention_norm.weight"},
                    {"layers.*.0.to_q.", "layers.*.attention.to_query."},
                    {"layers.*.0.to_kv.", "layers.*.attention.to_key_value."},
                    {"layers.*.0.to_out.", "layers.*.attention.to_out."},
                    {"layers.*.0.attn.", "layers.*.attention.norm."},
                    {"layers.*.0.state_container.state_norm.gamma", "layers.*.attention.state.norm.weight"},
                    {"layers.*.0.state_container.q_to_state.", "layers.*.attention.state.read_query."},
                    {"layers.*.0.state_container.state_to_q.", "layers.*.attention.state.self_query."},
                    {"layers.*.0.state_container.q_from_state.", "layers.*.attention.state.cross_query."},
                    {"layers.*.0.state_container.state_to_kv.", "layers.*.attention.state.to_key_value."},
                    {"layers.*.0.state_container.init_state", "layers.*.attention.state.beginning"},
                    {"layers.*.0.state_container.state_pos_ids", "layers.*.attention.state.places"},
                    {"layers.*.0.state_container.to_state_cross_attn.", "layers.*.attention.state.read_norm."},
                    {"layers.*.0.state_container.state_self_attn.", "layers.*.attention.state.self_norm."},
                    {"layers.*.0.state_container.from_state_cross_attn.", "layers.*.attention.state.cross_norm."},
                    {"layers.*.0.state_container.to_state_out.", "layers.*.attention.state.to_out."},
                    {"layers.*.0.state_container.state_out_to_gate.", "layers.*.attention.state.to_update."},
                    {"layers.*.0.state_container.learned_ema_beta", "layers.*.attention.state.pace"},
                    {"mem_manager.layers.*.1.1.", "layers.*.attention.compress."},
                    {"layers.*.1.0.gamma", "layers.*.feed_forward_norm.weight"},
                    {"layers.*.1.1.", "layers.*.feed_forward.up."},
                    {"layers.*.1.3.", "layers.*.feed_forward.down."},
                    {"to_logits.0.gamma", "norm.weight"},
                    {"to_logits.1.", "to_logits."}},
          .ignored = {},
          .echoes = {{"layers.*.0.norm.beta", "layers.*.0.norm.gamma", ImportEcho::Kind::zeros},
                     {"layers.*.0.state_container.state_norm.beta", "layers.*.0.state_container.state_norm.gamma",
                      ImportEcho::Kind::zeros},
                     {"layers.*.1.0.beta", "layers.*.1.0.gamma", ImportEcho::Kind::zeros},
                     {"to_logits.0.beta", "to_logits.0.gamma", ImportEcho::Kind::zeros}}};
}

// A layer there is a pair of wrapped blocks: 0 gate-looped or full attention, 1 feed-forward. RMSNorms before them have
// a gamma, LayerNorms after them a weight and a bias.
ImportTable gate_loop() {
  return {.source = "lucidrains/gateloop-transformer Transformer",
          .model = "gate-loop",
          .rules = {{"token_emb.", "embedding."},
                    {"layers.*.0.norm.gamma", "layers.*.mixer_norm.weight"},
                    {"layers.*.1.norm.gamma", "layers.*.feed_forward_norm.weight"},
                    {"layers.*.0.norm.", "layers.*.mixer_post_norm."},
                    {"layers.*.1.norm.", "layers.*.feed_forward_post_norm."},
                    {"layers.*.0.fn.to_qkv.0.", "layers.*.mixer.to_heads."},
                    {"layers.*.0.fn.to_out.1.", "layers.*.mixer.from_heads."},
                    {"layers.*.0.fn.rotary_emb.freqs", "layers.*.mixer.frequencies"},
                    {"layers.*.0.fn.to_qkv.", "layers.*.mixer.to_qkv."},
                    {"layers.*.0.fn.to_a.0.", "layers.*.mixer.to_a."},
                    {"layers.*.0.fn.maybe_sub_ln.", "layers.*.mixer.sub_norm."},
                    {"layers.*.0.fn.to_gates.0.", "layers.*.mixer.to_gates."},
                    {"layers.*.0.fn.to_out.", "layers.*.mixer.to_out."},
                    {"layers.*.1.fn.0.", "layers.*.feed_forward.up."},
                    {"layers.*.1.fn.2.", "layers.*.feed_forward.down."},
                    {"to_logits.0.gamma", "norm.weight"},
                    {"to_logits.1.", "to_logits."},
                    {"to_logits.", "head."}},
          .ignored = {}};
}

ImportTable simple_gate_loop() {
  return {.source = "lucidrains/gateloop-transformer SimpleGateLoopLayer",
          .model = "",
          .rules = {{"norm.gamma", "norm.weight"}, {"to_qkva.0.", "to_qkva."}, {"maybe_post_ln.", "post_norm."}},
          .ignored = {}};
}

}  // namespace

const std::vector<ImportTable>& import_tables() {
  static const std::vector<ImportTable> tables{
      min_lm(),  //
      hybrid_lm(),       min_gru_attention(), stacked_mamba_min_gru(), wrapped_min_gru(), mru_lm(),
      block_recurrent(), gate_loop(),         simple_gate_loop(),
  };
  return tables;
}

}  // namespace monoid
