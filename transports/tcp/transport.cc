// The TCP transport: opens channels over the bootstrap's authenticated connections.
#include "transports/tcp/transport.h"

#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "transports/tcp/relay.h"

namespace libcomm {
namespace {

// How a channel's connections are told apart at the bootstrap. The sender connects, so the
// direction follows from who initiated; the generation counts channels of one (peer, lane) and
// direction.
struct ConnectionIndex {
  static constexpr int kMaxLane = (1 << 12) - 1;
  static constexpr int kMaxSocket = (1 << 10) - 1;

  static uint32_t of(int lane, uint32_t generation, int socket) {
    return (generation & 0x3ff) << 22 | static_cast<uint32_t>(lane) << 10 |
           static_cast<uint32_t>(socket);
  }
};
static_assert(16 * 16 <= ConnectionIndex::kMaxSocket, "COMM_NSOCKS_PERTHREAD x SOCKET_NTHREADS");

// What a transport and its channels share; a channel may outlive its transport.
struct TcpContext {
  explicit TcpContext(const TcpOptions& from_knobs)
      : options(from_knobs), pool(std::make_shared<HelperPool>(from_knobs.threads)) {}
  const TcpOptions options;
  const std::shared_ptr<TcpCounters> counters = std::make_shared<TcpCounters>();
  const std::shared_ptr<HelperPool> pool;
};

// A TcpSender that is a channel by itself, not a strand of one.
class DirectSender final : public TcpSender {
 public:
  DirectSender(const TcpEnds& ends, const TcpOptions& options,
               std::shared_ptr<TcpCounters> counters, std::vector<UniqueFd> sockets,
               std::shared_ptr<Duplex> duplex)
      : TcpSender(ends, options, counters, std::move(sockets), std::move(duplex)),
        count_(counters) {}

 private:
  const ChannelCount count_;
};

Result<std::unique_ptr<SendChannel>> make_sender(const TcpContext& context, const TcpEnds& ends,
                                                 std::vector<UniqueFd> sockets,
                                                 std::shared_ptr<Duplex> duplex) {
  if (context.options.threads > 0) {
    return RelaySender::make(ends, context.options, context.counters, context.pool,
                             std::move(sockets));
  }
  return std::unique_ptr<SendChannel>(new DirectSender(ends, context.options, context.counters,
                                                       std::move(sockets), std::move(duplex)));
}

Result<std::unique_ptr<RecvChannel>> make_receiver(const TcpContext& context, const TcpEnds& ends,
                                                   std::vector<UniqueFd> sockets,
                                                   std::shared_ptr<Duplex> duplex) {
  if (context.options.threads > 0) {
    return RelayReceiver::make(ends, context.options, context.counters, context.pool,
                               std::move(sockets));
  }
  return std::unique_ptr<RecvChannel>(new TcpReceiver(ends, context.options, context.counters,
                                                      std::move(sockets), std::move(duplex)));
}

// The receiving end from accept() on: "nothing yet" until the sender's connections have all
// arrived, then the receiver itself.
class ArrivingReceiver final : public RecvChannel {
 public:
  ArrivingReceiver(Bootstrap& bootstrap, std::shared_ptr<const TcpContext> context,
                   const TcpEnds& ends, int lane, uint32_t generation,
                   std::shared_ptr<Duplex> duplex)
      : bootstrap_(bootstrap),
        context_(std::move(context)),
        ends_(ends),
        lane_(lane),
        generation_(generation),
        duplex_(std::move(duplex)),
        count_(context_->counters) {}

  unsigned capabilities() const override {
    return kOrdered | (context_->options.threads == 0 ? kDirectRecv : 0u);
  }
  size_t segment_bytes() const override { return context_->options.segment_bytes; }
  int rank() const override { return ends_.rank; }
  int peer() const override { return ends_.peer; }

  Status peek(Segment* segment) override {
    *segment = {};
    COMM_TRY(arrive());
    return receiver_ ? receiver_->peek(segment) : Status::ok();
  }
  Status release() override {
    if (receiver_) return receiver_->release();
    return error(Code::kInternal, "release without a segment that peek showed");
  }
  Status receive_into(const Signature& expected, void* dst, size_t bytes, bool* done) override {
    *done = false;
    COMM_TRY(arrive());
    return receiver_ ? receiver_->receive_into(expected, dst, bytes, done) : Status::ok();
  }
  WaitHandle wait_handle() const override {
    return receiver_ ? receiver_->wait_handle() : WaitHandle{};
  }

