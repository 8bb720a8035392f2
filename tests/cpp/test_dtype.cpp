// The dtype table: complete, consistent, and closed under its look-ups.
#include "check.h"
#include "tensor/dtype.h"

namespace dlferry {
namespace {

void every_dtype_is_found_by_what_the_table_says() {
  for (std::size_t i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    const DTypeInfo& row = info(dtype);
    CHECK(dtype_from_dlpack(row.dlpack) == dtype);
    CHECK(dtype_from_name(row.name) == dtype);
    CHECK(item_size(dtype) == row.dlpack.bits / 8U);
    CHECK(row.swap_size == (is_complex(dtype) ? item_size(dtype) / 2 : item_size(dtype)));
    CHECK(!(is_complex(dtype) && is_floating(dtype)));
  }
}

void what_torch_cannot_hold_is_not_found() {
  CHECK(!dtype_from_dlpack({dlpack::kFloat, 32, 4}));
  CHECK(!dtype_from_dlpack({dlpack::kFloat, 32, 0}));
  CHECK(!dtype_from_dlpack({dlpack::kInt, 4, 1}));
  CHECK(!dtype_from_dlpack({dlpack::kFloat4_e2m1fn, 4, 1}));
  CHECK(!dtype_from_dlpack({dlpack::kOpaqueHandle, 64, 1}));
  CHECK(!dtype_from_dlpack({255, 8, 1}));
  CHECK(!dtype_from_name("float128"));
  CHECK(!dtype_from_name(""));
}

}  // namespace
}  // namespace dlferry

int main() {
  dlferry::every_dtype_is_found_by_what_the_table_says();
  dlferry::what_torch_cannot_hold_is_not_found();
  return dlferry::test::finish();
}
