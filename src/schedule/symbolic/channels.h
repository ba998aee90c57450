// Channels: messages between ranks in the checker, a queue per (source, destination, lane).
//
// A message in memory stays where it is until the receiver takes it (its cells are marked as being
// read): the least that a transport promises, one credit. A message that passes through a fused
// step without a place to keep it carries its values.
#pragma once

#include <vector>

#include "src/schedule/schedule.h"
#include "src/schedule/symbolic/memory.h"

namespace libcomm::symbolic {

struct Message {
  Cell* cells = nullptr;       // what is sent, or
  std::vector<Value> carried;  // the values themselves
  int count = 0;               // chunks; 0 for a signal
  int slice = 0;
  // Whose schedule and which run give the chunks' sizes.
  int sized_by = 0;
  Ref size_of;
  // The send, for people.
  int from = 0;
  int lane = 0;
  int step = 0;
  int next = -1;

  const Value& value(int i) const {
    return cells != nullptr ? cells[i].value : carried[static_cast<size_t>(i)];
  }
};

class Channels {
 public:
  Channels(int nranks, int lanes) : nranks_(nranks), lanes_(lanes), slots_(1 << 10) {}

  // The oldest message, or nullptr.
  Message* front(int from, int to, int lane) {
    const Slot& slot = find(from, to, lane);
    return slot.head < 0 ? nullptr : &messages_[static_cast<size_t>(slot.head)];
  }
  void push(int from, int to, int lane, Message message) {
    int index = free_;
    if (index >= 0) {
      free_ = messages_[static_cast<size_t>(index)].next;
      messages_[static_cast<size_t>(index)] = std::move(message);
    } else {
      index = static_cast<int>(messages_.size());
      messages_.push_back(std::move(message));
    }
    messages_[static_cast<size_t>(index)].next = -1;
    Slot& slot = find(from, to, lane);
    if (slot.head < 0)
      slot.head = index;
    else
      messages_[static_cast<size_t>(slot.tail)].next = index;
    slot.tail = index;
    ++in_flight_;
  }
  void pop(int from, int to, int lane) {
    Slot& slot = find(from, to, lane);
    const int index = slot.head;
    slot.head = messages_[static_cast<size_t>(index)].next;
    messages_[static_cast<size_t>(index)].carried.clear();
    messages_[static_cast<size_t>(index)].next = free_;
    free_ = index;
    --in_flight_;
  }

  int64_t in_flight() const { return in_flight_; }
  // Some message that nobody has taken, and for whom it is.
  const Message* any(int* to) const {
    for (const Slot& slot : slots_) {
      if (slot.key == kEmpty || slot.head < 0) continue;
      *to = static_cast<int>(slot.key / static_cast<uint64_t>(lanes_) %
                             static_cast<uint64_t>(nranks_));
      return &messages_[static_cast<size_t>(slot.head)];
    }
    return nullptr;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    int head = -1;
    int tail = -1;
  };

  // Open addressing: a thousand ranks have a million channels, and this is the checker's inner
  // loop.
  Slot& find(int from, int to, int lane) {
    const uint64_t key =
        (static_cast<uint64_t>(from) * static_cast<uint64_t>(nranks_) + static_cast<uint64_t>(to)) *
            static_cast<uint64_t>(lanes_) +
        static_cast<uint64_t>(lane);
    Slot* slot = probe(key);
    if (slot->key == key) return *slot;
    if (++used_ * 2 > slots_.size()) {
      std::vector<Slot> old(slots_.size() * 2);
      old.swap(slots_);
      for (const Slot& moved : old)
        if (moved.key != kEmpty) *probe(moved.key) = moved;
      slot = probe(key);
    }
    slot->key = key;
    return *slot;
  }
  Slot* probe(uint64_t key) {
    size_t at = mix(key) & (slots_.size() - 1);
    while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & (slots_.size() - 1);
    return &slots_[at];
  }

  int nranks_;
  int lanes_;
  std::vector<Slot> slots_;
  size_t used_ = 0;
  std::vector<Message> messages_;
  int free_ = -1;
  int64_t in_flight_ = 0;
};

}  // namespace libcomm::symbolic
