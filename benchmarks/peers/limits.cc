// What this machine can do at best, measured between two processes: no collective between two ranks
// can be faster than its share of these.
//
//   limits [--sizes BYTES,...] [--budget-us US]
//
// Prints "@limit NAME SIZE MICROSECONDS":
//   line_exchange      both processes write a flag in a cache line of their own and see the other's
//   allreduce_floor    float sum with both inputs and both outputs shared: each process reduces one
//                      half and writes it to both outputs; from a cache line exchange to the next
//   memcpy_alone       a copy by one process while the other is idle
//   memcpy_both        a copy by each process at once, between separate memory
//   kernel_read_both   each process has the kernel copy from the other's memory
//                      (process_vm_readv): all that libraries do for large plain memory; missing
//                      where the kernel forbids it
//   socket_latency     one way over TCP on 127.0.0.1: half a ping-pong of one byte
//   socket_one_way     SIZE bytes in one direction, until their arrival is acknowledged by one byte
//   socket_both_ways   SIZE bytes in each direction at once
// Calls take buffers in turns, as the libraries' calls in loop.cc do.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/harness/launch.h"
#include "benchmarks/peers/limits_kernels.h"
#include "benchmarks/peers/rotation.h"
#include "benchmarks/peers/settings.h"

namespace peers {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kStreamFrom = size_t{8} << 20;  // both ways are tried from here on
constexpr int kMostCalls = 20000;

struct alignas(2 * kLine) Flag {
  std::atomic<uint64_t> value{0};
};

// What both processes map.
struct Shared {
  Flag flags[2];
  std::atomic<double> times[2];
  std::atomic<int> port{0};
  std::atomic<pid_t> processes[2];
  std::atomic<bool> may_not_read{false};
};

double now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "limits: %s: %s\n", what, std::strerror(errno));
  std::_Exit(1);
}

char* map_shared(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("mmap");
  return static_cast<char*>(memory);
}

// What each of the four buffers must have.
size_t buffer_bytes(const Settings& settings) {
  size_t most = kPage;
  for (const size_t bytes : settings.sizes) most = std::max(most, Rotation(bytes).bytes());
  return most;
}

// The two processes stay apart: each on a core of its own, where there are two.
void bind_to_core(int index) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
  for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || seen++ != index) continue;
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(cpu, &own);
    sched_setaffinity(0, sizeof own, &own);
    return;
  }
}

// One of the two processes.
class Process {
 public:
  Process(int index, Shared* shared, char* memory, const Settings& settings)
      : index_(index), shared_(shared), memory_(memory), settings_(settings) {}

  int run();

 private:
  void exchange();
  // Times fn, called equally often in both processes; the longer time per call.
  template <typename Fn>
  double time_calls(Fn fn);
  template <typename Fn>
  double time_calls(int calls, Fn fn);
  double longer(double own);
  void print(const char* name, size_t bytes, double time) const;
  float* floats_at(size_t offset) {
    return static_cast<float*>(static_cast<void*>(memory_ + offset));
  }
  // Two buffers of each process, of all places.
  char* send_buffer(const Rotation& rotation, int process) {
    return memory_ + static_cast<size_t>(process) * 2 * rotation.bytes();
  }
  char* receive_buffer(const Rotation& rotation, int process) {
    return send_buffer(rotation, process) + rotation.bytes();
  }

  void measure_all_reduce(size_t bytes);
  void measure_copies(size_t bytes);
  bool read_other(char* to, const char* from, size_t bytes);
  void measure_kernel_reads(size_t bytes);
  void connect();
  void transfer(const char* send, size_t to_send, char* recv, size_t to_receive);
  void measure_sockets(size_t bytes);

  int index_;
  Shared* shared_;
  char* memory_;
  const Settings& settings_;
  uint64_t turn_ = 0;
  int socket_ = -1;
};

