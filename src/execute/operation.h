// Operation: one call of the C API, resolved: what is to be done with which memory.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "src/reduce/types.h"
#include "src/schedule/schedule.h"
#include "transports/transport.h"

namespace libcomm {

// Block sizes and places of a v-variant, in elements, one entry per block.
struct BlockTable {
  std::vector<size_t> counts;
  std::vector<size_t> displs;
  bool empty() const { return counts.empty(); }
  bool operator==(const BlockTable&) const = default;
};

inline const BlockTable kNoTable;

struct BlockTables {
  BlockTable in;
  BlockTable out;
  bool operator==(const BlockTables&) const = default;
};

struct Operation {
  Collective collective = Collective::kAllReduce;
  DataType type = DataType::kFloat32;
  ReduceOp op = ReduceOp::kSum;
  bool average = false;      // divide the result by the number of ranks
  bool premultiply = false;  // multiply this rank's input by `scalar` first
  int root = 0;              // kSendRecv: the peer
  bool is_send = false;      // kSendRecv: direction
  size_t count = 0;          // elements per block; the v-variants use the tables
  const void* in = nullptr;
  void* out = nullptr;
  std::array<unsigned char, 8> scalar{};  // one element of `type`
  // Where the scalar is in GPU or pinned memory: read when the stream comes to the operation,
  // instead of `scalar`.
  const void* gpu_scalar = nullptr;
  bool on_gpu = false;  // its buffers are GPU memory, which the host must not touch
  // Of the v-variants; null for the others, which are many and small and must be cheap to make.
  std::shared_ptr<const BlockTables> tables;
  uint64_t table_hash = 0;
  // How many calls of a group this one stands for; 0: it is the caller's. Then table_hash is of
  // their counts.
  size_t merged = 0;

  const BlockTable& in_table() const { return tables ? tables->in : kNoTable; }
  const BlockTable& out_table() const { return tables ? tables->out : kNoTable; }
};

// What travels with the bytes. `number` counts operations from 1.
Signature signature_of(const Operation& operation, uint64_t number);

}  // namespace libcomm
