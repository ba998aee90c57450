// Nic: one port of one RDMA device, opened: what it can do, which address it has, and its events.
//
// Any thread may use a Nic; what it knows of events is behind a mutex.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "transports/rdma/handles.h"
#include "transports/rdma/options.h"
#include "transports/rdma/wire.h"

namespace libcomm::rdma {

// What `comm-check rdma` lists of a port.
struct PortInfo {
  std::string device;
  int port = 1;
  bool ethernet = false;
  ibv_port_state state = IBV_PORT_NOP;
  ibv_mtu mtu = IBV_MTU_1024;  // active
  double gbits_per_second = 0;
  uint16_t lid = 0;  // InfiniBand
  GidEntry gid;      // the one chosen
  int gids = 0;      // that the port has
  std::string pci;   // "0000:81:00.0", empty for software devices
  int numa_node = -1;
  int max_qp = 0;
  int max_cqe = 0;
  int max_qp_wr = 0;
  int max_mr = 0;

  std::string name() const { return fmt::format("{}:{}", device, port); }
  // "rxe0:1 (Ethernet, RoCE v2 10.0.0.1, MTU 4096, 10 Gb/s)"
  std::string to_text() const;
};

int bytes_of(ibv_mtu mtu);

class Nic {
 public:
  // kSystem or kInvalidArgument say why this port is of no use.
  static Result<std::shared_ptr<Nic>> open(std::shared_ptr<const Verbs> verbs, ibv_device* device,
                                           int port, const Options& options);
  const PortInfo& info() const { return info_; }
  const std::shared_ptr<const Verbs>& verbs() const { return verbs_; }
  ibv_context* context() const { return context_.get(); }
  ibv_pd* pd() const { return pd_.get(); }

  // Its address, for the peer.
  void describe(RailWire* rail) const;
  // Payload is registered for relaxed ordering.
  bool relaxed() const { return relaxed_; }
  // kSystem names the limit and the remedy. `data`: payload, for which the order inside a transfer
  // does not matter.
  Result<Mr> register_memory(void* address, size_t bytes, bool data) const;

  // GPU memory, also for reading by this device itself. By a DMA-BUF: the memory at `address`
  // begins `offset` bytes into it. By pointer: needs nvidia-peermem in the kernel.
  bool has_dmabuf() const { return verbs_->reg_dmabuf_mr != nullptr; }
  Result<Mr> register_dmabuf(int fd, size_t offset, size_t bytes, const void* address) const;
  Result<Mr> register_peer_memory(void* address, size_t bytes) const;

  // Takes in what has happened since; cheap when nothing has. Other threads may do so meanwhile.
  void take_events();
  // Grows with every event that matters to queue pairs.
  uint64_t event_count() const { return events_.load(std::memory_order_acquire); }
  bool port_is_up() const { return port_up_.load(std::memory_order_acquire); }
  // An event said that this queue pair is broken. True once per event.
  bool take_broken(uint32_t qp_number);
  // The last event's text: "port rxe0:1 went down".
  std::string last_event() const;
  int event_fd() const { return context_->async_fd; }

 private:
  Nic(std::shared_ptr<const Verbs> verbs, Context context)
      : verbs_(std::move(verbs)), context_(std::move(context)) {}
  Status read_port(const Options& options);
  Status read_gid(const Options& options, int table_length);
  void read_place();
  void note(const ibv_async_event& event);

  const std::shared_ptr<const Verbs> verbs_;
  const Context context_;
  Pd pd_;
  PortInfo info_;
  bool relaxed_ = false;

  std::atomic<uint64_t> events_{0};
  std::atomic<bool> port_up_{true};
  mutable std::mutex mutex_;
  std::set<uint32_t> broken_;
  std::string last_event_;
};

// The ports that can be used, nearest first, and why the others cannot.
struct Survey {
  struct LeftOut {
    std::string name;
    std::string reason;
  };
  std::vector<std::shared_ptr<Nic>> nics;
  std::vector<LeftOut> left_out;
  // What IB_HCA names is not there: the text for the user; empty otherwise.
  std::string unmatched;
};
Result<Survey> survey(const std::shared_ptr<const Verbs>& verbs, const Options& options);

}  // namespace libcomm::rdma
