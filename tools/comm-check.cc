// comm-check: proofs and self-checks of the library. One subcommand per kind of proof.
#include <cstdio>
#include <string_view>
#include <vector>

#include "tools/check_rdma.h"
#include "tools/check_schedules.h"

namespace {

struct Subcommand {
  const char* name;
  const char* sentence;
  int (*run)(const std::vector<std::string_view>& arguments);
};

constexpr Subcommand kSubcommands[] = {
    {"schedules", "prove every algorithm's schedules by running all ranks symbolically",
     libcomm::check_schedules},
    {"rdma", "show whether RDMA works here and between ranks, and say what is wrong",
     libcomm::check_rdma},
};

int usage(std::FILE* to) {
  std::fprintf(to, "usage: comm-check SUBCOMMAND [OPTION...]\n\n");
  for (const Subcommand& subcommand : kSubcommands)
    std::fprintf(to, "  %-12s %s\n", subcommand.name, subcommand.sentence);
  std::fprintf(
      to,
      "\n`comm-check SUBCOMMAND --help` lists its options. Exit status: 0 all is well, 1 a "
      "counter-example or something wrong was found, 2 wrong usage.\n");
  return to == stdout ? 0 : 2;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string_view> arguments(argv + 1, argv + argc);
  if (arguments.empty()) return usage(stderr);
  if (arguments[0] == "--help" || arguments[0] == "-h") return usage(stdout);
  for (const Subcommand& subcommand : kSubcommands)
    if (arguments[0] == subcommand.name)
      return subcommand.run({arguments.begin() + 1, arguments.end()});
  std::fprintf(stderr, "comm-check: there is no subcommand %s\n", argv[1]);
  return usage(stderr);
}
