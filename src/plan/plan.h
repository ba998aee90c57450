// Plan: how one kind of call is carried out. Made once per (collective, count, type, operator,
// root) and kept by the communicator, so that a repeated call costs one look-up.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "src/execute/layout.h"
#include "src/execute/oneshot.h"
#include "src/reduce/reduce.h"
#include "src/schedule/schedule.h"

namespace libcomm {

enum class Route {
  kLocal,      // one rank: a copy at most
  kOneshot,    // fused, through the board
  kReduction,  // fused, through the board, by windows
  kCopy,       // fused, through the board, by windows
  kSchedule,   // the interpreter over channels
};
const char* name_of(Route route);

struct Plan {
  Route route = Route::kLocal;
  std::string algorithm;
  std::string reason;  // why this one, for COMM_DEBUG=INFO
  ReduceKernel kernel = nullptr;
  OneshotCall oneshot;  // kOneshot
  size_t window = 0;    // kReduction, kCopy
  // Of a one-shot, when BoardState::reachable has it.
  std::optional<Route> in_place;
  // kSchedule
  Schedule schedule;
  std::unique_ptr<Layout> layout;
  int slices = 1;
  size_t segment_bytes = 0;
  size_t scratch_bytes = 0;
  double estimated_us = 0;  // by the cost model
};

}  // namespace libcomm
