#include "tools/rdma/pair_report.h"

#include <algorithm>

namespace libcomm {
namespace {

// A path this much slower than the middle one is named.
constexpr double kSlow = 0.5;

const PairResult* other_side(const std::vector<PairResult>& results, const PairResult& of) {
  for (const PairResult& each : results)
    if (each.rank == of.peer && each.peer == of.rank) return &each;
  return nullptr;
}

double median_rate(const std::vector<PairResult>& results) {
  std::vector<double> rates;
  for (const PairResult& each : results)
    if (each.complaint.empty()) rates.push_back(each.bytes_per_second);
  if (rates.empty()) return 0;
  const auto middle = rates.begin() + static_cast<ptrdiff_t>(rates.size() / 2);
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

void judge(const PairResult& one, const std::vector<PairResult>& results, double median,
           PairReport* report) {
  const auto line = [&](const std::string& text) {
    return fmt::format("  rank {} to rank {}: {}\n", one.rank, one.peer, text);
  };
  if (!one.complaint.empty()) {
    report->complaints += line(one.complaint);
    return;
  }
  if (one.bytes_per_second < kSlow * median)
    report->remarks += line(
        fmt::format("{:.3f} GB/s where the middle of all is {:.3f}: compare cables, MTU, PCIe and "
                    "NUMA place of these two, and the switches between them",
                    one.bytes_per_second / 1e9, median / 1e9));
  if (one.failed_qps > 0)
    report->remarks +=
        line(fmt::format("{} queue pairs failed, {} were replaced: COMM_DEBUG=INFO says why; look "
                         "at the ports' error counters",
                         one.failed_qps, one.replaced_qps));
  const PairResult* peer = other_side(results, one);
  if (peer != nullptr && one.peak_in_flight > peer->most_granted)
    report->complaints +=
        line(fmt::format("{} bytes were in flight where at most {} were granted: please report "
                         "this",
                         one.peak_in_flight, peer->most_granted));
}

}  // namespace

PairReport report_pairs(const std::vector<PairResult>& results) {
  PairReport report;
  const double median = median_rate(results);
  report.text += fmt::format("{:>6} {:>6} {:>12} {:>12} {:>12}\n", "rank", "rank", "us one way",
                             "GB/s there", "GB/s back");
  for (const PairResult& one : results) {
    const PairResult* back = other_side(results, one);
    if (one.rank > one.peer || back == nullptr) continue;
    report.text +=
        fmt::format("{:>6} {:>6} {:>12.2f} {:>12.3f} {:>12.3f}\n", one.rank, one.peer,
                    one.microseconds, one.bytes_per_second / 1e9, back->bytes_per_second / 1e9);
  }
  report.text +=
      fmt::format("\n{:>6} {:>6} {:>14} {:>14} {:>12} {:>12} {:>8} {:>9} {:>10}\n", "rank", "to",
                  "granted", "written", "in flight", "may be", "slices", "no copy", "fail-overs");
  for (const PairResult& one : results) {
    judge(one, results, median, &report);
    const PairResult* peer = other_side(results, one);
    report.text += fmt::format("{:>6} {:>6} {:>14} {:>14} {:>12} {:>12} {:>8} {:>9} {:>10}\n",
                               one.rank, one.peer, one.granted, one.written, one.peak_in_flight,
                               peer != nullptr ? peer->most_granted : 0, one.slices, one.direct,
                               one.failed_qps);
  }
  report.text +=
      "bytes; in flight: the most at a time, may be: the most that the receiver had granted\n";
  return report;
}

}  // namespace libcomm
