// How `comm-check rdma` learns which priorities are lossless: by what the kernel answers to a DCB
// question, here from answers that a test makes and from a device whose driver knows no DCB.
#include "tools/rdma/pfc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/dcbnl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "tools/rdma/fabric.h"

namespace libcomm {
namespace {

using testing::Contains;
using testing::HasSubstr;

using Answer = std::vector<std::byte>;

Answer attribute(int type, const Answer& payload) {
  nlattr head{};
  head.nla_len = static_cast<uint16_t>(NLA_HDRLEN + payload.size());
  head.nla_type = static_cast<uint16_t>(type);
  Answer all(NLA_HDRLEN + NLA_ALIGN(payload.size()));
  std::memcpy(all.data(), &head, sizeof head);
  if (!payload.empty()) std::memcpy(all.data() + NLA_HDRLEN, payload.data(), payload.size());
  return all;
}

Answer operator+(Answer a, const Answer& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Answer bytes_of(const char* text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text);
  return {begin, begin + std::strlen(text) + 1};
}

Answer pfc(uint8_t lossless) {
  ieee_pfc state{};
  state.pfc_cap = 8;
  state.pfc_en = lossless;
  const auto* begin = reinterpret_cast<const std::byte*>(&state);
  return attribute(DCB_ATTR_IEEE_PFC, {begin, begin + sizeof state});
}

Answer answer(const Answer& attributes, uint16_t type = RTM_GETDCB) {
  nlmsghdr head{};
  head.nlmsg_type = type;
  head.nlmsg_len = static_cast<uint32_t>(sizeof head + sizeof(dcbmsg) + attributes.size());
  Answer all(sizeof head + sizeof(dcbmsg));
  std::memcpy(all.data(), &head, sizeof head);
  return all + attributes;
}

Answer of_driver(const Answer& ieee) {
  return answer(attribute(DCB_ATTR_IFNAME, bytes_of("eth0")) +
                attribute(DCB_ATTR_IEEE | NLA_F_NESTED, ieee));
}

TEST(Pfc, TheAnswersPrioritiesAreRead) {
  const Answer ets = attribute(DCB_ATTR_IEEE_ETS, Answer(sizeof(ieee_ets)));
  EXPECT_EQ(read_pfc_answer(of_driver(ets + pfc(1 << 3))), uint8_t{1 << 3});
  EXPECT_EQ(read_pfc_answer(of_driver(pfc(0))), uint8_t{0});
}

TEST(Pfc, IsUnknownWhenTheDriverDoesNotSay) {
  EXPECT_EQ(read_pfc_answer(of_driver({})), std::nullopt);
  EXPECT_EQ(read_pfc_answer(answer(attribute(DCB_ATTR_IFNAME, bytes_of("eth0")))), std::nullopt);
  EXPECT_EQ(read_pfc_answer(answer(Answer(16), NLMSG_ERROR)), std::nullopt);
}

TEST(Pfc, AnswersThatAreCutOffOrDamagedSayNothing) {
  const Answer whole = of_driver(pfc(0xff));
  for (size_t bytes = 0; bytes < whole.size(); ++bytes)
    EXPECT_EQ(read_pfc_answer(std::span(whole).first(bytes)), std::nullopt) << bytes;
  Answer damaged = whole;
  for (size_t at = sizeof(nlmsghdr) + sizeof(dcbmsg); at + 1 < damaged.size(); at += 4) {
    std::memset(damaged.data() + at, 0xff, 2);  // a length beyond the end, when it is one
    (void)read_pfc_answer(damaged);
    damaged = whole;
  }
}

TEST(Pfc, TheQuestionNamesTheDevice) {
  const std::vector<std::byte> question = pfc_question("eth0");
  const std::string text(reinterpret_cast<const char*>(question.data()), question.size());
  EXPECT_THAT(text, HasSubstr(std::string("eth0\0", 5)));
  nlmsghdr head;
  std::memcpy(&head, question.data(), sizeof head);
  EXPECT_EQ(head.nlmsg_len, question.size());
  EXPECT_EQ(head.nlmsg_type, RTM_GETDCB);
}

TEST(Pfc, IsToldInWords) {
  FabricReadings readings;
  EXPECT_THAT(explain_fabric(readings, "eth0").seen,
              Contains("PFC: unknown, the driver does not say"));
  readings.lossless = uint8_t{0};
  EXPECT_THAT(explain_fabric(readings, "eth0").seen, Contains("PFC: off, no priority is lossless"));
  readings.lossless = uint8_t{1 << 3};
  EXPECT_THAT(explain_fabric(readings, "eth0").seen,
              Contains(HasSubstr("PFC: on, priority 3 is lossless")));
  readings.lossless = uint8_t{1 << 3 | 1 << 4};
  EXPECT_THAT(explain_fabric(readings, "eth0").seen,
              Contains(HasSubstr("PFC: on, priorities 3, 4 are lossless")));
}

TEST(Pfc, OfWhatIsNoDeviceIsUnknown) {
  EXPECT_EQ(lossless_priorities(""), std::nullopt);
  EXPECT_EQ(lossless_priorities("no-such-device"), std::nullopt);
  EXPECT_EQ(lossless_priorities(std::string(100, 'x')), std::nullopt);
}

// In a network of the child's own. The kernel answers, with an error.
TEST(Pfc, OfAVirtualCableIsUnknown) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if ((::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) ||
        std::system("ip link add v0 type veth peer name v1") != 0)
      ::_exit(2);
    ::_exit(lossless_priorities("v0").has_value() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "needs user namespaces and `ip` with veth";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace libcomm
