// Capture of streams into graphs, their launches, and what a capture forbids.
#include <thread>

#include "tests/doubles/cuda_double_test/program.h"

namespace libcomm::cuda::test {
namespace {

class Capture : public Program {
 protected:
  void SetUp() override {
    Program::SetUp();
    on = stream();
  }
  void TearDown() override {
    CUDA_OK(d.stream_destroy(on));
    Program::TearDown();
  }
  int status(CUstream of) {
    int found = -1;
    CUDA_OK(d.stream_capturing(of, &found));
    return found;
  }
  // The capture in `on` is invalid, and ends so.
  void ends_invalid() {
    EXPECT_EQ(status(on), kCaptureIsInvalid);
    CUgraph graph = &graph;
    CUDA_GIVES(a.end_capture(on, &graph), kCaptureInvalidated);
    EXPECT_EQ(graph, nullptr);
    EXPECT_EQ(status(on), kNotCapturing);
  }
  // The executable graph of what `on` captured.
  CUgraphExec finish() {
    CUgraph graph = nullptr;
    CUgraphExec executable = nullptr;
    CUDA_OK(a.end_capture(on, &graph));
    CUDA_OK(a.instantiate(&executable, graph, 0));
    CUDA_OK(a.graph_destroy(graph));
    return executable;
  }

