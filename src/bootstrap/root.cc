#include "src/bootstrap/root.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "src/base/fork_mutex.h"
#include "src/base/log.h"
#include "src/base/thread.h"
#include "src/bootstrap/doorkeeper.h"
#include "src/bootstrap/news.h"

namespace libcomm {
namespace {

// How long a failure is told to ranks that come after it: so much of the timeout, or less.
constexpr double kTellPart = 0.1;
constexpr double kTellFor = 5;

// A rank that has proved itself: its report is being read, it waits for the answer, or it has it
// and is assembling the group.
struct Visitor {
  UniqueFd fd;
  uint32_t rank = 0;
  SocketAddress from;
  ReportWire report{};
  size_t got = 0;
  bool answered = false;
  bool reported() const { return got == sizeof(ReportWire); }
};

// How the last roots of this process failed, for ranks in it that could not get through to hear it.
class Failures {
 public:
  void note(const Key& key, const Status& why) {
    std::lock_guard lock(mutex_);
    if (entries_.size() == kMost) entries_.pop_front();
    entries_.emplace_back(key, why);
  }
  std::optional<Status> find(const Key& key) {
    std::lock_guard lock(mutex_);
    for (const auto& [of, why] : entries_)
      if (of == key) return why;
    return std::nullopt;
  }

 private:
  static constexpr size_t kMost = 16;
  ForkMutex mutex_;
  std::deque<std::pair<Key, Status>> entries_;
};
Failures& g_failures = *new Failures;  // roots may outlive every destructor

class Root {
 public:
  Root(Listeners listeners, const Key& key, double timeout, bool is_reused, int wake,
       UniqueFd epoll)
      : wake_(wake),
        is_reused_(is_reused),
        epoll_(std::move(epoll)),
        timeout_(timeout),
        key_(key),
        door_(epoll_.get(), std::move(listeners), key, 0, kMaxRanks) {
    epoll_add(epoll_.get(), wake_, EPOLLIN);
  }

  void run() {
    while (!over()) {
      if (assemble_by_.passed()) {
        assemble_by_ = Deadline();
        fail(missing_ranks());
      }
      // Only after that: a thread that was kept from its core may find both times over, and those
      // who wait must be told. A rank whose report is still on its way is somebody.
      if (idle_.passed() && visitors_.empty()) return;
      if (door_.shortage() != 0 && !failure_.has_value() && !all_answered_)
        fail(descriptor_error(door_.shortage(),
                              "the process that serves the unique id cannot accept the ranks"));
      epoll_event events[64];
      int wait_ms = door_.expire(visitors_.empty() ? idle_.poll_ms(1000) : 1000);
      wait_ms = assemble_by_.poll_ms(wait_ms);
      wait_ms = tell_until_.poll_ms(wait_ms);
      const int count = ::epoll_wait(epoll_.get(), events, 64, wait_ms);
      for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == wake_) return;
        std::vector<Arrival> arrivals;
        if (door_.on_event(fd, &arrivals)) {
          for (Arrival& arrival : arrivals) admit(std::move(arrival));
        } else if (const auto at = visitors_.find(fd); at != visitors_.end()) {
          read_from(at->second);
        }
      }
    }
  }

 private:
  struct Stage {
    std::map<uint32_t, int> fds;  // rank to visitor
    bool answered = false;
  };

  bool over() const {
    return told_all_ || tell_until_.passed() || (all_answered_ && visitors_.empty());
  }

  void admit(Arrival arrival) {
    if (arrival.hello.purpose != static_cast<uint16_t>(Use::kRoot)) return;
    if (!failure_.has_value()) idle_ = Deadline::from_knob(timeout_);
    const int fd = arrival.fd.get();
    if (!epoll_add(epoll_.get(), fd, EPOLLIN)) return;
    Visitor visitor;
    visitor.fd = std::move(arrival.fd);
    visitor.rank = arrival.hello.from;
    visitor.from = arrival.from;
    auto [at, fresh] = visitors_.insert_or_assign(fd, std::move(visitor));
    read_from(at->second);
  }

