// What comm-tune is asked for.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "src/base/status.h"
#include "src/plan/way.h"
#include "src/schedule/schedule.h"

namespace libcomm::tune {

struct Options {
  std::vector<Collective> collectives;
  std::vector<int> ranks;     // of the groups to start
  std::vector<Medium> media;  // kMemory, kSockets
  size_t min_bytes = 8;       // of a block
  size_t max_bytes = size_t{4} << 20;
  size_t factor = 4;  // from one size to the next
  int rounds = 9;
  double sample_ms = 2;  // time that one measurement takes, about
  std::string output = "comm.tuning";
  bool launched = false;  // the ranks are there already
  bool verbose = false;
  bool help = false;
};

extern const char* const kHelp;

// Of the words after the program's name; the text of a failure is for stderr.
Result<Options> parse_options(const std::vector<std::string>& words);

// What comm-tune measures; the v-variants and the barrier follow the model.
bool is_measured(Collective collective);

}  // namespace libcomm::tune