 private:
  Status arrive() {
    if (receiver_) return Status::ok();
    const int wanted = context_->options.sockets_per_channel();
    while (static_cast<int>(sockets_.size()) < wanted) {
      const int socket = static_cast<int>(sockets_.size());
      COMM_ASSIGN(UniqueFd fd,
                  bootstrap_.try_accept(ends_.peer, Purpose::kTcpData,
                                        ConnectionIndex::of(lane_, generation_, socket)));
      if (!fd) return Status::ok();
      sockets_.push_back(std::move(fd));
    }
    COMM_ASSIGN(receiver_, make_receiver(*context_, ends_, std::move(sockets_), duplex_));
    return Status::ok();
  }

  Bootstrap& bootstrap_;
  const std::shared_ptr<const TcpContext> context_;
  const TcpEnds ends_;
  const int lane_;
  const uint32_t generation_;
  const std::shared_ptr<Duplex> duplex_;
  const ChannelCount count_;
  std::vector<UniqueFd> sockets_;
  std::unique_ptr<RecvChannel> receiver_;
};

class TcpTransport final : public Transport {
 public:
  TcpTransport(Bootstrap& bootstrap, const TcpOptions& options)
      : bootstrap_(bootstrap), context_(std::make_shared<const TcpContext>(options)) {}

  const char* name() const override { return "tcp"; }
  // Every rank has proved at the bootstrap that it can be connected to.
  bool reaches(const PeerFacts&, const PeerFacts&) const override { return true; }
  size_t segment_bytes() const override { return context_->options.segment_bytes; }

  Result<std::unique_ptr<SendChannel>> connect(int peer, int lane) override {
    COMM_TRY(check(peer, lane));
    const uint32_t generation = next(&connected_, peer, lane);
    std::vector<UniqueFd> sockets;
    for (int socket = 0; socket < context_->options.sockets_per_channel(); ++socket) {
      COMM_ASSIGN(UniqueFd fd, bootstrap_.connect(peer, Purpose::kTcpData,
                                                  ConnectionIndex::of(lane, generation, socket)));
      sockets.push_back(std::move(fd));
    }
    return make_sender(*context_, ends(peer), std::move(sockets), duplex(peer, lane, generation));
  }

  Result<std::unique_ptr<RecvChannel>> accept(int peer, int lane) override {
    COMM_TRY(check(peer, lane));
    const uint32_t generation = next(&accepted_, peer, lane);
    return std::unique_ptr<RecvChannel>(new ArrivingReceiver(
        bootstrap_, context_, ends(peer), lane, generation, duplex(peer, lane, generation)));
  }

  TransportStats stats() const override {
    TransportStats stats;
    stats.host_bytes = context_->counters->host_bytes;
    stats.channels = context_->counters->channels;
    stats.sockets = context_->counters->sockets;
    stats.threads = context_->pool->running();
    return stats;
  }

 private:
  using Generations = std::map<std::pair<int, int>, uint32_t>;

  Status check(int peer, int lane) const {
    if (peer < 0 || peer >= bootstrap_.nranks() || peer == bootstrap_.rank()) {
      return error(Code::kInternal, "no TCP channel between rank {} and rank {} of {}",
                   bootstrap_.rank(), peer, bootstrap_.nranks());
    }
    if (lane < 0 || lane > ConnectionIndex::kMaxLane) {
      return error(Code::kInternal, "lane {} is outside 0..{}", lane, ConnectionIndex::kMaxLane);
    }
    return Status::ok();
  }
  uint32_t next(Generations* generations, int peer, int lane) {
    const std::lock_guard lock(mutex_);
    return (*generations)[{peer, lane}]++;
  }
  // What the sender and the receiver of one generation share; null where stripes or helper threads
  // carry the bytes.
  std::shared_ptr<Duplex> duplex(int peer, int lane, uint32_t generation) {
    if (context_->options.threads > 0 || context_->options.sockets > 1) return nullptr;
    const std::lock_guard lock(mutex_);
    if (generation > 0)
      std::erase_if(duplexes_, [](const auto& entry) { return entry.second.expired(); });
    std::weak_ptr<Duplex>& kept = duplexes_[{peer, lane, generation}];
    std::shared_ptr<Duplex> found = kept.lock();
    if (!found) kept = found = std::make_shared<Duplex>();
    return found;
  }
  TcpEnds ends(int peer) const { return {bootstrap_.rank(), peer}; }

  Bootstrap& bootstrap_;
  const std::shared_ptr<const TcpContext> context_;
  std::mutex mutex_;  // guards what follows
  Generations connected_;
  Generations accepted_;
  std::map<std::tuple<int, int, uint32_t>, std::weak_ptr<Duplex>> duplexes_;
};

}  // namespace

Result<std::unique_ptr<Transport>> make_tcp_transport(Bootstrap& bootstrap,
                                                      std::shared_ptr<const Knobs> knobs) {
  return std::unique_ptr<Transport>(new TcpTransport(bootstrap, TcpOptions::from(*knobs)));
}

}  // namespace libcomm
