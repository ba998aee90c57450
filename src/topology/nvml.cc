#include "src/topology/nvml.h"

#include <dlfcn.h>

#include <cstring>
#include <memory>

#include "src/base/log.h"
#include "src/topology/nccl_file.h"

namespace libcomm {
namespace {

constexpr char kLibrary[] = "libnvidia-ml.so.1";

using Handle = struct NvmlDevice*;

// nvmlReturn_t
constexpr int kSuccess = 0, kInvalidArgument = 2, kNotSupported = 3;
// nvmlEnableState_t
constexpr int kEnabled = 1;
// nvmlIntNvLinkDeviceType_t; 1 is a processor of IBM
constexpr unsigned kGpu = 0, kSwitch = 2, kUnknown = 0xff;

// nvmlPciInfo_t, which calls of version 2 fill.
struct PciInfo {
  char legacy_bus_id[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];  // "00000000:81:00.0"
};
static_assert(sizeof(PciInfo) == 68 && offsetof(PciInfo, bus_id) == 36);

// More than any GPU has (18, later ones more); to ask for one that a GPU has not is no harm.
constexpr unsigned kMostLinks = 128;

// The library, loaded and initialised.
class Nvml {
 public:
  static Result<std::unique_ptr<Nvml>> open() {
    std::unique_ptr<Nvml> nvml(new Nvml);
    nvml->library_.reset(::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL));
    if (nvml->library_ == nullptr) {
      const char* why = ::dlerror();
      return error(Code::kSystem, "{}", why != nullptr ? why : "it cannot be loaded");
    }
    COMM_TRY(nvml->find("nvmlInit_v2", &nvml->init_));
    COMM_TRY(nvml->find("nvmlShutdown", &nvml->shutdown_));
    COMM_TRY(nvml->find("nvmlErrorString", &nvml->error_string_));
    COMM_TRY(nvml->find("nvmlDeviceGetHandleByPciBusId_v2", &nvml->handle_));
    COMM_TRY(nvml->find("nvmlDeviceGetNvLinkState", &nvml->link_state_));
    COMM_TRY(nvml->find("nvmlDeviceGetNvLinkRemotePciInfo_v2", &nvml->remote_pci_));
    // Drivers of 2020 (450) lack it.
    if (!nvml->find("nvmlDeviceGetNvLinkRemoteDeviceType", &nvml->remote_type_))
      nvml->remote_type_ = nullptr;
    if (!nvml->find("nvmlDeviceGetCudaComputeCapability", &nvml->capability_))
      nvml->capability_ = nullptr;
    COMM_TRY(nvml->check(nvml->init_(), "nvmlInit_v2"));
    nvml->is_initialised_ = true;
    return nvml;
  }
  ~Nvml() {
    if (is_initialised_) (void)shutdown_();
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  Result<GpuNvlinks> links_of(const std::string& gpu) const {
    Handle handle = nullptr;
    COMM_TRY(check(handle_(gpu.c_str(), &handle), "nvmlDeviceGetHandleByPciBusId_v2"));
    GpuNvlinks active;
    bool has_links = false;
    for (unsigned link = 0; link < kMostLinks; ++link) {
      int state = 0;
      const int result = link_state_(handle, link, &state);
      if (result == kInvalidArgument || result == kNotSupported) continue;  // it has no such link
      COMM_TRY(check(result, "nvmlDeviceGetNvLinkState"));
      has_links = true;
      if (state != kEnabled) continue;
      COMM_ASSIGN(Nvlinks end, end_of(handle, link));
      active.links.push_back(std::move(end));
    }
    // So it is with GPUs without NVLink, and with virtual ones, which may have it.
    if (!has_links) return error(Code::kSystem, "nvmlDeviceGetNvLinkState: no link is supported");
    active.link_gbs = link_gbs(handle);
    return active;
  }

 private:
  struct Close {
    void operator()(void* library) const { ::dlclose(library); }
  };

  Nvml() = default;

  template <typename Function>
  Status find(const char* name, Function* function) {
    void* symbol = ::dlsym(library_.get(), name);
    if (symbol == nullptr) return error(Code::kSystem, "{} lacks {}", kLibrary, name);
    std::memcpy(function, &symbol, sizeof symbol);
    return Status::ok();
  }

  Status check(int result, const char* call) const {
    if (result == kSuccess) return Status::ok();
    const char* text = error_string_(result);
    return error(Code::kSystem, "{}: {} ({})", call, text != nullptr ? text : "no text", result);
  }

  // Of each link, by what the GPU is; 0: not known. Not by nvmlDeviceGetNvLinkVersion: it gives a
  // number of nvmlNvlinkVersion_t (A100: 5, for 3.1), H100s are said to give that of 5.0, and a
  // version does not tell how wide the links of a GPU are.
  double link_gbs(Handle handle) const {
    int major = 0, minor = 0;
    if (capability_ == nullptr || capability_(handle, &major, &minor) != kSuccess) return 0;
    return nvlink_gbs_of(10 * major + minor);
  }

  // Where an active link leads.
  Result<Nvlinks> end_of(Handle handle, unsigned link) const {
    unsigned type = kUnknown;
    if (remote_type_ != nullptr && remote_type_(handle, link, &type) != kSuccess) type = kUnknown;
    Nvlinks end;
    // A switch of which a virtual machine sees nothing has no address worth asking for.
    end.to_switch = type == kSwitch || type == kUnknown;
    if (type != kGpu && type != kUnknown) return end;
    PciInfo pci{};
    COMM_TRY(check(remote_pci_(handle, link, &pci), "nvmlDeviceGetNvLinkRemotePciInfo_v2"));
    end.gpu = normal_pci_address({pci.bus_id, ::strnlen(pci.bus_id, sizeof pci.bus_id)});
    return end;
  }

  std::unique_ptr<void, Close> library_;
  bool is_initialised_ = false;
  int (*init_)() = nullptr;
  int (*shutdown_)() = nullptr;
  const char* (*error_string_)(int result) = nullptr;
  int (*handle_)(const char* address, Handle* handle) = nullptr;
  int (*link_state_)(Handle handle, unsigned link, int* state) = nullptr;
  int (*remote_pci_)(Handle handle, unsigned link, PciInfo* pci) = nullptr;
  // These may be null.
  int (*remote_type_)(Handle handle, unsigned link, unsigned* type) = nullptr;
  int (*capability_)(Handle handle, int* major, int* minor) = nullptr;
};

}  // namespace

NvlinksOfGpus read_nvlinks(const std::vector<std::string>& gpus) {
  NvlinksOfGpus told;
  const auto nvml = Nvml::open();
  if (!nvml) {
    log_info(Subsys::kGraph, "NVML does not tell of NVLinks: {}", nvml.status().message());
    return told;
  }
  for (const std::string& gpu : gpus) {
    auto links = (*nvml)->links_of(gpu);
    if (links)
      told.emplace(gpu, *std::move(links));
    else
      log_info(Subsys::kGraph, "NVML does not tell of the NVLinks of GPU {}: {}", gpu,
               links.status().message());
  }
  return told;
}

}  // namespace libcomm
