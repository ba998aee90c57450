#include "src/schedule/checker.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/schedule/builder.h"
#include "src/schedule/symbolic/run.h"

namespace libcomm {

namespace {

using symbolic::Cell;
using symbolic::contribution;
using symbolic::Value;

// ---- Form: what must hold before a schedule can be run at all -----------------------------------

Status check_step(const Schedule& schedule, const Step& step, bool in_body) {
  const auto outside = [&](int rank) {
    return rank < 0 || rank >= schedule.nranks || rank == schedule.rank;
  };
  const bool local = step.kind == StepKind::kCopy || step.kind == StepKind::kReduce ||
                     step.kind == StepKind::kRepeat;
  if (!local && step.peer_stride == 0 && outside(step.peer))
    return error(Code::kInternal, "peer {} is not another rank", step.peer);
  if (!local && (step.peer < 0 || step.peer >= schedule.nranks))
    return error(Code::kInternal, "peer {} is not a rank", step.peer);
  const bool passes_on =
      step.kind == StepKind::kRecvReduceSend || step.kind == StepKind::kRecvCopySend;
  if (passes_on && outside(step.peer2))
    return error(Code::kInternal, "peer {} is not another rank", step.peer2);
  if (step.kind == StepKind::kRepeat && (in_body || step.times < 1 || step.body < 1))
    return error(Code::kInternal, "a nested or an empty repeat");
  if (step.kind == StepKind::kReduce &&
      (step.operands < 1 || step.operand < 0 ||
       static_cast<size_t>(step.operand + step.operands) > schedule.operands.size()))
    return error(Code::kInternal, "operands {}..{} of {}", step.operand,
                 step.operand + step.operands - 1, schedule.operands.size());
  if (step.count != 1 && schedule.sliceable)
    return error(Code::kInternal, "a run of {} chunks in a schedule that may be sliced",
                 step.count);
  return {};
}

Status check_form(const Schedule& schedule, const Schedule& first, int rank, int nranks) {
  const BlockShape shape = block_shape(schedule.collective, nranks);
  if (schedule.rank != rank || schedule.nranks != nranks || schedule.lanes.empty() ||
      schedule.in_blocks != shape.in_blocks || schedule.out_blocks != shape.out_blocks)
    return error(Code::kInternal, "rank {}: the schedule's shape does not fit its collective",
                 rank);
  if (schedule.collective != first.collective || schedule.root != first.root ||
      schedule.chunks_per_block != first.chunks_per_block || schedule.fused != first.fused ||
      schedule.sliceable != first.sliceable || schedule.lanes.size() != first.lanes.size())
    return error(Code::kInternal, "rank {}: the schedule's shape differs from rank 0's", rank);
  for (size_t l = 0; l < schedule.lanes.size(); ++l) {
    const std::vector<Step>& steps = schedule.lanes[l].steps;
    size_t body_end = 0;
    for (size_t i = 0; i < steps.size(); ++i) {
      Status status = check_step(schedule, steps[i], i < body_end);
      if (status && steps[i].kind == StepKind::kRepeat) {
        body_end = i + 1 + static_cast<size_t>(steps[i].body);
        if (body_end > steps.size()) status = error(Code::kInternal, "the body leaves the lane");
        // A repeat's peers are checked where they are: a stride of 0 is a plain step.
        for (size_t k = i + 1; status && k < body_end; ++k) {
          for (int round = 0; status && steps[k].peer_stride != 0 && round < steps[i].times;
               ++round)
            status = check_step(schedule, expand(schedule, steps[k], round), true);
        }
      }
      if (!status)
        return std::move(status).context(fmt::format("rank {}, lane {}, step {} ({})", rank, l, i,
                                                     to_string(schedule, steps[i])));
    }
  }
  return {};
}

// ---- Result -------------------------------------------------------------------------------------

// What the collective's definition says about an output chunk.
class Expectation {
 public:
  Expectation(std::span<const Schedule> ranks, int slices)
      : ranks_(ranks), reduces_(is_reducing(ranks[0].collective)) {
    if (!reduces_) return;
    complete_.resize(static_cast<size_t>(slices * in_chunks()));
    for (size_t chunk = 0; chunk < complete_.size(); ++chunk)
      for (size_t rank = 0; rank < ranks.size(); ++rank)
        complete_[chunk] += contribution(static_cast<int>(rank), static_cast<int>(chunk)).set;
  }

  bool reduces() const { return reduces_; }
  int in_chunks() const { return ranks_[0].chunks_in(Space::kIn); }

  // The input chunk, of rank `from` or of all ranks, that belongs into output chunk `chunk` of
  // `rank`.
  int source(int rank, int chunk, int slice, int* from) const {
    const Schedule& schedule = ranks_[0];
    const int parts = schedule.chunks_per_block;
    const int block = chunk / parts;
    const int part = chunk % parts;
    int in_block = 0;
    *from = schedule.root;
    switch (schedule.collective) {
      case Collective::kAllGather:
      case Collective::kAllGatherV:
      case Collective::kGather:
        *from = block;
        break;
      case Collective::kAllToAll:
      case Collective::kAllToAllV:
        *from = block;
        in_block = rank;
        break;
      case Collective::kReduceScatter:
      case Collective::kReduceScatterV:
      case Collective::kScatter:
        in_block = rank;
        break;
      default:
        break;
    }
    return slice * in_chunks() + in_block * parts + part;
  }

