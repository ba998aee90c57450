// P2pBatch: the sends and receives of one group, all in progress at once.
//
// Messages to one peer go out in the order of the calls, as do receives from one peer; different
// peers do not wait for each other. A message to oneself is copied from its send to its receive.
//
// One object serves all groups of a communicator, one after the other, so that a small message
// costs no allocation.
#pragma once

#include <span>
#include <vector>

#include "src/execute/execution.h"
#include "src/execute/operation.h"

namespace libcomm {

// Of the operations of one group: does each message of `rank` to itself have a partner that fits?
// kInvalidUsage when not. To be asked before anything of the group starts.
Status check_self_messages(int rank, std::span<const Operation> operations);

// A send or a receive, of checked arguments; never of a message to oneself.
struct MessageCall {
  int peer = -1;
  bool is_send = false;
  DataType type = DataType::kUint8;
  size_t count = 0;
  const void* src = nullptr;  // of a send
  void* dst = nullptr;        // of a receive
  // Not 0: so many bytes go from src to dst instead, which say where the GPU memory is. The peer
  // must be told so too.
  size_t card_bytes = 0;
};

class P2pBatch final : public Execution {
 public:
  P2pBatch(int rank, int nranks, Ports* ports) : rank_(rank), nranks_(nranks), ports_(ports) {}
  // Begins the next group with the kSendRecv operations among these; carries out the messages to
  // oneself, which check_self_messages() has looked at. The buffers must stay until advance() is
  // done, or has failed.
  void start(std::span<const Operation> operations);
  // The same with these.
  void start(std::span<const MessageCall> calls);
  // The bytes of this receive, counted as start() got the calls, have all come.
  bool has_come(size_t index) const { return messages_[index].done == messages_[index].bytes; }
  Status advance(Progress* progress) override;
  // The same, and goes as far as it can, looking for each message about so many times in vain;
  // *done when that was to the end.
  Status start_within(std::span<const MessageCall> calls, int looks, bool* done);
  // The group has failed, or will not be driven to its end: when this returns, peers neither read
  // nor write its buffers any more.
  void abandon();
  void awaited_peers(std::vector<int>* peers) const override;
  void wait_handles(std::vector<WaitHandle>* handles) const override;

 private:
  static constexpr int kNone = -1;

  struct Message {
    Signature signature;
    const std::byte* src = nullptr;
    std::byte* dst = nullptr;
    size_t bytes = 0;
    size_t done = 0;         // bytes given to, or taken from, the channel
    uint64_t finish_at = 0;  // sends: port->completed at which the buffer is free
    int next = kNone;        // of the same flow
    bool expected = false;   // receives: the channel knows where the segments go
  };
  // The messages in one direction between this rank and a peer that are not over yet.
  struct Flow {
    int peer = kNone;
    bool sends = false;
    int first = kNone, last = kNone;
    int giving = kNone;             // sends: the first that the channel has not taken whole
    SendPort* send_port = nullptr;  // once opened
    RecvPort* recv_port = nullptr;
    size_t segment = 0;  // receives: bytes of a whole one
  };
  struct Peer {
    SendPort* send_port = nullptr;  // once opened
    RecvPort* recv_port = nullptr;
    uint64_t sent = 0, received = 0;           // messages, over all groups
    int send_flow = kNone, recv_flow = kNone;  // of the group that is being added
  };

  Peer& peer_of(int rank) { return peers_[static_cast<size_t>(rank)]; }
  Message& message(int index) { return messages_[static_cast<size_t>(index)]; }
  Status exchange(std::span<const MessageCall>* calls, int looks);
  Status send_at_once(const MessageCall& call, bool* went);
  Status receive_within(const MessageCall& call, int looks, bool* got);
  void begin();
  void add(const MessageCall& call);
  void end_adding();
  void settle_self(std::span<const Operation> operations);
  Status open(Flow& flow);
  Status give(Message& message, SendPort& port, bool* whole, bool* moved);
  Status advance_send(Flow& flow, bool* moved);
  Status advance_recv(Flow& flow, bool* moved);

  const int rank_;
  const int nranks_;
  Ports* const ports_;
  std::vector<Peer> peers_;  // by rank; empty before the first message
  std::vector<Message> messages_;
  std::vector<Flow> flows_;
};

}  // namespace libcomm
