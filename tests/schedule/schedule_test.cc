#include "src/schedule/schedule.h"

#include <gtest/gtest.h>

#include "src/schedule/builder.h"

namespace libcomm {
namespace {

Schedule four_ranks() {
  Schedule schedule;
  schedule.nranks = 4;
  schedule.rank = 1;
  schedule.chunks_per_block = 8;
  schedule.scratch_banks = 2;
  schedule.lanes.resize(1);
  return schedule;
}

TEST(Expand, AdvancesChunksAndPeerByTheirStridesModuloTheirNumber) {
  Step step;
  step.kind = StepKind::kRecvReduce;
  step.src = in(1, -2);
  step.dst = out(6, 3);
  step.peer = 2;
  step.peer_stride = 1;
  const Step third = expand(four_ranks(), step, 3);
  EXPECT_EQ(third.src, in(3));  // 1 - 6 = -5, modulo 8
  EXPECT_EQ(third.dst, out(7));
  EXPECT_EQ(third.peer, 1);
  EXPECT_EQ(third.peer_stride, 0);
}

TEST(Expand, DoesNotOverflowOnLargeJobs) {
  Schedule schedule = four_ranks();
  schedule.nranks = 130000;
  schedule.chunks_per_block = 520000;
  Step step;
  step.src = in(3, -4);
  step.dst = out(0, 519999);
  step.peer = 1;
  step.peer_stride = 129999;
  const Step last = expand(schedule, step, 129999);
  EXPECT_EQ(last.src.chunk, 7);
  EXPECT_EQ(last.dst.chunk, 520000 - 129999);
  EXPECT_EQ(last.peer, 2);
}

TEST(Expand, LeavesSpacesThatAreNotThereAlone) {
  Step step;
  step.kind = StepKind::kRecvReduceSend;
  step.src = in(0, 1);
  step.dst = nowhere();
  step.peer = 0;
  step.peer2 = 3;
  const Step second = expand(four_ranks(), step, 1);
  EXPECT_EQ(second.dst, nowhere());
  EXPECT_EQ(second.peer2, 3);
}

TEST(BlockShape, GivesEachRankABlockWhereTheCollectiveDoes) {
  EXPECT_EQ(block_shape(Collective::kAllReduce, 5).in_blocks, 1);
  EXPECT_EQ(block_shape(Collective::kAllGather, 5).out_blocks, 5);
  EXPECT_EQ(block_shape(Collective::kReduceScatterV, 5).in_blocks, 5);
  EXPECT_EQ(block_shape(Collective::kReduceScatterV, 5).out_blocks, 1);
  EXPECT_EQ(block_shape(Collective::kAllToAll, 5).in_blocks, 5);
  EXPECT_EQ(block_shape(Collective::kScatter, 5).in_blocks, 5);
}

TEST(ToString, ReadsAsASentence) {
  Step step;
  step.kind = StepKind::kRecvReduce;
  step.peer = 3;
  step.src = in(4);
  step.dst = out(4);
  EXPECT_EQ(to_string(four_ranks(), step), "recv_reduce from 3: out[4] = in[4] op received");
  step.kind = StepKind::kSend;
  step.src = scratch(1, 2);
  step.count = 3;
  EXPECT_EQ(to_string(four_ranks(), step), "send to 3: scratch1[2..4]");
}

TEST(ScratchUse, CoversWhatEveryStepTouches) {
  Schedule schedule = four_ranks();
  Step receive;
  receive.kind = StepKind::kRecv;
  receive.dst = scratch(1, 5);
  receive.count = 2;
  schedule.lanes[0].steps.push_back(receive);
  const std::vector<ScratchUse> use = scratch_use(schedule);
  ASSERT_EQ(use.size(), 2u);
  EXPECT_EQ(use[0].count, 0);
  EXPECT_EQ(use[1].first, 5);
  EXPECT_EQ(use[1].count, 2);
}

TEST(ScratchUse, FollowsTheStridesOfARepeat) {
  Schedule schedule = four_ranks();
  Step repeat;
  repeat.kind = StepKind::kRepeat;
  repeat.times = 3;
  repeat.body = 1;
  Step receive;
  receive.kind = StepKind::kRecv;
  receive.dst = scratch(0, 6, -2);
  schedule.lanes[0].steps = {repeat, receive};
  EXPECT_EQ(scratch_use(schedule)[0].first, 2);
  EXPECT_EQ(scratch_use(schedule)[0].count, 5);
  schedule.lanes[0].steps[0].times = 5;  // wraps: the whole bank
  EXPECT_EQ(scratch_use(schedule)[0].count, 8);
}

TEST(ScratchUse, SeesOperands) {
  Schedule schedule = four_ranks();
  Step reduce;
  reduce.kind = StepKind::kReduce;
  reduce.dst = out(7);
  reduce.operands = 2;
  schedule.operands = {in(7), scratch(1, 7)};
  schedule.lanes[0].steps = {reduce};
  EXPECT_EQ(scratch_use(schedule)[1].first, 7);
  EXPECT_EQ(scratch_use(schedule)[1].count, 1);
}

}  // namespace
}  // namespace libcomm
