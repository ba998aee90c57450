#include "tests/doubles/cuda/stream.h"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {

void start_thread(std::function<void()> body) {
  // Signals are for the program's own threads.
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread(std::move(body)).detach();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Stream::Stream(State& state, Context& context, Kind kind)
    : state_(state), context_(context), kind_(kind) {
  if (state.settings.channels <= 0) return;
  shares_channel_ = true;
  const size_t channels = static_cast<size_t>(state.settings.channels);
  channel_ = state.streams_made++ % channels;
  if (state.channels.size() < channels) state.channels.resize(channels);
}

Mark Stream::enqueue(Work work, std::vector<Mark> after) {
  if (kind_ == Kind::kLegacy) {
    for (const StreamRef& each : context_.streams) {
      if (each->kind_ == Kind::kBlocking && !each->idle()) after.push_back({each, each->queued_});
    }
  } else if (kind_ == Kind::kBlocking && !context_.legacy->idle()) {
    after.push_back({context_.legacy, context_.legacy->queued_});
  }
  Operation operation{std::move(work), std::move(after), 0};
  take_ticket(&operation);
  queue_.push_back(std::move(operation));
  changed_.notify_one();
  if (!started_) start();
  return {shared_from_this(), ++queued_};
}

std::vector<Mark> Stream::so_far() {
  std::vector<Mark> marks = {{shared_from_this(), queued_}};
  if (kind_ != Kind::kLegacy) return marks;
  for (const StreamRef& each : context_.streams) {
    if (each->kind_ == Kind::kBlocking) marks.push_back({each, each->queued_});
  }
  return marks;
}

void Stream::close() {
  closed_ = true;
  changed_.notify_one();
  if (started_) return;
  auto& all = context_.streams;
  all.erase(std::remove(all.begin(), all.end(), shared_from_this()), all.end());
}

void Stream::pause(bool paused) {
  paused_ = paused;
  changed_.notify_one();
}

void Stream::start() {
  started_ = true;
  state_.used = true;
  start_thread([self = shared_from_this()] { self->loop(); });
}

void Stream::loop() {
  name_thread("a stream");
  Lock lock(state_.mutex);
  for (;;) {
    changed_.wait(lock, [this] { return queue_.empty() ? closed_ : !paused_; });
    if (queue_.empty()) break;
    {
      Operation operation = std::move(queue_.front());
      queue_.pop_front();
      wait_for_turn(lock, operation);
      const int slow = state_.settings.slow_us;
      if (context_.sticky.load() == kSuccess) {
        lock.unlock();
        if (slow > 0) std::this_thread::sleep_for(std::chrono::microseconds(slow));
        if (operation.work.run) operation.work.run(context_);
        lock.lock();
      }
    }  // with the lock, what the operation held is given back
    ++done_;
    state_.progress.notify_all();
  }
  auto& all = context_.streams;
  all.erase(std::remove(all.begin(), all.end(), shared_from_this()), all.end());
}

void Stream::wait_for_turn(Lock& lock, const Operation& operation) {
  const auto failed = [this] { return context_.sticky.load() != kSuccess; };
  if (shares_channel_) {
    const auto& channel = state_.channels[channel_];
    state_.progress.wait(lock, [&] { return channel.issued == operation.ticket; });
  }
  state_.progress.wait(lock, [&] { return failed() || doubled::reached(operation.after); });
  // Another stream's operation wakes this; other processes and the program's own threads do not.
  std::chrono::microseconds pause(20);
  while (operation.work.ready && !failed() && !operation.work.ready()) {
    state_.progress.wait_for(lock, pause);
    pause = std::min(pause * 2, std::chrono::microseconds(500));
  }
  issued();
}

// In a hardware queue an operation begins after the one before it there has begun.
void Stream::take_ticket(Operation* operation) {
  if (shares_channel_) operation->ticket = state_.channels[channel_].taken++;
}

void Stream::issued() {
  if (!shares_channel_) return;
  ++state_.channels[channel_].issued;
  state_.progress.notify_all();
}

bool reached(const std::vector<Mark>& marks) {
  return std::all_of(marks.begin(), marks.end(),
                     [](const Mark& each) { return each.stream->reached(each.done); });
}

CUresult wait_for(State& state, Lock& lock, Context& context, const std::vector<Mark>& marks) {
  state.progress.wait(lock, [&] { return context.sticky.load() != kSuccess || reached(marks); });
  return context.sticky.load();
}

CUresult wait_for_all(State& state, Lock& lock, Context& context) {
  std::vector<Mark> marks;
  for (const StreamRef& each : context.streams) {
    for (Mark& mark : each->so_far()) marks.push_back(std::move(mark));
  }
  return wait_for(state, lock, context, marks);
}

namespace {

// The default streams of a thread, closed when it ends.
struct ThreadStreams {
  ~ThreadStreams() {
    if (streams.empty()) return;
    const std::lock_guard lock(state().mutex);
    for (const auto& [context, stream] : streams) stream->close();
    streams.clear();
  }
  std::map<const Context*, StreamRef> streams;
};
thread_local ThreadStreams t_streams;

}  // namespace

void forget_thread_streams() {
  static auto* kept = new std::map<const Context*, StreamRef>;
  kept->swap(t_streams.streams);
}

StreamRef stream_of(State& state, Context& context, CUstream handle) {
  if (handle == nullptr || handle == kLegacyStream) return context.legacy;
  if (handle == kPerThreadStream) {
    StreamRef& own = t_streams.streams[&context];
    if (own == nullptr) {
      own = std::make_shared<Stream>(state, context, Stream::Kind::kBlocking);
      context.streams.push_back(own);
    }
    return own;
  }
  const auto found = state.streams.find(handle);
  if (found != state.streams.end()) return found->second;
  (void)misuse(nullptr, kInvalidHandle, "%p is no live stream", handle);
  return nullptr;
}

}  // namespace libcomm::cuda::doubled
