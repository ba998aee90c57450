// What one thread of the executor's kernel does: its part in the lane of its block.
//
// The threads of a block go through the steps together. Of a step that waits, or moves a position,
// the first thread does that for all; where there are lines each thread waits for its own. Every
// wait also looks at the abort word, and all that a thread decides alone it tells the others before
// the next barrier.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/device/kernels/execute_arguments.h"
#include "src/device/kernels/formats.h"
#include "src/device/kernels/reduce_step.h"
#include "src/device/kernels/system_memory.h"

namespace libcomm::cuda {

inline constexpr unsigned kStepsAtOnce = 32;  // fetched together

// What the threads of a block share.
struct LaneMemory {
  ReduceArguments work;  // of the step
  ExecuteStep steps[kStepsAtOnce];
  // By peer, of this lane, in the unit of the protocol: positions, and how far the peer had taken
  // when we last looked.
  uint64_t sent[kMostExecuteRanks];
  uint64_t received[kMostExecuteRanks];
  uint64_t taken[kMostExecuteRanks];
  uint64_t scalar;
  uint32_t stop;
};

template <class F>
class LaneRun {
 public:
  using Bits = typename F::Bits;
  using Wide = typename F::Wide;

  COMM_DEVICE_CODE LaneRun(const ExecuteArguments& arguments, LaneMemory* memory, Team* team,
                           const Place& place)
      : args_(arguments),
        shape_(arguments.shape),
        memory_(*memory),
        team_(*team),
        place_(place),
        lane_(static_cast<int>(place.block)) {}

  COMM_DEVICE_CODE void run() {
    if (first()) {
      memory_.stop = args_.asks_first && load_word(number(args_.abort)) != 0 ? 1 : 0;
      memory_.work.type = args_.type;
      memory_.work.op = args_.op;
      if (lane_ == 0) store_word(number(args_.begun), args_.number);
    }
    team_.wait();
    if (memory_.stop != 0) return end_untouched();
    if (first() && args_.premultiplies)
      memory_.scalar =
          args_.scalar_at != nullptr ? load<Bits>(number(args_.scalar_at)) : args_.scalar;
    look_up_positions();
    team_.wait();
    if (do_steps()) put_back_positions();
    end();
  }

 private:
  COMM_DEVICE_CODE bool first() const { return place_.thread == 0; }
  COMM_DEVICE_CODE Place alone() const { return {0, 1, place_.thread, place_.threads}; }

  // ---- where things are -----------------------------------------------------------------------

  COMM_DEVICE_CODE uintptr_t area(int rank) const { return number(args_.areas[rank]); }
  // The counters here of the connection with `peer`, and there of the one with this rank.
  COMM_DEVICE_CODE uintptr_t counters_here(int peer) const {
    return area(args_.rank) + counters_at(connection_of(shape_, args_.rank, peer, lane_));
  }
  COMM_DEVICE_CODE uintptr_t counters_there(int peer) const {
    return area(peer) + counters_at(connection_of(shape_, peer, args_.rank, lane_));
  }
  COMM_DEVICE_CODE uintptr_t address(ExecuteSpace space, uint64_t offset, uint64_t begin) const {
    switch (space) {
      case ExecuteSpace::kIn:
        return number(args_.in) + offset + begin;
      case ExecuteSpace::kOut:
        return number(args_.out) + offset + begin;
      default:  // has room for one window
        return area(args_.rank) + scratch_at(shape_) + offset;
    }
  }

  // ---- the steps ------------------------------------------------------------------------------

  COMM_DEVICE_CODE bool do_steps() {
    const uint32_t begin = args_.lane_begin[lane_];
    const uint32_t end = args_.lane_begin[lane_ + 1];
    uint32_t fetched = end;  // the first of those that are here
    for (uint32_t window = 0; window < args_.windows; ++window) {
      for (uint32_t at = begin; at < end; ++at) {
        const uint32_t batch = begin + (at - begin) / kStepsAtOnce * kStepsAtOnce;
        if (batch != fetched) fetch_steps(batch, end);
        fetched = batch;
        if (!do_step(memory_.steps[at - batch], window * args_.window)) return false;
      }
    }
    return true;
  }

