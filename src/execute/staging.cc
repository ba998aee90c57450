#include "src/execute/staging.h"

#include <algorithm>

#include "src/device/kernels/arguments.h"

namespace libcomm {
namespace {

constexpr size_t kLine = 64;            // what is copied for its own begins on a cache line
constexpr size_t kLeastMessage = 4096;  // per peer and direction in a round
static_assert(kLeastInPlace <= 2 * kLeastMessage);
// Kernels of a group that receives in place. Sends of another rank may follow each other, so that
// the second comes only when the first has been copied; the last kernel waits for all.
constexpr size_t kMostRounds = 4;
constexpr size_t kMostSegments = cuda::kMaxSegments;  // of one kernel

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// A buffer as blocks; empty at ranks that have none.
struct Blocks {
  std::byte* base = nullptr;
  std::vector<size_t> counts;
  std::vector<size_t> displs;

  size_t most() const {
    return counts.empty() ? 0 : *std::max_element(counts.begin(), counts.end());
  }
};

Blocks uniform(const void* base, size_t blocks, size_t count) {
  Blocks result{static_cast<std::byte*>(const_cast<void*>(base)),
                std::vector<size_t>(blocks, count), std::vector<size_t>(blocks)};
  for (size_t i = 0; i < blocks; ++i) result.displs[i] = i * count;
  return result;
}

Blocks of_table(const void* base, const BlockTable& table) {
  return {static_cast<std::byte*>(const_cast<void*>(base)), table.counts, table.displs};
}

Blocks input_of(const Operation& operation, int rank, int nranks) {
  if (!operation.in_table().empty()) return of_table(operation.in, operation.in_table());
  const bool at_root = rank == operation.root;
  const auto shape = block_shape(operation.collective, nranks);
  const bool absent = (operation.collective == Collective::kBroadcast ||
                       operation.collective == Collective::kScatter) &&
                      !at_root;
  return uniform(operation.in, absent ? 0 : static_cast<size_t>(shape.in_blocks), operation.count);
}

Blocks output_of(const Operation& operation, int rank, int nranks) {
  if (!operation.out_table().empty()) return of_table(operation.out, operation.out_table());
  const bool at_root = rank == operation.root;
  const auto shape = block_shape(operation.collective, nranks);
  const bool absent = (operation.collective == Collective::kReduce ||
                       operation.collective == Collective::kGather) &&
                      !at_root;
  return uniform(operation.out, absent ? 0 : static_cast<size_t>(shape.out_blocks),
                 operation.count);
}

// The block of the larger buffer that is this rank's own, where a staged operation is in place.
size_t own_block(const Operation& operation, int rank) {
  switch (operation.collective) {
    case Collective::kAllGather:
    case Collective::kReduceScatter:
    case Collective::kAllGatherV:
    case Collective::kReduceScatterV:
      return static_cast<size_t>(rank);
    case Collective::kGather:
    case Collective::kScatter:
      return rank == operation.root ? static_cast<size_t>(operation.root) : 0;
    default:
      return 0;
  }
}

// Blocks of a slot that a collective takes, at every rank alike.
size_t blocks_in_slot(Collective collective, int nranks) {
  switch (collective) {
    case Collective::kBarrier:
      return 0;
    case Collective::kAllReduce:
    case Collective::kReduce:
    case Collective::kBroadcast:
      return 1;
    case Collective::kAllToAll:
      return 2 * static_cast<size_t>(nranks);
    default:
      return static_cast<size_t>(nranks);
  }
}

// The largest block, the same at all ranks.
size_t block_count(const Operation& operation) {
  if (operation.collective == Collective::kAllGatherV)
    return of_table(nullptr, operation.out_table()).most();
  if (operation.collective == Collective::kReduceScatterV)
    return of_table(nullptr, operation.in_table()).most();
  return operation.count;
}

class Planner {
 public:
  explicit Planner(const StagingPlace& place)
      : rank_(place.rank),
        nranks_(place.nranks),
        slots_{place.slots[0], place.slots[1]},
        slot_bytes_(place.slot_bytes),
        takes_gpu_memory_(place.takes_gpu_memory),
        paths_(place.paths),
        most_executed_(place.most_executed),
        in_place_(place.messages_in_place) {}

