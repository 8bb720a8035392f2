// The standard scenario of fault injection: one of everything that the engine does, each operation
// on memory of its own, between guards.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/pinned.h"
#include "guarded.h"

namespace dlferry::test {

struct Outcome {
  enum Kind { kWell, kCancelled, kError, kUnavailable, kTimeout, kElse } kind = kWell;
  cu::Result code = cu::kSuccess;
  std::string text{};
};

template <class Body>
Outcome outcome_of(const Body& body) {
  try {
    return {body() ? Outcome::kWell : Outcome::kTimeout};
  } catch (const cuda::Error& error) {
    return {Outcome::kError, error.code(), error.what()};
  } catch (const cuda::Unavailable& error) {
    return {Outcome::kUnavailable, cu::kSuccess, error.what()};
  } catch (const cuda::Cancelled& error) {
    return {Outcome::kCancelled, cu::kSuccess, error.what()};
  } catch (const std::exception& error) {
    return {Outcome::kElse, cu::kSuccess, error.what()};
  }
}

struct Operation {
  const char* name;
  bool context_was_lost;  // when it began
  std::int64_t faults_before = 0, faults_after = 0;
  Outcome outcome{};
};

class FaultScenario {
 public:
  void run() {
    during("engine", [] { return &cuda::TransferEngine::on(0) != nullptr; });
    begin_to_device();
    begin_to_host();
    end_all();
    inline_copies();
    stream_waits();
    ordered_behind_a_gate();
    cancelled();
    registered();
  }
  [[nodiscard]] const std::vector<Operation>& operations() const { return operations_; }
  [[nodiscard]] bool is_lost() const { return SIM(stream_wait)(canary_.number) != 0; }

 private:
  using Started = std::shared_ptr<cuda::Transfer>;
  struct Running {
    std::size_t operation;
    Started transfer;
    std::function<void(bool well)> verify;
  };

  static std::int64_t faults() { return SIM(counter)("faults_fired"); }

  // Starts a transfer that ends in `end_all`, where `verify` is told whether it ended well.
  void begin(const char* name, cuda::Request request, std::function<void(bool)> verify) {
    operations_.push_back({name, is_lost(), faults()});
    Running running{operations_.size() - 1, nullptr, std::move(verify)};
    operations_.back().outcome = outcome_of([&] {
      running.transfer = cuda::TransferEngine::on(0).start(std::move(request));
      return true;
    });
    running_.push_back(std::move(running));
  }

  void end_all() {
    for (Running& running : running_) {
      Operation& operation = operations_[running.operation];
      if (running.transfer) {
        operation.outcome = outcome_of([&] { return running.transfer->synchronize(kSoon); });
        CHECK(running.transfer->is_done());
      }
      running.verify(operation.outcome.kind == Outcome::kWell);
      operation.faults_after = faults();
    }
    running_.clear();
  }

  template <class Body>
  bool during(const char* name, const Body& body) {
    operations_.push_back({name, is_lost(), faults()});
    const Outcome outcome = outcome_of(body);
    operations_.back().outcome = outcome;
    operations_.back().faults_after = faults();
    return outcome.kind == Outcome::kWell;
  }

  void begin_to_device() {
    // 9 MiB and three leaves with gaps between them on the device.
    const std::size_t large = 9 * kMiB;
    auto block = std::make_shared<GuardedBlock>(large + 4096);
    cuda::Request request;
    request.leaves.push_back(leaf_on(some_truth(), std::int64_t{9} << 20, block->data()));
    for (std::size_t i = 0; i < 3; ++i) {
      const std::size_t at = large + 1024 * (i + 1);
      block->guard(static_cast<std::ptrdiff_t>(at) - 24, 24);
      request.leaves.push_back(leaf_on(some_truth(7 + i), 1000, block->data() + at));
    }
    begin("pageable", std::move(request), [=](bool well) {
      for (std::size_t i = 0; well && i < 3; ++i) {
        CHECK(block->holds(some_truth(7 + i), large + 1024 * (i + 1), 1000));
      }
      CHECK(!well || block->holds(some_truth(), 0, large));
      block->check_guards();
    });
    begin_pinned();
    begin_packed();
  }

