// The transfer engine on simulated drivers: every way across the link, byte by byte.
#include <cstring>
#include <memory>
#include <vector>

#include "cuda/engine.h"
#include "link.h"

namespace {

using namespace dlferry;
using namespace dlferry::cuda;
using namespace dlferry::test;

void pageable_memory_of_any_size_arrives() {
  TransferEngine& engine = TransferEngine::on(0);
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{4096}, (std::size_t{4} << 20) - 1,
                                  std::size_t{4} << 20, (std::size_t{21} << 20) + 77}) {
    std::vector<std::byte> source = random_bytes(bytes);
    const std::vector<std::byte> expected = source;
    const DeviceBlock block(bytes);
    Request request;
    request.leaves.push_back(leaf_on(source.data(), static_cast<std::int64_t>(bytes), block.data));
    const auto there = engine.start(std::move(request));
    there->wait_until_read();
    std::memset(source.data(), 0xEE, bytes);
    CHECK(there->synchronize(kSoon));
    CHECK(there->is_done());
    CHECK(block.read() == expected);

    Request back{.direction = Direction::kToHost};
    back.leaves.push_back(leaf_on(source.data(), static_cast<std::int64_t>(bytes), block.data));
    CHECK(engine.start(std::move(back))->synchronize(kSoon));
    CHECK(source == expected);
  }
  close_engine();
}

void pinned_memory_goes_direct() {
  TransferEngine& engine = TransferEngine::on(0);
  const std::size_t bytes = (std::size_t{40} << 20) + 5;
  auto* const pinned = static_cast<std::byte*>(SIM(pinned_alloc)(bytes));
  const std::vector<std::byte> expected = random_bytes(bytes);
  std::memcpy(pinned, expected.data(), bytes);
  {
    const DeviceBlock block(bytes);
    Request request;
    request.leaves.push_back(leaf_on(pinned, static_cast<std::int64_t>(bytes), block.data));
    const auto there = engine.start(std::move(request));
    there->wait_until_read();
    CHECK(there->is_done());  // the copies themselves were the readers
    CHECK(block.read() == expected);
    CHECK(engine.staging_bytes() == 0);
    std::memset(pinned, 0, bytes);
    Request back{.direction = Direction::kToHost};
    back.leaves.push_back(leaf_on(pinned, static_cast<std::int64_t>(bytes), block.data));
    CHECK(engine.start(std::move(back))->synchronize(kSoon));
    CHECK(std::memcmp(pinned, expected.data(), bytes) == 0);
  }
  SIM(pinned_free)(pinned);
  close_engine();
}

void many_leaves_share_copies() {
  TransferEngine& engine = TransferEngine::on(0);
  std::vector<std::vector<std::byte>> sources;
  Request request{.packed = true};
  std::size_t end = 0;
  for (int i = 0; i < 100; ++i) sources.push_back(random_bytes(1 + rng() % 5000));
  for (const auto& source : sources) end = (end + 255) / 256 * 256 + source.size();
  const DeviceBlock block(end);
  std::vector<std::size_t> offsets;
  end = 0;
  for (auto& source : sources) {
    end = (end + 255) / 256 * 256;
    offsets.push_back(end);
    request.leaves.push_back(
        leaf_on(source.data(), static_cast<std::int64_t>(source.size()), block.data + end));
    end += source.size();
  }
  const auto there = engine.start(std::move(request));
  CHECK(there->synchronize(kSoon));
  const std::vector<std::byte> arrived = block.read();
  for (std::size_t i = 0; i < sources.size(); ++i) {
    CHECK(std::memcmp(arrived.data() + offsets[i], sources[i].data(), sources[i].size()) == 0);
  }
  CHECK(SIM(counter)("h2d_copies") == 1);
  close_engine();
}

// Arrays of any size, one after another in one block, cross as one copy for each slot.
void stacked_leaves_share_copies() {
  TransferEngine& engine = TransferEngine::on(0);
  constexpr std::size_t kCount = 90, kBytes = 150'001;
  std::vector<std::byte> source = random_bytes(kCount * kBytes);
  const DeviceBlock block(source.size());
  Request request{.packed = true};
  for (std::size_t i = 0; i < kCount; ++i) {
    request.leaves.push_back(leaf_on(source.data() + i * kBytes, kBytes, block.data + i * kBytes));
  }
  CHECK(engine.start(std::move(request))->synchronize(kSoon));
  CHECK(block.read() == source);
  CHECK(SIM(counter)("h2d_copies") == 4);  // 12.9 MiB in slots of 4
  close_engine();
}

