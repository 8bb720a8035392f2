#include "python/transfer_handle.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>
#include <vector>

#include "cuda/staging.h"
#include "python/released.h"

namespace py = pybind11;

namespace dlferry::python {
namespace {

using Clock = std::chrono::steady_clock;

struct Unfinished {
  std::shared_ptr<cuda::Transfer> transfer;
  Kept kept;
};

// Guarded by the GIL. Leaked on purpose: handles are let go until the process ends.
std::deque<Unfinished>& unfinished = *new std::deque<Unfinished>;

// Guarded by the GIL; null once it was told, or there is nobody to tell.
PyObject* tell = nullptr;

void tell_if_ordinary() {
  if (!tell || !cuda::why_ordinary()) return;
  const auto told = py::reinterpret_steal<py::object>(std::exchange(tell, nullptr));
  told(cuda::why_ordinary());
}

// How often a thread that waits lets signals be handled.
constexpr std::chrono::milliseconds kSignalPause{50};

// Calls `wait`, without the GIL, with one short timeout after the other until it returns true, and
// lets signals be handled in between. False when that takes more than so many seconds.
template <typename Wait>
bool in_turns(std::optional<double> seconds, Wait wait) {
  constexpr double kForEver = 1e9;
  const double limit = std::clamp(seconds.value_or(kForEver), 0.0, kForEver);
  const Clock::time_point deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                        std::chrono::duration<double>(limit));
  for (;;) {
    const std::chrono::nanoseconds left = deadline - Clock::now();
    {
      const Released released(Visit::For::kWaiting);
      if (wait(std::clamp<std::chrono::nanoseconds>(left, {}, kSignalPause))) return true;
    }
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (Clock::now() >= deadline) return false;
  }
}

// Whether nothing touches the transfer's memory any more: also when the context is lost, whose
// copies have ended, though nobody can say how.
bool is_over(cuda::Transfer& transfer) noexcept {
  try {
    return transfer.is_done();
  } catch (const cuda::Error& error) {
    return cuda::ends_context(error.code());
  } catch (...) {
    return false;
  }
}

}  // namespace

void tell_of_ordinary_memory(py::object whom) { tell = whom.release().ptr(); }

bool Kept::is_empty() const noexcept { return !until_read && !until_submitted && !until_done; }

void Kept::drop() noexcept {
  const Kept dropped = std::move(*this);  // what runs meanwhile finds nothing left
}

void Kept::leak() noexcept {
  (void)until_read.release();
  (void)until_submitted.release();
  (void)until_done.release();
}

TransferHandle::~TransferHandle() {
  if (done_ || kept_.is_empty()) return;
  if (has_ended() || cuda::is_forked()) {
    kept_.leak();
    return;
  }
  try {
    unfinished.push_back({std::move(transfer_), std::move(kept_)});
  } catch (const std::bad_alloc&) {
    kept_.leak();
  }
}

bool TransferHandle::is_done() {
  const Visit visit(Visit::For::kWaiting);
  drop_finished();
  if (!done_) {
    bool over = false;
    {
      const Released released(Visit::For::kWaiting);
      over = transfer_->is_done();
    }
    if (over) finish();
  }
  return done_;
}

void TransferHandle::finish() noexcept {
  done_ = true;
  kept_.drop();
}

void TransferHandle::wait(std::uintptr_t stream) {
  const Visit visit(Visit::For::kWaiting);
  drop_finished();
  refuse_to_wait();
  (void)in_turns({}, [&](cuda::Transfer::Timeout timeout) {
    return transfer_->wait(reinterpret_cast<cu::Stream>(stream), timeout);
  });
  drop_unneeded();
  tell_if_ordinary();
}

// Whoever gets memory of the copies' stream next comes after the copies, so it need not outlive
// them: it would do so until a later call finds them done.
void TransferHandle::drop_unneeded() noexcept {
  const py::object submitted = std::move(kept_.until_submitted);
  const py::object read = transfer_->is_read() ? std::move(kept_.until_read) : py::object();
}

bool TransferHandle::synchronize(std::optional<double> seconds) {
  const Visit visit(Visit::For::kWaiting);
  drop_finished();
  refuse_to_wait();
  try {
    const auto synchronize = [&](cuda::Transfer::Timeout timeout) {
      return transfer_->synchronize(timeout);
    };
    if (!in_turns(seconds, synchronize)) return false;
  } catch (const py::error_already_set&) {
    throw;
  } catch (...) {
    if (is_over(*transfer_)) finish();
    throw;
  }
  finish();
  tell_if_ordinary();
  return true;
}

void TransferHandle::wait_until_read() {
  const Visit visit(Visit::For::kWaiting);
  drop_finished();
  refuse_to_wait();
  (void)in_turns(
      {}, [&](cuda::Transfer::Timeout timeout) { return transfer_->wait_until_read(timeout); });
  drop_unneeded();
  tell_if_ordinary();
}

bool TransferHandle::cancel() {
  const Visit visit(Visit::For::kWaiting);
  drop_finished();
  const Released released(Visit::For::kWaiting);
  return transfer_->cancel();
}

void TransferHandle::refuse_to_wait() const {
  if (!has_ended() || done_ || is_over(*transfer_)) return;
  throw cuda::Ended();
}

void drop_finished(std::size_t most) {
  if (unfinished.empty() || has_ended()) return;
  if (cuda::is_forked()) return leak_unfinished();
  std::vector<Unfinished> seen;
  const std::size_t count = std::min(unfinished.size(), most);
  seen.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    seen.push_back(std::move(unfinished.front()));
    unfinished.pop_front();
  }
  std::vector<bool> over(count);
  {
    const Released released(Visit::For::kWaiting);
    for (std::size_t i = 0; i < count; ++i) over[i] = is_over(*seen[i].transfer);
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (!over[i]) unfinished.push_back(std::move(seen[i]));
  }
}

std::size_t unfinished_count() noexcept { return unfinished.size(); }

void leak_unfinished() noexcept {
  while (!unfinished.empty()) {
    Unfinished left = std::move(unfinished.front());
    unfinished.pop_front();
    if (!cuda::is_forked() && is_over(*left.transfer)) continue;  // dropped
    left.kept.leak();
  }
}

}  // namespace dlferry::python
