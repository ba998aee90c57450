// TCP in the conformance suite: one socket, several, helper threads. Small buffers, so that a
// segment is often cut by the kernel and credit runs out soon.
#include "tests/transports/tcp_world.h"

namespace libcomm::test {
namespace {

WorldKind tcp(const char* name, const Settings& settings) {
  return {name, [settings] { return std::make_unique<TcpWorld>(settings); }};
}

INSTANTIATE_TEST_SUITE_P(
    Tcp, Conformance,
    testing::Values(tcp("defaults", {}), tcp("small_segments", {{"BUFFSIZE", "16K"}}),
                    tcp("three_sockets", {{"BUFFSIZE", "256K"}, {"NSOCKS_PERTHREAD", "3"}}),
                    tcp("one_helper", {{"BUFFSIZE", "256K"}, {"SOCKET_NTHREADS", "1"}}),
                    tcp("three_helpers_two_sockets", {{"BUFFSIZE", "128K"},
                                                      {"SOCKET_NTHREADS", "3"},
                                                      {"NSOCKS_PERTHREAD", "2"}})),
    world_name);

}  // namespace
}  // namespace libcomm::test
