// commReduce: the root gets the reduction of all ranks' buffers.
#include "benchmarks/harness/collective.h"

using namespace bench;

int main(int argc, char** argv) {
  Collective reduce{"reduce_perf"};
  reduce.reduces = true;
  reduce.rooted = true;
  reduce.shape = whole_shape;
  reduce.result = [](const Shape& shape, int rank, int, int root) {
    if (rank != root) return std::vector<Piece>{};
    return std::vector<Piece>{{0, shape.recv, kReduced, 0}};
  };
  reduce.run = [](const Call& call) {
    return commReduce(call.send, call.recv, call.count, call.type, call.op, call.root, call.comm,
                      call.stream);
  };
  reduce.bus_factor = whole_factor;
  return perf_main(argc, argv, reduce);
}
