// What stands in a stream's queue.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "blocks.h"

namespace dlferry::sim {

// A point in a stream's work, which is reached once: what events, waits and gates are made of.
struct Mark {
  bool is_reached = false;
  std::condition_variable reached;

  void reach() {
    is_reached = true;
    reached.notify_all();
  }
};
using MarkPtr = std::shared_ptr<Mark>;

// One side of a copy. Pageable memory has no block.
struct Operand {
  std::uintptr_t address = 0;
  BlockPtr block;

  [[nodiscard]] bool on_device() const noexcept {
    return block && block->kind == BlockKind::kDevice;
  }
  [[nodiscard]] bool is_pageable() const noexcept { return !block; }
  [[nodiscard]] std::byte* data() const noexcept {
    return block ? block->at(address) : reinterpret_cast<std::byte*>(address);
  }
};

enum class Direction { kHostToDevice, kDeviceToHost, kWithinDevice };

struct CopyTask {
  Direction direction = Direction::kHostToDevice;
  Operand destination;
  Operand source;
  std::size_t bytes = 0;
  std::int64_t submitted = 0;    // when; 0 where nothing is timed
  std::int64_t delay = 0;        // ns before it asks for its engine
  std::vector<std::byte> early;  // the source's bytes, where they were read by the call
};
struct RecordTask {
  MarkPtr mark;
};
struct WaitTask {
  MarkPtr mark;
};
struct KernelTask {
  std::int64_t duration = 0;  // ns
};
struct FillTask {
  Operand destination;
  std::size_t bytes = 0;
  int value = 0;
};
using Task = std::variant<CopyTask, RecordTask, WaitTask, KernelTask, FillTask>;

}  // namespace dlferry::sim
