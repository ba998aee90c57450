#include "src/communicator/tuning.h"

#include "src/base/log.h"
#include "src/plan/chooser.h"
#include "src/plan/tuner_plugin.h"

namespace libcomm {
namespace {

constexpr char kTableFollows = '+';
constexpr char kReasonFollows = '-';

// Rank 0's table on all ranks, rank 0 included.
Result<TuningTable> share(Bootstrap& bootstrap, const Result<TableText>& mine) {
  const bool root = bootstrap.rank() == 0;
  COMM_ASSIGN(const auto texts,
              bootstrap.all_gather_text(root ? write_shared_table(mine) : std::string()));
  if (root && !mine) return mine.status();
  return read_shared_table(texts[0], bootstrap.rank());
}

Result<TableText> read_file(const Knobs& knobs) {
  const std::string& path = knobs.get_string(Knob::kTunerFile);
  const std::string source = "COMM_TUNER_FILE=" + path;
  COMM_ASSIGN(std::string text, read_table_file(path, source));
  COMM_TRY(TuningTable::parse(text, source).status());
  return TableText{source, std::move(text)};
}

Result<TableText> ask_plugin(const GroupShape& shape, const std::shared_ptr<const Knobs>& knobs) {
  COMM_ASSIGN(const TuningTable table,
              ask_tuner_plugin(knobs->get_string(Knob::kTunerPlugin), shape,
                               Chooser(shape, knobs, AlgorithmChoice(), {})));
  return TableText{table.source(), table.to_text()};
}

}  // namespace

std::string write_shared_table(const Result<TableText>& table) {
  if (!table) {
    const auto code = static_cast<char>('0' + static_cast<int>(table.status().code()));
    return std::string{kReasonFollows, code} + table.status().message();
  }
  return kTableFollows + table->source + '\n' + table->text;
}

Result<TuningTable> read_shared_table(std::string_view bytes, int rank) {
  const auto odd = [&] {
    return error(Code::kRemote,
                 "rank {}: rank 0's tuning table makes no sense; install the same version of "
                 "libcomm everywhere",
                 rank);
  };
  if (bytes.size() < 2) return odd();
  const char kind = bytes.front();
  bytes.remove_prefix(1);
  if (kind == kReasonFollows) {
    const auto code = static_cast<Code>(bytes.front() - '0');
    if (code != Code::kInvalidArgument && code != Code::kSystem) return odd();
    return Status(code, fmt::format("rank 0: {}", bytes.substr(1)));
  }
  const size_t end = bytes.find('\n');
  if (kind != kTableFollows || end == std::string_view::npos) return odd();
  return TuningTable::parse(bytes.substr(end + 1), std::string(bytes.substr(0, end)));
}

Result<std::vector<TuningTable>> agree_on_tables(Bootstrap* bootstrap, const GroupShape& shape,
                                                 const std::shared_ptr<const Knobs>& knobs) {
  const bool root = shape.rank == 0;
  const bool plugin = !knobs->get_string(Knob::kTunerPlugin).empty();
  const bool file = !knobs->get_string(Knob::kTunerFile).empty();
  std::vector<TuningTable> tables;
  if (bootstrap == nullptr) {  // nothing to decide, but a wrong setting shows
    if (file) COMM_TRY(read_file(*knobs).status());
    return tables;
  }
  // The others' own results are not looked at.
  if (plugin) {
    COMM_ASSIGN(auto table,
                share(*bootstrap, root ? ask_plugin(shape, knobs) : Result(TableText())));
    table.forget_lines();  // nobody has seen them
    tables.push_back(std::move(table));
  }
  if (file) {
    COMM_ASSIGN(auto table, share(*bootstrap, root ? read_file(*knobs) : Result(TableText())));
    tables.push_back(std::move(table));
  }
  for (const TuningTable& table : tables)
    log_info(Subsys::kTuning, "rank {}: {}: {} rows, measured on: {}", shape.rank, table.source(),
             table.rows().size(), table.machine().empty() ? "(not said)" : table.machine());
  return tables;
}

}  // namespace libcomm
