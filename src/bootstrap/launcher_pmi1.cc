// PMI-1, as MPICH's mpiexec (Hydra) and Slurm speak it: lines of text over the inherited socket
// PMI_FD.
//
// Rank 0 puts the unique id into the job's key-value space, a barrier makes it visible, the others
// get it. The conversation is opened once per process and ended at exit, because a process that
// ends without "finalize" counts as crashed. Protocol: "PMI Version 1" in MPICH's documentation.
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

#include "src/base/clock.h"
#include "src/bootstrap/launcher.h"

namespace libcomm {
namespace {

constexpr size_t kMaxLine = 4096;

// The value of `key` in "cmd=get_result rc=0 value=..."; values hold no spaces.
std::string field(const std::string& line, const std::string& key) {
  const std::string wanted = key + "=";
  for (size_t at = 0; at < line.size();) {
    size_t end = line.find(' ', at);
    if (end == std::string::npos) end = line.size();
    if (line.compare(at, wanted.size(), wanted) == 0)
      return line.substr(at + wanted.size(), end - at - wanted.size());
    at = end + 1;
  }
  return "";
}

class Pmi1 {
 public:
  // The process's conversation. Only call with PMI_FD set.
  static Pmi1& instance() {
    static Pmi1 session;
    return session;
  }

  std::mutex& mutex() { return mutex_; }

  Status open(int fd, const Deadline& deadline) {
    if (fd_ >= 0) return Status::ok();
    struct stat info;
    if (::fstat(fd, &info) != 0 || !S_ISSOCK(info.st_mode))
      return error(Code::kInvalidArgument, "PMI_FD={} is not a socket of mpiexec", fd);
    fd_ = fd;
    inode_ = info.st_ino;
    pid_ = ::getpid();
    auto greeting = ask("cmd=init pmi_version=1 pmi_subversion=1", "response_to_init", deadline);
    auto name = greeting ? ask("cmd=get_my_kvsname", "my_kvsname", deadline) : std::move(greeting);
    if (!name) {
      fd_ = -1;
      return std::move(name).status();
    }
    space_ = field(*name, "kvsname");
    return Status::ok();
  }

  Status put(const std::string& key, const std::string& value, const Deadline& deadline) {
    return ask(fmt::format("cmd=put kvsname={} key={} value={}", space_, key, value), "put_result",
               deadline)
        .status();
  }
  Status barrier(const Deadline& deadline) {
    return ask("cmd=barrier_in", "barrier_out", deadline).status();
  }
  Result<std::string> get(const std::string& key, const Deadline& deadline) {
    COMM_ASSIGN(const std::string line,
                ask(fmt::format("cmd=get kvsname={} key={}", space_, key), "get_result", deadline));
    return field(line, "value");
  }
  // Distinguishes the groups made one after the other.
  int next_group() { return groups_++; }

  ~Pmi1() {
    // A program that also used MPI has ended the conversation itself, and closed the socket.
    struct stat info;
    if (fd_ < 0 || pid_ != ::getpid() || ::fstat(fd_, &info) != 0 || info.st_ino != inode_) return;
    (void)ask("cmd=finalize", "finalize_ack", Deadline::after(Seconds(2)));
  }

