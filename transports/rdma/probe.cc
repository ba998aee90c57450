#include "transports/rdma/probe.h"

#include <arpa/inet.h>
#include <sched.h>

#include <cstring>

#include "src/base/clock.h"
#include "transports/rdma/bundle.h"
#include "transports/rdma/pinned.h"

namespace libcomm::rdma {
namespace {

constexpr Seconds kPatience{20};
constexpr uint32_t kSign = 0x2a;

// Until queue pair 1 has heard `kSign`.
Status await_arrival(Bundle& bundle) {
  const Deadline deadline = Deadline::after(kPatience);
  std::vector<Completion> completions;
  for (;;) {
    completions.clear();
    bundle.poll(&completions);
    for (const Completion& completion : completions) {
      if (completion.kind == Completion::Kind::kFailed)
        return error(Code::kSystem, "a write to itself failed: {}",
                     bundle.nic(0).verbs()->wc_status_str(completion.status));
      if (completion.kind == Completion::Kind::kArrived && completion.index == 1 &&
          completion.immediate == kSign)
        return Status::ok();
    }
    if (deadline.passed())
      return error(Code::kSystem, "a write to itself did not arrive within {} s",
                   kPatience.count());
    sched_yield();
  }
}

}  // namespace

Status probe_loopback(const std::shared_ptr<Nic>& nic, const Options& options) {
  COMM_ASSIGN(const auto bundle, Bundle::create({nic}, {1, 1, {4, 4}}, options));
  COMM_ASSIGN(const auto memory,
              PinnedMemory::create({nic}, 128, false, std::make_shared<Counters>()));
  EndWire end;
  bundle->describe(&end);
  COMM_TRY(bundle->connect_one(0, end.rail[0], end.qp[1]));
  COMM_TRY(bundle->connect_one(1, end.rail[0], end.qp[0]));

  std::memset(memory->data(), 0x5a, 64);
  ibv_sge piece{};
  piece.addr = reinterpret_cast<uintptr_t>(memory->data());
  piece.length = 64;
  piece.lkey = memory->lkey(0);
  ibv_send_wr write{};
  write.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
  write.sg_list = &piece;
  write.num_sge = 1;
  write.imm_data = htonl(kSign);
  write.wr.rdma.remote_addr = reinterpret_cast<uintptr_t>(memory->data()) + 64;
  write.wr.rdma.rkey = memory->rkey(0);
  uint64_t sequence = 0;
  COMM_TRY(bundle->qp(0)->post({&write, 1}, true, &sequence));
  COMM_TRY(await_arrival(*bundle));
  if (std::memcmp(memory->data(), memory->data() + 64, 64) != 0)
    return error(Code::kSystem, "a write to itself brought other bytes");
  bundle->destroy(0);  // before the memory that they use
  bundle->destroy(1);
  return Status::ok();
}

}  // namespace libcomm::rdma
