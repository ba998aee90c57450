#include "transports/cuda/peer_memory.h"

#include <algorithm>
#include <thread>

#include "src/base/clock.h"
#include "src/device/scopes.h"
#include "transports/facts.h"

namespace libcomm::cuda {
namespace {

// Mapped allocations of one peer, before those that may be stale are let go.
constexpr size_t kMostMapped = 1024;
// Looks at an event before the thread sleeps between them.
constexpr int kEagerLooks = 200;
constexpr std::chrono::microseconds kPause{20};

}  // namespace

PeerMemory::~PeerMemory() {
  if (stuck_) {  // the process keeps what the GPU may still use
    (void)new PinnedBuffer(std::move(pinned_));
    (void)new std::shared_ptr(std::move(kernels_));
    (void)new AddressRange(std::move(trial_chunk_));
    (void)new auto(std::move(imported_));
    (void)new auto(std::move(chunk_imports_));
    return;
  }
  {
    const ContextScope scope(driver_, context_);
    const OutsideCapture outside(driver_);
    if (scope.status()) {
      done_.end();
      if (stream_ != nullptr) (void)driver_.stream_destroy(stream_);
    }
  }
  end_trial_chunk();
  imported_.clear();
  chunk_imports_.clear();
  end_when_idle(Ending::kWithCommunicators,
                [&driver = driver_, context = context_, pattern = pattern_, kernels = kernels_,
                 primary_of = primary_of_]() mutable {
                  kernels.reset();
                  {
                    const ContextScope inside(driver, context);
                    if (inside.status() && pattern != 0) (void)driver.memory_free(pattern);
                  }
                  if (primary_of >= 0) (void)driver.primary_release(primary_of);
                });
}

bool PeerMemory::is_thread(int peer) const {
  return same_process(ranks_[static_cast<size_t>(peer)].facts,
                      ranks_[static_cast<size_t>(rank_)].facts);
}

bool PeerMemory::describe(const void* address, size_t bytes, ExportedMemory* memory) {
  const std::lock_guard lock(describing_);
  *memory = {};
  memory->address = number_of(address);
  const MemoryPlace place = place_of(driver_, address);
  if (one_context_)
    return place.kind == MemoryPlace::Kind::kManaged ||
           (place.kind == MemoryPlace::Kind::kGpu && place.ordinal == ordinal_);
  if (place.kind != MemoryPlace::Kind::kGpu || place.ordinal != ordinal_) return false;
  CUcontext owner = nullptr;
  if (driver_.pointer_get(&owner, kAttributeContext, number_of(address)) != kSuccess ||
      owner != context_)
    return describe_chunks(number_of(address), bytes, memory);
  CUdeviceptr base = 0;
  size_t size = 0;
  if (driver_.address_range(&base, &size, number_of(address)) != kSuccess ||
      number_of(address) - base + bytes > size)
    return false;
  memory->base = base;
  memory->bytes = size;
  if (driver_.pointer_get(&memory->id, kAttributeBufferId, base) != kSuccess) return false;
  const auto known = exported_.find(base);
  if (known == exported_.end() || known->second.id != memory->id) {
    Exported fresh{memory->id, {}};
    // Some drivers say that chunks are of the context.
    if (driver_.ipc_get(&fresh.handle, base) != kSuccess)
      return describe_chunks(number_of(address), bytes, memory);
    if (exported_.size() >= kMostMapped) exported_.erase(exported_.begin());
    exported_[base] = fresh;
    ++exports_;
    memory->handle = fresh.handle;
  } else {
    memory->handle = known->second.handle;
  }
  return true;
}

bool PeerMemory::describe_chunks(CUdeviceptr address, size_t bytes, ExportedMemory* memory) {
  if (!is_of_chunks_for_threads(address, bytes)) return false;
  if (one_process_) return true;
  bool is_new = false;
  const bool told =
      chunk_exports_ != nullptr && chunk_exports_->describe(address, bytes, memory, &is_new);
  if (is_new) ++exports_;
  return told;
}

// Whether all of it is in chunks that the GPUs of the ranks of this process may use.
bool PeerMemory::is_of_chunks_for_threads(CUdeviceptr address, size_t bytes) const {
  for (CUdeviceptr at = address; at < address + bytes;) {
    CUmemHandle handle = 0;
    CUdeviceptr base = 0;
    size_t size = 0;
    if (driver_.chunk_retain(&handle, pointer_of(at)) != kSuccess) return false;
    const ChunkHandle chunk(driver_, handle);
    if (driver_.address_range(&base, &size, at) != kSuccess || at - base >= size) return false;
    for (const CUdevice gpu : thread_gpus_) {
      const CUmemLocation there{kOnDevice, gpu};
      unsigned long long flags = 0;
      if (driver_.chunk_allowed(&flags, &there, at) != kSuccess || flags != kReadWrite)
        return false;
    }
    at = base + size;
  }
  return true;
}

Result<std::byte*> PeerMemory::import(int peer, const ExportedMemory& memory,
                                      std::shared_ptr<const void>* keep) {
  if (is_thread(peer)) return static_cast<std::byte*>(pointer_of(memory.address));
  const std::lock_guard lock(importing_);
  const auto failed = [peer](const Status& status) {
    return Status(status).context(fmt::format("rank {}", peer)).with_peer(peer);
  };
  if (memory.id == kOfChunks) {
    const auto chunks = chunk_imports_.find(peer);
    if (chunks == chunk_imports_.end())
      return failed(error(Code::kSystem, "its GPU memory came without a way to it"));
    auto found = chunks->second.find(memory, given_up_, keep);
    return found ? std::move(found) : failed(found.status());
  }
  auto& known = imported_[static_cast<size_t>(peer)];
  auto found = known.find(memory.base);
  if (found == known.end() || !found->second->is_of(memory)) {
    // What overlaps with it is memory that the peer has freed.
    std::erase_if(known, [&](const auto& each) {
      return each.first < memory.base + memory.bytes &&
             memory.base < each.first + each.second->bytes();
    });
    if (known.size() >= kMostMapped) known.erase(known.begin());
    auto mapped = MappedMemory::open(driver_, context_, memory);
    if (!mapped) return failed(mapped.status());
    auto kept = std::make_shared<const MappedMemory>(*std::move(mapped));
    found = known.insert_or_assign(memory.base, std::move(kept)).first;
  }
  if (keep != nullptr) *keep = found->second;
  return found->second->data() + (memory.address - memory.base);
}

Status PeerMemory::copy(void* to, const void* from, size_t bytes) {
  return driver_.check(driver_.copy_async(number_of(to), number_of(from), bytes, stream_),
                       "copying between GPU and pinned memory");
}

Status PeerMemory::clear(void* to, size_t bytes) {
  return driver_.check(driver_.set_async(number_of(to), 0, bytes, stream_), "cuMemsetD8Async");
}

Status PeerMemory::finish(const std::function<bool()>& gives_up) {
  COMM_TRY(driver_.check(driver_.event_record(done_.get(), stream_), "cuEventRecord"));
  for (int look = 0;; ++look) {
    const CUresult state = driver_.event_query(done_.get());
    if (state != kNotReady)
      return driver_.check(state, "the GPU has failed while it worked on GPU memory of the ranks");
    if (look < kEagerLooks) {
      std::this_thread::yield();
      continue;
    }
    if (gives_up()) {
      stuck_ = true;
      return error(Code::kSystem, "the GPU has not done what it was to do with GPU memory in time");
    }
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace libcomm::cuda
