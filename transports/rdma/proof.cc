#include "transports/rdma/proof.h"

#include <time.h>

#include <vector>

#include "src/base/clock.h"

namespace libcomm::rdma {
namespace {

constexpr Seconds kPatience{20};
constexpr int kProofLane = 4095;  // no operation uses it
constexpr uint64_t kProofOperation = 0x70726f6f66;

// A channel to or from one partner, and how far it is.
struct Trial {
  int peer = -1;
  std::unique_ptr<SendChannel> send;
  std::unique_ptr<RecvChannel> recv;
  bool reserved = false;
  bool done = false;

  Status advance() {
    Signature signature;
    signature.op = kProofOperation;
    if (recv) return recv->receive_into(signature, nullptr, 0, &done);
    if (!reserved) {
      std::byte* slot = nullptr;
      COMM_TRY(send->reserve(&slot));
      if (slot == nullptr) return Status::ok();
      COMM_TRY(send->commit(signature, 0));
      reserved = true;
    }
    uint64_t completed = 0;
    COMM_TRY(send->progress(&completed));
    done = completed == 1;
    return Status::ok();
  }
};

Result<std::vector<Trial>> open_trials(Transport& transport, std::span<const RankOffer> offers,
                                       int rank) {
  std::vector<Trial> trials;
  for (int peer = 0; peer < static_cast<int>(offers.size()); ++peer) {
    if (peer == rank || proof_partner(offers, peer) != rank) continue;
    COMM_ASSIGN(auto recv, transport.accept(peer, kProofLane));
    trials.emplace_back().recv = std::move(recv);
    trials.back().peer = peer;
  }
  if (const int partner = proof_partner(offers, rank); partner >= 0) {
    COMM_ASSIGN(auto send, transport.connect(partner, kProofLane));
    trials.emplace_back().send = std::move(send);
    trials.back().peer = partner;
  }
  return trials;
}

Status run_trials(Transport& transport, std::span<const RankOffer> offers, int rank) {
  COMM_ASSIGN(std::vector<Trial> trials, open_trials(transport, offers, rank));
  const Deadline deadline = Deadline::after(kPatience);
  for (;;) {
    int waiting_for = -1;
    for (Trial& trial : trials) {
      if (!trial.done) COMM_TRY(trial.advance());
      if (!trial.done) waiting_for = trial.peer;
    }
    if (waiting_for < 0) return Status::ok();
    if (deadline.passed())
      return error(Code::kSystem, "no answer over RDMA from rank {} within {} s", waiting_for,
                   kPatience.count());
    const timespec nap{0, 20'000};
    ::nanosleep(&nap, nullptr);
  }
}

}  // namespace

int proof_partner(std::span<const RankOffer> offers, int rank) {
  const int nranks = static_cast<int>(offers.size());
  for (int step = 1; step < nranks; ++step) {
    const int peer = (rank + step) % nranks;
    if (common_rails(offers[static_cast<size_t>(rank)], offers[static_cast<size_t>(peer)]) > 0)
      return peer;
  }
  return -1;
}

Status prove_routes(Bootstrap& bootstrap, Transport& transport, std::span<const RankOffer> offers,
                    Status* exchange) {
  const Status mine = run_trials(transport, offers, bootstrap.rank());
  const auto texts = bootstrap.all_gather_text(mine.message());
  if (!texts) {
    *exchange = texts.status();
    return texts.status();
  }
  for (size_t rank = 0; rank < texts->size(); ++rank)
    if (!(*texts)[rank].empty()) return error(Code::kSystem, "rank {}: {}", rank, (*texts)[rank]);
  return Status::ok();
}

}  // namespace libcomm::rdma
