// Groups for the tests of the planner.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "src/base/knobs.h"
#include "src/plan/chooser.h"

namespace libcomm::test {

// `nranks` on one host.
inline GroupShape on_board(int nranks, double ranks_per_core = 1) {
  GroupShape shape;
  shape.nranks = nranks;
  shape.host_of.assign(static_cast<size_t>(nranks), 0);
  shape.one_board = true;
  shape.segment_bytes = size_t{64} << 10;
  shape.ranks_per_core = ranks_per_core;
  return shape;
}

inline GroupShape on_sockets(int nranks, double ranks_per_core = 1) {
  GroupShape shape = on_board(nranks, ranks_per_core);
  shape.one_board = false;
  return shape;
}

// `hosts` hosts of `per_host` ranks, one after the other.
inline GroupShape on_hosts(int hosts, int per_host) {
  GroupShape shape = on_sockets(hosts * per_host);
  for (size_t r = 0; r < shape.host_of.size(); ++r)
    shape.host_of[r] = static_cast<int>(r) / per_host;
  shape.hosts = hosts;
  return shape;
}

// As the environment and rank 0's text say.
inline std::shared_ptr<const Knobs> knobs_with(std::string_view agreed = "") {
  auto knobs = Knobs::load();
  EXPECT_TRUE(knobs.is_ok()) << knobs.status().message();
  auto all = (*knobs)->with_agreed(agreed, nullptr);
  EXPECT_TRUE(all.is_ok()) << all.status().message();
  return *all;
}

inline AlgorithmChoice forced(std::string_view text) {
  AlgorithmChoice choice;
  EXPECT_TRUE(choice.parse(text).is_ok());
  return choice;
}

// All collectives that have schedules.
inline std::vector<Collective> collectives() {
  std::vector<Collective> all;
  for (int i = 0; i < kNumCollectives; ++i)
    if (static_cast<Collective>(i) != Collective::kSendRecv)
      all.push_back(static_cast<Collective>(i));
  return all;
}

}  // namespace libcomm::test
