// BoardWindows: among ranks of one process, memory that a neighbour uses is not given up under it.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

#include "src/base/clock.h"
#include "src/execute/board_windows.h"
#include "tests/shm/ranks.h"

namespace libcomm::testing {
namespace {

struct OneOperation {
  explicit OneOperation(Board& board) {
    args.board = &board;
    args.state = &state;
    args.operation = &operation;
  }
  Operation operation;
  BoardState state;
  BoardArgs args;
};

// Rank 1 uses the memory of rank 0, which fails meanwhile.
TEST(BoardWindows, AFailedRankReturnsOnceNoNeighbourUsesItsMemory) {
  std::atomic<bool> used{false}, ended{false}, ended_early{false};
  run_threads(2, [&](Rank& self) -> std::string {
    Board& board = *self.group.board;
    OneOperation one(board);
    if (board.index() == 0) {
      auto windows = std::make_unique<BoardWindows>(one.args, 65536);
      windows->begin(1);
      RANK_OK(self.barrier());
      while (!used) std::this_thread::yield();
      windows.reset();
      ended = true;
    } else {
      BoardWindows windows(one.args, 65536);
      windows.begin(1);
      RANK_OK(self.barrier());
      {
        BoardWindows::Use use(&windows);
        RANK_OK(use.begin());
        used = true;
        // Long enough for an owner that does not wait to be gone.
        const Deadline deadline = Deadline::after(Seconds(0.2));
        while (!deadline.passed() && !ended_early) ended_early = ended.load();
      }
      while (!ended) std::this_thread::yield();
      BoardWindows::Use late(&windows);
      RANK_CHECK(late.begin().code() == Code::kRemote);
    }
    RANK_OK(self.barrier());
    RANK_CHECK(!ended_early);
    return {};
  });
}

TEST(BoardWindows, ARankWhoseOperationEndedWellWaitsForNobody) {
  run_threads(2, [](Rank& self) -> std::string {
    Board& board = *self.group.board;
    OneOperation one(board);
    {
      BoardWindows windows(one.args, 65536);
      windows.begin(1);
      RANK_OK(self.barrier());
      BoardWindows::Use use(&windows);
      RANK_OK(use.begin());
      RANK_OK(self.barrier());
      windows.end();
    }
    RANK_OK(self.barrier());
    return {};
  });
}

}  // namespace
}  // namespace libcomm::testing
