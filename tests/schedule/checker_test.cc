// Schedules written wrong by hand, one for each promise of the checker: each must be refused with a
// counter-example that names the place.
#include "src/schedule/checker.h"

#include <gtest/gtest.h>

#include <functional>

#include "src/schedule/builder.h"

namespace libcomm {
namespace {

using Write = std::function<void(Builder&, int rank)>;

std::vector<Schedule> write_all(Collective collective, int nranks, int chunks, const Write& write) {
  ScheduleRequest request;
  request.collective = collective;
  request.nranks = nranks;
  std::vector<Schedule> ranks;
  for (int rank = 0; rank < nranks; ++rank) {
    Builder b("test", request, rank, chunks);
    write(b, rank);
    ranks.push_back(b.finish());
  }
  return ranks;
}

std::string counter_example(Collective collective, int nranks, int chunks, const Write& write,
                            bool in_place = false) {
  const Status status = check(write_all(collective, nranks, chunks, write), {.in_place = in_place});
  return status ? "" : status.message();
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

// Two ranks, right: each sends its input, keeps what comes in scratch, combines in rank order.
void exchange(Builder& b, int rank) {
  b.send(1 - rank, in(0));
  b.recv(1 - rank, scratch(0, 0));
  const Ref operands[] = {rank == 0 ? in(0) : scratch(0, 0), rank == 0 ? scratch(0, 0) : in(0)};
  b.reduce(out(0), operands).final = true;
}

TEST(Checker, AcceptsARightSchedule) {
  EXPECT_EQ(counter_example(Collective::kAllReduce, 2, 1, exchange), "");
  EXPECT_EQ(counter_example(Collective::kAllReduce, 2, 1, exchange, true), "");
}

TEST(Checker, NamesRankLaneStepAndChunkOfTheFailure) {
  const std::string text = counter_example(Collective::kAllReduce, 2, 4, [](Builder& b, int rank) {
    if (rank == 0) b.send(1, in(3));
    if (rank == 1) b.recv_reduce(0, out(3), out(3));
  });
  EXPECT_SAYS(text, "allreduce by test, 2 ranks");
  EXPECT_SAYS(text, "rank 1, lane 0, step 0 (recv_reduce from 0: out[3] = out[3] op received)");
  EXPECT_SAYS(text, "chunk 3: expected a value");
}

TEST(Checker, SaysWhichContributionIsMissing) {
  const std::string text = counter_example(Collective::kReduce, 3, 1, [](Builder& b, int rank) {
    if (rank == 0) b.recv_reduce(1, in(0), out(0)).final = true;
    if (rank == 1) b.send(0, in(0));
  });
  EXPECT_SAYS(text, "all but rank 2's");
}

TEST(Checker, RefusesAContributionThatIsCountedTwice) {
  const std::string text = counter_example(Collective::kReduce, 2, 1, [](Builder& b, int rank) {
    if (rank == 1) {
      b.send(0, in(0));
      b.send(0, in(0));
      return;
    }
    b.recv_reduce(1, in(0), out(0));
    b.recv_reduce(1, out(0), out(0)).final = true;
  });
  EXPECT_SAYS(text, "another mixture");
}

TEST(Checker, FindsAMessageThatNobodyTakes) {
  const std::string text = counter_example(Collective::kAllReduce, 2, 1, [](Builder& b, int rank) {
    exchange(b, rank);
    if (rank == 1) b.send(0, out(0));
  });
  EXPECT_SAYS(text, "rank 1, lane 0, step 3 (send to 0: out[0]): rank 0 never takes this message");
}

TEST(Checker, ReportsADeadlockWithBothSides) {
  const std::string text = counter_example(Collective::kAllReduce, 2, 1, [](Builder& b, int rank) {
    b.recv_reduce(1 - rank, in(0), out(0)).final = true;
    b.send(1 - rank, in(0));
  });
  EXPECT_SAYS(text, "deadlock: rank 0");
  EXPECT_SAYS(text, "waits for a message from rank 1");
  EXPECT_SAYS(text, "waits for a message from rank 0");
}

// Each waits for its own send before it writes, and the send ends when the other has received.
TEST(Checker, FindsTheDeadlockOfTwoThatReceiveIntoWhatTheySend) {
  const Write swap = [](Builder& b, int rank) {
    b.send(1 - rank, in(0));
    b.recv_reduce(1 - rank, in(0), out(0)).final = true;
  };
  EXPECT_EQ(counter_example(Collective::kAllReduce, 2, 1, swap), "");
  EXPECT_SAYS(counter_example(Collective::kAllReduce, 2, 1, swap, true), "has been sent");
}

// With one message under way per channel, a ring that only passes results on has nowhere to put
// them.
TEST(Checker, FindsTheDeadlockOfARingThatKeepsNothing) {
  auto ring = [](bool keep) {
    return [keep](Builder& b, int rank) {
      b.send(rank + 1, in(rank - 1));
      b.recv_reduce_send(rank - 1, in(rank - 2), keep ? scratch(0, rank - 2) : nowhere(), rank + 1);
      b.recv_reduce(rank - 1, in(rank), out(0)).final = true;
    };
  };
  EXPECT_EQ(counter_example(Collective::kReduceScatter, 3, 1, ring(true)), "");
  EXPECT_SAYS(counter_example(Collective::kReduceScatter, 3, 1, ring(false)), "deadlock");
}

TEST(Checker, RefusesAMessageOfAnotherSize) {
  const std::string text = counter_example(Collective::kBroadcast, 2, 2, [](Builder& b, int rank) {
    if (rank == 0) b.send(1, in(0));
    if (rank == 1) b.recv(0, out(1));
  });
  EXPECT_SAYS(text, "expected a message of this chunk's size, rank 0's step 0 sends chunk 0");
}

TEST(Checker, KnowsThatBlocksOfAVariantHaveDifferentSizes) {
  const Write through_scratch = [](Builder& b, int rank) {
    b.send(1 - rank, in(0));
    b.copy(in(0), out(rank));
    b.recv(1 - rank, scratch(0, rank));
    b.copy(scratch(0, rank), out(1 - rank));
  };
  EXPECT_EQ(counter_example(Collective::kAllGather, 2, 1, through_scratch), "");
  EXPECT_SAYS(counter_example(Collective::kAllGatherV, 2, 1, through_scratch), "size");
}

TEST(Checker, RefusesToWriteTheInput) {
  const std::string text = counter_example(Collective::kAllReduce, 2, 1, [](Builder& b, int rank) {
    b.send(1 - rank, in(0));
    b.recv_reduce(1 - rank, in(0), in(0)).final = true;
  });
  EXPECT_SAYS(text, "it writes the input");
}

TEST(Checker, RefusesBuffersThatOnlyTheRootHas) {
  const std::string text = counter_example(Collective::kReduce, 2, 1, [](Builder& b, int rank) {
    if (rank == 0) b.recv_reduce(1, in(0), out(0)).final = true;
    if (rank == 1) {
      b.copy(in(0), out(0));
      b.send(0, out(0));
    }
  });
  EXPECT_SAYS(text, "outside the buffers that this rank has");
}

TEST(Checker, RefusesLanesThatShareAChunk) {
  const std::string text = counter_example(Collective::kBroadcast, 2, 1, [](Builder& b, int rank) {
    for (int lane : {0, 1}) {
      b.lane(lane);
      if (rank == 0) b.send(1, in(0));
      if (rank == 0 && lane == 0) b.copy(in(0), out(0));
      if (rank == 1) b.recv(0, out(0));
    }
  });
  EXPECT_SAYS(text, "chunk 0: another lane uses it, unordered");
}

TEST(Checker, RefusesRunsThatOverlapPartly) {
  const std::string text = counter_example(Collective::kAllGather, 3, 1, [](Builder& b, int) {
    b.has_runs();
    b.copy(in(0), out(0));
    b.copy(in(0), out(1));
    b.copy(out(0), out(1), 2);
  });
  EXPECT_SAYS(text, "overlap partly");
}

TEST(Checker, WantsFinalExactlyOnceAndOnlyWhereSomethingIsReduced) {
  EXPECT_SAYS(counter_example(Collective::kAllReduce, 2, 1,
                              [](Builder& b, int rank) {
                                b.send(1 - rank, in(0));
                                b.recv_reduce(1 - rank, in(0), out(0));
                              }),
              "final was never applied");
  EXPECT_SAYS(counter_example(Collective::kAllReduce, 2, 1,
                              [](Builder& b, int rank) {
                                exchange(b, rank);
                                b.copy(out(0), scratch(0, 0)).final = true;
                              }),
              "a second time");
  EXPECT_SAYS(counter_example(Collective::kAllGather, 2, 1,
                              [](Builder& b, int rank) {
                                b.send(1 - rank, in(0));
                                b.copy(in(0), out(rank));
                                b.recv(1 - rank, out(1 - rank)).final = true;
                              }),
              "only moves");
}

// Same contributions, another order of additions: not the same bits.
TEST(Checker, WantsTheSameExpressionOnEveryRank) {
  const std::string text = counter_example(Collective::kAllReduce, 3, 1, [](Builder& b, int rank) {
    b.send(rank + 1, in(0));
    b.send(rank - 1, in(0));
    b.recv_reduce(rank - 1, in(0), scratch(0, 0));
    b.recv_reduce(rank + 1, scratch(0, 0), out(0)).final = true;
  });
  EXPECT_SAYS(text, "expected the order of reduction of rank 0");
}

// Narrow floats are rounded once by one step over three operands, twice by a chain of two steps.
TEST(Checker, TellsOneStepOverThreeOperandsFromAChainOfTwo) {
  const auto sum = [](int rank_that_chains) {
    return [rank_that_chains](Builder& b, int rank) {
      for (int i = 1; i < 3; ++i) b.send(rank + i, in(0));
      std::vector<Ref> operands(3, in(0));
      for (int i = 1; i < 3; ++i) {
        const int peer = modulo(rank - i, 3);
        b.recv(peer, scratch(i, 0));
        operands[static_cast<size_t>(peer)] = scratch(i, 0);
      }
      if (rank == rank_that_chains) {
        b.reduce(scratch(0, 0), std::span(operands).first(2));
        const Ref rest[] = {scratch(0, 0), operands[2]};
        b.reduce(out(0), rest).final = true;
      } else {
        b.reduce(out(0), operands).final = true;
      }
    };
  };
  EXPECT_EQ(counter_example(Collective::kAllReduce, 3, 1, sum(-1)), "");
  EXPECT_SAYS(counter_example(Collective::kAllReduce, 3, 1, sum(1)),
              "order of reduction of rank 0");
}

TEST(Checker, HoldsAFusedExchangeToTheOrderOfRanks) {
  const auto fused = [](bool in_order) {
    return [in_order](Builder& b, int rank) {
      b.mark_fused(Fused::kOneshotAllReduce);
      for (int i = 1; i < 3; ++i) b.send(rank + i, in(0));
      std::vector<Ref> operands(3, in(0));
      for (int i = 1; i < 3; ++i) {
        const int peer = modulo(rank - i, 3);
        b.recv(peer, scratch(i, 0));
        operands[static_cast<size_t>(peer)] = scratch(i, 0);
      }
      if (!in_order) std::swap(operands[0], operands[2]);
      b.reduce(out(0), operands).final = true;
    };
  };
  EXPECT_EQ(counter_example(Collective::kAllReduce, 3, 1, fused(true)), "");
  EXPECT_SAYS(counter_example(Collective::kAllReduce, 3, 1, fused(false)), "the fused kernel");
}

TEST(Checker, WantsAgreementOnTheShape) {
  std::vector<Schedule> ranks = write_all(Collective::kAllReduce, 2, 1, exchange);
  ranks[1].sliceable = false;
  EXPECT_SAYS(check(ranks).message(), "rank 1: the schedule's shape differs from rank 0's");
}

TEST(Checker, RefusesRunsInASliceableSchedule) {
  std::vector<Schedule> ranks = write_all(Collective::kBroadcast, 2, 2, [](Builder& b, int rank) {
    if (rank == 0) b.send(1, in(0), 2);
    if (rank == 0) b.copy(in(0), out(0), 2);
    if (rank == 1) b.recv(0, out(0), 2);
  });
  EXPECT_SAYS(check(ranks).message(), "may be sliced");
  for (Schedule& schedule : ranks) schedule.sliceable = false;
  EXPECT_TRUE(check(ranks)) << check(ranks).message();
}

TEST(Checker, RefusesAPeerThatIsNotAnotherRank) {
  std::vector<Schedule> ranks = write_all(Collective::kAllReduce, 2, 1, exchange);
  ranks[0].lanes[0].steps[0].peer = 0;
  EXPECT_SAYS(check(ranks).message(), "peer 0 is not another rank");
  ranks[0].lanes[0].steps[0].peer = 2;
  EXPECT_SAYS(check(ranks).message(), "peer 2 is not");
}

TEST(Checker, MatchesSignalsWithWaitsOnly) {
  std::vector<Schedule> ranks = write_all(Collective::kAllReduce, 2, 1, exchange);
  Step signal;
  signal.kind = StepKind::kSignal;
  signal.peer = 1;
  Step wait;
  wait.kind = StepKind::kWait;
  wait.peer = 0;
  ranks[0].lanes[0].steps.push_back(signal);
  EXPECT_SAYS(check(ranks).message(), "never takes this message");
  ranks[1].lanes[0].steps.push_back(wait);
  EXPECT_TRUE(check(ranks)) << check(ranks).message();
  std::swap(ranks[1].lanes[0].steps[1], ranks[1].lanes[0].steps[3]);
  EXPECT_SAYS(check(ranks).message(), "expected 0 chunks");
}

}  // namespace
}  // namespace libcomm
