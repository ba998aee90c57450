#include "src/execute/reduce_pool.h"

#include <algorithm>

#include "src/base/thread.h"

namespace libcomm {
namespace {

constexpr size_t kWorthSharing = size_t{256} << 10;  // bytes: waking a thread costs some of these
constexpr size_t kLineBytes = 64;

char* at(const void* base, size_t bytes) {
  return static_cast<char*>(const_cast<void*>(base)) + bytes;
}

}  // namespace

Result<std::unique_ptr<ReducePool>> ReducePool::start(int helpers) {
  std::unique_ptr<ReducePool> pool(new ReducePool);
  // All places first: the helpers read how many there are.
  pool->threads_.resize(static_cast<size_t>(helpers));
  for (size_t i = 0; i < pool->threads_.size(); ++i) {
    auto thread = start_thread("comm-reduce", [raw = pool.get(), i] { raw->loop(i); });
    if (!thread) return std::move(thread).status().context("COMM_NTHREADS");
    pool->threads_[i] = *std::move(thread);
  }
  return pool;
}

ReducePool::~ReducePool() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  begin_.notify_all();
  for (std::thread& thread : threads_)
    if (thread.joinable()) thread.join();
}

void ReducePool::do_part(size_t index) const {
  const size_t parts = threads_.size() + 1;
  const size_t line = std::max<size_t>(1, kLineBytes / element_bytes_);
  const size_t each = ((args_.count + parts - 1) / parts + line - 1) / line * line;
  const size_t begin = std::min(index * each, args_.count);
  const size_t end = std::min(begin + each, args_.count);
  if (begin == end) return;
  const size_t shift = begin * element_bytes_;
  std::vector<const void*> sources;
  for (int i = 0; i < args_.source_count; ++i) sources.push_back(at(args_.sources[i], shift));
  ReduceArgs part = args_;
  part.dst = at(args_.dst, shift);
  if (args_.dst2 != nullptr) part.dst2 = at(args_.dst2, shift);
  part.sources = sources.data();
  part.count = end - begin;
  kernel_(part);
}

void ReducePool::run(ReduceKernel kernel, const ReduceArgs& args, size_t element_bytes) {
  {
    std::lock_guard lock(mutex_);
    kernel_ = kernel;
    args_ = args;
    element_bytes_ = element_bytes;
    running_ = threads_.size();
    ++round_;
  }
  begin_.notify_all();
  do_part(threads_.size());
  std::unique_lock lock(mutex_);
  end_.wait(lock, [&] { return running_ == 0; });
}

void ReducePool::loop(size_t index) {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    begin_.wait(lock, [&] { return stop_ || round_ != seen; });
    if (stop_) return;
    seen = round_;
    lock.unlock();
    do_part(index);
    lock.lock();
    if (--running_ == 0) end_.notify_all();
  }
}

void reduce_with(ReducePool* pool, ReduceKernel kernel, const ReduceArgs& args,
                 size_t element_bytes) {
  if (pool != nullptr && args.count * element_bytes >= kWorthSharing) {
    pool->run(kernel, args, element_bytes);
  } else {
    kernel(args);
  }
}

}  // namespace libcomm