  CUstream on = nullptr;
};

TEST_F(Capture, RecordsAndReplaysAllStreamsOfItInTheirOrder) {
  const CUstream side = stream();
  const CUevent fork = event(), join = event();
  const CUdeviceptr device = device_memory();
  uint32_t* host = pinned<uint32_t>();
  std::atomic<int> ran = 0;
  CUDA_OK(a.begin_capture(on, kCaptureGlobal));
  CUDA_OK(d.set_async(device, 1, kBytes, on));
  CUDA_OK(d.event_record(fork, on));
  CUDA_OK(d.stream_wait_event(side, fork, 0));
  EXPECT_EQ(status(side), kCapturing);
  // The first stream waits in the graph for what the other one does.
  CUDA_OK(d.stream_wait_value(on, device + 4, 7, kWaitEqual));
  CUDA_OK(d.copy_async(number_of(host), device, 4, side));
  CUDA_OK(count_in(side, &ran));
  CUDA_OK(d.stream_write_value(side, device + 4, 7, 0));
  CUDA_OK(d.event_record(join, side));
  CUDA_OK(d.stream_wait_event(on, join, 0));
  CUDA_OK(d.copy_async(number_of(host + 1), device + 4, 4, on));
  const CUgraphExec graph = finish();
  EXPECT_EQ(status(side), kNotCapturing);
  EXPECT_EQ(ran, 0);
  for (int i = 1; i <= 3; ++i) {
    host[0] = host[1] = 0;
    CUDA_OK(a.graph_launch(graph, on));
    CUDA_OK(d.stream_synchronize(on));
    EXPECT_EQ(ran, i);
    EXPECT_EQ(host[0], 0x01010101u);
    EXPECT_EQ(host[1], 7u);
  }
  CUDA_OK(a.graph_exec_destroy(graph));
  CUDA_OK(d.event_destroy(fork));
  CUDA_OK(d.event_destroy(join));
  CUDA_OK(d.stream_destroy(side));
  CUDA_OK(d.memory_free(device));
  CUDA_OK(d.host_free(host));
}

TEST_F(Capture, LaunchesOfOneGraphFollowEachOther) {
  const CUstream side = stream(), third = stream();
  const CUevent fork = event(), join = event();
  uint32_t* word = pinned<uint32_t>();
  *word = 0;
  std::atomic<int> ran = 0, other = 0;
  CUDA_OK(a.begin_capture(on, kCaptureGlobal));
  CUDA_OK(d.event_record(fork, on));
  CUDA_OK(d.stream_wait_event(side, fork, 0));
  CUDA_OK(d.stream_wait_value(on, number_of(word), 1, kWaitEqual));
  CUDA_OK(count_in(side, &ran));
  CUDA_OK(d.event_record(join, side));
  CUDA_OK(d.stream_wait_event(on, join, 0));
  const CUgraphExec graph = finish();
  CUDA_OK(a.graph_launch(graph, on));
  CUDA_OK(a.graph_launch(graph, side));  // though in another stream
  while (ran == 0) std::this_thread::yield();
  for (int i = 0; i < 20; ++i) {
    CUDA_OK(count_in(third, &other));
    CUDA_OK(d.stream_synchronize(third));
  }
  EXPECT_EQ(ran, 1);
  std::atomic_ref(*word).store(1, std::memory_order_release);
  CUDA_OK(d.stream_synchronize(side));
  EXPECT_EQ(ran, 2);
  CUDA_OK(a.graph_exec_destroy(graph));
  CUDA_OK(d.event_destroy(fork));
  CUDA_OK(d.event_destroy(join));
  CUDA_OK(d.stream_destroy(side));
  CUDA_OK(d.stream_destroy(third));
  CUDA_OK(d.host_free(word));
}

TEST_F(Capture, IsDescribedToTheLibrary) {
  int found = -1;
  uint64_t first = 0, second = 0;
  CUgraph graph = nullptr, ended = nullptr;
  const void* after = nullptr;
  size_t count = 7;
  std::atomic<int> ran = 0;
  CUDA_OK(d.stream_capture_info(on, &found, &first, &graph, &after, &count));
  EXPECT_EQ(found, kNotCapturing);
  EXPECT_EQ(graph, nullptr);
  CUDA_OK(a.begin_capture(on, kCaptureRelaxed));
  CUDA_OK(d.stream_capture_info(on, &found, &first, &graph, &after, &count));
  EXPECT_EQ(found, kCapturing);
  EXPECT_EQ(count, 0u);
  CUDA_OK(count_in(on, &ran));
  CUDA_OK(d.stream_capture_info(on, &found, nullptr, nullptr, &after, &count));
  EXPECT_EQ(count, 1u);
  CUDA_OK(a.end_capture(on, &ended));
  EXPECT_EQ(ended, graph);
  CUDA_OK(a.graph_destroy(ended));
  CUDA_OK(a.begin_capture(on, kCaptureRelaxed));
  CUDA_OK(d.stream_capture_info(on, &found, &second, &graph, &after, &count));
  EXPECT_NE(first, second);
  CUDA_OK(a.end_capture(on, &ended));
  CUDA_OK(a.graph_destroy(ended));
}

TEST_F(Capture, EndsAtQuestionsAboutItsStreamsAndEvents) {
  const CUevent inside = event();
  const auto begin = [&] {
    CUDA_OK(a.begin_capture(on, kCaptureThreadLocal));
    CUDA_OK(d.event_record(inside, on));
  };
  begin();
  CUDA_GIVES(d.stream_synchronize(on), kCaptureUnsupported);
  CUDA_GIVES(d.stream_query(on), kCaptureInvalidated);
  ends_invalid();
  begin();
  CUDA_GIVES(d.stream_query(on), kCaptureUnsupported);
  ends_invalid();
  begin();
  CUDA_GIVES(d.event_query(inside), kCapturedEvent);
  ends_invalid();
  begin();
  CUDA_GIVES(d.event_synchronize(inside), kCapturedEvent);
  ends_invalid();
  begin();
  CUDA_GIVES(a.context_synchronize(), kCaptureUnsupported);
  ends_invalid();
  CUDA_GIVES(d.stream_wait_event(on, inside, 0), kCapturedEvent);
  CUDA_OK(d.event_destroy(inside));
}

TEST_F(Capture, EndsAtCallsThatItsModeForbidsInThisAndOtherThreads) {
  const auto allocates = [&] {
    CUdeviceptr made = 0;
    const CUresult result = d.memory_alloc(&made, 1);
    return result == kSuccess ? d.memory_free(made) : result;
  };
  const auto elsewhere = [&](int mode) {
    CUresult result = kSuccess;
    std::thread([&] {
      CUDA_OK(a.context_set(contexts[0]));
      CUDA_OK(d.capture_mode(&mode));
      result = allocates();
    }).join();
    return result;
  };
  CUDA_OK(a.begin_capture(on, kCaptureRelaxed));
  CUDA_OK(allocates());
  CUDA_OK(elsewhere(kCaptureGlobal));
  CUDA_OK(a.graph_exec_destroy(finish()));

  CUDA_OK(a.begin_capture(on, kCaptureThreadLocal));
  CUDA_OK(elsewhere(kCaptureGlobal));
  int mode = kCaptureRelaxed;
  CUDA_OK(d.capture_mode(&mode));
  EXPECT_EQ(mode, kCaptureGlobal);
  CUDA_OK(allocates());
  CUDA_OK(d.capture_mode(&mode));
  EXPECT_EQ(mode, kCaptureRelaxed);
  CUDA_GIVES(allocates(), kCaptureUnsupported);
  ends_invalid();

  CUDA_OK(a.begin_capture(on, kCaptureGlobal));
  CUDA_OK(elsewhere(kCaptureThreadLocal));
  EXPECT_EQ(status(on), kCapturing);
  CUDA_GIVES(elsewhere(kCaptureGlobal), kCaptureUnsupported);
  ends_invalid();
}

TEST_F(Capture, EndsAtTheDefaultStreamWhereABlockingStreamIsCaptured) {
  const CUdeviceptr device = device_memory();
  CUDA_GIVES(a.begin_capture(nullptr, kCaptureGlobal), kCaptureUnsupported);
  CUDA_OK(a.begin_capture(on, kCaptureRelaxed));
  CUDA_OK(d.set_async(device, 1, 1, nullptr));  // that stream is not ordered with it
  CUDA_OK(a.graph_exec_destroy(finish()));
  CUDA_OK(d.stream_destroy(on));
  on = stream(0);
  CUDA_OK(a.begin_capture(on, kCaptureRelaxed));
  int found = 0;
  CUDA_GIVES(d.stream_capturing(nullptr, &found), kCaptureImplicit);
  EXPECT_EQ(status(on), kCapturing);
  CUDA_GIVES(d.set_async(device, 1, 1, nullptr), kCaptureImplicit);
  ends_invalid();
  CUDA_OK(d.memory_free(device));
}

TEST_F(Capture, KeepsToItself) {
  const CUstream other = stream();
  const CUevent outside = event(), inside = event();
  CUDA_OK(d.event_record(outside, other));
  CUDA_OK(a.begin_capture(on, kCaptureRelaxed));
  CUDA_GIVES(a.begin_capture(on, kCaptureRelaxed), kIllegalState);
  CUDA_GIVES(d.stream_wait_event(on, outside, 0), kCaptureIsolation);
  ends_invalid();

  CUDA_OK(a.begin_capture(on, kCaptureRelaxed));
  CUDA_OK(a.begin_capture(other, kCaptureRelaxed));
  CUDA_OK(d.event_record(inside, other));
  CUDA_GIVES(d.stream_wait_event(on, inside, 0), kCaptureMerge);
  CUgraph graph = nullptr;
  CUDA_GIVES(a.end_capture(other, &graph), kCaptureInvalidated);
  ends_invalid();

  // What another stream did must be awaited before the end.
  std::atomic<int> ran = 0;
  CUDA_OK(a.begin_capture(on, kCaptureRelaxed));
  CUDA_OK(d.event_record(inside, on));
  CUDA_OK(d.stream_wait_event(other, inside, 0));
  CUDA_OK(count_in(other, &ran));
  CUDA_GIVES(a.end_capture(other, &graph), kCaptureUnmatched);
  CUDA_GIVES(a.end_capture(on, &graph), kCaptureUnjoined);
  EXPECT_EQ(graph, nullptr);
  EXPECT_EQ(status(other), kNotCapturing);
  CUDA_GIVES(a.end_capture(on, &graph), kIllegalState);

  CUDA_OK(a.begin_capture(on, kCaptureThreadLocal));
  std::thread([&] {
    CUDA_OK(a.context_set(contexts[0]));
    CUDA_GIVES(a.end_capture(on, &graph), kCaptureWrongThread);
  }).join();
  CUDA_OK(a.graph_exec_destroy(finish()));
  CUDA_OK(d.event_destroy(outside));
  CUDA_OK(d.event_destroy(inside));
  CUDA_OK(d.stream_destroy(other));
}

TEST_F(Capture, PageableMemoryHasNoPlaceInIt) {
  const CUdeviceptr device = device_memory();
  std::vector<std::byte> plain(kBytes);
  CUDA_OK(a.begin_capture(on, kCaptureRelaxed));
  CUDA_GIVES(d.copy_async(device, number_of(plain.data()), kBytes, on), kCaptureUnsupported);
  ends_invalid();
  CUDA_OK(d.memory_free(device));
}

class Objects : public Capture {
 protected:
  static void ended(void* at) { ++*static_cast<std::atomic<int>*>(at); }
  // Destructors run in a thread of the driver: at most so long after.
  void expect_ended(int times) {
    for (int i = 0; i < 2000 && gone != times; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(gone, times);
  }
  // The capture in `on` has the one reference to an object.
  void begin_with_object() {
    CUDA_OK(a.begin_capture(on, kCaptureRelaxed));
    int found = 0;
    uint64_t id = 0;
    CUgraph graph = nullptr;
    CUDA_OK(d.stream_capture_info(on, &found, &id, &graph, nullptr, nullptr));
    CUuserObject object = nullptr;
    CUDA_OK(d.user_object_create(&object, &gone, ended, 1, kNoDestructorSync));
    CUDA_OK(d.graph_retain(graph, object, 1, kMoveReference));
    EXPECT_EQ(cuda_double_count("user_objects"), 1u);
  }
  std::atomic<int> gone = 0;
};

TEST_F(Objects, EndWithTheirGraph) {
  begin_with_object();
  CUgraph graph = nullptr;
  CUDA_OK(a.end_capture(on, &graph));
  EXPECT_EQ(gone, 0);
  CUDA_OK(a.graph_destroy(graph));
  expect_ended(1);
  EXPECT_EQ(cuda_double_count("user_objects"), 0u);
}

TEST_F(Objects, EndWithACaptureThatFails) {
  begin_with_object();
  CUDA_GIVES(d.stream_query(on), kCaptureUnsupported);
  EXPECT_EQ(gone, 0);
  ends_invalid();
  expect_ended(1);
  begin_with_object();
  CUDA_OK(d.stream_destroy(on));
  expect_ended(2);
  on = stream();
}

TEST_F(Objects, AreHeldByTheExecutableGraphUntilItHasRun) {
  begin_with_object();
  const CUgraphExec graph = finish();
  cuda_double_pause(on);
  CUDA_OK(a.graph_launch(graph, on));
  CUDA_OK(a.graph_exec_destroy(graph));
  EXPECT_EQ(cuda_double_count("user_objects"), 1u);
  cuda_double_resume(on);
  CUDA_OK(d.stream_synchronize(on));
  expect_ended(1);
}

}  // namespace
}  // namespace libcomm::cuda::test
