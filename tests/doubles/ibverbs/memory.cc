#include "tests/doubles/ibverbs/memory.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "tests/doubles/ibverbs/node.h"
#include "tests/doubles/ibverbs/rules.h"

namespace rdma_double {
namespace {

constexpr unsigned kKnownAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                                  IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
                                  IBV_ACCESS_MW_BIND | IBV_ACCESS_ZERO_BASED |
                                  IBV_ACCESS_OPTIONAL_RANGE;

// Whether the process has mapped all of [begin, end) with the access.
bool mapped(uintptr_t begin, uintptr_t end, bool writable) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; begin < end && std::getline(maps, line);) {
    unsigned long long first = 0, last = 0;
    char access[5] = "";
    if (std::sscanf(line.c_str(), "%llx-%llx %4s", &first, &last, access) != 3) return false;
    if (first <= begin && begin < last) {
      if (access[0] != 'r' || (writable && access[1] != 'w')) return false;
      begin = last;
    }
  }
  return begin >= end;
}

// Brings the pages in as pinning does; false if some are not mapped, or not writable where they
// must be.
bool pages_there(void* address, size_t length, bool writable) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address) & ~(page - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(address) + length + page - 1) & ~(page - 1);
  const int advice = writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
  // Kernels before 5.14 and mappings of devices refuse the advice.
  return ::madvise(reinterpret_cast<void*>(begin), end - begin, advice) == 0 ||
         mapped(begin, end, writable);
}

Mr* enter(Pd& pd, std::byte* base, size_t length, uint64_t iova, unsigned access) {
  Device& device = *pd.owner->on;
  const Config& c = config();
  if ((access & ~kKnownAccess) != 0) {
    violation(EINVAL, "registration with unknown access flags 0x%x", access & ~kKnownAccess);
    return nullptr;
  }
  if ((access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) != 0 &&
      (access & IBV_ACCESS_LOCAL_WRITE) == 0) {
    violation(EINVAL, "registration with remote write access needs local write access, too");
    return nullptr;
  }
  if (device.regions >= c.max_mr ||
      (c.memlock > 0 && device.registered_bytes + length > c.memlock)) {
    refuse(ENOMEM);
    return nullptr;
  }
  Mr& mr = pd.node->make<Mr>(pd.owner);
  mr.context = pd.context;
  mr.pd = &pd;
  mr.addr = base;
  mr.length = length;
  mr.iova = (access & IBV_ACCESS_ZERO_BASED) != 0 ? 0 : iova;
  mr.base = base;
  mr.access_flags = access;
  pd.node->add_region(mr);
  ++pd.regions;
  ++device.regions;
  ++device.counters.registrations;
  device.registered_bytes += length;
  return &mr;
}

// Why a queue pair still needs the region; empty if none does.
std::string user_of(Node& node, const Mr& mr) {
  const auto uses = [&](const std::vector<ibv_sge>& pieces) {
    return std::any_of(pieces.begin(), pieces.end(),
                       [&](const ibv_sge& piece) { return piece.lkey == mr.lkey; });
  };
  for (const auto& [number, qp] : node.queue_pairs()) {
    for (const SendRequest& request : qp->sends) {
      if (request.inline_bytes.empty() && uses(request.pieces))
        return text("send request %llu of queue pair %u",
                    static_cast<unsigned long long>(request.id), number);
    }
    for (const ReceiveRequest& request : qp->receives) {
      if (uses(request.pieces))
        return text("posted receive %llu of queue pair %u",
                    static_cast<unsigned long long>(request.id), number);
    }
  }
  return {};
}

// The copy of words; `order` is that of the stores into shared memory.
template <bool kStoresAreShared>
void copy_words(std::byte* to, const std::byte* from, size_t bytes) {
  const auto shared = reinterpret_cast<uintptr_t>(kStoresAreShared ? to : from);
  const auto one = [&] {
    uint8_t value;
    if constexpr (kStoresAreShared) {
      std::memcpy(&value, from, 1);
      __atomic_store_n(reinterpret_cast<uint8_t*>(to), value, __ATOMIC_RELEASE);
    } else {
      value = __atomic_load_n(reinterpret_cast<const uint8_t*>(from), __ATOMIC_ACQUIRE);
      std::memcpy(to, &value, 1);
    }
    ++to, ++from, --bytes;
  };
  for (size_t head = (8 - shared % 8) % 8; head > 0 && bytes > 0; --head) one();
  while (bytes >= 8) {
    uint64_t value;
    if constexpr (kStoresAreShared) {
      std::memcpy(&value, from, 8);
      __atomic_store_n(reinterpret_cast<uint64_t*>(to), value, __ATOMIC_RELEASE);
    } else {
      value = __atomic_load_n(reinterpret_cast<const uint64_t*>(from), __ATOMIC_ACQUIRE);
      std::memcpy(to, &value, 8);
    }
    to += 8, from += 8, bytes -= 8;
  }
  while (bytes > 0) one();
}

// What the double of the CUDA driver has at this address: a descriptor, or -1.
int exported_by_cuda(const void* address, size_t length) {
  void* cuda = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  if (cuda == nullptr) return -1;
  void* symbol = ::dlsym(cuda, "cuda_double_export");
  ::dlclose(cuda);
  if (symbol == nullptr) return -1;
  return reinterpret_cast<int (*)(const void*, size_t)>(symbol)(address, length);
}

