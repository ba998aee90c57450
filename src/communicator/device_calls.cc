#include "src/communicator/device_calls.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>
#include <span>

#include "src/base/log.h"
#include "src/device/scopes.h"
#include "src/execute/staging.h"
#include "src/plan/chooser.h"
#include "src/plan/device_choice.h"
#include "src/schedule/builder.h"
#include "transports/facts.h"

namespace libcomm {
namespace {

// GPU memory of one rank's area: 60 MiB for eight ranks.
constexpr size_t kAreaBytes = size_t{7680} << 10;
// Blocks of a call, if the limits of the communicator allow it: more fill the links better, and
// leave less of the GPU to the program. Not measured.
constexpr int kLanes = 4;
// Bytes of the largest block per lane.
constexpr size_t kLaneBytes = size_t{64} << 10;
constexpr size_t kMostKnown = 1024;

// The values of COMM_GPU_EXECUTOR.
enum Choice { kAuto, kAlways, kNever };

bool has_several_in_a_process(std::span<const cuda::GpuRank> ranks) {
  for (size_t i = 0; i < ranks.size(); ++i)
    for (size_t k = 0; k < i; ++k)
      if (same_process(ranks[i].facts, ranks[k].facts)) return true;
  return false;
}

bool has_gpus_of_their_own(std::span<const cuda::GpuRank> ranks) {
  std::set<cuda::GpuUuid> gpus;
  for (const cuda::GpuRank& rank : ranks) gpus.insert(rank.gpu);
  return gpus.size() == ranks.size();
}

// Bytes of the larger buffer, where it is whole.
size_t bytes_of(const Operation& operation, int nranks) {
  const auto blocks = block_shape(operation.collective, nranks);
  return largest_block(operation) * size_of(operation.type) *
         static_cast<size_t>(std::max(blocks.in_blocks, blocks.out_blocks));
}

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ (hash >> 29);
}

// What is only moved may be at any address: as bytes.
Result<DataType> type_of_kernel(const Operation& operation, int rank, int nranks) {
  const size_t element = size_of(operation.type);
  const Reach reach = reach_of(operation, rank, nranks);
  const std::pair<const void*, size_t> used[] = {{operation.in, reach.in},
                                                 {operation.out, reach.out}};
  for (const auto& [buffer, bytes] : used) {
    if (bytes == 0 || reinterpret_cast<uintptr_t>(buffer) % element == 0) continue;
    if (!is_reducing(operation.collective)) return DataType::kUint8;
    return error(
        Code::kInvalidArgument,
        "the buffer at {} is not aligned to its elements of {} bytes, which a GPU needs to reduce "
        "them; align it",
        buffer, element);
  }
  return operation.type;
}

size_t program_bytes(size_t steps, size_t operands) {
  return (steps * sizeof(cuda::ExecuteStep) + 15) / 16 * 16 +
         operands * sizeof(cuda::ExecuteOperand);
}

// What all ranks do in a call, whenever they do it.
uint64_t hash_of(const Signature& signature) {
  uint64_t hash = mix(signature.count, signature.table_hash);
  hash = mix(hash, static_cast<uint32_t>(signature.root));
  hash = mix(hash, uint64_t{signature.collective} << 24 | uint64_t{signature.type} << 16 |
                       uint64_t{signature.redop} << 8 | signature.merged);
  return mix(hash, 0);
}

}  // namespace

DeviceCalls::Program::~Program() {
  if (pinned_bytes_) pinned_bytes_->fetch_sub(own_.size(), std::memory_order_relaxed);
}

bool DeviceCalls::Key::operator==(const Key& other) const {
  if (signature != other.signature || !tables != !other.tables) return false;
  return !tables || *tables == *other.tables;
}

size_t DeviceCalls::KeyHash::operator()(const Key& key) const {
  uint64_t hash = hash_of(key.signature);
  if (!key.tables) return hash;
  for (const BlockTable* table : {&key.tables->in, &key.tables->out}) {
    for (const size_t count : table->counts) hash = mix(hash, count);
    for (const size_t displ : table->displs) hash = mix(hash, displ);
  }
  return hash;
}

size_t DeviceCalls::most_block_bytes() const {
  return always_ ? DeviceProgram::kNoLimit
                 : kMostBytes / static_cast<size_t>(areas_->shape().nranks);
}

