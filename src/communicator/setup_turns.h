// SetupTurns: the order of set-up calls (commSplit, commWindowRegister) on one communicator.
//
// Each of them is an exchange over the group's one tree, so they run one after the other and in the
// order in which they were called, whichever thread carries them out: a group's end, or the thread
// that creates a communicator in the background.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>

#include "src/base/status.h"

namespace libcomm {

class SetupTurns {
  struct Line {
    std::mutex mutex;
    std::condition_variable changed;
    uint64_t next = 0;
    std::set<uint64_t> waiting;  // turns that are not over
  };

 public:
  class Turn {
   public:
    explicit Turn(std::shared_ptr<Line> line);
    ~Turn() { over(); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    // Returns when all earlier turns are over; kInvalidUsage when `cancel` ends the wait.
    Status await(const std::atomic<bool>* cancel) const;
    // Lets the next one go; also what the destructor does, should the call never be carried out.
    void over();

   private:
    const std::shared_ptr<Line> line_;
    uint64_t number_;
  };

  // To be called by the thread that makes the call, when it makes it.
  std::shared_ptr<Turn> take() { return std::make_shared<Turn>(line_); }

 private:
  std::shared_ptr<Line> line_ = std::make_shared<Line>();
};

using SetupTurn = std::shared_ptr<SetupTurns::Turn>;

}  // namespace libcomm
