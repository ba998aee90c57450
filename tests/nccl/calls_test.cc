// Programs written for NCCL, on libnccl.so.2 with host memory. Compiled with bindings/nccl/nccl.h,
// and once more with NVIDIA's header where that is installed.
#include <gtest/gtest.h>
#include <nccl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "tests/collectives/world.h"

// Host functions of NVIDIA's nccl_device.h, which only nvcc reads; by their names and C types.
struct Team {
  int nranks, rank, stride;
};
extern "C" {
ncclResult_t ncclDevCommCreate(ncclComm_t comm, const void* requirements, void* made);
ncclResult_t ncclDevCommDestroy(ncclComm_t comm, const void* made);
ncclResult_t ncclGinBarrierCreateRequirement(ncclComm_t comm, Team team, int barriers, void* handle,
                                             void* requirements);
ncclResult_t ncclLsaBarrierCreateRequirement(Team team, int barriers, void* handle,
                                             void* requirements);
ncclResult_t ncclLLA2ACreateRequirement(int blocks, int slots, void* handle, void* requirements);
int ncclLLA2ACalcSlots(int elements, int size);
Team ncclTeamWorld(ncclComm_t comm);
Team ncclTeamLsa(ncclComm_t comm);
Team ncclTeamRail(ncclComm_t comm);
int ncclTeamRankToWorld(ncclComm_t comm, Team team, int rank);
int ncclTeamRankToLsa(ncclComm_t comm, Team team, int rank);
void ncclResetDebugInitInternal();
}

namespace {

using std::string;
using world::Kind;
using world::Rank;

#define OK(rank, call) (rank).succeed(static_cast<commResult_t>(call), #call)
// Of calls in a TEST body.
#define ASSERT_OK(call) ASSERT_EQ((call), ncclSuccess) << ncclGetLastError(nullptr)

constexpr int kCount = 37;

// A new id, made by rank 0; the communicator of the test's harness carries it to the others.
ncclUniqueId id_of(const Rank& rank) {
  ncclUniqueId id{};
  if (rank.rank == 0) OK(rank, ncclGetUniqueId(&id));
  rank.succeed(commBcast(&id, sizeof id, commUint8, 0, rank.comm, nullptr), "commBcast");
  return id;
}

ncclComm_t join(const Rank& rank) {
  ncclComm_t comm = nullptr;
  OK(rank, ncclCommInitRank(&comm, rank.nranks, id_of(rank), rank.rank));
  return comm;
}

// Waits until the communicator has finished what it does in the background.
ncclResult_t settled(ncclComm_t comm) {
  ncclResult_t state = ncclInProgress;
  while (ncclCommGetAsyncError(comm, &state) == ncclSuccess && state == ncclInProgress)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return state;
}

void run_ranks(int nranks, Kind kind, const world::Body& body) {
  world::World ranks;
  ranks.nranks = nranks;
  ranks.kind = kind;
  world::run(ranks, body);
}

class Everywhere : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (GetParam() == Kind::kProcesses && world::kThreadSanitized)
      GTEST_SKIP() << "skipped: ThreadSanitizer does not follow ranks that are forked";
  }
};

INSTANTIATE_TEST_SUITE_P(Nccl, Everywhere, testing::Values(Kind::kThreads, Kind::kProcesses),
                         [](const auto& one) {
                           return one.param == Kind::kThreads ? "Threads" : "Processes";
                         });

