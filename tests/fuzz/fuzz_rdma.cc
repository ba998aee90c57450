// What an RDMA peer says: offers, control messages, and what it writes into rings, as single pieces
// and as a peer that opens a channel properly and then does anything at all. The latter needs the
// double of libibverbs, which ctest names in LD_LIBRARY_PATH.
#include <arpa/inet.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <deque>

#include "tests/fuzz/fuzz.h"
#include "transports/rdma/offer.h"
#include "transports/rdma/receiver.h"
#include "transports/rdma/sender.h"

namespace libcomm::fuzz {
namespace {

using namespace rdma;

constexpr int kPeer = 1;
constexpr size_t kSegment = 16 << 10;

void refused(const Status& status) {
  FUZZ_CHECK(status.code() == Code::kRemote && status.peer() == kPeer);
  for (const char c : status.message()) FUZZ_CHECK(static_cast<unsigned char>(c) >= 0x20);
}

// ---- single pieces -----------------------------------------------------------------------------

void offers(std::string_view bytes) {
  std::string text;
  const RankOffer offer = read_offer(bytes, &text);
  FUZZ_CHECK(offer.rails <= kMaxRails);
  FUZZ_CHECK(common_rails(offer, offer) == offer.rails);
}

EndWire good_end() {
  EndWire end;
  end.rails = 2;
  end.qps_per_rail = 2;
  end.segment_bytes = kSegment;
  for (RailWire& rail : end.rail) {
    rail.mtu = IBV_MTU_4096;
    rail.link_layer = IBV_LINK_LAYER_ETHERNET;
  }
  for (QpWire& qp : end.qp) qp = {17, 4711};
  return end;
}

void ends(Input input) {
  const auto theirs = input.take<EndWire>();
  const EndWire mine = good_end();
  if (const Status status = check_end(theirs, mine, kPeer); !status) return refused(status);
  FUZZ_CHECK(theirs.rails == mine.rails && theirs.qps_per_rail == mine.qps_per_rail);
  FUZZ_CHECK(theirs.rail[1].mtu >= IBV_MTU_256 && theirs.rail[1].mtu <= IBV_MTU_4096);
  for (int qp = 0; qp < 5; ++qp)
    FUZZ_CHECK(theirs.qp[qp].number < 1 << 24 && theirs.qp[qp].first_psn < 1 << 24);
}

void entries(Input input) {
  const auto header = input.take<ArrivalHeader>();
  if (const Status status = check_arrival(header, 5, kSegment, kPeer); !status) {
    refused(status);
  } else {
    FUZZ_CHECK(header.bytes <= kSegment && header.parts >= 1 && header.parts <= kMaxDataQps);
    FUZZ_CHECK(header.kind != ArrivalKind::kSmall || header.bytes <= kSmallBytes);
  }
  const auto grant = input.take<GrantEntry>();
  if (const Status status = check_grant(grant, 5, 2, kPeer); !status) refused(status);
  const auto what = Immediate::decode(input.take<uint32_t>());
  const int64_t ahead = what.distance(input.take<uint64_t>());
  FUZZ_CHECK(what.part < kMaxDataQps && ahead >= -(1 << 23) && ahead < 1 << 23);
}

struct Pair {
  Pair() {
    int fds[2];
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    near = UniqueFd(fds[0]);
    far = UniqueFd(fds[1]);
  }
  UniqueFd near, far;
};

// Messages come out whole, or not at all, however the bytes are cut.
void control_streams(Input input) {
  Pair pair;
  Control control(std::move(pair.near), kPeer);
  const size_t piece = size_t{1} + input.byte() * 16;
  std::string_view bytes = input.rest();
  for (;;) {
    const size_t now = std::min(piece, bytes.size());
    if (now > 0) (void)!::send(pair.far.get(), bytes.data(), now, MSG_NOSIGNAL);
    bytes.remove_prefix(now);
    if (bytes.empty()) ::shutdown(pair.far.get(), SHUT_WR);
    for (;;) {
      auto message = control.receive();
      if (!message) return refused(message.status());
      if (!*message) break;
      FUZZ_CHECK((*message)->body.size() <= kMaxMessage);
      RebuildWire rebuild;
      if (const Status status = (*message)->read(&rebuild, kPeer); !status) refused(status);
    }
    if (now == 0) break;
  }
  FUZZ_CHECK(control.closed());
}

// ---- a peer that does anything -----------------------------------------------------------------

class OneRange final : public UserMemory {
 public:
  bool find(const void* address, size_t bytes, Range* range) const override {
    *range = {1, const_cast<std::byte*>(memory_.data()), memory_.size(), false};
    const auto* begin = static_cast<const std::byte*>(address);
    return begin >= memory_.data() && begin + bytes <= memory_.data() + memory_.size();
  }
  bool is_live(uint64_t) const override { return true; }
  uint64_t ended() const override { return 0; }
  std::byte* data() { return memory_.data(); }
  size_t bytes() const { return memory_.size(); }

