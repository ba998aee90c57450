// GroupMemory: one process's mapping of a group's shared memory.
//
// All ranks of a group in one process use the same GroupMemory: two mappings of one file would be
// two sets of addresses for one piece of memory, which hides races from ThreadSanitizer and wastes
// page tables. They find it by the group's nonce in a process-wide table.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "transports/shm/layout.h"
#include "transports/shm/shared_file.h"

namespace libcomm::shm {

class GroupMemory {
 public:
  // Lays out a new file; the caller is the group's lowest rank.
  static Result<std::shared_ptr<GroupMemory>> create(const Layout& layout, const Nonce& nonce,
                                                     SharedFile file);
  // The mapping that this process already has, or else one of the file that `fetch` gets. Threads
  // that ask for the same nonce wait for the first. kSystem when the file is not what was
  // announced.
  static Result<std::shared_ptr<GroupMemory>> find_or_open(
      const Layout& layout, const Nonce& nonce, const std::function<Result<UniqueFd>()>& fetch);
  ~GroupMemory();
  GroupMemory(const GroupMemory&) = delete;
  GroupMemory& operator=(const GroupMemory&) = delete;

  const Layout& layout() const { return layout_; }
  int fd() const { return file_.fd(); }
  RankControl& control(size_t member) const;
  std::byte* part(size_t member) const;
  // The extent of the channel between two members, claimed and mapped if need be. kSystem when its
  // memory cannot be had, kRemote when a peer has damaged the directory.
  Result<std::byte*> channel(size_t from, size_t to, size_t lane);

 private:
  GroupMemory(const Layout& layout, SharedFile file) : layout_(layout), file_(std::move(file)) {}
  Status map_fixed();
  GroupHeader& header() const { return *reinterpret_cast<GroupHeader*>(base_); }

  const Layout layout_;
  const SharedFile file_;
  std::byte* base_ = nullptr;
  std::mutex regions_mutex_;
  std::vector<std::byte*> regions_;  // nullptr while not mapped
};

}  // namespace libcomm::shm
