// What COMM_TOPO_FILE names: told apart by its outermost element; hwloc's format is a machine of
// its own.
#include "src/topology/topology_file.h"

#include <gmock/gmock.h>

#include "tests/base/temp_folder.h"
#include "tests/topology/machines.h"

namespace libcomm {
namespace {

using testing::HasSubstr;

TEST(TopologyFile, InHwlocsFormatIsTheMachine) {
  const std::string path = COMM_TEST_DATA "/uneven.xml";
  setenv("HWLOC_SYNTHETIC", "pack:1 core:9 pu:1", 1);  // weaker
  const Topology t = machine("COMM_TOPO_FILE", path);
  unsetenv("HWLOC_SYNTHETIC");
  EXPECT_THAT(t.to_tree(), testing::StartsWith("machine: 2 packages, 3 NUMA nodes, 6 cores "
                                               "(COMM_TOPO_FILE=" +
                                               path + ")\n"));
  EXPECT_FALSE(t.is_this_machine());
}

TEST(TopologyFile, InHwlocsFormatThatHwlocCannotReadIsAnError) {
  const test::TempFolder folder;
  test::write_file(folder / "bad.xml", "<topology version=\"2.0\"><object type=\"Nothing\"/>");
  setenv("COMM_TOPO_FILE", (folder / "bad.xml").c_str(), 1);
  const auto topology = detect();
  unsetenv("COMM_TOPO_FILE");
  ASSERT_FALSE(topology);
  EXPECT_EQ(topology.status().code(), Code::kSystem);
  EXPECT_THAT(topology.status().message(), HasSubstr("COMM_TOPO_FILE=" + (folder / "bad.xml")));
}

TEST(TopologyFile, IsNamedByWhoeverSaidSo) {
  const test::TempFolder folder;
  test::write_file(folder / "bad.xml", "<nothing/>");
  const std::string path = folder / "bad.xml";
  ASSERT_TRUE(set_knob_default("COMM_TOPO_FILE", path.c_str(), "NCCL_TOPO_FILE"));
  const auto topology = detect();
  ASSERT_TRUE(set_knob_default("COMM_TOPO_FILE", nullptr, ""));
  ASSERT_FALSE(topology);
  EXPECT_THAT(topology.status().message(),
              testing::StartsWith("COMM_TOPO_FILE=" + path + " (NCCL_TOPO_FILE): "));
}

// Images set it for programs on all machines.
TEST(TopologyFile, ThatOnlyNcclsVariableNamesMayBeMissing) {
  ASSERT_TRUE(set_knob_default("COMM_TOPO_FILE", "/no/where.xml", "NCCL_TOPO_FILE"));
  testing::internal::CaptureStderr();
  const auto topology = detect();
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("COMM_TOPO_FILE=/no/where.xml (NCCL_TOPO_FILE): it cannot be opened: No "
                        "such file or directory; going on without it"));
  ASSERT_TRUE(set_knob_default("COMM_TOPO_FILE", nullptr, ""));
  ASSERT_TRUE(topology);
  EXPECT_GT(topology->cores(), 0);
}

TEST(TopologyFile, IsToldApartByItsOutermostElement) {
  EXPECT_EQ(root_element("<system version=\"1\">"), "system");
  EXPECT_EQ(root_element("\xef\xbb\xbf \n<?xml version='1.0'?>\n<!-- <a> --><topology>"),
            "topology");
  EXPECT_EQ(root_element("<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n<topology>"), "topology");
  EXPECT_EQ(root_element("<!DOCTYPE a [<!ELEMENT b (c)>\n<!ENTITY d \"e\">] >\n<f/>"), "f");
  for (const char* none : {"", " ", "system", "<", "< system>", "<?xml", "<!-- <system>",
                           "<!DOCTYPE system", "<!DOCTYPE a [", "<!DOCTYPE a [ ]", "</system>"})
    EXPECT_EQ(root_element(none), "") << none;
  EXPECT_EQ(root_element(std::string_view("<system>\0", 9)), "");
}

}  // namespace
}  // namespace libcomm