  uint64_t set(int from, int source) const {
    return reduces_ ? complete_[static_cast<size_t>(source)] : contribution(from, source).set;
  }

  std::string text(int from, int source) const {
    if (reduces_) return fmt::format("every rank's chunk {}, once", source % in_chunks());
    return fmt::format("rank {}'s chunk {}", from, source % in_chunks());
  }

  // What is there instead.
  std::string text_of(const Value& value, int source) const {
    if (!value.defined) return "nothing";
    const int nranks = static_cast<int>(ranks_.size());
    if (reduces_ && value.set == complete_[static_cast<size_t>(source)])
      return value.final ? "it, final" : "it, but final was never applied";
    for (int rank = 0; rank < nranks; ++rank) {
      if (reduces_ &&
          value.set + contribution(rank, source).set == complete_[static_cast<size_t>(source)])
        return fmt::format("all but rank {}'s", rank);
      for (int chunk = 0; chunk < std::min(in_chunks(), 4096); ++chunk)
        if (value.set == contribution(rank, chunk).set)
          return fmt::format("rank {}'s chunk {}", rank, chunk);
    }
    return "another mixture of contributions";
  }

 private:
  std::span<const Schedule> ranks_;
  bool reduces_;
  std::vector<uint64_t> complete_;  // per input chunk: the set of all contributions
};

// The expression that a fused all-reduce's kernel computes: all ranks in order, rounded once.
uint64_t rank_order_expression(int nranks, int source) {
  symbolic::Fold fold(nranks);
  for (int rank = 0; rank < nranks; ++rank) fold.add(contribution(rank, source));
  return fold.result().expression;
}

Status check_result(std::span<const Schedule> ranks, symbolic::Run* run, int slices) {
  const Expectation expected(ranks, slices);
  const int chunks = ranks[0].chunks_in(Space::kOut);
  for (int slice = 0; slice < slices; ++slice) {
    std::vector<uint64_t> expressions;
    if (ranks[0].fused != Fused::kNone)
      for (int chunk = 0; chunk < chunks; ++chunk)
        expressions.push_back(
            rank_order_expression(static_cast<int>(ranks.size()), slice * chunks + chunk));
    for (int rank = 0; rank < static_cast<int>(ranks.size()); ++rank) {
      if (!symbolic::exists(ranks[static_cast<size_t>(rank)], Space::kOut)) continue;
      const Cell* cells = run->output(rank, slice);
      for (int chunk = 0; chunk < chunks; ++chunk) {
        const Value& value = cells[chunk].value;
        int from = 0;
        const int source = expected.source(rank, chunk, slice, &from);
        if (!value.defined || value.set != expected.set(from, source) ||
            value.final != expected.reduces())
          return error(Code::kInternal,
                       "rank {}, at the end, chunk {} of the output: expected {}; "
                       "found {}",
                       rank, chunk, expected.text(from, source), expected.text_of(value, source));
        if (ranks[0].collective != Collective::kAllReduce) continue;
        if (expressions.size() < static_cast<size_t>(chunks))
          expressions.push_back(value.expression);  // rank 0's
        if (value.expression != expressions[static_cast<size_t>(chunk)])
          return error(Code::kInternal,
                       "rank {}, at the end, chunk {} of the output: expected the order of "
                       "reduction of {}; found another",
                       rank, chunk, ranks[0].fused != Fused::kNone ? "the fused kernel" : "rank 0");
      }
    }
  }
  return {};
}

Status check_unlabelled(std::span<const Schedule> ranks, const CheckOptions& options) {
  const int nranks = static_cast<int>(ranks.size());
  for (int rank = 0; rank < nranks; ++rank)
    COMM_TRY(check_form(ranks[static_cast<size_t>(rank)], ranks[0], rank, nranks));
  symbolic::Run run(ranks, options);
  COMM_TRY(run.execute());
  return check_result(ranks, &run, options.slices);
}

}  // namespace

Status check(std::span<const Schedule> ranks, const CheckOptions& options) {
  if (ranks.empty()) return error(Code::kInternal, "no schedules to check");
  return check_unlabelled(ranks, options)
      .context(fmt::format("{} by {}, {} ranks{}", name_of(ranks[0].collective), ranks[0].algorithm,
                           ranks.size(), options.in_place ? ", in place" : ""));
}

Status check_both(std::span<const Schedule> ranks, int slices) {
  COMM_TRY(check(ranks, {.in_place = false, .slices = slices}));
  if (ranks.empty() || !symbolic::has_in_place(ranks[0].collective)) return {};
  return check(ranks, {.in_place = true, .slices = slices});
}

std::vector<Schedule> build_all(const Algorithm& algorithm, const ScheduleRequest& request) {
  std::vector<Schedule> ranks;
  ranks.reserve(static_cast<size_t>(request.nranks));
  for (int rank = 0; rank < request.nranks; ++rank) ranks.push_back(algorithm.build(request, rank));
  return ranks;
}

}  // namespace libcomm
