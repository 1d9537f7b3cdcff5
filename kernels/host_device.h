#pragma once

// nvcc only runs on the device what is marked for it; every other compiler sees nothing. The one macro of the project.
#if defined(__CUDACC__)
#define MONOID_HOST_DEVICE __host__ __device__
#else
#define MONOID_HOST_DEVICE
#endif
