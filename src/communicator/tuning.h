// Tuning tables that all ranks of a communicator share: rank 0 reads the file and asks the plug-in,
// and gives the others what it found.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/knobs.h"
#include "src/base/status.h"
#include "src/bootstrap/bootstrap.h"
#include "src/plan/group_shape.h"
#include "src/plan/tuning_table.h"

namespace libcomm {

// Collective; makes no exchange where neither knob is set. The knobs are the agreed ones.
// `bootstrap` is null for a communicator of one rank. What fails on rank 0 fails on all, with its
// text. The strongest table comes first.
Result<std::vector<TuningTable>> agree_on_tables(Bootstrap* bootstrap, const GroupShape& shape,
                                                 const std::shared_ptr<const Knobs>& knobs);

// A table as it travels: as text, so that all ranks name the same lines of the file.
struct TableText {
  std::string source;
  std::string text;
};
// The table, or the reason why there is none.
std::string write_shared_table(const Result<TableText>& table);
// Of any bytes. `rank`: who reads, for messages.
Result<TuningTable> read_shared_table(std::string_view bytes, int rank);

}  // namespace libcomm
