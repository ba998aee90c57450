// What transports share: texts for mismatched calls, and receive_into for channels without a direct
// path.
#include "transports/transport.h"

#include <cstring>
#include <string_view>

#include "src/reduce/types.h"

namespace libcomm {
namespace {

// What a call's text holds, per Collective in its enum's order. The names are schedule.h's, which
// is above this layer; tests/transports/signature_test.cc checks that the two agree.
struct CallForm {
  const char* name;
  bool has_count;
  bool has_table;  // counts that differ by rank, known here by their hash
  bool has_operator;
  bool has_root;
};
constexpr CallForm kCallForms[] = {
    {"allreduce", true, false, true, false},   {"reducescatter", true, false, true, false},
    {"allgather", true, false, false, false},  {"broadcast", true, false, false, true},
    {"reduce", true, false, true, true},       {"alltoall", true, false, false, false},
    {"gather", true, false, false, true},      {"scatter", true, false, false, true},
    {"allgatherv", false, true, false, false}, {"reducescatterv", false, true, true, false},
    {"alltoallv", false, false, false, false}, {"barrier", false, false, false, false},
    {"sendrecv", true, false, false, false},
};
constexpr uint8_t kBarrier = 11;
constexpr uint8_t kSendRecv = 12;

std::string text_of_type(uint8_t type) {
  return type < kNumDataTypes ? name_of(static_cast<DataType>(type)) : fmt::format("type {}", type);
}

std::string text_of_operator(uint8_t redop) {
  if ((redop & 0x80) != 0) return "avg";
  if ((redop & 0x40) != 0) return "premulsum";
  return redop < kNumReduceOps ? name_of(static_cast<ReduceOp>(redop))
                               : fmt::format("operator {}", redop);
}

std::string text_of_rank(int rank, std::string_view otherwise) {
  return rank >= 0 ? fmt::format("rank {}", rank) : std::string(otherwise);
}

}  // namespace

std::string describe(const Signature& signature) {
  if (signature.collective >= std::size(kCallForms)) {
    return fmt::format("collective {}(count {})", signature.collective, signature.count);
  }
  const bool in_place = signature.table_hash == kGpuMeeting;  // GPU memory
  if (in_place && signature.collective != kSendRecv) return "a collective on GPU memory";
  const CallForm& form = kCallForms[signature.collective];
  if (signature.collective == kBarrier) return fmt::format("{}()", form.name);

  std::string arguments;
  if (form.has_count) arguments += fmt::format("count {}, ", signature.count);
  if (form.has_table) arguments += fmt::format("counts with hash {:016x}, ", signature.table_hash);
  arguments += text_of_type(signature.type);
  if (form.has_operator) arguments += ", " + text_of_operator(signature.redop);
  if (form.has_root) arguments += fmt::format(", root {}", signature.root);
  const bool on_gpu = in_place || (!form.has_table && signature.table_hash == kGpuKernels);
  if (signature.merged == 0)
    return fmt::format("{}({}){}", form.name, arguments, on_gpu ? " of GPU memory" : "");
  return fmt::format("{} calls of a group, {}({})", signature.merged, form.name, arguments);
}

Status mismatch(int my_rank, const Signature& mine, size_t my_bytes, int peer_rank,
                const Signature& theirs, size_t their_bytes) {
  const std::string me = text_of_rank(my_rank, "this rank");
  const std::string peer = text_of_rank(peer_rank, "its peer");
  std::string text = fmt::format("{} called {} as operation {}", me, describe(mine), mine.op);
  if (mine == theirs) {
    text += fmt::format(
        " and expects {} bytes, but {} sent {} bytes; what one rank sends must be what the other "
        "expects",
        my_bytes, peer, their_bytes);
  } else {
    text += fmt::format(", but {} called {}", peer, describe(theirs));
    if (theirs.op != mine.op) text += fmt::format(" as operation {}", theirs.op);
    text += mine.collective == kSendRecv && theirs.collective == kSendRecv
                ? "; what one rank sends must be what the other expects"
                : "; all ranks must make the same calls in the same order";
  }
  return Status(Code::kInvalidUsage, std::move(text))
      .at_rank(my_rank)
      .with_peer(peer_rank)
      .in_op(mine.op);
}

Status SendChannel::post(const Signature&, const void*, size_t, bool* accepted) {
  *accepted = false;
  return error(Code::kInternal, "this channel has no direct send: ask capabilities() first");
}

Status RecvChannel::receive_into(const Signature& expected, void* dst, size_t bytes, bool* done) {
  *done = false;
  Segment segment;
  COMM_TRY(peek(&segment));
  if (!segment.ready) return Status::ok();
  if (segment.signature != expected || segment.bytes != bytes) {
    return mismatch(rank(), expected, bytes, peer(), segment.signature, segment.bytes);
  }
  if (bytes > 0) std::memcpy(dst, segment.data, bytes);
  COMM_TRY(release());
  *done = true;
  return Status::ok();
}

}  // namespace libcomm
