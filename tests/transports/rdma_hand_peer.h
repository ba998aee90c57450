// One end of an RDMA channel that a test plays by hand against a real one: it says and writes what
// it likes, when it likes, and so brings about orders of events that traffic seldom does.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <deque>

#include "tests/transports/pump.h"
#include "transports/rdma/channel_end.h"

namespace libcomm::test {

// The device, and what the channel ends of a test share.
struct HandGround {
  explicit HandGround(int qps_per_rail) {
    const auto verbs = rdma::Verbs::open();
    EXPECT_TRUE(verbs.is_ok()) << verbs.status().to_string();
    auto found = rdma::survey(*verbs, context->options);
    EXPECT_TRUE(found.is_ok()) << found.status().to_string();
    context->rank = 0;
    context->options.qps_per_rail = qps_per_rail;
    context->segment_bytes = 16 << 10;
    context->nics = {found->nics.front()};
    context->registrations =
        std::make_shared<rdma::RegistrationCache>(context->nics, memory, size_t{1} << 30);
    context->always_readable = UniqueFd(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
    int fds[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    near = UniqueFd(fds[0]);
    far = UniqueFd(fds[1]);
  }
  std::shared_ptr<rdma::PinBudget> budget() const {
    return std::make_shared<rdma::PinBudget>(8 * context->segment_bytes);
  }
  // The end under test is rank 0's and the hand's is rank 1's.
  static rdma::ChannelName name() { return {0, 1, 0, 1}; }

  // User memory that is registered.
  class Memory final : public UserMemory {
   public:
    bool find(const void* address, size_t bytes, Range* range) const override {
      *range = {1, const_cast<std::byte*>(bytes_.data()), bytes_.size(), false};
      const auto* begin = static_cast<const std::byte*>(address);
      return begin >= bytes_.data() && begin + bytes <= bytes_.data() + bytes_.size();
    }
    bool is_live(uint64_t) const override { return true; }
    uint64_t ended() const override { return 0; }
    std::byte* data() { return bytes_.data(); }

   private:
    Bytes bytes_ = pattern(64 << 10, 1);
  };
  const std::shared_ptr<Memory> memory = std::make_shared<Memory>();
  const std::shared_ptr<rdma::ChannelContext> context = std::make_shared<rdma::ChannelContext>();
  UniqueFd near, far;
};

class HandPeer {
 public:
  HandPeer(HandGround& ground, bool sends)
      : sends_(sends), context_(ground.context), control_(std::move(ground.far), 0) {
    auto memory = rdma::PinnedMemory::create(context_->nics, kMemory, false, context_->counters);
    EXPECT_TRUE(memory.is_ok());
    memory_ = *std::move(memory);
    auto bundle = rdma::Bundle::create(
        context_->nics, {1, context_->options.qps_per_rail, {200, 200}}, context_->options);
    EXPECT_TRUE(bundle.is_ok());
    bundle_ = *std::move(bundle);
  }

  rdma::Bundle& bundle() { return *bundle_; }
  rdma::EndWire end() const {
    rdma::EndWire mine;
    mine.segment_bytes = context_->segment_bytes;
    mine.ring = memory_->wire();
    bundle_->describe(&mine);
    return mine;
  }
  // The other end's is known by `theirs`, or by what it says first.
  void connect(const rdma::EndWire& theirs) {
    theirs_ = theirs;
    EXPECT_TRUE(bundle_->connect(theirs).is_ok());
  }
  // The channel is open when the other end has looked until this is true.
  bool opens() {
    using rdma::MessageType;
    if (sends_ && !said_end_) say(MessageType::kOffer, end());
    said_end_ = said_end_ || sends_;
    rdma::EndWire theirs;
    if (!hear(sends_ ? MessageType::kAnswer : MessageType::kOffer, &theirs)) return false;
    connect(theirs);
    if (sends_) {
      say(MessageType::kReady, rdma::QpNews{rdma::kAllQps, 0});
    } else {
      say(MessageType::kAnswer, end());
    }
    return true;
  }

  template <typename T>
  void say(rdma::MessageType type, const T& body) {
    EXPECT_TRUE(control_.send(type, body).is_ok());
  }
  // Takes the first message of this kind out of what has been said so far; false: there is none.
  template <typename T>
  bool hear(rdma::MessageType type, T* body) {
    for (;;) {
      auto message = control_.receive();
      if (!message || !*message) break;
      heard_.push_back(**message);
    }
    for (auto at = heard_.begin(); at != heard_.end(); ++at) {
      if (at->type != type) continue;
      EXPECT_TRUE(at->read(body, 0).is_ok());
      heard_.erase(at);
      return true;
    }
    return false;
  }

  // Writes `value` at `offset` into the other end's ring and announces it, on queue pair `index`;
  // it has arrived when this returns.
  template <typename T>
  void write(int index, size_t offset, const T& value, const rdma::Immediate& what) {
    std::memcpy(memory_->data() + offset, &value, sizeof value);
    ibv_sge piece{reinterpret_cast<uintptr_t>(memory_->data() + offset), sizeof value,
                  memory_->lkey(0)};
    ibv_send_wr request{};
    request.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    request.sg_list = &piece;
    request.num_sge = 1;
    request.imm_data = htonl(what.encode());
    request.wr.rdma.remote_addr = theirs_.ring.address + offset;
    request.wr.rdma.rkey = theirs_.ring.rkey[0];
    uint64_t sequence = 0;
    ASSERT_TRUE(bundle_->qp(index)->post({&request, 1}, true, &sequence).is_ok());
    std::vector<rdma::Completion> done;
    ASSERT_TRUE(until([&] {
      bundle_->poll(&done);
      return bundle_->qp(index)->reclaimed() > sequence;
    }));
  }
  // Entry `sequence` of the grant ring: a place for any segment.
  void grant(int index, uint32_t sequence) {
    rdma::GrantEntry entry;
    entry.flags = rdma::kGrantsMemory;
    entry.rails = 1;
    entry.sequence = entry.grant = sequence;
    entry.address = reinterpret_cast<uintptr_t>(memory_->data() + kMemory / 2);
    entry.bytes = static_cast<uint32_t>(context_->segment_bytes);
    entry.rkey[0] = memory_->rkey(0);
    write(index, sequence * sizeof entry, entry, {rdma::Immediate::kGrant, 0, sequence});
  }
  // A new queue pair in the place of `index`, as a rebuild message tells it.
  rdma::RebuildWire rebuilt(int index, uint32_t epoch) {
    EXPECT_TRUE(bundle_->rebuild(index, epoch).is_ok());
    rdma::RebuildWire wire;
    wire.index = static_cast<uint32_t>(index);
    wire.epoch = epoch;
    wire.qp = bundle_->qp(index)->wire();
    context_->nics.front()->describe(&wire.rail);
    return wire;
  }
  static rdma::FenceWire fence(int index, uint32_t epoch) {
    rdma::FenceWire wire;
    wire.index = static_cast<uint32_t>(index);
    wire.epoch = epoch;
    return wire;
  }

 private:
  static constexpr size_t kMemory = 256 << 10;
  const bool sends_;
  const std::shared_ptr<const rdma::ChannelContext> context_;
  rdma::Control control_;
  std::unique_ptr<rdma::PinnedMemory> memory_;
  std::unique_ptr<rdma::Bundle> bundle_;
  std::deque<rdma::Message> heard_;
  rdma::EndWire theirs_;
  bool said_end_ = false;
};

}  // namespace libcomm::test