  std::vector<Stage> plan(std::span<const Operation> operations) {
    for (size_t i = 0; i < operations.size(); ++i) {
      const Operation& operation = operations[i];
      const auto path = path_of(i);
      if (operation.collective == Collective::kSendRecv ||
          (operation.collective == Collective::kAllToAllV && path != StagingPlace::Path::kExecutor))
        continue;
      if (path == StagingPlace::Path::kExecutor) {
        add_direct(Stage::Kind::kExecute, i);
        if (operation.gpu_scalar != nullptr) add_scalar(operation, 0);
        continue;
      }
      const bool direct = path != StagingPlace::Path::kStaged;
      if (direct) {
        add_direct(Stage::Kind::kMeet, i);
        if (operation.gpu_scalar != nullptr) add_scalar(operation, 0);
      }
      if (path == StagingPlace::Path::kPeers)
        add_direct(Stage::Kind::kLeave, i);
      else
        add_collective(operation);
      closed_ = closed_ || direct;
    }
    add_messages(operations);
    return std::move(stages_);
  }

 private:
  StagingPlace::Path path_of(size_t index) const {
    return paths_.empty() ? StagingPlace::Path::kStaged : paths_[index];
  }
  std::byte* slot() const { return slots_[(stages_.size() - 1) % 2]; }
  Stage& next_stage() {
    closed_ = false;
    return stages_.emplace_back();
  }
  // Memory in the slot of the current stage.
  std::byte* take(size_t bytes) {
    std::byte* at = slot() + stages_.back().bytes;
    stages_.back().bytes += round_up(bytes, kLine);
    return at;
  }

  void add_direct(Stage::Kind kind, size_t index) {
    Stage& stage = next_stage();
    stage.kind = kind;
    stage.direct = index;
    closed_ = true;
  }

  void add_collective(const Operation& operation) {
    const size_t element = size_of(operation.type);
    const size_t blocks = blocks_in_slot(operation.collective, nranks_);
    const size_t count = block_count(operation);
    // What one element of every block takes; the scalar has a line of its own.
    const size_t room = slot_bytes_ - 2 * kLine;
    const size_t whole = (operation.on_gpu ? round_up(blocks * count * element, kLine) : 0) +
                         (operation.premultiply ? kLine : 0);
    if (!operation.on_gpu || whole <= room) {
      const bool fits = !stages_.empty() && !closed_ && stages_.back().bytes + whole <= room;
      if (!fits) next_stage();
      add_window(operation, 0, count);
      return;
    }
    size_t window = room / (blocks * element);
    if (window > kLine) window = window / kLine * kLine;
    for (size_t begin = 0; begin < count; begin += window) {
      next_stage();
      add_window(operation, begin, std::min(begin + window, count));
    }
    closed_ = true;
  }

  void add_scalar(const Operation& operation, size_t index) {
    Stage& stage = stages_.back();
    std::byte* scalar = take(sizeof operation.scalar);
    stage.in.push_back({scalar, operation.gpu_scalar, size_of(operation.type)});
    stage.scalars.push_back({index, scalar});
  }

  // Elements [begin, end) of every block of a collective, in the current stage.
  void add_window(const Operation& operation, size_t begin, size_t end) {
    Stage& stage = stages_.back();
    Operation staged = operation;
    if (operation.on_gpu) {
      const size_t element = size_of(operation.type);
      const size_t stride = end - begin;
      const size_t blocks = blocks_in_slot(operation.collective, nranks_);
      std::byte* at = take(blocks * stride * element);
      const Blocks in = input_of(operation, rank_, nranks_);
      const Blocks out = output_of(operation, rank_, nranks_);
      // In place, but for all-to-all, whose output follows its input.
      const size_t own = own_block(operation, rank_) * stride * element;
      const bool larger_in = in.counts.size() > out.counts.size();
      std::byte* in_at = at + (larger_in ? 0 : own);
      std::byte* out_at = at + (larger_in ? own : 0);
      if (operation.collective == Collective::kAllToAll)
        out_at = at + static_cast<size_t>(nranks_) * stride * element;
      staged.on_gpu = false;
      staged.count = operation.tables ? 0 : stride;
      staged.in = in_at;
      staged.out = out_at;
      const BlockTable in_table =
          cut(in, begin, end, element, [&](std::byte* there, size_t block, size_t bytes) {
            stage.in.push_back({in_at + block * stride * element, there, bytes});
          });
      const bool already_there = operation.collective == Collective::kBroadcast &&
                                 rank_ == operation.root && in.base == out.base;
      const BlockTable out_table =
          cut(out, begin, end, element, [&](std::byte* there, size_t block, size_t bytes) {
            if (!already_there)
              stage.out.push_back({there, out_at + block * stride * element, bytes});
          });
      if (operation.tables)
        staged.tables = std::make_shared<BlockTables>(BlockTables{in_table, out_table});
      if (operation.tables) staged.table_hash = mix(operation.table_hash, begin, end);
    }
    if (operation.gpu_scalar != nullptr) {
      add_scalar(operation, stage.operations.size());
      staged.gpu_scalar = nullptr;
    }
    stage.operations.push_back(std::move(staged));
  }

