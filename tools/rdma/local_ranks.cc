#include "tools/rdma/local_ranks.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace libcomm {

Result<std::unique_ptr<LocalRanks>> LocalRanks::start(int nranks) {
  std::unique_ptr<LocalRanks> ranks(new LocalRanks());
  std::fflush(nullptr);  // or the children would print it again
  const pid_t parent = ::getpid();
  for (int rank = 1; rank < nranks; ++rank) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return system_error(errno, "a pipe to a rank");
    const pid_t pid = ::fork();
    if (pid < 0) {
      const int err = errno;
      ::close(ends[0]);
      ::close(ends[1]);
      return system_error(err, fmt::format("starting rank {} of {}", rank, nranks));
    }
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(1);  // it died before the line above
      for (const int end : ranks->pipes_) ::close(end);
      ::close(ends[1]);
      ranks->pipes_ = {ends[0]};
      ranks->others_.clear();
      ranks->rank_ = rank;
      return ranks;
    }
    ::close(ends[0]);
    ranks->pipes_.push_back(ends[1]);
    ranks->others_.push_back(pid);
  }
  return ranks;
}

LocalRanks::~LocalRanks() {
  for (const pid_t pid : others_) ::kill(pid, SIGKILL);
  (void)wait();
  for (const int end : pipes_) ::close(end);
}

Result<Rendezvous> LocalRanks::rendezvous(const Knobs& knobs) {
  UniqueIdBytes id{};
  if (rank_ == 0) {
    COMM_ASSIGN(id, make_unique_id(knobs));
    // A pipe takes so little at once.
    for (const int end : pipes_)
      if (::write(end, id.data(), id.size()) != static_cast<ssize_t>(id.size()))
        return system_error(errno, "telling a rank where to meet");
  } else if (::read(pipes_.front(), id.data(), id.size()) != static_cast<ssize_t>(id.size())) {
    return error(Code::kSystem, "rank 0 ended before it said where to meet");
  }
  return Rendezvous{{id}};
}

bool LocalRanks::wait() {
  bool good = true;
  for (const pid_t pid : others_) {
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    good = good && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  others_.clear();
  return good;
}

}  // namespace libcomm
