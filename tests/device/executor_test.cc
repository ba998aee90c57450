// The executor's kernel on the double: the programs of every algorithm, against the same schedules
// done on the host.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>

#include "src/device/kernels.h"
#include "src/execute/device_program.h"
#include "src/execute/staging.h"
#include "src/schedule/builder.h"
#include "src/schedule/checker.h"
#include "tests/device/host_run.h"
#include "tests/doubles/cuda_double_test/program.h"
#include "tests/reduce/reference.h"
#include "tools/schedule_suite.h"

namespace libcomm::cuda::test {
namespace {

using libcomm::test::HostBuffers;
using libcomm::test::run_on_host;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

struct Words {
  uint32_t begun = 0, ended = 0, abort = 0;
  uint32_t awaits[kMostExecuteLanes] = {};
  ExecuteMismatch mismatch;
};

// The ranks of one group: threads of this process that share GPU 0, each with a stream.
class Ranks {
 public:
  Ranks(const Driver& driver, CUcontext context, AreaShape shape)
      : driver_(driver), shape_(shape), kernels_(*Kernels::of(driver, context)) {
    for (int rank = 0; rank < shape.nranks; ++rank) {
      CUstream stream = nullptr;
      CUDA_OK(driver.stream_create(&stream, kStreamNonBlocking, 0));
      streams_.push_back(stream);
      areas_.push_back(static_cast<std::byte*>(device(area_bytes(shape))));
      clear(areas_.back(), area_bytes(shape));
      words_.push_back(pinned<Words>(1));
    }
    synchronise();
  }
  ~Ranks() {
    synchronise();
    for (const CUstream stream : streams_) CUDA_OK(driver_.stream_destroy(stream));
    for (void* memory : device_) CUDA_OK(driver_.memory_free(number_of(memory)));
    for (void* memory : pinned_) CUDA_OK(driver_.host_free(memory));
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  void* device(size_t bytes) {
    CUdeviceptr made = 0;
    CUDA_OK(driver_.memory_alloc(&made, std::max<size_t>(bytes, 1)));
    device_.push_back(pointer_of(made));
    return device_.back();
  }
  template <typename T>
  T* pinned(size_t count) {
    void* made = nullptr;
    CUDA_OK(driver_.host_alloc(&made, std::max<size_t>(count, 1) * sizeof(T), kPortable));
    pinned_.push_back(made);
    return new (made) T[std::max<size_t>(count, 1)];
  }
  void clear(void* memory, size_t bytes) {
    CUDA_OK(driver_.set_async(number_of(memory), 0, bytes, streams_.back()));
  }
  void synchronise() {
    for (const CUstream stream : streams_) CUDA_OK(driver_.stream_synchronize(stream));
  }

  // What the kernel of a rank is told.
  ExecuteArguments arguments(int rank, const DeviceProgram& program, const Operation& operation) {
    ExecuteArguments made;
    made.type = operation.type;
    made.op = operation.op;
    made.by_lines = program.by_lines;
    made.divisor = operation.average ? shape_.nranks : 1;
    made.premultiplies = operation.premultiply;
    std::memcpy(&made.scalar, operation.scalar.data(), size_of(operation.type));
    made.rank = rank;
    made.lanes = program.lanes;
    made.window = program.window;
    made.windows = program.windows;
    made.announces = program.announces;
    made.most_bytes = program.most_bytes;
    made.call = 4711;
    made.shape = shape_;
    made.in = operation.in;
    made.out = operation.out;
    std::copy(areas_.begin(), areas_.end(), made.areas);
    auto* steps = pinned<ExecuteStep>(program.steps.size());
    std::copy(program.steps.begin(), program.steps.end(), steps);
    auto* operands = pinned<ExecuteOperand>(program.operands.size());
    std::copy(program.operands.begin(), program.operands.end(), operands);
    made.steps = steps;
    made.operands = operands;
    made.operand_count = static_cast<uint32_t>(program.operands.size());
    std::copy(program.lane_begin.begin(), program.lane_begin.end(), made.lane_begin);
    made.number = ++number_;
    Words& words = *words_[static_cast<size_t>(rank)];
    made.begun = &words.begun;
    made.ended = &words.ended;
    made.abort = &words.abort;
    made.awaits = words.awaits;
    made.mismatch = &words.mismatch;
    return made;
  }
  void launch(const ExecuteArguments& arguments) {
    const Status status =
        kernels_->execute(arguments, streams_[static_cast<size_t>(arguments.rank)]);
    EXPECT_TRUE(status) << status.message();
  }
  Words& words(int rank) { return *words_[static_cast<size_t>(rank)]; }
  CUstream stream(int rank) const { return streams_[static_cast<size_t>(rank)]; }
  const AreaShape& shape() const { return shape_; }
  std::byte* area(int rank) const { return areas_[static_cast<size_t>(rank)]; }

 private:
  const Driver& driver_;
  const AreaShape shape_;
  const std::shared_ptr<const Kernels> kernels_;
  std::vector<CUstream> streams_;
  std::vector<std::byte*> areas_;
  std::vector<Words*> words_;
  std::vector<void*> device_, pinned_;
  uint32_t number_ = 0;
};

// An operation of all ranks, with its memory on the host and on the GPU.
struct Case {
  std::vector<Schedule> schedules;
  std::vector<Operation> operations;  // of the host
  std::vector<Operation> on_gpu;
  std::vector<std::vector<std::byte>> memory;
  std::vector<HostBuffers> buffers;
  std::vector<DeviceProgram> programs;
  std::vector<void*> device;

