// Group building. Ranks whose hosts look alike form a candidate set; its lowest rank makes the
// memory, the others try to map it and leave a proof in it that all others look for. Who failed is
// left out, and the left-out ones of a host try among themselves (they may be in another
// container). Every decision is a function of what all ranks have exchanged, so all of them take
// the same rounds and agree on the outcome.
#include "transports/shm/group.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>

#include "src/base/log.h"
#include "src/bootstrap/handshake.h"
#include "transports/facts.h"
#include "transports/shm/group_builder.h"
#include "transports/shm/peek.h"
#include "transports/shm/transport.h"

namespace libcomm {
namespace shm {
namespace {

constexpr int kMostRounds = 4;         // of elections on one host; who is left then stays alone
constexpr size_t kMostMembers = 2048;  // the directory grows with the square
constexpr size_t kMostPartBytes = size_t{1} << 30;
constexpr Seconds kFetchPatience{5.0};

// Exchanged structs. Host byte order is enough: only ranks of one host act on them.
struct Offer {
  enum State : int32_t { kNone, kMade, kRefused };
  int32_t state = kNone;
  int32_t fd = -1;
  uint64_t part_bytes = 0;
  Nonce nonce{};
  char why[232] = {};  // kRefused: the error's text
};
static_assert(sizeof(Offer) == 264);

struct Attempt {
  int32_t mapped = 0;
  int32_t trial_fd = -1;  // of this process's lowest member: memory that peers try to open
  uint64_t mark = 0;      // where this rank's mark is in its process: memory that peers try to read
};

struct Verdict {
  int32_t sees_all = 0;      // the proofs of all who say that they have mapped the memory
  int32_t opens_trials = 0;  // of all other processes
  int32_t reads_marks = 0;   // of all other processes
};

class GroupBuilder {
 public:
  GroupBuilder(Bootstrap& bootstrap, std::span<const PeerFacts> facts, const Knobs& knobs,
               const GroupOptions& options)
      : bootstrap_(bootstrap),
        facts_(facts),
        options_(options),
        buffer_bytes_(knobs.get_size(Knob::kBuffsize)),
        may_read_(!knobs.get_bool(Knob::kCmaDisable)),
        me_(bootstrap.rank()),
        settled_(facts.size(), false) {
    group_.group_of.resize(facts.size());
    for (size_t rank = 0; rank < facts.size(); ++rank)
      group_.group_of[rank] = static_cast<int>(rank);
  }

  Result<ShmGroup> build() {
    for (int round = 0; round < kMostRounds; ++round) {
      find_candidates();
      if (sets_.empty()) break;
      COMM_TRY(elect());
    }
    return std::move(group_);
  }

 private:
  using Set = std::vector<int>;  // ranks, ascending

  const PeerFacts& facts_of(int rank) const { return facts_[static_cast<size_t>(rank)]; }
  template <typename T>
  Result<std::vector<T>> gather(const T& mine) {
    std::vector<T> all(facts_.size());
    all[static_cast<size_t>(me_)] = mine;
    COMM_TRY(bootstrap_.all_gather(all.data(), sizeof(T)));
    return all;
  }

  void find_candidates();
  Status elect();
  Status offer_memory();
  Status map_by(FdWay way);
  void fetch(FdWay way);
  Result<Verdict> judge();
  bool opens_trial_of(int rank, const Nonce& nonce) const;
  bool reads_mark_of(int rank, const Nonce& nonce) const;
  void settle(const std::vector<Verdict>& verdicts);
  void join(const Set& members, bool segments_mappable, bool memory_readable);

  Proof proof(const char* label, const Nonce& nonce, int rank) const;
  // The memory of rank's candidate set, as its lowest rank announced it.
  const Offer& offer_of(int rank) const { return offers_[static_cast<size_t>(leader_of(rank))]; }
  int leader_of(int rank) const { return sets_.at(facts_of(rank).host_hash).front(); }
  bool mapped(int rank) const { return attempts_[static_cast<size_t>(rank)].mapped != 0; }
  bool lowest_of_process(int rank) const;
  size_t position_of(int rank) const;

  Bootstrap& bootstrap_;
  const std::span<const PeerFacts> facts_;
  const GroupOptions& options_;
  const size_t buffer_bytes_;
  const bool may_read_;
  const int me_;

  // Of the whole building.
  std::vector<bool> settled_;  // ranks whose group is known
  ShmGroup group_;

