// Our declarations of the CUDA driver against the toolkit's header. Compiling this file is the
// test: `tests/test_cuda_abi.py` does so, where there is a toolkit of CUDA 13.0 or later.
//
// Compared are every constant, every struct, and every function of the one list: the declaration
// under the symbol that we load, and the type that the toolkit has for the name at the version that
// we ask cuGetProcAddress for. Theirs is spelled with their handles, structs and enums, ours with
// ours, and integers go by size and sign; `Plain` translates both before the comparison.
#define __CUDA_API_VERSION_INTERNAL  // declare what is newest as what is older under own names
#include <cuda.h>
#include <cudaTypedefs.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "abi/cuda_functions.h"

namespace ours = dlferry::cu;

template <std::size_t kSize, bool kSigned>
struct IntegerOf;
template <>
struct IntegerOf<4, true> {
  using type = std::int32_t;
};
template <>
struct IntegerOf<4, false> {
  using type = std::uint32_t;
};
template <>
struct IntegerOf<8, true> {
  using type = std::int64_t;
};
template <>
struct IntegerOf<8, false> {
  using type = std::uint64_t;
};

template <class T>
struct PlainOf {
  using type = T;
};
template <class T>
using Plain = typename PlainOf<T>::type;

template <class T>
  requires(std::is_integral_v<T> && sizeof(T) >= 4 && !std::is_const_v<T>)
struct PlainOf<T> {
  using type = typename IntegerOf<sizeof(T), std::is_signed_v<T>>::type;
};
template <class T>
  requires(std::is_enum_v<T> && !std::is_const_v<T>)
struct PlainOf<T> {
  using type = Plain<std::underlying_type_t<T>>;
};
template <class T>
struct PlainOf<const T> {
  using type = const Plain<T>;
};
template <class T>
struct PlainOf<T*> {
  using type = Plain<T>*;
};
template <class Result, class... Arguments>
struct PlainOf<Result(Arguments...)> {
  using type = Plain<Result>(Plain<Arguments>...);
};

#define SAME_HANDLE(mine, theirs)                 \
  template <>                                     \
  struct PlainOf<std::remove_pointer_t<theirs>> { \
    using type = std::remove_pointer_t<mine>;     \
  }

