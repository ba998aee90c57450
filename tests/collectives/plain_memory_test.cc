// Plain memory over RDMA, on the double of libibverbs: devices use it in place while an operation
// runs and know it no more when the call has returned, whatever the program then does with it.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <new>

#include "tests/collectives/world.h"
#include "tests/transports/rdma_double.h"

namespace world {
namespace {

constexpr size_t kCount = 100000;  // floats
constexpr size_t kBytes = kCount * sizeof(float);

class PlainMemory : public libcomm::test::OnRdmaDouble {
 protected:
  static World over_rdma(Kind kind) {
    return {.nranks = 2,
            .kind = kind,
            .environment = {{"COMM_SHM_DISABLE", "1"},
                            {"COMM_RDMA_PIN_FROM", "64K"},
                            {"COMM_RDMA_WINDOW", "4x64K"},
                            {"COMM_BUFFSIZE", "256K"},
                            {"RDMA_DOUBLE_DEVICES", "1"}}};
  }

  // An all-reduce in [data, data + kCount), once in place; nothing of it stays registered.
  static void sum_and_look(Rank& rank, float* data, bool in_place_expected = true) {
    const libcomm::test::RdmaDouble device;
    const uint64_t before = device.device("double0").registrations;
    for (size_t i = 0; i < kCount; ++i) data[i] = static_cast<float>(rank.rank + 1);
    COMM_OK(rank, commAllReduce(data, data, kCount, commFloat32, commSum, rank.comm, nullptr));
    rank.expect(device.regions(data, kBytes) == 0, "still registered after the call");
    if (in_place_expected)
      rank.expect(device.device("double0").registrations > before, "never registered");
    bool right = true;
    for (size_t i = 0; i < kCount; ++i) right = right && data[i] == 3;
    rank.expect(right, "a wrong sum");
  }

  static float* map(void* where, int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1) {
    void* made = ::mmap(where, kBytes, PROT_READ | PROT_WRITE,
                        flags | (where != nullptr ? MAP_FIXED : 0), fd, 0);
    if (made == MAP_FAILED) throw Failed("mmap");
    return static_cast<float*>(made);
  }

