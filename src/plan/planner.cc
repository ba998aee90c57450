#include "src/plan/planner.h"

#include <algorithm>
#include <charconv>

#include "algorithms/registry.h"
#include "src/base/log.h"
#include "src/plan/split_runs.h"

namespace libcomm {
namespace {

constexpr size_t kMostPlans = 4096;
constexpr int kMostSlices = 512;
constexpr size_t kMostInFlight = 8;  // chunks per lane of a two-way algorithm
// Least bytes of such a chunk. A constant, not the transport's segment: where chunks begin decides
// the order of reduction, which must not depend on what carries the bytes.
constexpr size_t kPieceBytes = size_t{256} << 10;
constexpr size_t kWindowBytes = size_t{512} << 10;
constexpr size_t kCopyWindowBytes = size_t{128} << 10;

bool has_table(const Operation& operation) { return operation.tables != nullptr; }

// "0 2 1 3" or "0,2,1,3": a permutation of the ranks.
Status parse_ring(std::string_view text, int nranks, std::vector<int>* order) {
  const std::string_view whole = text;
  std::vector<bool> seen(static_cast<size_t>(nranks), false);
  order->clear();
  while (!text.empty()) {
    if (text.front() == ' ' || text.front() == ',') {
      text.remove_prefix(1);
      continue;
    }
    int rank = -1;
    const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), rank);
    if (err != std::errc() || rank < 0 || rank >= nranks || seen[static_cast<size_t>(rank)])
      return error(Code::kInvalidArgument,
                   "COMM_RINGS={}: expected every rank from 0 to {} once, such as '0 2 1 3'", whole,
                   nranks - 1);
    seen[static_cast<size_t>(rank)] = true;
    order->push_back(rank);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
  }
  if (static_cast<int>(order->size()) != nranks)
    return error(Code::kInvalidArgument,
                 "COMM_RINGS={}: names {} of the {} ranks; every rank must be there once", whole,
                 order->size(), nranks);
  return Status::ok();
}

}  // namespace

const char* name_of(Route route) {
  switch (route) {
    case Route::kLocal:
      return "local";
    case Route::kOneshot:
      return "at once on the board";
    case Route::kReduction:
    case Route::kCopy:
      return "by windows on the board";
    case Route::kSchedule:
      return "channels";
  }
  return "?";
}

Result<std::unique_ptr<Planner>> Planner::create(GroupShape shape,
                                                 std::shared_ptr<const Knobs> knobs,
                                                 std::vector<TuningTable> tables) {
  std::unique_ptr<Planner> planner(new Planner(std::move(shape), std::move(knobs)));
  AlgorithmChoice forced;
  COMM_TRY(forced.parse(planner->knobs_->get_string(Knob::kAlgo)));
  const std::string& rings = planner->knobs_->get_string(Knob::kRings);
  if (!rings.empty())
    COMM_TRY(parse_ring(rings, planner->shape_.nranks, &planner->shape_.ring_order));
  planner->chooser_.emplace(planner->shape_, planner->knobs_, std::move(forced), std::move(tables));
  return planner;
}

size_t Planner::KeyHash::operator()(const Key& key) const {
  uint64_t h = key.count * 0x9e3779b97f4a7c15u;
  h = (h ^ (h >> 31) ^ key.what) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 29) ^ static_cast<uint32_t>(key.root) ^ key.merged) * 0x94d049bb133111ebu;
  return h ^ (h >> 32);
}

Planner::Key Planner::key_of(const Operation& operation) {
  return {operation.count,
          static_cast<uint32_t>(operation.collective) << 24 |
              static_cast<uint32_t>(operation.type) << 16 |
              static_cast<uint32_t>(operation.op) << 8 |
              static_cast<uint32_t>(operation.premultiply) << 1 |
              static_cast<uint32_t>(operation.average),
          operation.root, operation.merged == 0 ? 0 : operation.table_hash + operation.merged};
}

Result<const Plan*> Planner::plan(const Operation& operation) {
  if (has_table(operation)) {
    COMM_ASSIGN(unkept_, make(operation));
    return unkept_.get();
  }
  const Key key = key_of(operation);
  if (last_plan_ != nullptr && key == last_key_) return last_plan_;
  auto it = plans_.find(key);
  if (it == plans_.end()) {
    if (plans_.size() >= kMostPlans) plans_.clear();
    last_plan_ = nullptr;
    COMM_ASSIGN(auto made, make(operation));
    it = plans_.emplace(key, std::move(made)).first;
  }
  last_key_ = key;
  last_plan_ = it->second.get();
  return last_plan_;
}

Result<double> Planner::estimate(const Operation& operation) const {
  if (operation.collective == Collective::kSendRecv)
    return message_us(chooser_->group(), operation.count * size_of(operation.type));
  COMM_ASSIGN(const auto plan, make(operation));
  return plan->estimated_us;
}

