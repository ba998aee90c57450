// NCCL_* variables reach the COMM_* knobs that they stand for. What a process has read shows in its
// log: one line for every knob that is set, with the origin of its value.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nccl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "tests/base/child.h"
#include "tests/base/temp_folder.h"

namespace libcomm::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using Variables = std::vector<std::pair<std::string, std::string>>;

// What a process with these variables logs when it makes two unique ids, whatever becomes of that.
// Two: a warning about the variables of the first goes to stderr, as the log's file is not known
// yet.
std::string log_with(const Variables& variables) {
  const TempFolder folder;
  const std::string file = folder / "log";
  EXPECT_EQ(in_child([&] {
              ::clearenv();
              ::setenv("COMM_DEBUG", "INFO", 1);
              ::setenv("COMM_DEBUG_FILE", file.c_str(), 1);
              for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
              ncclUniqueId id;
              (void)ncclGetUniqueId(&id);
              return ncclGetUniqueId(&id) == ncclInternalError ? 1 : 0;
            }),
            0);
  return read_file(file);
}

struct Row {
  const char* nccl;
  const char* value;
  const char* comm;  // NAME=value that follows
};

class EachVariable : public testing::TestWithParam<Row> {};

TEST_P(EachVariable, IsTheDefaultOfItsKnob) {
  const Row& row = GetParam();
  EXPECT_THAT(log_with({{row.nccl, row.value}}),
              HasSubstr(std::string(row.comm) + " (" + row.nccl + ")\n"));
}

