// UniqueFd: closes itself once, here and in forked children, and never a descriptor that is not its
// own.
#include "src/base/fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <utility>

#include "tests/base/child.h"

namespace libcomm {
namespace {

using test::in_child;

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }
UniqueFd open_null() { return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)); }

TEST(Fd, ClosesItselfWhenItGoesOutOfScope) {
  int number = -1;
  {
    const UniqueFd fd = open_null();
    number = fd.get();
    ASSERT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
}

TEST(Fd, MovesOwnershipAndClosesWhatItReplaces) {
  UniqueFd a = open_null();
  UniqueFd b = open_null();
  const int first = a.get(), second = b.get();
  a = std::move(b);
  EXPECT_FALSE(is_open(first));
  EXPECT_EQ(a.get(), second);
  EXPECT_FALSE(b.valid());  // NOLINT: looking at the moved-from value is the point
  UniqueFd c(std::move(a));
  EXPECT_EQ(c.get(), second);
  EXPECT_TRUE(is_open(second));
}

TEST(Fd, ReleaseGivesTheDescriptorUpUnclosed) {
  UniqueFd fd = open_null();
  const int number = fd.release();
  fd.reset();
  EXPECT_TRUE(is_open(number));
  ::close(number);
}

TEST(Fd, ReleasedDescriptorsStayOpenInAForkedChild) {
  UniqueFd fd = open_null();
  const int number = fd.release();
  EXPECT_EQ(in_child([&] { return is_open(number) ? 0 : 1; }), 0);
  ::close(number);
}

TEST(Fd, ClosesItselfInAForkedChildAndStaysOpenInTheParent) {
  const UniqueFd fd = open_null();
  EXPECT_EQ(in_child([&] { return is_open(fd.get()) ? 1 : 0; }), 0);
  EXPECT_TRUE(is_open(fd.get()));
}

TEST(Fd, AParentsDeadSocketIsNoticedAlthoughASleepingChildLivesOn) {
  int pair[2];
  ASSERT_EQ(::pipe2(pair, O_NONBLOCK), 0);
  const UniqueFd reader(pair[0]);
  UniqueFd writer(pair[1]);
  // The child tells over a descriptor of its own that it runs, and then just stays.
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    (void)!::write(ready[1], "x", 1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  writer.reset();
  EXPECT_EQ(::read(reader.get(), &byte, 1), 0) << "the child must not hold the writing end";
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(Fd, AnObjectOfTheParentNeverClosesTheChildsDescriptorOfTheSameNumber) {
  UniqueFd inherited = open_null();
  EXPECT_EQ(in_child([&] {
              const int number = inherited.get();
              const UniqueFd own(::dup2(STDERR_FILENO, number));
              inherited.reset();
              return is_open(number) ? 0 : 1;
            }),
            0);
}

TEST(Fd, TheForkGenerationGrowsInChildrenOnly) {
  const unsigned before = fork_generation();
  EXPECT_EQ(in_child([&] {
              const unsigned child = fork_generation();
              const int grandchild =
                  in_child([&] { return fork_generation() == child + 1 ? 0 : 1; });
              return child == before + 1 && grandchild == 0 ? 0 : 1;
            }),
            0);
  EXPECT_EQ(fork_generation(), before);
}

}  // namespace
}  // namespace libcomm
