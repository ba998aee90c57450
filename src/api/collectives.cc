// The collectives and point-to-point calls of the C API: arguments in, an Operation out.
#include <cstring>
#include <numeric>

#include "src/api/check.h"
#include "src/api/errors.h"
#include "src/api/group.h"
#include "src/api/handle.h"
#include "src/api/placement.h"
#include "src/base/log.h"
#include "src/device/scopes.h"
#include "src/execute/p2p.h"
#include "src/execute/staging.h"

namespace libcomm {
namespace {

// What a group of one does with it: nothing but a copy.
bool is_plain_copy(const Operation& operation) {
  return !operation.premultiply && operation.collective != Collective::kSendRecv;
}

// On the GPU, without memory of ours: nothing waits for anybody, in a group either.
Status copy_alone(const Operation& operation, const Placement& placement) {
  const cuda::Driver& driver = *cuda::Driver::found();
  const cuda::ContextScope scope(driver, placement.gpu.context);
  COMM_TRY(scope.status());
  const StagedCopy copy = lone_copy(operation);
  if (copy.bytes == 0 || copy.to == copy.from) return Status::ok();
  return driver.check(driver.copy_async(cuda::number_of(copy.to), cuda::number_of(copy.from),
                                        copy.bytes, placement.cuda_stream),
                      "copying sendbuff to recvbuff");
}

// Runs, queues or gathers a checked operation.
Status issue(comm* handle, Operation&& operation, cudaStream_t stream) {
  Communicator& communicator = *handle->communicator;
  COMM_ASSIGN(Placement placement, place(communicator, &operation, stream));
  COMM_TRY(communicator.check_usable());
  if (log_wants(LogLevel::kTrace, Subsys::kCall))  // describing it costs more than a small call
    log_trace(Subsys::kCall, "rank {}: {} of {} into {}{}{}{}", communicator.rank(),
              describe(signature_of(operation, 0)), operation.in, operation.out,
              operation.on_gpu ? ", GPU memory" : "", stream == nullptr ? "" : ", on a stream",
              in_group() ? ", in a group" : "");
  if (communicator.nranks() == 1 && operation.on_gpu && is_plain_copy(operation))
    return copy_alone(operation, placement);
  if (in_group()) {
    return add_to_group(handle, std::move(operation), std::move(placement));
  }
  COMM_TRY(check_self_messages(communicator.rank(), {&operation, 1}));
  if (placement.on_cuda) {
    COMM_ASSIGN(const auto work, communicator.prepare({&operation, 1}, placement.gpu,
                                                      {placement.cuda_stream}, true));
    return GpuWork::enqueue({&work, 1});
  }
  if (!placement.host_stream && handle->blocking) return communicator.run(operation);
  HostStreams streams;
  if (placement.host_stream) streams.push_back(std::move(placement.host_stream));
  std::vector<Operation> operations;
  operations.push_back(std::move(operation));
  COMM_TRY(communicator.submit(std::move(operations), StreamTurns::take(std::move(streams))));
  if (!handle->blocking) return Status(Code::kInProgress, "queued");
  return Status::ok();
}

// A small call like one before it, of a communicator that this thread has used: false when it is
// none, or when anything about it needs words.
bool quick(comm_t handle, const QuickKey& key, const void* in, void* out, cudaStream_t stream,
           commResult_t* result) {
  if (stream != nullptr || in_group()) return false;
  const QuickUse use(handle);
  if (!use) return false;
  Communicator& communicator = *handle->communicator;
  const QuickCall* call = communicator.find_quick(key);
  if (call == nullptr || !call->accepts(in, out, communicator.checks_buffers())) return false;
  if (!communicator.is_host_memory(in)) return false;
  if (out != in && !communicator.is_host_memory(out)) return false;
  *result = guarded(handle, [&] { return communicator.run_quick(*call, in, out); });
  return true;
}

// A message on host memory that needs no words, alone or in a group of such: false otherwise. Of
// src and dst, the one that `is_send` says is meant. `type` is the caller's.
bool quick(comm_t handle, bool is_send, const void* src, void* dst, size_t count, int type,
           int peer, cudaStream_t stream, commResult_t* result) {
  if (stream != nullptr) return false;
  *result = commSuccess;
  const void* const buffer = is_send ? src : dst;
  // Made where it stays: a copy waits for what has just been stored in parts.
  const auto fill = [&](MessageCall* message) {
    *message = {.peer = peer,
                .is_send = is_send,
                .type = static_cast<DataType>(type),
                .count = count,
                .src = src,
                .dst = dst};
  };
  if (in_group()) {
    MessageCall* const message = add_quick_message(handle, buffer, count, type, peer);
    if (message != nullptr) fill(message);
    return message != nullptr;
  }
  const QuickUse use(handle);
  if (!use || !handle->communicator->is_quick(buffer, count, type, peer)) return false;
  MessageCall message;
  fill(&message);
  *result = guarded(handle, [&] { return handle->communicator->run_quick({&message, 1}); });
  return true;
}

// The part that all calls share: the handle, `fill` for the checks, then off it goes.
template <typename Fill>
commResult_t call(comm_t handle, cudaStream_t stream, Fill&& fill) {
  const auto go_on = [&](comm* known) -> Status {
    Operation operation;
    COMM_TRY(fill(*known->communicator, operation));
    return issue(known, std::move(operation), stream);
  };
  try {
    if (in_group() && group_uses(handle)) {
      return guarded(handle, [&] {
        Status status = go_on(handle);
        note_group_failure(status);
        return status;
      });
    }
    const HandleUse use(handle);
    return guarded(use.for_errors(), [&] {
      Status status = use.status() ? go_on(use.handle()) : use.status();
      if (in_group()) note_group_failure(status);
      return status;
    });
  } catch (const std::exception&) {
    return report_exception();
  }
}

// The same for calls that may repeat one before: `key` is what they ask for, with these buffers.
template <typename Fill>
commResult_t call_or_repeat(comm_t handle, const QuickKey& key, const void* in, void* out,
                            cudaStream_t stream, Fill&& fill) {
  commResult_t result;
  if (quick(handle, key, in, out, stream, &result)) return result;
  return call(handle, stream, std::forward<Fill>(fill));
}

bool checks_buffers(const Communicator& communicator) { return communicator.checks_buffers(); }

size_t ranks_of(const Communicator& communicator) {
  return static_cast<size_t>(communicator.nranks());
}

const char* offset(const void* base, size_t bytes) {
  return static_cast<const char*>(base) + bytes;
}

struct Uniform {
  const void* send;
  void* recv;
  size_t count;
  commDataType_t type;
};

// type, count and pointers of an operation with equal blocks. `most_blocks`: of the larger buffer.
Status fill_uniform(const Uniform& args, Collective collective, size_t most_blocks,
                    Operation* operation) {
  operation->collective = collective;
  COMM_ASSIGN(operation->type, check_type(args.type));
  COMM_TRY(check_count(args.count, most_blocks, operation->type, "count"));
  operation->count = args.count;
  operation->in = args.send;
  operation->out = args.recv;
  return Status::ok();
}

// Both buffers are there and are either the in-place pair or disjoint.
Status check_pair(const Communicator& communicator, const Operation& operation, size_t in_blocks,
                  size_t out_blocks, bool in_place, const char* remedy) {
  if (operation.count == 0) return Status::ok();
  COMM_TRY(check_pointer(operation.in, "sendbuff"));
  COMM_TRY(check_pointer(operation.out, "recvbuff"));
  if (in_place || !checks_buffers(communicator)) return Status::ok();
  const size_t block = operation.count * size_of(operation.type);
  return check_disjoint(operation.in, in_blocks * block, operation.out, out_blocks * block, remedy);
}

constexpr const char* kSameBuffer = "in place means sendbuff == recvbuff";

// FNV-1a over a table that all ranks must share.
uint64_t hash_table(const BlockTable& table) {
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t value : table.counts) h = (h ^ value) * 0x100000001b3u;
  return h;
}

Status fill_table(const size_t counts[], const size_t displs[], size_t n, DataType type,
                  const char* name, const char* displs_name, BlockTable* table) {
  if (counts == nullptr) return error(Code::kInvalidArgument, "{}counts is NULL", name);
  table->counts.assign(counts, counts + n);
  if (displs != nullptr) {
    table->displs.assign(displs, displs + n);
  } else {
    table->displs.resize(n);
    std::exclusive_scan(counts, counts + n, table->displs.begin(), size_t{0});
  }
  for (size_t i = 0; i < n; ++i) {
    // Texts are made for those that fail only: tables are long, and calls many.
    const size_t most = static_cast<size_t>(PTRDIFF_MAX) / size_of(type);
    if (table->counts[i] > most / n)
      return check_count(table->counts[i], n, type, fmt::format("{}counts[{}]", name, i).c_str());
    if (table->displs[i] > most)
      return check_count(table->displs[i], 1, type, fmt::format("{}[{}]", displs_name, i).c_str());
  }
  return Status::ok();
}

size_t total(const BlockTable& table) {
  return std::accumulate(table.counts.begin(), table.counts.end(), size_t{0});
}

// Bytes from the buffer's start to the end of its last block.
size_t reach(const BlockTable& table, DataType type) {
  size_t end = 0;
  for (size_t i = 0; i < table.counts.size(); ++i)
    if (table.counts[i] > 0) end = std::max(end, table.displs[i] + table.counts[i]);
  return end * size_of(type);
}

Status fill_p2p(const Communicator& communicator, const Uniform& args, int peer, bool is_send,
                Operation* operation) {
  COMM_TRY(fill_uniform(args, Collective::kSendRecv, 1, operation));
  COMM_TRY(check_root(peer, communicator, "peer"));
  operation->root = peer;
  operation->is_send = is_send;
  if (operation->count > 0)
    COMM_TRY(check_pointer(is_send ? args.send : args.recv, is_send ? "sendbuff" : "recvbuff"));
  return Status::ok();
}

}  // namespace
}  // namespace libcomm

