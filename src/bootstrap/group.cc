// Bootstrap's implementation: assembling a group, its exchanges, its connections.
//
//   join    meet the others at the rendezvous (meet.h): it gives this rank a parent in a tree
//   derive  the tree's connections go through the parent group instead
//   both    exchange what everybody must know of everybody over the tree; open the control links of
//           the overlay; a barrier, so that nobody goes on before all links stand
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "src/base/log.h"
#include "src/bootstrap/bootstrap.h"
#include "src/bootstrap/dial.h"
#include "src/bootstrap/meet.h"
#include "src/bootstrap/monitor.h"
#include "src/bootstrap/overlay.h"
#include "src/bootstrap/tree.h"

namespace libcomm {
namespace {

uint32_t to_u32(int value) { return static_cast<uint32_t>(value); }
size_t to_size(int value) { return static_cast<size_t>(value); }

// How long the connection of a rank that has left may still be under way.
constexpr double kArrivalGrace = 0.5;
// How long the news of why a rank closed its connection may still be under way.
constexpr double kNewsGrace = 2;
// How often the wait for a rank's connection looks round; after how many times in vain the rank is
// called up; how often in turn it must refuse.
constexpr double kLookEvery = 0.05;
constexpr int kLooksPerCall = 10;
constexpr int kRefusals = 4;
// Patience with each of its addresses.
constexpr double kCallPatience = 0.5;
// In a text of a group that is made from another one: its numbers are those of the other one.
constexpr std::string_view kByOldNumber = " (by its number in the group before)";
// No rank: only the group's failure ends a wait for news of it.
constexpr int kNobody = -1;

// A group of one: nobody to talk to.
class SoloGroup final : public Bootstrap {
 public:
  SoloGroup(const Key& key, NewsCallback on_news) : key_(key), on_news_(std::move(on_news)) {}

  Result<std::unique_ptr<Bootstrap>> derive(std::span<const int> members, uint64_t tag,
                                            std::shared_ptr<const Knobs>, NewsCallback on_news,
                                            const std::atomic<bool>*) override {
    if (members.size() != 1 || members[0] != 0)
      return error(Code::kInvalidArgument, "a group of one rank has rank 0 as its only member");
    const Key key = hmac(key_, "libcomm derived group",
                         {std::span(reinterpret_cast<const unsigned char*>(&tag), sizeof tag)});
    return std::unique_ptr<Bootstrap>(std::make_unique<SoloGroup>(key, std::move(on_news)));
  }
  int rank() const override { return 0; }
  int nranks() const override { return 1; }
  std::span<const unsigned char, 32> secret() const override { return key_; }
  std::string where(int) const override { return "this process"; }
  Status all_gather(void*, size_t, const std::atomic<bool>*, SetupCall) override {
    return failure();
  }
  Result<std::vector<std::string>> all_gather_text(const std::string& mine) override {
    COMM_TRY(failure());
    return std::vector<std::string>{mine};
  }
  Status barrier() override { return failure(); }
  Result<UniqueFd> connect(int peer, Purpose, uint32_t) override {
    return error(Code::kInvalidArgument, "a group of one rank has no peer {}", peer);
  }
  Result<UniqueFd> try_accept(int peer, Purpose, uint32_t) override {
    return error(Code::kInvalidArgument, "a group of one rank has no peer {}", peer);
  }
  void watch_process(int, int64_t) override {}
  void raise(News news, const Status& reason) override {
    Status named = Status(reason).with_peer(0);
    {
      std::lock_guard lock(mutex_);
      bool& seen = news == News::kRevoke ? revoked_ : failed_;
      if (seen) return;
      seen = true;
      if (news != News::kRevoke) failure_ = named;
    }
    if (on_news_) on_news_(news, named);
  }
  void leave() override {}
  int sockets() const override { return 0; }
  int threads() const override { return 0; }

 private:
  Status failure() const {
    std::lock_guard lock(mutex_);
    return failure_;
  }