Result<std::shared_ptr<DeviceCalls>> DeviceCalls::agree(
    Bootstrap& bootstrap, const cuda::Driver& driver, cuda::PeerMemory& memory,
    std::span<const cuda::GpuRank> ranks, const Knobs& knobs, int min_lanes, int max_lanes,
    bool wanted, const std::function<bool()>& has_failed) {
  const auto choice = knobs.get_choice(Knob::kGpuExecutor);
  const bool with_threads = has_several_in_a_process(ranks);
  // A call may allocate, for which the driver may wait for the kernels of other threads' ranks: who
  // wants that must say so.
  if (choice == kNever || (choice == kAuto && (with_threads || !has_gpus_of_their_own(ranks))))
    return std::shared_ptr<DeviceCalls>();
  std::shared_ptr<DeviceCalls> calls(new DeviceCalls(driver, memory, bootstrap.rank()));
  calls->always_ = choice == kAlways;
  calls->with_threads_ = with_threads;
  COMM_TRY(calls->forced_.parse(knobs.get_string(Knob::kAlgo)));
  const int most = std::clamp(max_lanes, 1, cuda::kMostExecuteLanes);
  const int lanes = std::clamp(kLanes, std::clamp(min_lanes, 1, most), most);
  const cuda::AreaShape shape = area_shape(static_cast<int>(ranks.size()), lanes, kAreaBytes);
  COMM_ASSIGN(calls->areas_,
              cuda::SlotAreas::agree(bootstrap, driver, memory, ranks, shape, wanted));
  if (!calls->areas_) return std::shared_ptr<DeviceCalls>();

  // Whether all ranks have come so far.
  const auto agreed = [&](const Status& status) -> Result<bool> {
    if (!status)
      log_warn(
          "rank {}: collectives on GPU memory go without the executor: {} "
          "(COMM_GPU_EXECUTOR=NEVER goes without a trial of it)",
          bootstrap.rank(), status.to_string());
    std::vector<uint32_t> able(ranks.size());
    able[static_cast<size_t>(bootstrap.rank())] = status ? 1 : 0;
    COMM_TRY(bootstrap.all_gather(able.data(), sizeof(uint32_t)));
    return std::find(able.begin(), able.end(), 0u) == able.end();
  };
  COMM_ASSIGN(bool all, agreed(calls->prepare_trial()));
  for (const bool by_lines : {true, false}) {
    if (!all) break;
    static constexpr char kWrong[] = "its trial went wrong";
    const Status begun = calls->begin_trial(memory, by_lines);
    Result<bool> all_begun = agreed(Status(begun).context(kWrong));
    Status ended;
    // A kernel whose peers are missing would wait for them.
    if (begun) ended = calls->end_trial(memory, by_lines, all_begun && *all_begun, has_failed);
    // Its kernel may begin later, and then reads what it was given.
    if (memory.is_stuck()) (void)new std::shared_ptr<DeviceCalls>(calls);
    COMM_ASSIGN(all, std::move(all_begun));
    if (all) {
      COMM_ASSIGN(all, agreed(std::move(ended).context(kWrong)));
    }
  }
  if (!all) return std::shared_ptr<DeviceCalls>();
  log_info(Subsys::kInit,
           "rank {}: an executor on GPUs, {} lanes, {} bytes of GPU memory; for {} collectives",
           bootstrap.rank(), lanes, calls->device_bytes(), calls->always_ ? "all" : "small");
  return calls;
}

bool DeviceCalls::goes_so(const Operation& operation) const {
  switch (operation.collective) {
    case Collective::kSendRecv:
    case Collective::kBarrier:
      return false;
    case Collective::kAllToAllV:  // of which a rank knows its own blocks only
      return operation.on_gpu;
    default:
      break;
  }
  const size_t bytes = bytes_of(operation, areas_->shape().nranks);
  return operation.on_gpu && bytes > 0 && (always_ || bytes <= kMostBytes);
}

Result<std::shared_ptr<const DeviceCalls::Program>> DeviceCalls::find(const Operation& operation) {
  if (!goes_so(operation)) return std::shared_ptr<const Program>();
  COMM_TRY(type_of_kernel(operation, rank_, areas_->shape().nranks).status());
  Key key{signature_of(operation, 0), operation.tables};
  ++calls_;
  if (const auto known = programs_.find(key); known != programs_.end()) {
    known->second.used = calls_;
    return known->second.program;
  }
  if (programs_.size() >= kMostKnown) (void)forget_oldest(false);
  COMM_ASSIGN(auto made, make(operation));
  programs_.emplace(std::move(key), Known{made, calls_});
  return made;
}

bool DeviceCalls::forget_oldest(bool for_its_piece) {
  const auto may_go = [&](const Known& known) {
    return !for_its_piece ||
           (known.program && known.program->piece_ && known.program.use_count() == 1);
  };
  auto oldest = programs_.end();
  for (auto each = programs_.begin(); each != programs_.end(); ++each)
    if (may_go(each->second) &&
        (oldest == programs_.end() || each->second.used < oldest->second.used))
      oldest = each;
  if (oldest == programs_.end()) return false;
  programs_.erase(oldest);
  return true;
}

const DeviceNeeds& DeviceCalls::needs_of(const Algorithm& algorithm,
                                         const ScheduleRequest& request) {
  const NeedsKey key{request.collective, &algorithm, request.lanes, request.root};
  const auto [known, is_new] = needs_.try_emplace(key);
  if (is_new)
    for (int rank = 0; rank < request.nranks; ++rank)
      known->second.take_larger(DeviceNeeds::of(algorithm.build(request, rank)));
  return known->second;
}

