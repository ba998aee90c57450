#include "src/plan/chooser.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <span>

#include "algorithms/registry.h"
#include "src/base/log.h"
#include "src/execute/board_layout.h"
#include "src/execute/oneshot.h"
#include "src/execute/windowed_copy.h"
#include "src/execute/windowed_reduction.h"

namespace libcomm {
namespace {

// Up to so many bytes on the board a one-shot is the fastest, by far where ranks take turns, or not
// worth a doubt: measured for 2, 4 and 8 ranks on 2 cores.
constexpr size_t kSureOneshot = size_t{32} << 10;

// The root of a broadcast or scatter does not wait for the others, but goes on with the next call:
// the one-shot pays for longer.
size_t threshold(const Call& call, size_t bytes) {
  const bool leaves_root_alone =
      call.collective == Collective::kBroadcast || call.collective == Collective::kScatter;
  return leaves_root_alone ? 2 * bytes : bytes;
}

// Ways over channels that the model compares, best first among equals. The others (a star of
// all-reduces, everyone to everyone) were never the fastest by more than measurements differ;
// tables and COMM_ALGO may ask for them.
std::span<const Way> compared(Collective collective) {
  static constexpr Way kSum[] = {Way::kRd, Way::kHd, Way::kRing, Way::kHierarchical};
  static constexpr Way kScattered[] = {Way::kHd, Way::kRing};
  static constexpr Way kGathered[] = {Way::kBruck, Way::kHd, Way::kRing};
  static constexpr Way kRooted[] = {Way::kBinomial, Way::kTree, Way::kRing};
  static constexpr Way kToAll[] = {Way::kPairwise, Way::kBruck};
  static constexpr Way kPairs[] = {Way::kPairwise};
  static constexpr Way kBlocks[] = {Way::kStar, Way::kBinomial};
  static constexpr Way kRings[] = {Way::kRing};
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kBarrier:
      return kSum;
    case Collective::kReduceScatter:
      return kScattered;
    case Collective::kAllGather:
      return kGathered;
    case Collective::kBroadcast:
    case Collective::kReduce:
      return kRooted;
    case Collective::kAllToAll:
      return kToAll;
    case Collective::kAllToAllV:
      return kPairs;
    case Collective::kGather:
    case Collective::kScatter:
      return kBlocks;
    case Collective::kAllGatherV:
    case Collective::kReduceScatterV:
      return kRings;
    case Collective::kSendRecv:
      break;
  }
  return {};
}

PricedGroup priced(const GroupShape& shape) {
  PricedGroup group;
  group.nranks = shape.nranks;
  group.hosts = shape.hosts;
  group.most_per_host = shape.most_per_host();
  group.medium = shape.medium();
  group.ranks_per_core = shape.ranks_per_core;
  // A constant, as where pieces begin and for the same reason.
  return group;
}

bool explains() { return log_wants(LogLevel::kInfo, Subsys::kTuning); }

}  // namespace

size_t largest_block(const Operation& operation) {
  size_t most = operation.count;
  for (size_t count : operation.in_table().counts) most = std::max(most, count);
  for (size_t count : operation.out_table().counts) most = std::max(most, count);
  return most;
}

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

Call Call::of(const Operation& operation, int nranks) {
  Call call;
  call.collective = operation.collective;
  call.bytes = largest_block(operation) * size_of(operation.type);
  call.published = oneshot_bytes(operation, nranks);
  call.root = operation.root;
  call.tables = operation.tables != nullptr;
  return call;
}

Call Call::of(Collective collective, size_t bytes, int nranks) {
  Operation operation;
  operation.collective = collective;
  operation.type = DataType::kUint8;
  operation.count = bytes;
  Call call = of(operation, nranks);
  call.tables = collective == Collective::kAllGatherV ||
                collective == Collective::kReduceScatterV || collective == Collective::kAllToAllV;
  return call;
}

Chooser::Chooser(const GroupShape& shape, std::shared_ptr<const Knobs> knobs,
                 AlgorithmChoice forced, std::vector<TuningTable> tables)
    : shape_(shape),
      group_(priced(shape)),
      reference_(group_),
      knobs_(std::move(knobs)),
      forced_(std::move(forced)),
      tables_(std::move(tables)) {
  reference_.medium = shape.hosts == 1 ? Medium::kSockets : Medium::kNetwork;
  reference_.ranks_per_core = 1;
}

std::optional<Route> Chooser::channels(Way way, const Call& call) const {
  // A barrier over channels is an all-reduce of one byte.
  ScheduleRequest request;
  request.collective =
      call.collective == Collective::kBarrier ? Collective::kAllReduce : call.collective;
  request.nranks = shape_.nranks;
  request.root = call.root;
  const Algorithm* algorithm = find_algorithm(name_of(way));
  if (algorithm == nullptr || !algorithm->supports(request)) return std::nullopt;
  return Route::kSchedule;
}

std::optional<Route> Chooser::windows(const Call& call) const {
  if (!shape_.one_board || call.tables) return std::nullopt;
  if (windowed_reduction_knows(call.collective)) return Route::kReduction;
  if (windowed_copy_knows(call.collective)) return Route::kCopy;
  return std::nullopt;
}

std::optional<Route> Chooser::route_of(Way way, const Call& call) const {
  // By windows, an all-reduce is a two-shot, and all else a one-shot piece by piece.
  const auto by_windows = windows(call);
  const bool two = call.collective == Collective::kAllReduce;
  switch (way) {
    case Way::kOneshot:
      if (shape_.one_board && !call.tables && oneshot_knows(call.collective) &&
          call.published <= kOneshotBytes)
        return Route::kOneshot;
      if (by_windows && !two) return by_windows;
      break;
    case Way::kTwoshot:
      if (by_windows && two) return by_windows;
      break;
    case Way::kWindows:
      return two ? std::nullopt : by_windows;
    default:
      break;
  }
  return channels(way, call);
}

