// The one list of the CUDA driver's functions that dlferry calls. Loading, the simulated driver's
// exports and the comparison with the toolkit's `cuda.h` all expand it.
#pragma once

#include "abi/cuda_driver.h"

// X(need, name, symbol, version, parameters): `name` is what cuGetProcAddress knows, `symbol` what
// the library exports, `version` the CUDA version whose behaviour this code was written for.
// Without a Required function there is no CUDA; without an Optional one, what needs it is not used.
#define DLFERRY_CUDA_FUNCTIONS(X)                                                                \
  X(Required, cuInit, cuInit, 2000, (unsigned))                                                  \
  X(Required, cuDriverGetVersion, cuDriverGetVersion, 2020, (int*))                              \
  X(Required, cuGetErrorName, cuGetErrorName, 6000, (Result, const char**))                      \
  X(Required, cuGetErrorString, cuGetErrorString, 6000, (Result, const char**))                  \
  X(Required, cuDeviceGet, cuDeviceGet, 2000, (Device*, int))                                    \
  X(Required, cuDeviceGetCount, cuDeviceGetCount, 2000, (int*))                                  \
  X(Required, cuDeviceGetName, cuDeviceGetName, 2000, (char*, int, Device))                      \
  X(Required, cuDeviceGetPCIBusId, cuDeviceGetPCIBusId, 4010, (char*, int, Device))              \
  X(Required, cuDeviceGetAttribute, cuDeviceGetAttribute, 2000, (int*, DeviceAttribute, Device)) \
  X(Required, cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000, (Context*, Device))      \
  X(Required, cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, 11000, (Device))          \
  X(Required, cuCtxGetCurrent, cuCtxGetCurrent, 4000, (Context*))                                \
  X(Required, cuCtxPushCurrent, cuCtxPushCurrent_v2, 4000, (Context))                            \
  X(Required, cuCtxPopCurrent, cuCtxPopCurrent_v2, 4000, (Context*))                             \
  X(Required, cuCtxGetStreamPriorityRange, cuCtxGetStreamPriorityRange, 5050, (int*, int*))      \
  X(Required, cuMemHostAlloc, cuMemHostAlloc, 2020, (void**, std::size_t, unsigned))             \
  X(Required, cuMemFreeHost, cuMemFreeHost, 2000, (void*))                                       \
  X(Required, cuMemHostRegister, cuMemHostRegister_v2, 6050, (void*, std::size_t, unsigned))     \
  X(Required, cuMemHostUnregister, cuMemHostUnregister, 4000, (void*))                           \
  X(Required, cuPointerGetAttributes, cuPointerGetAttributes, 7000,                              \
    (unsigned, PointerAttribute*, void**, DevicePtr))                                            \
  X(Required, cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, 3020,                                     \
    (DevicePtr, const void*, std::size_t, Stream))                                               \
  X(Required, cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, 3020,                                     \
    (void*, DevicePtr, std::size_t, Stream))                                                     \
  X(Optional, cuMemcpyBatchAsync, cuMemcpyBatchAsync, 12080,                                     \
    (DevicePtr*, DevicePtr*, std::size_t*, std::size_t, CopyAttributes*, std::size_t*,           \
     std::size_t, std::size_t*, Stream))                                                         \
  X(Optional, cuMemcpyBatchAsync, cuMemcpyBatchAsync_v2, 13000,                                  \
    (DevicePtr*, DevicePtr*, std::size_t*, std::size_t, CopyAttributes*, std::size_t*,           \
     std::size_t, Stream))                                                                       \
  X(Required, cuStreamCreateWithPriority, cuStreamCreateWithPriority, 5050,                      \
    (Stream*, unsigned, int))                                                                    \
  X(Required, cuStreamDestroy, cuStreamDestroy_v2, 4000, (Stream))                               \
  X(Required, cuStreamSynchronize, cuStreamSynchronize, 2000, (Stream))                          \
  X(Required, cuStreamWaitEvent, cuStreamWaitEvent, 3020, (Stream, Event, unsigned))             \
  X(Required, cuStreamIsCapturing, cuStreamIsCapturing, 10000, (Stream, CaptureStatus*))         \
  X(Required, cuThreadExchangeStreamCaptureMode, cuThreadExchangeStreamCaptureMode, 10010,       \
    (CaptureMode*))                                                                              \
  X(Required, cuEventCreate, cuEventCreate, 2000, (Event*, unsigned))                            \
  X(Required, cuEventDestroy, cuEventDestroy_v2, 4000, (Event))                                  \
  X(Required, cuEventRecord, cuEventRecord, 2000, (Event, Stream))                               \
  X(Required, cuEventQuery, cuEventQuery, 2000, (Event))                                         \
  X(Required, cuEventSynchronize, cuEventSynchronize, 2000, (Event))

namespace dlferry::cu {

// The type of each function, under its symbol: `Fn::cuEventQuery`.
struct Fn {
#define DLFERRY_X(need, name, symbol, version, parameters) using symbol = Result parameters;
  DLFERRY_CUDA_FUNCTIONS(DLFERRY_X)
#undef DLFERRY_X
};

}  // namespace dlferry::cu
