// cuInit, cuDriverGetVersion, cuDevice*: the GPUs, at the places that
// tests/topology/data/switches.xml has the first three of them.
#include <cstdio>
#include <cstring>

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {
namespace {

constexpr const char* kPlaces[kMostDevices] = {"0000:03:00.0", "0000:07:00.0", "0000:81:00.0",
                                               "0000:85:00.0", "0000:C1:00.0", "0000:C5:00.0",
                                               "0000:E1:00.0", "0000:E5:00.0"};
// CUdevice_attribute
constexpr int kMaxThreadsPerBlock = 1, kUnifiedAddressing = 41, kMajor = 75, kMinor = 76;

// For the calls about one device.
template <typename Body>
CUresult of_device(const char* name, CUdevice device, Body body) {
  return call(name, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    if (device < 0 || device >= state.settings.devices) return kInvalidDevice;
    return body(state);
  });
}

CUresult put(char* text, int room, const char* what) {
  if (text == nullptr || room <= 0) return kInvalidValue;
  std::snprintf(text, static_cast<size_t>(room), "%s", what);
  return kSuccess;
}

}  // namespace

CUresult cuInit(unsigned flags) {
  return call(__func__, Needs::kNothing, [&](State& state, Lock&, Context*) -> CUresult {
    if (flags != 0) return kInvalidValue;
    if (state.settings.devices == 0) return kNoDevice;
    state.initialised = true;
    state.used = true;
    return kSuccess;
  });
}

CUresult cuDriverGetVersion(int* out) {
  return call(__func__, Needs::kNothing, [&](State& state, Lock&, Context*) -> CUresult {
    if (out == nullptr) return kInvalidValue;
    *out = state.settings.version;
    return kSuccess;
  });
}

CUresult cuDeviceGetCount(int* out) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    if (out == nullptr) return kInvalidValue;
    *out = state.settings.devices;
    return kSuccess;
  });
}

CUresult cuDeviceGet(CUdevice* out, int ordinal) {
  return of_device(__func__, ordinal, [&](State&) -> CUresult {
    if (out == nullptr) return kInvalidValue;
    *out = ordinal;
    return kSuccess;
  });
}

CUresult cuDeviceGetAttribute(int* out, int attribute, CUdevice device) {
  return of_device(__func__, device, [&](State& state) -> CUresult {
    if (out == nullptr) return kInvalidValue;
    switch (attribute) {
      case kMultiprocessors:
        *out = state.settings.multiprocessors;
        return kSuccess;
      case kVirtualMemory:
      case kDescriptorHandles:
      case kGpuDirectOfVirtualMemory:
        *out = state.settings.chunks ? 1 : 0;
        return kSuccess;
      case kFabricHandles:
        *out = state.settings.chunks && state.settings.fabric != 0 ? 1 : 0;
        return kSuccess;
      case kWritesOrdering:
        *out = state.settings.ordering;
        return kSuccess;
      case kMaxThreadsPerBlock:
        *out = 1024;
        return kSuccess;
      case kUnifiedAddressing:
        *out = 1;
        return kSuccess;
      case kMajor:
        *out = 9;
        return kSuccess;
      case kMinor:
        *out = 0;
        return kSuccess;
      default:
        return kInvalidValue;
    }
  });
}

CUresult cuDeviceGetName(char* text, int room, CUdevice device) {
  return of_device(__func__, device,
                   [&](State&) { return put(text, room, "double of a GPU (libcomm's tests)"); });
}

CUresult cuDeviceGetPCIBusId(char* text, int room, CUdevice device) {
  return of_device(__func__, device, [&](State&) { return put(text, room, kPlaces[device]); });
}

CUresult cuDeviceGetUuid_v2(void* out, CUdevice device) {
  return of_device(__func__, device, [&](State&) -> CUresult {
    if (out == nullptr) return kInvalidValue;
    char uuid[16] = "cuda double GPU";
    uuid[15] = static_cast<char>('0' + device);
    std::memcpy(out, uuid, sizeof uuid);
    return kSuccess;
  });
}

}  // namespace libcomm::cuda::doubled
