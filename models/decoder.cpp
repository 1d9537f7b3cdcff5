#include "monoid/models/decoder.h"

#include <algorithm>
#include <utility>

#include "monoid/kernels/decoding.h"
#include "monoid/layers/module.h"

namespace monoid {
namespace {

constexpr int64_t kRoom = 256;  // steps that fit into caches behind a prompt before they move

// The last row of logits [batch, time, vocabulary].
Tensor last_of(const Tensor& logits) {
  const int64_t time = logits.size(1);
  return logits.as_strided({logits.size(0), logits.size(2)}, {logits.strides()[0], logits.strides()[2]},
                           logits.offset() + (time - 1) * logits.strides()[1]);
}

// Pinned memory as a GPU addresses it: a kernel that reads or writes a few bytes there needs no copy before or after.
Tensor mapped(const Tensor& pinned, Device device) {
  return Tensor::wrap(pinned.raw(), pinned.shape(), pinned.dtype(), device, [pinned] {});
}

}  // namespace

PaddedTokens pad_left(const std::vector<std::vector<int64_t>>& sequences) {
  size_t longest = 0, shortest = sequences.empty() ? 0 : sequences[0].size();
  for (const auto& sequence : sequences) {
    longest = std::max(longest, sequence.size());
    shortest = std::min(shortest, sequence.size());
  }
  check(shortest >= 1, "pad_left: wanted sequences of at least one token");
  std::vector<int64_t> tokens;
  std::vector<int32_t> padding;
  for (const auto& sequence : sequences) {
    padding.push_back(static_cast<int32_t>(longest - sequence.size()));
    tokens.insert(tokens.end(), longest - sequence.size(), 0);
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
  }
  const int64_t batch = std::ssize(sequences);
  return {Tensor::from(tokens, {batch, static_cast<int64_t>(longest)}),
          longest == shortest ? Tensor() : Tensor::from(padding, {batch})};
}

Decoder::Decoder(LanguageModel& model, int64_t batch, bool graph)
    : model_(model), device_(parameters(model).front().value.device()), batch_(batch), use_graph_(graph) {
  check(batch >= 1, "decoder: batch is ", batch, ", wanted 1 or more");
}

Tensor Decoder::prefill(const Tensor& tokens, const Tensor& padding) {
  check(tokens.defined() && tokens.rank() == 2 && tokens.size(0) == batch_ && tokens.size(1) >= 1,
        "decoder: prefill tokens are ", describe(tokens), ", wanted [", batch_, ", time] with a time of 1 or more");
  if (padding.defined()) {
    check_shape("decoder", "padding", padding, {batch_});
    for (const int64_t count : padding.to_vector<int64_t>()) {
      check(count >= 0 && count < tokens.size(1), "decoder: a sequence of ", tokens.size(1), " tokens has ", count,
            " of padding; wanted 0 or more and a token left");
    }
  }
  state_.clear();
  state_.reserve(tokens.size(1) + kRoom);
  return run(tokens, padding);
}

Tensor Decoder::step(const Tensor& tokens) {
  check(!state_.empty(), "decoder: step() before prefill(); read at least one token first");
  check_shape("decoder", "the tokens", tokens, {batch_});
  const Tensor column = tokens.view({batch_, 1});
  if (device_.is_cpu() || !use_graph_ || model_.pauses_after(state_)) return run(column);
  state_.make_room(1);
  if (graph_.recorded() && !fits_graph()) {
    graph_ = Graph();
    tried_ = false;
  }
  // The first token of some shapes runs as it is: it finds the fastest products, and makes tables for as far as the
  // caches reach.
  if (!std::exchange(tried_, true)) return run(column);
  if (!graph_.recorded()) record();
  for (NamedTensor& buffer : buffers_) {
    const Tensor before = state_.find(buffer.name);
    if (before.raw() == buffer.value.raw()) continue;  // left there by the graph itself
    buffer.value.copy_from(before);
    state_.set(buffer.name, buffer.value);
  }
  host_tokens_.copy_from(column);
  graph_.replay();
  state_.advance(1);
  Stream::current(device_).synchronize();
  return host_logits_.to(DType::f32);
}

Tensor Decoder::run(const Tensor& tokens, const Tensor& padding) {
  const Tensor logits =
      model_.forward(tokens.to(device_), &state_, nullptr, padding.defined() ? padding.to(device_) : padding);
  return last_of(logits).to(DType::f32).to(kCpu);
}

// Whether the graph reads a state of these shapes: a longer prompt has longer caches.
bool Decoder::fits_graph() const {
  return state_.size() == buffers_.size() && std::ranges::all_of(buffers_, [&](const NamedTensor& buffer) {
           const Tensor held = state_.find(buffer.name);
           return held.defined() && held.shape() == buffer.value.shape();
         });
}

// A token from pinned memory to logits in pinned memory; the state is read from buffers and written back to them,
// caches apart, which are written in place.
void Decoder::record() {
  graph_ = Graph();
  host_tokens_ = pinned({batch_, 1}, DType::i64);
  host_logits_ = pinned({batch_, model_.vocabulary()}, parameters(model_).front().value.dtype());
  buffers_.clear();
  for (const NamedTensor& entry : state_.tensors())
    buffers_.push_back({entry.name, state_.is_cache(entry.name) ? entry.value : entry.value.clone()});
  graph_ = Graph(device_, [&] {
    const Tensor tokens = mapped(host_tokens_, device_);
    State state = state_;
    for (const NamedTensor& buffer : buffers_) state.set(buffer.name, buffer.value);
    const Tensor logits = last_of(model_.forward(tokens, &state));
    std::vector<CopyItem> copies;
    const auto copy = [&](const std::string& name, const Tensor& from, const Tensor& to) {
      check(from.defined() && from.shape() == to.shape() && from.dtype() == to.dtype(), "decoder: ", name, " is ",
            describe(from), " after a token, wanted ", describe(to), " as before it");
      copies.push_back({from.is_contiguous() ? from : from.clone(), to});
    };
    copy("logits", logits, mapped(host_logits_, device_));
    for (const NamedTensor& buffer : buffers_) {
      if (!state_.is_cache(buffer.name)) copy(buffer.name, state.find(buffer.name), buffer.value);
    }
    kernels::copy_each(logits, copies);
  });
}

}  // namespace monoid
