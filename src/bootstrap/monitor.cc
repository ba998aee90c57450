#include "src/bootstrap/monitor.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "src/base/log.h"
#include "src/base/thread.h"
#include "src/bootstrap/overlay.h"

namespace libcomm {
namespace {

// How long a ring stays open after a rank left: ranks mostly leave together, and then nobody needs
// it.
constexpr double kMendAfter = 0.2;
// How long those who got a goodbye keep it to themselves, for the same reason.
constexpr double kTellAfter = 0.2;
// How long watch_process() calls are collected before the ring of this host is closed.
constexpr double kWatchSettles = 0.03;
// How long a goodbye may still be under way when its sender's process has already ended.
constexpr double kGoodbyeGrace = 0.05;
// Patience with one address while mending: a peer that answers at none of them counts as having
// left, and one that has left mostly refuses at once: a slow one and a dead interface are waited
// for.
constexpr double kRepairPatience = 10;

// How long a rank waits for what an inquiry brings to light, elsewhere too.
constexpr double kInquiryTakes = 3;

constexpr uint16_t kControl = static_cast<uint16_t>(Use::kControl);

}  // namespace

Result<std::unique_ptr<Monitor>> Monitor::start(int rank, int nranks, const Key& key,
                                                Listeners listeners, NewsCallback on_news) {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  UniqueFd wake(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  UniqueFd alarm(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!epoll || !wake || !alarm) return descriptor_error(errno, "cannot watch the group");
  std::unique_ptr<Monitor> monitor(new Monitor(rank, nranks, key, std::move(listeners),
                                               std::move(on_news), std::move(epoll),
                                               std::move(wake), std::move(alarm)));
  COMM_ASSIGN(monitor->thread_, start_thread("comm-monitor", [raw = monitor.get()] {
                try {
                  raw->run();
                } catch (const std::exception& problem) {
                  raw->raise(News::kAbort, error(Code::kSystem,
                                                 "the thread that watches the group "
                                                 "failed: {}",
                                                 problem.what()));
                }
              }));
  return monitor;
}

Monitor::Monitor(int rank, int nranks, const Key& key, Listeners listeners, NewsCallback on_news,
                 UniqueFd epoll, UniqueFd wake, UniqueFd alarm)
    : rank_(rank),
      nranks_(nranks),
      key_(key),
      on_news_(std::move(on_news)),
      epoll_(std::move(epoll)),
      wake_(std::move(wake)),
      alarm_(std::move(alarm)),
      door_(epoll_.get(), std::move(listeners), key, static_cast<uint32_t>(rank),
            static_cast<uint32_t>(nranks)),
      host_ranks_{rank} {
  epoll_add(epoll_.get(), wake_.get(), EPOLLIN);
  for (int r = 0; r < nranks; ++r) all_ranks_.push_back(r);
}

Monitor::~Monitor() {
  leave();
  if (thread_.joinable()) thread_.join();
}

void Monitor::wake() const {
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
}

bool Monitor::failed_by_death() const {
  std::lock_guard lock(mutex_);
  return by_death_;
}

Status Monitor::failure() const {
  std::lock_guard lock(mutex_);
  if (failure_.has_value()) return *failure_;
  if (leaving_) return error(Code::kInvalidUsage, "this rank has left the group");
  return Status::ok();
}

// ---- Parked connections ---------------------------------------------------------------------

UniqueFd Monitor::try_take(int from, uint16_t purpose, uint32_t index) {
  std::lock_guard lock(mutex_);
  const auto at = parked_.find({from, purpose, index});
  if (at == parked_.end()) return UniqueFd();
  UniqueFd fd = std::move(at->second.front());
  at->second.erase(at->second.begin());
  if (at->second.empty()) parked_.erase(at);
  return fd;
}

Result<UniqueFd> Monitor::take(int from, uint16_t purpose, uint32_t index,
                               const WaitLimits& limits) {
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto at = parked_.find({from, purpose, index});
    if (at != parked_.end()) {
      UniqueFd fd = std::move(at->second.front());
      at->second.erase(at->second.begin());
      if (at->second.empty()) parked_.erase(at);
      return fd;
    }
    if (limits.alarm >= 0 && failure_.has_value()) return *failure_;
    if (leaving_) return error(Code::kInvalidUsage, "this rank has left the group");
    if (left_.contains(from))
      return error(Code::kRemote, "rank {} {}", from,
                   departed_.contains(from) ? "has left the group"
                                            : "is gone: nothing listens at its addresses")
          .with_peer(from);
    if (limits.cancelled()) return error(Code::kInvalidUsage, "cancelled");
    if (limits.deadline.passed())
      return error(Code::kSystem, "rank {} did not connect before COMM_BOOTSTRAP_TIMEOUT", from)
          .with_peer(from);
    changed_.wait_for(lock, std::chrono::milliseconds(limits.slice_ms()));
  }
}

// ---- Links ----------------------------------------------------------------------------------

void Monitor::set_peers(std::vector<Peer> peers) {
  std::lock_guard lock(mutex_);
  peers_ = std::move(peers);
}

void Monitor::add_link(int peer, UniqueFd fd) {
  std::lock_guard lock(mutex_);
  if (leaving_) return;
  adopt(peer, std::move(fd), false);
  changed_.notify_all();
}

void Monitor::follow_root(UniqueFd fd) {
  std::lock_guard lock(mutex_);
  if (fd && !leaving_) adopt(kRootLink, std::move(fd), false);
}

void Monitor::leave_roots() {
  std::lock_guard lock(mutex_);
  assembled_ = true;
  const std::string goodbye = encode_news(NewsType::kGoodbye, Status());
  for (auto at = links_.begin(); at != links_.end();) {
    if (at->second.peer != kRootLink) {
      ++at;
      continue;
    }
    (void)write_whole(at->first, goodbye.data(), goodbye.size());
    epoll_remove(epoll_.get(), at->first);
    at = links_.erase(at);
  }
}

Monitor::Link& Monitor::adopt(int peer, UniqueFd fd, bool welcomed) {
  const int number = fd.get();
  epoll_add(epoll_.get(), number, EPOLLIN);
  auto [at, fresh] =
      links_.insert_or_assign(number, Link{peer, std::move(fd), {}, {}, welcomed, 0, 0});
  Link& link = at->second;
  if (peer == kRootLink) return link;
  if (welcomed) send_on(link, encode_news(NewsType::kWelcome, Status()));
  if (failure_.has_value()) send_on(link, failure_message_);
  if (revoke_message_.has_value()) send_on(link, *revoke_message_);
  for (const auto& [rank, since] : departed_)
    if (rank != peer) send_on(link, encode_left(rank));
  return link;
}

Status Monitor::await_links(const std::set<int>& peers, const WaitLimits& limits) {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (failure_.has_value()) return *failure_;
    const auto missing =
        std::find_if(peers.begin(), peers.end(), [this](int peer) { return !linked(peer); });
    if (missing == peers.end()) return Status::ok();
    if (leaving_) return error(Code::kInvalidUsage, "this rank has left the group");
    if (left_.contains(*missing))
      return error(Code::kRemote, "rank {} left while the group was assembling", *missing)
          .with_peer(*missing);
    if (limits.cancelled()) return error(Code::kInvalidUsage, "cancelled");
    if (limits.deadline.passed())
      return error(Code::kSystem, "rank {} did not connect before COMM_BOOTSTRAP_TIMEOUT", *missing)
          .with_peer(*missing);
    changed_.wait_for(lock, std::chrono::milliseconds(limits.slice_ms()));
  }
}