using namespace libcomm;  // NOLINT: the C API's definitions live in the global namespace

extern "C" {

commResult_t commAllReduce(const void* sendbuff, void* recvbuff, size_t count,
                           commDataType_t datatype, commRedOp_t op, comm_t comm,
                           cudaStream_t stream) {
  return call_or_repeat(comm, QuickKey::of(Collective::kAllReduce, datatype, op, 0, count),
                        sendbuff, recvbuff, stream, [&](Communicator& c, Operation& o) -> Status {
                          COMM_TRY(fill_uniform({sendbuff, recvbuff, count, datatype},
                                                Collective::kAllReduce, 1, &o));
                          COMM_TRY(check_op(op, c, &o));
                          return check_pair(c, o, 1, 1, sendbuff == recvbuff, kSameBuffer);
                        });
}

commResult_t commReduceScatter(const void* sendbuff, void* recvbuff, size_t recvcount,
                               commDataType_t datatype, commRedOp_t op, comm_t comm,
                               cudaStream_t stream) {
  return call_or_repeat(comm, QuickKey::of(Collective::kReduceScatter, datatype, op, 0, recvcount),
                        sendbuff, recvbuff, stream, [&](Communicator& c, Operation& o) -> Status {
                          const size_t n = ranks_of(c);
                          COMM_TRY(fill_uniform({sendbuff, recvbuff, recvcount, datatype},
                                                Collective::kReduceScatter, n, &o));
                          COMM_TRY(check_op(op, c, &o));
                          const size_t block = recvcount * size_of(o.type);
                          return check_pair(
                              c, o, n, 1,
                              recvbuff == offset(sendbuff, static_cast<size_t>(c.rank()) * block),
                              "in place means recvbuff == sendbuff + rank * recvcount");
                        });
}

commResult_t commAllGather(const void* sendbuff, void* recvbuff, size_t sendcount,
                           commDataType_t datatype, comm_t comm, cudaStream_t stream) {
  return call_or_repeat(
      comm, QuickKey::of(Collective::kAllGather, datatype, 0, 0, sendcount), sendbuff, recvbuff,
      stream, [&](Communicator& c, Operation& o) -> Status {
        const size_t n = ranks_of(c);
        COMM_TRY(
            fill_uniform({sendbuff, recvbuff, sendcount, datatype}, Collective::kAllGather, n, &o));
        const size_t block = sendcount * size_of(o.type);
        return check_pair(c, o, 1, n,
                          sendbuff == offset(recvbuff, static_cast<size_t>(c.rank()) * block),
                          "in place means sendbuff == recvbuff + rank * sendcount");
      });
}

commResult_t commBroadcast(const void* sendbuff, void* recvbuff, size_t count,
                           commDataType_t datatype, int root, comm_t comm, cudaStream_t stream) {
  return call_or_repeat(comm, QuickKey::of(Collective::kBroadcast, datatype, 0, root, count),
                        sendbuff, recvbuff, stream, [&](Communicator& c, Operation& o) -> Status {
                          COMM_TRY(fill_uniform({sendbuff, recvbuff, count, datatype},
                                                Collective::kBroadcast, 1, &o));
                          COMM_TRY(check_root(root, c, "root"));
                          o.root = root;
                          if (c.rank() != root) {
                            o.in = recvbuff;  // not read
                            return check_pair(c, o, 1, 1, true, kSameBuffer);
                          }
                          return check_pair(c, o, 1, 1, sendbuff == recvbuff, kSameBuffer);
                        });
}

commResult_t commBcast(void* buff, size_t count, commDataType_t datatype, int root, comm_t comm,
                       cudaStream_t stream) {
  return commBroadcast(buff, buff, count, datatype, root, comm, stream);
}

commResult_t commReduce(const void* sendbuff, void* recvbuff, size_t count, commDataType_t datatype,
                        commRedOp_t op, int root, comm_t comm, cudaStream_t stream) {
  return call_or_repeat(
      comm, QuickKey::of(Collective::kReduce, datatype, op, root, count), sendbuff, recvbuff,
      stream, [&](Communicator& c, Operation& o) -> Status {
        COMM_TRY(fill_uniform({sendbuff, recvbuff, count, datatype}, Collective::kReduce, 1, &o));
        COMM_TRY(check_op(op, c, &o));
        COMM_TRY(check_root(root, c, "root"));
        o.root = root;
        if (c.rank() != root)
          return count == 0 ? Status::ok() : check_pointer(sendbuff, "sendbuff");
        return check_pair(c, o, 1, 1, sendbuff == recvbuff, kSameBuffer);
      });
}

commResult_t commAlltoAll(const void* sendbuff, void* recvbuff, size_t count,
                          commDataType_t datatype, comm_t comm, cudaStream_t stream) {
  return call_or_repeat(
      comm, QuickKey::of(Collective::kAllToAll, datatype, 0, 0, count), sendbuff, recvbuff, stream,
      [&](Communicator& c, Operation& o) -> Status {
        const size_t n = ranks_of(c);
        COMM_TRY(fill_uniform({sendbuff, recvbuff, count, datatype}, Collective::kAllToAll, n, &o));
        return check_pair(c, o, n, n, false, "all-to-all has no in-place form");
      });
}

commResult_t commGather(const void* sendbuff, void* recvbuff, size_t count, commDataType_t datatype,
                        int root, comm_t comm, cudaStream_t stream) {
  return call_or_repeat(
      comm, QuickKey::of(Collective::kGather, datatype, 0, root, count), sendbuff, recvbuff, stream,
      [&](Communicator& c, Operation& o) -> Status {
        const size_t n = ranks_of(c);
        COMM_TRY(fill_uniform({sendbuff, recvbuff, count, datatype}, Collective::kGather, n, &o));
        COMM_TRY(check_root(root, c, "root"));
        o.root = root;
        if (c.rank() != root)
          return count == 0 ? Status::ok() : check_pointer(sendbuff, "sendbuff");
        const size_t block = count * size_of(o.type);
        return check_pair(c, o, 1, n,
                          sendbuff == offset(recvbuff, static_cast<size_t>(root) * block),
                          "in place means sendbuff == recvbuff + root * count");
      });
}

commResult_t commScatter(const void* sendbuff, void* recvbuff, size_t count,
                         commDataType_t datatype, int root, comm_t comm, cudaStream_t stream) {
  return call_or_repeat(
      comm, QuickKey::of(Collective::kScatter, datatype, 0, root, count), sendbuff, recvbuff,
      stream, [&](Communicator& c, Operation& o) -> Status {
        const size_t n = ranks_of(c);
        COMM_TRY(fill_uniform({sendbuff, recvbuff, count, datatype}, Collective::kScatter, n, &o));
        COMM_TRY(check_root(root, c, "root"));
        o.root = root;
        if (c.rank() != root)
          return count == 0 ? Status::ok() : check_pointer(recvbuff, "recvbuff");
        const size_t block = count * size_of(o.type);
        return check_pair(c, o, n, 1,
                          recvbuff == offset(sendbuff, static_cast<size_t>(root) * block),
                          "in place means recvbuff == sendbuff + root * count");
      });
}

commResult_t commSend(const void* sendbuff, size_t count, commDataType_t datatype, int peer,
                      comm_t comm, cudaStream_t stream) {
  commResult_t result;
  if (quick(comm, true, sendbuff, nullptr, count, datatype, peer, stream, &result)) return result;
  return call(comm, stream, [&](Communicator& c, Operation& o) -> Status {
    return fill_p2p(c, {sendbuff, nullptr, count, datatype}, peer, true, &o);
  });
}

commResult_t commRecv(void* recvbuff, size_t count, commDataType_t datatype, int peer, comm_t comm,
                      cudaStream_t stream) {
  commResult_t result;
  if (quick(comm, false, nullptr, recvbuff, count, datatype, peer, stream, &result)) return result;
  return call(comm, stream, [&](Communicator& c, Operation& o) -> Status {
    return fill_p2p(c, {nullptr, recvbuff, count, datatype}, peer, false, &o);
  });
}

commResult_t commAllGatherv(const void* sendbuff, size_t sendcount, void* recvbuff,
                            const size_t recvcounts[], const size_t displs[],
                            commDataType_t datatype, comm_t comm, cudaStream_t stream) {
  return call(comm, stream, [&](Communicator& c, Operation& o) -> Status {
    const size_t me = static_cast<size_t>(c.rank());
    const auto t = std::make_shared<BlockTables>();
    o.tables = t;
    COMM_TRY(fill_uniform({sendbuff, recvbuff, 0, datatype}, Collective::kAllGatherV, 1, &o));
    COMM_TRY(fill_table(recvcounts, displs, ranks_of(c), o.type, "recv", "displs", &t->out));
    if (sendcount != recvcounts[me])
      return error(Code::kInvalidArgument, "sendcount {} differs from recvcounts[{}] = {}",
                   sendcount, me, recvcounts[me]);
    o.table_hash = hash_table(t->out);
    t->in.counts = {sendcount};
    t->in.displs = {0};
    if (sendcount > 0) COMM_TRY(check_pointer(sendbuff, "sendbuff"));
    if (total(t->out) > 0) COMM_TRY(check_pointer(recvbuff, "recvbuff"));
    const bool in_place = sendbuff == offset(recvbuff, t->out.displs[me] * size_of(o.type));
    if (in_place || !checks_buffers(c)) return Status::ok();
    return check_disjoint(sendbuff, sendcount * size_of(o.type), recvbuff, reach(t->out, o.type),
                          "in place means sendbuff == recvbuff + displs[rank]");
  });
}

commResult_t commReduceScatterv(const void* sendbuff, void* recvbuff, const size_t recvcounts[],
                                commDataType_t datatype, commRedOp_t op, comm_t comm,
                                cudaStream_t stream) {
  return call(comm, stream, [&](Communicator& c, Operation& o) -> Status {
    const size_t me = static_cast<size_t>(c.rank());
    const auto t = std::make_shared<BlockTables>();
    o.tables = t;
    COMM_TRY(fill_uniform({sendbuff, recvbuff, 0, datatype}, Collective::kReduceScatterV, 1, &o));
    COMM_TRY(check_op(op, c, &o));
    COMM_TRY(fill_table(recvcounts, nullptr, ranks_of(c), o.type, "recv", "", &t->in));
    o.table_hash = hash_table(t->in);
    t->out.counts = {recvcounts[me]};
    t->out.displs = {0};
    if (total(t->in) > 0) COMM_TRY(check_pointer(sendbuff, "sendbuff"));
    if (recvcounts[me] > 0) COMM_TRY(check_pointer(recvbuff, "recvbuff"));
    const bool in_place = recvbuff == offset(sendbuff, t->in.displs[me] * size_of(o.type));
    if (in_place || !checks_buffers(c)) return Status::ok();
    return check_disjoint(
        sendbuff, reach(t->in, o.type), recvbuff, recvcounts[me] * size_of(o.type),
        "in place means recvbuff == sendbuff + the sum of recvcounts before rank");
  });
}

commResult_t commAlltoAllv(const void* sendbuff, const size_t sendcounts[], const size_t sdispls[],
                           void* recvbuff, const size_t recvcounts[], const size_t rdispls[],
                           commDataType_t datatype, comm_t comm, cudaStream_t stream) {
  return call(comm, stream, [&](Communicator& c, Operation& o) -> Status {
    const size_t me = static_cast<size_t>(c.rank());
    const size_t n = ranks_of(c);
    const auto t = std::make_shared<BlockTables>();
    o.tables = t;
    COMM_TRY(fill_uniform({sendbuff, recvbuff, 0, datatype}, Collective::kAllToAllV, 1, &o));
    COMM_TRY(fill_table(sendcounts, sdispls, n, o.type, "send", "sdispls", &t->in));
    COMM_TRY(fill_table(recvcounts, rdispls, n, o.type, "recv", "rdispls", &t->out));
    if (sendcounts[me] != recvcounts[me])
      return error(Code::kInvalidUsage,
                   "rank {} sends {} elements to itself but expects {}; sendcounts[rank] and "
                   "recvcounts[rank] must be equal",
                   me, sendcounts[me], recvcounts[me]);
    if (total(t->in) > 0) COMM_TRY(check_pointer(sendbuff, "sendbuff"));
    if (total(t->out) > 0) COMM_TRY(check_pointer(recvbuff, "recvbuff"));
    if (!checks_buffers(c)) return Status::ok();
    return check_disjoint(sendbuff, reach(t->in, o.type), recvbuff, reach(t->out, o.type),
                          "all-to-all has no in-place form");
  });
}

commResult_t commBarrier(comm_t comm, cudaStream_t stream) {
  return call(comm, stream, [&](Communicator&, Operation& o) -> Status {
    o.collective = Collective::kBarrier;
    return Status::ok();
  });
}

}  // extern "C"