  COMM_DEVICE_CODE void fetch_steps(uint32_t first, uint32_t end) {
    const uint32_t count = end - first < kStepsAtOnce ? end - first : kStepsAtOnce;
    const uint32_t words = count * static_cast<uint32_t>(sizeof(ExecuteStep) / sizeof(uint64_t));
    const uintptr_t from = number(args_.steps + first);
    const uintptr_t to = number(memory_.steps);
    team_.wait();  // who still reads the ones before
    for (uint32_t i = place_.thread; i < words; i += place_.threads)
      store<uint64_t>(to + i * sizeof(uint64_t), load<uint64_t>(from + i * sizeof(uint64_t)));
    team_.wait();
  }

  static COMM_DEVICE_CODE bool receives(const ExecuteStep& step) {
    return step.kind == ExecuteKind::kRecv || step.kind == ExecuteKind::kRecvReduce ||
           step.kind == ExecuteKind::kRecvReduceSend || step.kind == ExecuteKind::kRecvCopySend;
  }
  // To whom the step sends; -1: to nobody.
  static COMM_DEVICE_CODE int receiver(const ExecuteStep& step) {
    if (step.kind == ExecuteKind::kSend) return step.peer;
    const bool forwards =
        step.kind == ExecuteKind::kRecvReduceSend || step.kind == ExecuteKind::kRecvCopySend;
    return forwards ? step.peer2 : -1;
  }

  // The bytes from `begin` on of its chunk. False: the launch gives up.
  COMM_DEVICE_CODE bool do_step(const ExecuteStep& step, uint64_t begin) {
    const uint64_t moved = step.bytes <= args_.most_bytes ? step.bytes : 0;
    const bool announced = args_.announces && begin == 0 && (receives(step) || receiver(step) >= 0);
    if (begin >= moved && !announced) return true;
    const uint64_t left = moved - begin;
    const uint64_t bytes = left < args_.window ? left : args_.window;
    if (args_.by_lines && (receives(step) || step.kind == ExecuteKind::kSend))
      return do_by_lines(step, bytes);
    return do_by_ring(step, begin, bytes);
  }

  // ---- the ring -------------------------------------------------------------------------------

  COMM_DEVICE_CODE bool do_by_ring(const ExecuteStep& step, uint64_t begin, uint64_t bytes) {
    if (first() && !prepare(step, begin, bytes)) memory_.stop = 1;
    team_.wait();
    if (memory_.stop != 0) return false;
    Reduction<F>(memory_.work).run(alone());
    team_.wait();
    if (first()) publish(step);
    return true;
  }

  // By the first thread: everything that the step reads is there, and there is room for what it
  // writes.
  COMM_DEVICE_CODE bool prepare(const ExecuteStep& step, uint64_t begin, uint64_t bytes) {
    ReduceArguments& work = memory_.work;
    work.count = bytes / sizeof(Bits);
    work.divisor = step.final != 0 ? args_.divisor : 1;
    work.scaled_source = kNoSource;
    work.source_count = work.destination_count = 0;
    for (uint32_t i = 0; i < step.operands; ++i) {
      const ExecuteOperand& operand = args_.operands[step.operand + i];
      add_own_source(operand.space, operand.offset, begin);
    }
    if (step.src_space != ExecuteSpace::kNone) add_own_source(step.src_space, step.src, begin);
    if (step.dst_space != ExecuteSpace::kNone)
      add_destination(address(step.dst_space, step.dst, begin));
    const uint64_t length = kMessageHeader + (bytes + kPackBytes - 1) / kPackBytes * kPackBytes;
    if (receives(step)) {
      uint64_t& position = memory_.received[step.peer];
      position = place_of(position);
      const uintptr_t message = ring_here(step.peer) + position % shape_.ring_bytes;
      if (!await_message(step, position, length, message)) return false;
      position += length;
      add_source(message + kMessageHeader);
    }
    if (const int to = receiver(step); to >= 0) {
      uint64_t& position = memory_.sent[to];
      position = place_of(position);
      if (!await_room(to, position + length, shape_.ring_bytes, kRingTailAt)) return false;
      const uintptr_t message = ring_there(to) + position % shape_.ring_bytes;
      store<uint64_t>(message, args_.call);
      store<uint64_t>(message + sizeof(uint64_t), step.bytes);
      position += length;
      add_destination(message + kMessageHeader);
    }
    return true;
  }

