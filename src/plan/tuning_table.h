// TuningTable: which way a collective is to be done, by size and group, as a text that comm-tune
// writes and COMM_TUNER_FILE loads.
//
// The first line is "libcomm tuning table 1: " and what machine it was measured on. Every other
// line is empty, a comment that starts with #, or a row of ten fields between commas:
//   collective, least bytes, most bytes, ranks, hosts, path, algorithm, lanes, window, microseconds
// docs/tuning.md says what each may be. The first row that fits a call counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/status.h"
#include "src/plan/way.h"
#include "src/schedule/schedule.h"

namespace libcomm {

inline constexpr size_t kMostTableBytes = size_t{1} << 20;
inline constexpr size_t kMostTableRows = 16384;
inline constexpr size_t kLeastWindow = size_t{4} << 10;
inline constexpr size_t kMostWindow = size_t{64} << 20;

// What a row is looked up by.
struct TuningKey {
  Collective collective = Collective::kAllReduce;
  size_t bytes = 0;  // of the largest block
  int nranks = 1;
  int hosts = 1;
  Medium medium = Medium::kMemory;
};

struct TuningRow {
  Collective collective = Collective::kAllReduce;
  size_t min_bytes = 0;
  size_t max_bytes = SIZE_MAX;
  int nranks = 0;  // 0: any
  int hosts = 0;   // 0: any
  std::optional<Medium> medium;
  Way way = Way::kRing;
  int lanes = 0;             // 0: as the library chooses
  size_t window = 0;         // bytes; 0: as the library chooses
  double microseconds = -1;  // measured; negative: unknown
  int line = 0;              // of the text it was read from; 0: of none

  bool fits(const TuningKey& key) const {
    return collective == key.collective && min_bytes <= key.bytes && key.bytes <= max_bytes &&
           (nranks == 0 || nranks == key.nranks) && (hosts == 0 || hosts == key.hosts) &&
           (!medium || *medium == key.medium);
  }
};

class TuningTable {
 public:
  // `source` is for messages: "COMM_TUNER_FILE=/etc/comm.tuning". Takes any bytes;
  // kInvalidArgument names the line and what is expected there.
  static Result<TuningTable> parse(std::string_view text, std::string source);

  explicit TuningTable(std::string source = "", std::string machine = "")
      : source_(std::move(source)), machine_(std::move(machine)) {}
  void add(const TuningRow& row) { rows_.push_back(row); }

  // Its text is nobody's file.
  void forget_lines() {
    for (TuningRow& row : rows_) row.line = 0;
  }

  // The first row that fits, or null.
  const TuningRow* find(const TuningKey& key) const;

  const std::vector<TuningRow>& rows() const { return rows_; }
  const std::string& source() const { return source_; }
  // "source, line 7", for messages.
  std::string place_of(const TuningRow& row) const;
  const std::string& machine() const { return machine_; }
  // What parse() reads back.
  std::string to_text() const;

 private:
  std::string source_;
  std::string machine_;
  std::vector<TuningRow> rows_;
};

// What a file holds, if that is at most kMostTableBytes. kInvalidArgument names `source`.
Result<std::string> read_table_file(const std::string& path, const std::string& source);

}  // namespace libcomm
