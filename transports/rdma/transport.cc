// The RDMA transport: which ports are used, and how channels are opened over the bootstrap's
// authenticated connections.
#include "transports/rdma/transport.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <utility>

#include "src/base/log.h"
#include "transports/rdma/nearest.h"
#include "transports/rdma/offer.h"
#include "transports/rdma/probe.h"
#include "transports/rdma/proof.h"
#include "transports/rdma/receiver.h"
#include "transports/rdma/sender.h"

namespace libcomm::rdma {
namespace {

// How a channel's connection is told from others at the bootstrap: channels of one (peer, lane) and
// direction are counted.
constexpr int kMaxLane = (1 << 12) - 1;
uint32_t connection_index(int lane, uint32_t generation) {
  return (generation & 0xfffff) << 12 | static_cast<uint32_t>(lane);
}

// The receiving end from accept() on: "nothing yet" until the sender's connection has arrived.
class ArrivingReceiver final : public RecvChannel {
 public:
  ArrivingReceiver(Bootstrap& bootstrap, std::shared_ptr<const ChannelContext> context,
                   const ChannelName& name, uint32_t index, std::shared_ptr<PinBudget> budget,
                   std::shared_ptr<Releases> releases,
                   std::function<void(std::shared_ptr<const ChannelStatistics>)> opened)
      : bootstrap_(bootstrap),
        context_(std::move(context)),
        name_(name),
        index_(index),
        budget_(std::move(budget)),
        releases_(std::move(releases)),
        opened_(std::move(opened)) {}

  unsigned capabilities() const override { return kDirectRecv | kOrdered; }
  size_t segment_bytes() const override { return context_->segment_bytes; }
  int rank() const override { return name_.rank; }
  int peer() const override { return name_.peer; }

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
  void expect(const Signature& expected, void* dst, size_t bytes, size_t segment) override {
    if (arrive() && receiver_) receiver_->expect(expected, dst, bytes, segment);
  }
  void withdraw() override {
    if (receiver_) receiver_->withdraw();
  }
  WaitHandle wait_handle() const override {
    return receiver_ ? receiver_->wait_handle() : WaitHandle{};
  }

 private:
  Status arrive() {
    COMM_TRY(failed_);
    if (receiver_) return Status::ok();
    auto fd = bootstrap_.try_accept(name_.peer, Purpose::kRdmaSetup, index_);
    if (!fd) return std::move(fd).status();
    if (!*fd) return Status::ok();
    auto made = Receiver::open(context_, name_, budget_, *std::move(fd), releases_);
    if (!made) {
      failed_ = std::move(made).status();
      return failed_;
    }
    receiver_ = *std::move(made);
    opened_(receiver_->statistics());
    return Status::ok();
  }

  Bootstrap& bootstrap_;
  const std::shared_ptr<const ChannelContext> context_;
  const ChannelName name_;
  const uint32_t index_;
  const std::shared_ptr<PinBudget> budget_;
  const std::shared_ptr<Releases> releases_;
  const std::function<void(std::shared_ptr<const ChannelStatistics>)> opened_;
  std::unique_ptr<Receiver> receiver_;
  Status failed_;
};

class TransportOfNics final : public RdmaTransport {
 public:
  TransportOfNics(Bootstrap& bootstrap, std::shared_ptr<const ChannelContext> context,
                  std::vector<RankOffer> offers)
      : bootstrap_(bootstrap), context_(std::move(context)), offers_(std::move(offers)) {}

  const char* name() const override { return "rdma"; }
  bool reaches(const PeerFacts& a, const PeerFacts& b) const override {
    return rails(a.rank, b.rank) > 0;
  }
  size_t segment_bytes() const override { return context_->segment_bytes; }

  Result<std::unique_ptr<SendChannel>> connect(int peer, int lane) override {
    COMM_TRY(check(peer, lane));
    const uint32_t index = connection_index(lane, next(&connected_, peer, lane));
    COMM_ASSIGN(UniqueFd fd, bootstrap_.connect(peer, Purpose::kRdmaSetup, index));
    COMM_ASSIGN(auto sender, Sender::open(context_, name(peer, lane), budget(peer), std::move(fd),
                                          releases(peer, index)));
    note(sender->statistics());
    return std::unique_ptr<SendChannel>(std::move(sender));
  }

  Result<std::unique_ptr<RecvChannel>> accept(int peer, int lane) override {
    COMM_TRY(check(peer, lane));
    const uint32_t index = connection_index(lane, next(&accepted_, peer, lane));
    return std::unique_ptr<RecvChannel>(new ArrivingReceiver(
        bootstrap_, context_, name(peer, lane), index, budget(peer), releases(peer, index),
        [this](std::shared_ptr<const ChannelStatistics> opened) { note(std::move(opened)); }));
  }

