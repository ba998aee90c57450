#include "tools/tune/report.h"

#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <thread>

namespace libcomm::tune {
namespace {

// Two medians that are closer than this say the same.
constexpr double kSame = 1.04;

bool same_group(const TuningKey& a, const TuningKey& b) {
  return a.collective == b.collective && a.nranks == b.nranks && a.hosts == b.hosts &&
         a.medium == b.medium;
}

const Timing* find_timing(const Measurement& measurement, const Variant& variant) {
  const auto found = std::find_if(measurement.timings.begin(), measurement.timings.end(),
                                  [&](const Timing& timing) { return timing.variant == variant; });
  return found == measurement.timings.end() ? nullptr : &*found;
}

std::string size_text(size_t bytes) {
  if (bytes >= size_t{1} << 20 && bytes % (size_t{1} << 20) == 0)
    return fmt::format("{}M", bytes >> 20);
  if (bytes >= 1024 && bytes % 1024 == 0) return fmt::format("{}K", bytes >> 10);
  return fmt::format("{}", bytes);
}

}  // namespace

const Timing& best_of(const Measurement& measurement) {
  const auto best = std::min_element(
      measurement.timings.begin(), measurement.timings.end(),
      [](const Timing& a, const Timing& b) { return a.microseconds < b.microseconds; });
  const Timing* model = find_timing(measurement, measurement.by_model);
  return model != nullptr && model->microseconds <= kSame * best->microseconds ? *model : *best;
}

TuningTable make_table(const std::vector<Measurement>& measurements, const std::string& machine) {
  TuningTable table("comm-tune", machine);
  for (size_t i = 0; i < measurements.size(); ++i) {
    const Measurement& one = measurements[i];
    const bool first = i == 0 || !same_group(measurements[i - 1].key, one.key);
    const bool last = i + 1 == measurements.size() || !same_group(measurements[i + 1].key, one.key);
    const Timing& best = best_of(one);
    TuningRow row;
    row.collective = one.key.collective;
    row.min_bytes = first ? 0 : measurements[i - 1].key.bytes + 1;
    row.max_bytes = last ? SIZE_MAX : one.key.bytes;
    row.nranks = one.key.nranks;
    row.hosts = one.key.hosts;
    row.medium = one.key.medium;
    row.way = best.variant.way;
    row.lanes = best.variant.lanes;
    row.window = best.variant.window;
    row.microseconds = best.microseconds;
    table.add(row);
  }
  return table;
}

std::string report(const std::vector<Measurement>& measurements, bool verbose) {
  std::string text =
      fmt::format("{:<14} {:>5} {:<8} {:>8}  {:<26} {:>10}  {:<12} {:>7} {:>10}\n", "collective",
                  "ranks", "path", "bytes", "best", "us", "model's", "slower", "priced us");
  int different = 0;
  for (const Measurement& one : measurements) {
    const Timing& best = best_of(one);
    const Timing* model = find_timing(one, one.by_model);
    const bool differs = !(best.variant == one.by_model);
    different += differs ? 1 : 0;
    text += fmt::format("{:<14} {:>5} {:<8} {:>8}  {:<26} {:>10.4g}  {:<12} {:>7} {:>10.4g}\n",
                        name_of(one.key.collective), one.key.nranks, name_of(one.key.medium),
                        size_text(one.key.bytes), best.variant.to_string(), best.microseconds,
                        differs ? one.by_model.to_string() : "the same",
                        differs && model != nullptr
                            ? fmt::format("{:.2f}x", model->microseconds / best.microseconds)
                            : "",
                        model != nullptr ? model->model_us : best.model_us);
    if (!verbose) continue;
    text += "   ";
    for (const Timing& timing : one.timings)
      text += fmt::format(" {} {:.4g} (priced {:.4g});", timing.variant.to_string(),
                          timing.microseconds, timing.model_us);
    text += '\n';
  }
  text += fmt::format("{} of {} differ from what the cost model chooses\n", different,
                      measurements.size());
  return text;
}

std::string describe_machine() {
  std::string processor = "unknown processor";
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(": ");
    if (!line.starts_with("model name") || colon == std::string::npos) continue;
    processor = line.substr(colon + 2);
    break;
  }
  utsname system{};
  const bool known = uname(&system) == 0;
  return fmt::format("{}, {} cores, {} {}", processor, std::thread::hardware_concurrency(),
                     known ? system.sysname : "unknown system", known ? system.release : "");
}

}  // namespace libcomm::tune
