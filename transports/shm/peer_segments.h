// PeerSegments: commMemAlloc memory of the group's members, mapped into this process when first
// used.
//
// The owner of a segment writes where its descriptor is found into a small table of its own in the
// group's memory; a peer opens it through /proc and keeps the mapping until the segment is gone.
// Members in this process need neither: their very pointers are used.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "transports/shm/group_memory.h"
#include "transports/transport.h"

namespace libcomm::shm {

// A member of the group as its peers know it.
struct Member {
  int rank = -1;
  size_t position = 0;  // in the group's memory
  int64_t pid = 0;
  bool in_this_process = false;
};

class PeerSegments {
 public:
  PeerSegments(std::shared_ptr<GroupMemory> memory, std::vector<Member> members, size_t my_index);
  ~PeerSegments();
  PeerSegments(const PeerSegments&) = delete;
  PeerSegments& operator=(const PeerSegments&) = delete;

  // See Board::share_segment and Board::map_segment. Any thread.
  Status share(uint64_t segment, bool replace);
  // See Board::drop_freed_segments.
  void drop_freed();
  Result<std::byte*> map(size_t index, uint64_t segment, uint64_t offset, size_t bytes);

 private:
  struct Mapping {
    uint64_t segment;
    std::byte* memory;
    size_t bytes;
  };
  struct Peer {
    uint64_t generation = 0;  // of the peer's table when `mappings` was last compared with it
    std::vector<Mapping> mappings;
  };

  RankControl& control(size_t index) const;
  void withdraw_freed();
  void drop_gone(size_t index);
  Result<Mapping> open(size_t index, uint64_t segment) const;

  const std::shared_ptr<GroupMemory> memory_;
  const std::vector<Member> members_;
  const size_t my_index_;
  std::mutex mutex_;  // written under it; the two atomics are looked at without, before each call
  std::atomic<uint64_t> freed_seen_ = 0;
  std::atomic<bool> has_mappings_ = false;
  size_t next_way_ = 0;  // which entry of a full set is given up next
  std::vector<Peer> peers_;
};

}  // namespace libcomm::shm
