#include "transports/tcp/relay.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

namespace libcomm {

Result<std::unique_ptr<Doorbell>> Doorbell::make() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return system_error(errno, "eventfd for a TCP channel (raise `ulimit -n`)");
  return std::unique_ptr<Doorbell>(new Doorbell(std::move(fd)));
}

void Doorbell::ring() {
  events_.fetch_add(1, std::memory_order_seq_cst);
  if (awaited_.load(std::memory_order_seq_cst)) write_fd();
}

WaitHandle Doorbell::wait_handle() {
  uint64_t rung;
  [[maybe_unused]] const ssize_t got = ::read(fd_.get(), &rung, sizeof rung);
  awaited_.store(true, std::memory_order_seq_cst);
  if (events_.load(std::memory_order_seq_cst) != seen_) write_fd();
  return {fd_.get(), false};
}

void Doorbell::write_fd() {
  awaited_.store(false, std::memory_order_seq_cst);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
}

void SharedFailure::set(const Status& status) {
  const std::lock_guard lock(mutex_);
  if (failed_) return;
  status_ = status;
  failed_ = true;
}

Status SharedFailure::get() const {
  if (!failed_) return Status::ok();
  const std::lock_guard lock(mutex_);
  return status_;
}

namespace {

int slots_per_strand(const TcpOptions& options) {
  return std::max(2, options.slots / options.threads);
}

// The t-th strand's share of a channel's sockets.
std::vector<UniqueFd> take_sockets(std::vector<UniqueFd>* all, const TcpOptions& options, int t) {
  std::vector<UniqueFd> share;
  for (int i = 0; i < options.sockets; ++i) {
    share.push_back(std::move((*all)[static_cast<size_t>(t * options.sockets + i)]));
  }
  return share;
}

}  // namespace

// Caller to helper: the helper posts staged segments on a TcpSender.
class RelaySender::SendStrand final : public Strand {
 public:
  SendStrand(const TcpEnds& ends, const TcpOptions& options, std::shared_ptr<TcpCounters> counters,
             std::vector<UniqueFd> sockets, Doorbell* bell, SharedFailure* failure)
      : ring(slots_per_strand(options), options.segment_bytes),
        sender_(ends, options, std::move(counters), std::move(sockets)),
        bell_(bell),
        failure_(failure) {}

  bool move() override {
    if (broken_) return false;
    bool moved = false;
    const Status status = move_segments(&moved);
    if (!status) {
      broken_ = true;
      failure_->set(status);
      bell_->ring();
    }
    return moved;
  }
  WaitHandle wait_handle() const override { return broken_ ? WaitHandle{} : sender_.wait_handle(); }

  StagedRing ring;

 private:
  Status move_segments(bool* moved) {
    const uint64_t produced = ring.produced.load(std::memory_order_seq_cst);
    while (posted_ < produced) {
      const StagedRing::Entry& entry = ring.entry(posted_);
      bool accepted = false;
      COMM_TRY(sender_.post(entry.signature, ring.slot(posted_), entry.bytes, &accepted));
      if (!accepted) break;
      ++posted_;
      *moved = true;
    }
    uint64_t completed = 0;
    COMM_TRY(sender_.progress(&completed));
    if (completed != ring.consumed.load(std::memory_order_relaxed)) {
      ring.consumed.store(completed, std::memory_order_seq_cst);
      bell_->ring();
      *moved = true;
    }
    return Status::ok();
  }

  TcpSender sender_;
  Doorbell* const bell_;
  SharedFailure* const failure_;
  uint64_t posted_ = 0;
  bool broken_ = false;
};

RelaySender::RelaySender(const TcpOptions& options, std::shared_ptr<TcpCounters> counters,
                         std::shared_ptr<HelperPool> pool, std::unique_ptr<Doorbell> bell)
    : segment_bytes_(options.segment_bytes),
      count_(counters),
      counters_(std::move(counters)),
      pool_(std::move(pool)),
      bell_(std::move(bell)) {}

Result<std::unique_ptr<SendChannel>> RelaySender::make(const TcpEnds& ends,
                                                       const TcpOptions& options,
                                                       std::shared_ptr<TcpCounters> counters,
                                                       std::shared_ptr<HelperPool> pool,
                                                       std::vector<UniqueFd> sockets) {
  COMM_ASSIGN(std::unique_ptr<Doorbell> bell, Doorbell::make());
  COMM_TRY(pool->start());
  std::unique_ptr<RelaySender> channel(new RelaySender(options, counters, pool, std::move(bell)));
  for (int t = 0; t < options.threads; ++t) {
    channel->strands_.push_back(
        std::make_unique<SendStrand>(ends, options, counters, take_sockets(&sockets, options, t),
                                     channel->bell_.get(), &channel->failure_));
    counters->host_bytes += channel->strands_.back()->ring.host_bytes();
    pool->helper(t).add(channel->strands_.back().get());
  }
  return std::unique_ptr<SendChannel>(std::move(channel));
}

RelaySender::~RelaySender() {
  for (size_t t = 0; t < strands_.size(); ++t) {
    pool_->helper(static_cast<int>(t)).remove(strands_[t].get());
    counters_->host_bytes -= strands_[t]->ring.host_bytes();
  }
}

Status RelaySender::reserve(std::byte** slot) {
  *slot = nullptr;
  bell_->look();
  COMM_TRY(failure_.get());
  StagedRing& ring = strand_of(accepted_).ring;
  const uint64_t n = ring.produced.load(std::memory_order_relaxed);
  if (n - ring.consumed.load(std::memory_order_seq_cst) == ring.slots()) return Status::ok();
  reserved_ = true;
  *slot = ring.slot(n);
  return Status::ok();
}

