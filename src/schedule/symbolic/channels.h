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
  Cell* cells = nullptr;  // what is sent, or
  int32_t carried = -1;   // index of Channels::carried
  int32_t count = 0;      // chunks; 0 for a signal
  // The run that is sent, as the sender names it: it tells the chunks' sizes.
  int32_t chunk = 0;
  Space space = Space::kNone;
  int16_t slice = 0;
  int32_t step = 0;  // of the sender's lane, for people
  int32_t next = -1;
};
static_assert(sizeof(Message) <= 32, "a thousand ranks have a million of them under way");

// The values of a message that passes through, and whose names its chunks have.
struct Carried {
  std::vector<Value> values;
  int named_by = 0;
};

class Channels {
 public:
  Channels(int nranks, int lanes)
      : nranks_(static_cast<size_t>(nranks)),
        lanes_(static_cast<size_t>(lanes)),
        queues_(nranks_ * nranks_ * lanes_) {}

  // The oldest message, or nullptr. Good until the next push.
  Message* front(int from, int to, int lane) {
    const int32_t head = queue(from, to, lane).head;
    return head < 0 ? nullptr : &messages_[static_cast<size_t>(head)];
  }
  const Carried& carried(const Message& message) const {
    return carried_[static_cast<size_t>(message.carried)];
  }

  void push(int from, int to, int lane, const Message& message) {
    int32_t index = free_;
    if (index >= 0) {
      free_ = messages_[static_cast<size_t>(index)].next;
    } else {
      index = static_cast<int32_t>(messages_.size());
      messages_.emplace_back();
    }
    messages_[static_cast<size_t>(index)] = message;
    messages_[static_cast<size_t>(index)].next = -1;
    Queue& at = queue(from, to, lane);
    if (at.head < 0)
      at.head = index;
    else
      messages_[static_cast<size_t>(at.tail)].next = index;
    at.tail = index;
    ++in_flight_;
  }
  // As push, with the values.
  void push(int from, int to, int lane, Message message, Carried carried) {
    if (free_carried_.empty()) {
      free_carried_.push_back(static_cast<int32_t>(carried_.size()));
      carried_.emplace_back();
    }
    message.carried = free_carried_.back();
    free_carried_.pop_back();
    carried_[static_cast<size_t>(message.carried)] = std::move(carried);
    push(from, to, lane, message);
  }
  void pop(int from, int to, int lane) {
    Queue& at = queue(from, to, lane);
    const int32_t index = at.head;
    Message& message = messages_[static_cast<size_t>(index)];
    at.head = message.next;
    if (message.carried >= 0) free_carried_.push_back(message.carried);
    message.next = free_;
    free_ = index;
    --in_flight_;
  }

  int64_t in_flight() const { return in_flight_; }
  // Some message that nobody has taken, with its channel.
  const Message* any(int* from, int* to, int* lane) const {
    for (size_t i = 0; i < queues_.size(); ++i) {
      if (queues_[i].head < 0) continue;
      *lane = static_cast<int>(i % lanes_);
      *from = static_cast<int>(i / lanes_ % nranks_);
      *to = static_cast<int>(i / lanes_ / nranks_);
      return &messages_[static_cast<size_t>(queues_[i].head)];
    }
    return nullptr;
  }

 private:
  struct Queue {
    int32_t head = -1;
    int32_t tail = -1;
  };
  Queue& queue(int from, int to, int lane) {
    return queues_[(static_cast<size_t>(to) * nranks_ + static_cast<size_t>(from)) * lanes_ +
                   static_cast<size_t>(lane)];
  }

  size_t nranks_;
  size_t lanes_;
  std::vector<Queue> queues_;
  std::vector<Message> messages_;
  int32_t free_ = -1;
  std::vector<Carried> carried_;
  std::vector<int32_t> free_carried_;
  int64_t in_flight_ = 0;
};

}  // namespace libcomm::symbolic