  static uint64_t mix(uint64_t hash, size_t begin, size_t end) {
    hash = (hash ^ begin) * 0x100000001b3u;
    return (hash ^ end) * 0x100000001b3u;
  }

  // The part [begin, end) of every block, told piece by piece, as the table of what is in the slot.
  template <typename Piece>
  static BlockTable cut(const Blocks& blocks, size_t begin, size_t end, size_t element,
                        const Piece& piece) {
    BlockTable table;
    bool together = true;  // the caller's blocks are one piece, as those in the slot are
    size_t total = 0;
    for (size_t i = 0; i < blocks.counts.size(); ++i) {
      const size_t from = std::min(begin, blocks.counts[i]);
      const size_t to = std::min(end, blocks.counts[i]);
      table.counts.push_back(to - from);
      table.displs.push_back(i * (end - begin));
      together = together && begin == 0 && to == end && blocks.displs[i] == total;
      total += to - from;
    }
    if (together && total > 0) {
      piece(blocks.base, 0, total * element);
      return table;
    }
    for (size_t i = 0; i < blocks.counts.size(); ++i)
      if (table.counts[i] > 0)
        piece(blocks.base + (blocks.displs[i] + std::min(begin, blocks.counts[i])) * element, i,
              table.counts[i] * element);
    return table;
  }

  bool takes_gpu_memory(int peer) const {
    return !in_place_ && !takes_gpu_memory_.empty() &&
           takes_gpu_memory_[static_cast<size_t>(peer)] != 0;
  }

  // One direction of one pair of ranks.
  struct Flow {
    struct Message {
      const Operation* like;  // a message, or the all-to-all that it is a part of
      std::byte* base;
      size_t count;
      size_t done = 0;
    };
    int peer = 0;
    bool is_send = false;
    std::vector<Message> messages;
    size_t next = 0;
    bool over() const { return next == messages.size(); }
  };
  static size_t bytes_of(const Flow::Message& message) {
    return message.count * size_of(message.like->type);
  }

  void add_messages(std::span<const Operation> operations) {
    std::vector<Flow> flows = flows_of(operations);
    const size_t most =
        slot_bytes_ / (2 * static_cast<size_t>(nranks_)) / kLeastMessage * kLeastMessage;
    if (in_place_) {
      add_in_place(std::move(flows), most);
      return;
    }
    for (bool first = true;; first = false) {
      std::erase_if(flows, [](const Flow& flow) { return flow.over(); });
      if (flows.empty()) return;
      // The first round joins the collectives before it if nobody's room is exceeded.
      if (!first || stages_.empty() || closed_ || stages_.back().bytes > 0) next_stage();
      for (Flow& flow : flows) add_round(flow, most);
    }
  }