Result<std::shared_ptr<const DeviceCalls::Program>> DeviceCalls::make(const Operation& operation) {
  const cuda::AreaShape& shape = areas_->shape();
  // What all ranks know of it.
  const bool known = operation.collective != Collective::kAllToAllV;
  const size_t block = known ? largest_block(operation) * size_of(operation.type) : 0;
  ScheduleRequest request;
  request.collective = operation.collective;
  request.nranks = shape.nranks;
  request.root = operation.root;
  request.lanes =
      static_cast<int>(std::clamp<size_t>(block / kLaneBytes, 1, static_cast<size_t>(shape.lanes)));
  const auto refuse = [&](std::string_view why) {
    log_info(Subsys::kTuning, "rank {}: {} of {} x {} is not for the executor on GPUs: {}", rank_,
             name_of(operation.collective), operation.count, name_of(operation.type), why);
    return std::shared_ptr<const Program>();
  };
  const Algorithm* algorithm =
      choose_for_gpus(request, block, forced_.forced(operation.collective));
  if (algorithm == nullptr) return refuse("no algorithm does it");
  const DeviceNeeds& needs = needs_of(*algorithm, request);
  // The same at all ranks, since `needs` is.
  if (with_threads_ && program_bytes(needs.steps, needs.operands) > memory_->piece_bytes())
    return refuse("its program is too long where ranks are threads");
  auto program = DeviceProgram::compile(algorithm->build(request, rank_), operation, needs, shape,
                                        true, known ? DeviceProgram::kNoLimit : most_block_bytes());
  if (!program) return refuse(program.status().to_string());
  log_info(Subsys::kTuning, "{} of {} x {}: {} (on GPUs), {} lanes, {} windows of {} bytes, by {}",
           name_of(operation.collective), operation.count, name_of(operation.type), algorithm->name,
           program->lanes, program->windows, program->window,
           program->by_lines ? "lines" : "rings");
  return finish(*std::move(program));
}

// Puts it where kernels find it.
Result<std::shared_ptr<const DeviceCalls::Program>> DeviceCalls::finish(DeviceProgram&& program) {
  std::shared_ptr<Program> made(new Program);
  made->operands_at_ = program_bytes(program.steps.size(), 0);
  made->operand_count_ = program.operands.size();
  const size_t bytes = program_bytes(program.steps.size(), program.operands.size());
  if (bytes <= memory_->piece_bytes()) {
    while (!(made->piece_ = memory_->take()) && forget_oldest(true)) continue;
  }
  if (!made->piece_) {
    const cuda::OutsideCapture outside(driver_);
    COMM_ASSIGN(made->own_, cuda::PinnedBuffer::take(driver_, context_, std::bit_ceil(bytes)));
    pinned_bytes_->fetch_add(made->own_.size(), std::memory_order_relaxed);
    made->pinned_bytes_ = pinned_bytes_;
  }
  std::ranges::copy(std::as_bytes(std::span(program.steps)), made->memory());
  std::ranges::copy(std::as_bytes(std::span(program.operands)),
                    made->memory() + made->operands_at_);
  program.steps.clear();
  program.operands.clear();
  made->program_ = std::move(program);
  return std::shared_ptr<const Program>(std::move(made));
}

Status DeviceCalls::launch(const Program& program, const Operation& operation, const void* scalar,
                           uint32_t number, DeviceWords* words, const uint32_t* abort, bool repeats,
                           cuda::CUstream stream) const {
  const DeviceProgram& what = program.program_;
  cuda::ExecuteArguments arguments;
  COMM_ASSIGN(arguments.type, type_of_kernel(operation, rank_, areas_->shape().nranks));
  arguments.op = operation.op;
  arguments.by_lines = what.by_lines;
  arguments.asks_first = repeats;
  arguments.premultiplies = operation.premultiply;
  arguments.scalar_at = scalar;
  std::memcpy(&arguments.scalar, operation.scalar.data(), size_of(operation.type));
  arguments.divisor = operation.average ? areas_->shape().nranks : 1;
  arguments.rank = rank_;
  arguments.lanes = what.lanes;
  arguments.windows = what.windows;
  arguments.window = what.window;
  arguments.announces = what.announces;
  arguments.most_bytes = what.most_bytes;
  arguments.call = hash_of(signature_of(operation, 0));
  arguments.shape = areas_->shape();
  arguments.in = operation.in;
  arguments.out = operation.out;
  std::copy(areas_->at().begin(), areas_->at().end(), arguments.areas);
  arguments.steps = reinterpret_cast<const cuda::ExecuteStep*>(program.memory());
  arguments.operands =
      reinterpret_cast<const cuda::ExecuteOperand*>(program.memory() + program.operands_at_);
  arguments.operand_count = static_cast<uint32_t>(program.operand_count_);
  std::copy(what.lane_begin.begin(), what.lane_begin.end(), arguments.lane_begin);
  arguments.number = number;
  arguments.begun = &words->begun;
  arguments.ended = &words->ended;
  arguments.abort = abort;
  arguments.awaits = words->awaits.data();
  arguments.mismatch = &words->mismatch;
  return kernels_->execute(arguments, stream);
}

}  // namespace libcomm
