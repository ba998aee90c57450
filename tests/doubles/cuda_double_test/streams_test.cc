// Streams, events, waits on memory and host functions: what is ordered with what.
#include <thread>

#include "tests/doubles/cuda_double_test/program.h"

namespace libcomm::cuda::test {
namespace {

class Streams : public Program {
 protected:
  // Work that is put into `second` ends although `first` is held up.
  void expect_independent(CUstream first, CUstream second) {
    cuda_double_pause(first);
    std::atomic<int> held = 0, ran = 0;
    CUDA_OK(count_in(first, &held));
    CUDA_OK(count_in(second, &ran));
    CUDA_GIVES(d.stream_query(first), kNotReady);
    CUDA_OK(d.stream_synchronize(second));
    EXPECT_EQ(ran, 1);
    EXPECT_EQ(held, 0);
    cuda_double_resume(first);
    CUDA_OK(d.stream_synchronize(first));
    EXPECT_EQ(held, 1);
  }
  // It does not, while other streams go on.
  void expect_ordered(CUstream first, CUstream second) {
    const CUstream third = stream();
    cuda_double_pause(first);
    std::atomic<int> held = 0, ran = 0, other = 0;
    CUDA_OK(count_in(first, &held));
    CUDA_OK(count_in(second, &ran));
    for (int i = 0; i < 20; ++i) {
      CUDA_OK(count_in(third, &other));
      CUDA_OK(d.stream_synchronize(third));
    }
    CUDA_GIVES(d.stream_query(second), kNotReady);
    EXPECT_EQ(ran, 0);
    cuda_double_resume(first);
    CUDA_OK(d.stream_synchronize(second));
    EXPECT_EQ(held, 1);
    EXPECT_EQ(ran, 1);
    CUDA_OK(d.stream_destroy(third));
  }
};

TEST_F(Streams, RunInOrderAndOnTheirOwn) {
  const CUstream first = stream(), second = stream();
  std::vector<int> order;
  struct Entry {
    std::vector<int>* order;
    int number;
  };
  std::vector<Entry> entries;
  for (int i = 0; i < 50; ++i) entries.push_back({&order, i});
  for (Entry& each : entries) {
    CUDA_OK(d.host_function(
        first,
        [](void* at) {
          const auto* entry = static_cast<Entry*>(at);
          entry->order->push_back(entry->number);
        },
        &each));
  }
  CUDA_OK(d.stream_synchronize(first));
  ASSERT_EQ(order.size(), 50u);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[i], i);
  expect_independent(first, second);
  CUDA_OK(d.stream_destroy(first));
  CUDA_OK(d.stream_destroy(second));
}

TEST_F(Streams, TheDefaultStreamIsOrderedWithBlockingStreamsAlone) {
  const CUstream blocking = stream(0), other = stream(0), free = stream();
  expect_ordered(nullptr, blocking);
  expect_ordered(blocking, kLegacyStream);
  expect_independent(nullptr, free);
  expect_independent(free, nullptr);
  expect_independent(blocking, other);
  expect_ordered(nullptr, kPerThreadStream);
  expect_independent(blocking, kPerThreadStream);
  for (const CUstream each : {blocking, other, free}) CUDA_OK(d.stream_destroy(each));
}

TEST_F(Streams, EachThreadHasADefaultStreamOfItsOwn) {
  cuda_double_pause(kPerThreadStream);
  std::atomic<int> mine = 0, theirs = 0;
  CUDA_OK(count_in(kPerThreadStream, &mine));
  std::thread([&] {
    CUDA_OK(a.context_set(contexts[0]));
    CUDA_OK(count_in(kPerThreadStream, &theirs));
    CUDA_OK(d.stream_synchronize(kPerThreadStream));
    EXPECT_EQ(theirs, 1);
  }).join();
  EXPECT_EQ(mine, 0);
  cuda_double_resume(kPerThreadStream);
  CUDA_OK(d.stream_synchronize(kPerThreadStream));
  EXPECT_EQ(mine, 1);
}

TEST_F(Streams, EventsOrderThem) {
  const CUstream first = stream(), second = stream();
  const CUevent done = event();
  std::atomic<int> ran = 0;
  CUDA_OK(d.event_query(done));  // never recorded
  CUDA_OK(d.stream_wait_event(second, done, 0));
  CUDA_OK(count_in(second, &ran));
  CUDA_OK(d.stream_synchronize(second));
  cuda_double_pause(first);
  CUDA_OK(d.event_record(done, first));
  CUDA_GIVES(d.event_query(done), kNotReady);
  CUDA_OK(d.stream_wait_event(second, done, 0));
  CUDA_OK(count_in(second, &ran));
  CUDA_GIVES(d.stream_query(second), kNotReady);
  EXPECT_EQ(ran, 1);
  cuda_double_resume(first);
  CUDA_OK(d.stream_synchronize(second));
  EXPECT_EQ(ran, 2);
  CUDA_OK(d.event_query(done));
  CUDA_OK(d.event_synchronize(done));
  CUDA_OK(d.event_destroy(done));
  CUDA_OK(d.stream_destroy(first));
  CUDA_OK(d.stream_destroy(second));
}

TEST_F(Streams, ADestroyedStreamEndsItsWork) {
  const CUstream on = stream();
  const CUevent done = event();
  std::atomic<int> ran = 0;
  cuda_double_pause(on);
  CUDA_OK(count_in(on, &ran));
  CUDA_OK(d.event_record(done, on));
  cuda_double_resume(on);
  CUDA_OK(d.stream_destroy(on));
  EXPECT_EQ(cuda_double_count("streams"), 0u);
  CUDA_OK(d.event_synchronize(done));
  EXPECT_EQ(ran, 1);
  CUDA_OK(d.event_destroy(done));
}

TEST_F(Streams, WaitForWordsThatStreamsAndProcessorsWrite) {
  uint32_t* host = pinned<uint32_t>();
  const CUdeviceptr device = device_memory();
  const CUstream first = stream(), second = stream();
  std::atomic<int> ran = 0;
  *host = 0xfffffff0;
  // At least, as far as numbers that wrap go: 2 follows 0xfffffff0.
  CUDA_OK(d.stream_wait_value(first, number_of(host), 2, kWaitGreaterOrEqual));
  CUDA_OK(count_in(first, &ran));
  CUDA_OK(d.stream_write_value(first, device + 8, 7, 0));
  CUDA_OK(d.stream_wait_value(second, device + 8, 7, kWaitEqual));
  CUDA_OK(count_in(second, &ran));
  EXPECT_EQ(ran, 0);
  CUDA_GIVES(d.stream_query(second), kNotReady);
  std::atomic_ref(*host).store(5, std::memory_order_release);
  CUDA_OK(d.stream_synchronize(second));
  EXPECT_EQ(ran, 2);
  CUDA_GIVES(d.stream_wait_value(first, device + 2, 1, kWaitEqual), kInvalidValue);
  CUDA_GIVES(d.stream_wait_value(first, device, 1, 9), kInvalidValue);
  CUDA_OK(d.stream_destroy(first));
  CUDA_OK(d.stream_destroy(second));
  CUDA_OK(d.memory_free(device));
  CUDA_OK(d.host_free(host));
}

TEST_F(Streams, OneThreadRunsAllHostFunctions) {
  const CUstream first = stream(), second = stream();
  struct Held {
    std::atomic<bool> entered{false}, go{false};
    std::atomic<int> ran{0};
  } held;
  CUDA_OK(d.host_function(
      first,
      [](void* at) {
        auto* all = static_cast<Held*>(at);
        all->entered = true;
        while (!all->go) std::this_thread::yield();
      },
      &held));
  while (!held.entered) std::this_thread::yield();
  CUDA_OK(count_in(second, &held.ran));
  // The stream that is free shows that time goes on.
  const CUdeviceptr device = device_memory();
  const CUstream third = stream();
  for (int i = 0; i < 20; ++i) {
    CUDA_OK(d.set_async(device, 1, kBytes, third));
    CUDA_OK(d.stream_synchronize(third));
  }
  CUDA_GIVES(d.stream_query(second), kNotReady);
  EXPECT_EQ(held.ran, 0);
  held.go = true;
  CUDA_OK(a.context_synchronize());
  EXPECT_EQ(held.ran, 1);
  CUDA_OK(d.stream_destroy(third));
  CUDA_OK(d.memory_free(device));
  CUDA_OK(d.stream_destroy(first));
  CUDA_OK(d.stream_destroy(second));
}

TEST_F(Streams, ThatShareAHardwareQueueHoldEachOtherUp) {
  uint32_t* word = pinned<uint32_t>();
  *word = 0;
  cuda_double_set("channels", 2);
  const CUstream streams[] = {stream(), stream(), stream()};  // the third shares the first's
  cuda_double_set("channels", 0);
  std::atomic<int> ran[2] = {};
  CUDA_OK(d.stream_wait_value(streams[0], number_of(word), 1, kWaitEqual));
  CUDA_OK(count_in(streams[2], &ran[0]));
  CUDA_OK(count_in(streams[1], &ran[1]));
  CUDA_OK(d.stream_synchronize(streams[1]));
  CUDA_GIVES(d.stream_query(streams[2]), kNotReady);
  EXPECT_EQ(ran[0], 0);
  EXPECT_EQ(ran[1], 1);
  std::atomic_ref(*word).store(1, std::memory_order_release);
  CUDA_OK(d.stream_synchronize(streams[2]));
  EXPECT_EQ(ran[0], 1);
  for (const CUstream each : streams) CUDA_OK(d.stream_destroy(each));
  CUDA_OK(d.host_free(word));
}

TEST_F(Streams, CopiesBetweenDeviceMemoryAreNotAwaitedByTheirCall) {
  const CUdeviceptr from = device_memory(), to = device_memory();
  cuda_double_pause(nullptr);
  const uint64_t before = cuda_double_count("d2d"), calls = cuda_double_copies();
  CUDA_OK(d.copy(to, from, kBytes));
  EXPECT_EQ(cuda_double_count("d2d"), before);
  EXPECT_EQ(cuda_double_copies(), calls + 1);
  cuda_double_resume(nullptr);
  CUDA_OK(d.stream_synchronize(nullptr));
  EXPECT_EQ(cuda_double_count("d2d"), before + 1);
  CUDA_OK(d.memory_free(from));
  CUDA_OK(d.memory_free(to));
}

TEST_F(Streams, NeedAContextAndKnowTheirOwn) {
  const CUstream on = stream();
  const CUevent of_first = event();
  CUcontext found = nullptr;
  CUDA_OK(d.context_push(contexts[1]));
  CUDA_OK(d.stream_context(on, &found));
  EXPECT_EQ(found, contexts[0]);
  CUDA_OK(d.stream_context(nullptr, &found));
  EXPECT_EQ(found, contexts[1]);
  std::atomic<int> ran = 0;
  CUDA_GIVES(count_in(on, &ran), kInvalidHandle);
  CUDA_GIVES(d.event_record(of_first, nullptr), kInvalidHandle);  // a stream of another GPU
  CUDA_OK(d.stream_wait_event(nullptr, of_first, 0));             // which may wait, though
  CUDA_OK(d.context_pop(&found));
  EXPECT_EQ(found, contexts[1]);
  CUdevice device = -1;
  CUDA_OK(d.context_device(&device));
  EXPECT_EQ(device, 0);
  std::thread([&] {
    CUstream made = nullptr;
    CUdeviceptr memory = 0;
    CUDA_GIVES(a.stream_create_simple(&made, 0), kInvalidContext);
    CUDA_GIVES(d.memory_alloc(&memory, 1), kInvalidContext);
    CUDA_GIVES(d.stream_synchronize(on), kInvalidContext);
    CUDA_GIVES(d.context_pop(&found), kInvalidContext);
    CUDA_OK(d.stream_context(on, &found));  // of the stream, not of the thread
    CUDA_OK(d.context_current(&found));
    EXPECT_EQ(found, nullptr);
  }).join();
  CUDA_OK(d.event_destroy(of_first));
  CUDA_OK(d.stream_destroy(on));
}

}  // namespace
}  // namespace libcomm::cuda::test
