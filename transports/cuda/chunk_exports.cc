#include "transports/cuda/chunk_exports.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "src/device/scopes.h"

namespace libcomm::cuda {
namespace {

std::atomic<uint64_t> g_last_id{0};

}  // namespace

uint64_t stamp_of(std::span<const ChunkFacts> chunks) {
  uint64_t stamp = 0xcbf29ce484222325u;
  for (const ChunkFacts& each : chunks)
    for (const uint64_t word : {each.base, each.bytes, each.id})
      stamp = (stamp ^ word) * 0x9e3779b97f4a7c15u + (stamp >> 29);
  return stamp;
}

Result<std::unique_ptr<ChunkExports>> ChunkExports::start(const Driver& driver, const Nonce& nonce,
                                                          std::vector<Proof> expected) {
  std::unique_ptr<ChunkExports> exports(new ChunkExports(driver));
  COMM_ASSIGN(exports->server_,
              FdServer::start(
                  FdWay::kAbstractSocket, nonce,
                  [raw = exports.get()](uint64_t wanted) { return raw->give(wanted); },
                  std::move(expected)));
  return exports;
}

// The thread first.
ChunkExports::~ChunkExports() { server_.reset(); }

bool ChunkExports::is_current(const Exported& exported) const {
  CUmemHandle handle = 0;
  if (driver_.chunk_retain(&handle, pointer_of(exported.facts.base)) != kSuccess) return false;
  const ChunkHandle now(driver_, handle);
  return now.get() == exported.handle->get();
}

bool ChunkExports::export_chunk(CUdeviceptr address, Exported* exported) const {
  CUdeviceptr base = 0;
  size_t bytes = 0;
  CUmemHandle handle = 0;
  if (driver_.address_range(&base, &bytes, address) != kSuccess ||
      driver_.chunk_retain(&handle, pointer_of(address)) != kSuccess)
    return false;
  exported->handle = std::make_shared<const ChunkHandle>(driver_, handle);
  if (ways_.descriptors) {
    if (auto fd = descriptor_of(*exported->handle)) {
      exported->fd = *std::move(fd);
      exported->has_descriptors = true;
    }
  }
  uint64_t types = 0;
  if (ways_.fabric && driver_.pointer_get(&types, kAttributeHandleTypes, address) == kSuccess &&
      (types & kFabricHandle) != 0 &&
      driver_.chunk_export(&exported->fabric, handle, kFabricHandle, 0) != kSuccess)
    exported->fabric = {};
  if (!exported->has_descriptors && !is_set(exported->fabric)) return false;
  exported->facts = {base, bytes, g_last_id.fetch_add(1, std::memory_order_relaxed) + 1};
  return true;
}

Result<UniqueFd> ChunkExports::descriptor_of(const ChunkHandle& chunk) const {
  int fd = -1;
  COMM_TRY(driver_.check(driver_.chunk_export(&fd, chunk.get(), kDescriptorHandle, 0),
                         "cuMemExportToShareableHandle"));
  return UniqueFd(fd);
}

bool ChunkExports::describe(CUdeviceptr address, size_t bytes, ExportedMemory* memory,
                            bool* is_new) {
  CUdeviceptr start = 0;
  size_t size = 0;
  if (driver_.pointer_get(&start, kAttributeRangeStart, address) != kSuccess ||
      driver_.pointer_get(&size, kAttributeRangeSize, address) != kSuccess ||
      address - start + bytes > size)
    return false;
  forget_one_that_is_gone();
  std::vector<ChunkFacts> chunks;
  bool all_have_descriptors = true;
  CUmemFabricHandle fabric{};  // of the last one
  for (CUdeviceptr at = address; at < address + bytes;) {
    auto known = exported_.upper_bound(at);
    if (known != exported_.begin()) --known;
    const bool is_known = known != exported_.end() && known->first <= at &&
                          at - known->first < known->second.facts.bytes &&
                          is_current(known->second);
    Exported fresh;
    if (!is_known && !export_chunk(at, &fresh)) return false;
    const Exported& chunk = is_known ? known->second : fresh;
    chunks.push_back(chunk.facts);
    all_have_descriptors = all_have_descriptors && chunk.has_descriptors;
    fabric = chunk.fabric;
    if (!is_known) {
      *is_new = true;
      add(std::move(fresh));
    }
    at = chunks.back().base + chunks.back().bytes;
  }
  ChunkSpan span{address + bytes, stamp_of(chunks)};
  for (const ChunkFacts& each : chunks) span.newest = std::max(span.newest, each.id);
  if (chunks.size() == 1 && is_set(fabric)) {
    memory->fabric = fabric;
    span.chunk_base = chunks[0].base;
    span.chunk_bytes = chunks[0].bytes;
  } else if (!all_have_descriptors) {
    return false;
  }
  memory->base = start;
  memory->bytes = size;
  memory->id = kOfChunks;
  std::memcpy(memory->handle.reserved, &span, sizeof span);
  return true;
}

void ChunkExports::add(Exported fresh) {
  const ChunkFacts facts = fresh.facts;
  const std::lock_guard lock(mutex_);
  // What was there before is gone.
  std::erase_if(exported_, [&](const auto& each) {
    return each.first < facts.base + facts.bytes &&
           facts.base < each.first + each.second.facts.bytes;
  });
  std::erase_if(kept_, [&](uint64_t base) { return !exported_.contains(base); });
  exported_.emplace(facts.base, std::move(fresh));
  kept_.push_back(facts.base);
  if (kept_.size() <= kMostKept) return;
  exported_.at(kept_.front()).fd = UniqueFd();
  kept_.pop_front();
}

void ChunkExports::forget(CUdeviceptr address) {
  const std::lock_guard lock(mutex_);
  exported_.erase(address);
}

// One look at each call, so that what the program has freed is not kept for long.
void ChunkExports::forget_one_that_is_gone() {
  if (exported_.empty()) return;
  auto next = exported_.upper_bound(looked_at_);
  if (next == exported_.end()) next = exported_.begin();
  looked_at_ = next->first;
  if (is_current(next->second)) return;
  const std::lock_guard lock(mutex_);
  exported_.erase(next);
}

// On the server's thread.
Result<PassedFd> ChunkExports::give(uint64_t address) {
  PassedFd given;
  std::shared_ptr<const ChunkHandle> chunk;
  {
    const std::lock_guard lock(mutex_);
    auto after = exported_.upper_bound(address);
    if (after == exported_.begin())
      return error(Code::kSystem, "no GPU memory was told of at {:#x}", address);
    const Exported& found = std::prev(after)->second;
    given.facts = {found.facts.base, found.facts.bytes, found.facts.id};
    if (found.fd) {
      given.fd = UniqueFd(::fcntl(found.fd.get(), F_DUPFD_CLOEXEC, 0));
      if (!given.fd) return descriptor_error(errno, "cannot pass on GPU memory");
      return given;
    }
    chunk = found.handle;
  }
  const OutsideCapture outside(driver_);
  COMM_ASSIGN(given.fd, descriptor_of(*chunk));
  return given;
}

}  // namespace libcomm::cuda
