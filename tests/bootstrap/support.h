// Groups of ranks for the bootstrap's tests: as threads of one process, with what each was told.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "src/bootstrap/bootstrap.h"

namespace libcomm::testing {

// Knobs from a list of NAME=value pairs (without COMM_), set in the environment while they are
// read.
inline std::shared_ptr<const Knobs> knobs_with(
    const std::vector<std::pair<std::string, std::string>>& settings) {
  static std::mutex environment;
  std::lock_guard lock(environment);
  for (const auto& [name, value] : settings) ::setenv(("COMM_" + name).c_str(), value.c_str(), 1);
  auto knobs = Knobs::load();
  for (const auto& [name, value] : settings) ::unsetenv(("COMM_" + name).c_str());
  if (!knobs) {
    fprintf(stderr, "knobs: %s\n", knobs.status().message().c_str());
    std::abort();
  }
  return *knobs;
}

// What a rank's callback was told; outlives the rank.
class NewsLog {
 public:
  NewsCallback callback() {
    return [this](News news, const Status& reason) {
      std::lock_guard lock(mutex_);
      heard_.emplace_back(news, reason);
      changed_.notify_all();
    };
  }
  // The first news of a kind; waits for it at most `seconds`. OK when none came.
  Status await(News kind, double seconds = 60) {
    std::unique_lock lock(mutex_);
    Status found;
    changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] {
      for (const auto& [news, reason] : heard_)
        if (news == kind) {
          found = reason;
          return true;
        }
      return false;
    });
    return found;
  }
  size_t count() const {
    std::lock_guard lock(mutex_);
    return heard_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<News, Status>> heard_;
};

// Runs body(rank) on a thread per rank and waits for all.
inline void run_ranks(int nranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < nranks; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
}

// A joined group, ranks as threads.
struct ThreadGroup {
  std::vector<std::unique_ptr<Bootstrap>> ranks;
  std::vector<std::unique_ptr<NewsLog>> news;
  std::vector<Status> failures;

  ThreadGroup(int nranks, std::shared_ptr<const Knobs> knobs, size_t ids = 1)
      : ranks(static_cast<size_t>(nranks)), failures(static_cast<size_t>(nranks)) {
    Rendezvous rendezvous;
    for (size_t i = 0; i < ids; ++i) {
      auto id = make_unique_id(*knobs);
      if (!id) {
        failures.assign(failures.size(), id.status());
        return;
      }
      rendezvous.ids.push_back(*id);
    }
    for (int rank = 0; rank < nranks; ++rank) news.push_back(std::make_unique<NewsLog>());
    run_ranks(nranks, [&](int rank) {
      const auto at = static_cast<size_t>(rank);
      auto joined = Bootstrap::join(rendezvous, rank, nranks, knobs, news[at]->callback());
      if (joined)
        ranks[at] = *std::move(joined);
      else
        failures[at] = joined.status();
    });
  }
  ~ThreadGroup() { ranks.clear(); }

  Bootstrap& operator[](int rank) { return *ranks[static_cast<size_t>(rank)]; }
  // The first failure to join.
  Status joined() const {
    for (const Status& status : failures)
      if (!status) return status;
    return Status::ok();
  }
};

#define ASSERT_OK(expression)                                              \
  do {                                                                     \
    const ::libcomm::Status assert_ok_status = (expression);               \
    ASSERT_TRUE(assert_ok_status.is_ok()) << assert_ok_status.to_string(); \
  } while (false)
#define EXPECT_OK(expression)                                              \
  do {                                                                     \
    const ::libcomm::Status expect_ok_status = (expression);               \
    EXPECT_TRUE(expect_ok_status.is_ok()) << expect_ok_status.to_string(); \
  } while (false)

}  // namespace libcomm::testing
