#include "transports/rdma/flush.h"

#include <cerrno>

#include "transports/rdma/registration.h"

namespace libcomm::rdma {
namespace {

constexpr QueueDepth kDepth{4, 1};

}  // namespace

Result<std::unique_ptr<Flush>> Flush::create(const std::vector<std::shared_ptr<Nic>>& rails,
                                             const Options& options,
                                             std::shared_ptr<Counters> counters) {
  std::unique_ptr<Flush> flush(new Flush(counters));
  COMM_ASSIGN(flush->landing_, PinnedMemory::create(rails, 64, false, std::move(counters)));
  for (const std::shared_ptr<Nic>& nic : rails) {
    errno = 0;
    ibv_cq* cq = nic->verbs()->create_cq(nic->context(), kDepth.total(), nullptr, nullptr, 0);
    if (cq == nullptr)
      return system_error(errno == 0 ? ENOMEM : errno, "a completion queue for flushes");
    Rail& rail = flush->rails_.emplace_back(Rail{nic, Cq(cq, {nic->verbs()}), nullptr});
    ++flush->counters_->queue_pairs;
    COMM_ASSIGN(rail.qp, QueuePair::create(nic, cq, kDepth, 0, 0, options, true));
    RailWire self;
    nic->describe(&self);
    rail.qp->describe_ece(&self, options);
    COMM_TRY(rail.qp->connect(self, rail.qp->wire(), options.traffic_class, options));
  }
  return flush;
}

Flush::~Flush() { counters_->queue_pairs -= static_cast<int>(rails_.size()); }

Status Flush::begin(const Registration& memory, const std::byte* address) {
  for (size_t i = 0; i < rails_.size(); ++i) {
    const int rail = static_cast<int>(i);
    ibv_sge piece{};
    piece.addr = reinterpret_cast<uintptr_t>(landing_->data()) + i;
    piece.length = 1;
    piece.lkey = landing_->lkey(rail);
    ibv_send_wr read{};
    read.opcode = IBV_WR_RDMA_READ;
    read.sg_list = &piece;
    read.num_sge = 1;
    read.wr.rdma.remote_addr = reinterpret_cast<uintptr_t>(address);
    read.wr.rdma.rkey = memory.rkey(rail);
    uint64_t sequence = 0;
    COMM_TRY(rails_[i].qp->post({&read, 1}, true, &sequence));
    ++awaited_;
  }
  return Status::ok();
}

Status Flush::progress() {
  for (Rail& rail : rails_) {
    ibv_wc done{};
    while (awaited_ > 0 && ibv_poll_cq(rail.cq.get(), 1, &done) > 0) {
      if (done.status != IBV_WC_SUCCESS)
        return error(Code::kSystem, "reading GPU memory through {} failed: {}",
                     rail.nic->info().name(), rail.nic->verbs()->wc_status_str(done.status));
      rail.qp->note_sent(WorkId::decode(done.wr_id).sequence);
      --awaited_;
    }
  }
  return Status::ok();
}

}  // namespace libcomm::rdma
