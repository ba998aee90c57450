// The double is called from several threads at a time: what verbs allow works, and no data race is
// in it.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "tests/doubles/endpoint.h"
#include "tests/doubles/environment.h"

namespace libcomm::test {
namespace {

constexpr uint64_t kMessages = 2000;

class DoubleThreads : public testing::Test {
 protected:
  DoubleEnvironment environment_;
};

// Sends kMessages with up to `window` at a time.
void send_all(Endpoint& endpoint, uint64_t window) {
  uint64_t posted = 0, done = 0;
  while (done < kMessages) {
    for (; posted < kMessages && posted - done < window; ++posted)
      ASSERT_EQ(endpoint.send(IBV_WR_RDMA_WRITE_WITH_IMM, posted, 512), 0);
    for (const ibv_wc& wc : endpoint.completions_now()) {
      ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
      ++done;
    }
    std::this_thread::yield();
  }
}

void receive_all(Endpoint& endpoint) {
  for (uint64_t i = 0; i < kMessages; ++i) {
    ASSERT_EQ(endpoint.completion().imm_data, i);
    if (i + endpoint.options.receive_slots >= kMessages) continue;
    ASSERT_EQ(endpoint.receive(0, 0), 0);
  }
}

TEST_F(DoubleThreads, RanksInThreadsTalk) {
  EndpointOptions options;
  options.receiver_retry = 7;
  Pair first(options), second(options);
  for (Pair* pair : {&first, &second})
    for (uint32_t i = 0; i < options.receive_slots; ++i) ASSERT_EQ(pair->b.receive(0, 0), 0);
  std::thread threads[] = {
      std::thread([&] { send_all(first.a, 16); }), std::thread([&] { receive_all(first.b); }),
      std::thread([&] { send_all(second.a, 16); }), std::thread([&] { receive_all(second.b); })};
  for (std::thread& thread : threads) thread.join();
}

TEST_F(DoubleThreads, TwoPollOneCompletionQueue) {
  EndpointOptions options;
  options.send_slots = 64;
  Pair pair(options);
  std::atomic<uint64_t> seen{0}, posted{0};
  const auto poll = [&] {
    while (seen < kMessages) {
      seen += pair.a.completions_now().size();
      std::this_thread::yield();
    }
  };
  std::thread one(poll), other(poll);
  for (; posted < kMessages; ++posted) {
    while (posted - seen >= 64) std::this_thread::yield();
    ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
  }
  one.join();
  other.join();
  EXPECT_EQ(seen, kMessages);
}

// The pattern of a receiver that grants: it writes into memory that the sender polls.
TEST_F(DoubleThreads, AFlagInMemoryShowsAllThatWasWrittenBeforeIt) {
  environment_.set("JITTER", "50us");
  Pair pair;
  constexpr uint64_t kRounds = 200;
  std::thread writer([&] {
    for (uint64_t round = 1; round <= kRounds; ++round) {
      const uint64_t entry[8] = {round, round, round, round, round, round, round, round};
      std::memcpy(pair.a.data(), entry, sizeof(entry));
      ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, round, sizeof(entry), 0, 0,
                            IBV_SEND_SIGNALED | IBV_SEND_INLINE),
                0);
      ASSERT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
    }
  });
  uint64_t last = 0;
  auto* words = reinterpret_cast<uint64_t*>(pair.b.data());
  while (last < kRounds) {
    const uint64_t flag = __atomic_load_n(&words[7], __ATOMIC_ACQUIRE);
    if (flag == last) {
      std::this_thread::yield();
      continue;
    }
    for (int i = 0; i < 7; ++i) ASSERT_GE(__atomic_load_n(&words[i], __ATOMIC_RELAXED), flag);
    last = flag;
  }
  writer.join();
}

TEST_F(DoubleThreads, AWaitForAnEventEndsWithTheCompletion) {
  EndpointOptions options;
  options.with_channel = true;
  Pair pair(options);
  for (uint64_t round = 0; round < 50; ++round) {
    ASSERT_EQ(pair.b.receive(round, 0), 0);
    ASSERT_EQ(ibv_req_notify_cq(pair.b.cq, 0), 0);
    std::thread sender([&] { EXPECT_EQ(pair.a.send(IBV_WR_RDMA_WRITE_WITH_IMM, round, 8), 0); });
    ibv_cq* cq = nullptr;
    void* context = nullptr;
    ASSERT_EQ(ibv_get_cq_event(pair.b.channel, &cq, &context), 0);
    ibv_ack_cq_events(cq, 1);
    EXPECT_EQ(pair.b.completion().imm_data, round);
    sender.join();
    EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
  }
}

TEST_F(DoubleThreads, DevicesAreOpenedAndClosedAtTheSameTime) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 20; ++i) {
        Pair pair;
        ASSERT_EQ(pair.a.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
        ASSERT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace libcomm::test
