#include "transports/rdma/sender.h"

#include <arpa/inet.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "src/base/log.h"

namespace libcomm::rdma {
namespace {

constexpr size_t kMostSlots = 4;     // staging
constexpr size_t kLeastPart = 4096;  // of a segment that is cut over queue pairs

// Each queue pair may have to carry everything: two work requests for every arrival, and every
// grant entry as a receive.
constexpr QueueDepth kDepth{2 * kArrivals + 8, kGrants + kReceivesAtOnce};

}  // namespace

Result<std::unique_ptr<Sender>> Sender::open(std::shared_ptr<const ChannelContext> context,
                                             const ChannelName& name,
                                             std::shared_ptr<PinBudget> budget, UniqueFd control,
                                             std::shared_ptr<Releases> releases) {
  std::unique_ptr<Sender> sender(
      new Sender(std::move(context), name, std::move(budget), std::move(releases)));
  COMM_TRY(sender->ChannelEnd::open(std::move(control), kGrants * sizeof(GrantEntry),
                                    kArrivals * kEntryBytes, kDepth));
  const BundleShape& shape = sender->bundle_->shape();
  sender->last_qp_ = shape.first_rail * shape.qps_per_rail - 1;
  sender->outstanding_.resize(static_cast<size_t>(sender->bundle_->shape().qps()));
  COMM_TRY(sender->control_->send(MessageType::kOffer, sender->describe()));
  return sender;
}

Sender::~Sender() {
  if (bundle_ && connected_)
    log_info(
        Subsys::kNet,
        "rank {}: RDMA channel to rank {} on lane {} closed: {} segments, {} of them large from "
        "registered memory, carried by {} of its {} data queue pairs; {} bytes granted, {} "
        "written, at most {} in flight",
        name_.rank, name_.peer, name_.lane, statistics_->segments.load(),
        statistics_->direct_segments.load(), std::popcount(statistics_->qps_used.load()),
        bundle_->shape().data_qps(), statistics_->granted_bytes.load(),
        statistics_->written_bytes.load(), statistics_->peak_in_flight_bytes.load());
  shut();
  give_slots_back();
}

// ---- what the layers above call ----------------------------------------------------------------

Status Sender::reserve(std::byte** slot_out) {
  *slot_out = nullptr;
  COMM_TRY(turn());
  if (reserved_ < 0) {
    COMM_TRY(check_peer());
    if (waiting_.size() >= kArrivals) return Status::ok();
    COMM_ASSIGN(reserved_, take_slot(kMostSlots));
    if (reserved_ < 0) return Status::ok();
  }
  *slot_out = slot(reserved_).data();
  return Status::ok();
}

Status Sender::commit(const Signature& signature, size_t bytes) {
  COMM_TRY(failed_);
  if (reserved_ < 0) return error(Code::kInternal, "commit without a reserved slot");
  if (bytes > segment_bytes())
    return error(Code::kInternal, "a segment of {} bytes where {} fit", bytes, segment_bytes());
  const int index = std::exchange(reserved_, -1);
  ++accepted_;
  ChannelStatistics::add(statistics_->segments);
  if (bytes <= kSmallBytes && waiting_.empty() && may_use_entry()) {
    free_slots_.push_back(index);
    failed_ = issue_small(signature, slot(index).data(), bytes);
    return failed_;
  }
  waiting_.push_back({signature, slot(index).data(), bytes, nullptr, index});
  failed_ = issue_waiting();
  return failed_;
}

Status Sender::post(const Signature& signature, const void* src, size_t bytes, bool* accepted) {
  *accepted = false;
  if (bytes > segment_bytes())
    return error(Code::kInternal, "a segment of {} bytes where {} fit", bytes, segment_bytes());
  COMM_TRY(failed_);
  const bool small = bytes <= kSmallBytes && connected_;
  if (small) failed_ = take_releases();
  COMM_TRY(failed_);
  // What goes out at once needs no look around first: progress() has one.
  if (!small || !is_calm() || !waiting_.empty() || !may_use_entry()) COMM_TRY(turn());
  COMM_TRY(check_peer());
  if (waiting_.size() >= kArrivals) return Status::ok();
  if (reserved_ >= 0)
    return error(Code::kInternal, "post with a reserved slot that is not committed");
  if (small) {
    // It has to wait for the entry anyway, and until then the memory stays the caller's.
    if (!waiting_.empty() || !may_use_entry()) return Status::ok();
    ++accepted_;
    *accepted = true;
    ChannelStatistics::add(statistics_->segments);
    failed_ = issue_small(signature, src, bytes);
    return failed_;
  }
  Waiting segment{signature, static_cast<const std::byte*>(src), bytes, nullptr, -1};
  if (context_->registrations && bytes > kSmallBytes)
    segment.registration = context_->registrations->find(src, bytes, Use::kSend);
  if (segment.registration) {
    ChannelStatistics::add(statistics_->direct_segments);
  } else {
    COMM_ASSIGN(segment.slot, take_slot(kMostSlots));
    if (segment.slot < 0) return Status::ok();
    if (bytes > 0)
      if (Status copied = context_->copy_from(src, slot(segment.slot).data(), bytes); !copied) {
        failed_ = std::move(copied).at_rank(name_.rank);
        return failed_;
      }
    segment.src = slot(segment.slot).data();
  }
  ++accepted_;
  *accepted = true;
  ChannelStatistics::add(statistics_->segments);
  waiting_.push_back(std::move(segment));
  failed_ = issue_waiting();
  return failed_;
}

Status Sender::progress(uint64_t* completed) {
  COMM_TRY(turn());
  if (completed_ < accepted_) COMM_TRY(check_peer());  // what left is complete all the same
  *completed = completed_;
  return Status::ok();
}

// The device may still read what has been posted: without queue pairs it reads nothing. Only when
// it is user memory; staging slots are ours.
void Sender::withdraw() {
  bool user_memory = false;
  for (const Waiting& segment : waiting_) user_memory |= segment.registration != nullptr;
  for (const Arrival& each : arrivals_) user_memory |= each.registration != nullptr;
  if (!user_memory) return;
  shut();
  waiting_.clear();
  for (Arrival& each : arrivals_) each.registration.reset();
  if (failed_)
    failed_ = error(Code::kInvalidUsage,
                    "an operation failed before what it sends to rank {} had left: this channel is "
                    "of no use any more",
                    name_.peer);
}

// The channel is never a constant object; arming its queues is no change that a caller could see.
WaitHandle Sender::wait_handle() const { return const_cast<Sender*>(this)->handle(); }

// The peer's end of the control connection is closed only when its channel is gone. All messages
// before that have been read: what it had received by then is complete.
Status Sender::check_peer() {
  if (!control_->closed()) return Status::ok();
  failed_ = Status(Code::kRemote,
                   fmt::format("connection to rank {} closed: the process probably died; see its "
                               "log",
                               name_.peer))
                .at_rank(name_.rank)
                .with_peer(name_.peer);
  return failed_;
}

// ---- what the peer says ------------------------------------------------------------------------

Status Sender::on_message(const Message& message) {
  if (message.type != MessageType::kAnswer && message.type != MessageType::kBroken)
    COMM_TRY(check_open(message.type));
  switch (message.type) {
    case MessageType::kAnswer: {
      EndWire theirs;
      COMM_TRY(message.read(&theirs, name_.peer));
      return on_answer(theirs);
    }
    case MessageType::kBroken: {
      QpNews news;
      COMM_TRY(message.read(&news, name_.peer));
      COMM_TRY(check_index(news.index));
      const auto index = static_cast<int>(news.index);
      if (news.epoch != line(index).epoch) return Status::ok();
      return fail_line(index, fmt::format("it failed at rank {}", name_.peer));
    }
    case MessageType::kFenced: {
      FenceWire fence;
      COMM_TRY(message.read(&fence, name_.peer));
      COMM_TRY(check_index(fence.index));
      return on_fenced(fence);
    }
    case MessageType::kRebuilt: {
      RebuildWire rebuilt;
      COMM_TRY(message.read(&rebuilt, name_.peer));
      COMM_TRY(check_index(rebuilt.index));
      const auto index = static_cast<int>(rebuilt.index);
      if (rebuilt.epoch != line(index).epoch || line(index).phase != Phase::kRebuilding)
        return Status::ok();
      COMM_TRY(check_rebuild(rebuilt, bundle_->nic_of(index).info().ethernet, name_.peer));
      if (const Status connected = bundle_->connect_one(index, rebuilt.rail, rebuilt.qp);
          !connected)
        return fail_line(index, connected.message());
      enter(index, Phase::kLive);
      ChannelStatistics::add(statistics_->rebuilt_qps);
      return control_->send(MessageType::kReady, QpNews{rebuilt.index, rebuilt.epoch});
    }
    case MessageType::kGoodbye: {
      GoodbyeWire goodbye;
      COMM_TRY(message.read(&goodbye, name_.peer));
      on_goodbye(goodbye);
      return Status::ok();
    }
    default:
      return error(Code::kRemote, "rank {} sent an unexpected control message of kind {}",
                   name_.peer, static_cast<int>(message.type));
  }
}

// What the peer has received is complete, and its memory somebody else's. Our device may not know
// that it came, and read it once more: without queue pairs it does not.
void Sender::on_goodbye(const GoodbyeWire& goodbye) {
  peer_left_ = true;
  for (int index = 0; index < bundle_->shape().qps(); ++index) {
    bundle_->destroy(index);
    outstanding_[static_cast<size_t>(index)].clear();
    enter(index, Phase::kDown);
  }
  send_again_.clear();
  for (uint64_t n = oldest_; n < std::min(issued_, goodbye.received); ++n)
    for (size_t part = 0; part < arrival(n).parts.size(); ++part) part_done(n, part);
  retire();
}

Status Sender::on_answer(const EndWire& theirs) {
  if (connected_)
    return error(Code::kRemote, "rank {} answered twice: the stream is corrupt", name_.peer);
  COMM_TRY(check_end(theirs, describe(), name_.peer));
  theirs_ = theirs;
  COMM_TRY(bundle_->connect(theirs));
  connected_ = true;
  if (log_wants(LogLevel::kInfo, Subsys::kNet)) {
    const auto attributes_of = [this](int index) {
      const QueuePair* qp = bundle_->qp(index);
      return qp != nullptr ? qp->attributes() : std::string("failed already");
    };
    log_info(Subsys::kNet,
             "rank {}: RDMA channel to rank {} on lane {}: {} data queue pairs over {}{}, {}; "
             "grants: {}",
             name_.rank, name_.peer, name_.lane, bundle_->shape().data_qps(),
             bundle_->nic(0).info().to_text(),
             bundle_->nic(0).relaxed() ? ", data in relaxed order" : "", attributes_of(0),
             attributes_of(bundle_->shape().grant_qp()));
  }
  return control_->send(MessageType::kReady, QpNews{kAllQps, 0});
}

// ---- grants ------------------------------------------------------------------------------------

Status Sender::on_arrived(int index, const Immediate& what) {
  note_success(index);
  const int64_t ahead = what.distance(next_entry_);
  if (what.kind != Immediate::kGrant || ahead >= int64_t{kGrants})
    return error(Code::kRemote,
                 "rank {} announced something that is no grant: the stream is corrupt", name_.peer)
        .with_peer(name_.peer);
  bool* arrived =
      ahead < 0 ? nullptr : &entry_arrived_[(next_entry_ + static_cast<uint64_t>(ahead)) % kGrants];
  if (arrived == nullptr || *arrived) {
    ChannelStatistics::add(statistics_->duplicates);
    return Status::ok();
  }
  *arrived = true;
  if (ahead > 0) ChannelStatistics::add(statistics_->out_of_order);
  return read_grants();
}

Status Sender::read_grants() {
  while (entry_arrived_[next_entry_ % kGrants]) {
    GrantEntry entry;
    std::memcpy(&entry, ring_->data() + next_entry_ % kGrants * sizeof entry, sizeof entry);
    COMM_TRY(check_grant(entry, next_entry_, name_.rails, name_.peer));
    COMM_TRY(note_released(entry.released));
    entry_arrived_[next_entry_ % kGrants] = false;
    ++next_entry_;
    ChannelStatistics::add(statistics_->entries);
    if ((entry.flags & kGrantsMemory) == 0) continue;
    if (grants_.size() >= kMaxSlots)
      return error(Code::kRemote, "rank {} granted more than {} places: its memory is corrupt",
                   name_.peer, kMaxSlots)
          .with_peer(name_.peer);
    Grant grant;
    grant.number = entry.grant;
    grant.for_one_call = (entry.flags & kForOneCall) != 0;
    grant.address = entry.address;
    grant.bytes = entry.bytes;
    std::copy(std::begin(entry.rkey), std::end(entry.rkey), std::begin(grant.rkey));
    grant.signature = entry.signature;
    grants_.push_back(grant);
    grant_bytes_held_ += grant.bytes;
    ChannelStatistics::add(statistics_->granted_bytes, grant.bytes);
  }
  return Status::ok();
}

// What arrivals of the other direction said may be ahead of what grant entries say, or behind.
Status Sender::note_released(uint32_t released) {
  const auto more = static_cast<int32_t>(released - static_cast<uint32_t>(released_));
  if (more <= 0) return Status::ok();
  released_ += static_cast<uint32_t>(more);
  if (released_ <= issued_) return Status::ok();
  return error(Code::kRemote, "rank {} released {} arrivals of {}: its memory is corrupt",
               name_.peer, released_, issued_)
      .with_peer(name_.peer);
}

Status Sender::take_releases() {
  if (!releases_) return Status::ok();
  return note_released(static_cast<uint32_t>(releases_->there.load(std::memory_order_acquire)));
}

// ---- segments ----------------------------------------------------------------------------------

// The peer has released what was in the entry before, and our image of it is not being read.
bool Sender::may_use_entry() const {
  return connected_ && issued_ < released_ + kArrivals && issued_ < oldest_ + kArrivals;
}

Status Sender::on_turn() {
  if (waiting_.empty() && send_again_.empty() && is_calm()) return Status::ok();
  if (!connected_) return Status::ok();
  COMM_TRY(take_releases());
  const auto& shape = bundle_->shape();
  for (int index = 0; index < shape.qps(); ++index) {
    if (line(index).phase == Phase::kDown && !peer_left_ && may_rebuild(index))
      begin_rebuild(index);
  }
  while (!send_again_.empty()) {
    const auto [n, part] = send_again_.front();
    const int qp = next_qp();
    if (qp < 0) return Status::ok();
    COMM_TRY(post_part(n, part, qp));
    ChannelStatistics::add(statistics_->sent_again);
    send_again_.pop_front();
  }
  return issue_waiting();
}

Status Sender::issue_waiting() {
  while (!waiting_.empty()) {
    bool issued = false;
    COMM_TRY(issue(waiting_.front(), &issued));
    if (!issued) break;
    waiting_.pop_front();
  }
  return Status::ok();
}

Status Sender::issue(const Waiting& segment, bool* issued) {
  if (!may_use_entry()) return Status::ok();
  if (segment.bytes <= kSmallBytes) {
    *issued = true;
    if (segment.slot >= 0) free_slots_.push_back(segment.slot);
    return issue_small(segment.signature, segment.src, segment.bytes);
  }
  if (grants_.empty()) return Status::ok();
  const Grant grant = grants_.front();
  if (grant.for_one_call &&
      (grant.signature != segment.signature || grant.bytes != segment.bytes)) {
    COMM_TRY(issue_refusal(segment));
    return issue(segment, issued);
  }
  if (segment.bytes > grant.bytes)
    return error(Code::kRemote, "rank {} granted {} bytes for a segment of {}", name_.peer,
                 grant.bytes, segment.bytes)
        .with_peer(name_.peer);
  const std::vector<int> qps = choose_qps(segment.bytes);
  if (qps.empty()) return Status::ok();
  grants_.pop_front();
  Arrival& now =
      start_arrival(ArrivalKind::kLarge, segment.signature, segment.bytes, grant, qps.size());
  now.src = segment.src;
  now.registration = segment.registration;
  now.slot = segment.slot;
  now.filled = grant.for_one_call && qps.size() == 1;
  if (now.filled) ChannelStatistics::add(statistics_->filled_grants);
  ChannelStatistics::add(statistics_->written_bytes, segment.bytes);
  ChannelStatistics::add(statistics_->in_flight_bytes, segment.bytes);
  const uint64_t in_flight = statistics_->in_flight_bytes.load(std::memory_order_relaxed);
  ChannelStatistics::raise(statistics_->peak_in_flight_bytes, in_flight);
  if (in_flight > grant_bytes_held_)
    return error(Code::kInternal, "{} bytes in flight to rank {} where {} are granted", in_flight,
                 name_.peer, grant_bytes_held_);
  const uint64_t n = issued_ - 1;
  for (size_t part = 0; part < qps.size(); ++part) COMM_TRY(post_part(n, part, qps[part]));
  *issued = true;
  return Status::ok();
}

Status Sender::issue_small(const Signature& signature, const void* src, size_t bytes) {
  start_arrival(ArrivalKind::kSmall, signature, bytes, {}, 1);
  const uint64_t n = issued_ - 1;
  if (bytes > 0) COMM_TRY(context_->copy_from(src, image(n) + sizeof(ArrivalHeader), bytes));
  ChannelStatistics::add(statistics_->small_segments);
  const int qp = next_qp();
  if (qp < 0) {
    send_again_.emplace_back(n, 0);
    return Status::ok();
  }
  return post_part(n, 0, qp);
}

Status Sender::issue_refusal(const Waiting& segment) {
  const Grant grant = grants_.front();
  grants_.pop_front();
  start_arrival(ArrivalKind::kRefusal, segment.signature, segment.bytes, grant, 1);
  ChannelStatistics::add(statistics_->refused_grants);
  const int qp = next_qp();
  if (qp < 0) {
    send_again_.emplace_back(issued_ - 1, 0);
    return Status::ok();
  }
  return post_part(issued_ - 1, 0, qp);
}

Sender::Arrival& Sender::start_arrival(ArrivalKind kind, const Signature& signature, size_t bytes,
                                       const Grant& grant, size_t parts) {
  const uint64_t n = issued_++;
  Arrival& now = arrival(n);
  now.begin(kind, bytes, parts);
  now.grant = grant;
  if (kind == ArrivalKind::kLarge) {
    // Cut at pages of the segment, the last part takes the rest.
    const size_t each = bytes / parts / kLeastPart * kLeastPart;
    for (size_t i = 0; i < parts; ++i) {
      now.parts[i].begin = i * each;
      now.parts[i].bytes = i + 1 == parts ? bytes - i * each : each;
    }
  }
  ArrivalHeader header;
  header.kind = kind;
  header.parts = static_cast<uint8_t>(parts);
  header.sequence = static_cast<uint32_t>(n);
  header.bytes = static_cast<uint32_t>(bytes);
  header.grant = grant.number;
  header.grants_seen = static_cast<uint32_t>(next_entry_);
  header.signature = signature;
  if (releases_)
    header.released = static_cast<uint32_t>(releases_->here.load(std::memory_order_acquire));
  header.released_known = static_cast<uint32_t>(released_);
  std::memcpy(image(n), &header, sizeof header);
  return now;
}

// ---- queue pairs -------------------------------------------------------------------------------

// The next data queue pair in turn that works and has room; the one for grants when no other works.
int Sender::next_qp() {
  const BundleShape& shape = bundle_->shape();
  bool any = false;
  for (int step = 1; step <= shape.data_qps(); ++step) {
    const int index = (last_qp_ + step) % shape.data_qps();
    if (!is_live(index)) continue;
    any = true;
    if (bundle_->qp(index)->send_room() < 2) continue;
    last_qp_ = index;
    return index;
  }
  const int spare = shape.grant_qp();
  return !any && is_live(spare) && bundle_->qp(spare)->send_room() >= 2 ? spare : -1;
}

// One for a whole segment, or all that work when segments are split. Empty: none has room now.
std::vector<int> Sender::choose_qps(size_t bytes) {
  const BundleShape& shape = bundle_->shape();
  if (context_->options.split && shape.data_qps() > 1) {
    std::vector<int> qps;
    for (int index = 0; index < shape.data_qps(); ++index) {
      if (!is_live(index)) continue;
      if (bundle_->qp(index)->send_room() < 2) return {};
      qps.push_back(index);
    }
    const size_t most = std::max<size_t>(1, bytes / kLeastPart);
    if (qps.size() > most) qps.resize(most);
    if (!qps.empty()) return qps;
  }
  const int one = next_qp();
  return one < 0 ? std::vector<int>() : std::vector<int>{one};
}

// Bytes first, then, on the same queue pair and so not before them, the immediate. The first part's
// brings the header, where there is one.
Status Sender::post_part(uint64_t n, size_t part_index, int qp_index) {
  Arrival& now = arrival(n);
  Part& part = now.parts[part_index];
  QueuePair& qp = *bundle_->qp(qp_index);
  const int rail = bundle_->shape().rail_of(qp_index);
  ibv_send_wr chain[2] = {};
  ibv_sge pieces[2] = {};
  size_t count = 0;
  if (part.bytes > 0) {
    pieces[0].addr = reinterpret_cast<uintptr_t>(now.src + part.begin);
    pieces[0].length = static_cast<uint32_t>(part.bytes);
    pieces[0].lkey = now.registration ? now.registration->lkey(rail) : slot(now.slot).lkey(rail);
    ibv_send_wr& data = chain[count++];
    data.opcode = IBV_WR_RDMA_WRITE;
    data.sg_list = &pieces[0];
    data.num_sge = 1;
    data.wr.rdma.remote_addr = now.grant.address + part.begin;
    data.wr.rdma.rkey = now.grant.rkey[rail];
  }
  if (part_index == 0 && !now.filled) {
    const size_t bytes = sizeof(ArrivalHeader) + (now.kind == ArrivalKind::kSmall ? now.bytes : 0);
    pieces[1].addr = reinterpret_cast<uintptr_t>(image(n));
    pieces[1].length = static_cast<uint32_t>(bytes);
    pieces[1].lkey = image_->lkey(rail);
    ibv_send_wr& header = chain[count++];
    header.sg_list = &pieces[1];
    header.num_sge = 1;
    if (bytes <= qp.most_inline()) header.send_flags = IBV_SEND_INLINE;
    header.wr.rdma.remote_addr = theirs_.ring.address + n % kArrivals * kEntryBytes;
    header.wr.rdma.rkey = theirs_.ring.rkey[rail];
  }
  ibv_send_wr& last = chain[count - 1];
  last.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
  const Immediate what{now.filled ? Immediate::kFilled : Immediate::kArrival,
                       static_cast<uint32_t>(part_index), static_cast<uint32_t>(n)};
  last.imm_data = htonl(what.encode());
  uint64_t sequence = 0;
  part.qp = qp_index;
  part.epoch = line(qp_index).epoch;
  if (const Status posted = qp.post({chain, count}, true, &sequence); !posted) {
    send_again_.emplace_back(n, part_index);
    part.qp = -1;
    return fail_line(qp_index, posted.message());
  }
  outstanding_[static_cast<size_t>(qp_index)].push_back({sequence, n, part_index});
  if (qp_index < bundle_->shape().data_qps())
    statistics_->qps_used.store(
        statistics_->qps_used.load(std::memory_order_relaxed) | uint64_t{1} << qp_index,
        std::memory_order_relaxed);
  return Status::ok();
}

Status Sender::on_sent(int index) {
  note_success(index);
  if (bundle_->qp(index) == nullptr) return Status::ok();
  auto& queue = outstanding_[static_cast<size_t>(index)];
  while (!queue.empty() && queue.front().sequence < bundle_->qp(index)->reclaimed()) {
    part_done(queue.front().arrival, queue.front().part);
    queue.pop_front();
  }
  retire();
  return Status::ok();
}

void Sender::part_done(uint64_t n, size_t part) {
  if (n < oldest_) return;
  Part& which = arrival(n).parts[part];
  if (which.done) return;
  which.done = true;
  --arrival(n).left;
}

void Sender::retire() {
  while (oldest_ < issued_ && arrival(oldest_).left == 0) {
    Arrival& done = arrival(oldest_);
    if (done.slot >= 0) free_slots_.push_back(done.slot);
    done.registration.reset();
    if (done.kind != ArrivalKind::kRefusal) ++completed_;
    if (done.kind == ArrivalKind::kLarge)
      ChannelStatistics::subtract(statistics_->in_flight_bytes, done.bytes);
    if (done.kind != ArrivalKind::kSmall) grant_bytes_held_ -= done.grant.bytes;
    ++oldest_;
  }
}

// ---- fail-over: see channel_end.h --------------------------------------------------------------

Status Sender::on_drained(int index) {
  bundle_->destroy(index);
  FenceWire fence;
  fence.index = static_cast<uint32_t>(index);
  fence.epoch = line(index).epoch;
  fence.next = next_entry_;
  for (uint64_t i = 0; i < kGrants; ++i)
    fence.arrived[i] = entry_arrived_[(next_entry_ + i) % kGrants];
  enter(index, Phase::kFenced);
  return control_->send(MessageType::kFence, fence);
}

Status Sender::on_fenced(const FenceWire& fence) {
  const auto index = static_cast<int>(fence.index);
  if (fence.epoch != line(index).epoch || line(index).phase != Phase::kFenced) return Status::ok();
  for (uint64_t n = oldest_; n < issued_; ++n) {
    for (size_t part = 0; part < arrival(n).parts.size(); ++part) {
      const Part& which = arrival(n).parts[part];
      if (which.done || which.qp != index || which.epoch != fence.epoch) continue;
      const bool came = n < fence.next || (n - fence.next < kArrivals &&
                                           (fence.arrived[n - fence.next] >> part & 1) != 0);
      if (came) {
        part_done(n, part);
      } else {
        send_again_.emplace_back(n, part);
      }
    }
  }
  outstanding_[static_cast<size_t>(index)].clear();
  retire();
  begin_rebuild(index);
  return Status::ok();
}

void Sender::begin_rebuild(int index) {
  enter(index, Phase::kDown);
  if (!may_rebuild(index)) return;
  const uint32_t epoch = line(index).epoch + 1;
  const Status made = bundle_->rebuild(index, epoch);
  note_rebuild(index, made);
  if (!made) return;
  line(index).epoch = epoch;
  RebuildWire rebuild;
  rebuild.index = static_cast<uint32_t>(index);
  rebuild.epoch = line(index).epoch;
  rebuild.qp = bundle_->qp(index)->wire();
  bundle_->nic_of(index).describe(&rebuild.rail);
  bundle_->qp(index)->describe_ece(&rebuild.rail, context_->options);
  enter(index, Phase::kRebuilding);
  (void)control_->send(MessageType::kRebuild, rebuild);
}

}  // namespace libcomm::rdma
