#include "src/schedule/fuse.h"

#include <gtest/gtest.h>

#include "src/schedule/builder.h"

namespace libcomm {
namespace {

// Builder::finish() fuses.
Builder builder() {
  ScheduleRequest request;
  request.nranks = 4;
  return Builder("test", request, 0, 4);
}

TEST(Fuse, JoinsAReceiveWithTheSendOfWhatCame) {
  Builder b = builder();
  b.recv_reduce(3, in(1), out(1)).final = true;
  b.send(1, out(1));
  b.recv(3, out(2));
  b.send(2, out(2));
  const std::vector<Step> steps = b.finish().lanes[0].steps;
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0].kind, StepKind::kRecvReduceSend);
  EXPECT_EQ(steps[0].peer, 3);
  EXPECT_EQ(steps[0].peer2, 1);
  EXPECT_EQ(steps[0].src, in(1));
  EXPECT_EQ(steps[0].dst, out(1));
  EXPECT_TRUE(steps[0].final);
  EXPECT_EQ(steps[1].kind, StepKind::kRecvCopySend);
  EXPECT_EQ(steps[1].peer2, 2);
}

TEST(Fuse, LeavesASendOfAnotherRunAlone) {
  Builder b = builder();
  b.recv(3, out(0), 2);
  b.send(1, out(0));  // shorter
  b.recv(3, out(2));
  b.send(1, in(2));  // elsewhere
  b.recv(3, out(3));
  b.copy(out(3), scratch(0, 3));  // not a neighbour
  b.send(1, out(3));
  b.has_runs();
  EXPECT_EQ(b.finish().lanes[0].steps.size(), 7u);
}

TEST(Fuse, WorksInsideARepeatAndAdjustsItsBody) {
  Builder b = builder();
  b.repeat(2, [&] {
    b.recv_reduce(3, in(3, -1), out(3, -1));
    b.send(1, out(3, -1));
    b.recv(3, scratch(0, 0));
  });
  b.send(1, in(0));
  const std::vector<Step> steps = b.finish().lanes[0].steps;
  ASSERT_EQ(steps.size(), 4u);
  EXPECT_EQ(steps[0].body, 2);
  EXPECT_EQ(steps[1].kind, StepKind::kRecvReduceSend);
  EXPECT_EQ(steps[2].kind, StepKind::kRecv);
  EXPECT_EQ(steps[3].kind, StepKind::kSend);
}

TEST(Fuse, DoesNotJoinAcrossTheEdgeOfARepeat) {
  Builder b = builder();
  b.recv(3, out(1));
  b.repeat(2, [&] {
    b.send(1, out(1));
    b.recv(3, out(2));
  });
  b.send(1, out(2));
  const std::vector<Step> steps = b.finish().lanes[0].steps;
  ASSERT_EQ(steps.size(), 5u);
  EXPECT_EQ(steps[1].body, 2);
}

TEST(Fuse, NeedsTheSamePeerInEveryRoundForTheSend) {
  Builder b = builder();
  b.repeat(2, [&] {
    b.recv(3, out(1));
    b.send({1, 1}, out(1));
  });
  EXPECT_EQ(b.finish().lanes[0].steps.size(), 3u);
}

TEST(Unfuse, IsTheInverseOfFuse) {
  Builder b = builder();
  b.repeat(2, [&] { b.recv_reduce_send(3, in(3, -1), out(3, -1), 1); });
  b.recv_copy_send(3, out(0), 1).final = false;
  b.recv_reduce_send(3, in(1), nowhere(), 1);  // has no two plain steps
  const Schedule fused = b.finish();
  Schedule plain = fused;
  unfuse(&plain);
  ASSERT_EQ(plain.lanes[0].steps.size(), 6u);
  EXPECT_EQ(plain.lanes[0].steps[0].body, 2);
  EXPECT_EQ(plain.lanes[0].steps[1].kind, StepKind::kRecvReduce);
  EXPECT_EQ(plain.lanes[0].steps[2].kind, StepKind::kSend);
  EXPECT_EQ(plain.lanes[0].steps[2].src, out(3, -1));
  fuse(&plain);
  ASSERT_EQ(plain.lanes[0].steps.size(), fused.lanes[0].steps.size());
  for (size_t i = 0; i < fused.lanes[0].steps.size(); ++i)
    EXPECT_EQ(to_string(plain, plain.lanes[0].steps[i]), to_string(fused, fused.lanes[0].steps[i]));
}

TEST(Unroll, WritesEveryRoundOut) {
  Builder b = builder();
  b.send(1, in(0));
  b.repeat(3, [&] { b.recv({3, -1}, out(3, -1)); });
  Schedule schedule = b.finish();
  unroll(&schedule);
  const std::vector<Step>& steps = schedule.lanes[0].steps;
  ASSERT_EQ(steps.size(), 4u);
  EXPECT_EQ(steps[3].peer, 1);
  EXPECT_EQ(steps[3].dst, out(1));
}

}  // namespace
}  // namespace libcomm