  const Key key_;
  const NewsCallback on_news_;
  mutable std::mutex mutex_;
  bool revoked_ = false;
  bool failed_ = false;
  Status failure_;
};

class Group final : public Bootstrap {
 public:
  Group(int rank, int nranks, const Key& key, std::shared_ptr<const Knobs> knobs,
        const std::atomic<bool>* cancel)
      : rank_(rank), nranks_(nranks), key_(key), knobs_(std::move(knobs)), cancel_(cancel) {}

  ~Group() override {
    // In a forked child the thread is the parent's, and its mutex may be locked for ever.
    if (generation_ != fork_generation()) (void)monitor_.release();
  }

  // What this rank saw may be a symptom of what it was told.
  Status cause_of(Status seen) const {
    Status news = monitor_->failure();
    return news ? seen : news;
  }

  // From here on peers that connect are let in.
  Status open(Listeners listeners, NewsCallback on_news) {
    endpoint_ = listeners.endpoint;
    COMM_ASSIGN(monitor_,
                Monitor::start(rank_, nranks_, key_, std::move(listeners),
                               [this, on_news = std::move(on_news)](News news, const Status& why) {
                                 if (news != News::kRevoke) tell_derivations();
                                 if (on_news) on_news(news, why);
                                 if (news == News::kRevoke) note_revoke(why);
                               }));
    return Status::ok();
  }

  Status assemble_at(Place place, const WaitLimits& limits) {
    for (UniqueFd& root : place.roots) monitor_->follow_root(std::move(root));
    WaitLimits alarmed = limits;
    alarmed.alarm = monitor_->alarm();
    const int parent = place.parent.parent == kNoRank ? -1 : static_cast<int>(place.parent.parent);
    COMM_TRY(grow_tree(
        parent, place.children,
        [&]() -> Result<UniqueFd> {
          return dial(place.parent.endpoint, call(parent, static_cast<uint16_t>(Use::kTree), 0),
                      alarmed, peer_policy(), fmt::format("rank {}", parent));
        },
        [&](int child) {
          return monitor_->take(child, static_cast<uint16_t>(Use::kTree), 0, alarmed);
        }));
    return assemble(alarmed);
  }

  Status assemble_through(Group& through, std::span<const int> members, uint32_t index,
                          const WaitLimits& limits) {
    const uint16_t purpose = static_cast<uint16_t>(Use::kDerive);
    WaitLimits alarmed = limits;
    alarmed.alarm = monitor_->alarm();
    // For errors, until the members have said where this group reaches them.
    for (int member : members) peers_.push_back(through.peers_[to_size(member)]);
    std::vector<int> children;
    for (int child : {2 * rank_ + 1, 2 * rank_ + 2})
      if (child < nranks_) children.push_back(child);
    const int parent = rank_ > 0 ? (rank_ - 1) / 2 : -1;
    // All that fails here is told in this group's numbers: derive() tells its caller in the
    // other's.
    const auto renumbered = [&](Result<UniqueFd> fd) -> Result<UniqueFd> {
      if (fd) return fd;
      return in_numbers_of(members, fd.status());
    };
    COMM_TRY(grow_tree(
        parent, children,
        [&] {
          return renumbered(through.dial_peer(members[to_size(parent)], purpose, index, alarmed));
        },
        [&](int child) {
          return renumbered(await_member(through, members[to_size(child)], index, alarmed));
        }));
    return assemble(alarmed);
  }

  Result<std::unique_ptr<Bootstrap>> derive(std::span<const int> members, uint64_t tag,
                                            std::shared_ptr<const Knobs> knobs,
                                            NewsCallback on_news,
                                            const std::atomic<bool>* cancel) override;

  int rank() const override { return rank_; }
  int nranks() const override { return nranks_; }
  std::span<const unsigned char, 32> secret() const override { return key_; }
  std::string where(int rank) const override {
    return rank >= 0 && rank < nranks_ ? peers_[to_size(rank)].to_string() : "no rank";
  }

