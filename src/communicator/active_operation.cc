#include "src/communicator/active_operation.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "src/base/log.h"
#include "src/communicator/communicator.h"
#include "src/execute/staging.h"

namespace libcomm {
namespace {

bool is_empty(const Operation& operation) {
  if (operation.collective == Collective::kBarrier) return false;
  const auto total = [](const BlockTable& table) {
    return std::accumulate(table.counts.begin(), table.counts.end(), size_t{0});
  };
  return operation.count + total(operation.in_table()) + total(operation.out_table()) == 0;
}

}  // namespace

// The input multiplied by the operator's scalar, in memory of our own.
Status ActiveOperation::scale_input(const Operation& operation, int nranks) {
  size_t count = operation.count;
  if (operation.collective == Collective::kReduceScatter) count *= static_cast<size_t>(nranks);
  const BlockTable& table = operation.in_table();
  if (!table.empty()) {
    count = 0;  // up to the end of the last block
    for (size_t i = 0; i < table.counts.size(); ++i)
      if (table.counts[i] > 0) count = std::max(count, table.displs[i] + table.counts[i]);
  }
  COMM_TRY(scaled_.reserve(count * size_of(operation.type)));
  scale_elements(scaled_.data(), operation.in, count, operation.type, operation.scalar.data());
  own_ = operation;
  own_.in = scaled_.data();
  operation_ = &own_;
  return Status::ok();
}

Status ActiveOperation::start(Communicator& communicator, const Operation& operation) {
  operation_ = &operation;
  ++communicator.operations_;
  const bool empty = is_empty(operation);
  if (operation.premultiply && !empty) COMM_TRY(scale_input(operation, communicator.nranks_));
  if (communicator.nranks_ == 1) {
    if (empty) return Status::ok();
    const StagedCopy copy = lone_copy(*operation_);
    if (copy.to != copy.from) std::memcpy(copy.to, copy.from, copy.bytes);
    return Status::ok();
  }
  if (operation.collective == Collective::kBarrier) {
    own_ = operation;
    own_.type = DataType::kUint8;
    own_.op = ReduceOp::kMax;
    own_.count = 1;
    own_.in = &barrier_in_;
    own_.out = &barrier_out_;
    operation_ = &own_;
  }
  COMM_ASSIGN(plan_, communicator.planner_->plan(*operation_));
  const Signature signature = signature_of(*operation_, communicator.operations_);
  communicator.current_ = signature;
  Board* board = communicator.shm_.board;
  if (board != nullptr) board->drop_freed_segments();
  // Where nothing moves, the others are met all the same: they may be in another call. Exchanges
  // that go window by window have none here.
  Route route = plan_->route;
  if (route == Route::kOneshot && plan_->in_place &&
      communicator.board_state_.reachable.contains(plan_->oneshot.kind))
    route = *plan_->in_place;
  if (empty && (route == Route::kReduction || route == Route::kCopy)) route = Route::kOneshot;
  // Describing it costs more than a small operation.
  if (log_wants(LogLevel::kTrace, Subsys::kColl))
    log_trace(Subsys::kColl, "rank {}: operation {}: {} by {} ({})", communicator.rank_,
              signature.op, describe(signature), plan_->algorithm, name_of(route));
  board_state_ = &communicator.board_state_;
  if (communicator.board_state_.unverified && route != Route::kOneshot)
    unverified_ = &communicator.board_view_;
  const BoardArgs on_board{board,
                           &communicator.board_state_,
                           operation_,
                           signature,
                           plan_->kernel,
                           communicator.reduce_pool_.get(),
                           communicator.wait_policy_.share_cores};
  switch (route) {
    case Route::kLocal:
      break;
    case Route::kOneshot:
      if (route != plan_->route) {
        own_ = operation;
        operation_ = &own_;
        own_call_ = OneshotCall::of(own_, plan_->kernel, communicator.rank_, communicator.nranks_);
      }
      running_ = &oneshot_.emplace(communicator.board_view_,
                                   route == plan_->route ? plan_->oneshot : own_call_,
                                   communicator.operations_, operation_->in, operation_->out);
      break;
    case Route::kReduction:
      running_ = &windowed_reduction_.emplace(on_board, plan_->window);
      break;
    case Route::kCopy:
      running_ = &windowed_copy_.emplace(on_board, plan_->window);
      break;
    case Route::kSchedule: {
      if (board != nullptr) board->publish(signature);
      COMM_TRY(communicator.reserve_scratch(plan_->scratch_bytes));
      loans_.lend(communicator.lends_to(), plan_->schedule, *operation_);
      InterpreterArgs args;
      args.schedule = &plan_->schedule;
      args.operation = operation_;
      args.layout = plan_->layout.get();
      args.signature = signature;
      args.kernel = plan_->kernel;
      args.pool = communicator.reduce_pool_.get();
      args.ports = communicator.channels_.get();
      args.segment_bytes = plan_->segment_bytes;
      args.slices = plan_->slices;
      args.scratch = communicator.scratch_.data();
      running_ = &interpreter_.emplace(args);
      break;
    }
  }
  return Status::ok();
}

Status ActiveOperation::advance(Progress* progress) {
  if (running_ == nullptr) {
    *progress = Progress::kDone;
    return Status::ok();
  }
  if (unverified_ != nullptr) {
    COMM_TRY(check_oneshots(*unverified_, progress, &unverified_peer_));
    if (*progress == Progress::kStuck) return Status::ok();
    unverified_ = nullptr;
  }
  COMM_TRY(running_->advance(progress));
  if (*progress == Progress::kDone) note_reach();
  return Status::ok();
}

// Of a one-shot that went by windows: may the next one like it? A one-shot notes it itself.
void ActiveOperation::note_reach() {
  if (plan_->route != Route::kOneshot || oneshot_) return;
  board_state_->reachable.note(plan_->oneshot.kind, windowed_reduction_
                                                        ? windowed_reduction_->was_in_place()
                                                        : windowed_copy_->was_in_place());
}

void ActiveOperation::awaited_peers(std::vector<int>* peers) const {
  if (unverified_ != nullptr) {
    if (unverified_peer_ >= 0) peers->push_back(unverified_peer_);
  } else if (running_ != nullptr) {
    running_->awaited_peers(peers);
  }
}

void ActiveOperation::wait_handles(std::vector<WaitHandle>* handles) const {
  if (running_ != nullptr) running_->wait_handles(handles);
}

}  // namespace libcomm
