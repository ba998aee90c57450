#include "src/communicator/host_stream.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "src/base/fork_mutex.h"

namespace libcomm {
namespace {

constexpr std::chrono::milliseconds kLookAround{5};

ForkMutex g_taking;

}  // namespace

Status HostStream::query() const {
  std::lock_guard lock(mutex_);
  if (!pending_.empty())
    return Status(Code::kInProgress, "operations of the stream are still running");
  return first_failure_;
}

Status HostStream::synchronize() {
  std::unique_lock lock(mutex_);
  const uint64_t until = issued_;
  changed_.wait(lock, [&] { return all_done_before(until); });
  return first_failure_;
}

std::vector<std::shared_ptr<StreamTurns>> StreamTurns::take(std::vector<HostStreams> works) {
  std::vector<std::shared_ptr<StreamTurns>> all;
  for (HostStreams& streams : works) {
    all.push_back(std::shared_ptr<StreamTurns>(new StreamTurns(std::move(streams))));
    all.back()->tickets_.reserve(all.back()->streams_.size());
  }
  std::map<HostStream*, uint64_t> tickets;
  std::lock_guard together(g_taking);
  for (const auto& turns : all) {
    for (const auto& stream : turns->streams_) {
      std::lock_guard lock(stream->mutex_);
      const auto [at, fresh] = tickets.emplace(stream.get(), stream->issued_);
      stream->issued_ += fresh ? 1 : 0;
      stream->pending_.insert(at->second);
      turns->tickets_.push_back(at->second);
    }
  }
  return all;
}

std::shared_ptr<StreamTurns> StreamTurns::take(HostStreams streams) {
  std::vector<HostStreams> works;
  works.push_back(std::move(streams));
  return take(std::move(works)).front();
}

StreamTurns::~StreamTurns() {
  for (size_t i = 0; i < tickets_.size(); ++i) {
    HostStream& stream = *streams_[i];
    std::lock_guard lock(stream.mutex_);
    stream.pending_.erase(stream.pending_.find(tickets_[i]));
    if (!outcome_ && stream.first_failure_.is_ok()) stream.first_failure_ = outcome_;
    stream.changed_.notify_all();
  }
}

void StreamTurns::await(const std::function<bool()>& is_over) const {
  for (size_t i = 0; i < tickets_.size(); ++i) {
    HostStream& stream = *streams_[i];
    std::unique_lock lock(stream.mutex_);
    while (!stream.all_done_before(tickets_[i]) && !is_over())
      stream.changed_.wait_for(lock, kLookAround);
  }
}

}  // namespace libcomm
