// Tuning tables: as files, and as rank 0 sends them.
#include "src/base/log.h"
#include "src/communicator/tuning.h"
#include "src/plan/planner.h"
#include "tests/fuzz/fuzz.h"

namespace libcomm::fuzz {
namespace {

// What was read is within its bounds, and reads the same once written.
void check_table(const TuningTable& table) {
  FUZZ_CHECK(table.rows().size() <= kMostTableRows);
  for (const TuningRow& row : table.rows()) {
    FUZZ_CHECK(row.min_bytes <= row.max_bytes && row.collective != Collective::kSendRecv);
    FUZZ_CHECK(row.lanes >= 0 && row.nranks >= 0 && row.hosts >= 0);
    FUZZ_CHECK(row.window == 0 || (row.window >= kLeastWindow && row.window <= kMostWindow));
    const TuningKey key{row.collective, row.min_bytes, row.nranks, row.hosts,
                        row.medium.value_or(Medium::kMemory)};
    const TuningRow* found = table.find(key);
    FUZZ_CHECK(found != nullptr && found->fits(key));
  }
  const std::string text = table.to_text();
  const auto again = TuningTable::parse(text, "again");
  FUZZ_CHECK(again.is_ok() || text.size() > kMostTableBytes);
  if (again) FUZZ_CHECK(again->to_text() == text);
}

// Whatever a table says, there is a plan.
void plan_with(const TuningTable& table) {
  static const auto knobs = [] {
    auto loaded = Knobs::load();
    FUZZ_CHECK(loaded.is_ok());
    configure_log(LogLevel::kNone, 0, "");
    return *loaded;
  }();
  GroupShape shape;
  shape.nranks = 4;
  shape.host_of.assign(4, 0);
  shape.one_board = true;
  shape.segment_bytes = size_t{64} << 10;
  const auto planner = Planner::create(shape, knobs, {table});
  FUZZ_CHECK(planner.is_ok());
  for (const Collective collective : {Collective::kAllReduce, Collective::kAllGather}) {
    Operation operation;
    operation.collective = collective;
    operation.count = 1000;
    FUZZ_CHECK((*planner)->plan(operation).is_ok());
  }
}

}  // namespace

std::vector<std::string> seeds() {
  const std::string title = "libcomm tuning table 1: Xeon, 2 cores, Linux 6.1\n";
  const std::string rows =
      "# a comment\n\nallreduce, 0, 64K, 2, 1, memory, oneshot, *, *, 1.25\n"
      "allreduce, 65537, *, *, *, *, twoshot, *, 128K, *\n"
      "allgather, 0, *, 4, 1, memory, windows, *, 4096, 33.5\n"
      "alltoallv, 1, 18446744073709551615, 1048576, 2, network, pairwise, 16, *, 0\n";
  return {title, title + rows, "+COMM_TUNER_FILE=/etc/table\n" + title + rows,
          "-4COMM_TUNER_FILE=/etc/table: No such file or directory",
          "+tuner plug-in 'sample'\nlibcomm tuning table 2: later\n"};
}

}  // namespace libcomm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace libcomm;
  using namespace libcomm::fuzz;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto file = TuningTable::parse(text, "file");
  if (file) {
    check_table(*file);
    plan_with(*file);
  } else {
    FUZZ_CHECK(file.status().code() == Code::kInvalidArgument);
    FUZZ_CHECK(file.status().message().find("file") == 0);
  }
  const auto shared = read_shared_table(text, 1);
  if (shared) check_table(*shared);
  return 0;
}
