#include "monoid/models/train_step.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace monoid {
namespace {

constexpr size_t kMostRecordings = 4;  // shapes of batch that stay captured; each holds the memory of a step

bool same_form(const Tensor& a, const Tensor& b) { return a.shape() == b.shape() && a.dtype() == b.dtype(); }

// The element of a vector as a tensor [].
Tensor element(const Tensor& vector, int64_t index) { return vector.as_strided({}, {}, vector.offset() + index); }

// Brings batches to the device while the step before still runs: through pinned memory, on a stream of its own, into
// one of two buffers, and from there into the tensors that the step reads.
class Staging {
 public:
  Staging(Device device, std::span<const Tensors> like)
      : stream_(device), lanes_{Lane(device, like), Lane(device, like)} {}

  void bring(std::span<const Tensors> batches, std::vector<Tensors>& inputs) {
    Lane& lane = lanes_[turn_];
    turn_ = 1 - turn_;
    lane.copied.synchronize();
    for_each(lane.host, batches, [](Tensor& host, const Tensor& from) { host.copy_from(from); });
    {
      const StreamScope scope(stream_);
      lane.consumed.wait();
      for_each(lane.device, lane.host, [](Tensor& to, const Tensor& host) { copy_async(host, to); });
      lane.copied.record();
    }
    lane.copied.wait();
    for_each(inputs, lane.device, [](Tensor& input, const Tensor& from) { input.copy_from(from); });
    lane.consumed.record();
  }

 private:
  struct Lane {
    std::vector<Tensors> host, device;
    Event copied, consumed;

    Lane(Device target, std::span<const Tensors> like) : copied(target), consumed(target) {
      for (const Tensors& batch : like) {
        host.emplace_back();
        device.emplace_back();
        for (const Tensor& tensor : batch) {
          host.back().push_back(pinned(tensor.shape(), tensor.dtype()));
          device.back().push_back(Tensor::empty(tensor.shape(), tensor.dtype(), target));
        }
      }
    }
  };

  template <class To, class From, class Copy>
  static void for_each(To& to, const From& from, Copy copy) {
    for (size_t i = 0; i < to.size(); ++i) {
      for (size_t j = 0; j < to[i].size(); ++j) copy(to[i][j], from[i][j]);
    }
  }

  Stream stream_;
  std::array<Lane, 2> lanes_;
  size_t turn_ = 0;
};

}  // namespace

// What belongs to one shape of batch: the tensors that the step reads, and the step itself once it is captured.
struct TrainStep::Recording {
  std::vector<Tensors> inputs;
  std::optional<Staging> staging;
  std::optional<Generator> random;  // in the graph it counts from zero; `base` says from where
  Tensor base;                      // i64 []
  Graph graph;
  Found found;
  bool tried = false;

  bool fits(std::span<const Tensors> batches, const Generator* generator) const {
    const auto same_batch = [](const Tensors& a, const Tensors& b) { return std::ranges::equal(a, b, same_form); };
    const bool same_random = generator ? random && random->seed() == generator->seed() : !random;
    return same_random && std::ranges::equal(inputs, batches, same_batch);
  }
};

double common_clip(const AdamW& optimizer, double clip) {
  const auto limited = [](const ParameterGroup& group) { return group.clip_norm > 0; };
  return std::ranges::any_of(optimizer.groups(), limited) ? 0 : clip;
}

StepResult PendingStep::wait() const {
  check(landing_, "train step: waited for a step that was never queued");
  if (landing_->done) landing_->done->synchronize();
  const std::vector<double> losses = landing_->losses.to_vector<double>();
  const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
  return {sum / static_cast<double>(losses.size()), landing_->norm.item()};
}

TrainStep::TrainStep(Device device, Loss loss, AdamW& optimizer, const TrainStepOptions& options)
    : device_(device), loss_(std::move(loss)), optimizer_(optimizer), options_(options) {
  check(options.clip >= 0, "train step: clip is ", options.clip, ", wanted 0 (no limit of its own) or a norm");
}

