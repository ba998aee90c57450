#include "tests/collectives/call.h"

#include <cstdlib>
#include <cstring>
#include <numeric>
#include <optional>

namespace matrix {
namespace {

using elements::Op;
using elements::size_of;
using Counts = std::vector<size_t>;

constexpr unsigned char kGuard = 0xa5;
constexpr size_t kGuardBytes = 96;
constexpr size_t kFirstElement = 3;  // buffers begin at an odd element of their region

// `count` elements of the receive buffer that come from element `source_begin` of rank `source`'s
// send buffer, or of all ranks' (kAll), reduced.
struct Piece {
  size_t begin = 0;
  size_t count = 0;
  int source = 0;
  size_t source_begin = 0;
};
constexpr int kAll = -1;

// One rank's view of a call, in elements.
struct Shape {
  size_t in = 0;   // size of the send buffer
  size_t out = 0;  // of the receive buffer; 0: this rank gets nothing
  std::vector<Piece> pieces;
  bool can_be_in_place = true;
  size_t in_offset = 0;   // in place: where the send buffer begins in the larger one
  size_t out_offset = 0;  // and the receive buffer
};

// Block sizes of the v-variants: uneven, some of them 0.
size_t block_of(const Call& call, int rank) {
  if (call.count == 0) return 0;
  const auto h = elements::hash(call.seed, static_cast<uint64_t>(rank));
  return h % 4 == 0 ? 0 : call.count / 2 + h % 5;
}

size_t pair_of(const Call& call, int from, int to) { return block_of(call, from * 64 + to + 1000); }

Counts blocks_of(const Call& call, int nranks) {
  Counts counts;
  for (int r = 0; r < nranks; ++r) counts.push_back(block_of(call, r));
  return counts;
}

// Blocks in reverse order with a gap of one element after each.
Counts backwards(const Counts& counts) {
  Counts displs(counts.size());
  size_t at = 0;
  for (size_t i = counts.size(); i-- > 0;) {
    displs[i] = at;
    at += counts[i] + 1;
  }
  return displs;
}

Counts forwards(const Counts& counts) {
  Counts displs(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), displs.begin(), size_t{0});
  return displs;
}

size_t sum(const Counts& counts) {
  return std::accumulate(counts.begin(), counts.end(), size_t{0});
}

// The tables of an all-to-all-v as `rank` passes them.
struct PairTables {
  Counts send, send_displs, recv, recv_displs;
  PairTables(const Call& call, int rank, int nranks) {
    for (int r = 0; r < nranks; ++r) {
      send.push_back(pair_of(call, rank, r));
      recv.push_back(pair_of(call, r, rank));
    }
    send_displs = forwards(send);
    recv_displs = backwards(recv);
  }
};

Shape shape_of(const Call& call, int rank, int nranks) {
  const auto me = static_cast<size_t>(rank);
  const auto n = static_cast<size_t>(nranks);
  const size_t count = call.count;
  const bool is_root = rank == call.root;
  Shape shape;
  shape.in = shape.out = count;
  const auto gather_blocks = [&] {
    for (size_t r = 0; r < n; ++r)
      shape.pieces.push_back({r * count, count, static_cast<int>(r), 0});
  };
  switch (call.collective) {
    case Collective::kAllReduce:
      shape.pieces = {{0, count, kAll, 0}};
      break;
    case Collective::kReduce:
      if (!is_root) {
        shape.out = 0;
        shape.can_be_in_place = false;
      } else {
        shape.pieces = {{0, count, kAll, 0}};
      }
      break;
    case Collective::kReduceScatter:
      shape.in = n * count;
      shape.out_offset = me * count;
      shape.pieces = {{0, count, kAll, me * count}};
      break;
    case Collective::kAllGather:
      shape.out = n * count;
      shape.in_offset = me * count;
      gather_blocks();
      break;
    case Collective::kGather:
      shape.can_be_in_place = is_root;
      shape.out = is_root ? n * count : 0;
      shape.in_offset = me * count;
      if (is_root) gather_blocks();
      break;
    case Collective::kBroadcast:
    case Collective::kBcast:
      shape.pieces = {{0, count, call.root, 0}};
      break;
    case Collective::kScatter:
      shape.can_be_in_place = is_root;
      shape.in = is_root ? n * count : 0;
      shape.out_offset = me * count;
      shape.pieces = {{0, count, call.root, me * count}};
      break;
    case Collective::kAllToAll:
      shape.can_be_in_place = false;
      shape.in = shape.out = n * count;
      for (size_t r = 0; r < n; ++r)
        shape.pieces.push_back({r * count, count, static_cast<int>(r), me * count});
      break;
    case Collective::kAllGatherV: {
      const Counts counts = blocks_of(call, nranks);
      const Counts displs = backwards(counts);
      shape.in = counts[me];
      shape.out = sum(counts) + n;
      shape.in_offset = displs[me];
      for (size_t r = 0; r < n; ++r)
        shape.pieces.push_back({displs[r], counts[r], static_cast<int>(r), 0});
      break;
    }
    case Collective::kReduceScatterV: {
      const Counts counts = blocks_of(call, nranks);
      shape.in = sum(counts);
      shape.out = counts[me];
      shape.out_offset = forwards(counts)[me];
      shape.pieces = {{0, counts[me], kAll, shape.out_offset}};
      break;
    }
    case Collective::kAllToAllV: {
      const PairTables tables(call, rank, nranks);
      shape.can_be_in_place = false;
      shape.in = sum(tables.send);
      shape.out = sum(tables.recv) + n;
      for (size_t r = 0; r < n; ++r) {
        const PairTables theirs(call, static_cast<int>(r), nranks);
        shape.pieces.push_back(
            {tables.recv_displs[r], tables.recv[r], static_cast<int>(r), theirs.send_displs[me]});
      }
      break;
    }
    case Collective::kRing:
      shape.can_be_in_place = false;
      shape.pieces = {{0, count, static_cast<int>((me + n - 1) % n), 0}};
      break;
  }
  return shape;
}

commRedOp_t op_value(Op op) {
  switch (op) {
    case Op::kProd:
      return commProd;
    case Op::kMax:
      return commMax;
    case Op::kMin:
      return commMin;
    case Op::kAvg:
      return commAvg;
    case Op::kBand:
      return commBand;
    case Op::kBor:
      return commBor;
    case Op::kBxor:
      return commBxor;
    default:
      return commSum;
  }
}

commResult_t pass_on(const void* in, size_t count, void* out, commDataType_t type,
                     const world::Rank& rank, cudaStream_t stream) {
  const int next = (rank.rank + 1) % rank.nranks;
  const int previous = (rank.rank + rank.nranks - 1) % rank.nranks;
  commResult_t result = commGroupStart();
  if (result == commSuccess) result = commSend(in, count, type, next, rank.comm, stream);
  if (result == commSuccess) result = commRecv(out, count, type, previous, rank.comm, stream);
  const commResult_t ended = commGroupEnd();
  return result == commSuccess ? ended : result;
}

commResult_t invoke(const world::Rank& rank, const Call& call, commRedOp_t op, const void* in,
                    void* out) {
  const comm_t comm = rank.comm;
  const commDataType_t type = call.type;
  const size_t count = call.count;
  switch (call.collective) {
    case Collective::kAllReduce:
      return commAllReduce(in, out, count, type, op, comm, call.stream);
    case Collective::kReduceScatter:
      return commReduceScatter(in, out, count, type, op, comm, call.stream);
    case Collective::kAllGather:
      return commAllGather(in, out, count, type, comm, call.stream);
    case Collective::kBroadcast:
      return commBroadcast(rank.rank == call.root ? in : nullptr, out, count, type, call.root, comm,
                           call.stream);
    case Collective::kBcast:
      return commBcast(out, count, type, call.root, comm, call.stream);
    case Collective::kReduce:
      return commReduce(in, rank.rank == call.root ? out : nullptr, count, type, op, call.root,
                        comm, call.stream);
    case Collective::kAllToAll:
      return commAlltoAll(in, out, count, type, comm, call.stream);
    case Collective::kGather:
      return commGather(in, rank.rank == call.root ? out : nullptr, count, type, call.root, comm,
                        call.stream);
    case Collective::kScatter:
      return commScatter(rank.rank == call.root ? in : nullptr, out, count, type, call.root, comm,
                         call.stream);
    case Collective::kAllGatherV: {
      const Counts counts = blocks_of(call, rank.nranks);
      return commAllGatherv(in, counts[static_cast<size_t>(rank.rank)], out, counts.data(),
                            backwards(counts).data(), type, comm, call.stream);
    }
    case Collective::kReduceScatterV:
      return commReduceScatterv(in, out, blocks_of(call, rank.nranks).data(), type, op, comm,
                                call.stream);
    case Collective::kAllToAllV: {
      const PairTables t(call, rank.rank, rank.nranks);
      return commAlltoAllv(in, t.send.data(), t.send_displs.data(), out, t.recv.data(),
                           t.recv_displs.data(), type, comm, call.stream);
    }
    case Collective::kRing:
      return pass_on(in, count, out, type, rank, call.stream);
  }
  return commInternalError;
}

uint64_t load(const unsigned char* buffer, size_t index, size_t size) {
  uint64_t bits = 0;
  std::memcpy(&bits, buffer + index * size, size);
  return bits;
}

// A buffer in a region: guard, elements, guard.
class Buffer {
 public:
  Buffer(Arena& arena, Memory kind, int which, size_t count, size_t size)
      : count_(count), size_(size) {
    const size_t before = (kGuardBytes / size + kFirstElement) * size;
    bytes_ = before + count * size + kGuardBytes;
    region_ = arena.region(kind, which, bytes_);
    data_ = region_ + before;
    std::memset(region_, kGuard, bytes_);
  }
  unsigned char* data() const { return data_; }
  unsigned char* at(size_t index) const { return data_ + index * size_; }
  bool guards_are_whole() const {
    return all_guard(region_, data_) && all_guard(at(count_), region_ + bytes_);
  }
  bool is_guard(size_t begin, size_t end) const { return all_guard(at(begin), at(end)); }

