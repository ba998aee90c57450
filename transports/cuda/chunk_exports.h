// ChunkExports: GPU memory of chunks (cuMemCreate's), which have no CUDA IPC handles, for other
// processes of the host. Each chunk is exported as a file descriptor
// (cuMemExportToShareableHandle), which those fetch from a thread of this process through an
// abstract Unix socket (pass_fd.h). Where the memory is all in one chunk that may have a fabric
// handle (CU_MEM_HANDLE_TYPE_FABRIC), that goes with what is told of it, for those who get no
// descriptor.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "src/base/fd.h"
#include "src/base/status.h"
#include "src/device/address_range.h"
#include "transports/cuda/mapping.h"
#include "transports/pass_fd.h"

namespace libcomm::cuda {

// What one chunk is, as its process tells others with its descriptor.
struct ChunkFacts {
  uint64_t base = 0;  // where it is mapped there
  uint64_t bytes = 0;
  uint64_t id = 0;  // no other chunk of that process has it
};
// The stamp of chunks in order of their addresses.
uint64_t stamp_of(std::span<const ChunkFacts> chunks);

class ChunkExports {
 public:
  // Serves those that show one of the proofs. kSystem.
  static Result<std::unique_ptr<ChunkExports>> start(const Driver& driver, const Nonce& nonce,
                                                     std::vector<Proof> expected);
  ~ChunkExports();

  // Tells of [address, address + bytes), which is all in chunks that may be exported; else false.
  // *is_new: some were not told of before. For one thread at a time.
  bool describe(CUdeviceptr address, size_t bytes, ExportedMemory* memory, bool* is_new);

  // What describe() offers from now on; both at first. Before other threads use it.
  void use(ChunkWays ways) { ways_ = ways; }

  // Nobody is to fetch the chunk at `address` any more. For the same thread.
  void forget(CUdeviceptr address);

 private:
  // The handle keeps the chunk, so that no other can have that handle. The descriptors of the last
  // few that were told of are kept for those who fetch them: to make one then could wait for a call
  // of the program that waits for the GPU, and so for them. Of the others one is made when it is
  // fetched: programs have thousands of chunks.
  static constexpr size_t kMostKept = 16;
  struct Exported {
    ChunkFacts facts;
    std::shared_ptr<const ChunkHandle> handle;
    UniqueFd fd;  // invalid: not kept
    bool has_descriptors = false;
    CUmemFabricHandle fabric{};  // all zero: none
  };
  explicit ChunkExports(const Driver& driver) : driver_(driver) {}
  bool is_current(const Exported& exported) const;
  bool export_chunk(CUdeviceptr address, Exported* exported) const;
  Result<UniqueFd> descriptor_of(const ChunkHandle& chunk) const;
  void add(Exported fresh);
  void forget_one_that_is_gone();
  Result<PassedFd> give(uint64_t address);

  const Driver& driver_;
  ChunkWays ways_;
  std::mutex mutex_;                       // the server's thread reads
  std::map<uint64_t, Exported> exported_;  // by base
  std::deque<uint64_t> kept_;              // bases of those with a descriptor, oldest first
  uint64_t looked_at_ = 0;                 // the base of the last one
  std::unique_ptr<FdServer> server_;
};

}  // namespace libcomm::cuda
