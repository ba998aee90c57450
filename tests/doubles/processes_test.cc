// Processes as hosts: each has a NIC that serves its memory, and that is gone when the process is.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <memory>

#include "tests/doubles/child.h"
#include "tests/doubles/endpoint.h"
#include "tests/doubles/environment.h"

namespace libcomm::test {
namespace {

using std::chrono::milliseconds;

void connect(Endpoint& endpoint, int socket) {
  give(socket, endpoint.address());
  endpoint.connect(take<Address>(socket));
  give(socket, 'c');
  take<char>(socket);
}

// Has its memory served until it is told to end, with `receives` posted.
void serve(int socket, uint64_t receives) {
  Endpoint endpoint;
  for (uint64_t i = 0; i < receives; ++i) endpoint.receive(i, 0);
  connect(endpoint, socket);
  take<char>(socket);
}

class DoubleProcesses : public testing::Test {
 protected:
  DoubleEnvironment environment_;
};

TEST_F(DoubleProcesses, AKilledOneMakesItsPeersRetriesEnd) {
  Child child([](int socket) { serve(socket, 0); });
  Endpoint endpoint;
  connect(endpoint, child.socket());
  ASSERT_EQ(endpoint.send(IBV_WR_RDMA_WRITE, 1, 100'000), 0);
  EXPECT_EQ(endpoint.completion().status, IBV_WC_SUCCESS);
  child.end(SIGKILL);
  for (uint64_t i = 2; i < 5; ++i) ASSERT_EQ(endpoint.send(IBV_WR_RDMA_WRITE, i, 100'000), 0);
  EXPECT_EQ(endpoint.completion().status, IBV_WC_RETRY_EXC_ERR);
  EXPECT_EQ(endpoint.completion().status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(endpoint.completion().status, IBV_WC_WR_FLUSH_ERR);
}

TEST_F(DoubleProcesses, OneThatIsKilledWithPacketsUnderWayLosesThem) {
  Child child([](int socket) { serve(socket, 0); });
  Endpoint endpoint;
  connect(endpoint, child.socket());
  child.stop();
  ASSERT_EQ(endpoint.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
  EXPECT_FALSE(endpoint.completion_within(milliseconds(20)));
  child.end(SIGKILL);
  EXPECT_EQ(endpoint.completion().status, IBV_WC_RETRY_EXC_ERR);
}

TEST_F(DoubleProcesses, AStoppedOneIsNotTakenForLost) {
  Child child([](int socket) { serve(socket, 0); });
  EndpointOptions options;
  options.timeout = 1;  // 8 microseconds: all retries would be over long since
  Endpoint endpoint(options);
  connect(endpoint, child.socket());
  child.stop();
  ASSERT_EQ(endpoint.send(IBV_WR_RDMA_WRITE, 1, 100'000), 0);
  EXPECT_FALSE(endpoint.completion_within(milliseconds(50)));
  child.signal(SIGCONT);
  EXPECT_EQ(endpoint.completion().status, IBV_WC_SUCCESS);
}

TEST_F(DoubleProcesses, MoreIsUnderWayThanASocketHolds) {
  environment_.set("WINDOW", "16M");
  EndpointOptions options;
  options.buffer_bytes = 2 << 20;
  Child child([options](int socket) {
    Endpoint endpoint(options);
    connect(endpoint, socket);
    endpoint.receive(1, 0);
    give(socket, 'r');
    // The completion, not the word of the other process, is what says that the memory may be read.
    const bool well = endpoint.completion().status == IBV_WC_SUCCESS;
    give(socket, well && endpoint.filled(0, 2 << 20, 3));
  });
  Endpoint endpoint(options);
  connect(endpoint, child.socket());
  endpoint.fill(0, 2 << 20, 3);
  take<char>(child.socket());
  child.stop();
  ASSERT_EQ(endpoint.send(IBV_WR_RDMA_WRITE_WITH_IMM, 1, 2 << 20), 0);
  child.signal(SIGCONT);
  EXPECT_EQ(endpoint.completion().status, IBV_WC_SUCCESS);
  EXPECT_TRUE(take<bool>(child.socket()));
}

// Every process sends to every other.
void exchange(int rank, int count, int socket) {
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  endpoints.push_back(std::make_unique<Endpoint>());
  for (int peer = 1; peer < count; ++peer)
    endpoints.push_back(std::make_unique<Endpoint>(*endpoints.front()));
  for (const auto& endpoint : endpoints) give(socket, endpoint->address());
  for (const auto& endpoint : endpoints) {
    for (uint64_t i = 0; i < 10; ++i) {
      endpoint->to_init();
      endpoint->receive(i, 0);
    }
    endpoint->connect(take<Address>(socket));
  }
  give(socket, 'c');
  take<char>(socket);
  for (int peer = 0; peer < count; ++peer) {
    endpoints[static_cast<size_t>(peer)]->fill(0, 50'000, rank);
    for (uint64_t i = 0; i < 10; ++i)
      endpoints[static_cast<size_t>(peer)]->send(IBV_WR_RDMA_WRITE_WITH_IMM, i, 50'000, 0, 500'000);
  }
  for (int i = 0; i < 20 * count; ++i)
    if (endpoints.front()->completion().status != IBV_WC_SUCCESS) ::_exit(1);
  for (int peer = 0; peer < count; ++peer)
    if (!endpoints[static_cast<size_t>(peer)]->filled(500'000, 50'000, peer)) ::_exit(2);
  give(socket, 'd');
  take<char>(socket);
  while (!endpoints.empty()) endpoints.pop_back();
}

TEST_F(DoubleProcesses, ManyTalkAllToAll) {
  constexpr int kCount = 6;
  std::vector<std::unique_ptr<Child>> children;
  for (int rank = 0; rank < kCount; ++rank)
    children.push_back(
        std::make_unique<Child>([rank](int socket) { exchange(rank, kCount, socket); }));
  std::vector<std::vector<Address>> addresses;
  for (const auto& child : children) {
    addresses.emplace_back();
    for (int peer = 0; peer < kCount; ++peer)
      addresses.back().push_back(take<Address>(child->socket()));
  }
  for (size_t rank = 0; rank < kCount; ++rank)
    for (size_t peer = 0; peer < kCount; ++peer)
      give(children[rank]->socket(), addresses[peer][rank]);
  for (int step = 0; step < 2; ++step) {
    for (const auto& child : children) take<char>(child->socket());
    for (const auto& child : children) give(child->socket(), 'g');
  }
  for (const auto& child : children) EXPECT_EQ(child->end(0), 0);
}

TEST_F(DoubleProcesses, OfAnotherFabricAreNotReached) {
  Child child([](int socket) {
    ::setenv("RDMA_DOUBLE_FABRIC", "another", 1);
    serve(socket, 0);
  });
  Endpoint endpoint;
  connect(endpoint, child.socket());
  ASSERT_EQ(endpoint.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
  EXPECT_EQ(endpoint.completion().status, IBV_WC_RETRY_EXC_ERR);
}

}  // namespace
}  // namespace libcomm::test
