// A Bootstrap for tests of transports: ranks of one process, joined by a shared table.
//
// connect() makes a real TCP connection over 127.0.0.1 and puts its other end where the peer's
// try_accept finds it. Small exchanges meet at a rendezvous in memory. There is no monitor thread
// and no news.
#pragma once

#include <array>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "src/bootstrap/bootstrap.h"

namespace libcomm::test {

class LoopbackHub {
 public:
  explicit LoopbackHub(int nranks) : nranks_(nranks) {}
  int nranks() const { return nranks_; }

  Result<UniqueFd> connect(int from, int to, Purpose purpose, uint32_t index);
  UniqueFd take(int from, int to, Purpose purpose, uint32_t index);
  // Every rank's text, once all have come.
  std::vector<std::string> exchange(int rank, const std::string& mine);

 private:
  using Key = std::tuple<int, int, uint32_t, uint32_t>;
  const int nranks_;
  std::mutex mutex_;
  std::condition_variable all_came_;
  std::map<Key, UniqueFd> arrived_;
  std::vector<std::string> texts_, result_;
  int came_ = 0;
  uint64_t round_ = 0;
};

class LoopbackBootstrap final : public Bootstrap {
 public:
  LoopbackBootstrap(std::shared_ptr<LoopbackHub> hub, int rank)
      : hub_(std::move(hub)), rank_(rank) {}

  Result<std::unique_ptr<Bootstrap>> derive(std::span<const int>, uint64_t,
                                            std::shared_ptr<const Knobs>, NewsCallback,
                                            const std::atomic<bool>*) override {
    return error(Code::kInternal, "the loopback bootstrap has no derived groups");
  }
  int rank() const override { return rank_; }
  int nranks() const override { return hub_->nranks(); }
  std::span<const unsigned char, 32> secret() const override { return secret_; }
  std::string where(int) const override { return "127.0.0.1"; }
  Status all_gather(void* data, size_t bytes_each, const std::atomic<bool>*, SetupCall) override;
  Result<std::vector<std::string>> all_gather_text(const std::string& mine) override {
    return hub_->exchange(rank_, mine);
  }
  Status barrier() override {
    (void)hub_->exchange(rank_, "");
    return Status::ok();
  }
  Result<UniqueFd> connect(int peer, Purpose purpose, uint32_t index) override {
    return hub_->connect(rank_, peer, purpose, index);
  }
  Result<UniqueFd> try_accept(int peer, Purpose purpose, uint32_t index) override {
    return hub_->take(peer, rank_, purpose, index);
  }
  void watch_process(int, int64_t) override {}
  void raise(News, const Status&) override {}
  void leave() override {}
  int sockets() const override { return 0; }
  int threads() const override { return 0; }

 private:
  const std::shared_ptr<LoopbackHub> hub_;
  const int rank_;
  const std::array<unsigned char, 32> secret_{};
};

}  // namespace libcomm::test
