#include "tests/device/kernel_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "src/reduce/reduce.h"
#include "tests/reduce/reference.h"

namespace libcomm::cuda::test {
namespace {

using reference::Bytes;

constexpr uint8_t kGuard = 0xA5;
constexpr size_t kGuardBytes = 64;

// An array of the machine's memory at an offset from a 64-byte boundary, with guards on both sides.
class Array {
 public:
  Array(Machine& machine, size_t capacity)
      : machine_(machine),
        bytes_(capacity + 3 * kGuardBytes),
        memory_(machine.alloc(bytes_)),
        mirror_(bytes_) {}

  // What the array shall hold next; guards around it.
  void fill(const Bytes& content, size_t offset) {
    begin_ = kGuardBytes + offset;
    size_ = content.size();
    std::fill(mirror_.begin(), mirror_.end(), kGuard);
    std::copy(content.begin(), content.end(), mirror_.begin() + position(begin_));
    machine_.write(memory_, mirror_.data(), bytes_);
  }
  void* data() { return memory_ + begin_; }

  Bytes read() {
    Bytes all(bytes_);
    machine_.read(all.data(), memory_, bytes_);
    const auto guard = [](uint8_t byte) { return byte == kGuard; };
    EXPECT_TRUE(std::all_of(all.begin(), all.begin() + position(begin_), guard));
    EXPECT_TRUE(std::all_of(all.begin() + position(begin_ + size_), all.end(), guard));
    return {all.begin() + position(begin_), all.begin() + position(begin_ + size_)};
  }

 private:
  static std::ptrdiff_t position(size_t at) { return static_cast<std::ptrdiff_t>(at); }

  Machine& machine_;
  size_t bytes_;
  size_t begin_ = 0;
  size_t size_ = 0;
  std::byte* memory_;
  Bytes mirror_;
};

struct Shape {
  DataType type;
  ReduceOp op;
  size_t count;
  int sources;
  int destinations = 1;
  int divisor = 1;
  int scaled = kNoSource;
  int in_place = -1;    // the last destination is this source
  bool aligned = true;  // else every array is shifted by another number of elements

  std::string to_string() const {
    return fmt::format(
        "{} {} count {} sources {} destinations {} divisor {} scaled {} in place {}{}",
        name_of(type), name_of(op), count, sources, destinations, divisor, scaled, in_place,
        aligned ? "" : " misaligned");
  }
};

// Neighbours differ in their last bit.
uint64_t scalar_of(int source, uint64_t scalar) {
  return scalar ^ static_cast<uint64_t>(source % 2);
}

Bytes expected(const Shape& shape, std::vector<Bytes> sources, uint64_t scalar) {
  for (int s = 0; s < shape.sources; ++s) {
    if (s != shape.scaled && shape.scaled != kEverySource) continue;
    Bytes& own = sources[static_cast<size_t>(s)];
    const uint64_t its = scalar_of(s, scalar);
    scale_elements(own.data(), own.data(), shape.count, shape.type, &its);
  }
  std::vector<const void*> pointers;
  for (const Bytes& source : sources) pointers.push_back(source.data());
  Bytes result(shape.count * size_of(shape.type));
  find_reduce_kernel(shape.type, shape.op)({.dst = result.data(),
                                            .sources = pointers.data(),
                                            .source_count = shape.sources,
                                            .count = shape.count,
                                            .divisor = shape.divisor});
  return result;
}

// The first element that differs.
std::string difference(DataType type, const Bytes& is, const Bytes& should) {
  for (size_t i = 0; i < should.size() / size_of(type); ++i) {
    const uint64_t a = reference::load(is.data(), i, type);
    const uint64_t b = reference::load(should.data(), i, type);
    if (a != b) return fmt::format("element {} is {:#x}, not {:#x}", i, a, b);
  }
  return "";
}

// Arrays that the shapes of a test use again and again.
class Bench {
 public:
  Bench(Machine& machine, size_t bytes) : machine_(machine) {
    for (int i = 0; i < kMost; ++i) {
      sources_.push_back(std::make_unique<Array>(machine, bytes));
      destinations_.push_back(std::make_unique<Array>(machine, bytes));
    }
  }

