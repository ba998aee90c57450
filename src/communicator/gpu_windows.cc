#include "src/communicator/gpu_windows.h"

#include <algorithm>

#include "src/execute/peer_kernels.h"

namespace libcomm {

uint64_t GpuWindows::add(std::shared_ptr<const GpuWindow> window) {
  const std::lock_guard lock(mutex_);
  const std::vector<cuda::ExportedMemory> there = window->there;
  windows_.push_back({nullptr, std::move(window), there});
  return windows_.size();
}

void GpuWindows::name(uint64_t number, const void* key) {
  const std::lock_guard lock(mutex_);
  if (number > 0) windows_[number - 1].key = key;
}

void GpuWindows::remove(const void* key) {
  const std::lock_guard lock(mutex_);
  for (Known& each : windows_)
    if (each.key == key) each.window.reset();
}

void GpuWindows::clear() {
  const std::lock_guard lock(mutex_);
  for (Known& each : windows_) each.window.reset();
}

void GpuWindows::stop(Collective kind) {
  const std::lock_guard lock(mutex_);
  stopped_.insert(kind);
}

std::shared_ptr<const GpuWindow> GpuWindows::find(const void* begin, size_t bytes,
                                                  uint64_t* number) const {
  const auto* at = static_cast<const std::byte*>(begin);
  const std::lock_guard lock(mutex_);
  for (size_t i = windows_.size(); i-- > 0;) {  // the newest one that has it
    const std::shared_ptr<const GpuWindow>& window = windows_[i].window;
    if (window == nullptr || at < window->mine || at >= window->mine + window->bytes) continue;
    if (bytes > static_cast<size_t>(window->mine + window->bytes - at)) continue;
    *number = i + 1;
    return window;
  }
  return nullptr;
}

std::optional<GpuCopies> GpuWindows::copies(const Operation& operation, int rank, int nranks,
                                            GpuGuess* guess) const {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_.count(operation.collective) != 0) return std::nullopt;
  }
  const size_t block = operation.count * size_of(operation.type);
  const auto* in = static_cast<const std::byte*>(operation.in);
  auto* out = static_cast<std::byte*>(operation.out);
  const bool at_root = rank == operation.root;
  const auto n = static_cast<size_t>(nranks);
  size_t readable = block;  // of the others' inputs
  size_t advance = 0;
  bool from_others = true;
  switch (operation.collective) {
    case Collective::kAllToAll:
      readable = block * n;
      break;
    case Collective::kAllGather:
      // In place, the input is the rank's own block of the output.
      if (in == out + static_cast<size_t>(rank) * block) advance = block;
      break;
    case Collective::kGather:
      from_others = at_root;
      if (at_root && in == out + static_cast<size_t>(rank) * block) return std::nullopt;
      break;
    case Collective::kBroadcast:  // the other ranks know no input: in place, it is the output
      from_others = !at_root;
      break;
    case Collective::kScatter:  // these neither
      from_others = false;
      if (!at_root) return std::nullopt;
      break;
    default:
      return std::nullopt;
  }
  std::vector<PeerBuffers> buffers(n);
  GpuCopies result;
  std::shared_ptr<const GpuWindow>& window = result.window;
  if (from_others) {
    const std::byte* first = in - static_cast<size_t>(rank) * advance;
    uint64_t number = 0;
    window = find(first, advance > 0 ? block * n : readable, &number);
    if (window == nullptr) return std::nullopt;
    *guess = {number, static_cast<uint64_t>(first - window->mine), advance};
    for (size_t peer = 0; peer < n; ++peer)
      buffers[peer].in = window->here[peer] + guess->offset + peer * advance;
  }
  auto& mine = buffers[static_cast<size_t>(rank)];
  mine = {static_cast<const std::byte*>(operation.in), out};
  const PeerKernel kernel = peer_kernel(operation, rank, buffers);
  std::vector<StagedCopy>& copies = result.copies;
  if (!kernel.copies) return result;
  for (int i = 0; i < kernel.copies->segment_count; ++i) {
    const auto& each = kernel.copies->segments[i];
    copies.push_back({each.to, each.from, each.bytes});
  }
  // Each rank begins elsewhere, so that not all read from the same one.
  if (copies.size() > 1)
    std::rotate(copies.begin(), copies.begin() + rank % static_cast<int>(copies.size()),
                copies.end());
  return result;
}

bool GpuWindows::is_right(const GpuGuess& guess, int peer,
                          const cuda::ExportedMemory& input) const {
  const std::lock_guard lock(mutex_);
  if (guess.window == 0 || guess.window > windows_.size()) return false;
  const auto rank = static_cast<size_t>(peer);
  const cuda::ExportedMemory& window = windows_[guess.window - 1].there[rank];
  return input.address == window.address + guess.offset + rank * guess.advance &&
         is_still_there(window, input);
}

}  // namespace libcomm
