#include "transports/rdma/channel_end.h"

#include <sys/epoll.h>
#include <time.h>

#include <algorithm>
#include <cerrno>

#include "src/base/log.h"

namespace libcomm::rdma {
namespace {

// Between looks at the control connection and at events, whichever comes first. Turns alone do not
// do: on a busy machine each may end in a yield of milliseconds.
constexpr unsigned kTurnsPerLook = 256;
constexpr int64_t kLookEveryNs = 2'000'000;

// A peer that says something without end is heard beside everything else.
constexpr int kMessagesPerLook = 64;

// Cheap, and exact to a tick of the kernel.
int64_t coarse_now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// Of a device that does not bring everything back; both ends may have to wait, one after the other.
// Destroying the queue pair, which follows, fences it as well; what arrived and was not told is
// sent once more.
constexpr std::chrono::milliseconds kDrainPatience{100};
// Without any port that is up, or any queue pair and none that can be made.
constexpr std::chrono::seconds kPathPatience{30};

// A queue pair that has failed so many times in a row, or could not be made anew, stays down for so
// long.
std::chrono::milliseconds down_time(int failures) {
  constexpr std::chrono::milliseconds kSecond{200};
  constexpr int kMostDoublings = 6;
  if (failures < 2) return {};
  return kSecond * (1 << std::min(failures - 2, kMostDoublings));
}

// What a failed work request says, and whether another path may do better.
struct Cause {
  const char* text;
  bool path;
};
Cause explain(ibv_wc_status status) {
  switch (status) {
    case IBV_WC_RETRY_EXC_ERR:
      return {
          "the peer's port does not answer (COMM_IB_TIMEOUT, COMM_IB_RETRY_CNT say for how "
          "long it is tried; on a lossy fabric see that PFC or ECN is set up)",
          true};
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return {"the peer has no receive posted", true};
    case IBV_WC_WR_FLUSH_ERR:
      return {"the queue pair was moved to its error state", true};
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_ABORT_ERR:
    case IBV_WC_RESP_TIMEOUT_ERR:
    case IBV_WC_FATAL_ERR:
    case IBV_WC_GENERAL_ERR:
      return {"the device or the peer's device gave up", true};
    case IBV_WC_REM_ACCESS_ERR:
      return {"the peer's device refused the access: a write outside what was granted", false};
    case IBV_WC_LOC_PROT_ERR:
      return {"memory is not registered any more (was it freed during the operation?)", false};
    default:
      return {"a work request was not valid", false};
  }
}

}  // namespace

ChannelEnd::ChannelEnd(std::shared_ptr<const ChannelContext> context, const ChannelName& name,
                       std::shared_ptr<PinBudget> budget, bool sends)
    : context_(std::move(context)),
      name_(name),
      budget_(std::move(budget)),
      statistics_(std::make_shared<ChannelStatistics>()),
      rails_(context_->nics.begin(), context_->nics.begin() + name.rails) {
  statistics_->rank = name.rank;
  statistics_->peer = name.peer;
  statistics_->lane = name.lane;
  statistics_->sends = sends;
  ++context_->counters->channels;
}

ChannelEnd::~ChannelEnd() {
  --context_->counters->channels;
  if (control_) --context_->counters->sockets;
  shut();
}

void ChannelEnd::shut() {
  if (bundle_) context_->counters->queue_pairs -= bundle_->shape().qps();
  bundle_.reset();
}

Status ChannelEnd::open(UniqueFd control, size_t ring_bytes, size_t image_bytes,
                        const QueueDepth& depth) {
  control_ = std::make_unique<Control>(std::move(control), name_.peer);
  ++context_->counters->sockets;
  const auto make = [&]() -> Status {
    COMM_ASSIGN(ring_, PinnedMemory::create(rails_, ring_bytes, false, context_->counters));
    COMM_ASSIGN(image_, PinnedMemory::create(rails_, image_bytes, false, context_->counters));
    // Channels take turns, so that not all of a host's grants load its first port.
    const int first_rail = (name_.rank + name_.peer + name_.lane) % name_.rails;
    const BundleShape shape{name_.rails, context_->options.qps_per_rail, depth, first_rail};
    COMM_ASSIGN(bundle_, Bundle::create(rails_, shape, context_->options));
    context_->counters->queue_pairs += shape.qps();
    lines_.resize(static_cast<size_t>(shape.qps()));
    for (const auto& nic : rails_) events_seen_.push_back(nic->event_count());
    return Status::ok();
  };
  Status made = make();
  if (!made) {
    (void)control_->send_text(MessageType::kRefused, made.message());
    return std::move(made)
        .at_rank(name_.rank)
        .context(fmt::format("opening an RDMA channel with rank {}", name_.peer));
  }
  return Status::ok();
}

// Memory that a device refuses beyond the first slot is only memory that is not there.
Result<int> ChannelEnd::take_slot(int most) {
  if (free_slots_.empty()) {
    const bool first = slots_.empty();
    const size_t bytes = context_->segment_bytes;
    if (!first && (static_cast<int>(slots_.size()) >= most || !budget_->try_take(bytes))) return -1;
    auto made = PinnedMemory::create(rails_, bytes, true, context_->counters);
    if (!made) {
      if (first) return std::move(made).status().at_rank(name_.rank);
      budget_->give_back(bytes);
      return -1;
    }
    free_slots_.push_back(static_cast<int>(slots_.size()));
    slots_.push_back(*std::move(made));
  }
  const int index = free_slots_.back();
  free_slots_.pop_back();
  return index;
}

void ChannelEnd::give_slots_back() {
  for (size_t extra = 1; extra < slots_.size(); ++extra)
    budget_->give_back(context_->segment_bytes);
  slots_.clear();
}

EndWire ChannelEnd::describe() const {
  EndWire end;
  end.segment_bytes = context_->segment_bytes;
  end.ring = ring_->wire();
  bundle_->describe(&end);
  return end;
}

Status ChannelEnd::lost(const std::string& cause) const {
  return Status(Code::kRemote,
                fmt::format("the RDMA path to rank {} is lost: {}", name_.peer, cause))
      .at_rank(name_.rank)
      .with_peer(name_.peer);
}

Status ChannelEnd::check_open(MessageType type) const {
  if (connected_) return Status::ok();
  return error(Code::kRemote,
               "rank {} sent a control message of kind {} before the channel is open", name_.peer,
               static_cast<int>(type))
      .with_peer(name_.peer);
}

Status ChannelEnd::check_index(uint32_t index) const {
  if (index < lines_.size()) return Status::ok();
  return error(Code::kRemote, "rank {} named queue pair {} of {}: the stream is corrupt",
               name_.peer, index, lines_.size())
      .with_peer(name_.peer);
}

void ChannelEnd::enter(int index, Phase phase) {
  lines_down_ += (phase != Phase::kLive) - (line(index).phase != Phase::kLive);
  line(index).phase = phase;
  line(index).since = Clock::now();
}

// ---- looking around ----------------------------------------------------------------------------

Status ChannelEnd::turn() {
  bool moved = false;
  COMM_TRY(failed_);
  if (!control_) return Status::ok();
  if (!is_calm() || ++turns_ % kTurnsPerLook == 0) return look(&moved);
  failed_ = take_completions(&moved);
  if (!failed_) return failed_;
  // While something comes all is well.
  if (!moved && coarse_now_ns() - looked_ns_ >= kLookEveryNs) return look(&moved);
  failed_ = on_turn();
  return failed_;
}

Status ChannelEnd::look(bool* moved) {
  COMM_TRY(failed_);
  if (!control_) return Status::ok();
  looked_ns_ = coarse_now_ns();
  const auto all = [&]() -> Status {
    COMM_TRY(take_completions(moved));
    COMM_TRY(take_events());
    COMM_TRY(take_messages(moved));
    COMM_TRY(push_drains());
    COMM_TRY(on_turn());
    *moved |= bundle_->has_spilled();
    return check_path();
  };
  failed_ = all();
  return failed_;
}

Status ChannelEnd::take_completions(bool* moved) {
  completions_.clear();
  while (bundle_->poll(&completions_)) {
  }
  for (const Completion& completion : completions_) {
    *moved = true;
    switch (completion.kind) {
      case Completion::Kind::kSent:
        COMM_TRY(on_sent(completion.index));
        break;
      case Completion::Kind::kArrived:
        COMM_TRY(on_arrived(completion.index, Immediate::decode(completion.immediate)));
        if (completion.status != IBV_WC_SUCCESS) COMM_TRY(on_error(completion));
        break;
      case Completion::Kind::kFailed:
        COMM_TRY(on_error(completion));
        break;
    }
  }
  return Status::ok();
}

Status ChannelEnd::on_error(const Completion& completion) {
  const Cause cause = explain(completion.status);
  const std::string text =
      fmt::format("{} on {} ({})", cause.text, bundle_->nic_of(completion.index).info().name(),
                  bundle_->nic_of(completion.index).verbs()->wc_status_str(completion.status));
  if (!cause.path) return lost(text);
  return fail_line(completion.index, text);
}

Status ChannelEnd::take_messages(bool* moved) {
  for (int taken = 0; taken < kMessagesPerLook; ++taken) {
    COMM_ASSIGN(const std::optional<Message> message, control_->receive());
    if (!message) return Status::ok();
    *moved = true;
    if (message->type == MessageType::kRefused) {
      const std::string text(reinterpret_cast<const char*>(message->body.data()),
                             message->body.size());
      return Status(Code::kRemote,
                    fmt::format("rank {} has no RDMA channel for this rank: {}", name_.peer, text))
          .at_rank(name_.rank)
          .with_peer(name_.peer);
    }
    if (Status status = on_message(*message); !status) {
      (void)control_->send_text(MessageType::kRefused, status.message());
      return std::move(status).at_rank(name_.rank).with_peer(name_.peer);
    }
  }
  return Status::ok();
}

Status ChannelEnd::take_events() {
  for (int rail = 0; rail < name_.rails; ++rail) {
    Nic& nic = *rails_[static_cast<size_t>(rail)];
    nic.take_events();
    uint64_t& seen = events_seen_[static_cast<size_t>(rail)];
    const uint64_t now = nic.event_count();
    if (now == seen) continue;
    seen = now;
    for (int index = 0; index < bundle_->shape().qps(); ++index) {
      if (bundle_->shape().rail_of(index) != rail) continue;
      QueuePair* qp = bundle_->qp(index);
      const bool broken = qp != nullptr && nic.take_broken(qp->wire().number);
      if (broken || !nic.port_is_up()) COMM_TRY(fail_line(index, nic.last_event()));
    }
  }
  return Status::ok();
}

// ---- failed queue pairs ------------------------------------------------------------------------

Status ChannelEnd::fail_line(int index, const std::string& cause) {
  const Phase phase = line(index).phase;
  if (phase != Phase::kLive && phase != Phase::kRebuilding) return Status::ok();
  const int limit = 4 + 2 * bundle_->shape().qps();
  if (++failures_in_a_row_ > limit)
    return lost(
        fmt::format("{} (after {} failures of its queue pairs without a success)", cause, limit));
  last_cause_ = cause;
  line(index).down_until = Clock::now() + down_time(++line(index).failures);
  log_info(Subsys::kNet, "rank {}: queue pair {} {} rank {} on lane {} failed: {}", name_.rank,
           index, statistics_->sends ? "to" : "from", name_.peer, name_.lane, cause);
  ChannelStatistics::add(statistics_->fenced_qps);
  if (QueuePair* qp = bundle_->qp(index); qp != nullptr) qp->fail();
  enter(index, Phase::kDraining);
  return on_failed(index);
}

// What a rebuild set aside belongs before the fence: without it, the fence would say that what has
// arrived did not.
Status ChannelEnd::push_drains() {
  if (bundle_->has_spilled()) return Status::ok();
  for (int index = 0; index < static_cast<int>(lines_.size()); ++index) {
    if (line(index).phase != Phase::kDraining) continue;
    QueuePair* qp = bundle_->qp(index);
    const bool drained = qp == nullptr || qp->drained();
    if (!drained && Clock::now() - line(index).since < kDrainPatience) continue;
    if (!drained)
      log_info(Subsys::kNet, "rank {}: {} kept receives of queue pair {} {} rank {} for {} ms",
               name_.rank, qp->nic().info().name(), index, statistics_->sends ? "to" : "from",
               name_.peer, kDrainPatience.count());
    COMM_TRY(on_drained(index));
  }
  return Status::ok();
}

bool ChannelEnd::may_rebuild(int index) {
  if (!bundle_->nic_of(index).port_is_up()) return false;
  const auto now = Clock::now();
  if (now >= line(index).down_until) return true;
  const bool others_work = std::any_of(lines_.begin(), lines_.end(),
                                       [](const Line& each) { return each.phase == Phase::kLive; });
  return !others_work && now >= line(index).since + down_time(2);
}

void ChannelEnd::note_rebuild(int index, const Status& made) {
  if (made) {
    refusal_.clear();
    return;
  }
  bundle_->destroy(index);
  refusal_ = made.message();
  line(index).failures = std::max(2, line(index).failures + 1);
  line(index).down_until = Clock::now() + down_time(line(index).failures);
  log_info(Subsys::kNet, "rank {}: {}; trying again", name_.rank, refusal_);
}

// Fencing waits for the peer's process, which may compute; only ports that stay down, and a device
// that makes no queue pair, end the wait.
Status ChannelEnd::check_path() {
  bool any_port = false, any_live = false;
  for (const auto& nic : rails_) any_port = any_port || nic->port_is_up();
  for (const Line& each : lines_) any_live = any_live || each.phase == Phase::kLive;
  if (any_port && (any_live || refusal_.empty())) {
    dead_since_ = {};
    return Status::ok();
  }
  if (dead_since_ == Clock::time_point()) dead_since_ = Clock::now();
  if (Clock::now() - dead_since_ < kPathPatience) return Status::ok();
  if (any_port)
    return lost(fmt::format("no queue pair works, and for {} s none could be made: {}",
                            kPathPatience.count(), refusal_));
  return lost(fmt::format("{} and stayed so for {} s: check cable, switch and `rdma link`",
                          rails_.front()->last_event(), kPathPatience.count()));
}

// ---- sleeping ----------------------------------------------------------------------------------

WaitHandle ChannelEnd::handle() {
  if (!failed_ || !control_) return {};
  const auto prepare = [&](bool* moved) -> Status {
    if (!epoll_) {
      epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
      if (!epoll_) return descriptor_error(errno, "epoll for an RDMA channel");
      std::vector<int> fds = bundle_->fds();
      fds.push_back(control_->fd());
      for (const auto& nic : rails_) fds.push_back(nic->event_fd());
      for (const int fd : fds) {
        epoll_event event{};
        event.events = EPOLLIN;
        if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
          return system_error(errno, "epoll_ctl for an RDMA channel");
      }
    }
    COMM_TRY(bundle_->arm());
    return look(moved);
  };
  // What came between the last look and the arming makes no event.
  bool moved = false;
  const Status prepared = prepare(&moved);
  if (!prepared || moved) return {context_->always_readable.get(), false};
  return {epoll_.get(), false};
}

}  // namespace libcomm::rdma
