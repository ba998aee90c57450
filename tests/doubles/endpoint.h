// One side of an RC connection on the double, for tests: device, queue pair and a registered
// buffer.
#pragma once

#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <vector>

namespace libcomm::test {

struct EndpointOptions {
  uint32_t send_slots = 64, receive_slots = 64, max_inline = 64;
  int completions = 256;
  bool with_channel = false;
  bool signal_all = false;
  size_t buffer_bytes = 1 << 20;
  int buffer_access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
  unsigned queue_pair_access = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
  ibv_mtu mtu = IBV_MTU_1024;
  uint8_t timeout = 8;  // 1 ms
  uint8_t retry_count = 2, receiver_retry = 2, receiver_timer = 1;
  uint8_t max_rd_atomic = 4;
  uint32_t psn = 0xfffff0;  // wraps early
  int device = 0;
  int gid_index = -1;  // -1: the first of RoCE v2 and IPv4
};

// What the other side must know.
struct Address {
  uint32_t queue_pair = 0, psn = 0;
  ibv_gid gid{};
  uint64_t buffer = 0;
  uint32_t rkey = 0;
};

class Endpoint {
 public:
  explicit Endpoint(const EndpointOptions& options = {});
  // Another queue pair and buffer on the device context, protection domain and completion queue of
  // `other`, which must live longer.
  explicit Endpoint(const Endpoint& other);
  ~Endpoint();
  Endpoint& operator=(const Endpoint&) = delete;

  Address address() const;
  void connect(const Address& peer);
  int to_init();
  int to_receive(const Address& peer);
  int to_send();
  int to(ibv_qp_state state);
  void destroy_queue_pair();

  // Work requests over [offset, offset + bytes) of the buffers.
  ibv_send_wr& request(ibv_wr_opcode opcode, uint64_t id, size_t bytes, size_t offset = 0,
                       size_t remote_offset = 0, unsigned flags = IBV_SEND_SIGNALED);
  int post(ibv_send_wr& request);
  int send(ibv_wr_opcode opcode, uint64_t id, size_t bytes, size_t offset = 0,
           size_t remote_offset = 0, unsigned flags = IBV_SEND_SIGNALED);
  int receive(uint64_t id, size_t bytes, size_t offset = 0);
  ibv_qp_state state() const;

  // The next completion; thrown after 20 seconds: there is none.
  ibv_wc completion();
  std::optional<ibv_wc> completion_within(std::chrono::milliseconds time);
  // All that are there now.
  std::vector<ibv_wc> completions_now();

  std::byte* data() { return buffer.data(); }
  void fill(size_t offset, size_t bytes, int seed);
  bool filled(size_t offset, size_t bytes, int seed) const;

  EndpointOptions options;
  ibv_context* context = nullptr;
  ibv_pd* pd = nullptr;
  ibv_comp_channel* channel = nullptr;
  ibv_cq* cq = nullptr;
  ibv_qp* qp = nullptr;
  ibv_qp_cap cap{};  // as the device granted
  ibv_mr* mr = nullptr;
  std::vector<std::byte> buffer;
  Address peer;

 private:
  void make_queue_pair();
  int find_gid() const;

  bool beside_ = false;
  ibv_sge piece_{};
  ibv_send_wr request_{};
};

// Two endpoints of this process, connected.
struct Pair {
  explicit Pair(const EndpointOptions& options = {}) : Pair(options, options) {}
  Pair(const EndpointOptions& of_a, const EndpointOptions& of_b) : a(of_a), b(of_b) {
    a.connect(b.address());
    b.connect(a.address());
  }
  Endpoint a, b;
};

}  // namespace libcomm::test