void Monitor::await_news_of(int peer, const Deadline& until) {
  std::unique_lock lock(mutex_);
  while (!failure_.has_value() && !leaving_ && !left_.contains(peer) && !until.passed())
    changed_.wait_for(lock, std::chrono::milliseconds(until.poll_ms(1000)));
}

bool Monitor::linked(int peer) const {
  return std::any_of(links_.begin(), links_.end(),
                     [peer](const auto& entry) { return entry.second.peer == peer; });
}

void Monitor::send_on(Link& link, const std::string& message) {
  link.out += message;
  flush(link);
}

void Monitor::flush(Link& link) {
  while (!link.out.empty()) {
    size_t count = 0;
    const Moved moved =
        write_some(link.fd.get(), link.out.data(), link.out.size(), &count, &link.problem);
    if (moved == Moved::kClosed) {
      link.out.clear();  // the read side tells why
      break;
    }
    if (moved == Moved::kNothing) break;
    link.out.erase(0, count);
    link.written += count;
  }
  epoll_change(epoll_.get(), link.fd.get(), link.out.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

void Monitor::drop_link(int fd) {
  inquiry_.forget(fd);
  epoll_remove(epoll_.get(), fd);
  links_.erase(fd);
}

void Monitor::read_link(int fd, Calls* calls) {
  const int peer = links_.at(fd).peer;
  for (;;) {
    char piece[4096];
    size_t count = 0;
    int problem = 0;
    const Moved moved = read_some(fd, piece, sizeof piece, &count, &problem);
    if (moved == Moved::kNothing) return;
    if (moved == Moved::kClosed) {
      const bool welcomed = links_.at(fd).welcomed;
      // Whoever writes first gets the reason, and takes it from the reader.
      if (problem == 0) problem = links_.at(fd).problem;
      drop_link(fd);
      if (peer == kRootLink) return;
      // A peer that never took the link up was leaving while it was opened.
      if (!welcomed)
        peer_left(peer, kTellAfter);
      else if (!left_.contains(peer))
        link_broke(peer, problem, calls);
      return;
    }
    Link& link = links_.at(fd);
    link.in.append(piece, count);
    for (;;) {
      const ParsedNews news = parse_news(link.in, nranks_);
      if (news.state == ParsedNews::kIncomplete) break;
      if (news.state == ParsedNews::kMalformed) {
        log_warn("rank {} sent a malformed control message; its link is closed", peer);
        drop_link(fd);
        return;
      }
      link.in.erase(0, news.bytes);
      link.welcomed = true;
      take_news(peer, news, calls);
    }
  }
}

// ---- News -----------------------------------------------------------------------------------

void Monitor::take_news(int from, const ParsedNews& news, Calls* calls) {
  switch (news.type) {
    case NewsType::kWelcome:
      return;
    case NewsType::kGoodbye:
      peer_left(from, kTellAfter);
      return;
    case NewsType::kLeft:
      if (news.left != rank_) peer_left(news.left, 0);
      return;
    case NewsType::kAbort:
    case NewsType::kDeath:
      if (spread(news.type, news.reason))
        calls->emplace_back(news.type == NewsType::kAbort ? News::kAbort : News::kDeath,
                            news.reason);
      return;
    case NewsType::kRevoke:
      if (spread(news.type, news.reason)) calls->emplace_back(News::kRevoke, news.reason);
      return;
    case NewsType::kAsk:
      open_inquiry();
      return;
  }
}

// Notes the news and passes it on if it is the first of its kind; false when it is not.
bool Monitor::spread(NewsType type, const Status& reason) {
  const std::string message = encode_news(type, reason);
  if (type == NewsType::kRevoke) {
    if (revoke_message_.has_value()) return false;
    revoke_message_ = message;
  } else {
    if (failure_.has_value()) return false;
    failure_ = reason;
    by_death_ = type == NewsType::kDeath;
    failure_message_ = message;
    const uint64_t one = 1;
    (void)!::write(alarm_.get(), &one, sizeof one);
  }
  for (auto& [fd, link] : links_)
    if (link.peer != kRootLink) send_on(link, message);
  changed_.notify_all();
  return true;
}

void Monitor::raise(News news, Status reason) {
  // A reason that says who noticed need not say who is to blame.
  if (reason.rank() < 0) reason = std::move(reason).with_peer(rank_);
  const NewsType type = news == News::kAbort   ? NewsType::kAbort
                        : news == News::kDeath ? NewsType::kDeath
                                               : NewsType::kRevoke;
  {
    std::lock_guard lock(mutex_);
    if (leaving_ || !spread(type, reason)) return;
  }
  if (on_news_) on_news_(news, reason);
}

void Monitor::declare_dead(int peer, const char* how, Calls* calls) {
  if (leaving_ || failure_.has_value()) return;
  const std::string who = static_cast<size_t>(peer) < peers_.size()
                              ? peers_[static_cast<size_t>(peer)].to_string()
                              : "";
  const Status reason =
      error(Code::kRemote,
            "rank {} ({}) died: {} without a goodbye; its own output, or the kernel log for an "
            "out-of-memory kill, tells why",
            peer, who, how)
          .with_peer(peer);
  if (spread(NewsType::kDeath, reason)) calls->emplace_back(News::kDeath, reason);
}

// ---- Hosts that do not answer ----------------------------------------------------------------

bool Monitor::spans_hosts() const {
  return std::any_of(peers_.begin(), peers_.end(), [this](const Peer& peer) {
    return !peer.is_beside(peers_[static_cast<size_t>(rank_)]);
  });
}

void Monitor::open_inquiry() {
  if (leaving_ || failure_.has_value() || peers_.empty() || !inquiry_.open()) return;
  const std::string question = encode_news(NewsType::kAsk, Status());
  for (auto& [fd, link] : links_) {
    if (link.peer == kRootLink) continue;
    send_on(link, question);
    inquiry_.asked(fd, link.peer, link.written + link.out.size());
  }
}

void Monitor::close_inquiry(Calls* calls) {
  inquiry_.close([this](int fd) {
    const Link& link = links_.at(fd);
    return left_.contains(link.peer) ? UINT64_MAX : link.written - unacknowledged_bytes(fd);
  });
  if (inquiry_.silent().empty() || leaving_ || failure_.has_value()) return;
  const Status reason = unreachable(inquiry_, rank_, peers_);
  if (spread(NewsType::kDeath, reason)) calls->emplace_back(News::kDeath, reason);
}

Status Monitor::inquire() {
  std::unique_lock lock(mutex_);
  if (!spans_hosts()) return Status::ok();
  open_inquiry();
  wake();
  const Deadline until = Deadline::after(Seconds(kInquiryTakes));
  while (!failure_.has_value() && !revoke_message_.has_value() && !leaving_ && !until.passed())
    changed_.wait_for(lock, std::chrono::milliseconds(until.poll_ms(1000)));
  return failure_.value_or(Status::ok());
}

// A link ended without a goodbye. Where that is the network's doing, others may have ended, too,
// and which do tells who is cut off.
void Monitor::link_broke(int peer, int problem, Calls* calls) {
  if (!says_unreachable(problem) || peers_.empty())
    return declare_dead(peer, "its connection closed", calls);
  open_inquiry();
  inquiry_.note_silent(peer);
  if (!inquiry_.is_open()) close_inquiry(calls);  // there was one a moment ago
}

void Monitor::call(const Calls& calls) {
  for (const auto& [news, reason] : calls)
    if (on_news_) on_news_(news, reason);
}

// ---- Leaving, and closing the rings around those who left ------------------------------------

void Monitor::peer_left(int peer, double tell_after) {
  if (departed_.emplace(peer, Clock::now()).second) {
    departures_.store(departed_.size(), std::memory_order_release);
    if (untold_.empty() || tell_after == 0) tell_at_ = Deadline::after(Seconds(tell_after));
    untold_.push_back(peer);
  }
  if (!left_.insert(peer).second) return;
  mend_at_ = Deadline::after(Seconds(kMendAfter));
  mend_due_ = true;
  changed_.notify_all();
}

void Monitor::tell_departures() {
  for (const int peer : std::exchange(untold_, {})) {
    const std::string message = encode_left(peer);
    for (auto& [fd, link] : links_)
      if (link.peer != kRootLink && link.peer != peer) send_on(link, message);
  }
}

std::optional<Seconds> Monitor::left_since(int peer) const {
  std::lock_guard lock(mutex_);
  if (failure_.has_value()) return std::nullopt;
  const auto at = departed_.find(peer);
  if (at == departed_.end()) return std::nullopt;
  return Seconds(Clock::now() - at->second);
}

void Monitor::mend_rings() {
  if (repair_.has_value() || leaving_ || peers_.empty()) return;
  for (const auto* ring : {&all_ranks_, &host_ranks_}) {
    const int next = ring_successor(*ring, left_, rank_);
    if (next != rank_ && !linked(next)) {
      start_repair(next);
      if (repair_.has_value()) return;
    }
  }
}

void Monitor::start_repair(int peer) {
  repair_.emplace();
  repair_->peer = peer;
  repair_->address = static_cast<size_t>(-1);
  next_address();
}

// Moves the repair to the peer's next address; beyond the last, the peer counts as having left.
void Monitor::next_address() {
  const Endpoint& endpoint = peers_[static_cast<size_t>(repair_->peer)].endpoint;
  if (repair_->fd) epoll_remove(epoll_.get(), repair_->fd.get());
  repair_->fd.reset();
  repair_->handshake.reset();
  while (++repair_->address < endpoint.size()) {
    auto fd = start_connect(endpoint[repair_->address]);
    if (!fd || !epoll_add(epoll_.get(), fd->get(), EPOLLOUT)) continue;
    repair_->fd = *std::move(fd);
    repair_->deadline = Deadline::after(Seconds(kRepairPatience));
    return;
  }
  left_.insert(repair_->peer);
  repair_.reset();
  mend_at_ = Deadline::after(Seconds(0));
  mend_due_ = true;
}

void Monitor::step_repair() {
  Repair& repair = *repair_;
  const int fd = repair.fd.get();
  Handshake state;
  if (!repair.handshake.has_value()) {
    if (finish_connect(fd) != 0) return next_address();
    tune_control_socket(fd);
    repair.handshake.emplace(key_, kControl, static_cast<uint32_t>(rank_),
                             static_cast<uint32_t>(repair.peer), 0);
    state = repair.handshake->start(fd);
    epoll_change(epoll_.get(), fd, EPOLLIN);
  } else {
    state = repair.handshake->step(fd);
  }
  if (state == Handshake::kAgain) return;
  if (state != Handshake::kDone) return next_address();
  epoll_remove(epoll_.get(), fd);
  const int peer = repair.peer;
  UniqueFd done = std::move(repair.fd);
  repair_.reset();
  adopt(peer, std::move(done), false);
  mend_at_ = Deadline::after(Seconds(0));
  mend_due_ = true;
}

void Monitor::leave() {
  {
    std::lock_guard lock(mutex_);
    if (!leaving_) {
      leaving_ = true;
      const std::string goodbye = encode_news(NewsType::kGoodbye, Status());
      for (auto& [fd, link] : links_) {
        // Without one, a root takes it that this rank gave up assembling.
        if (link.peer != kRootLink) send_on(link, goodbye);
        ::shutdown(fd, SHUT_WR);
      }
      changed_.notify_all();
      wake();
    }
  }
  // From a callback the thread cannot wait for itself; the destructor does.
  if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
}

// ---- Processes ------------------------------------------------------------------------------

void Monitor::watch_process(int peer, int64_t pid) {
  std::lock_guard lock(mutex_);
  if (leaving_ || peer == rank_ || pid <= 0 || pid == ::getpid()) return;
  if (peer < 0 || static_cast<size_t>(peer) >= peers_.size()) return;
  const auto self = peers_[static_cast<size_t>(rank_)].pid_namespace;
  if (peers_[static_cast<size_t>(peer)].pid_namespace != self) return;
  const auto at = std::lower_bound(host_ranks_.begin(), host_ranks_.end(), peer);
  if (at != host_ranks_.end() && *at == peer) return;
  host_ranks_.insert(at, peer);
  mend_at_ = Deadline::after(Seconds(kWatchSettles));
  mend_due_ = true;
#ifdef SYS_pidfd_open
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0u)));
  if (pidfd) {
    const int number = pidfd.get();
    if (epoll_add(epoll_.get(), number, EPOLLIN)) watched_[number] = {peer, std::move(pidfd)};
  } else if (errno == ESRCH) {
    ended_[peer] = Deadline::after(Seconds(kGoodbyeGrace));
  }
