// comm-info: what this libcomm is, what of it works on this machine, and which knobs are set.
#include <comm.h>
#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "src/topology/json.h"
#include "tools/info/knob_report.h"
#include "tools/info/machine_report.h"

namespace libcomm {
namespace {

constexpr const char* kHelp =
    R"(comm-info: print what libcomm is and what of it works on this machine

usage: comm-info [--json]
       comm-info --knobs [--markdown | --json]
  --knobs      print the knobs: value, where it came from, default, range, meaning
  --markdown   print the knob table as docs/knobs.md
  --json       print JSON instead of text
  --version    print the library's version alone
  --help       print this text

Exit status: 0, 1 when a knob has a value that it may not have, 2 for wrong usage.
)";

struct Options {
  bool knobs = false;
  bool markdown = false;
  bool json = false;
};

std::string library_version() {
  const char* version = nullptr;
  return commGetLibraryVersion(&version) == commSuccess && version != nullptr ? version : "unknown";
}

int api_level() {
  int level = 0;
  return commGetVersion(&level) == commSuccess ? level : 0;
}

constexpr std::pair<const char*, const char*> kBuild[] = {
    {"build type", COMM_BUILD_TYPE},       {"compiler", COMM_BUILD_COMPILER},
    {"sanitizers", COMM_BUILD_SANITIZERS}, {"hwloc", COMM_BUILD_HWLOC},
    {"Highway", COMM_BUILD_HIGHWAY},       {"CUDA", COMM_BUILD_CUDA},
    {"verbs", COMM_BUILD_VERBS},           {"PMIx", COMM_BUILD_PMIX},
    {"pugixml", COMM_BUILD_PUGIXML},
};

void print_findings(const char* title, const std::vector<Finding>& findings) {
  fmt::print("\n{}\n", title);
  for (const Finding& finding : findings)
    fmt::print("  {:<10} {:<4} {}\n", finding.name, finding.available ? "yes" : "no",
               finding.detail);
}

void print_text(const Knobs& knobs) {
  fmt::print("libcomm {}, API level {}\n\nbuild\n", library_version(), api_level());
  for (const auto& [name, value] : kBuild) fmt::print("  {:<10} {}\n", name, value);
  print_findings("transports on this machine", find_transports(knobs));
  print_findings("launchers", find_launchers());
  int set = 0;
  for (const KnobRow& row : knob_table()) set += knobs.is_set(row.id) ? 1 : 0;
  fmt::print("\n{} of {} knobs are set; comm-info --knobs shows them\n", set, knob_table().size());
}

std::string findings_as_json(const std::vector<Finding>& findings) {
  std::string text = "[";
  for (const Finding& finding : findings) {
    text += fmt::format("{}\n    {{\"name\": {}, \"available\": {}, \"detail\": {}}}",
                        text.size() == 1 ? "" : ",", json_quoted(finding.name), finding.available,
                        json_quoted(finding.detail));
  }
  return text + "\n  ]";
}

void print_json(const Knobs& knobs) {
  fmt::print("{{\n  \"version\": {},\n  \"api_level\": {},\n  \"build\": {{",
             json_quoted(library_version()), api_level());
  const char* comma = "";
  for (const auto& [name, value] : kBuild) {
    fmt::print("{}\n    {}: {}", comma, json_quoted(name), json_quoted(value));
    comma = ",";
  }
  fmt::print("\n  }},\n  \"transports\": {},\n  \"launchers\": {},\n  \"knobs\": {}\n}}\n",
             findings_as_json(find_transports(knobs)), findings_as_json(find_launchers()),
             knobs_as_json(knobs));
}

int run(const Options& options) {
  if (options.markdown) {
    fmt::print("{}", knobs_as_markdown());
    return 0;
  }
  const auto knobs = Knobs::load();
  if (!knobs) {
    fmt::print(stderr, "comm-info: {}\n", knobs.status().to_string());
    return 1;
  }
  if (options.knobs && options.json) {
    fmt::print("{{\n  \"knobs\": {}\n}}\n", knobs_as_json(**knobs));
  } else if (options.knobs) {
    fmt::print("{}", knobs_as_text(**knobs));
  } else if (options.json) {
    print_json(**knobs);
  } else {
    print_text(**knobs);
  }
  return 0;
}

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--knobs") {
      options.knobs = true;
    } else if (argument == "--markdown") {
      options.markdown = true;
    } else if (argument == "--json") {
      options.json = true;
    } else if (argument == "--version") {
      fmt::print("{}\n", library_version());
      return 0;
    } else if (argument == "--help" || argument == "-h") {
      fmt::print("{}", kHelp);
      return 0;
    } else {
      fmt::print(stderr, "comm-info: unknown argument {}\n\n{}", argument, kHelp);
      return 2;
    }
  }
  if (options.markdown && (!options.knobs || options.json)) {
    fmt::print(stderr, "comm-info: --markdown goes with --knobs and without --json\n");
    return 2;
  }
  return run(options);
}

}  // namespace
}  // namespace libcomm

int main(int argc, char** argv) { return libcomm::main(argc, argv); }
