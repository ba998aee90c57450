#include "src/schedule/builder.h"

#include <gtest/gtest.h>

namespace libcomm {
namespace {

ScheduleRequest request(int nranks, Collective collective = Collective::kAllReduce) {
  ScheduleRequest request;
  request.collective = collective;
  request.nranks = nranks;
  return request;
}

TEST(Builder, TakesChunksAndPeersModuloTheirNumber) {
  Builder b("test", request(4), 0, 4);
  b.send(-1, in(-1));
  b.recv(7, out(9));
  const Schedule schedule = b.finish();
  EXPECT_EQ(schedule.lanes[0].steps[0].peer, 3);
  EXPECT_EQ(schedule.lanes[0].steps[0].src, in(3));
  EXPECT_EQ(schedule.lanes[0].steps[1].peer, 3);
  EXPECT_EQ(schedule.lanes[0].steps[1].dst, out(1));
}

TEST(Builder, WritesNothingForARepeatOfNoRounds) {
  Builder b("test", request(4), 0, 4);
  b.repeat(0, [&] { b.send(1, in(0)); });
  b.repeat(-1, [&] { b.send(1, in(0)); });
  EXPECT_TRUE(b.finish().lanes[0].steps.empty());
}

TEST(Builder, WritesARepeatOfOneRoundPlainly) {
  Builder b("test", request(4), 0, 4);
  b.repeat(1, [&] { b.send({1, 1}, in(2, 1)); });
  const Schedule schedule = b.finish();
  ASSERT_EQ(schedule.lanes[0].steps.size(), 1u);
  EXPECT_EQ(schedule.lanes[0].steps[0].src, in(2));
  EXPECT_EQ(schedule.lanes[0].steps[0].peer_stride, 0);
}

TEST(Builder, CountsTheScratchBanksOfStepsAndOperands) {
  Builder b("test", request(4), 0, 1);
  b.recv(1, scratch(2, 0));
  const Ref operands[] = {in(0), scratch(4, 0)};
  b.reduce(out(0), operands);
  EXPECT_EQ(b.finish().scratch_banks, 5);
}

TEST(Builder, ShapesScratchLikeTheLargerBuffer) {
  EXPECT_EQ(Builder("test", request(4, Collective::kAllGather), 0, 1).finish().scratch_like,
            Space::kOut);
  EXPECT_EQ(Builder("test", request(4, Collective::kReduceScatter), 0, 1).finish().scratch_like,
            Space::kIn);
}

TEST(SingleRank, CopiesAndIsFinalOnlyWhereTheCollectiveReduces) {
  const Schedule sum = single_rank("test", request(1));
  ASSERT_EQ(sum.lanes[0].steps.size(), 1u);
  EXPECT_TRUE(sum.lanes[0].steps[0].final);
  EXPECT_FALSE(single_rank("test", request(1, Collective::kBroadcast)).lanes[0].steps[0].final);
}

}  // namespace
}  // namespace libcomm
