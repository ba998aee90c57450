// Chooser: which way a call is done. In this order:
//   1. COMM_ALGO, then COMM_LL_THRESHOLD where it is set;
//   2. the rows of the tuner plug-in, then those of COMM_TUNER_FILE: the first that fits the call,
//      if the way is possible for it;
//   3. the cheapest way by the cost model.
// All of it is a pure function of what the ranks have agreed on, so that they choose alike.
//
// Ways over channels that add in different orders are compared at the prices of one reference
// class, ranks with cores of their own on sockets, so that neither what carries the bytes nor a
// crowded host changes the bits of a result. The ways of the board all add alike.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/base/knobs.h"
#include "src/execute/operation.h"
#include "src/plan/algorithm_choice.h"
#include "src/plan/cost_model.h"
#include "src/plan/group_shape.h"
#include "src/plan/plan.h"
#include "src/plan/tuning_table.h"

namespace libcomm {

struct Decision {
  Route route = Route::kSchedule;
  Way way = Way::kRing;
  int lanes = 0;      // 0: as the planner does
  size_t window = 0;  // the same
  double estimated_us = 0;
  std::string reason;  // empty when nobody reads it
  // Instead, when all ranks' buffers could be reached where they are in the last call like this.
  std::optional<Route> in_place = std::nullopt;
};

// What a choice depends on, of one operation.
struct Call {
  Collective collective = Collective::kAllReduce;
  size_t bytes = 0;      // of the largest block
  size_t published = 0;  // by one rank of a one-shot exchange
  int root = 0;
  bool tables = false;  // a v-variant's

  static Call of(const Operation& operation, int nranks);
  // Of blocks of so many bytes, at most 2^40; a v-variant's blocks are equal.
  static Call of(Collective collective, size_t bytes, int nranks);
};

class Chooser {
 public:
  // `tables`: the strongest first.
  Chooser(const GroupShape& shape, std::shared_ptr<const Knobs> knobs, AlgorithmChoice forced,
          std::vector<TuningTable> tables);

  // kInternal when there is no way at all.
  Result<Decision> choose(const Call& call) const;
  // The route that the way takes for this call, or nothing where it cannot do it.
  std::optional<Route> route_of(Way way, const Call& call) const;
  // By the model, without knobs and tables; negative where a way is not possible.
  WayPrices prices(const Call& call) const;
  const PricedGroup& group() const { return group_; }

 private:
  std::optional<Route> windows(const Call& call) const;  // of the board
  std::optional<Route> channels(Way way, const Call& call) const;
  std::optional<Decision> by_knob(const Call& call) const;
  std::optional<Decision> by_table(const Call& call) const;
  Result<Decision> by_model(const Call& call) const;
  bool oneshot_allowed(const Call& call) const;
  double price(const Call& call, Route route, Way way) const;

  const GroupShape shape_;
  PricedGroup group_;      // as it is
  PricedGroup reference_;  // for choices among orders of addition
  std::shared_ptr<const Knobs> knobs_;
  AlgorithmChoice forced_;
  std::vector<TuningTable> tables_;
};

// Elements of the largest block of the operation.
size_t largest_block(const Operation& operation);
// Does the result depend on the order in which its sources are combined?
bool reduces(Collective collective);

}  // namespace libcomm
