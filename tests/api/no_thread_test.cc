// When the system gives no more threads or descriptors: the call fails with the reason, nobody is
// left waiting, and signals are as they were. This program stands in for pthread_create.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <string>

#include "comm.h"

namespace {
std::atomic<int> g_threads_left{1 << 30};
}  // namespace

extern "C" __attribute__((visibility("default"))) int pthread_create(
    pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto real = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (g_threads_left.fetch_sub(1) <= 0) return EAGAIN;
  return real(thread, attributes, start, argument);
}

namespace {

std::string last_error() { return commGetLastError(nullptr); }

bool signals_are_blocked() {
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, nullptr, &now);
  return sigismember(&now, SIGUSR1) != 0;
}

// With no thread, then one, and so on, until the call succeeds.
template <typename Call>
void fail_until_it_works(Call&& call) {
  for (int threads = 0;; ++threads) {
    ASSERT_LT(threads, 100);
    g_threads_left = threads;
    const commResult_t result = call();
    g_threads_left = 1 << 30;
    EXPECT_FALSE(signals_are_blocked());
    if (result == commSuccess) return;
    EXPECT_EQ(result, commSystemError) << last_error();
    EXPECT_NE(last_error().find("ulimit -u"), std::string::npos) << last_error();
  }
}

TEST(NoThread, FailsTheCreationOfARankEach) {
  fail_until_it_works([] {
    comm_t comms[3] = {};
    const commResult_t result = commInitAll(comms, 3, nullptr);
    for (const comm_t comm : comms) {
      EXPECT_EQ(comm != nullptr, result == commSuccess);
      EXPECT_TRUE(comm == nullptr || commDestroy(comm) == commSuccess);
    }
    return result;
  });
}

TEST(NoThread, FailsAGroupThatCreates) {
  fail_until_it_works([] {
    commUniqueId id;
    if (const commResult_t made = commGetUniqueId(&id); made != commSuccess) return made;
    comm_t comms[3] = {};
    EXPECT_EQ(commGroupStart(), commSuccess);
    for (int r = 0; r < 3; ++r) EXPECT_EQ(commInitRank(&comms[r], 3, id, r), commSuccess);
    const commResult_t result = commGroupEnd();
    for (const comm_t comm : comms) {
      EXPECT_EQ(comm != nullptr, result == commSuccess);
      EXPECT_TRUE(comm == nullptr || commDestroy(comm) == commSuccess);
    }
    return result;
  });
}

TEST(NoThread, FailsWhatIsQueued) {
  comm_t comm = nullptr;
  ASSERT_EQ(commInitAll(&comm, 1, nullptr), commSuccess);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(commHostStreamCreate(&stream), commSuccess);
  float value = 1;
  fail_until_it_works(
      [&] { return commAllReduce(&value, &value, 1, commFloat, commSum, comm, stream); });
  EXPECT_EQ(commHostStreamSynchronize(stream), commSuccess);
  EXPECT_EQ(commHostStreamDestroy(stream), commSuccess);
  EXPECT_EQ(commDestroy(comm), commSuccess);
}

TEST(NoThread, FailsAnInitializationInTheBackground) {
  fail_until_it_works([] {
    commUniqueId id;
    if (const commResult_t made = commGetUniqueId(&id); made != commSuccess) return made;
    commConfig_t config = COMM_CONFIG_INITIALIZER;
    config.blocking = 0;
    comm_t comm = nullptr;
    const commResult_t result = commInitRankConfig(&comm, 1, id, 0, &config);
    if (result != commInProgress) return result;
    commResult_t state = commInProgress;
    while (state == commInProgress) EXPECT_EQ(commGetAsyncError(comm, &state), commSuccess);
    EXPECT_EQ(state, commSuccess);
    EXPECT_EQ(commDestroy(comm), commSuccess);
    return commSuccess;
  });
}

constexpr int kRanks = 12;

// `create` makes all ranks' communicators, or none, with ever more descriptors.
void fail_for_want_of_descriptors(const std::function<commResult_t(comm_t*)>& create) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  bool failed = false;
  for (rlim_t limit = 20; limit <= 220; limit += 20) {
    rlimit now = before;
    now.rlim_cur = limit;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &now), 0);
    comm_t comms[kRanks] = {};
    const commResult_t result = create(comms);
    const std::string text = last_error();
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    for (const comm_t comm : comms) EXPECT_EQ(comm != nullptr, result == commSuccess);
    if (result == commSuccess) {
      for (const comm_t comm : comms) EXPECT_EQ(commDestroy(comm), commSuccess);
    } else {
      failed = true;
      EXPECT_EQ(result, commSystemError) << text;
      EXPECT_NE(text.find("Too many open files"), std::string::npos) << limit << ": " << text;
    }
  }
  EXPECT_TRUE(failed);
}

// At once: the ranks that could go on are not left to wait for those that could not.
TEST(NoDescriptor, FailsTheCreationOfARankEach) {
  fail_for_want_of_descriptors([](comm_t* comms) { return commInitAll(comms, kRanks, nullptr); });
}

TEST(NoDescriptor, FailsAGroupThatCreates) {
  fail_for_want_of_descriptors([](comm_t* comms) {
    commUniqueId id;
    if (const commResult_t made = commGetUniqueId(&id); made != commSuccess) return made;
    EXPECT_EQ(commGroupStart(), commSuccess);
    for (int r = 0; r < kRanks; ++r) EXPECT_EQ(commInitRank(&comms[r], kRanks, id, r), commSuccess);
    return commGroupEnd();
  });
}

}  // namespace
