#include "src/base/log.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <mutex>

namespace libcomm {
namespace log_detail {
std::atomic<int> g_level{static_cast<int>(LogLevel::kWarn)};
std::atomic<unsigned> g_subsystems{static_cast<unsigned>(Subsys::kAll)};
}  // namespace log_detail

namespace {

std::mutex g_sink_mutex;
int g_sink = STDERR_FILENO;
std::string g_sink_path;

std::string host_name() {
  char name[256] = {};
  if (gethostname(name, sizeof name - 1) != 0) return "host";
  if (char* dot = std::strchr(name, '.')) *dot = '\0';
  return name;
}

std::string expand_path(const std::string& pattern) {
  std::string path;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%' || i + 1 == pattern.size()) {
      path += pattern[i];
      continue;
    }
    switch (pattern[++i]) {
      case 'h': path += host_name(); break;
      case 'p': path += std::to_string(getpid()); break;
      case '%': path += '%'; break;
      default: path += '%', path += pattern[i];
    }
  }
  return path;
}

struct SubsysName {
  std::string_view name;
  Subsys bit;
};
constexpr SubsysName kSubsysNames[] = {
    {"INIT", Subsys::kInit},     {"COLL", Subsys::kColl},     {"P2P", Subsys::kP2p},
    {"SHM", Subsys::kShm},       {"NET", Subsys::kNet},       {"GRAPH", Subsys::kGraph},
    {"TUNING", Subsys::kTuning}, {"ENV", Subsys::kEnv},       {"ALLOC", Subsys::kAlloc},
    {"CALL", Subsys::kCall},     {"BOOTSTRAP", Subsys::kBootstrap}, {"ALL", Subsys::kAll},
};

}  // namespace

unsigned parse_subsystems(std::string_view text, std::string* unknown) {
  const bool exclude = !text.empty() && text.front() == '^';
  if (exclude) text.remove_prefix(1);
  unsigned bits = 0;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view word = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    bool known = word.empty();
    for (const SubsysName& entry : kSubsysNames) {
      if (word.size() == entry.name.size() &&
          strncasecmp(word.data(), entry.name.data(), word.size()) == 0) {
        bits |= static_cast<unsigned>(entry.bit);
        known = true;
      }
    }
    if (!known && unknown) *unknown = std::string(word);
  }
  return exclude ? ~bits : bits;
}

void configure_log(LogLevel level, unsigned subsystems, const std::string& file) {
  log_detail::g_level.store(static_cast<int>(level), std::memory_order_relaxed);
  log_detail::g_subsystems.store(subsystems, std::memory_order_relaxed);
  std::string failed;
  {
    std::lock_guard lock(g_sink_mutex);
    const std::string path = file.empty() ? std::string() : expand_path(file);
    if (path == g_sink_path) return;
    if (g_sink != STDERR_FILENO) ::close(g_sink);
    g_sink = STDERR_FILENO;
    g_sink_path = path;
    if (!path.empty()) {
      const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
      if (fd >= 0) {
        g_sink = fd;
      } else {
        failed = fmt::format("COMM_DEBUG_FILE={}: {}; logging to stderr", path, strerror(errno));
      }
    }
  }
  if (!failed.empty()) log_warn("{}", failed);
}

void log_detail::write(LogLevel level, std::string_view text) {
  static const std::string host = host_name();
  const char* name = level == LogLevel::kWarn   ? "WARN"
                     : level == LogLevel::kInfo ? "INFO"
                     : level == LogLevel::kTrace ? "TRACE"
                                                 : "VERSION";
  const std::string line = fmt::format("{}:{}:{} libcomm {} {}\n", host, getpid(),
                                       syscall(SYS_gettid), name, text);
  std::lock_guard lock(g_sink_mutex);
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = ::write(g_sink, line.data() + done, line.size() - done);
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
}

}  // namespace libcomm
