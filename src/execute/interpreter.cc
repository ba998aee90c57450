#include "src/execute/interpreter.h"

#include <algorithm>
#include <cstring>

namespace libcomm {
namespace {

// A message that is being sent while its lane goes on.
struct Pending {
  SendPort* port;
  int peer;
  const std::byte* src;
  size_t bytes;
  size_t issued = 0;       // bytes given to the channel
  bool signal = false;     // one empty segment
  bool given = false;      // all of it was given to the channel
  uint64_t finish_at = 0;  // port->completed at which the memory is free
};

// Do chunks of no bytes travel too, as signed empty segments? Otherwise both ends leave them out,
// which they can where they see the same table or count: not in an all-to-all whose ends have
// tables of their own, and not when there is no chunk with bytes that could show a mismatch.
bool announces_empty_chunks(const Operation& operation) {
  const auto is_empty = [](const BlockTable& table) {
    return std::all_of(table.counts.begin(), table.counts.end(), [](size_t n) { return n == 0; });
  };
  return operation.collective == Collective::kAllToAllV ||
         (operation.count == 0 && is_empty(operation.in_table()) &&
          is_empty(operation.out_table()));
}

bool overlap(const std::byte* a, size_t a_bytes, const std::byte* b, size_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

}  // namespace

class Interpreter::LaneRun {
 public:
  LaneRun(const InterpreterArgs& args, const Lane& lane, int index)
      : args_(args),
        lane_(lane),
        index_(index),
        announces_(announces_empty_chunks(*args.operation)) {}

  // An operation that failed leaves its memory to the caller.
  ~LaneRun() {
    if (ready_ && in_ != nullptr) in_->channel->withdraw();
    for (const Pending& message : pending_) message.port->channel->withdraw();
  }
  LaneRun(const LaneRun&) = delete;
  LaneRun& operator=(const LaneRun&) = delete;

  bool finished() const { return slice_ == args_.slices && pending_.empty(); }

  Status advance(bool* moved) {
    for (;;) {
      COMM_TRY(flush(moved));
      if (slice_ == args_.slices) return Status::ok();
      if (!ready_) {
        if (!fetch()) {  // the slice has no more steps
          // Scratch belongs to one slice at a time.
          if (args_.schedule->scratch_banks > 0 && !pending_.empty()) return Status::ok();
          ++slice_;
          pc_ = 0;
          *moved = true;
          continue;
        }
        COMM_TRY(prepare());
      }
      bool done = false;
      COMM_TRY(run(&done, moved));
      if (!done) return Status::ok();
      *moved = true;
      ready_ = false;
      next();
    }
  }

  void awaited_peers(std::vector<int>* peers) const {
    for (const Pending& message : pending_) peers->push_back(message.peer);
    if (!ready_ || in_ == nullptr) return;
    // A channel in the middle of a receive_into() has nothing to show.
    Segment segment;
    if (!in_->channel->peek(&segment) || !segment.ready)
      peers->push_back(step_.peer);
    else if (out_ != nullptr)
      peers->push_back(step_.peer2);
  }

  void wait_handles(std::vector<WaitHandle>* handles) const {
    if (ready_ && in_ != nullptr) handles->push_back(in_->channel->wait_handle());
    if (ready_ && out_ != nullptr) handles->push_back(out_->channel->wait_handle());
    for (const Pending& message : pending_)
      handles->push_back(message.port->channel->wait_handle());
  }

 private:
  // ---- walking the schedule ----

  // The step at pc_, with repeats entered; false at the end of the slice.
  bool fetch() {
    const std::vector<Step>& steps = lane_.steps;
    while (pc_ < steps.size() && steps[pc_].kind == StepKind::kRepeat) {
      const Step& repeat = steps[pc_];
      if (repeat.times <= 0) {
        pc_ += static_cast<size_t>(repeat.body) + 1;
        continue;
      }
      times_ = repeat.times;
      round_ = 0;
      body_begin_ = pc_ + 1;
      body_end_ = body_begin_ + static_cast<size_t>(repeat.body);
      ++pc_;
    }
    return pc_ < steps.size();
  }

