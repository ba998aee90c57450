#include "src/schedule/symbolic/run.h"

#include <fmt/format.h>

#include "src/schedule/builder.h"

namespace libcomm::symbolic {

namespace {

bool any_being_sent(const Cell* cells, int count) {
  for (int i = 0; i < count; ++i)
    if (cells[i].reading > 0) return true;
  return false;
}

bool overlap_partly(const Cell* a, const Cell* b, int count) {
  return a != b && a < b + count && b < a + count;
}

}  // namespace

Run::Run(std::span<const Schedule> ranks, const CheckOptions& options)
    : ranks_(ranks),
      slices_(options.slices),
      lanes_(ranks[0].lanes.size()),
      channels_(static_cast<int>(ranks.size()), static_cast<int>(lanes_)) {
  memory_.reserve(ranks.size());
  for (const Schedule& schedule : ranks) memory_.emplace_back(schedule, options.in_place, slices_);
  states_.resize(ranks.size() * lanes_);
  for (size_t i = 0; i < states_.size(); ++i) {
    states_[i].rank = static_cast<int>(i / lanes_);
    states_[i].lane = static_cast<int>(i % lanes_);
    enter(&states_[i]);
    make_ready(&states_[i]);
  }
}

const Cell* Run::output(int rank, int slice) {
  const Schedule& schedule = ranks_[static_cast<size_t>(rank)];
  return memory_[static_cast<size_t>(rank)].find(out(0), schedule.chunks_in(Space::kOut), slice);
}

Status Run::execute() {
  while (!ready_.empty()) {
    LaneState* at = ready_.back();
    ready_.pop_back();
    advance(at);
    if (!failure_) return failure_;
  }
  for (const LaneState& at : states_)
    if (!at.done) return deadlock();
  if (channels_.in_flight() == 0) return {};
  int from = 0;
  int to = 0;
  int lane = 0;
  const Message* message = channels_.any(&from, &to, &lane);
  const Schedule& sender = ranks_[static_cast<size_t>(from)];
  const Step& step =
      sender.lanes[static_cast<size_t>(lane)].steps[static_cast<size_t>(message->step)];
  return error(Code::kInternal, "rank {}, lane {}, step {} ({}): rank {} never takes this message",
               from, lane, message->step, to_string(sender, step), to);
}

void Run::make_ready(LaneState* at) {
  at->wait = Wait::kNothing;
  ready_.push_back(at);
}

// Settles on the next step to perform: past the end of a body, into a repeat, on to the next slice.
void Run::enter(LaneState* at) {
  for (;;) {
    if (at->body_end != 0 && at->at == at->body_end) {
      if (++at->round < at->times) {
        at->at = at->body_begin;
      } else {
        at->body_end = 0;
        at->round = 0;
      }
    }
    if (at->at == steps(*at).size()) {
      if (++at->slice < slices_ && !steps(*at).empty()) {
        at->at = 0;
        continue;
      }
      at->done = true;
      return;
    }
    const Step& step = steps(*at)[at->at];
    if (step.kind != StepKind::kRepeat) return;
    at->times = step.times;
    at->round = 0;
    at->body_begin = ++at->at;
    at->body_end = at->at + static_cast<size_t>(step.body);
  }
}

void Run::advance(LaneState* at) {
  while (!at->done) {
    if (perform(at, expand(schedule(*at), steps(*at)[at->at], at->round)) != Progress::kYes) return;
    ++at->at;
    enter(at);
  }
}

Run::Progress Run::perform(LaneState* at, const Step& step) {
  switch (step.kind) {
    case StepKind::kSend:
      return send(at, step, step.peer, step.src);
    case StepKind::kSignal:
      post(at, step.peer, Message{});
      return Progress::kYes;
    case StepKind::kRecv:
    case StepKind::kRecvReduce:
    case StepKind::kRecvReduceSend:
    case StepKind::kRecvCopySend:
    case StepKind::kWait:
      return receive(at, step);
    case StepKind::kCopy:
      return copy(at, step);
    case StepKind::kReduce:
      return reduce(at, step);
    case StepKind::kRepeat:
      break;
  }
  return fail(*at, step, -1, "a repeat inside a repeat");
}

Run::Progress Run::send(LaneState* at, const Step& step, int peer, const Ref& source) {
  Cell* cells = readable(at, step, source);
  if (cells == nullptr) return Progress::kFailed;
  Message message;
  message.cells = cells;
  message.count = step.count;
  message.chunk = source.chunk;
  message.space = source.space;
  for (int i = 0; i < step.count; ++i) ++cells[i].reading;
  post(at, peer, message);
  return Progress::kYes;
}

Run::Progress Run::receive(LaneState* at, const Step& step) {
  // 1. Is there a message, and is it the one that is meant?
  const Message* message = channels_.front(step.peer, at->rank, at->lane);
  if (message == nullptr) return block(at, Wait::kMessage, step.peer);
  const int expected = step.kind == StepKind::kWait ? 0 : step.count;
  if (message->count != expected || message->slice != at->slice)
    return fail(*at, step, -1,
                fmt::format("expected {} chunks, rank {}'s step {} sends {}", expected, step.peer,
                            message->step, message->count));
  if (step.kind == StepKind::kWait) {
    take(at, step.peer);
    return Progress::kYes;
  }
  const bool reduces = step.kind == StepKind::kRecvReduce || step.kind == StepKind::kRecvReduceSend;
  const bool keeps = step.dst.space != Space::kNone;
  const bool passes_on =
      step.kind == StepKind::kRecvReduceSend || step.kind == StepKind::kRecvCopySend;
  if (!keeps && !passes_on) return fail(*at, step, -1, "it has no destination");
  const Ref& sized = keeps ? step.dst : step.src;
  if (sized.space != Space::kNone) {
    const Schedule& sender = ranks_[static_cast<size_t>(
        message->carried < 0 ? step.peer : channels_.carried(*message).named_by)];
    for (int i = 0; i < step.count; ++i) {
      if (size_class(sender, message->space, message->chunk + i) !=
          size_class(schedule(*at), sized.space, sized.chunk + i))
        return fail(*at, step, sized.chunk + i,
                    fmt::format("expected a message of this chunk's size, rank {}'s step {} sends "
                                "chunk {}",
                                step.peer, message->step, message->chunk + i));
    }
  }
  // 2. Is there a place for it?
  Cell* source = nullptr;
  if (reduces) {
    source = readable(at, step, step.src);
    if (source == nullptr) return Progress::kFailed;
    if (keeps && !same_sizes(at, step, step.src, step.dst)) return Progress::kFailed;
  }
  Cell* cells = nullptr;
  if (keeps) {
    cells = writable(at, step, step.dst);
    if (cells == nullptr) return Progress::kFailed;
    if (reduces && overlap_partly(source, cells, step.count))
      return fail(*at, step, step.dst.chunk, "source and destination overlap partly");
    if (any_being_sent(cells, step.count)) return block(at, Wait::kRegion, -1);
  } else if (channels_.front(at->rank, step.peer2, at->lane) != nullptr) {
    return block(at, Wait::kChannel, step.peer2);
  }
  // 3. Take it.
  const Value* carried = message->carried < 0 ? nullptr : channels_.carried(*message).values.data();
  Carried onward;
  for (int i = 0; i < step.count; ++i) {
    Value value = carried != nullptr ? carried[i] : message->cells[i].value;
    if (reduces && !add(at, step, i, source[i].value, value, &value)) return Progress::kFailed;
    if (!finish_value(at, step, i, &value)) return Progress::kFailed;
    if (keeps)
      cells[i].value = value;
    else
      onward.values.push_back(value);
  }
  // 4. Pass it on, under its old name if it has no place here.
  Message passed = *message;
  passed.cells = nullptr;
  onward.named_by = carried != nullptr ? channels_.carried(*message).named_by : step.peer;
  if (reduces) {
    passed.chunk = step.src.chunk;
    passed.space = step.src.space;
    onward.named_by = at->rank;
  }
  take(at, step.peer);
  if (!passes_on) return Progress::kYes;
  if (keeps) return send(at, step, step.peer2, step.dst);
  post(at, step.peer2, passed, &onward);
  return Progress::kYes;
}

Run::Progress Run::copy(LaneState* at, const Step& step) {
  Cell* source = readable(at, step, step.src);
  if (source == nullptr || !same_sizes(at, step, step.src, step.dst)) return Progress::kFailed;
  Cell* cells = writable(at, step, step.dst);
  if (cells == nullptr) return Progress::kFailed;
  if (overlap_partly(source, cells, step.count))
    return fail(*at, step, step.dst.chunk, "source and destination overlap partly");
  if (source == cells && !step.final) return Progress::kYes;
  if (any_being_sent(cells, step.count)) return block(at, Wait::kRegion, -1);
  for (int i = 0; i < step.count; ++i) {
    Value value = source[i].value;
    if (!finish_value(at, step, i, &value)) return Progress::kFailed;
    cells[i].value = value;
  }
  return Progress::kYes;
}

Run::Progress Run::reduce(LaneState* at, const Step& step) {
  Cell* cells = writable(at, step, step.dst);
  if (cells == nullptr) return Progress::kFailed;
  const std::vector<Ref>& operands = schedule(*at).operands;
  std::vector<Cell*> sources;
  for (int k = 0; k < step.operands; ++k) {
    const Ref& operand = operands[static_cast<size_t>(step.operand + k)];
    sources.push_back(readable(at, step, operand));
    if (sources.back() == nullptr || !same_sizes(at, step, operand, step.dst))
      return Progress::kFailed;
    if (overlap_partly(sources.back(), cells, step.count))
      return fail(*at, step, step.dst.chunk, "an operand and the destination overlap partly");
  }
  if (any_being_sent(cells, step.count)) return block(at, Wait::kRegion, -1);
  for (int i = 0; i < step.count; ++i) {
    Fold fold(step.operands);
    for (Cell* source : sources) {
      Value ignored;
      if (sources.size() > 1 && !add(at, step, i, source[i].value, {}, &ignored))
        return Progress::kFailed;
      fold.add(source[i].value);
    }
    Value value = fold.result();
    if (!finish_value(at, step, i, &value)) return Progress::kFailed;
    cells[i].value = value;
  }
  return Progress::kYes;
}

void Run::post(LaneState* at, int peer, Message message, Carried* carried) {
  message.slice = static_cast<int16_t>(at->slice);
  message.step = static_cast<int32_t>(at->at);
  if (carried != nullptr)
    channels_.push(at->rank, peer, at->lane, message, std::move(*carried));
  else
    channels_.push(at->rank, peer, at->lane, message);
  LaneState& receiver = state(peer, at->lane);
  if (receiver.wait == Wait::kMessage && receiver.awaited == at->rank) make_ready(&receiver);
}

void Run::take(LaneState* at, int peer) {
  Message* message = channels_.front(peer, at->rank, at->lane);
  if (message->cells != nullptr)
    for (int i = 0; i < message->count; ++i) --message->cells[i].reading;
  channels_.pop(peer, at->rank, at->lane);
  LaneState& sender = state(peer, at->lane);
  if (sender.wait == Wait::kRegion || sender.wait == Wait::kChannel) make_ready(&sender);
}

Run::Progress Run::block(LaneState* at, Wait wait, int peer) {
  at->wait = wait;
  at->awaited = peer;
  return Progress::kBlocked;
}

Cell* Run::readable(LaneState* at, const Step& step, const Ref& ref) {
  Cell* cells = memory_[static_cast<size_t>(at->rank)].find(ref, step.count, at->slice);
  if (cells == nullptr || !exists(schedule(*at), ref.space)) {
    fail(*at, step, ref.chunk, "it reads outside the buffers that this rank has");
    return nullptr;
  }
  for (int i = 0; i < step.count; ++i) {
    if (!cells[i].value.defined) {
      fail(*at, step, ref.chunk + i, "expected a value, nothing has been put there yet");
      return nullptr;
    }
    if (!cells[i].note_read(at->lane)) {
      fail(*at, step, ref.chunk + i, fmt::format("lane {} writes it, unordered", cells[i].writer));
      return nullptr;
    }
  }
  return cells;
}

Cell* Run::writable(LaneState* at, const Step& step, const Ref& ref) {
  Cell* cells = memory_[static_cast<size_t>(at->rank)].find(ref, step.count, at->slice);
  if (cells == nullptr || !exists(schedule(*at), ref.space)) {
    fail(*at, step, ref.chunk, "it writes outside the buffers that this rank has");
    return nullptr;
  }
  if (ref.space == Space::kIn) {
    fail(*at, step, ref.chunk, "it writes the input");
    return nullptr;
  }
  for (int i = 0; i < step.count; ++i) {
    if (!cells[i].note_write(at->lane)) {
      fail(*at, step, ref.chunk + i, "another lane uses it, unordered");
      return nullptr;
    }
  }
  return cells;
}

bool Run::same_sizes(LaneState* at, const Step& step, const Ref& a, const Ref& b) {
  for (int i = 0; i < step.count; ++i) {
    if (size_class(schedule(*at), a.space, a.chunk + i) ==
        size_class(schedule(*at), b.space, b.chunk + i))
      continue;
    fail(*at, step, a.chunk + i,
         fmt::format("expected a chunk of the size of chunk {}", b.chunk + i));
    return false;
  }
  return true;
}

bool Run::add(LaneState* at, const Step& step, int i, const Value& a, const Value& b, Value* sum) {
  if (a.final || b.final) {
    const Ref& ref = step.dst.space != Space::kNone ? step.dst : step.src;
    fail(*at, step, ref.chunk + i, "it adds to a result that is final already");
    return false;
  }
  *sum = combine(a, b);
  return true;
}

bool Run::finish_value(LaneState* at, const Step& step, int i, Value* value) {
  if (!step.final) return true;
  const Ref& ref = step.dst.space != Space::kNone ? step.dst : step.src;
  if (!is_reducing(schedule(*at).collective) || value->final) {
    fail(*at, step, ref.chunk + i,
         value->final ? "final is applied a second time" : "final in a collective that only moves");
    return false;
  }
  value->final = true;
  return true;
}

std::string Run::place(const LaneState& at) const {
  const std::string round = at.body_end != 0 ? fmt::format(" round {}", at.round) : "";
  return fmt::format("rank {}, lane {}, step {}{}", at.rank, at.lane, at.at, round);
}

Run::Progress Run::fail(const LaneState& at, const Step& step, int chunk, std::string what) {
  const std::string where = chunk < 0 ? "" : fmt::format("chunk {}: ", chunk);
  failure_ = error(Code::kInternal, "{} ({}): {}{}", place(at), to_string(schedule(at), step),
                   where, what);
  return Progress::kFailed;
}

Status Run::deadlock() {
  auto describe = [this](const LaneState& at) {
    if (at.done) return fmt::format("rank {}, lane {} has ended", at.rank, at.lane);
    const Step step = expand(schedule(at), steps(at)[at.at], at.round);
    std::string what;
    switch (at.wait) {
      case Wait::kMessage:
        what = fmt::format("waits for a message from rank {}", at.awaited);
        break;
      case Wait::kChannel:
        what = fmt::format("waits until rank {} takes an earlier message", at.awaited);
        break;
      default:
        what = fmt::format("waits until chunk {}, which it writes, has been sent", step.dst.chunk);
        break;
    }
    return fmt::format("{} ({}) {}", place(at), to_string(schedule(at), step), what);
  };
  for (const LaneState& at : states_) {
    if (at.done) continue;
    std::string text = "deadlock: " + describe(at);
    if (at.awaited >= 0) text += "; " + describe(state(at.awaited, at.lane));
    return Status(Code::kInternal, text);
  }
  return {};
}

}  // namespace libcomm::symbolic
