// Point-to-point messages: every size class and kind of memory arrives whole and in order,
// whichever way the bytes go (slots, segments that peers map, memory that peers read).
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
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
    for (const size_t bytes : {size_t{8}, size_t{4096}, size_t{70000}, size_t{5} << 20})
      for (const bool mapped : {false, true}) reuse(rank, bytes, mapped);
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
