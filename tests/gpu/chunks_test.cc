// GPU memory of chunks (cuMemCreate's) that other processes reach by file descriptors, or by fabric
// handles: commMemAlloc's, and that of programs.
#include "tests/gpu/chunks.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace {

using gpu::Chunks;
using gpu::of;
using world::Kind;
using world::Rank;
using world::World;

#define NEED_DOUBLE() \
  if (!gpu::is_double()) GTEST_SKIP() << "looks at what only the double counts"

uint64_t count(const char* what) {
  return gpu::control<uint64_t(const char*)>("cuda_double_count")(what);
}

World on_gpu(int gpu_of_odd_ranks, int nranks, Kind kind = Kind::kProcesses) {
  return {.nranks = nranks, .kind = kind, .begin = [=](int rank) {
            gpu::use(rank % 2 == 0 ? 0 : gpu_of_odd_ranks);
          }};
}

void with_stream(const std::function<void(gpu::Stream)>& body) {
  const gpu::Stream stream = gpu::create_stream();
  body(stream);
  gpu::destroy(stream);
}

// Memory that was got elsewhere, filled and read through pinned memory.
class Seen {
 public:
  Seen(void* at, size_t count) : at_(static_cast<float*>(at)), values_(count) {}
  void set(float value, gpu::Stream stream) {
    values_.assign(values_.size(), value);
    gpu::copy(at_, values_.data(), values_.size() * sizeof(float), stream);
  }
  bool all(float value, gpu::Stream stream) {
    gpu::copy(values_.data(), at_, values_.size() * sizeof(float), stream);
    gpu::synchronise(stream);
    return values_ == std::vector<float>(values_.size(), value);
  }
  float* data() const { return at_; }
  size_t count() const { return values_.size(); }

 private:
  float* at_;
  std::vector<float> values_;
};

// A sum in place, of rank + 1 everywhere before, and whether its bytes went over the host.
void check_way(Rank& rank, Seen data, gpu::Stream stream, bool in_place, const std::string& what) {
  data.set(static_cast<float>(rank.rank + 1), stream);
  gpu::synchronise(stream);
  rank.meet();  // threads count together
  const uint64_t before = count("d2h_bytes");
  COMM_OK(rank, commAllReduce(data.data(), data.data(), data.count(), commFloat, commSum, rank.comm,
                              of(stream)));
  gpu::synchronise(stream);
  const bool staged = count("d2h_bytes") != before;
  rank.meet();
  rank.expect(staged != in_place, what + (in_place ? " was staged" : " was not staged"));
  rank.expect(data.all(static_cast<float>(rank.nranks * (rank.nranks + 1) / 2), stream),
              what + ": a wrong sum");
}

TEST(MemAlloc, OfProcessesIsReachedInPlace) {
  NEED_DOUBLE();
  for (const int odd : {0, 1}) {
    world::run(on_gpu(odd, 3), [](Rank& rank) {
      with_stream([&](gpu::Stream stream) {
        void* memory = nullptr;
        COMM_OK(rank, commMemAlloc(&memory, 4000000));
        check_way(rank, Seen(memory, 1000000), stream, true, "the whole");
        check_way(rank, Seen(static_cast<float*>(memory) + 1000, 500), stream, true, "a part");
        rank.expect(count("ipc_open") == 2, "it was mapped by handles of CUDA IPC");
        COMM_OK(rank, commMemFree(memory));
        COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
        rank.expect(count("chunk_bytes") == 0, "memory is left");
      });
    });
  }
}

TEST(MemAlloc, OfThreadsOnTwoGpusIsReachedInPlace) {
  NEED_DOUBLE();
  world::run(on_gpu(1, 2, Kind::kThreads), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      void* memory = nullptr;
      COMM_OK(rank, commMemAlloc(&memory, 400000));
      check_way(rank, Seen(memory, 100000), stream, true, "threads");
      rank.meet();
      COMM_OK(rank, commMemFree(memory));
    });
  });
}

TEST(MemAlloc, WithoutChunksIsReachedByIpc) {
  NEED_DOUBLE();
  World world = on_gpu(0, 2);
  world.begin = [begin = world.begin](int rank) {
    gpu::control<void(const char*, int)>("cuda_double_set")("chunks", 0);
    begin(rank);
  };
  world::run(world, [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      void* memory = nullptr;
      COMM_OK(rank, commMemAlloc(&memory, 400000));
      rank.expect(count("chunk_bytes") == 0, "it is a chunk");
      check_way(rank, Seen(memory, 100000), stream, true, "without chunks");
      COMM_OK(rank, commMemFree(memory));
    });
  });
}

