#include "src/communicator/merged_calls.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

namespace libcomm {
namespace {

// They reduce each element over the ranks in an order that does not depend on where it lies.
constexpr std::array<std::string_view, 5> kSameOrderEverywhere = {"oneshot", "twoshot", "rd",
                                                                  "binomial", "star"};

uint64_t mix(uint64_t hash, uint64_t value) { return (hash ^ value) * 0x100000001b3u; }

}  // namespace

MergedCalls::Blocks MergedCalls::blocks_of(const Operation& operation, int rank, int nranks) {
  const size_t n = static_cast<size_t>(nranks);
  const bool is_root = operation.root == rank;
  switch (operation.collective) {
    case Collective::kAllReduce:
      return {1, 1};
    case Collective::kReduce:
      return {1, is_root ? size_t{1} : 0};
    case Collective::kBroadcast:
      return {is_root ? size_t{1} : 0, 1};
    case Collective::kAllGather:
      return {1, n};
    case Collective::kReduceScatter:
      return {n, 1};
    default:
      return {};
  }
}

bool MergedCalls::packable(const Operation& operation, int nranks) {
  const Blocks all = blocks_of(operation, operation.root, nranks);  // of a root, which has both
  const size_t bytes = operation.count * size_of(operation.type);
  return std::max(all.in, all.out) > 0 && bytes > 0 && bytes <= kMostOfOne &&
         bytes * std::max(all.in, all.out) <= kMostTogether / 2 && !operation.premultiply &&
         operation.tables == nullptr;
}

bool MergedCalls::go_together(const Operation& a, const Operation& b) {
  return a.collective == b.collective && a.type == b.type && a.op == b.op &&
         a.average == b.average && a.root == b.root;
}

// Would each call by itself, and all together, be done by the same such algorithm?
Result<bool> MergedCalls::keeps_bits(Planner& planner) const {
  const Collective what = together_.collective;
  if (what == Collective::kBroadcast || what == Collective::kAllGather) return true;
  // Of a call by itself first: that plan is needed anyway.
  COMM_ASSIGN(const Plan* plan, planner.plan(*calls_.front()));
  const std::string algorithm = plan->algorithm;
  if (std::find(kSameOrderEverywhere.begin(), kSameOrderEverywhere.end(), algorithm) ==
      kSameOrderEverywhere.end())
    return false;
  COMM_ASSIGN(plan, planner.plan(together_));
  if (plan->algorithm != algorithm) return false;
  size_t last = calls_.front()->count;
  for (const Operation* call : calls_) {
    if (call->count == last) continue;
    last = call->count;
    COMM_ASSIGN(plan, planner.plan(*call));
    if (plan->algorithm != algorithm) return false;
  }
  return true;
}

Result<size_t> MergedCalls::pack(std::span<const Operation> operations, size_t from, int rank,
                                 Planner& planner) {
  const int nranks = planner.shape().nranks;
  const Operation& first = operations[from];
  if (nranks == 1 || !packable(first, nranks)) return size_t{0};
  calls_.clear();
  const Blocks wide = blocks_of(first, first.root, nranks);
  const size_t widest = std::max(wide.in, wide.out) * size_of(first.type);
  size_t count = 0, end = from;
  uint64_t counts = 0xcbf29ce484222325u;
  for (size_t i = from; i < operations.size(); ++i) {
    const Operation& next = operations[i];
    if (next.collective == Collective::kSendRecv) continue;
    if (!packable(next, nranks) || !go_together(first, next) ||
        (count + next.count) * widest > kMostTogether)
      break;
    calls_.push_back(&next);
    count += next.count;
    counts = mix(counts, next.count);
    end = i + 1;
  }
  if (calls_.size() < 2) return size_t{0};
  together_ = first;
  together_.count = count;
  together_.merged = calls_.size();
  together_.table_hash = counts;
  COMM_ASSIGN(const bool same_bits, keeps_bits(planner));
  if (!same_bits) return size_t{0};

  blocks_ = blocks_of(first, rank, nranks);
  const size_t element = size_of(first.type);
  COMM_TRY(in_.reserve(std::max(blocks_.in, size_t{1}) * count * element));
  COMM_TRY(out_.reserve(std::max(blocks_.out, size_t{1}) * count * element));
  together_.in = in_.data();
  together_.out = out_.data();
  std::byte* to = in_.data();
  for (size_t block = 0; block < blocks_.in; ++block)
    for (const Operation* call : calls_) {
      const size_t bytes = call->count * element;
      std::memcpy(to, static_cast<const std::byte*>(call->in) + block * bytes, bytes);
      to += bytes;
    }
  return end - from;
}

void MergedCalls::unpack() const {
  const size_t element = size_of(together_.type);
  const std::byte* from = out_.data();
  for (size_t block = 0; block < blocks_.out; ++block)
    for (const Operation* call : calls_) {
      const size_t bytes = call->count * element;
      std::memcpy(static_cast<std::byte*>(call->out) + block * bytes, from, bytes);
      from += bytes;
    }
}

}  // namespace libcomm