 private:
  std::vector<std::byte> memory_ = std::vector<std::byte>(4 * kSegment);
};

// Made once: the device, and what the victim's channels share.
struct Ground {
  std::shared_ptr<OneRange> memory = std::make_shared<OneRange>();
  std::shared_ptr<ChannelContext> context;  // null without the double

  static Ground& get() {
    static Ground& ground = *new Ground;
    return ground;
  }

 private:
  Ground() {
    const auto verbs = Verbs::open();
    if (!verbs) return;
    Options options;
    options.retry_count = 1;
    options.timeout = 8;
    auto found = survey(*verbs, options);
    if (!found || found->nics.empty()) return;
    context = std::make_shared<ChannelContext>();
    context->rank = 0;
    context->options = options;
    context->segment_bytes = kSegment;
    context->nics = {found->nics.front()};
    context->registrations =
        std::make_shared<RegistrationCache>(context->nics, memory, size_t{1} << 30);
    context->always_readable = UniqueFd(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
  }
};

class Enemy {
 public:
  Enemy(Ground& ground, UniqueFd fd, bool sends)
      : ground_(ground), sends_(sends), control_(std::move(fd), 0) {
    auto memory = PinnedMemory::create(ground.context->nics, kGrants * kEntryBytes, false,
                                       std::make_shared<Counters>());
    FUZZ_CHECK(memory.is_ok());
    memory_ = *std::move(memory);
    auto bundle = Bundle::create(ground.context->nics, {1, 1, {200, 200}}, ground.context->options);
    FUZZ_CHECK(bundle.is_ok());
    bundle_ = *std::move(bundle);
  }

  // What an honest end says first.
  EndWire end() {
    EndWire mine;
    mine.segment_bytes = kSegment;
    mine.ring = memory_->wire();
    bundle_->describe(&mine);
    return mine;
  }
  void say_end() {
    (void)control_.send(sends_ ? MessageType::kOffer : MessageType::kAnswer, end());
  }

  void listen() {
    for (;;) {
      const auto message = control_.receive();
      if (!message || !*message) return;
      const auto type = sends_ ? MessageType::kAnswer : MessageType::kOffer;
      EndWire end;
      note(**message);
      if ((*message)->type != type || theirs_known_ || !(*message)->read(&end, 0)) continue;
      theirs_ = end;
      theirs_known_ = bundle_->connect(end).is_ok();
      for (int index = 0; index < 2; ++index)
        connected_[index] |= theirs_known_ && epoch_[index] == 0;
    }
  }

