#include "src/bootstrap/inquiry.h"

#include <algorithm>
#include <cerrno>

namespace libcomm {
namespace {

// A round trip takes milliseconds, and a lost packet is sent again after 0.2 s.
constexpr Seconds kPatience{1};
// How soon after one inquiry there is no other: one question reaches a rank by many ways.
constexpr Seconds kRest{5};

}  // namespace

bool Inquiry::open() {
  const auto now = Clock::now();
  const bool is_first = opened_ == Clock::time_point();
  if (open_ || (!is_first && now - opened_ < kRest)) return false;
  open_ = true;
  opened_ = now;
  until_ = Deadline::after(kPatience);
  questions_.clear();
  silent_.clear();
  answering_.clear();
  return true;
}

void Inquiry::forget(int fd) {
  std::erase_if(questions_, [fd](const Question& question) { return question.fd == fd; });
}

void Inquiry::close(const std::function<uint64_t(int fd)>& acknowledged) {
  open_ = false;
  for (const Question& question : questions_)
    (acknowledged(question.fd) < question.end ? silent_ : answering_).insert(question.peer);
  for (const int peer : silent_) answering_.erase(peer);
  questions_.clear();
}

bool says_unreachable(int problem) {
  constexpr int kProblems[] = {ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, ENETDOWN};
  return std::find(std::begin(kProblems), std::end(kProblems), problem) != std::end(kProblems);
}

Status unreachable(const Inquiry& inquiry, int rank, const std::vector<Peer>& peers) {
  const auto peer = [&](int index) -> const Peer& { return peers[static_cast<size_t>(index)]; };
  const int first = *inquiry.silent().begin();
  const auto is_elsewhere = [&](int index) { return !peer(index).is_beside(peer(rank)); };
  const auto is_at_another = [&](int index) { return !peer(index).is_beside(peer(first)); };
  const auto& silent = inquiry.silent();
  const auto& answering = inquiry.answering();
  // The ways to two hosts that fail at once have this end in common.
  const bool several = std::any_of(silent.begin(), silent.end(), is_at_another);
  const bool is_alone = several && std::none_of(answering.begin(), answering.end(), is_elsewhere);
  return error(Code::kRemote, "the host of rank {} ({}) does not answer any more{}: {}", first,
               peer(first).to_string(), several ? ", nor do others" : "",
               is_alone ? "no other host answers this rank, so look at the network interface of "
                          "its own host first"
                        : "check its power, its network interface and the route to it")
      .at_rank(rank)
      .with_peer(first);
}

}  // namespace libcomm
