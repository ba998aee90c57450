#include "src/execute/operation.h"

#include <algorithm>

namespace libcomm {

Signature signature_of(const Operation& operation, uint64_t number) {
  Signature signature;
  signature.op = number;
  signature.count = operation.count;
  signature.table_hash = operation.table_hash;
  signature.merged = static_cast<uint8_t>(std::min<size_t>(operation.merged, 255));
  signature.collective = static_cast<uint8_t>(operation.collective);
  signature.type = static_cast<uint8_t>(operation.type);
  switch (operation.collective) {
    case Collective::kBroadcast:
    case Collective::kReduce:
    case Collective::kGather:
    case Collective::kScatter:
      signature.root = operation.root;
      break;
    default:
      break;
  }
  switch (operation.collective) {
    case Collective::kAllReduce:
    case Collective::kReduce:
    case Collective::kReduceScatter:
    case Collective::kReduceScatterV:
      signature.redop =
          static_cast<uint8_t>(static_cast<uint8_t>(operation.op) | (operation.average ? 0x80 : 0) |
                               (operation.premultiply && !operation.average ? 0x40 : 0));
      break;
    default:
      break;
  }
  return signature;
}

}  // namespace libcomm
