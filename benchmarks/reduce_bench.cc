// Micro-benchmarks of the reduction kernels, with memcpy of the same bytes beside them.
//
// "bytes" is the size of one array in bytes; bytes_per_second counts every byte read and written,
// so that a kernel with two sources (3 streams) and memcpy (2 streams) compare by how well they use
// the memory. Arrays of 16 KiB sit in the second-level cache, 256 KiB too, 8 MiB in the third or in
// memory.
//
//   build/bin/reduce_bench --benchmark_filter='sum/.*/262144'
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "src/reduce/reduce.h"

namespace libcomm {
namespace {

// Arrays of `bytes`, a line and a page apart so that they do not share cache sets.
class Arrays {
 public:
  Arrays(int count, size_t bytes)
      : stride_((bytes + 4095) / 4096 * 4096 + 64),
        storage_(stride_ * static_cast<size_t>(count) + 64) {}
  uint8_t* at(int i) {
    uint8_t* base = storage_.data();
    base += (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64;
    return base + stride_ * static_cast<size_t>(i);
  }

 private:
  size_t stride_;
  std::vector<uint8_t> storage_;
};

void count_bytes(benchmark::State& state, int streams, size_t bytes) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * streams *
                          static_cast<int64_t>(bytes));
}

void bench_reduce(benchmark::State& state, DataType type, ReduceOp op, int source_count,
                  bool stream) {
  const size_t bytes = static_cast<size_t>(state.range(0));
  Arrays arrays(source_count + 1, bytes);
  std::vector<const void*> sources;
  for (int s = 0; s < source_count; ++s) sources.push_back(arrays.at(s));
  const ReduceKernel kernel = find_reduce_kernel(type, op);
  const ReduceArgs args{.dst = arrays.at(source_count),
                        .sources = sources.data(),
                        .source_count = source_count,
                        .count = bytes / size_of(type),
                        .stream_dst = stream};
  for (auto _ : state) {
    kernel(args);
    benchmark::ClobberMemory();
  }
  count_bytes(state, source_count + 1, bytes);
}

void bench_copy(benchmark::State& state, bool stream) {
  const size_t bytes = static_cast<size_t>(state.range(0));
  Arrays arrays(2, bytes);
  for (auto _ : state) {
    copy_bytes(arrays.at(1), arrays.at(0), bytes, stream);
    benchmark::ClobberMemory();
  }
  count_bytes(state, 2, bytes);
}

void bench_find(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(find_reduce_kernel(DataType::kFloat32, ReduceOp::kSum));
  }
}

void sizes(benchmark::internal::Benchmark* bench) {
  for (int64_t bytes : {8 << 10, 16 << 10, 256 << 10, 8 << 20}) bench->Arg(bytes);
}

void register_all() {
  sizes(benchmark::RegisterBenchmark("memcpy", bench_copy, false));
  sizes(benchmark::RegisterBenchmark("copy/stream", bench_copy, true));
  benchmark::RegisterBenchmark("find_reduce_kernel", bench_find);
  const auto add = [](std::string name, DataType type, ReduceOp op, int sources, bool stream) {
    name += std::string("/") + name_of(type) + "/" + std::to_string(sources) + "sources";
    if (stream) name += "/stream";
    return benchmark::RegisterBenchmark(name.c_str(), bench_reduce, type, op, sources, stream);
  };
  // The smallest call there is: 8 bytes of two sources.
  for (DataType type : {DataType::kFloat32, DataType::kBfloat16}) {
    add("sum", type, ReduceOp::kSum, 2, false)->Arg(8);
  }
  for (int i = 0; i < kNumDataTypes; ++i) {
    sizes(add("sum", static_cast<DataType>(i), ReduceOp::kSum, 2, false));
    sizes(add("max", static_cast<DataType>(i), ReduceOp::kMax, 2, false));
  }
  for (int sources : {3, 4, 8}) {
    sizes(add("sum", DataType::kFloat32, ReduceOp::kSum, sources, false));
    sizes(add("sum", DataType::kBfloat16, ReduceOp::kSum, sources, false));
  }
  add("sum", DataType::kFloat32, ReduceOp::kSum, 2, true)->Arg(8 << 20)->Arg(64 << 20);
  add("sum", DataType::kFloat32, ReduceOp::kSum, 2, false)->Arg(64 << 20);
}

}  // namespace
}  // namespace libcomm

int main(int argc, char** argv) {
  libcomm::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
