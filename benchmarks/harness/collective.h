// What makes one benchmark different from the next: a description of its collective.
//
// Sizes follow nccl-tests: a row's size is the larger buffer of a rank, and collectives that deal
// in blocks give every rank the same number of whole 16-byte units.
#pragma once

#include <comm.h>

#include <cstddef>
#include <vector>

namespace bench {

// Elements of one call.
struct Shape {
  size_t send = 0;   // in the send buffer
  size_t recv = 0;   // in the receive buffer
  size_t count = 0;  // the call's count argument
  // In place, both buffers are one: rank r's send data starts at r * send_offset and its result at
  // r * recv_offset.
  size_t send_offset = 0;
  size_t recv_offset = 0;
};

struct Call {
  const void* send;
  void* recv;
  size_t count;
  commDataType_t type;
  commRedOp_t op;
  int root;
  comm_t comm;
  int rank;
  int nranks;
  cudaStream_t stream;
};

// A piece of a receive buffer and where its contents come from.
struct Piece {
  size_t offset;  // in the receive buffer, elements
  size_t count;
  int source;    // rank whose send buffer is copied; kReduced: the reduction over all ranks
  size_t first;  // first element of that
};
inline constexpr int kReduced = -1;

struct Collective {
  const char* program;
  bool reduces = false;
  bool rooted = false;
  bool in_place = true;

  // The call for at most `count` elements in the larger buffer.
  Shape (*shape)(size_t count, size_t nranks, size_t element_size) = nullptr;
  // What rank holds afterwards; empty where it receives nothing.
  std::vector<Piece> (*result)(const Shape& shape, int rank, int nranks, int root) = nullptr;
  commResult_t (*run)(const Call& call) = nullptr;
  // busbw / algbw: the share of the data that each rank's link must carry (nccl-tests'
  // doc/PERFORMANCE.md derives the factors).
  double (*bus_factor)(int nranks) = nullptr;
  // What --one_way runs instead; null: the flag is refused.
  const Collective* one_way = nullptr;
};

// ---- Parts that several descriptions share

// Both buffers hold all elements.
inline Shape whole_shape(size_t count, size_t, size_t) { return {count, count, count, 0, 0}; }

// Elements per rank so that every block starts at a multiple of 16 bytes.
inline size_t block_count(size_t count, size_t nranks, size_t element_size) {
  const size_t unit = 16 / element_size;
  return count / nranks / unit * unit;
}

inline double whole_factor(int) { return 1; }
inline double others_factor(int nranks) { return static_cast<double>(nranks - 1) / nranks; }

// Parses the command line and runs the benchmark. The exit status is 0 only when every value was
// right.
int perf_main(int argc, char** argv, const Collective& collective);

}  // namespace bench
