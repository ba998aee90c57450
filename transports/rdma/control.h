// Control: the authenticated connection beside a channel's queue pairs.
//
// It opens the channel, carries what the two ends must agree on when a queue pair is replaced, and
// its end tells that the peer is gone. Messages are small and few; nothing here blocks.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "src/base/fd.h"
#include "transports/rdma/wire.h"

namespace libcomm::rdma {

struct Message {
  MessageType type = MessageType::kRefused;
  std::vector<std::byte> body;

  // The body as a wire struct; kRemote when it has another size.
  template <typename T>
  Status read(T* out, int peer) const {
    static_assert(std::is_trivially_copyable_v<T>);
    return read_bytes(out, sizeof *out, peer);
  }

 private:
  Status read_bytes(void* out, size_t bytes, int peer) const;
};

class Control {
 public:
  Control(UniqueFd fd, int peer) : fd_(std::move(fd)), peer_(peer) {}

  template <typename T>
  // kRemote when the peer has left so many answers unread that it cannot be a working one.
  Status send(MessageType type, const T& body) {
    static_assert(std::is_trivially_copyable_v<T>);
    return send_bytes(type, &body, sizeof body);
  }
  Status send_text(MessageType type, const std::string& text) {
    return send_bytes(type, text.data(), std::min(text.size(), kMaxMessage));
  }
  // The next message, when one has come whole.
  Result<std::optional<Message>> receive();
  // The peer has closed its end, and every message before that has been received.
  bool closed() const { return closed_ && got_.size() < sizeof(MessageHeader); }
  int fd() const { return fd_.get(); }
  // Bytes that the socket has not taken yet.
  bool unsent() const { return !out_.empty(); }

 private:
  Status send_bytes(MessageType type, const void* body, size_t bytes);
  Status flush();
  Status fill();

  UniqueFd fd_;
  const unsigned generation_ = fork_generation();  // a forked child says nothing to the peer
  const int peer_;
  std::vector<std::byte> got_, out_;
  bool closed_ = false;
};

}  // namespace libcomm::rdma