 private:
  static bool all_guard(const unsigned char* begin, const unsigned char* end) {
    while (begin < end && *begin == kGuard) ++begin;
    return begin >= end;
  }
  size_t count_, size_, bytes_ = 0;
  unsigned char* region_ = nullptr;
  unsigned char* data_ = nullptr;
};

void fill(unsigned char* in, size_t count, const Call& call, int rank) {
  const size_t size = size_of(call.type);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t bits = elements::input_bits(call.type, call.op, call.seed, rank, i);
    std::memcpy(in + i * size, &bits, size);
  }
}

// The index of the first wrong element of a piece, or its count.
size_t first_wrong(const unsigned char* out, const Piece& piece, const Call& call, int nranks) {
  const size_t size = size_of(call.type);
  for (size_t i = 0; i < piece.count; ++i) {
    const uint64_t got = load(out, piece.begin + i, size);
    const size_t index = piece.source_begin + i;
    const bool good =
        piece.source == kAll
            ? elements::is_reduced(got, call.type, call.op, call.seed, nranks, index)
            : got == elements::input_bits(call.type, call.op, call.seed, piece.source, index);
    if (!good) return i;
  }
  return piece.count;
}

void check_pieces(world::Rank& rank, const Call& call, const Shape& shape,
                  const unsigned char* out) {
  for (const Piece& piece : shape.pieces) {
    const size_t wrong = first_wrong(out, piece, call, rank.nranks);
    if (wrong == piece.count) continue;
    const uint64_t got = load(out, piece.begin + wrong, size_of(call.type));
    rank.expect(false, call.to_string() + ": element " + std::to_string(piece.begin + wrong) +
                           " of " + std::to_string(shape.out) +
                           " is wrong: " + std::to_string(elements::value_of(got, call.type)));
    return;
  }
}