INSTANTIATE_TEST_SUITE_P(
    Nccl, EachVariable,
    testing::Values(
        Row{"NCCL_COMM_ID", "127.0.0.1:7", "COMM_ID=127.0.0.1:7"},
        Row{"NCCL_HOSTID", "here", "COMM_HOSTID=here"},
        Row{"NCCL_SOCKET_IFNAME", "=lo", "COMM_SOCKET_IFNAME==lo"},
        Row{"NCCL_SOCKET_FAMILY", "AF_INET6", "COMM_SOCKET_FAMILY=AF_INET6"},
        Row{"NCCL_SOCKET_NTHREADS", "2", "COMM_SOCKET_NTHREADS=2"},
        Row{"NCCL_NSOCKS_PERTHREAD", "4", "COMM_NSOCKS_PERTHREAD=4"},
        Row{"NCCL_IB_DISABLE", "1", "COMM_IB_DISABLE=1"},
        Row{"NCCL_IB_DISABLE", "2", "COMM_IB_DISABLE=1"},
        Row{"NCCL_NET", "Socket", "COMM_IB_DISABLE=1"},
        Row{"NCCL_IB_HCA", "=mlx5_0:1", "COMM_IB_HCA==mlx5_0:1"},
        Row{"NCCL_IB_GID_INDEX", "3", "COMM_IB_GID_INDEX=3"},
        Row{"NCCL_IB_ROCE_VERSION_NUM", "1", "COMM_IB_ROCE_VERSION_NUM=1"},
        Row{"NCCL_IB_ADDR_FAMILY", "AF_INET6", "COMM_IB_ADDR_FAMILY=AF_INET6"},
        Row{"NCCL_IB_ADDR_RANGE", "10.0.0.0/8", "COMM_IB_ADDR_RANGE=10.0.0.0/8"},
        Row{"NCCL_IB_TIMEOUT", "22", "COMM_IB_TIMEOUT=22"},
        Row{"NCCL_IB_RETRY_CNT", "5", "COMM_IB_RETRY_CNT=5"},
        Row{"NCCL_IB_SL", "3", "COMM_IB_SL=3"}, Row{"NCCL_IB_TC", "0x6a", "COMM_IB_TC=106"},
        Row{"NCCL_IB_FIFO_TC", "32", "COMM_IB_FIFO_TC=32"},
        Row{"NCCL_IB_PKEY", "1", "COMM_IB_PKEY=1"},
        Row{"NCCL_IB_QPS_PER_CONNECTION", "4", "COMM_IB_QPS_PER_CONNECTION=4"},
        Row{"NCCL_IB_SPLIT_DATA_ON_QPS", "1", "COMM_IB_SPLIT_DATA_ON_QPS=1"},
        Row{"NCCL_IB_PCI_RELAXED_ORDERING", "0", "COMM_IB_PCI_RELAXED_ORDERING=0"},
        Row{"NCCL_IB_ECE_ENABLE", "0", "COMM_IB_ECE_ENABLE=0"},
        Row{"NCCL_IB_CUDA_SUPPORT", "1", "COMM_IB_CUDA_SUPPORT=1"},
        Row{"NCCL_NET_GDR_LEVEL", "PHB", "COMM_NET_GDR_LEVEL=PHB"},
        Row{"NCCL_NET_GDR_READ", "0", "COMM_NET_GDR_READ=0"},
        Row{"NCCL_P2P_DISABLE", "1", "COMM_P2P_DISABLE=1"},
        Row{"NCCL_P2P_LEVEL", "PIX", "COMM_P2P_LEVEL=PIX"},
        Row{"NCCL_SHM_DISABLE", "1", "COMM_SHM_DISABLE=1"},
        Row{"NCCL_BUFFSIZE", "4194304", "COMM_BUFFSIZE=4194304"},
        Row{"NCCL_MIN_CTAS", "2", "COMM_MIN_NRINGS=2"},
        Row{"NCCL_MIN_NCHANNELS", "2", "COMM_MIN_NRINGS=2"},
        Row{"NCCL_MIN_NRINGS", "2", "COMM_MIN_NRINGS=2"},
        Row{"NCCL_MAX_NCHANNELS", "32", "COMM_MAX_NRINGS=16"},
        Row{"NCCL_MAX_NRINGS", "4", "COMM_MAX_NRINGS=4"},
        Row{"NCCL_MAX_CTAS", "64", "COMM_MAX_CTAS=16"}, Row{"NCCL_ALGO", "Ring", "COMM_ALGO=ring"},
        Row{"NCCL_ALGO", "NVLS,Tree", "COMM_ALGO=tree"},
        Row{"NCCL_ALGO", "allreduce:tree;broadcast:ring,nvls;sendrecv:ring;allgather:^pat",
            "COMM_ALGO=allreduce:tree;broadcast:ring"},
        Row{"NCCL_SINGLE_RING_THRESHOLD", "65536", "COMM_SINGLE_RING_THRESHOLD=65536"},
        Row{"NCCL_LL_THRESHOLD", "0", "COMM_LL_THRESHOLD=0"},
        Row{"NCCL_CHECKS_DISABLE", "1", "COMM_CHECKS_DISABLE=1"},
        Row{"NCCL_TOPO_FILE", "/etc/topology.xml", "COMM_TOPO_FILE=/etc/topology.xml"},
        Row{"NCCL_LAUNCH_MODE", "PARALLEL", "COMM_LAUNCH_MODE=PARALLEL"},
        Row{"NCCL_CTA_POLICY", "zero", "COMM_CTA_POLICY=ZERO"},
        Row{"NCCL_CTA_POLICY", "2", "COMM_CTA_POLICY=2"},
        Row{"NCCL_CTA_POLICY", "EFFICIENCY|ZERO", "COMM_CTA_POLICY=ZERO"},
        Row{"NCCL_CTA_POLICY", "EFFICIENCY|DEFAULT", "COMM_CTA_POLICY=DEFAULT"},
        Row{"NCCL_MULTI_RANK_GPU_ENABLE", "0", "COMM_MULTI_RANK_GPU=0"}),
    [](const auto& one) { return std::to_string(one.index) + "_" + one.param.nccl; });

TEST(Environment, TheLogFollowsNcclsVariables) {
  const TempFolder folder;
  const std::string file = folder / "log";
  const auto logged = [&](const Variables& variables) {
    ::unlink(file.c_str());
    EXPECT_EQ(in_child([&] {
                ::clearenv();
                ::setenv("NCCL_DEBUG_FILE", file.c_str(), 1);
                for (const auto& [name, value] : variables)
                  ::setenv(name.c_str(), value.c_str(), 1);
                ncclUniqueId id;
                return ncclGetUniqueId(&id) == ncclSuccess ? 0 : 1;
              }),
              0);
    return std::filesystem::exists(file) ? read_file(file) : std::string();
  };
  EXPECT_THAT(logged({{"NCCL_DEBUG", "INFO"}}), HasSubstr("COMM_DEBUG=INFO (NCCL_DEBUG)"));
  EXPECT_THAT(logged({{"NCCL_DEBUG", "ABORT"}}), HasSubstr("COMM_DEBUG=INFO (NCCL_DEBUG)"));
  EXPECT_THAT(logged({{"NCCL_DEBUG", "WARN"}}), Not(HasSubstr("COMM_DEBUG")));
  EXPECT_THAT(logged({{"NCCL_DEBUG", "INFO"}, {"NCCL_DEBUG_SUBSYS", "RAS,env,PROXY,NET"}}),
              HasSubstr("COMM_DEBUG_SUBSYS=env,NET (NCCL_DEBUG_SUBSYS)"));
  EXPECT_THAT(logged({{"NCCL_DEBUG", "INFO"}, {"NCCL_DEBUG_SUBSYS", "^RAS,NET"}}),
              HasSubstr("COMM_DEBUG_SUBSYS=^NET (NCCL_DEBUG_SUBSYS)"));
  EXPECT_THAT(logged({{"NCCL_DEBUG", "INFO"}, {"NCCL_DEBUG_SUBSYS", "RAS"}}),
              Not(HasSubstr("COMM_DEBUG=")));
}