  void next() {
    ++pc_;
    if (times_ == 0 || pc_ != body_end_) return;
    if (++round_ < times_) {
      pc_ = body_begin_;
    } else {
      times_ = 0;
      round_ = 0;
    }
  }

  std::byte* address(const Ref& ref, size_t* bytes) {
    if (ref.space == Space::kNone) return nullptr;
    const Extent extent = args_.layout->locate(ref.space, ref.chunk, step_.count, slice_);
    *bytes = extent.bytes;
    if (extent.bytes == 0) return nullptr;
    std::byte* base = nullptr;
    switch (ref.space) {
      case Space::kIn:
        base = static_cast<std::byte*>(const_cast<void*>(args_.operation->in));
        break;
      case Space::kOut:
        base = static_cast<std::byte*>(args_.operation->out);
        break;
      default:
        return args_.scratch +
               (args_.layout->bank_offset(ref.bank) + static_cast<ptrdiff_t>(extent.offset));
    }
    return base + extent.offset;
  }

  Status prepare() {
    step_ = expand(*args_.schedule, lane_.steps[pc_], times_ > 0 ? round_ : 0);
    bytes_ = 0;
    offset_ = 0;
    in_ = nullptr;
    out_ = nullptr;
    dst_ = address(step_.dst, &bytes_);
    src_ = address(step_.src, &bytes_);
    ready_ = true;
    expected_ = false;
    const bool signal = step_.kind == StepKind::kSignal || step_.kind == StepKind::kWait;
    if (bytes_ == 0 && !signal && !announces_) return Status::ok();
    switch (step_.kind) {
      case StepKind::kSend:
      case StepKind::kSignal: {
        COMM_ASSIGN(out_, args_.ports->send_port(step_.peer, index_));
        break;
      }
      case StepKind::kRecv:
      case StepKind::kRecvReduce:
      case StepKind::kWait: {
        COMM_ASSIGN(in_, args_.ports->recv_port(step_.peer, index_));
        break;
      }
      case StepKind::kRecvReduceSend:
      case StepKind::kRecvCopySend: {
        COMM_ASSIGN(in_, args_.ports->recv_port(step_.peer, index_));
        COMM_ASSIGN(out_, args_.ports->send_port(step_.peer2, index_));
        break;
      }
      default:
        break;
    }
    return Status::ok();
  }

  // A forwarded segment is received into dst_ and sent from there.
  bool forwards_directly() const {
    return dst_ != nullptr && (out_->channel->capabilities() & kDirectSend) != 0;
  }

  // The whole message is going to be received into dst_, which may be written from now on.
  void expect_once() {
    if (!expected_) in_->channel->expect(args_.signature, dst_, bytes_, args_.segment_bytes);
    expected_ = true;
  }

  // ---- doing a step ----

  Status run(bool* done, bool* moved) {
    const bool signal = step_.kind == StepKind::kSignal || step_.kind == StepKind::kWait;
    if (bytes_ == 0 && !signal) return run_empty(done, moved);
    switch (step_.kind) {
      case StepKind::kSend:
        post(out_, step_.peer, src_, bytes_, false);
        *done = true;
        return flush(moved);
      case StepKind::kSignal:
        post(out_, step_.peer, nullptr, 0, true);
        *done = true;
        return flush(moved);
      case StepKind::kCopy:
        if (dst_ != src_) {
          if (being_sent(dst_, bytes_)) return Status::ok();
          if (step_.final) {
            const void* source = src_;
            reduce(dst_, nullptr, &source, 1, bytes_);
          } else {
            copy_bytes(dst_, src_, bytes_, false);
          }
        } else if (step_.final && divisor() != 1) {
          if (being_sent(dst_, bytes_)) return Status::ok();
          const void* source = src_;
          reduce(dst_, nullptr, &source, 1, bytes_);
        }
        *done = true;
        return Status::ok();
      case StepKind::kReduce:
        return run_reduce(done);
      case StepKind::kWait:
        return run_wait(done);
      case StepKind::kRecv:
        return run_recv(done, moved);
      case StepKind::kRecvReduce:
        return run_recv_reduce(done, moved);
      case StepKind::kRecvReduceSend:
      case StepKind::kRecvCopySend:
        return run_forward(done, moved);
      case StepKind::kRepeat:
        break;
    }
    return error(Code::kInternal, "the schedule of {} has a nested repeat",
                 args_.schedule->algorithm);
  }

