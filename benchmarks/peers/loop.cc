#include "benchmarks/peers/loop.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "benchmarks/peers/rotation.h"

namespace peers {
namespace {

constexpr size_t kMostIterations = 20000;

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
  void fill(const Shape& shape, const Rotation& rotation);
  double estimate(Collective what, const Shape& shape, const Rotation& rotation);
  double time_calls(Collective what, const Shape& shape, const Rotation& rotation,
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
      most = std::max(most, Rotation(shape(what, bytes).row * element).bytes());
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
  const Rotation rotation(row_bytes);
  fill(row, rotation);
  const double guess = estimate(what, row, rotation);
  const auto iterations = static_cast<size_t>(std::clamp(
      settings_.budget_us / std::max(guess, 0.001), static_cast<double>(settings_.least_iterations),
      static_cast<double>(kMostIterations)));
  const double time = time_calls(what, row, rotation, iterations);
  const double wrong = library_.most(static_cast<double>(check(what, row)));
  if (library_.rank() == 0) {
    std::printf("@row %s %s %zu %zu %zu %.4f %.0f\n", name_of(what), name_of(settings_.type), bytes,
                row_bytes, iterations, time, wrong);
    std::fflush(stdout);
  }
  return wrong == 0;
}

// Timed calls must not read never-written memory: all of it would be one cached page of zeros.
void Loop::fill(const Shape& shape, const Rotation& rotation) {
  for (size_t place = 0; place < rotation.places(); ++place) {
    const size_t offset = place * rotation.stride();
    values_.fill(send_.data() + offset, shape.send, library_.rank(), 0);
    values_.fill(recv_.data() + offset, shape.recv, library_.rank(), 0);
  }
}

void Loop::run_on_pair(Collective what, const Shape& shape, size_t offset) {
  library_.run({what, send_.data() + offset, recv_.data() + offset, shape.count, settings_.type});
}

// Warms up and returns the rough time of a call: ever more calls, until they take a tenth of the
// budget. All ranks count alike because all see the same longest time. Where one interruption by
// another process may be what took so long, the calls get a second chance.
double Loop::estimate(Collective what, const Shape& shape, const Rotation& rotation) {
  run_on_pair(what, shape, 0);  // connections, first touches
  for (size_t calls = rotation.places();; calls *= 4) {
    const double enough = settings_.budget_us / 10 / static_cast<double>(calls);
    double time = time_calls(what, shape, rotation, calls);
    if (time >= enough && time < 10 * enough) {
      time = std::min(time, time_calls(what, shape, rotation, calls));
    }
    if (time >= enough || calls >= kMostIterations) return time;
  }
}

// Microseconds per call on the slowest rank.
double Loop::time_calls(Collective what, const Shape& shape, const Rotation& rotation,
                        size_t iterations) {
  library_.barrier();
  const double start = now_us();
  Turn turn(rotation);
  for (size_t i = 0; i < iterations; ++i) run_on_pair(what, shape, turn.next());
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

void* Library::allocate(size_t bytes) { return std::aligned_alloc(kPage, whole_pages(bytes)); }
void Library::release(void* memory) { std::free(memory); }

int run_loop(Library& library, const Settings& settings) {
  if (library.nranks() > kMostRanks) {
    std::fprintf(stderr, "at most %d ranks: more sums would not be exact\n", kMostRanks);
    return 2;
  }
  return Loop(library, settings).run();
}

}  // namespace peers