  // One step of replacing a queue pair, as the protocol has it, or cut short by a farewell.
  void play_fail_over(Input* input) {
    if (asked_.empty()) {
      const int index = input->byte() % 2;
      const uint32_t epoch = epoch_[index];
      if (sends_) return fence(MessageType::kFence, index, epoch, input);
      (void)control_.send(MessageType::kBroken, QpNews{static_cast<uint32_t>(index), epoch});
      return;
    }
    const auto [type, index, epoch, rebuild] = asked_.front();
    asked_.pop_front();
    if (!sends_ && input->byte() % 4 == 0)
      send_changed(MessageType::kGoodbye, GoodbyeWire{input->byte() % 20u}, input);
    switch (type) {
      case MessageType::kFence:
        return fence(MessageType::kFenced, index, epoch, input);
      case MessageType::kBroken:
        return fence(MessageType::kFence, index, epoch, input);
      case MessageType::kFenced:
      case MessageType::kRebuild: {
        const bool begins = type == MessageType::kFenced;
        epoch_[index] = begins ? epoch + 1 : epoch;
        connected_[index] = false;
        if (!bundle_->rebuild(index, epoch_[index])) return;
        RebuildWire mine{static_cast<uint32_t>(index), epoch_[index], bundle_->qp(index)->wire(),
                         end().rail[0]};
        if (!begins) connect(index, rebuild);
        const int times = input->byte() % 8 == 0 ? 2 + input->byte() % 6 : 1;
        for (int i = 0; i < times; ++i)
          send_changed(begins ? MessageType::kRebuild : MessageType::kRebuilt, mine, input);
        return;
      }
      default:
        if (bundle_->qp(index) == nullptr || bundle_->qp(index)->failed()) return;
        connect(index, rebuild);
        (void)control_.send(MessageType::kReady, QpNews{static_cast<uint32_t>(index), epoch});
    }
  }

