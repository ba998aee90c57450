// The root: the server of a rendezvous.
//
// Every rank of a group (or of one part of it, when a group has several ids) reports once and gets
// one answer when all have come: which rank is its parent in the tree over which the group
// assembles itself (tree.h), and where that parent listens. The root does nothing else, so its work
// per rank does not depend on their number. It is told apart from the ranks: it may live in a
// process that is no rank.
//
// Until a rank has said that its group stands, the root keeps the connection and tells the others
// when that rank goes away: before the overlay exists, nobody else could notice. It speaks in
// news.h's form.
//
// With several ids, root i serves part i of the ranks; the first rank of each part then reports a
// second time, as a leader, to root 0.
#pragma once

#include <functional>
#include <optional>

#include "src/base/knobs.h"
#include "src/bootstrap/handshake.h"
#include "src/bootstrap/socket.h"
#include "src/bootstrap/wait.h"

namespace libcomm {

// Most ranks that a group may have.
constexpr uint32_t kMaxRanks = 1u << 20;
constexpr uint32_t kNoRank = ~0u;

// A process that was given rank 0 too, and found another root where it was to serve: where that
// one's rank 0 has reported or does, all are told. A root that waits for nobody hangs up.
constexpr uint32_t kRivalStage = 2;

// What a rank tells the root. Its rank is in the handshake's Hello.
struct ReportWire {
  uint32_t nranks;
  uint32_t part;  // which id's root this is
  uint32_t nparts;
  uint32_t stage;  // 0: as a member of its part; 1: as its part's leader; or kRivalStage
  EndpointWire endpoint;
};
static_assert(sizeof(ReportWire) == 100);

// The answer; `text_bytes` of text follow when code is not 0.
struct AnswerWire {
  uint32_t code;  // a libcomm::Code
  uint32_t text_bytes;
  uint32_t parent;  // kNoRank: this rank has none (in this stage)
  EndpointWire parent_endpoint;
};
static_assert(sizeof(AnswerWire) == 96);
constexpr uint32_t kMaxAnswerText = 1024;

struct Answer {
  uint32_t parent = kNoRank;
  Endpoint endpoint;
  UniqueFd
      root;  // the connection, on which the root may still have news; see Monitor::follow_root()
};

// Starts a thread that serves `key` on `listeners` until every rank has its answer, nobody has come
// for `timeout` seconds since the last one (0: no limit), or the process exits. Ranks that are
// missing when almost all of `timeout` has passed since the first came fail the group, with their
// names. A failure is told to those who come up to a few seconds after it. `is_reused`: the next
// group may meet at the same address, so this root lets nobody in who comes after the last.
Status serve_root(Listeners listeners, const Key& key, double timeout, bool is_reused = false);

// Why the root of this key failed, if it did so lately and in this process. A process that has no
// descriptors left cannot let its own ranks in to tell them.
std::optional<Status> failure_of_root_here(const Key& key);

// Reports to a root and waits for the answer. `fd` comes from dial(). `outdated`, when given, is
// asked a few times a second whether this root is the wrong one by now; then the result is
// kInProgress. kSystem: the root went away, or the limits; else what the root says.
Result<Answer> report_to_root(UniqueFd fd, const ReportWire& report, const WaitLimits& limits,
                              const std::function<bool()>& outdated);

// Part of a rank and first rank of a part when nranks are dealt to nparts contiguous parts.
uint32_t part_of(uint32_t rank, uint32_t nranks, uint32_t nparts);
uint32_t part_begin(uint32_t part, uint32_t nranks, uint32_t nparts);

}  // namespace libcomm
