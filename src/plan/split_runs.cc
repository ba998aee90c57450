#include "src/plan/split_runs.h"

namespace libcomm {
namespace {

void append_split(const Step& step, std::vector<Step>* steps) {
  for (int32_t i = 0; i < step.count; ++i) {
    Step one = step;
    one.count = 1;
    if (one.src.space != Space::kNone) one.src.chunk += i;
    if (one.dst.space != Space::kNone) one.dst.chunk += i;
    steps->push_back(one);
  }
}

Lane split_lane(const Lane& lane) {
  Lane result;
  for (size_t i = 0; i < lane.steps.size(); ++i) {
    const Step& step = lane.steps[i];
    if (step.kind == StepKind::kRepeat) {
      const size_t repeat = result.steps.size();
      result.steps.push_back(step);
      for (int32_t inside = 0; inside < step.body; ++inside)
        append_split(lane.steps[++i], &result.steps);
      result.steps[repeat].body = static_cast<int32_t>(result.steps.size() - repeat - 1);
    } else {
      append_split(step, &result.steps);
    }
  }
  return result;
}

}  // namespace

Schedule split_runs(const Schedule& schedule) {
  Schedule result = schedule;
  for (Lane& lane : result.lanes) lane = split_lane(lane);
  return result;
}

}  // namespace libcomm
