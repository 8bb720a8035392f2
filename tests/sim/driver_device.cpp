// The driver's functions: initialisation, errors, devices and contexts.
#include <cstdio>
#include <utility>

#include "call.h"

namespace dlferry::cu {
namespace {

using sim::Call;
using sim::call;
using sim::Function;

struct ErrorText {
  std::uint32_t code;
  const char* name;
  const char* text;
};
constexpr ErrorText kErrors[] = {
    {kSuccess, "CUDA_SUCCESS", "no error"},
    {kErrorInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {kErrorOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {kErrorNotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {kErrorDeinitialized, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"},
    {kErrorNoDevice, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {kErrorInvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {kErrorInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {kErrorInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {kErrorNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {kErrorNotReady, "CUDA_ERROR_NOT_READY", "device not ready"},
    {kErrorIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS",
     "an illegal memory access was encountered"},
    {kErrorHostMemoryAlreadyRegistered, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
     "part or all of the requested memory range is already mapped"},
    {kErrorHostMemoryNotRegistered, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
     "pointer does not correspond to a registered memory region"},
    {kErrorLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {kErrorNotPermitted, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    {kErrorNotSupported, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {kErrorSystemDriverMismatch, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
     "system has unsupported display driver / cuda driver combination"},
    {kErrorStreamCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {kErrorStreamCaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {kErrorStreamCaptureImplicit, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {kErrorUnknown, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

// For a code that it does not know, the driver answers with null and INVALID_VALUE.
Result describe(Result code, const char** result, const char* ErrorText::* member) {
  if (!result) return kErrorInvalidValue;
  *result = nullptr;
  for (const ErrorText& error : kErrors) {
    if (error.code == code) *result = error.*member;
  }
  return *result ? kSuccess : kErrorInvalidValue;
}

sim::Context* context_of(Call& made, Device device) {
  return made.world().contexts.of_device(device, made.world().settings.devices);
}

}  // namespace

Result cuInit(unsigned flags) {
  return call(Function::cuInit, sim::kNeedsNothing, {}, [&](Call& made) {
    const sim::Settings& settings = made.world().settings;
    if (flags != 0) return kErrorInvalidValue;
    if (settings.init_result != 0) return static_cast<Result>(settings.init_result);
    if (settings.devices == 0) return kErrorNoDevice;
    made.world().is_initialized = true;
    return kSuccess;
  });
}

Result cuDriverGetVersion(int* version) {
  return call(Function::cuDriverGetVersion, sim::kNeedsNothing, {}, [&](Call& made) {
    if (!version) return kErrorInvalidValue;
    *version = static_cast<int>(made.world().settings.version);
    return kSuccess;
  });
}

Result cuGetErrorName(Result code, const char** name) {
  return call(Function::cuGetErrorName, sim::kNeedsNothing, {},
              [&](Call&) { return describe(code, name, &ErrorText::name); });
}

Result cuGetErrorString(Result code, const char** text) {
  return call(Function::cuGetErrorString, sim::kNeedsNothing, {},
              [&](Call&) { return describe(code, text, &ErrorText::text); });
}

Result cuDeviceGetCount(int* count) {
  return call(Function::cuDeviceGetCount, sim::kNeedsInit, {}, [&](Call& made) {
    if (!count) return kErrorInvalidValue;
    *count = static_cast<int>(made.world().settings.devices);
    return kSuccess;
  });
}

Result cuDeviceGet(Device* device, int ordinal) {
  return call(Function::cuDeviceGet, sim::kNeedsInit, {}, [&](Call& made) {
    if (!device) return kErrorInvalidValue;
    if (!context_of(made, ordinal)) return kErrorInvalidDevice;
    *device = ordinal;
    return kSuccess;
  });
}

Result cuDeviceGetName(char* name, int length, Device device) {
  return call(Function::cuDeviceGetName, sim::kNeedsInit, {}, [&](Call& made) {
    if (!name || length <= 0) return kErrorInvalidValue;
    if (!context_of(made, device)) return kErrorInvalidDevice;
    std::snprintf(name, static_cast<std::size_t>(length), "Simulated GPU");
    return kSuccess;
  });
}

Result cuDeviceGetPCIBusId(char* id, int length, Device device) {
  return call(Function::cuDeviceGetPCIBusId, sim::kNeedsInit, {}, [&](Call& made) {
    if (!id || length < 13) return kErrorInvalidValue;
    if (!context_of(made, device)) return kErrorInvalidDevice;
    std::snprintf(id, static_cast<std::size_t>(length), "0000:%02X:00.0",
                  0xD0U + static_cast<unsigned>(device));
    return kSuccess;
  });
}

Result cuDeviceGetAttribute(int* value, DeviceAttribute attribute, Device device) {
  return call(Function::cuDeviceGetAttribute, sim::kNeedsInit, {}, [&](Call& made) {
    if (!value) return kErrorInvalidValue;
    if (!context_of(made, device)) return kErrorInvalidDevice;
    const sim::Settings& settings = made.world().settings;
    const std::pair<DeviceAttribute, std::int64_t> known[] = {
        {kAsyncEngineCount, settings.async_engines},
        {kPageableMemoryAccess, settings.pageable_access},
        {kCanUseHostPointerForRegisteredMem, settings.shares_addresses},
        {kHostRegisterSupported, settings.register_supported},
        {kPageableMemoryAccessUsesHostPageTables, settings.page_tables},
        {kReadOnlyHostRegisterSupported, settings.read_only_register},
        {kHostNumaId, settings.numa_node},
    };
    for (const auto& [name, number] : known) {
      if (name != attribute) continue;
      if (name == kHostNumaId && settings.version < 12020) return kErrorInvalidValue;
      *value = static_cast<int>(number);
      return kSuccess;
    }
    return kErrorInvalidValue;
  });
}

Result cuDevicePrimaryCtxRetain(cu::Context* context, Device device) {
  return call(Function::cuDevicePrimaryCtxRetain, sim::kNeedsInit, {}, [&](Call& made) {
    if (!context) return kErrorInvalidValue;
    sim::Context* const found = context_of(made, device);
    if (!found) return kErrorInvalidDevice;
    ++found->retains;
    *context = found->handle();
    return kSuccess;
  });
}

Result cuDevicePrimaryCtxRelease_v2(Device device) {
  return call(Function::cuDevicePrimaryCtxRelease_v2, sim::kNeedsInit | sim::kReleases, {},
              [&](Call& made) {
                sim::Context* const found = context_of(made, device);
                if (!found) return kErrorInvalidDevice;
                if (found->retains == 0) return kErrorInvalidContext;
                --found->retains;
                return kSuccess;
              });
}

Result cuCtxGetCurrent(cu::Context* context) {
  return call(Function::cuCtxGetCurrent, sim::kNeedsInit, {}, [&](Call& made) {
    if (!context) return kErrorInvalidValue;
    *context = made.current() ? made.current()->handle() : nullptr;
    return kSuccess;
  });
}

Result cuCtxPushCurrent_v2(cu::Context context) {
  const sim::Arguments arguments{.object = sim::number_of(context)};
  return call(Function::cuCtxPushCurrent_v2, sim::kNeedsInit, arguments, [&](Call& made) {
    sim::Context* const found = made.world().contexts.from_handle(context);
    if (!found || !found->exists()) return kErrorInvalidContext;
    sim::Thread& thread = sim::this_thread();
    if (thread.depth == sim::Thread::kDeepest) return kErrorOutOfMemory;
    thread.stack[thread.depth++] = found;
    return kSuccess;
  });
}

Result cuCtxPopCurrent_v2(cu::Context* context) {
  return call(Function::cuCtxPopCurrent_v2, sim::kNeedsInit | sim::kReleases, {}, [&](Call&) {
    sim::Thread& thread = sim::this_thread();
    if (thread.depth == 0) return kErrorInvalidContext;
    sim::Context* const popped = thread.stack[--thread.depth];
    if (context) *context = popped->handle();
    return kSuccess;
  });
}

Result cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return call(Function::cuCtxGetStreamPriorityRange, sim::kNeedsContext, {}, [&](Call&) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return kSuccess;
  });
}

}  // namespace dlferry::cu
