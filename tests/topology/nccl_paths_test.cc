// How far devices are apart with a topology file in NCCL's format: those that it names, those that
// it does not, and GPUs with NVLink.
#include "src/topology/path_model.h"
#include "tests/topology/written_file.h"

namespace libcomm {
namespace {

using testing::HasSubstr;

std::string data(const std::string& name) { return std::string(COMM_TEST_DATA "/") + name; }

// This file over a machine of hwloc's.
Topology over_file(const std::string& machine, const std::string& text) {
  const Written file("<system version=\"1\">" + text + "</system>");
  setenv("HWLOC_XMLFILE", data(machine).c_str(), 1);
  auto topology = file.read();
  unsetenv("HWLOC_XMLFILE");
  EXPECT_TRUE(topology) << topology.status().to_string();
  return topology ? *topology : Topology();
}

constexpr const char* kGpu3 = "<pci busid=\"0000:03:00.0\" class=\"0x030200\"/>";

TEST(NcclPaths, ToADeviceThatTheFileDoesNotNameStayWhatTheyWere) {
  const Topology t =
      over_file("switches.xml", std::string("<cpu numaid=\"0\">") + kGpu3 + "</cpu>");
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "eth0"), PathClass::kPcieSwitch);
  EXPECT_EQ(between(t, "eth0", "gpu 0000:03:00.0"), PathClass::kPcieSwitch);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "gpu 0000:07:00.0"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "nvme0n1"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "gpu 0000:81:00.0"), PathClass::kSystem);
  EXPECT_EQ(between(t, "gpu 0000:07:00.0", "eth1"), PathClass::kPcieSwitch) << "neither is named";
  EXPECT_EQ(between(t, "eth0", "eth2"), PathClass::kSocket) << "neither is named";
}

TEST(NcclPaths, OfOneNumaNodeAreBelowOneHostBridgeAsInNccl) {
  const Topology t = over_file("switches.xml", std::string("<cpu numaid=\"0\">") + kGpu3 +
                                                   "<pci busid=\"0055:01:00.0\"/></cpu>");
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "eth2"), PathClass::kRoot) << "hwloc has it elsewhere";
  EXPECT_EQ(between(t, "pci 0055:01:00.0", "eth2"), PathClass::kRoot) << "hwloc has it nowhere";
  EXPECT_EQ(between(t, "pci 0055:01:00.0", "gpu 0000:81:00.0"), PathClass::kSystem);
}

TEST(NcclPaths, FollowTheFileToAnotherNumaNode) {
  const Topology t =
      over_file("switches.xml", std::string("<cpu numaid=\"1\">") + kGpu3 + "</cpu>");
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "eth0"), PathClass::kSystem);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "gpu 0000:81:00.0"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "core 0"), PathClass::kSystem);
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "core 2"), PathClass::kNuma);
}

