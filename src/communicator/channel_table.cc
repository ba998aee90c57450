#include "src/communicator/channel_table.h"

#include "src/base/log.h"

namespace libcomm {

Result<SendPort*> ChannelTable::send_port(int peer, int lane) {
  auto it = sends_.find(key(peer, lane));
  if (it == sends_.end()) {
    COMM_ASSIGN(auto channel, transport_of_[static_cast<size_t>(peer)]->connect(peer, lane));
    auto port = std::make_unique<SendPort>();
    port->channel = std::move(channel);
    log_info(Subsys::kP2p, "channel to rank {} on lane {} opened: {}", peer, lane,
             transport_of_[static_cast<size_t>(peer)]->name());
    it = sends_.emplace(key(peer, lane), std::move(port)).first;
    count_.fetch_add(1, std::memory_order_relaxed);
  }
  return it->second.get();
}

Result<RecvPort*> ChannelTable::recv_port(int peer, int lane) {
  auto it = recvs_.find(key(peer, lane));
  if (it == recvs_.end()) {
    COMM_ASSIGN(auto channel, transport_of_[static_cast<size_t>(peer)]->accept(peer, lane));
    auto port = std::make_unique<RecvPort>();
    port->channel = std::move(channel);
    log_info(Subsys::kP2p, "channel from rank {} on lane {} opened: {}", peer, lane,
             transport_of_[static_cast<size_t>(peer)]->name());
    it = recvs_.emplace(key(peer, lane), std::move(port)).first;
    count_.fetch_add(1, std::memory_order_relaxed);
  }
  return it->second.get();
}

std::vector<std::pair<int, RecvPort*>> ChannelTable::open_recv_ports() {
  std::vector<std::pair<int, RecvPort*>> ports;
  for (const auto& [key, port] : recvs_)
    if ((key & 0xff) < kMaxLanes) ports.emplace_back(static_cast<int>(key >> 8), port.get());
  return ports;
}

}  // namespace libcomm
