// ShmBoard: the Board over a group's memory.
#pragma once

#include <memory>
#include <vector>

#include "transports/shm/doorbell.h"
#include "transports/shm/peer_segments.h"

namespace libcomm::shm {

// What a trial between the members showed; the same on all.
struct BoardAbilities {
  bool segments_mappable = false;
  bool memory_readable = false;
};

class ShmBoard final : public Board {
 public:
  ShmBoard(std::shared_ptr<GroupMemory> memory, const std::vector<Member>& members, size_t my_index,
           const BoardAbilities& abilities);

  std::span<const int> ranks() const override { return ranks_; }
  int index() const override { return static_cast<int>(my_index_); }
  std::byte* part(int index) const override { return parts_[static_cast<size_t>(index)]; }
  std::span<std::byte* const> parts() const override { return parts_; }
  size_t part_bytes() const override { return memory_->layout().part_bytes; }

  void publish(const Signature& signature) override;
  std::optional<Signature> published(int index) const override;
  void publish_for_later(const Signature& signature) override;
  std::optional<Signature> published_as(int index, uint64_t op) const override;

  void wake_others(bool fence) override;
  int note_core() override;
  int core_of(int index) const override {
    return static_cast<int>(controls_[static_cast<size_t>(index)]->doorbell.core.load(
               std::memory_order_relaxed)) -
           1;
  }
  uint32_t prepare_sleep() override { return prepare_wait(mine().doorbell); }
  void sleep(uint32_t ticket, int microseconds) override {
    wait(mine().doorbell, ticket, microseconds);
  }
  void cancel_sleep() override { cancel_wait(mine().doorbell); }

  bool segments_mappable() const override { return abilities_.segments_mappable; }
  bool in_this_process(int index) const override { return pids_[static_cast<size_t>(index)] == 0; }
  bool memory_readable() const override { return abilities_.memory_readable; }
  Status read_memory(int index, void* dst, uint64_t address, size_t bytes) override;
  Status share_segment(uint64_t segment, bool replace) override {
    return segments_.share(segment, replace);
  }
  void drop_freed_segments() override { segments_.drop_freed(); }
  Result<std::byte*> map_segment(int index, uint64_t segment, uint64_t offset,
                                 size_t bytes) override;

 private:
  RankControl& mine() const { return *controls_[my_index_]; }

  const std::shared_ptr<GroupMemory> memory_;
  const size_t my_index_;
  const BoardAbilities abilities_;
  std::vector<int> ranks_;
  std::vector<std::byte*> parts_;       // by index
  std::vector<RankControl*> controls_;  // by index
  std::vector<int64_t> pids_;           // by index; 0: this process
  PeerSegments segments_;
};

}  // namespace libcomm::shm