// Virtual machines show one bus at no NUMA node.
TEST(NcclPaths, ToADeviceAtNoKnownNodeStayWhatTheyWere) {
  const Topology t = over_file("flat_vm.xml",
                               "<cpu numaid=\"0\"><pci busid=\"0000:00:05.0\"/></cpu>"
                               "<cpu numaid=\"1\"><pci busid=\"0000:00:06.0\"/></cpu>");
  EXPECT_EQ(between(t, "gpu 0000:00:05.0", "mlx5_0"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:00:06.0", "mlx5_0"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:00:06.0", "gpu 0000:01:01.0"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:00:05.0", "gpu 0000:00:06.0"), PathClass::kSystem)
      << "the file says so";
  EXPECT_EQ(between(t, "mlx5_0", "core 0"), PathClass::kSystem);
}

TEST(NcclPaths, ToCoresStayWhatTheyWereWhereTheMachineDoesNotHaveTheNumaNode) {
  for (const char* node : {"7", "-1"}) {
    const Topology t = over_file("switches.xml", fmt::format("<cpu numaid=\"{}\">", node) + kGpu3 +
                                                     "<pci busid=\"0055:01:00.0\"/></cpu>");
    EXPECT_EQ(between(t, "gpu 0000:03:00.0", "core 0"), PathClass::kNuma) << node;
    EXPECT_EQ(between(t, "gpu 0000:03:00.0", "core 2"), PathClass::kSystem) << node;
    EXPECT_EQ(between(t, "gpu 0000:03:00.0", "eth0"), PathClass::kPcieSwitch) << node;
    EXPECT_EQ(between(t, "gpu 0000:03:00.0", "pci 0055:01:00.0"), PathClass::kRoot) << node;
    EXPECT_EQ(between(t, "pci 0055:01:00.0", "core 0"), PathClass::kSystem) << node;
  }
}

TEST(NcclPaths, AreThoseOfHwlocWithoutTheFile) {
  const Topology t = over_file("switches.xml", std::string("<cpu numaid=\"1\">") + kGpu3 +
                                                   "<pci busid=\"0055:01:00.0\"/></cpu>");
  const Topology found = t.without_file();
  EXPECT_EQ(between(found, "gpu 0000:03:00.0", "eth0"), PathClass::kPcieSwitch);
  EXPECT_EQ(found.to_tree(), from_file("switches.xml").to_tree());
  EXPECT_EQ(found.without_file().to_tree(), found.to_tree());
  EXPECT_TRUE(t.is_placed_by_file(named(t, "gpu 0000:03:00.0").id));
  EXPECT_TRUE(t.is_placed_by_file(named(t, "pci 0055:01:00.0").id));
  EXPECT_FALSE(t.is_placed_by_file(named(t, "eth0").id));
  EXPECT_FALSE(t.is_placed_by_file(-1));
  EXPECT_FALSE(t.is_placed_by_file(1000));
  EXPECT_FALSE(found.is_placed_by_file(named(t, "gpu 0000:03:00.0").id));
}

// ---- NVLink -------------------------------------------------------------------------------------

// GPUs 0000:01:00.0, 0000:02:00.0, ..., in pairs at two NUMA nodes, with these NVLinks
// and compute capabilities ("80" where there are fewer of them).
Topology linked(const std::vector<std::string>& nvlinks, const std::vector<std::string>& sm = {}) {
  std::string text = "<system version=\"1\">";
  for (size_t i = 0; i < nvlinks.size(); ++i) {
    if (i % 2 == 0) text += fmt::format("<cpu numaid=\"{}\">", i / 2);
    text += fmt::format(
        "<pci busid=\"0000:{:02x}:00.0\" class=\"0x030200\" link_speed=\"16.0 GT/s PCIe\" "
        "link_width=\"16\"><gpu dev=\"{}\" sm=\"{}\" rank=\"{}\" gdr=\"1\">{}</gpu></pci>",
        i + 1, i, i < sm.size() ? sm[i] : "80", i, nvlinks[i]);
    if (i % 2 == 1 || i + 1 == nvlinks.size()) text += "</cpu>";
  }
  const auto topology = Written(text + "</system>").read();
  EXPECT_TRUE(topology) << topology.status().to_string();
  return topology ? *topology : Topology();
}
std::string gpu(int number) { return fmt::format("gpu 0000:{:02x}:00.0", number); }
Path path(const Topology& t, int a, int b) {
  return t.path(named(t, gpu(a)).id, named(t, gpu(b)).id);
}

constexpr const char* kToSwitches =
    "<nvlink target=\"0000:c4:00.0\" count=\"2\" tclass=\"0x068000\"/>"
    "<nvlink target=\"0000:c5:00.0\" count=\"4\" tclass=\"0x068000\"/>";

TEST(Nvlink, JoinsGpusThatHaveLinksToTheSwitches) {
  const Topology t =
      linked({kToSwitches, "<nvlink target=\"fffffff:ff:ff.0\" count=\"4\" tclass=\"0x068000\"/>",
              "<nvlink target=\"fffffff:ff:ff.0\" count=\"18\"/>", ""});
  EXPECT_EQ(path(t, 1, 2).path, PathClass::kNvlink);
  EXPECT_EQ(path(t, 3, 1).path, PathClass::kNvlink) << "of another package";
  EXPECT_EQ(path(t, 1, 4).path, PathClass::kSystem) << "the last has no links";
  EXPECT_EQ(path(t, 3, 4).path, PathClass::kRoot);
  EXPECT_EQ(path(t, 1, 1).path, PathClass::kSelf);
  EXPECT_EQ(between(t, gpu(1), "core 0"), PathClass::kNuma);
  EXPECT_DOUBLE_EQ(path(t, 1, 2).gbytes_per_second, 100) << "the fewer links";
  EXPECT_DOUBLE_EQ(path(t, 3, 1).gbytes_per_second, 150) << "whatever the PCIe links";
  EXPECT_DOUBLE_EQ(path(t, 1, 3).latency_us,
                   model_of(PathClass::kNvlink).latency_us + 2 * kDeviceEndLatencyUs);
}

TEST(Nvlink, JoinsGpusThatHaveLinksToEachOther) {
  const Topology t =
      linked({"<nvlink target=\"0000:02:00.0\" count=\"1\" tclass=\"0x030200\"/>"
              "<nvlink target=\"0000:03:00.0\" count=\"2\" tclass=\"0x030000\"/>"
              "<nvlink target=\"0000:99:00.0\" count=\"9\" tclass=\"0x030200\"/>",
              "<nvlink target=\"00000000:01:00.0\" tclass=\"0x030200\"/>"
              "<nvlink target=\"0000:04:00.0\" count=\"3\"/>",
              "", ""});
  EXPECT_EQ(path(t, 1, 2).path, PathClass::kNvlink);
  EXPECT_DOUBLE_EQ(path(t, 1, 2).gbytes_per_second, 25);
  EXPECT_EQ(path(t, 3, 1).path, PathClass::kNvlink) << "told of at one end";
  EXPECT_DOUBLE_EQ(path(t, 3, 1).gbytes_per_second, 50);
  EXPECT_EQ(path(t, 2, 4).path, PathClass::kNvlink) << "without a class the target tells";
  EXPECT_EQ(path(t, 2, 3).path, PathClass::kSystem);
  EXPECT_EQ(path(t, 1, 4).path, PathClass::kSystem) << "a GPU that is not here is no switch";
}

TEST(Nvlink, IsShown) {
  const Topology t = linked({"<nvlink target=\"0000:02:00.0\" count=\"1\" tclass=\"0x030200\"/>",
                             std::string(kToSwitches) + "<nvlink target=\"0000:01:00.0\"/>"});
  EXPECT_THAT(t.to_tree(), HasSubstr("gpu 0000:01:00.0, 31.51 GB/s, 1 NVLink of 25 GB/s\n"));
  EXPECT_THAT(t.to_tree(), HasSubstr("gpu 0000:02:00.0, 31.51 GB/s, 7 NVLinks of 25 GB/s\n"));
  EXPECT_THAT(t.to_json(), HasSubstr(R"("nvlinks": [{"gpu": 5, "links": 1}], )"));
  EXPECT_THAT(t.to_json(),
              HasSubstr(R"(, "nvswitch_links": 6, "nvlinks": [{"gpu": 4, "links": 1}], )"
                        R"("nvlink_gbytes_per_second": 25})"));
}

TEST(Nvlink, IsAsFastAsTheComputeCapabilitySays) {
  const Topology t = linked({kToSwitches, kToSwitches, kToSwitches, kToSwitches, kToSwitches},
                            {"100", "103", "90", "sm", ""});
  EXPECT_DOUBLE_EQ(path(t, 1, 2).gbytes_per_second, 6 * 50);
  EXPECT_DOUBLE_EQ(path(t, 1, 3).gbytes_per_second, 6 * 25) << "the slower end";
  EXPECT_DOUBLE_EQ(path(t, 4, 2).gbytes_per_second, 6 * 50) << "the end that is known";
  EXPECT_DOUBLE_EQ(path(t, 4, 5).gbytes_per_second, 6 * 25) << "neither is known";
  EXPECT_THAT(t.to_tree(), HasSubstr("gpu 0000:02:00.0, 31.51 GB/s, 6 NVLinks of 50 GB/s\n"));
  EXPECT_THAT(t.to_tree(), HasSubstr("gpu 0000:05:00.0, 31.51 GB/s, 6 NVLinks\n"));
}

TEST(Nvlink, ThatGoesElsewhereJoinsNothing) {
  const std::string to_cpu = "<nvlink target=\"0000:00:00.0\" count=\"3\" tclass=\"0x068001\"/>";
  const std::string to_itself = "<nvlink target=\"0000:03:00.0\" count=\"3\"/>";
  const std::string none = "<nvlink target=\"fffffff:ff:ff.0\" count=\"0\" tclass=\"0x068000\"/>";
  const Topology t = linked({to_cpu + none, to_cpu + kToSwitches, to_itself, to_cpu});
  EXPECT_EQ(path(t, 1, 2).path, PathClass::kRoot);
  EXPECT_EQ(path(t, 1, 4).path, PathClass::kSystem);
  EXPECT_EQ(path(t, 2, 3).path, PathClass::kSystem);
  EXPECT_THAT(t.to_tree(), HasSubstr("gpu 0000:03:00.0, 31.51 GB/s\n"));
}

TEST(Nvlink, IsBetweenGpusThatTheMachineHasToo) {
  const Topology t = over_file(
      "switches.xml",
      "<cpu numaid=\"0\"><pci busid=\"0000:03:00.0\" class=\"0x030200\"><gpu>"
      "<nvlink target=\"0000:81:00.0\" count=\"4\" tclass=\"0x030200\"/></gpu></pci></cpu>");
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "gpu 0000:81:00.0"), PathClass::kNvlink)
      << "the second is not named";
  EXPECT_EQ(between(t, "gpu 0000:03:00.0", "gpu 0000:07:00.0"), PathClass::kRoot);
}

TEST(Nvlink, IsRefusedWhenAnAttributeIsWrong) {
  const auto why = [](const std::string& nvlink) {
    return Written("<system version=\"1\"><cpu numaid=\"0\"><pci busid=\"0:5.0\">\n<gpu>\n" +
                   nvlink + "</gpu></pci></cpu></system>")
        .refusal(Code::kInvalidArgument);
  };
  EXPECT_EQ(why("<nvlink target=\"0000:02:00.0\" tclass=\"gpu\"/>"),
            "line 3: <nvlink>: tclass=\"gpu\": expected a PCI class such as 0x068000");
  EXPECT_EQ(why("<nvlink target=\"GPU1\" tclass=\"0x030200\"/>"),
            "line 3: <nvlink>: target=\"GPU1\": expected a PCI address such as 0000:3b:00.0");
  for (const char* count : {"-1", "1025", "two", "2 ", "99999999999999"})
    EXPECT_EQ(
        why(fmt::format("<nvlink target=\"0000:02:00.0\" count=\"{}\"/>", count)),
        fmt::format("line 3: <nvlink>: count=\"{}\": expected a number of links from 0 to 1024",
                    count));
}

}  // namespace
}  // namespace libcomm