 private:
  Result<std::string> ask(const std::string& question, const std::string& answer,
                          const Deadline& deadline) {
    const std::string line = question + "\n";
    for (size_t done = 0; done < line.size();) {
      const ssize_t put =
          ::send(fd_, line.data() + done, line.size() - done, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (put < 0 && errno != EINTR && errno != EAGAIN)
        return system_error(errno, "mpiexec (PMI_FD)");
      if (put > 0) {
        done += static_cast<size_t>(put);
        continue;
      }
      COMM_TRY(await(POLLOUT, deadline));
    }
    size_t end;
    while ((end = buffer_.find('\n')) == std::string::npos) {
      COMM_TRY(await(POLLIN, deadline));
      char piece[1024];
      const ssize_t got = ::recv(fd_, piece, sizeof piece, MSG_DONTWAIT);
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got <= 0) return error(Code::kSystem, "mpiexec closed PMI_FD={}", fd_);
      buffer_.append(piece, static_cast<size_t>(got));
      if (buffer_.size() > kMaxLine)
        return error(Code::kSystem, "mpiexec sent an endless line over PMI_FD={}", fd_);
    }
    std::string reply = buffer_.substr(0, end);
    buffer_.erase(0, end + 1);
    const std::string rc = field(reply, "rc");
    if (field(reply, "cmd") != answer || (!rc.empty() && rc != "0"))
      return error(Code::kSystem, "mpiexec answers '{}' with '{}' over PMI_FD={}",
                   question.substr(0, 60), reply.substr(0, 200), fd_);
    return reply;
  }

  Status await(short events, const Deadline& deadline) const {
    for (;;) {
      pollfd ready = {fd_, events, 0};
      if (::poll(&ready, 1, deadline.poll_ms(1000)) > 0) return Status::ok();
      if (deadline.passed())
        return error(
            Code::kSystem,
            "mpiexec did not answer over PMI_FD={} before COMM_BOOTSTRAP_TIMEOUT: did all ranks "
            "call commInitFromLauncher?",
            fd_);
    }
  }

  std::mutex mutex_;
  int fd_ = -1;  // mpiexec's, not ours to close
  ino_t inode_ = 0;
  pid_t pid_ = 0;
  int groups_ = 0;
  std::string space_;
  std::string buffer_;
};

}  // namespace

LauncherAnswer ask_pmi1(const Knobs& knobs) {
  const auto rank = environment("PMI_RANK"), size = environment("PMI_SIZE"),
             fd = environment("PMI_FD");
  if (!rank.has_value() || !size.has_value()) return std::optional<LauncherInfo>();
  LauncherInfo info;
  info.launcher = "pmi1";
  COMM_ASSIGN(info.rank, number_from("PMI_RANK", *rank, 0));
  COMM_ASSIGN(info.nranks, number_from("PMI_SIZE", *size, 1));
  COMM_TRY(check_rank("PMI_RANK", info.rank, "PMI_SIZE", info.nranks));
  COMM_ASSIGN(info.local_rank, environment_number("MPI_LOCALRANKID", 0, -1));
  COMM_ASSIGN(info.local_nranks, environment_number("MPI_LOCALNRANKS", 1, -1));
  if (info.nranks == 1) {
    COMM_ASSIGN(info.rendezvous, solo_rendezvous());
    return std::optional<LauncherInfo>(std::move(info));
  }
  if (!fd.has_value())
    return error(Code::kInvalidArgument,
                 "PMI_RANK={} and PMI_SIZE={} are set without PMI_FD: start with "
                 "MPICH's mpiexec",
                 info.rank, info.nranks);
  COMM_ASSIGN(const int number, number_from("PMI_FD", *fd, 0));
  const Deadline deadline = Deadline::from_knob(knobs.get_seconds(Knob::kBootstrapTimeout));
  Pmi1& session = Pmi1::instance();
  std::lock_guard lock(session.mutex());
  COMM_TRY(session.open(number, deadline));
  const std::string key = fmt::format("libcomm-id-{}", session.next_group());
  UniqueIdBytes id;
  if (info.rank == 0) {
    COMM_ASSIGN(id, make_unique_id(knobs));
    COMM_TRY(session.put(key, to_hex(id), deadline));
  }
  COMM_TRY(session.barrier(deadline));
  if (info.rank != 0) {
    COMM_ASSIGN(const std::string text, session.get(key, deadline));
    COMM_ASSIGN(id, from_hex(text, "mpiexec"));
  }
  info.rendezvous.ids.push_back(id);
  return std::optional<LauncherInfo>(std::move(info));
}

}  // namespace libcomm
