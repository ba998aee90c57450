#include "src/execute/device_program.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "src/execute/layout.h"

namespace libcomm {
namespace {

using cuda::ExecuteKind;
using cuda::ExecuteOperand;
using cuda::ExecuteSpace;
using cuda::ExecuteStep;

// Windows, and scratch memory for one, begin at multiples of this many bytes.
constexpr uint64_t kUnit = 256;
// Smaller windows overlap better between ranks, larger ones have fewer messages.
constexpr uint64_t kMostWindow = 64 << 10;
// Lines carry half of what is moved: worth it while that is little.
constexpr uint64_t kMostByLines = 16 << 10;

uint64_t divide_up(uint64_t a, uint64_t b) { return (a + b - 1) / b; }
uint64_t round_up(uint64_t a, uint64_t to) { return divide_up(a, to) * to; }

// Calls `each` with every plain step of the lane in its order, runs taken apart: a run's chunks
// need not be neighbours at the other end of a window.
template <typename Each>
void for_steps(const Schedule& schedule, const Lane& lane, const Each& each) {
  const auto split = [&](const Step& step, int round) {
    const Step plain = expand(schedule, step, round);
    for (int32_t i = 0; i < plain.count; ++i) each(plain, i);
  };
  for (size_t i = 0; i < lane.steps.size(); ++i) {
    const Step& step = lane.steps[i];
    if (step.kind != StepKind::kRepeat) {
      split(step, 0);
      continue;
    }
    const auto body = static_cast<size_t>(step.body);
    for (int round = 0; round < step.times; ++round)
      for (size_t inside = 1; inside <= body; ++inside) split(lane.steps[i + inside], round);
    i += body;
  }
}

int receiver_of(const Step& step) {
  switch (step.kind) {
    case StepKind::kSend:
      return step.peer;
    case StepKind::kRecvReduceSend:
    case StepKind::kRecvCopySend:
      return step.peer2;
    default:
      return -1;
  }
}

// The chunks of scratch memory that a schedule touches, each with a number.
class ScratchChunks {
 public:
  size_t number(const Ref& ref, int32_t within) {
    return numbers_.emplace(std::pair(ref.bank, ref.chunk + within), numbers_.size()).first->second;
  }
  void touch(const Ref& ref, int32_t within) {
    if (ref.space == Space::kScratch) (void)number(ref, within);
  }
  size_t size() const { return numbers_.size(); }

 private:
  std::map<std::pair<uint8_t, int32_t>, size_t> numbers_;
};

class Compiler {
 public:
  Compiler(const Schedule& schedule, const Operation& operation, const DeviceNeeds& needs,
           const cuda::AreaShape& shape, bool may_use_lines, uint64_t most_bytes)
      : schedule_(schedule),
        layout_(schedule, operation, 1),
        needs_(needs),
        shape_(shape),
        may_use_lines_(may_use_lines && operation.collective != Collective::kAllToAllV) {
    program_.announces = operation.collective == Collective::kAllToAllV;
    program_.most_bytes = most_bytes;
  }

  Result<DeviceProgram> make() {
    if (schedule_.lanes.size() > static_cast<size_t>(shape_.lanes))
      return error(Code::kInternal, "{} has {} lanes, the areas {}", schedule_.algorithm,
                   schedule_.lanes.size(), shape_.lanes);
    COMM_TRY(choose_window());
    program_.lanes = static_cast<uint32_t>(schedule_.lanes.size());
    for (size_t lane = 0; lane < schedule_.lanes.size(); ++lane) {
      for_steps(schedule_, schedule_.lanes[lane],
                [&](const Step& step, int32_t within) { add(step, within); });
      program_.lane_begin[lane + 1] = static_cast<uint32_t>(program_.steps.size());
    }
    COMM_TRY(std::move(status_));
    return std::move(program_);
  }

 private:
  // Of those that are moved.
  size_t largest_chunk() const {
    size_t largest = 0;
    for (const Space space : {Space::kIn, Space::kOut}) {
      for (int chunk = 0; chunk < schedule_.chunks_in(space); ++chunk) {
        const size_t bytes = layout_.locate(space, chunk, 1, 0).bytes;
        if (bytes <= program_.most_bytes) largest = std::max(largest, bytes);
      }
    }
    return largest;
  }

  Status choose_window() {
    const size_t chunk = largest_chunk();
    const uint64_t of_scratch = shape_.scratch_bytes / std::max<size_t>(1, needs_.scratch_chunks);
    const uint64_t lines = divide_up(chunk, cuda::kLineData);
    if (may_use_lines_ && chunk <= kMostByLines && 2 * needs_.messages * lines <= shape_.lines &&
        (needs_.scratch_chunks == 0 || round_up(chunk, kUnit) <= of_scratch)) {
      program_.by_lines = true;
      program_.window = std::max<uint64_t>(round_up(chunk, kUnit), kUnit);
      program_.windows = 1;
      return Status::ok();
    }
    // A message has a header, and may leave the end of the ring unused.
    const uint64_t each = shape_.ring_bytes / (2 * needs_.messages);
    uint64_t window = each > kUnit ? each - kUnit : 0;
    if (needs_.scratch_chunks > 0) window = std::min(window, of_scratch);
    window = std::min(window, kMostWindow) / kUnit * kUnit;
    if (window == 0)
      return error(Code::kInternal, "{} has {} messages between two ranks, too many for {} bytes",
                   schedule_.algorithm, needs_.messages, shape_.ring_bytes);
    program_.window = window;
    program_.windows = static_cast<uint32_t>(divide_up(chunk, window));
    if (program_.announces) program_.windows = std::max<uint32_t>(program_.windows, 1);
    return Status::ok();
  }

