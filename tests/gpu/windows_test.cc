// Windows of GPU memory: mapped when they are registered, and moved by copies where the
// configuration wants no kernels.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/gpu/chunks.h"
#include "tests/gpu/gpu.h"
#include "tests/gpu/memory.h"

namespace {

using gpu::of;
using world::Kind;
using world::Rank;
using world::World;

#define NEED_DOUBLE() \
  if (!gpu::is_double()) GTEST_SKIP() << "looks at what only the double counts"

uint64_t count(const char* what) {
  return gpu::control<uint64_t(const char*)>("cuda_double_count")(what);
}
uint64_t copies_launched() {
  return gpu::control<uint64_t(const char*)>("cuda_double_launches")("libcomm_late_copy");
}

World on_gpu(int gpu_of_odd_ranks, int nranks, Kind kind = Kind::kProcesses) {
  return {.nranks = nranks, .kind = kind, .begin = [=](int rank) {
            gpu::use(rank % 2 == 0 ? 0 : gpu_of_odd_ranks);
          }};
}

// A communicator like the rank's that uses no kernels where it can.
comm_t without_kernels(Rank& rank) {
  commConfig_t config = COMM_CONFIG_INITIALIZER;
  config.CTAPolicy = COMM_CTA_POLICY_ZERO;
  comm_t made = nullptr;
  COMM_OK(rank, commSplit(rank.comm, 0, rank.rank, &made, &config));
  return made;
}

constexpr size_t kBytes = size_t{1} << 20;

// Memory of commMemAlloc, or of cudaMalloc, that is a window.
class Window {
 public:
  Window(Rank& rank, comm_t comm, bool ours = true) : comm_(comm), ours_(ours) {
    if (ours)
      COMM_OK(rank, commMemAlloc(&data_, kBytes));
    else
      data_ = gpu::allocate(kBytes);
    COMM_OK(rank, commWindowRegister(comm, data_, kBytes, &window_, COMM_WIN_COLL_SYMMETRIC));
  }
  ~Window() {
    deregister();
    if (ours_)
      (void)commMemFree(data_);
    else
      gpu::free(data_);
  }
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;
  void deregister() {
    if (window_ != nullptr) (void)commWindowDeregister(comm_, std::exchange(window_, nullptr));
  }
  float* at(size_t element) const { return static_cast<float*>(data_) + element; }

 private:
  comm_t comm_;
  bool ours_;
  void* data_ = nullptr;
  commWindow_t window_ = nullptr;
};

void put(float* at, std::vector<float> values, gpu::Stream stream) {
  gpu::copy(at, values.data(), values.size() * sizeof(float), stream);
}
std::vector<float> take(const float* at, size_t count, gpu::Stream stream) {
  std::vector<float> values(count);
  gpu::copy(values.data(), at, count * sizeof(float), stream);
  gpu::synchronise(stream);
  return values;
}

// What rank `from` has for rank `to`.
std::vector<float> block_of(int from, int to, size_t count) {
  std::vector<float> block(count);
  for (size_t i = 0; i < count; ++i)
    block[i] = static_cast<float>(from * 1000 + to * 100) + static_cast<float>(i % 89);
  return block;
}
std::vector<float> blocks(int nranks, size_t count,
                          const std::function<std::vector<float>(int)>& each) {
  std::vector<float> all;
  for (int i = 0; i < nranks; ++i) {
    const std::vector<float> block = each(i);
    all.insert(all.end(), block.begin(), block.end());
  }
  all.resize(static_cast<size_t>(nranks) * count);
  return all;
}

// All collectives that move bytes, `n` elements each, on a window at `in` and at `out`.
struct Calls {
  Rank& rank;
  comm_t comm;
  gpu::Stream stream;
  size_t n;
  int root = 1;

  int nranks() const { return rank.nranks; }
  void check(const float* at, const std::vector<float>& wanted, const std::string& what) const {
    rank.expect(take(at, wanted.size(), stream) == wanted,
                "wrong bytes: " + what + " of " + std::to_string(n));
  }
  void clear(float* at, size_t count) const { put(at, std::vector<float>(count, -1), stream); }
  std::vector<float> gathered() const {
    return blocks(nranks(), n, [&](int from) { return block_of(from, 0, n); });
  }

