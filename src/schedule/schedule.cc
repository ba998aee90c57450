#include "src/schedule/schedule.h"

#include <fmt/format.h>

#include <algorithm>

namespace libcomm {

namespace {

int32_t wrap(int64_t value, int64_t modulus) {
  const int64_t rest = value % modulus;
  return static_cast<int32_t>(rest < 0 ? rest + modulus : rest);
}

void advance(const Schedule& schedule, int round, Ref* ref) {
  if (ref->space == Space::kNone || ref->stride == 0) return;
  ref->chunk =
      wrap(ref->chunk + int64_t{round} * ref->stride, std::max(1, schedule.chunks_in(ref->space)));
}

std::string to_text(const Ref& ref, int count) {
  std::string name;
  switch (ref.space) {
    case Space::kNone:
      return "nothing";
    case Space::kIn:
      name = "in";
      break;
    case Space::kOut:
      name = "out";
      break;
    case Space::kScratch:
      name = fmt::format("scratch{}", ref.bank);
      break;
  }
  std::string text = count == 1 ? fmt::format("{}[{}]", name, ref.chunk)
                                : fmt::format("{}[{}..{}]", name, ref.chunk, ref.chunk + count - 1);
  if (ref.stride != 0) text += fmt::format("{:+d}i", ref.stride);
  return text;
}

}  // namespace

const char* name_of(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
      return "allreduce";
    case Collective::kReduceScatter:
      return "reducescatter";
    case Collective::kAllGather:
      return "allgather";
    case Collective::kBroadcast:
      return "broadcast";
    case Collective::kReduce:
      return "reduce";
    case Collective::kAllToAll:
      return "alltoall";
    case Collective::kGather:
      return "gather";
    case Collective::kScatter:
      return "scatter";
    case Collective::kAllGatherV:
      return "allgatherv";
    case Collective::kReduceScatterV:
      return "reducescatterv";
    case Collective::kAllToAllV:
      return "alltoallv";
    case Collective::kBarrier:
      return "barrier";
    case Collective::kSendRecv:
      return "sendrecv";
  }
  return "?";
}

const char* name_of(StepKind kind) {
  switch (kind) {
    case StepKind::kSend:
      return "send";
    case StepKind::kRecv:
      return "recv";
    case StepKind::kRecvReduce:
      return "recv_reduce";
    case StepKind::kRecvReduceSend:
      return "recv_reduce_send";
    case StepKind::kRecvCopySend:
      return "recv_copy_send";
    case StepKind::kCopy:
      return "copy";
    case StepKind::kReduce:
      return "reduce";
    case StepKind::kSignal:
      return "signal";
    case StepKind::kWait:
      return "wait";
    case StepKind::kRepeat:
      return "repeat";
  }
  return "?";
}

BlockShape block_shape(Collective collective, int nranks) {
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kBroadcast:
    case Collective::kReduce:
    case Collective::kBarrier:
    case Collective::kSendRecv:
      return {1, 1};
    case Collective::kReduceScatter:
    case Collective::kReduceScatterV:
    case Collective::kScatter:
      return {nranks, 1};
    case Collective::kAllGather:
    case Collective::kAllGatherV:
    case Collective::kGather:
      return {1, nranks};
    case Collective::kAllToAll:
    case Collective::kAllToAllV:
      return {nranks, nranks};
  }
  return {1, 1};
}

Step expand(const Schedule& schedule, const Step& step, int round) {
  Step plain = step;
  advance(schedule, round, &plain.src);
  advance(schedule, round, &plain.dst);
  plain.src.stride = plain.dst.stride = 0;
  if (step.peer_stride != 0)
    plain.peer = wrap(step.peer + int64_t{round} * step.peer_stride, schedule.nranks);
  plain.peer_stride = 0;
  return plain;
}

std::vector<ScratchUse> scratch_use(const Schedule& schedule) {
  std::vector<ScratchUse> banks(static_cast<size_t>(schedule.scratch_banks));
  auto touch = [&](const Ref& ref, int count, int times) {
    if (ref.space != Space::kScratch || ref.bank >= banks.size()) return;
    int first = ref.chunk;
    int end = ref.chunk + count;
    if (ref.stride != 0 && times > 1) {
      const int64_t last = ref.chunk + int64_t{times - 1} * ref.stride;
      const int chunks = schedule.chunks_in(Space::kScratch);
      if (std::min<int64_t>(last, first) < 0 || std::max<int64_t>(last, first) + count > chunks) {
        first = 0;  // it goes round
        end = chunks;
      } else {
        first = static_cast<int>(std::min<int64_t>(first, last));
        end = static_cast<int>(std::max<int64_t>(ref.chunk, last)) + count;
      }
    }
    ScratchUse& use = banks[ref.bank];
    if (use.count == 0) {
      use = {first, end - first};
    } else {
      const int old_end = use.first + use.count;
      use.first = std::min(use.first, first);
      use.count = std::max(old_end, end) - use.first;
    }
  };
  for (const Lane& lane : schedule.lanes) {
    size_t body_end = 0;
    int times = 1;
    for (size_t i = 0; i < lane.steps.size(); ++i) {
      const Step& step = lane.steps[i];
      if (step.kind == StepKind::kRepeat) {
        body_end = i + 1 + static_cast<size_t>(step.body);
        times = step.times;
        continue;
      }
      if (i >= body_end) times = 1;
      touch(step.src, step.count, times);
      touch(step.dst, step.count, times);
      if (step.kind != StepKind::kReduce) continue;
      for (int k = 0; k < step.operands; ++k)
        touch(schedule.operands[static_cast<size_t>(step.operand + k)], step.count, 1);
    }
  }
  return banks;
}

std::string to_string(const Schedule& schedule, const Step& step) {
  const std::string src = to_text(step.src, step.count);
  const std::string dst = to_text(step.dst, step.count);
  const std::string peer = step.peer_stride == 0
                               ? fmt::format("{}", step.peer)
                               : fmt::format("{}{:+d}i", step.peer, step.peer_stride);
  std::string text = name_of(step.kind);
  switch (step.kind) {
    case StepKind::kSend:
      text += fmt::format(" to {}: {}", peer, src);
      break;
    case StepKind::kRecv:
      text += fmt::format(" from {}: {}", peer, dst);
      break;
    case StepKind::kRecvReduce:
      text += fmt::format(" from {}: {} = {} op received", peer, dst, src);
      break;
    case StepKind::kRecvReduceSend:
      text += fmt::format(" from {} to {}: {} = {} op received", peer, step.peer2, dst, src);
      break;
    case StepKind::kRecvCopySend:
      text += fmt::format(" from {} to {}: {} = received", peer, step.peer2, dst);
      break;
    case StepKind::kCopy:
      text += fmt::format(" {} = {}", dst, src);
      break;
    case StepKind::kReduce: {
      text += fmt::format(" {} =", dst);
      for (int k = 0; k < step.operands; ++k) {
        const size_t at = static_cast<size_t>(step.operand + k);
        text += k == 0 ? " " : " op ";
        text += at < schedule.operands.size() ? to_text(schedule.operands[at], step.count) : "?";
      }
      break;
    }
    case StepKind::kSignal:
      text += fmt::format(" to {}", peer);
      break;
    case StepKind::kWait:
      text += fmt::format(" from {}", peer);
      break;
    case StepKind::kRepeat:
      text += fmt::format(" {} times the next {} steps", step.times, step.body);
      break;
  }
  if (step.final) text += " (final)";
  return text;
}

}  // namespace libcomm
