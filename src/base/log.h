// The log: one line per event, to stderr or COMM_DEBUG_FILE, chosen by COMM_DEBUG and
// COMM_DEBUG_SUBSYS. A message that is not wanted costs one relaxed load. A line is one write(2),
// without a lock: lines of many threads and processes do not mix, and a forked child can log. Bytes
// that are not printable appear as \xNN: a text may come from a peer.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <string>
#include <string_view>

namespace libcomm {

enum class LogLevel : int { kNone = 0, kVersion = 1, kWarn = 2, kInfo = 3, kTrace = 4 };

// COMM_DEBUG_SUBSYS's names, as bits.
enum class Subsys : unsigned {
  kInit = 1 << 0,
  kColl = 1 << 1,
  kP2p = 1 << 2,
  kShm = 1 << 3,
  kNet = 1 << 4,
  kGraph = 1 << 5,
  kTuning = 1 << 6,
  kEnv = 1 << 7,
  kAlloc = 1 << 8,
  kCall = 1 << 9,
  kBootstrap = 1 << 10,
  kAll = ~0u,
};

namespace log_detail {
extern std::atomic<int> g_level;
extern std::atomic<unsigned> g_subsystems;
void write(LogLevel level, std::string_view text);
}  // namespace log_detail

// Sets the sink; called when knobs are loaded. `file` may hold %h (host) and %p (pid); empty means
// stderr. A file that cannot be opened leaves stderr in place and says so once.
void configure_log(LogLevel level, unsigned subsystems, const std::string& file);

// "INIT,NET" or "^NET" to bits; unknown names are reported through `unknown` when given.
unsigned parse_subsystems(std::string_view text, std::string* unknown = nullptr);

// COMM_DEBUG_SUBSYS chooses among INFO and TRACE only: warnings are never left out.
inline bool log_wants(LogLevel level, Subsys subsys = Subsys::kAll) {
  return log_detail::g_level.load(std::memory_order_relaxed) >= static_cast<int>(level) &&
         (level <= LogLevel::kWarn || (log_detail::g_subsystems.load(std::memory_order_relaxed) &
                                       static_cast<unsigned>(subsys)) != 0);
}

// What COMM_DEBUG=VERSION shows and the levels above it too.
template <typename... Args>
void log_version(fmt::format_string<Args...> format, Args&&... args) {
  if (log_wants(LogLevel::kVersion))
    log_detail::write(LogLevel::kVersion, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  if (log_wants(LogLevel::kWarn))
    log_detail::write(LogLevel::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_info(Subsys subsys, fmt::format_string<Args...> format, Args&&... args) {
  if (log_wants(LogLevel::kInfo, subsys))
    log_detail::write(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_trace(Subsys subsys, fmt::format_string<Args...> format, Args&&... args) {
  if (log_wants(LogLevel::kTrace, subsys))
    log_detail::write(LogLevel::kTrace, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace libcomm
