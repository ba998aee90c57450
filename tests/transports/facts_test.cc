// What a rank finds out about its process and host.
#include "transports/facts.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

namespace libcomm {
namespace {

std::shared_ptr<const Knobs> knobs_with_host(const char* hostid) {
  ::setenv("COMM_HOSTID", hostid, 1);
  auto knobs = Knobs::load();
  ::unsetenv("COMM_HOSTID");
  EXPECT_TRUE(knobs.is_ok()) << knobs.status().to_string();
  return *knobs;
}

// gather_facts in a forked child, by a pipe.
PeerFacts facts_of_a_child(const Knobs& knobs) {
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const PeerFacts facts = gather_facts(1, knobs);
    ::_exit(::write(ends[1], &facts, sizeof facts) == sizeof facts ? 0 : 1);
  }
  PeerFacts facts;
  EXPECT_EQ(::read(ends[0], &facts, sizeof facts), static_cast<ssize_t>(sizeof facts));
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ::close(ends[0]);
  ::close(ends[1]);
  return facts;
}

TEST(Facts, TellThreadsOfOneProcessFromAForkedChild) {
  const auto knobs = knobs_with_host("");
  const PeerFacts here = gather_facts(0, *knobs);
  PeerFacts thread;
  std::thread([&] { thread = gather_facts(1, *knobs); }).join();
  const PeerFacts child = facts_of_a_child(*knobs);

  EXPECT_TRUE(same_process(here, thread));
  EXPECT_FALSE(same_process(here, child));
  EXPECT_TRUE(perhaps_same_host(here, child));
  EXPECT_EQ(here.pid, ::getpid());
  EXPECT_NE(child.pid, here.pid);
  EXPECT_EQ(child.pid_namespace, here.pid_namespace);
  EXPECT_EQ(child.net_namespace, here.net_namespace);
  EXPECT_EQ(here.uid, ::geteuid());
  EXPECT_EQ(here.rank, 0);
  EXPECT_EQ(thread.rank, 1);
}

TEST(Facts, PutDifferentHostIdsOnDifferentHosts) {
  const PeerFacts a = gather_facts(0, *knobs_with_host("a"));
  const PeerFacts also_a = gather_facts(1, *knobs_with_host("a"));
  const PeerFacts b = gather_facts(2, *knobs_with_host("b"));
  const PeerFacts none = gather_facts(3, *knobs_with_host(""));
  EXPECT_TRUE(perhaps_same_host(a, also_a));
  EXPECT_FALSE(perhaps_same_host(a, b));
  EXPECT_FALSE(perhaps_same_host(a, none));
}

TEST(Facts, NameTheCoreOnlyWhenItIsTheOnlyOne) {
  const auto knobs = knobs_with_host("");
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(gather_facts(0, *knobs).core, first);
  }).join();
  if (CPU_COUNT(&before) == 1) GTEST_SKIP() << "this process may use one core only";
  EXPECT_EQ(gather_facts(0, *knobs).core, -1);
}

}  // namespace
}  // namespace libcomm
