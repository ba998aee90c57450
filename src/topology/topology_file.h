// The file that COMM_TOPO_FILE names, read and told apart: hwloc's XML or NCCL's.
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "src/base/status.h"
#include "src/topology/nccl_file.h"
#include "src/topology/topology.h"

namespace libcomm {

// More is no topology: real files have some 10 KB per 100 devices.
inline constexpr size_t kMostTopologyBytes = size_t{16} << 20;
inline constexpr size_t kMostNcclBytes = size_t{1} << 20;

// hwloc's XML, for hwloc to read.
struct HwlocText {
  std::string text;
};
// Nothing where the file has no path.
using TopologyDescription = std::variant<std::monostate, HwlocText, NcclFile>;

// What the file holds; nothing where it has no path, or is passed over. kSystem when it cannot be
// read and is required, kInvalidArgument when it is too large. Messages begin with the file's
// label.
Result<std::optional<std::string>> read_topology_file(const TopologyFile& file);

// What that means. kInvalidArgument when it is neither of the two formats, kSystem when libcomm was
// built without what reads it and the file is required.
Result<TopologyDescription> parse_topology_file(const std::optional<std::string>& text,
                                                const TopologyFile& file);

// The name of an XML document's outermost element; empty when the text does not begin as one.
std::string_view root_element(std::string_view text);

}  // namespace libcomm
