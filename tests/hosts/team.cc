#include "tests/hosts/team.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace libcomm::test {
namespace {

using Clock = std::chrono::steady_clock;

Clock::time_point after(double seconds) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

void nap() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

}  // namespace

Team::Team(const Network& network, std::vector<int> hosts, bool apart)
    : network_(network), hosts_(std::move(hosts)), apart_(apart) {}

Team::~Team() { wait(0); }

void Team::start(const Work& work) {
  const std::string nranks = std::to_string(hosts_.size());
  for (size_t rank = 0; rank < hosts_.size(); ++rank) {
    std::vector<std::string> command = {HOSTS_RANK, work.call, std::to_string(work.count),
                                        std::to_string(work.times)};
    // Hosts are namespaces, so no other job can be on this port.
    std::vector<std::string> variables;
    if (meet_ == Meet::kUniqueId) {
      for (const std::string& word : {folder_ / "id", std::to_string(rank), nranks})
        command.push_back(word);
    } else {
      variables.insert(variables.end(),
                       {"COMM_RANK=" + std::to_string(rank), "COMM_NRANKS=" + nranks,
                        "COMM_ID=" + network_.endpoint({hosts_[0], meeting_network_}, 7011),
                        std::string("COMM_SECRET=") +
                            (static_cast<int>(rank) == stranger_ ? "a guess" : "of this test")});
    }
    if (apart_) variables.push_back("COMM_HOSTID=host" + std::to_string(hosts_[rank]));
    for (const auto& [name, value] : variables_) variables.push_back(name + "=" + value);
    pids_.push_back(
        network_.start(hosts_[rank], command, variables, output(static_cast<int>(rank))));
    statuses_.push_back(-1);
  }
}

bool Team::all_say(const std::string& what) const {
  const auto deadline = after(60);
  for (size_t rank = 0; rank < hosts_.size();) {
    if (said(static_cast<int>(rank)).find(what) != std::string::npos)
      ++rank;
    else if (Clock::now() > deadline)
      return false;
    else
      nap();
  }
  return true;
}

void Team::wait(double seconds) {
  const auto deadline = after(seconds);
  for (size_t rank = 0; rank < pids_.size(); ++rank) {
    if (pids_[rank] == 0) continue;
    int status = 0;
    while (::waitpid(pids_[rank], &status, WNOHANG) == 0) {
      if (Clock::now() > deadline) ::kill(pids_[rank], SIGKILL);
      nap();
    }
    statuses_[rank] = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    pids_[rank] = 0;
  }
}

std::string Team::all_said() const {
  std::string text;
  for (size_t rank = 0; rank < pids_.size(); ++rank)
    text += "rank " + std::to_string(rank) + " on host " + std::to_string(hosts_[rank]) +
            ", status " + std::to_string(statuses_[rank]) + ":\n" + said(static_cast<int>(rank));
  return text;
}

bool Team::all_right() const {
  for (size_t rank = 0; rank < pids_.size(); ++rank)
    if (statuses_[rank] != 0 || said(static_cast<int>(rank)).find("right\n") == std::string::npos)
      return false;
  return true;
}

}  // namespace libcomm::test