TEST(MemAlloc, CanBeSentInPlace) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      void* memory = nullptr;
      COMM_OK(rank, commMemAlloc(&memory, 400000));
      Seen data(memory, 100000);
      data.set(static_cast<float>(7 - 7 * rank.rank), stream);
      gpu::synchronise(stream);
      const uint64_t before = count("d2h_bytes");
      if (rank.rank == 0)
        COMM_OK(rank, commSend(memory, 100000, commFloat, 1, rank.comm, of(stream)));
      else
        COMM_OK(rank, commRecv(memory, 100000, commFloat, 0, rank.comm, of(stream)));
      gpu::synchronise(stream);
      rank.expect(count("d2h_bytes") == before, "the message went over the host");
      rank.expect(data.all(7, stream), "a wrong message");
      COMM_OK(rank, commMemFree(memory));
    });
  });
}

// How many chunks came by fabric handles so far; what this process tried alone is none.
uint64_t by_fabric() {
  const uint64_t imports = count("fabric_imports");
  return imports > 0 ? imports - 1 : 0;
}

// `settings`: of the double, at this rank; -1: at all.
struct Setting {
  int rank;
  const char* what;
  int value;
};
World with_fabric(int nranks, std::vector<Setting> settings) {
  World world = on_gpu(1, nranks);
  settings.insert(settings.begin(), {-1, "fabric", 1});
  world.begin = [settings, begin = world.begin](int rank) {
    for (const auto& [of, what, value] : settings)
      if (of < 0 || of == rank)
        gpu::control<void(const char*, int)>("cuda_double_set")(what, value);
    begin(rank);
  };
  return world;
}

// What commMemAlloc gives, and a chunk of the program that has no fabric handle.
void check_chunks(Rank& rank, bool ours_in_place, bool programs_in_place) {
  with_stream([&](gpu::Stream stream) {
    void* memory = nullptr;
    COMM_OK(rank, commMemAlloc(&memory, 4000000));
    check_way(rank, Seen(memory, 1000000), stream, ours_in_place, "the whole");
    check_way(rank, Seen(static_cast<float*>(memory) + 1000, 500), stream, ours_in_place, "a part");
    {
      Chunks chunks(rank.rank % 2, 1);
      chunks.map(0);
      check_way(rank, Seen(chunks.data(), 100000), stream, programs_in_place, "a program's chunk");
    }
    rank.meet();
    COMM_OK(rank, commMemFree(memory));
  });
}
void check_nothing_left(Rank& rank) {
  COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
  rank.expect(count("chunk_bytes") == 0, "memory is left");
}

TEST(FabricHandles, AreThereForThoseWhoGetNoDescriptors) {
  NEED_DOUBLE();
  world::run(with_fabric(3, {}), [](Rank& rank) {
    const uint64_t trial = by_fabric();
    rank.expect(trial == 2, "the trial imported " + std::to_string(trial));
    check_chunks(rank, true, true);
    rank.expect(by_fabric() == trial, "descriptors were there");
    check_nothing_left(rank);
  });
}

TEST(FabricHandles, ThatAreRefusedLeaveDescriptors) {
  NEED_DOUBLE();
  for (const int rank_that_is_refused : {-1, 1})
    for (const int how : {2, 3})
      world::run(with_fabric(3, {{rank_that_is_refused, "fabric", how}}), [](Rank& rank) {
        check_chunks(rank, true, true);
        check_nothing_left(rank);
      });
}

// As between processes that may not use the same IMEX channel.
TEST(FabricHandles, AreNotUsedWhereTheTrialImportsNone) {
  NEED_DOUBLE();
  World world = with_fabric(3, {});
  world.begin = [begin = world.begin](int rank) {
    begin(rank);
    // Before it come those of its own trial and of two descriptors.
    if (rank == 1)
      gpu::control<void(const char*, int, int)>("cuda_double_fail")(
          "cuMemImportFromShareableHandle", 4, 800);
  };
  world::run(world, [](Rank& rank) {
    check_chunks(rank, true, true);
    rank.meet();
    if (rank.rank == 1) gpu::control<void(const char*, int)>("cuda_double_set")("descriptors", 0);
    check_chunks(rank, false, false);
    check_nothing_left(rank);
  });
}

