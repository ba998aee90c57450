// Calls that repeat one another: what a communicator remembers of a small call must not let a wrong
// one through, nor one call pass for another.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "tests/collectives/world.h"

namespace {

using world::Rank;

constexpr int kRepeats = 5;

commResult_t sum(const Rank& rank, const float* in, float* out, size_t count,
                 commRedOp_t op = commSum) {
  return commAllReduce(in, out, count, commFloat, op, rank.comm, nullptr);
}

TEST(Repeats, GiveEachCallItsOwnResult) {
  for (const int nranks : {2, 3, 5}) {
    world::run({.nranks = nranks}, [&](Rank& rank) {
      const auto n = static_cast<float>(nranks);
      for (int i = 0; i < kRepeats; ++i) {
        const auto value = static_cast<float>(rank.rank + i);
        const float total = n * (n - 1) / 2 + n * static_cast<float>(i);
        std::vector<float> in(300, value), out(300, -1);
        for (const size_t count : {1, 14, 15, 300}) {  // one line, its last element, two, many
          COMM_OK(rank, sum(rank, in.data(), out.data(), count));
          rank.expect(out[0] == total && out[count - 1] == total, "a wrong sum");
          COMM_OK(rank, sum(rank, in.data(), out.data(), count, commMax));
          rank.expect(out[count - 1] == n - 1 + static_cast<float>(i), "a wrong maximum");
          COMM_OK(rank, sum(rank, in.data(), out.data(), count, commAvg));
          rank.expect(out[count - 1] == total / n, "a wrong average");
        }
        for (int root = 0; root < nranks; ++root) {
          float word = rank.rank == root ? value : -1;
          COMM_OK(rank, commBroadcast(&word, &word, 1, commFloat, root, rank.comm, nullptr));
          rank.expect(word == static_cast<float>(root + i), "a wrong broadcast");
          float at_root = -1;
          COMM_OK(rank, commReduce(in.data(), rank.rank == root ? &at_root : nullptr, 1, commFloat,
                                   commSum, root, rank.comm, nullptr));
          rank.expect(at_root == (rank.rank == root ? total : -1), "a wrong reduction");
        }
      }
    });
  }
}

TEST(Repeats, LetRanksRunAheadOfSlowOnes) {
  // Who needs nothing from the others goes on at once; what it left for them must stay until they
  // have come for it, however late.
  constexpr int kCalls = world::kSanitized ? 60 : 200;
  for (const auto kind : {world::Kind::kThreads, world::Kind::kProcesses}) {
    world::run({.nranks = 3, .kind = kind}, [&](Rank& rank) {
      std::vector<float> in(3 * 20000), out(3 * 20000);
      unsigned random = 7 + static_cast<unsigned>(rank.rank);
      for (int i = 0; i < kCalls; ++i) {
        random = random * 1664525 + 1013904223;
        if (random >> 28 == 0) usleep((random >> 12) & 0xfff);
        const size_t count = std::array<size_t, 4>{1, 100, 1000, 20000}[(i / 3) % 4];
        const int root = i % 3;
        const auto fill = [&](float base) {
          for (size_t k = 0; k < in.size(); ++k) in[k] = base + static_cast<float>(k % 97);
        };
        fill(static_cast<float>(100 * rank.rank + i));
        const bool is_root = rank.rank == root;
        const size_t last = count - 1;
        const auto tail = static_cast<float>(last % 97);
        const auto at_root = static_cast<float>(100 * root + i);
        const char* wrong = "";
        switch ((i / 5) % 4) {
          case 0:
            COMM_OK(rank, commBroadcast(in.data(), out.data(), count, commFloat, root, rank.comm,
                                        nullptr));
            if (out[last] != at_root + tail) wrong = "broadcast";
            break;
          case 1:
            COMM_OK(rank, commReduce(in.data(), out.data(), count, commFloat, commSum, root,
                                     rank.comm, nullptr));
            if (is_root && out[last] != static_cast<float>(300 + 3 * i) + 3 * tail)
              wrong = "reduce";
            break;
          case 2:
            COMM_OK(rank,
                    commGather(in.data(), out.data(), count, commFloat, root, rank.comm, nullptr));
            if (is_root && out[2 * count + last] != static_cast<float>(200 + i) + tail)
              wrong = "gather";
            break;
          default:
            COMM_OK(rank,
                    commScatter(in.data(), out.data(), count, commFloat, root, rank.comm, nullptr));
            const size_t mine = static_cast<size_t>(rank.rank) * count + last;
            if (out[last] != at_root + static_cast<float>(mine % 97)) wrong = "scatter";
        }
        rank.require(*wrong == 0, std::string("call ") + std::to_string(i) + ": a wrong " + wrong);
      }
    });
  }
}

TEST(Repeats, StillLookAtTheBuffers) {
  world::run({.nranks = 2}, [](Rank& rank) {
    std::array<float, 32> data{};
    for (int i = 0; i < kRepeats; ++i) COMM_OK(rank, sum(rank, data.data(), data.data() + 16, 16));
    rank.expect_error(sum(rank, data.data(), data.data() + 1, 16), commInvalidUsage, {"overlap"},
                      "overlapping");
    rank.expect_error(sum(rank, nullptr, data.data(), 16), commInvalidArgument, {"sendbuff"},
                      "no input");
    rank.expect_error(sum(rank, data.data(), nullptr, 16), commInvalidArgument, {"recvbuff"},
                      "no output");
    COMM_OK(rank, sum(rank, data.data(), data.data(), 16));  // in place is another matter
  });
}

TEST(Repeats, DoNotTakeAnOperatorForItsLike) {
  // commRedOpCreatePreMulSum adds like commSum, but is another call.
  world::run({.nranks = 2}, [](Rank& rank) {
    float factor = 2, value = 1, out = 0;
    commRedOp_t twice;
    COMM_OK(rank, commRedOpCreatePreMulSum(&twice, &factor, commFloat, commScalarHostImmediate,
                                           rank.comm));
    for (int i = 0; i < kRepeats; ++i) {
      COMM_OK(rank, sum(rank, &value, &out, 1, twice));
      rank.expect(out == 4, "a wrong premultiplied sum");
      COMM_OK(rank, sum(rank, &value, &out, 1));
      rank.expect(out == 2, "a wrong sum");
    }
    const commRedOp_t op = rank.rank == 0 ? twice : commSum;
    rank.expect_error(sum(rank, &value, &out, 1, op), commInvalidUsage, {"premulsum", "sum"},
                      "different operators", rank.comm);
    (void)commAbort(std::exchange(rank.comm, nullptr));
  });
}

TEST(Repeats, EndWithTheCommunicator) {
  world::run({.nranks = 2}, [](Rank& rank) {
    float value = 1, out = 0;
    for (int i = 0; i < kRepeats; ++i) COMM_OK(rank, sum(rank, &value, &out, 1));
    COMM_OK(rank, commFinalize(rank.comm));
    rank.expect_error(sum(rank, &value, &out, 1), commInvalidUsage, {"commFinalize"}, "finalized");
    const comm_t gone = std::exchange(rank.comm, nullptr);
    COMM_OK(rank, commDestroy(gone));
    rank.expect(
        commAllReduce(&value, &out, 1, commFloat, commSum, gone, nullptr) == commInvalidArgument,
        "a destroyed communicator was used");
  });
}

}  // namespace
