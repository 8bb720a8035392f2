// Our DLPack declarations against the header that torch ships. Compiling this file is the test:
// `tests/test_abi.py` does so, and it needs nothing else, neither Python nor a build of the core.
//
// Compared are sizes, alignments, the offset and type of every field, the signature of every
// function pointer, and every constant. Their types are spelled with their own structs and enums,
// ours with ours, so `Ours<T>` translates theirs before the comparison.
#include <ATen/dlpack.h>

#include <cstddef>
#include <type_traits>

#include "abi/dlpack.h"

namespace ours = dlferry::dlpack;

template <class T>
struct OursOf {
  using type = T;
};
template <class T>
using Ours = typename OursOf<T>::type;

#define SAME_STRUCT(mine, theirs)                                              \
  template <>                                                                  \
  struct OursOf<theirs> {                                                      \
    using type = ours::mine;                                                   \
  };                                                                           \
  static_assert(sizeof(ours::mine) == sizeof(theirs), #theirs " size");        \
  static_assert(alignof(ours::mine) == alignof(theirs), #theirs " alignment"); \
  static_assert(std::is_standard_layout_v<ours::mine>, #theirs " layout")

template <class T>
  requires std::is_enum_v<T>
struct OursOf<T> {
  using type = std::underlying_type_t<T>;
};
template <class T>
struct OursOf<T*> {
  using type = Ours<T>*;
};
template <class Result, class... Arguments>
struct OursOf<Result(Arguments...)> {
  using type = Ours<Result>(Ours<Arguments>...);
};

#define SAME_FIELD(mine, theirs, field)                                                     \
  static_assert(offsetof(ours::mine, field) == offsetof(theirs, field),                     \
                #theirs "." #field " offset");                                              \
  static_assert(std::is_same_v<decltype(ours::mine::field), Ours<decltype(theirs::field)>>, \
                #theirs "." #field " type")

#define SAME_VALUE(mine, theirs)                                                      \
  static_assert(static_cast<long long>(ours::mine) == static_cast<long long>(theirs), \
                #theirs " value")

SAME_STRUCT(Version, DLPackVersion);
SAME_FIELD(Version, DLPackVersion, major);
SAME_FIELD(Version, DLPackVersion, minor);

SAME_STRUCT(Device, DLDevice);
SAME_FIELD(Device, DLDevice, device_type);
SAME_FIELD(Device, DLDevice, device_id);

SAME_STRUCT(DataType, DLDataType);
SAME_FIELD(DataType, DLDataType, code);
SAME_FIELD(DataType, DLDataType, bits);
SAME_FIELD(DataType, DLDataType, lanes);

SAME_STRUCT(Tensor, DLTensor);
SAME_FIELD(Tensor, DLTensor, data);
SAME_FIELD(Tensor, DLTensor, device);
SAME_FIELD(Tensor, DLTensor, ndim);
SAME_FIELD(Tensor, DLTensor, dtype);
SAME_FIELD(Tensor, DLTensor, shape);
SAME_FIELD(Tensor, DLTensor, strides);
SAME_FIELD(Tensor, DLTensor, byte_offset);

SAME_STRUCT(ManagedTensor, DLManagedTensor);
SAME_FIELD(ManagedTensor, DLManagedTensor, dl_tensor);
SAME_FIELD(ManagedTensor, DLManagedTensor, manager_ctx);
SAME_FIELD(ManagedTensor, DLManagedTensor, deleter);

SAME_STRUCT(ManagedTensorVersioned, DLManagedTensorVersioned);
SAME_FIELD(ManagedTensorVersioned, DLManagedTensorVersioned, version);
SAME_FIELD(ManagedTensorVersioned, DLManagedTensorVersioned, manager_ctx);
SAME_FIELD(ManagedTensorVersioned, DLManagedTensorVersioned, deleter);
SAME_FIELD(ManagedTensorVersioned, DLManagedTensorVersioned, flags);
SAME_FIELD(ManagedTensorVersioned, DLManagedTensorVersioned, dl_tensor);

SAME_STRUCT(ExchangeHeader, DLPackExchangeAPIHeader);
SAME_FIELD(ExchangeHeader, DLPackExchangeAPIHeader, version);
SAME_FIELD(ExchangeHeader, DLPackExchangeAPIHeader, prev_api);

SAME_STRUCT(ExchangeTable, DLPackExchangeAPI);
SAME_FIELD(ExchangeTable, DLPackExchangeAPI, header);
SAME_FIELD(ExchangeTable, DLPackExchangeAPI, managed_tensor_allocator);
SAME_FIELD(ExchangeTable, DLPackExchangeAPI, managed_tensor_from_py_object_no_sync);
SAME_FIELD(ExchangeTable, DLPackExchangeAPI, managed_tensor_to_py_object_no_sync);
SAME_FIELD(ExchangeTable, DLPackExchangeAPI, dltensor_from_py_object_no_sync);
SAME_FIELD(ExchangeTable, DLPackExchangeAPI, current_work_stream);

SAME_VALUE(kMajorVersion, DLPACK_MAJOR_VERSION);
SAME_VALUE(kFlagReadOnly, DLPACK_FLAG_BITMASK_READ_ONLY);
SAME_VALUE(kFlagIsCopied, DLPACK_FLAG_BITMASK_IS_COPIED);
SAME_VALUE(kFlagSubbytePadded, DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED);

static_assert(std::is_same_v<std::underlying_type_t<ours::DeviceType>, Ours<DLDeviceType>>);
SAME_VALUE(kCPU, kDLCPU);
SAME_VALUE(kCUDA, kDLCUDA);
SAME_VALUE(kCUDAHost, kDLCUDAHost);
SAME_VALUE(kROCM, kDLROCM);
SAME_VALUE(kROCMHost, kDLROCMHost);
SAME_VALUE(kCUDAManaged, kDLCUDAManaged);

SAME_VALUE(kInt, kDLInt);
SAME_VALUE(kUInt, kDLUInt);
SAME_VALUE(kFloat, kDLFloat);
SAME_VALUE(kOpaqueHandle, kDLOpaqueHandle);
SAME_VALUE(kBfloat, kDLBfloat);
SAME_VALUE(kComplex, kDLComplex);
SAME_VALUE(kBool, kDLBool);
SAME_VALUE(kFloat8_e3m4, kDLFloat8_e3m4);
SAME_VALUE(kFloat8_e4m3, kDLFloat8_e4m3);
SAME_VALUE(kFloat8_e4m3b11fnuz, kDLFloat8_e4m3b11fnuz);
SAME_VALUE(kFloat8_e4m3fn, kDLFloat8_e4m3fn);
SAME_VALUE(kFloat8_e4m3fnuz, kDLFloat8_e4m3fnuz);
SAME_VALUE(kFloat8_e5m2, kDLFloat8_e5m2);
SAME_VALUE(kFloat8_e5m2fnuz, kDLFloat8_e5m2fnuz);
SAME_VALUE(kFloat8_e8m0fnu, kDLFloat8_e8m0fnu);
SAME_VALUE(kFloat6_e2m3fn, kDLFloat6_e2m3fn);
SAME_VALUE(kFloat6_e3m2fn, kDLFloat6_e3m2fn);
SAME_VALUE(kFloat4_e2m1fn, kDLFloat4_e2m1fn);