// Memory of a file that stands for a GPU's, from the descriptor's file offset and `offset` on.
Mr* register_file(Pd& pd, int fd, uint64_t offset, size_t length, uint64_t iova, unsigned access) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    refuse(EBADF);
    return nullptr;
  }
  offset += static_cast<uint64_t>(::lseek(fd, 0, SEEK_CUR));
  const size_t size = static_cast<size_t>(status.st_size);
  if (length == 0 || offset > size || length > size - offset || iova % 4096 != offset % 4096) {
    refuse(EINVAL);
    return nullptr;
  }
  const bool writable = (access & IBV_ACCESS_LOCAL_WRITE) != 0;
  void* mapping = ::mmap(nullptr, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
  if (mapping == MAP_FAILED) {
    refuse(EINVAL);
    return nullptr;
  }
  Mr* mr = enter(pd, static_cast<std::byte*>(mapping) + offset, length, iova, access);
  if (mr == nullptr) {
    ::munmap(mapping, size);
    return nullptr;
  }
  mr->mapping = mapping;
  mr->mapping_length = size;
  mr->late = config().late_gpu;
  return mr;
}

}  // namespace

void settle_late_writes(Device& device) {
  for (const LateWrite& write : device.late)
    write_memory(write.to, write.bytes.data(), write.bytes.size());
  device.late.clear();
}

void write_remote(Node& node, uint32_t rkey, std::byte* to, const std::byte* from, size_t bytes) {
  Mr* mr = node.region_of_rkey(rkey);
  if (mr == nullptr || !mr->late) return write_memory(to, from, bytes);
  mr->owner->on->late.push_back({to, std::vector<std::byte>(from, from + bytes)});
}

Mr* register_memory(Pd& pd, void* address, size_t length, uint64_t iova, unsigned access) {
  if (length == 0 || address == nullptr) {
    refuse(EINVAL);
    return nullptr;
  }
  if (const int fd = config().peermem ? exported_by_cuda(address, length) : -1; fd >= 0) {
    Mr* mr = register_file(pd, fd, 0, length, iova, access);
    ::close(fd);
    if (mr != nullptr) mr->addr = address;
    return mr;
  }
  if (!pages_there(address, length, (access & IBV_ACCESS_LOCAL_WRITE) != 0)) {
    refuse(EFAULT);
    return nullptr;
  }
  return enter(pd, static_cast<std::byte*>(address), length, iova, access);
}

Mr* register_dmabuf(Pd& pd, uint64_t offset, size_t length, uint64_t iova, int fd,
                    unsigned access) {
  if (config().lack("dmabuf")) {
    refuse(EOPNOTSUPP);
    return nullptr;
  }
  Mr* mr = register_file(pd, fd, offset, length, iova, access);
  if (mr != nullptr) mr->addr = reinterpret_cast<void*>(offset);
  return mr;
}

int deregister_memory(Mr& mr) {
  if (config().strict) {
    const std::string user = user_of(*mr.node, mr);
    if (!user.empty())
      fatal("memory region %p+%zu (lkey 0x%x) is deregistered while %s uses it", mr.addr, mr.length,
            mr.lkey, user.c_str());
  }
  if (mr.late) settle_late_writes(*mr.owner->on);
  mr.node->remove_region(mr);
  mr.live = false;
  --mr.domain().regions;
  Device& device = *mr.owner->on;
  --device.regions;
  device.registered_bytes -= mr.length;
  if (mr.mapping != nullptr) ::munmap(mr.mapping, mr.mapping_length);
  mr.mapping = nullptr;
  return 0;
}

std::byte* local_memory(Node& node, const Pd& pd, const ibv_sge& piece, unsigned access,
                        std::string* why) {
  Mr* mr = node.region_of_lkey(piece.lkey);
  if (mr == nullptr) {
    *why = text("lkey 0x%x is no key of a registered region", piece.lkey);
    return nullptr;
  }
  if (mr->pd != &pd) {
    *why = text("lkey 0x%x is of another protection domain", piece.lkey);
    return nullptr;
  }
  if (piece.addr < mr->iova || piece.length > mr->length ||
      piece.addr - mr->iova > mr->length - piece.length) {
    *why = text("0x%llx+%u is outside of region 0x%llx+%zu (lkey 0x%x)",
                static_cast<unsigned long long>(piece.addr), piece.length,
                static_cast<unsigned long long>(mr->iova), mr->length, piece.lkey);
    return nullptr;
  }
  if ((mr->access_flags & access) != access) {
    *why = text("lkey 0x%x has no local write access", piece.lkey);
    return nullptr;
  }
  if (mr->late && access == 0) settle_late_writes(*mr->owner->on);
  return mr->base + (piece.addr - mr->iova);
}

std::byte* remote_memory(Node& node, const Pd& pd, uint32_t rkey, uint64_t address, uint64_t length,
                         unsigned access) {
  Mr* mr = node.region_of_rkey(rkey);
  if (mr == nullptr || mr->pd != &pd || (mr->access_flags & access) != access) return nullptr;
  if (address < mr->iova || length > mr->length || address - mr->iova > mr->length - length)
    return nullptr;
  if (mr->late && access == IBV_ACCESS_REMOTE_READ) settle_late_writes(*mr->owner->on);
  return mr->base + (address - mr->iova);
}

void write_memory(std::byte* to, const std::byte* from, size_t bytes) {
  copy_words<true>(to, from, bytes);
}

void read_memory(std::byte* to, const std::byte* from, size_t bytes) {
  copy_words<false>(to, from, bytes);
}

}  // namespace rdma_double