// Such as between containers.
TEST(FabricHandles, AreUsedWhereTheTrialGetsNoDescriptors) {
  NEED_DOUBLE();
  for (const int rank_without : {-1, 1})
    world::run(with_fabric(3, {{rank_without, "descriptors", 0}}), [](Rank& rank) {
      const uint64_t trial = by_fabric();
      check_chunks(rank, true, false);
      rank.expect(by_fabric() == trial + 2, "one of each other rank");
      check_nothing_left(rank);
    });
}

TEST(FabricHandles, AreNotUsedWhereSomeRankCannot) {
  NEED_DOUBLE();
  world::run(with_fabric(3, {{0, "descriptors", 0}, {2, "fabric", 3}}), [](Rank& rank) {
    check_chunks(rank, false, false);
    check_nothing_left(rank);
  });
}

// As at a limit of descriptors, here of the ranks that export and of those that import.
TEST(FabricHandles, AreUsedWhenThereAreNoMoreDescriptors) {
  NEED_DOUBLE();
  for (const int rank_without : {0, 1, -1})
    world::run(with_fabric(2, {}), [&](Rank& rank) {
      const auto set = gpu::control<void(const char*, int)>("cuda_double_set");
      check_chunks(rank, true, true);
      rank.meet();
      if (rank_without < 0 || rank_without == rank.rank) set("descriptors", 0);
      rank.meet();
      with_stream([&](gpu::Stream stream) {
        void* memory[3] = {};
        for (void*& each : memory) {
          COMM_OK(rank, commMemAlloc(&each, 4000000));
          check_way(rank, Seen(each, 1000000), stream, true, "without descriptors");
        }
        rank.meet();
        for (void* each : memory) COMM_OK(rank, commMemFree(each));
      });
      set("descriptors", 1);
      check_nothing_left(rank);
    });
}

// As of expandable segments: buffers span chunks, chunks are added, and others take their places.
TEST(ChunksOfPrograms, AreReachedInPlaceAlsoWhereTheyGrowAndChange) {
  NEED_DOUBLE();
  world::run(on_gpu(1, 3), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      constexpr size_t kEach = Chunks::kBytes / sizeof(float);
      Chunks chunks(rank.rank % 2, 8);
      auto* data = static_cast<float*>(chunks.data());
      chunks.map(0);
      chunks.map(1);
      check_way(rank, Seen(data + 100, kEach), stream, true, "two chunks");
      chunks.map(2);
      chunks.map(3);
      check_way(rank, Seen(data + kEach + 5, 2 * kEach), stream, true, "three chunks");
      if (rank.rank == 1) {  // the others have the old ones mapped
        chunks.unmap(1);
        chunks.map(1);
      }
      check_way(rank, Seen(data, 4 * kEach), stream, true, "another chunk");
      chunks.unmap(0);
      chunks.unmap(2);
      chunks.map(2);
      check_way(rank, Seen(data + kEach, 3 * kEach), stream, true, "other chunks");
      check_way(rank, Seen(data + 3 * kEach, 1000), stream, true, "the last one");
    });
    COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
    rank.expect(count("chunk_bytes") == 0, "memory is left");
  });
}

TEST(ChunksOfPrograms, ThatMayNotBeExportedAreStaged) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      Chunks mixed(0, 2, rank.rank == 0), shared(0, 2);
      mixed.map(0);
      shared.map(0);
      check_way(rank, Seen(mixed.data(), 100000), stream, false, "of one rank not exported");
      check_way(rank, Seen(shared.data(), 100000), stream, true, "exported");
      check_way(rank, Seen(mixed.data(), 100000), stream, false, "again");
    });
  });
}

TEST(ChunksOfPrograms, ThatOtherThreadsGpusMayNotUseAreStaged) {
  NEED_DOUBLE();
  for (const int odd : {0, 1}) {
    world::run(on_gpu(odd, 2, Kind::kThreads), [&](Rank& rank) {
      with_stream([&](gpu::Stream stream) {
        Chunks chunks(rank.rank == 0 ? 0 : odd, 1);
        chunks.map(0);
        check_way(rank, Seen(chunks.data(), 100000), stream, odd == 0, "memory of threads");
        rank.meet();
      });
    });
  }
}

