#include "src/communicator/quick_calls.h"

namespace libcomm {
namespace {

constexpr int kAverage = 4;

}  // namespace

bool QuickCall::accepts(const void* in, const void* out, bool check_overlap) const {
  if (in_bytes == 0 || out_bytes == 0)
    return (in_bytes == 0 || in != nullptr) && (out_bytes == 0 || out != nullptr);
  if (in == nullptr || out == nullptr) return false;
  const auto from = reinterpret_cast<uintptr_t>(in);
  const auto to = reinterpret_cast<uintptr_t>(out);
  if (to - from == static_cast<uintptr_t>(in_place) || !check_overlap) return true;
  return from + in_bytes <= to || to + out_bytes <= from;
}

void QuickCalls::remember(const Operation& operation, const OneshotCall& call, int rank,
                          int nranks) {
  if (operation.count == 0 || operation.premultiply || operation.op > ReduceOp::kMin) return;
  const QuickKey key = QuickKey::of(operation.collective, static_cast<int>(operation.type),
                                    operation.average ? kAverage : static_cast<int>(operation.op),
                                    operation.root, operation.count);
  if (!calls_) calls_ = std::make_unique<std::array<QuickCall, kCalls>>();
  QuickCall& kept = (*calls_)[slot_of(key)];
  if (kept.key == key) return;
  kept = {};
  kept.call = call;
  const size_t block = call.block_bytes;
  const size_t all = block * static_cast<size_t>(nranks);
  const auto mine = static_cast<ptrdiff_t>(block) * rank;
  const bool is_root = rank == call.root;
  kept.in_bytes = kept.out_bytes = block;
  switch (operation.collective) {
    case Collective::kAllReduce:
      break;
    case Collective::kReduce:
      if (!is_root) kept.out_bytes = 0;
      break;
    case Collective::kBroadcast:
      if (!is_root) kept.in_bytes = 0;
      break;
    case Collective::kAllGather:
      kept.out_bytes = all;
      kept.in_place = -mine;
      break;
    case Collective::kReduceScatter:
      kept.in_bytes = all;
      kept.in_place = mine;
      break;
    case Collective::kGather:
      kept.out_bytes = is_root ? all : 0;
      kept.in_place = -mine;
      break;
    case Collective::kScatter:
      kept.in_bytes = is_root ? all : 0;
      kept.in_place = mine;
      break;
    case Collective::kAllToAll:
      kept.in_bytes = kept.out_bytes = all;
      kept.in_place = PTRDIFF_MAX;  // there is no such thing
      break;
    default:
      return;
  }
  kept.key = key;
}

}  // namespace libcomm