  Status all_gather(void* data, size_t bytes_each, const std::atomic<bool>* cancel,
                    SetupCall call) override {
    char* out = static_cast<char*>(data);
    const std::string mine(out + to_size(rank_) * bytes_each, bytes_each);
    if (bytes_each > kMaxBlockBytes)
      return error(Code::kInvalidArgument,
                   "all_gather of {} bytes per rank: at most {} are possible", bytes_each,
                   kMaxBlockBytes);
    WaitLimits limits = own_limits();
    limits.cancel_too = call == SetupCall::kWindow ? &revoked_ : cancel;
    const ExchangeKind kind = call == SetupCall::kSplit    ? ExchangeKind::kSplit
                              : call == SetupCall::kWindow ? ExchangeKind::kWindow
                                                           : ExchangeKind::kGather;
    COMM_ASSIGN(const auto blocks, exchange(kind, bytes_each, mine, limits));
    for (int r = 0; r < nranks_; ++r)
      if (r != rank_ && bytes_each > 0)
        std::memcpy(out + to_size(r) * bytes_each, blocks[to_size(r)].data(), bytes_each);
    return Status::ok();
  }

  Result<std::vector<std::string>> all_gather_text(const std::string& mine) override {
    if (mine.size() > kMaxBlockBytes)
      return error(Code::kInvalidArgument, "all_gather_text of {} bytes: at most {} are possible",
                   mine.size(), kMaxBlockBytes);
    return exchange(ExchangeKind::kText, 0, mine);
  }

  Status barrier() override { return exchange(ExchangeKind::kBarrier, 0, "").status(); }

  Result<UniqueFd> connect(int peer, Purpose purpose, uint32_t index) override {
    COMM_TRY(check_peer(peer));
    if (has_left(peer)) return gone(peer);
    WaitLimits limits = own_limits();
    auto fd = dial_peer(peer, static_cast<uint16_t>(purpose), index, limits);
    if (fd) return fd;
    COMM_TRY(monitor_->failure());
    if (has_left(peer)) return gone(peer);
    return fd;
  }

  Result<UniqueFd> try_accept(int peer, Purpose purpose, uint32_t index) override {
    COMM_TRY(check_peer(peer));
    UniqueFd fd = monitor_->try_take(peer, static_cast<uint16_t>(purpose), index);
    if (fd) return fd;
    COMM_TRY(monitor_->failure());
    const auto since = monitor_->left_since(peer);
    if (since.has_value() && since->count() > kArrivalGrace) return gone(peer);
    return fd;
  }

  size_t departures() const override { return monitor_->departures(); }
  bool has_left(int peer) const override { return monitor_->left_since(peer).has_value(); }
  void watch_process(int peer, int64_t pid) override { monitor_->watch_process(peer, pid); }
  void raise(News news, const Status& reason) override { monitor_->raise(news, reason); }
  Status inquire() override { return monitor_->inquire(); }
  void leave() override {
    if (generation_ == fork_generation()) monitor_->leave();
  }
  int sockets() const override { return monitor_->sockets() + tree_.sockets(); }
  int threads() const override { return 1; }

 private:
  static Status gone(int peer) {
    return error(Code::kRemote, "rank {} has left the group", peer).with_peer(peer);
  }

  static DialPolicy peer_policy() { return {.refused_for = 2, .stranger_for = 3}; }

  Call call(int peer, uint16_t purpose, uint32_t index) const {
    return {key_, purpose, to_u32(rank_), to_u32(peer), index};
  }

  WaitLimits own_limits() const {
    return {Deadline::from_knob(knobs_->get_seconds(Knob::kBootstrapTimeout)), cancel_,
            monitor_->alarm()};
  }

  Status check_peer(int peer) const {
    if (peer < 0 || peer >= nranks_ || peer == rank_)
      return error(Code::kInvalidArgument, "peer {} is not another rank of 0..{}", peer,
                   nranks_ - 1);
    return Status::ok();
  }

  Result<UniqueFd> dial_peer(int peer, uint16_t purpose, uint32_t index, const WaitLimits& limits) {
    size_t address;
    {
      std::lock_guard lock(preferred_mutex_);
      address = preferred_[to_size(peer)];
    }
    auto fd = dial(peers_[to_size(peer)].endpoint, call(peer, purpose, index), limits,
                   peer_policy(), fmt::format("rank {} ({})", peer, where(peer)), &address);
    if (!fd) return std::move(fd).status().with_peer(peer);
    std::lock_guard lock(preferred_mutex_);
    preferred_[to_size(peer)] = static_cast<uint8_t>(address);
    return fd;
  }

