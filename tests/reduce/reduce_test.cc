// Every kernel against plain code, bit by bit, on every instruction set of this machine: shapes,
// alignments, aliasing, divisors and streamed destinations.
#include "src/reduce/reduce.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "tests/reduce/reference.h"

namespace libcomm {
namespace {

using reference::Bytes;

constexpr uint8_t kGuard = 0xA5;
constexpr size_t kGuardBytes = 64;

// An array at a chosen offset from a 64-byte boundary, with guards on both sides.
class Array {
 public:
  Array(size_t bytes, size_t offset)
      : bytes_(bytes), storage_(bytes + offset + 2 * kGuardBytes + 64, kGuard) {
    const uintptr_t base = reinterpret_cast<uintptr_t>(storage_.data()) + kGuardBytes;
    begin_ = kGuardBytes + (64 - base % 64) % 64 + offset;
  }
  uint8_t* data() { return storage_.data() + begin_; }
  void fill(const Bytes& from) { std::copy(from.begin(), from.end(), data()); }
  bool guards_intact() const {
    const auto intact = [](uint8_t byte) { return byte == kGuard; };
    const auto first = storage_.begin() + static_cast<std::ptrdiff_t>(begin_);
    return std::all_of(storage_.begin(), first, intact) &&
           std::all_of(first + static_cast<std::ptrdiff_t>(bytes_), storage_.end(), intact);
  }

 private:
  size_t bytes_;
  size_t begin_;
  Bytes storage_;
};

struct Shape {
  DataType type;
  ReduceOp op;
  size_t count;
  int source_count;
  int divisor = 1;
  bool tame = false;
  bool use_dst2 = false;
  int dst_is_source = -1;   // in place on this source
  int dst2_is_source = -1;  // only with use_dst2
  bool stream = false;
  size_t offset = 0;  // shifts all arrays, each by something else

