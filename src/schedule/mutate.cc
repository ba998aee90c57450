#include "src/schedule/mutate.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <random>

#include "src/schedule/builder.h"
#include "src/schedule/fuse.h"

namespace libcomm {

namespace {

bool receives(const Step& step) {
  return step.kind == StepKind::kRecv || step.kind == StepKind::kRecvReduce ||
         step.kind == StepKind::kRecvReduceSend || step.kind == StepKind::kRecvCopySend;
}

bool reduces(const Step& step) {
  return step.kind == StepKind::kRecvReduce || step.kind == StepKind::kRecvReduceSend;
}

bool passes_on(const Step& step) {
  return step.kind == StepKind::kRecvReduceSend || step.kind == StepKind::kRecvCopySend;
}

bool communicates(const Step& step) { return step.kind == StepKind::kSend || receives(step); }

// Another number below `n` than `value`, and than `other`.
int another(std::mt19937_64& random, int value, int n, int other = -1) {
  int result = value;
  while (result == value || result == other)
    result = static_cast<int>(random() % static_cast<uint64_t>(n));
  return result;
}

// A step to corrupt.
struct Site {
  Schedule* schedule;
  size_t lane;
  size_t step;
  std::vector<Step>& steps() const { return schedule->lanes[lane].steps; }
  Step& at() const { return steps()[step]; }
};

// Chooses a step for which `fits` holds, each with the same probability.
bool choose(std::vector<Schedule>* ranks, std::mt19937_64& random,
            const std::function<bool(const Site&)>& fits, Site* site) {
  std::vector<Site> sites;
  for (Schedule& schedule : *ranks)
    for (size_t lane = 0; lane < schedule.lanes.size(); ++lane)
      for (size_t step = 0; step < schedule.lanes[lane].steps.size(); ++step)
        if (const Site candidate{&schedule, lane, step}; fits(candidate))
          sites.push_back(candidate);
  if (sites.empty()) return false;
  *site = sites[random() % sites.size()];
  return true;
}

// The later step that must not change places with `site`'s: it sends or copies what the step
// produces, or is the same step on the same channel for another chunk. 0 when there is none.
size_t ordered_partner(const Site& site) {
  const Step& first = site.at();
  for (size_t i = site.step + 1; i < site.steps().size(); ++i) {
    const Step& later = site.steps()[i];
    const bool uses = (receives(first) || first.kind == StepKind::kReduce) &&
                      (later.kind == StepKind::kSend || later.kind == StepKind::kCopy) &&
                      first.dst.space != Space::kNone && later.src == first.dst &&
                      later.count == first.count;
    const bool same_channel =
        first.kind == later.kind && first.peer == later.peer && first.count == later.count &&
        ((first.kind == StepKind::kSend && first.src.space == later.src.space &&
          first.src.bank == later.src.bank && first.src.chunk != later.src.chunk) ||
         (first.kind == StepKind::kRecv && first.dst.space == later.dst.space &&
          first.dst.bank == later.dst.bank && first.dst.chunk != later.dst.chunk));
    if (uses || same_channel) return i;
  }
  return 0;
}

// Moves a Ref's run to another place in its space; false when there is none.
bool shift(const Schedule& schedule, std::mt19937_64& random, int count, Ref* ref) {
  if (ref->space == Space::kNone) return false;
  const int places = schedule.chunks_in(ref->space) - count + 1;
  if (places < 2) return false;
  ref->chunk = another(random, ref->chunk, places);
  return true;
}

// A fused step's scratch only holds what is under way: another place would do as well.
bool can_shift(const Schedule& schedule, const Step& step, const Ref& ref) {
  if (&ref == &step.dst && passes_on(step) && ref.space == Space::kScratch) return false;
  return ref.space != Space::kNone && schedule.chunks_in(ref.space) - step.count + 1 >= 2;
}

bool apply(std::vector<Schedule>* ranks, Mutation mutation, std::mt19937_64& random, Site* site,
           std::string* text) {
  const int nranks = static_cast<int>(ranks->size());
  const bool reducing = is_reducing((*ranks)[0].collective);
  auto pick = [&](auto fits) {
    if (!choose(
            ranks, random, [&](const Site& s) { return fits(s); }, site))
      return false;
    *text = to_string(*site->schedule, site->at());
    return true;
  };
  switch (mutation) {
    case Mutation::kDrop:
      // A copy out of place; in place it moves nothing.
      if (!pick([](const Site&) { return true; })) return false;
      site->steps().erase(site->steps().begin() + static_cast<std::ptrdiff_t>(site->step));
      return true;

    case Mutation::kDuplicate: {
      // A second copy would change nothing.
      if (!pick([](const Site& s) { return communicates(s.at()); })) return false;
      const Step again = site->at();
      site->steps().insert(site->steps().begin() + static_cast<std::ptrdiff_t>(site->step), again);
      return true;
    }

    case Mutation::kSwap:
      if (!pick([](const Site& s) { return ordered_partner(s) != 0; })) return false;
      std::swap(site->at(), site->steps()[ordered_partner(*site)]);
      return true;

    case Mutation::kWrongPeer:
      if (nranks < 3 || !pick([](const Site& s) { return communicates(s.at()); })) return false;
      site->at().peer = another(random, site->at().peer, nranks, site->schedule->rank);
      return true;

    case Mutation::kWrongOnward:
      if (nranks < 3 || !pick([](const Site& s) { return passes_on(s.at()); })) return false;
      site->at().peer2 = another(random, site->at().peer2, nranks, site->schedule->rank);
      return true;

    case Mutation::kWrongChunk: {
      const bool source = random() % 2 == 0;
      auto ref = [source](Step& step) -> Ref& { return source ? step.src : step.dst; };
      if (!pick([&](const Site& s) { return can_shift(*s.schedule, s.at(), ref(s.at())); }))
        return false;
      return shift(*site->schedule, random, site->at().count, &ref(site->at()));
    }

    case Mutation::kWrongSpace: {
      // The input and the output of a sum differ before it, unless they are one in place.
      if (!pick(
              [](const Site& s) { return reduces(s.at()) && s.at().src.space != Space::kScratch; }))
        return false;
      Ref& src = site->at().src;
      src.space = src.space == Space::kIn ? Space::kOut : Space::kIn;
      if (src.chunk >= site->schedule->chunks_in(src.space)) src.chunk = 0;
      return true;
    }

    case Mutation::kWrongCount: {
      if (!pick([](const Site& s) { return communicates(s.at()) && !s.schedule->sliceable; }))
        return false;
      int32_t& count = site->at().count;
      count += count == 1 || random() % 2 == 0 ? 1 : -1;
      return true;
    }

    case Mutation::kMissingFinal:
      if (!pick([](const Site& s) { return s.at().final; })) return false;
      site->at().final = false;
      return true;

    case Mutation::kSpareFinal:
      // On a partial sum, or where nothing is summed.
      if (!pick([&](const Site& s) {
            return !s.at().final && (reducing ? reduces(s.at())
                                              : receives(s.at()) || s.at().kind == StepKind::kCopy);
          }))
        return false;
      site->at().final = true;
      return true;

    case Mutation::kWrongOperands: {
      if (!pick([](const Site& s) { return s.at().operands > 2; })) return false;
      Step& step = site->at();
      const auto first = site->schedule->operands.begin() + step.operand;
      // Another order shows only where other ranks, or a kernel, use the right one.
      switch (random() % (site->schedule->collective == Collective::kAllReduce ? 3 : 2)) {
        case 0:
          --step.operands;
          break;
        case 1:
          *first = *(first + 1);
          break;
        default:
          std::swap(*first, *(first + step.operands - 1));
          break;
      }
      return true;
    }

    case Mutation::kWrongTimes:
      if (!pick([](const Site& s) {
            return s.at().kind == StepKind::kRepeat && communicates(s.steps()[s.step + 1]);
          }))
        return false;
      site->at().times += random() % 2 == 0 ? 1 : -1;
      return true;

    case Mutation::kWrongLane: {
      if (!pick([](const Site& s) { return s.schedule->lanes.size() > 1 && communicates(s.at()); }))
        return false;
      const Step moved = site->at();
      site->steps().erase(site->steps().begin() + static_cast<std::ptrdiff_t>(site->step));
      const size_t lane = (site->lane + 1) % site->schedule->lanes.size();
      site->schedule->lanes[lane].steps.push_back(moved);
      return true;
    }

    case Mutation::kCount:
      break;
  }
  return false;
}

}  // namespace

const char* name_of(Mutation mutation) {
  switch (mutation) {
    case Mutation::kDrop:
      return "dropped step";
    case Mutation::kDuplicate:
      return "duplicated step";
    case Mutation::kSwap:
      return "swapped steps";
    case Mutation::kWrongPeer:
      return "wrong peer";
    case Mutation::kWrongOnward:
      return "wrong onward peer";
    case Mutation::kWrongChunk:
      return "wrong chunk";
    case Mutation::kWrongSpace:
      return "wrong buffer";
    case Mutation::kWrongCount:
      return "wrong count";
    case Mutation::kMissingFinal:
      return "missing final";
    case Mutation::kSpareFinal:
      return "spare final";
    case Mutation::kWrongOperands:
      return "wrong operands";
    case Mutation::kWrongTimes:
      return "wrong number of rounds";
    case Mutation::kWrongLane:
      return "wrong lane";
    case Mutation::kCount:
      break;
  }
  return "?";
}

bool mutate(std::vector<Schedule>* ranks, Mutation mutation, uint64_t seed, std::string* what) {
  std::mt19937_64 random(seed);
  if (mutation != Mutation::kWrongTimes)
    for (Schedule& schedule : *ranks) unroll(&schedule);
  Site site{};
  std::string text;
  if (!apply(ranks, mutation, random, &site, &text)) return false;
  *what = fmt::format("{} at rank {}, lane {}, step {} ({})", name_of(mutation),
                      site.schedule->rank, site.lane, site.step, text);
  return true;
}

}  // namespace libcomm