// Blocks that happen to touch are not one: no copy leaves its allocation.
void neighbouring_blocks_stay_apart() {
  TransferEngine& engine = TransferEngine::on(0);
  std::vector<std::byte> source = random_bytes(std::size_t{64} << 12);
  Request request;
  std::vector<std::unique_ptr<DeviceBlock>> blocks;
  for (std::size_t i = 0; i < 64; ++i) {
    blocks.push_back(std::make_unique<DeviceBlock>(std::size_t{1} << 12));
    request.leaves.push_back(leaf_on(source.data() + (i << 12), 1 << 12, blocks.back()->data));
  }
  CHECK(engine.start(std::move(request))->synchronize(kSoon));
  CHECK(SIM(counter)("h2d_copies") == 64);
  for (std::size_t i = 0; i < 64; ++i) {
    CHECK(std::memcmp(blocks[i]->read().data(), source.data() + (i << 12), 1 << 12) == 0);
  }
  close_engine();
}

// Leaves that are not packed must not touch what lies between them.
void gaps_stay_as_they_were() {
  TransferEngine& engine = TransferEngine::on(0);
  std::vector<std::byte> source = random_bytes(300), before = random_bytes(1024);
  const DeviceBlock block(before.size());
  block.write(before);
  Request request;
  request.leaves.push_back(leaf_on(source.data(), 100, block.data));
  request.leaves.push_back(leaf_on(source.data() + 100, 100, block.data + 256));
  request.leaves.push_back(leaf_on(source.data() + 200, 100, block.data + 356));
  CHECK(engine.start(std::move(request))->synchronize(kSoon));
  std::memcpy(before.data(), source.data(), 100);
  std::memcpy(before.data() + 256, source.data() + 100, 200);
  CHECK(block.read() == before);
  close_engine();
}

void strided_and_cast_sources_are_gathered() {
  TransferEngine& engine = TransferEngine::on(0);
  constexpr std::int64_t kRows = 1500, kColumns = 2000;
  std::vector<float> source(kRows * kColumns);
  for (float& value : source) value = static_cast<float>(rng() % 4096);
  const std::int64_t shape[] = {kColumns, kRows}, strides[] = {4, -4 * kColumns};
  const View turned{.data = reinterpret_cast<std::byte*>(&source[(kRows - 1) * kColumns]),
                    .shape = shape,
                    .strides = strides,
                    .ndim = 2,
                    .dtype = DType::kFloat32};
  const DeviceBlock block(static_cast<std::size_t>(2 * kRows * kColumns));
  Request request;
  request.leaves.push_back({.host = KeptView(turned), .wire = DType::kInt16, .device = block.data});
  CHECK(engine.start(std::move(request))->synchronize(kSoon));
  const std::vector<std::byte> arrived = block.read();
  const auto* const values = reinterpret_cast<const std::int16_t*>(arrived.data());
  bool equal = true;
  for (std::int64_t c = 0; c < kColumns; ++c) {
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float expected = source[static_cast<std::size_t>((kRows - 1 - r) * kColumns + c)];
      equal &= values[c * kRows + r] == static_cast<std::int16_t>(expected);
    }
  }
  CHECK(equal);
  close_engine();
}

void small_copies_are_made_on_the_spot() {
  TransferEngine& engine = TransferEngine::on(0);
  const UserStream stream;
  const DeviceBlock block(64);
  for (int i = 0; i < 100; ++i) {
    std::vector<std::byte> source = random_bytes(64);
    const std::vector<std::byte> expected = source;
    Request request{.stream = stream.get()};
    request.leaves.push_back(leaf_on(source.data(), 64, block.data));
    const auto there = engine.start_inline(std::move(request));
    CHECK(there != nullptr);
    if (!there) continue;
    there->wait_until_read();
    std::memset(source.data(), 0, source.size());
    CHECK(there->synchronize(kSoon));
    CHECK(block.read() == expected);
  }
  Request large{.stream = stream.get()};
  std::vector<std::byte> source(TransferEngine::kInlineBytes + 1);
  large.leaves.push_back(
      leaf_on(source.data(), static_cast<std::int64_t>(source.size()), block.data));
  CHECK(engine.start_inline(std::move(large)) == nullptr);
  close_engine();
}

void nothing_is_nothing() {
  TransferEngine& engine = TransferEngine::on(0);
  Request request;
  request.leaves.push_back(leaf_on(nullptr, 0, 0));
  CHECK(engine.start(std::move(request))->is_done());
  CHECK(engine.start_inline({})->synchronize());
  CHECK(thrown_by([] { (void)TransferEngine::on(7); }).code == cu::kErrorInvalidDevice);
  close_engine();
}

}  // namespace

int main() {
  for (const char* settings :
       {"version=13.0,seed=1", "version=12.8,seed=2,delay_us=0", "version=12.4,seed=3"}) {
    const Machine machine{.settings = settings};
    ON(machine, pageable_memory_of_any_size_arrives);
    ON(machine, pinned_memory_goes_direct);
    ON(machine, many_leaves_share_copies);
    ON(machine, stacked_leaves_share_copies);
    ON(machine, neighbouring_blocks_stay_apart);
    ON(machine, gaps_stay_as_they_were);
    ON(machine, strided_and_cast_sources_are_gathered);
    ON(machine, small_copies_are_made_on_the_spot);
    ON(machine, nothing_is_nothing);
  }
  return finish();
}
