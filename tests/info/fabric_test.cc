// What `comm-check rdma` reads of a network's flow control, on a /sys that a test makes, and what
// it says of it.
#include "tools/rdma/fabric.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace libcomm {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class Fabric : public testing::Test {
 protected:
  Fabric() { std::filesystem::create_directories(root_); }
  ~Fabric() override { std::filesystem::remove_all(root_); }
  void put(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  void counter(const std::string& name, uint64_t value) {
    put("class/infiniband/mlx5_0/ports/1/hw_counters/" + name, std::to_string(value));
  }
  void ecn(const std::string& side, int priority, bool on) {
    put("class/net/eth0/ecn/roce_" + side + "/enable/" + std::to_string(priority), on ? "1" : "0");
  }
  void all_ecn(bool on) {
    for (int priority = 0; priority < 8; ++priority) {
      ecn("np", priority, on);
      ecn("rp", priority, on);
    }
  }
  FabricHints hints(const FabricReadings::Counters& driver = {}) {
    FabricReadings readings = read_fabric(root_.string(), "mlx5_0", 1, "eth0");
    for (const auto& [name, value] : driver) readings.link[name] = value;
    return explain_fabric(readings, "eth0");
  }
  const std::filesystem::path root_ =
      std::filesystem::path(testing::TempDir()) / ("fabric-" + std::to_string(::getpid()));
};

TEST_F(Fabric, WithoutAnythingToReadSaysSo) {
  const FabricHints said = hints();
  EXPECT_THAT(said.wrong, IsEmpty());
  EXPECT_THAT(said.seen,
              ElementsAre("ECN: the driver does not say", "PFC: unknown, the driver does not say",
                          "pauses: eth0 does not count them"));
  EXPECT_THAT(explain_fabric(read_fabric(root_.string(), "mlx5_0", 1, ""), "").seen,
              Contains("pauses: the network device is not known"));
}

TEST_F(Fabric, ThatIsWellSetUpHasNothingWrong) {
  all_ecn(true);
  for (const char* name : {"np_cnp_sent", "rp_cnp_handled", "np_ecn_marked_roce_packets",
                           "out_of_sequence", "packet_seq_err", "local_ack_timeout_err"})
    counter(name, 0);
  put("class/net/eth0/statistics/rx_crc_errors", "0");
  const FabricHints said = hints({{"tx_prio3_pause", 0}, {"rx_prio3_pause", 0}});
  EXPECT_THAT(said.wrong, IsEmpty());
  EXPECT_THAT(said.seen,
              ElementsAre("ECN: tells senders for priorities 0, 1, 2, 3, 4, 5, 6, 7, "
                          "slows down for priorities 0, 1, 2, 3, 4, 5, 6, 7",
                          "PFC: unknown, the driver does not say", "pauses: none so far"));
}

TEST_F(Fabric, EcnThatIsHalfOnOrOffIsNamedWithItsSwitch) {
  all_ecn(false);
  EXPECT_THAT(hints().wrong, ElementsAre(HasSubstr("ECN is off for all priorities")));
  ecn("np", 3, true);
  EXPECT_THAT(hints().seen, Contains("ECN: tells senders for priorities 3, slows down for no "
                                     "priority"));
  EXPECT_THAT(hints().wrong,
              ElementsAre(AllOf(HasSubstr("only half on for priority 3"),
                                HasSubstr("does not slow down itself"),
                                HasSubstr("/sys/class/net/eth0/ecn/roce_rp/enable/3"))));
  ecn("np", 3, false);
  ecn("rp", 3, true);
  EXPECT_THAT(hints().wrong, ElementsAre(AllOf(HasSubstr("tells no sender of congestion"),
                                               HasSubstr("ecn/roce_np/enable/3"))));
}

