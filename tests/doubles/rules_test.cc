// The double ends programs that break a rule of verbs, with a sentence that names the rule.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/doubles/endpoint.h"
#include "tests/doubles/environment.h"

namespace libcomm::test {
namespace {

class DoubleRules : public testing::Test {
 protected:
  // Death tests run again from the start: no thread of the double is there when they fork.
  DoubleRules() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  DoubleEnvironment environment_;
};
using DoubleRulesDeathTest = DoubleRules;

TEST_F(DoubleRulesDeathTest, StateChangesNeedTheirAttributes) {
  EXPECT_DEATH(
      {
        Endpoint endpoint;
        ibv_qp_attr attr{};
        attr.qp_state = IBV_QPS_INIT;
        attr.port_num = 1;
        ibv_modify_qp(endpoint.qp, &attr, IBV_QP_STATE | IBV_QP_PORT);
      },
      "rdma double: queue pair .* from RESET to INIT: missing in the mask: ACCESS_FLAGS "
      "PKEY_INDEX");
  EXPECT_DEATH(
      {
        Endpoint endpoint;
        endpoint.to_send();
      },
      "cannot go from RESET to RTS");
  EXPECT_DEATH(
      {
        Endpoint endpoint;
        endpoint.to(IBV_QPS_ERR);
      },
      "cannot go from RESET to ERR");
}

TEST_F(DoubleRules, AGidIndexBeyondTheTableIsRefused) {
  Endpoint peer, endpoint;
  endpoint.options.gid_index = 77;
  ASSERT_EQ(endpoint.to_init(), 0);
  EXPECT_EQ(endpoint.to_receive(peer.address()), ENODATA);
}

TEST_F(DoubleRules, AnMtuAboveThePortsIsRefused) {
  environment_.set("MTU", "1024");
  EndpointOptions options;
  options.mtu = IBV_MTU_2048;
  Endpoint peer, endpoint(options);
  ASSERT_EQ(endpoint.to_init(), 0);
  EXPECT_EQ(endpoint.to_receive(peer.address()), EINVAL);
}

TEST_F(DoubleRulesDeathTest, PostsNeedTheRightState) {
  EXPECT_DEATH(
      {
        Endpoint endpoint;
        endpoint.to_init();
        endpoint.send(IBV_WR_RDMA_WRITE, 9, 8);
      },
      "send request 9 posted on queue pair .* before RTS");
  EXPECT_DEATH(
      {
        Endpoint endpoint;
        endpoint.receive(1, 8);
      },
      "receive posted on queue pair .* in state RESET");
}

TEST_F(DoubleRulesDeathTest, SendSlotsAreFreeWhenTheirCompletionWasPolled) {
  EndpointOptions options;
  options.send_slots = 4;
  {
    Pair pair(options);
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < 3; ++i) ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 8, 0, 0, 0), 0);
      ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 2, 8), 0);
      EXPECT_EQ(pair.a.completion().wr_id, 2u);
    }
  }
  EXPECT_DEATH(
      {
        Pair pair(options);
        for (int i = 0; i < 5; ++i) pair.a.send(IBV_WR_RDMA_WRITE, 1, 8, 0, 0, 0);
      },
      "send queue .* overruns its 4 requests \\(4 done without a completion");
  EXPECT_DEATH(
      {
        Pair pair(options);
        for (int i = 0; i < 5; ++i) pair.a.send(IBV_WR_RDMA_WRITE, 1, 8);
      },
      "send queue .* overruns its 4 requests");
}

TEST_F(DoubleRulesDeathTest, ReceiveSlotsAreFreeWhenTheirCompletionWasPolled) {
  EndpointOptions options;
  options.receive_slots = 2;
  EXPECT_DEATH(
      {
        Pair pair(options);
        for (int i = 0; i < 2; ++i) pair.b.receive(1, 8);
        pair.a.send(IBV_WR_SEND, 1, 8);
        pair.a.completion();
        pair.b.receive(1, 8);
      },
      "receive queue .* overruns its 2 requests");
}

TEST_F(DoubleRulesDeathTest, CompletionQueuesHaveRoomForTheWorst) {
  EndpointOptions options;
  options.completions = 3;
  EXPECT_DEATH(
      {
        Pair pair(options);
        // Never more than one would complete, but all do if the queue pair fails.
        for (int i = 0; i < 4; ++i) pair.a.receive(1, 8);
      },
      "completion queue .* of 3 entries would overrun if queue pair");
  Pair pair(options);
  // Requests done without a completion need no room any more.
  for (int i = 0; i < 10; ++i) ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 8, 0, 0, 0), 0);
}

TEST_F(DoubleRulesDeathTest, LocalKeysFitTheMemory) {
  EXPECT_DEATH(
      {
        Pair pair;
        ibv_send_wr& request = pair.a.request(IBV_WR_RDMA_WRITE, 1, 8);
        request.sg_list->lkey = pair.a.mr->rkey;
        pair.a.post(request);
      },
      "lkey .* is no key of a registered region");
  EXPECT_DEATH(
      {
        Pair pair;
        pair.a.send(IBV_WR_RDMA_WRITE, 1, 8, pair.a.buffer.size() - 7);
      },
      "is outside of region");
  EXPECT_DEATH(
      {
        Pair pair;
        ibv_send_wr& request = pair.a.request(IBV_WR_RDMA_WRITE, 1, 8);
        ibv_pd* other = ibv_alloc_pd(pair.a.context);
        ibv_mr* mr = ibv_reg_mr(other, pair.a.data(), 100, IBV_ACCESS_LOCAL_WRITE);
        request.sg_list->lkey = mr->lkey;
        pair.a.post(request);
      },
      "is of another protection domain");
  EXPECT_DEATH(
      {
        EndpointOptions options;
        options.buffer_access = IBV_ACCESS_REMOTE_READ;
        Pair pair(options);
        pair.a.receive(1, 8);
      },
      "has no local write access");
}

