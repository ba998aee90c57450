#include "benchmarks/peers/settings.h"

#include <getopt.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace peers {
namespace {

constexpr char kUsage[] =
    "usage: DRIVER [--collectives NAME,...] [--sizes BYTES,...] [--type float|bfloat16]\n"
    "  [--budget-us US] [--least-iterations N] [--ranks N] [--memory KIND] [--algorithm NAME]\n"
    "  [--store FOLDER]\n"
    "Prints one line per row: @row COLLECTIVE TYPE SIZE BYTES ITERATIONS MICROSECONDS WRONG\n";

[[noreturn]] void refuse(const std::string& what) {
  std::fprintf(stderr, "%s\n%s", what.c_str(), kUsage);
  std::exit(2);
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

double number(const char* name, const std::string& text, double least) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= least) || value > 0x1p53) {
    refuse(std::string("--") + name + ": not a number from " + std::to_string(least) + ": " + text);
  }
  return value;
}

void apply(Settings& settings, const std::string& name, const std::string& value) {
  if (name == "collectives") {
    settings.collectives.clear();
    for (const std::string& part : split(value)) {
      const auto found = find_collective(part);
      if (!found) refuse("--collectives: no collective " + part);
      settings.collectives.push_back(*found);
    }
  } else if (name == "sizes") {
    settings.sizes.clear();
    for (const std::string& part : split(value)) {
      settings.sizes.push_back(static_cast<size_t>(number("sizes", part, 1)));
    }
  } else if (name == "type") {
    if (value != "float" && value != "bfloat16") refuse("--type: float or bfloat16, not " + value);
    settings.type = value == "float" ? Type::kFloat : Type::kBfloat16;
  } else if (name == "budget-us") {
    settings.budget_us = number("budget-us", value, 0);
  } else if (name == "least-iterations") {
    settings.least_iterations = static_cast<int>(number("least-iterations", value, 1));
  } else if (name == "ranks") {
    settings.ranks = static_cast<int>(number("ranks", value, 1));
  } else if (name == "memory") {
    settings.memory = value;
  } else if (name == "algorithm") {
    settings.algorithm = value;
  } else {
    settings.store = value;
  }
}

}  // namespace

size_t Settings::most_bytes() const { return *std::max_element(sizes.begin(), sizes.end()); }

Settings parse_settings(int argc, char** argv) {
  static const option kOptions[] = {{"collectives", required_argument, nullptr, 1},
                                    {"sizes", required_argument, nullptr, 1},
                                    {"type", required_argument, nullptr, 1},
                                    {"budget-us", required_argument, nullptr, 1},
                                    {"least-iterations", required_argument, nullptr, 1},
                                    {"ranks", required_argument, nullptr, 1},
                                    {"memory", required_argument, nullptr, 1},
                                    {"algorithm", required_argument, nullptr, 1},
                                    {"store", required_argument, nullptr, 1},
                                    {nullptr, 0, nullptr, 0}};
  Settings settings;
  int index = 0;
  for (int found; (found = getopt_long(argc, argv, "", kOptions, &index)) != -1;) {
    if (found != 1) refuse("unknown argument");
    apply(settings, kOptions[index].name, optarg);
  }
  if (optind < argc) refuse(std::string("unexpected argument ") + argv[optind]);
  if (settings.collectives.empty()) refuse("--collectives: none");
  if (settings.sizes.empty()) refuse("--sizes: none");
  if (settings.ranks > kMostRanks) {
    refuse("--ranks: at most " + std::to_string(kMostRanks));
  }
  return settings;
}

}  // namespace peers
