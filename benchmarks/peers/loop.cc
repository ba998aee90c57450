#include "benchmarks/peers/loop.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace peers {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kMostIterations = 20000;
// Calls rotate through up to four pairs of buffers within this much memory, so that small and
// middle sizes do not always meet the same cache lines; a pair beyond it is out of cache anyway.
constexpr size_t kMostPairs = 4;
constexpr size_t kRotation = size_t{32} << 20;

size_t pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

size_t pairs_for(size_t bytes) {
  return std::clamp<size_t>(kRotation / pages(bytes), 1, kMostPairs);
}

double now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

class Buffers {
 public:
  Buffers(Library& library, size_t bytes)
      : library_(library), memory_(library.allocate(bytes)), bytes_(bytes) {
    if (memory_ == nullptr) {
      std::fprintf(stderr, "rank %d: no memory for %zu bytes\n", library.rank(), bytes);
      std::exit(1);
    }
  }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() { library_.release(memory_); }

  char* data() const { return static_cast<char*>(memory_); }
  size_t bytes() const { return bytes_; }

 private:
  Library& library_;
  void* memory_;
  size_t bytes_;
};

class Loop {
 public:
  Loop(Library& library, const Settings& settings)
      : library_(library),
        settings_(settings),
        values_(settings.type, library.nranks()),
        send_(library, capacity()),
        recv_(library, capacity()) {}

  int run();

 private:
  size_t capacity() const;
  Shape shape(Collective what, size_t bytes) const;
  bool measure_row(Collective what, size_t bytes);
  void fill(const Shape& shape, size_t pairs, size_t stride);
  double estimate(Collective what, const Shape& shape, size_t pairs, size_t stride);
  double time_calls(Collective what, const Shape& shape, size_t pairs, size_t stride,
                    size_t iterations);
  size_t check(Collective what, const Shape& shape);
  void run_on_pair(Collective what, const Shape& shape, size_t offset);

  Library& library_;
  const Settings& settings_;
  Values values_;
  Buffers send_;
  Buffers recv_;
};

size_t Loop::capacity() const {
  const size_t element = size_of(settings_.type);
  size_t most = 0;
  for (const size_t bytes : settings_.sizes) {
    for (const Collective what : settings_.collectives) {
      const size_t used = pages(shape(what, bytes).row * element);
      most = std::max(most, used * pairs_for(used));
    }
  }
  return most;
}

Shape Loop::shape(Collective what, size_t bytes) const {
  return shape_of(what, bytes / size_of(settings_.type), library_.rank(), library_.nranks());
}

int Loop::run() {
  if (library_.rank() == 0) std::printf("@library %s\n", library_.version().c_str());
  bool right = true;
  for (const Collective what : settings_.collectives) {
    const std::string reason = library_.refuses(what);
    if (!reason.empty()) {
      if (library_.rank() == 0) std::printf("@skip %s %s\n", name_of(what), reason.c_str());
      continue;
    }
    for (const size_t bytes : settings_.sizes) right = measure_row(what, bytes) && right;
  }
  std::fflush(stdout);
  library_.barrier();  // nobody leaves while another rank may still talk to it
  return right ? 0 : 1;
}

bool Loop::measure_row(Collective what, size_t bytes) {
  const Shape row = shape(what, bytes);
  const size_t row_bytes = row.row * size_of(settings_.type);
  const size_t stride = pages(row_bytes);
  const size_t pairs = pairs_for(stride);
  fill(row, pairs, stride);
  const double guess = estimate(what, row, pairs, stride);
  const auto iterations = static_cast<size_t>(std::clamp(
      settings_.budget_us / std::max(guess, 0.001), static_cast<double>(settings_.least_iterations),
      static_cast<double>(kMostIterations)));
  const double time = time_calls(what, row, pairs, stride, iterations);
  const double wrong = library_.most(static_cast<double>(check(what, row)));
  if (library_.rank() == 0) {
    std::printf("@row %s %s %zu %zu %zu %.4f %.0f\n", name_of(what), name_of(settings_.type), bytes,
                row_bytes, iterations, time, wrong);
    std::fflush(stdout);
  }
  return wrong == 0;
}

// Timed calls must not read never-written memory: all of it would be one cached page of zeros.
void Loop::fill(const Shape& shape, size_t pairs, size_t stride) {
  for (size_t pair = 0; pair < pairs; ++pair) {
    values_.fill(send_.data() + pair * stride, shape.send, library_.rank(), 0);
    values_.fill(recv_.data() + pair * stride, shape.recv, library_.rank(), 0);
  }
}

void Loop::run_on_pair(Collective what, const Shape& shape, size_t offset) {
  library_.run({what, send_.data() + offset, recv_.data() + offset, shape.count, settings_.type});
}

// Warms up and returns the rough time of a call: ever more calls, until they take a tenth of the
// budget. All ranks count alike because all see the same longest time. Where one interruption by
// another process may be what took so long, the calls get a second chance.
double Loop::estimate(Collective what, const Shape& shape, size_t pairs, size_t stride) {
  run_on_pair(what, shape, 0);  // connections, first touches
  for (size_t calls = pairs;; calls *= 4) {
    const double enough = settings_.budget_us / 10 / static_cast<double>(calls);
    double time = time_calls(what, shape, pairs, stride, calls);
    if (time >= enough && time < 10 * enough) {
      time = std::min(time, time_calls(what, shape, pairs, stride, calls));
    }
    if (time >= enough || calls >= kMostIterations) return time;
  }
}

// Microseconds per call on the slowest rank.
double Loop::time_calls(Collective what, const Shape& shape, size_t pairs, size_t stride,
                        size_t iterations) {
  library_.barrier();
  const double start = now_us();
  size_t pair = 0;
  for (size_t i = 0; i < iterations; ++i) {
    run_on_pair(what, shape, pair * stride);
    if (++pair == pairs) pair = 0;
  }
  return library_.most((now_us() - start) / static_cast<double>(iterations));
}

// Wrong elements of this rank after a call on fresh data.
size_t Loop::check(Collective what, const Shape& shape) {
  const size_t element = size_of(settings_.type);
  values_.fill(send_.data(), shape.send, library_.rank(), 0);
  std::memset(recv_.data(), 0xff, shape.recv * element);  // NaNs
  if (what == Collective::kBroadcast && library_.rank() == kRoot) {
    values_.fill(recv_.data(), shape.recv, kRoot, 0);
  }
  run_on_pair(what, shape, 0);
  size_t wrong = 0;
  for (const Piece& piece : result_of(what, shape, library_.rank(), library_.nranks())) {
    wrong += values_.count_wrong(recv_.data() + piece.offset * element, piece.count, piece.source,
                                 piece.first);
  }
  return wrong;
}

}  // namespace

void* Library::allocate(size_t bytes) { return std::aligned_alloc(kPage, pages(bytes)); }
void Library::release(void* memory) { std::free(memory); }

int run_loop(Library& library, const Settings& settings) {
  if (library.nranks() > kMostRanks) {
    std::fprintf(stderr, "at most %d ranks: more sums would not be exact\n", kMostRanks);
    return 2;
  }
  return Loop(library, settings).run();
}

}  // namespace peers
