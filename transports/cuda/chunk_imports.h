// ChunkImports: GPU memory of chunks (cuMemCreate's) of another process, mapped into this one. All
// that lies in one range of addresses there lies in one range here, each chunk at the same offset,
// so that buffers may span chunks and no chunk is mapped twice.
//
// A chunk is imported by a descriptor, which its process passes; where that fails, by its fabric
// handle, if the ranks have agreed that these work.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "src/base/status.h"
#include "src/device/address_range.h"
#include "transports/cuda/chunk_exports.h"
#include "transports/cuda/mapping.h"

namespace libcomm::cuda {

class ChunkImports {
 public:
  // The peer's socket, and what to show there.
  ChunkImports(const Driver& driver, CUdevice gpu, const Nonce& nonce, const Proof& proof)
      : driver_(driver), gpu_(gpu), nonce_(nonce), proof_(proof) {}
  // Where `memory`, which has the id kOfChunks, is here. kUnhandledCuda, kSystem.
  // `given_up`: asked while the peer does not answer. `keep`: what keeps it mapped for longer, if
  // it is wanted.
  Result<std::byte*> find(const ExportedMemory& memory, const std::function<bool()>& given_up,
                          std::shared_ptr<const void>* keep = nullptr);
  // How it is to be got from now on; both at first.
  void use(ChunkWays ways) { ways_ = ways; }
  // Lets go of all that is mapped.
  void clear() { mirrors_.clear(); }

 private:
  struct Mirror {
    std::shared_ptr<AddressRange> range;    // left to end_when_idle() when nobody needs it
    std::map<uint64_t, ChunkFacts> chunks;  // by base there
  };
  // What is missing in the mirror. False: another chunk is where a new one must be.
  Result<bool> fill(Mirror* mirror, const ExportedMemory& memory, const ChunkSpan& span,
                    const std::function<bool()>& given_up);
  Result<bool> fill_by_descriptors(Mirror* mirror, const ExportedMemory& memory, uint64_t end,
                                   const std::function<bool()>& given_up) const;
  // One chunk, which has the address. `shared` is what the driver imports, of that type.
  Result<bool> add(Mirror* mirror, const ExportedMemory& memory, uint64_t address,
                   const ChunkFacts& facts, void* shared, int type) const;

  const Driver& driver_;
  const CUdevice gpu_;
  const Nonce nonce_;
  const Proof proof_;
  ChunkWays ways_;
  bool descriptors_failed_ = false;     // where a fabric handle did not
  std::map<uint64_t, Mirror> mirrors_;  // by base there
};

}  // namespace libcomm::cuda