  Case(Ranks& ranks, std::vector<Schedule> of, Operation operation, bool in_place, size_t shift)
      : schedules(std::move(of)) {
    const size_t n = schedules.size();
    DeviceNeeds needs;
    for (const Schedule& schedule : schedules) needs.take_larger(DeviceNeeds::of(schedule));
    memory.resize(n);
    for (size_t rank = 0; rank < n; ++rank) {
      Operation mine = with_tables(operation, static_cast<int>(rank), static_cast<int>(n));
      if (mine.premultiply) {
        const auto scalar = reference::random_elements(mine.type, 1, true, rank + 70);
        std::memcpy(mine.scalar.data(), scalar.data(), scalar.size());
      }
      const Reach reach = reach_of(mine, static_cast<int>(rank), static_cast<int>(n));
      const size_t element = size_of(operation.type);
      const size_t block = operation.count * element;
      // In, then out; of one place, the shorter one lies in the longer one.
      const size_t at = shift * element;
      const size_t out_at = in_place ? at : at + reach.in + 3 * element;
      memory[rank].resize(std::max(at + reach.in, out_at + reach.out) + 16);
      const auto random =
          reference::random_elements(operation.type, memory[rank].size() / element, true, rank + 7);
      std::memcpy(memory[rank].data(), random.data(), random.size());
      HostBuffers host{memory[rank].data() + at, memory[rank].data() + out_at};
      if (in_place && reach.in < reach.out) host.in += rank * block;
      if (in_place && reach.out < reach.in) host.out += rank * block;
      buffers.push_back(host);
      device.push_back(ranks.device(memory[rank].size()));
      cuda_double_write(device.back(), memory[rank].data(), memory[rank].size());
      operations.push_back(mine);
      on_gpu.push_back(mine);
      auto* base = static_cast<std::byte*>(device.back());
      on_gpu.back().in = base + (host.in - memory[rank].data());
      on_gpu.back().out = base + (host.out - memory[rank].data());
      auto program = DeviceProgram::compile(schedules[rank], mine, needs, ranks.shape());
      EXPECT_TRUE(program) << program.status().message();
      programs.push_back(program ? *program : DeviceProgram{});
    }
  }

