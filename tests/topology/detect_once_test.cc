// A machine is read once per process, as long as what describes it is the same.
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <thread>

#include "tests/base/temp_folder.h"
#include "tests/topology/machines.h"

namespace libcomm {
namespace {

using test::TempFolder;
using test::write_file;

class DetectOnce : public testing::Test {
 protected:
  void SetUp() override { setenv("HWLOC_SYNTHETIC", "pack:1 core:3 pu:1", 1); }
  void TearDown() override { unsetenv("HWLOC_SYNTHETIC"); }

  Topology read() const {
    auto topology = Topology::detect(path_.empty() ? TopologyFile() : TopologyFile{path_, "FILE"});
    EXPECT_TRUE(topology) << topology.status().to_string();
    return topology ? *topology : Topology();
  }
  void write(const std::string& text) {
    path_ = folder_ / "topo.xml";
    write_file(path_, text);
  }

 private:
  const TempFolder folder_;
  std::string path_;
};

// Whether they share what was read.
bool same(const Topology& a, const Topology& b) { return &a.devices() == &b.devices(); }

TEST_F(DetectOnce, SharesWhatHasNotChanged) { EXPECT_TRUE(same(read(), read())); }

TEST_F(DetectOnce, SharesAFileThatHasNotChanged) {
  std::string text = test::read_file(COMM_TEST_DATA "/uneven.xml");
  const Topology without = read();
  write(text);
  const Topology first = read();
  EXPECT_FALSE(same(without, first));
  EXPECT_TRUE(same(first, read()));
  EXPECT_TRUE(same(without, *Topology::detect({})));
  const std::string small = "local_memory=\"1073741824\"", large = "local_memory=\"2147483648\"";
  ASSERT_NE(text.find(small), text.npos);
  text.replace(text.find(small), small.size(), large);
  write(text);  // as long, and as soon as can be
  const Topology second = read();
  EXPECT_NE(second.to_tree().find(": 2 GiB"), std::string::npos);
  EXPECT_EQ(first.to_tree().find(": 2 GiB"), std::string::npos);
}

TEST_F(DetectOnce, ReadsAnewWhenHwlocsVariablesChange) {
  const Topology three = read();
  setenv("HWLOC_SYNTHETIC", "pack:1 core:2 pu:1", 1);
  EXPECT_EQ(read().cores(), 2);
  EXPECT_EQ(three.cores(), 3);
  const TempFolder folder;
  const std::string path = folder / "machine.xml";
  std::filesystem::copy(COMM_TEST_DATA "/uneven.xml", path);
  setenv("HWLOC_XMLFILE", path.c_str(), 1);
  EXPECT_EQ(read().cores(), 6);
  std::filesystem::remove(path);
  std::filesystem::copy(COMM_TEST_DATA "/flat_vm.xml", path);
  EXPECT_EQ(read().cores(), 4);
  unsetenv("HWLOC_XMLFILE");
}

TEST_F(DetectOnce, RemembersTheLastMachinesOnly) {
  const Topology first = read();
  for (int cores = 4; cores < 24; ++cores) {
    setenv("HWLOC_SYNTHETIC", fmt::format("pack:1 core:{} pu:1", cores).c_str(), 1);
    EXPECT_EQ(read().cores(), cores);
  }
  setenv("HWLOC_SYNTHETIC", "pack:1 core:3 pu:1", 1);
  const Topology again = read();
  EXPECT_FALSE(same(first, again));
  EXPECT_EQ(again.to_json(), first.to_json());
}

TEST_F(DetectOnce, IsOneReadingForAllThreads) {
  setenv("HWLOC_SYNTHETIC", "pack:2 core:128 pu:2", 1);
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
  for (const Topology& topology : read_by) EXPECT_TRUE(same(topology, read_by[0]));
}

TEST_F(DetectOnce, ThreadsSeeTheirOwnCores) {
  unsetenv("HWLOC_SYNTHETIC");
  const std::vector<int> all = read().usable_cores();
  if (all.size() < 2) GTEST_SKIP() << "needs two cores";
  const auto with_one_core = [&](size_t which) {
    std::vector<int> usable;
    std::jthread([&] {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(read().devices()[static_cast<size_t>(all[which])].os_index, &one);
      ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
      usable = read().usable_cores();
    }).join();
    return usable;
  };
  EXPECT_EQ(with_one_core(0), std::vector<int>{all[0]});
  EXPECT_EQ(with_one_core(1), std::vector<int>{all[1]});
  EXPECT_EQ(read().usable_cores(), all);
}

// It may have gone to another container before it asks.
TEST_F(DetectOnce, AForkedChildReadsForItself) {
  const Topology before = read();
  const pid_t child = fork();
  if (child == 0) _exit(same(before, read()) || !same(read(), read()) ? 1 : 0);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace libcomm