void Process::exchange() {
  ++turn_;
  shared_->flags[index_].value.store(turn_, std::memory_order_release);
  for (int spins = 0; shared_->flags[1 - index_].value.load(std::memory_order_acquire) < turn_;
       ++spins) {
    if (spins > 100000) sched_yield();  // one core, or a busy machine
  }
}

double Process::longer(double own) {
  shared_->times[index_].store(own, std::memory_order_relaxed);
  exchange();
  const double most = std::max(shared_->times[0].load(std::memory_order_relaxed),
                               shared_->times[1].load(std::memory_order_relaxed));
  exchange();  // read by both before the next time overwrites it
  return most;
}

template <typename Fn>
double Process::time_calls(int calls, Fn fn) {
  exchange();
  const double start = now_us();
  for (int i = 0; i < calls; ++i) fn();
  return longer((now_us() - start) / calls);
}

template <typename Fn>
double Process::time_calls(Fn fn) {
  fn();
  double guess = 0;
  int calls = 1;
  for (;; calls *= 4) {
    guess = time_calls(calls, fn);
    if (guess * calls >= settings_.budget_us / 10 || calls >= kMostCalls) break;
  }
  const double wanted = std::clamp(settings_.budget_us / std::max(guess, 0.001), 3.0,
                                   static_cast<double>(kMostCalls));
  return time_calls(static_cast<int>(wanted), fn);
}

void Process::print(const char* name, size_t bytes, double time) const {
  if (index_ != 0) return;
  std::printf("@limit %s %zu %.4f\n", name, bytes, time);
  std::fflush(stdout);
}

void Process::measure_all_reduce(size_t bytes) {
  const size_t count = bytes / sizeof(float);
  const Rotation rotation(bytes);
  const size_t middle = count / 2 / 16 * 16;  // whole cache lines
  const size_t first = index_ == 0 ? 0 : middle;
  const size_t own = index_ == 0 ? middle : count - middle;
  Turn turn(rotation);
  const auto reduce = [&](auto sum) {
    exchange();  // inputs are there
    const size_t at = turn.next() + first * sizeof(float);
    sum(floats_at(at), floats_at(at + rotation.bytes()), floats_at(at + 2 * rotation.bytes()),
        floats_at(at + 3 * rotation.bytes()), own);
    exchange();  // outputs are there
  };
  double time = time_calls([&] { reduce(sum_to_both); });
  if (bytes >= kStreamFrom && own % 16 == 0) {
    time = std::min(time, time_calls([&] { reduce(sum_to_both_streaming); }));
  }
  print("allreduce_floor", bytes, time);
}

void Process::measure_copies(size_t bytes) {
  const Rotation rotation(bytes);
  const char* from = send_buffer(rotation, index_);
  char* to = receive_buffer(rotation, index_);
  Turn turn(rotation);
  const auto copy = [&] {
    const size_t at = turn.next();
    std::memcpy(to + at, from + at, bytes);
    asm volatile("" ::: "memory");  // every copy counts
  };
  // The idle process asks for the flag rarely enough not to be seen.
  print("memcpy_alone", bytes, time_calls([&] {
          if (index_ == 0) copy();
        }));
  print("memcpy_both", bytes, time_calls(copy));
}

// From the other process's memory, which is mapped at the same address there.
bool Process::read_other(char* to, const char* from, size_t bytes) {
  while (bytes > 0) {
    const iovec here{to, bytes};
    const iovec there{const_cast<char*>(from), bytes};
    const ssize_t got = process_vm_readv(shared_->processes[1 - index_], &here, 1, &there, 1, 0);
    if (got <= 0) return false;
    to += got;
    from += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

void Process::measure_kernel_reads(size_t bytes) {
  const Rotation rotation(bytes);
  const char* from = send_buffer(rotation, 1 - index_);
  char* to = receive_buffer(rotation, index_);
  Turn turn(rotation);
  if (!read_other(to, from, bytes)) shared_->may_not_read = true;
  exchange();
  if (shared_->may_not_read) return;
  print("kernel_read_both", bytes, time_calls([&] {
          const size_t at = turn.next();
          read_other(to + at, from + at, bytes);
        }));
}

void Process::connect() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const general = reinterpret_cast<sockaddr*>(&address);
  if (index_ == 0) {
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, general, sizeof address) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, general, &length) != 0) {
      die("listen");
    }
    shared_->port = ntohs(address.sin_port);
    exchange();
    socket_ = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    close(listener);
    if (socket_ < 0) die("accept");
  } else {
    exchange();
    address.sin_port = htons(static_cast<uint16_t>(shared_->port.load()));
    socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (socket_ < 0 || ::connect(socket_, general, sizeof address) != 0) die("connect");
  }
  const int on = 1;
  if (setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
      fcntl(socket_, F_SETFL, O_NONBLOCK) != 0) {
    die("set up socket");
  }
}

