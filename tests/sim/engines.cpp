#include "engines.h"

#include <algorithm>
#include <cstring>

#include "world.h"

namespace dlferry::sim {
namespace {

// A link at a rate is looked at in pieces of this size.
constexpr std::size_t kPiece = std::size_t{1} << 18;

constexpr const char* kNames[] = {"H2D", "D2H", "D2D"};

bool is_usable(const Operand& operand, bool written) {
  return !operand.block || (operand.block->alive && !(written && operand.block->read_only));
}

// Does `act` on the operands' bytes, without the lock. False where they are not to be touched.
template <class Act>
bool touch(World& world, Lock& lock, Stream& stream, const Operand& written, const Operand* read,
           const Act& act) {
  Context& context = *stream.context;
  if (context.sticky != cu::kSuccess) return false;
  if (!is_usable(written, true) || (read && !is_usable(*read, false))) {
    lose(world, context, cu::kErrorIllegalAddress);
    return false;
  }
  Block* const blocks[] = {written.block.get(), read ? read->block.get() : nullptr};
  ++context.copying;
  for (Block* const block : blocks) block ? void(++block->copying) : void();
  lock.unlock();
  act();
  lock.lock();
  --context.copying;
  bool is_awaited = context.sticky != cu::kSuccess;
  for (Block* const block : blocks) {
    if (block && --block->copying == 0 && !block->alive) is_awaited = true;
  }
  if (is_awaited) world.copy_ended.notify_all();
  return true;
}

bool copy(World& world, Lock& lock, Stream& stream, const CopyTask& task, std::size_t from,
          std::size_t to) {
  const Operand* const read = task.early.empty() ? &task.source : nullptr;
  return touch(world, lock, stream, task.destination, read, [&] {
    const std::byte* const source = read ? task.source.data() : task.early.data();
    std::memcpy(task.destination.data() + from, source + from, to - from);
  });
}

std::int64_t link_time(std::size_t bytes, std::int64_t rate) {
  return static_cast<std::int64_t>(static_cast<double>(bytes) / static_cast<double>(rate) * 1e9);
}

// The time, which is not free, or 0 where nobody looks at it.
std::int64_t time_if_used(const World& world) {
  const Settings& settings = world.settings;
  const bool is_used =
      world.log.is_on() || settings.delay_us > 0 || settings.h2d_rate > 0 || settings.d2h_rate > 0;
  return is_used ? now() : 0;
}

// The copy on its link, from `begin` on; when it leaves the link.
std::int64_t pass(World& world, Lock& lock, Stream& stream, const CopyTask& task,
                  std::int64_t begin, std::int64_t rate) {
  if (rate <= 0) {
    copy(world, lock, stream, task, 0, task.bytes);
    return time_if_used(world);
  }
  const bool at_once = world.settings.link_sleeps != 0;
  const std::size_t piece = at_once ? task.bytes : kPiece;
  for (std::size_t from = 0; from < task.bytes;) {
    const std::size_t to = std::min(task.bytes, from + piece);
    sleep_until(lock, stream, begin + link_time(to, rate));
    if (!copy(world, lock, stream, task, from, to)) break;
    from = to;
  }
  return begin + link_time(task.bytes, rate);
}

void fail_as_planned(World& world, Stream& stream, std::size_t direction) {
  const std::uint64_t bit = direction == 0 ? kHostToDeviceBit : kDeviceToHostBit;
  const cu::Result code = world.faults.next(bit).code;
  if (code != cu::kSuccess) lose(world, *stream.context, code);
}

}  // namespace

void Engine::enter(Lock& lock, const Stream& stream) {
  const std::uint64_t ticket = tickets_++;
  while (ticket != serving_) turn_.wait(lock);
  while (is_stalled_ && stream.context->sticky == cu::kSuccess) turn_.wait(lock);
}

void Engine::stall(bool stalled) {
  is_stalled_ = stalled;
  turn_.notify_all();
}

void Engine::leave() {
  ++serving_;
  if (load() > 0) turn_.notify_all();
}

void transfer(World& world, Lock& lock, Stream& stream, const CopyTask& task) {
  const auto direction = static_cast<std::size_t>(task.direction);
  const bool on_link = task.direction != Direction::kWithinDevice;
  const auto device = static_cast<std::size_t>(stream.context->device);
  Engine* const engine = on_link ? &world.engines[device][direction] : nullptr;
  const std::int64_t rates[] = {world.settings.h2d_rate, world.settings.d2h_rate, 0};
  const std::int64_t rate = rates[direction];
  const std::int64_t ready = std::max(task.submitted, stream.ready_at) + task.delay;
  if (task.delay > 0) sleep_until(lock, stream, ready);
  if (engine) engine->enter(lock, stream);
  const std::int64_t begin = rate > 0 ? std::max(ready, engine->free_at) : time_if_used(world);
  if (engine && stream.context->sticky == cu::kSuccess) fail_as_planned(world, stream, direction);
  std::int64_t end = begin;
  if (stream.context->sticky == cu::kSuccess) end = pass(world, lock, stream, task, begin, rate);
  if (stream.context->sticky == cu::kSuccess) {
    stream.ready_at = end;
    if (engine) engine->free_at = end;
  }
  if (engine) engine->leave();
  let_go(task);
  ++world.counts.copies[direction];
  world.counts.bytes[direction] += static_cast<std::int64_t>(task.bytes);
  if (!world.log.is_on()) return;
  world.log.add({.what = "transfer",
                 .name = kNames[direction],
                 .result = stream.context->sticky,
                 .thread = thread_number(),
                 .stream = stream.handle,
                 .destination = task.destination.address,
                 .source = task.source.address,
                 .bytes = task.bytes,
                 .begin = begin,
                 .end = end,
                 .landed = now()});
}

void fill(World& world, Lock& lock, Stream& stream, const FillTask& task) {
  touch(world, lock, stream, task.destination, nullptr,
        [&] { std::memset(task.destination.data(), task.value, task.bytes); });
}

bool is_immediate(World& world, const Stream& stream, const CopyTask& task) {
  const Settings& settings = world.settings;
  if (task.delay > 0 || settings.h2d_rate > 0 || settings.d2h_rate > 0) return false;
  if (task.bytes > static_cast<std::size_t>(settings.inline_bytes)) return false;
  if (task.direction == Direction::kWithinDevice) return true;
  const auto device = static_cast<std::size_t>(stream.context->device);
  return world.engines[device][static_cast<std::size_t>(task.direction)].is_free();
}

void hold(const CopyTask& task) {
  for (const Operand* operand : {&task.destination, &task.source}) {
    if (operand->block) ++operand->block->pending;
  }
}

void let_go(const CopyTask& task) {
  for (const Operand* operand : {&task.destination, &task.source}) {
    if (operand->block) --operand->block->pending;
  }
}

}  // namespace dlferry::sim
