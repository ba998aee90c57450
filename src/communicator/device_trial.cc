// The trial of the executor when a communicator is made: an all-to-all by lines and one by rings,
// on all lanes, so that each connection carries bytes both ways before anybody relies on it.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "algorithms/registry.h"
#include "src/base/clock.h"
#include "src/communicator/device_calls.h"
#include "src/device/scopes.h"
#include "src/execute/device_program.h"

namespace libcomm {
namespace {

constexpr Seconds kLimit{30};          // for kernels that wait for each other
constexpr Seconds kLimitOfEnding{10};  // once they are told to give up

// Pinned memory of a communicator for programs, and how many there are at least.
constexpr size_t kProgramBytes = size_t{1} << 20;
constexpr size_t kFewestPrograms = 16;

// Enough for most algorithms: each lane sends to and receives from each rank, and reduces.
size_t piece_bytes(const cuda::AreaShape& shape) {
  const auto each = static_cast<size_t>(shape.nranks) * static_cast<size_t>(shape.lanes);
  return std::bit_ceil(512 + each * (3 * sizeof(cuda::ExecuteStep) + sizeof(cuda::ExecuteOperand)));
}

// What `from` sends to `to`, on each lane; no two ranks' are the same.
uint32_t word_of(int from, int to, size_t index, bool by_lines) {
  return static_cast<uint32_t>(from * 64 + to) * 0x9e3779b9u + static_cast<uint32_t>(index) * 2 +
         (by_lines ? 1 : 0);
}

}  // namespace

struct DeviceCalls::Trial {
  static constexpr size_t kWordsPerLane = 64;

  cuda::DeviceBuffer device;  // in, then out
  cuda::PinnedBuffer pinned;  // the same, and the words
  size_t block = 0;           // words from one rank to another
  size_t words = 0;           // in, and out

  uint32_t* in() const { return reinterpret_cast<uint32_t*>(pinned.data()); }
  uint32_t* out() const { return in() + words; }
  DeviceWords* told() const { return reinterpret_cast<DeviceWords*>(out() + words); }
  Operation operation() const {
    Operation operation;
    operation.collective = Collective::kAllToAll;
    operation.type = DataType::kUint32;
    operation.count = block;
    operation.on_gpu = true;
    operation.in = device.data();
    operation.out = device.data() + words * sizeof(uint32_t);
    return operation;
  }
};

// What may fail at one rank alone: the others would wait for it.
Status DeviceCalls::prepare_trial() {
  const cuda::AreaShape& shape = areas_->shape();
  const cuda::ContextScope scope(driver_, context_);
  COMM_TRY(scope.status());
  const cuda::OutsideCapture outside(driver_);
  const size_t piece = piece_bytes(shape);
  const size_t pieces = std::max(kFewestPrograms, kProgramBytes / piece);
  COMM_ASSIGN(memory_, ProgramMemory::create(driver_, context_, piece, pieces));
  trial_ = std::make_unique<Trial>();
  Trial& trial = *trial_;
  trial.block = Trial::kWordsPerLane * static_cast<size_t>(shape.lanes);
  trial.words = trial.block * static_cast<size_t>(shape.nranks);
  const size_t bytes = trial.words * sizeof(uint32_t);
  COMM_ASSIGN(trial.device, cuda::DeviceBuffer::allocate(driver_, context_, 2 * bytes));
  COMM_ASSIGN(trial.pinned,
              cuda::PinnedBuffer::take(driver_, context_, 2 * bytes + sizeof(DeviceWords)));
  new (trial.told()) DeviceWords;
  return Status::ok();
}

Status DeviceCalls::begin_trial(cuda::PeerMemory& memory, bool by_lines) {
  const cuda::ContextScope scope(driver_, context_);
  COMM_TRY(scope.status());
  const cuda::OutsideCapture outside(driver_);
  const cuda::AreaShape& shape = areas_->shape();
  const Operation operation = trial_->operation();
  ScheduleRequest request;
  request.collective = operation.collective;
  request.nranks = shape.nranks;
  request.lanes = shape.lanes;
  const Algorithm& algorithm = *find_algorithm("oneshot");
  COMM_ASSIGN(DeviceProgram made,
              DeviceProgram::compile(algorithm.build(request, rank_), operation,
                                     needs_of(algorithm, request), shape, by_lines));
  COMM_ASSIGN(const auto program, finish(std::move(made)));

  const size_t words = trial_->words;
  for (size_t i = 0; i < words; ++i)
    trial_->in()[i] = word_of(rank_, static_cast<int>(i / trial_->block), i, by_lines);
  std::memset(trial_->out(), 0, words * sizeof(uint32_t));
  COMM_TRY(memory.copy(trial_->device.data(), trial_->in(), 2 * words * sizeof(uint32_t)));
  DeviceWords* told = trial_->told();
  return launch(*program, operation, nullptr, by_lines ? 1 : 2, told, &told->abort, false,
                memory.stream())
      .context(by_lines ? "by lines" : "by rings");
}

Status DeviceCalls::end_trial(cuda::PeerMemory& memory, bool by_lines, bool all_begun,
                              const std::function<bool()>& has_failed) {
  const cuda::ContextScope scope(driver_, context_);
  COMM_TRY(scope.status());
  const cuda::OutsideCapture outside(driver_);
  const std::atomic_ref<uint32_t> abort(trial_->told()->abort);
  const Seconds patience = all_begun ? kLimit : Seconds(0);
  const Deadline limit = Deadline::after(patience);
  const Deadline end = Deadline::after(patience + kLimitOfEnding);
  const size_t words = trial_->words;
  Status status = memory.copy(trial_->out(), trial_->operation().out, words * sizeof(uint32_t));
  const Status finished = memory.finish([&] {
    if (limit.passed() || has_failed()) abort.store(1);
    return end.passed();
  });
  if (status) status = finished;
  if (status && abort.load() != 0)
    status = error(Code::kSystem, "kernels of the ranks have waited for each other {}",
                   has_failed() ? "until one failed" : fmt::format("for {} s", kLimit.count()));
  for (size_t i = 0; i < words && status; ++i) {
    const int from = static_cast<int>(i / trial_->block);
    const size_t index = static_cast<size_t>(rank_) * trial_->block + i % trial_->block;
    if (trial_->out()[i] != word_of(from, rank_, index, by_lines))
      status = error(Code::kSystem, "what rank {} has sent did not come", from).with_peer(from);
  }
  return std::move(status).context(by_lines ? "by lines" : "by rings");
}

DeviceCalls::DeviceCalls(const cuda::Driver& driver, const cuda::PeerMemory& memory, int rank)
    : driver_(driver), context_(memory.context()), kernels_(memory.kernels()), rank_(rank) {}

DeviceCalls::~DeviceCalls() = default;

size_t DeviceCalls::device_bytes() const {
  return areas_->bytes() + (trial_ ? trial_->device.size() : 0);
}

size_t DeviceCalls::pinned_bytes() const {
  return memory_->pinned_bytes() + (trial_ ? trial_->pinned.size() : 0) +
         pinned_bytes_->load(std::memory_order_relaxed);
}

}  // namespace libcomm
