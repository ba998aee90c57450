// Bad arguments of every call: the result code, and that the text of commGetLastError names the
// value. Also what one rank alone can see: versions, configurations, handles, memory, operators,
// windows.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "tests/collectives/world.h"

namespace {

// The call gives `code` and its text holds `part`.
#define EXPECT_ERROR(call, code, part)                                              \
  do {                                                                              \
    EXPECT_EQ((call), (code)) << #call << ": " << commGetLastError(nullptr);        \
    EXPECT_NE(std::string(commGetLastError(nullptr)).find(part), std::string::npos) \
        << #call << ": " << commGetLastError(nullptr);                              \
  } while (false)

// A communicator of one rank, or of two driven from this thread.
class Arguments : public testing::Test {
 protected:
  void SetUp() override {
    commUniqueId id;
    ASSERT_EQ(commGetUniqueId(&id), commSuccess);
    ASSERT_EQ(commInitRank(&comm_, 1, id, 0), commSuccess) << commGetLastError(nullptr);
  }
  void TearDown() override {
    if (comm_ != nullptr) {
      EXPECT_EQ(commDestroy(comm_), commSuccess);
    }
  }
  comm_t comm_ = nullptr;
  std::vector<float> a_ = std::vector<float>(64, 1.0f);
  std::vector<float> b_ = std::vector<float>(64, 0.0f);
};

TEST(Versions, AreTheApiLevelAndTheLibrarysOwn) {
  int version = 0;
  EXPECT_EQ(commGetVersion(&version), commSuccess);
  EXPECT_EQ(version, 22809);
  EXPECT_EQ(COMM_VERSION_CODE, 22809);
  EXPECT_EQ(COMM_VERSION(2, 28, 9), 22809);
  EXPECT_EQ(COMM_VERSION(2, 8, 3), 2803);
  const char* own = nullptr;
  EXPECT_EQ(commGetLibraryVersion(&own), commSuccess);
  ASSERT_NE(own, nullptr);
  EXPECT_NE(std::strchr(own, '.'), nullptr);
  EXPECT_ERROR(commGetVersion(nullptr), commInvalidArgument, "version");
  EXPECT_ERROR(commGetLibraryVersion(nullptr), commInvalidArgument, "version");
}

TEST(ErrorStrings, AreThereForEveryCodeAndForNone) {
  for (int code = 0; code <= commNumResults + 1; ++code)
    EXPECT_STRNE(commGetErrorString(static_cast<commResult_t>(code)), "");
}

TEST_F(Arguments, KnowsItself) {
  int value = -7;
  EXPECT_EQ(commCount(comm_, &value), commSuccess);
  EXPECT_EQ(value, 1);
  EXPECT_EQ(commUserRank(comm_, &value), commSuccess);
  EXPECT_EQ(value, 0);
  EXPECT_EQ(commCuDevice(comm_, &value), commSuccess);
  EXPECT_EQ(value, -1);
  EXPECT_ERROR(commCount(comm_, nullptr), commInvalidArgument, "count");
  EXPECT_ERROR(commUserRank(comm_, nullptr), commInvalidArgument, "rank");
  EXPECT_ERROR(commCuDevice(comm_, nullptr), commInvalidArgument, "device");
  EXPECT_ERROR(commGetAsyncError(comm_, nullptr), commInvalidArgument, "asyncError");
}

// What a split gives to those without a colour: programs end it like the others do.
TEST_F(Arguments, NullMayBeEnded) {
  EXPECT_EQ(commFinalize(nullptr), commSuccess);
  EXPECT_EQ(commRevoke(nullptr, COMM_REVOKE_DEFAULT), commSuccess);
  EXPECT_EQ(commAbort(nullptr), commSuccess);
  EXPECT_EQ(commDestroy(nullptr), commSuccess);
  EXPECT_EQ(commWindowDeregister(comm_, nullptr), commSuccess);
  ASSERT_EQ(commGroupStart(), commSuccess);
  EXPECT_EQ(commDestroy(nullptr), commSuccess);
  EXPECT_EQ(commAbort(nullptr), commSuccess);
  EXPECT_EQ(commGroupEnd(), commSuccess);
}

TEST_F(Arguments, KnobsHaveDefaultsOfTheProgram) {
  EXPECT_ERROR(commSetKnobDefault(nullptr, "1", nullptr), commInvalidArgument, "knob is NULL");
  EXPECT_ERROR(commSetKnobDefault("COMM_BUFSIZE", "1M", nullptr), commInvalidArgument,
               "COMM_BUFSIZE is not a knob");
  EXPECT_ERROR(commSetKnobDefault("COMM_BUFFSIZE", "1", nullptr), commInvalidArgument,
               "COMM_BUFFSIZE=1 (program)");
  // They show where they decide: there is no rank 1 of 1.
  EXPECT_EQ(commSetKnobDefault("COMM_RANK", "1", "me"), commSuccess);
  EXPECT_EQ(commSetKnobDefault("COMM_NRANKS", "1", "me"), commSuccess);
  comm_t none = nullptr;
  EXPECT_ERROR(commInitFromLauncher(&none), commInvalidArgument, "1");
  EXPECT_EQ(commSetKnobDefault("COMM_RANK", nullptr, nullptr), commSuccess);
  EXPECT_EQ(commSetKnobDefault("COMM_NRANKS", nullptr, nullptr), commSuccess);
  EXPECT_EQ(commInitFromLauncher(&none), commSuccess);
  EXPECT_EQ(commDestroy(none), commSuccess);
}

TEST_F(Arguments, OneRankHoldsNothing) {
  EXPECT_EQ(commAllReduce(a_.data(), b_.data(), 64, commFloat, commSum, comm_, nullptr),
            commSuccess);
  commMemStats_t stats{};
  stats.size = sizeof stats;
  EXPECT_EQ(commGetMemStats(comm_, &stats), commSuccess);
  EXPECT_EQ(stats.hostBytes, 0u);
  EXPECT_EQ(stats.pinnedBytes, 0u);
  EXPECT_EQ(stats.deviceBytes, 0u);
  EXPECT_EQ(stats.channels, 0);
  EXPECT_EQ(stats.sockets, 0);
  EXPECT_EQ(stats.threads, 0);
  EXPECT_EQ(b_, a_);
  stats.size = 3;
  EXPECT_ERROR(commGetMemStats(comm_, &stats), commInvalidArgument, "stats.size 3");
  EXPECT_ERROR(commGetMemStats(comm_, nullptr), commInvalidArgument, "stats");
  // An older caller's struct ends earlier.
  struct {
    size_t size = 2 * sizeof(size_t);
    size_t host_bytes = 77;
    size_t behind = 99;
  } shorter;
  EXPECT_EQ(commGetMemStats(comm_, reinterpret_cast<commMemStats_t*>(&shorter)), commSuccess);
  EXPECT_EQ(shorter.host_bytes, 0u);
  EXPECT_EQ(shorter.behind, 99u);
}

TEST_F(Arguments, OfCreationAreChecked) {
  commUniqueId id;
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  EXPECT_ERROR(commGetUniqueId(nullptr), commInvalidArgument, "uniqueId");
  comm_t made = comm_;
  EXPECT_ERROR(commInitRank(&made, 0, id, 0), commInvalidArgument, "nranks 0");
  EXPECT_EQ(made, nullptr);
  EXPECT_ERROR(commInitRank(&made, -3, id, 0), commInvalidArgument, "nranks -3");
  EXPECT_ERROR(commInitRank(&made, 2, id, 2), commInvalidArgument, "rank 2");
  EXPECT_ERROR(commInitRank(&made, 2, id, -1), commInvalidArgument, "rank -1");
  EXPECT_ERROR(commInitRank(nullptr, 1, id, 0), commInvalidArgument, "comm");
  commUniqueId garbage;
  std::memset(&garbage, 'x', sizeof garbage);
  EXPECT_ERROR(commInitRank(&made, 2, garbage, 0), commInvalidArgument, "id");
  EXPECT_ERROR(commInitRankScalable(&made, 2, 0, 1, nullptr, nullptr), commInvalidArgument,
               "commIds");
  EXPECT_ERROR(commInitRankScalable(&made, 2, 0, 0, &id, nullptr), commInvalidArgument, "nId 0");
  EXPECT_ERROR(commInitRankScalable(&made, 2, 0, 3, &id, nullptr), commInvalidArgument, "nId 3");
  EXPECT_ERROR(commInitAll(nullptr, 1, nullptr), commInvalidArgument, "comm");
  EXPECT_ERROR(commInitAll(&made, 0, nullptr), commInvalidArgument, "ndev 0");
  const int devices[] = {-5};
  EXPECT_ERROR(commInitAll(&made, 1, devices), commInvalidArgument, "devlist[0] = -5");
  EXPECT_ERROR(commInitFromLauncher(nullptr), commInvalidArgument, "comm");
}

TEST_F(Arguments, OfConfigurationsAreChecked) {
  commUniqueId id;
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  comm_t made = nullptr;
  const auto try_config = [&](commConfig_t config) {
    return commInitRankConfig(&made, 1, id, 0, &config);
  };
  commConfig_t config = COMM_CONFIG_INITIALIZER;
  config.magic = 0x1234;
  EXPECT_ERROR(try_config(config), commInvalidArgument, "config.magic 0x1234");
  config = COMM_CONFIG_INITIALIZER;
  config.size = 4;
  EXPECT_ERROR(try_config(config), commInvalidArgument, "config.size 4");
  config = COMM_CONFIG_INITIALIZER;
  config.blocking = 2;
  EXPECT_ERROR(try_config(config), commInvalidArgument, "config.blocking 2");
  config = COMM_CONFIG_INITIALIZER;
  config.minCTAs = 0;
  EXPECT_ERROR(try_config(config), commInvalidArgument, "config.minCTAs 0");
  config.minCTAs = 4;
  config.maxCTAs = 2;
  EXPECT_ERROR(try_config(config), commInvalidArgument, "config.maxCTAs 2");
  config = COMM_CONFIG_INITIALIZER;
  config.netName = "carrier-pigeon";
  EXPECT_ERROR(try_config(config), commInvalidArgument, "carrier-pigeon");
  EXPECT_EQ(made, nullptr);
}

TEST_F(Arguments, OfShorterAndLongerConfigurationsAreTaken) {
  commUniqueId id;
  comm_t made = nullptr;
  // As compiled against an API that ended with maxCTAs: what follows is not ours to read.
  commConfig_t shorter = COMM_CONFIG_INITIALIZER;
  shorter.size = offsetof(commConfig_t, netName);
  shorter.netName = reinterpret_cast<const char*>(uintptr_t{1});
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  EXPECT_EQ(commInitRankConfig(&made, 1, id, 0, &shorter), commSuccess)
      << commGetLastError(nullptr);
  EXPECT_EQ(commDestroy(made), commSuccess);
  struct {
    commConfig_t known = COMM_CONFIG_INITIALIZER;
    int from_the_future = 42;
  } longer;
  longer.known.size = sizeof longer;
  ASSERT_EQ(commGetUniqueId(&id), commSuccess);
  EXPECT_EQ(commInitRankConfig(&made, 1, id, 0, &longer.known), commSuccess)
      << commGetLastError(nullptr);
  EXPECT_EQ(commDestroy(made), commSuccess);
}

TEST_F(Arguments, OfCollectivesAreChecked) {
  float* a = a_.data();
  float* b = b_.data();
  constexpr auto kBad = static_cast<commDataType_t>(12);
  constexpr auto kBadOp = static_cast<commRedOp_t>(99);
  constexpr commRedOp_t kBits = commBand;
  constexpr size_t kHuge = std::numeric_limits<size_t>::max() / 2;
  constexpr commResult_t kArgument = commInvalidArgument;
  const size_t one[] = {1}, none[] = {0}, huge[] = {kHuge};

  EXPECT_ERROR(commAllReduce(a, b, 4, kBad, commSum, comm_, nullptr), kArgument, "datatype 12");
  // A C program can pass what UBSan does not let us make.
  if (!world::kSanitized) {
    EXPECT_ERROR(commAllReduce(a, b, 4, static_cast<commDataType_t>(-1), commSum, comm_, nullptr),
                 kArgument, "datatype -1");
  }
  EXPECT_ERROR(commAllReduce(a, b, 4, commFloat, kBadOp, comm_, nullptr), kArgument, "op 99");
  EXPECT_ERROR(commAllReduce(a, b, 4, commFloat, kBits, comm_, nullptr), kArgument, "band");
  EXPECT_ERROR(commAllReduce(nullptr, b, 4, commFloat, commSum, comm_, nullptr), kArgument,
               "sendbuff");
  EXPECT_ERROR(commAllReduce(a, nullptr, 4, commFloat, commSum, comm_, nullptr), kArgument,
               "recvbuff");
  EXPECT_ERROR(commAllReduce(a, b, kHuge, commFloat, commSum, comm_, nullptr), kArgument,
               "count " + std::to_string(kHuge));
  EXPECT_ERROR(commReduceScatter(a, nullptr, 4, commFloat, commSum, comm_, nullptr), kArgument,
               "recvbuff");
  EXPECT_ERROR(commReduceScatter(a, b, 4, commFloat, kBadOp, comm_, nullptr), kArgument, "op 99");
  EXPECT_ERROR(commAllGather(nullptr, b, 4, commFloat, comm_, nullptr), kArgument, "sendbuff");
  EXPECT_ERROR(commAllGather(a, b, kHuge, commFloat, comm_, nullptr), kArgument, "count");
  EXPECT_ERROR(commBroadcast(a, b, 4, commFloat, 1, comm_, nullptr), kArgument, "root 1");
  EXPECT_ERROR(commBroadcast(a, b, 4, commFloat, -1, comm_, nullptr), kArgument, "root -1");
  EXPECT_ERROR(commBcast(nullptr, 4, commFloat, 0, comm_, nullptr), kArgument, "buff");
  EXPECT_ERROR(commBcast(a, 4, commFloat, 7, comm_, nullptr), kArgument, "root 7");
  EXPECT_ERROR(commReduce(a, b, 4, commFloat, commSum, 3, comm_, nullptr), kArgument, "root 3");
  EXPECT_ERROR(commReduce(a, nullptr, 4, commFloat, commSum, 0, comm_, nullptr), kArgument,
               "recvbuff");
  EXPECT_ERROR(commAlltoAll(a, nullptr, 4, commFloat, comm_, nullptr), kArgument, "recvbuff");
  EXPECT_ERROR(commGather(a, b, 4, commFloat, 5, comm_, nullptr), kArgument, "root 5");
  EXPECT_ERROR(commGather(nullptr, b, 4, commFloat, 0, comm_, nullptr), kArgument, "sendbuff");
  EXPECT_ERROR(commScatter(a, b, 4, kBad, 0, comm_, nullptr), kArgument, "datatype 12");
  EXPECT_ERROR(commScatter(a, nullptr, 4, commFloat, 0, comm_, nullptr), kArgument, "recvbuff");
  EXPECT_ERROR(commSend(a, 4, commFloat, 1, comm_, nullptr), kArgument, "peer 1");
  EXPECT_ERROR(commSend(nullptr, 4, commFloat, 0, comm_, nullptr), kArgument, "sendbuff");
  EXPECT_ERROR(commRecv(b, 4, commFloat, -2, comm_, nullptr), kArgument, "peer -2");
  EXPECT_ERROR(commRecv(nullptr, 4, commFloat, 0, comm_, nullptr), kArgument, "recvbuff");
  EXPECT_ERROR(commAllGatherv(a, 2, b, one, none, commFloat, comm_, nullptr), kArgument,
               "sendcount 2");
  EXPECT_ERROR(commAllGatherv(a, 1, b, nullptr, none, commFloat, comm_, nullptr), kArgument,
               "recvcounts");
  EXPECT_ERROR(commAllGatherv(a, kHuge, b, huge, none, commFloat, comm_, nullptr), kArgument,
               "recvcounts[0] " + std::to_string(kHuge));
  EXPECT_ERROR(commAllGatherv(a, 1, b, one, huge, commFloat, comm_, nullptr), kArgument,
               "displs[0] " + std::to_string(kHuge));
  EXPECT_ERROR(commReduceScatterv(a, b, nullptr, commFloat, commSum, comm_, nullptr), kArgument,
               "recvcounts");
  EXPECT_ERROR(commReduceScatterv(nullptr, b, one, commFloat, commSum, comm_, nullptr), kArgument,
               "sendbuff");
  EXPECT_ERROR(commAlltoAllv(a, nullptr, none, b, one, none, commFloat, comm_, nullptr), kArgument,
               "sendcounts");
  EXPECT_ERROR(commAlltoAllv(a, one, none, b, none, none, commFloat, comm_, nullptr),
               commInvalidUsage, "sends 1 elements to itself but expects 0");
  cudaStream_t stranger = reinterpret_cast<cudaStream_t>(&a_);
  EXPECT_ERROR(commAllReduce(a, b, 4, commFloat, commSum, comm_, stranger), kArgument, "stream");
  EXPECT_ERROR(commBarrier(comm_, stranger), kArgument, "stream");
  EXPECT_ERROR(commHostStreamQuery(stranger), kArgument, "stream");
  EXPECT_ERROR(commHostStreamSynchronize(nullptr), kArgument, "stream");
  EXPECT_ERROR(commHostStreamDestroy(stranger), kArgument, "stream");
  EXPECT_ERROR(commHostStreamCreate(nullptr), kArgument, "stream");
  // The communicator took no harm.
  EXPECT_EQ(commAllReduce(a, b, 64, commFloat, commSum, comm_, nullptr), commSuccess);
  EXPECT_EQ(a_, b_);
}

TEST_F(Arguments, OfCountZeroNeedNoPointers) {
  const size_t none[] = {0};
  EXPECT_EQ(commAllReduce(nullptr, nullptr, 0, commFloat, commSum, comm_, nullptr), commSuccess);
  EXPECT_EQ(commReduceScatter(nullptr, nullptr, 0, commFloat, commSum, comm_, nullptr),
            commSuccess);
  EXPECT_EQ(commAllGather(nullptr, nullptr, 0, commFloat, comm_, nullptr), commSuccess);
  EXPECT_EQ(commBroadcast(nullptr, nullptr, 0, commFloat, 0, comm_, nullptr), commSuccess);
  EXPECT_EQ(commReduce(nullptr, nullptr, 0, commFloat, commSum, 0, comm_, nullptr), commSuccess);
  EXPECT_EQ(commAlltoAll(nullptr, nullptr, 0, commFloat, comm_, nullptr), commSuccess);
  EXPECT_EQ(commGather(nullptr, nullptr, 0, commFloat, 0, comm_, nullptr), commSuccess);
  EXPECT_EQ(commScatter(nullptr, nullptr, 0, commFloat, 0, comm_, nullptr), commSuccess);
  EXPECT_EQ(commAllGatherv(nullptr, 0, nullptr, none, nullptr, commFloat, comm_, nullptr),
            commSuccess);
  EXPECT_EQ(commReduceScatterv(nullptr, nullptr, none, commFloat, commSum, comm_, nullptr),
            commSuccess);
  EXPECT_EQ(commAlltoAllv(nullptr, none, none, nullptr, none, none, commFloat, comm_, nullptr),
            commSuccess);
}

TEST_F(Arguments, ThatOverlapAreRefused) {
  float* a = a_.data();
  const size_t four[] = {4}, none[] = {0};
  constexpr commResult_t kUsage = commInvalidUsage;
  EXPECT_ERROR(commAllReduce(a, a + 1, 4, commFloat, commSum, comm_, nullptr), kUsage, "overlap");
  EXPECT_ERROR(commReduceScatter(a, a + 1, 4, commFloat, commSum, comm_, nullptr), kUsage,
               "overlap");
  EXPECT_ERROR(commAllGather(a + 3, a, 4, commFloat, comm_, nullptr), kUsage, "overlap");
  EXPECT_ERROR(commBroadcast(a, a + 2, 4, commFloat, 0, comm_, nullptr), kUsage, "overlap");
  EXPECT_ERROR(commReduce(a, a + 2, 4, commFloat, commSum, 0, comm_, nullptr), kUsage, "overlap");
  EXPECT_ERROR(commAlltoAll(a, a, 4, commFloat, comm_, nullptr), kUsage, "no in-place form");
  EXPECT_ERROR(commGather(a, a + 1, 4, commFloat, 0, comm_, nullptr), kUsage, "overlap");
  EXPECT_ERROR(commScatter(a, a + 1, 4, commFloat, 0, comm_, nullptr), kUsage, "overlap");
  EXPECT_ERROR(commAllGatherv(a + 1, 4, a, four, none, commFloat, comm_, nullptr), kUsage,
               "overlap");
  EXPECT_ERROR(commReduceScatterv(a, a + 1, four, commFloat, commSum, comm_, nullptr), kUsage,
               "overlap");
  EXPECT_ERROR(commAlltoAllv(a, four, none, a, four, none, commFloat, comm_, nullptr), kUsage,
               "overlap");
  // Neighbours do not overlap.
  EXPECT_EQ(commAllReduce(a, a + 4, 4, commFloat, commSum, comm_, nullptr), commSuccess);
}

TEST(Handles, ThatAreNoneAreToldApart) {
  int value = 0;
  alignas(64) char garbage[512] = {};
  const auto stranger = reinterpret_cast<comm_t>(garbage);
  const auto unaligned = reinterpret_cast<comm_t>(garbage + 3);
  for (const comm_t bad : {comm_t{nullptr}, stranger, unaligned}) {
    commResult_t state = commSuccess;
    comm_t child = nullptr;
    void* handle = nullptr;
    commWindow_t window = nullptr;
    const auto no_window = reinterpret_cast<commWindow_t>(garbage);
    commRedOp_t op = commSum;
    float f = 1;
    int excluded = 0;
    commMemStats_t stats{};
    stats.size = sizeof stats;
    EXPECT_EQ(commCount(bad, &value), commInvalidArgument);
    EXPECT_EQ(commUserRank(bad, &value), commInvalidArgument);
    EXPECT_EQ(commCuDevice(bad, &value), commInvalidArgument);
    EXPECT_EQ(commGetAsyncError(bad, &state), commInvalidArgument);
    if (bad != nullptr) {  // NULL may be ended
      EXPECT_EQ(commFinalize(bad), commInvalidArgument);
      EXPECT_EQ(commDestroy(bad), commInvalidArgument);
      EXPECT_EQ(commAbort(bad), commInvalidArgument);
      EXPECT_EQ(commRevoke(bad, 0), commInvalidArgument);
    }
    EXPECT_EQ(commSplit(bad, 0, 0, &child, nullptr), commInvalidArgument);
    EXPECT_EQ(commShrink(bad, &excluded, 1, &child, nullptr, 0), commInvalidArgument);
    EXPECT_EQ(commRegister(bad, garbage, 8, &handle), commInvalidArgument);
    EXPECT_EQ(commDeregister(bad, garbage), commInvalidArgument);
    EXPECT_EQ(commWindowRegister(bad, garbage, 8, &window, 0), commInvalidArgument);
    EXPECT_EQ(commWindowDeregister(bad, no_window), commInvalidArgument);
    EXPECT_EQ(commRedOpCreatePreMulSum(&op, &f, commFloat, commScalarHostImmediate, bad),
              commInvalidArgument);
    EXPECT_EQ(commRedOpDestroy(op, bad), commInvalidArgument);
    EXPECT_EQ(commGetMemStats(bad, &stats), commInvalidArgument);
    EXPECT_EQ(commBarrier(bad, nullptr), commInvalidArgument);
    EXPECT_EQ(commAllReduce(&f, &f, 1, commFloat, commSum, bad, nullptr), commInvalidArgument);
    EXPECT_NE(commGetLastError(bad), nullptr);
  }
}

TEST_F(Arguments, AfterDestroyAreToldApart) {
  const comm_t old = comm_;
  ASSERT_EQ(commDestroy(comm_), commSuccess);
  comm_ = nullptr;
  int value = 0;
  EXPECT_ERROR(commDestroy(old), commInvalidArgument, "destroyed");
  EXPECT_ERROR(commAbort(old), commInvalidArgument, "destroyed");
  EXPECT_ERROR(commFinalize(old), commInvalidArgument, "destroyed");
  EXPECT_ERROR(commCount(old, &value), commInvalidArgument, "destroyed");
  EXPECT_ERROR(commBarrier(old, nullptr), commInvalidArgument, "destroyed");
  // A new communicator does not bring an old handle to life.
  SetUp();
  EXPECT_NE(comm_, old);
  EXPECT_ERROR(commBarrier(old, nullptr), commInvalidArgument, "destroyed");
}

TEST_F(Arguments, AfterFinalizeOnlyQueriesAndDestroyFollow) {
  int value = 0;
  EXPECT_EQ(commFinalize(comm_), commSuccess);
  EXPECT_ERROR(commAllReduce(a_.data(), b_.data(), 4, commFloat, commSum, comm_, nullptr),
               commInvalidUsage, "finalize");
  EXPECT_ERROR(commFinalize(comm_), commInvalidUsage, "twice");
  EXPECT_EQ(commCount(comm_, &value), commSuccess);
}

TEST_F(Arguments, LeaveTheLastErrorOfEachThreadAndCommunicator) {
  EXPECT_EQ(commBcast(a_.data(), 4, commFloat, 31, comm_, nullptr), commInvalidArgument);
  std::thread([] { EXPECT_STREQ(commGetLastError(nullptr), ""); }).join();
  std::thread([this] {
    EXPECT_NE(std::string(commGetLastError(comm_)).find("root 31"), std::string::npos);
  }).join();
  EXPECT_NE(std::string(commGetLastError(nullptr)).find("root 31"), std::string::npos);
  // A text is one line.
  EXPECT_EQ(std::strchr(commGetLastError(comm_), '\n'), nullptr);
}

TEST_F(Arguments, OfOperatorsAreChecked) {
  commRedOp_t op = commSum, other = commSum;
  float factor = 2;
  constexpr auto kHost = commScalarHostImmediate;
  EXPECT_ERROR(commRedOpCreatePreMulSum(nullptr, &factor, commFloat, kHost, comm_),
               commInvalidArgument, "op");
  EXPECT_ERROR(commRedOpCreatePreMulSum(&op, nullptr, commFloat, kHost, comm_), commInvalidArgument,
               "scalar");
  EXPECT_ERROR(
      commRedOpCreatePreMulSum(&op, &factor, static_cast<commDataType_t>(14), kHost, comm_),
      commInvalidArgument, "datatype 14");
  if (!world::kSanitized) {
    EXPECT_ERROR(commRedOpCreatePreMulSum(&op, &factor, commFloat,
                                          static_cast<commScalarResidence_t>(9), comm_),
                 commInvalidArgument, "residence 9");
  }
  ASSERT_EQ(commRedOpCreatePreMulSum(&op, &factor, commFloat, kHost, comm_), commSuccess);
  ASSERT_EQ(commRedOpCreatePreMulSum(&other, &factor, commFloat, commScalarDevice, comm_),
            commSuccess);
  EXPECT_NE(op, other);
  factor = 3;  // the first has read it already, the second reads it now
  EXPECT_EQ(commAllReduce(a_.data(), b_.data(), 64, commFloat, op, comm_, nullptr), commSuccess);
  EXPECT_EQ(b_, std::vector<float>(64, 2.0f));
  EXPECT_EQ(commAllReduce(a_.data(), b_.data(), 64, commFloat, other, comm_, nullptr), commSuccess);
  EXPECT_EQ(b_, std::vector<float>(64, 3.0f));
  EXPECT_ERROR(commAllReduce(a_.data(), b_.data(), 4, commInt32, op, comm_, nullptr),
               commInvalidArgument, "float32");
  EXPECT_EQ(commRedOpDestroy(op, comm_), commSuccess);
  EXPECT_ERROR(commRedOpDestroy(op, comm_), commInvalidArgument, "destroyed before");
  EXPECT_ERROR(commRedOpDestroy(commSum, comm_), commInvalidArgument, "commRedOpCreatePreMulSum");
  EXPECT_ERROR(commAllReduce(a_.data(), b_.data(), 4, commFloat, op, comm_, nullptr),
               commInvalidArgument, "op " + std::to_string(op));
  EXPECT_EQ(commRedOpDestroy(other, comm_), commSuccess);
}

TEST_F(Arguments, OfRegistrationsAreChecked) {
  void* memory = nullptr;
  ASSERT_EQ(commMemAlloc(&memory, 10000), commSuccess) << commGetLastError(nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % COMM_WIN_REQUIRED_ALIGNMENT, 0u);
  for (int i = 0; i < 10000; ++i) ASSERT_EQ(static_cast<char*>(memory)[i], 0);
  void* handle = nullptr;
  EXPECT_EQ(commRegister(comm_, a_.data(), 64, &handle), commSuccess);
  EXPECT_NE(handle, nullptr);
  EXPECT_EQ(commDeregister(comm_, handle), commSuccess);
  EXPECT_ERROR(commDeregister(comm_, handle), commInvalidArgument, "deregistered before");
  EXPECT_ERROR(commRegister(comm_, nullptr, 64, &handle), commInvalidArgument, "buff");
  EXPECT_ERROR(commRegister(comm_, a_.data(), 0, &handle), commInvalidArgument, "size is 0");
  EXPECT_ERROR(commRegister(comm_, a_.data(), 64, nullptr), commInvalidArgument, "handle");
  commWindow_t window = nullptr;
  EXPECT_EQ(commWindowRegister(comm_, memory, 8192, &window, COMM_WIN_COLL_SYMMETRIC), commSuccess);
  EXPECT_NE(window, nullptr);
  EXPECT_EQ(commWindowDeregister(comm_, window), commSuccess);
  EXPECT_ERROR(commWindowDeregister(comm_, window), commInvalidArgument, "commWindowDeregister");
  EXPECT_ERROR(commWindowRegister(comm_, memory, 8192, nullptr, 0), commInvalidArgument, "win");
  EXPECT_ERROR(commWindowRegister(comm_, memory, 8192, &window, 64), commInvalidArgument,
               "winFlags 64");
  EXPECT_ERROR(commWindowRegister(comm_, static_cast<char*>(memory) + 8, 64, &window, 0),
               commInvalidArgument, "4096");
  EXPECT_EQ(commMemFree(memory), commSuccess);
  EXPECT_EQ(commMemFree(nullptr), commSuccess);
  EXPECT_EQ(commMemFree(a_.data()), commInvalidArgument);
  EXPECT_ERROR(commMemAlloc(nullptr, 8), commInvalidArgument, "ptr");
  memory = &memory;
  EXPECT_EQ(commMemAlloc(&memory, 0), commSuccess) << "as cudaMalloc, and so ncclMemAlloc";
  EXPECT_EQ(memory, nullptr);
  EXPECT_EQ(commMemAlloc(&memory, size_t{1} << 60), commSystemError) << commGetLastError(nullptr);
  EXPECT_EQ(memory, nullptr);
}

TEST_F(Arguments, OfShrinkSplitAndRevokeAreChecked) {
  comm_t child = nullptr;
  int ranks[] = {0};
  EXPECT_ERROR(commSplit(comm_, -4, 0, &child, nullptr), commInvalidArgument, "color -4");
  EXPECT_ERROR(commSplit(comm_, 0, 0, nullptr, nullptr), commInvalidArgument, "newcomm");
  EXPECT_ERROR(commShrink(comm_, ranks, 1, &child, nullptr, 0), commInvalidArgument,
               "excludeRanksCount 1");
  EXPECT_ERROR(commRevoke(comm_, 8), commInvalidArgument, "revokeFlags 8");
}

TEST(Knobs, WithBadValuesAreNamed) {
  commUniqueId id;
  comm_t made = nullptr;
  {
    const world::ScopedEnvironment bad(world::Environment{{"COMM_ALGO", "quantum"}});
    ASSERT_EQ(commGetUniqueId(&id), commSuccess);
    EXPECT_ERROR(commInitRank(&made, 1, id, 0), commInvalidArgument, "quantum");
  }
  {
    const world::ScopedEnvironment bad(world::Environment{{"COMM_ALGO", "allcuddle:ring"}});
    ASSERT_EQ(commGetUniqueId(&id), commSuccess);
    EXPECT_ERROR(commInitRank(&made, 1, id, 0), commInvalidArgument, "allcuddle");
  }
  {
    const world::ScopedEnvironment bad(world::Environment{{"COMM_BUFFSIZE", "lots"}});
    EXPECT_ERROR(commGetUniqueId(&id), commInvalidArgument, "COMM_BUFFSIZE=lots");
  }
  {
    const world::ScopedEnvironment bad(world::Environment{{"COMM_SOCKET_IFNAME", "nope7"}});
    EXPECT_ERROR(commGetUniqueId(&id), commSystemError, "COMM_SOCKET_IFNAME=nope7");
  }
}

}  // namespace
