// Bytes move between queue pairs of the double as verbs say: within a process and between
// processes.
#include <gtest/gtest.h>

#include "tests/doubles/child.h"
#include "tests/doubles/endpoint.h"
#include "tests/doubles/environment.h"

namespace libcomm::test {
namespace {

class DoubleBytes : public testing::Test {
 protected:
  DoubleEnvironment environment_;
};

// Sizes around packets, the PSN's end and the double's own cuts.
constexpr size_t kSizes[] = {1, 7, 8, 1023, 1024, 1025, 32 * 1024, 32 * 1024 + 1, 300'007};

TEST_F(DoubleBytes, WritesLandWhereTheyAreAimed) {
  Pair pair;
  for (const size_t bytes : kSizes) {
    pair.a.fill(3, bytes, 5);
    ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, bytes, bytes, 3, 11), 0);
    const ibv_wc wc = pair.a.completion();
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.opcode, IBV_WC_RDMA_WRITE);
    EXPECT_EQ(wc.wr_id, bytes);
    EXPECT_EQ(wc.qp_num, pair.a.qp->qp_num);
    EXPECT_TRUE(pair.b.filled(11, bytes, 5)) << bytes;
    EXPECT_EQ(pair.b.buffer[10], std::byte{});
    pair.b.buffer.assign(pair.b.buffer.size(), std::byte{});
  }
  EXPECT_TRUE(pair.b.completions_now().empty());
}

TEST_F(DoubleBytes, WritesWithImmediateDataTakeAReceiveAndTellTheLength) {
  Pair pair;
  for (const size_t bytes : kSizes) {
    pair.a.fill(0, bytes, 9);
    ASSERT_EQ(pair.b.receive(77, 0), 0);
    ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE_WITH_IMM, 1234, bytes), 0);
    EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
    const ibv_wc wc = pair.b.completion();
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.opcode, IBV_WC_RECV_RDMA_WITH_IMM);
    EXPECT_EQ(wc.wr_id, 77u);
    EXPECT_EQ(wc.imm_data, 1234u);
    EXPECT_EQ(wc.byte_len, bytes);
    EXPECT_EQ(wc.src_qp, pair.a.qp->qp_num);
    EXPECT_TRUE(pair.b.filled(0, bytes, 9));
  }
}

TEST_F(DoubleBytes, SendsFillTheOldestReceive) {
  Pair pair;
  ASSERT_EQ(pair.b.receive(1, 5000, 0), 0);
  ASSERT_EQ(pair.b.receive(2, 5000, 5000), 0);
  pair.a.fill(0, 5000, 1);
  ASSERT_EQ(pair.a.send(IBV_WR_SEND, 1, 5000), 0);
  ASSERT_EQ(pair.a.send(IBV_WR_SEND_WITH_IMM, 2, 100), 0);
  const ibv_wc first = pair.b.completion(), second = pair.b.completion();
  EXPECT_EQ(first.wr_id, 1u);
  EXPECT_EQ(first.opcode, IBV_WC_RECV);
  EXPECT_EQ(first.byte_len, 5000u);
  EXPECT_EQ(first.wc_flags & IBV_WC_WITH_IMM, 0u);
  EXPECT_EQ(second.wr_id, 2u);
  EXPECT_EQ(second.byte_len, 100u);
  EXPECT_EQ(second.imm_data, 2u);
  EXPECT_TRUE(pair.b.filled(0, 5000, 1));
  EXPECT_TRUE(pair.b.filled(5000, 100, 1));
}

TEST_F(DoubleBytes, ReadsFetchWhatIsThere) {
  Pair pair;
  for (const size_t bytes : kSizes) {
    pair.b.fill(5, bytes, 3);
    ASSERT_EQ(pair.a.send(IBV_WR_RDMA_READ, 1, bytes, 64, 5), 0);
    const ibv_wc wc = pair.a.completion();
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.opcode, IBV_WC_RDMA_READ);
    EXPECT_TRUE(pair.a.filled(64, bytes, 3));
  }
}

TEST_F(DoubleBytes, InlineDataMayChangeAfterThePost) {
  Pair pair;
  pair.a.fill(0, 64, 1);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 64, 0, 0, IBV_SEND_SIGNALED | IBV_SEND_INLINE), 0);
  pair.a.fill(0, 64, 2);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
  EXPECT_TRUE(pair.b.filled(0, 64, 1));
}

TEST_F(DoubleBytes, PiecesAreGathered) {
  Pair pair;
  pair.a.fill(0, 3000, 4);
  ibv_sge pieces[3];
  const size_t ends[] = {0, 1, 1500, 3000};
  for (int i = 0; i < 3; ++i)
    pieces[i] = {reinterpret_cast<uint64_t>(pair.a.data() + ends[i]),
                 static_cast<uint32_t>(ends[i + 1] - ends[i]), pair.a.mr->lkey};
  ibv_send_wr& request = pair.a.request(IBV_WR_RDMA_WRITE, 1, 3000);
  request.sg_list = pieces;
  request.num_sge = 3;
  ASSERT_EQ(pair.a.post(request), 0);
  EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
  EXPECT_TRUE(pair.b.filled(0, 3000, 4));
}

TEST_F(DoubleBytes, OnlySignaledRequestsComplete) {
  Pair pair;
  for (uint64_t i = 0; i < 5; ++i) ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, i, 8, 0, 0, 0), 0);
  ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 5, 8), 0);
  EXPECT_EQ(pair.a.completion().wr_id, 5u);
  EXPECT_TRUE(pair.a.completions_now().empty());
}

// The other process serves its memory without taking part: its NIC does, as hardware.
bool serve(int socket) {
  Endpoint endpoint;
  endpoint.fill(500'000, 300'000, 8);
  give(socket, endpoint.address());
  endpoint.connect(take<Address>(socket));
  const bool posted = endpoint.receive(1, 0) == 0;
  give(socket, 'r');
  take<char>(socket);
  return posted && endpoint.completion().imm_data == 42 && endpoint.filled(0, 300'000, 7);
}

TEST_F(DoubleBytes, MoveBetweenProcesses) {
  Child child([](int socket) { ::_exit(serve(socket) ? 0 : 1); });
  Endpoint endpoint;
  give(child.socket(), endpoint.address());
  endpoint.connect(take<Address>(child.socket()));
  take<char>(child.socket());
  endpoint.fill(0, 300'000, 7);
  ASSERT_EQ(endpoint.send(IBV_WR_RDMA_WRITE, 1, 300'000), 0);
  ASSERT_EQ(endpoint.send(IBV_WR_RDMA_READ, 2, 300'000, 600'000, 500'000), 0);
  ASSERT_EQ(endpoint.send(IBV_WR_RDMA_WRITE_WITH_IMM, 42, 8), 0);
  for (const uint64_t id : {1, 2, 42}) {
    const ibv_wc wc = endpoint.completion();
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
    EXPECT_EQ(wc.wr_id, id);
  }
  EXPECT_TRUE(endpoint.filled(600'000, 300'000, 8));
  give(child.socket(), 'e');
  EXPECT_EQ(child.end(0), 0);
}

}  // namespace
}  // namespace libcomm::test