  // Whether all was right.
  bool run(const Shape& shape, const std::vector<Bytes>& content, uint64_t scalar) {
    SCOPED_TRACE(shape.to_string());
    const size_t size = size_of(shape.type);
    ReduceArguments arguments;
    arguments.type = shape.type;
    arguments.op = shape.op;
    arguments.divisor = shape.divisor;
    arguments.scaled_source = shape.scaled;
    for (int s = 0; s < shape.sources; ++s) arguments.scalars[s] = scalar_of(s, scalar);
    arguments.count = shape.count;
    arguments.source_count = shape.sources;
    arguments.destination_count = shape.destinations;
    for (int s = 0; s < shape.sources; ++s) {
      Array& array = *sources_[static_cast<size_t>(s)];
      array.fill(content[static_cast<size_t>(s)], shape.aligned ? 0 : size * offset(2 * s + 1));
      arguments.sources[s] = array.data();
    }
    std::vector<Array*> written;
    for (int d = 0; d < shape.destinations; ++d) {
      Array* array = destinations_[static_cast<size_t>(d)].get();
      if (d == shape.destinations - 1 && shape.in_place >= 0) {
        array = sources_[static_cast<size_t>(shape.in_place)].get();
      } else {
        array->fill(Bytes(shape.count * size, 0x3C), shape.aligned ? 0 : size * offset(3 * d + 2));
      }
      arguments.destinations[d] = array->data();
      written.push_back(array);
    }
    const Status status = machine_.reduce(arguments);
    EXPECT_TRUE(status) << status.message();
    const Bytes should = expected(shape, content, scalar);
    for (Array* array : written) EXPECT_EQ(difference(shape.type, array->read(), should), "");
    for (int s = 0; s < shape.sources; ++s) {
      const auto i = static_cast<size_t>(s);
      if (s == shape.in_place) continue;
      EXPECT_TRUE(sources_[i]->read() == content[i]) << "source " << s;
    }
    return !::testing::Test::HasFailure();
  }

  static constexpr int kMost = 8;

 private:
  static size_t offset(int i) { return static_cast<size_t>(i) % 16 % (kGuardBytes / 8); }

  Machine& machine_;
  std::vector<std::unique_ptr<Array>> sources_;
  std::vector<std::unique_ptr<Array>> destinations_;
};

// As many sources as given, each the bits of its elements.
std::vector<Bytes> arrays_of(DataType type, const std::vector<std::vector<uint64_t>>& sources) {
  std::vector<Bytes> arrays;
  for (const auto& source : sources) {
    arrays.emplace_back(source.size() * size_of(type));
    for (size_t i = 0; i < source.size(); ++i)
      reference::store(arrays.back().data(), i, type, source[i]);
  }
  return arrays;
}

void check_bits(Machine& machine, DataType type,
                const std::vector<std::vector<uint64_t>>& sources) {
  const std::vector<Bytes> content = arrays_of(type, sources);
  Bench bench(machine, content[0].size());
  const uint64_t scalar = reference::encode(type, 0.75);
  for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMax, ReduceOp::kMin}) {
    Shape shape{.type = type,
                .op = op,
                .count = sources[0].size(),
                .sources = static_cast<int>(sources.size())};
    for (int divisor : {1, 2, 3, 1024}) {
      for (int scaled : {kNoSource, 0, kEverySource}) {
        shape.divisor = divisor;
        shape.scaled = scaled;
        if (!bench.run(shape, content, scalar)) return;
      }
    }
  }
}

}  // namespace

void check_reductions(Machine& machine, DataType type, const std::vector<size_t>& counts) {
  const size_t most = *std::max_element(counts.begin(), counts.end());
  Bench bench(machine, most * size_of(type));
  for (const bool tame : {true, false}) {
    std::vector<Bytes> all;
    for (uint64_t s = 0; s < Bench::kMost; ++s)
      all.push_back(reference::random_elements(type, most, tame, 100 + s));
    const Bytes factor = reference::random_elements(type, 1, true, 7);
    const uint64_t scalar = reference::load(factor.data(), 0, type);
    for (int op = 0; op < kNumReduceOps; ++op) {
      if (!is_defined(static_cast<ReduceOp>(op), type)) continue;
      for (const size_t count : counts) {
        std::vector<Bytes> content = all;
        for (Bytes& array : content) array.resize(count * size_of(type));
        for (const int sources : {1, 2, 3, 5, 8}) {
          Shape shape{
              .type = type, .op = static_cast<ReduceOp>(op), .count = count, .sources = sources};
          content.resize(Bench::kMost);
          const std::vector<Bytes> used(content.begin(), content.begin() + sources);
          for (const bool aligned : {true, false}) {
            shape.aligned = aligned;
            // Plain; an average; an own source that is scaled, in place; all of it together; all
            // sources scaled.
            for (const int way : {0, 1, 2, 3, 4}) {
              shape.divisor = way % 2 == 1 ? sources + 1 : 1;
              shape.scaled = way == 4 ? kEverySource : way >= 2 ? sources / 2 : kNoSource;
              shape.in_place = way >= 2 ? sources - 1 : -1;
              shape.destinations = way % 2 == 1 ? 3 : 1;
              if (!bench.run(shape, used, scalar)) return;
            }
          }
        }
      }
    }
  }
}

