// Forks of processes that have devices of the double open. Of plain builds only: ThreadSanitizer
// starts no threads in such children.
#include <gtest/gtest.h>

#include "tests/doubles/child.h"
#include "tests/doubles/endpoint.h"
#include "tests/doubles/environment.h"

namespace libcomm::test {
namespace {

class DoubleForks : public testing::Test {
 protected:
  DoubleEnvironment environment_;
};

TEST_F(DoubleForks, AForkedChildOpensDevicesOfItsOwn) {
  Endpoint endpoint;
  Child child([](int socket) {
    Pair pair;
    pair.a.fill(0, 5000, 1);
    pair.a.send(IBV_WR_RDMA_WRITE, 1, 5000);
    const bool well = pair.a.completion().status == IBV_WC_SUCCESS && pair.b.filled(0, 5000, 1);
    give(socket, well);
  });
  EXPECT_TRUE(take<bool>(child.socket()));
  EXPECT_EQ(child.end(0), 0);
}

using DoubleForksDeathTest = DoubleForks;

TEST_F(DoubleForksDeathTest, AForkedChildDoesNotUseTheParentsObjects) {
  GTEST_FLAG_SET(death_test_style, "fast");
  EXPECT_DEATH(
      {
        Endpoint endpoint;
        const pid_t pid = ::fork();
        if (pid == 0) endpoint.to_init();
        int status = 0;
        ::waitpid(pid, &status, 0);
        if (WIFSIGNALED(status)) ::abort();
      },
      "ibv_modify_qp: this queue pair was made before fork");
}

}  // namespace
}  // namespace libcomm::test
