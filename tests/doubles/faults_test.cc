// The faults that tests ask the double for, by environment and by its control functions.
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "tests/doubles/endpoint.h"
#include "tests/doubles/environment.h"
#include "tests/doubles/ibverbs/control.h"

namespace libcomm::test {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

class DoubleFaults : public testing::Test {
 protected:
  DoubleEnvironment environment_;
};

rdma_double_qp_t counters(const Endpoint& endpoint) {
  rdma_double_qp_t value{};
  EXPECT_EQ(rdma_double_qp(endpoint.qp->qp_num, &value), 0);
  return value;
}

// The next asynchronous event; -1 if there is none within a minute.
int event(Endpoint& endpoint) {
  pollfd entry{endpoint.context->async_fd, POLLIN, 0};
  ibv_async_event value{};
  if (::poll(&entry, 1, 60'000) != 1 || ibv_get_async_event(endpoint.context, &value) != 0)
    return -1;
  ibv_ack_async_event(&value);
  return value.event_type;
}

TEST_F(DoubleFaults, DelayedPacketsTakeTheirTime) {
  environment_.set("DELAY", "30ms");
  Pair pair;
  const auto start = Clock::now();
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
  EXPECT_GE(Clock::now() - start, milliseconds(30));
}

TEST_F(DoubleFaults, JitterOvertakesBetweenQueuePairsAndNotWithinOne) {
  environment_.set("JITTER", "3ms");
  constexpr uint64_t kMessages = 40;
  Endpoint first, second, receiver;
  Endpoint beside(receiver);  // one completion queue shows the order of both
  first.connect(receiver.address());
  receiver.connect(first.address());
  second.connect(beside.address());
  beside.connect(second.address());
  for (uint64_t i = 0; i < kMessages; ++i) {
    ASSERT_EQ(receiver.receive(i, 0), 0);
    ASSERT_EQ(beside.receive(i, 0), 0);
  }
  for (uint64_t i = 0; i < kMessages; ++i) {
    ASSERT_EQ(first.send(IBV_WR_RDMA_WRITE_WITH_IMM, i, 8, 0, 0, 0), 0);
    ASSERT_EQ(second.send(IBV_WR_RDMA_WRITE_WITH_IMM, i, 8, 0, 0, 0), 0);
  }
  // Without jitter the two would move in step.
  uint64_t next[2] = {0, 0}, apart = 0;
  for (uint64_t i = 0; i < 2 * kMessages; ++i) {
    const ibv_wc wc = receiver.completion();
    ASSERT_EQ(wc.imm_data, next[wc.qp_num == beside.qp->qp_num]++);
    apart = std::max(apart, std::max(next[0], next[1]) - std::min(next[0], next[1]));
  }
  EXPECT_GT(apart, 1u);
}

TEST_F(DoubleFaults, TheNthRequestOfTheNthQueuePairFails) {
  environment_.set("FAIL", "qp=3:op=2:status=rem_op");
  Pair first;
  Pair second;  // its a is the third queue pair
  for (uint64_t i = 1; i <= 3; ++i) {
    ASSERT_EQ(first.a.send(IBV_WR_RDMA_WRITE, i, 8), 0);
    EXPECT_EQ(first.a.completion().status, IBV_WC_SUCCESS);
    ASSERT_EQ(second.a.send(IBV_WR_RDMA_WRITE, i, 8), 0);
  }
  EXPECT_EQ(second.a.completion().status, IBV_WC_SUCCESS);
  EXPECT_EQ(second.a.completion().status, IBV_WC_REM_OP_ERR);
  EXPECT_EQ(second.a.completion().status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(second.a.state(), IBV_QPS_ERR);
}

TEST_F(DoubleFaults, AQueuePairIsKilled) {
  Pair pair;
  ASSERT_EQ(pair.a.receive(1, 8), 0);
  ASSERT_EQ(rdma_double_kill(pair.a.qp->qp_num), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(event(pair.a), IBV_EVENT_QP_FATAL);
  ASSERT_EQ(pair.b.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
  EXPECT_EQ(pair.b.completion().status, IBV_WC_RETRY_EXC_ERR);
  EXPECT_EQ(rdma_double_kill(1), ENOENT);
}

TEST_F(DoubleFaults, TheNextRequestFails) {
  Pair pair;
  ASSERT_EQ(rdma_double_fail_next(pair.a.qp->qp_num, IBV_WC_REM_ACCESS_ERR), 0);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_REM_ACCESS_ERR);
}

TEST_F(DoubleFaults, LostPacketsAreSentAgainUntilTheRetriesEnd) {
  Pair pair;
  pair.a.fill(0, 100'000, 1);
  ASSERT_EQ(rdma_double_lose_next(pair.a.qp->qp_num, 2), 0);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 100'000), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
  EXPECT_TRUE(pair.b.filled(0, 100'000, 1));
  EXPECT_EQ(counters(pair.a).retransmissions, 2u);
  // One loss more than retry_cnt in a row.
  ASSERT_EQ(rdma_double_lose_next(pair.a.qp->qp_num, 3), 0);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 2, 100'000), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_RETRY_EXC_ERR);
}

TEST_F(DoubleFaults, SmallMessagesOfOneQueuePairAreLost) {
  environment_.set("LOSE", "qp=1:below=64:count=1");
  Pair pair;
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 64), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
  EXPECT_EQ(counters(pair.a).retransmissions, 0u);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 2, 63), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
  EXPECT_EQ(counters(pair.a).retransmissions, 1u);
  ASSERT_EQ(pair.b.send(IBV_WR_RDMA_WRITE, 3, 8), 0);
  EXPECT_EQ(pair.b.completion().status, IBV_WC_SUCCESS);
}

TEST_F(DoubleFaults, APortThatIsDownLosesPacketsUntilItIsUp) {
  EndpointOptions options;
  options.retry_count = 7;
  options.timeout = 18;  // 1.1 s, eight times: the port is up again long before the last
  Pair pair(options);
  ASSERT_EQ(rdma_double_port("double0", 1, 0), 0);
  EXPECT_EQ(event(pair.a), IBV_EVENT_PORT_ERR);
  EXPECT_EQ(event(pair.b), IBV_EVENT_PORT_ERR);
  ibv_port_attr attributes{};
  ASSERT_EQ(ibv_query_port(pair.a.context, 1, &attributes), 0);
  EXPECT_EQ(attributes.state, IBV_PORT_DOWN);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
  EXPECT_FALSE(pair.a.completion_within(milliseconds(20)));
  ASSERT_EQ(rdma_double_port("double0", 1, 1), 0);
  EXPECT_EQ(event(pair.a), IBV_EVENT_PORT_ACTIVE);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
  EXPECT_EQ(rdma_double_port("double7", 1, 0), ENOENT);
}

TEST_F(DoubleFaults, PortsGoDownAndUpByTheClock) {
  environment_.set("DEVICES", "2");
  environment_.set("PORT_EVENTS", "1/1:down@1ms,1/1:up@5ms");
  EndpointOptions second;
  second.device = 1;
  Endpoint untouched;
  Endpoint endpoint(second);
  EXPECT_EQ(event(endpoint), IBV_EVENT_PORT_ERR);
  EXPECT_EQ(event(endpoint), IBV_EVENT_PORT_ACTIVE);
  pollfd entry{untouched.context->async_fd, POLLIN, 0};
  EXPECT_EQ(::poll(&entry, 1, 0), 0);
}

TEST_F(DoubleFaults, ReceivesThatAreKeptDoNotComeBackInError) {
  Pair pair;
  ASSERT_EQ(pair.b.receive(1, 0), 0);
  ASSERT_EQ(rdma_double_keep_receives(pair.b.qp->qp_num), 0);
  ASSERT_EQ(pair.b.to(IBV_QPS_ERR), 0);
  EXPECT_TRUE(pair.b.completions_now().empty());
}

TEST_F(DoubleFaults, AHeldWriteLandsWhenItIsReleased) {
  Pair pair;
  pair.a.fill(0, 8, 1);
  ASSERT_EQ(rdma_double_hold(pair.b.qp->qp_num, 0), 0);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
  // The sender gives up; its packet is still on the way.
  ASSERT_EQ(pair.a.to(IBV_QPS_ERR), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(counters(pair.b).underway_packets, 1u);
  EXPECT_FALSE(pair.b.filled(0, 8, 1));
  ASSERT_EQ(rdma_double_release(pair.b.qp->qp_num), 0);
  EXPECT_TRUE(pair.b.filled(0, 8, 1));
}

TEST_F(DoubleFaults, AHeldWriteCannotLandInAQueuePairThatIsInError) {
  Pair pair;
  pair.a.fill(0, 8, 1);
  ASSERT_EQ(rdma_double_hold(pair.b.qp->qp_num, 1), 0);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_RETRY_EXC_ERR);
  ASSERT_EQ(pair.b.to(IBV_QPS_ERR), 0);
  EXPECT_GE(counters(pair.b).underway_packets, 1u);
  ASSERT_EQ(rdma_double_release(pair.b.qp->qp_num), 0);
  EXPECT_EQ(counters(pair.b).underway_packets, 0u);
  EXPECT_FALSE(pair.b.filled(0, 8, 1));
}

TEST_F(DoubleFaults, AHeldPacketThatWasSentAgainIsExecutedOnce) {
  EndpointOptions options;
  options.retry_count = 7;
  options.timeout = 18;  // 1.1 s, eight times: released long before the last
  Pair pair(options);
  for (uint64_t i = 0; i < 4; ++i) ASSERT_EQ(pair.b.receive(i, 0), 0);
  ASSERT_EQ(rdma_double_hold(pair.b.qp->qp_num, 1), 0);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE_WITH_IMM, 7, 8), 0);
  while (counters(pair.b).underway_packets < 2) std::this_thread::yield();
  ASSERT_EQ(rdma_double_release(pair.b.qp->qp_num), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
  EXPECT_EQ(pair.b.completion().imm_data, 7u);
  EXPECT_FALSE(pair.b.completion_within(milliseconds(20)));
}

TEST_F(DoubleFaults, AWriteWhoseAcknowledgementIsHeldHasLandedAndIsNotComplete) {
  Pair pair;
  pair.a.fill(0, 8, 1);
  ASSERT_EQ(rdma_double_hold_answers(pair.a.qp->qp_num), 0);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
  EXPECT_TRUE(pair.b.filled(0, 8, 1));
  EXPECT_TRUE(pair.a.completions_now().empty());
  ASSERT_EQ(rdma_double_release(pair.a.qp->qp_num), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
}

TEST_F(DoubleFaults, ASlowReceiverTakesItsRateByItsOwnClock) {
  environment_.set("DEVICES", "2");
  environment_.set("RECEIVE_RATE", "0,20000000");
  EndpointOptions slow;
  slow.device = 1;
  Pair pair({}, slow);
  constexpr size_t kBytes = 1'000'000;
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, kBytes), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
  rdma_double_device_t device{};
  ASSERT_EQ(rdma_double_device("double1", &device), 0);
  EXPECT_EQ(device.received_bytes, kBytes);
  EXPECT_GT(device.max_backlog_bytes, 0u);
  EXPECT_LE(device.max_backlog_bytes, kBytes);
  EXPECT_EQ(device.backlog_bytes, 0u);
  // 50 ms for the bytes, and a little for headers.
  EXPECT_NEAR(static_cast<double>(device.busy_ns), 50e6, 1e6);
  EXPECT_GE(device.span_ns, device.busy_ns);
  // The other direction is not slow.
  ASSERT_EQ(pair.b.send(IBV_WR_RDMA_WRITE, 1, kBytes), 0);
  EXPECT_EQ(pair.b.completion().status, IBV_WC_SUCCESS);
  ASSERT_EQ(rdma_double_device("double0", &device), 0);
  EXPECT_EQ(device.busy_ns, 0u);
}

TEST_F(DoubleFaults, ReceiverNotReadyIsTriedAgain) {
  EndpointOptions options;
  options.receiver_retry = 7;
  Pair pair(options);
  ASSERT_EQ(pair.a.send(IBV_WR_SEND, 1, 8), 0);
  while (counters(pair.a).receiver_not_ready < 3) std::this_thread::yield();
  ASSERT_EQ(pair.b.receive(1, 8), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
}

TEST_F(DoubleFaults, LimitsAreKept) {
  environment_.set("MEMLOCK", "2M");
  environment_.set("MAX_QP", "2");
  environment_.set("MAX_INLINE", "64");
  Endpoint endpoint;  // registers 1 MiB
  std::vector<std::byte> more(1 << 20), another(1);
  ibv_mr* mr = ibv_reg_mr(endpoint.pd, more.data(), more.size(), IBV_ACCESS_LOCAL_WRITE);
  ASSERT_NE(mr, nullptr);
  EXPECT_EQ(ibv_reg_mr(endpoint.pd, another.data(), 1, IBV_ACCESS_LOCAL_WRITE), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
  ibv_device_attr attributes{};
  ASSERT_EQ(ibv_query_device(endpoint.context, &attributes), 0);
  EXPECT_EQ(attributes.max_qp, 2);
  ibv_qp_init_attr init{};
  init.send_cq = init.recv_cq = endpoint.cq;
  init.cap = {1, 1, 1, 1, 65};
  init.qp_type = IBV_QPT_RC;
  EXPECT_EQ(ibv_create_qp(endpoint.pd, &init), nullptr);
  EXPECT_EQ(errno, EINVAL);
  init.cap.max_inline_data = 64;
  ibv_qp* second = ibv_create_qp(endpoint.pd, &init);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(ibv_create_qp(endpoint.pd, &init), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_EQ(ibv_destroy_qp(second), 0);
}

TEST_F(DoubleFaults, InFlightPacketsAreCounted) {
  Pair pair;
  ASSERT_EQ(rdma_double_hold(pair.b.qp->qp_num, 0), 0);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 10 * 1024), 0);
  EXPECT_EQ(counters(pair.a).in_flight_packets, 10u);
  ASSERT_EQ(rdma_double_release(pair.b.qp->qp_num), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
  EXPECT_EQ(counters(pair.a).in_flight_packets, 0u);
  EXPECT_EQ(counters(pair.a).max_in_flight_packets, 10u);
  rdma_double_qp_t list[4];
  ASSERT_EQ(rdma_double_list(list, 4), 2);
  EXPECT_EQ(list[0].number, pair.a.qp->qp_num);
  EXPECT_EQ(list[1].destination, pair.a.qp->qp_num);
}

}  // namespace
}  // namespace libcomm::test
