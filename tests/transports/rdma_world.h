// Two ranks over RDMA, on the test double, with the knobs a test names.
#pragma once

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/transports/loopback_bootstrap.h"
#include "tests/transports/world.h"
#include "transports/rdma/transport.h"

namespace libcomm::test {

using Settings = std::vector<std::pair<std::string, std::string>>;

// The knobs with these settings ("BUFFSIZE", "64K") in the environment while they are read.
inline std::shared_ptr<const Knobs> knobs_with(const Settings& settings) {
  for (const auto& [name, value] : settings) ::setenv(("COMM_" + name).c_str(), value.c_str(), 1);
  auto knobs = Knobs::load();
  for (const auto& [name, value] : settings) ::unsetenv(("COMM_" + name).c_str());
  EXPECT_TRUE(knobs.is_ok()) << knobs.status().to_string();
  return knobs ? *knobs : nullptr;
}

using MadeTransport = Result<std::unique_ptr<rdma::RdmaTransport>>;

// What make_rdma_transport() gives each rank under its settings.
inline std::vector<MadeTransport> make_transports(
    const std::vector<std::unique_ptr<Bootstrap>>& bootstraps,
    const std::vector<Settings>& settings, const std::shared_ptr<const UserMemory>& memory,
    const std::shared_ptr<const DeviceMemory>& devices = nullptr, int numa_node = -1) {
  std::vector<std::shared_ptr<const Knobs>> knobs;
  std::vector<MadeTransport> made;
  for (const Settings& each : settings) {
    knobs.push_back(knobs_with(each));
    made.emplace_back(error(Code::kInternal, "not made"));
  }
  std::vector<std::thread> ranks;
  for (size_t rank = 0; rank < settings.size(); ++rank) {
    ranks.emplace_back([&, rank] {
      made[rank] =
          rdma::make_rdma_transport(*bootstraps[rank], {knobs[rank], memory, numa_node, devices});
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return made;
}

inline std::vector<std::unique_ptr<Bootstrap>> loopback_bootstraps(int nranks) {
  const auto hub = std::make_shared<LoopbackHub>(nranks);
  std::vector<std::unique_ptr<Bootstrap>> bootstraps;
  for (int rank = 0; rank < nranks; ++rank)
    bootstraps.push_back(std::make_unique<LoopbackBootstrap>(hub, rank));
  return bootstraps;
}

// Two ranks, unless there are settings for more.
class RdmaWorld final : public World {
 public:
  explicit RdmaWorld(const Settings& settings, std::shared_ptr<const UserMemory> memory = nullptr,
                     std::shared_ptr<const DeviceMemory> devices = nullptr)
      : RdmaWorld(std::vector<Settings>{settings, settings}, std::move(memory),
                  std::move(devices)) {}
  explicit RdmaWorld(const std::vector<Settings>& settings,
                     std::shared_ptr<const UserMemory> memory = nullptr,
                     std::shared_ptr<const DeviceMemory> devices = nullptr)
      : bootstraps_(loopback_bootstraps(static_cast<int>(settings.size()))) {
    for (auto& each : make_transports(bootstraps_, settings, memory, devices)) {
      EXPECT_TRUE(each.is_ok()) << each.status().to_string();
      transports_.push_back(each ? *std::move(each) : nullptr);
    }
  }
  bool usable() const { return transports_[0] && transports_[1]; }
  Transport& transport(int rank) override { return *transports_[static_cast<size_t>(rank)]; }
  rdma::RdmaTransport& rdma(int rank) { return *transports_[static_cast<size_t>(rank)]; }
  bool leave(int rank) override {
    transports_[static_cast<size_t>(rank)].reset();
    return true;
  }

 private:
  const std::vector<std::unique_ptr<Bootstrap>> bootstraps_;
  std::vector<std::unique_ptr<rdma::RdmaTransport>> transports_;
};

}  // namespace libcomm::test
