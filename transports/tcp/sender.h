// TcpSender: segments onto sockets, moved by the thread that calls.
//
// Segment n goes whole onto socket n mod S. A posted segment is sent straight from the caller's
// memory: one sendmsg carries header and payload, and what the kernel does not take at once is
// resumed by progress(). Staging memory exists only once reserve() has been called.
//
// With a Duplex (and then one socket only) segments may move to the connection it shares.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <vector>

#include "src/base/fd.h"
#include "transports/tcp/duplex.h"
#include "transports/tcp/options.h"
#include "transports/tcp/socket.h"
#include "transports/transport.h"

namespace libcomm {

class TcpSender : public SendChannel {
 public:
  TcpSender(const TcpEnds& ends, const TcpOptions& options, std::shared_ptr<TcpCounters> counters,
            std::vector<UniqueFd> sockets, std::shared_ptr<Duplex> duplex = nullptr);
  ~TcpSender() override;

  unsigned capabilities() const override { return kDirectSend | kOrdered; }
  size_t segment_bytes() const override { return options_.segment_bytes; }
  Status reserve(std::byte** slot) override;
  Status commit(const Signature& signature, size_t bytes) override;
  Status post(const Signature& signature, const void* src, size_t bytes, bool* accepted) override;
  Status progress(uint64_t* completed) override;
  WaitHandle wait_handle() const override;

 private:
  // Accepted segments that have not left yet; a bound only so that a fast caller meets
  // back-pressure.
  static constexpr uint64_t kWindow = 32;
  // Up to here copying a payload behind its header costs less than to have the kernel gather two
  // pieces (sendmsg).
  static constexpr size_t kSmall = 512;
  // So many segments of up to kSmallSegment bytes in a row move to the shared connection; a larger
  // one than kMiddleSegment moves back.
  static constexpr int kSmallRun = 16;
  static constexpr size_t kSmallSegment = 4 << 10;
  static constexpr size_t kMiddleSegment = 32 << 10;
  // One sendmsg takes up to this many pieces, two per segment, when several segments wait.
  static constexpr int kVectors = 16;

  struct Outgoing {
    SegmentHeader header;
    const std::byte* payload = nullptr;
    size_t sent = 0;      // of header and payload together
    bool shared = false;  // goes on the duplex's connection
    size_t total() const { return sizeof header + header.bytes; }
    bool left() const { return sent == total(); }
  };
  struct Socket {
    UniqueFd fd;
    uint64_t next = 0;  // first segment of this socket that has not left
    RouteWatch watch;
  };

  Outgoing& outgoing(uint64_t sequence) { return window_[sequence % kWindow]; }
  std::byte* slot(size_t index) { return staging_.get() + index * options_.segment_bytes; }
  int fd_for(const Socket& socket, bool shared) const {
    return shared ? shared_.get() : socket.fd.get();
  }
  bool moves_after(size_t bytes);
  Status accept_segment(const Signature& signature, const std::byte* payload, size_t bytes);
  Status push(Socket& socket);
  ssize_t send_some(const Socket& socket, int fd, size_t* bytes);
  int gather(const Socket& socket, iovec* vectors, size_t* bytes);
  void note_sent(Socket& socket, size_t bytes);

  const TcpEnds ends_;
  const TcpOptions options_;
  const std::shared_ptr<TcpCounters> counters_;
  std::vector<Socket> sockets_;
  const std::shared_ptr<Duplex> duplex_;
  UniqueFd shared_;         // the duplex's connection, once something moved there
  bool on_shared_ = false;  // where the next segment goes
  int small_run_ = 0;
  std::vector<Outgoing> window_;
  uint64_t accepted_ = 0;   // segments given to this channel
  uint64_t completed_ = 0;  // the first of them that have all left
  Status failed_;           // sticky: a stream with a hole in it is of no use

  std::unique_ptr<std::byte[]> staging_;  // options_.slots segments
  std::vector<uint64_t> slot_free_at_;    // value of completed_ from which the slot is free
  size_t next_slot_ = 0;
  bool reserved_ = false;
};

}  // namespace libcomm
