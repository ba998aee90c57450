#include "src/schedule/builder.h"

#include <algorithm>

#include "src/schedule/fuse.h"

namespace libcomm {

Builder::Builder(const char* algorithm, const ScheduleRequest& request, int rank,
                 int chunks_per_block) {
  const BlockShape shape = block_shape(request.collective, request.nranks);
  schedule_.collective = request.collective;
  schedule_.algorithm = algorithm;
  schedule_.nranks = request.nranks;
  schedule_.rank = rank;
  schedule_.root = request.root;
  schedule_.in_blocks = shape.in_blocks;
  schedule_.out_blocks = shape.out_blocks;
  schedule_.chunks_per_block = chunks_per_block;
  schedule_.scratch_like = shape.out_blocks > shape.in_blocks ? Space::kOut : Space::kIn;
  schedule_.lanes.resize(1);
}

void Builder::lane(int index) {
  lane_ = static_cast<size_t>(index);
  if (schedule_.lanes.size() <= lane_) schedule_.lanes.resize(lane_ + 1);
}

Ref Builder::normalised(Ref ref) const {
  if (ref.space == Space::kNone) return ref;
  ref.chunk = modulo(ref.chunk, schedule_.chunks_in(ref.space));
  return ref;
}

Step& Builder::add(Step step) {
  step.src = normalised(step.src);
  step.dst = normalised(step.dst);
  if (step.peer != -1) step.peer = modulo(step.peer, schedule_.nranks);
  if (step.peer2 != -1) step.peer2 = modulo(step.peer2, schedule_.nranks);
  std::vector<Step>& steps = schedule_.lanes[lane_].steps;
  steps.push_back(step);
  return steps.back();
}

Step& Builder::send(Peer to, Ref src, int count) {
  Step step;
  step.kind = StepKind::kSend;
  step.peer = modulo(to.rank, schedule_.nranks);
  step.peer_stride = to.stride;
  step.src = src;
  step.count = count;
  return add(step);
}

Step& Builder::recv(Peer from, Ref dst, int count) {
  Step step;
  step.kind = StepKind::kRecv;
  step.peer = modulo(from.rank, schedule_.nranks);
  step.peer_stride = from.stride;
  step.dst = dst;
  step.count = count;
  return add(step);
}

Step& Builder::recv_reduce(Peer from, Ref src, Ref dst, int count) {
  Step& step = recv(from, dst, count);
  step.kind = StepKind::kRecvReduce;
  step.src = normalised(src);
  return step;
}

Step& Builder::recv_reduce_send(Peer from, Ref src, Ref dst, int to, int count) {
  Step& step = recv_reduce(from, src, dst, count);
  step.kind = StepKind::kRecvReduceSend;
  step.peer2 = modulo(to, schedule_.nranks);
  return step;
}

Step& Builder::recv_copy_send(Peer from, Ref dst, int to, int count) {
  Step& step = recv(from, dst, count);
  step.kind = StepKind::kRecvCopySend;
  step.peer2 = modulo(to, schedule_.nranks);
  return step;
}

Step& Builder::copy(Ref src, Ref dst, int count) {
  Step step;
  step.kind = StepKind::kCopy;
  step.src = src;
  step.dst = dst;
  step.count = count;
  return add(step);
}

Step& Builder::reduce(Ref dst, std::span<const Ref> operands, int count) {
  Step step;
  step.kind = StepKind::kReduce;
  step.dst = dst;
  step.count = count;
  step.operand = static_cast<int32_t>(schedule_.operands.size());
  step.operands = static_cast<int32_t>(operands.size());
  for (const Ref& operand : operands) schedule_.operands.push_back(normalised(operand));
  return add(step);
}

size_t Builder::begin_repeat() {
  std::vector<Step>& steps = schedule_.lanes[lane_].steps;
  Step head;
  head.kind = StepKind::kRepeat;
  steps.push_back(head);
  return steps.size() - 1;
}

void Builder::end_repeat(size_t head, int times) {
  std::vector<Step>& steps = schedule_.lanes[lane_].steps;
  const size_t body = steps.size() - head - 1;
  if (times > 1 && body > 0) {
    steps[head].times = times;
    steps[head].body = static_cast<int32_t>(body);
    return;
  }
  for (size_t i = head + 1; i < steps.size(); ++i) steps[i] = expand(schedule_, steps[i], 0);
  steps.erase(steps.begin() + static_cast<std::ptrdiff_t>(head));
}

Schedule Builder::finish() {
  auto note_bank = [this](const Ref& ref) {
    if (ref.space == Space::kScratch)
      schedule_.scratch_banks = std::max(schedule_.scratch_banks, ref.bank + 1);
  };
  for (const Lane& lane : schedule_.lanes) {
    for (const Step& step : lane.steps) {
      note_bank(step.src);
      note_bank(step.dst);
    }
  }
  for (const Ref& operand : schedule_.operands) note_bank(operand);
  fuse(&schedule_);
  return std::move(schedule_);
}

bool is_reducing(Collective collective) {
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kReduce:
    case Collective::kReduceScatter:
    case Collective::kReduceScatterV:
      return true;
    default:
      return false;
  }
}

bool has_size_table(Collective collective) {
  return collective == Collective::kAllGatherV || collective == Collective::kReduceScatterV ||
         collective == Collective::kAllToAllV;
}

Schedule single_rank(const char* algorithm, const ScheduleRequest& request) {
  Builder b(algorithm, request, 0, 1);
  b.copy(in(0), out(0)).final = is_reducing(request.collective);
  return b.finish();
}

}  // namespace libcomm
