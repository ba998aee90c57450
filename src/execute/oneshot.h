// One-shot exchange: a whole small collective through the board.
//
// Every rank writes what others need into its slot, flag last; waits for the flags of those that it
// needs something from; and takes it. Who needs nothing (the root of a broadcast, the others of a
// reduction) goes on at once. Slots are used in turn: before a rank writes exchange n + k into the
// slot of n it makes sure that all have ended n, which it mostly knows from what it saw of them
// since.
//
// A flag holds a hash of all calls so far, so that ranks that went different ways find out at the
// next exchange, or, before a call that goes another way, by OneshotCheck.
//
// Streams of calls run ahead of those that take: who publishes makes the lines of one of the next
// slots its own before it needs them, and who found what it takes waiting for it fetches what will
// be there for the next call. (A full fence in a call would wait for these lines; see
// src/base/fence.h.) Where all wait for each other, lines that nobody looks at yet are moved down
// to where they are found sooner.
//
// It is the fused form of the algorithm `oneshot`: reductions combine ranks 0, 1, 2, ... in order,
// rounded once.
#pragma once

#include "src/execute/board_layout.h"
#include "src/execute/execution.h"
#include "src/execute/operation.h"
#include "src/reduce/reduce.h"

namespace libcomm {

// Bytes that one rank has to publish; the exchange applies when it is at most kOneshotBytes.
size_t oneshot_bytes(const Operation& operation, int nranks);
// Does the exchange know this collective?
bool oneshot_knows(Collective collective);

// What calls that repeat each other have in common. The group is the board's: index and rank are
// the same.
struct OneshotCall {
  Signature signature;  // but for the number
  uint64_t kind = 0;    // a hash of it
  Collective collective = Collective::kBarrier;
  bool publishes = false;   // this rank's data, which others need
  bool root_alone = false;  // only the root publishes any
  bool to_root = false;     // only the root needs any
  bool one_way = false;     // either of the two
  bool awaits_all = true;   // this rank needs something from every other
  bool awaits_root = false;
  int root = 0;
  size_t count = 0;
  size_t block_bytes = 0;
  size_t bytes = 0;             // published by one rank
  int lines = 1;                // that carry flags, and that a rank looks at
  bool has_lines_each = false;  // each other rank looks at lines of its own, with its block
  size_t bulk_writers = 1;      // ranks that publish when it lies in the bulk
  // All ranks are told whether the buffers of all could be reached where they are: the next call
  // may go another way. The planner's.
  bool tells_reach = false;
  ReduceKernel kernel = nullptr;
  int divisor = 1;

  static OneshotCall of(const Operation& operation, ReduceKernel kernel, int rank, int nranks);
};

// The board as an exchange needs it at every call.
struct BoardView {
  Board* board = nullptr;
  BoardState* state = nullptr;
  std::byte* const* parts = nullptr;
  int me = 0;
  int n = 1;
  bool share_cores = false;  // more ranks on the host than cores: wake-ups must not be lost
  bool one_process = false;  // all ranks may use each other's memory
};

class Oneshot final : public Execution {
 public:
  // `call` outlives the exchange; `number` is the operation's.
  Oneshot(const BoardView& view, const OneshotCall& call, uint64_t number, const void* in,
          void* out);
  Status advance(Progress* progress) override;
  void awaited_peers(std::vector<int>* peers) const override {
    if (next_peer_ < view_.n)
      peers->push_back(view_.board->ranks()[static_cast<size_t>(next_peer_)]);
  }
  // Goes as far as it can, looking so many times in vain; true when that was to the end.
  bool finish_within(int looks);

 private:
  enum class Peers { kHere, kAwaited, kElsewhere };

  bool may_publish();
  void publish();
  void write_lines(OneshotSlot::Line* lines, const std::byte* from, size_t bytes);
  void own_soon();
  void expect_next();
  Peers look();
  Peers look_at(int index);
  void end();
  bool is_reachable() const;
  bool all_reachable() const;
  bool publishes(int index) const { return !call_.root_alone || index == call_.root; }
  // How many lines of rank `index` tell that what this rank needs is there.
  int lines_of(int index) const { return publishes(index) ? call_.lines : 1; }
  // The first of them, in a slot of rank `from` that rank `to` looks at.
  int first_line(int from, int to) const {
    return call_.has_lines_each && publishes(from) ? (to < from ? to : to - 1) * call_.lines : 0;
  }
  // How many lines rank `index` writes.
  int lines_written_by(int index) const {
    return lines_of(index) * (call_.has_lines_each && publishes(index) ? view_.n - 1 : 1);
  }
  void take();
  void take_from_all();
  OneshotSlot& slot_of(int index) const { return oneshot_slot(view_.parts[index], exchange_); }
  std::byte* bulk_of(int index) const { return oneshot_bulk(view_.parts[index], bulk_.begin); }
  // Where what rank `index` has for this one is, in one piece; `room` for putting it together.
  const std::byte* data_of(int index, std::byte* room) const;

  const BoardView& view_;
  const OneshotCall& call_;
  const uint64_t number_;
  const uint64_t exchange_;
  const uint64_t flag_;
  const BulkPlaces::Place bulk_;
  const std::byte* in_;
  std::byte* out_;
  uint64_t needed_ = 0;  // exchanges that all others must have ended before this rank publishes
  int next_peer_ = 0;    // all before it are here
  int next_line_ = 0;    // of its
  bool published_ = false;
  bool held_up_ = false;  // there was no free slot
};

// A slow look, while `current` waits: has a rank made another call in its place, needed nothing of
// the others for it, and gone on? That call is the exchange that this rank is in, or where this one
// goes by windows, its next.
Status check_passed_by(const BoardView& view, const Signature& current);

// Before an operation that does not go through the slots: have all ranks made the same one-shot
// calls? kDone when they have, kStuck while one, *awaited, is not as far.
Status check_oneshots(const BoardView& view, Progress* progress, int* awaited);

}  // namespace libcomm
