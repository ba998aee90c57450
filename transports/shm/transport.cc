#include "transports/shm/transport.h"

#include <sys/mman.h>

#include <algorithm>

namespace libcomm::shm {

ShmTransport::ShmTransport(std::shared_ptr<GroupMemory> memory, std::vector<Member> members,
                           size_t my_index, const BoardAbilities& abilities, bool oversubscribed)
    : memory_(std::move(memory)),
      members_(std::move(members)),
      me_(members_[my_index]),
      oversubscribed_(oversubscribed),
      board_(memory_, members_, my_index, abilities) {}

const Member* ShmTransport::find(int rank) const {
  const auto found =
      std::lower_bound(members_.begin(), members_.end(), rank,
                       [](const Member& member, int wanted) { return member.rank < wanted; });
  return found != members_.end() && found->rank == rank ? &*found : nullptr;
}

bool ShmTransport::reaches(const PeerFacts& a, const PeerFacts& b) const {
  return a.rank != b.rank && find(a.rank) != nullptr && find(b.rank) != nullptr;
}

Result<ChannelPlace> ShmTransport::place(int peer, int lane, bool sending) {
  const Member* other = find(peer);
  if (other == nullptr || peer == me_.rank || lane < 0 || lane >= kMaxLanes)
    return error(Code::kInternal, "no shared-memory channel between ranks {} and {} on lane {}",
                 me_.rank, peer, lane);
  const size_t from = sending ? me_.position : other->position;
  const size_t to = sending ? other->position : me_.position;
  COMM_ASSIGN(std::byte * extent, memory_->channel(from, to, static_cast<size_t>(lane)));
  return ChannelPlace{.memory = memory_,
                      .extent = extent,
                      .peer_bell = &memory_->control(other->position).doorbell,
                      .peer = peer,
                      .my_rank = me_.rank,
                      .fence = oversubscribed_,
                      .open_channels = sending ? sending_ : receiving_,
                      .board = &board_,
                      .peer_index = static_cast<int>(other - members_.data()),
                      .same_process = other->in_this_process};
}

Result<std::unique_ptr<SendChannel>> ShmTransport::connect(int peer, int lane) {
  COMM_ASSIGN(ChannelPlace where, place(peer, lane, true));
  return std::unique_ptr<SendChannel>(new ShmSendChannel(std::move(where)));
}

Result<std::unique_ptr<RecvChannel>> ShmTransport::accept(int peer, int lane) {
  COMM_ASSIGN(ChannelPlace where, place(peer, lane, false));
  return std::unique_ptr<RecvChannel>(new ShmRecvChannel(std::move(where)));
}

// What this rank is answerable for: its control page, the touched pages of its part of the board,
// and the slots of the channels it sends on.
TransportStats ShmTransport::stats() const {
  TransportStats stats;
  const int sending = sending_->load(std::memory_order_relaxed);
  stats.channels = sending + receiving_->load(std::memory_order_relaxed);
  stats.host_bytes =
      sizeof(RankControl) + static_cast<size_t>(sending) * memory_->layout().extent_bytes();
  std::vector<unsigned char> resident(memory_->layout().part_bytes / kPage);
  if (::mincore(memory_->part(me_.position), memory_->layout().part_bytes, resident.data()) == 0)
    for (const unsigned char page : resident) stats.host_bytes += (page & 1) * kPage;
  return stats;
}

}  // namespace libcomm::shm
