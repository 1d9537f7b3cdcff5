#pragma once

#include "monoid/kernels/host_device.h"

namespace monoid {

/// The end from which erfc(t) is 0 in f32, and the shift of the fit below.
inline constexpr float kErfcEnd = 9.4f, kErfcShift = 2.5f;

/// (t + 2.5) erfc(t) exp(t^2) for 0 <= t <= 9.4 as a polynomial in u = t / (t + 2.5): a minimax fit, 1 ulp of f32.
[[gnu::always_inline]] MONOID_HOST_DEVICE constexpr float erfc_fit(float u) {
  float y = 7.700166577e-02f;
  y = -1.815147067e-01f + u * y;
  y = -3.395600825e-02f + u * y;
  y = 2.728606955e-01f + u * y;
  y = 2.932829615e-01f + u * y;
  y = -6.631427045e-01f + u * y;
  y = -1.168241151e+00f + u * y;
  y = 4.020360802e+00f + u * y;
  y = -4.552372890e+00f + u * y;
  return 2.500000015e+00f + u * y;
}

}  // namespace monoid
