#include "src/plan/algorithm_choice.h"

#include <strings.h>

#include "algorithms/registry.h"
#include "src/base/log.h"
#include "src/plan/planner.h"

namespace libcomm {
namespace {

constexpr size_t kKiB = 1024;

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::string algorithm_names() {
  std::string names;
  for (const Algorithm& algorithm : algorithms()) names += std::string(" ") + algorithm.name;
  return names;
}

// -1 when there is none of that name.
int find_collective(std::string_view name) {
  for (int i = 0; i < kNumCollectives; ++i) {
    const std::string_view candidate = name_of(static_cast<Collective>(i));
    if (candidate.size() == name.size() &&
        strncasecmp(candidate.data(), name.data(), name.size()) == 0)
      return i;
  }
  return -1;
}

}  // namespace

Status AlgorithmChoice::parse(std::string_view text) {
  const std::string_view whole = text;
  while (!text.empty()) {
    const size_t end = text.find(';');
    std::string_view part = trim(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (part.empty()) continue;
    const size_t colon = part.find(':');
    std::string_view algorithm = part;
    int collective = -1;
    if (colon != std::string_view::npos) {
      const std::string_view name = trim(part.substr(0, colon));
      algorithm = trim(part.substr(colon + 1));
      collective = find_collective(name);
      if (collective < 0)
        return error(Code::kInvalidArgument,
                     "COMM_ALGO={}: {} is not a collective (allreduce, reducescatter, allgather, "
                     "broadcast, reduce, alltoall, gather, scatter, allgatherv, reducescatterv, "
                     "alltoallv)",
                     whole, name);
    }
    if (find_algorithm(algorithm) == nullptr)
      return error(Code::kInvalidArgument, "COMM_ALGO={}: {} is not an algorithm; there are:{}",
                   whole, algorithm, algorithm_names());
    for (int i = 0; i < kNumCollectives; ++i)
      if (collective < 0 || collective == i)
        forced_[static_cast<size_t>(i)] = std::string(algorithm);
  }
  return Status::ok();
}

std::vector<const char*> AlgorithmChoice::candidates(Collective collective, size_t bytes,
                                                     const GroupShape& shape) const {
  std::vector<const char*> names;
  const std::string& wanted = forced(collective);
  if (!wanted.empty()) names.push_back(wanted.c_str());
  const auto add = [&](std::initializer_list<const char*> list) {
    names.insert(names.end(), list.begin(), list.end());
  };
  const size_t total = bytes * static_cast<size_t>(shape.nranks);
  const bool several_per_host = shape.hosts > 1 && shape.hosts < shape.nranks;
  switch (collective) {
    case Collective::kAllReduce:
    case Collective::kBarrier:
      if (shape.one_board) add({"twoshot"});
      if (several_per_host && bytes > 8 * kKiB) add({"hierarchical"});
      if (bytes <= 16 * kKiB) add({"rd"});
      if (bytes <= 256 * kKiB) add({"hd"});
      add({"ring", "rd", "star"});
      break;
    case Collective::kReduceScatter:
      if (total <= 64 * kKiB) add({"hd"});
      add({"ring", "hd", "oneshot"});
      break;
    case Collective::kAllGather:
      if (total <= 32 * kKiB) add({"bruck", "hd"});
      add({"ring", "hd", "oneshot"});
      break;
    case Collective::kBroadcast:
    case Collective::kReduce:
      if (bytes <= 64 * kKiB) add({"binomial"});
      if (shape.nranks > 8) add({"tree"});
      add({"ring", "binomial", "star"});
      break;
    case Collective::kAllToAll:
      if (bytes <= 256 && shape.nranks >= 4) add({"bruck"});
      add({"pairwise", "oneshot"});
      break;
    case Collective::kGather:
    case Collective::kScatter:
      if (bytes <= 4 * kKiB) add({"binomial"});
      add({"star", "binomial"});
      break;
    case Collective::kAllGatherV:
    case Collective::kReduceScatterV:
      add({"ring", "oneshot"});
      break;
    case Collective::kAllToAllV:
      add({"pairwise", "oneshot"});
      break;
    case Collective::kSendRecv:
      break;
  }
  return names;
}

}  // namespace libcomm
