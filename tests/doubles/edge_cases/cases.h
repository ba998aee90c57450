// The edge cases of RC verbs on which the double and a kernel's Soft-RoCE must agree. Each sets up
// what it needs, does one thing, and says in words what came of it.
#pragma once

#include <infiniband/verbs.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/doubles/endpoint.h"

namespace libcomm::test {

struct EdgeCase {
  std::string name;
  std::function<std::string()> run;
};

// Additions to the list, one per file.
void add_transfer_cases(std::vector<EdgeCase>* cases);
void add_refusal_cases(std::vector<EdgeCase>* cases);
void add_state_cases(std::vector<EdgeCase>* cases);
void add_queue_cases(std::vector<EdgeCase>* cases);

// Options whose timeouts leave a slow machine room.
EndpointOptions patient();

// "success", "remote access error", ... or "nothing" if none comes.
std::string words(ibv_wc_status status);
std::string words(ibv_qp_state state);
std::string next(Endpoint& endpoint);
// "success" or the name of the error code.
std::string code(int result);

}  // namespace libcomm::test
