// DeviceMemory: what a transport must know of GPU memory, and no more: whose it is, how a network
// device gets at it, and how bytes are copied to and from it.
//
// CudaMemory is the one of this process; tests give others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "src/base/fd.h"
#include "src/base/status.h"

namespace libcomm {

class DeviceMemory {
 public:
  struct Place {
    bool on_device = false;  // false: host memory, pinned and managed memory included
    std::string pci;         // of the GPU: "0000:81:00.0"
    // A write by another device is seen by the GPU in the order in which the device made it.
    // Otherwise a read through the same device must follow, before the GPU is told.
    bool writes_ordered = false;
  };
  virtual ~DeviceMemory() = default;
  // Any thread, any pointer.
  virtual bool on_device(const void* address) const = 0;
  virtual Place place(const void* address) const = 0;
  // Copies made by the host before are done when the library uses the allocation at `address` in
  // another way; to be said once of memory that a network device reads or writes.
  virtual void synchronise_copies(const void* address) const = 0;
  // A DMA-BUF that begins at `base`, which like `bytes` is a multiple of the page size. kSystem
  // when driver or kernel cannot make one.
  virtual Result<UniqueFd> export_dmabuf(const void* base, size_t bytes) const = 0;
  // Either may be device memory; blocks until done.
  virtual Status copy(void* dst, const void* src, size_t bytes) const = 0;
};

}  // namespace libcomm