TEST_P(Everywhere, EveryCollectiveMovesWhatItShould) {
  run_ranks(3, GetParam(), [](Rank& rank) {
    const int n = rank.nranks, me = rank.rank;
    const ncclComm_t comm = join(rank);
    // Element i of rank r's block b is 1000 r + 100 b + i.
    const auto value = [](int r, int b, int i) { return 1000.0F * r + 100.0F * b + i; };
    std::vector<float> all(static_cast<size_t>(n * kCount)), got(all.size());
    for (int b = 0; b < n; ++b)
      for (int i = 0; i < kCount; ++i) all[static_cast<size_t>(b * kCount + i)] = value(me, b, i);
    const auto check = [&](const char* what, int blocks, const auto& wanted) {
      for (int b = 0; b < blocks; ++b)
        for (int i = 0; i < kCount; ++i)
          rank.require(got[static_cast<size_t>(b * kCount + i)] == wanted(b, i), what);
      std::fill(got.begin(), got.end(), -1.0F);
    };
    const auto sum = [&](int b, int i) { return 3000.0F + 300.0F * b + 3.0F * i; };

    OK(rank, ncclAllReduce(all.data(), got.data(), all.size(), ncclFloat, ncclSum, comm, nullptr));
    check("AllReduce", n, sum);
    OK(rank, ncclAllReduce(all.data(), got.data(), kCount, ncclFloat, ncclAvg, comm, nullptr));
    check("AllReduce avg", 1, [](int, int i) { return 1000.0F + i; });
    OK(rank, ncclReduceScatter(all.data(), got.data(), kCount, ncclFloat, ncclSum, comm, nullptr));
    check("ReduceScatter", 1, [&](int, int i) { return sum(me, i); });
    OK(rank, ncclReduce(all.data(), got.data(), kCount, ncclFloat, ncclMax, 1, comm, nullptr));
    if (me == 1) check("Reduce", 1, [&](int, int i) { return value(2, 0, i); });
    OK(rank, ncclAllGather(all.data(), got.data(), kCount, ncclFloat, comm, nullptr));
    check("AllGather", n, [&](int b, int i) { return value(b, 0, i); });
    OK(rank, ncclAlltoAll(all.data(), got.data(), kCount, ncclFloat, comm, nullptr));
    check("AlltoAll", n, [&](int b, int i) { return value(b, me, i); });
    OK(rank, ncclBroadcast(all.data(), got.data(), kCount, ncclFloat, 2, comm, nullptr));
    check("Broadcast", 1, [&](int, int i) { return value(2, 0, i); });
    std::copy(all.begin(), all.end(), got.begin());
    OK(rank, ncclBcast(got.data(), kCount, ncclFloat, 1, comm, nullptr));
    check("Bcast", 1, [&](int, int i) { return value(1, 0, i); });
    OK(rank, ncclGather(all.data(), got.data(), kCount, ncclFloat, 0, comm, nullptr));
    if (me == 0) check("Gather", n, [&](int b, int i) { return value(b, 0, i); });
    OK(rank, ncclScatter(all.data(), got.data(), kCount, ncclFloat, 2, comm, nullptr));
    check("Scatter", 1, [&](int, int i) { return value(2, me, i); });

    OK(rank, ncclGroupStart());
    OK(rank, ncclSend(all.data(), kCount, ncclFloat, (me + 1) % n, comm, nullptr));
    OK(rank, ncclRecv(got.data(), kCount, ncclFloat, (me + n - 1) % n, comm, nullptr));
    OK(rank, ncclGroupEnd());
    check("Send and Recv", 1, [&](int, int i) { return value((me + n - 1) % n, 0, i); });

    float factor = 0.5F;
    ncclRedOp_t half{};
    OK(rank, ncclRedOpCreatePreMulSum(&half, &factor, ncclFloat, ncclScalarHostImmediate, comm));
    OK(rank, ncclAllReduce(all.data(), got.data(), kCount, ncclFloat, half, comm, nullptr));
    check("PreMulSum", 1, [&](int, int i) { return sum(0, i) / 2; });
    OK(rank, ncclRedOpDestroy(half, comm));

    int value_back = -7;
    OK(rank, ncclCommCount(comm, &value_back));
    rank.expect(value_back == n, "ncclCommCount");
    OK(rank, ncclCommUserRank(comm, &value_back));
    rank.expect(value_back == me, "ncclCommUserRank");
    OK(rank, ncclCommFinalize(comm));
    OK(rank, ncclCommDestroy(comm));
  });
}

