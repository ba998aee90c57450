// NVLinks of a topology file in NCCL's format, where NVML tells of some too.
#include "tests/topology/nvml_double.h"
#include "tests/topology/written_file.h"

namespace libcomm {
namespace {

class NvmlAndFile : public WithNvml {
 protected:
  // Over a machine whose GPUs are all linked to each other, four links each, says NVML. The file
  // has GPU A with these links, and B.
  Topology read_with(const std::string& nvlinks_of_a) {
    load();
    const std::string path = folder_ / "topo.xml";
    test::write_file(path,
                     "<system version=\"1\"><cpu numaid=\"0\">"
                     "<pci busid=\"0000:00:05.0\" class=\"0x030200\"><gpu>" +
                         nvlinks_of_a +
                         "</gpu></pci><pci busid=\"0000:00:06.0\" class=\"0x030200\"><gpu/></pci>"
                         "</cpu></system>");
    return linked(
        "0000:00:05.0=0000:00:06.0*4 0000:01:01.0*4 0000:01:02.0*4;"
        "0000:00:06.0=0000:00:05.0*4 0000:01:01.0*4 0000:01:02.0*4;"
        "0000:01:01.0=0000:00:05.0*4 0000:00:06.0*4 0000:01:02.0*4;"
        "0000:01:02.0=0000:00:05.0*4 0000:00:06.0*4 0000:01:01.0*4",
        {path, "COMM_TOPO_FILE=" + path});
  }

 private:
  const test::TempFolder folder_;
};

TEST_F(NvmlAndFile, TheFileCountsForGpusOfWhoseLinksItTells) {
  const Topology t = read_with("<nvlink target=\"0000:00:06.0\" count=\"2\" tclass=\"0x030200\"/>");
  EXPECT_EQ(links(t, kA, kB), 2);
  EXPECT_EQ(links(t, kA, kC), 0) << "the file has no such link";
  EXPECT_EQ(links(t, kC, kD), 4) << "not in the file";
  EXPECT_EQ(links(t, kB, kC), 4) << "the file says nothing of B's links";
  EXPECT_EQ(known(t), "1111");
  EXPECT_EQ(known(t.without_file()), "0000");
}

TEST_F(NvmlAndFile, TheFileMaySayThatThereAreNone) {
  const Topology t = read_with("<nvlink target=\"0000:00:06.0\" count=\"0\"/>");
  EXPECT_EQ(links(t, kA, kB), 0);
  EXPECT_EQ(links(t, kB, kC), 4);
  EXPECT_EQ(known(t), "1111");
  EXPECT_THAT(t.to_json(), testing::Not(testing::HasSubstr("\"links\": 0")));
}

TEST_F(NvmlAndFile, NvmlIsAskedWhereTheFileSaysNothing) {
  const Topology t = read_with("");
  EXPECT_EQ(links(t, kA, kB), 4);
  EXPECT_EQ(links(t, kA, kC), 4);
}

}  // namespace
}  // namespace libcomm