  // The stages of all messages, at most `most` bytes of each flow staged at a time.
  void add_in_place(std::vector<Flow> flows, size_t most) {
    if (flows.empty()) return;
    for (bool first = true;; first = false) {
      std::erase_if(flows, [](const Flow& flow) { return flow.over(); });
      if (!first && flows.empty()) return;
      Stage& stage = next_stage();
      stage.kind = Stage::Kind::kMessages;
      if (first) settle_self(&flows);
      size_t receives = 0;
      bool any_order = false;
      for (Flow& flow : flows) {
        size_t used = 0;
        for (; !flow.over(); ++flow.next) {
          const Flow::Message& message = flow.messages[flow.next];
          const bool direct = message.like->on_gpu && bytes_of(message) >= kLeastInPlace;
          const size_t bytes = direct || !message.like->on_gpu ? 0 : bytes_of(message);
          if (used + bytes > most) break;
          used += round_up(bytes, kLine);
          add_message(flow, message, direct);
          if (!direct || flow.is_send) continue;
          ++receives;
          stages_.back().largest = std::max(stages_.back().largest, bytes_of(message));
          any_order = any_order || message.like->collective == Collective::kSendRecv;
        }
      }
      add_rounds(receives, any_order);
    }
  }

  // The stages after the first of some messages.
  void add_rounds(size_t receives, bool any_order) {
    const size_t rounds = std::max((receives + kMostSegments - 1) / kMostSegments,
                                   any_order ? std::min(receives, kMostRounds) : 0);
    std::vector<StagedCopy> out = std::move(stages_.back().out);
    stages_.back().out.clear();
    stages_.back().rounds = rounds;
    stages_.back().segments = std::min(receives, kMostSegments);
    for (size_t round = 1; round <= rounds; ++round) {
      Stage& stage = next_stage();
      const Stage& before = stages_[stages_.size() - 2];
      stage.kind = Stage::Kind::kMessages;
      stage.round = round;
      stage.rounds = rounds;
      stage.segments = before.segments;
      stage.largest = before.largest;
    }
    stages_.back().out = std::move(out);
    closed_ = true;
  }

  // The n-th message to oneself belongs to the n-th from oneself.
  void settle_self(std::vector<Flow>* flows) {
    const auto take = [&](bool is_send) {
      const auto found = std::find_if(flows->begin(), flows->end(), [&](const Flow& flow) {
        return flow.peer == rank_ && flow.is_send == is_send;
      });
      if (found == flows->end()) return std::vector<Flow::Message>();
      std::vector<Flow::Message> messages = std::move(found->messages);
      flows->erase(found);
      return messages;
    };
    const std::vector<Flow::Message> sends = take(true), receives = take(false);
    Stage& stage = stages_.back();
    for (size_t i = 0; i < std::min(sends.size(), receives.size()); ++i) {
      const StagedCopy copy{receives[i].base, sends[i].base, bytes_of(sends[i])};
      if (copy.bytes == 0 || copy.to == copy.from) continue;
      const bool by_host = !sends[i].like->on_gpu && !receives[i].like->on_gpu;
      (by_host ? stage.by_host : stage.in).push_back(copy);
    }
  }

  // Whole messages while they fit, or the next piece of one.
  void add_round(Flow& flow, size_t most) {
    size_t used = 0;
    while (!flow.over()) {
      Flow::Message& message = flow.messages[flow.next];
      if (takes_gpu_memory(flow.peer)) {
        add_piece(flow, message, message.count, false);
        ++flow.next;
        continue;
      }
      const size_t element = size_of(message.like->type);
      const size_t left = message.count - message.done;
      const size_t bytes = round_up(left * element, kLine);
      if (used > 0 && bytes > most - used) return;
      const size_t piece = std::min(left, most / element);
      add_piece(flow, message, piece, message.like->on_gpu);
      used += round_up(piece * element, kLine);
      message.done += piece;
      if (message.done < message.count) return;
      ++flow.next;
    }
  }

  void add_message(const Flow& flow, const Flow::Message& message, bool direct) {
    add_piece(flow, message, message.count, message.like->on_gpu && !direct);
    stages_.back().operations.back().on_gpu = direct;
  }

  void add_piece(const Flow& flow, const Flow::Message& message, size_t piece, bool in_slot) {
    Stage& stage = stages_.back();
    const size_t bytes = piece * size_of(message.like->type);
    std::byte* there = message.base + message.done * size_of(message.like->type);
    std::byte* at = in_slot ? take(bytes) : there;
    if (in_slot && bytes > 0) {
      if (flow.is_send)
        stage.in.push_back({at, there, bytes});
      else
        stage.out.push_back({there, at, bytes});
    }
    Operation staged;
    staged.collective = Collective::kSendRecv;
    staged.type = message.like->type;
    staged.root = flow.peer;
    staged.is_send = flow.is_send;
    staged.count = piece;
    if (flow.is_send)
      staged.in = at;
    else
      staged.out = at;
    stage.operations.push_back(std::move(staged));
  }

