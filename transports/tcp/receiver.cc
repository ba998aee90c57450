#include "transports/tcp/receiver.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace libcomm {

TcpReceiver::TcpReceiver(const TcpEnds& ends, const TcpOptions& options,
                         std::shared_ptr<TcpCounters> counters, std::vector<UniqueFd> sockets,
                         std::shared_ptr<Duplex> duplex)
    : ends_(ends), options_(options), counters_(std::move(counters)), duplex_(std::move(duplex)) {
  for (UniqueFd& fd : sockets) {
    tune_data_socket(fd.get());
    Socket& socket = sockets_.emplace_back();
    socket.fd = std::move(fd);
    socket.ahead.reset(new std::byte[kAhead]);
  }
  counters_->sockets += static_cast<int>(sockets_.size());
  counters_->host_bytes += sockets_.size() * kAhead;
  if (duplex_ && Duplex::offers(ends_, false)) duplex_->offer(sockets_[0].fd.get());
}

TcpReceiver::~TcpReceiver() {
  if (duplex_ && Duplex::offers(ends_, false)) duplex_->withdraw();
  if (shared_.ahead) counters_->host_bytes -= kAhead;
  counters_->sockets -= static_cast<int>(sockets_.size());
  counters_->host_bytes -= sockets_.size() * kAhead;
  if (staging_) counters_->host_bytes -= options_.segment_bytes;
}

Status TcpReceiver::peek(Segment* segment) {
  *segment = {};
  COMM_TRY(failed_);
  bool ready = false;
  COMM_TRY(read_header(&ready));
  if (!ready) return Status::ok();
  if (way_ == Way::kDirect) {
    return error(Code::kInternal, "peek in the middle of a receive_into from rank {}", ends_.peer);
  }
  if (way_ == Way::kOpen) {
    way_ = header_.bytes <= kAhead ? Way::kAhead : Way::kStaged;
  }
  if (way_ == Way::kAhead) {
    COMM_TRY(fill_ahead(header_.bytes, &ready));
    segment->data = current().front();
  } else {
    COMM_TRY(read_payload(staging(), &ready));
    segment->data = staging();
  }
  if (!ready) {
    *segment = {};
    return Status::ok();
  }
  segment->bytes = header_.bytes;
  segment->signature = header_.signature;
  segment->ready = true;
  shown_ = true;
  return Status::ok();
}

Status TcpReceiver::release() {
  if (!shown_) return error(Code::kInternal, "release without a segment that peek showed");
  if (way_ == Way::kAhead) current().begin += header_.bytes;
  return finish();
}

Status TcpReceiver::receive_into(const Signature& expected, void* dst, size_t bytes, bool* done) {
  *done = false;
  COMM_TRY(failed_);
  bool ready = false;
  COMM_TRY(read_header(&ready));
  if (!ready) return Status::ok();
  if (header_.signature != expected || header_.bytes != bytes) {
    return mismatch(ends_.rank, expected, bytes, ends_.peer, header_.signature, header_.bytes);
  }
  // A peek may have begun with this segment.
  if (way_ == Way::kAhead || way_ == Way::kStaged) {
    return RecvChannel::receive_into(expected, dst, bytes, done);
  }
  way_ = Way::kDirect;
  COMM_TRY(read_payload(static_cast<std::byte*>(dst), done));
  return *done ? finish() : Status::ok();
}

Status TcpReceiver::receive_any(void* dst, Signature* signature, size_t* bytes, bool* done) {
  *done = false;
  COMM_TRY(failed_);
  bool ready = false;
  COMM_TRY(read_header(&ready));
  if (!ready) return Status::ok();
  *signature = header_.signature;
  *bytes = header_.bytes;
  way_ = Way::kDirect;
  COMM_TRY(read_payload(static_cast<std::byte*>(dst), done));
  return *done ? finish() : Status::ok();
}

WaitHandle TcpReceiver::wait_handle() const {
  if (!failed_.is_ok()) return {};
  return {current().fd.get(), false};
}