  // Of one election. This rank may be in no set; it then only takes part in the exchanges.
  std::map<uint64_t, Set> sets_;  // unsettled ranks by host, at least two each
  const Set* mine_ = nullptr;
  std::vector<Offer> offers_;      // by rank
  std::vector<Attempt> attempts_;  // by rank
  std::shared_ptr<GroupMemory> memory_;
  std::optional<SharedFile> trial_;
  Proof mark_{};         // what peers look for in this process
  std::string why_not_;  // this rank could not map the memory
};

void GroupBuilder::find_candidates() {
  sets_.clear();
  for (const PeerFacts& facts : facts_)
    if (!settled_[static_cast<size_t>(facts.rank)]) sets_[facts.host_hash].push_back(facts.rank);
  for (auto& [host, set] : sets_)
    if (set.size() > kMostMembers) set.resize(kMostMembers);
  std::erase_if(sets_, [](const auto& item) { return item.second.size() < 2; });

  mine_ = nullptr;
  const auto found = sets_.find(facts_of(me_).host_hash);
  if (found != sets_.end() && std::binary_search(found->second.begin(), found->second.end(), me_))
    mine_ = &found->second;
}

// One round: offer, map, judge, settle.
Status GroupBuilder::elect() {
  memory_.reset();
  trial_.reset();
  why_not_.clear();
  COMM_TRY(offer_memory());
  for (const FdWay way : {FdWay::kProc, FdWay::kAbstractSocket, FdWay::kPathSocket}) {
    COMM_TRY(map_by(way));
    const bool all = std::all_of(sets_.begin(), sets_.end(), [this](const auto& item) {
      return std::all_of(item.second.begin(), item.second.end(),
                         [this](int rank) { return mapped(rank); });
    });
    if (all) break;
  }
  COMM_ASSIGN(const Verdict verdict, judge());
  COMM_ASSIGN(const std::vector<Verdict> verdicts, gather(verdict));
  settle(verdicts);
  return {};
}

// The lowest rank of each set makes its memory and tells all. Every rank fails when one is refused
// it: a full /dev/shm is for the user to enlarge, not for us to hide.
Status GroupBuilder::offer_memory() {
  Offer offer;
  if (mine_ != nullptr && mine_->front() == me_) {
    const auto make = [&]() -> Status {
      COMM_TRY(
          random_bytes({reinterpret_cast<unsigned char*>(offer.nonce.data()), sizeof offer.nonce}));
      // Whether memory must be reserved is known only once there is a file.
      Layout layout = Layout::of(mine_->size(), buffer_bytes_, kPartBytes);
      COMM_ASSIGN(SharedFile file,
                  SharedFile::create("comm-group", layout.file_bytes(), options_.allow_memfd));
      if (file.must_reserve())
        layout = Layout::of(mine_->size(), buffer_bytes_, kReservedPartBytes);
      COMM_ASSIGN(memory_, GroupMemory::create(layout, offer.nonce, std::move(file)));
      offer.state = Offer::kMade;
      offer.fd = memory_->fd();
      offer.part_bytes = layout.part_bytes;
      return {};
    };
    if (const Status made = make(); !made) {
      offer.state = Offer::kRefused;
      const std::string text = made.message().substr(0, sizeof offer.why - 1);
      std::memcpy(offer.why, text.data(), text.size());
    }
  }
  COMM_ASSIGN(offers_, gather(offer));
  for (const auto& [host, set] : sets_) {
    Offer& made = offers_[static_cast<size_t>(set.front())];
    if (made.state == Offer::kMade && made.part_bytes % kPage == 0 && made.part_bytes != 0 &&
        made.part_bytes <= kMostPartBytes)
      continue;
    made.why[sizeof made.why - 1] = '\0';
    return error(Code::kSystem, "no shared memory for the {} ranks beside rank {}: {}", set.size(),
                 set.front(), made.state == Offer::kRefused ? made.why : "its offer makes no sense")
        .with_peer(set.front());
  }
  attempts_.assign(facts_.size(), {});
  return {};
}

// Everyone without the memory tries one way to it, then all tell.
Status GroupBuilder::map_by(FdWay way) {
  const auto missing = [this](int rank) { return rank != leader_of(rank) && !mapped(rank); };
  std::unique_ptr<FdServer> server;
  if (way != FdWay::kProc) {
    if (mine_ != nullptr && mine_->front() == me_ && options_.allow_way(way)) {
      std::vector<Proof> expected;
      for (const int rank : *mine_)
        if (missing(rank)) expected.push_back(proof("comm shm fetch", offer_of(me_).nonce, rank));
      if (!expected.empty()) {
        const auto give = [fd = memory_->fd()](uint64_t) -> Result<PassedFd> {
          PassedFd given{UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)), {}};
          if (!given.fd) return descriptor_error(errno, "passing shared memory");
          return given;
        };
        Result<std::unique_ptr<FdServer>> started =
            FdServer::start(way, offer_of(me_).nonce, give, std::move(expected));
        if (started)
          server = *std::move(started);
        else
          log_info(Subsys::kShm, "{}", started.status().message());
      }
    }
    COMM_TRY(bootstrap_.barrier());  // servers are there
  }
  if (mine_ != nullptr && memory_ == nullptr) fetch(way);

