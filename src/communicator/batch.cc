#include "src/communicator/batch.h"

#include "src/communicator/communicator.h"

namespace libcomm {

Batch::Batch(Communicator& communicator, std::span<const Operation> operations)
    : communicator_(communicator), operations_(operations), next_(collective_from(0)) {
  for (const Operation& operation : operations)
    has_messages_ = has_messages_ || operation.collective == Collective::kSendRecv;
}

Batch::~Batch() {
  if (messages_ != nullptr) messages_->abandon();
}

size_t Batch::collective_from(size_t index) const {
  while (index < operations_.size() && operations_[index].collective == Collective::kSendRecv)
    ++index;
  return index;
}

Status Batch::advance_collectives(Progress* progress) {
  if (!active_) {
    MergedCalls& merged = communicator_.merged_calls_;
    COMM_ASSIGN(spanned_,
                merged.pack(operations_, next_, communicator_.rank_, *communicator_.planner_));
    merged_ = spanned_ > 0;
    if (!merged_) spanned_ = 1;
    active_.emplace();
    COMM_TRY(active_->start(communicator_, merged_ ? merged.together() : operations_[next_]));
  }
  COMM_TRY(active_->advance(progress));
  if (*progress != Progress::kDone) return Status::ok();
  active_.reset();
  if (merged_) communicator_.merged_calls_.unpack();
  next_ = collective_from(next_ + spanned_);
  const bool over = next_ == operations_.size() && !has_messages_;
  *progress = over ? Progress::kDone : Progress::kMoved;
  return Status::ok();
}

Status Batch::advance(Progress* progress) {
  if (next_ < operations_.size()) return advance_collectives(progress);
  if (!has_messages_) {
    *progress = Progress::kDone;
    return Status::ok();
  }
  if (messages_ == nullptr) {
    messages_ = &communicator_.messages();
    if (communicator_.shm_.board != nullptr) communicator_.shm_.board->drop_freed_segments();
    loans_.lend(communicator_.lends_to(), operations_, communicator_.rank_);
    messages_->start(operations_);
  }
  return messages_->advance(progress);
}

void Batch::awaited_peers(std::vector<int>* peers) const {
  if (active_) active_->awaited_peers(peers);
  if (messages_ != nullptr) messages_->awaited_peers(peers);
}

void Batch::wait_handles(std::vector<WaitHandle>* handles) const {
  if (active_) active_->wait_handles(handles);
  if (messages_ != nullptr) messages_->wait_handles(handles);
}

}  // namespace libcomm