  void read_from(Visitor& visitor) {
    const int fd = visitor.fd.get();
    if (visitor.reported()) {
      hear_end_of(visitor);
      return;
    }
    size_t count = 0;
    const Moved moved = read_some(fd, reinterpret_cast<char*>(&visitor.report) + visitor.got,
                                  sizeof(ReportWire) - visitor.got, &count);
    if (moved == Moved::kNothing) return;
    if (moved == Moved::kClosed) {
      forget(visitor);
      return;
    }
    visitor.got += count;
    if (visitor.reported()) take_report(visitor);
  }

  // What a rank sends after its report: a goodbye once its group stands, or its end.
  void hear_end_of(Visitor& visitor) {
    char bytes[256];
    size_t count = 0;
    const Moved moved = read_some(visitor.fd.get(), bytes, sizeof bytes, &count);
    if (moved == Moved::kNothing) return;
    const bool good = visitor.answered && moved == Moved::kSome &&
                      static_cast<NewsType>(bytes[0]) == NewsType::kGoodbye;
    const Status gone =
        error(Code::kRemote,
              "rank {} (from {}) went away while the group was assembling; its own output "
              "tells why",
              visitor.rank, visitor.from.to_string())
            .with_peer(static_cast<int>(visitor.rank));
    const bool answered = visitor.answered;
    const bool waiting = forget(visitor);
    if (waiting && !failure_.has_value()) fail(gone);
    if (answered && !good) tell_assembling(gone);
  }

  void tell_assembling(const Status& news) {
    if (std::exchange(told_assembling_, true)) return;
    const std::string message = encode_news(NewsType::kDeath, news);
    for (auto& [fd, visitor] : visitors_)
      if (visitor.answered) (void)write_whole(fd, message.data(), message.size());
  }

  // True when it was waiting for an answer.
  bool forget(Visitor& visitor) {
    const int fd = visitor.fd.get();
    bool waiting = false;
    for (Stage& stage : stages_) {
      const auto at = stage.fds.find(visitor.rank);
      if (at != stage.fds.end() && at->second == fd) {
        waiting = !stage.answered;
        if (waiting) stage.fds.erase(at);
      }
    }
    epoll_remove(epoll_.get(), fd);
    visitors_.erase(fd);
    return waiting;
  }

  void take_report(Visitor& visitor) {
    const ReportWire& report = visitor.report;
    if (report.stage == kRivalStage) {
      if (rivals_) {
        ++most_ranks_;  // to be told
        send_failure(visitor);
        return;
      }
      if (failure_.has_value() || stages_[0].answered) {
        forget(visitor);
        return;
      }
      const auto own = stages_[0].fds.find(visitor.rank);
      if (own != stages_[0].fds.end()) refuse_second(visitor, own->second);
      return;  // else it waits for rank 0
    }
    Endpoint endpoint;
    if (report.nranks == 0 || report.nranks > kMaxRanks || visitor.rank >= report.nranks ||
        report.nparts == 0 || report.nparts > report.nranks || report.part >= report.nparts ||
        report.stage > 1 || (report.stage == 1 && report.part != 0) ||
        !report.endpoint.decode(&endpoint)) {
      forget(visitor);
      return;
    }
    log_info(Subsys::kBootstrap, "rank {} of {} reported from {}", visitor.rank, report.nranks,
             visitor.from.to_string());
    most_ranks_ = std::max(most_ranks_, report.nranks);
    if (failure_.has_value()) {
      send_failure(visitor);
      return;
    }
    if (!first_.has_value()) {
      first_ = report;
      first_rank_ = visitor.rank;
      if (timeout_ > 0) assemble_by_ = Deadline::after(Seconds(timeout_ * 0.95));
    }
    if (report.nranks != first_->nranks) {
      refuse(visitor,
             error(Code::kInvalidUsage,
                   "rank {} says that the group has {} ranks, rank {} says {}: pass the same "
                   "nranks on all ranks",
                   visitor.rank, report.nranks, first_rank_, first_->nranks));
      return;
    }
    if (report.nparts != first_->nparts || report.part != first_->part) {
      refuse(visitor,
             error(Code::kInvalidUsage,
                   "rank {} takes this for id {} of {}, rank {} for id {} of {}: pass the same "
                   "ids in the same order on all ranks",
                   visitor.rank, report.part, report.nparts, first_rank_, first_->part,
                   first_->nparts));
      return;
    }
    Stage& stage = stages_[report.stage];
    const auto [at, fresh] = stage.fds.emplace(visitor.rank, visitor.fd.get());
    if (!fresh) {
      refuse_second(visitor, at->second);
      return;
    }
    if (visitor.rank == 0) {
      const auto rival = std::find_if(visitors_.begin(), visitors_.end(), [](const auto& entry) {
        return entry.second.reported() && entry.second.report.stage == kRivalStage;
      });
      if (rival != visitors_.end()) {
        refuse_second(rival->second, at->second);
        return;
      }
    }
    if (stage.fds.size() == expected(report.stage)) answer(report.stage);
  }