PendingStep TrainStep::run(std::span<const Tensors> batches, double learning_rate, Generator* random) {
  check(!batches.empty(), "train step: no batches; give one, or several to accumulate their gradients");
  optimizer_.set_learning_rate(learning_rate);
  return land(device_.is_cpu() ? compute(batches, random) : run_on_device(batches, random));
}

TrainStep::Found TrainStep::compute(std::span<const Tensors> batches, Generator* random) {
  optimizer_.zero_grad();
  const double share = 1.0 / static_cast<double>(batches.size());
  Found found;
  for (int64_t i = 0; i < std::ssize(batches); ++i) {
    Tape tape;
    const Tensor loss = loss_(batches[static_cast<size_t>(i)], random);
    if (!found.losses.defined()) {
      const DType dtype = loss.dtype() == DType::f64 ? DType::f64 : DType::f32;
      found.losses = Tensor::empty({std::ssize(batches)}, dtype, device_);
    }
    element(found.losses, i).copy_from(loss.detach());
    tape.backward(loss, share == 1 ? Tensor() : Tensor::full(loss.shape(), share, loss.dtype(), device_));
  }
  found.norm = optimizer_.clip_and_step(options_.clip);
  return found;
}

TrainStep::Found TrainStep::run_on_device(std::span<const Tensors> batches, Generator* random) {
  Recording& recording = recording_for(batches, random);
  recording.staging->bring(batches, recording.inputs);
  // The first step of a shape runs as it is: the optimizer's state and the fastest products are found on the way.
  if (!options_.graph || !std::exchange(recording.tried, true)) return compute(recording.inputs, random);
  Generator* const counted = recording.random ? &*recording.random : nullptr;
  if (!recording.graph.recorded()) {
    empty_cache(device_);
    recording.graph = Graph(device_, [&] { recording.found = compute(recording.inputs, counted); });
  }
  if (random) recording.base.fill(static_cast<double>(random->offset()));
  recording.graph.replay();
  if (random) random->set_offset(random->offset() + counted->offset());
  return recording.found;
}

TrainStep::Recording& TrainStep::recording_for(std::span<const Tensors> batches, const Generator* random) {
  for (const auto& recording : recordings_) {
    if (recording->fits(batches, random)) return *recording;
  }
  if (recordings_.size() == kMostRecordings) recordings_.erase(recordings_.begin());
  Recording& recording = *recordings_.emplace_back(std::make_shared<Recording>());
  for (const Tensors& batch : batches) {
    Tensors& inputs = recording.inputs.emplace_back();
    for (const Tensor& tensor : batch) inputs.push_back(Tensor::empty(tensor.shape(), tensor.dtype(), device_));
  }
  recording.staging.emplace(device_, batches);
  if (random) {
    recording.base = Tensor::zeros({}, DType::i64, device_);
    recording.random.emplace(random->seed());
    recording.random->set_base(recording.base);
  }
  return recording;
}

PendingStep TrainStep::land(const Found& found) {
  PendingStep pending;
  if (device_.is_cpu()) {
    pending.landing_ = std::make_shared<PendingStep::Landing>(found.losses, found.norm, std::nullopt);
    return pending;
  }
  const auto free = std::ranges::find_if(landings_, [&](const auto& landing) {
    return landing.use_count() == 1 && same_form(landing->losses, found.losses) && landing->done->done();
  });
  if (free != landings_.end()) {
    pending.landing_ = *free;
  } else {
    pending.landing_ = landings_.emplace_back(std::make_shared<PendingStep::Landing>(
        pinned(found.losses.shape(), found.losses.dtype()), pinned({}, DType::f64), Event(device_)));
  }
  copy_async(found.losses, pending.landing_->losses);
  copy_async(found.norm, pending.landing_->norm);
  pending.landing_->done->record();
  return pending;
}

}  // namespace monoid