TEST_P(Everywhere, CommunicatorsAreSplitShrunkRevokedAndAborted) {
  run_ranks(3, GetParam(), [](Rank& rank) {
    const ncclComm_t comm = join(rank);
    ncclComm_t pair = reinterpret_cast<ncclComm_t>(&rank);
    // Ranks 2 and 0, in this order; rank 1 is in none.
    OK(rank,
       ncclCommSplit(comm, rank.rank == 1 ? NCCL_SPLIT_NOCOLOR : 7, -rank.rank, &pair, nullptr));
    rank.expect((pair == nullptr) == (rank.rank == 1), "NOCOLOR gives NULL");
    if (pair != nullptr) {
      int place = -1;
      OK(rank, ncclCommUserRank(pair, &place));
      rank.expect(place == (rank.rank == 2 ? 0 : 1), "ordered by key");
      OK(rank, ncclCommDestroy(pair));
    }
    ncclComm_t rest = nullptr;
    int excluded[] = {0};
    if (rank.rank != 0) {
      OK(rank, ncclCommShrink(comm, excluded, 1, &rest, nullptr, NCCL_SHRINK_DEFAULT));
      int one = 1, sum = 0;
      OK(rank, ncclAllReduce(&one, &sum, 1, ncclInt, ncclSum, rest, nullptr));
      rank.expect(sum == 2, "two are left");
    }
    // A revocation would end the other's sum.
    rank.succeed(commBarrier(rank.comm, nullptr), "commBarrier");
    if (rank.rank != 0) {
      int one = 1, sum = 0;
      OK(rank, ncclCommRevoke(rest, NCCL_REVOKE_DEFAULT));
      rank.expect(ncclAllReduce(&one, &sum, 1, ncclInt, ncclSum, rest, nullptr) != ncclSuccess,
                  "a revoked communicator takes no operation");
      OK(rank, ncclCommDestroy(rest));
    }
    OK(rank, ncclCommAbort(comm));
  });
}

TEST_P(Everywhere, AGroupMayAbortWhatItHolds) {
  run_ranks(2, GetParam(), [](Rank& rank) {
    const ncclComm_t comm = join(rank);
    ncclComm_t other = nullptr;
    OK(rank, ncclCommSplit(comm, 0, rank.rank, &other, nullptr));
    rank.succeed(commBarrier(rank.comm, nullptr), "commBarrier");
    std::vector<float> a(kCount, 1), b(kCount);
    if (rank.rank == 0) {
      // Two communicators given up in one group, as PyTorch does; one of them has work there.
      OK(rank, ncclGroupStart());
      OK(rank, ncclAllReduce(a.data(), b.data(), kCount, ncclFloat, ncclSum, comm, nullptr));
      OK(rank, ncclCommAbort(comm));
      OK(rank, ncclCommAbort(other));
      OK(rank, ncclGroupEnd());
      return;
    }
    const auto failed =
        ncclAllReduce(a.data(), b.data(), kCount, ncclFloat, ncclSum, comm, nullptr);
    rank.expect(failed == ncclRemoteError, "the peer hears of it");
    rank.expect(string(ncclGetLastError(comm)).find("rank 0") != string::npos,
                string("who it was: ") + ncclGetLastError(comm));
    ncclResult_t state = ncclSuccess;
    OK(rank, ncclCommGetAsyncError(comm, &state));
    rank.expect(state == ncclRemoteError, "and the state says so");
    std::string elsewhere;
    std::thread([&] { elsewhere = ncclGetLastError(nullptr); }).join();
    rank.expect(elsewhere.find("rank 0") != string::npos,
                "a thread that has made no call hears of it: " + elsewhere);
    OK(rank, ncclCommAbort(comm));
    OK(rank, ncclCommAbort(other));
  });
}