void check_most_arrays(Machine& machine) {
  static_assert(kMaxSources == kMaxDestinations);
  const size_t count = 333;
  for (const DataType type : {DataType::kBfloat16, DataType::kInt64}) {
    ReduceArguments arguments;
    arguments.type = type;
    arguments.count = count;
    arguments.divisor = kMaxSources;
    arguments.source_count = kMaxSources;
    arguments.destination_count = kMaxDestinations;
    const Shape shape{
        .type = type, .op = ReduceOp::kSum, .count = count, .sources = kMaxSources, .divisor = 64};
    std::vector<Bytes> content;
    std::vector<std::unique_ptr<Array>> sources, destinations;
    for (int i = 0; i < kMaxSources; ++i) {
      content.push_back(reference::random_elements(type, count, true, static_cast<uint64_t>(i)));
      sources.push_back(std::make_unique<Array>(machine, content.back().size()));
      destinations.push_back(std::make_unique<Array>(machine, content.back().size()));
      sources.back()->fill(content.back(), size_of(type) * static_cast<size_t>(i % 7));
      destinations.back()->fill(Bytes(content.back().size()), size_of(type));
      arguments.sources[i] = sources.back()->data();
      arguments.destinations[i] = destinations.back()->data();
    }
    const Status status = machine.reduce(arguments);
    ASSERT_TRUE(status) << status.message();
    const Bytes should = expected(shape, content, 0);
    for (const auto& array : destinations) ASSERT_EQ(difference(type, array->read(), should), "");
  }
}

void check_small_floats(Machine& machine) {
  for (DataType type : {DataType::kFloat8e4m3, DataType::kFloat8e5m2}) {
    std::vector<uint64_t> a, b;
    for (uint64_t i = 0; i < 65536; ++i) {
      a.push_back(i / 256);
      b.push_back(i % 256);
    }
    check_bits(machine, type, {a, b});
  }
  for (DataType type : {DataType::kFloat16, DataType::kBfloat16}) {
    std::vector<uint64_t> patterns;
    for (uint64_t i = 0; i < 65536; ++i) patterns.push_back(i);
    check_bits(machine, type, {patterns});
    // Partners that put the exact result at and around half way between neighbours.
    for (double partner : {-0.0, 0.5, 0.75, 1.5, 0.24998, 3.0, 60000.0}) {
      const std::vector<uint64_t> partners(patterns.size(), reference::encode(type, partner));
      check_bits(machine, type, {patterns, partners});
    }
    std::vector<uint64_t> shuffled = patterns;
    std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937_64(5));
    check_bits(machine, type, {patterns, shuffled, patterns});
  }
}

void check_special_values(Machine& machine) {
  for (DataType type : {DataType::kFloat32, DataType::kFloat64}) {
    const uint64_t sign = uint64_t{1} << (8 * size_of(type) - 1);
    const uint64_t infinity = reference::encode(type, HUGE_VAL);
    std::vector<uint64_t> values = {0,
                                    1,  // the smallest subnormal
                                    3,
                                    reference::encode(type, 1) - 1,
                                    reference::encode(type, 1),
                                    reference::encode(type, 1.5),
                                    reference::encode(type, 1e-30),
                                    infinity - 1,  // the largest value
                                    infinity,
                                    infinity + 1,  // a signalling NaN
                                    sign - 1};     // a NaN full of payload
    values.push_back((infinity & -infinity));      // the smallest normal value
    values.push_back((infinity & -infinity) - 1);  // the largest subnormal
    const size_t positive = values.size();
    for (size_t i = 0; i < positive; ++i) values.push_back(values[i] | sign);
    std::vector<uint64_t> a, b, c;
    for (uint64_t x : values)
      for (uint64_t y : values)
        for (uint64_t z : values) {
          a.push_back(x);
          b.push_back(y);
          c.push_back(z);
        }
    check_bits(machine, type, {values});
    check_bits(machine, type, {a, b});
    check_bits(machine, type, {a, b, c});
  }
}

void check_copies(Machine& machine) {
  std::mt19937_64 random(11);
  const size_t sizes[] = {0,  1,  2,  3,   5,    15,   16,    17,    31,    32,
                          33, 37, 63, 129, 1000, 4099, 16384, 40000, 70001, 150003};
  for (int round = 0; round < 12; ++round) {
    CopyArguments arguments;
    std::vector<std::unique_ptr<Array>> from, to;
    std::vector<Bytes> content;
    arguments.segment_count = round == 0 ? 1 : round == 1 ? kMaxSegments : round;
    for (int s = 0; s < arguments.segment_count; ++s) {
      const size_t bytes = sizes[random() % (round == 1 ? 14 : std::size(sizes))];
      from.push_back(std::make_unique<Array>(machine, bytes));
      to.push_back(std::make_unique<Array>(machine, bytes));
      content.push_back(reference::random_elements(DataType::kUint8, bytes, false, random()));
      const size_t offset = random() % 64;
      from.back()->fill(content.back(), offset);
      to.back()->fill(Bytes(bytes, 0x3C), random() % 4 == 0 ? offset : random() % 64);
      const bool in_place = random() % 8 == 0;
      if (in_place) to.back()->fill(content.back(), offset);
      arguments.segments[s] = {in_place ? to.back()->data() : from.back()->data(),
                               to.back()->data(), bytes};
    }
    const Status status = machine.copy(arguments);
    ASSERT_TRUE(status) << status.message();
    for (size_t s = 0; s < content.size(); ++s) {
      SCOPED_TRACE(fmt::format("round {} segment {} of {} bytes", round, s, content[s].size()));
      ASSERT_TRUE(to[s]->read() == content[s]);
      ASSERT_TRUE(from[s]->read() == content[s]);
    }
  }
}

}  // namespace libcomm::cuda::test
