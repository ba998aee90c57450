// NVLinks that NVML tells of, seen on a double of it.
#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <thread>

#include "src/topology/nvlink.h"
#include "tests/topology/nvml_double.h"

namespace libcomm {
namespace {

using testing::HasSubstr;
using testing::Not;

using Nvml = WithNvml;

TEST_F(Nvml, JoinsGpusThatAreLinkedToEachOther) {
  load();
  const Topology t = linked("0000:00:05.0=0000:00:06.0*4; 0000:00:06.0=0000:00:05.0*4");
  EXPECT_EQ(links(t, kA, kB), 4);
  EXPECT_EQ(links(t, kB, kA), 4);
  EXPECT_EQ(links(t, kA, kC), 0);
  EXPECT_EQ(known(t), "1100");
  EXPECT_THAT(t.to_tree(), HasSubstr("gpu 0000:00:05.0, 4 NVLinks\n"));
  EXPECT_THAT(log(), HasSubstr("NVML does not tell of the NVLinks of GPU 0000:01:01.0: "
                               "nvmlDeviceGetHandleByPciBusId_v2: Not Found (6)"));
  EXPECT_THAT(log(), Not(HasSubstr("GPU 0000:00:0")));
}

TEST_F(Nvml, JoinsAllGpusThatHaveLinksToNvswitches) {
  load();
  const Topology t = linked(
      "0000:00:05.0=switch*18; 0000:00:06.0=switch*18; 0000:01:01.0=switch*12 off*6;"
      "0000:01:02.0=switch*18");
  EXPECT_EQ(links(t, kA, kB), 18);
  EXPECT_EQ(links(t, kA, kC), 12);
  EXPECT_EQ(links(t, kC, kD), 12);
  EXPECT_EQ(links(t, kD, kB), 18);
  EXPECT_EQ(known(t), "1111");
  EXPECT_THAT(t.to_json(), HasSubstr(R"("nvswitch_links": 12)"));
  EXPECT_EQ(log(), "");
}

TEST_F(Nvml, TellsHowFastTheLinksAreByWhatTheGpuIs) {
  load();
  const std::string gpus =
      "0000:00:05.0=0000:00:06.0*2 switch; 0000:00:06.0=0000:00:05.0*2 switch;"
      "0000:01:01.0=switch; 0000:01:02.0=switch";
  setenv("NVML_DOUBLE_SM", "100 100 90", 1);
  const Topology t = linked(gpus);
  EXPECT_EQ(gbs(t, kA, kB), 2 * 50);
  EXPECT_EQ(gbs(t, kC, kA), 25) << "the slower end";
  EXPECT_EQ(gbs(t, kA, kD), 50) << "the end that is known";
  EXPECT_EQ(gbs(t, kC, kD), 25);
  EXPECT_THAT(t.to_tree(), HasSubstr("gpu 0000:00:05.0, 3 NVLinks of 50 GB/s\n"));
  EXPECT_THAT(t.to_tree(), HasSubstr("gpu 0000:01:02.0, 1 NVLink\n"));
  EXPECT_THAT(t.to_json(), HasSubstr(R"("links": 2}], "nvlink_gbytes_per_second": 50)"));
  setenv("HWLOC_OF_A_TEST", "a machine whose NVML does not tell what its GPUs are", 1);
  setenv("NVML_DOUBLE_FAIL", "nvmlDeviceGetCudaComputeCapability=3", 1);
  EXPECT_EQ(gbs(linked(gpus), kA, kB), 2 * 25) << "the generation is not known";
  EXPECT_EQ(log(), "");
}

TEST(NvlinkGeneration, FollowsFromTheComputeCapability) {
  for (const auto& [sm, gbs] :
       {std::pair(0, 0.0), std::pair(-1, 0.0), std::pair(52, 0.0), std::pair(60, 20.0),
        std::pair(70, 25.0), std::pair(75, 25.0), std::pair(80, 25.0), std::pair(86, 14.0625),
        std::pair(90, 25.0), std::pair(100, 50.0), std::pair(103, 50.0), std::pair(120, 50.0)})
    EXPECT_EQ(nvlink_gbs_of(sm), gbs) << sm;
}

TEST_F(Nvml, LinksThatAreNotActiveJoinNothing) {
  load();
  const Topology t = linked(
      "0000:00:05.0=off 0000:00:06.0 off*2; 0000:00:06.0=off 0000:00:05.0 off*2;"
      "0000:01:01.0=off*4; 0000:01:02.0=");
  EXPECT_EQ(links(t, kA, kB), 1);
  EXPECT_EQ(links(t, kC, kA), 0);
  EXPECT_EQ(known(t), "1110") << "that GPU C has no active links is known, of D nothing is";
  EXPECT_THAT(t.to_tree(), HasSubstr("gpu 0000:01:01.0\n"));
  EXPECT_THAT(log(), HasSubstr("0000:01:02.0: nvmlDeviceGetNvLinkState: no link is supported"));
}

TEST_F(Nvml, LinksThatGoElsewhereJoinNothing) {
  load();
  const Topology t = linked(
      "0000:00:05.0=0000:99:00.0*4 0000:00:05.0; 0000:00:06.0=0000:99:00.0*4;"
      "0000:01:01.0=cpu*3; 0000:01:02.0=cpu*3");
  EXPECT_EQ(links(t, kA, kB), 0) << "hwloc does not know the GPU that they lead to";
  EXPECT_EQ(links(t, kC, kD), 0) << "they lead to a processor";
  EXPECT_EQ(known(t), "1111");
  EXPECT_THAT(t.to_tree(), Not(HasSubstr("NVLink")));
}

TEST_F(Nvml, WhatAVirtualMachineHidesIsASwitch) {
  load();
  const Topology t = linked("0000:00:05.0=hidden*6; 0000:00:06.0=switch*6");
  EXPECT_EQ(links(t, kA, kB), 6);
}

TEST_F(Nvml, AnOlderOneTellsByTheAddress) {
  load(NVML_DOUBLE_OF_2020);
  const Topology t = linked(
      "0000:00:05.0=0000:00:06.0*2; 0000:00:06.0=0000:00:05.0*2;"
      "0000:01:01.0=switch*6; 0000:01:02.0=switch*6");
  EXPECT_EQ(links(t, kA, kB), 2);
  EXPECT_EQ(links(t, kC, kD), 6);
  EXPECT_EQ(links(t, kA, kC), 0);
}

TEST_F(Nvml, TellsNothingWhereACallIsMissing) {
  load(NVML_DOUBLE_OF_2018);
  const Topology t = linked("0000:00:05.0=0000:00:06.0; 0000:00:06.0=0000:00:05.0");
  EXPECT_EQ(links(t, kA, kB), 0);
  EXPECT_EQ(known(t), "0000");
  EXPECT_EQ(inits(), 0);
  EXPECT_THAT(log(), HasSubstr("NVML does not tell of NVLinks: libnvidia-ml.so.1 lacks "
                               "nvmlDeviceGetNvLinkRemotePciInfo_v2"));
}

TEST_F(Nvml, TellsNothingWhereItDoesNotStart) {
  load();
  setenv("NVML_DOUBLE_FAIL", "nvmlInit_v2=9", 1);
  const Topology t = linked("0000:00:05.0=switch; 0000:00:06.0=switch");
  EXPECT_EQ(links(t, kA, kB), 0);
  EXPECT_EQ(known(t), "0000");
  EXPECT_THAT(log(), HasSubstr("NVLinks: nvmlInit_v2: Driver Not Loaded (9)"));
  EXPECT_EQ(t.to_json(), Topology::detect({})->to_json());
}

TEST_F(Nvml, AGpuThatFailsMeanwhileHasNoKnownLinks) {
  load();
  for (const char* call : {"nvmlDeviceGetNvLinkState", "nvmlDeviceGetNvLinkRemotePciInfo_v2"}) {
    setenv("HWLOC_OF_A_TEST", call, 1);
    setenv("NVML_DOUBLE_FAIL", (std::string(call) + "=15").c_str(), 1);
    const Topology t = linked("0000:00:05.0=switch 0000:00:06.0; 0000:00:06.0=0000:00:05.0");
    EXPECT_EQ(known(t), "0000");
    EXPECT_THAT(t.to_tree(), Not(HasSubstr("NVLink"))) << "half of its links";
    EXPECT_THAT(log(), HasSubstr(std::string("0000:00:05.0: ") + call + ": GPU is lost (15)"));
  }
}

TEST_F(Nvml, IsMissedByNobody) {
  if (void* real = dlopen("libnvidia-ml.so.1", RTLD_NOW)) {
    dlclose(real);
    GTEST_SKIP() << "this machine has NVML";
  }
  EXPECT_EQ(known(read()), "0000");
  EXPECT_THAT(log(), HasSubstr("NVML does not tell of NVLinks: libnvidia-ml.so.1: cannot open"));
}

TEST_F(Nvml, IsNotOpenedWhereItIsNotWantedOrHasNothingToTell) {
  load();
  setenv("NVML_DOUBLE_GPUS", "0000:00:05.0=switch; 0000:00:06.0=switch", 1);
  ASSERT_TRUE(Topology::detect({}));
  setenv("HWLOC_XMLFILE", COMM_TEST_DATA "/uneven.xml", 1);
  (void)read();
  EXPECT_EQ(inits(), 0) << "no GPU";
  setenv("HWLOC_XMLFILE", COMM_TEST_DATA "/flat_vm.xml", 1);
  setenv("HWLOC_THISSYSTEM", "0", 1);
  EXPECT_EQ(known(read()), "0000");
  EXPECT_EQ(inits(), 0) << "another machine";
  setenv("HWLOC_THISSYSTEM", "1", 1);
  EXPECT_EQ(known(read()), "1100");
  EXPECT_EQ(inits(), 1);
  EXPECT_EQ(known(*Topology::detect({})), "0000") << "what was not asked for";
}

TEST_F(Nvml, IsAskedOncePerProcess) {
  load();
  const Topology first = linked("0000:00:05.0=switch; 0000:00:06.0=switch");
  EXPECT_EQ(links(first, kA, kB), 1);
  EXPECT_EQ(linked("").to_json(), first.to_json());
  EXPECT_EQ(inits(), 1);
  const pid_t child = fork();
  if (child == 0) _exit(links(read(), kA, kB) == 0 && inits() == 2 ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "a child asks for itself";
}

TEST_F(Nvml, TellsAllThreadsTheSame) {
  load();
  setenv("NVML_DOUBLE_GPUS", "0000:00:05.0=switch; 0000:00:06.0=switch", 1);
  std::vector<Topology> read_by(8);
  std::barrier together(std::ssize(read_by));
  {
    std::vector<std::jthread> threads;
    for (Topology& topology : read_by)
      threads.emplace_back([&] {
        together.arrive_and_wait();
        topology = read();
      });
  }
  for (const Topology& topology : read_by) EXPECT_EQ(links(topology, kA, kB), 1);
  const int asked = inits();
  EXPECT_EQ(links(read(), kA, kB), 1);
  EXPECT_EQ(inits(), asked);
}

// The double ends the process when it is unloaded without nvmlShutdown.
TEST_F(Nvml, IsClosedAgain) {
  load();
  EXPECT_EQ(links(linked("0000:00:05.0=switch; 0000:00:06.0=switch"), kA, kB), 1);
  unload();
  void* left = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_NOLOAD);
  EXPECT_EQ(left, nullptr);
}

}  // namespace
}  // namespace libcomm
