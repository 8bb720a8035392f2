// The kernels for every processor the build is meant for.
#define DLFERRY_TARGET portable
#define DLFERRY_VECTOR_BYTES 16
#include "tensor/kernels_all.h"
