// Where a rank's facts come from: the kernel's boot id, a token of this process, its namespaces.
#include "transports/facts.h"

#include <sched.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <mutex>
#include <random>
#include <string_view>

#include "src/base/fd.h"
#include "src/base/fork_mutex.h"

namespace libcomm {
namespace {

// FNV-1a, 64 bits. Not against enemies: two hosts that collide only try to share memory, in vain.
uint64_t hash_text(std::string_view text, uint64_t hash = 0xcbf29ce484222325u) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// Empty where the kernel does not tell (no /proc): then COMM_HOSTID alone distinguishes hosts, and
// the host name stands in.
std::string boot_id() {
  std::array<char, 128> text{};
  if (std::FILE* file = std::fopen("/proc/sys/kernel/random/boot_id", "re"); file != nullptr) {
    const size_t bytes = std::fread(text.data(), 1, text.size() - 1, file);
    std::fclose(file);
    if (bytes > 0) return std::string(text.data(), bytes);
  }
  if (::gethostname(text.data(), text.size() - 1) != 0) return {};
  return text.data();
}

std::array<uint64_t, 2> random_token() {
  std::array<uint64_t, 2> token{};
  if (::getrandom(token.data(), sizeof token, 0) == static_cast<ssize_t>(sizeof token)) {
    return token;
  }
  std::random_device device;  // an old kernel or a strict sandbox
  for (uint64_t& word : token) word = uint64_t{device()} << 32 | device();
  return token;
}

// Random once per process. A forked child has an address space of its own, so it draws again.
std::array<uint64_t, 2> process_token() {
  static ForkMutex mutex;
  static std::array<uint64_t, 2> token{};
  static unsigned drawn_in = ~0u;
  const std::lock_guard lock(mutex);
  if (const unsigned generation = fork_generation(); drawn_in != generation) {
    token = random_token();
    drawn_in = generation;
  }
  return token;
}

// The inode that names a namespace; 0 when it cannot be read.
uint64_t namespace_of(const char* link) {
  struct stat info {};
  return ::stat(link, &info) == 0 ? info.st_ino : 0;
}

// The core this thread is bound to, if it is exactly one.
int bound_core() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (::sched_getaffinity(0, sizeof cores, &cores) != 0 || CPU_COUNT(&cores) != 1) return -1;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &cores)) return core;
  }
  return -1;
}

}  // namespace

PeerFacts gather_facts(int rank, const Knobs& knobs) {
  PeerFacts facts;
  facts.rank = rank;
  // A separator keeps (boot "a", id "bc") and (boot "ab", id "c") apart.
  facts.host_hash =
      hash_text(knobs.get_string(Knob::kHostid), hash_text("\x1f", hash_text(boot_id())));
  const std::array<uint64_t, 2> token = process_token();
  facts.process_token[0] = token[0];
  facts.process_token[1] = token[1];
  facts.pid = ::getpid();
  facts.pid_namespace = namespace_of("/proc/self/ns/pid");
  facts.net_namespace = namespace_of("/proc/self/ns/net");
  facts.uid = ::geteuid();
  facts.core = bound_core();
  return facts;
}

bool same_process(const PeerFacts& a, const PeerFacts& b) {
  return a.process_token[0] == b.process_token[0] && a.process_token[1] == b.process_token[1];
}

bool perhaps_same_host(const PeerFacts& a, const PeerFacts& b) {
  return a.host_hash == b.host_hash;
}

}  // namespace libcomm
