#include "tools/tune/ranks.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

namespace libcomm::tune {
namespace {

// Memory that the parent and all ranks share.
struct Meeting {
  std::atomic<bool> has_id;
  commUniqueId id;
};

class SharedMeeting {
 public:
  SharedMeeting() {
    void* memory =
        mmap(nullptr, sizeof(Meeting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory != MAP_FAILED) meeting_ = new (memory) Meeting();
  }
  ~SharedMeeting() {
    if (meeting_ != nullptr) munmap(meeting_, sizeof *meeting_);
  }
  SharedMeeting(const SharedMeeting&) = delete;
  SharedMeeting& operator=(const SharedMeeting&) = delete;
  Meeting* get() const { return meeting_; }

 private:
  Meeting* meeting_ = nullptr;
};

// The library's own descriptors are closed in forked children; these are for them.
class PipeEnd {
 public:
  explicit PipeEnd(int fd) : fd_(fd) {}
  ~PipeEnd() { reset(); }
  PipeEnd(const PipeEnd&) = delete;
  PipeEnd& operator=(const PipeEnd&) = delete;
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = write(fd, text.data(), text.size());
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return;  // the parent is gone, and this process is about to be
    text.remove_prefix(static_cast<size_t>(sent));
  }
}

Result<comm_t> join(Meeting& meeting, int rank, int nranks) {
  if (rank == 0) {
    if (const auto result = commGetUniqueId(&meeting.id); result != commSuccess)
      return failed_call(result, "commGetUniqueId", nullptr);
    meeting.has_id.store(true, std::memory_order_release);
  }
  // The parent ends this process when rank 0 fails.
  while (!meeting.has_id.load(std::memory_order_acquire))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  comm_t comm = nullptr;
  if (const auto result = commInitRank(&comm, nranks, meeting.id, rank); result != commSuccess)
    return failed_call(result, "commInitRank", nullptr);
  return comm;
}

// A rank's whole life; the exit status of its process.
int live(Meeting& meeting, int rank, int nranks, int result_fd,
         const std::function<Result<std::string>(comm_t)>& body) {
  auto comm = join(meeting, rank, nranks);
  Status status = comm.status();
  if (comm) {
    auto result = body(*comm);
    status = result.status();
    if (result && rank == 0) write_all(result_fd, *result);
    if (result) {
      if (const auto ended = commDestroy(*comm); ended != commSuccess)
        status = failed_call(ended, "commDestroy", nullptr);
    }
  }
  if (status) return 0;
  std::fprintf(stderr, "comm-tune: rank %d of %d: %s\n", rank, nranks, status.message().c_str());
  return 1;
}

class Children {
 public:
  ~Children() { end(); }
  void add(pid_t pid) { pids_.push_back(pid); }
  void end() {
    for (const pid_t pid : pids_) kill(pid, SIGKILL);
    for (const pid_t pid : pids_)
      while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
    pids_.clear();
  }
  // Until all have ended well, or one has not: false.
  bool wait() {
    while (!pids_.empty()) {
      for (size_t i = 0; i < pids_.size();) {
        int status = 0;
        const pid_t pid = waitpid(pids_[i], &status, WNOHANG);
        if (pid == 0 || (pid < 0 && errno == EINTR)) {
          ++i;
          continue;
        }
        pids_.erase(pids_.begin() + static_cast<ptrdiff_t>(i));
        if (pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) return false;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return true;
  }

 private:
  std::vector<pid_t> pids_;
};

}  // namespace

Status failed_call(commResult_t result, const char* call, comm_t comm) {
  return error(Code::kSystem, "{}: {}: {}", call, commGetErrorString(result),
               commGetLastError(comm));
}

Result<std::string> run_ranks(int nranks, const std::function<Result<std::string>(comm_t)>& body) {
  const SharedMeeting meeting;
  if (meeting.get() == nullptr) return system_error(errno, "mapping a page for the ranks");
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return system_error(errno, "a pipe from the ranks");
  PipeEnd from_ranks(ends[0]), to_parent(ends[1]);
  std::fflush(nullptr);  // or the children would print it again
  Children children;
  const pid_t parent = getpid();
  for (int rank = 0; rank < nranks; ++rank) {
    const pid_t pid = fork();
    if (pid < 0) return system_error(errno, fmt::format("starting rank {} of {}", rank, nranks));
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);  // it died before the line above
      _exit(live(*meeting.get(), rank, nranks, ends[1], body));
    }
    children.add(pid);
  }
  to_parent.reset();
  // What rank 0 says fits a pipe or not: a thread reads it while the ranks are waited for.
  std::string text;
  std::thread reader([&] {
    std::array<char, 4096> piece;
    for (;;) {
      const ssize_t got = read(from_ranks.get(), piece.data(), piece.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return;
      text.append(piece.data(), static_cast<size_t>(got));
    }
  });
  const bool good = children.wait();
  if (!good) children.end();
  reader.join();
  if (!good)
    return error(Code::kSystem, "a group of {} ranks failed; its own lines say why", nranks);
  return text;
}

}  // namespace libcomm::tune
