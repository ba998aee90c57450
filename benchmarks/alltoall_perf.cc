// commAlltoAll: block j of every rank goes to rank j. There is no in-place form.
#include "benchmarks/harness/collective.h"

using namespace bench;

int main(int argc, char** argv) {
  Collective alltoall{"alltoall_perf"};
  alltoall.in_place = false;
  alltoall.shape = [](size_t count, size_t nranks, size_t element_size) {
    const size_t block = block_count(count, nranks, element_size);
    return Shape{block * nranks, block * nranks, block, 0, 0};
  };
  alltoall.result = [](const Shape& shape, int rank, int nranks, int) {
    std::vector<Piece> pieces;
    for (int source = 0; source < nranks; ++source) {
      pieces.push_back({static_cast<size_t>(source) * shape.count, shape.count, source,
                        static_cast<size_t>(rank) * shape.count});
    }
    return pieces;
  };
  alltoall.run = [](const Call& call) {
    return commAlltoAll(call.send, call.recv, call.count, call.type, call.comm, call.stream);
  };
  alltoall.bus_factor = others_factor;
  return perf_main(argc, argv, alltoall);
}
