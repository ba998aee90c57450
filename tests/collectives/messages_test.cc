// Point-to-point messages: every size class and kind of memory arrives whole and in order,
// whichever way the bytes go (slots, segments that peers map, memory that peers read).
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/collectives/elements.h"
#include "tests/collectives/world.h"

namespace {

using world::Kind;
using world::Rank;
using world::World;

// Memory from malloc or from commMemAlloc.
class Buffer {
 public:
  Buffer(Rank& rank, size_t bytes, bool mapped) : bytes_(bytes) {
    if (!mapped) {
      plain_.resize(bytes + 1);
      data_ = plain_.data() + 1;  // nothing is aligned
      return;
    }
    void* memory = nullptr;
    COMM_OK(rank, commMemAlloc(&memory, bytes + 1));
    mapped_ = memory;
    data_ = static_cast<unsigned char*>(memory) + 1;
  }
  ~Buffer() {
    if (mapped_ != nullptr) commMemFree(mapped_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  unsigned char* data() { return data_; }

  void fill(int from, int to, int which) {
    for (size_t i = 0; i < bytes_; i += kWord) {
      const uint64_t word = word_of(from, to, which, i);
      std::memcpy(data_ + i, &word, std::min(kWord, bytes_ - i));
    }
  }
  bool holds(int from, int to, int which) const {
    for (size_t i = 0; i < bytes_; i += kWord) {
      const uint64_t word = word_of(from, to, which, i);
      if (std::memcmp(data_ + i, &word, std::min(kWord, bytes_ - i)) != 0) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kWord = sizeof(uint64_t);
  static uint64_t word_of(int from, int to, int which, size_t i) {
    return elements::hash(static_cast<uint64_t>(from * 10007 + to * 101 + which), i);
  }
  size_t bytes_;
  std::vector<unsigned char> plain_;
  void* mapped_ = nullptr;
  unsigned char* data_ = nullptr;
};

constexpr int kEach = 3;  // messages to and from every peer

// Every rank sends to every rank and to itself, some receives before the sends and some after.
void everyone_to_everyone(Rank& rank, size_t bytes, bool mapped) {
  std::vector<std::unique_ptr<Buffer>> out, in;
  for (int peer = 0; peer < rank.nranks; ++peer)
    for (int k = 0; k < kEach; ++k) {
      out.push_back(std::make_unique<Buffer>(rank, bytes, mapped));
      in.push_back(std::make_unique<Buffer>(rank, bytes, !mapped));
      out.back()->fill(rank.rank, peer, k);
    }
  const auto index = [](int peer, int k) { return static_cast<size_t>(peer * kEach + k); };
  COMM_OK(rank, commGroupStart());
  for (int k = 0; k < kEach; ++k)
    for (int peer = rank.nranks - 1; peer >= 0; --peer) {
      const auto send = [&] {
        COMM_OK(rank,
                commSend(out[index(peer, k)]->data(), bytes, commUint8, peer, rank.comm, nullptr));
      };
      if (k % 2 == 0) send();
      COMM_OK(rank,
              commRecv(in[index(peer, k)]->data(), bytes, commUint8, peer, rank.comm, nullptr));
      if (k % 2 != 0) send();
    }
  COMM_OK(rank, commGroupEnd());
  for (int peer = 0; peer < rank.nranks; ++peer)
    for (int k = 0; k < kEach; ++k)
      rank.expect(in[index(peer, k)]->holds(peer, rank.rank, k),
                  "message " + std::to_string(k) + " of " + std::to_string(bytes) +
                      " bytes from rank " + std::to_string(peer) + " is wrong");
}

// The sender's buffer is its own again when the call returns.
void reuse(Rank& rank, size_t bytes, bool mapped) {
  Buffer buffer(rank, bytes, mapped);
  for (int round = 0; round < 20; ++round) {
    const int from = round % 2;
    if (rank.rank == from) {
      buffer.fill(from, 1 - from, round);
      COMM_OK(rank, commSend(buffer.data(), bytes, commUint8, 1 - from, rank.comm, nullptr));
      std::memset(buffer.data(), 0xee, bytes);
    } else if (rank.rank == 1 - from) {
      COMM_OK(rank, commRecv(buffer.data(), bytes, commUint8, from, rank.comm, nullptr));
      rank.expect(buffer.holds(from, 1 - from, round),
                  "round " + std::to_string(round) + ": the message is wrong");
    }
  }
}

struct Path {
  const char* name;
  Kind kind;
  world::Environment environment;
};

class Messages : public testing::TestWithParam<Path> {};
INSTANTIATE_TEST_SUITE_P(
    By, Messages,
    testing::Values(Path{"Threads", Kind::kThreads, {}}, Path{"Processes", Kind::kProcesses, {}},
                    Path{"ProcessesThatDoNotRead", Kind::kProcesses, {{"COMM_CMA_DISABLE", "1"}}},
                    Path{"SmallSlots", Kind::kProcesses, {{"COMM_BUFFSIZE", "32K"}}},
                    Path{"Sockets", Kind::kProcesses, {{"COMM_SHM_DISABLE", "1"}}}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_P(Messages, OfAllSizesArriveWholeAndInOrder) {
  World world{.nranks = 3, .kind = GetParam().kind, .environment = GetParam().environment};
  world::run(world, [](Rank& rank) {
    for (const size_t bytes :
         {size_t{0}, size_t{1}, size_t{16}, size_t{17}, size_t{2048}, size_t{16383}, size_t{16384},
          size_t{131072}, size_t{131073}, size_t{1} << 20, (size_t{5} << 20) + 5}) {
      if (world::kSanitized && bytes > (1 << 20)) continue;
      for (const bool mapped : {false, true}) everyone_to_everyone(rank, bytes, mapped);
    }
  });
}

TEST_P(Messages, LeaveTheSenderItsBuffer) {
  World world{.nranks = 2, .kind = GetParam().kind, .environment = GetParam().environment};
  world::run(world, [](Rank& rank) {
    // The last go around the receiver's caches; the buffers are not aligned.
    for (const size_t bytes :
         {size_t{8}, size_t{4096}, size_t{70000}, size_t{5} << 20, (size_t{16} << 20) + 5}) {
      if (world::kSanitized && bytes > (8 << 20)) continue;
      for (const bool mapped : {false, true}) reuse(rank, bytes, mapped);
    }
  });
}

// More segments of commMemAlloc memory than a rank can announce at a time, all for the first time
// and before the peer looks. Every 32nd of them meets in one place of the table.
TEST_P(Messages, FromMoreSegmentsThanCanBeSharedArriveAllTheSame) {
  World world{.nranks = 2, .kind = GetParam().kind, .environment = GetParam().environment};
  world::run(world, [](Rank& rank) {
    constexpr size_t kBytes = 8192;
    constexpr int kSets = 32, kSends = 8;
    std::vector<std::unique_ptr<Buffer>> buffers;
    for (int i = 0; i < kSets * kSends; ++i)
      buffers.push_back(std::make_unique<Buffer>(rank, kBytes, true));
    if (rank.rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    COMM_OK(rank, commGroupStart());
    for (int i = 0; i < kSends; ++i) {
      unsigned char* data = buffers[static_cast<size_t>(i * kSets)]->data();
      std::memset(data, rank.rank == 0 ? i + 1 : 0, kBytes);
      if (rank.rank == 0)
        COMM_OK(rank, commSend(data, kBytes, commUint8, 1, rank.comm, nullptr));
      else
        COMM_OK(rank, commRecv(data, kBytes, commUint8, 0, rank.comm, nullptr));
    }
    COMM_OK(rank, commGroupEnd());
    for (int i = 0; i < kSends; ++i) {
      const unsigned char* data = buffers[static_cast<size_t>(i * kSets)]->data();
      rank.expect(std::count(data, data + kBytes, i + 1) == kBytes, "a message differs");
    }
  });
}

// What all ranks know of a run: who sends what to whom, in which order.
class Script {
 public:
  explicit Script(uint64_t seed) : random_(seed) {}
  size_t below(size_t limit) { return static_cast<size_t>(random_() % limit); }
  bool one_in(size_t n) { return below(n) == 0; }
  size_t bytes() {
    constexpr size_t kSizes[] = {0,    1,    4,    8,    15,   16,   17,    72,    73,    100,
                                 1807, 1808, 1809, 2047, 2048, 5000, 16383, 16384, 40000, 300000};
    const size_t most = one_in(4) ? std::size(kSizes) : 14;
    return kSizes[below(most)];
  }

 private:
  std::mt19937_64 random_;
};

// A message as one of its two ends has it.
struct Half {
  int from = 0, to = 0;
  size_t on = 0;  // which communicator
  size_t bytes = 0;
  int which = 0;
  std::unique_ptr<Buffer> buffer = nullptr;

  Half(Rank& rank, Script& script, size_t communicators, int number)
      : from(static_cast<int>(script.below(static_cast<size_t>(rank.nranks)))),
        to(static_cast<int>(script.below(static_cast<size_t>(rank.nranks)))),
        on(script.one_in(4) ? script.below(communicators) : 0),
        bytes(script.bytes()),
        which(number) {}

  commResult_t call(Rank& rank, comm_t comm, bool sends, bool mapped) {
    buffer = std::make_unique<Buffer>(rank, bytes, mapped);
    if (sends) buffer->fill(from, to, which);
    return sends ? commSend(buffer->data(), bytes, commUint8, to, comm, nullptr)
                 : commRecv(buffer->data(), bytes, commUint8, from, comm, nullptr);
  }
  void check(Rank& rank) const {
    rank.expect(buffer->holds(from, to, which), "message " + std::to_string(which) + " of " +
                                                    std::to_string(bytes) + " bytes from rank " +
                                                    std::to_string(from) + " is wrong");
  }
};

// One group on every rank. Each adds its sends and receives in an order of its own, in which only
// those between the same two ranks, in the same direction, are as in the script.
void random_group(Rank& rank, const std::vector<comm_t>& comms, Script& script, Script& mine,
                  int* number) {
  std::map<std::tuple<size_t, int, bool>, std::deque<Half>> halves;  // by communicator, peer, sends
  std::vector<std::tuple<size_t, int, bool>> order;
  for (size_t left = 1 + script.below(script.one_in(3) ? 60 : 6); left > 0; --left) {
    for (const bool sends : {true, false}) {
      Script same = script;  // both ends of a message to oneself
      Half half(rank, same, comms.size(), *number);
      if (!sends) script = same;
      if ((sends ? half.from : half.to) != rank.rank) continue;
      const std::tuple key(half.on, sends ? half.to : half.from, sends);
      halves[key].push_back(std::move(half));
      order.push_back(key);
    }
    ++*number;
  }
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[mine.below(i)]);
  const bool has_sum = script.one_in(4);
  const size_t sum_at = mine.below(order.size() + 1);
  std::vector<Half> over;
  float in = 1, out = 0;
  const auto add_sum = [&] {
    if (has_sum) COMM_OK(rank, commAllReduce(&in, &out, 1, commFloat, commSum, comms[0], nullptr));
  };
  COMM_OK(rank, commGroupStart());
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == sum_at) add_sum();
    auto& queue = halves[order[i]];
    const auto [on, peer, sends] = order[i];
    COMM_OK(rank, queue.front().call(rank, comms[on], sends, mine.one_in(3)));
    over.push_back(std::move(queue.front()));
    queue.pop_front();
  }
  if (sum_at == order.size()) add_sum();
  COMM_OK(rank, commGroupEnd());
  for (const Half& half : over) half.check(rank);
  if (has_sum) rank.expect(out == static_cast<float>(rank.nranks), "the sum is wrong");
}

// Calls without a group, in the order of the script on every rank.
void random_calls(Rank& rank, const std::vector<comm_t>& comms, Script& script, Script& mine,
                  int* number) {
  for (size_t left = 1 + script.below(40); left > 0; --left) {
    Half half(rank, script, comms.size(), ++*number);
    if (half.from == half.to || (half.from != rank.rank && half.to != rank.rank)) continue;
    COMM_OK(rank, half.call(rank, comms[half.on], half.from == rank.rank, mine.one_in(3)));
    half.check(rank);
  }
}

TEST_P(Messages, OfMixedSizesInAnyOrderArriveWholeAndInOrder) {
  World world{.nranks = 3, .kind = GetParam().kind, .environment = GetParam().environment};
  world::run(world, [](Rank& rank) {
    comm_t second = nullptr;
    COMM_OK(rank, commSplit(rank.comm, 0, rank.rank, &second, nullptr));
    const std::vector<comm_t> comms = {rank.comm, second};
    Script script(20), mine(100 + static_cast<uint64_t>(rank.rank));
    int number = 0;
    for (int round = 0; round < (world::kSanitized ? 60 : 300) && rank.failures.empty(); ++round) {
      if (script.one_in(3))
        random_calls(rank, comms, script, mine, &number);
      else
        random_group(rank, comms, script, mine, &number);
    }
    COMM_OK(rank, commDestroy(second));
  });
}

// Sends that nobody waits for, far ahead of the receiver; then as far behind.
TEST_P(Messages, OfASenderThatRunsAheadKeepTheirOrder) {
  World world{.nranks = 2, .kind = GetParam().kind, .environment = GetParam().environment};
  world::run(world, [](Rank& rank) {
    for (const size_t bytes : {size_t{4}, size_t{100}, size_t{1808}, size_t{3000}}) {
      Buffer buffer(rank, bytes, false);
      if (rank.rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      for (int i = 0; i < 1000; ++i) {
        if (rank.rank == 0) {
          buffer.fill(0, 1, i);
          COMM_OK(rank, commSend(buffer.data(), bytes, commUint8, 1, rank.comm, nullptr));
        } else {
          COMM_OK(rank, commRecv(buffer.data(), bytes, commUint8, 0, rank.comm, nullptr));
          rank.require(buffer.holds(0, 1, i), "message " + std::to_string(i) + " is wrong");
        }
      }
    }
  });
}

// A group that fails for one of its calls does nothing of the others, and the next works.
TEST_P(Messages, OfAGroupWithAWrongCallAreNotSent) {
  World world{.nranks = 2, .kind = GetParam().kind, .environment = GetParam().environment};
  world::run(world, [](Rank& rank) {
    const int peer = 1 - rank.rank;
    for (int round = 0; round < 3; ++round) {
      int out = 10 * rank.rank + round, in = -1;
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank, commSend(&out, 1, commInt32, peer, rank.comm, nullptr));
      COMM_OK(rank, commRecv(&in, 1, commInt32, peer, rank.comm, nullptr));
      if (round == 1) {
        COMM_FAILS(rank, commSend(nullptr, 1, commInt32, peer, rank.comm, nullptr),
                   commInvalidArgument, "sendbuff is NULL");
        COMM_FAILS(rank, commGroupEnd(), commInvalidArgument, "sendbuff is NULL");
        rank.expect(in == -1, "a message of a failed group arrived");
        continue;
      }
      COMM_OK(rank, commGroupEnd());
      rank.expect(in == 10 * peer + round, "the message is wrong");
    }
  });
}

TEST_P(Messages, OfAnAbortedCommunicatorLeaveTheGroup) {
  World world{.nranks = 2, .kind = GetParam().kind, .environment = GetParam().environment};
  world::run(world, [](Rank& rank) {
    comm_t second = nullptr;
    COMM_OK(rank, commSplit(rank.comm, 0, rank.rank, &second, nullptr));
    int out = rank.rank, in = -1;
    const auto exchange = [&](comm_t comm) {
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank, commSend(&out, 1, commInt32, 1 - rank.rank, comm, nullptr));
      COMM_OK(rank, commRecv(&in, 1, commInt32, 1 - rank.rank, comm, nullptr));
    };
    for (int i = 0; i < 2; ++i) {
      exchange(second);
      COMM_OK(rank, commGroupEnd());
    }
    COMM_OK(rank, commBarrier(rank.comm, nullptr));
    if (rank.rank == 0) {
      exchange(second);
      COMM_OK(rank, commAbort(second));
      COMM_OK(rank, commGroupEnd());
    }
    COMM_OK(rank, commBarrier(rank.comm, nullptr));
    if (rank.rank == 1) COMM_OK(rank, commAbort(second));
    exchange(rank.comm);
    COMM_OK(rank, commGroupEnd());
    rank.expect(in == 1 - rank.rank, "the message is wrong");
  });
}

// The receiver expects something else than what was sent, alone and in a group: both are named.
TEST_P(Messages, ThatDoNotFitTheirReceiveAreRefused) {
  for (const bool in_group : {false, true}) {
    for (const size_t expected : {size_t{3}, size_t{5000}}) {
      World world{.nranks = 2, .kind = GetParam().kind, .environment = GetParam().environment};
      world::run(world, [&](Rank& rank) {
        std::vector<int> data(6000, 7);
        const int peer = 1 - rank.rank;
        const auto call = [&](size_t count) {
          return rank.rank == 0 ? commSend(data.data(), count, commInt32, peer, rank.comm, nullptr)
                                : commRecv(data.data(), count, commInt32, peer, rank.comm, nullptr);
        };
        for (int i = 0; i < 3; ++i) COMM_OK(rank, call(4));
        if (in_group) COMM_OK(rank, commGroupStart());
        commResult_t result = call(rank.rank == 0 ? 4 : expected);
        if (in_group) result = commGroupEnd();
        if (rank.rank == 1) {
          rank.expect_error(result, commInvalidUsage,
                            {"count 4", "count " + std::to_string(expected), "rank 0"}, "commRecv");
          rank.expect(std::count(data.begin(), data.end(), 7) == 6000, "something was written");
        } else {  // its send is over, but not its communicator before the peer has seen it
          result = commRecv(data.data(), 1, commInt32, peer, rank.comm, nullptr);
          rank.expect(result != commSuccess, "the sender's communicator still works");
        }
        COMM_OK(rank, commAbort(rank.comm));
        rank.comm = nullptr;
      });
    }
  }
}

// A rank that dies while its peer waits for a small message of it.
TEST(Messages, ThatADeadRankDidNotSendFailWithItsName) {
  World world{.nranks = 2, .kind = Kind::kProcesses, .victims = {1}};
  world::run(world, [](Rank& rank) {
    double out = rank.rank, in = -1;
    commResult_t result = commSuccess;
    for (int round = 0; round < 100000 && result == commSuccess; ++round) {
      if (rank.rank == 1 && round == 1000) raise(SIGKILL);
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank, commSend(&out, 1, commDouble, 1 - rank.rank, rank.comm, nullptr));
      COMM_OK(rank, commRecv(&in, 1, commDouble, 1 - rank.rank, rank.comm, nullptr));
      result = commGroupEnd();
    }
    rank.expect_error(result, commRemoteError, {"rank 1"}, "commGroupEnd");
    COMM_OK(rank, commAbort(rank.comm));
    rank.comm = nullptr;
  });
}

// A rank that dies while its memory is being taken.
TEST(Messages, OfARankThatIsKilledFailWithItsName) {
  World world{.nranks = 2, .kind = Kind::kProcesses, .victims = {1}};
  world::run(world, [](Rank& rank) {
    const size_t bytes = size_t{64} << 20;
    std::vector<unsigned char> out(bytes), in(bytes);
    commResult_t result = commSuccess;
    for (int round = 0; round < 1000 && result == commSuccess; ++round) {
      if (rank.rank == 1 && round == 3) raise(SIGKILL);
      COMM_OK(rank, commGroupStart());
      // Refused when the death is known already; the group's end then says why.
      (void)commSend(out.data(), bytes, commUint8, 1 - rank.rank, rank.comm, nullptr);
      (void)commRecv(in.data(), bytes, commUint8, 1 - rank.rank, rank.comm, nullptr);
      result = commGroupEnd();
    }
    rank.expect_error(result, commRemoteError, {"rank 1"}, "commGroupEnd");
    COMM_OK(rank, commAbort(rank.comm));
    rank.comm = nullptr;
  });
}

}  // namespace
