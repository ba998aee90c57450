#include "src/execute/elbow_room.h"

#include <sched.h>

namespace libcomm {
namespace {

// A peer may be on its way elsewhere: only who finds it here again and again moves.
constexpr unsigned kLooksPerMove = 8;

void move_away(const Board& board, int here) {
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t wanted = allowed;
  CPU_CLR(static_cast<size_t>(here), &wanted);
  for (int i = 0; i < static_cast<int>(board.ranks().size()); ++i)
    if (const int core = board.core_of(i); core >= 0) CPU_CLR(static_cast<size_t>(core), &wanted);
  if (CPU_COUNT(&wanted) == 0) return;
  if (::sched_setaffinity(0, sizeof wanted, &wanted) == 0)
    (void)::sched_setaffinity(0, sizeof allowed, &allowed);
}

}  // namespace

void make_elbow_room(Board& board, Crowding* crowding) {
  const int here = board.note_core();
  int met = -1;
  for (int i = 0; i < static_cast<int>(board.ranks().size()) && met < 0; ++i)
    if (i != board.index() && board.core_of(i) == here) met = i;
  if (met < 0) return;
  if (++crowding->looks % kLooksPerMove == 0 && met < board.index())
    move_away(board, here);
  else
    ::sched_yield();
}

}  // namespace libcomm
