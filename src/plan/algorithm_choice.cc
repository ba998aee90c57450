#include "src/plan/algorithm_choice.h"

#include <strings.h>

#include "algorithms/registry.h"

namespace libcomm {
namespace {

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

}  // namespace libcomm