TEST_P(Everywhere, ANonBlockingCommunicatorIsPolled) {
  run_ranks(2, GetParam(), [](Rank& rank) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t comm = nullptr;
    rank.require(
        ncclCommInitRankConfig(&comm, 2, id_of(rank), rank.rank, &config) == ncclInProgress,
        "init is in progress");
    rank.require(settled(comm) == ncclSuccess, ncclGetLastError(comm));
    std::vector<int> values(100000, 1);
    const auto begun =
        ncclAllReduce(values.data(), values.data(), values.size(), ncclInt, ncclSum, comm, nullptr);
    rank.require(begun == ncclInProgress || begun == ncclSuccess, ncclGetLastError(comm));
    rank.require(settled(comm) == ncclSuccess, ncclGetLastError(comm));
    rank.expect(std::accumulate(values.begin(), values.end(), 0) == 200000, "the sum");
    const auto ending = ncclCommFinalize(comm);
    rank.require(ending == ncclInProgress || ending == ncclSuccess, ncclGetLastError(comm));
    rank.require(settled(comm) == ncclSuccess, ncclGetLastError(comm));
    OK(rank, ncclCommDestroy(comm));
  });
}

TEST_P(Everywhere, SeveralIdsMakeOneCommunicator) {
  run_ranks(3, GetParam(), [](Rank& rank) {
    ncclUniqueId ids[] = {id_of(rank)};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t comm = nullptr;
    OK(rank, ncclCommInitRankScalable(&comm, 3, rank.rank, 1, ids, &config));
    // Windows: memory that the ranks of a host read in place.
    void* memory = nullptr;
    ncclWindow_t window = nullptr;
    OK(rank, ncclMemAlloc(&memory, 1 << 16));
    OK(rank, ncclCommWindowRegister(comm, memory, 1 << 16, &window, NCCL_WIN_COLL_SYMMETRIC));
    rank.expect(window != nullptr, "a window");
    auto* const numbers = static_cast<int*>(memory);
    std::fill_n(numbers, 1 << 14, rank.rank);
    OK(rank, ncclAllReduce(numbers, numbers, 1 << 14, ncclInt, ncclSum, comm, nullptr));
    rank.expect(numbers[0] == 3 && numbers[(1 << 14) - 1] == 3, "the sum");
    OK(rank, ncclCommWindowDeregister(comm, window));
    void* handle = nullptr;
    OK(rank, ncclCommRegister(comm, memory, 1 << 16, &handle));
    OK(rank, ncclCommDeregister(comm, handle));
    OK(rank, ncclMemFree(memory));
    OK(rank, ncclCommDestroy(comm));
  });
}

TEST(OneThread, DrivesAllRanksInGroups) {
  constexpr int kRanks = 3;
  ncclComm_t comms[kRanks];
  ASSERT_OK(ncclCommInitAll(comms, kRanks, nullptr));
  int in[kRanks] = {1, 2, 3}, out[kRanks] = {};
  ASSERT_OK(ncclGroupStart());
  ASSERT_OK(ncclGroupStart());
  for (int r = 0; r < kRanks; ++r)
    ASSERT_OK(ncclAllReduce(&in[r], &out[r], 1, ncclInt, ncclProd, comms[r], nullptr));
  ASSERT_OK(ncclGroupEnd());
  EXPECT_EQ(out[0], 0) << "the inner end starts nothing";
  // What is destroyed in a group still does the group's work.
  for (ncclComm_t comm : comms) ASSERT_OK(ncclCommDestroy(comm));
  int rank = -1;
  EXPECT_EQ(ncclCommUserRank(comms[2], &rank), ncclSuccess) << "not destroyed before the end";
  ASSERT_OK(ncclGroupEnd());
  for (const int value : out) EXPECT_EQ(value, 6);
  for (ncclComm_t comm : comms) EXPECT_EQ(ncclCommUserRank(comm, &rank), ncclInvalidArgument);
}

