#include "benchmarks/harness/buffer.h"

#include <cstdlib>
#include <cstring>
#include <utility>

namespace bench {
namespace {

constexpr size_t kPage = 4096;
constexpr int kPoison = 0x5b;

char guard_byte(size_t position) { return static_cast<char>(0xa5 ^ (position * 31)); }

}  // namespace

Buffer::Source Buffer::malloc_source() {
  return {[](size_t bytes) { return std::aligned_alloc(kPage, bytes); },
          [](void* memory) { std::free(memory); }};
}

Buffer::Buffer(size_t capacity, Source source) : capacity_(capacity), source_(source) {
  memory_ = static_cast<char*>(source_.allocate(memory_bytes()));
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(capacity_, other.capacity_);
  std::swap(source_, other.source_);
  return *this;
}

Buffer::~Buffer() {
  if (memory_ != nullptr) source_.release(memory_);
}

size_t Buffer::memory_bytes() const {
  return (capacity_ + kPage - 1) / kPage * kPage + 2 * kGuardBytes;
}

void Buffer::poison(size_t used) {
  std::memset(data(), kPoison, used);
  for (size_t i = 0; i < kGuardBytes; ++i) {
    memory_[i] = guard_byte(i);
    data()[used + i] = guard_byte(i);
  }
}

size_t Buffer::damaged_bytes(size_t used) const {
  size_t damaged = 0;
  for (size_t i = 0; i < kGuardBytes; ++i) {
    damaged += (memory_[i] != guard_byte(i)) + (data()[used + i] != guard_byte(i));
  }
  return damaged;
}

}  // namespace bench