  void drop_ended_memory() override {
    if (context_->registrations) context_->registrations->drop_ended();
  }

  TransportStats stats() const override {
    const Counters& counters = *context_->counters;
    TransportStats stats;
    stats.pinned_bytes = counters.pinned_bytes;
    stats.host_bytes = stats.pinned_bytes;
    stats.channels = counters.channels;
    stats.queue_pairs = counters.queue_pairs;
    stats.sockets = counters.sockets;
    return stats;
  }
  std::vector<PortInfo> ports() const override {
    std::vector<PortInfo> ports;
    for (const auto& nic : context_->nics) ports.push_back(nic->info());
    return ports;
  }
  std::vector<std::shared_ptr<const ChannelStatistics>> statistics() const override {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<const ChannelStatistics>> live;
    for (const auto& each : statistics_)
      if (auto shared = each.lock()) live.push_back(std::move(shared));
    return live;
  }

 private:
  using Generations = std::map<std::pair<int, int>, uint32_t>;

  int rails(int a, int b) const {
    return common_rails(offers_[static_cast<size_t>(a)], offers_[static_cast<size_t>(b)]);
  }
  ChannelName name(int peer, int lane) const {
    return {context_->rank, peer, lane, rails(context_->rank, peer)};
  }
  Status check(int peer, int lane) const {
    if (peer < 0 || peer >= bootstrap_.nranks() || peer == bootstrap_.rank() ||
        rails(bootstrap_.rank(), peer) == 0)
      return error(Code::kInternal, "no RDMA channel between rank {} and rank {} of {}",
                   bootstrap_.rank(), peer, bootstrap_.nranks());
    if (lane < 0 || lane > kMaxLane)
      return error(Code::kInternal, "lane {} is outside 0..{}", lane, kMaxLane);
    return Status::ok();
  }
  uint32_t next(Generations* generations, int peer, int lane) {
    const std::lock_guard lock(mutex_);
    return (*generations)[{peer, lane}]++;
  }
  std::shared_ptr<PinBudget> budget(int peer) {
    const std::lock_guard lock(mutex_);
    auto& budget = budgets_[peer];
    if (!budget) budget = std::make_shared<PinBudget>(context_->options.extra_slot_bytes);
    return budget;
  }
  // The n-th channel to a peer on a lane goes with the n-th from there. Kept by the two alone.
  std::shared_ptr<Releases> releases(int peer, uint32_t connection) {
    const std::lock_guard lock(mutex_);
    std::erase_if(releases_, [](const auto& entry) { return entry.second.expired(); });
    auto& known = releases_[{peer, connection}];
    auto shared = known.lock();
    if (!shared) known = shared = std::make_shared<Releases>();
    return shared;
  }
  void note(std::shared_ptr<const ChannelStatistics> opened) {
    const std::lock_guard lock(mutex_);
    std::erase_if(statistics_, [](const auto& each) { return each.expired(); });
    statistics_.push_back(opened);
  }

