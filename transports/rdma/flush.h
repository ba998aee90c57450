// Flush: makes sure that what network devices have written into GPU memory is there.
//
// A completion lies in host memory, the bytes it speaks of in the GPU's: on their ways over PCIe
// the two are not ordered. A read of the GPU's memory through the same device is: it comes back
// only after the writes before it. So each rail has a queue pair that is connected to itself, and
// reads one byte of what was written before the segment is handed over.
#pragma once

#include <memory>
#include <vector>

#include "transports/rdma/pinned.h"
#include "transports/rdma/queue_pair.h"

namespace libcomm::rdma {

struct Registration;

class Flush {
 public:
  static Result<std::unique_ptr<Flush>> create(const std::vector<std::shared_ptr<Nic>>& rails,
                                               const Options& options,
                                               std::shared_ptr<Counters> counters);
  ~Flush();
  Flush(const Flush&) = delete;
  Flush& operator=(const Flush&) = delete;

  // Reads a byte at `address` of the registered memory through every rail. None is under way.
  Status begin(const Registration& memory, const std::byte* address);
  bool under_way() const { return awaited_ > 0; }
  // Takes what has come back; under_way() says whether something is missing.
  Status progress();

 private:
  struct Rail {
    std::shared_ptr<Nic> nic;
    Cq cq;
    std::unique_ptr<QueuePair> qp;  // goes before its queue
  };
  explicit Flush(std::shared_ptr<Counters> counters) : counters_(std::move(counters)) {}

  const std::shared_ptr<Counters> counters_;
  std::unique_ptr<PinnedMemory> landing_;
  std::vector<Rail> rails_;
  int awaited_ = 0;
};

}  // namespace libcomm::rdma
