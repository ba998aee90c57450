#include "tests/shm/ranks.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "transports/facts.h"

namespace libcomm::testing {
namespace {

constexpr size_t kMostBytes = size_t{1} << 20;  // of one exchange
constexpr Seconds kPatience{60};

}  // namespace

struct Meeting::Shared {
  std::atomic<uint32_t> arrived;
  std::atomic<uint32_t> phase;
  unsigned char secret[32];
  std::byte blocks[kMostBytes];
};

class MemoryBootstrap final : public Bootstrap {
 public:
  MemoryBootstrap(Meeting& meeting, int rank) : meeting_(meeting), rank_(rank) {}

  Result<std::unique_ptr<Bootstrap>> derive(std::span<const int>, uint64_t,
                                            std::shared_ptr<const Knobs>, NewsCallback,
                                            const std::atomic<bool>*) override {
    return error(Code::kInternal, "not part of this double");
  }
  int rank() const override { return rank_; }
  int nranks() const override { return meeting_.nranks(); }
  std::span<const unsigned char, 32> secret() const override { return meeting_.shared_->secret; }
  std::string where(int) const override { return "here"; }
  Status all_gather(void* data, size_t bytes_each, const std::atomic<bool>*, SetupCall) override {
    auto* blocks = static_cast<std::byte*>(data);
    const size_t mine = static_cast<size_t>(rank_) * bytes_each;
    const size_t total = static_cast<size_t>(nranks()) * bytes_each;
    if (total > kMostBytes) return error(Code::kInternal, "too much for this double");
    std::memcpy(meeting_.shared_->blocks + mine, blocks + mine, bytes_each);
    COMM_TRY(barrier());
    std::memcpy(blocks, meeting_.shared_->blocks, total);
    return barrier();
  }
  Result<std::vector<std::string>> all_gather_text(const std::string&) override {
    return error(Code::kInternal, "not part of this double");
  }
  Status barrier() override {
    Meeting::Shared& shared = *meeting_.shared_;
    const uint32_t phase = shared.phase.load(std::memory_order_acquire);
    if (shared.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 ==
        static_cast<uint32_t>(nranks())) {
      shared.arrived.store(0, std::memory_order_relaxed);
      shared.phase.store(phase + 1, std::memory_order_release);
      return {};
    }
    const Deadline deadline = Deadline::after(kPatience);
    while (shared.phase.load(std::memory_order_acquire) == phase) {
      if (deadline.passed()) return error(Code::kSystem, "a rank did not come to the barrier");
      ::sched_yield();
    }
    return {};
  }
  Result<UniqueFd> connect(int, Purpose, uint32_t) override {
    return error(Code::kInternal, "not part of this double");
  }
  Result<UniqueFd> try_accept(int, Purpose, uint32_t) override {
    return error(Code::kInternal, "not part of this double");
  }
  void watch_process(int, int64_t) override {}
  void raise(News, const Status&) override {}
  void leave() override {}
  int sockets() const override { return 0; }
  int threads() const override { return 0; }

 private:
  Meeting& meeting_;
  const int rank_;
};

Meeting::Meeting(int nranks) : nranks_(nranks) {
  void* memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  shared_ = static_cast<Shared*>(memory);
  for (size_t i = 0; i < sizeof shared_->secret; ++i)
    shared_->secret[i] = static_cast<unsigned char>(::getpid() + static_cast<int>(i));
}

Meeting::~Meeting() { ::munmap(shared_, sizeof(Shared)); }

std::unique_ptr<Bootstrap> Meeting::join(int rank) {
  return std::make_unique<MemoryBootstrap>(*this, rank);
}

namespace {

std::string run_rank(Meeting& meeting, int rank, const RankBody& body, const RankOptions& options) {
  options.before(rank);
  Result<std::shared_ptr<const Knobs>> knobs = Knobs::load();
  RANK_OK(knobs.status());
  if (options.buffsize != 0) {
    std::string differing;
    knobs = (*knobs)->with_agreed(fmt::format("BUFFSIZE={}\n", options.buffsize), &differing);
    RANK_OK(knobs.status());
  }
  const std::unique_ptr<Bootstrap> bootstrap = meeting.join(rank);
  Rank self{.rank = rank, .bootstrap = bootstrap.get(), .facts = {}, .group = {}};
  self.facts.resize(static_cast<size_t>(meeting.nranks()));
  PeerFacts& mine = self.facts[static_cast<size_t>(rank)];
  mine = gather_facts(rank, **knobs);
  options.change_facts(mine);
  RANK_OK(bootstrap->all_gather(self.facts.data(), sizeof(PeerFacts)));
  Result<ShmGroup> group =
      (*knobs)->get_bool(Knob::kShmDisable)
          ? make_shm_group(*bootstrap, self.facts, *knobs)
          : shm::build_group(*bootstrap, self.facts, **knobs, options.group(rank));
  RANK_OK(group.status());
  self.group = *std::move(group);
  return body(self);
}

}  // namespace

void run_threads(int nranks, const RankBody& body, const RankOptions& options) {
  Meeting meeting(nranks);
  std::vector<std::string> texts(static_cast<size_t>(nranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < nranks; ++rank)
    threads.emplace_back(
        [&, rank] { texts[static_cast<size_t>(rank)] = run_rank(meeting, rank, body, options); });
  for (std::thread& thread : threads) thread.join();
  for (int rank = 0; rank < nranks; ++rank)
    EXPECT_EQ(texts[static_cast<size_t>(rank)], "") << "on rank " << rank;
}

void run_processes(int nranks, const RankBody& body, const RankOptions& options,
                   const std::vector<int>& may_die) {
  Meeting meeting(nranks);
  std::vector<pid_t> children;
  for (int rank = 0; rank < nranks; ++rank) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const std::string text = run_rank(meeting, rank, body, options);
      if (!text.empty()) fmt::print(stderr, "rank {}: {}\n", rank, text);
      std::fflush(nullptr);
      ::_exit(text.empty() ? 0 : 1);
    }
    children.push_back(child);
  }
  for (int rank = 0; rank < nranks; ++rank) {
    int status = 0;
    ASSERT_EQ(::waitpid(children[static_cast<size_t>(rank)], &status, 0),
              children[static_cast<size_t>(rank)]);
    const bool died =
        WIFSIGNALED(status) && std::find(may_die.begin(), may_die.end(), rank) != may_die.end();
    EXPECT_TRUE(died || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
        << "rank " << rank << " ended with wait status " << status;
  }
}

std::string send_all(SendChannel& channel, const Signature& signature, const void* data,
                     size_t bytes) {
  const Deadline deadline = Deadline::after(kPatience);
  std::byte* slot = nullptr;
  while (true) {
    RANK_OK(channel.reserve(&slot));
    if (slot != nullptr) break;
    RANK_CHECK(!deadline.passed());
    ::sched_yield();
  }
  if (bytes != 0) std::memcpy(slot, data, bytes);
  RANK_OK(channel.commit(signature, bytes));
  return {};
}

std::string receive_one(RecvChannel& channel, std::vector<std::byte>* data, Signature* signature) {
  const Deadline deadline = Deadline::after(kPatience);
  Segment segment;
  while (true) {
    RANK_OK(channel.peek(&segment));
    if (segment.ready) break;
    RANK_CHECK(!deadline.passed());
    ::sched_yield();
  }
  data->assign(segment.data, segment.data + segment.bytes);
  *signature = segment.signature;
  RANK_OK(channel.release());
  return {};
}

}  // namespace libcomm::testing
