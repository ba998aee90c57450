// Relays: channels whose bytes are moved by helper threads.
//
// The caller and each helper share a ring of staged segments. A channel has one strand per helper,
// each with its own sockets; segment n takes strand n mod T, so that one channel's kernel work is
// spread over all helpers. There is no direct send or receive here: a helper that reads or writes
// the caller's memory would have to be stopped before a failed operation may return.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "transports/tcp/helpers.h"
#include "transports/tcp/receiver.h"
#include "transports/tcp/sender.h"

namespace libcomm {

// Tells a caller that sleeps on a descriptor that a helper has done something.
class Doorbell {
 public:
  static Result<std::unique_ptr<Doorbell>> make();
  // Helper: something has happened.
  void ring();
  // Caller: what has happened up to now is about to be looked at.
  void look() { seen_ = events_.load(std::memory_order_seq_cst); }
  // Caller: readable when something has happened since look().
  WaitHandle wait_handle();

 private:
  explicit Doorbell(UniqueFd fd) : fd_(std::move(fd)) {}
  void write_fd();

  UniqueFd fd_;
  std::atomic<uint64_t> events_{0};
  std::atomic<bool> awaited_{false};
  uint64_t seen_ = 0;  // the caller's
};

// One strand's staged segments; a single-producer, single-consumer ring.
class StagedRing {
 public:
  struct Entry {
    Signature signature;
    size_t bytes = 0;
  };
  StagedRing(int slots, size_t segment_bytes)
      : segment_bytes_(segment_bytes),
        memory_(new std::byte[static_cast<size_t>(slots) * segment_bytes]),
        entries_(static_cast<size_t>(slots)) {}

  std::byte* slot(uint64_t n) { return memory_.get() + (n % entries_.size()) * segment_bytes_; }
  Entry& entry(uint64_t n) { return entries_[n % entries_.size()]; }
  uint64_t slots() const { return entries_.size(); }
  size_t host_bytes() const { return entries_.size() * segment_bytes_; }

  // Sequentially consistent, because both sides sleep on them (Helper::wake, Doorbell).
  std::atomic<uint64_t> produced{0};
  std::atomic<uint64_t> consumed{0};

 private:
  const size_t segment_bytes_;
  const std::unique_ptr<std::byte[]> memory_;
  std::vector<Entry> entries_;
};

// A failure that a helper meets, for the caller to return.
class SharedFailure {
 public:
  void set(const Status& status);
  // OK: none yet.
  Status get() const;

 private:
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;
  Status status_;
};

class RelaySender final : public SendChannel {
 public:
  // `sockets` are the strands', one strand after the other.
  static Result<std::unique_ptr<SendChannel>> make(const TcpEnds& ends, const TcpOptions& options,
                                                   std::shared_ptr<TcpCounters> counters,
                                                   std::shared_ptr<HelperPool> pool,
                                                   std::vector<UniqueFd> sockets);
  ~RelaySender() override;

  unsigned capabilities() const override { return kOrdered; }
  size_t segment_bytes() const override { return segment_bytes_; }
  Status reserve(std::byte** slot) override;
  Status commit(const Signature& signature, size_t bytes) override;
  Status progress(uint64_t* completed) override;
  WaitHandle wait_handle() const override { return bell_->wait_handle(); }

 private:
  class SendStrand;
  RelaySender(const TcpOptions& options, std::shared_ptr<TcpCounters> counters,
              std::shared_ptr<HelperPool> pool, std::unique_ptr<Doorbell> bell);
  SendStrand& strand_of(uint64_t segment) { return *strands_[segment % strands_.size()]; }

  const size_t segment_bytes_;
  const ChannelCount count_;
  const std::shared_ptr<TcpCounters> counters_;
  const std::shared_ptr<HelperPool> pool_;
  const std::unique_ptr<Doorbell> bell_;
  SharedFailure failure_;
  std::vector<std::unique_ptr<SendStrand>> strands_;
  uint64_t accepted_ = 0;
  uint64_t completed_ = 0;
  bool reserved_ = false;
};

class RelayReceiver final : public RecvChannel {
 public:
  static Result<std::unique_ptr<RecvChannel>> make(const TcpEnds& ends, const TcpOptions& options,
                                                   std::shared_ptr<TcpCounters> counters,
                                                   std::shared_ptr<HelperPool> pool,
                                                   std::vector<UniqueFd> sockets);
  ~RelayReceiver() override;

  unsigned capabilities() const override { return kOrdered; }
  size_t segment_bytes() const override { return segment_bytes_; }
  int rank() const override { return ends_.rank; }
  int peer() const override { return ends_.peer; }
  Status peek(Segment* segment) override;
  Status release() override;
  WaitHandle wait_handle() const override { return bell_->wait_handle(); }

 private:
  class RecvStrand;
  RelayReceiver(const TcpEnds& ends, const TcpOptions& options,
                std::shared_ptr<TcpCounters> counters, std::shared_ptr<HelperPool> pool,
                std::unique_ptr<Doorbell> bell);
  RecvStrand& strand_of(uint64_t segment) { return *strands_[segment % strands_.size()]; }

  const TcpEnds ends_;
  const size_t segment_bytes_;
  const std::shared_ptr<TcpCounters> counters_;
  const std::shared_ptr<HelperPool> pool_;
  const std::unique_ptr<Doorbell> bell_;
  std::vector<std::unique_ptr<RecvStrand>> strands_;
  uint64_t next_ = 0;
  bool shown_ = false;
};

}  // namespace libcomm
