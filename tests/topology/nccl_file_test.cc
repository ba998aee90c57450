// Topology files in NCCL's format, put over machines that hwloc reads from files or makes up.
#include "src/topology/nccl_file.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/topology/written_file.h"

namespace libcomm {
namespace {

using test::TempFolder;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

Topology over(const std::string& file, const char* base, const std::string& value) {
  auto topology = detect_with(std::string(COMM_TEST_DATA "/") + file, base, value);
  EXPECT_TRUE(topology) << topology.status().to_string();
  return topology ? *topology : Topology();
}

constexpr const char* kFourNodes = "pack:2 numa:2 core:2 pu:1";
Topology nd() { return over("nccl_nd.xml", "HWLOC_SYNTHETIC", kFourNodes); }
Topology vm() { return over("nccl_vm.xml", "HWLOC_XMLFILE", COMM_TEST_DATA "/flat_vm.xml"); }

std::string refused(const std::string& text) {
  return Written(text).refusal(Code::kInvalidArgument);
}
// With one <cpu> of NUMA node 0 around.
std::string refused_in_cpu(const std::string& text) {
  return refused("<system version=\"1\"><cpu numaid=\"0\">\n" + text + "\n</cpu></system>");
}

TEST(NcclFile, PutsTheDevicesOfAnotherMachineAtTheNumaNodesOfThisOne) {
  EXPECT_EQ(Written::lines_of(nd()),
            "  package 0\n"
            "    NUMA node 0: 1 GiB\n"
            "    cores 0-1\n"
            "    host bridge of NUMA node 0\n"
            "      PCIe bridge ffff:ff:01.0\n"
            "        gpu 0011:00:00.0, 31.51 GB/s\n"
            "        nic 0021:00:00.0 network 0021:00:00.0, 31.51 GB/s\n"
            "        gpu 0012:00:00.0, 31.51 GB/s\n"
            "        nic 0022:00:00.0 network 0022:00:00.0, 31.51 GB/s\n"
            "    NUMA node 1: 1 GiB\n"
            "    cores 2-3\n"
            "    host bridge of NUMA node 1\n"
            "      PCIe bridge ffff:ff:02.0\n"
            "        gpu 0013:00:00.0, 31.51 GB/s\n"
            "        rail2 network 0023:00:00.0, 25 GB/s\n"
            "        gpu 0014:00:00.0\n"
            "        rail3 network 0024:00:00.0\n"
            "  package 1\n"
            "    NUMA node 2: 1 GiB\n"
            "    cores 4-5\n"
            "    host bridge of NUMA node 2\n"
            "      PCIe bridge ffff:ff:03.0\n"
            "        gpu 001b:00:00.0\n"
            "        nic 0025:00:00.0 network 0025:00:00.0, 7.877 GB/s\n"
            "        gpu 001c:00:00.0\n"
            "        nic 0026:00:00.0 network 0026:00:00.0, 2 GB/s\n"
            "    NUMA node 3: 1 GiB\n"
            "    cores 6-7\n"
            "    host bridge of NUMA node 3\n"
            "      PCIe bridge ffff:ff:04.0\n"
            "        gpu 001d:00:00.0\n"
            "        nic 0027:00:00.0 network 0027:00:00.0\n"
            "        gpu 001e:00:00.0\n"
            "        nic 0028:00:00.0 network 0028:00:00.0\n");
}

TEST(NcclFile, SaysWhereTheMachineComesFrom) {
  const std::string source =
      "HWLOC_SYNTHETIC=pack:2 numa:2 core:2 pu:1, COMM_TOPO_FILE=" COMM_TEST_DATA "/nccl_nd.xml";
  EXPECT_THAT(nd().to_tree(), StartsWith("machine: 2 packages, 4 NUMA nodes, 8 cores (" + source));
  EXPECT_THAT(nd().to_json(), HasSubstr("\"source\": \"" + source + "\""));
  EXPECT_FALSE(nd().is_this_machine());
}

TEST(NcclFile, MakesPathsOfThePlaces) {
  const Topology t = nd();
  EXPECT_EQ(between(t, "gpu 0011:00:00.0", "nic 0022:00:00.0"), PathClass::kPcieSwitch);
  EXPECT_EQ(between(t, "gpu 0011:00:00.0", "gpu 0013:00:00.0"), PathClass::kSocket);
  EXPECT_EQ(between(t, "gpu 0011:00:00.0", "rail2"), PathClass::kSocket);
  EXPECT_EQ(between(t, "gpu 0011:00:00.0", "gpu 001d:00:00.0"), PathClass::kSystem);
  EXPECT_EQ(between(t, "core 1", "gpu 0011:00:00.0"), PathClass::kNuma);
  EXPECT_EQ(between(t, "core 1", "gpu 0013:00:00.0"), PathClass::kSocket);
  EXPECT_EQ(between(t, "core 7", "nic 0028:00:00.0"), PathClass::kNuma);
}

TEST(NcclFile, MovesWhatHwlocFoundAndLeavesWhatTheFileDoesNotName) {
  EXPECT_EQ(Written::lines_of(vm()),
            "  package 0\n"
            "    NUMA node 0: 1 GiB\n"
            "    cores 0-1\n"
            "    host bridge of NUMA node 0\n"
            "      eth1 network 0000:01:03.0, 3.125 GB/s\n"
            "      PCIe bridge ffff:ff:01.0\n"
            "        gpu 0000:00:05.0, 31.51 GB/s\n"
            "        eth0 network 0000:00:0d.0\n"
            "        mlx5_0 network 0000:00:0d.0, 25 GB/s\n"
            "        mlx5_1 network 0000:00:0d.1\n"
            "      veth7 network, 1.25 GB/s\n"
            "  package 1\n"
            "    NUMA node 1: 1 GiB\n"
            "    cores 2-3\n"
            "    host bridge of NUMA node 1\n"
            "      PCIe bridge ffff:ff:02.0\n"
            "        gpu 0000:00:06.0\n"
            "        PCIe bridge 0000:00:1e.0\n"
            "          gpu 0000:01:01.0\n"
            "      gpu 0000:01:02.0\n"
            "      pci 0000:07:00.0 other 0000:07:00.0\n"
            "  host bridge 0000:00\n"
            "    nvme0n1 storage 0000:00:11.0\n");
}

TEST(NcclFile, MakesPathsOfTheNewPlacesOfAFlatMachine) {
  const Topology t = vm();
  EXPECT_EQ(between(t, "gpu 0000:00:05.0", "mlx5_0"), PathClass::kPcieSwitch);
  EXPECT_EQ(between(t, "gpu 0000:00:05.0", "mlx5_1"), PathClass::kPcieSwitch);
  EXPECT_EQ(between(t, "gpu 0000:00:05.0", "eth1"), PathClass::kRoot);
  EXPECT_EQ(between(t, "gpu 0000:00:05.0", "gpu 0000:00:06.0"), PathClass::kSystem);
  EXPECT_EQ(between(t, "gpu 0000:00:06.0", "gpu 0000:01:01.0"), PathClass::kPcieSwitch);
  EXPECT_EQ(between(t, "gpu 0000:00:06.0", "gpu 0000:01:02.0"), PathClass::kRoot)
      << "both were below one bridge, but the file says otherwise";
  EXPECT_EQ(between(t, "core 0", "mlx5_0"), PathClass::kNuma);
  EXPECT_EQ(between(t, "core 2", "mlx5_0"), PathClass::kSystem);
  EXPECT_EQ(between(t, "eth0", "mlx5_0"), PathClass::kSelf);
  EXPECT_EQ(named(t, "mlx5_1").numa_node, 0);
  EXPECT_EQ(named(t, "gpu 0000:01:01.0").package, 1);
}

TEST(NcclFile, LeavesTheIdsOfWhatHwlocFound) {
  const Topology alone = from_file("flat_vm.xml");
  const Topology t = vm();
  ASSERT_EQ(t.devices().size(), alone.devices().size() + 2);
  for (const Device& device : alone.devices())
    EXPECT_EQ(t.devices()[static_cast<size_t>(device.id)].name, device.name);
  for (size_t i = 0; i < t.devices().size(); ++i) EXPECT_EQ(t.devices()[i].id, static_cast<int>(i));
  EXPECT_EQ(t.cores(), alone.cores());
  EXPECT_EQ(t.usable_cores(), alone.usable_cores());
  EXPECT_EQ(t.numa_nodes(), alone.numa_nodes());
}

TEST(NcclFile, OfOneDeviceIsTheWholeJson) {
  const Written file(
      "<system version='1'><cpu numaid='1'><pci busid='A:b.c' class='030000'/>"
      "</cpu></system>");
  const auto t = file.read("pack:1 numa:1 core:1 pu:1");
  ASSERT_TRUE(t) << t.status().to_string();
  const std::string json = t->to_json();
  EXPECT_THAT(json, HasSubstr("\"packages\": 1,\n  \"numa_nodes\": 2,\n  \"cores\": 1,"));
  EXPECT_THAT(json, HasSubstr(R"({"id": 1, "kind": "gpu", "name": "gpu 0000:0a:0b.c", "address": )"
                              R"("0000:0a:0b.c", "numa_node": 1, "package": -1, )"
                              R"("gbytes_per_second": 0})"));
  EXPECT_THAT(json, HasSubstr(R"({"type": "numa", "name": "NUMA node 1, known from the file alone"},
    {"type": "host_bridge", "name": "host bridge of NUMA node 1", "children": [
      {"type": "device", "name": "gpu 0000:0a:0b.c", "device": 1}
    ]})"));
  EXPECT_EQ(t->path(0, 1).path, PathClass::kSystem);
}

TEST(NcclFile, WithoutANumaNodeMeansTheOnlyOneOrNone) {
  const Written file(
      "<system version='1'><cpu numaid='-1'><pci busid='0:5.0' class='0x030200'/>"
      "<pci busid='0:6.0' class='0x020000'/></cpu></system>");
  EXPECT_EQ(file.tree("pack:1 numa:1 core:2 pu:1"),
            "  package 0\n"
            "    NUMA node 0: 1 GiB\n"
            "    cores 0-1\n"
            "    host bridge of NUMA node 0\n"
            "      gpu 0000:00:05.0\n"
            "      nic 0000:00:06.0 network 0000:00:06.0\n");
  EXPECT_THAT(file.tree(), HasSubstr("\n"
                                     "  host bridge of no known NUMA node\n"
                                     "    gpu 0000:00:05.0\n"
                                     "    nic 0000:00:06.0 network 0000:00:06.0\n"));
  const auto t = file.read();
  EXPECT_EQ(between(*t, "gpu 0000:00:05.0", "nic 0000:00:06.0"), PathClass::kRoot);
  EXPECT_EQ(between(*t, "gpu 0000:00:05.0", "core 0"), PathClass::kSystem);
}

TEST(NcclFile, PutsDevicesBesideACoreThatIsAllOfItsNumaNode) {
  const Written file(
      "<system version='1'><cpu numaid='0'><pci busid='0:5.0' class='0x030200'/>"
      "</cpu></system>");
  EXPECT_EQ(file.tree("numa:2 core:1 pu:1"),
            "  core 0\n"
            "  host bridge of NUMA node 0\n"
            "    gpu 0000:00:05.0\n"
            "  core 1\n");
}

TEST(NcclFile, MayLackAllButAddresses) {
  // As in files that only group devices by NUMA node. hwloc knows what they are, if they are here.
  const Written file(
      "<system version=\"1\">\n<cpu numaid=\"1\"><pci busid=\"0000:00:05.0\"/>"
      "<pci busid=\"0000:00:55.0\"/><pci busid=\"0000:00:56.0\"><nic/></pci></cpu></system>");
  const auto t = file.read();
  ASSERT_TRUE(t) << t.status().to_string();
  EXPECT_EQ(named(*t, "pci 0000:00:05.0").kind, DeviceKind::kOther);
  setenv("HWLOC_XMLFILE", COMM_TEST_DATA "/flat_vm.xml", 1);
  EXPECT_THAT(file.tree(), AllOf(HasSubstr("    host bridge of NUMA node 1\n"
                                           "      gpu 0000:00:05.0\n"
                                           "      pci 0000:00:55.0 other 0000:00:55.0\n"
                                           "      nic 0000:00:56.0 network 0000:00:56.0\n"),
                                 HasSubstr("  host bridge 0000:00\n"
                                           "    gpu 0000:00:06.0\n")));
  unsetenv("HWLOC_XMLFILE");
}

TEST(NcclFile, LeavesNoBridgeAboveNothing) {
  const Written file(
      "<system version=\"1\"><cpu numaid=\"0\"/><cpu numaid=\"9\"/>"
      "<cpu numaid=\"1\"><pci busid=\"01:01.0\"/><pci busid=\"01:02.0\"/>"
      "<pci busid=\"01:03.0\"/><pci busid=\"02:00.0\" class=\"0x060400\"/>"
      "</cpu></system>");
  setenv("HWLOC_XMLFILE", COMM_TEST_DATA "/flat_vm.xml", 1);
  EXPECT_EQ(file.tree(),
            "  package 0\n"
            "    NUMA node 0: 1 GiB\n"
            "    cores 0-1\n"
            "  package 1\n"
            "    NUMA node 1: 1 GiB\n"
            "    cores 2-3\n"
            "    host bridge of NUMA node 1\n"
            "      gpu 0000:01:01.0\n"
            "      gpu 0000:01:02.0\n"
            "      eth1 network 0000:01:03.0\n"
            "  host bridge 0000:00\n"
            "    gpu 0000:00:05.0\n"
            "    gpu 0000:00:06.0\n"
            "    eth0 network 0000:00:0d.0\n"
            "    mlx5_0 network 0000:00:0d.0\n"
            "    mlx5_1 network 0000:00:0d.1\n"
            "    nvme0n1 storage 0000:00:11.0\n");
  unsetenv("HWLOC_XMLFILE");
}

TEST(NcclFile, TellsSeveralInterfacesOfOneDevice) {
  const Written file(
      "<system version=\"1\"><cpu numaid=\"0\"><pci busid=\"02:00.0\" "
      "link_speed=\"8 GT/s\" link_width=\"8\"><nic><net name=\"a\" speed=\"8000\"/>"
      "<net name=\"b\"/><net name=\"a\"/></nic></pci></cpu></system>");
  EXPECT_THAT(file.tree(), HasSubstr("    host bridge of NUMA node 0\n"
                                     "      a network 0000:02:00.0, 1 GB/s\n"
                                     "      b network 0000:02:00.0, 7.877 GB/s\n"
                                     "  package 1\n"));
}

// NCCL writes one whose place it does not know so.
TEST(NcclFile, LeavesAnInterfaceThatIsInSeveralCpus) {
  const std::string nic = "<nic><net name=\"eth1\" speed=\"10000\"/><net name=\"tap0\"/></nic>";
  const Written file("<system version=\"1\"><cpu numaid=\"0\">" + nic +
                     "<pci busid=\"0000:00:05.0\"/></cpu><cpu numaid=\"1\">" + nic +
                     "<pci busid=\"0000:00:06.0\"/></cpu></system>");
  setenv("HWLOC_XMLFILE", COMM_TEST_DATA "/flat_vm.xml", 1);
  const std::string tree = file.tree();
  unsetenv("HWLOC_XMLFILE");
  EXPECT_THAT(tree, HasSubstr("\n"
                              "  host bridge 0000:00\n"));
  EXPECT_THAT(tree, HasSubstr("\n"
                              "      eth1 network 0000:01:03.0\n"));
  EXPECT_THAT(tree, testing::Not(HasSubstr("tap0")));
  EXPECT_THAT(
      Written("<system version=\"1\"><cpu numaid=\"0\">" + nic + "</cpu><cpu numaid=\"1\">" + nic +
              "<pci busid=\"1:0.0\">" + nic + "</pci></cpu></system>")
          .tree(),
      HasSubstr("    host bridge of NUMA node 1\n"
                "      eth1 network 0000:01:00.0, 1.25 GB/s\n"
                "      tap0 network 0000:01:00.0\n"));
}

TEST(NcclFile, MayHoldWhatOthersRead) {
  const Written file(
      "\xef\xbb\xbf<?xml version=\"1.0\"?>\r\n<!DOCTYPE system [<!ENTITY a \"b\">]>\n<!-- > -->"
      "<system version=\"1\">text<news/><cpu numaid=\"0\"><gpu/><pci busid=\"0:5.0\">\r\n"
      "<gpu sm=\"90\"><nvlink target=\"fffffff:ff:ff.0\" count=\"18\" tclass=\"0x068000\"/>"
      "<c2c bw=\"1\"/></gpu><pcilink/></pci></cpu></system><!-- end -->\n");
  EXPECT_THAT(file.tree(), HasSubstr("    host bridge of NUMA node 0\n"
                                     "      gpu 0000:00:05.0, 18 NVLinks of 25 GB/s\n"));
}

TEST(NcclFile, ExpandsNoEntitiesOfItsOwn) {
  std::string bomb = "<!DOCTYPE system [<!ENTITY a0 \"aaaaaaaaaa\">";
  for (int i = 1; i < 12; ++i) {
    bomb += fmt::format("<!ENTITY a{} \"", i);
    for (int k = 0; k < 10; ++k) bomb += fmt::format("&a{};", i - 1);
    bomb += "\">";
  }
  bomb +=
      "]><system version=\"1\"><cpu numaid=\"0\"><nic><net name=\"&a11;\"/></nic></cpu></system>";
  EXPECT_THAT(Written(bomb).tree(), HasSubstr("      &a11; network\n"));
}

TEST(NcclFile, IsRefusedWhenItIsNotXml) {
  EXPECT_THAT(refused(""), HasSubstr("it is not XML: expected what `lstopo FILE.xml` writes"));
  EXPECT_THAT(refused("numa 0: gpu 0"), HasSubstr("it is not XML"));
  EXPECT_THAT(refused("<!-- <system version=\"1\">"), HasSubstr("it is not XML"));
  EXPECT_THAT(refused("<!DOCTYPE system [<system version=\"1\">"), HasSubstr("it is not XML"));
  EXPECT_THAT(refused("<system version=\"1\">" + std::string(10, '\0')),
              HasSubstr("it is not XML"));
  EXPECT_THAT(refused("\x7f"
                      "ELF\x02\x01\x01"),
              HasSubstr("it is not XML"));
  EXPECT_THAT(refused("<system version=\"1\">\n<cpu numaid=\"0\">\n</system>"),
              HasSubstr("line 3: not well-formed XML: "));
  EXPECT_THAT(refused("<system version=\"1\">\n<cpu numaid=0/></system>"),
              HasSubstr("line 2: not well-formed XML: "));
  EXPECT_THAT(refused("<system version=\"1\"><cpu numaid=\"0\">"),
              HasSubstr("not well-formed XML"));
}

TEST(NcclFile, IsRefusedWhenItIsAnotherDocument) {
  EXPECT_EQ(
      refused("<graphs version=\"1\"/>"),
      "its outermost element is <graphs>: expected <topology> (hwloc's) or <system> (NCCL's)");
  EXPECT_EQ(refused("<system version=\"2\"><cpu numaid=\"0\"/></system>"),
            "line 1: <system>: version=\"2\": version=\"1\" is the one that is known");
  EXPECT_THAT(refused("<system/>"), HasSubstr("<system>: version=\"\""));
  EXPECT_THAT(refused("\n<system version=\"1\"><pci busid=\"0:5.0\"/></system>"),
              HasSubstr("line 2: <system>: no <cpu numaid=\"...\"> in it"));
  EXPECT_THAT(refused("<system version=\"1\"><cpu numaid=\"0\"/></system><system version=\"1\"/>"),
              HasSubstr("line 1: <system>: a second one"));
}

TEST(NcclFile, IsRefusedWhenANumaNodeIsNone) {
  for (const char* id : {"", "-2", "1024", "one", "0 ", "0x", "99999999999999999999"})
    EXPECT_EQ(refused(fmt::format("<system version=\"1\">\n<cpu numaid=\"{}\"/></system>", id)),
              fmt::format("line 2: <cpu>: numaid=\"{}\": expected the number of a NUMA node, or -1 "
                          "for not known",
                          id));
  EXPECT_THAT(refused("<system version=\"1\"><cpu/></system>"), HasSubstr("<cpu>: numaid=\"\""));
}

TEST(NcclFile, IsRefusedWhenAnAddressIsNone) {
  for (const char* id : {"", "0000:zz:00.0", "0000:00:00.00", "00:00:00:00.0", "5", "00.0", ":.",
                         "0000:000:00.0", "123456789:00:00.0", "0000:0:-1.0", "0000:00:05.0 "})
    EXPECT_EQ(refused_in_cpu(fmt::format("<pci busid=\"{}\"/>", id)),
              fmt::format("line 2: <pci>: busid=\"{}\": expected a PCI address such as "
                          "0000:3b:00.0",
                          id));
  EXPECT_THAT(refused_in_cpu("<pci/>"), HasSubstr("<pci>: busid=\"\""));
}

TEST(NcclFile, IsRefusedWhenADeviceIsInTwoPlaces) {
  EXPECT_EQ(refused_in_cpu("<pci busid=\"0000:0A:00.0\">\n\n<pci busid=\"0a:00.0\"/></pci>"),
            "line 4: <pci>: busid=\"0a:00.0\" is that of line 2 too: a device is in one place");
}

TEST(NcclFile, IsRefusedWhenAClassOrANameIsNone) {
  EXPECT_EQ(refused_in_cpu("<pci busid=\"0:5.0\" class=\"gpu\"/>"),
            "line 2: <pci>: busid=\"0000:00:05.0\" class=\"gpu\": expected a PCI class such as "
            "0x030200");
  EXPECT_THAT(refused_in_cpu("<pci busid=\"0:5.0\" class=\"0x1030200\"/>"), HasSubstr("class="));
  EXPECT_THAT(refused_in_cpu("<nic><net name=\"a&#27;[2J\"/></nic>"),
              HasSubstr("line 2: <net>: name= holds a control character"));
}

TEST(NcclFile, IsRefusedWhenItIsOfSeveralHosts) {
  EXPECT_EQ(refused("<system version=\"1\"><cpu host_hash=\"0x1\" numaid=\"0\"/>\n"
                    "<cpu host_hash=\"0x2\" numaid=\"0\"/></system>"),
            "line 2: <cpu>: host_hash=\"0x2\", after one of host_hash=\"0x1\": the file describes "
            "several hosts; keep the <cpu> elements of this one");
}

TEST(NcclFile, IsRefusedWhenItIsTooDeep) {
  const auto nested = [](int levels) {
    std::string text = "<system version=\"1\"><cpu numaid=\"0\">";
    for (int i = 0; i < levels; ++i) text += fmt::format("<pci busid=\"{:x}:00:00.0\">", i);
    for (int i = 0; i < levels; ++i) text += "</pci>";
    return text + "</cpu></system>";
  };
  EXPECT_EQ(refused(nested(65)), "line 1: <pci>: 65 of them inside each other, more than 64");
  EXPECT_THAT(refused(nested(10000)), HasSubstr("65 of them inside each other"));
  EXPECT_TRUE(Written(nested(64)).read());
}

TEST(NcclFile, MayBeAsLargeAsOneMayBe) {
  std::string text = "<system version=\"1\"><cpu numaid=\"0\">\n";
  int devices = 0;
  for (; text.size() < (1 << 20) - 200; ++devices)
    text += fmt::format("<pci busid=\"{:x}:{:x}:0.0\"><nic><net name=\"n{}\"/></nic></pci>\n",
                        devices / 256, devices % 256, devices);
  const auto end = [](const std::string& last) { return last + "</cpu></system>"; };
  const auto topology = Written(text + end("<pci busid=\"ffff:ff:1f.7\"/>")).read();
  ASSERT_TRUE(topology) << topology.status().to_string();
  EXPECT_EQ(topology->devices().back().address, "ffff:ff:1f.7");
  EXPECT_EQ(static_cast<int>(topology->devices().size()), topology->cores() + devices + 1);
  EXPECT_THAT(refused(text + end("<pci busid=\"none\"/>")),
              StartsWith(fmt::format("line {}: <pci>: busid=\"none\"", devices + 2)));
}

TEST(NcclFile, IsRefusedWhenItHasMoreCpusThanThereAreNumaNodes) {
  const auto cpus = [](int count) {
    std::string text = "<system version=\"1\">";
    for (int i = 0; i < count; ++i) text += "\n<cpu numaid=\"0\"/>";
    return text + "</system>";
  };
  EXPECT_TRUE(Written(cpus(1025)).read());
  EXPECT_EQ(refused(cpus(1026)),
            "line 1027: <cpu>: one more than 1025: a machine has no more NUMA nodes");
}

TEST(NcclFile, IsRefusedWhenItIsTooLarge) {
  std::string text = "<system version=\"1\"><cpu numaid=\"0\"/></system>";
  text.resize(1 << 20, ' ');
  EXPECT_TRUE(Written(text).read());
  EXPECT_EQ(refused(text + ' '), "it has more than 1 MiB, which no topology of NCCL's has");
  text.resize((16 << 20) + 1, ' ');
  EXPECT_EQ(refused(text), "it has more than 16 MiB, which no topology has");
}

TEST(NcclFile, IsRefusedWhenItIsNoFile) {
  const TempFolder folder;
  const auto why = [](const std::string& path) {
    return detect_with(path, "HWLOC_SYNTHETIC", "core:1").status().message();
  };
  EXPECT_EQ(why("/nonexistent/topo.xml"),
            "COMM_TOPO_FILE=/nonexistent/topo.xml: it cannot be opened: No such file or directory");
  EXPECT_EQ(why(folder.path()),
            "COMM_TOPO_FILE=" + folder.path() + ": it is a directory, not a file");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(why(folder / "pipe"), HasSubstr(": it is a pipe or a device, not a file"));
}

TEST(NcclFile, SpellsPciAddressesInOneWay) {
  EXPECT_EQ(normal_pci_address("00000000:3B:00.0"), "0000:3b:00.0");
  EXPECT_EQ(normal_pci_address("3b:00"), "0000:3b:00.0");
  EXPECT_EQ(normal_pci_address("12345678:ff:ff.f"), "12345678:ff:ff.f");
}

TEST(NcclFile, ReadsLinkSpeedsAsKernelsWriteThem) {
  EXPECT_DOUBLE_EQ(pcie_gbytes_per_second("2.5 GT/s", "1"), 0.25);
  EXPECT_DOUBLE_EQ(pcie_gbytes_per_second("5 GT/s PCIe", "8"), 4);
  EXPECT_NEAR(pcie_gbytes_per_second("32.0 GT/s PCIe", "16"), 63.02, 0.01);
  EXPECT_NEAR(pcie_gbytes_per_second("64 GT/s", "16"), 121, 0.01);
  for (const auto& [rate, width] : {std::pair("", "16"),
                                    {"Unknown", "16"},
                                    {"100000 MT/s", "16"},
                                    {"16 GT/s", ""},
                                    {"16 GT/s", "0"},
                                    {"16 GT/s", "255"},
                                    {"-16 GT/s", "16"},
                                    {" GT/s", "16"},
                                    {"nan GT/s", "16"},
                                    {"1e9 GT/s", "16"}})
    EXPECT_EQ(pcie_gbytes_per_second(rate, width), 0) << rate << " x" << width;
}

}  // namespace
}  // namespace libcomm
