// commAllGather: every rank gets all ranks' blocks. The size of a row is that of the gathered
// buffer.
#include "benchmarks/harness/collective.h"

using namespace bench;

int main(int argc, char** argv) {
  Collective all_gather{"all_gather_perf"};
  all_gather.shape = [](size_t count, size_t nranks, size_t element_size) {
    const size_t block = block_count(count, nranks, element_size);
    return Shape{block, block * nranks, block, block, 0};
  };
  all_gather.result = [](const Shape& shape, int, int nranks, int) {
    std::vector<Piece> pieces;
    for (int rank = 0; rank < nranks; ++rank) {
      pieces.push_back({static_cast<size_t>(rank) * shape.count, shape.count, rank, 0});
    }
    return pieces;
  };
  all_gather.run = [](const Call& call) {
    return commAllGather(call.send, call.recv, call.count, call.type, call.comm, call.stream);
  };
  all_gather.bus_factor = others_factor;
  return perf_main(argc, argv, all_gather);
}
