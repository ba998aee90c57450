#include "transports/rdma/gpu_direct.h"

#include <unistd.h>

#include "src/base/log.h"
#include "transports/rdma/nearest.h"

namespace libcomm::rdma {

bool gpu_allowed(const GdrOptions& options, PathClass distance) {
  if (options.support >= 0) return options.support > 0;
  return static_cast<int>(distance) <= static_cast<int>(options.level);
}

PathClass GpuDirect::distance(const std::string& gpu, const PortInfo& nic) {
  const std::lock_guard lock(mutex_);
  if (!detected_) {
    detected_ = true;
    if (auto found = Topology::detect(options_.topology)) topology_ = *std::move(found);
  }
  if (!topology_) return PathClass::kSystem;
  int gpu_id = -1;
  for (const Device& device : topology_->devices())
    if (device.kind == DeviceKind::kGpu && device.address == gpu) gpu_id = device.id;
  return topology_->path(gpu_id, device_of(*topology_, nic)).path;
}

Status GpuDirect::check(const std::string& gpu, const Nic& nic) {
  const PathClass far = distance(gpu, nic.info());
  if (gpu_allowed(options_, far)) return Status::ok();
  if (options_.support == 0)
    return error(Code::kSystem, "COMM_IB_CUDA_SUPPORT=0 forbids to use GPU memory in place");
  return error(Code::kSystem,
               "GPU {} and {} are {} apart, which COMM_NET_GDR_LEVEL={} does not allow", gpu,
               nic.info().name(), name_of(far), options_.level_name);
}

Result<GpuDirect::Registered> GpuDirect::make(const std::vector<std::shared_ptr<Nic>>& nics,
                                              std::byte* base, size_t bytes) {
  const DeviceMemory::Place place = devices_->place(base);
  Registered made;
  made.needs_flush = !place.writes_ordered;
  for (const std::shared_ptr<Nic>& nic : nics) COMM_TRY(check(place.pci, *nic));
  devices_->synchronise_copies(base);
  for (const std::shared_ptr<Nic>& nic : nics) {
    const char* way = "";
    COMM_ASSIGN(Mr mr, make_one(*nic, base, bytes, &way));
    made.mrs.push_back(std::move(mr));
    const std::string text =
        fmt::format("memory of GPU {} is used in place by {}, by {}{}", place.pci,
                    nic->info().name(), way, made.needs_flush ? ", with flushes" : "");
    const std::lock_guard lock(mutex_);
    if (told_.insert(text).second) log_info(Subsys::kNet, "{}", text);
  }
  return made;
}

Result<Mr> GpuDirect::make_one(const Nic& nic, std::byte* base, size_t bytes,
                               const char** way) const {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t first = reinterpret_cast<uintptr_t>(base) / page * page;
  const size_t into = reinterpret_cast<uintptr_t>(base) - first;
  const size_t whole = (into + bytes + page - 1) / page * page;
  Status dmabuf = error(Code::kSystem, "this libibverbs has no DMA-BUF");
  if (nic.has_dmabuf()) {
    auto fd = devices_->export_dmabuf(reinterpret_cast<void*>(first), whole);
    if (fd) {
      auto mr = nic.register_dmabuf(fd->get(), into, bytes, base);
      *way = "DMA-BUF";
      if (mr) return mr;
      dmabuf = mr.status();
    } else {
      dmabuf = fd.status();
    }
  }
  auto mr = nic.register_peer_memory(base, bytes);
  *way = "nvidia-peermem";
  if (mr) return mr;
  return error(Code::kSystem, "by DMA-BUF: {}; by pointer (is nvidia-peermem loaded?): {}",
               dmabuf.message(), mr.status().message());
}

}  // namespace libcomm::rdma