  std::vector<Flow> flows_of(std::span<const Operation> operations) const {
    std::vector<Flow> flows;
    const auto add = [&](int peer, bool is_send, Flow::Message message) {
      const auto same = [&](const Flow& flow) {
        return flow.peer == peer && flow.is_send == is_send;
      };
      auto at = std::find_if(flows.begin(), flows.end(), same);
      if (at == flows.end()) {
        at = flows.emplace(flows.end());
        at->peer = peer;
        at->is_send = is_send;
      }
      at->messages.push_back(message);
    };
    // Collectives first, as everywhere in a group: the order of the calls may differ between ranks.
    for (size_t i = 0; i < operations.size(); ++i) {
      const Operation& operation = operations[i];
      if (operation.collective != Collective::kAllToAllV) continue;
      const bool executed = path_of(i) == StagingPlace::Path::kExecutor;
      for (const bool is_send : {true, false}) {
        const Blocks blocks = is_send ? of_table(operation.in, operation.in_table())
                                      : of_table(operation.out, operation.out_table());
        for (size_t peer = 0; peer < blocks.counts.size(); ++peer) {
          if (executed && blocks.counts[peer] * size_of(operation.type) <= most_executed_) continue;
          add(static_cast<int>(peer), is_send,
              {&operation, blocks.base + blocks.displs[peer] * size_of(operation.type),
               blocks.counts[peer]});
        }
      }
    }
    for (const Operation& operation : operations) {
      if (operation.collective != Collective::kSendRecv) continue;
      const void* base = operation.is_send ? operation.in : operation.out;
      add(operation.root, operation.is_send,
          {&operation, static_cast<std::byte*>(const_cast<void*>(base)), operation.count});
    }
    return flows;
  }

  const int rank_;
  const int nranks_;
  std::byte* const slots_[2];
  const size_t slot_bytes_;
  const std::span<const char> takes_gpu_memory_;
  const std::span<const StagingPlace::Path> paths_;
  const size_t most_executed_;
  const bool in_place_;
  std::vector<Stage> stages_;
  bool closed_ = false;  // nothing may join the last stage
};

}  // namespace

size_t least_slot_bytes(int nranks) { return 4 * static_cast<size_t>(nranks) * kLeastMessage; }

std::vector<Stage> plan_stages(std::span<const Operation> operations, const StagingPlace& place) {
  return Planner(place).plan(operations);
}

StagedCopy lone_copy(const Operation& operation) {
  if (operation.collective == Collective::kBarrier) return {nullptr, nullptr, 0};
  const size_t element = size_of(operation.type);
  const auto place = [&](const void* base, const BlockTable& table) {
    auto* at = static_cast<std::byte*>(const_cast<void*>(base));
    return table.displs.empty() ? at : at + table.displs[0] * element;
  };
  const size_t count = !operation.out_table().empty()  ? operation.out_table().counts[0]
                       : !operation.in_table().empty() ? operation.in_table().counts[0]
                                                       : operation.count;
  return {place(operation.out, operation.out_table()), place(operation.in, operation.in_table()),
          count * element};
}

Reach reach_of(const Operation& operation, int rank, int nranks) {
  if (operation.collective == Collective::kSendRecv) {
    const size_t bytes = operation.count * size_of(operation.type);
    return operation.is_send ? Reach{bytes, 0} : Reach{0, bytes};
  }
  if (operation.collective == Collective::kBarrier) return {};
  const auto end = [&](const Blocks& blocks) {
    size_t most = 0;
    for (size_t i = 0; i < blocks.counts.size(); ++i)
      if (blocks.counts[i] > 0) most = std::max(most, blocks.displs[i] + blocks.counts[i]);
    return most * size_of(operation.type);
  };
  return {end(input_of(operation, rank, nranks)), end(output_of(operation, rank, nranks))};
}

}  // namespace libcomm