  // The first member that died or aborted, in this group's numbers. Who saw an operation fail says
  // so as its rank; of an abort only the culprit is known.
  Status lost_member(std::span<const int> members) const {
    Status news = monitor_->failure();
    const bool lost = !news && (news.rank() < 0 || monitor_->failed_by_death()) &&
                      std::find(members.begin(), members.end(), news.peer()) != members.end();
    return lost ? news : Status::ok();
  }

  // As members of a group that derives from this one are told: with their number there as the peer.
  static Status in_numbers_of(std::span<const int> members, const Status& why) {
    const auto at = std::find(members.begin(), members.end(), why.peer());
    if (at == members.end()) return Status(why.code(), why.message());
    return Status(why.code(), fmt::format("{}{}", why.message(), kByOldNumber))
        .with_peer(static_cast<int>(at - members.begin()));
  }

  // The way back: who asked for the new group knows its members by their numbers in this one.
  static Status in_old_numbers(std::span<const int> members, const Status& seen) {
    const auto old = [&](int rank) {
      return rank >= 0 && to_size(rank) < members.size() ? members[to_size(rank)] : -1;
    };
    const int peer = old(seen.peer());
    std::string text = seen.message();
    if (const size_t at = text.find(kByOldNumber); at != std::string::npos)
      text.erase(at, kByOldNumber.size());
    else if (peer >= 0 && peer != seen.peer())
      text += fmt::format(" (by its number in the new group: it is rank {} here)", peer);
    return Status(seen.code(), text).at_rank(old(seen.rank())).with_peer(peer).in_op(seen.op());
  }

  // A member that dies or aborts ends the making of a group. That others do is nothing to it: the
  // members may be what is left of this group, which has failed.
  void tell_derivations() {
    std::lock_guard lock(derivations_mutex_);
    for (const Derivation& derivation : derivations_)
      if (const Status lost = lost_member(derivation.members); !lost)
        derivation.group->monitor_->raise(News::kAbort, in_numbers_of(derivation.members, lost));
  }

  Status cause_among(std::span<const int> members, Status seen) override {
    if (seen.code() == Code::kRemote)
      monitor_->await_news_of(kNobody, Deadline::after(Seconds(kNewsGrace)));
    Status lost = lost_member(members);
    return lost ? in_old_numbers(members, seen) : lost;
  }

  // The connection that rank `peer` of `through` opens to this group's rank. Where `through` has
  // failed, nobody tells of more deaths there: the peer is looked for at its addresses.
  Result<UniqueFd> await_member(Group& through, int peer, uint32_t index,
                                const WaitLimits& limits) {
    int waits = 0;
    for (int refusals = 0; refusals < kRefusals;) {
      WaitLimits look{limits.deadline, limits.cancel, -1, limits.cancel_too};
      if (look.deadline.poll_ms(1000) > 1000 * kLookEvery)
        look.deadline = Deadline::after(Seconds(kLookEvery));
      auto fd = through.monitor_->take(peer, static_cast<uint16_t>(Use::kDerive), index, look);
      if (fd || fd.status().code() != Code::kSystem || limits.deadline.passed()) return fd;
      COMM_TRY(monitor_->failure());
      if (through.monitor_->failure() || ++waits % kLooksPerCall != 0) continue;
      const Endpoint& endpoint = through.peers_[to_size(peer)].endpoint;
      refusals = is_refused(endpoint, limits, kCallPatience) ? refusals + 1 : 0;
    }
    return error(Code::kRemote, "rank {} ({}) is gone: nothing listens at its addresses", peer,
                 through.where(peer))
        .with_peer(peer);
  }

