#include "transports/tcp/sender.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace libcomm {

TcpSender::TcpSender(const TcpEnds& ends, const TcpOptions& options,
                     std::shared_ptr<TcpCounters> counters, std::vector<UniqueFd> sockets,
                     std::shared_ptr<Duplex> duplex)
    : ends_(ends),
      options_(options),
      counters_(std::move(counters)),
      duplex_(std::move(duplex)),
      window_(kWindow) {
  for (size_t i = 0; i < sockets.size(); ++i) {
    tune_data_socket(sockets[i].get());
    sockets_.push_back(Socket{std::move(sockets[i]), i, {}});
  }
  counters_->sockets += static_cast<int>(sockets_.size());
  if (duplex_ && Duplex::offers(ends_, true)) duplex_->offer(sockets_[0].fd.get());
}

TcpSender::~TcpSender() {
  if (duplex_ && Duplex::offers(ends_, true)) duplex_->withdraw();
  counters_->sockets -= static_cast<int>(sockets_.size());
  if (staging_) counters_->host_bytes -= slot_free_at_.size() * options_.segment_bytes;
}

Status TcpSender::reserve(std::byte** slot_out) {
  *slot_out = nullptr;
  COMM_TRY(failed_);
  if (!staging_) {
    const size_t slots = static_cast<size_t>(options_.slots);
    staging_.reset(new std::byte[slots * options_.segment_bytes]);
    slot_free_at_.assign(slots, 0);
    counters_->host_bytes += slots * options_.segment_bytes;
  }
  if (!reserved_) {
    if (accepted_ - completed_ == kWindow || slot_free_at_[next_slot_] > completed_) {
      uint64_t completed;
      COMM_TRY(progress(&completed));
      if (accepted_ - completed_ == kWindow || slot_free_at_[next_slot_] > completed_) {
        return Status::ok();
      }
    }
    reserved_ = true;
  }
  *slot_out = slot(next_slot_);
  return Status::ok();
}

Status TcpSender::commit(const Signature& signature, size_t bytes) {
  COMM_TRY(failed_);
  if (!reserved_ || bytes > options_.segment_bytes) {
    return error(Code::kInternal, "commit of {} bytes without a slot that holds them", bytes);
  }
  reserved_ = false;
  const size_t used = next_slot_;
  next_slot_ = (next_slot_ + 1) % slot_free_at_.size();
  slot_free_at_[used] = accepted_ + 1;
  return accept_segment(signature, slot(used), bytes);
}

Status TcpSender::post(const Signature& signature, const void* src, size_t bytes, bool* accepted) {
  *accepted = false;
  COMM_TRY(failed_);
  if (reserved_ || bytes > options_.segment_bytes) {
    return error(Code::kInternal, "post of {} bytes: too long, or a slot is reserved", bytes);
  }
  if (accepted_ - completed_ == kWindow) {
    uint64_t completed;
    COMM_TRY(progress(&completed));
    if (accepted_ - completed_ == kWindow) return Status::ok();
  }
  *accepted = true;
  return accept_segment(signature, static_cast<const std::byte*>(src), bytes);
}

Status TcpSender::progress(uint64_t* completed) {
  COMM_TRY(failed_);
  if (completed_ < accepted_) {
    for (Socket& socket : sockets_) COMM_TRY(push(socket));
  }
  *completed = completed_;
  return Status::ok();
}

WaitHandle TcpSender::wait_handle() const {
  if (completed_ == accepted_ || !failed_.is_ok()) return {};
  const Socket& socket = sockets_[completed_ % sockets_.size()];
  return {fd_for(socket, window_[completed_ % kWindow].shared), true};
}

// Do the segments after one of so many bytes go on the other connection?
bool TcpSender::moves_after(size_t bytes) {
  if (duplex_ == nullptr || Duplex::offers(ends_, true)) return false;
  if (on_shared_) return bytes > kMiddleSegment;
  if (bytes > kSmallSegment) small_run_ = 0;
  if (bytes > kSmallSegment || ++small_run_ < kSmallRun) return false;
  small_run_ = 0;
  // Without it, segments stay where they are.
  if (auto taken = shared_ ? Result<UniqueFd>(UniqueFd()) : duplex_->take(); taken && *taken)
    shared_ = *std::move(taken);
  return static_cast<bool>(shared_);
}