#endif
  wake();
}

// Only neighbours judge: they are the ones who get a goodbye. Others hear it from them.
void Monitor::process_ended(int peer, Calls* calls) {
  if (left_.contains(peer)) return;
  std::vector<int> fds;
  for (const auto& [fd, link] : links_)
    if (link.peer == peer) fds.push_back(fd);
  for (int fd : fds)
    if (links_.contains(fd)) read_link(fd, calls);
  if (fds.empty() || left_.contains(peer)) return;
  // Without its interface a host has no way to itself, either: the process may have told the reason
  // and ended, and nobody heard it.
  const auto is_cut = [this](int fd) { return links_.contains(fd) && !has_own_address(fd); };
  if (std::any_of(fds.begin(), fds.end(), is_cut)) return link_broke(peer, ENETDOWN, calls);
  declare_dead(peer, "its process ended", calls);
}

// ---- The thread -----------------------------------------------------------------------------

void Monitor::admit(Arrival arrival, Calls* calls) {
  const uint16_t purpose = arrival.hello.purpose;
  const int from = static_cast<int>(arrival.hello.from);
  if (leaving_ || purpose == static_cast<uint16_t>(Use::kRoot) || from == rank_) return;
  if (purpose == kControl) {
    const int fd = arrival.fd.get();
    adopt(from, std::move(arrival.fd), true);
    read_link(fd, calls);
  } else {
    parked_[{from, purpose, arrival.hello.index}].push_back(std::move(arrival.fd));
  }
  changed_.notify_all();
}

