// One per process: the devices, the tables of all objects, the wire to other processes, the timers
// and the NIC thread. One mutex guards everything; whoever calls into the library also does the
// NIC's work for a moment (progress), so that a caller that polls need not wait for the thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <queue>
#include <random>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tests/doubles/ibverbs/objects.h"
#include "tests/doubles/ibverbs/wire.h"

namespace rdma_double {

int64_t now_ns();

class Node {
 public:
  // The one of this process. A forked child gets one of its own; objects made before the fork are
  // refused in it.
  static Node& current();

  std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex_); }
  // Taken before lock() by those that open and close devices: one at a time.
  std::unique_lock<std::mutex> life_lock() { return std::unique_lock(life_mutex_); }

  // All below with the lock held.

  std::vector<Device*> devices();
  // Those of the last list.
  std::vector<Device*> known_devices();
  // Starts the NIC thread and joins the fabric with the first open context; the last one ends both.
  void opened(Context& context);
  // Gives the lock back while it waits for the thread's end.
  void closed(Context& context, std::unique_lock<std::mutex>* lock);

  // Makes an object that this node owns to the end.
  template <typename T>
  T& make(Context* owner) {
    auto object = std::make_unique<T>();
    T& made = *object;
    made.node = this;
    made.owner = owner;
    graveyard_.emplace_back(object.release(), [](void* p) { delete static_cast<T*>(p); });
    return made;
  }

  // Numbers of queue pairs and keys differ between all processes of the fabric.
  uint32_t add_queue_pair(Qp& qp);
  void remove_queue_pair(Qp& qp);
  Qp* find_queue_pair(uint32_t number);
  Qp* queue_pair_by_serial(uint64_t serial);
  const std::unordered_map<uint32_t, Qp*>& queue_pairs() const { return queue_pairs_; }
  const std::unordered_map<uint32_t, Mr*>& regions() const { return regions_; }  // by lkey
  void add_region(Mr& mr);
  void remove_region(Mr& mr);
  Mr* region_of_lkey(uint32_t lkey);
  Mr* region_of_rkey(uint32_t rkey);

  // Puts a packet on the wire, or into the own inbox.
  void transmit(Packet packet);
  void at(int64_t when_ns, std::function<void()> run);
  // Reads sockets, runs what is due, executes what arrived until nothing is left.
  void progress();
  // Progress by a program that found a completion queue empty.
  void progress_of_poller();
  // A completion queue waits, or does not wait any more, for an event.
  void set_armed(Cq& cq, Armed armed);
  // Executes the inbox alone: what a post does.
  void drain();
  void owe_ack(Qp& qp);

  void event(Context& context, const ibv_async_event& event);
  void set_port(Device& device, int port, bool up);

  uint64_t random(uint64_t below) { return below == 0 ? 0 : random_() % below; }
  std::vector<uint64_t>& losses_by_rule() { return losses_by_rule_; }
  // For those that wait until something is acknowledged.
  std::condition_variable& changed() { return changed_; }
  // A connection to a process broke: its packets are lost.
  void lost_process(uint32_t process);

 private:
  struct Timer {
    int64_t at;
    uint64_t order;
    std::function<void()> run;
    bool operator<(const Timer& other) const {
      return at != other.at ? at > other.at : order > other.order;
    }
  };

  void make_devices();
  void schedule_port_events(Device& device);
  void run();
  bool pollers_do_it() const;
  void run_timers();
  void send_acks();

  std::mutex life_mutex_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::unordered_map<uint32_t, Qp*> queue_pairs_;
  std::unordered_map<uint32_t, Mr*> regions_;  // by lkey
  std::vector<std::unique_ptr<void, void (*)(void*)>> graveyard_;
  uint64_t serial_ = 0;
  uint32_t next_queue_pair_ = 0;
  uint32_t next_key_ = 0;

  std::unique_ptr<Wire> wire_;
  std::deque<Packet> inbox_;
  std::vector<Qp*> acks_;
  std::priority_queue<Timer> timers_;
  uint64_t timer_order_ = 0;
  bool draining_ = false;

  std::thread thread_;
  bool stopping_ = false;
  int64_t last_poll_ns_ = 0;
  int armed_ = 0;                // completion queues that wait for an event
  int64_t thread_wakes_ns_ = 0;  // when the sleeping thread looks again
  int open_contexts_ = 0;
  std::mt19937_64 random_{1};
  std::vector<uint64_t> losses_by_rule_;
};

}  // namespace rdma_double
