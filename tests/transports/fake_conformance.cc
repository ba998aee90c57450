// The fake transport in the conformance suite, well-behaved and at its worst.
#include "tests/transports/world.h"
#include "transports/fake/transport.h"

namespace libcomm::test {
namespace {

class FakeWorld final : public World {
 public:
  explicit FakeWorld(const FakeOptions& options)
      : network_(std::make_shared<FakeNetwork>(2, options)) {
    for (int rank = 0; rank < 2; ++rank) transports_[rank] = make_fake_transport(network_, rank);
  }
  Transport& transport(int rank) override { return *transports_[rank]; }
  bool leave(int rank) override {
    network_->kill(rank);
    transports_[rank].reset();
    return true;
  }

 private:
  std::shared_ptr<FakeNetwork> network_;
  std::unique_ptr<Transport> transports_[2];
};

WorldKind fake(const char* name, const FakeOptions& options) {
  return {name, [options] { return std::make_unique<FakeWorld>(options); }};
}

INSTANTIATE_TEST_SUITE_P(
    Fake, Conformance,
    testing::Values(fake("plain", {}), fake("one_credit", {.credits = 1}),
                    fake("late", {.seed = 2, .max_delay = 9}),
                    fake("short_io", {.seed = 3, .short_io = true}),
                    fake("late_short_io",
                         {.seed = 4, .credits = 5, .max_delay = 5, .short_io = true}),
                    fake("staged", {.seed = 5, .credits = 3, .max_delay = 3, .direct = false})),
    world_name);

}  // namespace
}  // namespace libcomm::test
