#include "src/base/status.h"

#include <cstring>

namespace libcomm {

Status::Status(Code code, std::string message) {
  if (code == Code::kOk) return;
  auto detail = std::make_shared<Detail>();
  detail->code = code;
  detail->message = std::move(message);
  detail_ = std::move(detail);
}

const std::string& Status::message() const {
  static const std::string empty;
  return detail_ ? detail_->message : empty;
}

template <typename Change>
void Status::change(Change&& apply) {
  if (!detail_) return;
  auto copy = std::make_shared<Detail>(*detail_);
  apply(*copy);
  detail_ = std::move(copy);
}

Status&& Status::at_rank(int rank) && {
  if (this->rank() < 0) change([&](Detail& detail) { detail.rank = rank; });
  return std::move(*this);
}

Status&& Status::with_peer(int peer) && {
  if (this->peer() < 0) change([&](Detail& detail) { detail.peer = peer; });
  return std::move(*this);
}

Status&& Status::in_op(uint64_t op) && {
  if (this->op() == 0) change([&](Detail& detail) { detail.op = op; });
  return std::move(*this);
}

Status&& Status::context(std::string_view what) && {
  change([&](Detail& detail) { detail.message.insert(0, std::string(what) + ": "); });
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
