// Programs started as launchers start them, and what they said.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace libcomm::test {

struct Ran {
  int status = -1;  // the exit status; 124 after a minute, when it is killed
  std::string out;  // stdout and stderr
};

// Takes every launcher's variables, and the library's, out of this process's environment: the test
// itself may run below a launcher.
void forget_launchers();

bool installed(const std::string& program);

// A shell command.
Ran run(const std::string& command);

// As run(), and calls `on_line` with each line as soon as it is there.
Ran run_watched(const std::string& command, const std::function<void(const std::string&)>& on_line);

// The command once per rank, at the same time, each with the variables that `variables` gives it:
// "NAME=value NAME=value", as a shell reads them.
std::vector<Ran> run_ranks(int nranks, const std::string& command,
                           const std::function<std::string(int rank)>& variables);

// A socket that listens on a free port of the loopback interface, as torchrun's agent does.
class Listener {
 public:
  Listener();
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  int port() const { return port_; }
  // Whether anybody has connected.
  bool was_called() const;

 private:
  int fd_ = -1;
  int port_ = 0;
};

}  // namespace libcomm::test