  // Connects this rank's tree: `to_parent` opens a connection (for the tree's root `parent` is
  // negative), `from_child` waits for one. Where a neighbour is gone the other ones are told so:
  // they may hear of it from nobody else.
  template <typename ToParent, typename FromChild>
  Status grow_tree(int parent, const std::vector<int>& children, const ToParent& to_parent,
                   const FromChild& from_child) {
    Status failure;
    const auto keep = [&](int neighbour, Result<UniqueFd> fd) {
      TreeEdge edge;
      edge.rank = neighbour;
      if (fd)
        edge.fd = *std::move(fd);
      else if (failure)
        failure = std::move(fd).status();
      return edge;
    };
    const auto goes_on = [&] { return failure.is_ok() || failure.code() == Code::kRemote; };
    TreeEdge up;
    if (parent >= 0) up = keep(parent, to_parent());
    std::vector<TreeEdge> down;
    for (size_t i = 0; i < children.size() && goes_on(); ++i)
      down.push_back(keep(children[i], from_child(children[i])));
    tree_ = Tree(rank_, nranks_, std::move(up), std::move(down));
    if (failure) return failure;
    failure = cause_of(std::move(failure));
    if (failure.code() != Code::kInvalidUsage) tree_.give_up(failure);
    return failure;
  }

  // With the tree in place: everybody learns of everybody, and the control links are opened. A rank
  // that gives up says why: else those behind it would take its end for the reason.
  Status assemble(const WaitLimits& limits) {
    Status status = connect_overlay(limits);
    if (status || limits.cancelled()) return status;
    status = cause_of(std::move(status));
    monitor_->raise(News::kAbort, status);
    tree_.give_up(status);
    return status;
  }

  Status connect_overlay(const WaitLimits& limits) {
    COMM_ASSIGN(const auto blocks,
                exchange(ExchangeKind::kTable, 0, Peer::self(endpoint_).encode(), limits));
    peers_.resize(to_size(nranks_));
    preferred_.assign(to_size(nranks_), 0);
    for (int r = 0; r < nranks_; ++r)
      if (!peers_[to_size(r)].decode(blocks[to_size(r)]))
        return error(Code::kInternal, "rank {} published a malformed address", r).with_peer(r);
    monitor_->set_peers(peers_);
    const std::set<int> neighbours = overlay_neighbours(rank_, nranks_);
    for (int peer : neighbours) {
      if (peer > rank_) break;
      auto fd = dial_peer(peer, static_cast<uint16_t>(Use::kControl), 0, limits);
      if (!fd) return std::move(fd).status();
      monitor_->add_link(peer, *std::move(fd));
    }
    COMM_TRY(monitor_->await_links(neighbours, limits));
    COMM_TRY(exchange(ExchangeKind::kBarrier, 0, "", limits).status());
    monitor_->leave_roots();
    standing_ = true;
    log_info(Subsys::kBootstrap, "rank {} of {} joined: {}", rank_, nranks_, where(rank_));
    return Status::ok();
  }

  Result<std::vector<std::string>> exchange(ExchangeKind kind, uint64_t block_bytes,
                                            const std::string& mine) {
    return exchange(kind, block_bytes, mine, own_limits());
  }

  Result<std::vector<std::string>> exchange(ExchangeKind kind, uint64_t block_bytes,
                                            const std::string& mine, const WaitLimits& limits) {
    COMM_TRY(monitor_->failure());
    if (!broken_)
      return Status(broken_).context("an earlier set-up call ended halfway, no other can follow");
    auto blocks = tree_.exchange(kind, block_bytes, mine, limits);
    if (blocks) return blocks;
    broken_ = blocks.status();
    const bool of_user = kind == ExchangeKind::kWindow || kind == ExchangeKind::kSplit;
    if (of_user && hears_of_revoke(broken_, limits)) {
      if (kind == ExchangeKind::kWindow) broken_ = revoke_reason_;
      tree_.give_up(broken_);
      tree_.close();
      return with_place(broken_);
    }
    // A closed edge is a symptom; the overlay knows the cause, or will in a moment. Who gave up for
    // another reason may abort next: that is no news.
    if (blocks.status().code() == Code::kRemote) {
      if (!standing_ && blocks.status().peer() >= 0) tree_.give_up(blocks.status());
      monitor_->await_news_of(blocks.status().peer(), Deadline::after(Seconds(kNewsGrace)));
      COMM_TRY(monitor_->failure());
    }
    // A tree that stopped halfway cannot be used again, here or anywhere.
    tree_.close();
    if (limits.cancelled()) return blocks;
    return with_place(std::move(blocks).status());
  }

