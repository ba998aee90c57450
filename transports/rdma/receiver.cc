#include "transports/rdma/receiver.h"

#include <arpa/inet.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "src/base/log.h"

namespace libcomm::rdma {
namespace {

// Each queue pair may have to carry everything: all arrivals as receives, and every grant entry.
constexpr QueueDepth kDepth{kGrants + 8, 2 * kArrivals};
static_assert(kDepth.recv >= static_cast<int>(kArrivals) + kReceivesAtOnce);
// Arrivals that are released before the sender is told without a grant: so many while there is
// nothing else to do, or else when the sender may soon have no entry left. An answer that the
// caller is about to send does not have to wait for it.
constexpr uint64_t kTellWhenIdle = kArrivals / 4;
constexpr uint64_t kTellAfter = kArrivals / 2;
// The end of the control connection may overtake the last completions.
constexpr std::chrono::milliseconds kClosingPatience{20};

}  // namespace

Result<std::unique_ptr<Receiver>> Receiver::open(std::shared_ptr<const ChannelContext> context,
                                                 const ChannelName& name,
                                                 std::shared_ptr<PinBudget> budget,
                                                 UniqueFd control,
                                                 std::shared_ptr<Releases> releases) {
  std::unique_ptr<Receiver> receiver(
      new Receiver(std::move(context), name, std::move(budget), std::move(releases)));
  COMM_TRY(receiver->ChannelEnd::open(std::move(control), kArrivals * kEntryBytes,
                                      kGrants * sizeof(GrantEntry), kDepth));
  receiver->asked_.resize(static_cast<size_t>(receiver->bundle_->shape().qps()));
  return receiver;
}

Receiver::~Receiver() {
  flush_.reset();
  shut();
  if (connected_) {
    // What came after the last look is received all the same.
    uint64_t received = next_;
    while (received < next_ + kArrivals && is_whole(received)) ++received;
    (void)control_->send(MessageType::kGoodbye, GoodbyeWire{received});
  }
  give_slots_back();
}

// ---- what the layers above call ----------------------------------------------------------------

Status Receiver::peek(Segment* segment) {
  *segment = {};
  COMM_TRY(turn());
  bool ready = false;
  COMM_TRY(find_front(&ready));
  if (!ready) {
    wants_slots_ = plan_.dst == nullptr;  // a look in the middle of a message changes nothing
    COMM_TRY(grant_more());
    COMM_TRY(tell_released(kTellWhenIdle));
    return check_peer();
  }
  const ArrivalHeader& header = incoming(next_).header;
  segment->data = front_data();
  segment->bytes = header.bytes;
  segment->signature = header.signature;
  segment->ready = true;
  shown_ = true;
  return Status::ok();
}

Status Receiver::release() {
  COMM_TRY(failed_);
  if (!shown_) return error(Code::kInternal, "release without a segment that peek showed");
  take_front();
  failed_ = grant_more();
  return failed_;
}

void Receiver::expect(const Signature& expected, void* dst, size_t bytes, size_t segment) {
  plan_ = {};
  if (segment <= kSmallBytes || bytes <= kSmallBytes || segment > context_->segment_bytes ||
      !context_->registrations || !failed_)
    return;
  plan_.registration = context_->registrations->find(dst, bytes, Use::kReceive);
  if (!plan_.registration || !can_flush(*plan_.registration)) return;
  plan_.expected = expected;
  plan_.dst = static_cast<std::byte*>(dst);
  plan_.bytes = bytes;
  plan_.segment = segment;
  // Places that are granted already are going to be used up first.
  plan_.granted = std::min(bytes, given_.size() * segment);
}

Status Receiver::receive_into(const Signature& expected, void* dst, size_t bytes, bool* done) {
  *done = false;
  COMM_TRY(turn());
  bool ready = false;
  COMM_TRY(find_front(&ready));
  if (!ready) {
    if (announced_ && (announcement_.signature != expected || announcement_.bytes != bytes))
      return mismatch(name_.rank, expected, bytes, name_.peer, announcement_.signature,
                      announcement_.bytes);
    const auto* at = static_cast<const std::byte*>(dst);
    const bool planned = plan_.dst != nullptr && at >= plan_.dst && at < plan_.dst + plan_.bytes;
    if (!planned && given_.empty()) expect(expected, dst, bytes, bytes);
    wants_slots_ = plan_.dst == nullptr && bytes > kSmallBytes;
    COMM_TRY(grant_more());
    COMM_TRY(tell_released(kTellWhenIdle));
    return check_peer();
  }
  const ArrivalHeader& header = incoming(next_).header;
  if (header.signature != expected || header.bytes != bytes) {
    plan_ = {};
    return mismatch(name_.rank, expected, bytes, name_.peer, header.signature, header.bytes);
  }
  const std::byte* data = front_data();
  if (bytes > 0 && data != dst) {
    if (Status copied = context_->copy_to(dst, data, bytes); !copied) {
      failed_ = std::move(copied).at_rank(name_.rank);
      return failed_;
    }
  }
  if (plan_.dst != nullptr && static_cast<std::byte*>(dst) + bytes >= plan_.dst + plan_.bytes)
    plan_ = {};
  take_front();
  *done = true;
  failed_ = grant_more();
  return failed_;
}

// Whatever was granted may still be written: without queue pairs nothing is. Only when user memory
// is granted; staging slots are ours.
void Receiver::withdraw() {
  plan_ = {};
  const bool user_memory =
      std::any_of(given_.begin(), given_.end(), [](const Given& given) { return given.slot < 0; });
  if (!user_memory) return;
  flush_.reset();
  shut();
  for (Given& given : given_) given.registration.reset();
  if (failed_)
    failed_ = error(Code::kInvalidUsage,
                    "an operation failed before what rank {} sends had come: this channel is of no "
                    "use any more",
                    name_.peer);
}

// A flush takes microseconds and has no event.
WaitHandle Receiver::wait_handle() {
  if (flush_ && flush_->under_way()) return {context_->always_readable.get(), false};
  return handle();
}

// GPU memory that needs flushes is granted only when there can be some.
bool Receiver::can_flush(const Registration& memory) {
  if (!memory.needs_flush || flush_) return true;
  auto made = Flush::create(rails(), context_->options, context_->counters);
  if (!made) {
    log_warn("rank {}: {}; what comes from rank {} into GPU memory is staged", name_.rank,
             made.status().message(), name_.peer);
    return false;
  }
  flush_ = *std::move(made);
  return true;
}

// What is whole here may still be on its way into the GPU.
Status Receiver::flush_front(bool* there) {
  Incoming& front = incoming(next_);
  const Given& given = given_.front();
  *there = front.flushed || !given.registration || !given.registration->needs_flush;
  if (*there) return Status::ok();
  if (!front.flushing) COMM_TRY(flush_->begin(*given.registration, given.address));
  front.flushing = true;
  COMM_TRY(flush_->progress());
  front.flushed = *there = !flush_->under_way();
  return Status::ok();
}

// ---- arrivals ----------------------------------------------------------------------------------

Status Receiver::on_arrived(int index, const Immediate& what) {
  note_success(index);
  line(index).told_ready = true;
  const int64_t ahead = what.distance(next_);
  const bool arrival = what.kind == Immediate::kArrival || what.kind == Immediate::kFilled;
  if (!arrival || ahead >= int64_t{kArrivals})
    return lost("it announced a segment beyond what was granted: the stream is corrupt");
  Incoming* arrived = ahead < 0 ? nullptr : &incoming(next_ + static_cast<uint64_t>(ahead));
  const uint64_t bit = uint64_t{1} << what.part;
  if (arrived == nullptr || (arrived->parts & bit) != 0) {
    ChannelStatistics::add(statistics_->duplicates);
    return Status::ok();
  }
  arrived->parts |= bit;
  arrived->filled = what.kind == Immediate::kFilled;
  if (ahead > 0 && incoming(next_).parts == 0) ChannelStatistics::add(statistics_->out_of_order);
  return Status::ok();
}

Status Receiver::find_front(bool* ready) {
  *ready = false;
  for (;;) {
    bool whole = false;
    if (Status status = read_front(&whole); !status) {
      failed_ = std::move(status).at_rank(name_.rank);
      return failed_;
    }
    if (!whole) return Status::ok();
    const ArrivalHeader& header = incoming(next_).header;
    if (header.kind == ArrivalKind::kLarge) {
      bool there = false;
      if (Status status = flush_front(&there); !status) {
        failed_ = std::move(status).at_rank(name_.rank);
        return failed_;
      }
      if (!there) return Status::ok();
    }
    if (header.kind != ArrivalKind::kRefusal) break;
    announced_ = true;
    announcement_ = header;
    plan_ = {};
    take_front();
  }
  announced_ = false;
  *ready = true;
  return Status::ok();
}

bool Receiver::is_whole(uint64_t n) {
  const Incoming& arrived = incoming(n);
  if ((arrived.parts & 1) == 0) return false;
  if (arrived.filled) return arrived.parts == 1;
  ArrivalHeader header;
  std::memcpy(&header, entry(n), sizeof header);
  return check_arrival(header, n, context_->segment_bytes, name_.peer) &&
         std::popcount(arrived.parts) == header.parts;
}

Status Receiver::read_front(bool* whole) {
  *whole = false;
  Incoming& front = incoming(next_);
  if ((front.parts & 1) == 0) return Status::ok();
  if (!front.read) {
    if (front.filled) {
      COMM_ASSIGN(front.header, header_of_filled());
      ChannelStatistics::add(statistics_->filled_grants);
    } else {
      std::memcpy(&front.header, entry(next_), sizeof front.header);
    }
    COMM_TRY(check_front(front.header));
    front.read = true;
    acknowledged_ += front.header.grants_seen - static_cast<uint32_t>(acknowledged_);
    if (!front.filled) note_releases(front.header);
  }
  if (static_cast<int>(std::bit_width(front.parts)) > front.header.parts)
    return error(Code::kRemote,
                 "rank {} announced part {} of a segment of {}: the stream is corrupt", name_.peer,
                 std::bit_width(front.parts) - 1, int{front.header.parts})
        .with_peer(name_.peer);
  *whole = std::popcount(front.parts) == front.header.parts;
  return Status::ok();
}

// What the sender would have written. It fills the oldest grant, and has read its entry.
Result<ArrivalHeader> Receiver::header_of_filled() {
  if (given_.empty() || !given_.front().registration)
    return error(Code::kRemote,
                 "rank {} announced that it filled a grant for one call, and has none: its memory "
                 "or the fabric is corrupt",
                 name_.peer)
        .with_peer(name_.peer);
  const Given& given = given_.front();
  ArrivalHeader header;
  header.kind = ArrivalKind::kLarge;
  header.sequence = static_cast<uint32_t>(next_);
  header.bytes = static_cast<uint32_t>(given.bytes);
  header.grant = given.number;
  header.grants_seen = static_cast<uint32_t>(std::max(acknowledged_, given.entry + 1));
  header.signature = given.signature;
  return header;
}

Status Receiver::check_front(const ArrivalHeader& header) {
  COMM_TRY(check_arrival(header, next_, context_->segment_bytes, name_.peer));
  const auto bad = [&](std::string what) {
    return error(Code::kRemote, "rank {} {}: its memory or the fabric is corrupt", name_.peer, what)
        .with_peer(name_.peer);
  };
  const uint64_t seen = acknowledged_ + (header.grants_seen - static_cast<uint32_t>(acknowledged_));
  if (seen > written_) return bad(fmt::format("has read {} grant entries of {}", seen, written_));
  if (header.kind == ArrivalKind::kSmall) return Status::ok();
  if (given_.empty() || given_.front().number != header.grant)
    return bad(fmt::format("used grant {}, which is not the oldest", header.grant));
  if (header.kind == ArrivalKind::kLarge && header.bytes > given_.front().bytes)
    return bad(
        fmt::format("wrote {} bytes where {} were granted", header.bytes, given_.front().bytes));
  return Status::ok();
}

// What is said of the other direction is checked by the sender, who knows what it has sent.
void Receiver::note_releases(const ArrivalHeader& header) {
  const auto known =
      static_cast<int32_t>(header.released_known - static_cast<uint32_t>(released_told_));
  if (known > 0) released_told_ = std::min(next_, released_told_ + static_cast<uint32_t>(known));
  if (!releases_) return;
  const uint64_t before = releases_->there.load(std::memory_order_relaxed);
  const auto more = static_cast<int32_t>(header.released - static_cast<uint32_t>(before));
  if (more > 0)
    releases_->there.store(before + static_cast<uint32_t>(more), std::memory_order_release);
}

const std::byte* Receiver::front_data() {
  return incoming(next_).header.kind == ArrivalKind::kSmall ? entry(next_) + sizeof(ArrivalHeader)
                                                            : given_.front().address;
}

void Receiver::take_front() {
  Incoming& front = incoming(next_);
  const ArrivalKind kind = front.header.kind;
  if (kind != ArrivalKind::kRefusal) ChannelStatistics::add(statistics_->segments);
  if (kind == ArrivalKind::kSmall) {
    ChannelStatistics::add(statistics_->small_segments);
  } else {
    Given& given = given_.front();
    ChannelStatistics::subtract(statistics_->open_grant_bytes, given.bytes);
    if (kind == ArrivalKind::kLarge) {
      ChannelStatistics::add(statistics_->written_bytes, front.header.bytes);
      if (given.slot < 0) ChannelStatistics::add(statistics_->direct_segments);
      // The sender has used up all that it had: it may want more at a time.
      if (given.slot >= 0 && given_.size() == 1) target_ = std::min(2 * target_, window());
    } else {
      ChannelStatistics::add(statistics_->refused_grants);
    }
    if (given.slot >= 0) free_slots_.push_back(given.slot);
    given_.pop_front();
  }
  front = {};
  shown_ = false;
  ++next_;
  if (releases_) releases_->here.store(next_, std::memory_order_release);
}

// The peer's end of the control connection closes when its channel is gone. What it sent before
// that has arrived.
Status Receiver::check_peer() {
  if (!control_->closed()) return Status::ok();
  if (!closing_) {
    closing_ = true;
    closed_at_ = Clock::now();
  }
  bool moved = false;
  COMM_TRY(look(&moved));
  if (moved || Clock::now() - closed_at_ < kClosingPatience || incoming(next_).parts != 0)
    return Status::ok();
  failed_ = Status(Code::kRemote,
                   fmt::format("connection to rank {} closed: the process probably died; see its "
                               "log",
                               name_.peer))
                .at_rank(name_.rank)
                .with_peer(name_.peer);
  return failed_;
}

// ---- granting ----------------------------------------------------------------------------------

Status Receiver::on_turn() {
  if (!connected_) return Status::ok();
  for (size_t i = 0; i < rebuilds_waiting_.size(); ++i) {
    const auto [wish, not_before] = rebuilds_waiting_[i];
    if (!bundle_->nic_of(static_cast<int>(wish.index)).port_is_up()) continue;
    if (Clock::now() < not_before) continue;
    rebuilds_waiting_.erase(rebuilds_waiting_.begin() + static_cast<ptrdiff_t>(i));
    return on_rebuild(wish);
  }
  while (!write_again_.empty() && entry_qp() >= 0) {
    const uint64_t sequence = write_again_.front();
    write_again_.pop_front();
    COMM_TRY(post_entry(sequence));
  }
  return grant_more();
}

Status Receiver::grant_more() {
  if (!connected_) return Status::ok();
  if (plan_.dst != nullptr) {
    COMM_TRY(grant_plan());
  } else if (wants_slots_) {
    COMM_TRY(grant_slots());
  }
  return tell_released(kTellAfter);
}

Status Receiver::grant_slots() {
  while (static_cast<int>(given_.size()) < target_ && can_write_entry()) {
    COMM_ASSIGN(const int index, take_slot(window()));
    if (index < 0) return Status::ok();
    Given given;
    given.slot = index;
    given.address = slot(index).data();
    given.bytes = context_->segment_bytes;
    bool written = false;
    COMM_TRY(give(std::move(given), kGrantsMemory, {}, &written));
  }
  return Status::ok();
}

// Up to as many bytes as the window has in slots.
Status Receiver::grant_plan() {
  while (plan_.granted < plan_.bytes && static_cast<int>(given_.size()) < window() &&
         can_write_entry()) {
    const size_t bytes = std::min(plan_.segment, plan_.bytes - plan_.granted);
    if (bytes <= kSmallBytes) {  // needs none
      plan_.granted = plan_.bytes;
      break;
    }
    Given given;
    given.address = plan_.dst + plan_.granted;
    given.bytes = bytes;
    given.registration = plan_.registration;
    bool written = false;
    COMM_TRY(give(std::move(given), kGrantsMemory | kForOneCall, plan_.expected, &written));
    plan_.granted += bytes;
  }
  return Status::ok();
}

Status Receiver::give(Given given, uint8_t flags, const Signature& signature, bool* written) {
  GrantEntry entry;
  entry.flags = flags;
  entry.rails = static_cast<uint8_t>(name_.rails);
  entry.grant = next_grant_;
  entry.address = reinterpret_cast<uintptr_t>(given.address);
  entry.bytes = static_cast<uint32_t>(given.bytes);
  for (int rail = 0; rail < name_.rails; ++rail)
    entry.rkey[rail] =
        given.registration ? given.registration->rkey(rail) : slot(given.slot).rkey(rail);
  entry.signature = signature;
  given.number = next_grant_++;
  given.signature = signature;
  given.entry = written_;
  ChannelStatistics::add(statistics_->granted_bytes, given.bytes);
  ChannelStatistics::add(statistics_->open_grant_bytes, given.bytes);
  ChannelStatistics::raise(statistics_->peak_open_grant_bytes,
                           statistics_->open_grant_bytes.load(std::memory_order_relaxed));
  given_.push_back(std::move(given));
  *written = true;
  return write_entry(entry);
}

Status Receiver::tell_released(uint64_t most) {
  if (!connected_ || next_ - released_told_ < most || !can_write_entry()) return Status::ok();
  return write_entry({});
}

bool Receiver::can_write_entry() {
  return written_ - acknowledged_ < kGrants && write_again_.empty() && entry_qp() >= 0;
}

// The queue pair for grants, or another one while that is being replaced; -1: none has room.
int Receiver::entry_qp() {
  const BundleShape& shape = bundle_->shape();
  const auto usable = [&](int index) {
    return is_live(index) && line(index).told_ready && bundle_->qp(index)->send_room() >= 1;
  };
  if (is_live(shape.grant_qp()) && line(shape.grant_qp()).told_ready)
    return usable(shape.grant_qp()) ? shape.grant_qp() : -1;
  for (int index = 0; index < shape.data_qps(); ++index)
    if (usable(index)) return index;
  return -1;
}

Status Receiver::write_entry(GrantEntry grant) {
  grant.sequence = static_cast<uint32_t>(written_);
  grant.released = static_cast<uint32_t>(next_);
  released_told_ = next_;
  ChannelStatistics::add(statistics_->entries);
  std::memcpy(image_->data() + written_ % kGrants * sizeof grant, &grant, sizeof grant);
  return post_entry(written_++);
}

Status Receiver::post_entry(uint64_t sequence) {
  const int index = entry_qp();
  if (index < 0) {
    write_again_.push_back(sequence);
    return Status::ok();
  }
  QueuePair& qp = *bundle_->qp(index);
  const int rail = bundle_->shape().rail_of(index);
  ibv_sge piece{};
  piece.addr =
      reinterpret_cast<uintptr_t>(image_->data() + sequence % kGrants * sizeof(GrantEntry));
  piece.length = sizeof(GrantEntry);
  piece.lkey = image_->lkey(rail);
  ibv_send_wr write{};
  write.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
  write.sg_list = &piece;
  write.num_sge = 1;
  if (sizeof(GrantEntry) <= qp.most_inline()) write.send_flags = IBV_SEND_INLINE;
  const Immediate what{Immediate::kGrant, 0, static_cast<uint32_t>(sequence)};
  write.imm_data = htonl(what.encode());
  write.wr.rdma.remote_addr = theirs_.ring.address + sequence % kGrants * sizeof(GrantEntry);
  write.wr.rdma.rkey = theirs_.ring.rkey[rail];
  uint64_t last = 0;
  entry_qp_[sequence % kGrants] = index;
  if (const Status posted = qp.post({&write, 1}, false, &last); !posted) {
    write_again_.push_back(sequence);
    return fail_line(index, posted.message());
  }
  return Status::ok();
}

Status Receiver::on_sent(int index) {
  note_success(index);
  return Status::ok();
}

// ---- opening, and fail-over: see channel_end.h -------------------------------------------------

Status Receiver::on_message(const Message& message) {
  if (message.type != MessageType::kOffer) COMM_TRY(check_open(message.type));
  switch (message.type) {
    case MessageType::kOffer: {
      EndWire theirs;
      COMM_TRY(message.read(&theirs, name_.peer));
      return on_offer(theirs);
    }
    case MessageType::kReady: {
      QpNews news;
      COMM_TRY(message.read(&news, name_.peer));
      if (news.index == kAllQps) {
        for (int index = 0; index < bundle_->shape().qps(); ++index) line(index).told_ready = true;
        return Status::ok();
      }
      COMM_TRY(check_index(news.index));
      if (line(static_cast<int>(news.index)).epoch == news.epoch)
        line(static_cast<int>(news.index)).told_ready = true;
      return Status::ok();
    }
    case MessageType::kFence: {
      Asked asked{true, true, {}};
      COMM_TRY(message.read(&asked.fence, name_.peer));
      COMM_TRY(check_index(asked.fence.index));
      const auto index = static_cast<int>(asked.fence.index);
      give_up_rebuild(index, asked.fence.epoch);
      if (asked.fence.epoch != line(index).epoch) return Status::ok();
      Asked& before = asked_[static_cast<size_t>(index)];
      if (before.ever && before.fence.epoch == asked.fence.epoch)
        return bad_order("asks once more for the fence of", index);
      before = asked;
      COMM_TRY(fail_line(index, fmt::format("rank {} asked for it", name_.peer)));
      return line(index).phase == Phase::kFenced ? on_fence(index) : Status::ok();
    }
    case MessageType::kRebuild: {
      RebuildWire rebuild;
      COMM_TRY(message.read(&rebuild, name_.peer));
      COMM_TRY(check_index(rebuild.index));
      return on_rebuild(rebuild);
    }
    default:
      return error(Code::kRemote, "rank {} sent an unexpected control message of kind {}",
                   name_.peer, static_cast<int>(message.type));
  }
}

Status Receiver::bad_order(const char* what, int index) const {
  return error(Code::kRemote,
               "rank {} {} queue pair {}: it does not keep to the protocol; use the same libcomm "
               "on all ranks",
               name_.peer, what, index)
      .with_peer(name_.peer);
}

Status Receiver::on_offer(const EndWire& theirs) {
  if (connected_)
    return error(Code::kRemote, "rank {} opened a channel twice: the stream is corrupt",
                 name_.peer);
  const EndWire mine = describe();
  COMM_TRY(check_end(theirs, mine, name_.peer));
  theirs_ = theirs;
  COMM_TRY(bundle_->connect(theirs));
  for (int index = 0; index < bundle_->shape().qps(); ++index) line(index).told_ready = false;
  connected_ = true;
  log_info(Subsys::kNet, "rank {}: RDMA channel from rank {} on lane {} over {}", name_.rank,
           name_.peer, name_.lane, bundle_->nic(0).info().to_text());
  return control_->send(MessageType::kAnswer, describe());
}

Status Receiver::on_failed(int index) {
  line(index).told_ready = false;
  if (asked_[static_cast<size_t>(index)].pending) return Status::ok();
  return control_->send(MessageType::kBroken,
                        QpNews{static_cast<uint32_t>(index), line(index).epoch});
}

Status Receiver::on_drained(int index) {
  enter(index, Phase::kFenced);
  bundle_->destroy(index);
  return asked_[static_cast<size_t>(index)].pending ? on_fence(index) : Status::ok();
}

// Both ends are fenced: says what came, and writes again what went lost.
Status Receiver::on_fence(int index) {
  Asked& asked = asked_[static_cast<size_t>(index)];
  asked.pending = false;
  FenceWire fenced;
  fenced.index = static_cast<uint32_t>(index);
  fenced.epoch = line(index).epoch;
  fenced.next = next_;
  for (uint64_t i = 0; i < kArrivals; ++i) fenced.arrived[i] = incoming(next_ + i).parts;
  COMM_TRY(control_->send(MessageType::kFenced, fenced));
  const FenceWire& theirs = asked.fence;
  for (uint64_t sequence = std::max(acknowledged_, theirs.next); sequence < written_; ++sequence) {
    const uint64_t ahead = sequence - theirs.next;
    const bool came = ahead < kGrants && theirs.arrived[ahead] != 0;
    const bool waits =
        std::find(write_again_.begin(), write_again_.end(), sequence) != write_again_.end();
    if (!came && !waits && entry_qp_[sequence % kGrants] == index) write_again_.push_back(sequence);
  }
  return Status::ok();
}

// The sender fences a queue pair whose other end here is still to be made: it never was.
void Receiver::give_up_rebuild(int index, uint32_t epoch) {
  const auto waiting = std::find_if(
      rebuilds_waiting_.begin(), rebuilds_waiting_.end(), [&](const WaitingRebuild& rebuild) {
        return rebuild.wish.index == static_cast<uint32_t>(index) && rebuild.wish.epoch == epoch;
      });
  if (waiting == rebuilds_waiting_.end()) return;
  rebuilds_waiting_.erase(waiting);
  line(index).epoch = epoch;
}

Status Receiver::make_anew(int index, const RebuildWire& rebuild) {
  COMM_TRY(bundle_->rebuild(index, rebuild.epoch));
  return bundle_->connect_one(index, rebuild.rail, rebuild.qp);
}

Status Receiver::on_rebuild(const RebuildWire& rebuild) {
  const auto index = static_cast<int>(rebuild.index);
  const bool waits = std::any_of(
      rebuilds_waiting_.begin(), rebuilds_waiting_.end(),
      [&](const WaitingRebuild& waiting) { return waiting.wish.index == rebuild.index; });
  if (line(index).phase != Phase::kFenced || rebuild.epoch != line(index).epoch + 1 || waits)
    return bad_order("replaces at the wrong time", index);
  COMM_TRY(check_rebuild(rebuild, bundle_->nic_of(index).info().ethernet, name_.peer));
  if (!bundle_->nic_of(index).port_is_up()) {
    rebuilds_waiting_.push_back({rebuild});
    return Status::ok();
  }
  const Status made = make_anew(index, rebuild);
  note_rebuild(index, made);
  if (!made) {
    rebuilds_waiting_.push_back({rebuild, line(index).down_until});
    return Status::ok();
  }
  RebuildWire rebuilt = rebuild;
  rebuilt.qp = bundle_->qp(index)->wire();
  line(index).epoch = rebuild.epoch;
  // What was heard of the one before, or of all when the channel opened, says nothing of this one:
  // a grant that the sender's device does not take yet would wait for COMM_IB_TIMEOUT to go again.
  line(index).told_ready = false;
  enter(index, Phase::kLive);
  rebuilt.rail = {};
  bundle_->nic_of(index).describe(&rebuilt.rail);
  bundle_->qp(index)->describe_ece(&rebuilt.rail, context_->options);
  ChannelStatistics::add(statistics_->rebuilt_qps);
  return control_->send(MessageType::kRebuilt, rebuilt);
}

}  // namespace libcomm::rdma