#define SAME_STRUCT(mine, theirs)                                              \
  template <>                                                                  \
  struct PlainOf<theirs> {                                                     \
    using type = ours::mine;                                                   \
  };                                                                           \
  static_assert(sizeof(ours::mine) == sizeof(theirs), #theirs " size");        \
  static_assert(alignof(ours::mine) == alignof(theirs), #theirs " alignment"); \
  static_assert(std::is_standard_layout_v<ours::mine>, #theirs " layout")

#define SAME_FIELD(mine, my_field, theirs, field)                                            \
  static_assert(offsetof(ours::mine, my_field) == offsetof(theirs, field),                   \
                #theirs "." #field " offset");                                               \
  static_assert(                                                                             \
      std::is_same_v<Plain<decltype(ours::mine::my_field)>, Plain<decltype(theirs::field)>>, \
      #theirs "." #field " type")

#define SAME_ENUM(mine, theirs) \
  static_assert(std::is_same_v<Plain<ours::mine>, Plain<theirs>>, #theirs " type")

#define SAME_VALUE(mine, theirs)                                                      \
  static_assert(static_cast<long long>(ours::mine) == static_cast<long long>(theirs), \
                #theirs " value")

SAME_HANDLE(ours::Context, CUcontext);
SAME_HANDLE(ours::Stream, CUstream);
SAME_HANDLE(ours::Event, CUevent);
static_assert(std::is_same_v<Plain<ours::Device>, Plain<CUdevice>>, "CUdevice type");
static_assert(std::is_same_v<Plain<ours::DevicePtr>, Plain<CUdeviceptr>>, "CUdeviceptr type");

SAME_STRUCT(Location, CUmemLocation);
SAME_FIELD(Location, type, CUmemLocation, type);
SAME_FIELD(Location, id, CUmemLocation, id);

SAME_STRUCT(CopyAttributes, CUmemcpyAttributes);
SAME_FIELD(CopyAttributes, order, CUmemcpyAttributes, srcAccessOrder);
SAME_FIELD(CopyAttributes, source_hint, CUmemcpyAttributes, srcLocHint);
SAME_FIELD(CopyAttributes, destination_hint, CUmemcpyAttributes, dstLocHint);
SAME_FIELD(CopyAttributes, flags, CUmemcpyAttributes, flags);

SAME_ENUM(Result, CUresult);
SAME_VALUE(kSuccess, CUDA_SUCCESS);
SAME_VALUE(kErrorInvalidValue, CUDA_ERROR_INVALID_VALUE);
SAME_VALUE(kErrorOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY);
SAME_VALUE(kErrorNotInitialized, CUDA_ERROR_NOT_INITIALIZED);
SAME_VALUE(kErrorDeinitialized, CUDA_ERROR_DEINITIALIZED);
SAME_VALUE(kErrorNoDevice, CUDA_ERROR_NO_DEVICE);
SAME_VALUE(kErrorInvalidDevice, CUDA_ERROR_INVALID_DEVICE);
SAME_VALUE(kErrorInvalidContext, CUDA_ERROR_INVALID_CONTEXT);
SAME_VALUE(kErrorEccUncorrectable, CUDA_ERROR_ECC_UNCORRECTABLE);
SAME_VALUE(kErrorNvlinkUncorrectable, CUDA_ERROR_NVLINK_UNCORRECTABLE);
SAME_VALUE(kErrorContained, CUDA_ERROR_CONTAINED);
SAME_VALUE(kErrorInvalidHandle, CUDA_ERROR_INVALID_HANDLE);
SAME_VALUE(kErrorNotFound, CUDA_ERROR_NOT_FOUND);
SAME_VALUE(kErrorNotReady, CUDA_ERROR_NOT_READY);
SAME_VALUE(kErrorIllegalAddress, CUDA_ERROR_ILLEGAL_ADDRESS);
SAME_VALUE(kErrorLaunchTimeout, CUDA_ERROR_LAUNCH_TIMEOUT);
SAME_VALUE(kErrorContextIsDestroyed, CUDA_ERROR_CONTEXT_IS_DESTROYED);
SAME_VALUE(kErrorAssert, CUDA_ERROR_ASSERT);
SAME_VALUE(kErrorHostMemoryAlreadyRegistered, CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
SAME_VALUE(kErrorHostMemoryNotRegistered, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
SAME_VALUE(kErrorHardwareStackError, CUDA_ERROR_HARDWARE_STACK_ERROR);
SAME_VALUE(kErrorIllegalInstruction, CUDA_ERROR_ILLEGAL_INSTRUCTION);
SAME_VALUE(kErrorMisalignedAddress, CUDA_ERROR_MISALIGNED_ADDRESS);
SAME_VALUE(kErrorInvalidAddressSpace, CUDA_ERROR_INVALID_ADDRESS_SPACE);
SAME_VALUE(kErrorInvalidPc, CUDA_ERROR_INVALID_PC);
SAME_VALUE(kErrorLaunchFailed, CUDA_ERROR_LAUNCH_FAILED);
SAME_VALUE(kErrorTensorMemoryLeak, CUDA_ERROR_TENSOR_MEMORY_LEAK);
SAME_VALUE(kErrorNotPermitted, CUDA_ERROR_NOT_PERMITTED);
SAME_VALUE(kErrorNotSupported, CUDA_ERROR_NOT_SUPPORTED);
SAME_VALUE(kErrorSystemDriverMismatch, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
SAME_VALUE(kErrorStreamCaptureUnsupported, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
SAME_VALUE(kErrorStreamCaptureInvalidated, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
SAME_VALUE(kErrorStreamCaptureImplicit, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
SAME_VALUE(kErrorUnknown, CUDA_ERROR_UNKNOWN);

SAME_ENUM(DeviceAttribute, CUdevice_attribute);
SAME_VALUE(kAsyncEngineCount, CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT);
SAME_VALUE(kPageableMemoryAccess, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS);
SAME_VALUE(kCanUseHostPointerForRegisteredMem,
           CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM);
SAME_VALUE(kHostRegisterSupported, CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED);
SAME_VALUE(kPageableMemoryAccessUsesHostPageTables,
           CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES);
SAME_VALUE(kReadOnlyHostRegisterSupported, CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED);
SAME_VALUE(kHostNumaId, CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID);

SAME_ENUM(PointerAttribute, CUpointer_attribute);
SAME_VALUE(kMemoryType, CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
SAME_VALUE(kIsManaged, CU_POINTER_ATTRIBUTE_IS_MANAGED);
SAME_VALUE(kDeviceOrdinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
SAME_VALUE(kRangeStart, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR);
SAME_VALUE(kRangeSize, CU_POINTER_ATTRIBUTE_RANGE_SIZE);

SAME_ENUM(MemoryType, CUmemorytype);
SAME_VALUE(kMemoryHost, CU_MEMORYTYPE_HOST);
SAME_VALUE(kMemoryDevice, CU_MEMORYTYPE_DEVICE);

SAME_ENUM(CaptureStatus, CUstreamCaptureStatus);
SAME_VALUE(kCaptureNone, CU_STREAM_CAPTURE_STATUS_NONE);
SAME_VALUE(kCaptureActive, CU_STREAM_CAPTURE_STATUS_ACTIVE);
SAME_VALUE(kCaptureInvalid, CU_STREAM_CAPTURE_STATUS_INVALIDATED);

SAME_ENUM(CaptureMode, CUstreamCaptureMode);
SAME_VALUE(kCaptureGlobal, CU_STREAM_CAPTURE_MODE_GLOBAL);
SAME_VALUE(kCaptureThread, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
SAME_VALUE(kCaptureRelaxed, CU_STREAM_CAPTURE_MODE_RELAXED);

SAME_ENUM(AccessOrder, CUmemcpySrcAccessOrder);
SAME_VALUE(kOrderStream, CU_MEMCPY_SRC_ACCESS_ORDER_STREAM);
SAME_VALUE(kOrderDuringCall, CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL);
SAME_VALUE(kOrderAny, CU_MEMCPY_SRC_ACCESS_ORDER_ANY);

SAME_VALUE(kStreamNonBlocking, CU_STREAM_NON_BLOCKING);
SAME_VALUE(kEventBlockingSync, CU_EVENT_BLOCKING_SYNC);
SAME_VALUE(kEventDisableTiming, CU_EVENT_DISABLE_TIMING);
SAME_VALUE(kHostAllocPortable, CU_MEMHOSTALLOC_PORTABLE);
SAME_VALUE(kHostRegisterPortable, CU_MEMHOSTREGISTER_PORTABLE);
SAME_VALUE(kHostRegisterReadOnly, CU_MEMHOSTREGISTER_READ_ONLY);

// `PFN_name_vVERSION` exists for the versions that changed a function, and only for those.
#define SAME_FUNCTION(need, name, symbol, version, parameters)                      \
  static_assert(std::is_same_v<Plain<ours::Fn::symbol>, Plain<decltype(::symbol)>>, \
                #symbol " parameters");                                             \
  static_assert(std::is_same_v<PFN_##name##_v##version, decltype(&::symbol)>,       \
                #name " is " #symbol " as of " #version);
DLFERRY_CUDA_FUNCTIONS(SAME_FUNCTION)