// Sends and receives at once.
void Process::transfer(const char* send, size_t to_send, char* recv, size_t to_receive) {
  while (to_send > 0 || to_receive > 0) {
    const ssize_t sent = to_send > 0 ? ::send(socket_, send, to_send, MSG_NOSIGNAL) : 0;
    if (sent < 0 && errno != EAGAIN) die("send");
    if (sent > 0) {
      send += sent;
      to_send -= static_cast<size_t>(sent);
    }
    const ssize_t got = to_receive > 0 ? ::recv(socket_, recv, to_receive, 0) : 0;
    if (got == 0 && to_receive > 0) die("the other process left");
    if (got < 0 && errno != EAGAIN) die("recv");
    if (got > 0) {
      recv += got;
      to_receive -= static_cast<size_t>(got);
    }
  }
}

void Process::measure_sockets(size_t bytes) {
  const Rotation rotation(bytes);
  char* send = send_buffer(rotation, index_);
  char* recv = receive_buffer(rotation, index_);
  Turn turn(rotation);
  print("socket_one_way", bytes, time_calls([&] {
          const size_t at = turn.next();
          if (index_ == 0) transfer(send + at, bytes, recv, 0), transfer(send, 0, recv, 1);
          if (index_ == 1) transfer(send, 0, recv + at, bytes), transfer(send, 1, recv, 0);
        }));
  print("socket_both_ways", bytes, time_calls([&] {
          const size_t at = turn.next();
          transfer(send + at, bytes, recv + at, bytes);
        }));
}

int Process::run() {
  bind_to_core(index_);
  // All pages exist before anything is timed, and both processes know them.
  const size_t own = 2 * buffer_bytes(settings_);
  std::memset(memory_ + static_cast<size_t>(index_) * own, 0, own);
  shared_->processes[index_] = getpid();
  exchange();
  for (size_t at = 0; at < 2 * own; at += kPage) {
    [[maybe_unused]] const char seen = static_cast<volatile char*>(memory_)[at];
  }
  print("line_exchange", 0, time_calls([&] { exchange(); }));
  for (const size_t bytes : settings_.sizes) {
    measure_all_reduce(bytes);
    measure_copies(bytes);
    measure_kernel_reads(bytes);
  }
  connect();
  char byte = 0;
  print("socket_latency", 0, time_calls([&] {
                               if (index_ == 0)
                                 transfer(&byte, 1, &byte, 0), transfer(&byte, 0, &byte, 1);
                               if (index_ == 1)
                                 transfer(&byte, 0, &byte, 1), transfer(&byte, 1, &byte, 0);
                             }) / 2);
  for (const size_t bytes : settings_.sizes) measure_sockets(bytes);
  close(socket_);
  return 0;
}

}  // namespace
}  // namespace peers

int main(int argc, char** argv) {
  const peers::Settings settings = peers::parse_settings(argc, argv);
  auto* shared = new (peers::map_shared(sizeof(peers::Shared))) peers::Shared;
  char* memory = peers::map_shared(4 * peers::buffer_bytes(settings));
  return bench::run_local_processes("limits", 2, [&](int index, bench::Relay&) {
    return peers::Process(index, shared, memory, settings).run();
  });
}
