#include "src/base/log.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>

#include "src/base/fork_mutex.h"

namespace libcomm {
namespace log_detail {
std::atomic<int> g_level{static_cast<int>(LogLevel::kWarn)};
std::atomic<unsigned> g_subsystems{static_cast<unsigned>(Subsys::kAll)};
}  // namespace log_detail

namespace {

// The descriptor that lines go to. A file's descriptor, once opened, keeps its number for the life
// of the process: another file is put onto it with dup3, so that a thread in write() never meets a
// closed or foreign descriptor.
std::atomic<int> g_sink{STDERR_FILENO};
int g_file = -1;          // under g_configure_mutex
std::string g_file_path;  // under g_configure_mutex; what g_sink is, "" for stderr
ForkMutex g_configure_mutex;

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
      case 'h':
        path += host_name();
        break;
      case 'p':
        path += std::to_string(getpid());
        break;
      case '%':
        path += '%';
        break;
      default:
        path += '%', path += pattern[i];
    }
  }
  return path;
}

std::string error_text(int err) {
  char buffer[128];
  return strerror_r(err, buffer, sizeof buffer);
}

void append_printable(std::string* line, std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      *line += fmt::format("\\x{:02x}", byte);
    } else {
      *line += c;
    }
  }
}

struct SubsysName {
  std::string_view name;
  Subsys bit;
};
constexpr SubsysName kSubsysNames[] = {
    {"INIT", Subsys::kInit},
    {"COLL", Subsys::kColl},
    {"P2P", Subsys::kP2p},
    {"SHM", Subsys::kShm},
    {"NET", Subsys::kNet},
    {"GRAPH", Subsys::kGraph},
    {"TUNING", Subsys::kTuning},
    {"ENV", Subsys::kEnv},
    {"ALLOC", Subsys::kAlloc},
    {"CALL", Subsys::kCall},
    {"BOOTSTRAP", Subsys::kBootstrap},
    {"ALL", Subsys::kAll},
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
  const std::string path = expand_path(file);
  std::string failed;
  {
    std::lock_guard lock(g_configure_mutex);
    if (path == g_file_path) return;
    g_file_path = path;
    int sink = STDERR_FILENO;
    if (!path.empty()) {
      const int fd =
          ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
      if (fd < 0) {
        failed = fmt::format("COMM_DEBUG_FILE={}: {}; logging to stderr", path, error_text(errno));
      } else if (g_file < 0) {
        g_file = fd;
      } else {
        ::dup3(fd, g_file, O_CLOEXEC);
        ::close(fd);
      }
      if (fd >= 0) sink = g_file;
    }
    g_sink.store(sink, std::memory_order_release);
  }
  if (!failed.empty()) log_warn("{}", failed);
}

void log_detail::write(LogLevel level, std::string_view text) {
  static const std::string host = host_name();
  const char* name = level == LogLevel::kWarn    ? "WARN"
                     : level == LogLevel::kInfo  ? "INFO"
                     : level == LogLevel::kTrace ? "TRACE"
                                                 : "VERSION";
  std::string line = fmt::format("{}:{}:{} libcomm {} ", host, getpid(), syscall(SYS_gettid), name);
  append_printable(&line, text);
  line += '\n';
  const int sink = g_sink.load(std::memory_order_acquire);
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t n = ::write(sink, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // a log that cannot be written is no reason to fail
    rest.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace libcomm
