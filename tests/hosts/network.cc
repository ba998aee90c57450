#include "tests/hosts/network.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace libcomm::test {
namespace {

void die_with(pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
}

bool enter(pid_t holder) {
  const int fd = ::open(("/proc/" + std::to_string(holder) + "/ns/net").c_str(), O_RDONLY);
  const bool entered = fd >= 0 && ::setns(fd, CLONE_NEWNET) == 0;
  if (fd >= 0) ::close(fd);
  return entered;
}

// A child in a network namespace of its own. -errno when there is none to have.
pid_t hold_namespace() {
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) return -errno;
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    die_with(parent);
    const int failed = ::unshare(CLONE_NEWNET) == 0 ? 0 : errno;
    if (::write(ready[1], &failed, sizeof failed) != sizeof failed || failed != 0) ::_exit(1);
    for (;;) ::pause();
  }
  int failed = EIO;
  if (::read(ready[0], &failed, sizeof failed) != sizeof failed) failed = EIO;
  ::close(ready[0]);
  ::close(ready[1]);
  if (failed == 0) return pid;
  ::waitpid(pid, nullptr, 0);
  return -failed;
}

}  // namespace

Network::Network(int hosts, Family family, int networks) : family_(family), hosts_(hosts) {
  if (::geteuid() != 0) {
    problem_ = "network namespaces need root";
    return;
  }
  if (std::system("command -v ip > /dev/null") != 0) {
    problem_ = "the ip command (package iproute2) is not installed";
    return;
  }
  for (int i = 0; i <= hosts; ++i) {
    const pid_t holder = hold_namespace();
    if (holder < 0) {
      problem_ = std::string("no network namespace to have: ") + std::strerror(-holder);
      return;
    }
    holders_.push_back(holder);
    ip(holder, "link set lo up");
  }
  const pid_t bridge = holders_.back();
  for (int network = 0; network < networks; ++network) {
    const std::string name = "bridge" + std::to_string(network);
    ip(bridge, "link add " + name + " type bridge");
    ip(bridge, "link set " + name + " up");
    for (int host = 0; host < hosts; ++host) {
      const Wire wire{host, network};
      const pid_t at = holders_[static_cast<size_t>(host)];
      ip(bridge, "link add " + port(wire) + " type veth peer name " + interface(wire) + " netns " +
                     std::to_string(at));
      ip(bridge, "link set " + port(wire) + " master " + name);
      ip(bridge, "link set " + port(wire) + " up");
      const bool v4 = family == Family::kV4;
      ip(at, "addr add " + address(wire) + (v4 ? "/24" : "/64") + " dev " + interface(wire) +
                 (v4 ? "" : " nodad"));
      ip(at, "link set " + interface(wire) + " up");
    }
  }
}

Network::~Network() {
  for (const pid_t holder : holders_) ::kill(holder, SIGKILL);
  for (const pid_t holder : holders_) ::waitpid(holder, nullptr, 0);
}

std::string Network::address(Wire wire) const {
  const std::string network = std::to_string(70 + wire.network);
  const std::string host = std::to_string(wire.host + 1);
  return family_ == Family::kV4 ? "10." + network + ".0." + host : "fd00:" + network + "::" + host;
}

std::string Network::endpoint(Wire wire, int port) const {
  const std::string host = address(wire);
  return (family_ == Family::kV4 ? host : "[" + host + "]") + ":" + std::to_string(port);
}

std::string Network::port(Wire wire) const {
  return "port" + std::to_string(wire.network) + "-" + std::to_string(wire.host);
}

uint64_t Network::sent(Wire wire) const { return counter(wire, 8); }
uint64_t Network::received(Wire wire) const { return counter(wire, 0); }

uint64_t Network::counter(Wire wire, int column) const {
  // A process's /proc/PID/net is its namespace's.
  std::ifstream table("/proc/" + std::to_string(holders_[static_cast<size_t>(wire.host)]) +
                      "/net/dev");
  for (std::string line; std::getline(table, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::istringstream name(line.substr(0, colon)), numbers(line.substr(colon + 1));
    std::string word;
    uint64_t value = 0;
    if (name >> word && word == interface(wire))
      for (int i = 0; i <= column; ++i) numbers >> value;
    if (word == interface(wire)) return value;
  }
  return 0;
}

void Network::make_dead(int network) {
  for (int host = 0; host < hosts_; ++host) {
    ip(holders_.back(), "link set " + port({host, network}) + " nomaster");
    for (int other = 0; other < hosts_; ++other)
      if (other != host)
        ip(holders_[static_cast<size_t>(host)], "neigh add " + address({other, network}) +
                                                    " lladdr 02:00:00:00:00:01 nud permanent dev " +
                                                    interface({host, network}));
  }
}

void Network::cut(Wire wire) { ip(holders_.back(), "link set " + port(wire) + " down"); }

void Network::remove(Wire wire) {
  ip(holders_[static_cast<size_t>(wire.host)], "link del " + interface(wire));
}

void Network::ip(pid_t where, const std::string& arguments) {
  if (!problem_.empty()) return;
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (!enter(where)) ::_exit(126);
    const std::string command = "exec ip " + arguments;
    ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (status != 0) problem_ = "this machine refuses: ip " + arguments;
}

pid_t Network::start(int host, const std::vector<std::string>& command,
                     const std::vector<std::string>& variables, const std::string& output) const {
  std::vector<std::string> environment = variables;
  for (char** entry = environ; *entry != nullptr; ++entry)
    if (std::strncmp(*entry, "COMM_", 5) != 0) environment.push_back(*entry);
  std::vector<char*> arguments, values;
  for (const std::string& text : command) arguments.push_back(const_cast<char*>(text.c_str()));
  for (const std::string& text : environment) values.push_back(const_cast<char*>(text.c_str()));
  arguments.push_back(nullptr);
  values.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  die_with(parent);
  const int fd = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd < 0 || ::dup2(fd, 1) < 0 || ::dup2(fd, 2) < 0) ::_exit(125);
  ::close(fd);
  if (!enter(holders_[static_cast<size_t>(host)])) ::_exit(126);
  ::execve(arguments[0], arguments.data(), values.data());
  ::_exit(127);
}

}  // namespace libcomm::test
