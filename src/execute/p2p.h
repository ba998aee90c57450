// P2pBatch: the sends and receives of one group, all in progress at once.
//
// Messages to one peer go out in the order of the calls, as do receives from one peer; different
// peers do not wait for each other. A message to oneself is copied from its send to its receive.
#pragma once

#include <deque>
#include <map>
#include <span>
#include <vector>

#include "src/execute/execution.h"
#include "src/execute/operation.h"

namespace libcomm {

struct P2pMessage {
  Operation operation;  // kSendRecv; root is the peer
  Signature signature;
};

// Of the operations of one group: does each message of `rank` to itself have a partner that fits?
// kInvalidUsage when not. To be asked before anything of the group starts.
Status check_self_messages(int rank, std::span<const Operation> operations);

class P2pBatch final : public Execution {
 public:
  P2pBatch(int rank, Ports* ports, size_t segment_bytes)
      : rank_(rank), ports_(ports), segment_bytes_(segment_bytes) {}
  void add(P2pMessage message);
  // Carries out the messages to oneself, which check_self_messages() has looked at.
  void settle_self();
  Status advance(Progress* progress) override;
  void awaited_peers(std::vector<int>* peers) const override;
  void wait_handles(std::vector<WaitHandle>* handles) const override;

 private:
  struct Transfer {
    P2pMessage message;
    size_t bytes = 0;
    size_t done = 0;         // bytes given to, or taken from, the channel
    uint64_t finish_at = 0;  // sends: port->completed at which the buffer is free
    bool given = false;
  };
  struct Outgoing {
    SendPort* port = nullptr;
    std::deque<Transfer> queue;
  };
  struct Incoming {
    RecvPort* port = nullptr;
    std::deque<Transfer> queue;
  };
  Status give(Transfer& transfer, SendPort& port, bool* moved);
  Status advance_send(int peer, Outgoing& flow, bool* moved);
  Status advance_recv(int peer, Incoming& flow, bool* moved);

  int rank_;
  Ports* ports_;
  size_t segment_bytes_;
  std::map<int, Outgoing> sends_;
  std::map<int, Incoming> recvs_;
  std::deque<Transfer> self_sends_, self_recvs_;
};

}  // namespace libcomm