  // What it says of both ends of a step is the same: the sizes of the chunks.
  std::pair<ExecuteSpace, uint64_t> locate(const Ref& ref, int32_t within, uint64_t* bytes) {
    if (ref.space == Space::kNone) return {ExecuteSpace::kNone, 0};
    const Extent extent = layout_.locate(ref.space, ref.chunk + within, 1, 0);
    *bytes = extent.bytes;
    switch (ref.space) {
      case Space::kIn:
        return {ExecuteSpace::kIn, extent.offset};
      case Space::kOut:
        return {ExecuteSpace::kOut, extent.offset};
      default:
        return {ExecuteSpace::kScratch, scratch_.number(ref, within) * program_.window};
    }
  }

  ExecuteKind kind_of(StepKind kind) {
    switch (kind) {
      case StepKind::kSend:
        return ExecuteKind::kSend;
      case StepKind::kRecv:
        return ExecuteKind::kRecv;
      case StepKind::kRecvReduce:
        return ExecuteKind::kRecvReduce;
      case StepKind::kRecvReduceSend:
        return ExecuteKind::kRecvReduceSend;
      case StepKind::kRecvCopySend:
        return ExecuteKind::kRecvCopySend;
      case StepKind::kCopy:
        return ExecuteKind::kCopy;
      case StepKind::kReduce:
        return ExecuteKind::kReduce;
      default:
        status_ = error(Code::kInternal, "the executor of GPUs has no step {}", name_of(kind));
        return ExecuteKind::kCopy;
    }
  }

  void add(const Step& step, int32_t within) {
    ExecuteStep made;
    made.kind = kind_of(step.kind);
    made.final = step.final ? 1 : 0;
    made.peer = static_cast<int16_t>(step.peer);
    made.peer2 = static_cast<int16_t>(step.peer2);
    std::tie(made.dst_space, made.dst) = locate(step.dst, within, &made.bytes);
    std::tie(made.src_space, made.src) = locate(step.src, within, &made.bytes);
    made.operand = static_cast<uint32_t>(program_.operands.size());
    if (step.kind == StepKind::kReduce) {
      made.operands = static_cast<uint32_t>(step.operands);
      if (step.operands > cuda::kMaxSources)
        status_ = error(Code::kInternal, "a step of {} combines {} operands", schedule_.algorithm,
                        step.operands);
      for (int32_t i = 0; i < step.operands; ++i) {
        uint64_t bytes = 0;
        const auto [space, offset] =
            locate(schedule_.operands[static_cast<size_t>(step.operand + i)], within, &bytes);
        program_.operands.push_back({offset, space});
      }
    }
    const bool tells = program_.announces && made.peer >= 0;
    if (made.bytes > 0 || tells) program_.steps.push_back(made);
  }

  const Schedule& schedule_;
  const Layout layout_;
  const DeviceNeeds& needs_;
  const cuda::AreaShape& shape_;
  const bool may_use_lines_;
  ScratchChunks scratch_;
  DeviceProgram program_;
  Status status_;
};

}  // namespace

DeviceNeeds DeviceNeeds::of(const Schedule& schedule) {
  DeviceNeeds needs;
  needs.lanes = schedule.lanes.size();
  ScratchChunks scratch;
  for (const Lane& lane : schedule.lanes) {
    std::map<int, size_t> messages;
    for_steps(schedule, lane, [&](const Step& step, int32_t within) {
      if (const int to = receiver_of(step); to >= 0) ++messages[to];
      scratch.touch(step.src, within);
      scratch.touch(step.dst, within);
      ++needs.steps;
      if (step.kind != StepKind::kReduce) return;
      needs.operands += static_cast<size_t>(step.operands);
      for (int32_t i = 0; i < step.operands; ++i)
        scratch.touch(schedule.operands[static_cast<size_t>(step.operand + i)], within);
    });
    for (const auto& [peer, count] : messages) needs.messages = std::max(needs.messages, count);
  }
  needs.scratch_chunks = scratch.size();
  return needs;
}

void DeviceNeeds::take_larger(const DeviceNeeds& other) {
  messages = std::max(messages, other.messages);
  scratch_chunks = std::max(scratch_chunks, other.scratch_chunks);
  lanes = std::max(lanes, other.lanes);
  steps = std::max(steps, other.steps);
  operands = std::max(operands, other.operands);
}

Result<DeviceProgram> DeviceProgram::compile(const Schedule& schedule, const Operation& operation,
                                             const DeviceNeeds& needs, const cuda::AreaShape& shape,
                                             bool may_use_lines, uint64_t most_bytes) {
  return Compiler(schedule, operation, needs, shape, may_use_lines, most_bytes).make();
}

// An eighth for lines, another for scratch memory.
cuda::AreaShape area_shape(int nranks, int lanes, size_t bytes) {
  cuda::AreaShape shape;
  shape.nranks = nranks;
  shape.lanes = lanes;
  const uint64_t all = std::max<uint64_t>(1, cuda::connections(shape));
  shape.lines = bytes / 8 / all / cuda::kLineBytes / 16 * 16;
  shape.ring_bytes = bytes * 6 / 8 / all / kUnit * kUnit;
  shape.scratch_bytes = bytes / 8 / kUnit * kUnit;
  return shape;
}

}  // namespace libcomm