  // Counts that differ between the ranks, of which some are zero.
  static Operation with_tables(Operation operation, int rank, int nranks) {
    if (!has_size_table(operation.collective)) return operation;
    if (operation.collective == Collective::kAllToAllV) {
      // From `a` to `b`; nothing from some, to some, and to oneself.
      const auto count = [&](int a, int b) {
        return nranks > 2 && (a + 2 * b) % 4 == 1
                   ? 0
                   : operation.count / static_cast<size_t>(a + 2 * b + 1) + 1;
      };
      BlockTables tables;
      for (int r = 0; r < nranks; ++r) {
        tables.in.counts.push_back(count(rank, r));
        tables.out.counts.push_back(count(r, rank));
        for (BlockTable* table : {&tables.in, &tables.out})
          table->displs.push_back(
              r == 0 ? 2 : table->displs.back() + 5 + table->counts[static_cast<size_t>(r - 1)]);
      }
      operation.tables = std::make_shared<BlockTables>(std::move(tables));
      operation.count = 0;
      return operation;
    }
    BlockTable all, own;
    size_t at = 2;
    for (int r = 0; r < nranks; ++r) {
      all.counts.push_back(r % 3 == 1 ? 0 : operation.count / static_cast<size_t>(r + 1) + 1);
      all.displs.push_back(at);
      at += all.counts.back() + 5;
    }
    own.counts = {all.counts[static_cast<size_t>(rank)]};
    own.displs = {0};
    const bool gathers = operation.collective == Collective::kAllGatherV;
    operation.tables =
        std::make_shared<BlockTables>(gathers ? BlockTables{own, all} : BlockTables{all, own});
    operation.count = 0;
    return operation;
  }

