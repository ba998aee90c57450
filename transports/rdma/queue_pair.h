// QueuePair: one reliable connection, with exact accounting of its queues.
//
// Neither queue can overrun. Every send is counted when it is posted and given back when a
// completion says so; nothing is posted beyond send_room(). What is posted without a completion of
// its own is given back by the next one that has one, since a send queue completes in order; that
// one always comes, because a send is signalled at the latest when a quarter of the queue has gone
// unsignalled. Receives are posted up to the depth of their queue, and anew in chains of
// kReceivesAtOnce: so up to kReceivesAtOnce - 1 fewer than that depth may be out at a time.
// The completion queue holds the sum of all depths of the queue pairs that use it (Bundle), and
// every work request makes at most one completion.
#pragma once

#include <memory>
#include <span>

#include "transports/rdma/nic.h"
#include "transports/rdma/wire.h"

namespace libcomm::rdma {

inline constexpr int kReceivesAtOnce = 8;

struct QueueDepth {
  int send = 0;
  int recv = 0;
  int total() const { return send + recv; }
};

// What a work request's number (wr_id) says.
struct WorkId {
  bool receive = false;
  int index = 0;       // of the queue pair in its bundle
  uint32_t epoch = 0;  // modulo 2^16: how often that one was rebuilt
  uint64_t sequence = 0;

  uint64_t encode() const {
    return uint64_t{receive} << 63 | static_cast<uint64_t>(index) << 56 |
           uint64_t{epoch & 0xffff} << 40 | (sequence & ((uint64_t{1} << 40) - 1));
  }
  static WorkId decode(uint64_t value) {
    return {value >> 63 != 0, static_cast<int>(value >> 56 & 0x7f),
            static_cast<uint32_t>(value >> 40 & 0xffff), value & ((uint64_t{1} << 40) - 1)};
  }
};

class QueuePair {
 public:
  // In state INIT, with all receives posted. `index` and `epoch` are for the work requests'
  // numbers. `readable`: the peer may also read.
  static Result<std::unique_ptr<QueuePair>> create(std::shared_ptr<Nic> nic, ibv_cq* cq,
                                                   const QueueDepth& depth, int index,
                                                   uint32_t epoch, const Options& options,
                                                   bool readable = false);

  // What events said of it is forgotten: devices give numbers again.
  ~QueuePair();
  QueuePair(const QueuePair&) = delete;
  QueuePair& operator=(const QueuePair&) = delete;

  QpWire wire() const { return {qp_->qp_num, first_psn_}; }
  uint32_t epoch() const { return epoch_; }
  size_t most_inline() const { return inline_bytes_; }
  const Nic& nic() const { return *nic_; }

  // Adds to `rail` what this end offers of ECE.
  void describe_ece(RailWire* rail, const Options& options) const;
  // To ready-to-receive and ready-to-send with the peer's end. `answering`: this end has the
  // other's ECE offer and settles it.
  Status connect(const RailWire& rail, const QpWire& peer, int traffic_class,
                 const Options& options);
  // What the device says that it does: "timeout 14, retries 7, ..."; for the log.
  std::string attributes() const;
  // To ERR: from when this returns, no packet of the peer is taken any more, and all that is posted
  // comes back.
  void fail();
  bool failed() const { return failed_; }

  int send_room() const { return depth_.send - static_cast<int>(posted_ - reclaimed_); }
  // Posts the chain in order; the last one is signalled when `signalled`, or when accounting needs
  // it. *sequence is the last one's, for sent().
  Status post(std::span<ibv_send_wr> chain, bool signalled, uint64_t* sequence);
  // All sends up to this one are done. Returns false for numbers that were never posted.
  bool note_sent(uint64_t sequence);
  uint64_t reclaimed() const { return reclaimed_; }

  // A receive came back with something in it: one is going to be posted in its place.
  Status receive_again();
  // It came back because the queue pair is in ERR.
  void note_flushed() { --receives_; }
  // Nothing that was posted for receiving is still out.
  bool drained() const { return receives_ == 0; }

 private:
  QueuePair(std::shared_ptr<Nic> nic, Qp qp, const QueueDepth& depth, int index, uint32_t epoch);
  Status to_init(const Options& options, bool readable);
  Status post_receives(int count);

  const std::shared_ptr<Nic> nic_;
  Qp qp_;
  const QueueDepth depth_;
  const int index_;
  const uint32_t epoch_;
  uint32_t first_psn_ = 0;
  size_t inline_bytes_ = 0;
  bool failed_ = false;
  bool ece_agreed_ = false;
  uint64_t posted_ = 0;     // sends
  uint64_t reclaimed_ = 0;  // the first of them that are done
  int unsignalled_ = 0;     // since the last signalled one
  int receives_ = 0;        // posted and not come back
  int owed_ = 0;            // came back, and none has been posted in its place yet
};

}  // namespace libcomm::rdma
