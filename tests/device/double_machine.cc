#include "tests/device/double_machine.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/doubles/cuda/control.h"

namespace libcomm::cuda::test {
namespace {

void demand(const Status& status) {
  if (status) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::abort();
}

class DoubleMachine : public Machine {
 public:
  explicit DoubleMachine(int max_ctas) : driver_(*Driver::find()), max_ctas_(max_ctas) {
    check(driver_.primary_retain(&context_, 0));
    check(driver_.context_push(context_));
    check(driver_.stream_create(&stream_, kStreamNonBlocking, 0));
    auto kernels = Kernels::of(driver_, context_);
    demand(kernels.status());
    kernels_ = *std::move(kernels);
  }
  ~DoubleMachine() override {
    kernels_.reset();
    for (const CUdeviceptr memory : memory_) check(driver_.memory_free(memory));
    check(driver_.stream_destroy(stream_));
    CUcontext popped = nullptr;
    check(driver_.context_pop(&popped));
    check(driver_.primary_release(0));
  }

  std::byte* alloc(size_t bytes) override {
    CUdeviceptr made = 0;
    check(driver_.memory_alloc(&made, bytes));
    memory_.push_back(made);
    return static_cast<std::byte*>(pointer_of(made));
  }
  void write(void* to, const void* from, size_t bytes) override {
    cuda_double_write(to, from, bytes);
  }
  void read(void* to, const void* from, size_t bytes) override {
    cuda_double_read(to, from, bytes);
  }
  Status reduce(const ReduceArguments& arguments) override {
    COMM_TRY(kernels_->reduce(arguments, max_ctas_, stream_));
    return driver_.check(driver_.stream_synchronize(stream_), "cuStreamSynchronize");
  }
  Status copy(const CopyArguments& arguments) override {
    COMM_TRY(kernels_->copy(arguments, max_ctas_, stream_));
    return driver_.check(driver_.stream_synchronize(stream_), "cuStreamSynchronize");
  }

 private:
  void check(CUresult result) const { demand(driver_.check(result, "DoubleMachine")); }

  const Driver& driver_;
  int max_ctas_;
  CUcontext context_ = nullptr;
  CUstream stream_ = nullptr;
  std::shared_ptr<const Kernels> kernels_;
  std::vector<CUdeviceptr> memory_;
};

}  // namespace

std::unique_ptr<Machine> double_machine(int max_ctas) {
  return std::make_unique<DoubleMachine>(max_ctas);
}

}  // namespace libcomm::cuda::test
