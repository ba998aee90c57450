#include "benchmarks/peers/values.h"

#include <cstring>

#include "benchmarks/peers/collectives.h"

namespace peers {
namespace {

constexpr size_t kPeriod = 31;

int value_at(int rank, size_t index) {
  return static_cast<int>((index * 7 + static_cast<size_t>(rank) * 13) % kPeriod) - 15;
}

uint32_t bits_of(Type type, int value) {
  const auto number = static_cast<float>(value);
  uint32_t bits = 0;
  std::memcpy(&bits, &number, sizeof bits);
  return type == Type::kFloat ? bits : bits >> 16;  // exact: small integers
}

template <typename Word>
void fill_words(void* memory, size_t count, const std::vector<uint32_t>& period, size_t at) {
  auto* words = static_cast<Word*>(memory);
  for (size_t i = 0; i < count; ++i) {
    words[i] = static_cast<Word>(period[at]);
    if (++at == kPeriod) at = 0;
  }
}

template <typename Word>
size_t count_wrong_words(const void* memory, size_t count, const std::vector<uint32_t>& period,
                         size_t at) {
  const auto* words = static_cast<const Word*>(memory);
  size_t wrong = 0;
  for (size_t i = 0; i < count; ++i) {
    wrong += words[i] != static_cast<Word>(period[at]);
    if (++at == kPeriod) at = 0;
  }
  return wrong;
}

}  // namespace

const char* name_of(Type type) { return type == Type::kFloat ? "float" : "bfloat16"; }

std::vector<uint32_t> Values::period(int source) const {
  std::vector<uint32_t> bits(kPeriod);
  for (size_t i = 0; i < kPeriod; ++i) {
    int value = source == kSum ? 0 : value_at(source, i);
    for (int rank = 0; source == kSum && rank < nranks_; ++rank) value += value_at(rank, i);
    bits[i] = bits_of(type_, value);
  }
  return bits;
}

void Values::fill(void* memory, size_t count, int source, size_t first) const {
  if (type_ == Type::kFloat) {
    fill_words<uint32_t>(memory, count, period(source), first % kPeriod);
  } else {
    fill_words<uint16_t>(memory, count, period(source), first % kPeriod);
  }
}

size_t Values::count_wrong(const void* memory, size_t count, int source, size_t first) const {
  if (type_ == Type::kFloat) {
    return count_wrong_words<uint32_t>(memory, count, period(source), first % kPeriod);
  }
  return count_wrong_words<uint16_t>(memory, count, period(source), first % kPeriod);
}

}  // namespace peers