class Alone : public testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(ncclCommInitAll(&comm_, 1, nullptr)); }
  void TearDown() override { EXPECT_EQ(ncclCommDestroy(comm_), ncclSuccess); }
  // What making a communicator with this config gives; its text is the thread's last error then.
  static ncclResult_t init_with(void* config) {
    ncclUniqueId id;
    if (ncclGetUniqueId(&id) != ncclSuccess) return ncclInternalError;
    ncclComm_t comm = nullptr;
    const ncclResult_t result =
        ncclCommInitRankConfig(&comm, 1, id, 0, static_cast<ncclConfig_t*>(config));
    if (result == ncclInProgress && settled(comm) != ncclSuccess) return ncclInternalError;
    if (ncclCommDestroy(comm) != ncclSuccess) return ncclInternalError;
    return result;
  }

  ncclComm_t comm_ = nullptr;
};

#define EXPECT_ERROR(call, code, text)                                    \
  do {                                                                    \
    EXPECT_EQ(call, code);                                                \
    EXPECT_NE(string(ncclGetLastError(nullptr)).find(text), string::npos) \
        << ncclGetLastError(nullptr);                                     \
  } while (0)

TEST_F(Alone, ReportsItsVersionAndTexts) {
  int version = 0;
  EXPECT_EQ(ncclGetVersion(&version), ncclSuccess);
  EXPECT_EQ(version, 22809);
  EXPECT_EQ(ncclGetVersion(nullptr), ncclInvalidArgument);
  EXPECT_STREQ(ncclGetErrorString(ncclSuccess), "no error");
  for (int code = -1; code <= ncclNumResults; ++code)
    EXPECT_STRNE(ncclGetErrorString(static_cast<ncclResult_t>(code)), "");
  int device = 7;
  EXPECT_EQ(ncclCommCuDevice(comm_, &device), ncclSuccess);
  EXPECT_EQ(device, -1) << "host memory only";
}

TEST_F(Alone, NullMayBeEndedAndNothingElse) {
  EXPECT_EQ(ncclCommDestroy(nullptr), ncclSuccess);
  EXPECT_EQ(ncclCommAbort(nullptr), ncclSuccess);
  EXPECT_EQ(ncclCommFinalize(nullptr), ncclSuccess);
  EXPECT_EQ(ncclCommRevoke(nullptr, 0), ncclSuccess);
  EXPECT_EQ(ncclCommWindowDeregister(comm_, nullptr), ncclSuccess);
  EXPECT_EQ(ncclMemFree(nullptr), ncclSuccess);
  int value = 0;
  ncclResult_t state = ncclSuccess;
  EXPECT_ERROR(ncclCommCount(nullptr, &value), ncclInvalidArgument, "NULL");
  EXPECT_ERROR(ncclCommGetAsyncError(nullptr, &state), ncclInvalidArgument, "NULL");
  EXPECT_ERROR(ncclAllReduce(nullptr, nullptr, 0, ncclInt, ncclSum, nullptr, nullptr),
               ncclInvalidArgument, "NULL");
  EXPECT_EQ(ncclCommDeregister(nullptr, nullptr), ncclInvalidArgument);
  EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage);
}

TEST_F(Alone, BadValuesAreNamed) {
  float a = 0, b = 0;
  EXPECT_ERROR(ncclAllReduce(&a, &b, 1, static_cast<ncclDataType_t>(12), ncclSum, comm_, nullptr),
               ncclInvalidArgument, "datatype 12");
  EXPECT_ERROR(ncclBroadcast(&a, &b, 1, ncclFloat, 1, comm_, nullptr), ncclInvalidArgument,
               "root 1");
  EXPECT_ERROR(ncclAllReduce(nullptr, &b, 1, ncclFloat, ncclSum, comm_, nullptr),
               ncclInvalidArgument, "sendbuff");
  // A CUDA stream, in a process without CUDA.
  const auto foreign = reinterpret_cast<cudaStream_t>(&a);
  EXPECT_ERROR(ncclAllReduce(&a, &b, 1, ncclFloat, ncclSum, comm_, foreign), ncclInvalidArgument,
               "libcuda.so.1");
  EXPECT_NE(string(ncclGetLastError(comm_)).find("libcuda.so.1"), string::npos);
}

