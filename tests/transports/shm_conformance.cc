// The shm transport in the conformance suite: two ranks as threads of one process, with the default
// buffer and with the smallest one.
#include <thread>

#include "tests/transports/loopback_bootstrap.h"
#include "tests/transports/world.h"
#include "transports/facts.h"
#include "transports/shm/group.h"

namespace libcomm::test {
namespace {

class ShmWorld final : public World {
 public:
  explicit ShmWorld(const std::string& buffsize) {
    const auto hub = std::make_shared<LoopbackHub>(2);
    const auto defaults = Knobs::load();
    EXPECT_TRUE(defaults.is_ok()) << defaults.status().to_string();
    std::string differing;
    const auto knobs = *(*defaults)->with_agreed("BUFFSIZE=" + buffsize + "\n", &differing);
    const std::vector<PeerFacts> facts = {gather_facts(0, *knobs), gather_facts(1, *knobs)};
    Status made[2];
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < 2; ++rank)
      ranks.emplace_back([&, rank] {
        LoopbackBootstrap bootstrap(hub, rank);
        Result<ShmGroup> group = make_shm_group(bootstrap, facts, knobs);
        made[rank] = group.status();
        if (group) groups_[rank] = *std::move(group);
      });
    for (std::thread& rank : ranks) rank.join();
    for (const Status& status : made) EXPECT_TRUE(status.is_ok()) << status.to_string();
  }
  Transport& transport(int rank) override { return *groups_[rank].transport; }
  // The death of a process is the bootstrap's to notice.
  bool leave(int) override { return false; }

 private:
  ShmGroup groups_[2];
};

INSTANTIATE_TEST_SUITE_P(
    Shm, Conformance,
    testing::Values(WorldKind{"shm", [] { return std::make_unique<ShmWorld>("1M"); }},
                    WorldKind{"shm_small", [] { return std::make_unique<ShmWorld>("4K"); }}),
    world_name);

}  // namespace
}  // namespace libcomm::test
