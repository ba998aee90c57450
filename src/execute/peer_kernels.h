// Peer kernels: a collective by kernels of every rank that read and write the buffers of all ranks
// where they are. No kernel waits for another, so that they may run one after the other, as those
// of ranks that share a GPU do. Each byte of an input is read by one kernel and each byte of an
// output written by one:
//  - what is combined is cut into shares, one for each rank, whose kernel reads them from all
//  inputs
//    and writes them into all outputs (one read and one write of every buffer: the least there is);
//  - what is only moved is fetched by the rank that wants it.
// A kernel reads an element before it writes it, and no other kernel reads it, so the forms in
// place need nothing special.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "src/device/kernels/arguments.h"
#include "src/execute/operation.h"

namespace libcomm {

// The buffers of a rank, as this process reaches them; null where the rank has none.
struct PeerBuffers {
  const std::byte* in = nullptr;
  std::byte* out = nullptr;
  uint64_t scalar = 0;  // of a pre-multiplied operator: the bits of one element
};

// Whether a collective can be done so, whatever the buffers are. The same at all ranks of a call.
bool has_peer_kernels(Collective collective);

// What the kernel of rank `rank` does; nothing where it has no part.
struct PeerKernel {
  std::optional<cuda::ReduceArguments> reduction;
  std::optional<cuda::CopyArguments> copies;
};

// How large that is, which needs no other rank: bytes of each array of a reduction, or of each of
// so many segments. 0: it has no part.
struct PeerKernelSize {
  bool reduces = false;
  int segments = 0;
  size_t bytes = 0;
};
PeerKernelSize peer_kernel_size(const Operation& operation, int rank, int nranks);
PeerKernel peer_kernel(const Operation& operation, int rank, std::span<const PeerBuffers> buffers);

}  // namespace libcomm