TEST_F(Alone, AStreamOfLibcommIsOne) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(commHostStreamCreate(&stream), commSuccess);
  int in = 5, out = 0;
  ASSERT_OK(ncclAllReduce(&in, &out, 1, ncclInt, ncclSum, comm_, stream));
  EXPECT_EQ(commHostStreamSynchronize(stream), commSuccess);
  EXPECT_EQ(out, 5);
  EXPECT_EQ(commHostStreamDestroy(stream), commSuccess);
}

TEST_F(Alone, AConfigMayBeShorterOrLonger) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  EXPECT_EQ(init_with(&config), ncclSuccess);
  EXPECT_EQ(init_with(nullptr), ncclSuccess);

  struct {
    ncclConfig_t known = NCCL_CONFIG_INITIALIZER;
    int later[6] = {-3, -3, -3, -3, -3, -3};
  } longer;
  longer.known.size = sizeof longer;
  longer.known.version = NCCL_VERSION(2, 31, 0);
  longer.known.blocking = 0;
  EXPECT_EQ(init_with(&longer), ncclInProgress);

  // NCCL 2.14's, at the end of a page: nothing behind it may be read.
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  void* const pages =
      ::mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  ASSERT_EQ(::mprotect(static_cast<char*>(pages) + page, page, PROT_NONE), 0);
  config.size = 24;
  config.version = NCCL_VERSION(2, 14, 0);
  config.blocking = 0;
  config.cgaClusterSize = -77;  // padding then
  char* const shorter = static_cast<char*>(pages) + page - config.size;
  std::memcpy(shorter, &config, config.size);
  EXPECT_EQ(init_with(shorter), ncclInProgress);
  // The size holds also where the version promises more.
  config.version = NCCL_VERSION_CODE;
  config.cgaClusterSize = NCCL_CONFIG_UNDEF_INT;
  std::memcpy(shorter, &config, config.size);
  EXPECT_EQ(init_with(shorter), ncclInProgress);
  ::munmap(pages, 2 * page);
}

TEST_F(Alone, WhatAConfigsVersionDidNotKnowIsIgnored) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.minCTAs = -5;
  EXPECT_ERROR(init_with(&config), ncclInvalidArgument, "minCTAs -5");
  config.version = NCCL_VERSION(2, 17, 0);
  EXPECT_ERROR(init_with(&config), ncclInvalidArgument, "minCTAs -5");
  config.version = NCCL_VERSION(2, 16, 2);
  EXPECT_EQ(init_with(&config), ncclSuccess);
  config.blocking = 5;
  EXPECT_ERROR(init_with(&config), ncclInvalidArgument, "blocking 5");
  config.version = NCCL_VERSION(2, 13, 4);
  EXPECT_EQ(init_with(&config), ncclSuccess);
}

TEST_F(Alone, AConfigThatIsNoneIsRefused) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.magic = 0x12345678;
  EXPECT_ERROR(init_with(&config), ncclInvalidArgument, "magic 0x12345678");
  config = NCCL_CONFIG_INITIALIZER;
  config.size = 8;
  EXPECT_ERROR(init_with(&config), ncclInvalidArgument, "size 8");
  std::memset(&config, 0, sizeof config);
  EXPECT_ERROR(init_with(&config), ncclInvalidArgument, "size 0");
}

