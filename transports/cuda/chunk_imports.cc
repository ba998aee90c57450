#include "transports/cuda/chunk_imports.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/device/memory.h"

namespace libcomm::cuda {
namespace {

constexpr Seconds kFetchPatience{30};
// Ranges of one peer, before those that may be stale are let go.
constexpr size_t kMostMirrors = 1024;

// The stamp of what is mapped for [address, end); 0: there are gaps.
uint64_t stamp_within(const std::map<uint64_t, ChunkFacts>& chunks, uint64_t address,
                      uint64_t end) {
  std::vector<ChunkFacts> covering;
  auto next = chunks.upper_bound(address);
  if (next != chunks.begin()) --next;
  for (uint64_t at = address; at < end; ++next) {
    if (next == chunks.end() || next->first > at || at - next->first >= next->second.bytes)
      return 0;
    covering.push_back(next->second);
    at = next->first + next->second.bytes;
  }
  return stamp_of(covering);
}

}  // namespace

Result<std::byte*> ChunkImports::find(const ExportedMemory& memory,
                                      const std::function<bool()>& given_up,
                                      std::shared_ptr<const void>* keep) {
  ChunkSpan span;
  std::memcpy(&span, memory.handle.reserved, sizeof span);
  if (memory.address < memory.base || memory.address >= span.end ||
      span.end - memory.base > memory.bytes)
    return error(Code::kSystem, "another rank tells of GPU memory outside of its addresses");
  // Other addresses that these overlap with have been given up there.
  for (auto each = mirrors_.begin(); each != mirrors_.end();) {
    const uint64_t bytes = each->second.range->bytes();
    const bool is_same = each->first == memory.base && bytes == memory.bytes;
    const bool overlaps =
        each->first < memory.base + memory.bytes && memory.base < each->first + bytes;
    each = overlaps && !is_same ? mirrors_.erase(each) : std::next(each);
  }
  for (int attempt = 0; attempt < 2; ++attempt) {
    auto found = mirrors_.find(memory.base);
    if (found == mirrors_.end()) {
      if (mirrors_.size() >= kMostMirrors) mirrors_.erase(mirrors_.begin());
      COMM_ASSIGN(AddressRange range, AddressRange::reserve(driver_, memory.bytes));
      // A kernel may use it when it is let go.
      const auto end_later = [](AddressRange* gone) {
        end_when_idle(Ending::kSoon, [gone] { delete gone; });
      };
      std::shared_ptr<AddressRange> kept(new AddressRange(std::move(range)), end_later);
      found = mirrors_.emplace(memory.base, Mirror{std::move(kept), {}}).first;
    }
    Mirror& mirror = found->second;
    const auto is_whole = [&] {
      return stamp_within(mirror.chunks, memory.address, span.end) == span.stamp;
    };
    bool filled = true;
    if (!is_whole()) {
      COMM_ASSIGN(filled, fill(&mirror, memory, span, given_up));
    }
    if (filled && is_whole()) {
      if (keep != nullptr) *keep = mirror.range;
      return static_cast<std::byte*>(
          pointer_of(mirror.range->base() + (memory.address - memory.base)));
    }
    // Some chunk is another than before. A kernel may still use the old one: all begins anew.
    mirrors_.erase(found);
  }
  return error(Code::kSystem, "GPU memory of another rank changed while an operation used it");
}

Result<bool> ChunkImports::fill(Mirror* mirror, const ExportedMemory& memory, const ChunkSpan& span,
                                const std::function<bool()>& given_up) {
  const bool has_fabric = ways_.fabric && is_set(memory.fabric);
  if (ways_.descriptors && !(has_fabric && descriptors_failed_)) {
    auto filled = fill_by_descriptors(mirror, memory, span.end, given_up);
    if (filled || !has_fabric) return filled;
    log_info(Subsys::kP2p, "GPU memory of another rank comes by fabric handles from now on: {}",
             filled.status().to_string());
    descriptors_failed_ = true;  // not again: it may have taken long
  }
  if (!has_fabric) return error(Code::kSystem, "GPU memory of another rank has no fabric handle");
  const ChunkFacts facts{span.chunk_base, span.chunk_bytes, span.newest};
  CUmemFabricHandle fabric = memory.fabric;
  return add(mirror, memory, memory.address, facts, &fabric, kFabricHandle);
}

Result<bool> ChunkImports::fill_by_descriptors(Mirror* mirror, const ExportedMemory& memory,
                                               uint64_t end,
                                               const std::function<bool()>& given_up) const {
  for (uint64_t at = memory.address; at < end;) {
    COMM_ASSIGN(const PassedFd passed, fetch_fd(FdWay::kAbstractSocket, nonce_, proof_, at,
                                                Deadline::after(kFetchPatience), given_up));
    const ChunkFacts facts{passed.facts[0], passed.facts[1], passed.facts[2]};
    void* const descriptor = reinterpret_cast<void*>(static_cast<intptr_t>(passed.fd.get()));
    COMM_ASSIGN(const bool added, add(mirror, memory, at, facts, descriptor, kDescriptorHandle));
    if (!added) return false;
    at = facts.base + facts.bytes;
  }
  return true;
}

Result<bool> ChunkImports::add(Mirror* mirror, const ExportedMemory& memory, uint64_t address,
                               const ChunkFacts& facts, void* shared, int type) const {
  const bool is_there = facts.base <= address && address - facts.base < facts.bytes &&
                        facts.base >= memory.base && facts.bytes <= memory.bytes &&
                        facts.base - memory.base <= memory.bytes - facts.bytes;
  if (!is_there) return error(Code::kSystem, "another rank has not told of its GPU memory");
  const auto old =
      std::find_if(mirror->chunks.begin(), mirror->chunks.end(), [&](const auto& each) {
        return each.first < facts.base + facts.bytes && facts.base < each.first + each.second.bytes;
      });
  if (old != mirror->chunks.end()) return old->second.id == facts.id;
  CUmemHandle handle = 0;
  COMM_TRY(driver_.check(driver_.chunk_import(&handle, shared, type),
                         "cannot map GPU memory of another rank "
                         "(cuMemImportFromShareableHandle)"));
  const ChunkHandle chunk(driver_, handle);
  COMM_TRY(mirror->range->map(facts.base - memory.base, facts.bytes, handle, {&gpu_, 1}));
  mirror->chunks[facts.base] = facts;
  return true;
}

}  // namespace libcomm::cuda
