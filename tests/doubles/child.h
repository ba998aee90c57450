// A forked process with one end of a socket to this one.
#pragma once

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>

namespace libcomm::test {

class Child {
 public:
  explicit Child(const std::function<void(int)>& body) {
    int sockets[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(sockets[0]);
      body(sockets[1]);
      ::_exit(0);
    }
    ::close(sockets[1]);
    socket_ = sockets[0];
  }
  ~Child() {
    if (pid_ > 0) end(SIGKILL);
    ::close(socket_);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int socket() const { return socket_; }
  void signal(int number) const { ::kill(pid_, number); }
  // Returns when all of its threads have stopped.
  void stop() const {
    signal(SIGSTOP);
    ::waitpid(pid_, nullptr, WUNTRACED);
  }
  // Its status; `number` is sent first unless it is 0.
  int end(int number) {
    if (number != 0) signal(number);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }

 private:
  pid_t pid_;
  int socket_;
};

template <typename T>
void give(int socket, const T& value) {
  if (::write(socket, &value, sizeof(value)) != sizeof(value)) std::abort();
}

template <typename T>
T take(int socket) {
  T value;
  if (::read(socket, &value, sizeof(value)) != sizeof(value)) ::_exit(9);
  return value;
}

}  // namespace libcomm::test
