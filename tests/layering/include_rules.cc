#include "tests/layering/include_rules.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <regex>
#include <string_view>

namespace libcomm::test {
namespace {

namespace fs = std::filesystem;

// From the top down: a file may include from its own layer and from those after it.
constexpr std::string_view kLayers[] = {
    "src/api",    "src/communicator", "src/plan",   "src/simulate",  "src/execute",
    "algorithms", "src/schedule",     "transports", "src/bootstrap", "src/topology",
    "src/device", "src/reduce",       "src/base",
};
constexpr size_t kLayerCount = std::size(kLayers);

// What uses the library rather than being part of it.
constexpr std::string_view kOnTop[] = {"tools", "benchmarks", "bindings"};

bool inside(std::string_view path, std::string_view folder) {
  return path.size() > folder.size() && path.starts_with(folder) && path[folder.size()] == '/';
}

// Index into kLayers; kLayerCount for what is in none.
size_t layer_of(std::string_view path) {
  for (size_t i = 0; i < kLayerCount; ++i)
    if (inside(path, kLayers[i])) return i;
  return kLayerCount;
}

bool on_top(std::string_view path) {
  return std::any_of(std::begin(kOnTop), std::end(kOnTop),
                     [&](std::string_view folder) { return inside(path, folder); });
}

// "shm" for transports/shm/channel.cc, "" for transports/transport.h and anything else.
std::string_view transport_of(std::string_view path) {
  constexpr std::string_view kFolder = "transports/";
  if (!path.starts_with(kFolder)) return {};
  path.remove_prefix(kFolder.size());
  const size_t slash = path.find('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

// Why `file` may not include `target` (both relative to the root); nothing when it may.
std::optional<std::string> objection(std::string_view file, std::string_view target) {
  const size_t from = layer_of(file);
  const size_t to = layer_of(target);
  if (on_top(target)) {
    if (on_top(file) && file.substr(0, file.find('/')) == target.substr(0, target.find('/')))
      return {};
    return "nothing includes a program's files but the program";
  }
  if (to == kLayerCount) return "it is in no layer";
  if (on_top(file)) {
    if (inside(file, "bindings")) return "bindings use the public API only";
    if (to < layer_of("src/plan/"))
      return "programs use the public API in place of src/api and src/communicator";
    return {};
  }
  if (to < from) return "the arrow points up";
  if (from == layer_of("algorithms/") && to != from && to != layer_of("src/schedule/"))
    return "algorithms know src/schedule only";
  const std::string_view own = transport_of(file), other = transport_of(target);
  if (!own.empty() && !other.empty() && own != other) return "a transport knows no other transport";
  return {};
}

bool is_source(const fs::path& path) {
  static const std::string kinds[] = {".h", ".cc", ".c", ".def", ".cu", ".cuh"};
  return std::find(std::begin(kinds), std::end(kinds), path.extension()) != std::end(kinds);
}

void check_file(const fs::path& root, const std::string& file, std::vector<std::string>* found) {
  static const std::regex include_line(R"(^\s*#\s*include\s*(["<])([^">]+)[">])");
  static const std::regex call_or_handle(R"(\bcomm[A-Z]\w*\s*\(|\bcomm_t\b)");
  std::ifstream stream(root / file);
  std::string line;
  bool sees_api = false;
  const bool may_use_api = on_top(file) || inside(file, "src/api");
  for (int number = 1; std::getline(stream, line); ++number) {
    std::smatch match;
    const auto report = [&](const std::string& what) {
      found->push_back(file + ":" + std::to_string(number) + " " + what);
    };
    if (!std::regex_search(line, match, include_line)) {
      if (sees_api && !may_use_api && std::regex_search(line, call_or_handle))
        report("uses more of comm.h than its enums: only src/api may");
      continue;
    }
    const std::string target = match[2];
    if (target == "comm.h" || target == "include/comm.h") {
      sees_api = true;
    } else if (match[1] == "\"") {
      if (!fs::exists(root / target)) {
        report("includes " + target + ": there is no such file from the root of the repository");
      } else if (const auto why = objection(file, target)) {
        report("includes " + target + ": " + *why);
      }
    }
  }
}

}  // namespace

std::vector<std::string> include_violations(const fs::path& root) {
  std::vector<std::string> files;
  for (const char* top : {"src", "algorithms", "transports", "tools", "benchmarks", "bindings"}) {
    if (!fs::is_directory(root / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      if (entry.is_regular_file() && is_source(entry.path()))
        files.push_back(fs::relative(entry.path(), root).generic_string());
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> found;
  for (const std::string& file : files) check_file(root, file, &found);
  return found;
}

}  // namespace libcomm::test
