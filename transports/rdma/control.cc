#include "transports/rdma/control.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace libcomm::rdma {
namespace {

// Of one queue pair at most three messages are out before the peer must have read one.
constexpr size_t kMostUnsent = 1 << 20;
static_assert(kMostUnsent > 3 * kMaxQps * (sizeof(MessageHeader) + kMaxMessage));

}  // namespace

Status Message::read_bytes(void* out, size_t bytes, int peer) const {
  if (body.size() != bytes) {
    return error(Code::kRemote,
                 "rank {} sent {} bytes as a message of kind {} where {} are due: use the same "
                 "libcomm on all ranks",
                 peer, body.size(), int{static_cast<uint16_t>(type)}, bytes)
        .with_peer(peer);
  }
  std::memcpy(out, body.data(), bytes);
  return Status::ok();
}

Status Control::send_bytes(MessageType type, const void* body, size_t bytes) {
  MessageHeader header;
  header.type = static_cast<uint16_t>(type);
  header.bytes = static_cast<uint32_t>(bytes);
  const auto* head = reinterpret_cast<const std::byte*>(&header);
  const auto* data = static_cast<const std::byte*>(body);
  out_.insert(out_.end(), head, head + sizeof header);
  out_.insert(out_.end(), data, data + bytes);
  COMM_TRY(flush());
  if (out_.size() <= kMostUnsent) return Status::ok();
  return error(Code::kRemote,
               "rank {} goes on sending control messages and leaves {} bytes of answers unread: it "
               "does not keep to the protocol; use the same libcomm on all ranks",
               peer_, out_.size())
      .with_peer(peer_);
}

// A connection that does not take bytes any more has an end that receive() finds.
Status Control::flush() {
  if (generation_ != fork_generation()) return Status::ok();
  while (!out_.empty()) {
    const ssize_t sent = ::send(fd_.get(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) {
      if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
      out_.clear();
      break;
    }
    out_.erase(out_.begin(), out_.begin() + sent);
  }
  return Status::ok();
}

Status Control::fill() {
  std::byte buffer[4096];
  while (!closed_) {
    const ssize_t got = ::recv(fd_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got > 0) {
      got_.insert(got_.end(), buffer, buffer + got);
      // No more than one message can be waited for; what else comes stays with the kernel.
      if (got_.size() >= sizeof(MessageHeader) + kMaxMessage) break;
    } else if (got < 0 && errno == EINTR) {
      continue;
    } else if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      break;
    } else {
      closed_ = true;
    }
  }
  return Status::ok();
}

Result<std::optional<Message>> Control::receive() {
  COMM_TRY(flush());
  if (got_.size() < sizeof(MessageHeader) + kMaxMessage) COMM_TRY(fill());
  if (got_.size() < sizeof(MessageHeader)) return std::optional<Message>();
  MessageHeader header;
  std::memcpy(&header, got_.data(), sizeof header);
  if (header.magic != kMessageMagic || header.version != kWireVersion ||
      header.bytes > kMaxMessage) {
    return error(Code::kRemote,
                 "rank {} sent a control message of {} bytes and version {} (first word {:#010x}); "
                 "this rank reads version {}: use the same libcomm on all ranks",
                 peer_, header.bytes, header.version, header.magic, kWireVersion)
        .with_peer(peer_);
  }
  const size_t total = sizeof header + header.bytes;
  if (got_.size() < total) {
    if (!closed_) return std::optional<Message>();
    got_.clear();  // cut off
    return std::optional<Message>();
  }
  Message message;
  message.type = static_cast<MessageType>(header.type);
  message.body.assign(got_.begin() + sizeof header, got_.begin() + static_cast<ptrdiff_t>(total));
  got_.erase(got_.begin(), got_.begin() + static_cast<ptrdiff_t>(total));
  return std::optional<Message>(std::move(message));
}

}  // namespace libcomm::rdma
