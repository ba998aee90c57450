#include "src/base/fence.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

namespace libcomm {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr int kRounds = 1000;  // all of them full fences
#else
constexpr int kRounds = 20000;
#endif

// Ends when `done` says so; gives its core away now and then, as there may be one only.
template <typename Done>
void spin_until(Done&& done) {
  for (int looks = 1; !done(); ++looks)
    if (looks % 4096 == 0) std::this_thread::yield();
}

// Two threads store a word each and look at the other's, again and again; the number of rounds in
// which neither saw the other.
template <typename Light, typename Heavy>
int rounds_unseen(int rounds, Light&& light, Heavy&& heavy) {
  struct alignas(64) Word {
    std::atomic<int> value{0};
  };
  Word mine, theirs, turn, seen;
  std::thread peer([&] {
    for (int round = 1; round <= rounds; ++round) {
      spin_until([&] { return turn.value.load(std::memory_order_acquire) == round; });
      theirs.value.store(round, std::memory_order_relaxed);
      light();
      seen.value.store(mine.value.load(std::memory_order_relaxed) == round ? round : -round,
                       std::memory_order_release);
    }
  });
  int unseen = 0;
  for (int round = 1; round <= rounds; ++round) {
    turn.value.store(round, std::memory_order_release);
    // The peer comes to its store some 100 ns later; this one before, with, or after it.
    for (int wait = round % 256; wait > 0; --wait)
      std::atomic_signal_fence(std::memory_order_seq_cst);
    mine.value.store(round, std::memory_order_relaxed);
    heavy();
    const bool i_saw = theirs.value.load(std::memory_order_relaxed) == round;
    int they_saw = 0;
    spin_until([&] {
      they_saw = seen.value.load(std::memory_order_acquire);
      return they_saw == round || they_saw == -round;
    });
    if (!i_saw && they_saw != round) ++unseen;
  }
  peer.join();
  return unseen;
}

TEST(Fence, OneOfTwoSeesTheOther) { EXPECT_EQ(rounds_unseen(kRounds, full_fence, full_fence), 0); }

TEST(Fence, LightAndHeavyAreAPair) {
  prepare_fences();
  EXPECT_EQ(rounds_unseen(kRounds, light_fence, heavy_fence), 0);
}

TEST(Fence, LightAndHeavyAreAPairInAForkedChild) {
  prepare_fences();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(rounds_unseen(kRounds, light_fence, heavy_fence) == 0 ? 0 : 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace libcomm
