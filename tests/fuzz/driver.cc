// Feeds a fuzz target its seeds and then mutations of them, the same ones in every run.
//
// usage: fuzz_x [RUNS [SEED]]    or    fuzz_x FILE... (inputs that libFuzzer found)
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <random>
#include <sstream>

#include "tests/fuzz/fuzz.h"

// Sanitizers call this before they end the process; absent in plain builds.
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace libcomm::fuzz {
namespace {

std::string g_input;  // the one being tried
char g_name[64];      // which that is

// Only async-signal-safe calls: the heap may be what broke.
void report() {
  static const char kDigits[] = "0123456789abcdef";
  const auto print = [](const char* text, size_t bytes) {
    if (::write(STDERR_FILENO, text, bytes) < 0) return;
  };
  print(g_name, std::strlen(g_name));
  for (const char c : g_input) {
    const auto byte = static_cast<unsigned char>(c);
    const char hex[2] = {kDigits[byte >> 4], kDigits[byte & 15]};
    print(hex, 2);
  }
  print("\n", 1);
}

void on_signal(int number) {
  report();
  ::signal(number, SIG_DFL);
  ::raise(number);
}

void try_input(std::string input) {
  g_input = std::move(input);
  // A copy of exactly this size, so that AddressSanitizer sees a read past its end.
  const std::vector<uint8_t> bytes(g_input.begin(), g_input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

class Mutator {
 public:
  Mutator(std::vector<std::string> corpus, uint64_t seed)
      : corpus_(std::move(corpus)), random_(seed) {
    corpus_.emplace_back();
  }

  std::string next() {
    std::string input = corpus_[below(corpus_.size())];
    for (size_t steps = 1 + below(8); steps > 0; --steps) mutate(input);
    if (input.size() > kMostBytes) input.resize(kMostBytes);
    return input;
  }

 private:
  static constexpr size_t kMostBytes = 4096;

  size_t below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  void mutate(std::string& input) {
    const size_t at = below(input.size() + 1);
    switch (below(8)) {
      case 0:  // flip a bit
        if (at < input.size()) input[at] = static_cast<char>(input[at] ^ (1 << below(8)));
        break;
      case 1:
        if (at < input.size()) input[at] = static_cast<char>(random_());
        break;
      case 2:
        input.erase(at, 1 + below(below(2) ? 4 : 64));
        break;
      case 3: {  // repeat a piece
        const std::string piece = input.substr(at, 1 + below(32));
        input.insert(below(input.size() + 1), piece);
        break;
      }
      case 4:
        for (size_t bytes = 1 + below(16); bytes > 0; --bytes)
          input.insert(input.begin() + static_cast<std::ptrdiff_t>(at),
                       static_cast<char>(random_()));
        break;
      case 5: {  // numbers at which bounds checks break
        const uint64_t kEdges[] = {0,
                                   1,
                                   ~0ull,
                                   1ull << 31,
                                   (1ull << 31) - 1,
                                   1ull << 32,
                                   1ull << 63,
                                   (1ull << 63) - 1,
                                   0xffff,
                                   0x10000,
                                   random_()};
        const uint64_t edge = kEdges[below(std::size(kEdges))];
        const size_t width = size_t{1} << below(4);
        if (input.size() >= width)
          std::memcpy(input.data() + below(input.size() - width + 1), &edge, width);
        break;
      }
      case 6: {  // the beginning of one, the end of another
        const std::string& other = corpus_[below(corpus_.size())];
        input = input.substr(0, at) + other.substr(below(other.size() + 1));
        break;
      }
      case 7: {  // characters that languages are made of
        static constexpr std::string_view kMarks = "0123456789-+,;:=^#[]{}/. \t\n%KMGT\0\xff|";
        input.insert(at, 1, kMarks[below(kMarks.size())]);
        break;
      }
    }
  }

  std::vector<std::string> corpus_;
  std::mt19937_64 random_;
};

int run(int argc, char** argv) {
  for (int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) ::signal(number, on_signal);
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(report);
  if (argc > 1 && std::strspn(argv[1], "0123456789") != std::strlen(argv[1])) {
    for (int i = 1; i < argc; ++i) {
      std::ifstream file(argv[i], std::ios::binary);
      std::stringstream text;
      text << file.rdbuf();
      std::snprintf(g_name, sizeof g_name, "input file %d: ", i);
      try_input(text.str());
    }
    return 0;
  }
  const long runs = argc > 1 ? std::atol(argv[1]) : 20000;
  const auto seed = static_cast<uint64_t>(argc > 2 ? std::atol(argv[2]) : 1);
  const std::vector<std::string> corpus = seeds();
  for (size_t i = 0; i < corpus.size(); ++i) {
    std::snprintf(g_name, sizeof g_name, "seed input %zu: ", i);
    try_input(corpus[i]);
  }
  Mutator mutator(corpus, seed);
  for (long i = 0; i < runs; ++i) {
    std::snprintf(g_name, sizeof g_name, "run %ld of seed %lu: ", i,
                  static_cast<unsigned long>(seed));
    try_input(mutator.next());
  }
  std::printf("%zu seeds and %ld mutations: every promise held\n", corpus.size(), runs);
  return 0;
}

}  // namespace
}  // namespace libcomm::fuzz

int main(int argc, char** argv) { return libcomm::fuzz::run(argc, argv); }
