#include "tests/device/host_run.h"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <map>
#include <tuple>

#include "src/execute/layout.h"
#include "src/execute/staging.h"
#include "src/reduce/reduce.h"
#include "src/schedule/fuse.h"

namespace libcomm::test {
namespace {

using Bytes = std::vector<std::byte>;
// From, to, lane.
using Messages = std::map<std::tuple<int, int, size_t>, std::deque<Bytes>>;

// Chunks of tables are not always neighbours in memory.
Lane split(const Lane& lane) {
  Lane result;
  for (const Step& step : lane.steps) {
    if (step.kind == StepKind::kReduce) {  // of several operands: as it is
      result.steps.push_back(step);
      continue;
    }
    for (int32_t i = 0; i < step.count; ++i) {
      Step one = step;
      one.count = 1;
      one.src.chunk += i;
      one.dst.chunk += i;
      result.steps.push_back(one);
    }
  }
  return result;
}

class RankRun {
 public:
  RankRun(Schedule schedule, const Operation& operation, const HostBuffers& buffers)
      : schedule_(std::move(schedule)),
        operation_(operation),
        buffers_(buffers),
        layout_(schedule_, operation, 1),
        scratch_(layout_.scratch_bytes()),
        next_(schedule_.lanes.size()) {
    if (!operation.premultiply) return;
    const size_t bytes = reach_of(operation, schedule_.rank, schedule_.nranks).in;
    scaled_.resize(bytes);
    scale_elements(scaled_.data(), buffers_.in, bytes / size_of(operation.type), operation.type,
                   operation.scalar.data());
    buffers_.in = scaled_.data();
  }

  // One step, of any lane; false: nothing can be done.
  bool go_on(Messages* messages) {
    for (size_t lane = 0; lane < next_.size(); ++lane) {
      const auto& steps = schedule_.lanes[lane].steps;
      if (next_[lane] == steps.size() || !do_step(steps[next_[lane]], lane, messages)) continue;
      ++next_[lane];
      return true;
    }
    return false;
  }
  bool done() const {
    for (size_t lane = 0; lane < next_.size(); ++lane)
      if (next_[lane] < schedule_.lanes[lane].steps.size()) return false;
    return true;
  }

 private:
  std::byte* at(const Ref& ref, int count, size_t* bytes) {
    const Extent extent = layout_.locate(ref.space, ref.chunk, count, 0);
    *bytes = extent.bytes;
    if (ref.space == Space::kIn) return buffers_.in + extent.offset;
    if (ref.space == Space::kOut) return buffers_.out + extent.offset;
    return scratch_.data() + layout_.bank_offset(ref.bank) + extent.offset;
  }

  void combine(std::byte* to, std::vector<const void*> sources, size_t bytes, bool final) const {
    ReduceArgs work;
    work.dst = to;
    work.sources = sources.data();
    work.source_count = static_cast<int>(sources.size());
    work.count = bytes / size_of(operation_.type);
    work.divisor = final && operation_.average ? schedule_.nranks : 1;
    find_reduce_kernel(operation_.type, operation_.op)(work);
  }

  bool do_step(const Step& step, size_t lane, Messages* messages) {
    size_t bytes = 0;
    switch (step.kind) {
      case StepKind::kSend: {
        const std::byte* from = at(step.src, step.count, &bytes);
        (*messages)[{schedule_.rank, step.peer, lane}].emplace_back(from, from + bytes);
        return true;
      }
      case StepKind::kRecv:
      case StepKind::kRecvReduce:
      case StepKind::kRecvReduceSend:
      case StepKind::kRecvCopySend: {
        auto& coming = (*messages)[{step.peer, schedule_.rank, lane}];
        if (coming.empty()) return false;
        Bytes message = std::move(coming.front());
        coming.pop_front();
        if (step.src.space != Space::kNone) {
          const std::byte* own = at(step.src, step.count, &bytes);
          combine(message.data(), {own, message.data()}, message.size(), step.final);
          EXPECT_EQ(message.size(), bytes);
        }
        if (step.dst.space != Space::kNone) {
          std::byte* to = at(step.dst, step.count, &bytes);
          EXPECT_EQ(message.size(), bytes);
          if (bytes > 0) std::memcpy(to, message.data(), bytes);
        }
        if (step.peer2 >= 0) (*messages)[{schedule_.rank, step.peer2, lane}].push_back(message);
        return true;
      }
      case StepKind::kCopy: {
        const std::byte* from = at(step.src, step.count, &bytes);
        std::byte* to = at(step.dst, step.count, &bytes);
        combine(to, {from}, bytes, step.final);
        return true;
      }
      case StepKind::kReduce: {
        std::vector<const void*> sources;
        for (int i = 0; i < step.operands; ++i)
          sources.push_back(
              at(schedule_.operands[static_cast<size_t>(step.operand + i)], step.count, &bytes));
        combine(at(step.dst, step.count, &bytes), sources, bytes, step.final);
        return true;
      }
      default:
        ADD_FAILURE() << "a step that this test does not know: " << name_of(step.kind);
        return true;
    }
  }

  const Schedule schedule_;
  const Operation& operation_;
  HostBuffers buffers_;
  const Layout layout_;
  Bytes scratch_, scaled_;
  std::vector<size_t> next_;
};

}  // namespace

void run_on_host(const std::vector<Schedule>& ranks, const std::vector<Operation>& operations,
                 const std::vector<HostBuffers>& buffers) {
  std::deque<RankRun> runs;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    Schedule plain = ranks[rank];
    unroll(&plain);
    for (Lane& lane : plain.lanes) lane = split(lane);
    runs.emplace_back(std::move(plain), operations[rank], buffers[rank]);
  }
  Messages messages;
  bool moved = true;
  while (moved) {
    moved = false;
    for (RankRun& run : runs)
      while (run.go_on(&messages)) moved = true;
  }
  for (const RankRun& run : runs) EXPECT_TRUE(run.done()) << "ranks wait for each other";
}

}  // namespace libcomm::test