TEST(Environment, OursWins) {
  const std::string log =
      log_with({{"NCCL_SOCKET_IFNAME", "no-such"}, {"COMM_SOCKET_IFNAME", "lo"}});
  EXPECT_THAT(log, HasSubstr("COMM_SOCKET_IFNAME=lo (environment)"));
  EXPECT_THAT(log, Not(HasSubstr("no-such")));
}

TEST(Environment, TheNewerNameWins) {
  EXPECT_THAT(log_with({{"NCCL_MIN_NRINGS", "2"}, {"NCCL_MIN_CTAS", "3"}}),
              HasSubstr("COMM_MIN_NRINGS=3 (NCCL_MIN_CTAS)"));
  EXPECT_THAT(log_with({{"NCCL_NET", "Socket"}, {"NCCL_IB_DISABLE", "0"}}),
              HasSubstr("COMM_IB_DISABLE=0 (NCCL_IB_DISABLE)"));
}

TEST(Environment, WhatHasNoMeaningHereHasNoEffect) {
  const std::string log = log_with({{"NCCL_NTHREADS", "256"},
                                    {"NCCL_PROTO", "Simple"},
                                    {"NCCL_NVLS_ENABLE", "1"},
                                    {"NCCL_TUNER_PLUGIN", "libnccl-tuner.so"},
                                    {"NCCL_ALGO", "^Tree"},
                                    {"NCCL_NET", "IB"},
                                    {"NCCL_BUFFSIZE", ""},
                                    {"NCCL_IB_TIMEOUT", "long"},
                                    {"NCCL_NO_SUCH", "1"}});
  EXPECT_THAT(log, Not(HasSubstr("NCCL_")));
  // What the knob does not take is a warning.
  EXPECT_THAT(log_with({{"NCCL_BUFFSIZE", "1"}}),
              HasSubstr("COMM_BUFFSIZE=1 (NCCL_BUFFSIZE) is not valid"));
}

TEST(Environment, IsReadAgainWithEveryCommunicator) {
  const TempFolder folder;
  const std::string file = folder / "log";
  EXPECT_EQ(in_child([&] {
              ::clearenv();
              ::setenv("COMM_DEBUG", "INFO", 1);
              ::setenv("COMM_DEBUG_FILE", file.c_str(), 1);
              ::setenv("NCCL_SOCKET_IFNAME", "no-such", 1);
              ncclUniqueId id;
              if (ncclGetUniqueId(&id) != ncclSystemError) return 1;
              ::unsetenv("NCCL_SOCKET_IFNAME");
              ::setenv("NCCL_BUFFSIZE", "65536", 1);
              if (ncclGetUniqueId(&id) != ncclSuccess) return 2;
              ncclComm_t comm = nullptr;
              if (ncclCommInitRank(&comm, 1, id, 0) != ncclSuccess) return 3;
              return ncclCommDestroy(comm) == ncclSuccess ? 0 : 4;
            }),
            0);
  EXPECT_THAT(read_file(file), HasSubstr("COMM_BUFFSIZE=65536 (NCCL_BUFFSIZE)"));
}

// What a process logs whose /etc has nothing but these files, one of which may tell that the home
// folder is `home`. Nothing: the machine does not let this user have such a process.
std::string log_with_etc(const Variables& variables, const Variables& etc, const TempFolder& home) {
  const std::string file = home / "log";
  const auto has_etc = [&] {
    if (::geteuid() != 0 || ::unshare(CLONE_NEWNS) != 0) return false;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
    if (::mount("tmpfs", "/etc", "tmpfs", 0, nullptr) != 0) return false;
    write_file("/etc/passwd", "root:x:0:0:root:" + home.path() + ":/bin/sh\n");
    for (const auto& [name, text] : etc) write_file("/etc/" + name, text);
    return true;
  };
  const int verdict = in_child([&] {
    if (!has_etc()) return 77;
    ::clearenv();
    ::setenv("COMM_DEBUG", "INFO", 1);
    ::setenv("COMM_DEBUG_FILE", file.c_str(), 1);
    for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
    ncclUniqueId id;
    return ncclGetUniqueId(&id) == ncclSuccess ? 0 : 1;
  });
  EXPECT_TRUE(verdict == 0 || verdict == 77) << verdict;
  return verdict == 0 ? read_file(file) : std::string();
}

