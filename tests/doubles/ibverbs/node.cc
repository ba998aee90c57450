#include "tests/doubles/ibverbs/node.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "tests/doubles/ibverbs/device.h"
#include "tests/doubles/ibverbs/requester.h"
#include "tests/doubles/ibverbs/responder.h"
#include "tests/doubles/ibverbs/rules.h"

namespace rdma_double {
namespace {

constexpr uint32_t kIndexBits =
    12;  // queue pairs of a process at a time: 24 bits less its number's
constexpr uint32_t kIndexes = 1u << kIndexBits;
constexpr uint32_t kKeys = 1u << 19;
constexpr int64_t kPollerIsNear = 200'000;  // nanoseconds
constexpr std::chrono::microseconds kRest{100};

Node* node = nullptr;

uint32_t process_of(uint32_t queue_pair) { return queue_pair >> kIndexBits; }

}  // namespace

int64_t now_ns() {
  timespec time;
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

Node& Node::current() {
  static std::once_flag once;
  std::call_once(once, [] {
    node = new Node;
    ::pthread_atfork(nullptr, nullptr, [] {
      // The parent's stays reachable, for leak checkers; its mutex may be held by a thread that is
      // not here.
      static Node* inherited;
      inherited = node;
      if (inherited->wire_ != nullptr) inherited->wire_->abandon();
      node = new Node;
    });
  });
  return *node;
}

std::vector<Device*> Node::devices() {
  if (open_contexts_ == 0) {
    read_config();
    make_devices();
    random_.seed(config().seed);
    losses_by_rule_.clear();
    serial_ = 0;
  }
  return known_devices();
}

std::vector<Device*> Node::known_devices() {
  std::vector<Device*> all;
  for (const auto& device : devices_)
    if (device->index < config().devices) all.push_back(device.get());
  return all;
}

// Entries of earlier lists stay valid: devices are filled in again, never removed.
void Node::make_devices() {
  for (int i = 0; i < config().devices; ++i) {
    if (static_cast<size_t>(i) == devices_.size()) devices_.push_back(std::make_unique<Device>());
    set_up_device(*devices_[static_cast<size_t>(i)], i);
  }
}

void Node::opened(Context& context) {
  Device& device = *context.on;
  device.contexts.insert(&context);
  if (++open_contexts_ == 1) {
    wire_ = std::make_unique<Wire>(config().fabric);
    stopping_ = false;
    thread_ = std::thread([this] { run(); });
  }
  if (device.contexts.size() == 1) schedule_port_events(device);
}

void Node::schedule_port_events(Device& device) {
  const int64_t start = now_ns();
  for (const PortEvent& event : config().port_events) {
    if (event.device >= config().devices || event.port < 1 || event.port > config().ports)
      fatal("RDMA_DOUBLE_PORT_EVENTS: no port %d/%d", event.device, event.port);
    if (event.device != device.index) continue;
    at(start + event.after_ns, [this, &device, event] { set_port(device, event.port, event.up); });
  }
}

void Node::closed(Context& context, std::unique_lock<std::mutex>* lock) {
  context.on->contexts.erase(&context);
  if (--open_contexts_ > 0) return;
  stopping_ = true;
  wire_->wake();
  std::thread thread = std::move(thread_);
  lock->unlock();
  thread.join();
  lock->lock();
  wire_.reset();
  inbox_.clear();
  acks_.clear();
  timers_ = {};
}

uint32_t Node::add_queue_pair(Qp& qp) {
  if (queue_pairs_.size() >= kIndexes) return 0;
  uint32_t number;
  do {
    number = (wire_->process() << kIndexBits) | (next_queue_pair_++ % kIndexes);
  } while (queue_pairs_.contains(number));
  queue_pairs_[number] = &qp;
  qp.serial = ++serial_;
  return number;
}

void Node::remove_queue_pair(Qp& qp) {
  queue_pairs_.erase(qp.qp_num);
  std::erase(acks_, &qp);
}

Qp* Node::find_queue_pair(uint32_t number) {
  const auto found = queue_pairs_.find(number);
  return found == queue_pairs_.end() ? nullptr : found->second;
}

Qp* Node::queue_pair_by_serial(uint64_t serial) {
  for (const auto& [number, qp] : queue_pairs_)
    if (qp->serial == serial) return qp;
  return nullptr;
}

// lkey and rkey differ in the last bit, so that one is never mistaken for the other.
void Node::add_region(Mr& mr) {
  do {
    mr.lkey = (wire_->process() << 20) | ((++next_key_ % kKeys) << 1);
  } while (regions_.contains(mr.lkey));
  mr.rkey = mr.lkey | 1;
  mr.handle = mr.lkey;
  regions_[mr.lkey] = &mr;
}

void Node::remove_region(Mr& mr) { regions_.erase(mr.lkey); }

Mr* Node::region_of_lkey(uint32_t lkey) {
  const auto found = regions_.find(lkey);
  return found == regions_.end() ? nullptr : found->second;
}

Mr* Node::region_of_rkey(uint32_t rkey) {
  return (rkey & 1) == 0 ? nullptr : region_of_lkey(rkey & ~1u);
}

void Node::transmit(Packet packet) {
  const uint32_t process = process_of(packet.header.destination);
  if (process == wire_->process()) {
    inbox_.push_back(std::move(packet));
    return;
  }
  if (wire_->send(process, packet) || packet.header.kind != Kind::kRequest) return;
  if (Qp* qp = find_queue_pair(packet.header.source)) lost(*qp, packet.header.wave);
}

void Node::at(int64_t when_ns, std::function<void()> run) {
  timers_.push({when_ns, timer_order_++, std::move(run)});
  if (thread_wakes_ns_ > when_ns) {
    thread_wakes_ns_ = when_ns;
    wire_->wake();
  }
}

void Node::lost_process(uint32_t process) {
  for (const auto& [number, qp] : queue_pairs_) {
    if (qp->state == IBV_QPS_RTS && process_of(qp->attr.dest_qp_num) == process)
      lost(*qp, qp->wave);
  }
}

void Node::progress() {
  Wire::Arrivals arrivals;
  wire_->work(&arrivals);
  for (Packet& packet : arrivals.packets) inbox_.push_back(std::move(packet));
  drain();
  for (const uint32_t process : arrivals.broken) lost_process(process);
  run_timers();
  drain();
}

void Node::drain() {
  if (draining_) return;
  draining_ = true;
  while (!inbox_.empty() || !acks_.empty()) {
    while (!inbox_.empty()) {
      Packet packet = std::move(inbox_.front());
      inbox_.pop_front();
      if (packet.header.kind == Kind::kRequest) {
        arrived(*this, std::move(packet));
      } else if (Qp* qp = find_queue_pair(packet.header.destination)) {
        if (qp->answers_held) {
          qp->held_answers.push_back(std::move(packet));
        } else {
          answered(*qp, packet);
        }
      }
    }
    send_acks();
  }
  draining_ = false;
}

void Node::run_timers() {
  if (timers_.empty()) return;
  const int64_t now = now_ns();
  while (!timers_.empty() && timers_.top().at <= now) {
    const auto run = timers_.top().run;
    timers_.pop();
    run();
  }
}

void Node::owe_ack(Qp& qp) {
  if (qp.ack_owed) return;
  qp.ack_owed = true;
  acks_.push_back(&qp);
}

// One acknowledgement per queue pair for all that was executed since the last.
void Node::send_acks() {
  for (Qp* qp : acks_) {
    qp->ack_owed = false;
    Packet packet;
    packet.header.kind = Kind::kAck;
    packet.header.source = qp->qp_num;
    packet.header.destination = qp->attr.dest_qp_num;
    packet.header.psn = static_cast<uint32_t>(qp->expected_psn - 1) & kPsnMask;
    transmit(std::move(packet));
  }
  acks_.clear();
}

void Node::event(Context& context, const ibv_async_event& event) { context.events.push(event); }

void Node::set_port(Device& device, int port, bool up) {
  if (device.at(port).up == up) return;
  device.at(port).up = up;
  ibv_async_event news{};
  news.element.port_num = port;
  news.event_type = up ? IBV_EVENT_PORT_ACTIVE : IBV_EVENT_PORT_ERR;
  for (Context* context : device.contexts) event(*context, news);
}

void Node::progress_of_poller() {
  last_poll_ns_ = now_ns();
  progress();
}

void Node::set_armed(Cq& cq, Armed armed) {
  armed_ += static_cast<int>(armed != Armed::kNo) - static_cast<int>(cq.armed != Armed::kNo);
  cq.armed = armed;
}

// While programs spin on their completion queues, a thread that woke for every packet would only
// take their core away.
bool Node::pollers_do_it() const { return armed_ == 0 && now_ns() - last_poll_ns_ < kPollerIsNear; }

void Node::run() {
  ::pthread_setname_np(::pthread_self(), "rdma-double-nic");
  std::unique_lock held(mutex_);
  while (!stopping_) {
    if (pollers_do_it()) {
      held.unlock();
      std::this_thread::sleep_for(kRest);
      held.lock();
      continue;
    }
    progress();
    const int64_t timeout =
        timers_.empty() ? -1 : std::max<int64_t>(0, timers_.top().at - now_ns());
    thread_wakes_ns_ = timers_.empty() ? INT64_MAX : timers_.top().at;
    held.unlock();
    if (timeout != 0) wire_->wait(timeout);
    held.lock();
    thread_wakes_ns_ = 0;
  }
}

}  // namespace rdma_double