bool Chooser::oneshot_allowed(const Call& call) const {
  return !knobs_->is_set(Knob::kLlThreshold) ||
         call.published <= threshold(call, knobs_->get_size(Knob::kLlThreshold));
}

double Chooser::price(const Call& call, Route route, Way way) const {
  return price_us(group_, call.collective, call.bytes, route, way);
}

std::optional<Decision> Chooser::by_knob(const Call& call) const {
  const auto decide = [&](Route route, Way way, const char* reason) {
    return Decision{route, way, 0, 0, price(call, route, way), reason};
  };
  const std::string& name = forced_.forced(call.collective);
  if (!name.empty()) {
    const auto way = find_way(name);
    if (way)
      if (const auto route = route_of(*way, call)) return decide(*route, *way, "COMM_ALGO");
    log_info(Subsys::kTuning, "COMM_ALGO: {} does not apply to {} here; choosing another", name,
             name_of(call.collective));
    return std::nullopt;
  }
  if (knobs_->is_set(Knob::kLlThreshold) && oneshot_allowed(call) &&
      route_of(Way::kOneshot, call) == Route::kOneshot)
    return decide(Route::kOneshot, Way::kOneshot, "COMM_LL_THRESHOLD");
  return std::nullopt;
}

std::optional<Decision> Chooser::by_table(const Call& call) const {
  const TuningKey key{call.collective, call.bytes, shape_.nranks, shape_.hosts, shape_.medium()};
  for (const TuningTable& table : tables_) {
    const TuningRow* row = table.find(key);
    if (row == nullptr) continue;
    const auto route = route_of(row->way, call);
    if (!route || (*route == Route::kOneshot && !oneshot_allowed(call))) {
      log_info(Subsys::kTuning, "{}: {} does not apply to this {}; looking further",
               table.place_of(*row), name_of(row->way), name_of(call.collective));
      continue;
    }
    Decision decision{*route, row->way, row->lanes, row->window, price(call, *route, row->way), ""};
    if (explains()) {
      decision.reason = table.place_of(*row);
      if (row->microseconds >= 0)
        decision.reason += fmt::format(" (measured {:.4g} us)", row->microseconds);
    }
    return decision;
  }
  return std::nullopt;
}

WayPrices Chooser::prices(const Call& call) const {
  WayPrices prices;
  for (int i = 0; i < kNumWays; ++i) {
    const auto way = static_cast<Way>(i);
    const auto route = route_of(way, call);
    prices[static_cast<size_t>(i)] = route ? price(call, *route, way) : -1;
  }
  return prices;
}

Result<Decision> Chooser::by_model(const Call& call) const {
  struct Candidate {
    Route route;
    Way way;
    double us;
  };
  std::array<Candidate, kNumWays> candidates;
  size_t count = 0;
  const auto add = [&](const PricedGroup& group, Route route, Way way) {
    candidates[count++] = {route, way, price_us(group, call.collective, call.bytes, route, way)};
  };

  const bool possible = forced_.forced(call.collective).empty();  // else: not what COMM_ALGO asks
  const bool fits = route_of(Way::kOneshot, call) == Route::kOneshot;
  if (possible && (windows(call) || fits)) {
    // All ways of the board add alike, and channels were never clearly faster.
    const bool oneshot = fits && oneshot_allowed(call);
    const bool sure = oneshot && call.published <= threshold(call, kSureOneshot);
    if (oneshot) add(group_, Route::kOneshot, Way::kOneshot);
    if (const auto route = windows(call); route && !sure)
      add(group_, *route,
          call.collective == Collective::kAllReduce ? Way::kTwoshot : Way::kWindows);
  }
  if (count == 0) {
    const PricedGroup& group = reduces(call.collective) ? reference_ : group_;
    const bool levels = shape_.hosts > 1 && shape_.hosts < shape_.nranks;
    for (const Way way : compared(call.collective)) {
      if (way == Way::kHierarchical && !levels) continue;
      if (const auto route = channels(way, call)) add(group, *route, way);
    }
  }
  if (count == 0)
    return error(Code::kInternal, "no algorithm for {} over {} ranks", name_of(call.collective),
                 shape_.nranks);
  const Candidate* best =
      std::min_element(candidates.data(), candidates.data() + count,
                       [](const Candidate& a, const Candidate& b) { return a.us < b.us; });
  Decision decision{best->route, best->way, 0, 0, price(call, best->route, best->way), ""};
  if (best->route == Route::kOneshot && tells_reach(call.collective, call.published))
    decision.in_place = windows(call);
  if (explains()) {
    decision.reason = fmt::format("the cost model: {:.3g} us", best->us);
    for (size_t i = 0; i < count; ++i)
      if (&candidates[i] != best)
        decision.reason +=
            fmt::format(", by {} {:.3g}", name_of(candidates[i].way), candidates[i].us);
    if (decision.in_place)
      decision.reason += "; by windows after a call on memory that all ranks can reach";
  }
  return decision;
}

Result<Decision> Chooser::choose(const Call& call) const {
  if (auto decision = by_knob(call)) return *std::move(decision);
  if (forced_.forced(call.collective).empty())
    if (auto decision = by_table(call)) return *std::move(decision);
  return by_model(call);
}

}  // namespace libcomm
