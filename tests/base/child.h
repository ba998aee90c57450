// Runs a function in a forked child and gives its exit status back: what a test changes in the
// environment, the log or the descriptors of the process ends with the child.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

namespace libcomm::test {

// The child's exit status: what `body` returned, or 128 + the signal that ended it.
template <typename Body>
int in_child(Body&& body) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(body());
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace libcomm::test
