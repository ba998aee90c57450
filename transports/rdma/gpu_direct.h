// GpuDirect: whether and how a network device reads and writes GPU memory itself.
//
// Allowed is what the knobs allow for the distance between GPU and network device, on every rail of
// this rank. Then registration is by DMA-BUF, or, where that cannot be had, by the pointer, which
// works when the kernel has nvidia-peermem. When neither works the memory is copied through staging
// slots.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "src/topology/topology.h"
#include "transports/device_memory.h"
#include "transports/rdma/nic.h"

namespace libcomm::rdma {

class GpuDirect {
 public:
  GpuDirect(const GdrOptions& options, std::shared_ptr<const DeviceMemory> devices)
      : options_(options), devices_(std::move(devices)) {}

  struct Registered {
    std::vector<Mr> mrs;  // as the devices
    bool needs_flush = false;
  };
  bool on_device(const void* address) const { return devices_ && devices_->on_device(address); }
  // Network devices may read GPU memory, not only write it.
  bool reads() const { return options_.read; }
  // GPU memory with every device. kSystem says why not.
  Result<Registered> make(const std::vector<std::shared_ptr<Nic>>& nics, std::byte* base,
                          size_t bytes);
  // How far the GPU at the PCI address is from the device; kSystem when one of them is not known.
  PathClass distance(const std::string& gpu, const PortInfo& nic);

 private:
  Status check(const std::string& gpu, const Nic& nic);
  Result<Mr> make_one(const Nic& nic, std::byte* base, size_t bytes, const char** way) const;

  const GdrOptions options_;
  const std::shared_ptr<const DeviceMemory> devices_;
  std::mutex mutex_;
  bool detected_ = false;
  std::optional<Topology> topology_;
  std::set<std::string> told_;  // what the log has said
};

// Whether memory at this distance is used in place, as the knobs say.
bool gpu_allowed(const GdrOptions& options, PathClass distance);

}  // namespace libcomm::rdma
