#include "transports/shm/published.h"

#include <array>
#include <bit>

namespace libcomm::shm {
namespace {

using Words = std::array<uint64_t, 4>;
static_assert(sizeof(Words) == sizeof(Signature));

// A writer is at most a few stores away from the end, unless it does not run.
constexpr int kMostTries = 1000;

}  // namespace

void publish(SignatureRecord* to, const Signature& signature) {
  const auto words = std::bit_cast<Words>(signature);
  const uint32_t version = to->version.load(std::memory_order_relaxed);
  to->version.store(version + 1, std::memory_order_relaxed);
  // Release: the odd version is visible before any of the words.
  for (size_t i = 0; i < words.size(); ++i) to->words[i].store(words[i], std::memory_order_release);
  to->version.store(version + 2, std::memory_order_release);
}

std::optional<Signature> published(const SignatureRecord& from) {
  Words words{};
  for (int i = 0; i < kMostTries; ++i) {
    const uint32_t before = from.version.load(std::memory_order_acquire);
    if (before == 0) return std::nullopt;
    for (size_t word = 0; word < words.size(); ++word)
      words[word] = from.words[word].load(std::memory_order_acquire);
    if (before % 2 == 0 && from.version.load(std::memory_order_relaxed) == before)
      return std::bit_cast<Signature>(words);
  }
  return std::nullopt;
}

}  // namespace libcomm::shm
