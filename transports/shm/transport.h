// ShmTransport: channels between the ranks of one group.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "transports/shm/board.h"
#include "transports/shm/channel.h"

namespace libcomm::shm {

class ShmTransport final : public Transport {
 public:
  // `oversubscribed`: the group's ranks share cores, so wake-ups must not be lost.
  ShmTransport(std::shared_ptr<GroupMemory> memory, std::vector<Member> members, size_t my_index,
               const BoardAbilities& abilities, bool oversubscribed);

  const char* name() const override { return "shm"; }
  bool reaches(const PeerFacts& a, const PeerFacts& b) const override;
  size_t segment_bytes() const override { return memory_->layout().slot_bytes; }
  // kSystem when the channel's memory cannot be had, kInternal for a rank outside the group.
  Result<std::unique_ptr<SendChannel>> connect(int peer, int lane) override;
  Result<std::unique_ptr<RecvChannel>> accept(int peer, int lane) override;
  TransportStats stats() const override;

  Board* board() { return &board_; }

 private:
  const Member* find(int rank) const;
  Result<ChannelPlace> place(int peer, int lane, bool sending);

  const std::shared_ptr<GroupMemory> memory_;
  const std::vector<Member> members_;  // by rank, ascending
  const Member me_;
  const bool oversubscribed_;
  ShmBoard board_;
  // Channels that are open, by direction; they may outlive the transport.
  const std::shared_ptr<std::atomic<int>> sending_ = std::make_shared<std::atomic<int>>(0);
  const std::shared_ptr<std::atomic<int>> receiving_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace libcomm::shm
