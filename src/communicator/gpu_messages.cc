#include "src/communicator/gpu_messages.h"

#include <algorithm>
#include <cstring>

#include "src/communicator/communicator.h"
#include "src/execute/board_layout.h"

namespace libcomm {
namespace {

// How long those that have come wait for others, to be copied by the same kernel.
constexpr std::chrono::microseconds kPatience{200};

}  // namespace

GpuMessages::GpuMessages(Communicator& communicator, cuda::PeerMemory& memory, const Stage& stage,
                         std::span<const cuda::ExportedMemory> cards)
    : communicator_(communicator),
      memory_(memory),
      messages_(communicator.messages()),
      cards_(cards.begin(), cards.end()),
      awaited_(static_cast<size_t>(communicator.nranks_)) {
  for (const StagedCopy& each : stage.by_host) std::memmove(each.to, each.from, each.bytes);
  std::vector<uint64_t>& sent = communicator.gpu_messages_sent_;
  sent.resize(awaited_.size());
  std::vector<MessageCall> calls;
  for (size_t i = 0; i < stage.operations.size(); ++i) {
    const Operation& operation = stage.operations[i];
    const auto peer = static_cast<size_t>(operation.root);
    MessageCall call{operation.root,  operation.is_send, operation.type,
                     operation.count, operation.in,      operation.out};
    if (operation.on_gpu) {
      call.src = call.dst = &cards_[i];
      call.card_bytes = sizeof cards_[i];
      if (operation.is_send)
        awaited_[peer] = ++sent[peer];
      else
        receives_.push_back({i, static_cast<std::byte*>(operation.out),
                             operation.count * size_of(operation.type), operation.root});
    }
    calls.push_back(call);
  }
  if (communicator_.shm_.board != nullptr) communicator_.shm_.board->drop_freed_segments();
  messages_.start(calls);
}

GpuMessages::~GpuMessages() { messages_.abandon(); }

size_t GpuMessages::count_come() const {
  return static_cast<size_t>(
      std::count_if(receives_.begin(), receives_.end(), [&](const Receive& each) {
        return each.state == Receive::State::kAwaited && messages_.has_come(each.call);
      }));
}

// All that are left, or what must have come and nothing more for a while.
bool GpuMessages::enough_has_come() {
  const auto left = static_cast<size_t>(
      std::count_if(receives_.begin(), receives_.end(),
                    [](const Receive& each) { return each.state == Receive::State::kAwaited; }));
  const size_t come = count_come();
  if (come == left) return true;
  if (come < needed_) return false;
  const auto now = Clock::now();
  if (some_since_ == Clock::time_point()) some_since_ = now;
  return now - some_since_ >= kPatience;
}

bool GpuMessages::all_are_copied() const {
  std::vector<int> peers;
  awaited_peers(&peers);
  return peers.empty();
}

Status GpuMessages::advance(Progress* progress) {
  *progress = Progress::kDone;
  if (!exchanged_) {
    COMM_TRY(messages_.advance(progress));
    exchanged_ = *progress == Progress::kDone;
  }
  const bool done = finishing_ ? exchanged_ && all_are_copied() : enough_has_come();
  if (done)
    *progress = Progress::kDone;
  else if (*progress == Progress::kDone)
    *progress = Progress::kStuck;
  return Status::ok();
}

void GpuMessages::awaited_peers(std::vector<int>* peers) const {
  if (!exchanged_) messages_.awaited_peers(peers);
  if (!finishing_) return;
  for (size_t peer = 0; peer < awaited_.size(); ++peer) {
    if (awaited_[peer] == 0) continue;
    const BoardControl& theirs =
        board_control(communicator_.shm_.board->part(static_cast<int>(peer)));
    const uint64_t copied =
        theirs.copied[static_cast<size_t>(communicator_.rank_)].load(std::memory_order_acquire);
    if (copied < awaited_[peer]) peers->push_back(static_cast<int>(peer));
  }
}

void GpuMessages::wait_handles(std::vector<WaitHandle>* handles) const {
  if (!exchanged_) messages_.wait_handles(handles);
}

Status GpuMessages::take(size_t rounds_left, cuda::CopyArguments* arguments) {
  arguments->segment_count = 0;
  const auto left = static_cast<size_t>(
      std::count_if(receives_.begin(), receives_.end(),
                    [](const Receive& each) { return each.state == Receive::State::kAwaited; }));
  const size_t later = (rounds_left - 1) * cuda::kMaxSegments;
  if (left == 0) return Status::ok();
  needed_ = rounds_left == 1 ? left : std::max<size_t>(1, left > later ? left - later : 0);
  some_since_ = {};
  COMM_TRY(communicator_.drive(*this));
  size_t count = 0;
  for (Receive& each : receives_) {
    if (count == cuda::kMaxSegments) break;
    if (each.state != Receive::State::kAwaited || !messages_.has_come(each.call)) continue;
    const cuda::ExportedMemory& card = cards_[each.call];
    auto from = memory_.import(each.peer, card);
    if (!from) return communicator_.fail(from.status());
    arguments->segments[count++] = {*from, each.to, each.bytes};
    each.state = Receive::State::kCopying;
  }
  // Others may have heard of a failure by now, and given their memory up.
  if (communicator_.failure_.failed()) return communicator_.failure_.reason();
  arguments->segment_count = static_cast<int>(count);
  return Status::ok();
}

Status GpuMessages::go_on() {
  Progress progress = Progress::kMoved;
  while (!exchanged_ && progress == Progress::kMoved) {
    if (Status status = messages_.advance(&progress); !status)
      return communicator_.fail(std::move(status));
    exchanged_ = progress == Progress::kDone;
  }
  return Status::ok();
}

void GpuMessages::copied() {
  Board& board = *communicator_.shm_.board;
  BoardControl& mine = board_control(board.part(communicator_.rank_));
  bool any = false;
  for (Receive& each : receives_) {
    if (each.state != Receive::State::kCopying) continue;
    each.state = Receive::State::kOver;
    mine.copied[static_cast<size_t>(each.peer)].fetch_add(1, std::memory_order_acq_rel);
    any = true;
  }
  if (any) board.wake_others(true);
}

Status GpuMessages::finish() {
  finishing_ = true;
  return communicator_.drive(*this);
}

}  // namespace libcomm
