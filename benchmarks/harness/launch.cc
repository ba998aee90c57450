#include "benchmarks/harness/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kGrace{2};

class OwnedFd {
 public:
  explicit OwnedFd(int fd = -1) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~OwnedFd() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void die(const char* program, const char* what) {
  std::fprintf(stderr, "%s: %s: %s\n", program, what, std::strerror(errno));
  std::exit(1);
}

struct Child {
  pid_t pid = 0;  // 0: reaped
  OwnedFd line;   // the parent's end
};

struct Ended {
  int index = 0;
  pid_t pid = 0;
  int wait_status = 0;
};

class Parent {
 public:
  Parent(const char* program, int count) : program_(program), children_(count) {}

  int run(const std::function<int(int, Relay&)>& body);

 private:
  void start(int index, const std::function<int(int, Relay&)>& body);
  void forward();
  void on_signal();
  void reap();
  void on_exit(int index, int wait_status);
  int report() const;  // says who is to blame; the exit status of the whole
  int timeout_ms() const;

  const char* program_;
  std::vector<Child> children_;
  OwnedFd signals_;
  sigset_t old_mask_{};
  int alive_ = 0;
  int stopped_ = 0;  // the signal that asked us to stop
  bool failed_ = false;
  Ended blamed_;  // when failed_ and not stopped_
  bool killed_ = false;
  Clock::time_point kill_at_{};  // when failed_
};

void Parent::start(int index, const std::function<int(int, Relay&)>& body) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) die(program_, "socketpair");
  OwnedFd ours(ends[0]);
  OwnedFd theirs(ends[1]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    const int error = errno;
    for (const Child& child : children_) {
      if (child.pid > 0) kill(child.pid, SIGKILL);
    }
    errno = error;
    die(program_, "fork");
  }
  if (pid > 0) {
    children_[index].pid = pid;
    children_[index].line = std::move(ours);
    ++alive_;
    return;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it died before the line above
  sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
  ours = OwnedFd();
  signals_ = OwnedFd();
  for (Child& child : children_) child.line = OwnedFd();
  Relay relay(index, theirs.get());
  std::exit(body(index, relay));
}

// One message of child 0 to everybody else.
void Parent::forward() {
  std::array<char, Relay::kMaxBytes> message;
  const ssize_t size = recv(children_[0].line.get(), message.data(), message.size(), 0);
  if (size <= 0) {
    children_[0].line = OwnedFd();
    return;
  }
  for (size_t i = 1; i < children_.size(); ++i) {
    // A child that has gone is noticed by its exit.
    send(children_[i].line.get(), message.data(), static_cast<size_t>(size), MSG_NOSIGNAL);
  }
}

// The first failure starts the end of all; the others get time to say what they saw. A process that
// a signal ended is the cause of those that failed over its loss, whichever of them is reaped
// first.
void Parent::on_exit(int index, int wait_status) {
  const Ended ended{index, children_[index].pid, wait_status};
  children_[index].pid = 0;
  --alive_;
  if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0) return;
  if (killed_ || stopped_) return;
  if (!failed_) kill_at_ = Clock::now() + kGrace;
  if (!failed_ || (WIFSIGNALED(wait_status) && !WIFSIGNALED(blamed_.wait_status))) blamed_ = ended;
  failed_ = true;
}

int Parent::report() const {
  if (stopped_) return 128 + stopped_;
  if (!failed_) return 0;
  const auto pid = static_cast<int>(blamed_.pid);
  if (WIFSIGNALED(blamed_.wait_status)) {
    const int signal = WTERMSIG(blamed_.wait_status);
    std::fprintf(stderr, "%s: process %d (pid %d) was ended by signal %d (%s)\n", program_,
                 blamed_.index, pid, signal, strsignal(signal));
    return 128 + signal;
  }
  const int status = WEXITSTATUS(blamed_.wait_status);
  std::fprintf(stderr, "%s: process %d (pid %d) failed with exit status %d\n", program_,
               blamed_.index, pid, status);
  return status;
}

void Parent::reap() {
  for (size_t i = 0; i < children_.size(); ++i) {
    int wait_status = 0;
    if (children_[i].pid > 0 && waitpid(children_[i].pid, &wait_status, WNOHANG) > 0) {
      on_exit(static_cast<int>(i), wait_status);
    }
  }
}

void Parent::on_signal() {
  signalfd_siginfo info;
  if (read(signals_.get(), &info, sizeof info) != sizeof info) return;
  if (info.ssi_signo == SIGCHLD) {
    reap();
    return;
  }
  // Asked to stop: nobody is to blame and nobody has anything to add.
  failed_ = true;
  stopped_ = static_cast<int>(info.ssi_signo);
  kill_at_ = Clock::now();
}

int Parent::timeout_ms() const {
  if (!failed_ || killed_) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(kill_at_ - Clock::now());
  return static_cast<int>(std::max<int64_t>(left.count(), 0));
}

int Parent::run(const std::function<int(int, Relay&)>& body) {
  std::fflush(nullptr);  // or children would print it again
  signal(SIGCHLD, SIG_DFL);
  sigset_t watched;
  sigemptyset(&watched);
  for (const int number : {SIGCHLD, SIGINT, SIGTERM, SIGHUP}) sigaddset(&watched, number);
  sigprocmask(SIG_BLOCK, &watched, &old_mask_);
  signals_ = OwnedFd(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (signals_.get() < 0) die(program_, "signalfd");

  for (size_t i = 0; i < children_.size(); ++i) start(static_cast<int>(i), body);
  while (alive_ > 0) {
    if (failed_ && !killed_ && Clock::now() >= kill_at_) {
      killed_ = true;
      for (const Child& child : children_) {
        if (child.pid > 0) kill(child.pid, SIGKILL);
      }
    }
    pollfd fds[] = {{signals_.get(), POLLIN, 0}, {children_[0].line.get(), POLLIN, 0}};
    if (poll(fds, 2, timeout_ms()) < 0 && errno != EINTR) die(program_, "poll");
    if (fds[1].revents != 0) forward();
    if (fds[0].revents != 0) on_signal();
  }
  sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
  return report();
}

bool all_set(std::initializer_list<const char*> names) {
  return std::all_of(names.begin(), names.end(), [](const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0';
  });
}

}  // namespace

bool Relay::share(void* bytes, size_t size) {
  if (index_ == 0) return send(fd_, bytes, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
  ssize_t got = 0;
  do {
    got = recv(fd_, bytes, size, 0);
  } while (got < 0 && errno == EINTR);
  return got == static_cast<ssize_t>(size);
}

int run_local_processes(const char* program, int count,
                        const std::function<int(int index, Relay& relay)>& body) {
  return Parent(program, count).run(body);
}

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) {
    return static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  }
  return CPU_COUNT(&set);
}

bool launched() {
  // What torchrun's lack is commInitFromLauncher's to say.
  // An sbatch script also has SLURM_PROCID; only srun's tasks belong to a step on nodes.
  return all_set({"COMM_RANK", "COMM_NRANKS"}) || all_set({"PMIX_RANK", "PMIX_NAMESPACE"}) ||
         all_set({"PMI_RANK", "PMI_SIZE"}) || all_set({"RANK", "WORLD_SIZE"}) ||
         all_set({"RANK", "MASTER_ADDR"}) ||
         all_set({"SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NODELIST"});
}

}  // namespace bench
