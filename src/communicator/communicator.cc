#include "src/communicator/communicator.h"

#include <algorithm>
#include <cstring>

#include "src/base/log.h"
#include "src/communicator/active_operation.h"
#include "src/communicator/batch.h"
#include "src/device/scopes.h"
#include "transports/facts.h"

namespace libcomm {
namespace {

// How long a broken connection waits for the monitor to say what really happened.
constexpr Seconds kNewsGrace{2};
// Looks before a quick call goes the way of all others: a few microseconds, or as many as ranks
// that share a core may spend before they let others have it.
constexpr int kQuickLooks = 400;
constexpr int kQuickLooksShared = 20;

Status left_early(int peer) {
  return error(Code::kRemote,
               "rank {} left (commDestroy) before it had done its part; a rank may leave when all "
               "operations that it has a part in are over",
               peer)
      .with_peer(peer);
}

}  // namespace

Communicator::~Communicator() {
  {
    const std::lock_guard lock(kernels_mutex_);
    kernels_of_ = nullptr;
  }
  if (gpu_queue_) {
    gpu_queue_->close();
    GpuQueue::leave(gpu_queue_);  // before others may end what is left of this
  }
  engine_.reset();
  gpu_windows_.clear();                         // before what is to end is ended
  if (gpu_queue_) gpu_queue_->abort_kernels();  // of graphs
  const bool met_on_gpus = peer_memory_ != nullptr;
  device_calls_.reset();
  peer_memory_.reset();
  if (met_on_gpus && !gpu_queue_) GpuQueue::end_unused(0);
  end_gpu_queue();
  channels_.reset();
  if (bootstrap_) bootstrap_->leave();
  rdma_.reset();
  tcp_.reset();
  shm_.transport.reset();
}

// ---- failures --------------------------------------------------------------------------------

void Communicator::on_news(News news, const Status& reason) {
  if (news == News::kRevoke) {
    revoked_.store(true, std::memory_order_release);
    failure_.set(reason);
    log_info(Subsys::kInit, "rank {}: revoked: {}", rank_, reason.to_string());
  } else if (failure_.set(reason)) {
    log_info(Subsys::kInit, "rank {}: failed: {}", rank_, reason.to_string());
  }
  // The engine would tell kernels too, unless the driver keeps it waiting, perhaps for them.
  const std::lock_guard lock(kernels_mutex_);
  if (kernels_of_ != nullptr) kernels_of_->abort_kernels();
}

Status Communicator::fail(Status status) {
  // A connection that breaks is often the echo of something that the monitor is about to hear.
  if (status.code() == Code::kRemote) {
    const auto has_left = [&] {
      return status.peer() >= 0 && bootstrap_ && bootstrap_->has_left(status.peer());
    };
    const Deadline deadline = Deadline::after(kNewsGrace);
    while (!failure_.failed() && !has_left() && !deadline.passed())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (has_left()) status = left_early(status.peer());
  }
  if (!failure_.failed()) {
    Status reason = std::move(status).at_rank(rank_).in_op(operations_);
    if (failure_.set(reason) && bootstrap_) bootstrap_->raise(News::kAbort, reason);
  }
  return failure_.reason();
}

Status Communicator::inquire() { return bootstrap_ ? bootstrap_->inquire() : Status::ok(); }

Status Communicator::check_mismatch() {
  Board* board = shm_.board;
  if (board != nullptr) {
    const std::span<const int> ranks = board->ranks();
    for (size_t i = 0; i < ranks.size(); ++i) {
      if (ranks[i] == rank_) continue;
      const auto theirs = board->published_as(static_cast<int>(i), current_.op);
      if (theirs && *theirs != current_) return mismatch(rank_, current_, 0, ranks[i], *theirs, 0);
    }
    COMM_TRY(check_passed_by(board_view_, current_));
  }
  if (!channels_) return Status::ok();
  for (const auto& [peer, port] : channels_->open_recv_ports()) {
    // A peer that has left in good order is no mismatch; who needs its bytes will hear of it.
    Segment segment;
    if (!port->channel->peek(&segment)) continue;
    if (segment.ready && segment.signature.op == current_.op && !(segment.signature == current_))
      return mismatch(rank_, current_, 0, peer, segment.signature, segment.bytes);
  }
  return Status::ok();
}

// Over sockets the end of the connection tells, after the last bytes. Memory holds them already
// when the goodbye is heard, so one more look at it, by the caller, is all that is needed.
Status Communicator::check_departures(Execution& execution) {
  const size_t departures = bootstrap_ ? bootstrap_->departures() : 0;
  if (departures != std::exchange(departures_seen_, departures) || departures == 0)
    return Status::ok();
  if (!execution.has_looked(departures)) return Status::ok();
  const std::vector<int>& group_of = shm_.group_of;
  std::vector<int> peers;
  execution.awaited_peers(&peers);
  const auto gone = std::find_if(peers.begin(), peers.end(), [&](int peer) {
    return group_of[static_cast<size_t>(peer)] == group_of[static_cast<size_t>(rank_)] &&
           bootstrap_->has_left(peer);
  });
  if (gone == peers.end()) return Status::ok();
  // It must have been among those counted above, of whom the caller has looked since: one that left
  // this very moment may have done its part just before.
  if (bootstrap_->departures() != departures) return Status::ok();
  return left_early(*gone);
}

Status Communicator::check_usable() const {
  if (finalized_.load(std::memory_order_acquire))
    return error(Code::kInvalidUsage,
                 "rank {}: the communicator was finalized; no operation may follow commFinalize",
                 rank_);
  if (failure_.failed()) return failure_.reason();
  return Status::ok();
}

Status Communicator::state() const {
  if (failure_.failed() && !revoked()) return failure_.reason();
  if (!options_.blocking && queued_.load(std::memory_order_acquire) > 0)
    return Status(Code::kInProgress, "operations are still running");
  return Status::ok();
}

// ---- operations ------------------------------------------------------------------------------

Status Communicator::reserve_scratch(size_t bytes) {
  const size_t before = scratch_.size();
  COMM_TRY(scratch_.reserve(bytes));
  if (scratch_.size() != before)
    log_info(Subsys::kAlloc, "rank {}: working memory of {} bytes", rank_, scratch_.size());
  scratch_size_.store(scratch_.size(), std::memory_order_relaxed);
  return Status::ok();
}

OperationLoans::To Communicator::lends_to() const {
  if (!rdma_) return {};
  return {lent_memory_.get(), rdma_.get(), lends_from_};
}

P2pBatch& Communicator::messages() {
  if (!messages_) messages_.emplace(rank_, nranks_, channels_.get());
  return *messages_;
}

WaitContext Communicator::wait_context() const {
  return {wait_policy_, const_cast<FailureState*>(&failure_), shm_.board, &crowding_};
}

Status Communicator::drive(Execution& execution) {
  const DrivenBatch one{this, &execution};
  return drive_all({&one, 1});
}

Status Communicator::run(const Operation& operation) {
  COMM_TRY(check_usable());
  if (has_graphs()) return run_on_engine({&operation, 1});
  if (has_engine_.load(std::memory_order_acquire)) engine_->drain();
  if (operation.collective == Collective::kSendRecv) {
    Batch work(*this, {&operation, 1});
    return drive(work);
  }
  ActiveOperation active;
  if (Status status = active.start(*this, operation); !status) return fail(std::move(status));
  COMM_TRY(drive(active));
  // Calls that are to be traced take the long way every time.
  const bool traced =
      log_wants(LogLevel::kTrace, Subsys::kColl) || log_wants(LogLevel::kTrace, Subsys::kCall);
  const OneshotCall* call = active.oneshot_call();
  if (call != nullptr && options_.blocking && !traced)
    quick_calls_.remember(operation, *call, rank_, nranks_);
  return Status::ok();
}

Status Communicator::run_quick(const QuickCall& quick, const void* in, void* out) {
  ++operations_;
  current_ = quick.call.signature;
  current_.op = operations_;
  Oneshot exchange(board_view_, quick.call, operations_, in, out);
  if (exchange.finish_within(quick_looks())) return Status::ok();
  return drive(exchange);
}

int Communicator::quick_looks() const {
  if (wait_policy_.mode == WaitMode::kBlock) return 1;  // whoever awaits the peer is to sleep
  return wait_policy_.share_cores ? kQuickLooksShared : kQuickLooks;
}

bool Communicator::is_quick(const void* buffer, size_t count, int type, int peer) {
  constexpr size_t kMostCount = size_t{1} << 48;  // no size overflows
  const bool is_right = static_cast<unsigned>(type) < kNumDataTypes && count <= kMostCount &&
                        static_cast<unsigned>(peer) < static_cast<unsigned>(nranks_) &&
                        peer != rank_ && (buffer != nullptr || count == 0);
  if (!is_right || !runs_in_caller()) return false;
  // Buffers that are large enough for RDMA to register them are lent for the time of a group.
  if (count * size_of(static_cast<DataType>(type)) >= lends_from_) return false;
  const bool traced =
      log_wants(LogLevel::kTrace, Subsys::kP2p) || log_wants(LogLevel::kTrace, Subsys::kCall);
  return !traced && is_host_memory(buffer);
}

Status Communicator::run_quick(std::span<const MessageCall> calls) {
  P2pBatch& batch = messages();
  struct Abandon {
    ~Abandon() { batch.abandon(); }
    P2pBatch& batch;
  } when_over{batch};
  if (shm_.board != nullptr) shm_.board->drop_freed_segments();
  bool done = false;
  if (Status status = batch.start_within(calls, quick_looks(), &done); !status)
    return fail(std::move(status));
  return done ? Status::ok() : drive(batch);
}

// One thread does everything, where the engine may get work of a graph at any time.
Status Communicator::run_on_engine(std::span<const Operation> operations) {
  COMM_TRY(submit({operations.begin(), operations.end()}, StreamTurns::take(HostStreams())));
  return drain();
}

Status Communicator::run(std::span<const Operation> operations) {
  if (has_graphs()) return run_on_engine(operations);
  COMM_TRY(drain());
  Batch work(*this, operations);
  return drive(work);
}

Status Communicator::drain() {
  if (has_engine_.load(std::memory_order_acquire)) engine_->drain();
  return check_usable();
}

Status Communicator::submit(std::vector<Operation> operations, std::shared_ptr<StreamTurns> turns) {
  COMM_TRY(check_usable());
  COMM_TRY(start_engine());
  queued_.fetch_add(1, std::memory_order_relaxed);
  engine_->submit([this, operations = std::move(operations), turns = std::move(turns)]() {
    turns->await([this] { return failure_.failed(); });
    turns->set_outcome(run_queued(operations));
    queued_.fetch_sub(1, std::memory_order_release);
  });
  return Status::ok();
}

Status Communicator::start_engine() {
  if (engine_) return Status::ok();
  COMM_ASSIGN(engine_, Engine::start());
  has_engine_.store(true, std::memory_order_release);
  return Status::ok();
}

// ---- GPUs ------------------------------------------------------------------------------------

Result<std::shared_ptr<GpuWork>> Communicator::prepare(std::span<const Operation> operations,
                                                       const GpuPlace& gpu,
                                                       std::vector<cuda::CUstream> streams,
                                                       bool alone) {
  COMM_TRY(check_usable());
  const cuda::Driver& driver = *cuda::Driver::found();
  if (!gpu_queue_) {
    const size_t slot =
        std::max(knobs_->get_size(Knob::kGpuStaging) / 2, least_slot_bytes(nranks_));
    const cuda::ContextScope scope(driver, gpu.context);
    COMM_TRY(scope.status());
    COMM_ASSIGN(gpu_queue_, GpuQueue::create(driver, gpu, slot));
    if (device_calls_) {
      gpu_queue_->keep(device_calls_);
      const std::lock_guard lock(kernels_mutex_);
      kernels_of_ = gpu_queue_.get();
    }
    gpu_.store(gpu.ordinal, std::memory_order_relaxed);
    gpu_pinned_bytes_.fetch_add(gpu_queue_->pinned_bytes(), std::memory_order_relaxed);
    log_info(Subsys::kAlloc, "rank {}: {} bytes of pinned memory for operations on GPU {}", rank_,
             gpu_queue_->pinned_bytes(), gpu.ordinal);
  } else if (gpu_queue_->gpu().context != gpu.context) {
    return error(
        Code::kInvalidArgument,
        "rank {}: this call is on GPU {}, earlier ones of the communicator were on GPU {}{}; "
        "a communicator stays with one GPU and one context",
        rank_, gpu.ordinal, gpu_queue_->gpu().ordinal,
        gpu.ordinal == gpu_queue_->gpu().ordinal ? " in another CUDA context" : "");
  }
  COMM_TRY(start_engine());
  return GpuWork::create(*this, *engine_, gpu_queue_, operations, std::move(streams), alone);
}

void Communicator::end_gpu_queue() {
  if (!gpu_queue_) return;
  // A stream may have its last look at it just now. One that is held up, or a graph, has it longer:
  // then it ends with a later call.
  const double patience = failure_.failed() || has_graphs() ? 0 : 1;
  const std::weak_ptr<GpuQueue> left = gpu_queue_;
  gpu_queue_.reset();
  const Deadline until = Deadline::after(Seconds(patience));
  while (!left.expired() && !until.passed())
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  GpuQueue::end_unused(patience);
}

int Communicator::ranks_in_process() const {
  if (facts_.empty()) return 1;
  const PeerFacts& mine = facts_[static_cast<size_t>(rank_)];
  return static_cast<int>(std::count_if(facts_.begin(), facts_.end(), [&](const PeerFacts& each) {
    return same_process(each, mine);
  }));
}

bool Communicator::look_for_host_memory(const void* address) {
  const cuda::Driver* driver = cuda::Driver::find();
  if (driver != nullptr)
    return cuda::place_of(*driver, address).kind == cuda::MemoryPlace::Kind::kHost;
  const size_t place = host_place(address);
  host_buffers_[place ^ 1] = std::exchange(host_buffers_[place], address);
  return true;
}

Status Communicator::run_queued(std::span<const Operation> operations) {
  if (failure_.failed()) return failure_.reason();
  try {
    Batch work(*this, operations);
    return drive(work);
  } catch (const std::exception& problem) {
    return fail(error(Code::kSystem, "a queued operation failed: {}", problem.what()));
  }
}

namespace {

// Why a wait took too long, and whose it was.
struct VainWait {
  const DrivenBatch* batch;
  Status status;
};

// Says which ranks were awaited, by the numbers of the communicator that awaited them.
VainWait name_awaited(std::span<const DrivenBatch> batches, Status status) {
  std::vector<int> peers;
  const DrivenBatch* batch = &batches.front();
  for (const DrivenBatch& candidate : batches) {
    candidate.execution->awaited_peers(&peers);
    if (peers.empty()) continue;
    batch = &candidate;
    break;
  }
  if (peers.empty()) return {batch, std::move(status)};
  std::sort(peers.begin(), peers.end());
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  constexpr size_t kMost = 8;
  std::string list;
  for (size_t i = 0; i < std::min(peers.size(), kMost); ++i)
    list += fmt::format("{}{}", i == 0 ? "" : ", ", peers[i]);
  if (peers.size() > kMost) list += ", ...";
  if (peers.size() == 1) status = std::move(status).with_peer(peers.front());
  return {batch, std::move(status).context(
                     fmt::format("waiting for {} {}", peers.size() == 1 ? "rank" : "ranks", list))};
}

// Any of the communicators may be the one that has lost a host, and the others wait for ranks that
// wait for it.
VainWait explain_wait(std::span<const DrivenBatch> batches, Status status) {
  VainWait wait = name_awaited(batches, std::move(status));
  std::vector<Communicator*> asked;
  for (const DrivenBatch& batch : batches) {
    if (std::find(asked.begin(), asked.end(), batch.communicator) != asked.end()) continue;
    asked.push_back(batch.communicator);
    if (Status found = batch.communicator->inquire(); !found) return {&batch, std::move(found)};
  }
  return wait;
}

}  // namespace

Status drive_all(std::span<const DrivenBatch> batches) {
  const auto give_up = [&](const DrivenBatch& culprit, Status status) {
    Status reason = culprit.communicator->fail(std::move(status));
    for (const DrivenBatch& other : batches) {
      if (other.communicator != culprit.communicator && other.execution != nullptr)
        (void)other.communicator->fail(error(Code::kInternal,
                                             "another communicator of the same group failed: {}",
                                             reason.to_string()));
    }
    return reason;
  };
  std::vector<DrivenBatch> many;  // what is left, when there are several
  std::span<const DrivenBatch> left = batches;
  Waiter waiter(batches.front().communicator->wait_context());
  for (;;) {
    bool moved = false;
    bool all_done = true;
    bool some_done = false;
    for (const DrivenBatch& batch : left) {
      Progress progress = Progress::kStuck;
      if (Status status = batch.execution->advance(&progress); !status)
        return give_up(batch, std::move(status));
      if (progress == Progress::kDone) {
        some_done = true;
        if (left.size() > 1) {
          if (many.empty()) many.assign(left.begin(), left.end());
          for (DrivenBatch& candidate : many)
            if (candidate.execution == batch.execution) candidate.execution = nullptr;
        }
      } else {
        all_done = false;
        moved = moved || progress == Progress::kMoved;
      }
    }
    if (all_done) return Status::ok();
    if (some_done) {
      std::erase_if(many, [](const DrivenBatch& batch) { return batch.execution == nullptr; });
      left = many;
    }
    if (moved || some_done) {
      waiter.moved();
      continue;
    }
    for (const DrivenBatch& batch : left) {
      if (batch.communicator->wait_context().failure->failed())
        return give_up(batch, batch.communicator->wait_context().failure->reason());
    }
    if (Status status = waiter.idle(*left.front().execution); !status) {
      if (left.front().communicator->wait_context().failure->failed())
        return give_up(left.front(), std::move(status));
      VainWait wait = explain_wait(left, std::move(status));
      return give_up(*wait.batch, std::move(wait.status));
    }
    if (waiter.is_slow()) {
      for (const DrivenBatch& batch : left) {
        Status status = batch.communicator->check_mismatch();
        if (status) status = batch.communicator->check_departures(*batch.execution);
        if (!status) return give_up(batch, std::move(status));
      }
    }
  }
}

// ---- ending ----------------------------------------------------------------------------------

Status Communicator::finalize() {
  if (options_.blocking && has_engine_.load(std::memory_order_acquire)) engine_->drain();
  if (finalized_.exchange(true, std::memory_order_acq_rel))
    return error(Code::kInvalidUsage, "rank {}: commFinalize was called twice", rank_);
  return state();
}

void Communicator::abort(const std::string& why) {
  const Status reason = error(Code::kRemote, "rank {} {}", rank_, why).with_peer(rank_);
  if (failure_.set(reason) && bootstrap_) bootstrap_->raise(News::kAbort, reason);
}

Status Communicator::revoke() {
  const Status reason =
      error(Code::kInvalidUsage,
            "the communicator was revoked by rank {} (commRevoke); shrink, split or destroy it",
            rank_)
          .with_peer(rank_);
  if (revoked()) return Status::ok();
  if (bootstrap_) {
    bootstrap_->raise(News::kRevoke, reason);
  }
  on_news(News::kRevoke, reason);
  if (has_engine_.load(std::memory_order_acquire)) engine_->drain();
  return Status::ok();
}

// ---- operators and statistics ----------------------------------------------------------------

Result<int> Communicator::create_op(DataType type, const void* scalar, bool now) {
  auto it = std::find_if(ops_.begin(), ops_.end(), [](const PreMulOp& op) { return !op.live; });
  if (it == ops_.end()) it = ops_.emplace(ops_.end());
  it->live = true;
  it->type = type;
  it->deferred = now ? nullptr : scalar;
  if (now) std::memcpy(it->scalar.data(), scalar, size_of(type));
  return static_cast<int>(it - ops_.begin());
}

const PreMulOp* Communicator::find_op(int index) const {
  if (index < 0 || index >= static_cast<int>(ops_.size())) return nullptr;
  const PreMulOp& op = ops_[static_cast<size_t>(index)];
  return op.live ? &op : nullptr;
}

Status Communicator::destroy_op(int index) {
  if (find_op(index) == nullptr)
    return error(
        Code::kInvalidArgument,
        "the operator was not made by commRedOpCreatePreMulSum on this communicator, or was "
        "destroyed before");
  ops_[static_cast<size_t>(index)].live = false;
  return Status::ok();
}

Result<uint64_t> Communicator::agree_on_window(void* base, size_t size, SetupTurn turn) {
  std::vector<uint64_t> sizes(static_cast<size_t>(nranks_));
  sizes[static_cast<size_t>(rank_)] = size;
  uint64_t number = 0;
  const auto is_same = [size](uint64_t each) { return each == size; };
  const auto exchange = [&]() -> Status {
    const Status turned = turn->await(&revoked_);
    COMM_TRY(check_usable());
    COMM_TRY(turned);
    if (nranks_ == 1) return Status::ok();
    COMM_TRY(bootstrap_->all_gather(sizes.data(), sizeof(uint64_t), nullptr, SetupCall::kWindow));
    if (!peer_memory_ || !std::all_of(sizes.begin(), sizes.end(), is_same)) return Status::ok();
    COMM_ASSIGN(number, share_window(base, size));
    return Status::ok();
  };
  const Status exchanged = exchange();
  turn->over();
  COMM_TRY(exchanged);
  for (int r = 0; r < nranks_; ++r)
    if (!is_same(sizes[static_cast<size_t>(r)]))
      return error(Code::kInvalidUsage,
                   "commWindowRegister: rank {} registers {} bytes, rank {} {} bytes; a window has "
                   "the "
                   "same size on all ranks",
                   rank_, size, r, sizes[static_cast<size_t>(r)])
          .with_peer(r);
  return number;
}

// Tells the other ranks where this one's window is, and maps theirs.
Result<uint64_t> Communicator::share_window(void* base, size_t size) {
  const cuda::Driver& driver = *cuda::Driver::found();
  const cuda::ContextScope scope(driver, peer_memory_->context());
  const cuda::OutsideCapture outside(driver);
  // Wire struct.
  struct Place {
    uint64_t reachable = 0;
    cuda::ExportedMemory memory;
  };
  const auto n = static_cast<size_t>(nranks_);
  const auto mine = static_cast<size_t>(rank_);
  std::vector<Place> places(n);
  const bool usable = scope.status().is_ok();
  if (usable && peer_memory_->describe(base, size, &places[mine].memory))
    places[mine].reachable = 1;
  COMM_TRY(bootstrap_->all_gather(places.data(), sizeof(Place), nullptr, SetupCall::kWindow));
  auto window = std::make_shared<GpuWindow>();
  window->mine = static_cast<std::byte*>(base);
  window->bytes = size;
  window->keep.resize(n);
  bool mapped = usable;
  for (size_t peer = 0; peer < n; ++peer) {
    if (places[peer].reachable == 0) return uint64_t{0};
    window->there.push_back(places[peer].memory);
    window->here.push_back(window->mine);
    if (peer == mine || !mapped) continue;
    const auto here =
        peer_memory_->import(static_cast<int>(peer), places[peer].memory, &window->keep[peer]);
    if (here)
      window->here[peer] = *here;
    else
      log_info(Subsys::kInit, "rank {}: a window is not mapped: {}", rank_,
               here.status().to_string());
    mapped = here.is_ok();
  }
  std::vector<uint32_t> all_mapped(n);
  all_mapped[mine] = mapped ? 1 : 0;
  COMM_TRY(
      bootstrap_->all_gather(all_mapped.data(), sizeof(uint32_t), nullptr, SetupCall::kWindow));
  if (std::count(all_mapped.begin(), all_mapped.end(), 0) > 0) return uint64_t{0};
  return gpu_windows_.add(std::move(window));
}

MemoryStats Communicator::stats() const {
  MemoryStats result;
  result.host_bytes = scratch_size_.load(std::memory_order_relaxed);
  result.pinned_bytes = gpu_pinned_bytes_.load(std::memory_order_relaxed) +
                        (device_calls_ ? device_calls_->pinned_bytes() : 0);
  result.channels = channels_ ? channels_->count() : 0;
  for (const Transport* transport : {shm_.transport.get(), rdma_.get(), tcp_.get()}) {
    if (transport == nullptr) continue;
    const TransportStats part = transport->stats();
    result.host_bytes += part.host_bytes;
    result.sockets += part.sockets;
    result.threads += part.threads;
  }
  if (bootstrap_) {
    result.sockets += bootstrap_->sockets();
    result.threads += bootstrap_->threads();
  }
  if (has_engine_.load(std::memory_order_acquire)) ++result.threads;
  if (reduce_pool_) result.threads += reduce_pool_->threads();
  return result;
}

}  // namespace libcomm
