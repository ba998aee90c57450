// What the benchmarks send and what they must receive.
//
// A Pattern says which bits element i of a buffer holds, for any i, in O(1). There are two kinds:
//   unique   every (rank, index) has its own pseudo-random bits. For collectives that only move
//   data:
//            any bit pattern has to arrive unchanged and in its place.
//   table    element i holds one of kSlots values, picked by a hash of i. For reductions:
//   ReduceData
//            makes each rank's table and the table of results, so that checking an element costs
//            one hash and one look-up however many ranks there are, and still notices a block that
//            was swapped, shifted, left out or added twice.
//
// Results of reductions are computed in exact integer or double arithmetic from values chosen so
// that every partial result, in any order of reduction, is a value of the type. Then one result is
// right and all others are wrong. Where no such values exist (some averages), the tolerance says
// so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "benchmarks/harness/numbers.h"

namespace bench {

inline constexpr size_t kSlots = 1024;

// A bijective scrambling of 64 bits.
uint64_t mix(uint64_t x);

// How many elements were wrong, and the first of them.
struct Mismatches {
  size_t count = 0;
  size_t index = 0;  // position in the checked array
  uint64_t got = 0;  // bits
  uint64_t expected = 0;

  void add(const Mismatches& other, size_t offset);
};

class Pattern {
 public:
  static Pattern unique(const TypeInfo& type, int rank);
  // `table` has kSlots entries. tolerance is in units in the last place; 0 wants the exact value
  // (either zero is accepted for a zero).
  static Pattern from_table(const TypeInfo& type, std::vector<uint64_t> table,
                            double tolerance = 0);

  uint64_t bits(uint64_t index) const;
  // dst[0..count) = elements first .. first + count.
  void fill(void* dst, size_t count, uint64_t first) const;
  Mismatches check(const void* data, size_t count, uint64_t first) const;

 private:
  Pattern(const TypeInfo& type, uint64_t seed) : type_(&type), seed_(seed) {}
  template <typename Word>
  void fill_words(Word* dst, size_t count, uint64_t first) const;
  template <typename Word>
  Mismatches check_words(const Word* data, size_t count, uint64_t first) const;
  bool is_close(uint64_t got, uint64_t expected) const;

  const TypeInfo* type_;
  uint64_t seed_;
  std::vector<uint64_t> table_;  // empty: unique
  double tolerance_ = 0;
};

// The inputs and results of one reduction over nranks ranks.
class ReduceData {
 public:
  ReduceData(const TypeInfo& type, Op op, int nranks) : type_(type), op_(op), nranks_(nranks) {}

  Pattern input(int rank) const;
  Pattern result() const;
  // The bits of rank's factor for commRedOpCreatePreMulSum.
  uint64_t scalar(int rank) const;
  // Units in the last place by which a result may differ: 0 but for some averages of floats.
  double tolerance() const;

 private:
  uint64_t input_bits(int rank, size_t slot) const;
  uint64_t result_bits(size_t slot) const;
  uint64_t integer_input(int rank, size_t slot) const;
  uint64_t integer_result(size_t slot) const;
  uint64_t float_input(int rank, size_t slot) const;
  uint64_t float_result(size_t slot) const;
  int64_t balanced(int rank, size_t slot, uint64_t budget, bool negative) const;
  uint64_t average_budget() const;

  const TypeInfo& type_;
  Op op_;
  int nranks_;
};

}  // namespace bench