// What no piece covers keeps its old bytes.
bool gaps_are_untouched(const Buffer& out, const Shape& shape) {
  std::vector<bool> covered(shape.out, false);
  for (const Piece& piece : shape.pieces)
    for (size_t i = 0; i < piece.count; ++i) covered[piece.begin + i] = true;
  for (size_t i = 0; i < shape.out; ++i)
    if (!covered[i] && !out.is_guard(i, i + 1)) return false;
  return true;
}

// kPreMulSum's operator lives for one call.
struct Operator {
  Operator(const world::Rank& rank, const Call& call) : comm(rank.comm), value(op_value(call.op)) {
    if (call.op != Op::kPreMulSum || !reduces(call.collective)) return;
    uint64_t factor = elements::factor_bits(call.type, rank.rank);
    COMM_OK(rank,
            commRedOpCreatePreMulSum(&value, &factor, call.type, commScalarHostImmediate, comm));
    made = true;
  }
  ~Operator() {
    if (made) (void)commRedOpDestroy(value, comm);
  }
  comm_t comm;
  commRedOp_t value;
  bool made = false;
};

void check_result(const world::Rank& rank, const Call& call, commResult_t result) {
  if (result != commSuccess)
    throw world::Failed(call.to_string() + " gave " + std::to_string(result) + ": " +
                        commGetLastError(rank.comm));
}

}  // namespace

const char* name_of(Collective collective) {
  constexpr const char* kNames[] = {"AllReduce",     "ReduceScatter", "AllGather",      "Broadcast",
                                    "Bcast",         "Reduce",        "AlltoAll",       "Gather",
                                    "Scatter",       "AllGatherv",    "ReduceScatterv", "AlltoAllv",
                                    "Send/Recv ring"};
  return kNames[static_cast<int>(collective)];
}

bool reduces(Collective collective) {
  return collective == Collective::kAllReduce || collective == Collective::kReduceScatter ||
         collective == Collective::kReduce || collective == Collective::kReduceScatterV;
}