  Attempt attempt;
  if (memory_ != nullptr) {
    attempt.mapped = 1;
    const Proof shown = proof("comm shm member", offer_of(me_).nonce, me_);
    RankControl& control = memory_->control(position_of(me_));
    for (size_t i = 0; i < shown.size(); ++i)
      control.proof[i].store(shown[i], std::memory_order_relaxed);
    if (!trial_ && lowest_of_process(me_)) {
      Result<SharedFile> trial = SharedFile::create("comm-trial", kPage, options_.allow_memfd);
      const Proof mark = proof("comm shm trial", offer_of(me_).nonce, me_);
      if (trial && ::pwrite(trial->fd(), mark.data(), sizeof mark, 0) == sizeof mark)
        trial_ = *std::move(trial);
    }
    if (trial_) attempt.trial_fd = trial_->fd();
    mark_ = proof("comm shm mark", offer_of(me_).nonce, me_);
    attempt.mark = reinterpret_cast<uintptr_t>(mark_.data());
  }
  COMM_ASSIGN(attempts_, gather(attempt));
  return {};
}

void GroupBuilder::fetch(FdWay way) {
  const Offer& offer = offer_of(me_);
  const PeerFacts& leader = facts_of(leader_of(me_));
  const auto get = [&]() -> Result<UniqueFd> {
    if (!options_.allow_way(way)) return error(Code::kSystem, "{} is not to be used", name_of(way));
    if (way != FdWay::kProc) {
      auto passed = fetch_fd(way, offer.nonce, proof("comm shm fetch", offer.nonce, me_), 0,
                             Deadline::after(kFetchPatience));
      if (!passed) return passed.status();
      return std::move(passed->fd);
    }
    if (leader.pid_namespace != facts_of(me_).pid_namespace)
      return error(Code::kSystem, "rank {} is in another pid namespace", leader.rank);
    return open_peer_fd(leader.pid, offer.fd);
  };
  const Layout layout = Layout::of(mine_->size(), buffer_bytes_, offer.part_bytes);
  Result<std::shared_ptr<GroupMemory>> found = GroupMemory::find_or_open(layout, offer.nonce, get);
  if (found)
    memory_ = *std::move(found);
  else
    why_not_ += (why_not_.empty() ? "" : "; ") + found.status().message();
}

Result<Verdict> GroupBuilder::judge() {
  Verdict verdict;
  if (memory_ == nullptr) return verdict;
  const Nonce& nonce = offer_of(me_).nonce;
  const auto shows_proof = [&](int rank) {
    const Proof due = proof("comm shm member", nonce, rank);
    const RankControl& control = memory_->control(position_of(rank));
    Proof shown{};
    for (size_t i = 0; i < shown.size(); ++i)
      shown[i] = control.proof[i].load(std::memory_order_relaxed);
    return shown == due;
  };
  verdict.sees_all = std::all_of(mine_->begin(), mine_->end(),
                                 [&](int rank) { return !mapped(rank) || shows_proof(rank); });
  verdict.opens_trials =
      !lowest_of_process(me_) || std::all_of(mine_->begin(), mine_->end(), [&](int rank) {
        return !mapped(rank) || !lowest_of_process(rank) ||
               same_process(facts_of(me_), facts_of(rank)) || opens_trial_of(rank, nonce);
      });
  verdict.reads_marks =
      may_read_ &&
      (!lowest_of_process(me_) || std::all_of(mine_->begin(), mine_->end(), [&](int rank) {
        return !mapped(rank) || !lowest_of_process(rank) ||
               same_process(facts_of(me_), facts_of(rank)) || reads_mark_of(rank, nonce);
      }));
  return verdict;
}

bool GroupBuilder::reads_mark_of(int rank, const Nonce& nonce) const {
  const PeerFacts& owner = facts_of(rank);
  if (owner.pid_namespace != facts_of(me_).pid_namespace) return false;
  Proof mark{};
  const Status read =
      read_process(owner.pid, mark.data(), attempts_[static_cast<size_t>(rank)].mark, sizeof mark);
  return read.is_ok() && mark == proof("comm shm mark", nonce, rank);
}

bool GroupBuilder::opens_trial_of(int rank, const Nonce& nonce) const {
  const PeerFacts& owner = facts_of(rank);
  const int32_t number = attempts_[static_cast<size_t>(rank)].trial_fd;
  if (number < 0 || owner.pid_namespace != facts_of(me_).pid_namespace) return false;
  Result<UniqueFd> fd = open_peer_fd(owner.pid, number);
  if (!fd) return false;
  Proof mark{};
  return ::pread(fd->get(), mark.data(), sizeof mark, 0) == sizeof mark &&
         mark == proof("comm shm trial", nonce, rank);
}

void GroupBuilder::settle(const std::vector<Verdict>& verdicts) {
  for (const auto& [host, set] : sets_) {
    Set members;
    bool segments_mappable = true;
    bool memory_readable = true;
    for (const int rank : set) {
      const Verdict& verdict = verdicts[static_cast<size_t>(rank)];
      if (!mapped(rank) || verdict.sees_all == 0) continue;
      members.push_back(rank);
      segments_mappable = segments_mappable && verdict.opens_trials != 0;
      memory_readable = memory_readable && verdict.reads_marks != 0;
    }
    // Without its maker there is nobody left whose word the others could go by.
    if (members.empty() || members.front() != set.front()) members = {set.front()};
    for (const int rank : members) {
      settled_[static_cast<size_t>(rank)] = true;
      group_.group_of[static_cast<size_t>(rank)] = members.front();
    }
    if (&set != mine_) continue;
    if (members.size() > 1 && std::binary_search(members.begin(), members.end(), me_))
      join(members, segments_mappable, memory_readable);
    else if (!why_not_.empty())
      log_info(Subsys::kShm, "rank {} shares no memory with rank {}: {}", me_, set.front(),
               why_not_);
  }
}

void GroupBuilder::join(const Set& members, bool segments_mappable, bool memory_readable) {
  std::vector<Member> known;
  bool cores_differ = true;
  std::vector<int> cores;
  for (const int rank : members) {
    known.push_back({.rank = rank,
                     .position = position_of(rank),
                     .pid = facts_of(rank).pid,
                     .in_this_process = same_process(facts_of(rank), facts_of(me_))});
    const int core = facts_of(rank).core;
    cores_differ =
        cores_differ && core >= 0 && std::find(cores.begin(), cores.end(), core) == cores.end();
    cores.push_back(core);
  }
  cpu_set_t usable;
  CPU_ZERO(&usable);
  (void)::sched_getaffinity(0, sizeof usable, &usable);
  const bool oversubscribed =
      !cores_differ && members.size() > static_cast<size_t>(CPU_COUNT(&usable));
  const auto my_index =
      static_cast<size_t>(std::lower_bound(members.begin(), members.end(), me_) - members.begin());
  log_info(Subsys::kShm, "rank {}: peers {} each other's plain memory (process_vm_readv)", me_,
           memory_readable ? "read" : "do not read");
  auto transport = std::make_unique<ShmTransport>(
      std::move(memory_), std::move(known), my_index,
      BoardAbilities{.segments_mappable = segments_mappable, .memory_readable = memory_readable},
      oversubscribed);
  group_.board = transport->board();
  group_.transport = std::move(transport);
}

Proof GroupBuilder::proof(const char* label, const Nonce& nonce, int rank) const {
  unsigned char parts[sizeof nonce + sizeof rank];
  std::memcpy(parts, nonce.data(), sizeof nonce);
  std::memcpy(parts + sizeof nonce, &rank, sizeof rank);
  const Mac mac = hmac(bootstrap_.secret(), label, {parts});
  Proof words{};
  static_assert(sizeof words == sizeof mac);
  std::memcpy(words.data(), mac.data(), sizeof words);
  return words;
}

bool GroupBuilder::lowest_of_process(int rank) const {
  const Set& set = sets_.at(facts_of(rank).host_hash);
  return *std::find_if(set.begin(), set.end(), [&](int other) {
    return same_process(facts_of(other), facts_of(rank));
  }) == rank;
}

size_t GroupBuilder::position_of(int rank) const {
  return static_cast<size_t>(std::lower_bound(mine_->begin(), mine_->end(), rank) - mine_->begin());
}

}  // namespace

Result<ShmGroup> build_group(Bootstrap& bootstrap, std::span<const PeerFacts> facts,
                             const Knobs& knobs, const GroupOptions& options) {
  return GroupBuilder(bootstrap, facts, knobs, options).build();
}

}  // namespace shm

Result<ShmGroup> make_shm_group(Bootstrap& bootstrap, std::span<const PeerFacts> facts,
                                std::shared_ptr<const Knobs> knobs) {
  if (knobs->get_bool(Knob::kShmDisable)) {
    ShmGroup alone;
    for (const PeerFacts& each : facts) alone.group_of.push_back(each.rank);
    return alone;
  }
  return shm::build_group(bootstrap, facts, *knobs, {});
}

}  // namespace libcomm
