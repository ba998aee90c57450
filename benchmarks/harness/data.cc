#include "benchmarks/harness/data.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bench {
namespace {

__extension__ typedef __int128 Wide;

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;  // 2^64 / golden ratio

uint64_t low_bits(uint64_t bits, size_t size) {
  return size == 8 ? bits : bits & ((uint64_t{1} << (8 * size)) - 1);
}

int64_t sign_extended(uint64_t bits, size_t size) {
  const int unused = 64 - 8 * static_cast<int>(size);
  return static_cast<int64_t>(bits << unused) >> unused;
}

// An integer element as a number.
Wide number(uint64_t bits, const TypeInfo& type) {
  return type.is_signed ? Wide{sign_extended(bits, type.size)} : Wide{low_bits(bits, type.size)};
}

uint64_t noise(int rank, size_t slot, unsigned salt) {
  return mix(mix(static_cast<uint64_t>(rank) * kGolden + salt) + slot);
}

// The odd part of n; the rest is a power of two.
uint64_t odd_part(int n) {
  auto value = static_cast<uint64_t>(n);
  while (value % 2 == 0) value /= 2;
  return value;
}

}  // namespace

uint64_t mix(uint64_t x) {
  x += kGolden;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

void Mismatches::add(const Mismatches& other, size_t offset) {
  if (count == 0 && other.count != 0) {
    *this = other;
    index += offset;
    return;
  }
  count += other.count;
}

// ---- Pattern

Pattern Pattern::unique(const TypeInfo& type, int rank) {
  return Pattern(type, mix(static_cast<uint64_t>(rank) + 1));
}

Pattern Pattern::from_table(const TypeInfo& type, std::vector<uint64_t> table, double tolerance) {
  Pattern pattern(type, 0);
  pattern.table_ = std::move(table);
  pattern.tolerance_ = tolerance;
  return pattern;
}

uint64_t Pattern::bits(uint64_t index) const {
  const uint64_t hash = mix(seed_ + index);
  return table_.empty() ? low_bits(hash, type_->size) : table_[hash % kSlots];
}

template <typename Word>
void Pattern::fill_words(Word* dst, size_t count, uint64_t first) const {
  if (table_.empty()) {
    for (size_t i = 0; i < count; ++i) dst[i] = static_cast<Word>(mix(seed_ + first + i));
    return;
  }
  const uint64_t* table = table_.data();
  for (size_t i = 0; i < count; ++i) {
    dst[i] = static_cast<Word>(table[mix(seed_ + first + i) % kSlots]);
  }
}

template <typename Word>
Mismatches Pattern::check_words(const Word* data, size_t count, uint64_t first) const {
  Mismatches wrong;
  const auto compare = [&](size_t i, Word expected) {
    if (data[i] == expected || is_close(data[i], expected)) return;
    if (wrong.count++ == 0) {
      wrong.index = i;
      wrong.got = data[i];
      wrong.expected = expected;
    }
  };
  if (table_.empty()) {
    for (size_t i = 0; i < count; ++i) compare(i, static_cast<Word>(mix(seed_ + first + i)));
  } else {
    const uint64_t* table = table_.data();
    for (size_t i = 0; i < count; ++i) {
      compare(i, static_cast<Word>(table[mix(seed_ + first + i) % kSlots]));
    }
  }
  return wrong;
}

// Called only for bits that differ. Moved data (no table) has to be the same bits.
bool Pattern::is_close(uint64_t got, uint64_t expected) const {
  if (!type_->is_float || table_.empty()) return false;
  const double a = decode_float(*type_, got);
  const double b = decode_float(*type_, expected);
  if (!std::isfinite(a) || !std::isfinite(b)) return false;
  return std::fabs(a - b) <= tolerance_ * unit_in_last_place(*type_, b);
}

void Pattern::fill(void* dst, size_t count, uint64_t first) const {
  switch (type_->size) {
    case 1:
      return fill_words(static_cast<uint8_t*>(dst), count, first);
    case 2:
      return fill_words(static_cast<uint16_t*>(dst), count, first);
    case 4:
      return fill_words(static_cast<uint32_t*>(dst), count, first);
    default:
      return fill_words(static_cast<uint64_t*>(dst), count, first);
  }
}

Mismatches Pattern::check(const void* data, size_t count, uint64_t first) const {
  switch (type_->size) {
    case 1:
      return check_words(static_cast<const uint8_t*>(data), count, first);
    case 2:
      return check_words(static_cast<const uint16_t*>(data), count, first);
    case 4:
      return check_words(static_cast<const uint32_t*>(data), count, first);
    default:
      return check_words(static_cast<const uint64_t*>(data), count, first);
  }
}

// ---- ReduceData

Pattern ReduceData::input(int rank) const {
  std::vector<uint64_t> table(kSlots);
  for (size_t slot = 0; slot < kSlots; ++slot) table[slot] = input_bits(rank, slot);
  return Pattern::from_table(type_, std::move(table));
}

Pattern ReduceData::result() const {
  std::vector<uint64_t> table(kSlots);
  for (size_t slot = 0; slot < kSlots; ++slot) table[slot] = result_bits(slot);
  return Pattern::from_table(type_, std::move(table), tolerance());
}

uint64_t ReduceData::input_bits(int rank, size_t slot) const {
  return type_.is_float ? float_input(rank, slot) : integer_input(rank, slot);
}

uint64_t ReduceData::result_bits(size_t slot) const {
  return type_.is_float ? float_result(slot) : integer_result(slot);
}

// An integer for each rank such that their magnitudes add up to `budget` at most: then no partial
// sum in any order exceeds it. With fewer units than ranks, a different choice of ranks gets one
// per slot.
int64_t ReduceData::balanced(int rank, size_t slot, uint64_t budget, bool negative) const {
  const uint64_t hash = noise(rank, slot, 1);
  const auto ranks = static_cast<uint64_t>(nranks_);
  uint64_t magnitude = 1 + (hash >> 1) % std::max<uint64_t>(budget / ranks, 1);
  if (budget < ranks && (static_cast<uint64_t>(rank) + mix(slot) % ranks) % ranks >= budget) {
    magnitude = 0;
  }
  const auto value = static_cast<int64_t>(magnitude);
  return negative && (hash & 1) != 0 ? -value : value;
}

uint64_t ReduceData::scalar(int rank) const {
  if (!type_.is_float) return static_cast<uint64_t>(2 + rank % 3);
  return encode_float(type_, rank % 2 == 0 ? 2.0 : 0.5);
}

uint64_t ReduceData::integer_input(int rank, size_t slot) const {
  const uint64_t hash = noise(rank, slot, 2);
  const int value_bits = static_cast<int>(type_.size) * 8 - (type_.is_signed ? 1 : 0);
  switch (op_) {
    case Op::kProd:  // odd, or the product would soon be 0
      return low_bits(hash | 1, type_.size);
    case Op::kAvg: {  // the sum must not wrap
      const uint64_t largest = value_bits == 64 ? ~uint64_t{0} : (uint64_t{1} << value_bits) - 1;
      // Half of it, because balanced() returns a signed number.
      return low_bits(static_cast<uint64_t>(balanced(rank, slot, largest / 2, type_.is_signed)),
                      type_.size);
    }
    case Op::kBand:
    case Op::kBor: {
      // Each bit is decided by one rank; on the others it is the operator's neutral value.
      uint64_t bits = 0;
      for (unsigned bit = 0; bit < 64; ++bit) {
        const uint64_t draw = mix(mix(slot) + bit);
        const bool decides =
            (draw >> 8) % static_cast<uint64_t>(nranks_) == static_cast<uint64_t>(rank);
        const bool value = decides ? (draw & 1) != 0 : op_ == Op::kBand;
        bits |= static_cast<uint64_t>(value) << bit;
      }
      return low_bits(bits, type_.size);
    }
    default:
      return low_bits(hash, type_.size);
  }
}

uint64_t ReduceData::integer_result(size_t slot) const {
  uint64_t bits = input_bits(0, slot);
  Wide total = number(bits, type_);
  if (op_ == Op::kMulSum) bits *= scalar(0);
  for (int rank = 1; rank < nranks_; ++rank) {
    const uint64_t next = input_bits(rank, slot);
    const Wide value = number(next, type_);
    switch (op_) {
      case Op::kSum:
        bits += next;  // wraps, as the types do
        break;
      case Op::kMulSum:
        bits += next * scalar(rank);
        break;
      case Op::kProd:
        bits *= next;
        break;
      case Op::kMax:
        bits = value > number(bits, type_) ? next : bits;
        break;
      case Op::kMin:
        bits = value < number(bits, type_) ? next : bits;
        break;
      case Op::kAvg:
        total += value;
        break;
      case Op::kBand:
        bits &= next;
        break;
      case Op::kBor:
        bits |= next;
        break;
      case Op::kBxor:
        bits ^= next;
        break;
    }
  }
  if (op_ == Op::kAvg) bits = static_cast<uint64_t>(total / nranks_);  // truncates towards zero
  return low_bits(bits, type_.size);
}

// Averages: inputs are multiples of the odd part of nranks, so that the division leaves an integer
// over a power of two. 0 when the type has too few bits for such inputs.
uint64_t ReduceData::average_budget() const {
  return (uint64_t{1} << type_.precision) / odd_part(nranks_);
}

double ReduceData::tolerance() const {
  if (!type_.is_float || op_ != Op::kAvg) return 0;
  return odd_part(nranks_) == 1 ? 0 : 1;
}

uint64_t ReduceData::float_input(int rank, size_t slot) const {
  const uint64_t all = uint64_t{1} << type_.precision;  // integers up to here are exact
  switch (op_) {
    case Op::kSum:
      return encode_float(type_, static_cast<double>(balanced(rank, slot, all, true)));
    case Op::kMulSum: {
      const double term = static_cast<double>(balanced(rank, slot, all, true));
      return encode_float(type_, term / decode_float(type_, scalar(rank)));
    }
    case Op::kAvg: {
      const uint64_t budget = average_budget();
      if (budget == 0) {
        return encode_float(type_, static_cast<double>(balanced(rank, slot, all, true)));
      }
      const auto odd = static_cast<double>(odd_part(nranks_));
      return encode_float(type_, odd * static_cast<double>(balanced(rank, slot, budget, true)));
    }
    case Op::kProd: {  // powers of two whose product never leaves the normal range
      const auto range = static_cast<uint64_t>(-type_.min_exponent);
      const auto exponent = static_cast<int>(balanced(rank, slot, range, true));
      const double sign = (noise(rank, slot, 3) & 1) != 0 ? -1.0 : 1.0;
      return encode_float(type_, std::ldexp(sign, exponent));
    }
    default: {  // max, min: any finite value but zero, whose sign has no order
      for (unsigned salt = 4;; ++salt) {
        const uint64_t bits = low_bits(noise(rank, slot, salt), type_.size);
        const double value = decode_float(type_, bits);
        if (std::isfinite(value) && value != 0) return bits;
      }
    }
  }
}

uint64_t ReduceData::float_result(size_t slot) const {
  double result = decode_float(type_, input_bits(0, slot));
  if (op_ == Op::kMulSum) result *= decode_float(type_, scalar(0));
  for (int rank = 1; rank < nranks_; ++rank) {
    const double value = decode_float(type_, input_bits(rank, slot));
    switch (op_) {
      case Op::kMulSum:
        result += value * decode_float(type_, scalar(rank));
        break;
      case Op::kProd:
        result *= value;
        break;
      case Op::kMax:
        result = std::max(result, value);
        break;
      case Op::kMin:
        result = std::min(result, value);
        break;
      default:
        result += value;  // exact: integers of at most 53 bits
        break;
    }
  }
  if (op_ == Op::kAvg) result /= nranks_;
  return encode_float(type_, result);
}

}  // namespace bench
