// What a fuzz target is: one function that libFuzzer calls with bytes, and seeds to start from.
//
// A target reads bytes as the library would read them from a stranger and checks what must hold for
// any bytes. Built with clang's libFuzzer it searches for as long as one likes; otherwise driver.cc
// feeds it a fixed number of seeded mutations, so that ctest finds the same inputs every time.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace libcomm::fuzz {

// Well-formed inputs, which mutations start from.
std::vector<std::string> seeds();

// Ends the program with the place of the broken promise; the driver adds which input it was.
#define FUZZ_CHECK(condition)                                                              \
  do {                                                                                     \
    if (!(condition)) {                                                                    \
      std::fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                        \
    }                                                                                      \
  } while (false)

// Takes an input apart.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}
  // 0 when there is nothing left.
  uint8_t byte() {
    const uint8_t value = rest_.empty() ? 0 : static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(rest_.empty() ? 0 : 1);
    return value;
  }
  std::string_view rest() const { return rest_; }
  // A T from the front, filled up with zeros.
  template <typename T>
  T take() {
    T value{};
    const size_t bytes = rest_.size() < sizeof(T) ? rest_.size() : sizeof(T);
    if (bytes > 0) std::memcpy(static_cast<void*>(&value), rest_.data(), bytes);
    rest_.remove_prefix(bytes);
    return value;
  }

 private:
  std::string_view rest_;
};

template <typename T>
std::string bytes_of(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace libcomm::fuzz