int Planner::lanes_for(size_t bytes, int wanted) const {
  const int most = std::max(shape_.min_lanes, shape_.max_lanes);
  const bool asked = wanted > 0 && !knobs_->is_set(Knob::kSingleRingThreshold);
  if (!asked && bytes <= knobs_->get_size(Knob::kSingleRingThreshold)) return 1;
  return std::clamp(std::max(wanted, 1), shape_.min_lanes, most);
}

// Algorithms that hand whole chunks from rank to rank overlap only when the chunks are cut.
int Planner::slices_for(const Schedule& schedule, const Operation& operation) const {
  if (!schedule.sliceable || operation.collective == Collective::kAllToAllV) return 1;
  const std::string& name = schedule.algorithm;
  if (name != "tree" && name != "binomial" && name != "hierarchical") return 1;
  const size_t chunk = largest_block(operation) * size_of(operation.type) /
                       static_cast<size_t>(schedule.chunks_per_block);
  const size_t slices = (chunk + shape_.segment_bytes - 1) / shape_.segment_bytes;
  return static_cast<int>(std::clamp<size_t>(slices, 1, kMostSlices));
}

Result<std::unique_ptr<const Plan>> Planner::make(const Operation& operation) const {
  auto plan = std::make_unique<Plan>();
  if (reduces(operation.collective))
    plan->kernel = find_reduce_kernel(operation.type, operation.op);
  if (shape_.nranks == 1) {
    plan->algorithm = "local";
    return std::unique_ptr<const Plan>(std::move(plan));
  }
  COMM_ASSIGN(const Decision decision, chooser_->choose(Call::of(operation, shape_.nranks)));
  plan->route = decision.route;
  // What the windows are the fused form of.
  plan->algorithm = name_of(decision.way == Way::kWindows ? Way::kOneshot : decision.way);
  plan->reason = decision.reason;
  plan->estimated_us = decision.estimated_us;
  const auto window = [&](Route route) {
    if (decision.window > 0) return decision.window;
    return route == Route::kReduction ? kWindowBytes : kCopyWindowBytes;
  };
  switch (decision.route) {
    case Route::kLocal:
      break;
    case Route::kOneshot:
      plan->in_place = decision.in_place;
      plan->oneshot = OneshotCall::of(operation, plan->kernel, shape_.rank, shape_.nranks);
      plan->oneshot.tells_reach = plan->in_place.has_value();
      if (plan->in_place) plan->window = window(*plan->in_place);
      break;
    case Route::kReduction:
    case Route::kCopy:
      plan->window = window(decision.route);
      break;
    case Route::kSchedule:
      COMM_TRY(plan_schedule(operation, decision, plan.get()));
      break;
  }
  log_info(Subsys::kTuning,
           "{} of {} x {}: {} ({}), {} lanes, {} slices, about {:.3g} us; because: {}",
           name_of(operation.collective), operation.count, name_of(operation.type), plan->algorithm,
           name_of(plan->route), plan->schedule.lanes.size(), plan->slices, plan->estimated_us,
           plan->reason);
  return std::unique_ptr<const Plan>(std::move(plan));
}

Status Planner::plan_schedule(const Operation& operation, const Decision& decision,
                              Plan* plan) const {
  const size_t bytes = largest_block(operation) * size_of(operation.type);
  // A barrier over channels is an all-reduce of one byte.
  const bool barrier = operation.collective == Collective::kBarrier;
  ScheduleRequest request;
  request.collective = barrier ? Collective::kAllReduce : operation.collective;
  request.nranks = shape_.nranks;
  request.root = operation.root;
  request.lanes = lanes_for(bytes, decision.lanes);
  request.pipeline = static_cast<int>(std::clamp<size_t>(bytes / kPieceBytes, 1, kMostInFlight));
  request.host_of = shape_.host_of;
  request.ring_order = shape_.ring_order;
  plan->schedule = find_algorithm(name_of(decision.way))->build(request, shape_.rank);
  if (operation.collective == Collective::kAllGatherV) plan->schedule = split_runs(plan->schedule);
  if (static_cast<int>(plan->schedule.lanes.size()) > kMaxLanes)
    return error(Code::kInternal, "{} made {} lanes; the executor has {}", name_of(decision.way),
                 plan->schedule.lanes.size(), kMaxLanes);
  plan->slices = slices_for(plan->schedule, operation);
  plan->segment_bytes = shape_.segment_bytes;
  plan->layout = std::make_unique<Layout>(plan->schedule, operation, plan->slices);
  plan->scratch_bytes = plan->layout->scratch_bytes();
  return Status::ok();
}

}  // namespace libcomm
