// The board: parts, published signatures, sleeping and waking, and segments mapped between members.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>

#include "tests/shm/ranks.h"
#include "transports/shm/memory.h"
#include "transports/shm/published.h"

namespace libcomm::testing {
namespace {

template <typename T>
T& word(Board& board, int index, size_t offset) {
  return *reinterpret_cast<T*>(board.part(index) + offset);
}

// Waits as the executor does: looks, prepares, looks again, sleeps.
std::string sleep_until(Board& board, const std::function<bool()>& ready, int* sleeps) {
  const Deadline deadline = Deadline::after(Seconds(30));
  while (!ready()) {
    RANK_CHECK(!deadline.passed());
    const uint32_t ticket = board.prepare_sleep();
    if (ready()) {
      board.cancel_sleep();
      break;
    }
    board.sleep(ticket, 1000000);
    ++*sleeps;
  }
  return {};
}

// Two ranks take turns, each asleep while the other works; without wake-ups a turn takes a second.
std::string take_turns(Rank& self) {
  constexpr uint64_t kTurns = 200;
  Board& board = *self.group.board;
  const int me = board.index();
  int sleeps = 0;
  for (uint64_t turn = 1; turn <= kTurns; ++turn) {
    auto& mine = word<std::atomic<uint64_t>>(board, me, 0);
    auto& theirs = word<std::atomic<uint64_t>>(board, 1 - me, 0);
    if (me == 0) {
      mine.store(turn, std::memory_order_release);
      board.wake_others(true);
    }
    const auto ready = [&] { return theirs.load(std::memory_order_acquire) >= turn; };
    if (std::string text = sleep_until(board, ready, &sleeps); !text.empty()) return text;
    if (me == 1) {
      mine.store(turn, std::memory_order_release);
      board.wake_others(true);
    }
  }
  RANK_OK(self.barrier());
  return {};
}

TEST(ShmBoard, SleepersAreWokenBetweenThreads) { run_threads(2, take_turns); }
TEST(ShmBoard, SleepersAreWokenBetweenProcesses) { run_processes(2, take_turns); }

TEST(ShmBoard, AChannelWakesTheReceiverAndThenTheSenderThatWaitsForCredit) {
  run_processes(2, [](Rank& self) -> std::string {
    Board& board = *self.group.board;
    Result<std::unique_ptr<SendChannel>> out = self.group.transport->connect(1 - self.rank, 0);
    Result<std::unique_ptr<RecvChannel>> in = self.group.transport->accept(1 - self.rank, 0);
    RANK_OK(out.status());
    RANK_OK(in.status());
    int sleeps = 0;
    constexpr int kMessages = 300;
    for (int i = 0; i < kMessages; ++i) {
      if (self.rank == 0) {
        std::byte* slot = nullptr;
        const auto ready = [&] { return !(*out)->reserve(&slot).is_ok() || slot != nullptr; };
        if (std::string text = sleep_until(board, ready, &sleeps); !text.empty()) return text;
        RANK_OK((*out)->commit({}, 0));
      } else {
        Segment segment;
        const auto ready = [&] { return !(*in)->peek(&segment).is_ok() || segment.ready; };
        if (std::string text = sleep_until(board, ready, &sleeps); !text.empty()) return text;
        RANK_OK((*in)->release());
      }
    }
    RANK_OK(self.barrier());
    return {};
  });
}

TEST(ShmBoard, ASleepEndsByItselfWhenNobodyWakes) {
  run_threads(2, [](Rank& self) -> std::string {
    const uint32_t ticket = self.group.board->prepare_sleep();
    self.group.board->sleep(ticket, 2000);
    RANK_OK(self.barrier());
    return {};
  });
}

TEST(ShmBoard, ShowsWhatPeersPublishWhole) {
  run_threads(3, [](Rank& self) -> std::string {
    Board& board = *self.group.board;
    const auto made = [](uint64_t op) {
      Signature signature;
      signature.op = op;
      signature.count = op * 3;
      signature.table_hash = op * 5;
      signature.root = static_cast<int32_t>(op % 7);
      return signature;
    };
    for (uint64_t op = 1; op <= 3000; ++op) {
      board.publish(made(op));
      const std::optional<Signature> seen = board.published((board.index() + 1) % 3);
      if (seen) RANK_CHECK(*seen == made(seen->op));  // never a mixture of two
    }
    RANK_OK(self.barrier());
    for (int index = 0; index < 3; ++index) RANK_CHECK(board.published(index) == made(3000));
    RANK_OK(self.barrier());
    return {};
  });
}

TEST(ShmBoard, ShowsCallsFromWhichARankHasGoneOn) {
  run_threads(2, [](Rank& self) -> std::string {
    Board& board = *self.group.board;
    const int other = 1 - board.index();
    const auto made = [](uint64_t op) {
      Signature signature;
      signature.op = op;
      signature.count = op * 3;
      return signature;
    };
    RANK_CHECK(!board.published_as(other, 0));
    RANK_CHECK(!board.published_as(other, 1));
    RANK_OK(self.barrier());
    for (uint64_t op = 1; op <= 20; ++op) board.publish_for_later(made(op));
    board.publish(made(21));
    RANK_OK(self.barrier());
    for (uint64_t op = 1; op <= 22; ++op) {
      const auto seen = board.published_as(other, op);
      RANK_CHECK(op > 12 && op <= 21 ? seen == made(op) : !seen);
    }
    RANK_OK(self.barrier());
    return {};
  });
}

// A rank that lost its core halfway through must not look as if it had made another call.
TEST(ShmBoard, ShowsNothingOfWhatIsBeingPublished) {
  shm::PublishedSignature place{};
  EXPECT_EQ(shm::published(place.record), std::nullopt);
  Signature first;
  first.op = 7;
  first.count = 63;
  shm::publish(&place.record, first);
  EXPECT_EQ(shm::published(place.record), first);
  place.record.version.fetch_add(1);
  place.record.words[0].store(8);
  EXPECT_EQ(shm::published(place.record), std::nullopt);
  Signature second = first;
  second.op = 8;
  place.record.version.fetch_add(1);
  shm::publish(&place.record, second);
  EXPECT_EQ(shm::published(place.record), second);
}

// Each rank fills a segment; the others read and write it in place.
std::string use_segments(Rank& self) {
  Board& board = *self.group.board;
  RANK_CHECK(board.segments_mappable());
  const int n = static_cast<int>(board.ranks().size());
  const size_t bytes = 3 << 20;
  Result<void*> memory = segment_alloc(bytes);
  RANK_OK(memory.status());
  auto* mine = static_cast<std::byte*>(*memory);
  const size_t offset = 12345;
  mine[offset] = static_cast<std::byte>(self.rank + 1);
  const std::optional<SegmentRef> ref = find_segment(mine + offset, 100);
  RANK_CHECK(ref.has_value() && ref->offset == offset);

  // Numbers go round over the board, as the fused exchanges do it.
  const int next = (board.index() + 1) % n;
  RANK_CHECK(!board.map_segment(next, ref->segment + 77777, 0, 1).is_ok());
  RANK_OK(board.share_segment(ref->segment, true));
  RANK_OK(board.share_segment(ref->segment, true));
  std::memcpy(board.part(board.index()), &*ref, sizeof *ref);
  RANK_OK(self.barrier());
  SegmentRef theirs;
  std::memcpy(&theirs, board.part(next), sizeof theirs);
  Result<std::byte*> mapped = board.map_segment(next, theirs.segment, theirs.offset, 100);
  RANK_OK(mapped.status());
  RANK_CHECK(**mapped == static_cast<std::byte>(board.ranks()[static_cast<size_t>(next)] + 1));
  (*mapped)[50] = std::byte{77};
  RANK_CHECK(*board.map_segment(next, theirs.segment, theirs.offset, 100) == *mapped);
  RANK_CHECK(!board.map_segment(next, theirs.segment, bytes - 5, 6).is_ok());
  RANK_CHECK(!board.map_segment(next, theirs.segment, ~uint64_t{0}, 6).is_ok());
  RANK_OK(self.barrier());
  RANK_CHECK(mine[offset + 50] == std::byte{77});

  // A new segment replaces the old one, for the peers too.
  RANK_OK(self.barrier());
  RANK_OK(segment_free(*memory));
  RANK_CHECK(!board.share_segment(ref->segment, true).is_ok());
  RANK_OK(self.barrier());
  RANK_CHECK(!board.map_segment(next, theirs.segment, 0, 1).is_ok());
  RANK_OK(self.barrier());
  return {};
}

TEST(ShmBoard, SegmentsAreUsedInPlaceBetweenProcesses) { run_processes(3, use_segments); }
TEST(ShmBoard, SegmentsAreUsedInPlaceBetweenThreads) { run_threads(3, use_segments); }

TEST(ShmBoard, MoreSegmentsThanTheTableHoldsCanBeSharedOneAfterTheOther) {
  run_processes(2, [](Rank& self) -> std::string {
    Board& board = *self.group.board;
    std::vector<void*> all;
    for (int i = 0; i < 300; ++i) {
      Result<void*> memory = segment_alloc(1);
      RANK_OK(memory.status());
      all.push_back(*memory);
      *static_cast<std::byte*>(*memory) = static_cast<std::byte>(i);
      const SegmentRef ref = *find_segment(*memory, 1);
      RANK_OK(board.share_segment(ref.segment, true));
      std::memcpy(board.part(board.index()), &ref, sizeof ref);
      RANK_OK(self.barrier());
      SegmentRef theirs;
      std::memcpy(&theirs, board.part(1 - board.index()), sizeof theirs);
      Result<std::byte*> mapped = board.map_segment(1 - board.index(), theirs.segment, 0, 1);
      RANK_OK(mapped.status());
      RANK_CHECK(**mapped == static_cast<std::byte>(i));
      RANK_OK(self.barrier());
    }
    for (void* memory : all) RANK_OK(segment_free(memory));
    return {};
  });
}

TEST(ShmBoard, SaysSoWhenMembersCannotMapEachOthersSegments) {
  RankOptions options;
  // Peers in another pid namespace cannot be looked up in /proc.
  options.change_facts = [](PeerFacts& facts) {
    facts.pid_namespace += static_cast<uint64_t>(facts.rank);
  };
  run_processes(
      2,
      [](Rank& self) -> std::string {
        RANK_CHECK(self.group.board != nullptr);
        RANK_CHECK(!self.group.board->segments_mappable());
        return {};
      },
      options);
}

}  // namespace
}  // namespace libcomm::testing
