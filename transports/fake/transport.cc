#include "transports/fake/transport.h"

#include <algorithm>
#include <cstring>

#include "transports/fake/pipe.h"

namespace libcomm {

FakeNetwork::FakeNetwork(int nranks, const FakeOptions& options) : options_(options) {
  for (int rank = 0; rank < nranks; ++rank) ranks_.push_back(std::make_unique<Rank>());
}

void FakeNetwork::kill(int rank) { at(rank).dead = true; }
void FakeNetwork::kill_at(int rank, uint64_t step) { at(rank).dies_at = step; }
void FakeNetwork::stall(int rank) { at(rank).stalled = true; }
uint64_t FakeNetwork::steps(int rank) const { return at(rank).steps; }
bool FakeNetwork::is_dead(int rank) const { return at(rank).dead; }
bool FakeNetwork::is_stalled(int rank) const { return at(rank).stalled; }

bool FakeNetwork::step(int rank) {
  Rank& self = at(rank);
  if (self.steps.fetch_add(1) + 1 >= self.dies_at) self.dead = true;
  return !self.dead;
}

std::shared_ptr<FakePipe> FakeNetwork::pipe(int from, int to, int lane, int generation) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<FakePipe>& pipe = pipes_[{from, to, lane, generation}];
  if (!pipe) pipe = std::make_shared<FakePipe>(options_, from, to, lane);
  return pipe;
}

namespace {

// What one rank's channels count.
struct FakeCounters {
  std::atomic<int> channels{0};
  std::atomic<size_t> host_bytes{0};
};

// What both kinds of channel know.
struct FakeEnd {
  std::shared_ptr<FakeNetwork> network;
  std::shared_ptr<FakePipe> pipe;
  std::shared_ptr<FakeCounters> counters;
  int rank;
  int peer;

  // Why this rank can do nothing any more.
  Status check_alive() const {
    if (!network->is_dead(rank)) return Status::ok();
    return error(Code::kSystem, "the fake network killed rank {} after {} steps", rank,
                 network->steps(rank))
        .at_rank(rank)
        .with_peer(rank);
  }
  Status step() const { return network->step(rank) ? Status::ok() : check_alive(); }
  Status peer_gone() const {
    return error(Code::kRemote, "the fake connection to rank {} closed: it died or left", peer)
        .at_rank(rank)
        .with_peer(peer);
  }
};

class FakeSender final : public SendChannel {
 public:
  explicit FakeSender(FakeEnd end) : end_(std::move(end)) { ++end_.counters->channels; }
  ~FakeSender() override {
    --end_.counters->channels;
    end_.counters->host_bytes -= slot_.size();
    const std::lock_guard lock(end_.pipe->mutex);
    end_.pipe->sender_gone = true;
  }

  unsigned capabilities() const override {
    return kOrdered | (end_.network->options().direct ? kDirectSend : 0u);
  }
  size_t segment_bytes() const override { return end_.network->options().segment_bytes; }

  Status reserve(std::byte** slot) override {
    *slot = nullptr;
    COMM_TRY(end_.check_alive());
    const std::lock_guard lock(end_.pipe->mutex);
    COMM_TRY(check_peer());
    if (end_.network->is_stalled(end_.rank)) return Status::ok();
    end_.pipe->pump();
    if (!end_.pipe->has_credit()) return Status::ok();
    if (slot_.empty()) {
      slot_.resize(segment_bytes());
      end_.counters->host_bytes += slot_.size();
    }
    reserved_ = true;
    *slot = slot_.data();
    return Status::ok();
  }

  Status commit(const Signature& signature, size_t bytes) override {
    if (!reserved_ || bytes > segment_bytes()) {
      return error(Code::kInternal, "commit of {} bytes without a slot that holds them", bytes);
    }
    COMM_TRY(end_.step());
    reserved_ = false;
    const std::lock_guard lock(end_.pipe->mutex);
    COMM_TRY(check_peer());
    end_.pipe->enter(signature, nullptr, bytes);
    FakeParcel& parcel = end_.pipe->parcels.back();
    std::copy_n(slot_.begin(), bytes, parcel.data.begin());
    parcel.arrived = bytes;
    // What was in the slot is gone, as with a real one: nobody may rely on finding it again.
    std::fill(slot_.begin(), slot_.end(), std::byte{0xee});
    return Status::ok();
  }

  Status post(const Signature& signature, const void* src, size_t bytes, bool* accepted) override {
    if (!end_.network->options().direct) return SendChannel::post(signature, src, bytes, accepted);
    *accepted = false;
    if (reserved_ || bytes > segment_bytes()) {
      return error(Code::kInternal, "post of {} bytes: too long, or a slot is reserved", bytes);
    }
    COMM_TRY(end_.check_alive());
    const std::lock_guard lock(end_.pipe->mutex);
    COMM_TRY(check_peer());
    if (end_.network->is_stalled(end_.rank)) return Status::ok();
    end_.pipe->pump();
    if (!end_.pipe->has_credit()) return Status::ok();
    COMM_TRY(end_.step());
    end_.pipe->enter(signature, static_cast<const std::byte*>(src), bytes);
    end_.pipe->pump();
    *accepted = true;
    return Status::ok();
  }

  Status progress(uint64_t* completed) override {
    COMM_TRY(end_.check_alive());
    const std::lock_guard lock(end_.pipe->mutex);
    if (!end_.network->is_stalled(end_.rank)) end_.pipe->pump();
    *completed = end_.pipe->completed();
    return *completed < end_.pipe->entered() ? check_peer() : Status::ok();
  }

 private:
  Status check_peer() const {
    if (!end_.pipe->receiver_gone && !end_.network->is_dead(end_.peer)) return Status::ok();
    return end_.peer_gone();
  }

