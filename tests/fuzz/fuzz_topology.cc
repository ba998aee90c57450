// Topology files in NCCL's format, laid over a machine: whatever the file says, every device is
// once in the tree and has a path to every other.
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "src/base/log.h"
#include "src/topology/nccl_file.h"
#include "src/topology/topology.h"
#include "src/topology/topology_file.h"
#include "tests/fuzz/fuzz.h"

namespace libcomm::fuzz {
namespace {

constexpr const char* kStart = "<system version=\"1\"><cpu numaid=\"0\">";
constexpr const char* kEnd = "</cpu></system>";

class TemporaryFile {
 public:
  TemporaryFile() : path_(std::filesystem::temp_directory_path() / "comm_fuzz_XXXXXX") {
    const int fd = ::mkstemp(path_.data());
    FUZZ_CHECK(fd >= 0);
    ::close(fd);
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void words(std::string_view text) {
  const std::string address = normal_pci_address(text);
  FUZZ_CHECK(address.empty() || normal_pci_address(address) == address);
  const double speed = pcie_gbytes_per_second(text, "16");
  FUZZ_CHECK(speed >= 0 && speed < 5000);
  const std::string_view root = root_element(text);
  FUZZ_CHECK(root.size() < text.size() || text.empty());
}

// How often each device is in the tree, by the ids in its JSON.
void once_each(const Topology& topology) {
  std::vector<int> seen(topology.devices().size());
  const std::string json = topology.to_json();
  const std::string key = "\"device\": ";
  for (size_t at = json.find(key); at != json.npos; at = json.find(key, at + 1)) {
    const int id = std::atoi(json.c_str() + at + key.size());
    FUZZ_CHECK(id >= 0 && static_cast<size_t>(id) < seen.size());
    ++seen[static_cast<size_t>(id)];
  }
  for (const int count : seen) FUZZ_CHECK(count == 1);
}

}  // namespace

std::vector<std::string> seeds() {
  const auto of_cpu = [](const std::string& text) { return kStart + text + kEnd; };
  return {of_cpu("<pci busid=\"0000:00:05.0\" class=\"0x030200\" link_speed=\"16 GT/s\" "
                 "link_width=\"16\"><gpu dev=\"0\"/></pci>"),
          of_cpu("<pci busid=\"0000:01:00.0\"><nic><net name=\"eth0\" speed=\"100\"/>"
                 "<net name=\"eth1\"/></nic></pci><nic><net name=\"eth2\"/></nic>"),
          of_cpu("<pci busid=\"ffff:ff:01.0\" class=\"0x060400\"><pci busid=\"0000:02:01.0\"/>"
                 "<pci busid=\"0000:00:01.0\"/></pci><pci busid=\"03:00.0\"/>"),
          of_cpu("</cpu><cpu numaid=\"7\"><pci busid=\"05:00.0\"><pci busid=\"0000:08:00.0\"/>"
                 "</pci></cpu><cpu numaid=\"-1\"><pci busid=\"81:00.1\"/>"),
          of_cpu("<pci busid=\"0000:03:00.0\"><gpu><nvlink target=\"0000:07:00.0\" count=\"4\" "
                 "tclass=\"0x030200\"/><nvlink target=\"fffffff:ff:ff.0\" count=\"18\"/></gpu>"
                 "</pci><pci busid=\"09:00.0\"><gpu><nvlink tclass=\"0x068000\"/></gpu></pci>"),
          "<!DOCTYPE system [<!ENTITY a \"b\">]><!-- c --><system version=\"1\"/>"};
}

}  // namespace libcomm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace libcomm;
  using namespace libcomm::fuzz;
  [[maybe_unused]] static const bool quiet = [] {
    configure_log(LogLevel::kNone, 0, "");
    setenv("HWLOC_XMLFILE", COMM_TEST_DATA "/switches.xml", 1);
    return true;
  }();
  static const TemporaryFile file;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  words(text);
  // As another format it would be hwloc's to read.
  if (root_element(text) != "system") return 0;
  std::ofstream(file.path(), std::ios::binary) << text;
  const auto topology = Topology::detect({file.path(), "COMM_TOPO_FILE"});
  if (topology) {
    once_each(*topology);
    const int devices = static_cast<int>(topology->devices().size());
    const Topology found = topology->without_file();
    const int known = static_cast<int>(found.devices().size());
    for (int core = 0; core < found.cores(); ++core)
      for (int device = 0; device < known; ++device)
        FUZZ_CHECK(topology->is_placed_by_file(device) ||
                   topology->path(core, device).path <= found.path(core, device).path);
    for (int a = 0; a < devices; ++a)
      for (int b = 0; b < devices; ++b)
        FUZZ_CHECK(topology->path(a, b).path == topology->path(b, a).path);
  } else {
    FUZZ_CHECK(topology.status().code() != Code::kInternal);
  }
  return 0;
}