  Bootstrap& bootstrap_;
  const std::shared_ptr<const ChannelContext> context_;
  const std::vector<RankOffer> offers_;
  mutable std::mutex mutex_;  // guards what follows
  Generations connected_, accepted_;
  std::map<int, std::shared_ptr<PinBudget>> budgets_;
  std::map<std::pair<int, uint32_t>, std::weak_ptr<Releases>> releases_;  // by connection_index
  std::vector<std::weak_ptr<const ChannelStatistics>> statistics_;
};

// What this rank can offer. The text says it for people.
struct Local {
  RankOffer offer;
  std::string text;
  Options options;
  std::vector<std::shared_ptr<Nic>> nics;
};

// Without a topology all are as near.
std::vector<std::shared_ptr<Nic>> nearest_of(std::vector<std::shared_ptr<Nic>> nics, int numa_node,
                                             const TopologyFile& file) {
  if (numa_node >= 0 && nics.size() > 1) {
    if (const auto topology = Topology::detect(file)) {
      std::vector<PortInfo> ports;
      for (const auto& nic : nics) ports.push_back(nic->info());
      std::vector<size_t> chosen = nearest(*topology, numa_node, ports);
      if (chosen.size() > kMaxRails) chosen.resize(kMaxRails);
      std::sort(chosen.begin(), chosen.end());  // rails of two ranks pair up by their order
      std::vector<std::shared_ptr<Nic>> near;
      for (const size_t i : chosen) near.push_back(nics[i]);
      nics = std::move(near);
    } else {
      log_info(Subsys::kNet, "which RDMA port is nearest is not known: {}",
               topology.status().message());
    }
  }
  if (nics.size() > kMaxRails) nics.resize(kMaxRails);
  return nics;
}

Status look_for_ports(const RdmaSetup& setup, int rank, Local* local) {
  COMM_ASSIGN(local->options, Options::from(*setup.knobs));
  if (setup.knobs->get_bool(Knob::kIbDisable)) {
    local->text = "COMM_IB_DISABLE=1";
    return Status::ok();
  }
  auto verbs = Verbs::open();
  if (!verbs) {
    local->text = verbs.status().message();
    return Status::ok();
  }
  COMM_ASSIGN(Survey found, survey(*verbs, local->options));
  if (!found.unmatched.empty()) {
    local->text =
        fmt::format("COMM_IB_HCA={}: {}", setup.knobs->get_string(Knob::kIbHca), found.unmatched);
    log_warn("rank {}: {}; sockets are used instead", rank, local->text);
    return Status::ok();
  }
  const TopologyFile file = TopologyFile::from(*setup.knobs);
  for (const auto& nic : nearest_of(std::move(found.nics), setup.numa_node, file)) {
    if (const Status works = probe_loopback(nic, local->options); works) {
      local->nics.push_back(nic);
    } else {
      found.left_out.push_back({nic->info().name(), works.message()});
    }
  }
  for (const auto& [name, reason] : found.left_out) {
    log_warn("rank {}: RDMA port {} is left out: {}", rank, name, reason);
    local->text += fmt::format("{}: {}; ", name, reason);
  }
  if (local->nics.empty() && local->text.empty()) local->text = "this host has no RDMA device";
  return Status::ok();
}

Local prepare(const RdmaSetup& setup, int rank) {
  Local local;
  if (const Status looked = look_for_ports(setup, rank, &local); !looked) {
    local.offer.fatal = looked.code() == Code::kInvalidArgument;
    local.text = looked.message();
    local.nics.clear();
  }
  if (local.nics.empty()) return local;
  double gbits = 0;
  local.text.clear();
  for (const auto& nic : local.nics) {
    local.offer.link_layer[local.offer.rails++] =
        nic->info().ethernet ? IBV_LINK_LAYER_ETHERNET : IBV_LINK_LAYER_INFINIBAND;
    gbits += nic->info().gbits_per_second;
    local.text += fmt::format("{}{}", local.text.empty() ? "" : ", ", nic->info().to_text());
  }
  local.offer.window_slots = static_cast<uint32_t>(local.options.window.slots_for(gbits));
  return local;
}

}  // namespace

Result<std::unique_ptr<RdmaTransport>> make_rdma_transport(Bootstrap& bootstrap,
                                                           const RdmaSetup& setup) {
  const int rank = bootstrap.rank();
  Local local = prepare(setup, rank);
  COMM_ASSIGN(const auto wires, bootstrap.all_gather_text(write_offer(local.offer, local.text)));
  std::vector<RankOffer> offers;
  bool any = false;
  for (size_t peer = 0; peer < wires.size(); ++peer) {
    std::string text;
    offers.push_back(read_offer(wires[peer], &text));
    if (offers.back().fatal != 0)
      return Status(Code::kInvalidArgument, std::move(text)).with_peer(static_cast<int>(peer));
    log_info(Subsys::kNet, "rank {}: RDMA at rank {}: {}", rank, peer, text);
    for (size_t other = 0; other < peer; ++other)
      any = any || common_rails(offers[other], offers[peer]) > 0;
  }
  if (!any) return std::unique_ptr<RdmaTransport>();

  auto context = std::make_shared<ChannelContext>();
  context->rank = rank;
  context->options = local.options;
  context->segment_bytes = local.options.window.slot_bytes;
  context->window_slots = static_cast<int>(std::max<uint32_t>(local.offer.window_slots, 1));
  context->nics = local.nics;
  context->devices = setup.devices;
  context->registrations = std::make_shared<RegistrationCache>(
      local.nics, setup.memory, brief_limit(local.options.pin_limit),
      setup.devices ? std::make_shared<GpuDirect>(local.options.gdr, setup.devices) : nullptr);
  context->always_readable = UniqueFd(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!context->always_readable) return descriptor_error(errno, "eventfd for the RDMA transport");
  auto transport = std::make_unique<TransportOfNics>(bootstrap, std::move(context), offers);
  Status exchanged;
  if (const Status proved = prove_routes(bootstrap, *transport, offers, &exchanged); !proved) {
    COMM_TRY(exchanged);
    log_warn("rank {}: RDMA is not used, since its ports do not reach each other: {}", rank,
             proved.message());
    return std::unique_ptr<RdmaTransport>();
  }
  return std::unique_ptr<RdmaTransport>(std::move(transport));
}

}  // namespace libcomm::rdma
