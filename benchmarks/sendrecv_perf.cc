// commSend and commRecv. Every rank sends to the next one and receives from the one before, in one
// group; with --one_way, even ranks only send to the next rank and odd ranks only receive. Send and
// receive buffers must differ, so there is no in-place form.
#include "benchmarks/harness/collective.h"

using namespace bench;

namespace {

// One group, whatever the calls inside answer.
commResult_t exchange_with_neighbours(const Call& call) {
  const int next = (call.rank + 1) % call.nranks;
  const int previous = (call.rank + call.nranks - 1) % call.nranks;
  if (const commResult_t result = commGroupStart(); result != commSuccess) return result;
  const commResult_t sent =
      commSend(call.send, call.count, call.type, next, call.comm, call.stream);
  const commResult_t received =
      commRecv(call.recv, call.count, call.type, previous, call.comm, call.stream);
  const commResult_t ended = commGroupEnd();
  if (sent != commSuccess) return sent;
  return received != commSuccess ? received : ended;
}

commResult_t send_or_receive(const Call& call) {
  if (call.rank % 2 == 1) {
    return commRecv(call.recv, call.count, call.type, call.rank - 1, call.comm, call.stream);
  }
  if (call.rank + 1 == call.nranks) return commSuccess;  // an odd number of ranks leaves one idle
  return commSend(call.send, call.count, call.type, call.rank + 1, call.comm, call.stream);
}

}  // namespace

int main(int argc, char** argv) {
  Collective sendrecv{"sendrecv_perf"};
  sendrecv.in_place = false;
  sendrecv.shape = whole_shape;
  sendrecv.bus_factor = whole_factor;
  sendrecv.run = exchange_with_neighbours;
  sendrecv.result = [](const Shape& shape, int rank, int nranks, int) {
    return std::vector<Piece>{{0, shape.recv, (rank + nranks - 1) % nranks, 0}};
  };
  Collective one_way = sendrecv;
  one_way.run = send_or_receive;
  one_way.result = [](const Shape& shape, int rank, int, int) {
    if (rank % 2 == 0) return std::vector<Piece>{};
    return std::vector<Piece>{{0, shape.recv, rank - 1, 0}};
  };
  sendrecv.one_way = &one_way;
  return perf_main(argc, argv, sendrecv);
}
