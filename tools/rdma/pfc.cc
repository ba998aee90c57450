#include "tools/rdma/pfc.h"

#include <linux/dcbnl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cstring>

#include "src/base/fd.h"

namespace libcomm {
namespace {

constexpr size_t kPrefix = NLMSG_ALIGN(sizeof(nlmsghdr)) + NLMSG_ALIGN(sizeof(dcbmsg));

// The payload of the first attribute of this type; empty: there is none.
std::span<const std::byte> attribute(std::span<const std::byte> all, int type) {
  while (all.size() >= sizeof(nlattr)) {
    nlattr head;
    std::memcpy(&head, all.data(), sizeof head);
    if (head.nla_len < NLA_HDRLEN || head.nla_len > all.size()) return {};
    if ((head.nla_type & NLA_TYPE_MASK) == type)
      return all.subspan(NLA_HDRLEN, head.nla_len - NLA_HDRLEN);
    all = all.subspan(std::min<size_t>(NLA_ALIGN(head.nla_len), all.size()));
  }
  return {};
}

}  // namespace

std::vector<std::byte> pfc_question(const std::string& interface) {
  const size_t name = interface.size() + 1;
  std::vector<std::byte> question(kPrefix + NLA_HDRLEN + NLA_ALIGN(name));
  nlmsghdr head{};
  head.nlmsg_len = static_cast<uint32_t>(question.size());
  head.nlmsg_type = RTM_GETDCB;
  head.nlmsg_flags = NLM_F_REQUEST;
  dcbmsg what{};
  what.dcb_family = AF_UNSPEC;
  what.cmd = DCB_CMD_IEEE_GET;
  nlattr which{};
  which.nla_len = static_cast<uint16_t>(NLA_HDRLEN + name);
  which.nla_type = DCB_ATTR_IFNAME;
  std::memcpy(question.data(), &head, sizeof head);
  std::memcpy(question.data() + NLMSG_ALIGN(sizeof head), &what, sizeof what);
  std::memcpy(question.data() + kPrefix, &which, sizeof which);
  std::memcpy(question.data() + kPrefix + NLA_HDRLEN, interface.c_str(), name);
  return question;
}

std::optional<uint8_t> read_pfc_answer(std::span<const std::byte> answer) {
  nlmsghdr head;
  if (answer.size() < kPrefix) return std::nullopt;
  std::memcpy(&head, answer.data(), sizeof head);
  if (head.nlmsg_type != RTM_GETDCB || head.nlmsg_len < kPrefix || head.nlmsg_len > answer.size())
    return std::nullopt;  // NLMSG_ERROR: the driver knows no DCB
  const auto ieee = attribute(answer.first(head.nlmsg_len).subspan(kPrefix), DCB_ATTR_IEEE);
  const auto pfc = attribute(ieee, DCB_ATTR_IEEE_PFC);
  ieee_pfc state;
  if (pfc.size() < sizeof state) return std::nullopt;
  std::memcpy(&state, pfc.data(), sizeof state);
  return state.pfc_en;
}

std::optional<uint8_t> lossless_priorities(const std::string& interface) {
  if (interface.empty() || interface.size() >= IFNAMSIZ) return std::nullopt;
  const UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!fd) return std::nullopt;
  const timeval patience{1, 0};
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const std::vector<std::byte> question = pfc_question(interface);
  if (::send(fd.get(), question.data(), question.size(), 0) < 0) return std::nullopt;
  std::vector<std::byte> answer(size_t{1} << 15);
  const ssize_t got = ::recv(fd.get(), answer.data(), answer.size(), 0);
  if (got < 0) return std::nullopt;
  return read_pfc_answer(std::span(answer).first(static_cast<size_t>(got)));
}

}  // namespace libcomm
