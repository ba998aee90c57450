// Value: what the checker knows about one chunk while it runs a schedule symbolically.
//
// Hashes stand for sets and expressions, so that a thousand ranks fit into memory:
//   set         the sum of a random number per contribution (rank, input chunk): equal exactly when
//   the
//               same contributions are in it, each as often
//   expression  how they were combined; addition of two operands is commutative, as the kernels'
//               arithmetic is, but not associative
// A wrong schedule passes with probability 2^-64 or so per chunk.
#pragma once

#include <cstdint>

namespace libcomm::symbolic {

// splitmix64's finaliser: every input bit changes half of the output bits.
constexpr uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

struct Value {
  uint64_t set = 0;
  uint64_t expression = 0;
  bool defined = false;
  bool final = false;  // the step marked final has been applied
};

// Rank `rank`'s input chunk `chunk`.
constexpr Value contribution(int rank, int chunk) {
  const uint64_t name = (static_cast<uint64_t>(rank) << 32) | static_cast<uint32_t>(chunk);
  return {mix(name), mix(~name), true, false};
}

// a op b.
constexpr Value combine(const Value& a, const Value& b) {
  return {a.set + b.set, mix(mix(a.expression) + mix(b.expression)), true, false};
}

// Operands taken one after the other by a step that combines `count` of them and rounds once. For
// one and two operands that is the same as plain steps.
class Fold {
 public:
  explicit Fold(int count) : count_(count) {}
  void add(const Value& operand) {
    if (taken_ == 0) {
      result_ = operand;
      ordered_ = mix(static_cast<uint64_t>(count_) ^ operand.expression);
    } else {
      result_ = combine(result_, operand);
      ordered_ = mix(ordered_ + operand.expression);
    }
    ++taken_;
  }
  Value result() const {
    Value value = result_;
    if (count_ > 2) value.expression = ordered_;
    return value;
  }

 private:
  int count_;
  int taken_ = 0;
  uint64_t ordered_ = 0;
  Value result_;
};

}  // namespace libcomm::symbolic
