#include "transports/shm/board.h"

#include <sched.h>

#include <cstring>

#include "transports/shm/doorbell.h"
#include "transports/shm/peek.h"
#include "transports/shm/published.h"

namespace libcomm::shm {
ShmBoard::ShmBoard(std::shared_ptr<GroupMemory> memory, const std::vector<Member>& members,
                   size_t my_index, const BoardAbilities& abilities)
    : memory_(std::move(memory)),
      my_index_(my_index),
      abilities_(abilities),
      segments_(memory_, members, my_index) {
  for (const Member& member : members) {
    ranks_.push_back(member.rank);
    pids_.push_back(member.in_this_process ? 0 : member.pid);
    parts_.push_back(memory_->part(member.position));
    controls_.push_back(&memory_->control(member.position));
  }
}

void ShmBoard::publish(const Signature& signature) {
  shm::publish(&mine().published.record, signature);
}

std::optional<Signature> ShmBoard::published(int index) const {
  return shm::published(controls_[static_cast<size_t>(index)]->published.record);
}

void ShmBoard::publish_for_later(const Signature& signature) {
  shm::publish(&mine().earlier[signature.op % kEarlierCalls], signature);
  publish(signature);
}

std::optional<Signature> ShmBoard::published_as(int index, uint64_t op) const {
  const RankControl& control = *controls_[static_cast<size_t>(index)];
  for (const SignatureRecord* record :
       {&control.published.record, &control.earlier[op % kEarlierCalls]}) {
    const std::optional<Signature> found = shm::published(*record);
    if (found && found->op == op) return found;
  }
  return std::nullopt;
}

void ShmBoard::wake_others(bool fence) {
  if (fence) full_fence();
  for (size_t i = 0; i < controls_.size(); ++i)
    if (i != my_index_) ring(controls_[i]->doorbell);
}

int ShmBoard::note_core() {
  const int core = ::sched_getcpu();
  std::atomic<uint32_t>& noted = mine().doorbell.core;
  // Peers read the line at every turn: written only when there is news.
  if (noted.load(std::memory_order_relaxed) != static_cast<uint32_t>(core) + 1)
    noted.store(static_cast<uint32_t>(core) + 1, std::memory_order_relaxed);
  return core;
}

Status ShmBoard::read_memory(int index, void* dst, uint64_t address, size_t bytes) {
  const int64_t pid = pids_[static_cast<size_t>(index)];
  if (pid != 0)
    return read_process(pid, dst, address, bytes).with_peer(ranks_[static_cast<size_t>(index)]);
  std::memcpy(dst, reinterpret_cast<const void*>(address), bytes);
  return Status::ok();
}

Result<std::byte*> ShmBoard::map_segment(int index, uint64_t segment, uint64_t offset,
                                         size_t bytes) {
  return segments_.map(static_cast<size_t>(index), segment, offset, bytes);
}

}  // namespace libcomm::shm
