// A child that was forked while another thread was inside the library can use the library.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>

#include "comm.h"
#include "tests/collectives/world.h"

namespace {

constexpr const char* kNoForkBesideThreads =
    "the sanitizers' own allocator locks do not survive a fork beside a thread that allocates";

bool make_stream() {
  cudaStream_t stream = nullptr;
  return commHostStreamCreate(&stream) == commSuccess &&
         commHostStreamDestroy(stream) == commSuccess;
}

bool make_communicators() {
  comm_t comms[2] = {};
  return commInitAll(comms, 2, nullptr) == commSuccess && commDestroy(comms[0]) == commSuccess &&
         commDestroy(comms[1]) == commSuccess;
}

// Forks again and again beside a thread that does nothing but `use`.
void fork_beside(const std::function<bool()>& use, int children) {
  ASSERT_TRUE(use());
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) EXPECT_TRUE(use());
  });
  int bad = 0;
  for (int i = 0; i < children && bad == 0; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);  // a child that hangs is killed
      _exit(use() ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    bad += status != 0;
  }
  stop = true;
  busy.join();
  EXPECT_EQ(bad, 0) << "a child failed, or hung";
}

TEST(Fork, BesideAThreadThatMakesStreams) {
  if (world::kSanitized) GTEST_SKIP() << kNoForkBesideThreads;
  fork_beside(make_stream, 300);
}

TEST(Fork, BesideAThreadThatMakesCommunicators) {
  if (world::kSanitized) GTEST_SKIP() << kNoForkBesideThreads;
  fork_beside(make_communicators, 60);
}

TEST(Fork, AChildDoesNotKnowItsParentsStreams) {
  if (world::kThreadSanitized) GTEST_SKIP() << "ThreadSanitizer does not follow this fork";
  cudaStream_t stream = nullptr;
  ASSERT_EQ(commHostStreamCreate(&stream), commSuccess);
  const pid_t child = fork();
  if (child == 0) _exit(commHostStreamSynchronize(stream) == commInvalidArgument ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(commHostStreamDestroy(stream), commSuccess);
}

}  // namespace
