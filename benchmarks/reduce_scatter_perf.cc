// commReduceScatter: every rank gets its block of the reduction. The size of a row is that of the
// buffer before it is scattered.
#include "benchmarks/harness/collective.h"

using namespace bench;

int main(int argc, char** argv) {
  Collective reduce_scatter{"reduce_scatter_perf"};
  reduce_scatter.reduces = true;
  reduce_scatter.shape = [](size_t count, size_t nranks, size_t element_size) {
    const size_t block = block_count(count, nranks, element_size);
    return Shape{block * nranks, block, block, 0, block};
  };
  reduce_scatter.result = [](const Shape& shape, int rank, int, int) {
    return std::vector<Piece>{{0, shape.recv, kReduced, static_cast<size_t>(rank) * shape.count}};
  };
  reduce_scatter.run = [](const Call& call) {
    return commReduceScatter(call.send, call.recv, call.count, call.type, call.op, call.comm,
                             call.stream);
  };
  reduce_scatter.bus_factor = others_factor;
  return perf_main(argc, argv, reduce_scatter);
}