  FakeEnd end_;
  std::vector<std::byte> slot_;
  bool reserved_ = false;
};

class FakeReceiver final : public RecvChannel {
 public:
  explicit FakeReceiver(FakeEnd end) : end_(std::move(end)) { ++end_.counters->channels; }
  ~FakeReceiver() override {
    --end_.counters->channels;
    const std::lock_guard lock(end_.pipe->mutex);
    end_.pipe->receiver_gone = true;
  }

  unsigned capabilities() const override {
    return kOrdered | (end_.network->options().direct ? kDirectRecv : 0u);
  }
  size_t segment_bytes() const override { return end_.network->options().segment_bytes; }
  int rank() const override { return end_.rank; }
  int peer() const override { return end_.peer; }

  Status peek(Segment* segment) override {
    *segment = {};
    COMM_TRY(end_.check_alive());
    const std::lock_guard lock(end_.pipe->mutex);
    FakeParcel* parcel = nullptr;
    COMM_TRY(front(&parcel));
    if (parcel == nullptr || !parcel->whole()) return Status::ok();
    shown_ = true;
    *segment = {parcel->data.data(), parcel->data.size(), parcel->signature, true};
    return Status::ok();
  }

  Status release() override {
    if (!shown_) return error(Code::kInternal, "release without a segment that peek showed");
    COMM_TRY(end_.step());
    shown_ = false;
    const std::lock_guard lock(end_.pipe->mutex);
    end_.pipe->drop_front();
    return Status::ok();
  }

  Status receive_into(const Signature& expected, void* dst, size_t bytes, bool* done) override {
    if (!end_.network->options().direct) {
      return RecvChannel::receive_into(expected, dst, bytes, done);
    }
    *done = false;
    COMM_TRY(end_.check_alive());
    const std::lock_guard lock(end_.pipe->mutex);
    FakeParcel* parcel = nullptr;
    COMM_TRY(front(&parcel));
    if (parcel == nullptr) return Status::ok();
    if (parcel->signature != expected || parcel->data.size() != bytes) {
      return mismatch(end_.rank, expected, bytes, end_.peer, parcel->signature,
                      parcel->data.size());
    }
    const size_t part = end_.pipe->portion(parcel->arrived - parcel->taken);
    std::copy_n(parcel->data.data() + parcel->taken, part,
                static_cast<std::byte*>(dst) + parcel->taken);
    parcel->taken += part;
    if (parcel->taken < bytes) return Status::ok();
    COMM_TRY(end_.step());
    shown_ = false;
    end_.pipe->drop_front();
    *done = true;
    return Status::ok();
  }

 private:
  // The oldest segment if there is something to see of it. kRemote when none of it is left to come.
  Status front(FakeParcel** parcel) {
    FakePipe& pipe = *end_.pipe;
    if (end_.network->is_stalled(end_.rank)) return Status::ok();
    *parcel = pipe.poll();
    const bool more = !pipe.parcels.empty() && pipe.parcels.front().whole();
    if (!more && (pipe.sender_gone || end_.network->is_dead(end_.peer))) return end_.peer_gone();
    return Status::ok();
  }

  FakeEnd end_;
  bool shown_ = false;
};

class FakeTransport final : public Transport {
 public:
  FakeTransport(std::shared_ptr<FakeNetwork> network, int rank)
      : network_(std::move(network)), rank_(rank) {}

  const char* name() const override { return "fake"; }
  bool reaches(const PeerFacts& a, const PeerFacts& b) const override { return same_network(a, b); }
  size_t segment_bytes() const override { return network_->options().segment_bytes; }

  Result<std::unique_ptr<SendChannel>> connect(int peer, int lane) override {
    COMM_TRY(check_peer(peer));
    std::shared_ptr<FakePipe> pipe =
        network_->pipe(rank_, peer, lane, next(&connected_, peer, lane));
    return std::unique_ptr<SendChannel>(new FakeSender(end(std::move(pipe), peer)));
  }
  Result<std::unique_ptr<RecvChannel>> accept(int peer, int lane) override {
    COMM_TRY(check_peer(peer));
    std::shared_ptr<FakePipe> pipe =
        network_->pipe(peer, rank_, lane, next(&accepted_, peer, lane));
    return std::unique_ptr<RecvChannel>(new FakeReceiver(end(std::move(pipe), peer)));
  }

  TransportStats stats() const override {
    TransportStats stats;
    stats.channels = counters_->channels;
    stats.host_bytes = counters_->host_bytes;
    return stats;
  }

 private:
  using Generations = std::map<std::pair<int, int>, int>;

  bool same_network(const PeerFacts& a, const PeerFacts& b) const {
    return a.rank < network_->nranks() && b.rank < network_->nranks();
  }
  Status check_peer(int peer) const {
    if (peer >= 0 && peer < network_->nranks()) return Status::ok();
    return error(Code::kInternal, "rank {} is not on the fake network of {} ranks", peer,
                 network_->nranks());
  }
  int next(Generations* generations, int peer, int lane) {
    const std::lock_guard lock(mutex_);
    return (*generations)[{peer, lane}]++;
  }
  FakeEnd end(std::shared_ptr<FakePipe> pipe, int peer) const {
    return FakeEnd{network_, std::move(pipe), counters_, rank_, peer};
  }

  const std::shared_ptr<FakeNetwork> network_;
  const int rank_;
  const std::shared_ptr<FakeCounters> counters_ = std::make_shared<FakeCounters>();
  std::mutex mutex_;
  Generations connected_;
  Generations accepted_;
};

}  // namespace

std::unique_ptr<Transport> make_fake_transport(std::shared_ptr<FakeNetwork> network, int rank) {
  return std::make_unique<FakeTransport>(std::move(network), rank);
}

}  // namespace libcomm
