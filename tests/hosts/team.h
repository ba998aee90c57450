// A group of ranks spread over the hosts of a Network, and what became of each.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "tests/base/temp_folder.h"
#include "tests/hosts/network.h"

namespace libcomm::test {

struct Work {
  std::string call = "allreduce";
  size_t count = 1 << 20;  // 32-bit integers
  int times = 1;           // 0: until it fails
};

class Team {
 public:
  enum class Meet { kAddress, kUniqueId };

  // hosts[r] is the host of rank r. With `apart` every host has a COMM_HOSTID of its own; without,
  // the namespaces are one host to the library.
  Team(const Network& network, std::vector<int> hosts, bool apart = true);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  void set(const std::string& name, const std::string& value) { variables_[name] = value; }
  void meet_by(Meet meet) { meet_ = meet; }
  // The rank that has another secret.
  void give_wrong_secret(int rank) { stranger_ = rank; }
  // By address over this network.
  void meet_over(int network) { meeting_network_ = network; }

  void start(const Work& work);
  // Whether every rank's text has `what` before a generous deadline.
  bool all_say(const std::string& what) const;
  // Waits for all; a rank that goes on for longer than `seconds` is killed and its status is 137.
  void wait(double seconds = 60);

  int status(int rank) const { return statuses_[static_cast<size_t>(rank)]; }
  std::string said(int rank) const { return read_file(output(rank)); }
  // Everything that ranks said, for the message of a failed assertion.
  std::string all_said() const;
  bool all_right() const;

 private:
  std::string output(int rank) const { return folder_ / ("rank" + std::to_string(rank)); }

  const Network& network_;
  std::vector<int> hosts_;
  bool apart_;
  Meet meet_ = Meet::kAddress;
  int meeting_network_ = 0;
  int stranger_ = -1;
  // Shorter than wait()'s patience.
  std::map<std::string, std::string> variables_ = {{"COMM_BOOTSTRAP_TIMEOUT", "40"}};
  TempFolder folder_;
  std::vector<pid_t> pids_;  // 0 once reaped
  std::vector<int> statuses_;
};

}  // namespace libcomm::test
