#include "src/topology/cpu_list.h"

#include <algorithm>
#include <charconv>

namespace libcomm {
namespace {

// One non-negative number that takes up all of `text`; -1 when it is something else.
int parse_number(std::string_view text) {
  int number = -1;
  const char* end = text.data() + text.size();
  // from_chars takes a minus sign; a CPU list has none ("1--2").
  if (text.empty() || text.front() == '-') return -1;
  auto [stop, failure] = std::from_chars(text.data(), end, number);
  return failure == std::errc() && stop == end ? number : -1;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

}  // namespace

Result<std::vector<int>> parse_cpu_list(std::string_view text) {
  std::vector<int> cpus;
  for (std::string_view rest = text;;) {
    const size_t comma = rest.find(',');
    const std::string_view part = trimmed(rest.substr(0, comma));
    const size_t dash = part.find('-');
    const int first = parse_number(part.substr(0, dash));
    const int last = dash == part.npos ? first : parse_number(part.substr(dash + 1));
    if (first < 0 || last < 0)
      return error(Code::kInvalidArgument,
                   "'{}' is no CPU number or range; write a list like 0-3,8", part);
    if (last < first)
      return error(Code::kInvalidArgument, "the range {} runs backwards; write {}-{}", part, last,
                   first);
    if (last > kMaxCpuNumber)
      return error(Code::kInvalidArgument, "CPU {} is beyond {}, the highest number possible", last,
                   kMaxCpuNumber);
    if (cpus.size() + static_cast<size_t>(last - first) > kMaxCpuNumber)
      return error(Code::kInvalidArgument, "the list names more than {} CPUs", kMaxCpuNumber + 1);
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (comma == rest.npos) return cpus;
    rest.remove_prefix(comma + 1);
  }
}

std::string format_cpu_list(std::span<const int> cpus) {
  std::vector<int> sorted(cpus.begin(), cpus.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  std::string text;
  for (size_t begin = 0, end = 0; begin < sorted.size(); begin = end) {
    for (end = begin + 1; end < sorted.size() && sorted[end] == sorted[end - 1] + 1; ++end) {
    }
    if (!text.empty()) text += ',';
    text += end == begin + 1 ? fmt::format("{}", sorted[begin])
                             : fmt::format("{}-{}", sorted[begin], sorted[end - 1]);
  }
  return text;
}

}  // namespace libcomm
