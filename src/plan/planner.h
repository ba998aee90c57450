// Planner: (operation, group, knobs) -> Plan. A pure function of what all ranks have agreed on, so
// that every rank chooses alike.
#pragma once

#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "src/base/knobs.h"
#include "src/base/status.h"
#include "src/plan/chooser.h"
#include "src/plan/group_shape.h"
#include "src/plan/plan.h"

namespace libcomm {

class Planner {
 public:
  // kInvalidArgument: COMM_ALGO or COMM_RINGS is wrong; the text says how.
  // `tables`: the same on all ranks, the strongest first.
  static Result<std::unique_ptr<Planner>> create(GroupShape shape,
                                                 std::shared_ptr<const Knobs> knobs,
                                                 std::vector<TuningTable> tables = {});

  // The plan stays until the next call.
  Result<const Plan*> plan(const Operation& operation);
  // Microseconds that the operation would take; from any thread. A message between two ranks too.
  Result<double> estimate(const Operation& operation) const;
  const GroupShape& shape() const { return shape_; }

 private:
  struct Key {
    size_t count;
    uint32_t what;  // collective, type, operator, premultiplied, average: all that a peer is told
    int root;
    uint64_t merged;  // hash of the counts of merged calls
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  Planner(GroupShape shape, std::shared_ptr<const Knobs> knobs)
      : shape_(std::move(shape)), knobs_(std::move(knobs)) {}
  static Key key_of(const Operation& operation);
  Result<std::unique_ptr<const Plan>> make(const Operation& operation) const;
  Status plan_schedule(const Operation& operation, const Decision& decision, Plan* plan) const;
  int lanes_for(size_t bytes, int wanted) const;
  int slices_for(const Schedule& schedule, const Operation& operation) const;

  GroupShape shape_;
  std::shared_ptr<const Knobs> knobs_;
  std::optional<Chooser> chooser_;
  Key last_key_{};
  const Plan* last_plan_ = nullptr;     // of last_key_
  std::unique_ptr<const Plan> unkept_;  // of the last operation with tables
  std::unordered_map<Key, std::unique_ptr<const Plan>, KeyHash> plans_;
};

}  // namespace libcomm
