// TcpReceiver: segments off sockets, moved by the thread that calls.
//
// Segment n comes whole on socket n mod S. Each socket has a small read-ahead buffer: one recv
// brings a header with its small payload, so that an 8-byte message costs one system call. A larger
// payload goes straight into the caller's memory; the same recvmsg brings the next header. peek()
// shows a small segment where it is, in the read-ahead buffer, and a larger one in a staging
// segment that exists only once it is needed. While the caller reduces from there, the kernel's
// socket buffer keeps receiving.
//
// With a Duplex (and then one socket only) the segments after a flagged one come on the connection
// it shares, until the next flag.
#pragma once

#include <memory>
#include <vector>

#include "src/base/fd.h"
#include "transports/tcp/duplex.h"
#include "transports/tcp/options.h"
#include "transports/tcp/socket.h"
#include "transports/transport.h"

namespace libcomm {

class TcpReceiver final : public RecvChannel {
 public:
  TcpReceiver(const TcpEnds& ends, const TcpOptions& options, std::shared_ptr<TcpCounters> counters,
              std::vector<UniqueFd> sockets, std::shared_ptr<Duplex> duplex = nullptr);
  ~TcpReceiver() override;

  unsigned capabilities() const override { return kDirectRecv | kOrdered; }
  size_t segment_bytes() const override { return options_.segment_bytes; }
  int rank() const override { return ends_.rank; }
  int peer() const override { return ends_.peer; }
  Status peek(Segment* segment) override;
  Status release() override;
  Status receive_into(const Signature& expected, void* dst, size_t bytes, bool* done) override;
  WaitHandle wait_handle() const override;

  // Receives the next segment, whatever it is, into dst, which holds segment_bytes(). Call again
  // with the same dst until *done.
  Status receive_any(void* dst, Signature* signature, size_t* bytes, bool* done);

 private:
  // Large enough for the small messages that latency matters for, small enough that copying what
  // was read ahead of a large payload does not show (measured: 4 to 16 KiB make no difference).
  static constexpr size_t kAhead = 8 << 10;

  struct Socket {
    UniqueFd fd;
    std::unique_ptr<std::byte[]> ahead;  // kAhead bytes
    size_t begin = 0, end = 0;           // what is in it and not yet used
    size_t waiting() const { return end - begin; }
    const std::byte* front() const { return ahead.get() + begin; }
  };
  // Where the current segment's payload goes.
  enum class Way { kOpen, kAhead, kStaged, kDirect };

  Socket& current() { return on_shared_ ? shared_ : sockets_[next_ % sockets_.size()]; }
  const Socket& current() const { return on_shared_ ? shared_ : sockets_[next_ % sockets_.size()]; }
  Status read_header(bool* ready);
  Status fill_ahead(size_t needed, bool* ready);
  Status read_payload(std::byte* dst, bool* ready);
  template <typename Call>
  Status receive(Call call, size_t* received);
  std::byte* staging();
  Status finish();
  Status move();

  const TcpEnds ends_;
  const TcpOptions options_;
  const std::shared_ptr<TcpCounters> counters_;
  std::vector<Socket> sockets_;
  const std::shared_ptr<Duplex> duplex_;
  Socket shared_;           // the duplex's connection, once something moved there
  bool on_shared_ = false;  // where the current segment comes
  Status failed_;

  uint64_t next_ = 0;  // number of the current segment
  bool have_header_ = false;
  SegmentHeader header_;
  Way way_ = Way::kOpen;
  size_t received_ = 0;  // bytes of the payload that are where they go (not for kAhead)
  bool shown_ = false;   // by peek
  std::unique_ptr<std::byte[]> staging_;
};

}  // namespace libcomm
