// commScatter: every rank gets its block of the root's buffer. The size of a row is that of the
// root's buffer.
#include "benchmarks/harness/collective.h"

using namespace bench;

int main(int argc, char** argv) {
  Collective scatter{"scatter_perf"};
  scatter.rooted = true;
  scatter.shape = [](size_t count, size_t nranks, size_t element_size) {
    const size_t block = block_count(count, nranks, element_size);
    return Shape{block * nranks, block, block, 0, block};
  };
  scatter.result = [](const Shape& shape, int rank, int, int root) {
    return std::vector<Piece>{{0, shape.recv, root, static_cast<size_t>(rank) * shape.count}};
  };
  scatter.run = [](const Call& call) {
    return commScatter(call.send, call.recv, call.count, call.type, call.root, call.comm,
                       call.stream);
  };
  scatter.bus_factor = others_factor;
  return perf_main(argc, argv, scatter);
}
