// Programs that were linked with the real libibverbs run on the double: its interface is the real
// one. Of plain builds only: such programs cannot load a library with sanitizers.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "tests/doubles/environment.h"

namespace libcomm::test {
namespace {

struct Outcome {
  int status = -1;
  std::string text;
};

Outcome run(const std::string& command) {
  Outcome outcome;
  FILE* pipe = ::popen(
      ("timeout 60 env LD_LIBRARY_PATH=" DOUBLE_FOLDER " " + command + " 2>&1").c_str(), "r");
  char line[512];
  while (std::fgets(line, sizeof(line), pipe) != nullptr) outcome.text += line;
  outcome.status = ::pclose(pipe);
  return outcome;
}

class DoubleTools : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("command -v ibv_rc_pingpong >/dev/null") != 0)
      GTEST_SKIP() << "no ibv_rc_pingpong here: apt-get install ibverbs-utils";
  }

  DoubleEnvironment environment_;
};

TEST_F(DoubleTools, ListTheDevices) {
  environment_.set("DEVICES", "2");
  const Outcome outcome = run("ibv_devinfo -v");
  EXPECT_EQ(outcome.status, 0);
  for (const char* part : {"double0", "double1", "PORT_ACTIVE", "active_mtu:\t\t4096", "Ethernet",
                           "GID[  3]:\t\t::ffff:10.77.1.1, RoCE v2"})
    EXPECT_NE(outcome.text.find(part), std::string::npos) << part << " is not in:\n"
                                                          << outcome.text;
}

// A server and its client.
void ping_pong(const std::string& arguments) {
  // Below the range that connections take their ports from.
  const std::string port = std::to_string(20000 + ::getpid() % 10000);
  const std::string command = "ibv_rc_pingpong -g 3 -p " + port + " " + arguments;
  Outcome server;
  std::thread thread([&] { server = run(command); });
  Outcome client;
  for (int attempt = 0; attempt < 100 && client.status != 0; ++attempt) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    client = run(command + " localhost");
  }
  thread.join();
  EXPECT_EQ(client.status, 0) << client.text;
  EXPECT_EQ(server.status, 0) << server.text;
}

TEST_F(DoubleTools, PlayPingPong) { ping_pong("-c -n 200 -s 100000"); }

TEST_F(DoubleTools, PlayPingPongWithEvents) { ping_pong("-c -e -n 200 -s 5000 -m 4096"); }

}  // namespace
}  // namespace libcomm::test
