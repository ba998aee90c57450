#include "tests/launchers/jobs.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace libcomm::test {
namespace {

std::FILE* open_command(const std::string& variables, const std::string& command) {
  return ::popen(("env " + variables + " timeout -k 5 120 " + command + " 2>&1").c_str(), "r");
}

Ran close_command(std::FILE* pipe, std::string out) {
  const int status = ::pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), std::move(out)};
}

Ran read_command(std::FILE* pipe, const std::function<void(const std::string&)>& on_line) {
  std::string out;
  char line[4096];
  while (std::fgets(line, sizeof line, pipe) != nullptr) {
    out += line;
    if (on_line) on_line(line);
  }
  return close_command(pipe, std::move(out));
}

}  // namespace

void forget_launchers() {
  std::vector<std::string> names;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    for (const char* prefix : {"COMM_", "PMI", "OMPI_", "HYDRA_", "SLURM_", "TORCHELASTIC_",
                               "RANK=", "WORLD_SIZE=", "LOCAL_", "MASTER_"})
      if (text.starts_with(prefix)) names.push_back(text.substr(0, text.find('=')));
  }
  for (const std::string& name : names) ::unsetenv(name.c_str());
}

bool installed(const std::string& program) {
  return std::system(("command -v " + program + " > /dev/null").c_str()) == 0;
}

Ran run(const std::string& command) { return read_command(open_command("", command), {}); }

Ran run_watched(const std::string& command,
                const std::function<void(const std::string&)>& on_line) {
  return read_command(open_command("", command), on_line);
}

std::vector<Ran> run_ranks(int nranks, const std::string& command,
                           const std::function<std::string(int rank)>& variables) {
  std::vector<std::FILE*> pipes;
  for (int rank = 0; rank < nranks; ++rank) pipes.push_back(open_command(variables(rank), command));
  // In turn: what a rank says fits into its pipe.
  std::vector<Ran> ran;
  for (std::FILE* pipe : pipes) ran.push_back(read_command(pipe, {}));
  return ran;
}

Listener::Listener() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::bind(fd_, generic, size) == 0 && ::listen(fd_, 16) == 0 &&
      ::getsockname(fd_, generic, &size) == 0)
    port_ = ntohs(address.sin_port);
}

Listener::~Listener() {
  if (fd_ >= 0) ::close(fd_);
}

bool Listener::was_called() const {
  pollfd wait{fd_, POLLIN, 0};
  return ::poll(&wait, 1, 0) > 0;
}

}  // namespace libcomm::test
