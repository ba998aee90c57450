#include "src/plan/planner.h"

#include <algorithm>
#include <charconv>

#include "algorithms/registry.h"
#include "src/base/log.h"
#include "src/execute/oneshot.h"
#include "src/execute/windowed_copy.h"
#include "src/execute/windowed_reduction.h"
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

bool reduces(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kReduceScatter:
    case Collective::kReduceScatterV:
    case Collective::kReduce:
    case Collective::kBarrier:
      return true;
    default:
      return false;
  }
}

// The root does not wait for the others, but goes on with the next call: the one-shot pays for
// longer.
bool leaves_root_alone(Collective collective) {
  return collective == Collective::kBroadcast || collective == Collective::kScatter;
}

// What a reduction by windows is the fused form of: every rank adds up its share from all at once;
// only an all-reduce then gathers them.
const char* windowed_algorithm(Collective collective) {
  return collective == Collective::kAllReduce ? "twoshot" : "oneshot";
}

bool has_table(const Operation& operation) { return operation.tables != nullptr; }

size_t largest_block(const Operation& operation) {
  size_t most = operation.count;
  for (size_t count : operation.in_table().counts) most = std::max(most, count);
  for (size_t count : operation.out_table().counts) most = std::max(most, count);
  return most;
}

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
                                                 std::shared_ptr<const Knobs> knobs) {
  std::unique_ptr<Planner> planner(new Planner(std::move(shape), std::move(knobs)));
  COMM_TRY(planner->choice_.parse(planner->knobs_->get_string(Knob::kAlgo)));
  const std::string& rings = planner->knobs_->get_string(Knob::kRings);
  if (!rings.empty())
    COMM_TRY(parse_ring(rings, planner->shape_.nranks, &planner->shape_.ring_order));
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
  COMM_ASSIGN(const auto plan, make(operation));
  return plan->estimated_us;
}

