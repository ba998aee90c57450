// Reads NCCL's topology file with pugixml, which expands no entities of the file's own and reads
// without recursion; the nesting that we recurse into is limited here.
#include "src/topology/nccl_file.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <pugixml.hpp>
#include <set>

#include "src/base/log.h"

namespace libcomm {
namespace {

constexpr int kMostNested = 64;      // PCIe has at most 256 buses; real trees are five deep
constexpr int kMostNumaNode = 1023;  // as in Linux
constexpr int kMostCpus = kMostNumaNode + 2;
constexpr int kMostNvlinks = 1024;  // of one element; GPUs have 18 in all

// "0x030200" and "030200" alike.
bool parse_class(std::string_view text, uint32_t* code) {
  if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
  const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), *code, 16);
  return err == std::errc() && end == text.data() + text.size() && *code <= 0xffffff;
}

bool is_printable(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

class Reader {
 public:
  explicit Reader(const std::string& text) : text_(text) {
    for (size_t at = text.find('\n'); at != text.npos; at = text.find('\n', at + 1))
      ends_of_lines_.push_back(static_cast<ptrdiff_t>(at));
  }

  Result<NcclFile> read(const std::string& label) {
    pugi::xml_document document;
    // What follows is counted in bytes of the file: no conversion.
    const auto parsed =
        document.load_buffer(text_.data(), text_.size(), pugi::parse_default, pugi::encoding_utf8);
    if (!parsed)
      return error(Code::kInvalidArgument, "line {}: not well-formed XML: {}",
                   line_at(parsed.offset), parsed.description());
    NcclFile file;
    const pugi::xml_node system = document.document_element();
    for (Node more = system.next_sibling(); more; more = more.next_sibling())
      if (more.type() == pugi::node_element)
        return bad(more, "a second one: a document has one outermost element");
    COMM_TRY(read_system(system, &file));
    if (!ignored_.empty())
      log_info(Subsys::kGraph, "{}: elements that say nothing here are ignored: {}", label,
               fmt::join(ignored_, ", "));
    return file;
  }

 private:
  using Node = pugi::xml_node;

  int line_at(ptrdiff_t offset) const {
    const auto line = std::lower_bound(ends_of_lines_.begin(), ends_of_lines_.end(), offset);
    return 1 + static_cast<int>(line - ends_of_lines_.begin());
  }
  int line_of(Node node) const { return line_at(node.offset_debug()); }

  template <typename... Args>
  Status bad(Node node, fmt::format_string<Args...> format, Args&&... args) const {
    return error(Code::kInvalidArgument, "line {}: <{}>: {}", line_of(node), node.name(),
                 fmt::format(format, std::forward<Args>(args)...));
  }

  // Unknown elements are for other readers, and for other versions of NCCL.
  void ignore(Node child, Node parent) {
    if (child.type() == pugi::node_element && ignored_.size() < 8)
      ignored_.insert(fmt::format("<{}> in <{}>", child.name(), parent.name()));
  }

  Status read_system(Node system, NcclFile* file) {
    const std::string_view version = system.attribute("version").value();
    if (version != "1")
      return bad(system, "version=\"{}\": version=\"1\" is the one that is known", version);
    std::string host;
    for (const Node child : system.children()) {
      if (std::string_view(child.name()) != "cpu") {
        ignore(child, system);
        continue;
      }
      const std::string of = child.attribute("host_hash").value();
      if (!file->cpus.empty() && of != host)
        return bad(child,
                   "host_hash=\"{}\", after one of host_hash=\"{}\": the file describes several "
                   "hosts; keep the <cpu> elements of this one",
                   of, host);
      host = of;
      if (file->cpus.size() == kMostCpus)
        return bad(child, "one more than {}: a machine has no more NUMA nodes", kMostCpus);
      COMM_TRY(read_cpu(child, &file->cpus.emplace_back()));
    }
    if (file->cpus.empty())
      return bad(system, "no <cpu numaid=\"...\"> in it, which PCI devices would be in");
    return Status::ok();
  }

  Status read_cpu(Node node, NcclCpu* cpu) {
    const std::string_view id = node.attribute("numaid").value();
    if (!parse_numa_node(id, &cpu->numa_node))
      return bad(node, "numaid=\"{}\": expected the number of a NUMA node, or -1 for not known",
                 id);
    for (const Node child : node.children()) {
      const std::string_view name = child.name();
      if (name == "pci")
        COMM_TRY(read_pci(child, 1, &cpu->children.emplace_back()));
      else if (name == "nic")
        COMM_TRY(read_nets(child, &cpu->nets));
      else
        ignore(child, node);
    }
    return Status::ok();
  }

  static bool parse_numa_node(std::string_view text, int* node) {
    const bool hexadecimal = text.starts_with("0x");
    if (hexadecimal) text.remove_prefix(2);
    const auto [end, err] =
        std::from_chars(text.data(), text.data() + text.size(), *node, hexadecimal ? 16 : 10);
    return err == std::errc() && end == text.data() + text.size() && *node >= -1 &&
           *node <= kMostNumaNode;
  }

  Status read_pci(Node node, int depth, NcclPci* pci) {
    if (depth > kMostNested)
      return bad(node, "{} of them inside each other, more than {}", depth, kMostNested);
    COMM_TRY(read_address(node, pci));
    const std::string_view rate = node.attribute("link_speed").value();
    pci->gbytes_per_second = pcie_gbytes_per_second(rate, node.attribute("link_width").value());
    bool has_gpu = false, has_nic = false;
    for (const Node child : node.children()) {
      const std::string_view name = child.name();
      if (name == "pci") {
        COMM_TRY(read_pci(child, depth + 1, &pci->children.emplace_back()));
      } else if (name == "nic") {
        has_nic = true;
        COMM_TRY(read_nets(child, &pci->nets));
      } else if (name == "gpu") {
        has_gpu = true;
        pci->nvlinks.link_gbs = nvlink_gbs_of(sm_of(child));
        COMM_TRY(read_nvlinks(child, &pci->nvlinks.links));
      } else {
        ignore(child, node);
      }
    }
    uint32_t code = 0;
    const std::string_view text = node.attribute("class").value();
    if (!text.empty() && !parse_class(text, &code))
      return bad(node, "busid=\"{}\" class=\"{}\": expected a PCI class such as 0x030200",
                 pci->address, text);
    const uint32_t base = code >> 16;
    pci->is_bridge = code >> 8 == 0x0604 || !pci->children.empty();
    if (base == 0x03 || has_gpu)
      pci->kind = DeviceKind::kGpu;
    else if (base == 0x02 || has_nic)
      pci->kind = DeviceKind::kNetwork;
    else if (base == 0x01)
      pci->kind = DeviceKind::kStorage;
    return Status::ok();
  }

  Status read_address(Node node, NcclPci* pci) {
    const std::string_view text = node.attribute("busid").value();
    pci->address = normal_pci_address(text);
    if (pci->address.empty())
      return bad(node, "busid=\"{}\": expected a PCI address such as 0000:3b:00.0", text);
    const auto [first, is_new] = lines_.emplace(pci->address, line_of(node));
    if (!is_new)
      return bad(node, "busid=\"{}\" is that of line {} too: a device is in one place", text,
                 first->second);
    return Status::ok();
  }

  // The compute capability, from which NCCL has the bandwidth of links too. 0: not said.
  static int sm_of(Node gpu) {
    const std::string_view text = gpu.attribute("sm").value();
    int sm = 0;
    const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), sm);
    return err == std::errc() && end == text.data() + text.size() ? sm : 0;
  }

  // As NCCL reads them. Without a class, what is no GPU that one can see is a switch: a virtual
  // machine hides those. Links to a CPU (0x068001) say nothing of other GPUs.
  Status read_nvlinks(Node gpu, std::vector<Nvlinks>* nvlinks) {
    for (const Node child : gpu.children()) {
      if (std::string_view(child.name()) != "nvlink") {
        ignore(child, gpu);
        continue;
      }
      const std::string_view target = child.attribute("target").value();
      const std::string_view type = child.attribute("tclass").value();
      const std::string_view count = child.attribute("count").value();
      Nvlinks nvlink;
      uint32_t code = 0;
      if (!type.empty() && !parse_class(type, &code))
        return bad(child, "tclass=\"{}\": expected a PCI class such as 0x068000", type);
      const bool is_gpu = code >> 16 == 0x03;
      if (is_gpu || type.empty()) nvlink.gpu = normal_pci_address(target);
      if (is_gpu && nvlink.gpu.empty())
        return bad(child, "target=\"{}\": expected a PCI address such as 0000:3b:00.0", target);
      nvlink.to_switch = type.empty() || code == 0x068000;
      const auto [end, err] =
          std::from_chars(count.data(), count.data() + count.size(), nvlink.links);
      if (!count.empty() && (err != std::errc() || end != count.data() + count.size() ||
                             nvlink.links < 0 || nvlink.links > kMostNvlinks))
        return bad(child, "count=\"{}\": expected a number of links from 0 to {}", count,
                   kMostNvlinks);
      nvlinks->push_back(std::move(nvlink));
    }
    return Status::ok();
  }

  Status read_nets(Node nic, std::vector<NcclNet>* nets) {
    for (const Node child : nic.children()) {
      if (std::string_view(child.name()) != "net") {
        ignore(child, nic);
        continue;
      }
      NcclNet net;
      net.name = child.attribute("name").value();
      if (!is_printable(net.name)) return bad(child, "name= holds a control character");
      const double megabits = child.attribute("speed").as_double(0);  // of unknown ones: -1
      if (megabits > 0 && megabits <= 1e9) net.gbytes_per_second = megabits / 8000;
      if (!net.name.empty()) nets->push_back(std::move(net));
    }
    return Status::ok();
  }

  const std::string& text_;
  std::vector<ptrdiff_t> ends_of_lines_;
  std::map<std::string, int> lines_;  // of addresses
  std::set<std::string> ignored_;
};

}  // namespace

Result<NcclFile> parse_nccl_file(const std::string& text, const std::string& label) {
  return Reader(text).read(label);
}

}  // namespace libcomm