  void refuse_second(Visitor& visitor, int first) {
    rivals_ = visitor.report.stage == kRivalStage;
    if (rivals_) ++most_ranks_;  // to be told
    const auto other = visitors_.find(first);
    refuse(visitor,
           error(Code::kInvalidUsage,
                 "rank {} of {} was taken twice, from {} and from {}: give every process its own "
                 "rank",
                 visitor.rank, first_->nranks,
                 other == visitors_.end() ? "elsewhere" : other->second.from.to_string(),
                 visitor.from.to_string()));
  }

  uint32_t expected(uint32_t stage) const {
    if (stage == 1) return first_->nparts;
    return part_begin(first_->part + 1, first_->nranks, first_->nparts) -
           part_begin(first_->part, first_->nranks, first_->nparts);
  }

  bool leaders_come() const { return first_->part == 0 && first_->nparts > 1; }

  void answer(uint32_t which) {
    Stage& stage = stages_[which];
    if (which == 1 || !leaders_come()) assemble_by_ = Deadline();
    // Whoever gets an answer may begin the next group at an address of the user's choice: nobody
    // must find this root.
    if (is_reused_ && (which == 1 || !leaders_come())) door_.close();
    stage.answered = true;
    // The tree is a heap over the ranks in order: child i has parent (i - 1) / 2.
    std::vector<Visitor*> order;
    order.reserve(stage.fds.size());
    for (const auto& [rank, fd] : stage.fds) order.push_back(&visitors_.at(fd));
    for (size_t i = 0; i < order.size(); ++i) {
      AnswerWire wire{};
      wire.parent = kNoRank;
      if (i > 0) {
        Visitor* parent = order[(i - 1) / 2];
        wire.parent = parent->rank;
        wire.parent_endpoint = parent->report.endpoint;
      }
      // A fresh connection takes so little whole; that of a rank that is gone will say so.
      (void)write_whole(order[i]->fd.get(), &wire, sizeof wire);
    }
    for (const auto& [rank, fd] : stage.fds) visitors_.at(fd).answered = true;
    if (which == 0 && leaders_come()) return;
    all_answered_ = true;
    std::erase_if(visitors_, [](const auto& entry) { return !entry.second.answered; });
  }

  Status missing_ranks() const {
    const uint32_t stage = stages_[0].answered ? 1 : 0;
    std::string list;
    size_t missing = 0;
    for (uint32_t i = 0; i < expected(stage); ++i) {
      const uint32_t rank = stage == 1
                                ? part_begin(i, first_->nranks, first_->nparts)
                                : part_begin(first_->part, first_->nranks, first_->nparts) + i;
      if (stages_[stage].fds.contains(rank)) continue;
      if (++missing <= 8) list += (list.empty() ? "" : ", ") + std::to_string(rank);
    }
    if (missing > 8) list += ", ...";
    std::string hint;
    if (door_.refused() > 0)
      hint = fmt::format(
          "; {} connection(s), the last from {}, did not prove the secret (is COMM_SECRET "
          "the same everywhere?)",
          door_.refused(), door_.last_refused());
    return error(Code::kSystem,
                 "{} of {} ranks have not come within {} s (rank {}){}; start them, or raise "
                 "COMM_BOOTSTRAP_TIMEOUT",
                 missing, first_->nranks, timeout_, list, hint);
  }

