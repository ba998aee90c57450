#include "bindings/nccl/config.h"

#include <algorithm>
#include <cstddef>

namespace nccl_binding {
namespace {

static_assert(sizeof(ncclConfig_t) == sizeof(commConfig_t));
static_assert(offsetof(ncclConfig_t, nvlinkCentricSched) ==
              offsetof(commConfig_t, nvlinkCentricSched));

// Where the fields end that a release knew. Fields are only ever added behind the others.
struct Era {
  unsigned before;  // releases earlier than this one, and not in an era above
  size_t end;
};
constexpr Era kEras[] = {
    {NCCL_VERSION(2, 14, 0), offsetof(commConfig_t, blocking)},
    {NCCL_VERSION(2, 17, 0), offsetof(commConfig_t, cgaClusterSize)},
    {NCCL_VERSION(2, 18, 0), offsetof(commConfig_t, splitShare)},
    {NCCL_VERSION(2, 25, 0), offsetof(commConfig_t, trafficClass)},
    {NCCL_VERSION(2, 27, 0), offsetof(commConfig_t, collnetEnable)},
    {NCCL_VERSION(2, 28, 0), offsetof(commConfig_t, nChannelsPerNetPeer)},
};

size_t end_of_fields(unsigned version) {
  for (const Era& era : kEras)
    if (version < era.before) return era.end;
  return sizeof(commConfig_t);
}

}  // namespace

Config::Config(const ncclConfig_t* given) : given_(given != nullptr) {
  if (!given_) return;
  constexpr size_t kHead = offsetof(commConfig_t, blocking);
  std::memcpy(&config_.size, given, sizeof config_.size);
  if (config_.size < kHead) return;
  const size_t size = config_.size;
  std::memcpy(&config_, given, kHead);
  std::memcpy(&config_, given, std::min(size, end_of_fields(config_.version)));
  config_.size = sizeof config_;
}

}  // namespace nccl_binding
