#include "src/schedule/fuse.h"

namespace libcomm {

namespace {

bool fusible(const Step& receive, const Step& send) {
  if (receive.kind != StepKind::kRecv && receive.kind != StepKind::kRecvReduce) return false;
  return send.kind == StepKind::kSend && send.src == receive.dst && send.count == receive.count &&
         send.peer_stride == 0;
}

Step fused(const Step& receive, const Step& send) {
  Step step = receive;
  step.kind = receive.kind == StepKind::kRecv ? StepKind::kRecvCopySend : StepKind::kRecvReduceSend;
  step.peer2 = send.peer;
  return step;
}

// Rewrites a lane piece by piece (a plain stretch or a repeat's body at a time), so that nothing is
// joined across the edge of a body; `rewrite(begin, end, out)` appends the new steps of one piece.
template <typename Rewrite>
void rewrite_lane(Lane* lane, Rewrite rewrite) {
  const std::vector<Step> old = std::move(lane->steps);
  std::vector<Step> steps;
  steps.reserve(old.size());
  size_t at = 0;
  while (at < old.size()) {
    if (old[at].kind == StepKind::kRepeat) {
      const size_t head = steps.size();
      steps.push_back(old[at]);
      const size_t end = at + 1 + static_cast<size_t>(old[at].body);
      rewrite(old.data() + at + 1, old.data() + end, &steps);
      steps[head].body = static_cast<int32_t>(steps.size() - head - 1);
      at = end;
      continue;
    }
    size_t end = at;
    while (end < old.size() && old[end].kind != StepKind::kRepeat) ++end;
    rewrite(old.data() + at, old.data() + end, &steps);
    at = end;
  }
  lane->steps = std::move(steps);
}

}  // namespace

void fuse(Schedule* schedule) {
  for (Lane& lane : schedule->lanes) {
    rewrite_lane(&lane, [](const Step* begin, const Step* end, std::vector<Step>* steps) {
      for (const Step* step = begin; step != end; ++step) {
        if (step + 1 != end && fusible(*step, step[1])) {
          steps->push_back(fused(*step, step[1]));
          ++step;
        } else {
          steps->push_back(*step);
        }
      }
    });
  }
}

void unfuse(Schedule* schedule) {
  for (Lane& lane : schedule->lanes) {
    rewrite_lane(&lane, [](const Step* begin, const Step* end, std::vector<Step>* steps) {
      for (const Step* step = begin; step != end; ++step) {
        const bool is_fused =
            step->kind == StepKind::kRecvReduceSend || step->kind == StepKind::kRecvCopySend;
        steps->push_back(*step);
        if (!is_fused || step->dst.space == Space::kNone) continue;
        Step& receive = steps->back();
        receive.kind =
            step->kind == StepKind::kRecvCopySend ? StepKind::kRecv : StepKind::kRecvReduce;
        receive.peer2 = -1;
        Step send;
        send.kind = StepKind::kSend;
        send.src = step->dst;
        send.count = step->count;
        send.peer = step->peer2;
        steps->push_back(send);
      }
    });
  }
}

void unroll(Schedule* schedule) {
  for (Lane& lane : schedule->lanes) {
    std::vector<Step> steps;
    for (size_t at = 0; at < lane.steps.size(); ++at) {
      const Step& step = lane.steps[at];
      if (step.kind != StepKind::kRepeat) {
        steps.push_back(step);
        continue;
      }
      for (int round = 0; round < step.times; ++round)
        for (int i = 1; i <= step.body; ++i)
          steps.push_back(expand(*schedule, lane.steps[at + static_cast<size_t>(i)], round));
      at += static_cast<size_t>(step.body);
    }
    lane.steps = std::move(steps);
  }
}

}  // namespace libcomm