  void begin_pinned() {
    const std::size_t bytes = kTwoDirectParts;
    auto block = std::make_shared<GuardedBlock>(bytes);
    auto host = std::make_shared<GuardedHost>(bytes, true);
    std::memcpy(host->data(), truth.data(), bytes);
    cuda::Request request;
    request.leaves.push_back(
        leaf_on(host->data(), static_cast<std::int64_t>(bytes), block->data()));
    begin("pinned", std::move(request), [=](bool well) mutable {
      host.reset();  // nothing may need it any more
      CHECK(!well || block->holds(some_truth(), 0, bytes));
      block->check_guards();
    });
  }

  void begin_packed() {
    constexpr std::size_t kLeaves = 40;
    auto block = std::make_shared<GuardedBlock>(kLeaves * 2048);
    cuda::Request request{.packed = true};
    for (std::size_t i = 0; i < kLeaves; ++i) {
      request.leaves.push_back(leaf_on(some_truth(99 * i), 1800, block->data() + 2048 * i));
    }
    begin("packed", std::move(request), [=](bool well) {
      for (std::size_t i = 0; well && i < kLeaves; ++i) {
        CHECK(block->holds(some_truth(99 * i), 2048 * i, 1800));
      }
      block->check_guards();
    });
  }

  void begin_to_host() {
    for (const bool pinned : {false, true}) {
      const std::size_t bytes = pinned ? kMiB : 4 * kMiB + 99;
      auto block = std::make_shared<GuardedBlock>(bytes);
      auto host = std::make_shared<GuardedHost>(bytes, pinned);
      block->write(truth.data());
      cuda::Request request{.direction = cuda::Direction::kToHost};
      request.leaves.push_back(
          leaf_on(host->data(), static_cast<std::int64_t>(bytes), block->data()));
      begin(pinned ? "pinned back" : "pageable back", std::move(request), [=](bool well) mutable {
        CHECK(!well || host->holds(truth.data()));
        host->check_guards();
        host.reset();
        block->check_guards();
      });
    }
    begin_strided();
  }

  // Every other column of a table: the rest keeps its bytes.
  void begin_strided() {
    constexpr std::int64_t kRows = 700, kColumns = 500;
    const std::size_t bytes = 4 * kRows * kColumns;
    auto block = std::make_shared<GuardedBlock>(bytes);
    auto host = std::make_shared<GuardedHost>(2 * bytes);
    block->write(truth.data());
    const std::int64_t shape[] = {kRows, kColumns}, strides[] = {8 * kColumns, 8};
    const View view{.data = host->data(),
                    .shape = shape,
                    .strides = strides,
                    .ndim = 2,
                    .dtype = DType::kFloat32};
    cuda::Request request{.direction = cuda::Direction::kToHost};
    request.leaves.push_back(
        {.host = KeptView(view), .wire = DType::kFloat32, .device = block->data()});
    begin("strided back", std::move(request), [=](bool well) {
      bool equal = true, kept = true;
      for (std::size_t i = 0; i < bytes / 4; ++i) {
        equal &= std::memcmp(host->data() + 8 * i, truth.data() + 4 * i, 4) == 0;
        kept &= is_guard(host->data() + 8 * i + 4, 4);
      }
      CHECK(!well || equal);
      CHECK(kept);
      host->check_guards();
      block->check_guards();
    });
  }

  void inline_copies() {
    for (const bool pinned : {false, true}) {
      const std::size_t bytes = pinned ? 300000 : 100000;
      GuardedBlock block(bytes);
      GuardedHost host(bytes, pinned);
      std::memcpy(host.data(), truth.data(), bytes);
      Started transfer;
      const bool well = during(pinned ? "inline pinned" : "inline pageable", [&] {
        cuda::Request request{.stream = user_.get()};
        request.leaves.push_back(
            leaf_on(host.data(), static_cast<std::int64_t>(bytes), block.data()));
        transfer = cuda::TransferEngine::on(0).start_inline(std::move(request));
        // The engine may not be able to tell that memory is page-locked, or to page-lock any.
        CHECK(transfer || pinned || cuda::why_ordinary());
        if (!transfer) return true;
        transfer->wait_until_read();
        if (!pinned) std::memset(host.data(), 0, bytes);
        return transfer->synchronize(kSoon);
      });
      CHECK(!(well && transfer) || block.holds(some_truth(), 0, bytes));
      block.check_guards();
      host.check_guards();
      settle(user_);  // after a failed synchronize nobody else says when the source is free
    }
  }