void Monitor::on_event(int fd, uint32_t events, Calls* calls) {
  if (fd == wake_.get()) {
    uint64_t count;
    (void)!::read(fd, &count, sizeof count);
    return;
  }
  std::vector<Arrival> arrivals;
  if (door_.on_event(fd, &arrivals)) {
    for (Arrival& arrival : arrivals) admit(std::move(arrival), calls);
    return;
  }
  if (const auto at = links_.find(fd); at != links_.end()) {
    if ((events & EPOLLOUT) != 0) flush(at->second);
    if ((events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) read_link(fd, calls);
    return;
  }
  if (repair_.has_value() && repair_->fd.get() == fd) {
    step_repair();
    return;
  }
  if (const auto at = watched_.find(fd); at != watched_.end()) {
    const int peer = at->second.peer;
    epoll_remove(epoll_.get(), fd);
    watched_.erase(at);
    ended_[peer] = Deadline::after(Seconds(kGoodbyeGrace));
  }
}

// Does what is due; returns milliseconds until the next thing is.
int Monitor::tick(Calls* calls) {
  int wait_ms = door_.expire(60'000);
  for (auto at = ended_.begin(); at != ended_.end();) {
    if (at->second.passed()) {
      process_ended(at->first, calls);
      at = ended_.erase(at);
    } else {
      wait_ms = at->second.poll_ms(wait_ms);
      ++at;
    }
  }
  // Later a shortage may pass; who assembles a group has all others waiting.
  if (!assembled_ && door_.shortage() != 0 && !failure_.has_value()) {
    const Status reason =
        descriptor_error(door_.shortage(),
                         fmt::format("rank {} cannot accept connections of its group", rank_))
            .with_peer(rank_);
    if (spread(NewsType::kAbort, reason)) calls->emplace_back(News::kAbort, reason);
  }
  if (inquiry_.is_open()) {
    if (inquiry_.until().passed())
      close_inquiry(calls);
    else
      wait_ms = inquiry_.until().poll_ms(wait_ms);
  }
  if (repair_.has_value() && repair_->deadline.passed()) next_address();
  if (repair_.has_value()) wait_ms = repair_->deadline.poll_ms(wait_ms);
  if (!untold_.empty()) {
    if (tell_at_.passed())
      tell_departures();
    else
      wait_ms = tell_at_.poll_ms(wait_ms);
  }
  while (mend_due_ && mend_at_.passed()) {
    mend_due_ = false;
    mend_rings();
  }
  return mend_due_ ? mend_at_.poll_ms(wait_ms) : wait_ms;
}

void Monitor::run() {
  for (;;) {
    Calls calls;
    int wait_ms;
    {
      std::lock_guard lock(mutex_);
      if (leaving_) break;
      wait_ms = tick(&calls);
    }
    call(calls);
    calls.clear();
    epoll_event events[64];
    const int count = ::epoll_wait(epoll_.get(), events, 64, wait_ms);
    {
      std::lock_guard lock(mutex_);
      if (leaving_) break;
      for (int i = 0; i < count; ++i) on_event(events[i].data.fd, events[i].events, &calls);
    }
    call(calls);
  }
  std::lock_guard lock(mutex_);
  door_.close();
  // Unread bytes would turn the close into a reset, which may overtake the goodbye.
  for (auto& [fd, link] : links_) {
    char piece[4096];
    size_t count = 0;
    while (read_some(fd, piece, sizeof piece, &count) == Moved::kSome) {
    }
  }
  links_.clear();
  repair_.reset();
  watched_.clear();
  parked_.clear();
}

int Monitor::sockets() const {
  std::lock_guard lock(mutex_);
  size_t count = door_.sockets() + links_.size() + (repair_.has_value() ? 1 : 0);
  for (const auto& [key, fds] : parked_) count += fds.size();
  return static_cast<int>(count);
}

}  // namespace libcomm
