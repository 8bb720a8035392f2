// What dlferry uses of the CUDA driver API, written out from its documentation: types and
// constants.
//
// Names follow `cuda.h` without its `CU_` / `CUDA_` prefixes; `tests/cpp/cuda_abi_check.cpp`
// compares all of them with the toolkit's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dlferry::cu {

using Device = int;
using DevicePtr = std::uint64_t;
using Context = struct ContextTag*;
using Stream = struct StreamTag*;
using Event = struct EventTag*;

enum Result : std::uint32_t {
  kSuccess = 0,
  kErrorInvalidValue = 1,
  kErrorOutOfMemory = 2,
  kErrorNotInitialized = 3,
  kErrorDeinitialized = 4,
  kErrorNoDevice = 100,
  kErrorInvalidDevice = 101,
  kErrorInvalidContext = 201,
  kErrorEccUncorrectable = 214,
  kErrorNvlinkUncorrectable = 220,
  kErrorContained = 226,
  kErrorInvalidHandle = 400,
  kErrorNotFound = 500,
  kErrorNotReady = 600,
  kErrorIllegalAddress = 700,
  kErrorLaunchTimeout = 702,
  kErrorContextIsDestroyed = 709,
  kErrorAssert = 710,
  kErrorHostMemoryAlreadyRegistered = 712,
  kErrorHostMemoryNotRegistered = 713,
  kErrorHardwareStackError = 714,
  kErrorIllegalInstruction = 715,
  kErrorMisalignedAddress = 716,
  kErrorInvalidAddressSpace = 717,
  kErrorInvalidPc = 718,
  kErrorLaunchFailed = 719,
  kErrorTensorMemoryLeak = 721,
  kErrorNotPermitted = 800,
  kErrorNotSupported = 801,
  kErrorSystemDriverMismatch = 803,
  kErrorStreamCaptureUnsupported = 900,
  kErrorStreamCaptureInvalidated = 901,
  kErrorStreamCaptureImplicit = 906,
  kErrorUnknown = 999,
};

enum DeviceAttribute : std::uint32_t {
  kAsyncEngineCount = 40,
  kPageableMemoryAccess = 88,
  kCanUseHostPointerForRegisteredMem = 91,
  kHostRegisterSupported = 99,
  kPageableMemoryAccessUsesHostPageTables = 100,
  kReadOnlyHostRegisterSupported = 113,
  kHostNumaId = 134,
};

enum PointerAttribute : std::uint32_t {
  kMemoryType = 2,
  kIsManaged = 8,
  kDeviceOrdinal = 9,
  kRangeStart = 11,
  kRangeSize = 12
};
enum MemoryType : std::uint32_t { kMemoryHost = 1, kMemoryDevice = 2 };
enum CaptureStatus : std::uint32_t { kCaptureNone = 0, kCaptureActive = 1, kCaptureInvalid = 2 };
enum CaptureMode : std::uint32_t { kCaptureGlobal = 0, kCaptureThread = 1, kCaptureRelaxed = 2 };
enum AccessOrder : std::uint32_t { kOrderStream = 1, kOrderDuringCall = 2, kOrderAny = 3 };

inline constexpr unsigned kStreamNonBlocking = 1;
inline constexpr unsigned kEventBlockingSync = 1, kEventDisableTiming = 2;
inline constexpr unsigned kHostAllocPortable = 1;
inline constexpr unsigned kHostRegisterPortable = 1, kHostRegisterReadOnly = 8;
inline const Stream kStreamLegacy = nullptr;  // the null stream

struct Location {
  std::uint32_t type;
  int id;
};

struct CopyAttributes {
  AccessOrder order;
  Location source_hint;
  Location destination_hint;
  unsigned flags;
};

}  // namespace dlferry::cu
