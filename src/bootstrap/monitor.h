// The monitor: one thread per communicator that keeps in touch with the other ranks.
//
// It lets authenticated connections in and parks them until somebody asks for them, holds the
// control links of the overlay (overlay.h), floods news over them, and declares a rank dead whose
// link ends without a goodbye or whose process ends. State is guarded by one mutex; callbacks run
// without it.
//
// Leaving in good order: goodbye goes out on every link and the thread ends at once. Whoever gets
// it no longer takes the end of that rank's links for a death, the ring closes around it, and those
// who are still there after a moment tell each other that it has left.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "src/base/fd.h"
#include "src/bootstrap/bootstrap.h"
#include "src/bootstrap/dial.h"
#include "src/bootstrap/doorkeeper.h"
#include "src/bootstrap/inquiry.h"
#include "src/bootstrap/news.h"
#include "src/bootstrap/peer.h"

namespace libcomm {

class Monitor {
 public:
  static Result<std::unique_ptr<Monitor>> start(int rank, int nranks, const Key& key,
                                                Listeners listeners, NewsCallback on_news);
  // Leaves. Not in a forked child, where the thread does not exist: leak the monitor there.
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  // Readable once the group has failed (abort or death), for ever.
  int alarm() const { return alarm_.get(); }
  // The first abort or death; OK before. After leave(): kInvalidUsage.
  Status failure() const;
  // Whether that was a death, of the rank that it names as its peer.
  bool failed_by_death() const;

  // Takes a parked connection; invalid when it is not there (yet).
  UniqueFd try_take(int from, uint16_t purpose, uint32_t index);
  // Waits for it. Errors as Tree's; without an alarm in the limits, a failed group does not end it.
  Result<UniqueFd> take(int from, uint16_t purpose, uint32_t index, const WaitLimits& limits);

  // Everybody's entry, by rank; before the first add_link().
  void set_peers(std::vector<Peer> peers);
  // A control link that this rank opened.
  void add_link(int peer, UniqueFd fd);
  // Listens to a root until leave_roots(), which tells it, and this monitor, that the group stands.
  void follow_root(UniqueFd fd);
  void leave_roots();
  // Waits until each of `peers` has a link with this rank.
  Status await_links(const std::set<int>& peers, const WaitLimits& limits);
  // Waits until the group has failed or `peer` is known to have left, at most until `until`.
  void await_news_of(int peer, const Deadline& until);
  // This rank waits in vain: do all hosts of the group answer? Waits until that is known; the
  // failure of the group, when one does not, or for what else it has failed.
  Status inquire();

  void watch_process(int peer, int64_t pid);
  void raise(News news, Status reason);
  void leave();

  // How many ranks are known to have left in good order; how long ago `peer` did, if it did. Once
  // the group has failed nobody left in good order.
  size_t departures() const { return departures_.load(std::memory_order_acquire); }
  std::optional<Seconds> left_since(int peer) const;

  int sockets() const;

 private:
  struct Link {
    int peer;  // kRootLink: a root, not a rank
    UniqueFd fd;
    std::string in;
    std::string out;        // what the socket did not take at once
    bool welcomed = false;  // the peer holds this link too
    uint64_t written = 0;   // bytes, to the socket
    int problem = 0;        // errno of a write that failed
  };
  // A link that this thread is opening to close the ring again.
  struct Repair {
    Repair() {}  // clang finds no default one for the optional below: the class is not complete yet
    int peer = -1;
    size_t address = 0;
    UniqueFd fd;
    std::optional<CallerHandshake> handshake;  // none while still connecting
    Deadline deadline;
  };
  struct Watched {
    int peer;
    UniqueFd pidfd;
  };
  static constexpr int kRootLink = -1;
  using Calls = std::vector<std::pair<News, Status>>;
  using Parked = std::tuple<int, uint32_t, uint32_t>;  // rank, purpose, index

  Monitor(int rank, int nranks, const Key& key, Listeners listeners, NewsCallback on_news,
          UniqueFd epoll, UniqueFd wake, UniqueFd alarm);
  void run();
  // All below: with mutex_ held; news to call back is collected.
  int tick(Calls* calls);
  void on_event(int fd, uint32_t events, Calls* calls);
  void admit(Arrival arrival, Calls* calls);
  Link& adopt(int peer, UniqueFd fd, bool welcomed);
  void read_link(int fd, Calls* calls);
  void drop_link(int fd);
  void take_news(int from, const ParsedNews& news, Calls* calls);
  void declare_dead(int peer, const char* how, Calls* calls);
  bool spans_hosts() const;
  void open_inquiry();
  void close_inquiry(Calls* calls);
  void link_broke(int peer, int problem, Calls* calls);
  bool linked(int peer) const;
  bool spread(NewsType type, const Status& reason);
  void send_on(Link& link, const std::string& message);
  void flush(Link& link);
  void peer_left(int peer, double tell_after);
  void tell_departures();
  void mend_rings();
  void start_repair(int peer);
  void step_repair();
  void next_address();
  void process_ended(int peer, Calls* calls);
  void call(const Calls& calls);
  void wake() const;

  const int rank_;
  const int nranks_;
  const Key key_;
  const NewsCallback on_news_;
  UniqueFd epoll_;
  UniqueFd wake_;
  UniqueFd alarm_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;  // something was parked or linked, or the group failed
  Doorkeeper door_;
  std::map<Parked, std::vector<UniqueFd>> parked_;
  std::vector<Peer> peers_;
  std::unordered_map<int, Link> links_;        // by descriptor
  std::set<int> left_;                         // said goodbye, or are no longer to be reached
  std::map<int, Clock::time_point> departed_;  // said goodbye, to this rank or to another
  std::atomic<size_t> departures_{0};          // how many
  std::vector<int> untold_;                    // of these, who has not been told on
  Deadline tell_at_;
  std::vector<int> all_ranks_;
  std::vector<int> host_ranks_;  // this rank and those whose processes are watched
  Deadline mend_at_;             // when the rings are looked at; never: nothing changed
  bool mend_due_ = false;
  std::optional<Repair> repair_;
  std::map<int, Watched> watched_;  // by pidfd
  std::map<int, Deadline> ended_;   // processes that ended; declared dead if no goodbye turns up
  Inquiry inquiry_;
  std::optional<Status> failure_;
  bool by_death_ = false;
  std::string failure_message_;  // encoded, for links that come later
  std::optional<std::string> revoke_message_;
  bool assembled_ = false;
  bool leaving_ = false;
  std::thread thread_;
};

}  // namespace libcomm
