#include "src/base/status.h"

#include <cstring>

namespace libcomm {

Status::Status(Code code, std::string message) {
  if (code == Code::kOk) return;
  detail_ = std::make_shared<Detail>();
  detail_->code = code;
  detail_->message = std::move(message);
}

const std::string& Status::message() const {
  static const std::string empty;
  return detail_ ? detail_->message : empty;
}

Status::Detail& Status::own() {
  if (detail_.use_count() > 1) detail_ = std::make_shared<Detail>(*detail_);
  return *detail_;
}

Status&& Status::at_rank(int rank) && {
  if (detail_ && detail_->rank < 0) own().rank = rank;
  return std::move(*this);
}

Status&& Status::with_peer(int peer) && {
  if (detail_ && detail_->peer < 0) own().peer = peer;
  return std::move(*this);
}

Status&& Status::in_op(uint64_t op) && {
  if (detail_ && detail_->op == 0) own().op = op;
  return std::move(*this);
}

Status&& Status::context(std::string_view what) && {
  if (detail_) own().message.insert(0, std::string(what) + ": ");
  return std::move(*this);
}

std::string Status::to_string() const {
  if (!detail_) return "success";
  std::string text;
  if (detail_->rank >= 0) text += fmt::format("rank {}: ", detail_->rank);
  if (detail_->op != 0) text += fmt::format("operation {}: ", detail_->op);
  if (detail_->peer >= 0) text += fmt::format("peer {}: ", detail_->peer);
  return text + detail_->message;
}

Status system_error(int err, std::string what) {
  char buffer[128];
  return Status(Code::kSystem, std::move(what) + ": " + strerror_r(err, buffer, sizeof buffer));
}

}  // namespace libcomm
