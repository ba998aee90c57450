// comm-tune: measures which algorithm is fastest on this machine and writes a tuning table for
// COMM_TUNER_FILE.
#include <comm.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "src/base/knobs.h"
#include "tools/tune/measure.h"
#include "tools/tune/options.h"
#include "tools/tune/ranks.h"
#include "tools/tune/report.h"

namespace libcomm::tune {
namespace {

// What decides algorithms must not be set: it would be measured instead.
Status refuse_forced() {
  COMM_ASSIGN(const auto knobs, Knobs::load());
  for (const KnobRow& row : knob_table()) {
    if (row.id != Knob::kAlgo && row.id != Knob::kLlThreshold && row.id != Knob::kTunerFile &&
        row.id != Knob::kTunerPlugin && row.id != Knob::kSingleRingThreshold)
      continue;
    if (knobs->is_set(row.id))
      return error(Code::kInvalidUsage,
                   "COMM_{}={} ({}) decides algorithms, which is what is measured; unset it",
                   row.name, knobs->get_string(row.id), knobs->origin(row.id));
  }
  return Status::ok();
}

Result<std::vector<Measurement>> measure_here(const Options& options) {
  std::vector<Measurement> all;
  for (const Medium medium : options.media) {
    const bool shared_memory = medium == Medium::kMemory;
    setenv("COMM_SHM_DISABLE", shared_memory ? "0" : "1", 1);
    for (const int nranks : options.ranks) {
      std::fprintf(stderr, "comm-tune: %d ranks, %s ...\n", nranks, name_of(medium));
      COMM_ASSIGN(const std::string text,
                  run_ranks(nranks, [&](comm_t comm) -> Result<std::string> {
                    COMM_ASSIGN(const auto found, measure(comm, options, shared_memory));
                    return write_measurements(found);
                  }));
      COMM_ASSIGN(const auto found, read_measurements(text));
      all.insert(all.end(), found.begin(), found.end());
    }
  }
  return all;
}

// Empty but on rank 0.
Result<std::vector<Measurement>> measure_launched(const Options& options) {
  COMM_ASSIGN(const auto knobs, Knobs::load());
  comm_t comm = nullptr;
  if (const auto result = commInitFromLauncher(&comm); result != commSuccess)
    return failed_call(result, "commInitFromLauncher", nullptr);
  int nranks = 0;
  if (const auto result = commCount(comm, &nranks); result != commSuccess)
    return failed_call(result, "commCount", comm);
  if (nranks < 2)
    return error(Code::kInvalidUsage,
                 "--launched: one rank alone; start at least two with a launcher such as mpirun");
  auto found = measure(comm, options, !knobs->get_bool(Knob::kShmDisable));
  if (const auto result = commDestroy(comm); found && result != commSuccess)
    return failed_call(result, "commDestroy", nullptr);
  return found;
}

Status write_table(const Options& options, const std::vector<Measurement>& measurements) {
  const TuningTable table = make_table(measurements, describe_machine());
  std::ofstream out(options.output, std::ios::trunc);
  out << table.to_text();
  out.close();
  if (!out) return error(Code::kSystem, "writing {}: {}", options.output, std::strerror(errno));
  fmt::print("{} rows in {}; COMM_TUNER_FILE={} uses them\n", table.rows().size(), options.output,
             options.output);
  return Status::ok();
}

int run(int argc, char** argv) {
  const auto options = parse_options({argv + 1, argv + argc});
  if (!options) {
    fmt::print(stderr, "comm-tune: {}\n", options.status().message());
    return 2;
  }
  if (options->help) {
    fmt::print("{}", kHelp);
    return 0;
  }
  const auto work = [&]() -> Status {
    COMM_TRY(refuse_forced());
    COMM_ASSIGN(const auto found,
                options->launched ? measure_launched(*options) : measure_here(*options));
    if (found.empty()) return Status::ok();  // not rank 0
    fmt::print("{}", report(found, options->verbose));
    return write_table(*options, found);
  };
  Status status = work();
  // A full disk or a closed pipe must not look like success.
  if (std::fflush(stdout) != 0 && status) status = system_error(errno, "writing the output");
  if (status) return 0;
  fmt::print(stderr, "comm-tune: {}\n", status.message());
  return 1;
}

}  // namespace
}  // namespace libcomm::tune

int main(int argc, char** argv) { return libcomm::tune::run(argc, argv); }
