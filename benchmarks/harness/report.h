// What a run prints and writes: nccl-tests' table, column for column, so that scripts which parse
// it work; the same as JSON; and a progress line for people at a terminal.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "benchmarks/harness/options.h"

namespace bench {

// One line of "# Using devices".
struct RankInfo {
  int rank = 0;
  int pid = 0;
  int device = -1;  // -1: host memory
  char host[64] = {};
  char model[64] = {};  // the processor's name
};
RankInfo describe_this_process(int rank, int device);

// One half of a row.
struct Measurement {
  double time_us = 0;
  double algbw = 0;  // GB/s, 10^9 bytes
  double busbw = 0;
  std::optional<int64_t> wrong;  // unset: not checked
};

struct Row {
  size_t bytes = 0;
  size_t count = 0;
  const char* type = "";
  const char* redop = "";
  int root = -1;
  int iterations = 0;
  Measurement out_of_place;
  // Unset: the collective has no in-place form. The columns then read 0, 0, 0 and N/A.
  std::optional<Measurement> in_place;
};

// What runs: said in the header and in the JSON.
struct RunInfo {
  int procs = 1;
  int api_level = 0;  // commGetVersion
  std::string library_version;
  std::vector<RankInfo> ranks;
};

// Used by rank 0 only.
class Report {
 public:
  // table: where the text goes. progress: a terminal, or null.
  Report(const char* program, const Options& options, std::vector<std::string> args, FILE* table,
         FILE* progress);

  void header(RunInfo run);
  // Before a row is measured: `done` of `total` rows are behind us; total 0 is unknown.
  void progress(size_t done, size_t total, size_t bytes, const char* type, const char* redop);
  void row(const Row& row);
  // wrong: values and guard bytes over all ranks and rows.
  void footer(int64_t wrong);
  // Text to stderr when the file cannot be written; then false.
  bool write_json(const std::string& path) const;
  std::string json() const;

 private:
  void clear_progress();
  double average_busbw() const;

  const char* program_;
  const Options& options_;
  std::vector<std::string> args_;
  FILE* table_;
  FILE* progress_;
  bool progress_shown_ = false;
  RunInfo info_;
  std::vector<Row> rows_;
  // Of all rows, kept apart because an endless run (-N 0) drops old rows.
  double busbw_total_ = 0;
  size_t busbw_count_ = 0;
  int64_t wrong_ = 0;
  std::string started_;
};

// `value` in `width` characters: as many decimals as fit, at most two.
std::string fit_number(double value, int width);

// Can a file be written there? It exists afterwards. Text to stderr when not. For asking before
// anything is measured.
bool can_write(const char* program, const std::string& path);

}  // namespace bench
