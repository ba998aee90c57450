// The states of an RC queue pair and what each change needs (InfiniBand specification, table 95).
#pragma once

#include "tests/doubles/ibverbs/objects.h"

namespace rdma_double {

int modify(Qp& qp, const ibv_qp_attr& attr, int mask);
void query(const Qp& qp, ibv_qp_attr* attr, ibv_qp_init_attr* init);
const char* state_name(ibv_qp_state state);

}  // namespace rdma_double
