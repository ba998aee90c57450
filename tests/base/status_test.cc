// Status and Result: attribution stays with the first to know, copies are independent, and the
// macros return early.
#include "src/base/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <thread>
#include <vector>

namespace libcomm {
namespace {

TEST(Status, IsOkByDefaultAndSaysSo) {
  const Status status;
  EXPECT_TRUE(status.is_ok());
  EXPECT_EQ(status.code(), Code::kOk);
  EXPECT_EQ(status.message(), "");
  EXPECT_EQ(status.to_string(), "success");
  EXPECT_EQ(status.rank(), -1);
}

TEST(Status, MadeWithTheOkCodeIsOkWhateverItsText) {
  EXPECT_TRUE(Status(Code::kOk, "ignored").is_ok());
}

TEST(Status, PrintsTheAttributionThatIsKnown) {
  EXPECT_EQ(error(Code::kRemote, "gone").with_peer(5).to_string(), "peer 5: gone");
  EXPECT_EQ(error(Code::kRemote, "gone").at_rank(3).with_peer(5).in_op(17).to_string(),
            "rank 3: operation 17: peer 5: gone");
}

TEST(Status, KeepsTheAttributionSetClosestToTheCause) {
  const Status status =
      error(Code::kRemote, "gone").with_peer(5).with_peer(6).at_rank(0).at_rank(9);
  EXPECT_EQ(status.peer(), 5);
  EXPECT_EQ(status.rank(), 0);
}

TEST(Status, AttributionDoesNotTurnSuccessIntoFailure) {
  EXPECT_TRUE(Status().at_rank(1).with_peer(2).in_op(3).context("while testing").is_ok());
}

TEST(Status, ContextGoesInFront) {
  EXPECT_EQ(error(Code::kSystem, "refused").context("eth0").context("connect").message(),
            "connect: eth0: refused");
}

TEST(Status, AChangedCopyLeavesTheOriginalAlone) {
  const Status original = error(Code::kSystem, "refused");
  Status copy = original;
  const Status changed = std::move(copy).context("connect").at_rank(4);
  EXPECT_EQ(original.message(), "refused");
  EXPECT_EQ(original.rank(), -1);
  EXPECT_EQ(changed.message(), "connect: refused");
}

TEST(Status, CopiesMayBeChangedByManyThreadsAtOnce) {
  const Status shared = error(Code::kRemote, "rank 2 died");
  std::vector<std::thread> threads;
  std::vector<std::string> texts(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i, copy = shared]() mutable {
      texts[static_cast<size_t>(i)] = std::move(copy).at_rank(i).to_string();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(texts[0], "rank 0: rank 2 died");
  EXPECT_EQ(texts[3], "rank 3: rank 2 died");
  EXPECT_EQ(shared.to_string(), "rank 2 died");
}

TEST(Status, SystemErrorsEndWithTheSystemsWords) {
  const Status status = system_error(EACCES, "open /etc/shadow");
  EXPECT_EQ(status.code(), Code::kSystem);
  EXPECT_EQ(status.message(), "open /etc/shadow: Permission denied");
}

Result<int> half(int value) {
  if (value % 2 != 0) return error(Code::kInvalidArgument, "{} is odd", value);
  return value / 2;
}

Result<int> quarter(int value) {
  COMM_ASSIGN(const int once, half(value));
  COMM_ASSIGN(const int twice, half(once));
  return twice;
}

Status must_divide(int value) {
  COMM_TRY(quarter(value).status());
  return Status::ok();
}

TEST(Result, CarriesTheValueOrTheReason) {
  EXPECT_EQ(*quarter(12), 3);
  EXPECT_EQ(quarter(6).status().message(), "3 is odd");
  EXPECT_TRUE(must_divide(8).is_ok());
  EXPECT_EQ(must_divide(7).code(), Code::kInvalidArgument);
}

TEST(Result, MovesValuesThatCannotBeCopied) {
  auto make = []() -> Result<std::unique_ptr<int>> { return std::make_unique<int>(7); };
  auto forward = [&]() -> Result<std::unique_ptr<int>> {
    COMM_ASSIGN(auto pointer, make());
    *pointer += 1;
    return pointer;
  };
  EXPECT_EQ(**forward(), 8);
}

TEST(Result, OfAnOkStatusIsAnInternalErrorRatherThanAMissingValue) {
  const Result<int> result = Status::ok();
  EXPECT_FALSE(result.is_ok());
  EXPECT_EQ(result.status().code(), Code::kInternal);
}

}  // namespace
}  // namespace libcomm
