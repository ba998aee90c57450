#include "src/bootstrap/inquiry.h"

#include <algorithm>
#include <cerrno>

#include "src/base/fd.h"
#include "src/bootstrap/address.h"

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

bool has_own_address(int fd) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  auto* const address = reinterpret_cast<sockaddr*>(&storage);
  if (::getsockname(fd, address, &length) != 0) return true;
  const SocketAddress own = SocketAddress::from(address).with_port(0);
  if (!own.valid()) return true;
  const UniqueFd probe(::socket(own.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  length = own.to_sockaddr(&storage);
  return !probe || ::bind(probe.get(), address, length) == 0 || errno != EADDRNOTAVAIL;
}

Status unreachable(const Inquiry& inquiry, int rank, const std::vector<Peer>& peers) {
  const auto peer = [&](int index) -> const Peer& { return peers[static_cast<size_t>(index)]; };
  const auto is_elsewhere = [&](int index) { return !peer(index).is_beside(peer(rank)); };
  const auto& silent = inquiry.silent();
  const auto& answering = inquiry.answering();
  const auto other = std::find_if(silent.begin(), silent.end(), is_elsewhere);
  const int first = other == silent.end() ? *silent.begin() : *other;
  if (other == silent.end())
    return error(Code::kRemote,
                 "rank {} ({}) does not answer any more, though it is on this host: look at the "
                 "network interface that has this address",
                 first, peer(first).to_string())
        .at_rank(rank)
        .with_peer(first);
  const auto is_at_another = [&](int index) { return !peer(index).is_beside(peer(first)); };
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
