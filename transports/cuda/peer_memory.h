// PeerMemory: the GPU memory of the ranks of one host, reached by each other's kernels in place.
//
// Ranks that are threads use each other's addresses. Ranks that are processes map each other's
// allocations by CUDA IPC (CUDA Driver API, "cuIpcOpenMemHandle"), or, where these are chunks of
// virtual memory, by file descriptors or fabric handles (chunk_exports.h). They may share one GPU,
// or have GPUs that reach each other (cuDeviceCanAccessPeer), which some machines promise and do
// not keep: with an IOMMU or ACS in the way, bytes get lost. So the ranks prove it to each other
// before they use it, with kernels that read and write each other's memory.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "src/base/knobs.h"
#include "src/base/status.h"
#include "src/bootstrap/bootstrap.h"
#include "src/device/address_range.h"
#include "src/device/driver.h"
#include "src/device/kernels.h"
#include "src/device/memory.h"
#include "src/topology/topology.h"
#include "transports/cuda/chunk_exports.h"
#include "transports/cuda/chunk_imports.h"
#include "transports/cuda/mapping.h"
#include "transports/transport.h"

namespace libcomm::cuda {

// Most ranks that one kernel serves.
inline constexpr int kMostPeers = kMaxSources;

using GpuUuid = std::array<uint64_t, 2>;

// A rank of the group, as all ranks know it.
struct GpuRank {
  PeerFacts facts;
  GpuUuid gpu{};
};

class PeerMemory {
 public:
  // Collective. All ranks are on this host, each with a GPU, whose context is `context` here. Null
  // at all ranks when one of them cannot reach another's memory, and says why in its log (a warning
  // when the proof failed). `ranks` is in order of rank, at most kMostPeers.
  // Errors: those of the bootstrap.
  static Result<std::unique_ptr<PeerMemory>> agree(Bootstrap& bootstrap, const Driver& driver,
                                                   CUcontext context,
                                                   std::span<const GpuRank> ranks,
                                                   const Knobs& knobs);
  // What may wait for the GPU ends later (end_when_idle).
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  // Tells where [address, address + bytes) is, for import() at the other ranks. False when they
  // could not reach it: host memory, memory of another GPU or context, or, where some ranks are
  // other processes or on other GPUs, memory without a CUDA IPC handle (managed, of a pool), and
  // chunks that may not be exported or that other threads' GPUs may not use. For one thread at a
  // time, with context() current.
  bool describe(const void* address, size_t bytes, ExportedMemory* memory);
  // How many allocations it has told of for the first time.
  uint64_t exports() const { return exports_.load(std::memory_order_relaxed); }
  // Where that is in this process. What a rank has described stays mapped for its next use, until
  // the rank describes other memory in its place. For one thread at a time, which may be another,
  // with context() current and outside captures. `keep`: what keeps it mapped for longer, if it is
  // wanted. kUnhandledCuda: it cannot be mapped.
  Result<std::byte*> import(int peer, const ExportedMemory& memory,
                            std::shared_ptr<const void>* keep = nullptr);

  // For the thread that imports: copies on a stream of its own.
  Status copy(void* to, const void* from, size_t bytes);
  Status clear(void* to, size_t bytes);
  CUstream stream() const { return stream_; }
  // finish() was given up.
  bool is_stuck() const { return stuck_; }
  // Waits until the GPU has done them, or `gives_up`. kUnhandledCuda: it has failed. kSystem: given
  // up; then the library does not touch the memory any more, but the GPU still may.
  Status finish(const std::function<bool()>& gives_up);

  const std::shared_ptr<const Kernels>& kernels() const { return kernels_; }
  int max_ctas() const { return max_ctas_; }
  // `given_up` ends import()'s wait for a peer that does not answer. Before the first import().
  void watch(std::function<bool()> given_up) { given_up_ = std::move(given_up); }
  CUcontext context() const { return context_; }
  size_t pinned_bytes() const { return pinned_.size(); }
  // Most blocks of a kernel from now on; at least 1.
  void limit_ctas(int most) { max_ctas_ = most; }

 private:
  PeerMemory(const Driver& driver, CUcontext context, int rank, std::span<const GpuRank> ranks)
      : driver_(driver), context_(context), rank_(rank), ranks_(ranks.begin(), ranks.end()) {}

  // ---- proof.cc: what agree() does --------------------------------------------------------
  struct Offer;
  Status prepare(const Bootstrap& bootstrap, const Knobs& knobs, Offer* mine);
  void offer_chunks(const Bootstrap& bootstrap, Offer* mine);
  Status prove_chunks(const Bootstrap& bootstrap, std::span<const Offer> offers, ChunkWays way);
  void use_chunks(ChunkWays ways);
  void end_trial_chunk();
  Status check_distance(int ordinal, int peer, const Knobs& knobs) const;
  Result<int> ordinal_of(const GpuUuid& gpu) const;
  int device_of(const Topology& topology, int ordinal) const;
  bool has_nvlink(int from, int to) const;
  Status allow_access(std::span<const Offer> offers);
  Status exchange_patterns(std::span<const Offer> offers);
  Status check_patterns();

  bool is_thread(int peer) const;
  bool describe_chunks(CUdeviceptr address, size_t bytes, ExportedMemory* memory);
  bool is_of_chunks_for_threads(CUdeviceptr address, size_t bytes) const;

  const Driver& driver_;
  const CUcontext context_;
  const int rank_;
  const std::vector<GpuRank> ranks_;
  int ordinal_ = -1;
  CUdevice primary_of_ = -1;  // the GPU whose primary context, which this is, we use; -1: another's
  int max_ctas_ = 0;
  bool one_context_ = true;  // all ranks are threads that use this context
  bool one_process_ = true;
  std::vector<CUdevice> thread_gpus_;  // of ranks that are threads: those beside this one's
  bool stuck_ = false;                 // the GPU may still use what is ours
  std::shared_ptr<const Kernels> kernels_;
  CUstream stream_ = nullptr;
  Event done_;

  struct Exported {
    uint64_t id = 0;
    CUipcMemHandle handle{};
  };
  std::map<uint64_t, Exported> exported_;  // by base
  std::atomic<uint64_t> exports_{0};
  // Held by describe(), and by import(): windows are registered while the engine imports.
  std::mutex describing_, importing_;
  // By peer, then by base there.
  std::vector<std::map<uint64_t, std::shared_ptr<const MappedMemory>>> imported_;
  // Null where some rank cannot pass, or get, chunks.
  std::unique_ptr<ChunkExports> chunk_exports_;
  std::map<int, ChunkImports> chunk_imports_;  // by peer

  std::function<bool()> given_up_;  // may be null

  // Of the proof.
  CUdeviceptr pattern_ = 0;   // device memory
  AddressRange trial_chunk_;  // with the same pattern
  PinnedBuffer pinned_;
};

}  // namespace libcomm::cuda