Status TcpReceiver::read_header(bool* ready) {
  *ready = have_header_;
  if (have_header_) return Status::ok();
  COMM_TRY(fill_ahead(sizeof header_, ready));
  if (!*ready) return Status::ok();
  Socket& socket = current();
  std::memcpy(&header_, socket.front(), sizeof header_);
  socket.begin += sizeof header_;
  failed_ = check_header(header_, next_, options_.segment_bytes, ends_);
  have_header_ = failed_.is_ok();
  return failed_;
}

// Until the read-ahead buffer holds `needed` (at most kAhead) bytes in one piece.
Status TcpReceiver::fill_ahead(size_t needed, bool* ready) {
  Socket& socket = current();
  *ready = socket.waiting() >= needed;
  if (*ready) return Status::ok();
  if (socket.begin > 0) {
    std::memmove(socket.ahead.get(), socket.front(), socket.waiting());
    socket.end = socket.waiting();
    socket.begin = 0;
  }
  size_t received = 0;
  COMM_TRY(receive(
      [&] {
        return ::recv(socket.fd.get(), socket.ahead.get() + socket.end, kAhead - socket.end,
                      MSG_DONTWAIT);
      },
      &received));
  socket.end += received;
  *ready = socket.waiting() >= needed;
  return Status::ok();
}

// Until the current segment's payload is in dst: first what was read ahead, then from the socket,
// together with what follows it.
Status TcpReceiver::read_payload(std::byte* dst, bool* ready) {
  Socket& socket = current();
  if (received_ < header_.bytes && socket.waiting() > 0) {
    const size_t part = std::min(socket.waiting(), header_.bytes - received_);
    std::memcpy(dst + received_, socket.front(), part);
    socket.begin += part;
    received_ += part;
  }
  if (received_ < header_.bytes) {
    const size_t missing = header_.bytes - received_;
    iovec vectors[] = {{dst + received_, missing}, {socket.ahead.get(), kAhead}};
    msghdr message{};
    message.msg_iov = vectors;
    message.msg_iovlen = 2;
    size_t received = 0;
    COMM_TRY(
        receive([&] { return ::recvmsg(socket.fd.get(), &message, MSG_DONTWAIT); }, &received));
    socket.begin = 0;
    socket.end = received > missing ? received - missing : 0;
    received_ += std::min(received, missing);
  }
  *ready = received_ == header_.bytes;
  return Status::ok();
}

// One system call; *received stays 0 when there is nothing.
template <typename Call>
Status TcpReceiver::receive(Call call, size_t* received) {
  ssize_t got;
  do {
    got = call();
  } while (got < 0 && errno == EINTR);
  if (got > 0) {
    *received = static_cast<size_t>(got);
  } else if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
    failed_ = connection_lost(ends_, got == 0 ? 0 : errno);
  }
  return failed_;
}

std::byte* TcpReceiver::staging() {
  if (!staging_) {
    staging_.reset(new std::byte[options_.segment_bytes]);
    counters_->host_bytes += options_.segment_bytes;
  }
  return staging_.get();
}

Status TcpReceiver::finish() {
  ++next_;
  have_header_ = false;
  way_ = Way::kOpen;
  received_ = 0;
  shown_ = false;
  return (header_.flags & kSegmentMoves) != 0 ? move() : Status::ok();
}

// The next segment comes on the other connection.
Status TcpReceiver::move() {
  if (!on_shared_ && !shared_.fd) {
    if (duplex_ && !Duplex::offers(ends_, false)) {
      auto taken = duplex_->take();
      if (!taken) {
        failed_ = std::move(taken).status().at_rank(ends_.rank);
        return failed_;
      }
      shared_.fd = *std::move(taken);
    }
    if (!shared_.fd) {
      failed_ =
          Status(Code::kRemote,
                 fmt::format("rank {} moves to a connection that this rank does not have: the "
                             "stream is corrupt",
                             ends_.peer))
              .at_rank(ends_.rank)
              .with_peer(ends_.peer);
      return failed_;
    }
    shared_.ahead.reset(new std::byte[kAhead]);
    counters_->host_bytes += kAhead;
  }
  on_shared_ = !on_shared_;
  return Status::ok();
}

}  // namespace libcomm
