// The kernels for every processor the build is meant for.
#define DLFERRY_TARGET portable
#include "tensor/kernels_all.inc"