  // One source at most is of the input: nothing that is combined has a rank's part twice.
  COMM_DEVICE_CODE void add_own_source(ExecuteSpace space, uint64_t offset, uint64_t begin) {
    ReduceArguments& work = memory_.work;
    if (args_.premultiplies && space == ExecuteSpace::kIn) {
      work.scaled_source = work.source_count;
      work.scalars[work.source_count] = memory_.scalar;
    }
    add_source(address(space, offset, begin));
  }
  COMM_DEVICE_CODE void add_source(uintptr_t at) {
    memory_.work.sources[memory_.work.source_count++] = reinterpret_cast<const void*>(at);
  }
  COMM_DEVICE_CODE void add_destination(uintptr_t at) {
    memory_.work.destinations[memory_.work.destination_count++] = reinterpret_cast<void*>(at);
  }

  COMM_DEVICE_CODE uintptr_t ring_here(int peer) const {
    return area(args_.rank) + ring_at(shape_, connection_of(shape_, args_.rank, peer, lane_));
  }
  COMM_DEVICE_CODE uintptr_t ring_there(int peer) const {
    return area(peer) + ring_at(shape_, connection_of(shape_, peer, args_.rank, lane_));
  }
  // A message does not go round the end: it begins anew where the longest one would. So who expects
  // another length finds its header all the same.
  COMM_DEVICE_CODE uint64_t place_of(uint64_t position) const {
    const uint64_t at = position % shape_.ring_bytes;
    const uint64_t longest = kMessageHeader + args_.window;
    return at + longest <= shape_.ring_bytes ? position : position + shape_.ring_bytes - at;
  }

  // Until the message of the step has come. One of another call never comes, the host finds out
  // why; and nor does one of another size, of which the host is told.
  COMM_DEVICE_CODE bool await_message(const ExecuteStep& step, uint64_t position, uint64_t length,
                                      uintptr_t message) {
    const uintptr_t head = counters_here(step.peer) + kHeadAt;
    bool reported = false;
    return await(step.peer, [&] {
      const uint64_t come = load_acquire(head) - position;
      if (static_cast<int64_t>(come - kMessageHeader) < 0) return false;
      if (load<uint64_t>(message) != args_.call) return false;
      const uint64_t sent = load<uint64_t>(message + sizeof(uint64_t));
      if (sent == step.bytes) return static_cast<int64_t>(come - length) >= 0;
      if (!reported) report(step.peer, sent, step.bytes);
      reported = true;
      return false;
    });
  }
  COMM_DEVICE_CODE void report(int peer, uint64_t sent, uint64_t expected) const {
    store<uint64_t>(number(&args_.mismatch->sent), sent);
    store<uint64_t>(number(&args_.mismatch->expected), expected);
    store_word(number(&args_.mismatch->peer), static_cast<uint32_t>(peer + 1));
  }
  // Until the connection has room as far as `end`.
  COMM_DEVICE_CODE bool await_room(int peer, uint64_t end, uint64_t size, uint64_t tail_at) {
    uint64_t& taken = memory_.taken[peer];
    const uintptr_t tail = counters_here(peer) + tail_at;
    return await(peer, [&] {
      if (end - taken > size) taken = load_acquire(tail);
      return end - taken <= size;
    });
  }
  template <class Condition>
  COMM_DEVICE_CODE bool await(int peer, const Condition& holds) {
    bool told = false;
    for (unsigned looks = 1; !holds(); ++looks) {
      if (looks % kLooksBetweenAborts == 0) {
        if (load_word(number(args_.abort)) != 0) return false;
        if (first()) tell(peer);
        told = first();
      }
      pause_after(looks);
    }
    if (told) tell(-1);
    return true;
  }
  COMM_DEVICE_CODE void tell(int peer) {
    store_word(number(args_.awaits + lane_), await_word(peer, ++told_));
  }

  // By the first thread, after all have done the step.
  COMM_DEVICE_CODE void publish(const ExecuteStep& step) const {
    if (const int to = receiver(step); to >= 0)
      store_release(counters_there(to) + kHeadAt, memory_.sent[to]);
    if (receives(step))
      store_release(counters_there(step.peer) + kRingTailAt, memory_.received[step.peer]);
  }