Status TcpSender::accept_segment(const Signature& signature, const std::byte* payload,
                                 size_t bytes) {
  Outgoing& segment = outgoing(accepted_);
  segment.header.bytes = static_cast<uint32_t>(bytes);
  segment.header.sequence = static_cast<uint32_t>(accepted_);
  segment.header.signature = signature;
  segment.payload = payload;
  segment.sent = 0;
  segment.shared = on_shared_;
  const bool moves = moves_after(bytes);
  segment.header.flags = moves ? kSegmentMoves : 0;
  on_shared_ ^= moves;
  Socket& socket = sockets_[accepted_ % sockets_.size()];
  ++accepted_;
  return push(socket);
}

// Sends what the socket takes of its segments.
Status TcpSender::push(Socket& socket) {
  while (socket.next < accepted_) {
    size_t bytes = 0;
    const int fd = fd_for(socket, outgoing(socket.next).shared);
    const ssize_t sent = send_some(socket, fd, &bytes);
    if (sent < 0) {
      if (errno == EINTR) continue;
      failed_ = errno == EAGAIN || errno == EWOULDBLOCK ? socket.watch.blocked(fd, ends_)
                                                        : connection_lost(ends_, errno);
      return failed_;
    }
    socket.watch.moved();
    note_sent(socket, static_cast<size_t>(sent));
    // The kernel's buffer is full: asking again would only be told so.
    if (static_cast<size_t>(sent) < bytes) break;
  }
  return Status::ok();
}

// One system call; *bytes is what was to be sent.
ssize_t TcpSender::send_some(const Socket& socket, int fd, size_t* bytes) {
  constexpr int kFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
  const Outgoing& first = outgoing(socket.next);
  const bool alone = socket.next + sockets_.size() >= accepted_;
  if (alone && first.sent == 0 && first.header.bytes <= kSmall) {
    std::byte message[sizeof first.header + kSmall];
    std::memcpy(message, &first.header, sizeof first.header);
    if (first.header.bytes > 0)
      std::memcpy(message + sizeof first.header, first.payload, first.header.bytes);
    *bytes = first.total();
    return ::send(fd, message, *bytes, kFlags);
  }
  iovec vectors[kVectors];
  msghdr message{};
  message.msg_iov = vectors;
  message.msg_iovlen = static_cast<size_t>(gather(socket, vectors, bytes));
  return ::sendmsg(fd, &message, kFlags);
}

int TcpSender::gather(const Socket& socket, iovec* vectors, size_t* bytes) {
  int used = 0;
  for (uint64_t n = socket.next; n < accepted_ && used + 2 <= kVectors; n += sockets_.size()) {
    Outgoing& segment = outgoing(n);
    if (segment.shared != outgoing(socket.next).shared) break;
    constexpr size_t kHeader = sizeof segment.header;
    size_t skip = segment.sent;
    *bytes += segment.total() - skip;
    if (skip < kHeader) {
      vectors[used++] = {reinterpret_cast<std::byte*>(&segment.header) + skip, kHeader - skip};
      skip = kHeader;
    }
    if (segment.total() > skip) {
      vectors[used++] = {const_cast<std::byte*>(segment.payload) + (skip - kHeader),
                         segment.total() - skip};
    }
  }
  return used;
}

void TcpSender::note_sent(Socket& socket, size_t bytes) {
  while (bytes > 0) {
    Outgoing& segment = outgoing(socket.next);
    const size_t part = std::min(bytes, segment.total() - segment.sent);
    segment.sent += part;
    bytes -= part;
    if (segment.left()) socket.next += sockets_.size();
  }
  while (completed_ < accepted_ && outgoing(completed_).left()) ++completed_;
}

}  // namespace libcomm
