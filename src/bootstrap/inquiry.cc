#include "src/bootstrap/inquiry.h"

#include <algorithm>
#include <cerrno>

#include "src/bootstrap/socket.h"

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
  somebody_answers_ = false;
  return true;
}

void Inquiry::forget(int fd) {
  std::erase_if(questions_, [fd](const Question& question) { return question.fd == fd; });
}

void Inquiry::close() {
  open_ = false;
  for (const Question& question : questions_) {
    if (!is_acknowledged(question.fd))
      silent_.insert(question.peer);
    else if (question.is_elsewhere)
      somebody_answers_ = true;
  }
  questions_.clear();
}

bool says_unreachable(int problem) {
  constexpr int kProblems[] = {ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, ENETDOWN};
  return std::find(std::begin(kProblems), std::end(kProblems), problem) != std::end(kProblems);
}

Status unreachable(const Inquiry& inquiry, int rank, const std::string& who) {
  const std::set<int>& silent = inquiry.silent();
  const int first = *silent.begin();
  const std::string also = silent.size() == 1
                               ? ""
                               : fmt::format(" (nor does that of {} other rank{})",
                                             silent.size() - 1, silent.size() == 2 ? "" : "s");
  // Two ways that fail at once have this end in common.
  const char* const check = silent.size() > 1 && !inquiry.somebody_answers()
                                ? "no other host answers this rank, so look at the network "
                                  "interface of its own host first"
                                : "check its power, its network interface and the route to it";
  return error(Code::kRemote, "the host of rank {} ({}) does not answer any more{}: {}", first, who,
               also, check)
      .at_rank(rank)
      .with_peer(first);
}

}  // namespace libcomm
