#include "src/communicator/batch.h"

#include "src/base/log.h"
#include "src/communicator/communicator.h"

namespace libcomm {

Batch::Batch(Communicator& communicator, std::vector<Operation> operations)
    : communicator_(communicator) {
  for (Operation& operation : operations) {
    auto& list = operation.collective == Collective::kSendRecv ? messages_ : collectives_;
    list.push_back(std::move(operation));
  }
}

Status Batch::advance_collectives(Progress* progress) {
  if (!active_) {
    active_.emplace();
    COMM_TRY(active_->start(communicator_, collectives_[next_]));
  }
  COMM_TRY(active_->advance(progress));
  if (*progress == Progress::kDone) {
    active_.reset();
    ++next_;
    *progress = Progress::kMoved;
  }
  return Status::ok();
}

void Batch::start_messages() {
  p2p_.emplace(communicator_.rank_, communicator_.channels_.get(),
               communicator_.planner_->shape().segment_bytes);
  for (Operation& operation : messages_) {
    P2pMessage message;
    message.signature =
        signature_of(operation, communicator_.next_p2p_number(operation.root, operation.is_send));
    if (log_wants(LogLevel::kTrace, Subsys::kP2p))
      log_trace(Subsys::kP2p, "rank {}: message {} {} rank {}: {}", communicator_.rank_,
                message.signature.op, operation.is_send ? "to" : "from", operation.root,
                describe(message.signature));
    message.operation = std::move(operation);
    p2p_->add(std::move(message));
  }
  p2p_->settle_self();
}

Status Batch::advance(Progress* progress) {
  if (next_ < collectives_.size()) {
    COMM_TRY(advance_collectives(progress));
    if (next_ < collectives_.size() || !messages_.empty()) return Status::ok();
    if (*progress == Progress::kMoved && !active_) *progress = Progress::kDone;
    return Status::ok();
  }
  if (messages_.empty()) {
    *progress = Progress::kDone;
    return Status::ok();
  }
  if (!p2p_) start_messages();
  return p2p_->advance(progress);
}

void Batch::awaited_peers(std::vector<int>* peers) const {
  if (active_) active_->awaited_peers(peers);
  if (p2p_) p2p_->awaited_peers(peers);
}

void Batch::wait_handles(std::vector<WaitHandle>* handles) const {
  if (active_) active_->wait_handles(handles);
  if (p2p_) p2p_->wait_handles(handles);
}

}  // namespace libcomm
