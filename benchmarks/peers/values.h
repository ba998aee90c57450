// The numbers that the drivers send and demand: small integers, of which every partial sum is exact
// in every type, so that any order of a reduction has one right result. Element i of rank r depends
// on both, and the period is a prime: a missing or repeated rank and a displaced block show.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace peers {

enum class Type { kFloat, kBfloat16 };

inline size_t size_of(Type type) { return type == Type::kFloat ? 4 : 2; }
const char* name_of(Type type);

// Most ranks whose sum bfloat16's eight bits still hold.
inline constexpr int kMostRanks = 16;

class Values {
 public:
  Values(Type type, int nranks) : type_(type), nranks_(nranks) {}

  // Elements [first, first + count) of rank `source`'s data, or of the sum (kSum).
  void fill(void* memory, size_t count, int source, size_t first) const;
  size_t count_wrong(const void* memory, size_t count, int source, size_t first) const;

 private:
  std::vector<uint32_t> period(int source) const;  // as bits of the type

  Type type_;
  int nranks_;
};

}  // namespace peers
