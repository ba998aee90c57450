// ChannelTable: the channels of one communicator, opened on first use, each by the transport that
// both ends agreed on.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <utility>

#include "src/execute/execution.h"
#include "transports/transport.h"

namespace libcomm {

class ChannelTable final : public Ports {
 public:
  // `transport_of[peer]` is how this rank and `peer` talk; null for this rank itself.
  explicit ChannelTable(std::vector<Transport*> transport_of)
      : transport_of_(std::move(transport_of)) {}

  Result<SendPort*> send_port(int peer, int lane) override;
  Result<RecvPort*> recv_port(int peer, int lane) override;
  // The receiving ports that are open on collective lanes: (peer, port).
  std::vector<std::pair<int, RecvPort*>> open_recv_ports();
  int count() const { return count_.load(std::memory_order_relaxed); }

 private:
  static uint64_t key(int peer, int lane) {
    return static_cast<uint64_t>(peer) << 8 | static_cast<uint64_t>(lane);
  }
  std::vector<Transport*> transport_of_;
  std::map<uint64_t, std::unique_ptr<SendPort>> sends_;
  std::map<uint64_t, std::unique_ptr<RecvPort>> recvs_;
  std::atomic<int> count_{0};
};

}  // namespace libcomm
