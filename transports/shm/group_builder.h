// How a group comes about, with the choices that tests force.
#pragma once

#include <functional>

#include "transports/pass_fd.h"
#include "transports/shm/group.h"

namespace libcomm::shm {

struct GroupOptions {
  bool allow_memfd = true;  // false: as where memfd_create is refused
  std::function<bool(FdWay)> allow_way = [](FdWay) {
    return true;
  };  // false: as if that way failed here
};

Result<ShmGroup> build_group(Bootstrap& bootstrap, std::span<const PeerFacts> facts,
                             const Knobs& knobs, const GroupOptions& options);

}  // namespace libcomm::shm