TEST_F(DoubleRulesDeathTest, InlineDataFitsTheLimit) {
  EXPECT_DEATH(
      {
        Pair pair;
        pair.a.send(IBV_WR_RDMA_WRITE, 1, 65, 0, 0, IBV_SEND_INLINE);
      },
      "65 inline bytes on queue pair .*, it takes 64");
}

TEST_F(DoubleRulesDeathTest, MemoryInUseStaysRegistered) {
  EXPECT_DEATH(
      {
        Pair pair;
        pair.a.receive(5, 8);
        ibv_dereg_mr(pair.a.mr);
      },
      "deregistered while posted receive 5 of queue pair");
  EXPECT_DEATH(
      {
        Endpoint a;
        Endpoint b;
        a.connect(b.address());  // b answers nothing
        a.send(IBV_WR_RDMA_WRITE, 6, 8);
        ibv_dereg_mr(a.mr);
      },
      "deregistered while send request 6 of queue pair");
}

TEST_F(DoubleRulesDeathTest, NothingIsUsedAfterItsDestruction) {
  EXPECT_DEATH(
      {
        Pair pair;
        ibv_qp* gone = pair.a.qp;
        pair.a.destroy_queue_pair();
        pair.a.qp = gone;
        pair.a.send(IBV_WR_RDMA_WRITE, 1, 8);
      },
      "ibv_post_send on a queue pair that was destroyed");
  EXPECT_DEATH(
      {
        Endpoint endpoint;
        ibv_cq* cq = ibv_create_cq(endpoint.context, 1, nullptr, nullptr, 0);
        ibv_destroy_cq(cq);
        ibv_wc wc;
        ibv_poll_cq(cq, 1, &wc);
      },
      "ibv_poll_cq on a completion queue that was destroyed");
  EXPECT_DEATH(
      {
        Endpoint endpoint;
        ibv_dereg_mr(endpoint.mr);
        ibv_dereg_mr(endpoint.mr);
      },
      "ibv_dereg_mr on a memory region that was destroyed");
}

TEST_F(DoubleRulesDeathTest, DestructionHasAnOrder) {
  EXPECT_DEATH(
      {
        Endpoint endpoint;
        ibv_dealloc_pd(endpoint.pd);
      },
      "protection domain is deallocated with 1 memory regions and 1 queue pairs");
  EXPECT_DEATH(
      {
        Endpoint endpoint;
        ibv_destroy_cq(endpoint.cq);
      },
      "completion queue is destroyed that 2 queues of queue pairs use");
  EXPECT_DEATH(
      {
        EndpointOptions options;
        options.with_channel = true;
        Endpoint endpoint(options);
        ibv_destroy_comp_channel(endpoint.channel);
      },
      "completion channel is destroyed with 1 completion queues");
  EXPECT_DEATH(
      {
        Endpoint endpoint;
        ibv_close_device(endpoint.context);
      },
      "double0 is closed with 1 protection domains, 1 completion queues");
}

TEST_F(DoubleRulesDeathTest, PsnsThatDoNotMatchAreTold) {
  EXPECT_DEATH(
      {
        Endpoint a;
        Endpoint b;
        a.connect(b.address());
        Address wrong = a.address();
        wrong.psn = (wrong.psn + 5) & 0xffffff;
        b.connect(wrong);
        a.send(IBV_WR_RDMA_WRITE, 1, 8);
        a.completion();
      },
      "hardware would take that for a repetition");
}

TEST_F(DoubleRulesDeathTest, EventsAreAcknowledgedOnce) {
  EXPECT_DEATH(
      {
        EndpointOptions options;
        options.with_channel = true;
        Endpoint endpoint(options);
        ibv_ack_cq_events(endpoint.cq, 1);
      },
      "1 events are acknowledged, 0 were got");
}

TEST_F(DoubleRules, FailedCompletionsSayNoMoreThanVerbsPromise) {
  Pair pair;
  ASSERT_EQ(pair.b.to(IBV_QPS_ERR), 0);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 3, 8), 0);
  const ibv_wc wc = pair.a.completion();
  EXPECT_EQ(wc.status, IBV_WC_RETRY_EXC_ERR);
  EXPECT_EQ(wc.wr_id, 3u);
  EXPECT_EQ(wc.qp_num, pair.a.qp->qp_num);
  EXPECT_NE(wc.opcode, IBV_WC_RDMA_WRITE);
}

TEST_F(DoubleRules, ErrorCodesInPlaceOfTheEndWhereAsked) {
  environment_.set("STRICT", "0");
  Endpoint endpoint;
  EXPECT_EQ(endpoint.to_send(), EINVAL);
  EXPECT_EQ(endpoint.receive(1, 8), EINVAL);
  EXPECT_EQ(ibv_dealloc_pd(endpoint.pd), EBUSY);
}

}  // namespace
}  // namespace libcomm::test
