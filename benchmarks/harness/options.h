// The command line of the *_perf programs: nccl-tests' flags with the same letters, names and
// meanings, and a few more for ranks on a host.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "benchmarks/harness/numbers.h"

namespace bench {

enum class Average { kRank0 = 0, kMean = 1, kMin = 2, kMax = 3 };
enum class Memory { kMalloc, kComm };
enum class Registration { kNone = 0, kLocal = 1, kSymmetric = 2 };

struct Options {
  // Ranks: processes * nthreads * ngpus. procs is unset unless the user said --procs.
  std::optional<int> procs;
  int nthreads = 1;
  int ngpus = 1;  // ranks that one thread drives through groups

  size_t min_bytes = size_t{32} << 20;
  size_t max_bytes = size_t{32} << 20;
  size_t step_bytes = size_t{1} << 20;
  size_t step_factor = 1;  // above 1: sizes grow by this factor instead of by step_bytes

  std::vector<commDataType_t> types{commFloat32};
  std::vector<Op> ops{Op::kSum};
  std::optional<int> root = 0;  // unset: all

  std::optional<int> iters;         // unset: iterations_for() decides
  std::optional<int> warmup_iters;  // likewise
  int agg_iters = 1;
  int run_cycles = 1;              // 0: for ever
  std::optional<Average> average;  // unset: kMean, or kMax with --one_way

  bool parallel_init = false;
  int check = 1;  // checked calls per row
  bool blocking = false;
  bool host_stream = false;
  int timeout_s = 0;  // 0: none
  bool cpu_time = false;
  bool timestamps = false;
  bool one_way = false;  // sendrecv_perf
  Memory memory = Memory::kMalloc;
  Registration registration = Registration::kNone;
  std::string json_file;
  bool help = false;
};

// What a program's flags may say beyond the common ones.
struct OptionSet {
  const char* program;
  bool has_one_way = false;
};

// False with a text that names the flag, the value and what is accepted.
bool parse_options(int argc, char** argv, const OptionSet& set, Options* options,
                   std::string* error);
std::string usage(const OptionSet& set);

// "8", "4K", "1.5M", "2G", "1T": binary multiples.
std::optional<size_t> parse_size(const char* text);

// Without -n and -w: enough iterations to see small messages, not too many of huge ones.
int iterations_for(const Options& options, size_t bytes);
int warmups_for(const Options& options, size_t bytes);

Average average_of(const Options& options);

// The sizes of a run, from -b to -e.
std::vector<size_t> sizes_of(const Options& options);

}  // namespace bench
