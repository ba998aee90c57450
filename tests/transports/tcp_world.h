// Two ranks over TCP on the loopback interface, with the knobs a test names.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/transports/loopback_bootstrap.h"
#include "tests/transports/world.h"
#include "transports/tcp/transport.h"

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

class TcpWorld final : public World {
 public:
  explicit TcpWorld(const Settings& settings) {
    const auto knobs = knobs_with(settings);
    for (int rank = 0; rank < 2; ++rank) {
      bootstraps_[rank] = std::make_unique<LoopbackBootstrap>(hub_, rank);
      auto made = make_tcp_transport(*bootstraps_[rank], knobs);
      EXPECT_TRUE(made.is_ok()) << made.status().to_string();
      transports_[rank] = std::move(*made);
    }
  }
  Transport& transport(int rank) override { return *transports_[rank]; }
  bool leave(int rank) override {
    transports_[rank].reset();
    return true;
  }

 private:
  std::shared_ptr<LoopbackHub> hub_ = std::make_shared<LoopbackHub>(2);
  std::unique_ptr<Bootstrap> bootstraps_[2];
  std::unique_ptr<Transport> transports_[2];
};

}  // namespace libcomm::test
