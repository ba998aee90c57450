// Completion queues and their events.
#pragma once

#include "tests/doubles/ibverbs/objects.h"

namespace rdma_double {

void complete(Cq& cq, Completion completion, bool solicited);
int poll(Cq& cq, int entries, ibv_wc* out);
// Forgets what a destroyed or reset queue pair has completed.
void purge(Cq& cq, const Qp& qp);
// Another request that may end in `cq`; a violation if the queue might overrun.
int expect_completion(Cq& cq, const Qp& qp);

// Events of a destroyed queue pair that nobody got.
void forget_events(const Qp& qp);

}  // namespace rdma_double
