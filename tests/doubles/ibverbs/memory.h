// Which bytes a key opens, and how the NIC touches memory: in address order, each word whole and
// released after those before it. That is what NICs do within a message and what programs that poll
// memory for a flag rely on; ThreadSanitizer understands it, too.
#pragma once

#include <string>

#include "tests/doubles/ibverbs/objects.h"

namespace rdma_double {

class Node;

// Registers [address, address + length) as [iova, ...); null with errno set if refused.
Mr* register_memory(Pd& pd, void* address, size_t length, uint64_t iova, unsigned access);
Mr* register_dmabuf(Pd& pd, uint64_t offset, size_t length, uint64_t iova, int fd, unsigned access);
int deregister_memory(Mr& mr);

// Null and a sentence in `why` when the piece may not be used with `access`.
std::byte* local_memory(Node& node, const Pd& pd, const ibv_sge& piece, unsigned access,
                        std::string* why);
// Null when the key does not allow it.
std::byte* remote_memory(Node& node, const Pd& pd, uint32_t rkey, uint64_t address, uint64_t length,
                         unsigned access);

// A remote write that remote_memory() has allowed. Into GPU memory it may be late.
void write_remote(Node& node, uint32_t rkey, std::byte* to, const std::byte* from, size_t bytes);
void settle_late_writes(Device& device);

void write_memory(std::byte* to, const std::byte* from, size_t bytes);
void read_memory(std::byte* to, const std::byte* from, size_t bytes);

}  // namespace rdma_double