  // An empty chunk: it is announced, or the peer knows and does as little.
  Status run_empty(bool* done, bool* moved) {
    if (in_ != nullptr) {
      COMM_TRY(run_wait(done));
      if (!*done) return Status::ok();
    }
    if (out_ != nullptr) post(out_, in_ != nullptr ? step_.peer2 : step_.peer, nullptr, 0, true);
    *done = true;
    return flush(moved);
  }

  Status run_reduce(bool* done) {
    if (being_sent(dst_, bytes_)) return Status::ok();
    std::vector<const void*> sources;
    sources.reserve(static_cast<size_t>(step_.operands));
    for (int i = 0; i < step_.operands; ++i) {
      size_t bytes = 0;
      sources.push_back(
          address(args_.schedule->operands[static_cast<size_t>(step_.operand + i)], &bytes));
    }
    reduce(dst_, nullptr, sources.data(), step_.operands, bytes_);
    *done = true;
    return Status::ok();
  }

  Status run_wait(bool* done) {
    Segment segment;
    COMM_TRY(in_->channel->peek(&segment));
    if (!segment.ready) return Status::ok();
    COMM_TRY(check(segment, 0));
    COMM_TRY(in_->channel->release());
    *done = true;
    return Status::ok();
  }

  Status run_recv(bool* done, bool* moved) {
    if (offset_ == 0 && being_sent(dst_, bytes_)) return Status::ok();
    expect_once();
    while (offset_ < bytes_) {
      bool got = false;
      COMM_TRY(
          in_->channel->receive_into(args_.signature, dst_ + offset_, segment_at(offset_), &got));
      if (!got) return Status::ok();
      offset_ += segment_at(offset_);
      *moved = true;
    }
    *done = true;
    return Status::ok();
  }

  Status run_recv_reduce(bool* done, bool* moved) {
    if (offset_ == 0 && being_sent(dst_, bytes_)) return Status::ok();
    while (offset_ < bytes_) {
      Segment segment;
      COMM_TRY(in_->channel->peek(&segment));
      if (!segment.ready) return Status::ok();
      COMM_TRY(check(segment, segment_at(offset_)));
      const void* sources[2] = {src_ + offset_, segment.data};
      reduce(dst_ + offset_, nullptr, sources, 2, segment.bytes);
      COMM_TRY(in_->channel->release());
      offset_ += segment.bytes;
      *moved = true;
    }
    *done = true;
    return Status::ok();
  }

  // Receives segment by segment, combines with this rank's part if asked, keeps it in dst if asked,
  // and passes it on. With a dst the receive never waits for the channel ahead (in a ring everybody
  // would wait for everybody): what does not fit there now is posted from dst.
  Status run_forward(bool* done, bool* moved) {
    const bool direct = forwards_directly();
    if (offset_ == 0 && dst_ != nullptr && being_sent(dst_, bytes_)) return Status::ok();
    if (direct && step_.kind == StepKind::kRecvCopySend) expect_once();
    while (offset_ < bytes_) {
      const size_t bytes = segment_at(offset_);
      std::byte* slot = nullptr;
      if (!direct && !into_dst_ && !waiting_on(out_)) COMM_TRY(out_->channel->reserve(&slot));
      if (slot == nullptr && dst_ == nullptr) return Status::ok();
      bool went = false;
      COMM_TRY(slot != nullptr ? forward_through(slot, bytes, &went)
                               : forward_from_dst(bytes, &went));
      if (!went) return Status::ok();
      offset_ += bytes;
      *moved = true;
      COMM_TRY(flush(moved));
    }
    *done = true;
    return Status::ok();
  }