  void all_gather(float* in, float* out) const {
    clear(out, n * static_cast<size_t>(nranks()));
    put(in, block_of(rank.rank, 0, n), stream);
    COMM_OK(rank, commAllGather(in, out, n, commFloat, comm, of(stream)));
    check(out, gathered(), "all-gather");
  }
  void all_to_all(float* in, float* out) const {
    put(in, blocks(nranks(), n, [&](int to) { return block_of(rank.rank, to, n); }), stream);
    clear(out, n * static_cast<size_t>(nranks()));
    COMM_OK(rank, commAlltoAll(in, out, n, commFloat, comm, of(stream)));
    check(out, blocks(nranks(), n, [&](int from) { return block_of(from, rank.rank, n); }),
          "all-to-all");
  }
  void broadcast(float* data) const {
    put(data, block_of(rank.rank, 0, n), stream);
    COMM_OK(rank, commBroadcast(data, data, n, commFloat, root, comm, of(stream)));
    check(data, block_of(root, 0, n), "broadcast");
  }
  void gather(float* in, float* out) const {
    clear(out, n * static_cast<size_t>(nranks()));
    put(in, block_of(rank.rank, 0, n), stream);
    COMM_OK(rank, commGather(in, out, n, commFloat, root, comm, of(stream)));
    if (rank.rank == root) check(out, gathered(), "gather");
  }
  void scatter(float* in, float* out) const {
    put(in, blocks(nranks(), n, [&](int to) { return block_of(rank.rank, to, n); }), stream);
    COMM_OK(rank, commScatter(in, out, n, commFloat, root, comm, of(stream)));
    check(out, block_of(root, rank.rank, n), "scatter");
  }
};

TEST(Window, IsMappedWhenItIsRegistered) {
  NEED_DOUBLE();
  for (const bool ours : {true, false}) {
    world::run(on_gpu(1, 3), [&](Rank& rank) {
      const gpu::Stream stream = gpu::create_stream();
      {
        const auto imports = [] {
          const auto calls = gpu::control<uint64_t(const char*)>("cuda_double_calls");
          return calls("cuMemImportFromShareableHandle") + calls("cuIpcOpenMemHandle_v2");
        };
        const Window window(rank, rank.comm, ours);
        const uint64_t before = imports();
        put(window.at(0), std::vector<float>(1000, 2), stream);
        gpu::synchronise(stream);
        // The first call on memory that the others have not mapped returns when it is done, which
        // it cannot be here.
        gpu::control<void(void*)>("cuda_double_pause")(stream);
        COMM_OK(rank, commAllReduce(window.at(0), window.at(0), 1000, commFloat, commSum, rank.comm,
                                    of(stream)));
        gpu::control<void(void*)>("cuda_double_resume")(stream);
        rank.expect(take(window.at(0), 1000, stream) == std::vector<float>(1000, 6), "a wrong sum");
        rank.expect(imports() == before, "it was mapped by the call");
        rank.meet();
      }
      gpu::destroy(stream);
    });
  }
}

TEST(Window, IsCopiedWithoutKernels) {
  NEED_DOUBLE();
  struct Case {
    int odd, nranks;
    Kind kind;
    bool ours;
  };
  for (const Case& each : {Case{0, 3, Kind::kProcesses, true}, Case{1, 4, Kind::kProcesses, false},
                           Case{1, 2, Kind::kThreads, true}, Case{0, 2, Kind::kThreads, false}}) {
    world::run(on_gpu(each.odd, each.nranks, each.kind), [&](Rank& rank) {
      const gpu::Stream stream = gpu::create_stream();
      comm_t comm = without_kernels(rank);
      {
        const Window in(rank, comm, each.ours), out(rank, comm, each.ours);
        rank.meet();
        const uint64_t launched = copies_launched();
        for (const size_t n : {size_t{1}, size_t{1001}, size_t{30000}}) {
          const Calls calls{rank, comm, stream, n};
          calls.all_gather(in.at(3), out.at(5));
          calls.all_gather(out.at(7 + static_cast<size_t>(rank.rank) * n), out.at(7));
          calls.all_to_all(in.at(11), out.at(0));
          calls.broadcast(in.at(13));
          calls.gather(in.at(17), out.at(1));
        }
        rank.meet();
        rank.expect(copies_launched() == launched, "a kernel did it");
        // The others cannot know where the root's input is.
        Calls{rank, comm, stream, 1001}.scatter(in.at(1), out.at(2));
        rank.meet();
      }
      COMM_OK(rank, commDestroy(comm));
      gpu::destroy(stream);
    });
  }
}

TEST(Window, IsMovedByKernelsAsLongAsNobodyWantsNone) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    const gpu::Stream stream = gpu::create_stream();
    {
      const Window in(rank, rank.comm), out(rank, rank.comm);
      const uint64_t launched = copies_launched();
      Calls{rank, rank.comm, stream, 1000}.all_gather(in.at(0), out.at(0));
      rank.expect(copies_launched() > launched, "no kernel did it");
    }
    gpu::destroy(stream);
  });
}