TEST_F(Fabric, CountersBecomeSentences) {
  all_ecn(true);
  counter("out_of_sequence", 12);
  counter("packet_seq_err", 3);
  counter("lifespan", 10);
  counter("np_ecn_marked_roce_packets", 5);
  counter("rp_cnp_handled", 7);
  put("class/infiniband/mlx5_0/ports/1/counters/symbol_error", "2");
  const FabricHints said = hints();
  EXPECT_THAT(said.seen, Contains("congestion: 5 packets came marked, told senders 0 times, slowed "
                                  "down 7 times"));
  EXPECT_THAT(said.wrong,
              ElementsAre(HasSubstr("5 packets came marked as congested, and no sender was told"),
                          HasSubstr("out_of_sequence 12, packet_seq_err 3: packets were lost or "
                                    "overtook each other"),
                          HasSubstr("symbol_error 2: packets came damaged")));
  counter("np_cnp_sent", 5);
  EXPECT_THAT(hints().wrong, Not(Contains(HasSubstr("no sender was told"))));
}

TEST_F(Fabric, PausesSayWhoIsSlow) {
  all_ecn(true);
  FabricHints said = hints({{"tx_prio3_pause", 9}, {"tx_prio3_pause_duration", 1000}});
  EXPECT_THAT(said.seen, Contains("pauses: tx_prio3_pause 9"));
  EXPECT_THAT(said.wrong, ElementsAre(HasSubstr("eth0 made the switch pause: this host")));
  said = hints({{"rx_prio3_pause", 4}, {"rx_pause_ctrl_phy", 4}});
  EXPECT_THAT(said.wrong, ElementsAre(HasSubstr("eth0 was made to pause by the switch")));
  said = hints({{"rx_prio3_pause", 0}, {"rx_pause_ctrl_phy", 4}});
  EXPECT_THAT(said.wrong, ElementsAre(HasSubstr("was made to pause"),
                                      HasSubstr("stop all traffic, not one priority")));
}

TEST_F(Fabric, LossesOfTheNetworkDeviceAreNamed) {
  all_ecn(true);
  put("class/net/eth0/statistics/rx_crc_errors", "6");
  put("class/net/eth0/statistics/rx_bytes", "123456");
  EXPECT_THAT(hints({{"rx_prio3_discards", 8}}).wrong,
              ElementsAre(HasSubstr("rx_prio3_discards 8: eth0 dropped packets"),
                          HasSubstr("rx_crc_errors 6: packets came damaged to eth0")));
}

TEST_F(Fabric, DamagedFilesCountAsAbsent) {
  put("class/net/eth0/ecn/roce_np/enable/3", "yes");
  counter("np_cnp_sent", 0);
  put("class/infiniband/mlx5_0/ports/1/hw_counters/out_of_sequence", "-");
  EXPECT_THAT(hints().wrong, IsEmpty());
  EXPECT_THAT(hints().seen, Contains("ECN: the driver does not say"));
}

TEST(PauseCounters, AreFoundUnderTheNamesOfDifferentDrivers) {
  const struct {
    const char* name;
    bool sent;
    int priority;
  } good[] = {{"tx_prio3_pause", true, 3},           {"rx_prio0_pause", false, 0},
              {"rx_pfc_ena_frames_pri5", false, 5},  {"tx_priority_7_xoff.nic", true, 7},
              {"port.rx_priority_2_xoff", false, 2}, {"tx_pause_ctrl_phy", true, -1},
              {"rx_pause_frames", false, -1}};
  for (const auto& each : good) {
    const auto pause = as_pause_counter(each.name);
    ASSERT_TRUE(pause) << each.name;
    EXPECT_EQ(pause->sent, each.sent) << each.name;
    EXPECT_EQ(pause->priority, each.priority) << each.name;
  }
  for (const char* name : {"tx_prio3_pause_duration", "rx_prio3_pause_transition", "tx_bytes",
                           "tx_pause_storm_warning_events", "link_pause"})
    EXPECT_FALSE(as_pause_counter(name)) << name;
}

TEST(DriverCounters, OfWhatIsNoDeviceAreNone) {
  EXPECT_THAT(driver_counters(""), IsEmpty());
  EXPECT_THAT(driver_counters("no-such-device"), IsEmpty());
  EXPECT_THAT(driver_counters(std::string(100, 'x')), IsEmpty());
}

// In a network of the child's own.
TEST(DriverCounters, OfAVirtualCableAreThoseOfItsDriver) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if ((::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) ||
        std::system("ip link add v0 type veth peer name v1") != 0)
      ::_exit(2);
    ::_exit(driver_counters("v0").count("peer_ifindex") == 1 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "needs user namespaces and `ip` with veth";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace libcomm