int Planner::lanes_for(size_t bytes) const {
  const int most = std::max(shape_.min_lanes, shape_.max_lanes);
  if (bytes <= knobs_->get_size(Knob::kSingleRingThreshold)) return 1;
  return std::clamp(1, shape_.min_lanes, most);
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
  const size_t bytes = largest_block(operation) * size_of(operation.type);
  const std::string& forced = choice_.forced(operation.collective);

  // Fused routes first: they exist where all ranks share a board.
  const size_t published = oneshot_bytes(operation, shape_.nranks);
  const bool fits = shape_.one_board && oneshot_knows(operation.collective) &&
                    !has_table(operation) && published <= kOneshotBytes;
  uint64_t threshold = knobs_->get_size(Knob::kLlThreshold);
  if (leaves_root_alone(operation.collective)) threshold *= 2;
  if (fits && (forced == "oneshot" || (forced.empty() && published <= threshold))) {
    plan->route = Route::kOneshot;
    plan->algorithm = "oneshot";
    plan->oneshot = OneshotCall::of(operation, plan->kernel, shape_.rank, shape_.nranks);
    plan->reason =
        forced.empty() ? fmt::format("{} bytes <= LL_THRESHOLD", published) : "COMM_ALGO";
  } else if (shape_.one_board && windowed_reduction_knows(operation.collective) &&
             (forced == windowed_algorithm(operation.collective) || forced.empty())) {
    plan->route = Route::kReduction;
    plan->algorithm = windowed_algorithm(operation.collective);
    plan->window = kWindowBytes;
    plan->reason = forced.empty() ? fmt::format("{} bytes > LL_THRESHOLD", published) : "COMM_ALGO";
  } else if (shape_.one_board && windowed_copy_knows(operation.collective) &&
             (forced == "oneshot" || forced.empty())) {
    plan->route = Route::kCopy;
    plan->algorithm = "oneshot";
    plan->window = kCopyWindowBytes;
    plan->reason = forced.empty() ? fmt::format("{} bytes > LL_THRESHOLD", published) : "COMM_ALGO";
  } else {
    // A barrier over channels is an all-reduce of one byte.
    const bool barrier = operation.collective == Collective::kBarrier;
    ScheduleRequest request;
    request.collective = barrier ? Collective::kAllReduce : operation.collective;
    request.nranks = shape_.nranks;
    request.root = operation.root;
    request.lanes = lanes_for(bytes);
    request.pipeline = static_cast<int>(std::clamp<size_t>(bytes / kPieceBytes, 1, kMostInFlight));
    request.host_of = shape_.host_of;
    request.ring_order = shape_.ring_order;
    const Algorithm* chosen = nullptr;
    for (const char* name : choice_.candidates(operation.collective, bytes, shape_)) {
      const Algorithm* algorithm = find_algorithm(name);
      if (algorithm != nullptr && algorithm->supports(request)) {
        chosen = algorithm;
        break;
      }
      if (!forced.empty() && forced == name)
        log_info(Subsys::kTuning, "COMM_ALGO: {} does not apply to {} here; choosing another", name,
                 name_of(operation.collective));
    }
    if (chosen == nullptr)
      return error(Code::kInternal, "no algorithm for {} over {} ranks",
                   name_of(operation.collective), shape_.nranks);
    plan->route = Route::kSchedule;
    plan->algorithm = chosen->name;
    plan->reason = !forced.empty() && forced == chosen->name ? "COMM_ALGO" : "size and group";
    plan->schedule = chosen->build(request, shape_.rank);
    if (operation.collective == Collective::kAllGatherV)
      plan->schedule = split_runs(plan->schedule);
    if (static_cast<int>(plan->schedule.lanes.size()) > kMaxLanes)
      return error(Code::kInternal, "{} made {} lanes; the executor has {}", chosen->name,
                   plan->schedule.lanes.size(), kMaxLanes);
    plan->slices = slices_for(plan->schedule, operation);
    plan->segment_bytes = shape_.segment_bytes;
    plan->layout = std::make_unique<Layout>(plan->schedule, operation, plan->slices);
    plan->scratch_bytes = plan->layout->scratch_bytes();
  }
  plan->estimated_us = estimate_us(operation, shape_, plan->algorithm);
  log_info(Subsys::kTuning, "{} of {} x {}: {} ({}), {} lanes, {} slices; because: {}",
           name_of(operation.collective), operation.count, name_of(operation.type), plan->algorithm,
           name_of(plan->route), plan->schedule.lanes.size(), plan->slices, plan->reason);
  return std::unique_ptr<const Plan>(std::move(plan));
}

double estimate_us(const Operation& operation, const GroupShape& shape,
                   const std::string& algorithm) {
  // Per message and per byte: shared memory, or sockets when the group spans hosts.
  const bool memory = shape.hosts == 1;
  const double alpha = memory ? 0.3 : 15.0;
  const double beta = memory ? 1.0 / 5e3 : 1.0 / 2.5e3;  // microseconds per byte
  const double p = shape.nranks;
  const double n = static_cast<double>(largest_block(operation) * size_of(operation.type));
  if (shape.nranks == 1) return n * beta;
  const double log_p = p <= 2 ? 1 : __builtin_ceil(__builtin_log2(p));
  if (algorithm == "oneshot") return alpha + (p - 1) * n * beta;
  if (algorithm == "star") return 2 * (p - 1) * (alpha + n * beta);
  if (algorithm == "rd") return log_p * (alpha + n * beta);
  switch (operation.collective) {
    case Collective::kAllReduce:
      return 2 * (algorithm == "ring" ? p - 1 : log_p) * alpha + 2 * n * (p - 1) / p * beta;
    case Collective::kBroadcast:
    case Collective::kReduce:
      return log_p * alpha + n * beta;
    default:
      return (p - 1) * (alpha + n * beta);
  }
}

}  // namespace libcomm
