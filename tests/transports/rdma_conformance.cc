// RDMA in the conformance suite, on the test double: one queue pair, several, split segments, small
// windows.
#include "tests/transports/rdma_world.h"

namespace libcomm::test {
namespace {

WorldKind rdma(const char* name, const Settings& settings) {
  return {name, [settings] { return std::make_unique<RdmaWorld>(settings); }};
}

INSTANTIATE_TEST_SUITE_P(Rdma, Conformance,
                         testing::Values(rdma("defaults", {}),
                                         rdma("one_small_slot", {{"RDMA_WINDOW", "1x8K"}}),
                                         rdma("many_slots", {{"RDMA_WINDOW", "16x16K"}}),
                                         rdma("four_queue_pairs", {{"IB_QPS_PER_CONNECTION", "4"}}),
                                         rdma("split_over_three", {{"IB_QPS_PER_CONNECTION", "3"},
                                                                   {"IB_SPLIT_DATA_ON_QPS", "1"}})),
                         world_name);

}  // namespace
}  // namespace libcomm::test