  // ---- lines ----------------------------------------------------------------------------------

  // There is one window.
  COMM_DEVICE_CODE bool do_by_lines(const ExecuteStep& step, uint64_t bytes) {
    const uint64_t lines = (bytes + kLineData - 1) / kLineData;
    const int to = receiver(step);
    if (to >= 0 && memory_.sent[to] + lines - memory_.taken[to] > shape_.lines) {
      team_.wait();  // all have seen it
      if (first() && !await_room(to, memory_.sent[to] + lines, shape_.lines, kLineTailAt))
        memory_.stop = 1;
      team_.wait();
      if (memory_.stop != 0) return false;
    }
    for (uint64_t i = place_.thread; i < lines; i += place_.threads) {
      if (do_line(step, to, i, bytes - i * kLineData)) continue;
      raise_flag(&memory_.stop);
      break;
    }
    team_.wait();
    if (memory_.stop != 0) return false;
    team_.wait();  // all have looked at it
    if (first()) {
      if (receives(step)) memory_.received[step.peer] += lines;
      if (to >= 0) memory_.sent[to] += lines;
    }
    team_.wait();
    return true;
  }

  // Line `i` of the step, of which `left` bytes or more are to do.
  COMM_DEVICE_CODE bool do_line(const ExecuteStep& step, int to, uint64_t i, uint64_t left) {
    const unsigned bytes = static_cast<unsigned>(left < kLineData ? left : kLineData);
    const uint64_t offset = i * kLineData;
    const bool has_src = step.src_space != ExecuteSpace::kNone;
    uint64_t data = 0;
    if (has_src) data = load_data(address(step.src_space, step.src, 0) + offset, bytes);
    if (args_.premultiplies && step.src_space == ExecuteSpace::kIn) data = scale_data(data);
    if (receives(step)) {
      uint64_t received = 0;
      if (!take_line(step.peer, memory_.received[step.peer] + i, &received)) return false;
      data = has_src ? combine_data(data, received, step.final != 0) : received;
    }
    if (step.dst_space != ExecuteSpace::kNone)
      store_data(address(step.dst_space, step.dst, 0) + offset, data, bytes);
    if (to >= 0) give_line(to, memory_.sent[to] + i, data);
    return true;
  }

  // Says which time round it is, and of which call. Never that of the time before, nor zero, as
  // which lines begin.
  COMM_DEVICE_CODE uint32_t flag_of(uint64_t position) const {
    const uint32_t round = static_cast<uint32_t>(position / shape_.lines % 255 + 1);
    return round | static_cast<uint32_t>(args_.call) << 8;
  }

  COMM_DEVICE_CODE void give_line(int to, uint64_t position, uint64_t data) const {
    const uint64_t flag = uint64_t{flag_of(position)} << 32;
    const uintptr_t lines =
        area(to) + lines_at(shape_, connection_of(shape_, to, args_.rank, lane_));
    const Line line = {{flag | (data & 0xFFFFFFFFu), flag | data >> 32}};
    store_line(lines + position % shape_.lines * kLineBytes, line);
  }

  COMM_DEVICE_CODE bool take_line(int from, uint64_t position, uint64_t* data) {
    const uint32_t flag = flag_of(position);
    const uintptr_t lines =
        area(args_.rank) + lines_at(shape_, connection_of(shape_, args_.rank, from, lane_));
    const uintptr_t at = lines + position % shape_.lines * kLineBytes;
    Line line{};
    const bool came = await(from, [&] {
      line = load_line(at);
      return line.half[0] >> 32 == flag && line.half[1] >> 32 == flag;
    });
    *data = (line.half[0] & 0xFFFFFFFFu) | line.half[1] << 32;
    return came;
  }

  static COMM_DEVICE_CODE uint64_t load_data(uintptr_t from, unsigned bytes) {
    if (bytes == kLineData && from % kLineData == 0) return load<uint64_t>(from);
    uint64_t data = 0;
    for (unsigned i = 0; i < bytes; i += sizeof(Bits))
      data |= static_cast<uint64_t>(load<Bits>(from + i)) << (8 * i);
    return data;
  }
  static COMM_DEVICE_CODE void store_data(uintptr_t to, uint64_t data, unsigned bytes) {
    if (bytes == kLineData && to % kLineData == 0) return store<uint64_t>(to, data);
    for (unsigned i = 0; i < bytes; i += sizeof(Bits))
      store<Bits>(to + i, static_cast<Bits>(data >> (8 * i)));
  }

