// TransferHandle: a transfer as Python holds it, and what is kept alive for it.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "cuda/transfer.h"

namespace dlferry::python {

// Owners of what a transfer works on. The GIL is needed wherever this is made or dropped.
struct Kept {
  pybind11::object until_read;
  pybind11::object until_submitted;  // new memory of the stream that the copies are submitted to
  pybind11::object until_done;

  [[nodiscard]] bool is_empty() const noexcept;
  void drop() noexcept;  // now
  void leak() noexcept;  // never
};

// The Python class `Transfer`. All functions need the GIL, and give it away while they wait.
// Threads of ours never drop a Python object: one that is let go before it is done is put aside
// with what it keeps, until a later call finds it done.
class TransferHandle {
 public:
  TransferHandle(std::shared_ptr<cuda::Transfer> transfer, Kept kept) noexcept
      : transfer_(std::move(transfer)), kept_(std::move(kept)) {}
  TransferHandle(const TransferHandle&) = delete;
  ~TransferHandle();

  // As those of cuda::Transfer. What is not needed any more is dropped. Those that wait let signals
  // be handled meanwhile; when a handler raises, the transfer goes on.
  [[nodiscard]] bool is_done();
  void wait(std::uintptr_t stream);
  [[nodiscard]] bool synchronize(std::optional<double> seconds);
  void wait_until_read();
  [[nodiscard]] bool cancel();

 private:
  void drop_unneeded() noexcept;  // once all is submitted
  void refuse_to_wait() const;    // throws Unavailable when the interpreter shuts down
  void finish() noexcept;

  std::shared_ptr<cuda::Transfer> transfer_;
  Kept kept_;
  bool done_ = false;
};

// What to call, once, with the reason why transfers do not go through page-locked memory, when one
// was waited for that did not.
void tell_of_ordinary_memory(pybind11::object tell);

// Drops what was put aside for transfers that are done by now, looking at so many: those that were
// not looked at for longest. Cheap when there is nothing.
inline constexpr std::size_t kLooksAtOnce = 16;
void drop_finished(std::size_t most = kLooksAtOnce);

// How many transfers are put aside.
[[nodiscard]] std::size_t unfinished_count() noexcept;

// For the end of the process, and for forked children: what is put aside and not done is leaked.
void leak_unfinished() noexcept;

}  // namespace dlferry::python