// Buffers that lie elsewhere than the other ranks take it, or in no window, or out of reach.
TEST(Window, MayBeUsedUnevenly) {
  NEED_DOUBLE();
  for (const Kind kind : {Kind::kProcesses, Kind::kThreads}) {
    world::run(on_gpu(0, 3, kind), [](Rank& rank) {
      const gpu::Stream stream = gpu::create_stream();
      comm_t uneven = without_kernels(rank), apart = without_kernels(rank);
      {
        constexpr size_t kCount = 1001;
        void* managed = gpu::allocate_managed(kBytes);
        auto* elsewhere = static_cast<float*>(managed);
        const bool odd = rank.rank == 1;
        {
          const Window in(rank, uneven), out(rank, uneven);
          const Calls calls{rank, uneven, stream, kCount};
          for (int i = 0; i < 3; ++i) calls.all_gather(in.at(odd ? 8 : 4), out.at(0));
          calls.all_to_all(odd ? out.at(5000) : in.at(0), out.at(0));
          rank.meet();
        }
        {
          const Window in(rank, apart), out(rank, apart);
          const Calls calls{rank, apart, stream, kCount};
          calls.all_gather(in.at(0), out.at(0));
          calls.all_gather(odd ? elsewhere : in.at(0), out.at(0));
          calls.all_gather(in.at(0), out.at(0));
          calls.all_to_all(in.at(0), odd ? elsewhere : out.at(0));
          calls.broadcast(odd ? elsewhere : in.at(0));
          rank.meet();
        }
        gpu::synchronise(stream);
        gpu::free(managed);
      }
      for (comm_t each : {uneven, apart}) COMM_OK(rank, commDestroy(each));
      gpu::destroy(stream);
    });
  }
}

// What the others copy first, which is not the root's input, they throw away.
TEST(Window, MayHaveOnlyTheOutputOfABroadcast) {
  NEED_DOUBLE();
  for (const Kind kind : {Kind::kProcesses, Kind::kThreads}) {
    if (world::kThreadSanitized && kind == Kind::kThreads) {
      std::puts("passed over: threads (they copy what the root's own copy may be writing)");
      continue;
    }
    world::run(on_gpu(0, 3, kind), [](Rank& rank) {
      constexpr size_t kCount = 1001;
      const gpu::Stream stream = gpu::create_stream();
      comm_t comm = without_kernels(rank);
      void* managed = gpu::allocate_managed(kBytes);
      auto* elsewhere = static_cast<float*>(managed);
      {
        const Window data(rank, comm);
        for (int i = 0; i < 2; ++i) {
          put(data.at(0), std::vector<float>(kCount, 1), stream);
          put(elsewhere, std::vector<float>(kCount, 5), stream);
          COMM_OK(rank,
                  commBroadcast(elsewhere, data.at(0), kCount, commFloat, 1, comm, of(stream)));
          rank.expect(take(data.at(0), kCount, stream) == std::vector<float>(kCount, 5),
                      "a wrong broadcast");
        }
        rank.meet();
      }
      gpu::synchronise(stream);
      gpu::free(managed);
      COMM_OK(rank, commDestroy(comm));
      gpu::destroy(stream);
    });
  }
}

// A graph keeps what its copies read, also when the window is no more.
TEST(Window, IsCopiedByGraphs) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 3), [](Rank& rank) {
    const gpu::Stream stream = gpu::create_stream();
    comm_t comm = without_kernels(rank);
    {
      constexpr size_t kCount = 1001;
      Window in(rank, comm), out(rank, comm);
      const uint64_t launched = copies_launched();
      {
        const gpu::Graph graph(stream, [&] {
          COMM_OK(rank, commAllGather(in.at(1), out.at(0), kCount, commFloat, comm, of(stream)));
        });
        for (int launch = 0; launch < 4; ++launch) {
          if (launch == 2) {
            rank.meet();
            in.deregister();
            rank.meet();
          }
          const auto now = [&](int from) { return block_of(from, launch, kCount); };
          put(in.at(1), now(rank.rank), stream);
          graph.launch(stream);
          rank.expect(take(out.at(0), 3 * kCount, stream) == blocks(3, kCount, now),
                      "wrong bytes of a launch");
        }
      }
      rank.expect(copies_launched() == launched, "a kernel did it");
      rank.meet();
    }
    COMM_OK(rank, commDestroy(comm));
    gpu::destroy(stream);
  });
}

