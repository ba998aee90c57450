// comm-topo as users run it: output, options, exit status.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>

namespace {

struct Outcome {
  int status = -1;
  std::string text;  // stdout and stderr
};

Outcome run(const std::string& environment, const std::string& options) {
  const std::string command = environment + " " COMM_TOPO " " + options + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  Outcome outcome;
  if (pipe == nullptr) return outcome;
  char buffer[4096];
  while (size_t got = fread(buffer, 1, sizeof buffer, pipe)) outcome.text.append(buffer, got);
  outcome.status = WEXITSTATUS(pclose(pipe));
  return outcome;
}

const std::string kSwitches = "HWLOC_XMLFILE=" COMM_TEST_DATA "/switches.xml";

TEST(CommTopo, PrintsTheMachineAsATree) {
  const Outcome o = run(kSwitches, "");
  EXPECT_EQ(o.status, 0);
  EXPECT_EQ(o.text.find("machine: 2 packages, 2 NUMA nodes, 4 cores"), 0u) << o.text;
  EXPECT_NE(o.text.find("\n    L3 cache 0: 16 MiB\n      cores 0-1\n"), std::string::npos)
      << o.text;
  EXPECT_NE(o.text.find("            eth0 network 0000:04:00.0, 15.75 GB/s\n"), std::string::npos)
      << o.text;
}

TEST(CommTopo, PrintsThisMachineToo) {
  const Outcome o = run("", "");
  EXPECT_EQ(o.status, 0);
  EXPECT_NE(o.text.find("(this machine)"), std::string::npos) << o.text;
}

TEST(CommTopo, MarksTheCoresOfTheProcess) {
  // The first hardware thread of the first usable core, whatever the machine.
  const Outcome o = run("taskset -c $(taskset -cp $$ | sed 's/.*: //; s/[,-].*//')", "--json");
  EXPECT_EQ(o.status, 0);
  const size_t at = o.text.find("\"usable_cores\": [");
  ASSERT_NE(at, std::string::npos) << o.text;
  EXPECT_EQ(o.text.substr(at, o.text.find(']', at) - at).find(','), std::string::npos) << o.text;
}

TEST(CommTopo, PrintsJsonThatAParserReads) {
  if (std::system("python3 -c 'import json' 2>/dev/null") != 0)
    GTEST_SKIP() << "python3 is not installed";
  const std::string check =
      " | python3 -c 'import json,sys; t=json.load(sys.stdin); "
      "print(t[\"cores\"], len(t[\"devices\"]), t[\"tree\"][\"children\"][0][\"name\"])'";
  EXPECT_EQ(run(kSwitches, "--json" + check).text, "4 12 package 0\n");
  const std::string matrix =
      " | python3 -c 'import json,sys; t=json.load(sys.stdin); "
      "print([r[\"name\"] for r in t[\"rows\"]][:2], t[\"paths\"][0][1][\"class\"], "
      "{len(row) for row in t[\"paths\"]} == {len(t[\"rows\"])})'";
  EXPECT_EQ(run(kSwitches, "--paths --json" + matrix).text,
            "['cores 0-1', 'cores 2-3'] system True\n");
}

TEST(CommTopo, PrintsThePathsBetweenGroupsOfCoresAndDevices) {
  const Outcome o = run("HWLOC_SYNTHETIC='pack:2 numa:2 l3:1 core:4 pu:1'", "--paths");
  EXPECT_EQ(o.status, 0);
  EXPECT_NE(o.text.find("\ncores 4-7    socket 0.35   12  cache  0.10   20  system 0.60    8"),
            std::string::npos)
      << o.text;
}

TEST(CommTopo, ExplainsItsOptions) {
  const Outcome o = run("", "--help");
  EXPECT_EQ(o.status, 0);
  EXPECT_NE(o.text.find("usage: comm-topo"), std::string::npos);
}

TEST(CommTopo, RefusesUnknownOptionsByName) {
  const Outcome o = run("", "--jsom");
  EXPECT_EQ(o.status, 2);
  EXPECT_NE(o.text.find("'--jsom'"), std::string::npos);
}

TEST(CommTopo, FailsWhenTheMachineCannotBeRead) {
  const Outcome o = run("HWLOC_XMLFILE=/nonexistent", "");
  EXPECT_EQ(o.status, 1);
  EXPECT_NE(o.text.find("HWLOC_XMLFILE=/nonexistent"), std::string::npos) << o.text;
}

TEST(CommTopo, TellsThatATopologyOfNcclIsAnotherKindOfFile) {
  const std::string path = ::testing::TempDir() + "nccl_topology.xml";
  std::ofstream(path) << "<system version=\"1\"><cpu numaid=\"0\" arch=\"x86_64\"/></system>\n";
  const Outcome o = run("HWLOC_XMLFILE=" + path, "");
  std::remove(path.c_str());
  EXPECT_EQ(o.status, 1) << o.text;
  EXPECT_NE(o.text.find("`lstopo FILE.xml` writes such a file"), std::string::npos) << o.text;
}

TEST(CommTopo, ShowsATopologyFileOfNccl) {
  if (!COMM_TEST_PUGIXML) GTEST_SKIP() << "built without pugixml";
  const std::string machine = "HWLOC_SYNTHETIC='pack:2 numa:2 core:2 pu:1' COMM_TOPO_FILE=";
  const std::string nd = machine + COMM_TEST_DATA "/nccl_nd.xml";
  const Outcome tree = run(nd, "");
  EXPECT_EQ(tree.status, 0);
  EXPECT_NE(tree.text.find(", COMM_TOPO_FILE=" COMM_TEST_DATA "/nccl_nd.xml)\n  package 0\n"),
            std::string::npos)
      << tree.text;
  const Outcome paths = run(nd, "--paths");
  EXPECT_NE(
      paths.text.find("\ngpu 0013:00:00.0  socket 0.85 31.5  numa   0.65 31.5  system 1.10   20  "
                      "system 1.10   20  socket 1.35 31.5  "),
      std::string::npos)
      << paths.text;
  if (std::system("python3 -c 'import json' 2>/dev/null") != 0)
    GTEST_SKIP() << "python3 is not installed";
  const std::string check =
      " | python3 -c 'import json,sys; t=json.load(sys.stdin); "
      "print(t[\"cores\"], [d[\"name\"] for d in t[\"devices\"] if d[\"numa_node\"] == 1])'";
  EXPECT_EQ(run(nd, "--json" + check).text,
            "8 ['core 2', 'core 3', 'gpu 0013:00:00.0', 'rail2', 'gpu 0014:00:00.0', 'rail3']\n");
  const Outcome missing = run("COMM_TOPO_FILE=/nonexistent", "");
  EXPECT_EQ(missing.status, 1);
  EXPECT_EQ(missing.text,
            "comm-topo: COMM_TOPO_FILE=/nonexistent: it cannot be opened: No such file or "
            "directory\n");
}

TEST(CommTopo, ShowsTheNvlinksThatNvmlTellsOf) {
  const std::string machine = "HWLOC_XMLFILE=" COMM_TEST_DATA
                              "/flat_vm.xml HWLOC_THISSYSTEM=1 LD_LIBRARY_PATH=" NVML_DOUBLE_FOLDER
                              " NVML_DOUBLE_GPUS='0000:00:05.0=switch*18; 0000:01:02.0=switch*18'";
  const Outcome tree = run(machine, "");
  EXPECT_EQ(tree.status, 0);
  EXPECT_NE(tree.text.find("gpu 0000:00:05.0, 18 NVLinks\n"), std::string::npos) << tree.text;
  const Outcome paths = run(machine, "--paths");
  EXPECT_NE(paths.text.find("nvlink 1.18  450 "), std::string::npos) << paths.text;
}

TEST(CommTopo, FailsWhenItsOutputCannotBeWritten) {
  EXPECT_EQ(run("", "--json > /dev/full").status, 1);
}

}  // namespace