  void note_revoke(const Status& why) {
    revoke_reason_ = why;
    revoked_.store(true, std::memory_order_release);
  }

  // Was the group revoked when an exchange of a user's call failed? Who heard of it sooner may have
  // gone on to another one, so the word is waited for.
  bool hears_of_revoke(const Status& seen, const WaitLimits& limits) const {
    const bool may_follow_one =
        !limits.cancelled() && (seen.code() == Code::kInvalidUsage || seen.code() == Code::kRemote);
    const Deadline until = Deadline::after(Seconds(may_follow_one ? kNewsGrace : 0));
    while (!revoked_.load(std::memory_order_acquire) && monitor_->failure() && !until.passed())
      ::usleep(1000);
    return revoked_.load(std::memory_order_acquire);
  }

  // A rank's number in a group that was split off is not the one that the user gave it.
  Status with_place(Status status) const {
    const int peer = status.peer();
    if (peer < 0 || to_size(peer) >= peers_.size()) return status;
    if (status.message().find(kByOldNumber) != std::string::npos) return status;
    return Status(status.code(),
                  fmt::format("{} (rank {}: {})", status.message(), peer, where(peer)))
        .at_rank(status.rank())
        .with_peer(peer)
        .in_op(status.op());
  }

  // A group that is being made from this one; on the list while the guard lives.
  struct Derivation {
    Group* group;
    std::span<const int> members;
  };
  class DerivationGuard {
   public:
    DerivationGuard(Group* from, Derivation derivation) : from_(from), group_(derivation.group) {
      {
        std::lock_guard lock(from_->derivations_mutex_);
        from_->derivations_.push_back(derivation);
      }
      from_->tell_derivations();  // of what was known before
    }
    ~DerivationGuard() {
      std::lock_guard lock(from_->derivations_mutex_);
      std::erase_if(from_->derivations_,
                    [this](const Derivation& each) { return each.group == group_; });
    }
    DerivationGuard(const DerivationGuard&) = delete;
    DerivationGuard& operator=(const DerivationGuard&) = delete;

   private:
    Group* const from_;
    Group* const group_;
  };

