# Sets MONOID_HAS_CUDA, and enables the language, as MONOID_CUDA (AUTO, ON, OFF) and the machine say.
set(MONOID_HAS_CUDA OFF CACHE INTERNAL "Whether this build has CUDA kernels")
if(MONOID_CUDA STREQUAL "OFF")
  return()
endif()

# Real code for these, and PTX of compute capability 8.0 that drivers compile for any newer GPU.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "80;90a" CACHE STRING "GPU architectures to compile for")
endif()
include(CheckLanguage)
check_language(CUDA)
find_package(CUDAToolkit QUIET)
if(NOT CMAKE_CUDA_COMPILER OR NOT TARGET CUDA::cublasLt)
  if(MONOID_CUDA STREQUAL "ON")
    message(FATAL_ERROR "MONOID_CUDA=ON, but the CUDA toolkit was not found (nvcc: ${CMAKE_CUDA_COMPILER}, "
                        "toolkit: ${CUDAToolkit_BIN_DIR}). Put nvcc on the PATH or set CUDACXX, or use OFF.")
  endif()
  message(STATUS "monoid: no CUDA toolkit found, building for the CPU only")
  return()
endif()

enable_language(CUDA)
# CMake 3.25 does not know that this nvcc speaks C++20.
foreach(kind STANDARD EXTENSION)
  if(NOT CMAKE_CUDA20_${kind}_COMPILE_OPTION)
    set(CMAKE_CUDA20_${kind}_COMPILE_OPTION -std=c++20)
  endif()
endforeach()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(MONOID_HAS_CUDA ON CACHE INTERNAL "Whether this build has CUDA kernels")
message(STATUS "monoid: CUDA ${CUDAToolkit_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
