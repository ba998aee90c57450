// The command line that all drivers share.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "benchmarks/peers/collectives.h"
#include "benchmarks/peers/values.h"

namespace peers {

struct Settings {
  std::vector<Collective> collectives{Collective::kAllReduce};
  std::vector<size_t> sizes{8};  // bytes
  Type type = Type::kFloat;
  double budget_us = 40000;  // time to spend on the timed calls of a row
  int least_iterations = 3;  // however long they take
  int ranks = 2;             // of a driver that starts its own processes
  std::string memory;        // "", or one that the library knows
  std::string algorithm;     // "", or one that the library knows
  std::string store;         // a folder in which ranks find each other

  size_t most_bytes() const;
};

// Ends the program with a line on stderr when the arguments make no sense.
Settings parse_settings(int argc, char** argv);

}  // namespace peers
