// Run: all ranks' schedules executed at once on symbolic memory, lane by lane as far as each gets.
#pragma once

#include <span>

#include "src/base/status.h"
#include "src/schedule/checker.h"
#include "src/schedule/symbolic/channels.h"
#include "src/schedule/symbolic/memory.h"

namespace libcomm::symbolic {

class Run {
 public:
  // The schedules must be well formed (see check_form) and outlive the run.
  Run(std::span<const Schedule> ranks, const CheckOptions& options);

  // Executes until every lane has ended; a failure is a counter-example.
  Status execute();

  // After execute(): the cells of rank's output.
  const Cell* output(int rank, int slice);

 private:
  enum class Wait : uint8_t { kNothing, kMessage, kRegion, kChannel };
  struct LaneState {
    int rank = 0;
    int lane = 0;
    int slice = 0;
    size_t at = 0;        // index of the step
    size_t body_end = 0;  // of the repeat around it, 0 when there is none
    size_t body_begin = 0;
    int round = 0;
    int times = 1;
    bool done = false;
    Wait wait = Wait::kNothing;
    int awaited = -1;  // peer
  };
  enum class Progress { kYes, kBlocked, kFailed };

  LaneState& state(int rank, int lane) {
    return states_[static_cast<size_t>(rank) * lanes_ + static_cast<size_t>(lane)];
  }
  const Schedule& schedule(const LaneState& at) const {
    return ranks_[static_cast<size_t>(at.rank)];
  }
  const std::vector<Step>& steps(const LaneState& at) const {
    return schedule(at).lanes[static_cast<size_t>(at.lane)].steps;
  }
  void enter(LaneState* at);
  void advance(LaneState* at);
  void make_ready(LaneState* at);

  Progress perform(LaneState* at, const Step& step);
  Progress send(LaneState* at, const Step& step, int peer, const Ref& source);
  Progress receive(LaneState* at, const Step& step);
  Progress copy(LaneState* at, const Step& step);
  Progress reduce(LaneState* at, const Step& step);

  void post(LaneState* at, int peer, Message message, Carried* carried = nullptr);
  void take(LaneState* at, int peer);
  Progress block(LaneState* at, Wait wait, int peer);
  // The run's cells, or nullptr after fail().
  Cell* readable(LaneState* at, const Step& step, const Ref& ref);
  Cell* writable(LaneState* at, const Step& step, const Ref& ref);
  bool same_sizes(LaneState* at, const Step& step, const Ref& a, const Ref& b);
  bool finish_value(LaneState* at, const Step& step, int i, Value* value);
  bool add(LaneState* at, const Step& step, int i, const Value& a, const Value& b, Value* sum);
  Progress fail(const LaneState& at, const Step& step, int chunk, std::string what);
  std::string place(const LaneState& at) const;
  Status deadlock();

  std::span<const Schedule> ranks_;
  int slices_;
  size_t lanes_;
  std::vector<Memory> memory_;
  std::vector<LaneState> states_;
  std::vector<LaneState*> ready_;
  Channels channels_;
  Status failure_;
};

}  // namespace libcomm::symbolic
