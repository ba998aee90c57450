// What the environment says about the double's devices, limits and faults. Read when the device
// list is asked for while no device is open, so that one process can run tests with several
// settings.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <string>
#include <vector>

namespace rdma_double {

struct GidEntry {
  ibv_gid gid;
  uint32_t type;  // ibv_gid_type
};

// A rule of RDMA_DOUBLE_FAIL or RDMA_DOUBLE_LOSE; see README.md.
struct FaultRule {
  uint64_t queue_pair = 0;  // the how-manieth queue pair of the process, from 1; 0: every one
  uint64_t operation = 0;   // fails the how-manieth send-queue request, from 1
  ibv_wc_status status = IBV_WC_RETRY_EXC_ERR;
  uint64_t below = 0;  // loses packets whose message is shorter than so many bytes; 0: all
  uint64_t count = 0;  // loses so many packets
};

struct PortEvent {
  int device = 0;
  int port = 1;
  bool up = false;
  int64_t after_ns = 0;  // since the device was opened
};

struct Config {
  std::string fabric = "default";
  bool strict = true;

  int devices = 1;
  int ports = 1;
  std::string name = "double";
  bool infiniband = false;
  int host = 1;  // processes with the same number share the devices' addresses
  ibv_mtu mtu = IBV_MTU_4096;
  std::vector<std::string> gids;   // "v1", "v2", "v1:ADDRESS", "v2:ADDRESS", "none"
  std::vector<std::string> pci;    // one address per device
  std::string sysfs;               // folder in which the devices' sysfs entries are made
  std::vector<std::string> lacks;  // of: ece, dmabuf, relaxed, extended
  int speed_gbps = 100;

  int max_qp = 1024;
  int max_qp_wr = 16384;
  int max_sge = 16;
  int max_cq = 4096;
  int max_cqe = 1 << 20;
  int max_mr = 1 << 18;
  int max_pd = 1024;
  int max_rd_atomic = 16;
  uint32_t max_inline = 256;
  uint64_t memlock = 0;           // bytes that may be registered at a time; 0: any
  bool peermem = false;           // ibv_reg_mr takes memory of the CUDA double
  bool late_gpu = false;          // writes into GPU memory are seen after a read
  uint64_t window = 1024 * 1024;  // unacknowledged bytes per queue pair

  int64_t delay_ns = 0;
  int64_t jitter_ns = 0;
  uint64_t seed = 1;
  std::vector<uint64_t> receive_rates;  // bytes per second and device; 0: any
  std::vector<FaultRule> fail;
  std::vector<FaultRule> lose;
  std::vector<PortEvent> port_events;

  bool lack(const std::string& feature) const;
};

const Config& config();

// Reads the environment again.
void read_config();

}  // namespace rdma_double
