// ReducePool: helper threads that share the arithmetic of large reductions (COMM_NTHREADS).
//
// The range of elements is cut, not the order of the sources, so the bits are the same with any
// number of threads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "src/base/status.h"
#include "src/reduce/reduce.h"

namespace libcomm {

class ReducePool {
 public:
  // `helpers` threads beside the caller's. kSystem: they cannot be had.
  static Result<std::unique_ptr<ReducePool>> start(int helpers);
  ~ReducePool();
  // As kernel(args), by the caller and the helpers together; one caller at a time.
  void run(ReduceKernel kernel, const ReduceArgs& args, size_t element_bytes);
  int threads() const { return static_cast<int>(threads_.size()); }

 private:
  ReducePool() = default;
  void loop(size_t index);
  // The part of the current work that is thread `index`'s (the caller is the last).
  void do_part(size_t index) const;

  std::mutex mutex_;
  std::condition_variable begin_, end_;
  uint64_t round_ = 0;  // grows with every piece of work
  size_t running_ = 0;
  bool stop_ = false;
  ReduceKernel kernel_ = nullptr;
  ReduceArgs args_;
  size_t element_bytes_ = 1;
  std::vector<std::thread> threads_;
};

// Reduces with the pool if there is one and the work is worth sharing, else in the calling thread.
void reduce_with(ReducePool* pool, ReduceKernel kernel, const ReduceArgs& args,
                 size_t element_bytes);

}  // namespace libcomm
