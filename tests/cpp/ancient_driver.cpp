// A driver for CUDA 11.2, the last one without cuGetProcAddress: all that dlferry asks of it is its
// version.
extern "C" __attribute__((visibility("default"))) unsigned cuDriverGetVersion(int* version) {
  *version = 11020;
  return 0;
}
