#include "tools/rdma/pairs.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "src/base/clock.h"

namespace libcomm {
namespace {

constexpr Seconds kPatience{30};
constexpr int kLane = 0;

Signature numbered(uint64_t number) {
  Signature signature;
  signature.op = number;
  return signature;
}

// Both channels between this rank and its peer.
class Pair {
 public:
  Pair(int peer, const std::atomic<bool>& gone) : peer_(peer), gone_(gone) {}

  // Both ends of both channels are looked at until they are open: a message each way has come.
  Status open(Transport& transport) {
    COMM_ASSIGN(recv_, transport.accept(peer_, kLane));
    COMM_ASSIGN(send_, transport.connect(peer_, kLane));
    const Signature greeting = numbered(0);
    bool posted = false, arrived = false;
    return until([&](bool* moved) -> Status {
      if (!posted) COMM_TRY(send_->post(greeting, nullptr, 0, &posted));
      if (!arrived) COMM_TRY(recv_->receive_into(greeting, nullptr, 0, &arrived));
      COMM_TRY(send_->progress(&accepted_));
      *moved = arrived && accepted_ == 1;
      return Status::ok();
    });
  }
  Status send(const std::byte* src, size_t bytes) {
    const Signature signature = numbered(++sent_);
    for (size_t done = 0; done < bytes;) {
      const size_t piece = std::min(send_->segment_bytes(), bytes - done);
      COMM_TRY(
          until([&](bool* moved) { return send_->post(signature, src + done, piece, moved); }));
      ++accepted_;
      done += piece;
    }
    return Status::ok();
  }
  // Until all that was sent has arrived.
  Status finish() {
    return until([&](bool* moved) -> Status {
      uint64_t completed = 0;
      COMM_TRY(send_->progress(&completed));
      *moved = completed == accepted_;
      return Status::ok();
    });
  }
  Status receive(std::byte* dst, size_t bytes) {
    const Signature signature = numbered(++received_);
    const size_t segment = recv_->segment_bytes();
    recv_->expect(signature, dst, bytes, segment);
    for (size_t done = 0; done < bytes;) {
      const size_t piece = std::min(segment, bytes - done);
      COMM_TRY(until(
          [&](bool* moved) { return recv_->receive_into(signature, dst + done, piece, moved); }));
      done += piece;
    }
    return Status::ok();
  }

 private:
  template <typename Step>
  Status until(const Step& step) {
    const Deadline deadline = Deadline::after(kPatience);
    for (int turn = 1;; ++turn) {
      bool moved = false;
      COMM_TRY(step(&moved));
      if (moved) return Status::ok();
      if (turn % 64 != 0) continue;
      if (gone_) return error(Code::kRemote, "a rank is gone");
      if (deadline.passed())
        return error(Code::kSystem, "nothing moved for {:g} s", kPatience.count());
      ::sched_yield();
    }
  }

  const int peer_;
  const std::atomic<bool>& gone_;
  std::unique_ptr<SendChannel> send_;
  std::unique_ptr<RecvChannel> recv_;
  uint64_t sent_ = 0, received_ = 0, accepted_ = 0;
};

double seconds_since(Clock::time_point start) { return Seconds(Clock::now() - start).count(); }

Status ping_pong(Pair& pair, bool first, int rounds, std::byte* memory) {
  for (int round = 0; round < rounds; ++round) {
    if (first) COMM_TRY(pair.send(memory, 8));
    COMM_TRY(pair.receive(memory, 8));
    if (!first) COMM_TRY(pair.send(memory, 8));
  }
  return pair.finish();
}

Status stream(Pair& pair, bool sends, const PairLoad& load, int count, std::byte* memory) {
  for (int i = 0; i < count; ++i)
    COMM_TRY(sends ? pair.send(memory, load.bytes) : pair.receive(memory, load.bytes));
  return sends ? pair.finish() : Status::ok();
}

Status measure(Pair& pair, bool first, const PairLoad& load, std::byte* memory,
               PairResult* result) {
  COMM_TRY(ping_pong(pair, first, load.rounds / 10 + 1, memory));  // warms up
  auto start = Clock::now();
  COMM_TRY(ping_pong(pair, first, load.rounds, memory));
  result->microseconds = seconds_since(start) * 1e6 / (2.0 * load.rounds);
  // One way, then the other; the first message of each makes the registrations.
  for (const bool sends : {first, !first}) {
    COMM_TRY(stream(pair, sends, load, 1, memory));
    start = Clock::now();
    COMM_TRY(stream(pair, sends, load, load.count, memory));
    if (sends)
      result->bytes_per_second =
          static_cast<double>(load.bytes) * load.count / seconds_since(start);
  }
  return Status::ok();
}

void count(const rdma::RdmaTransport& transport, PairResult* result) {
  for (const auto& channel : transport.statistics()) {
    if (channel->peer != result->peer) continue;
    const auto value = [](const std::atomic<uint64_t>& each) { return each.load(); };
    if (channel->sends) {
      result->granted += value(channel->granted_bytes);
      result->written += value(channel->written_bytes);
      result->peak_in_flight =
          std::max(result->peak_in_flight, value(channel->peak_in_flight_bytes));
      result->direct += value(channel->direct_segments);
      result->sent_again += value(channel->sent_again);
      result->slices += value(channel->segments);
    } else {
      result->most_granted = std::max(result->most_granted, value(channel->peak_open_grant_bytes));
    }
    result->failed_qps += value(channel->fenced_qps);
    result->replaced_qps += value(channel->rebuilt_qps);
  }
}

}  // namespace

std::string PairResult::encode() const {
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {}", rank, peer, microseconds,
                     bytes_per_second, granted, written, peak_in_flight, most_granted, slices,
                     direct, failed_qps, replaced_qps, sent_again, complaint);
}

Result<PairResult> PairResult::decode(const std::string& line) {
  PairResult result;
  std::istringstream in(line);
  in >> result.rank >> result.peer >> result.microseconds >> result.bytes_per_second >>
      result.granted >> result.written >> result.peak_in_flight >> result.most_granted >>
      result.slices >> result.direct >> result.failed_qps >> result.replaced_qps >>
      result.sent_again;
  if (!in) return error(Code::kRemote, "a rank's result cannot be read: {}", line);
  std::getline(in >> std::ws, result.complaint);
  return result;
}

std::vector<std::pair<int, int>> pairs_of(int nranks) {
  constexpr int kAll = 16;
  std::vector<std::pair<int, int>> pairs;
  for (int a = 0; a < nranks; ++a) {
    for (int b = a + 1; b < nranks; ++b) {
      const int apart = std::min(b - a, nranks - (b - a));
      if (nranks <= kAll || apart == 1 || apart == nranks / 2) pairs.emplace_back(a, b);
    }
  }
  return pairs;
}

PairResult measure_pair(Bootstrap& bootstrap, rdma::RdmaTransport& transport, int peer,
                        const PairLoad& load, std::byte* memory, const std::atomic<bool>& gone) {
  PairResult result;
  result.rank = bootstrap.rank();
  result.peer = peer;
  Pair pair(peer, gone);
  Status status = pair.open(transport);
  if (status) status = measure(pair, result.rank < peer, load, memory, &result);
  result.complaint = status.message();
  std::replace(result.complaint.begin(), result.complaint.end(), '\n', ' ');
  count(transport, &result);
  return result;
}

}  // namespace libcomm
