#include "cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

namespace dlferry::cuda {
namespace {

constexpr const char* kForked =
    "CUDA does not survive a fork, and this process was forked from one that had opened the CUDA "
    "driver: start worker processes with the \"spawn\" method";

// What this process knows of the driver. Nothing here is destroyed when the process ends, because
// threads of ours and handles of others let go at any time; what the pointers point to is leaked on
// purpose, but for a name that is replaced.
std::atomic<const Driver*> opened{nullptr};
std::atomic<bool> initializing{false};  // cuInit has been called
std::atomic<bool> forked{false};
std::atomic<std::mutex*> opening{nullptr};         // held while the driver is opened or named
std::atomic<const std::string*> library{nullptr};  // to open instead of libcuda.so.1
std::atomic<const std::string*> failure{nullptr};  // why there is no driver

// A child has the state of CUDA in its parent, which is of no use to it, and `opening` perhaps in
// the hands of a thread that it does not have.
void count_cuda_as_absent() noexcept {
  if (opened.exchange(nullptr) != nullptr || initializing) forked = true;
  opening = nullptr;
}

// Registered when this library is loaded: on first use, a fork could come in between.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, count_cuda_as_absent);

std::mutex& opening_mutex() {
  std::mutex* existing = opening;
  if (existing) return *existing;
  auto* const made = new std::mutex;
  if (opening.compare_exchange_strong(existing, made)) return *made;
  delete made;  // another thread was first
  return *existing;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// The text of an error; shorter where the driver cannot say more.
std::string describe(const Driver* driver, const char* call, cu::Result code) {
  const char* name = nullptr;
  const char* meaning = nullptr;
  if (driver) {
    if (driver->cuGetErrorName(code, &name) != cu::kSuccess) name = nullptr;
    if (driver->cuGetErrorString(code, &meaning) != cu::kSuccess) meaning = nullptr;
  }
  const std::string number = std::to_string(static_cast<std::uint32_t>(code));
  std::string text = std::string(call) + " failed: ";
  text += name ? std::string(name) + " (" + number + ")" : "error " + number;
  if (meaning) text += std::string(": ") + meaning;
  return text;
}

// Entry points of an opened library, by the CUDA version whose behaviour is asked for.
class EntryPoints {
 public:
  explicit EntryPoints(void* library)
      : second_(reinterpret_cast<Second*>(dlsym(library, "cuGetProcAddress_v2"))),
        first_(reinterpret_cast<First*>(dlsym(library, "cuGetProcAddress"))) {}

  [[nodiscard]] explicit operator bool() const noexcept { return second_ || first_; }

  // Null where the driver does not have it.
  template <class Function>
  [[nodiscard]] Function* find(const char* name, int version) const noexcept {
    constexpr std::uint64_t kDefault = 0;  // with the legacy null stream
    void* found = nullptr;
    std::uint32_t status = 0;
    const cu::Result result = second_ ? second_(name, &found, version, kDefault, &status)
                                      : first_(name, &found, version, kDefault);
    return result == cu::kSuccess ? reinterpret_cast<Function*>(found) : nullptr;
  }

 private:
  using Second = cu::Result(const char*, void**, int, std::uint64_t, std::uint32_t*);  // 12.0
  using First = cu::Result(const char*, void**, int, std::uint64_t);                   // 11.3
  Second* second_;
  First* first_;
};

[[noreturn]] void refuse(const std::string& why) {
  throw Unavailable("CUDA is not available: " + why);
}

// Never closed again, also when it is of no use: others in this process may have it open.
void* open_library() {
  const std::string* const named = library;
  void* const handle = dlopen(named ? named->c_str() : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (handle) return handle;
  const char* const reason = dlerror();
  const std::string why = reason ? std::string(" (") + reason + ")" : std::string();
  if (named) refuse("the driver library that was asked for could not be opened" + why);
  refuse("libcuda.so.1, which is part of the NVIDIA driver, could not be opened" + why +
         ". Install the driver; a container must be started with access to the GPUs");
}

Driver find_functions(void* library) {
  int version = 0;
  auto* const get_version =
      reinterpret_cast<cu::Fn::cuDriverGetVersion*>(dlsym(library, "cuDriverGetVersion"));
  if (!get_version) refuse("the library that was opened is no CUDA driver");
  if (get_version(&version) != cu::kSuccess) version = 0;
  const EntryPoints entry_points(library);
  if (!entry_points) {
    refuse("the NVIDIA driver is too old: it is for CUDA " + version_text(version) +
           ", and 11.3 is the oldest that is supported. Update the driver");
  }
  Driver driver;
  driver.version = version;
  enum class Need { Required, Optional };
  const auto require = [version](Need need, const void* found, const char* name) {
    if (need == Need::Optional || found) return;
    refuse("the NVIDIA driver, which is for CUDA " + version_text(version) + ", has no " + name +
           ". Update the driver");
  };
#define DLFERRY_X(need, name, symbol, since, ...)                  \
  driver.symbol = entry_points.find<cu::Fn::symbol>(#name, since); \
  require(Need::need, reinterpret_cast<void*>(driver.symbol), #name);
  DLFERRY_CUDA_FUNCTIONS(DLFERRY_X)
#undef DLFERRY_X
  return driver;
}

// Returns how many devices there are.
int initialize(const Driver& driver) {
  initializing = true;
  cu::Result result = driver.cuInit(0);
  int devices = 0;
  if (result == cu::kSuccess) result = driver.cuDeviceGetCount(&devices);
  if (result == cu::kSuccess && devices > 0) return devices;
  initializing = false;
  switch (result) {
    case cu::kSuccess:
    case cu::kErrorNoDevice:
      refuse(
          "the NVIDIA driver finds no GPU. See what nvidia-smi lists, and whether "
          "CUDA_VISIBLE_DEVICES hides it; a container must be started with access to the GPUs");
    case cu::kErrorSystemDriverMismatch:
      refuse(
          "libcuda.so.1 and the NVIDIA kernel module are of different versions, as after an update "
          "of the driver (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, 803): restart the machine, or put "
          "the libcuda.so.1 that belongs to the kernel module first");
    case cu::kErrorNotInitialized:
      refuse(describe(&driver, "cuInit", result) +
             ". It says so in a process that was forked from one that used CUDA: start worker "
             "processes with the \"spawn\" method");
    default:
      refuse(describe(&driver, "cuInit", result));
  }
}

// Whether every GPU sees page-locked memory where the host does, memory that was page-locked in
// place included.
bool shares_addresses(const Driver& driver, int devices) noexcept {
  int shares = 0;
  cu::Device device = 0;
  for (int i = 0; i < devices; ++i) {
    if (driver.cuDeviceGet(&device, i) != cu::kSuccess ||
        driver.cuDeviceGetAttribute(&shares, cu::kCanUseHostPointerForRegisteredMem, device) !=
            cu::kSuccess ||
        shares == 0) {
      return false;
    }
  }
  return true;
}

const Driver& open_driver() {
  if (forked) throw Unavailable(kForked);
  const std::lock_guard lock(opening_mutex());
  if (const Driver* const driver = opened) return *driver;
  if (const std::string* const why = failure) throw Unavailable(*why);
  try {
    auto driver = std::make_unique<Driver>(find_functions(open_library()));
    const int devices = initialize(*driver);
    // A single copy knows which of its addresses is the host's. A batch does not.
    if (!shares_addresses(*driver, devices)) {
      driver->cuMemcpyBatchAsync = nullptr;
      driver->cuMemcpyBatchAsync_v2 = nullptr;
    }
    opened = driver.get();
    return *driver.release();
  } catch (const Unavailable& error) {
    failure = new std::string(error.what());
    throw;
  }
}

}  // namespace

Error::Error(const char* call, cu::Result code, const char* advice)
    : std::runtime_error(describe(loaded_driver(), call, code) +
                         (advice ? std::string(". ") + advice : std::string())),
      call_(call),
      code_(code) {}

// By the driver's documentation: of the memory's hardware, of a kernel, of a context that is
// destroyed.
bool ends_context(cu::Result code) noexcept {
  switch (code) {
    case cu::kErrorDeinitialized:
    case cu::kErrorEccUncorrectable:
    case cu::kErrorNvlinkUncorrectable:
    case cu::kErrorContained:
    case cu::kErrorIllegalAddress:
    case cu::kErrorLaunchTimeout:
    case cu::kErrorContextIsDestroyed:
    case cu::kErrorAssert:
    case cu::kErrorHardwareStackError:
    case cu::kErrorIllegalInstruction:
    case cu::kErrorMisalignedAddress:
    case cu::kErrorInvalidAddressSpace:
    case cu::kErrorInvalidPc:
    case cu::kErrorLaunchFailed:
    case cu::kErrorTensorMemoryLeak:
      return true;
    default:
      return false;
  }
}

void set_driver_library(std::string path) {
  const std::lock_guard lock(opening_mutex());
  delete library.exchange(path.empty() ? nullptr : new std::string(std::move(path)));
}

const Driver& driver() {
  const Driver* const driver = loaded_driver();
  return driver ? *driver : open_driver();
}

const Driver* loaded_driver() noexcept { return opened.load(std::memory_order_acquire); }

const char* why_unavailable() noexcept {
  if (forked) return kForked;
  const std::string* const why = failure;
  return why ? why->c_str() : nullptr;
}

bool is_forked() noexcept { return forked; }

}  // namespace dlferry::cuda