  void say(std::string_view bytes) {
    (void)!::send(control_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }

  // A message of a known kind, its body well-formed but for what the input changes.
  void say_message(Input* input) {
    const auto type = static_cast<MessageType>(input->byte() % 12);
    switch (type) {
      case MessageType::kOffer:
      case MessageType::kAnswer:
        return send_changed(type, end(), input);
      case MessageType::kReady:
      case MessageType::kBroken:
        return send_changed(type, QpNews{uint32_t{input->byte()} % 3, 0}, input);
      case MessageType::kFence:
      case MessageType::kFenced: {
        FenceWire fence;
        fence.index = input->byte() % 3;
        fence.next = input->byte() % 4;
        return send_changed(type, fence, input);
      }
      case MessageType::kRebuild:
      case MessageType::kRebuilt: {
        const EndWire mine = end();
        return send_changed(
            type,
            RebuildWire{uint32_t{input->byte()} % 3, input->byte() % 3u, mine.qp[0], mine.rail[0]},
            input);
      }
      default:
        return send_changed(type, GoodbyeWire{input->byte() % 20u}, input);
    }
  }

  // Writes an entry of the victim's ring and announces it.
  void write_entry(Input* input) {
    const int index = input->byte() % 2;
    QueuePair* qp = bundle_->qp(index);
    poll();
    if (!theirs_known_ || !connected_[index] || qp == nullptr || qp->failed() ||
        qp->send_room() < 1)
      return;
    const uint64_t sequence = next_ + input->byte() % 4 - (input->byte() % 8 == 0);
    ibv_sge piece{};
    if (sends_) {
      ArrivalHeader header;
      header.kind = static_cast<ArrivalKind>(1 + input->byte() % 3);
      header.sequence = static_cast<uint32_t>(sequence);
      header.bytes = input->take<uint16_t>() % (kSegment + 2);
      if (header.kind == ArrivalKind::kSmall) header.bytes %= kSmallBytes + 2;
      header.grant = grant_;
      header.grants_seen = input->byte() % 4;
      header.signature.op = 1;
      put(sequence % kArrivals * kEntryBytes, header, input, &piece);
      if (header.kind != ArrivalKind::kSmall) ++grant_;
    } else {
      GrantEntry grant;
      grant.flags = input->byte() % 4;
      grant.rails = 1;
      grant.sequence = static_cast<uint32_t>(sequence);
      grant.grant = grant_++;
      grant.address = reinterpret_cast<uintptr_t>(memory_->data());
      grant.bytes = kSegment;
      grant.rkey[0] = memory_->rkey(0);
      grant.released = input->byte() % 4;
      grant.signature.op = 1;
      put(sequence % kGrants * sizeof grant, grant, input, &piece);
    }
    if (input->byte() % 2 == 0) next_ = sequence + 1;
    Immediate what{sends_ ? Immediate::kArrival : Immediate::kGrant, 0,
                   static_cast<uint32_t>(sequence)};
    if (input->byte() % 8 == 0) what.part = input->byte() % 64;
    if (input->byte() % 16 == 0) what.kind = static_cast<Immediate::Kind>(input->byte() % 4);
    ibv_send_wr write{};
    write.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    write.sg_list = &piece;
    write.num_sge = 1;
    write.imm_data = htonl(what.encode());
    write.wr.rdma.remote_addr =
        theirs_.ring.address +
        sequence % (sends_ ? kArrivals : kGrants) * (sends_ ? kEntryBytes : sizeof(GrantEntry));
    write.wr.rdma.rkey = theirs_.ring.rkey[0];
    uint64_t last = 0;
    (void)qp->post({&write, 1}, true, &last);
    poll();
  }

  void break_queue_pair(int index) {
    if (QueuePair* qp = bundle_->qp(index % 2)) qp->fail();
  }

 private:
  // What the victim has said of a queue pair.
  struct Asked {
    MessageType type;
    int index;
    uint32_t epoch;
    RebuildWire rebuild;
  };
  void note(const Message& message) {
    RebuildWire rebuild;
    switch (message.type) {
      case MessageType::kBroken: {
        QpNews news;
        FUZZ_CHECK(message.read(&news, 0));
        rebuild.index = news.index;
        rebuild.epoch = news.epoch;
        break;
      }
      case MessageType::kFence:
      case MessageType::kFenced: {
        FenceWire fence;
        FUZZ_CHECK(message.read(&fence, 0));
        rebuild.index = fence.index;
        rebuild.epoch = fence.epoch;
        break;
      }
      case MessageType::kRebuild:
      case MessageType::kRebuilt:
        FUZZ_CHECK(message.read(&rebuild, 0));
        break;
      default:
        return;
    }
    FUZZ_CHECK(rebuild.index < 2);
    asked_.push_back({message.type, static_cast<int>(rebuild.index), rebuild.epoch, rebuild});
  }
  void connect(int index, const RebuildWire& theirs) {
    if (connected_[index]) return;
    connected_[index] = bundle_->connect_one(index, theirs.rail, theirs.qp).is_ok();
  }
  void fence(MessageType type, int index, uint32_t epoch, Input* input) {
    if (QueuePair* qp = bundle_->qp(index)) qp->fail();
    FenceWire fence;
    fence.index = static_cast<uint32_t>(index);
    fence.epoch = epoch;
    fence.next = input->byte() % 4;
    fence.arrived[input->byte() % 8] = input->byte() % 2;
    send_changed(type, fence, input);
  }
  template <typename T>
  void change(T* value, Input* input) {
    auto* bytes = reinterpret_cast<unsigned char*>(value);
    for (int left = input->byte() % 4 == 0 ? input->byte() % 8 : 0; left > 0; --left)
      bytes[input->take<uint16_t>() % sizeof(T)] ^= input->byte();
  }
  template <typename T>
  void send_changed(MessageType type, T body, Input* input) {
    change(&body, input);
    (void)control_.send(type, body);
  }
  template <typename T>
  void put(size_t at, T value, Input* input, ibv_sge* piece) {
    change(&value, input);
    std::memcpy(memory_->data() + at, &value, sizeof value);
    *piece = {reinterpret_cast<uintptr_t>(memory_->data() + at), sizeof value, memory_->lkey(0)};
  }
  void poll() {
    std::vector<Completion> done;
    bundle_->poll(&done);
  }

  Ground& ground_;
  const bool sends_;
  Control control_;
  std::unique_ptr<PinnedMemory> memory_;
  std::unique_ptr<Bundle> bundle_;
  EndWire theirs_;
  bool theirs_known_ = false;
  uint64_t next_ = 0;
  uint32_t grant_ = 0;
  uint32_t epoch_[2] = {0, 0};
  bool connected_[2] = {false, false};
  std::deque<Asked> asked_;
};

// False when the channel has failed, as it may, but not by a fault of its own.
bool goes_on(const Status& status) {
  if (status) return true;
  FUZZ_CHECK(status.code() != Code::kInternal);
  if (status.code() == Code::kRemote) FUZZ_CHECK(status.peer() == kPeer);
  return false;
}

bool use(Receiver& receiver, Ground& ground, Input* input) {
  Signature expected;
  expected.op = 1;
  const size_t bytes = input->take<uint16_t>() % (kSegment + 1);
  Segment segment;
  bool done = false;
  switch (input->byte() % 4) {
    case 0:
      if (!goes_on(receiver.peek(&segment))) return false;
      if (!segment.ready) return true;
      for (size_t i = 0; i < segment.bytes; i += 512) (void)static_cast<int>(segment.data[i]);
      return goes_on(receiver.release());
    case 1:
      return goes_on(receiver.receive_into(expected, ground.memory->data(), bytes, &done));
    case 2:
      receiver.expect(expected, ground.memory->data(), ground.memory->bytes(), kSegment);
      return true;
    default:
      return goes_on(receiver.peek(&segment));
  }
}

bool use(Sender& sender, Ground& ground, Input* input) {
  Signature signature;
  signature.op = 1;
  const size_t bytes = input->take<uint16_t>() % (kSegment + 1);
  uint64_t completed = 0;
  bool accepted = false;
  std::byte* slot = nullptr;
  switch (input->byte() % 3) {
    case 0:
      return goes_on(sender.post(signature, ground.memory->data(), bytes, &accepted));
    case 1:
      if (!goes_on(sender.reserve(&slot))) return false;
      return slot == nullptr || goes_on(sender.commit(signature, bytes));
    default:
      return goes_on(sender.progress(&completed));
  }
}

template <typename Victim>
void peers(Input input, bool enemy_sends) {
  Ground& ground = Ground::get();
  if (!ground.context) return;
  Pair pair;
  Enemy enemy(ground, std::move(pair.far), enemy_sends);
  auto made = Victim::open(ground.context, {0, kPeer, 0, 1},
                           std::make_shared<PinBudget>(8 * kSegment), std::move(pair.near));
  FUZZ_CHECK(made.is_ok());
  Victim& victim = **made;
  if (input.byte() % 8 != 0) enemy.say_end();
  for (int turn = 0; turn < 60; ++turn) {
    enemy.listen();
    switch (input.byte() % 10) {
      case 8:
      case 9:
        enemy.play_fail_over(&input);
        break;
      case 0:
        enemy.say_message(&input);
        break;
      case 1:
        if (input.byte() % 8 == 0) enemy.say(input.rest().substr(0, 40));
        break;
      case 2:
        if (input.byte() % 16 == 0) enemy.break_queue_pair(input.byte());
        break;
      case 3:
      case 4:
        enemy.write_entry(&input);
        break;
      default:
        break;
    }
    for (int look = 0; look < 3; ++look)
      if (!use(victim, ground, &input)) return;
    if (input.rest().empty() && turn > 20) break;
  }
  victim.withdraw();
}

}  // namespace

std::vector<std::string> seeds() {
  RankOffer offer;
  offer.rails = 2;
  ArrivalHeader arrival;
  arrival.sequence = 5;
  GrantEntry grant;
  grant.sequence = 5;
  grant.rails = 2;
  MessageHeader header;
  header.type = static_cast<uint16_t>(MessageType::kRebuild);
  header.bytes = sizeof(RebuildWire);
  std::string noise;
  uint32_t state = 12345;
  for (int i = 0; i < 600; ++i)
    noise += static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return {write_offer(offer, "two ports"),
          bytes_of(good_end()),
          bytes_of(arrival) + bytes_of(grant) + bytes_of(Immediate{}.encode()),
          "\7" + bytes_of(header) + bytes_of(RebuildWire{}),
          noise,
          noise.substr(200) + noise.substr(0, 100)};
}

}  // namespace libcomm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace libcomm::fuzz;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Input input(data, size);
  offers(bytes);
  ends(input);
  entries(input);
  control_streams(input);
  peers<libcomm::rdma::Receiver>(input, true);
  peers<libcomm::rdma::Sender>(input, false);
  return 0;
}
