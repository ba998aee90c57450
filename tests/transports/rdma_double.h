// The controls of the libibverbs double that the transport has opened.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/doubles/ibverbs/control.h"

namespace libcomm::test {

class RdmaDouble {
 public:
  RdmaDouble() : library_(::dlopen("libibverbs.so.1", RTLD_NOW)) {}
  // False where the real library is found: the test was not started by ctest.
  bool here() const { return library_ != nullptr && find("rdma_double_list") != nullptr; }

  std::vector<rdma_double_qp_t> queue_pairs() const {
    std::vector<rdma_double_qp_t> all(4096);
    const int count = call<int (*)(rdma_double_qp_t*, int)>("rdma_double_list")(
        all.data(), static_cast<int>(all.size()));
    all.resize(static_cast<size_t>(count));
    return all;
  }
  rdma_double_qp_t queue_pair(uint32_t number) const {
    rdma_double_qp_t qp{};
    call<int (*)(uint32_t, rdma_double_qp_t*)>("rdma_double_qp")(number, &qp);
    return qp;
  }
  void kill(uint32_t number) const { call<int (*)(uint32_t)>("rdma_double_kill")(number); }
  void keep_receives(uint32_t number) const {
    call<int (*)(uint32_t)>("rdma_double_keep_receives")(number);
  }
  void fail_next(uint32_t number, int status) const {
    call<int (*)(uint32_t, int)>("rdma_double_fail_next")(number, status);
  }
  void hold(uint32_t number, bool sender_times_out) const {
    call<int (*)(uint32_t, int)>("rdma_double_hold")(number, sender_times_out);
  }
  void hold_answers(uint32_t number) const {
    call<int (*)(uint32_t)>("rdma_double_hold_answers")(number);
  }
  void release(uint32_t number) const { call<int (*)(uint32_t)>("rdma_double_release")(number); }
  void port(const char* device, bool up) const {
    call<int (*)(const char*, int, int)>("rdma_double_port")(device, 1, up);
  }
  void receive_rate(const char* device, uint64_t rate) const {
    call<int (*)(const char*, uint64_t)>("rdma_double_receive_rate")(device, rate);
  }
  // Registered regions that overlap the memory.
  int regions(const void* address, size_t bytes) const {
    return call<int (*)(const void*, uint64_t)>("rdma_double_regions")(address, bytes);
  }
  rdma_double_device_t device(const char* name) const {
    rdma_double_device_t device{};
    call<int (*)(const char*, rdma_double_device_t*)>("rdma_double_device")(name, &device);
    return device;
  }

 private:
  void* find(const char* name) const { return ::dlsym(library_, name); }
  template <typename Function>
  Function call(const char* name) const {
    return reinterpret_cast<Function>(find(name));
  }
  void* library_;
};

// Tests that need the double skip without it.
class OnRdmaDouble : public testing::Test {
 protected:
  void SetUp() override {
    if (!double_.here())
      GTEST_SKIP() << "needs the double of libibverbs: run by ctest, which sets LD_LIBRARY_PATH";
  }
  const RdmaDouble double_;
};

// A variable of the double while a world is made.
class WithVariable {
 public:
  WithVariable(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~WithVariable() { ::unsetenv(name_); }

 private:
  const char* name_;
};

}  // namespace libcomm::test