  // The elements of a line.
  static constexpr int kEach = static_cast<int>(kLineData / sizeof(Bits));
  static COMM_DEVICE_CODE Wide decode_in(uint64_t data, int i) {
    return F::decode(static_cast<Bits>(data >> (8 * sizeof(Bits) * i)));
  }
  static COMM_DEVICE_CODE uint64_t encode_in(Wide value, int i) {
    return static_cast<uint64_t>(F::encode(value)) << (8 * sizeof(Bits) * i);
  }

  // This rank's part op what came, as in Reduction.
  COMM_DEVICE_CODE uint64_t combine_data(uint64_t own, uint64_t received, bool final) const {
    const Divider<F> divider(final ? args_.divisor : 1);
    Wide sum[kEach], next[kEach];
    COMM_UNROLL
    for (int i = 0; i < kEach; ++i) {
      sum[i] = decode_in(own, i);
      next[i] = decode_in(received, i);
    }
    combine_all<F>(args_.op, sum, next);
    uint64_t data = 0;
    COMM_UNROLL
    for (int i = 0; i < kEach; ++i) data |= encode_in(divider.apply(sum[i]), i);
    return data;
  }

  COMM_DEVICE_CODE uint64_t scale_data(uint64_t own) const {
    const Wide scalar = decode_in(memory_.scalar, 0);
    uint64_t data = 0;
    COMM_UNROLL
    for (int i = 0; i < kEach; ++i) data |= encode_in(scale<F>(decode_in(own, i), scalar), i);
    return data;
  }

  // ---- the beginning and the end --------------------------------------------------------------

  COMM_DEVICE_CODE void look_up_positions() {
    for (int peer = static_cast<int>(place_.thread); peer < shape_.nranks;
         peer += static_cast<int>(place_.threads)) {
      if (peer == args_.rank) continue;
      const uintptr_t here = counters_here(peer);
      const bool lines = args_.by_lines;
      memory_.sent[peer] = load<uint64_t>(here + (lines ? kLinesSentAt : kRingSentAt));
      memory_.received[peer] = load<uint64_t>(here + (lines ? kLinesReceivedAt : kRingReceivedAt));
      memory_.taken[peer] = load_acquire(here + (lines ? kLineTailAt : kRingTailAt));
    }
  }

  // Lines are given back all at once: there is room for those of two launches.
  COMM_DEVICE_CODE void put_back_positions() {
    team_.wait();
    for (int peer = static_cast<int>(place_.thread); peer < shape_.nranks;
         peer += static_cast<int>(place_.threads)) {
      if (peer == args_.rank) continue;
      const uintptr_t here = counters_here(peer);
      const bool lines = args_.by_lines;
      const uintptr_t received = here + (lines ? kLinesReceivedAt : kRingReceivedAt);
      store<uint64_t>(here + (lines ? kLinesSentAt : kRingSentAt), memory_.sent[peer]);
      if (load<uint64_t>(received) == memory_.received[peer]) continue;
      store<uint64_t>(received, memory_.received[peer]);
      if (lines) store_release(counters_there(peer) + kLineTailAt, memory_.received[peer]);
    }
  }

  COMM_DEVICE_CODE void end() {
    team_.wait();
    if (!first()) return;
    const uintptr_t done = area(args_.rank);
    if (add_one(done) + 1 != args_.lanes) return;
    store<uint32_t>(done, 0);
    store_word(number(args_.ended), args_.number);
  }
  // The areas may be gone.
  COMM_DEVICE_CODE void end_untouched() {
    if (first() && lane_ == 0) store_word(number(args_.ended), args_.number);
  }

  const ExecuteArguments& args_;
  const AreaShape& shape_;
  LaneMemory& memory_;
  Team& team_;
  const Place place_;
  const int lane_;
  uint32_t told_ = 0;
};

}  // namespace libcomm::cuda
