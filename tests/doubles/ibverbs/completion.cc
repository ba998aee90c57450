#include "tests/doubles/ibverbs/completion.h"

#include <algorithm>
#include <cerrno>

#include "tests/doubles/ibverbs/abi.h"
#include "tests/doubles/ibverbs/node.h"
#include "tests/doubles/ibverbs/requester.h"
#include "tests/doubles/ibverbs/rules.h"

namespace rdma_double {
namespace {

// verbs promise only id, status, number and vendor code of a failed request. The rest is made
// useless, so that nobody gets used to it.
void spoil(ibv_wc* wc) {
  if (wc->status == IBV_WC_SUCCESS || !config().strict) return;
  wc->opcode = static_cast<ibv_wc_opcode>(0xff);
  wc->byte_len = 0xdeadbeef;
  wc->imm_data = 0xdeadbeef;
  wc->src_qp = 0xdeadbeef;
  wc->wc_flags = 0xffff;
}

}  // namespace

void complete(Cq& cq, Completion completion, bool solicited) {
  if (cq.entries.size() >= static_cast<size_t>(cq.cqe)) {
    if (config().strict)
      fatal("completion queue %p overruns its %d entries", static_cast<void*>(&cq), cq.cqe);
    if (!cq.overrun) {
      cq.overrun = true;
      ibv_async_event event{};
      event.element.cq = &cq;
      event.event_type = IBV_EVENT_CQ_ERR;
      cq.node->event(*cq.owner, event);
    }
    return;
  }
  const bool failed = completion.wc.status != IBV_WC_SUCCESS;
  spoil(&completion.wc);
  cq.entries.push_back(completion);
  if (cq.channel != nullptr &&
      (cq.armed == Armed::kAny || (cq.armed == Armed::kSolicited && (solicited || failed)))) {
    cq.node->set_armed(cq, Armed::kNo);
    cq.events_to()->events.push(&cq);
  }
}

int poll(Cq& cq, int entries, ibv_wc* out) {
  int count = 0;
  while (count < entries && !cq.entries.empty()) {
    const Completion& entry = cq.entries.front();
    out[count++] = entry.wc;
    if (entry.of != nullptr) {
      entry.of->send_slots -= entry.send_slots;
      entry.of->receive_slots -= entry.receive_slots;
    }
    --cq.outstanding;
    cq.entries.pop_front();
  }
  return count;
}

void purge(Cq& cq, const Qp& qp) {
  const auto end = std::remove_if(cq.entries.begin(), cq.entries.end(),
                                  [&](const Completion& entry) { return entry.of == &qp; });
  cq.outstanding -= static_cast<uint64_t>(cq.entries.end() - end);
  cq.entries.erase(end, cq.entries.end());
}

int expect_completion(Cq& cq, const Qp& qp) {
  if (config().strict && cq.outstanding >= static_cast<uint64_t>(cq.cqe))
    fatal(
        "completion queue %p of %d entries would overrun if queue pair %u failed now: %llu "
        "requests "
        "and unpolled completions",
        static_cast<void*>(&cq), cq.cqe, qp.qp_num,
        static_cast<unsigned long long>(cq.outstanding + 1));
  ++cq.outstanding;
  return 0;
}

void forget_events(const Qp& qp) {
  Context& context = *qp.owner;
  const auto of_it = [&](const ibv_async_event& event) {
    return is_of_queue_pair(event.event_type) && event.element.qp == &qp;
  };
  context.events.erase(of_it);
}

}  // namespace rdma_double