  void refuse(Visitor& visitor, Status why) { fail(std::move(why), &visitor); }

  // Tells everybody who waits, and `also`; whoever comes a little later is told too.
  // Rank 0 last: this may be its process, which ends when it knows, and the root with it.
  void fail(Status why, Visitor* also = nullptr) {
    failure_ = std::move(why);
    g_failures.note(key_, *failure_);
    if (!all_answered_) {
      tell_until_ = Deadline::after(
          Seconds(timeout_ > 0 ? std::min(kTellFor, timeout_ * kTellPart) : kTellFor));
      idle_ = Deadline();
    }
    std::multimap<uint32_t, int, std::greater<>> waiting;
    for (Stage& stage : stages_) {
      if (stage.answered) continue;
      waiting.insert(stage.fds.begin(), stage.fds.end());
      stage.fds.clear();
    }
    if (also != nullptr) waiting.emplace(also->rank, also->fd.get());
    for (const auto& [rank, fd] : waiting) send_failure(visitors_.at(fd));
  }

  void send_failure(Visitor& visitor) {
    const std::string text = failure_->message().substr(0, kMaxAnswerText);
    AnswerWire wire{};
    wire.code = static_cast<uint32_t>(failure_->code());
    wire.text_bytes = static_cast<uint32_t>(text.size());
    wire.parent = kNoRank;
    std::string message(reinterpret_cast<const char*>(&wire), sizeof wire);
    message += text;
    (void)write_whole(visitor.fd.get(), message.data(), message.size());
    ++told_;
    if (told_ >= most_ranks_) told_all_ = true;
    forget(visitor);
  }

  const int wake_;  // outlives the root
  const bool is_reused_;
  UniqueFd epoll_;
  const double timeout_;
  const Key key_;
  Deadline idle_;  // never, until the first one has come
  Deadline assemble_by_;
  Deadline tell_until_;  // of a failure
  Doorkeeper door_;
  std::unordered_map<int, Visitor> visitors_;
  std::optional<ReportWire> first_;  // what all others must agree with
  uint32_t first_rank_ = 0;
  uint32_t most_ranks_ = 0;
  uint32_t told_ = 0;
  Stage stages_[2];
  std::optional<Status> failure_;
  bool told_all_ = false;         // of the failure
  bool rivals_ = false;           // it is that there are two rank 0
  bool all_answered_ = false;     // what is left is to watch them assemble
  bool told_assembling_ = false;  // that one of them went away
};

ForkMutex g_roots_mutex;

// The roots of this process. They end by themselves; those still there at exit are ended then,
// before anything they use is destroyed.
class Roots {
 public:
  static Status serve(std::unique_ptr<Root> root, UniqueFd wake) {
    std::lock_guard lock(g_roots_mutex);
    static Roots roots;
    return roots.start(std::move(root), std::move(wake));
  }

  ~Roots() {
    if (generation_ != fork_generation()) {
      new std::vector<Served>(std::move(served_));
      return;
    }
    for (Served& served : served_) {
      const uint64_t one = 1;
      (void)!::write(served.wake.get(), &one, sizeof one);
      served.thread.join();
    }
  }

 private:
  Status start(std::unique_ptr<Root> root, UniqueFd wake) {
    if (generation_ != fork_generation()) {  // a forked child: the parent's threads are not here
      new std::vector<Served>(std::move(served_));
      served_.clear();
      generation_ = fork_generation();
    }
    reap();
    auto over = std::make_shared<std::atomic<bool>>(false);
    Served served;
    served.wake = std::move(wake);
    served.over = over;
    const auto serve = [owned = std::shared_ptr<Root>(std::move(root)), over]() mutable {
      const std::shared_ptr<std::atomic<bool>> told(over.get(), [over](std::atomic<bool>* flag) {
        flag->store(true, std::memory_order_release);
      });
      owned->run();
      owned.reset();
    };
    COMM_ASSIGN(served.thread, start_thread("comm-root", serve));
    served_.push_back(std::move(served));
    return Status::ok();
  }