  void launch(Ranks& ranks) {
    for (size_t rank = 0; rank < programs.size(); ++rank)
      ranks.launch(ranks.arguments(static_cast<int>(rank), programs[rank], on_gpu[rank]));
  }
  // After the launches are over.
  void check(const std::string& what) {
    run_on_host(schedules, operations, buffers);
    for (size_t rank = 0; rank < memory.size(); ++rank) {
      std::vector<std::byte> got(memory[rank].size());
      cuda_double_read(got.data(), device[rank], got.size());
      if (schedules[rank].collective == Collective::kReduce ||
          schedules[rank].collective == Collective::kGather) {
        if (static_cast<int>(rank) != schedules[rank].root) continue;  // its output is scratch
      }
      const auto differs = std::mismatch(got.begin(), got.end(), memory[rank].begin()).first;
      EXPECT_EQ(differs - got.begin(), static_cast<ptrdiff_t>(got.size()))
          << what << ": rank " << rank << " differs at this byte of " << got.size();
    }
  }
};

Operation operation_of(const Schedule& schedule, size_t count, DataType type,
                       ReduceOp op = ReduceOp::kSum, bool average = false) {
  Operation operation;
  operation.collective = schedule.collective;
  operation.type = type;
  operation.op = op;
  operation.average = average;
  operation.root = schedule.root;
  operation.count = count;
  return operation;
}

class Executor : public Program {
 protected:
  std::unique_ptr<Ranks> ranks(int nranks, int lanes, size_t bytes = 256 << 10) {
    return std::make_unique<Ranks>(d, contexts[0], area_shape(nranks, lanes, bytes));
  }
};

bool is_for_gpus(const ScheduleCase& item) {
  return item.request.collective != Collective::kBarrier && item.request.lanes <= 4;
}

bool has_form_in_place(Collective collective) {
  return collective == Collective::kAllReduce || collective == Collective::kBroadcast ||
         collective == Collective::kReduce || collective == Collective::kAllGather ||
         collective == Collective::kReduceScatter;
}

class Algorithms : public Executor, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, Algorithms, testing::Values(2, 3, 4, 6));

TEST_P(Algorithms, GiveTheBitsOfTheHost) {
  const int nranks = GetParam();
  size_t turn = 0;
  bool lines = false, rings = false;
  auto group = ranks(nranks, 4, 2 << 20);
  for (const ScheduleCase& item : schedule_cases(nranks)) {
    if (!is_for_gpus(item) || (kSanitized && ++turn % 4 != 0)) continue;
    const auto schedules = build_all(*item.algorithm, item.request);
    const bool reduces = is_reducing(item.request.collective);
    for (const size_t count : {1, 61, 62, 5003, 5004}) {
      const bool premultiplied = count % 2 == 0;
      if (premultiplied && !reduces) continue;
      const bool in_place =
          count / 2 < 32 && count > 1 && has_form_in_place(item.request.collective);
      const bool average = reduces && count != 1 && !premultiplied;
      Operation operation =
          operation_of(schedules[0], count, DataType::kFloat32, ReduceOp::kSum, average);
      operation.premultiply = premultiplied;
      Case all(*group, schedules, operation, in_place, count % 4);
      (all.programs[0].by_lines ? lines : rings) = true;
      all.launch(*group);
      group->synchronise();
      all.check(to_string(item) + " of " + std::to_string(count));
    }
    ASSERT_FALSE(HasFailure()) << to_string(item);
  }
  EXPECT_TRUE(lines && rings);
}

class Types : public Executor, public testing::WithParamInterface<DataType> {};
INSTANTIATE_TEST_SUITE_P(All, Types, testing::ValuesIn(reference::all_types()),
                         [](const auto& type) {
                           return std::string(libcomm::name_of(type.param));
                         });

TEST_P(Types, AreCombinedByEveryOperatorAsOnTheHost) {
  const DataType type = GetParam();
  auto group = ranks(3, 2);
  ScheduleRequest request;
  request.nranks = 3;
  request.lanes = 2;
  for (const char* name : {"ring", "oneshot"}) {
    const Algorithm* algorithm = nullptr;
    for (const ScheduleCase& item : schedule_cases(3, name)) algorithm = item.algorithm;
    const auto schedules = build_all(*algorithm, request);
    for (int op = 0; op < kNumReduceOps; ++op) {
      const auto reduce = static_cast<ReduceOp>(op);
      if (!is_defined(reduce, type)) continue;
      for (const size_t bytes : {72, 40008}) {
        for (const size_t shift : {0, 1}) {
          Case all(*group, schedules,
                   operation_of(schedules[0], bytes / size_of(type), type, reduce,
                                reduce == ReduceOp::kSum && shift == 1),
                   false, shift);
          all.launch(*group);
          group->synchronise();
          all.check(fmt::format("{} {} of {} bytes", name, libcomm::name_of(reduce), bytes));
        }
      }
    }
  }
}

TEST_P(Types, AreMultipliedFirstAsOnTheHost) {
  const DataType type = GetParam();
  auto group = ranks(3, 2);
  for (const ScheduleCase& item : schedule_cases(3)) {
    if (!is_reducing(item.request.collective) || !is_for_gpus(item) || item.request.lanes > 2 ||
        item.request.root != 0)
      continue;
    const auto schedules = build_all(*item.algorithm, item.request);
    for (const size_t bytes : {72, 24008}) {
      for (const bool in_place : {false, true}) {
        if (in_place && !has_form_in_place(item.request.collective)) continue;
        Operation operation = operation_of(schedules[0], bytes / size_of(type), type);
        operation.premultiply = true;
        Case all(*group, schedules, operation, in_place, 1);
        all.launch(*group);
        group->synchronise();
        all.check(
            fmt::format("{} of {} bytes{}", to_string(item), bytes, in_place ? ", in place" : ""));
      }
    }
    ASSERT_FALSE(HasFailure()) << to_string(item);
  }
}

// Many operations without a wait between them: connections go round, and ranks run ahead.
TEST_F(Executor, DoesOperationsOneAfterTheOtherWhileConnectionsGoRound) {
  auto group = ranks(3, 1, 24 << 10);
  ScheduleRequest request;
  request.nranks = 3;
  std::vector<std::unique_ptr<Case>> cases;
  const auto items = schedule_cases(3);
  for (int round = 0; round < (kSanitized ? 60 : 300); ++round) {
    const ScheduleCase& item = items[static_cast<size_t>(round * 7) % items.size()];
    if (!is_for_gpus(item) || item.request.lanes != 1) continue;
    const auto schedules = build_all(*item.algorithm, item.request);
    if (schedules[0].lanes.size() != 1) continue;
    const size_t count = round % 5 == 0 ? 3000 : static_cast<size_t>(round % 29 + 1);
    cases.push_back(std::make_unique<Case>(
        *group, schedules, operation_of(schedules[0], count, DataType::kInt32), false, 0));
  }
  for (const auto& each : cases) each->launch(*group);
  group->synchronise();
  for (const auto& each : cases) each->check("one of many");
}

std::vector<Schedule> sum_by(const char* name, int nranks, int lanes) {
  ScheduleRequest request;
  request.nranks = nranks;
  request.lanes = lanes;
  for (const ScheduleCase& item : schedule_cases(nranks, name))
    if (item.request.collective == Collective::kAllReduce)
      return build_all(*item.algorithm, request);
  return {};
}

TEST_F(Executor, MovesMuchMoreThanItsAreasHold) {
  auto group = ranks(2, 2, 32 << 10);
  const auto schedules = sum_by("ring", 2, 2);
  Case all(*group, schedules, operation_of(schedules[0], 300001, DataType::kFloat32), true, 0);
  EXPECT_GT(all.programs[0].windows, 20u);
  all.launch(*group);
  group->synchronise();
  all.check("a large sum");
}

TEST_F(Executor, TellsWhenItBeginsAndEnds) {
  auto group = ranks(2, 1);
  const auto schedules = sum_by("ring", 2, 1);
  Case all(*group, schedules, operation_of(schedules[0], 5, DataType::kFloat32), true, 0);
  const ExecuteArguments first = group->arguments(0, all.programs[0], all.on_gpu[0]);
  const ExecuteArguments second = group->arguments(1, all.programs[1], all.on_gpu[1]);
  group->launch(first);
  const auto word = [](uint32_t& at) { return __atomic_load_n(&at, __ATOMIC_ACQUIRE); };
  while (word(group->words(0).begun) != first.number) std::this_thread::yield();
  EXPECT_NE(word(group->words(0).ended), first.number);
  group->launch(second);
  group->synchronise();
  EXPECT_EQ(word(group->words(0).ended), first.number);
  EXPECT_EQ(word(group->words(1).ended), second.number);
  all.check("a sum");
}

// Again and again while it waits, so that the host can tell that it has looked since.
TEST_F(Executor, TellsForWhomItWaits) {
  for (const size_t count : {5, 5000}) {
    auto group = ranks(3, 1);
    const auto schedules = sum_by("ring", 3, 1);
    Case all(*group, schedules, operation_of(schedules[0], count, DataType::kFloat32), true, 0);
    group->launch(group->arguments(0, all.programs[0], all.on_gpu[0]));
    const auto said = [&] { return __atomic_load_n(&group->words(0).awaits[0], __ATOMIC_ACQUIRE); };
    while (said() == 0) std::this_thread::yield();
    const uint32_t before = said();
    EXPECT_EQ(peer_of_await_word(before), 2) << "which sends to it in the ring";
    while (said() == before) std::this_thread::yield();
    EXPECT_EQ(peer_of_await_word(said()), 2);
    for (const int rank : {1, 2})
      group->launch(group->arguments(rank, all.programs[static_cast<size_t>(rank)],
                                     all.on_gpu[static_cast<size_t>(rank)]));
    group->synchronise();
    EXPECT_EQ(peer_of_await_word(said()), -1);
    all.check("a sum");
  }
}

// A launch that waits for a peer which does not come.
TEST_F(Executor, GivesUpWhenItIsAborted) {
  for (const size_t count : {5, 100000}) {
    auto group = ranks(2, 2);
    const auto schedules = sum_by("ring", 2, 2);
    Case all(*group, schedules, operation_of(schedules[0], count, DataType::kFloat32), true, 0);
    group->launch(group->arguments(0, all.programs[0], all.on_gpu[0]));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    CUDA_GIVES(d.stream_query(group->stream(0)), kNotReady);
    __atomic_store_n(&group->words(0).abort, 1u, __ATOMIC_RELEASE);
    CUDA_OK(d.stream_synchronize(group->stream(0)));
  }
}

// Areas that are gone, as for a graph that outlives its communicator.
TEST_F(Executor, TouchesNothingWhenItFindsItselfAborted) {
  auto group = ranks(2, 2);
  const auto schedules = sum_by("ring", 2, 2);
  Case all(*group, schedules, operation_of(schedules[0], 5, DataType::kFloat32), true, 0);
  ExecuteArguments arguments = group->arguments(0, all.programs[0], all.on_gpu[0]);
  arguments.asks_first = true;
  std::fill(std::begin(arguments.areas), std::end(arguments.areas), nullptr);
  group->words(0).abort = 1;
  group->launch(arguments);
  group->synchronise();
  EXPECT_EQ(group->words(0).ended, arguments.number);
}

// What ranks send in different calls is not taken for each other's.
TEST_F(Executor, TakesNoMessagesOfAnotherCall) {
  for (const size_t count : {5, 5000}) {
    auto group = ranks(2, 1);
    const auto schedules = sum_by("ring", 2, 1);
    Case all(*group, schedules, operation_of(schedules[0], count, DataType::kFloat32), true, 0);
    EXPECT_EQ(all.programs[0].by_lines, count == 5);
    for (int rank = 0; rank < 2; ++rank) {
      ExecuteArguments arguments = group->arguments(rank, all.programs[static_cast<size_t>(rank)],
                                                    all.on_gpu[static_cast<size_t>(rank)]);
      arguments.call = 4711 + static_cast<uint64_t>(rank);
      group->launch(arguments);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (int rank = 0; rank < 2; ++rank) {
      CUDA_GIVES(d.stream_query(group->stream(rank)), kNotReady);
      __atomic_store_n(&group->words(rank).abort, 1u, __ATOMIC_RELEASE);
    }
    group->synchronise();
    std::vector<std::byte> got(all.memory[0].size());
    cuda_double_read(got.data(), all.device[0], got.size());
    EXPECT_EQ(got, all.memory[0]) << "a rank took what came";
  }
}

// An all-to-all-v, of which a rank knows only its own sizes.
std::vector<Schedule> exchange_by(const char* name, int nranks) {
  for (const ScheduleCase& item : schedule_cases(nranks, name))
    if (item.request.collective == Collective::kAllToAllV)
      return build_all(*item.algorithm, item.request);
  return {};
}

// Each rank has another number of windows, one has nothing but announcements.
TEST_F(Executor, MovesBlocksOfAllSizesInOneExchange) {
  for (const char* name : {"oneshot", "pairwise"}) {
    for (const int nranks : {2, 3, 6}) {
      auto group = ranks(nranks, 1, 32 << 10);
      const auto schedules = exchange_by(name, nranks);
      for (const size_t count : {50, 70001, 1, 70000, 3000}) {
        Case all(*group, schedules, operation_of(schedules[0], count, DataType::kInt8), false, 3);
        for (size_t rank = 1; rank < all.programs.size(); ++rank) {
          EXPECT_EQ(all.programs[rank].window, all.programs[0].window);
          EXPECT_FALSE(all.programs[rank].by_lines);
        }
        all.launch(*group);
        group->synchronise();
        all.check(fmt::format("{} of {} ranks", name, nranks));
      }
    }
  }
}

// They are announced: what else the call moves comes all the same.
TEST_F(Executor, LeavesLargeBlocksToOthers) {
  auto group = ranks(3, 1, 32 << 10);
  const auto schedules = exchange_by("oneshot", 3);
  Case all(*group, schedules, operation_of(schedules[0], 30000, DataType::kUint8), false, 0);
  constexpr size_t kMost = 9000;
  DeviceNeeds needs;
  for (const Schedule& schedule : schedules) needs.take_larger(DeviceNeeds::of(schedule));
  const std::vector<std::vector<std::byte>> before = all.memory;
  for (size_t rank = 0; rank < 3; ++rank) {
    auto program = DeviceProgram::compile(schedules[rank], all.operations[rank], needs,
                                          group->shape(), true, kMost);
    ASSERT_TRUE(program);
    all.programs[rank] = *program;
  }
  all.launch(*group);
  group->synchronise();
  run_on_host(all.schedules, all.operations, all.buffers);
  size_t left = 0;
  for (size_t rank = 0; rank < 3; ++rank) {
    std::vector<std::byte> expected = all.memory[rank];
    const BlockTable& out = all.operations[rank].out_table();
    const auto at = all.buffers[rank].out - all.memory[rank].data();
    for (size_t block = 0; block < 3; ++block) {
      if (out.counts[block] <= kMost) continue;
      ++left;
      const auto begin = at + static_cast<ptrdiff_t>(out.displs[block]);
      std::copy_n(before[rank].begin() + begin, out.counts[block], expected.begin() + begin);
    }
    std::vector<std::byte> got(expected.size());
    cuda_double_read(got.data(), all.device[rank], got.size());
    EXPECT_EQ(got, expected) << "rank " << rank;
  }
  EXPECT_GT(left, 1u);
}

// Also where the sender begins anew in the ring, and whether more comes or less. The host is told,
// and ends it.
TEST_F(Executor, TellsOfAMessageOfAnotherSize) {
  const auto schedules = exchange_by("oneshot", 2);
  for (const auto& [more, rounds] : {std::pair{1, 12}, {1, 13}, {3000, 12}, {3000, 13}}) {
    auto group = ranks(2, 1, 32 << 10);
    for (int round = 0; round < rounds; ++round) {
      Case all(*group, schedules, operation_of(schedules[0], 3000, DataType::kUint8), false, 0);
      all.launch(*group);
      group->synchronise();
      all.check("an exchange");
    }
    Case sent(*group, schedules, operation_of(schedules[0], 3000, DataType::kUint8), false, 0);
    Case expected(
        *group, schedules,
        operation_of(schedules[0], 3000 + 5 * static_cast<size_t>(more), DataType::kUint8), false,
        0);
    group->launch(group->arguments(0, sent.programs[0], sent.on_gpu[0]));
    group->launch(group->arguments(1, expected.programs[1], expected.on_gpu[1]));
    for (const int rank : {0, 1}) {
      const int peer = 1 - rank;
      ExecuteMismatch& told = group->words(rank).mismatch;
      const uint64_t from = sent.operations[0].in_table().counts[1];
      const uint64_t to = expected.operations[1].out_table().counts[0];
      const uint64_t back = expected.operations[1].in_table().counts[0];
      const uint64_t here = sent.operations[0].out_table().counts[1];
      EXPECT_NE(from, to);
      EXPECT_NE(back, here);
      while (__atomic_load_n(&told.peer, __ATOMIC_ACQUIRE) == 0) std::this_thread::yield();
      EXPECT_EQ(told.peer, static_cast<uint32_t>(peer + 1));
      EXPECT_EQ(told.sent, rank == 1 ? from : back);
      EXPECT_EQ(told.expected, rank == 1 ? to : here);
      CUDA_GIVES(d.stream_query(group->stream(rank)), kNotReady);
    }
    for (const int rank : {0, 1}) __atomic_store_n(&group->words(rank).abort, 1u, __ATOMIC_RELEASE);
    group->synchronise();
  }
}

// A line is two words, each with a flag of its own.
TEST_F(Executor, TakesALineWhenBothOfItsHalvesHaveCome) {
  for (const size_t half : {0, 1}) {
    auto group = ranks(2, 1);
    const auto schedules = sum_by("ring", 2, 1);
    Case all(*group, schedules, operation_of(schedules[0], 5, DataType::kFloat32), true, 0);
    const uint64_t came = uint64_t{1 | 4711 << 8} << 32;
    cuda_double_write(group->area(0) + lines_at(group->shape(), 0) + half * sizeof came, &came,
                      sizeof came);
    group->launch(group->arguments(0, all.programs[0], all.on_gpu[0]));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    CUDA_GIVES(d.stream_query(group->stream(0)), kNotReady);
    group->launch(group->arguments(1, all.programs[1], all.on_gpu[1]));
    group->synchronise();
    all.check("a sum");
  }
}

TEST(Program, IsRefusedWhereItsMessagesDoNotFit) {
  const auto schedules = sum_by("ring", 2, 1);
  const AreaShape shape = area_shape(2, 1, 2048);
  const auto program =
      DeviceProgram::compile(schedules[0], operation_of(schedules[0], 5000, DataType::kFloat32),
                             DeviceNeeds::of(schedules[0]), shape);
  ASSERT_FALSE(program);
  EXPECT_EQ(program.status().code(), Code::kInternal);
}

}  // namespace
}  // namespace libcomm::cuda::test