// What is mapped of the others ends with the communicator, or with the window.
TEST(Window, LeavesNothing) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    const gpu::Stream stream = gpu::create_stream();
    comm_t comm = without_kernels(rank);
    for (const bool ours : {true, false}) {
      const Window in(rank, comm, ours), out(rank, comm, ours);
      Calls{rank, comm, stream, 1001}.all_gather(in.at(0), out.at(0));
      rank.meet();
    }
    gpu::destroy(stream);
    COMM_OK(rank, commDestroy(comm));
    COMM_OK(rank, commDestroy(std::exchange(rank.comm, nullptr)));
    rank.expect(count("chunk_bytes") == 0, "chunks are left");
    rank.expect(count("ipc_open") == 0, "mapped memory is left");
  });
}

// Other memory at the place of a rank's window is not what the others have mapped.
TEST(Window, IsReadWhereItIsAlsoWhenOtherMemoryIsAtItsPlace) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 3), [](Rank& rank) {
    const gpu::Stream stream = gpu::create_stream();
    comm_t comm = without_kernels(rank);
    {
      gpu::Chunks chunks(0, 1);
      chunks.map(0);
      Window out(rank, comm);
      commWindow_t in = nullptr;
      COMM_OK(rank, commWindowRegister(comm, chunks.data(), kBytes, &in, COMM_WIN_COLL_SYMMETRIC));
      auto* const data = static_cast<float*>(chunks.data());
      const Calls calls{rank, comm, stream, 1001};
      calls.all_gather(data, out.at(0));
      rank.meet();
      if (rank.rank == 1) {
        calls.clear(data, 1001);  // the others must not read this
        gpu::synchronise(stream);
        chunks.unmap(0);
        chunks.map(0);
      }
      rank.meet();
      calls.all_gather(data, out.at(0));
      rank.meet();
      COMM_OK(rank, commWindowDeregister(comm, in));
    }
    COMM_OK(rank, commDestroy(comm));
    gpu::destroy(stream);
  });
}

// Also one that nobody has deregistered.
TEST(Window, EndsWithItsCommunicator) {
  NEED_DOUBLE();
  for (const bool abort : {false, true}) {
    world::run(on_gpu(0, 2), [&](Rank& rank) {
      const gpu::Stream stream = gpu::create_stream();
      void* first = nullptr;
      COMM_OK(rank, commMemAlloc(&first, kBytes));
      void* second = gpu::allocate(kBytes);
      commWindow_t window = nullptr;
      for (void* each : {first, second})
        COMM_OK(rank, commWindowRegister(rank.comm, each, kBytes, &window, 0));
      rank.meet();
      gpu::destroy(stream);
      comm_t comm = std::exchange(rank.comm, nullptr);
      COMM_OK(rank, abort ? commAbort(comm) : commDestroy(comm));
      COMM_OK(rank, commMemFree(first));
      gpu::free(second);
      rank.expect(count("chunk_bytes") == 0, "chunks are left");
      rank.expect(count("ipc_open") == 0, "mapped memory is left");
    });
  }
}

// The stream of the one that is left goes on.
TEST(Window, OfAPeerThatAbortsDoesNotHang) {
  NEED_DOUBLE();
  world::run(on_gpu(0, 2), [](Rank& rank) {
    const gpu::Stream stream = gpu::create_stream();
    comm_t comm = without_kernels(rank);
    {
      Window in(rank, comm), out(rank, comm);
      Calls{rank, comm, stream, 1001}.all_gather(in.at(0), out.at(0));
      rank.meet();
      if (rank.rank == 0) {
        (void)commAllGather(in.at(0), out.at(0), 1001, commFloat, comm, of(stream));
        gpu::synchronise(stream);
        commResult_t state = commSuccess;
        COMM_OK(rank, commGetAsyncError(comm, &state));
        rank.expect(state != commSuccess, "nobody heard of it");
      }
      in.deregister();
      out.deregister();
      if (rank.rank == 1) COMM_OK(rank, commAbort(std::exchange(comm, nullptr)));
      rank.meet();
    }
    if (comm != nullptr) COMM_OK(rank, commAbort(comm));
    gpu::destroy(stream);
  });
}

}  // namespace
