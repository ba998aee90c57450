// Builder: how an algorithm writes one rank's schedule, so that it reads as its numbered steps.
//
//   Builder b("ring", request, rank, /*chunks_per_block=*/nranks);
//   b.send(next, in(rank));
//   b.repeat(nranks - 2, [&] { b.recv_reduce_send(prev, in(rank - 1, -1), out(rank - 1, -1), next);
//   });
//   ...
//   return b.finish();
//
// Chunks and peers may be given out of range; they are taken modulo their number. A step is
// returned by reference so that it can be marked: b.recv_reduce(...).final = true. The reference is
// good until the next step is written.
#pragma once

#include <span>

#include "src/schedule/schedule.h"

namespace libcomm {

inline Ref in(int chunk, int stride = 0) { return {Space::kIn, 0, chunk, stride}; }
inline Ref out(int chunk, int stride = 0) { return {Space::kOut, 0, chunk, stride}; }
inline Ref scratch(int bank, int chunk, int stride = 0) {
  return {Space::kScratch, static_cast<uint8_t>(bank), chunk, stride};
}
// The dst of a fused step whose result is only passed on.
inline Ref nowhere() { return {}; }

// A rank, or inside a repeat the rank of round 0 and the stride.
struct Peer {
  Peer(int rank_, int stride_ = 0) : rank(rank_), stride(stride_) {}  // NOLINT: implicit on purpose
  int rank;
  int stride;
};

// value modulo n, in 0..n-1.
inline int modulo(int64_t value, int n) {
  const int64_t rest = value % n;
  return static_cast<int>(rest < 0 ? rest + n : rest);
}

class Builder {
 public:
  Builder(const char* algorithm, const ScheduleRequest& request, int rank, int chunks_per_block);

  // The steps that follow belong to lane `index`.
  void lane(int index);

  Step& send(Peer to, Ref src, int count = 1);
  Step& recv(Peer from, Ref dst, int count = 1);
  Step& recv_reduce(Peer from, Ref src, Ref dst, int count = 1);
  Step& recv_reduce_send(Peer from, Ref src, Ref dst, int to, int count = 1);
  Step& recv_copy_send(Peer from, Ref dst, int to, int count = 1);
  Step& copy(Ref src, Ref dst, int count = 1);
  Step& reduce(Ref dst, std::span<const Ref> operands, int count = 1);

  // What `body` writes is done `times` times. Nothing is written when times <= 0; a repeat of one
  // round is written plainly. Not nested.
  template <typename Body>
  void repeat(int times, Body&& body) {
    if (times <= 0) return;
    const size_t head = begin_repeat();
    body();
    end_repeat(head, times);
  }

  void mark_fused(Fused fused) { schedule_.fused = fused; }

  // Some rank's schedule has runs of several chunks. Said on all ranks alike, also by one that
  // happens to have none: they must agree on the number of slices.
  void has_runs() { schedule_.sliceable = false; }

  // Counts the scratch banks and fuses receives with the sends that follow.
  Schedule finish();

 private:
  Step& add(Step step);
  Ref normalised(Ref ref) const;
  size_t begin_repeat();
  void end_repeat(size_t head, int times);

  Schedule schedule_;
  size_t lane_ = 0;
};

// Does the collective combine contributions?
bool is_reducing(Collective collective);
// Does it have block sizes that differ by rank?
bool has_size_table(Collective collective);

// The whole collective on one rank: a copy, marked final if the collective reduces.
Schedule single_rank(const char* algorithm, const ScheduleRequest& request);

}  // namespace libcomm
