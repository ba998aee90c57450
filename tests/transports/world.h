// World: two ranks that can talk by one kind of transport, as the conformance suite needs them.
//
// A transport joins the suite with a factory:
//   INSTANTIATE_TEST_SUITE_P(Shm, Conformance, testing::Values(WorldKind{"shm", make_shm_world}),
//                            world_name);
// in a file of its own, linked with conformance.cc.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "transports/transport.h"

namespace libcomm::test {

class World {
 public:
  virtual ~World() = default;
  // Rank 0's and rank 1's; both may be used from one thread, or each from one of its own. Goes with
  // the world, or with leave().
  virtual Transport& transport(int rank) = 0;
  // Rank `rank` goes away; its channels have been destroyed already. False when this kind of
  // transport does not notice that (another part of the library does): the tests about it are
  // skipped.
  virtual bool leave(int rank) = 0;
};

struct WorldKind {
  std::string name;
  std::function<std::unique_ptr<World>()> make;
};
inline void PrintTo(const WorldKind& kind, std::ostream* out) { *out << kind.name; }
inline std::string world_name(const testing::TestParamInfo<WorldKind>& info) {
  return info.param.name;
}

class Conformance : public testing::TestWithParam<WorldKind> {
 protected:
  void SetUp() override { world_ = GetParam().make(); }
  Transport& transport(int rank) { return world_->transport(rank); }

  std::unique_ptr<World> world_;
};

}  // namespace libcomm::test
