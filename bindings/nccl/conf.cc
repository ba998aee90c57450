#include "bindings/nccl/conf.h"

#include <pwd.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <vector>

#include "comm.h"

namespace nccl_binding {
namespace {

// The home folder of the user database, as in NCCL; empty: there is none.
std::string home_folder() {
  std::vector<char> buffer(16 << 10);
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(::getuid(), &entry, buffer.data(), buffer.size(), &found) != 0 ||
      found == nullptr || found->pw_dir == nullptr)
    return {};
  return found->pw_dir;
}

bool is_blank_or_comment(const std::string& line) {
  const size_t begin = line.find_first_not_of(" \t\r");
  return begin == std::string::npos || line[begin] == '#';
}

// libcomm's log is its own: what it refuses to take for a knob it says there.
void warn(const std::string& lines) {
  static std::atomic<size_t> warned{0};
  const size_t hash = std::hash<std::string>()(lines);
  if (warned.exchange(hash) != hash)
    (void)commSetKnobDefault((lines + ", without '=',").c_str(), nullptr, nullptr);
}

}  // namespace

void Conf::add(const std::string& path) {
  constexpr int kMostNamed = 8;
  std::ifstream file(path);
  std::string line, numbers;
  int bad = 0;
  for (int number = 1; std::getline(file, line); ++number) {
    if (is_blank_or_comment(line)) continue;
    const size_t equals = line.find('=');
    if (equals != std::string::npos) {
      const std::string name = line.substr(0, equals);
      settings_.insert({name, {line.substr(equals + 1), name + " in " + path}});
    } else if (++bad <= kMostNamed) {
      numbers += (bad == 1 ? "" : ", ") + std::to_string(number);
    }
  }
  if (bad == 0) return;
  if (bad > kMostNamed) numbers += ", ...";
  bad_lines_ += (bad_lines_.empty() ? "" : "; ");
  bad_lines_ += (bad == 1 ? "line " : "lines ") + numbers + " of " + path;
}

Conf Conf::read() {
  Conf conf;
  const char* own = std::getenv("NCCL_CONF_FILE");
  const std::string home = own == nullptr || *own == '\0' ? home_folder() : std::string();
  if (own != nullptr && *own != '\0')
    conf.add(own);
  else if (!home.empty())
    conf.add(home + "/.nccl.conf");
  conf.add("/etc/nccl.conf");
  if (!conf.bad_lines_.empty()) warn(conf.bad_lines_);
  return conf;
}

const Conf::Setting* Conf::find(const char* name) {
  if (const char* text = std::getenv(name)) {
    from_environment_ = {text, name};
    return &from_environment_;
  }
  const auto found = settings_.find(name);
  return found == settings_.end() ? nullptr : &found->second;
}

}  // namespace nccl_binding
