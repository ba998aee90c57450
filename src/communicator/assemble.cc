// Making a communicator: what happens between "the group has met" and "ready".
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <numeric>

#include "src/base/log.h"
#include "src/communicator/communicator.h"
#include "src/communicator/introduction.h"
#include "src/communicator/rdma.h"
#include "src/communicator/tuning.h"
#include "src/topology/topology.h"
#include "transports/facts.h"
#include "transports/tcp/transport.h"

namespace libcomm {
namespace {

// Dense host numbers in order of first appearance.
std::vector<int> number_hosts(std::span<const PeerFacts> facts, int* hosts) {
  std::map<uint64_t, int> numbers;
  std::vector<int> host_of;
  for (const PeerFacts& fact : facts) {
    const int next = static_cast<int>(numbers.size());
    host_of.push_back(numbers.try_emplace(fact.host_hash, next).first->second);
  }
  *hosts = static_cast<int>(numbers.size());
  return host_of;
}

int count_cores(const std::array<uint64_t, kMaskWords>& mask) {
  int count = 0;
  for (uint64_t word : mask) count += std::popcount(word);
  return count;
}

// Ranks of this host per core that they may use together; 1 where each may have its own.
double crowd_of(std::span<const Introduction> all, std::span<const int> host_of, int host) {
  std::array<uint64_t, kMaskWords> together{};
  int ranks = 0;
  for (size_t r = 0; r < all.size(); ++r) {
    if (host_of[r] != host) continue;
    ++ranks;
    for (size_t word = 0; word < together.size(); ++word) together[word] |= all[r].cores[word];
  }
  const int cores = count_cores(together);
  return cores > 0 && ranks > cores ? static_cast<double>(ranks) / cores : 1;
}

// Binds the calling thread as COMM_CPU_AFFINITY says, and notes where this rank is.
Status place_rank(const Knobs& knobs, int local_rank, int local_nranks, Introduction* mine) {
  const std::string& affinity = knobs.get_string(Knob::kCpuAffinity);
  const TopologyFile file = TopologyFile::from(knobs);
  // A file that somebody names must be readable even where nothing here needs it: later it could
  // only be passed over.
  if (!affinity.empty() || !file.path.empty()) {
    COMM_ASSIGN(const Topology topology, Topology::detect(file));
    COMM_ASSIGN(const int core, core_for_rank(topology, affinity, local_rank, local_nranks));
    if (core >= 0) {
      COMM_TRY(bind_thread(topology, core));
      const Device& device = topology.devices()[static_cast<size_t>(core)];
      log_info(Subsys::kInit, "bound to {} (COMM_CPU_AFFINITY={})", device.name, affinity);
    }
  }
  mine->cores = usable_core_mask();
  if (count_cores(mine->cores) == 1) {
    for (size_t word = 0; word < mine->cores.size(); ++word)
      if (mine->cores[word] != 0)
        mine->facts.core = static_cast<int>(word * 64) + std::countr_zero(mine->cores[word]);
    if (auto topology = Topology::detect(file)) {
      for (const Device& device : topology->devices()) {
        if (device.kind != DeviceKind::kCore || device.os_index != mine->facts.core) continue;
        mine->facts.numa_node = device.numa_node;
        mine->package = device.package;
      }
    }
  }
  return Status::ok();
}

// Empty when the ring goes by rank.
std::vector<int> order_ring(std::span<const Introduction> all, std::span<const int> host_of) {
  std::vector<RankPlace> places;
  for (size_t r = 0; r < all.size(); ++r)
    places.push_back({host_of[r], all[r].facts.core, all[r].facts.numa_node, all[r].package});
  std::vector<int> order = ring_order(places);
  if (std::is_sorted(order.begin(), order.end())) order.clear();  // by rank
  return order;
}

// Least of a limit that knobs and the options of rank 0 set.
int pick(int asked, int64_t knob) { return asked >= 0 ? asked : static_cast<int>(knob); }

}  // namespace

bool Communicator::wants_no_kernels() const {
  // The knob's choices are the words of the policies and, again, their numbers.
  constexpr int kPolicies = 3, kZero = 2;
  return options_.no_kernels.value_or(knobs_->get_choice(Knob::kCtaPolicy) % kPolicies == kZero);
}

Result<std::shared_ptr<Communicator>> Communicator::create(const Rendezvous& rendezvous, int rank,
                                                           int nranks, const CommOptions& options,
                                                           const std::atomic<bool>* cancel) {
  COMM_ASSIGN(auto knobs, Knobs::load());
  std::shared_ptr<Communicator> communicator(new Communicator);
  Communicator* raw = communicator.get();
  raw->knobs_ = knobs;
  raw->rank_ = rank;
  raw->nranks_ = nranks;
  COMM_ASSIGN(raw->bootstrap_,
              Bootstrap::join(
                  rendezvous, rank, nranks, knobs,
                  [raw](News news, const Status& reason) { raw->on_news(news, reason); }, cancel));
  return assemble(std::move(communicator), options);
}

Result<std::shared_ptr<Communicator>> Communicator::assemble(
    std::shared_ptr<Communicator> communicator, const CommOptions& options) {
  Communicator& self = *communicator;
  self.options_ = options;
  const int rank = self.rank_;
  const int nranks = self.nranks_;
  GroupShape shape;
  shape.rank = rank;
  shape.nranks = nranks;
  shape.host_of.assign(static_cast<size_t>(nranks), 0);

  int gpu = -1;
  const std::array<uint64_t, 2> gpu_uuid = current_gpu(&gpu);
  self.gpu_.store(gpu, std::memory_order_relaxed);

  if (nranks > 1) {
    // Who is where: facts first, since a rank's place depends on how many share its host.
    Introduction mine;
    mine.facts = gather_facts(rank, *self.knobs_);
    mine.min_lanes = options.min_lanes;
    mine.max_lanes = options.max_lanes;
    mine.gpu = gpu_uuid;
    std::vector<PeerFacts> first(static_cast<size_t>(nranks));
    if (!self.knobs_->get_string(Knob::kCpuAffinity).empty()) mine.facts.flags |= 1;
    first[static_cast<size_t>(rank)] = mine.facts;
    COMM_TRY(self.bootstrap_->all_gather(first.data(), sizeof(PeerFacts)));
    shape.host_of = number_hosts(first, &shape.hosts);
    int local_rank = 0;
    int local_nranks = 0;
    for (int r = 0; r < nranks; ++r) {
      if (shape.host_of[static_cast<size_t>(r)] != shape.host_of[static_cast<size_t>(rank)])
        continue;
      if (r < rank) ++local_rank;
      ++local_nranks;
    }
    if (Status status = place_rank(*self.knobs_, local_rank, local_nranks, &mine); !status) {
      // The others could only guess why this one leaves.
      status = std::move(status).at_rank(rank);
      self.bootstrap_->raise(News::kAbort, status);
      return status;
    }

    COMM_ASSIGN(const auto texts, self.bootstrap_->all_gather_text(
                                      write_introduction(mine, self.knobs_->agreed_text())));
    std::vector<Introduction> all(static_cast<size_t>(nranks));
    std::string knobs_of_rank0;
    for (int r = 0; r < nranks; ++r) {
      std::string text;
      COMM_TRY(
          read_introduction(texts[static_cast<size_t>(r)], r, &all[static_cast<size_t>(r)], &text));
      if (r == 0) knobs_of_rank0 = std::move(text);
      self.facts_.push_back(all[static_cast<size_t>(r)].facts);
    }
    std::string differing;
    COMM_ASSIGN(self.knobs_, self.knobs_->with_agreed(knobs_of_rank0, &differing));
    if (!differing.empty())
      log_warn("rank {}: {} differ from rank 0's; rank 0's values are used by all ranks", rank,
               differing);
    if (!self.knobs_->get_bool(Knob::kMultiRankGpu)) COMM_TRY(check_gpus_differ(all));
    self.options_.min_lanes = all[0].min_lanes;
    self.options_.max_lanes = all[0].max_lanes;
    shape.ring_order = order_ring(all, shape.host_of);
    for (int host = 0; host < shape.hosts; ++host) {
      const double crowd = crowd_of(all, shape.host_of, host);
      shape.ranks_per_core = std::max(shape.ranks_per_core, crowd);
      if (host == shape.host_of[static_cast<size_t>(rank)])
        self.wait_policy_.share_cores = crowd > 1;
    }

    // Transports: shared memory where it was proved, RDMA where both ends have it, sockets
    // elsewhere.
    COMM_ASSIGN(self.shm_, make_shm_group(*self.bootstrap_, self.facts_, self.knobs_));
    const std::vector<int>& group_of = self.shm_.group_of;
    const auto together = [&](int a, int b) {
      return group_of[static_cast<size_t>(a)] == group_of[static_cast<size_t>(b)];
    };
    // All ranks ask for RDMA together, or none does.
    const bool one_group = std::all_of(group_of.begin(), group_of.end(),
                                       [&](int group) { return group == group_of.front(); });
    if (!one_group) {
      self.lent_memory_ = std::make_shared<LentMemory>();
      COMM_ASSIGN(self.rdma_, open_rdma(*self.bootstrap_, self.knobs_, self.lent_memory_,
                                        mine.facts.numa_node));
      if (self.rdma_) self.lends_from_ = self.knobs_->get_size(Knob::kRdmaPinFrom);
    }
    std::vector<Transport*> transport_of(static_cast<size_t>(nranks), nullptr);
    bool needs_sockets = false;
    for (int peer = 0; peer < nranks; ++peer) {
      if (peer == rank) continue;
      Transport*& transport = transport_of[static_cast<size_t>(peer)];
      if (together(peer, rank)) {
        transport = self.shm_.transport.get();
      } else if (self.rdma_ && self.rdma_->reaches(self.facts_[static_cast<size_t>(rank)],
                                                   self.facts_[static_cast<size_t>(peer)])) {
        transport = self.rdma_.get();
        self.rdma_peers_.resize(static_cast<size_t>(nranks));
        self.rdma_peers_[static_cast<size_t>(peer)] = 1;
      } else {
        needs_sockets = true;
      }
      const PeerFacts& fact = self.facts_[static_cast<size_t>(peer)];
      if (shape.host_of[static_cast<size_t>(peer)] == shape.host_of[static_cast<size_t>(rank)] &&
          fact.pid_namespace == mine.facts.pid_namespace && !same_process(fact, mine.facts))
        self.bootstrap_->watch_process(peer, fact.pid);
    }
    if (needs_sockets) {
      COMM_ASSIGN(self.tcp_, make_tcp_transport(*self.bootstrap_, self.knobs_));
      for (int peer = 0; peer < nranks; ++peer)
        if (peer != rank && transport_of[static_cast<size_t>(peer)] == nullptr)
          transport_of[static_cast<size_t>(peer)] = self.tcp_.get();
    }
    shape.one_board = one_group && self.shm_.board != nullptr;
    COMM_TRY(self.meet_gpus(all, shape.one_board));

    // A segment is what every channel of the group can carry.
    std::vector<uint64_t> segment(static_cast<size_t>(nranks), 0);
    uint64_t least = UINT64_MAX;
    for (const Transport* transport :
         {self.shm_.transport.get(), self.rdma_.get(), self.tcp_.get()})
      if (transport != nullptr) least = std::min<uint64_t>(least, transport->segment_bytes());
    segment[static_cast<size_t>(rank)] = least;
    COMM_TRY(self.bootstrap_->all_gather(segment.data(), sizeof(uint64_t)));
    shape.segment_bytes = *std::min_element(segment.begin(), segment.end()) / kLine * kLine;
    self.channels_ = std::make_unique<ChannelTable>(std::move(transport_of));
    std::vector<std::string_view> ways;
    if (self.shm_.board != nullptr) ways.push_back("shared memory");
    if (self.rdma_) ways.push_back("RDMA");
    if (self.tcp_) ways.push_back("sockets");
    log_info(Subsys::kInit,
             "rank {} of {}{}{}: {} hosts, {}, segments of {} bytes, ranks {} cores of their own",
             rank, nranks, options.name.empty() ? "" : " of communicator ", options.name,
             shape.hosts,
             shape.one_board ? "all in shared memory" : fmt::format("{}", fmt::join(ways, " and ")),
             shape.segment_bytes, self.wait_policy_.share_cores ? "have no" : "have");
  }

  const Knobs& knobs = *self.knobs_;
  self.wait_policy_.mode = static_cast<WaitMode>(knobs.get_choice(Knob::kWait));
  self.wait_policy_.timeout_seconds = knobs.get_seconds(Knob::kTimeout);
  shape.max_lanes = std::min({pick(self.options_.max_lanes, knobs.get_int(Knob::kMaxNrings)),
                              static_cast<int>(knobs.get_int(Knob::kMaxCtas)), kMaxLanes});
  shape.min_lanes =
      std::min(pick(self.options_.min_lanes, knobs.get_int(Knob::kMinNrings)), shape.max_lanes);
  self.checks_buffers_ = !knobs.get_bool(Knob::kChecksDisable);
  if (Board* board = self.shm_.board; board != nullptr) {
    self.board_state_.exchanged.resize(board->ranks().size());
    self.board_view_ = {board,
                        &self.board_state_,
                        board->parts().data(),
                        board->index(),
                        static_cast<int>(board->ranks().size()),
                        self.wait_policy_.share_cores,
                        is_one_process(*board)};
  }
  if (nranks > 1 && knobs.get_int(Knob::kNthreads) > 0) {
    COMM_ASSIGN(self.reduce_pool_,
                ReducePool::start(static_cast<int>(knobs.get_int(Knob::kNthreads))));
  }
  COMM_ASSIGN(auto tables, agree_on_tables(self.bootstrap_.get(), shape, self.knobs_));
  COMM_ASSIGN(self.planner_, Planner::create(std::move(shape), self.knobs_, std::move(tables)));
  const GroupShape& agreed = self.planner_->shape();
  log_info(
      Subsys::kGraph, "rank {}: hosts of the ranks: {}; order of rings: {}", rank,
      fmt::join(agreed.host_of, " "),
      agreed.ring_order.empty() ? "by rank" : fmt::format("{}", fmt::join(agreed.ring_order, " ")));
  return communicator;
}

Status Communicator::meet_gpus(std::span<const Introduction> all, bool one_board) {
  const bool each_has_one = std::all_of(
      all.begin(), all.end(), [](const Introduction& each) { return each.gpu != cuda::GpuUuid{}; });
  if (!one_board || !each_has_one || nranks_ > cuda::kMostPeers ||
      knobs_->get_bool(Knob::kP2pDisable))
    return Status::ok();
  std::vector<cuda::GpuRank> ranks;
  for (const Introduction& each : all) ranks.push_back({each.facts, each.gpu});
  const cuda::Driver& driver = *cuda::Driver::found();
  COMM_ASSIGN(peer_memory_, cuda::PeerMemory::agree(*bootstrap_, driver,
                                                    cuda::current_context(driver), ranks, *knobs_));
  if (!peer_memory_) return Status::ok();
  peer_memory_->watch([this] { return failure_.failed(); });
  gpu_pinned_bytes_.store(peer_memory_->pinned_bytes(), std::memory_order_relaxed);
  if (options_.max_lanes >= 0) peer_memory_->limit_ctas(options_.max_lanes);
  const int most = static_cast<int>(knobs_->get_int(Knob::kMaxCtas));
  COMM_ASSIGN(
      device_calls_,
      DeviceCalls::agree(*bootstrap_, driver, *peer_memory_, ranks, *knobs_, options_.min_lanes,
                         options_.max_lanes >= 0 ? std::min(options_.max_lanes, most) : most,
                         !wants_no_kernels(), [this] { return failure_.failed(); }));
  return Status::ok();
}

namespace {
constexpr uint64_t kSplitAgain = 0x73706c6974000000u;  // tags of groups that only split
}  // namespace

Result<std::shared_ptr<Communicator>> Communicator::split(int color, int key,
                                                          const CommOptions& options,
                                                          SetupTurn turn,
                                                          const std::atomic<bool>* cancel) {
  struct Choice {
    int32_t color, key;
  };
  std::vector<Choice> choices(static_cast<size_t>(nranks_));
  choices[static_cast<size_t>(rank_)] = {color, key};
  uint64_t tag = 0;
  const auto exchange = [&]() -> Status {
    COMM_TRY(turn->await(cancel));
    if (has_engine_.load(std::memory_order_acquire)) engine_->drain();
    tag = ++splits_;
    if (nranks_ == 1) return Status::ok();
    const size_t bytes = sizeof(Choice);
    const Status gathered =
        bootstrap_->all_gather(choices.data(), bytes, cancel, SetupCall::kSplit);
    if (gathered || gathered.code() == Code::kSystem || !revoked()) return gathered;
    // A revoke ended the registration of a window halfway on some rank, so no rank gets through:
    // all meet in a group for this purpose.
    std::vector<int> all(static_cast<size_t>(nranks_));
    std::iota(all.begin(), all.end(), 0);
    COMM_ASSIGN(auto anew, bootstrap_->derive(all, kSplitAgain + tag, knobs_, nullptr, cancel));
    return anew->all_gather(choices.data(), bytes, cancel, SetupCall::kSplit);
  };
  const Status exchanged = exchange();
  turn->over();
  COMM_TRY(exchanged);
  if (color < 0) return std::shared_ptr<Communicator>();
  std::vector<int> members;
  for (int r = 0; r < nranks_; ++r)
    if (choices[static_cast<size_t>(r)].color == color) members.push_back(r);
  std::stable_sort(members.begin(), members.end(), [&](int a, int b) {
    return choices[static_cast<size_t>(a)].key < choices[static_cast<size_t>(b)].key;
  });
  return derive(members, tag, options, cancel);
}

Result<std::shared_ptr<Communicator>> Communicator::shrink(std::span<const int> excluded,
                                                           const CommOptions& options,
                                                           const std::atomic<bool>* cancel) {
  if (has_engine_.load(std::memory_order_acquire)) engine_->drain();
  std::vector<int> members;
  // Ranks that shrank before without this one have counted differently, so the tag says who is left
  // out.
  uint64_t tag = 0x7368726e6b000000u;
  for (int r = 0; r < nranks_; ++r) {
    if (std::find(excluded.begin(), excluded.end(), r) == excluded.end()) {
      members.push_back(r);
    } else {
      tag = (tag ^ static_cast<uint64_t>(r + 1)) * 0x9e3779b97f4a7c15u;
    }
  }
  {
    std::lock_guard lock(shrinks_mutex_);
    tag += ++shrinks_[tag];
  }
  return derive(members, tag, options, cancel);
}

Result<std::shared_ptr<Communicator>> Communicator::derive(std::span<const int> members,
                                                           uint64_t tag, const CommOptions& options,
                                                           const std::atomic<bool>* cancel) {
  COMM_ASSIGN(auto knobs, Knobs::load());
  std::shared_ptr<Communicator> child(new Communicator);
  Communicator* raw = child.get();
  raw->knobs_ = std::move(knobs);
  raw->rank_ = static_cast<int>(std::find(members.begin(), members.end(), rank_) - members.begin());
  raw->nranks_ = static_cast<int>(members.size());
  if (raw->nranks_ > 1) {
    COMM_ASSIGN(
        raw->bootstrap_,
        bootstrap_->derive(
            members, tag, raw->knobs_,
            [raw](News news, const Status& reason) { raw->on_news(news, reason); }, cancel));
  }
  auto made = assemble(std::move(child), options);
  // Who asks for the new communicator knows the ranks by their numbers in this one.
  if (!made && bootstrap_) return bootstrap_->cause_among(members, std::move(made).status());
  return made;
}

}  // namespace libcomm
