// A build without pugixml says so when it meets a topology file in NCCL's format.
#include <gmock/gmock.h>

#include "tests/topology/machines.h"

namespace libcomm {
namespace {

TEST(NcclFileWithoutPugixml, SaysWhatToInstall) {
  const std::string path = COMM_TEST_DATA "/nccl_nd.xml";
  const auto topology = Topology::detect({path, "COMM_TOPO_FILE=" + path});
  ASSERT_FALSE(topology);
  EXPECT_EQ(topology.status().code(), Code::kSystem);
  EXPECT_THAT(topology.status().message(),
              testing::AllOf(testing::StartsWith("COMM_TOPO_FILE=" + path),
                             testing::HasSubstr("install libpugixml-dev and build again")));
}

}  // namespace
}  // namespace libcomm
