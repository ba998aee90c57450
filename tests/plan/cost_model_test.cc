// The cost model: prices are positive and grow with what is to be done.
#include "src/plan/cost_model.h"

#include "tests/plan/groups.h"

namespace libcomm::test {
namespace {

constexpr int kRanks[] = {2, 3, 4, 7, 8, 16, 100, 4096};

// Every way that is possible for the call, on its route.
template <typename Visit>
void each_way(const GroupShape& shape, Collective collective, size_t bytes, const Visit& visit) {
  const Chooser chooser(shape, knobs_with(), AlgorithmChoice(), {});
  const Call call = Call::of(collective, bytes, shape.nranks);
  for (int i = 0; i < kNumWays; ++i) {
    const auto way = static_cast<Way>(i);
    if (const auto route = chooser.route_of(way, call)) visit(chooser.group(), *route, way);
  }
}

TEST(CostModel, PricesArePositiveAndNeverFallWithMoreBytes) {
  for (const int nranks : kRanks) {
    for (const GroupShape& shape : {on_board(nranks), on_board(nranks, 4), on_sockets(nranks),
                                    on_sockets(nranks, 2), on_hosts(2, nranks)}) {
      for (const Collective collective : collectives()) {
        each_way(shape, collective, 1, [&](const PricedGroup& group, Route route, Way way) {
          double before = 0;
          for (size_t bytes = 1; bytes <= size_t{1} << 36; bytes = bytes * 3 + 1) {
            const double us = price_us(group, collective, bytes, route, way);
            EXPECT_GT(us, 0) << name_of(collective) << ' ' << name_of(way);
            EXPECT_GE(us, before) << name_of(collective) << ' ' << name_of(way) << ' ' << bytes;
            before = us;
          }
        });
      }
    }
  }
}

TEST(CostModel, MoreRanksAndFewerCoresNeverCostLess) {
  for (const Collective collective : collectives()) {
    for (const size_t bytes : {size_t{8}, size_t{8} << 10, size_t{8} << 20}) {
      each_way(on_board(2), collective, bytes, [&](const PricedGroup& small, Route route, Way way) {
        PricedGroup large = small;
        large.nranks = large.most_per_host = 16;
        EXPECT_GE(price_us(large, collective, bytes, route, way),
                  price_us(small, collective, bytes, route, way))
            << name_of(collective) << ' ' << name_of(way) << ' ' << bytes;
        PricedGroup crowded = large, more_crowded = large;
        crowded.ranks_per_core = 2;
        more_crowded.ranks_per_core = 8;
        EXPECT_GE(price_us(more_crowded, collective, bytes, route, way),
                  price_us(crowded, collective, bytes, route, way))
            << name_of(collective) << ' ' << name_of(way) << ' ' << bytes;
      });
    }
  }
}

TEST(CostModel, KnowsWhatEachAlgorithmIsFor) {
  const PricedGroup group = Chooser(on_sockets(16), knobs_with(), AlgorithmChoice(), {}).group();
  const auto us = [&](size_t bytes, Way way) {
    return price_us(group, Collective::kAllReduce, bytes, Route::kSchedule, way);
  };
  EXPECT_LT(us(8, Way::kRd), us(8, Way::kHd));
  EXPECT_LT(us(8, Way::kHd), us(8, Way::kRing));
  EXPECT_LT(us(size_t{64} << 20, Way::kRing), us(size_t{64} << 20, Way::kHd));
  EXPECT_LT(us(size_t{64} << 20, Way::kHd), us(size_t{64} << 20, Way::kRd));
}

TEST(CostModel, NetworksFavourLevels) {
  const PricedGroup group = Chooser(on_hosts(4, 8), knobs_with(), AlgorithmChoice(), {}).group();
  const auto us = [&](Way way) {
    return price_us(group, Collective::kAllReduce, size_t{1} << 20, Route::kSchedule, way);
  };
  EXPECT_LT(us(Way::kHierarchical), us(Way::kRing));
  EXPECT_LT(us(Way::kHierarchical), us(Way::kHd));
}

TEST(CostModel, AMessageOfTwoRanksHasAPrice) {
  for (const GroupShape& shape : {on_board(2), on_sockets(2), on_hosts(2, 1)}) {
    const PricedGroup group = Chooser(shape, knobs_with(), AlgorithmChoice(), {}).group();
    EXPECT_GT(message_us(group, 0), 0);
    EXPECT_GT(message_us(group, 1 << 20), message_us(group, 1 << 10));
  }
}

}  // namespace
}  // namespace libcomm::test
