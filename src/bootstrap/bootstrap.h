// Bootstrap: how the ranks of one communicator find each other, and how they stay in touch.
//
// It assembles the group (rendezvous), gives small collective exchanges for setting things up,
// opens authenticated data connections for transports, and carries bad news: a rank that dies,
// aborts or revokes is known to every other rank at once, by a bounded-degree overlay of control
// connections whose news floods (same-host peers also by pidfd). One monitor thread per
// communicator accepts connections, proves them (HMAC-SHA-256 challenge, both ways) and listens for
// news. A communicator of one rank has no thread and no socket.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "src/base/clock.h"
#include "src/base/fd.h"
#include "src/base/knobs.h"
#include "src/base/status.h"
#include "src/bootstrap/rendezvous.h"

namespace libcomm {

// What an authenticated data connection is for; connections match by (peer, purpose, index).
enum class Purpose : uint32_t { kTcpData = 1, kShmSetup = 2, kRdmaSetup = 3, kTest = 99 };

enum class News {
  kAbort,   // a rank failed or aborted: the communicator is over
  kDeath,   // a rank's process is gone
  kRevoke,  // a rank revoked the communicator: operations end, groups can still be derived
};

// The user's call that an exchange belongs to. All ranks must make the same one; a revoke ends
// those of kWindow, which is no use without the operations that it ends.
enum class SetupCall { kNone, kSplit, kWindow };

// Called on the monitor thread (or, from raise(), on the caller's), once for the first abort or
// death and once for the first revoke. The status names the culprit as its peer, where it is known.
using NewsCallback = std::function<void(News news, const Status& reason)>;

class Bootstrap {
 public:
  virtual ~Bootstrap() =
      default;  // leaves in good order if leave() was not called; joins the thread

  // Joins the group as rank `rank` of `nranks`; collective; blocks until all are there, at most
  // until BOOTSTRAP_TIMEOUT. `cancel`, when given, outlives the group and ends this wait and its
  // later exchanges when it becomes true (from another thread). kInvalidUsage: ranks disagree on
  // nranks, or a rank is taken twice (both ranks get the text). kSystem: nobody serves the
  // rendezvous, nothing reaches the peers, the deadline passed.
  static Result<std::unique_ptr<Bootstrap>> join(const Rendezvous& rendezvous, int rank, int nranks,
                                                 std::shared_ptr<const Knobs> knobs,
                                                 NewsCallback on_news,
                                                 const std::atomic<bool>* cancel = nullptr);

  // A group of some of this one's ranks: `members` are parent ranks in the new order, which must
  // hold this rank; `tag` distinguishes groups made one after the other. Called by the members only
  // (others need not take part). Does not use the rendezvous. Works after a revoke. `cancel` is the
  // new group's, as join()'s; this group's own ends the call too.
  virtual Result<std::unique_ptr<Bootstrap>> derive(std::span<const int> members, uint64_t tag,
                                                    std::shared_ptr<const Knobs> knobs,
                                                    NewsCallback on_news,
                                                    const std::atomic<bool>* cancel = nullptr) = 0;

  // Why what `members` do in the group that they derived failed: the death of one of them, in this
  // group's numbers, where this group hears of one within two seconds; else what was `seen`.
  virtual Status cause_among(std::span<const int> /*members*/, Status seen) { return seen; }

  virtual int rank() const = 0;
  virtual int nranks() const = 0;
  // 32 bytes known to this group only.
  virtual std::span<const unsigned char, 32> secret() const = 0;
  // The addresses of a rank as text, for messages.
  virtual std::string where(int rank) const = 0;

  // data holds nranks blocks of bytes_each; this rank's block is filled in by the caller, the
  // others by the call. Collective, as all calls below up to barrier; they fail with the first
  // abort or death. `cancel`, beside the group's own, ends the call. A group in which one ended
  // halfway makes no exchange any more, but others can be derived from it.
  virtual Status all_gather(void* data, size_t bytes_each,
                            const std::atomic<bool>* cancel = nullptr,
                            SetupCall call = SetupCall::kNone) = 0;
  // As all_gather, for texts of any length (at most 16 MiB each).
  virtual Result<std::vector<std::string>> all_gather_text(const std::string& mine) = 0;
  virtual Status barrier() = 0;

  // An authenticated connection to `peer`, non-blocking and close-on-exec. Blocks until the peer's
  // monitor thread has proved itself; the peer need not be in a call.
  virtual Result<UniqueFd> connect(int peer, Purpose purpose, uint32_t index) = 0;
  // The other end, once it has arrived; an invalid fd before that. Never blocks. kRemote when the
  // peer left a while ago: it is not going to arrive.
  virtual Result<UniqueFd> try_accept(int peer, Purpose purpose, uint32_t index) = 0;

  // Same-host peers in other processes: the monitor thread also watches their pidfds.
  virtual void watch_process(int peer, int64_t pid) = 0;

  // Tells every rank, this one's callback included. Any thread. The reason names this rank when it
  // names nobody.
  virtual void raise(News news, const Status& reason) = 0;

  // How many ranks are known to have left in good order, and whether `peer` is one of them. What
  // such a rank did before is there when this is known, but for what is still on a network. Any
  // thread.
  virtual size_t departures() const { return 0; }
  virtual bool has_left(int /*peer*/) const { return false; }

  // An operation of this rank waits in vain. Not OK when that is because a host of the group, here
  // or elsewhere, does not answer any more, or because the group has failed; all ranks then know.
  // Takes up to three seconds where the group spans hosts. Any thread.
  virtual Status inquire() { return Status::ok(); }

  // This rank leaves in good order: its connections closing is no longer news to the others.
  virtual void leave() = 0;

  virtual int sockets() const = 0;
  virtual int threads() const = 0;
};

}  // namespace libcomm