  Status forward_from_dst(size_t bytes, bool* went) {
    if (step_.kind == StepKind::kRecvCopySend) {
      COMM_TRY(in_->channel->receive_into(args_.signature, dst_ + offset_, bytes, went));
      into_dst_ = !*went;
      if (!*went) return Status::ok();
    } else {
      Segment segment;
      COMM_TRY(in_->channel->peek(&segment));
      if (!segment.ready) return Status::ok();
      COMM_TRY(check(segment, bytes));
      const void* sources[2] = {src_ + offset_, segment.data};
      reduce(dst_ + offset_, nullptr, sources, 2, bytes);
      COMM_TRY(in_->channel->release());
      *went = true;
    }
    post(out_, step_.peer2, dst_ + offset_, bytes, false);
    return Status::ok();
  }

  Status forward_through(std::byte* slot, size_t bytes, bool* went) {
    Segment segment;
    COMM_TRY(in_->channel->peek(&segment));
    if (!segment.ready) return Status::ok();
    COMM_TRY(check(segment, bytes));
    if (step_.kind == StepKind::kRecvReduceSend) {
      const void* sources[2] = {src_ + offset_, segment.data};
      if (dst_ != nullptr) {
        reduce(dst_ + offset_, slot, sources, 2, bytes);
      } else {
        reduce(slot, nullptr, sources, 2, bytes);
      }
    } else {
      copy_bytes(slot, segment.data, bytes, false);
      if (dst_ != nullptr) copy_bytes(dst_ + offset_, segment.data, bytes, false);
    }
    COMM_TRY(in_->channel->release());
    COMM_TRY(out_->channel->commit(args_.signature, bytes));
    ++out_->accepted;
    // A slot that is not the peer's memory may still have to leave this process.
    if ((out_->channel->capabilities() & kMapped) == 0)
      pending_.push_back({.port = out_,
                          .peer = step_.peer2,
                          .src = nullptr,
                          .bytes = 0,
                          .given = true,
                          .finish_at = out_->accepted});
    *went = true;
    return Status::ok();
  }

  // ---- sends in flight ----

  void post(SendPort* port, int peer, const std::byte* src, size_t bytes, bool signal) {
    pending_.push_back({.port = port, .peer = peer, .src = src, .bytes = bytes, .signal = signal});
  }

  // Gives the channels what they take and forgets what is finished.
  Status flush(bool* moved) {
    if (pending_.empty()) return Status::ok();
    for (Pending& message : pending_) message.port->blocked = false;
    for (Pending& message : pending_) {
      SendPort& port = *message.port;
      if (!message.given && !port.blocked) COMM_TRY(give(message, moved));
      if (!message.given) port.blocked = true;
      if (message.given && port.completed < message.finish_at)
        COMM_TRY(port.channel->progress(&port.completed));
    }
    const auto finished = [](const Pending& message) {
      return message.given && message.port->completed >= message.finish_at;
    };
    if (std::erase_if(pending_, finished) > 0) *moved = true;
    return Status::ok();
  }

  Status give(Pending& message, bool* moved) {
    SendPort& port = *message.port;
    const bool direct = !message.signal && (port.channel->capabilities() & kDirectSend) != 0;
    while (message.issued < message.bytes || message.signal) {
      const size_t bytes = std::min(args_.segment_bytes, message.bytes - message.issued);
      if (direct) {
        bool accepted = false;
        COMM_TRY(
            port.channel->post(args_.signature, message.src + message.issued, bytes, &accepted));
        if (!accepted) return Status::ok();
      } else {
        std::byte* slot = nullptr;
        COMM_TRY(port.channel->reserve(&slot));
        if (slot == nullptr) return Status::ok();
        if (bytes > 0) copy_bytes(slot, message.src + message.issued, bytes, false);
        COMM_TRY(port.channel->commit(args_.signature, bytes));
      }
      ++port.accepted;
      message.issued += bytes;
      *moved = true;
      if (message.signal) break;
    }
    message.given = true;
    message.finish_at = port.accepted;
    return Status::ok();
  }