TEST_F(Alone, OptionsOfAConfigHaveTheirEffect) {
  ncclUniqueId id;
  ASSERT_OK(ncclGetUniqueId(&id));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.commName = "gradients";
  config.nvlinkCentricSched = 1;  // nccl-tests sets it
  ncclComm_t comm = nullptr;
  ASSERT_OK(ncclCommInitRankConfig(&comm, 1, id, 0, &config));
  ncclComm_t none = nullptr;
  EXPECT_EQ(ncclCommSplit(comm, -5, 0, &none, nullptr), ncclInvalidArgument);
  EXPECT_NE(string(ncclGetLastError(comm)).find("gradients"), string::npos)
      << ncclGetLastError(comm);
  config.netName = "no such network";
  EXPECT_ERROR(init_with(&config), ncclInvalidArgument, "no such network");
  EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
}

TEST_F(Alone, SimulationReportsATime) {
  float a = 0, b = 0;
  ncclSimInfo_t info = NCCL_SIM_INFO_INITIALIZER;
  ASSERT_OK(ncclGroupStart());
  ASSERT_OK(ncclAllReduce(&a, &b, 1, ncclFloat, ncclSum, comm_, nullptr));
  ASSERT_OK(ncclGroupSimulateEnd(&info));
  EXPECT_GE(info.estimatedTime, 0.0F);
  ASSERT_OK(ncclGroupStart());
  ASSERT_OK(ncclGroupSimulateEnd(nullptr));

  // A struct that is none is refused, and the group is over all the same, as in NCCL.
  info.magic = 1;
  ASSERT_OK(ncclGroupStart());
  EXPECT_ERROR(ncclGroupSimulateEnd(&info), ncclInvalidArgument, "magic");
  EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage);
}

TEST_F(Alone, DeviceCommunicatorsAreRefusedWithAText) {
  const Team team = {1, 0, 1};
  const string why = "libcomm has no device communicators";
  EXPECT_ERROR(ncclDevCommCreate(comm_, nullptr, nullptr), ncclInvalidUsage,
               "ncclDevCommCreate: " + why);
  EXPECT_EQ(string(ncclGetLastError(comm_)).find("ncclDevCommCreate"), 0u);
  EXPECT_ERROR(ncclDevCommDestroy(comm_, nullptr), ncclInvalidUsage, why);
  EXPECT_ERROR(ncclGinBarrierCreateRequirement(comm_, team, 1, nullptr, nullptr), ncclInvalidUsage,
               "ncclGinBarrierCreateRequirement: " + why);
  EXPECT_ERROR(ncclLsaBarrierCreateRequirement(team, 1, nullptr, nullptr), ncclInvalidUsage, why);
  EXPECT_ERROR(ncclLLA2ACreateRequirement(1, 1, nullptr, nullptr), ncclInvalidUsage, why);
  EXPECT_EQ(ncclLLA2ACalcSlots(8, 8), 0);
  // A later failure of libcomm is then the last one.
  int value = 0;
  EXPECT_ERROR(ncclCommCount(nullptr, &value), ncclInvalidArgument, "NULL");
}

TEST(Teams, AreTheWorldAndThisRankAlone) {
  ncclComm_t comms[3];
  ASSERT_OK(ncclCommInitAll(comms, 3, nullptr));
  const Team world = ncclTeamWorld(comms[1]), lsa = ncclTeamLsa(comms[1]);
  EXPECT_EQ(world.nranks, 3);
  EXPECT_EQ(world.rank, 1);
  EXPECT_EQ(world.stride, 1);
  EXPECT_EQ(lsa.nranks, 1);
  EXPECT_EQ(lsa.rank, 0);
  EXPECT_EQ(ncclTeamRail(comms[1]).nranks, 3);
  EXPECT_EQ(ncclTeamRankToWorld(comms[1], world, 2), 2);
  EXPECT_EQ(ncclTeamRankToWorld(comms[1], lsa, 0), 1);
  EXPECT_EQ(ncclTeamRankToLsa(comms[1], lsa, 0), 0);
  EXPECT_EQ(ncclTeamWorld(nullptr).nranks, 0);
  for (ncclComm_t comm : comms) EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
}

}  // namespace
