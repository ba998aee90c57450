// ChannelEnd: what the two ends of a channel have in common: queue pairs, the control connection,
// how they are watched, and how a failed queue pair is replaced.
//
// Fail-over. A granted slot may be written twice without harm, so what a failed queue pair has not
// brought over is sent again by another. The danger is the failed one's late packets: they must not
// land in a slot that was granted anew. So it is fenced first, on both ends:
//
//   sender                                     receiver
//   queue pair fails here (or: kBroken <------ it fails there)
//   to ERR; waits until its receives are back
//   kFence: grant entries that arrived ------> to ERR; waits until its receives are back
//                                              writes grant entries that are missing again
//   what did not arrive: sent again  <-------- kFenced: arrivals that came
//   new queue pair                             (the old one is destroyed)
//   kRebuild ---------------------------------> new queue pair, ready to receive
//   ready to send and receive        <-------- kRebuilt
//   kReady ----------------------------------> it may carry grants, too
//
// A queue pair in ERR takes no packet, so after kFenced nothing of the old one can arrive; what
// arrived before is in kFenced and is not sent again. A slot whose segment has not arrived is never
// granted anew. So no write can hit a recycled slot.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "src/base/clock.h"
#include "src/base/fd.h"
#include "transports/rdma/bundle.h"
#include "transports/rdma/control.h"
#include "transports/rdma/pinned.h"
#include "transports/rdma/registration.h"
#include "transports/rdma/statistics.h"

namespace libcomm::rdma {

// What a transport and its channels share; channels may outlive their transport.
struct ChannelContext {
  int rank = -1;
  Options options;
  size_t segment_bytes = 0;
  int window_slots = 4;
  std::vector<std::shared_ptr<Nic>> nics;
  std::shared_ptr<Counters> counters = std::make_shared<Counters>();
  std::shared_ptr<RegistrationCache> registrations;
  std::shared_ptr<const DeviceMemory> devices;  // may be null: there is no GPU memory
  UniqueFd always_readable;

  // Between a place of ours and `user`'s memory, which may be a GPU's.
  Status copy_from(const void* user, void* ours, size_t bytes) const {
    if (devices && devices->on_device(user)) return devices->copy(ours, user, bytes);
    std::memcpy(ours, user, bytes);
    return Status::ok();
  }
  Status copy_to(void* user, const void* ours, size_t bytes) const {
    if (devices && devices->on_device(user)) return devices->copy(user, ours, bytes);
    std::memcpy(user, ours, bytes);
    return Status::ok();
  }
};

// Which channel.
struct ChannelName {
  int rank = -1;
  int peer = -1;
  int lane = 0;
  int rails = 1;
};

class ChannelEnd {
 public:
  ChannelEnd(std::shared_ptr<const ChannelContext> context, const ChannelName& name,
             std::shared_ptr<PinBudget> budget, bool sends);
  virtual ~ChannelEnd();
  ChannelEnd(const ChannelEnd&) = delete;
  ChannelEnd& operator=(const ChannelEnd&) = delete;

 protected:
  // What the ends do differently.
  virtual Status on_sent(int index) = 0;
  virtual Status on_arrived(int index, const Immediate& what) = 0;
  virtual Status on_message(const Message& message) = 0;
  // Queue pair `index` is in ERR and has drained.
  virtual Status on_drained(int index) = 0;
  // It has just failed.
  virtual Status on_failed(int index) = 0;
  // More work than completions and messages bring; after every look.
  virtual Status on_turn() = 0;

  // Queue pairs, the ring that the peer writes into, and the image of the peer's. Tells the peer
  // when something of it cannot be had.
  Status open(UniqueFd control, size_t ring_bytes, size_t image_bytes, const QueueDepth& depth);
  // Destroys the queue pairs, before the memory that they use goes.
  void shut();
  // Looks at everything; *moved: something happened.
  Status look(bool* moved);
  // Looks, but at the control connection and device events only now and then.
  Status turn();
  WaitHandle handle();

  enum class Phase {
    kLive,
    kDraining,    // in ERR, receives are coming back
    kFenced,      // sender: kFence is out. Receiver: kFenced is out
    kRebuilding,  // a new one is there, the peer's not yet
    kDown,        // its port is down: waits until it comes up
  };
  struct Line {
    Phase phase = Phase::kLive;
    uint32_t epoch = 0;
    Clock::time_point since{};  // of the phase
    bool told_ready = true;     // receiver: the sender's end can receive
    int failures = 0;           // since its last success
    Clock::time_point down_until{};
  };
  Line& line(int index) { return lines_[static_cast<size_t>(index)]; }
  void enter(int index, Phase phase);
  // The channel is open and all its queue pairs work.
  bool is_calm() const { return connected_ && lines_down_ == 0; }
  bool is_live(int index) { return line(index).phase == Phase::kLive; }
  // Starts fencing; again is harmless.
  Status fail_line(int index, const std::string& cause);
  // Something went over it.
  void note_success(int index) {
    failures_in_a_row_ = 0;
    line(index).failures = 0;
  }
  // One that fails again and again without a success, as on a path that is dead while its port is
  // up, stays down for longer each time, and others do its work; if others work.
  bool may_rebuild(int index);
  // How making queue pair `index` anew went. A device that refuses one may have one later, and
  // other queue pairs work; only when none does, for long, is the path lost.
  void note_rebuild(int index, const Status& made);
  // A message that may only come once the channel is open: kRemote when it is not.
  Status check_open(MessageType type) const;
  // A message about a queue pair: kRemote when it names none of this channel's.
  Status check_index(uint32_t index) const;

  // A staging slot, or -1 when there is none now. A channel end has always one; up to `most` while
  // the peer's budget lasts.
  Result<int> take_slot(int most);
  PinnedMemory& slot(int index) { return *slots_[static_cast<size_t>(index)]; }
  void give_slots_back();

  EndWire describe() const;
  Status lost(const std::string& cause) const;
  const std::vector<std::shared_ptr<Nic>>& rails() const { return rails_; }

  const std::shared_ptr<const ChannelContext> context_;
  const ChannelName name_;
  const std::shared_ptr<PinBudget> budget_;
  const std::shared_ptr<ChannelStatistics> statistics_;
  std::unique_ptr<PinnedMemory> ring_;   // that the peer writes into
  std::unique_ptr<PinnedMemory> image_;  // of the peer's ring: what is written there
  std::unique_ptr<Control> control_;
  std::unique_ptr<Bundle> bundle_;
  std::vector<int> free_slots_;
  bool connected_ = false;
  Status failed_;  // sticky

 private:
  Status take_completions(bool* moved);
  Status take_messages(bool* moved);
  Status take_events();
  Status on_error(const Completion& completion);
  Status push_drains();
  Status check_path();

  std::vector<std::shared_ptr<Nic>> rails_;
  std::vector<std::unique_ptr<PinnedMemory>> slots_;
  std::vector<Line> lines_;
  int lines_down_ = 0;  // that are not live
  std::vector<Completion> completions_;
  std::vector<uint64_t> events_seen_;  // by rail
  unsigned turns_ = 0;
  int64_t looked_ns_ = 0;  // by the kernel's coarse clock
  int failures_in_a_row_ = 0;
  std::string last_cause_;
  std::string refusal_;  // of the device to make a queue pair anew, last
  Clock::time_point dead_since_{};
  UniqueFd epoll_;

 public:
  const std::shared_ptr<ChannelStatistics>& statistics() const { return statistics_; }
};

}  // namespace libcomm::rdma