  // A later copy on the caller's stream finds the bytes there.
  void stream_waits() {
    const std::size_t bytes = 4 * kMiB + 99;
    GuardedBlock block(bytes), copy(bytes);
    Started transfer;
    const bool well = during("wait", [&] {
      cuda::Request request{.stream = user_.get()};
      request.leaves.push_back(
          leaf_on(some_truth(), static_cast<std::int64_t>(bytes), block.data()));
      transfer = cuda::TransferEngine::on(0).start(std::move(request));
      transfer->wait(user_.get());
      SIM(copy)(user_.number, copy.data(), block.data(), bytes);
      settle(user_);
      return transfer->synchronize(kSoon);
    });
    if (transfer) (void)outcome_of([&] { return transfer->synchronize(kSoon); });
    CHECK(!well || block.holds(some_truth(), 0, bytes));
    CHECK(!well || is_lost() || copy.holds(some_truth(), 0, bytes));
    block.check_guards();
    copy.check_guards();
  }

  void ordered_behind_a_gate() {
    const std::size_t bytes = 100000;
    GuardedBlock block(bytes);
    GuardedHost host(bytes);
    const std::uint64_t gate = SIM(gate)(user_.number);
    SIM(fill)(user_.number, block.data(), 7, bytes);
    Started transfer;
    const bool well = during("ordered", [&] {
      cuda::Request request{
          .direction = cuda::Direction::kToHost, .stream = user_.get(), .ordered = true};
      request.leaves.push_back(
          leaf_on(host.data(), static_cast<std::int64_t>(bytes), block.data()));
      transfer = cuda::TransferEngine::on(0).start(std::move(request));
      SIM(open)(gate);
      return transfer->synchronize(kSoon);
    });
    if (!transfer) SIM(open)(gate);
    settle(user_);
    CHECK(!well || host.holds(std::vector<std::byte>(bytes, std::byte{7}).data()));
    host.check_guards();
    block.check_guards();
  }

  void cancelled() {
    const std::size_t bytes = 13 * kMiB;  // four parts, and two slots
    GuardedBlock block(bytes);
    Started transfer;
    bool cancelled = false;
    SIM(stall)(0, 0, 1);
    const bool well = during("cancelled", [&] {
      cuda::Request request;
      request.leaves.push_back(leaf_on(some_truth(), std::int64_t{13} << 20, block.data()));
      transfer = cuda::TransferEngine::on(0).start(std::move(request));
      cancelled = transfer->cancel();
      SIM(stall)(0, 0, 0);
      return transfer->synchronize(kSoon);
    });
    SIM(stall)(0, 0, 0);
    CHECK(!transfer || transfer->is_done());
    CHECK(!well || (!cancelled && block.holds(some_truth(), 0, bytes)));
    block.check_guards();
  }

  void registered() {
    const std::size_t bytes = kMiB;
    void* const pages =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    auto* const data = static_cast<std::byte*>(pages);
    std::memcpy(data, truth.data(), bytes);
    {
      GuardedBlock block(bytes);
      cuda::Registration registration;
      const bool well = during("registered", [&] {
        registration = cuda::Registration(data, bytes, false, 0);
        cuda::Request request;
        request.leaves.push_back(leaf_on(data, std::int64_t{1} << 20, block.data()));
        return cuda::TransferEngine::on(0).start(std::move(request))->synchronize(kSoon);
      });
      CHECK(!well || block.holds(some_truth(), 0, bytes));
      block.check_guards();
    }
    munmap(pages, bytes);
  }

  static void settle(const UserStream& stream) { (void)SIM(stream_wait)(stream.number); }

  UserStream canary_, user_;
  std::vector<Operation> operations_;
  std::vector<Running> running_;
};

}  // namespace dlferry::test
