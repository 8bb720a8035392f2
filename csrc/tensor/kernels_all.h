// Every kernel, for the instruction set that the including source file has chosen. It names the
// set's namespace in DLFERRY_TARGET, and defines DLFERRY_AVX2 where the set has that.
#include "tensor/kernels_base.h"
//
#include "tensor/kernels_cast.h"
#include "tensor/kernels_move.h"

namespace dlferry::DLFERRY_TARGET {

constinit const Kernels kKernels = {
    kPlainCasts,
    kWidenings,
    kNarrowings,
    {gather_run<1>, gather_run<2>, gather_run<4>, gather_run<8>, gather_run<16>},
    {scatter_run<1>, scatter_run<2>, scatter_run<4>, scatter_run<8>, scatter_run<16>},
    {swap_run<1>, swap_run<2>, swap_run<4>, swap_run<8>},
    {transpose_tile<1>, transpose_tile<2>, transpose_tile<4>, transpose_tile<8>,
     transpose_tile<16>},
    kShuffle,
};

}  // namespace dlferry::DLFERRY_TARGET
