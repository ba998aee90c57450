// Introduction: what a rank tells all others when a communicator is made, beyond PeerFacts: what it
// may run on and what it was asked for. Exchanged once, as text of fixed layout.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "src/base/status.h"
#include "transports/transport.h"

namespace libcomm {

inline constexpr uint32_t kIntroductionVersion = 2;
inline constexpr int kMaskWords = 16;  // of 64 cores

// Wire struct, little-endian.
struct Introduction {
  uint32_t version = kIntroductionVersion;
  int32_t min_lanes = -1;  // from the caller's options; -1: not asked for
  int32_t max_lanes = -1;
  int32_t package = -1;
  PeerFacts facts;
  std::array<uint64_t, kMaskWords> cores{};  // that this rank may run on
  std::array<uint64_t, 2> gpu{};  // the UUID of the one that is current in its thread; 0: none
};
static_assert(sizeof(Introduction) == 16 + sizeof(PeerFacts) + 8 * kMaskWords + 16);

// The struct followed by the agreed knobs.
std::string write_introduction(const Introduction& introduction, const std::string& knobs);
// kInvalidUsage when it comes from another version of the library.
Status read_introduction(std::string_view text, int rank, Introduction* introduction,
                         std::string* knobs);

// The GPU that is current in the calling thread: its UUID, and its number in this process (-1:
// none).
std::array<uint64_t, 2> current_gpu(int* ordinal);
// kInvalidUsage when two ranks have the same.
Status check_gpus_differ(std::span<const Introduction> all);

// The cores that the calling thread may run on.
std::array<uint64_t, kMaskWords> usable_core_mask();

}  // namespace libcomm
