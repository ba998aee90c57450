// commGather: the root gets all ranks' blocks. The size of a row is that of the gathered buffer.
#include "benchmarks/harness/collective.h"

using namespace bench;

int main(int argc, char** argv) {
  Collective gather{"gather_perf"};
  gather.rooted = true;
  gather.shape = [](size_t count, size_t nranks, size_t element_size) {
    const size_t block = block_count(count, nranks, element_size);
    return Shape{block, block * nranks, block, block, 0};
  };
  gather.result = [](const Shape& shape, int rank, int nranks, int root) {
    std::vector<Piece> pieces;
    for (int source = 0; rank == root && source < nranks; ++source) {
      pieces.push_back({static_cast<size_t>(source) * shape.count, shape.count, source, 0});
    }
    return pieces;
  };
  gather.run = [](const Call& call) {
    return commGather(call.send, call.recv, call.count, call.type, call.root, call.comm,
                      call.stream);
  };
  gather.bus_factor = others_factor;
  return perf_main(argc, argv, gather);
}