// The double's driver keeps one for each chunk that is made or mapped; CUDA's keeps none.
TEST(ChunksOfPrograms, TakeFewDescriptors) {
  NEED_DOUBLE();
  const auto descriptors = [] {
    size_t open = 0;
    for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator("/proc/self/fd"))
      ++open;
    return open;
  };
  world::run(on_gpu(0, 2), [&](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      constexpr size_t kChunks = 40;
      Chunks chunks(0, kChunks);
      for (size_t i = 0; i < kChunks; ++i) chunks.map(i);
      check_way(rank, Seen(chunks.data(), 1000), stream, true, "the first");
      rank.meet();
      const size_t before = descriptors();
      check_way(rank, Seen(chunks.data(), kChunks * Chunks::kBytes / sizeof(float)), stream, true,
                "all");
      rank.meet();
      const size_t after = descriptors();
      // Those of the other's chunks, and of the last few of its own.
      rank.expect(after < before + kChunks + kChunks / 2,
                  std::to_string(before) + " became " + std::to_string(after));
    });
  });
}

// A driver that waits for the program's own call, which waits for the GPU, would not answer.
TEST(ChunksOfPrograms, AreFetchedWithoutTheirDriver) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      Chunks chunks(0, 1);
      for (int round = 0; round < 20; ++round) {
        chunks.map(0);
        gpu::control<void(const char*, int, int)>("cuda_double_fail")(
            "cuMemExportToShareableHandle", 2, 1);  // the first is made with the call
        check_way(rank, Seen(chunks.data(), 100000), stream, true, "a chunk");
        chunks.unmap(0);
      }
    });
  });
}

// Some drivers and containers make descriptors, and map none.
TEST(ChunksOfPrograms, AreStagedWhereTheTrialMapsNone) {
  NEED_DOUBLE();
  World world = on_gpu(0, 3);
  world.begin = [begin = world.begin](int rank) {
    begin(rank);
    if (rank == 1)
      gpu::control<void(const char*, int, int)>("cuda_double_fail")(
          "cuMemImportFromShareableHandle", 1, 801);
  };
  world::run(world, [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      Chunks chunks(0, 1);
      chunks.map(0);
      check_way(rank, Seen(chunks.data(), 100000), stream, false, "chunks that cannot be mapped");
    });
    COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
    rank.expect(count("chunk_bytes") == 0, "memory of the trial is left");
  });
}

// What the program has freed comes back while it goes on with other memory.
TEST(ChunksOfPrograms, AreNotKeptForLongWhenTheyAreGone) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      Chunks chunks(0, 4);
      chunks.map(3);
      Seen kept(static_cast<char*>(chunks.data()) + 3 * Chunks::kBytes, 1000);
      for (int round = 0; round < 20; ++round) {
        chunks.map(0);
        check_way(rank, Seen(chunks.data(), 100000), stream, true, "a chunk");
        chunks.unmap(0);
        for (int i = 0; i < 4; ++i) check_way(rank, kept, stream, true, "the one that stays");
      }
      // Own ones: that which is there, and what is mapped of the other's.
      rank.expect(count("chunk_bytes") <= 4 * Chunks::kBytes, "freed memory is kept");
    });
  });
}

TEST(ChunksOfPrograms, ThatCannotBeMappedFailTheOperation) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    with_stream([&](gpu::Stream stream) {
      Chunks chunks(0, 1);
      chunks.map(0);
      if (rank.rank == 1)
        gpu::control<void(const char*, int, int)>("cuda_double_fail")(
            "cuMemImportFromShareableHandle", 1, 2);
      (void)commAllReduce(chunks.data(), chunks.data(), 1000, commFloat, commSum, rank.comm,
                          of(stream));
      gpu::synchronise(stream);
      commResult_t state = commSuccess;
      for (int i = 0; i < 6000 && state == commSuccess; ++i) {
        COMM_OK(rank, commGetAsyncError(rank.comm, &state));
        if (state == commSuccess) usleep(10000);
      }
      rank.expect(state != commSuccess, "nobody heard of it");
      const std::string text = commGetLastError(rank.comm);
      if (rank.rank == 1)
        rank.expect(text.find("cuMemImportFromShareableHandle") != std::string::npos, text);
    });
  });
}

}  // namespace
