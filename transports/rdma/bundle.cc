#include "transports/rdma/bundle.h"

#include <arpa/inet.h>

#include <cerrno>

namespace libcomm::rdma {

// A completion queue may be destroyed only when all its events are acknowledged.
Bundle::Rail::~Rail() {
  if (cq && unacknowledged > 0) verbs->ack_cq_events(cq.get(), unacknowledged);
}

Result<std::unique_ptr<Bundle>> Bundle::create(std::vector<std::shared_ptr<Nic>> nics,
                                               const BundleShape& shape, const Options& options) {
  std::unique_ptr<Bundle> bundle(new Bundle(std::move(nics), shape, options));
  for (int rail = 0; rail < shape.rails; ++rail) {
    const Nic& nic = bundle->nic(rail);
    COMM_ASSIGN(CompletionChannel channel, CompletionChannel::create(nic.verbs(), nic.context()));
    const int entries =
        (shape.qps_per_rail + (rail == shape.first_rail ? 1 : 0)) * shape.depth.total();
    errno = 0;
    ibv_cq* cq = nic.verbs()->create_cq(nic.context(), entries, nullptr, channel.get(), 0);
    if (cq == nullptr)
      return system_error(errno == 0 ? ENOMEM : errno,
                          fmt::format("a completion queue of {} entries on {} (it has up to {}: "
                                      "use fewer COMM_IB_QPS_PER_CONNECTION)",
                                      entries, nic.info().name(), nic.info().max_cqe));
    bundle->rails_.emplace_back(std::move(channel), Cq(cq, {nic.verbs()}));
    bundle->rails_.back().verbs = nic.verbs();
  }
  bundle->qps_.resize(static_cast<size_t>(shape.qps()));
  for (int index = 0; index < shape.qps(); ++index) COMM_TRY(bundle->rebuild(index, 0));
  return bundle;
}

int Bundle::traffic_class(int index) const {
  return index == shape_.grant_qp() ? options_.cts_traffic_class : options_.traffic_class;
}

void Bundle::describe(EndWire* end) const {
  end->rails = static_cast<uint16_t>(shape_.rails);
  end->qps_per_rail = static_cast<uint16_t>(shape_.qps_per_rail);
  for (int index = 0; index < shape_.qps(); ++index) {
    const int rail = shape_.rail_of(index);
    nics_[static_cast<size_t>(rail)]->describe(&end->rail[rail]);
    const QueuePair* qp = qps_[static_cast<size_t>(index)].get();
    if (qp == nullptr) continue;
    end->qp[index] = qp->wire();
    qp->describe_ece(&end->rail[rail], options_);
  }
}

Status Bundle::connect(const EndWire& theirs) {
  for (int index = 0; index < shape_.qps(); ++index) {
    QueuePair* mine = qp(index);
    if (mine == nullptr || mine->failed() || theirs.qp[index].number == 0) continue;
    COMM_TRY(connect_one(index, theirs.rail[shape_.rail_of(index)], theirs.qp[index]));
  }
  return Status::ok();
}

Status Bundle::connect_one(int index, const RailWire& rail, const QpWire& peer) {
  return qp(index)->connect(rail, peer, traffic_class(index), options_);
}

Status Bundle::rebuild(int index, uint32_t epoch) {
  const int rail = shape_.rail_of(index);
  destroy(index);
  // What the old one left in the completion queue counts against its size: out with it first.
  while (poll_devices(&spilled_)) {
  }
  COMM_ASSIGN(qps_[static_cast<size_t>(index)],
              QueuePair::create(nics_[static_cast<size_t>(rail)],
                                rails_[static_cast<size_t>(rail)].cq.get(), shape_.depth, index,
                                epoch, options_));
  return Status::ok();
}

void Bundle::destroy(int index) { qps_[static_cast<size_t>(index)].reset(); }

bool Bundle::poll(std::vector<Completion>* out) {
  if (!spilled_.empty()) {
    out->insert(out->end(), spilled_.begin(), spilled_.end());
    spilled_.clear();
  }
  return poll_devices(out);
}

// True while a completion queue may hold more.
bool Bundle::poll_devices(std::vector<Completion>* out) {
  constexpr int kAtOnce = 16;
  ibv_wc done[kAtOnce];
  bool more = false;
  for (Rail& rail : rails_) {
    const int count = ibv_poll_cq(rail.cq.get(), kAtOnce, done);
    more |= count == kAtOnce;
    for (int i = 0; i < count; ++i) take(done[i], out);
  }
  return more;
}

// Completions of queue pairs that have been replaced are dropped: what they would say was settled
// when they were fenced.
void Bundle::take(const ibv_wc& wc, std::vector<Completion>* out) {
  const WorkId id = WorkId::decode(wc.wr_id);
  if (id.index >= shape_.qps()) return;
  QueuePair* pair = qp(id.index);
  if (pair == nullptr || (pair->epoch() & 0xffff) != id.epoch) return;
  Completion completion{Completion::Kind::kFailed, id.index, id.sequence, 0, wc.status};
  if (wc.status != IBV_WC_SUCCESS) {
    if (id.receive) pair->note_flushed();
    out->push_back(completion);
    return;
  }
  if (!id.receive) {
    completion.kind = Completion::Kind::kSent;
    if (pair->note_sent(id.sequence)) out->push_back(completion);
    return;
  }
  completion.kind = Completion::Kind::kArrived;
  completion.immediate = ntohl(wc.imm_data);
  if (const Status posted = pair->receive_again(); !posted)
    completion.status = IBV_WC_GENERAL_ERR;  // the queue pair is broken
  out->push_back(completion);
}

Status Bundle::arm() {
  for (Rail& rail : rails_) {
    ibv_cq* cq = nullptr;
    void* context = nullptr;
    while (rail.verbs->get_cq_event(rail.channel.get(), &cq, &context) == 0) ++rail.unacknowledged;
    if (rail.unacknowledged > 64) {
      rail.verbs->ack_cq_events(rail.cq.get(), rail.unacknowledged);
      rail.unacknowledged = 0;
    }
    if (const int err = ibv_req_notify_cq(rail.cq.get(), 0); err != 0)
      return system_error(err, "ibv_req_notify_cq");
  }
  return Status::ok();
}

std::vector<int> Bundle::fds() const {
  std::vector<int> fds;
  for (const Rail& rail : rails_) fds.push_back(rail.channel.fd());
  return fds;
}

}  // namespace libcomm::rdma
