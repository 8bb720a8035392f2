// DLPack 1.3, written out from the specification (https://dmlc.github.io/dlpack/latest/c_api.html).
//
// Layouts and constants only: `tests/cpp/dlpack_abi_check.cpp` compares every one of them with the
// header that torch ships. Names follow the specification without its `DL` / `kDL` prefixes.
#pragma once

#include <cstdint>

namespace dlferry::dlpack {

inline constexpr std::uint32_t kMajorVersion = 1;
inline constexpr std::uint32_t kMinorVersion = 3;
inline constexpr std::uint32_t kMinorWithoutStrides = 1;  // the last: null means C-contiguous

struct Version {
  std::uint32_t major;
  std::uint32_t minor;
};

enum DeviceType : std::int32_t {
  kCPU = 1,
  kCUDA = 2,
  kCUDAHost = 3,
  kROCM = 10,
  kROCMHost = 11,
  kCUDAManaged = 13,
};

struct Device {
  std::int32_t device_type;  // a DeviceType, or a value that this header does not know
  std::int32_t device_id;    // 0 for CPU, pinned and managed memory
};

enum TypeCode : std::uint8_t {
  kInt = 0,
  kUInt = 1,
  kFloat = 2,
  kOpaqueHandle = 3,
  kBfloat = 4,
  kComplex = 5,
  kBool = 6,
  kFloat8_e3m4 = 7,
  kFloat8_e4m3 = 8,
  kFloat8_e4m3b11fnuz = 9,
  kFloat8_e4m3fn = 10,
  kFloat8_e4m3fnuz = 11,
  kFloat8_e5m2 = 12,
  kFloat8_e5m2fnuz = 13,
  kFloat8_e8m0fnu = 14,
  kFloat6_e2m3fn = 15,
  kFloat6_e3m2fn = 16,
  kFloat4_e2m1fn = 17,
};

struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null means C-contiguous (allowed before version 1.2)
  std::uint64_t byte_offset;
};

// The legacy record: no version, no flags.
struct ManagedTensor {
  Tensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(ManagedTensor* self);
};

inline constexpr std::uint64_t kFlagReadOnly = 1U << 0U;
inline constexpr std::uint64_t kFlagIsCopied = 1U << 1U;
inline constexpr std::uint64_t kFlagSubbytePadded = 1U << 2U;

struct ManagedTensorVersioned {
  Version version;
  void* manager_ctx;
  void (*deleter)(ManagedTensorVersioned* self);
  std::uint64_t flags;
  Tensor dl_tensor;
};

// The C exchange table, `type(x).__dlpack_c_exchange_api__`: a capsule of this name on the type.
// Every function returns 0, or -1 with a Python error set, and is called with the GIL held.
inline constexpr const char* kExchangeCapsule = "dlpack_exchange_api";

struct ExchangeHeader {
  Version version;
  ExchangeHeader* prev_api;
};

struct ExchangeTable {
  ExchangeHeader header;
  int (*managed_tensor_allocator)(Tensor* prototype, ManagedTensorVersioned** out, void* error_ctx,
                                  void (*set_error)(void* error_ctx, const char* kind,
                                                    const char* message));
  int (*managed_tensor_from_py_object_no_sync)(void* py_object, ManagedTensorVersioned** out);
  int (*managed_tensor_to_py_object_no_sync)(ManagedTensorVersioned* tensor, void** out_py_object);
  int (*dltensor_from_py_object_no_sync)(void* py_object, Tensor* out);  // may be null
  int (*current_work_stream)(std::int32_t device_type, std::int32_t device_id, void** out_stream);
};

// Names of the capsules that `__dlpack__` returns, before and after a consumer took them.
inline constexpr const char* kCapsule = "dltensor";
inline constexpr const char* kCapsuleVersioned = "dltensor_versioned";
inline constexpr const char* kUsedCapsule = "used_dltensor";
inline constexpr const char* kUsedCapsuleVersioned = "used_dltensor_versioned";

}  // namespace dlferry::dlpack
