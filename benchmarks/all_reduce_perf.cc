// commAllReduce: every rank gets the reduction of all ranks' buffers.
#include "benchmarks/harness/collective.h"

using namespace bench;

int main(int argc, char** argv) {
  Collective all_reduce{"all_reduce_perf"};
  all_reduce.reduces = true;
  all_reduce.shape = whole_shape;
  all_reduce.result = [](const Shape& shape, int, int, int) {
    return std::vector<Piece>{{0, shape.recv, kReduced, 0}};
  };
  all_reduce.run = [](const Call& call) {
    return commAllReduce(call.send, call.recv, call.count, call.type, call.op, call.comm,
                         call.stream);
  };
  // Every element is received and sent on by all but one rank, twice.
  all_reduce.bus_factor = [](int nranks) { return 2 * others_factor(nranks); };
  return perf_main(argc, argv, all_reduce);
}
