#pragma once

namespace monoid::cuda {

/// Makes CUDA devices hold tensors: memory, copies, streams, events, graphs.
void bind_runtime();

}  // namespace monoid::cuda
