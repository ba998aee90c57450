// The memory that the driver knows, and who may touch it.
//
// Device memory is a memfd: mapped without access at the address that programs see, so that a
// processor that takes it for host memory ends at once, and once more (the shadow) for what runs on
// the device. What was freed stays reserved without access for a while, so that a later use is
// noticed. Everything here is called with the lock of the state held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>

#include "tests/doubles/cuda/calls.h"

namespace libcomm::cuda::doubled {

struct Context;
struct State;

// Memory of cuMemCreate, which is there as long as a handle or a mapping is.
struct Chunk {
  Chunk() = default;
  ~Chunk();
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;

  CUmemHandle handle = 0;
  int references = 0;  // to the handle
  int fd = -1;
  size_t bytes = 0;
  int ordinal = 0;
  int handle_types = 0;
};

// Addresses of cuMemAddressReserve, and where what is mapped there is touched.
struct Reservation {
  std::byte* base = nullptr;
  std::byte* shadow = nullptr;
  size_t bytes = 0;
};

struct Region {
  enum class Kind { kDevice, kImported, kMapped, kPinned, kRegistered, kManaged };

  Region() = default;
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  bool on_device() const {
    return kind == Kind::kDevice || kind == Kind::kImported || kind == Kind::kMapped;
  }

  Kind kind = Kind::kDevice;
  std::byte* base = nullptr;
  std::byte* shadow = nullptr;  // where it is touched: base itself for host memory
  size_t bytes = 0;             // as asked for
  size_t mapped = 0;            // whole pages
  int fd = -1;                  // of device memory
  int ordinal = 0;              // of the GPU that has it
  uint64_t token = 0;           // names the memory among all processes
  Context* context = nullptr;   // null: of none, as memory of a pool
  bool portable = true;         // pinned for all contexts
  int opened = 0;               // how often an imported one was
  bool freed = false;
  // Of a mapped one, which lies in a reservation.
  std::shared_ptr<Chunk> chunk;
  std::set<int> allowed;  // the GPUs that may touch it
};
using RegionRef = std::shared_ptr<Region>;

class Memory {
 public:
  // Null: no memory left.
  RegionRef add_device(size_t bytes, int ordinal, Context* context);
  RegionRef add_imported(int fd, size_t bytes, int ordinal, uint64_t token, Context* context);
  RegionRef add_host(Region::Kind kind, size_t bytes, Context* context);
  RegionRef add_registered(void* base, size_t bytes, bool portable, Context* context);
  // cuMemAddressReserve, cuMemAddressFree (false: it is no whole empty one), cuMemMap.
  std::byte* reserve(size_t bytes, size_t alignment);
  bool free_reserved(const void* base, size_t bytes);
  const Reservation* reservation_of(const void* pointer) const;
  RegionRef map_chunk(const Reservation& at, std::byte* base, const std::shared_ptr<Chunk>& chunk);
  void remove(const RegionRef& region);

  // Null: no live memory of the driver.
  RegionRef find(const void* pointer) const;
  // The live region that [base, base + bytes) meets.
  RegionRef meeting(const void* base, size_t bytes) const;
  bool was_freed(const void* pointer) const;
  const std::map<const std::byte*, RegionRef>& live() const { return live_; }

 private:
  void retire(const Region& region);

  struct Retired {
    std::byte* base;
    size_t mapped;
  };
  std::map<const std::byte*, RegionRef> live_;
  std::map<const std::byte*, Reservation> reserved_;
  std::deque<Retired> retired_;
};

// A range as an operation on a device reaches it. Without a region it is pageable host memory.
struct Reach {
  std::byte* at = nullptr;
  RegionRef region;
  bool pageable() const { return region == nullptr; }
  bool on_device() const {
    return region != nullptr && (region->on_device() || region->kind == Region::Kind::kManaged);
  }
};

// The range for an operation of `context`, or kIllegalAddress (see misuse) for one that is freed,
// outside of its allocation or out of that context's reach. A null context reaches all devices.
CUresult reach(State& state, Context* context, const void* pointer, size_t bytes, Reach* out,
               bool copies = false);

size_t whole_pages(size_t bytes);

}  // namespace libcomm::cuda::doubled