  const int rank_;
  const int nranks_;
  const Key key_;
  const std::shared_ptr<const Knobs> knobs_;
  const std::atomic<bool>* const cancel_;  // may be null
  const unsigned generation_ = fork_generation();
  Endpoint endpoint_;
  std::vector<Peer> peers_;
  std::mutex preferred_mutex_;
  std::vector<uint8_t> preferred_;  // per peer, the address that worked last
  std::mutex derivations_mutex_;
  std::vector<Derivation> derivations_;
  Status revoke_reason_;
  std::atomic<bool> revoked_{false};  // after revoke_reason_ was set
  std::unique_ptr<Monitor> monitor_;  // ends before what its news are written to
  Tree tree_;
  Status broken_;          // why the tree cannot be used any more
  bool standing_ = false;  // the overlay tells everybody
};

Result<Listeners> listen_locally(const Knobs& knobs) {
  COMM_ASSIGN(const Endpoint addresses, local_addresses(knobs));
  return Listeners::open(addresses);
}

Result<std::unique_ptr<Bootstrap>> Group::derive(std::span<const int> members, uint64_t tag,
                                                 std::shared_ptr<const Knobs> knobs,
                                                 NewsCallback on_news,
                                                 const std::atomic<bool>* cancel) {
  int self = -1;
  std::set<int> distinct;
  for (size_t i = 0; i < members.size(); ++i) {
    if (members[i] < 0 || members[i] >= nranks_ || !distinct.insert(members[i]).second)
      return error(Code::kInvalidArgument, "member {} is not a rank of 0..{}, or is listed twice",
                   members[i], nranks_ - 1);
    if (members[i] == rank_) self = static_cast<int>(i);
  }
  if (self < 0) return error(Code::kInvalidArgument, "rank {} is not one of the members", rank_);
  std::vector<unsigned char> list(members.size() * sizeof(int32_t));
  for (size_t i = 0; i < members.size(); ++i) {
    const int32_t member = members[i];
    std::memcpy(list.data() + i * sizeof member, &member, sizeof member);
  }
  const std::span tag_bytes(reinterpret_cast<const unsigned char*>(&tag), sizeof tag);
  const Key key = hmac(key_, "libcomm derived group", {tag_bytes, list});
  const Mac name = hmac(key_, "libcomm derived connection", {tag_bytes, list});
  uint32_t index;
  std::memcpy(&index, name.data(), sizeof index);

  if (members.size() == 1)
    return std::unique_ptr<Bootstrap>(std::make_unique<SoloGroup>(key, std::move(on_news)));
  const int size = static_cast<int>(members.size());
  auto group = std::make_unique<Group>(self, size, key, knobs, cancel);
  COMM_ASSIGN(Listeners listeners, listen_locally(*knobs));
  COMM_TRY(group->open(std::move(listeners), std::move(on_news)));
  const DerivationGuard derivation(this, {group.get(), members});
  const WaitLimits limits{Deadline::from_knob(knobs->get_seconds(Knob::kBootstrapTimeout)), cancel,
                          -1, cancel_};
  if (Status status = group->assemble_through(*this, members, index, limits); !status) {
    if (limits.cancelled()) return error(Code::kInvalidUsage, "initialisation was cancelled");
    return cause_among(members, group->cause_of(std::move(status)));
  }
  return std::unique_ptr<Bootstrap>(std::move(group));
}

}  // namespace

Result<std::unique_ptr<Bootstrap>> Bootstrap::join(const Rendezvous& rendezvous, int rank,
                                                   int nranks, std::shared_ptr<const Knobs> knobs,
                                                   NewsCallback on_news,
                                                   const std::atomic<bool>* cancel) {
  if (nranks < 1 || nranks > static_cast<int>(kMaxRanks))
    return error(Code::kInvalidArgument, "nranks is {}: it must be 1..{}", nranks, kMaxRanks);
  if (rank < 0 || rank >= nranks)
    return error(Code::kInvalidArgument, "rank is {}: with {} ranks it must be 0..{}", rank, nranks,
                 nranks - 1);
  COMM_ASSIGN(const Meetings meetings, Meetings::decode(rendezvous, nranks));
  const WaitLimits limits{Deadline::from_knob(knobs->get_seconds(Knob::kBootstrapTimeout)), cancel,
                          -1};
  const auto cancelled = [] { return error(Code::kInvalidUsage, "initialisation was cancelled"); };
  if (nranks == 1) {
    Key key = meetings.all.front().key;
    // A server that waits for us must not wait in vain; nothing else needs the rendezvous.
    if (meetings.all.front().kind == Meeting::Kind::kServed) {
      COMM_ASSIGN(const Place place, meet(meetings, rank, nranks, {}, *knobs, limits));
      key = place.group_key;
    }
    return std::unique_ptr<Bootstrap>(std::make_unique<SoloGroup>(key, std::move(on_news)));
  }
  COMM_ASSIGN(Listeners listeners, listen_locally(*knobs));
  auto place = meet(meetings, rank, nranks, listeners.endpoint, *knobs, limits);
  if (!place) return limits.cancelled() ? cancelled() : std::move(place).status().at_rank(rank);
  auto group = std::make_unique<Group>(rank, nranks, place->group_key, knobs, cancel);
  COMM_TRY(group->open(std::move(listeners), std::move(on_news)));
  if (Status status = group->assemble_at(*std::move(place), limits); !status) {
    if (limits.cancelled()) return cancelled();
    return group->cause_of(std::move(status)).at_rank(rank);
  }
  return std::unique_ptr<Bootstrap>(std::move(group));
}

}  // namespace libcomm
