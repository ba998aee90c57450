// A double of NVML for tests on machines without a GPU: the calls that src/topology/nvml.cc makes,
// with NVML's own ABI. Three variables say what it tells; they are read at every call.
//
// NVML_DOUBLE_GPUS: its GPUs and where their links lead, in the order of the links:
//   "0000:03:00.0=0000:81:00.0*4 off*2; 0000:81:00.0=switch*18; 0000:c1:00.0="
//   ADDRESS  a GPU     switch  an NVSwitch     cpu  a processor of IBM
//   hidden   something that a virtual machine does not show, of no known type
//   off      nowhere: the link is not active
// A GPU without links supports none. NVML_DOUBLE_SM: the compute capability of each in that order,
// "90 100"; of GPUs beyond, and where it is 0, the double does not tell it. NVML_DOUBLE_FAIL: calls
// that fail, and how: "nvmlInit_v2=9 nvmlDeviceGetNvLinkState=15"
//
// What is wrong use of NVML ends the process: calls before nvmlInit_v2 or after the last
// nvmlShutdown, a handle that is none, and unloading the library while it is initialised.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#define NVML_CALL extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kSuccess = 0, kInvalidArgument = 2, kNotSupported = 3, kNotFound = 6;
constexpr int kMostGpus = 8;

std::atomic<int> g_users{0};
std::atomic<int> g_inits{0};  // ever

[[noreturn]] void die(const char* call, const char* what) {
  std::fprintf(stderr, "NVML double: %s: %s\n", call, what);
  std::abort();
}

// Ends with the library.
struct Guard {
  ~Guard() {
    if (g_users != 0) die("the end", "nvmlShutdown is missing");
  }
} g_guard;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

struct Gpu {
  std::string address;
  std::vector<std::string> links;
};

std::vector<Gpu> gpus() {
  std::vector<Gpu> all;
  std::istringstream text(variable("NVML_DOUBLE_GPUS"));
  for (std::string entry; std::getline(text >> std::ws, entry, ';');) {
    const size_t equals = entry.find('=');
    Gpu gpu{entry.substr(0, equals), {}};
    std::istringstream ends(entry.substr(equals + 1));
    for (std::string end; ends >> end;) {
      const size_t times = end.find('*');
      const int count = times == end.npos ? 1 : std::atoi(end.c_str() + times + 1);
      for (int i = 0; i < count; ++i) gpu.links.push_back(end.substr(0, times));
    }
    if (all.size() < kMostGpus) all.push_back(gpu);
  }
  return all;
}

// Handles are the addresses of these.
char g_handles[kMostGpus];

// What a call fails with, or kSuccess.
int fault_of(const char* call) {
  std::istringstream faults(variable("NVML_DOUBLE_FAIL"));
  for (std::string fault; faults >> fault;)
    if (const size_t equals = fault.find('='); fault.substr(0, equals) == call)
      return std::atoi(fault.c_str() + equals + 1);
  return kSuccess;
}

// Begins a call about a link: where does it lead?
int begin(const char* call, const char* handle, unsigned link, std::string* end) {
  if (g_users == 0) die(call, "before nvmlInit_v2");
  const std::vector<Gpu> all = gpus();
  if (handle < g_handles || handle >= g_handles + all.size()) die(call, "not a handle");
  if (const int fault = fault_of(call); fault != kSuccess) return fault;
  const std::vector<std::string>& links = all[static_cast<size_t>(handle - g_handles)].links;
  if (links.empty()) return kNotSupported;
  if (link >= links.size()) return kInvalidArgument;
  *end = links[link];
  return kSuccess;
}

}  // namespace

// For tests that have it loaded: how often it was initialised.
NVML_CALL int nvml_double_inits() { return g_inits; }

NVML_CALL int nvmlInit_v2() {
  if (const int fault = fault_of(__func__); fault != kSuccess) return fault;
  ++g_users;
  ++g_inits;
  return kSuccess;
}

NVML_CALL int nvmlShutdown() {
  if (g_users == 0) die(__func__, "before nvmlInit_v2");
  --g_users;
  return fault_of(__func__);
}

NVML_CALL const char* nvmlErrorString(int result) {
  switch (result) {
    case kSuccess:
      return "Success";
    case kNotFound:
      return "Not Found";
    case 9:
      return "Driver Not Loaded";
    case 15:
      return "GPU is lost";
    default:
      return "Another Error";
  }
}

NVML_CALL int nvmlDeviceGetHandleByPciBusId_v2(const char* address, char** handle) {
  if (g_users == 0) die(__func__, "before nvmlInit_v2");
  if (const int fault = fault_of(__func__); fault != kSuccess) return fault;
  const std::vector<Gpu> all = gpus();
  for (size_t i = 0; i < all.size(); ++i)
    if (all[i].address == address) {
      *handle = &g_handles[i];
      return kSuccess;
    }
  return kNotFound;
}

NVML_CALL int nvmlDeviceGetNvLinkState(const char* handle, unsigned link, int* state) {
  std::string end;
  const int fault = begin(__func__, handle, link, &end);
  if (fault == kSuccess) *state = end == "off" ? 0 : 1;
  return fault;
}

NVML_CALL int nvmlDeviceGetCudaComputeCapability(const char* handle, int* major, int* minor) {
  if (g_users == 0) die(__func__, "before nvmlInit_v2");
  const std::vector<Gpu> all = gpus();
  if (handle < g_handles || handle >= g_handles + all.size()) die(__func__, "not a handle");
  if (const int fault = fault_of(__func__); fault != kSuccess) return fault;
  std::istringstream text(variable("NVML_DOUBLE_SM"));
  int sm = 0;
  for (auto gpu = handle - g_handles; gpu >= 0; --gpu)
    if (!(text >> sm)) sm = 0;
  if (sm == 0) return kNotSupported;
  *major = sm / 10;
  *minor = sm % 10;
  return kSuccess;
}

// nvmlPciInfo_t
struct PciInfo {
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};

#ifdef NVML_DOUBLE_WITHOUT_V2
NVML_CALL int nvmlDeviceGetNvLinkRemotePciInfo(const char* handle, unsigned link, PciInfo* pci) {
#else
NVML_CALL int nvmlDeviceGetNvLinkRemotePciInfo_v2(const char* handle, unsigned link, PciInfo* pci) {
#endif
  std::string end;
  const int fault = begin(__func__, handle, link, &end);
  if (fault != kSuccess) return fault;
  if (end == "off") return kNotSupported;
  std::memset(pci, 0, sizeof *pci);
  unsigned function = 0;
  if (end == "switch")
    end = "0000:f1:00.0";
  else if (end == "cpu")
    end = "0035:00:00.0";
  else if (end == "hidden")
    end = "ffffffff:ff:1f.0";
  if (std::sscanf(end.c_str(), "%x:%x:%x.%x", &pci->domain, &pci->bus, &pci->device, &function) !=
      4)
    die(__func__, "NVML_DOUBLE_GPUS is wrong");
  std::snprintf(pci->bus_id, sizeof pci->bus_id, "%08X:%02X:%02X.0", pci->domain, pci->bus,
                pci->device);
  return kSuccess;
}

#ifndef NVML_DOUBLE_WITHOUT_TYPES
NVML_CALL int nvmlDeviceGetNvLinkRemoteDeviceType(const char* handle, unsigned link,
                                                  unsigned* type) {
  std::string end;
  const int fault = begin(__func__, handle, link, &end);
  if (fault != kSuccess) return fault;
  *type = end == "cpu" ? 1 : end == "switch" ? 2 : end == "hidden" || end == "off" ? 0xff : 0;
  return kSuccess;
}
#endif