  // Everything that can be done to an address range between two calls.
  static void map_again_and_again(Rank& rank) {
    float* data = map(nullptr);
    sum_and_look(rank, data);
    ::munmap(data, kBytes);
    data = map(data);  // the same address, other pages
    sum_and_look(rank, data);
    map(data);  // replaced without an munmap
    sum_and_look(rank, data);
    (void)::madvise(data, kBytes, MADV_DONTNEED);
    sum_and_look(rank, data);
    const int file = static_cast<int>(::syscall(SYS_memfd_create, "test", MFD_CLOEXEC));
    if (::ftruncate(file, kBytes) != 0) throw Failed("ftruncate");
    map(data, MAP_SHARED, file);
    sum_and_look(rank, data);
    ::close(file);
    // Moved away, and something else moved here.
    float* other = map(nullptr);
    sum_and_look(rank, other);
    if (::mremap(other, kBytes, kBytes, MREMAP_MAYMOVE | MREMAP_FIXED, data) != data)
      throw Failed("mremap");
    sum_and_look(rank, data);
    ::munmap(data, kBytes);
  }
};

TEST_F(PlainMemory, IsUsedInPlaceAndForgottenWhenTheCallReturns) {
  run(over_rdma(Kind::kThreads), map_again_and_again);
  run(over_rdma(Kind::kProcesses), map_again_and_again);
}

TEST_F(PlainMemory, OfMessagesIsForgottenWhenTheyAreThere) {
  run(over_rdma(Kind::kThreads), [](Rank& rank) {
    const libcomm::test::RdmaDouble device;
    for (int round = 0; round < 5; ++round) {
      float* out = map(nullptr);
      float* in = map(nullptr);
      for (size_t i = 0; i < kCount; ++i) out[i] = static_cast<float>(100 * round + rank.rank);
      COMM_OK(rank, commGroupStart());
      COMM_OK(rank, commSend(out, kCount, commFloat32, 1 - rank.rank, rank.comm, nullptr));
      COMM_OK(rank, commRecv(in, kCount, commFloat32, 1 - rank.rank, rank.comm, nullptr));
      COMM_OK(rank, commGroupEnd());
      rank.expect(device.regions(out, kBytes) == 0, "the source is still registered");
      rank.expect(device.regions(in, kBytes) == 0, "the destination is still registered");
      bool right = true;
      for (size_t i = 0; i < kCount; ++i)
        right = right && in[i] == static_cast<float>(100 * round + 1 - rank.rank);
      rank.expect(right, "wrong bytes");
      ::munmap(out, kBytes);
      ::munmap(in, kBytes);
    }
  });
}

TEST_F(PlainMemory, OfACallInAStreamIsForgottenWhenTheStreamIsDone) {
  run(over_rdma(Kind::kThreads), [](Rank& rank) {
    const libcomm::test::RdmaDouble device;
    cudaStream_t stream = nullptr;
    COMM_OK(rank, commHostStreamCreate(&stream));
    for (int round = 0; round < 3; ++round) {
      float* data = map(nullptr);
      for (size_t i = 0; i < kCount; ++i) data[i] = 1;
      COMM_OK(rank, commAllReduce(data, data, kCount, commFloat32, commSum, rank.comm, stream));
      COMM_OK(rank, commHostStreamSynchronize(stream));
      rank.expect(device.regions(data, kBytes) == 0, "still registered");
      rank.expect(data[0] == 2 && data[kCount - 1] == 2, "a wrong sum");
      ::munmap(data, kBytes);
    }
    COMM_OK(rank, commHostStreamDestroy(stream));
  });
}

TEST_F(PlainMemory, ThatCannotBeRegisteredIsCopied) {
  run(over_rdma(Kind::kThreads), [](Rank& rank) {
    // Read-only pages as the source.
    float* in = map(nullptr);
    for (size_t i = 0; i < kCount; ++i) in[i] = static_cast<float>(rank.rank + 1);
    ::mprotect(in, kBytes, PROT_READ);
    float* out = map(nullptr);
    COMM_OK(rank, commAllReduce(in, out, kCount, commFloat32, commSum, rank.comm, nullptr));
    rank.expect(out[0] == 3 && out[kCount - 1] == 3, "a wrong sum");
    ::munmap(in, kBytes);
    ::munmap(out, kBytes);
  });
}

TEST_F(PlainMemory, BesideAndAroundMemoryThatTheUserRegistered) {
  run(over_rdma(Kind::kThreads), [](Rank& rank) {
    const libcomm::test::RdmaDouble device;
    float* data = map(nullptr);
    void* handle = nullptr;
    COMM_OK(rank, commRegister(rank.comm, data + kCount / 4, kBytes / 4, &handle));
    for (int round = 0; round < 3; ++round) {
      for (size_t i = 0; i < kCount; ++i) data[i] = 1;
      COMM_OK(rank, commAllReduce(data, data, kCount, commFloat32, commSum, rank.comm, nullptr));
      rank.expect(data[0] == 2 && data[kCount - 1] == 2, "a wrong sum");
      rank.expect(device.regions(data, kBytes) <= 1, "more is registered than the user named");
    }
    COMM_OK(rank, commDeregister(rank.comm, handle));
    rank.expect(device.regions(data, kBytes) == 0, "registered after commDeregister");
    ::munmap(data, kBytes);
  });
}

// A child of a rank has the addresses and must not disturb what its parent's device does there.
TEST_F(PlainMemory, SurvivesAForkBetweenCalls) {
  run(over_rdma(Kind::kProcesses), [](Rank& rank) {
    float* data = map(nullptr);
    for (int round = 0; round < 4; ++round) {
      sum_and_look(rank, data);
      const pid_t child = ::fork();
      if (child == 0) {
        std::memset(data, 0x55, kBytes);
        ::munmap(data, kBytes);
        ::_exit(0);
      }
      sum_and_look(rank, data);
      int status = 0;
      ::waitpid(child, &status, 0);
      rank.expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child did not end well");
    }
    ::munmap(data, kBytes);
  });
}

// The double would touch the unmapped pages, and end the process, if a device still knew them.
TEST_F(PlainMemory, MayBeUnmappedAsSoonAsACallHasFailed) {
  World world = over_rdma(Kind::kProcesses);
  world.nranks = 3;
  world.victims = {1};
  // Ranks that have ended the first call, which a death may let fail.
  auto* warmed = new (::mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0)) std::atomic<int>(0);
  run(world, [warmed](Rank& rank) {
    const libcomm::test::RdmaDouble device;
    const size_t count = size_t{16} << 20;
    float* data = static_cast<float*>(
        ::mmap(nullptr, count * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    float* warm = map(nullptr);
    COMM_OK(rank, commAllReduce(warm, warm, kCount, commFloat32, commSum, rank.comm, nullptr));
    ++*warmed;
    while (rank.rank == 1 && *warmed != 3) ::usleep(1000);
    if (rank.rank == 1) ::alarm(0), ::kill(::getpid(), SIGKILL);
    const commResult_t result =
        commAllReduce(data, data, count, commFloat32, commSum, rank.comm, nullptr);
    rank.expect(result != commSuccess, "a rank is dead, and the sum was found");
    rank.expect(device.regions(data, count * 4) == 0, "still registered after the failure");
    ::munmap(data, count * 4);
    for (int i = 0; i < 50; ++i) ::usleep(2000);
  });
}

}  // namespace
}  // namespace world
