// Way: a name for how a collective can be done, as tuning tables and tuner plug-ins know it.
//
// The ways are COMM_ALGO's algorithms and `windows`. Which steps a way means follows from the
// group: `oneshot` is a fused exchange where all ranks share a board, a schedule over channels
// elsewhere.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace libcomm {

// Values equal commTunerAlgorithm_t's.
enum class Way : uint8_t {
  kOneshot,
  kTwoshot,
  kWindows,  // through the board, window by window: all but all-reduces, where that is kTwoshot
  kRing,
  kHd,
  kRd,
  kTree,
  kStar,
  kPairwise,
  kBruck,
  kBinomial,
  kHierarchical,
};
inline constexpr int kNumWays = 12;
using WayPrices = std::array<double, kNumWays>;  // microseconds, by Way; negative: not possible

const char* name_of(Way way);  // "oneshot", "windows", "ring", ...
std::optional<Way> find_way(std::string_view name);

// What carries the bytes of a group. Values equal commTunerPath_t's.
enum class Medium : uint8_t {
  kMemory,   // all ranks share a board
  kSockets,  // one host, sockets between some of the ranks
  kNetwork,  // several hosts
};
inline constexpr int kNumMedia = 3;
const char* name_of(Medium medium);  // "memory", "sockets", "network"
std::optional<Medium> find_medium(std::string_view name);

}  // namespace libcomm
