#include "tests/collectives/sweep.h"

namespace matrix {
namespace {

using elements::Op;
using world::Rank;

constexpr size_t kCounts[] = {0, 1, 2, 3, 7, 63, 64, 65, 1000, 4097};
constexpr size_t kLargeCounts[] = {100003};
constexpr size_t kSmallCounts[] = {1, 7, 64, 1000, 4097};  // rotated through by types and operators

}  // namespace

std::vector<Call> sweep(int nranks, uint64_t salt, bool large) {
  std::vector<Call> calls;
  uint64_t turn = salt;
  const auto add = [&](Collective collective, commDataType_t type, Op op, size_t count) {
    ++turn;
    Call call;
    call.collective = collective;
    call.type = type;
    call.op = op;
    call.count = count;
    call.seed = turn;
    const uint64_t h = elements::hash(turn, 1);
    call.root = static_cast<int>(h % static_cast<uint64_t>(nranks));
    call.in_place = (h >> 20 & 1) != 0;
    call.memory = static_cast<Memory>((h >> 30) % 3);
    calls.push_back(call);
  };
  const auto type_of = [&](Op op) {
    for (uint64_t i = turn;; ++i) {
      const auto type = static_cast<commDataType_t>(elements::hash(i, 2) % commNumTypes);
      if (elements::is_defined(op, type)) return type;
    }
  };
  const auto small = [&] {
    return kSmallCounts[elements::hash(turn, 3) % std::size(kSmallCounts)];
  };
  for (int c = 0; c < kNumCollectives; ++c) {
    const auto collective = static_cast<Collective>(c);
    for (int type = 0; type < commNumTypes; ++type)
      add(collective, static_cast<commDataType_t>(type), Op::kSum, small());
    if (reduces(collective))
      for (int op = 0; op < elements::kNumOps; ++op)
        add(collective, type_of(static_cast<Op>(op)), static_cast<Op>(op), small());
    for (const size_t count : kCounts) add(collective, type_of(Op::kSum), Op::kSum, count);
    if (large)
      for (const size_t count : kLargeCounts) add(collective, type_of(Op::kSum), Op::kSum, count);
  }
  return calls;
}

void perform_all(const world::World& world, const std::vector<Call>& calls) {
  world::run(world, [&](Rank& rank) {
    Arena arena;
    for (const Call& call : calls) {
      perform(rank, arena, call);
      COMM_OK(rank, commBarrier(rank.comm, nullptr));
    }
  });
}

std::vector<Call> thinned(std::vector<Call> calls, size_t keep_one_in) {
  std::vector<Call> kept;
  for (size_t i = 0; i < calls.size(); ++i)
    if (elements::hash(i, 5) % keep_one_in == 0) kept.push_back(calls[i]);
  return kept;
}

}  // namespace matrix
