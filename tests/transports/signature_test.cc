// The texts by which people find the call that does not match.
#include <gtest/gtest.h>

#include "src/reduce/types.h"
#include "src/schedule/schedule.h"
#include "transports/transport.h"

namespace libcomm {
namespace {

Signature call(Collective collective, uint64_t count, DataType type, uint8_t redop = 0,
               int root = -1) {
  Signature signature;
  signature.op = 7;
  signature.count = count;
  signature.collective = static_cast<uint8_t>(collective);
  signature.type = static_cast<uint8_t>(type);
  signature.redop = redop;
  signature.root = root;
  return signature;
}

TEST(Describe, NamesEveryCollectiveAsTheScheduleDoes) {
  for (int i = 0; i < kNumCollectives; ++i) {
    const auto collective = static_cast<Collective>(i);
    const std::string text = describe(call(collective, 5, DataType::kFloat32));
    EXPECT_EQ(text.substr(0, text.find('(')), name_of(collective));
  }
}

TEST(Describe, ShowsTheArgumentsThatTheCollectiveHas) {
  EXPECT_EQ(describe(call(Collective::kAllReduce, 100, DataType::kFloat32)),
            "allreduce(count 100, float32, sum)");
  EXPECT_EQ(describe(call(Collective::kReduce, 3, DataType::kInt8, 0x80, 2)),
            "reduce(count 3, int8, avg, root 2)");
  EXPECT_EQ(describe(call(Collective::kReduceScatter, 3, DataType::kInt8, 0x40)),
            "reducescatter(count 3, int8, premulsum)");
  EXPECT_EQ(describe(call(Collective::kBroadcast, 9, DataType::kUint64, 0, 1)),
            "broadcast(count 9, uint64, root 1)");
  EXPECT_EQ(describe(call(Collective::kBarrier, 0, DataType::kInt8)), "barrier()");
  Signature table = call(Collective::kAllGatherV, 0, DataType::kInt32);
  table.table_hash = 0xab;
  EXPECT_EQ(describe(table), "allgatherv(counts with hash 00000000000000ab, int32)");
}

TEST(Describe, ShowsValuesThatNoRankSendsAsNumbers) {
  Signature odd = call(Collective::kAllReduce, 1, DataType::kFloat32);
  odd.type = 99;
  odd.redop = 33;
  EXPECT_EQ(describe(odd), "allreduce(count 1, type 99, operator 33)");
  odd.collective = 200;
  EXPECT_EQ(describe(odd), "collective 200(count 1)");
}

TEST(Mismatch, NamesBothRanksAndBothCalls) {
  const Signature mine = call(Collective::kAllReduce, 100, DataType::kFloat32);
  const Signature theirs = call(Collective::kAllReduce, 200, DataType::kFloat32);
  const Status status = mismatch(0, mine, 400, 1, theirs, 800);
  EXPECT_EQ(status.code(), Code::kInvalidUsage);
  EXPECT_EQ(status.message(),
            "rank 0 called allreduce(count 100, float32, sum) as operation 7, but rank 1 called "
            "allreduce(count 200, float32, sum); all ranks must make the same calls in the same "
            "order");
  EXPECT_EQ(status.rank(), 0);
  EXPECT_EQ(status.peer(), 1);
  EXPECT_EQ(status.op(), 7u);
}

TEST(Mismatch, NamesTheOperationNumbersWhenTheyDiffer) {
  const Signature mine = call(Collective::kBarrier, 0, DataType::kInt8);
  Signature theirs = mine;
  theirs.op = 8;
  EXPECT_EQ(mismatch(2, mine, 0, 5, theirs, 0).message(),
            "rank 2 called barrier() as operation 7, but rank 5 called barrier() as operation 8; "
            "all ranks must make the same calls in the same order");
}

TEST(Mismatch, NamesTheLengthsWhenTheCallsAreEqual) {
  const Signature both = call(Collective::kAllToAllV, 0, DataType::kInt8);
  EXPECT_EQ(mismatch(2, both, 64, 5, both, 128).message(),
            "rank 2 called alltoallv(int8) as operation 7 and expects 64 bytes, but rank 5 sent "
            "128 bytes; what one rank sends must be what the other expects");
}

}  // namespace
}  // namespace libcomm
