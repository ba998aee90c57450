// commBroadcast: every rank gets the root's buffer.
#include "benchmarks/harness/collective.h"

using namespace bench;

int main(int argc, char** argv) {
  Collective broadcast{"broadcast_perf"};
  broadcast.rooted = true;
  broadcast.shape = whole_shape;
  broadcast.result = [](const Shape& shape, int, int, int root) {
    return std::vector<Piece>{{0, shape.recv, root, 0}};
  };
  broadcast.run = [](const Call& call) {
    return commBroadcast(call.send, call.recv, call.count, call.type, call.root, call.comm,
                         call.stream);
  };
  broadcast.bus_factor = whole_factor;
  return perf_main(argc, argv, broadcast);
}