  std::string to_string() const {
    return std::string(name_of(type)) + " " + name_of(op) + " count " + std::to_string(count) +
           " sources " + std::to_string(source_count) + " divisor " + std::to_string(divisor) +
           " offset " + std::to_string(offset) + " in place " + std::to_string(dst_is_source) +
           (use_dst2 ? " dst2" : "") + (stream ? " stream" : "") + (tame ? " tame" : "");
  }
};

Bytes expected_result(const Shape& shape, const std::vector<Bytes>& sources) {
  Bytes result(shape.count * size_of(shape.type));
  std::vector<uint64_t> column(sources.size());
  for (size_t i = 0; i < shape.count; ++i) {
    for (size_t s = 0; s < sources.size(); ++s) {
      column[s] = reference::load(sources[s].data(), i, shape.type);
    }
    reference::store(result.data(), i, shape.type,
                     reference::reduce(shape.type, shape.op, column, shape.divisor));
  }
  return result;
}

std::string first_difference(const Shape& shape, const std::vector<Bytes>& sources,
                             const Bytes& expected, const uint8_t* actual) {
  for (size_t i = 0; i < shape.count; ++i) {
    const uint64_t want = reference::load(expected.data(), i, shape.type);
    const uint64_t got = reference::load(actual, i, shape.type);
    if (want == got) continue;
    std::string text = "element " + std::to_string(i) + " of";
    for (const Bytes& source : sources) {
      text += " " + std::to_string(reference::load(source.data(), i, shape.type));
    }
    return text + ": got " + std::to_string(got) + ", want " + std::to_string(want);
  }
  return "";
}

// Runs one shape on every instruction set and compares the bits.
void check(const Shape& shape) {
  const size_t bytes = shape.count * size_of(shape.type);
  std::vector<Bytes> sources;
  for (int s = 0; s < shape.source_count; ++s) {
    const uint64_t seed = shape.count * 131 + static_cast<uint64_t>(s) * 7919 + shape.offset;
    sources.push_back(reference::random_elements(shape.type, shape.count, shape.tame, seed));
  }
  const Bytes expected = expected_result(shape, sources);
  reference::for_each_target([&](const std::string& target) {
    SCOPED_TRACE(target + " " + shape.to_string());
    std::vector<Array> arrays;
    std::vector<const void*> pointers;
    for (int s = 0; s < shape.source_count; ++s) {
      arrays.emplace_back(bytes, (shape.offset * static_cast<size_t>(s + 1)) % 16);
      arrays.back().fill(sources[static_cast<size_t>(s)]);
    }
    for (Array& array : arrays) pointers.push_back(array.data());
    Array own_dst(bytes, (shape.offset * 5) % 16);
    Array own_dst2(bytes, (shape.offset * 11) % 16);
    Array& dst =
        shape.dst_is_source < 0 ? own_dst : arrays[static_cast<size_t>(shape.dst_is_source)];
    Array& dst2 =
        shape.dst2_is_source < 0 ? own_dst2 : arrays[static_cast<size_t>(shape.dst2_is_source)];
    find_reduce_kernel(shape.type, shape.op)({
        .dst = dst.data(),
        .dst2 = shape.use_dst2 ? dst2.data() : nullptr,
        .sources = pointers.data(),
        .source_count = shape.source_count,
        .count = shape.count,
        .divisor = shape.divisor,
        .stream_dst = shape.stream,
        .stream_dst2 = shape.stream,
    });
    EXPECT_EQ(first_difference(shape, sources, expected, dst.data()), "");
    if (shape.use_dst2) {
      EXPECT_EQ(first_difference(shape, sources, expected, dst2.data()), "");
    }
    EXPECT_TRUE(own_dst.guards_intact());
    EXPECT_TRUE(own_dst2.guards_intact());
    for (size_t s = 0; s < arrays.size(); ++s) {
      EXPECT_TRUE(arrays[s].guards_intact());
      const bool written = static_cast<int>(s) == shape.dst_is_source ||
                           (shape.use_dst2 && static_cast<int>(s) == shape.dst2_is_source);
      if (!written && bytes != 0) {
        EXPECT_EQ(std::memcmp(arrays[s].data(), sources[s].data(), bytes), 0) << "source " << s;
      }
    }
  });
}

TEST(Reduce, EveryCountFrom0To70MatchesPlainCode) {
  reference::for_each_kernel([](DataType type, ReduceOp op) {
    for (size_t count = 0; count <= 70; ++count) {
      check({.type = type,
             .op = op,
             .count = count,
             .source_count = 2 + static_cast<int>(count % 2),
             .tame = count % 4 >= 2});
    }
  });
}

TEST(Reduce, EveryMisalignmentMatchesPlainCode) {
  reference::for_each_kernel([](DataType type, ReduceOp op) {
    for (size_t offset = 0; offset < 16; ++offset) {
      check({.type = type, .op = op, .count = 137, .source_count = 2, .offset = offset});
    }
  });
}

TEST(Reduce, OneToNineSourcesAreFoldedFromFirstToLast) {
  reference::for_each_kernel([](DataType type, ReduceOp op) {
    for (int sources = 1; sources <= 9; ++sources) {
      for (bool tame : {false, true}) {
        check({.type = type, .op = op, .count = 325, .source_count = sources, .tame = tame});
      }
    }
  });
}

TEST(Reduce, ADivisorDividesOnceBeforeRounding) {
  reference::for_each_kernel([](DataType type, ReduceOp op) {
    for (int divisor : {2, 3, 7, 64, 1000}) {
      for (int sources : {1, 2, 3, 4, 6}) {
        check({.type = type,
               .op = op,
               .count = 203,
               .source_count = sources,
               .divisor = divisor,
               .tame = sources % 2 == 0});
      }
    }
  });
}

TEST(Reduce, TheDestinationMayBeAnySource) {
  reference::for_each_kernel([](DataType type, ReduceOp op) {
    for (int sources : {1, 2, 3, 4, 5}) {
      for (int place = 0; place < sources; ++place) {
        check({.type = type,
               .op = op,
               .count = 301,
               .source_count = sources,
               .divisor = 1 + place % 2 * 2,
               .tame = true,
               .dst_is_source = place});
      }
    }
  });
}

TEST(Reduce, TheSecondDestinationGetsTheSameBits) {
  reference::for_each_kernel([](DataType type, ReduceOp op) {
    for (int sources : {1, 2, 3, 4, 5}) {
      Shape shape{.type = type,
                  .op = op,
                  .count = 301,
                  .source_count = sources,
                  .divisor = sources % 2 == 0 ? 3 : 1,
                  .tame = true,
                  .use_dst2 = true};
      check(shape);
      shape.dst2_is_source = 0;
      check(shape);
      shape.dst_is_source = sources - 1;
      check(shape);
      shape.count = 3;
      check(shape);
    }
  });
}

TEST(Reduce, StreamedDestinationsGetTheSameBits) {
  reference::for_each_kernel([](DataType type, ReduceOp op) {
    // Beyond the size from which streaming is used, with a tail.
    const size_t count = 9000 / size_of(type) + 3;
    // 1: elements straddle every alignment; 4: the two destinations are aligned differently.
    for (size_t offset : {size_t{0}, size_t{1}, size_t{4}, size_t{8}}) {
      for (int sources : {1, 2, 5}) {
        check({.type = type,
               .op = op,
               .count = count,
               .source_count = sources,
               .tame = true,
               .use_dst2 = offset != 8,
               .stream = true,
               .offset = offset});
      }
    }
    check({.type = type,
           .op = op,
           .count = count,
           .source_count = 2,
           .tame = true,
           .dst_is_source = 0,
           .stream = true,
           .offset = 8});
  });
}

// A streamed second destination beside an ordinary first one, whose alignments differ.
TEST(Reduce, OnlyTheSecondDestinationMayBeStreamed) {
  const size_t count = 5000;
  const Bytes a = reference::random_elements(DataType::kFloat32, count, true, 1);
  const Bytes b = reference::random_elements(DataType::kFloat32, count, true, 2);
  const void* sources[] = {a.data(), b.data()};
  const Shape shape{
      .type = DataType::kFloat32, .op = ReduceOp::kSum, .count = count, .source_count = 2};
  const Bytes expected = expected_result(shape, {a, b});
  reference::for_each_target([&](const std::string& target) {
    SCOPED_TRACE(target);
    Array dst(count * 4, 4);
    Array dst2(count * 4, 12);
    find_reduce_kernel(shape.type, shape.op)({.dst = dst.data(),
                                              .dst2 = dst2.data(),
                                              .sources = sources,
                                              .source_count = 2,
                                              .count = count,
                                              .stream_dst2 = true});
    EXPECT_EQ(std::memcmp(dst.data(), expected.data(), expected.size()), 0);
    EXPECT_EQ(std::memcmp(dst2.data(), expected.data(), expected.size()), 0);
    EXPECT_TRUE(dst.guards_intact());
    EXPECT_TRUE(dst2.guards_intact());
  });
}

TEST(Reduce, ACountOfZeroNeedsNoPointers) {
  reference::for_each_kernel([](DataType type, ReduceOp op) {
    const void* sources[] = {nullptr, nullptr};
    for (int source_count : {1, 2}) {
      for (int divisor : {1, 3}) {
        find_reduce_kernel(type, op)(
            {.sources = sources, .source_count = source_count, .count = 0, .divisor = divisor});
      }
    }
  });
}

TEST(Reduce, TheScaledArrayIsRoundedOnce) {
  for (DataType type : reference::all_types()) {
    for (size_t count : {size_t{0}, size_t{1}, size_t{5}, size_t{64}, size_t{333}}) {
      for (bool tame : {false, true}) {
        const Bytes source = reference::random_elements(type, count, tame, count + 17);
        const Bytes scalar = reference::random_elements(type, 1, tame, count + 18);
        Bytes expected(source.size());
        for (size_t i = 0; i < count; ++i) {
          reference::store(expected.data(), i, type,
                           reference::scale(type, reference::load(source.data(), i, type),
                                            reference::load(scalar.data(), 0, type)));
        }
        reference::for_each_target([&](const std::string& target) {
          SCOPED_TRACE(target + " " + name_of(type) + " count " + std::to_string(count));
          Array from(source.size(), count % 16);
          from.fill(source);
          Array to(source.size(), (count * 3) % 16);
          scale_elements(to.data(), from.data(), count, type, scalar.data());
          scale_elements(from.data(), from.data(), count, type, scalar.data());
          for (Array* array : {&to, &from}) {
            EXPECT_TRUE(std::equal(expected.begin(), expected.end(), array->data()));
            EXPECT_TRUE(array->guards_intact());
          }
        });
      }
    }
  }
}

}  // namespace
}  // namespace libcomm