std::string Call::to_string() const {
  std::string text = std::string(name_of(collective)) + " of " + std::to_string(count) + " " +
                     elements::name_of(type);
  if (reduces(collective)) text += std::string(" ") + elements::name_of(op);
  constexpr const char* kMemory[] = {"plain", "shared", "plain to shared", "GPU"};
  return text + " root " + std::to_string(root) + (in_place ? " in place" : "") + ", " +
         kMemory[static_cast<int>(memory)] + " memory, seed " + std::to_string(seed);
}

Arena::~Arena() {
  for (const Region& region : plain_) std::free(region.data);
  for (const Region& region : shared_) (void)commMemFree(region.data);
}

unsigned char* Arena::region(Memory kind, int which, size_t bytes) {
  const bool shared = kind == Memory::kShared;
  Region& region = (kind == Memory::kGpu ? gpu_ : shared ? shared_ : plain_)[which];
  if (region.bytes >= bytes) return region.data;
  bytes += bytes / 2 + 4096;
  if (kind == Memory::kGpu) {
    region.data = gpu->allocate(bytes);
  } else if (shared) {
    (void)commMemFree(region.data);
    void* data = nullptr;
    if (commMemAlloc(&data, bytes) != commSuccess) throw world::Failed(commGetLastError(nullptr));
    region.data = static_cast<unsigned char*>(data);
  } else {
    std::free(region.data);
    region.data = static_cast<unsigned char*>(std::malloc(bytes));
    if (region.data == nullptr) throw world::Failed("out of memory");
  }
  region.bytes = bytes;
  return region.data;
}

struct Performance::State {
  State(world::Rank& by, Arena& memory, const Call& what)
      : rank(by),
        arena(memory),
        call(what),
        shape(shape_of(what, by.rank, by.nranks)),
        op(by, what) {
    const size_t size = size_of(call.type);
    const bool mixed = call.memory == Memory::kMixed;
    const Memory out_memory = mixed ? Memory::kShared : call.memory;
    const bool always_in_place = call.collective == Collective::kBcast;
    in_place = (call.in_place && shape.can_be_in_place) || always_in_place;
    if (in_place) {
      out.emplace(arena, out_memory, 0, std::max(shape.in, shape.out), size);
    } else {
      in.emplace(arena, mixed ? Memory::kPlain : call.memory, 1, shape.in, size);
      out.emplace(arena, out_memory, 0, shape.out, size);
    }
    send = in_place ? out->at(shape.in_offset) : in->data();
    receive = in_place ? out->at(shape.out_offset) : out->data();
    fill(send, shape.in, call, rank.rank);
  }

  world::Rank& rank;
  Arena& arena;
  const Call call;
  const Shape shape;
  const Operator op;
  bool in_place = false;
  std::optional<Buffer> in, out;  // in place: out holds both
  unsigned char* send = nullptr;
  unsigned char* receive = nullptr;
};

Performance::Performance(world::Rank& rank, Arena& arena, const Call& call)
    : state_(std::make_unique<State>(rank, arena, call)) {}
Performance::Performance(Performance&&) noexcept = default;
Performance::~Performance() = default;

void Performance::make() {
  State& s = *state_;
  const bool on_gpu = s.call.memory == Memory::kGpu;
  if (on_gpu) s.arena.gpu->upload(s.call.stream);
  check_result(s.rank, s.call,
               invoke(s.rank, s.call, s.op.value, on_gpu ? s.arena.gpu->on_gpu(s.send) : s.send,
                      on_gpu ? s.arena.gpu->on_gpu(s.receive) : s.receive));
  if (on_gpu) s.arena.gpu->download(s.call.stream);
}

void Performance::check() {
  State& s = *state_;
  check_pieces(s.rank, s.call, s.shape, s.receive);
  s.rank.expect(s.out->guards_are_whole(), s.call.to_string() + ": wrote outside the " +
                                               (s.in_place ? "" : "receive ") + "buffer");
  if (s.in_place) return;
  s.rank.expect(gaps_are_untouched(*s.out, s.shape),
                s.call.to_string() + ": wrote between the blocks");
  s.rank.expect(s.in->guards_are_whole(), s.call.to_string() + ": wrote outside the send buffer");
  const Piece sent{0, s.shape.in, s.rank.rank, 0};
  s.rank.expect(first_wrong(s.send, sent, s.call, s.rank.nranks) == sent.count,
                s.call.to_string() + ": changed the send buffer");
}

void perform(world::Rank& rank, Arena& arena, const Call& call) {
  Performance performance(rank, arena, call);
  performance.make();
  performance.check();
}

}  // namespace matrix