  struct Served {
    UniqueFd wake;
    std::shared_ptr<std::atomic<bool>> over;
    std::thread thread;
  };

  void reap() {
    std::erase_if(served_, [](Served& served) {
      if (!served.over->load(std::memory_order_acquire)) return false;
      served.thread.join();
      return true;
    });
  }

  std::vector<Served> served_;  // and all else here: under g_roots_mutex
  unsigned generation_ = fork_generation();
};

}  // namespace

uint32_t part_begin(uint32_t part, uint32_t nranks, uint32_t nparts) {
  return static_cast<uint32_t>(uint64_t{part} * nranks / nparts);
}

uint32_t part_of(uint32_t rank, uint32_t nranks, uint32_t nparts) {
  uint32_t part = static_cast<uint32_t>(uint64_t{rank} * nparts / nranks);
  while (part + 1 < nparts && part_begin(part + 1, nranks, nparts) <= rank) ++part;
  return part;
}

Status serve_root(Listeners listeners, const Key& key, double timeout, bool is_reused) {
  UniqueFd wake(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!wake || !epoll) return descriptor_error(errno, "cannot serve the unique id");
  const int wake_number = wake.get();
  return Roots::serve(std::make_unique<Root>(std::move(listeners), key, timeout, is_reused,
                                             wake_number, std::move(epoll)),
                      std::move(wake));
}

std::optional<Status> failure_of_root_here(const Key& key) { return g_failures.find(key); }

Result<Answer> report_to_root(UniqueFd fd, const ReportWire& report, const WaitLimits& own,
                              const std::function<bool()>& outdated) {
  // The root names who is missing when its own time, the same knob's, is over: let it speak first.
  const WaitLimits limits{own.deadline.later_by(Seconds(1)), own.cancel, own.alarm};
  const Status gone = error(Code::kRemote,
                            "the process that serves the unique id, at {}, went away before all "
                            "ranks had come; its own output tells why",
                            remote_address(fd.get()).to_string());
  if (!write_whole(fd.get(), &report, sizeof report)) return gone;
  std::string buffer;
  AnswerWire wire{};
  size_t wanted = sizeof wire;
  while (buffer.size() < wanted) {
    pollfd fds[2] = {{fd.get(), POLLIN, 0}, {}};
    const Waited waited =
        wait_ready(fds, limits, outdated ? Deadline::after(Seconds(0.2)) : Deadline());
    if (waited == Waited::kCancelled) return error(Code::kInvalidUsage, "cancelled");
    if (waited == Waited::kAlarm) return error(Code::kRemote, "the group has failed");
    if (waited == Waited::kTimeout) {
      if (limits.deadline.passed())
        return error(Code::kSystem, "not all of the {} ranks came before COMM_BOOTSTRAP_TIMEOUT",
                     report.nranks);
      if (outdated && outdated()) return error(Code::kInProgress, "outdated");
      continue;
    }
    char piece[2048];
    size_t count = 0;
    switch (read_some(fd.get(), piece, std::min(sizeof piece, wanted - buffer.size()), &count)) {
      case Moved::kSome:
        buffer.append(piece, count);
        break;
      case Moved::kNothing:
        continue;
      case Moved::kClosed:
        return gone;
    }
    if (buffer.size() == sizeof wire && wanted == sizeof wire) {
      std::memcpy(&wire, buffer.data(), sizeof wire);
      if (wire.text_bytes > kMaxAnswerText || wire.code > static_cast<uint32_t>(Code::kInProgress))
        return error(Code::kSystem, "the server of the unique id gave a malformed answer");
      wanted += wire.text_bytes;
    }
  }
  if (wire.code != 0) return Status(static_cast<Code>(wire.code), buffer.substr(sizeof wire));
  Answer answer;
  answer.parent = wire.parent;
  answer.root = std::move(fd);
  if (wire.parent != kNoRank &&
      (wire.parent >= report.nranks || !wire.parent_endpoint.decode(&answer.endpoint) ||
       answer.endpoint.empty()))
    return error(Code::kSystem, "the server of the unique id gave a malformed answer");
  return answer;
}

}  // namespace libcomm