TEST(ConfFile, OfTheUserIsStrongerThanThatOfTheMachineAndWeakerThanTheEnvironment) {
  const TempFolder home;
  write_file(home / ".nccl.conf", "NCCL_IB_SL=3\nNCCL_IB_SL=4\nNCCL_MAX_NRINGS=2\n");
  const std::string log = log_with_etc({{"NCCL_MAX_NRINGS", "5"}, {"NCCL_IB_TC", ""}},
                                       {{"nccl.conf",
                                         "NCCL_IB_SL=5\n#NCCL_IB_PKEY=1\n NCCL_BUFFSIZE=8192\n"
                                         "NCCL_IB_TIMEOUT=21\nNCCL_IB_TC=9\n"}},
                                       home);
  if (log.empty()) GTEST_SKIP() << "this machine refuses a mount namespace";
  const std::string own = home / ".nccl.conf";
  EXPECT_THAT(log, HasSubstr("COMM_IB_SL=3 (NCCL_IB_SL in " + own + ")"));
  EXPECT_THAT(log, HasSubstr("COMM_MAX_NRINGS=5 (NCCL_MAX_NRINGS)"));
  EXPECT_THAT(log, HasSubstr("COMM_IB_TIMEOUT=21 (NCCL_IB_TIMEOUT in /etc/nccl.conf)"));
  EXPECT_THAT(log, Not(HasSubstr("COMM_IB_PKEY")));
  EXPECT_THAT(log, Not(HasSubstr("COMM_BUFFSIZE")));
  EXPECT_THAT(log, Not(HasSubstr("COMM_IB_TC")));
}

TEST(ConfFile, ThatIsNamedStandsInForTheUsers) {
  const TempFolder home;
  write_file(home / ".nccl.conf", "NCCL_IB_SL=3\nNCCL_IB_TC=9\n");
  const std::string named = home / "named";
  write_file(named, "NCCL_IB_SL=4\n");
  const std::string log =
      log_with_etc({{"NCCL_CONF_FILE", named}}, {{"nccl.conf", "NCCL_IB_TIMEOUT=21\n"}}, home);
  if (log.empty()) GTEST_SKIP() << "this machine refuses a mount namespace";
  EXPECT_THAT(log, HasSubstr("COMM_IB_SL=4 (NCCL_IB_SL in " + named + ")"));
  EXPECT_THAT(log, HasSubstr("COMM_IB_TIMEOUT=21 (NCCL_IB_TIMEOUT in /etc/nccl.conf)"));
  EXPECT_THAT(log, Not(HasSubstr("COMM_IB_TC")));
}

TEST(ConfFile, OfOursIsStronger) {
  const TempFolder home;
  const std::string log =
      log_with_etc({}, {{"nccl.conf", "NCCL_IB_SL=5\n"}, {"comm.conf", "IB_SL=6\n"}}, home);
  if (log.empty()) GTEST_SKIP() << "this machine refuses a mount namespace";
  EXPECT_THAT(log, HasSubstr("COMM_IB_SL=6 (/etc/comm.conf)"));
}

TEST(ConfFile, WithALineThatSetsNothingIsNamedOnce) {
  const TempFolder folder;
  const std::string file = folder / "named";
  write_file(file, "NCCL_IB_SL=5\nNCCL_IB_TC 9\n\n # a comment\nNCCL_DEBUG\n");
  const std::string errors = folder / "errors";
  EXPECT_EQ(in_child([&] {
              ::clearenv();
              ::setenv("NCCL_CONF_FILE", file.c_str(), 1);
              const int to = ::open(errors.c_str(), O_CREAT | O_WRONLY, 0600);
              if (::dup2(to, 2) != 2) return 2;
              ncclUniqueId id;
              for (int i = 0; i < 3; ++i)
                if (ncclGetUniqueId(&id) != ncclSuccess) return 1;
              return 0;
            }),
            0);
  const std::string text = read_file(errors);
  EXPECT_THAT(text, HasSubstr("lines 2, 5 of " + file + ", without '=',"));
  EXPECT_EQ(text.find("without '='"), text.rfind("without '='"));
}

}  // namespace
}  // namespace libcomm::test
