#include "src/plan/way.h"

#include <iterator>

namespace libcomm {
namespace {

constexpr const char* kWays[] = {"oneshot",  "twoshot", "windows",  "ring",
                                 "hd",       "rd",      "tree",     "star",
                                 "pairwise", "bruck",   "binomial", "hierarchical"};
static_assert(std::size(kWays) == kNumWays);
constexpr const char* kMedia[] = {"memory", "sockets", "network"};
static_assert(std::size(kMedia) == kNumMedia);

template <typename T, size_t n>
std::optional<T> find_in(const char* const (&names)[n], std::string_view name) {
  for (size_t i = 0; i < n; ++i)
    if (name == names[i]) return static_cast<T>(i);
  return std::nullopt;
}

}  // namespace

const char* name_of(Way way) { return kWays[static_cast<size_t>(way)]; }
std::optional<Way> find_way(std::string_view name) { return find_in<Way>(kWays, name); }

const char* name_of(Medium medium) { return kMedia[static_cast<size_t>(medium)]; }
std::optional<Medium> find_medium(std::string_view name) { return find_in<Medium>(kMedia, name); }

}  // namespace libcomm
