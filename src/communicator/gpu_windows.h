// GpuWindows: windows of GPU memory (commWindowRegister), of which each rank knows where all ranks'
// are, mapped, before any call. So the first call on one waits for no mapping; and where the
// configuration wants no kernels (COMM_CTA_POLICY_ZERO), calls that only move bytes are copies on
// the stream, which the copy engines do.
//
// A call knows its own buffers only, and takes it that the other ranks' lie at the same place of
// their windows. The cards of the meeting say whether that was so (gpu_meeting.h).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "src/execute/operation.h"
#include "src/execute/staging.h"
#include "transports/cuda/mapping.h"

namespace libcomm {

// What a call's copies rest on. Part of a wire struct.
struct GpuGuess {
  uint64_t window = 0;   // the number of the window; 0: nothing is guessed
  uint64_t offset = 0;   // where the inputs of the others begin in their windows,
  uint64_t advance = 0;  // and by how much more for each rank
};

struct GpuWindow {
  std::byte* mine = nullptr;
  size_t bytes = 0;
  // By rank: where it is in that rank's process, and in this one. What keeps it mapped here.
  std::vector<cuda::ExportedMemory> there;
  std::vector<std::byte*> here;
  std::vector<std::shared_ptr<const void>> keep;
};

// This rank's part of a call, as copies.
struct GpuCopies {
  std::vector<StagedCopy> copies;
  std::shared_ptr<const GpuWindow>
      window;  // kept until they are over; null: all is this rank's own
};

class GpuWindows {
 public:
  // In the same order on all ranks, which gives it its number.
  uint64_t add(std::shared_ptr<const GpuWindow> window);
  // By what it is to be removed; any rank may remove it at any time.
  void name(uint64_t number, const void* key);
  void remove(const void* key);

  // The copies that are this rank's part of a call, and what they rest on; nothing where the call
  // is not of windows, or does more than moving bytes.
  std::optional<GpuCopies> copies(const Operation& operation, int rank, int nranks,
                                  GpuGuess* guess) const;
  // Whether the input of rank `peer` is where the guess has it, and still the memory that was
  // mapped for the window: the same at all ranks.
  bool is_right(const GpuGuess& guess, int peer, const cuda::ExportedMemory& input) const;
  // Calls of this kind had other buffers than was guessed: copies() has none for them any more.
  void stop(Collective kind);
  // Lets go of all that is mapped.
  void clear();

 private:
  struct Known {
    const void* key = nullptr;
    std::shared_ptr<const GpuWindow> window;  // null when it was removed
    std::vector<cuda::ExportedMemory> there;
  };
  // The window of [begin, begin + bytes) of this rank, with its number; null: none.
  std::shared_ptr<const GpuWindow> find(const void* begin, size_t bytes, uint64_t* number) const;

  mutable std::mutex mutex_;    // the engine looks while the program registers
  std::vector<Known> windows_;  // the number is the place, from 1
  std::set<Collective> stopped_;
};

}  // namespace libcomm