Status RelaySender::commit(const Signature& signature, size_t bytes) {
  COMM_TRY(failure_.get());
  if (!reserved_ || bytes > segment_bytes_) {
    return error(Code::kInternal, "commit of {} bytes without a slot that holds them", bytes);
  }
  reserved_ = false;
  const size_t t = accepted_++ % strands_.size();
  StagedRing& ring = strands_[t]->ring;
  const uint64_t n = ring.produced.load(std::memory_order_relaxed);
  ring.entry(n) = {signature, bytes};
  ring.produced.store(n + 1, std::memory_order_seq_cst);
  pool_->helper(static_cast<int>(t)).wake();
  return Status::ok();
}

Status RelaySender::progress(uint64_t* completed) {
  bell_->look();
  COMM_TRY(failure_.get());
  // Segment n is the (n / T)-th of its strand.
  while (completed_ < accepted_ &&
         strand_of(completed_).ring.consumed.load(std::memory_order_seq_cst) >
             completed_ / strands_.size()) {
    ++completed_;
  }
  *completed = completed_;
  return Status::ok();
}

// Helper to caller: the helper receives into free slots. What arrived before a failure is still
// taken.
class RelayReceiver::RecvStrand final : public Strand {
 public:
  RecvStrand(const TcpEnds& ends, const TcpOptions& options, std::shared_ptr<TcpCounters> counters,
             std::vector<UniqueFd> sockets, Doorbell* bell)
      : ring(slots_per_strand(options), options.segment_bytes),
        receiver_(ends, options, std::move(counters), std::move(sockets)),
        bell_(bell) {}

  bool move() override {
    if (broken_) return false;
    bool moved = false;
    const Status status = move_segments(&moved);
    if (!status) {
      broken_ = true;
      failure.set(status);
      bell_->ring();
    }
    return moved;
  }
  WaitHandle wait_handle() const override {
    return broken_ || full() ? WaitHandle{} : receiver_.wait_handle();
  }

  StagedRing ring;
  SharedFailure failure;

 private:
  bool full() const {
    return ring.produced.load(std::memory_order_relaxed) -
               ring.consumed.load(std::memory_order_seq_cst) ==
           ring.slots();
  }
  Status move_segments(bool* moved) {
    while (!full()) {
      const uint64_t n = ring.produced.load(std::memory_order_relaxed);
      StagedRing::Entry& entry = ring.entry(n);
      bool done = false;
      COMM_TRY(receiver_.receive_any(ring.slot(n), &entry.signature, &entry.bytes, &done));
      if (!done) break;
      ring.produced.store(n + 1, std::memory_order_seq_cst);
      bell_->ring();
      *moved = true;
    }
    return Status::ok();
  }

  TcpReceiver receiver_;
  Doorbell* const bell_;
  bool broken_ = false;
};

RelayReceiver::RelayReceiver(const TcpEnds& ends, const TcpOptions& options,
                             std::shared_ptr<TcpCounters> counters,
                             std::shared_ptr<HelperPool> pool, std::unique_ptr<Doorbell> bell)
    : ends_(ends),
      segment_bytes_(options.segment_bytes),
      counters_(std::move(counters)),
      pool_(std::move(pool)),
      bell_(std::move(bell)) {}

Result<std::unique_ptr<RecvChannel>> RelayReceiver::make(const TcpEnds& ends,
                                                         const TcpOptions& options,
                                                         std::shared_ptr<TcpCounters> counters,
                                                         std::shared_ptr<HelperPool> pool,
                                                         std::vector<UniqueFd> sockets) {
  COMM_ASSIGN(std::unique_ptr<Doorbell> bell, Doorbell::make());
  COMM_TRY(pool->start());
  std::unique_ptr<RelayReceiver> channel(
      new RelayReceiver(ends, options, counters, pool, std::move(bell)));
  for (int t = 0; t < options.threads; ++t) {
    channel->strands_.push_back(std::make_unique<RecvStrand>(
        ends, options, counters, take_sockets(&sockets, options, t), channel->bell_.get()));
    counters->host_bytes += channel->strands_.back()->ring.host_bytes();
    pool->helper(t).add(channel->strands_.back().get());
  }
  return std::unique_ptr<RecvChannel>(std::move(channel));
}

RelayReceiver::~RelayReceiver() {
  for (size_t t = 0; t < strands_.size(); ++t) {
    pool_->helper(static_cast<int>(t)).remove(strands_[t].get());
    counters_->host_bytes -= strands_[t]->ring.host_bytes();
  }
}

Status RelayReceiver::peek(Segment* segment) {
  *segment = {};
  bell_->look();
  RecvStrand& strand = strand_of(next_);
  const uint64_t n = strand.ring.consumed.load(std::memory_order_relaxed);
  // The failure is asked for first: a segment produced before it was set is then sure to be seen.
  const Status failure = strand.failure.get();
  if (strand.ring.produced.load(std::memory_order_seq_cst) == n) return failure;
  const StagedRing::Entry& entry = strand.ring.entry(n);
  *segment = {strand.ring.slot(n), entry.bytes, entry.signature, true};
  shown_ = true;
  return Status::ok();
}

Status RelayReceiver::release() {
  if (!shown_) return error(Code::kInternal, "release without a segment that peek showed");
  shown_ = false;
  const size_t t = next_++ % strands_.size();
  StagedRing& ring = strands_[t]->ring;
  ring.consumed.store(ring.consumed.load(std::memory_order_relaxed) + 1, std::memory_order_seq_cst);
  pool_->helper(static_cast<int>(t)).wake();
  return Status::ok();
}

}  // namespace libcomm