  bool being_sent(const std::byte* begin, size_t bytes) const {
    return std::any_of(pending_.begin(), pending_.end(), [&](const Pending& message) {
      return overlap(message.src, message.bytes, begin, bytes);
    });
  }

  bool waiting_on(const SendPort* port) const {
    return std::any_of(pending_.begin(), pending_.end(), [&](const Pending& message) {
      return message.port == port && !message.given;
    });
  }

  // ---- small helpers ----

  size_t segment_at(size_t offset) const { return std::min(args_.segment_bytes, bytes_ - offset); }

  int divisor() const {
    return step_.final && args_.operation->average ? args_.schedule->nranks : 1;
  }

  void reduce(void* dst, void* dst2, const void* const* sources, int count, size_t bytes) const {
    ReduceArgs work;
    work.dst = dst;
    work.dst2 = dst2;
    work.sources = sources;
    work.source_count = count;
    const size_t element = size_of(args_.operation->type);
    work.count = bytes / element;
    work.divisor = divisor();
    reduce_with(args_.pool, args_.kernel, work, element);
  }

  Status check(const Segment& segment, size_t bytes) const {
    if (segment.signature == args_.signature && segment.bytes == bytes) return Status::ok();
    return mismatch(args_.schedule->rank, args_.signature, bytes, step_.peer, segment.signature,
                    segment.bytes);
  }

  const InterpreterArgs& args_;
  const Lane& lane_;
  const int index_;
  const bool announces_;  // empty chunks

  int slice_ = 0;
  size_t pc_ = 0;
  int times_ = 0;  // of the repeat we are in; 0: none
  int round_ = 0;
  size_t body_begin_ = 0, body_end_ = 0;

  // The current step, when ready_.
  bool ready_ = false;
  Step step_;
  std::byte* src_ = nullptr;
  std::byte* dst_ = nullptr;
  size_t bytes_ = 0;
  size_t offset_ = 0;  // bytes of the message that are done
  // A forwarded segment may be part way into dst_, where a socket puts it: it must end there, also
  // when the channel ahead has room by now.
  bool into_dst_ = false;
  bool expected_ = false;  // the channel knows where its segments go
  RecvPort* in_ = nullptr;
  SendPort* out_ = nullptr;

  std::vector<Pending> pending_;
};

Interpreter::Interpreter(const InterpreterArgs& args) : args_(args) {
  for (size_t i = 0; i < args_.schedule->lanes.size(); ++i) {
    lanes_.push_back(
        std::make_unique<LaneRun>(args_, args_.schedule->lanes[i], static_cast<int>(i)));
  }
}

Interpreter::~Interpreter() = default;

Status Interpreter::advance(Progress* progress) {
  bool moved = false;
  bool finished = true;
  for (const auto& lane : lanes_) {
    if (lane->finished()) continue;
    COMM_TRY(lane->advance(&moved));
    finished = finished && lane->finished();
  }
  *progress = finished ? Progress::kDone : moved ? Progress::kMoved : Progress::kStuck;
  return Status::ok();
}

void Interpreter::awaited_peers(std::vector<int>* peers) const {
  for (const auto& lane : lanes_)
    if (!lane->finished()) lane->awaited_peers(peers);
}

void Interpreter::wait_handles(std::vector<WaitHandle>* handles) const {
  for (const auto& lane : lanes_)
    if (!lane->finished()) lane->wait_handles(handles);
}

}  // namespace libcomm
