// How rank 0's tuning table travels to the other ranks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/communicator/tuning.h"

namespace libcomm::test {
namespace {

using testing::HasSubstr;

const std::string kText =
    "libcomm tuning table 1: a machine\n\nallreduce, 0, *, *, *, *, ring, *, *, *\n";

TEST(SharedTable, KeepsItsSourceAndLines) {
  const auto table = read_shared_table(write_shared_table(TableText{"FILE", kText}), 1);
  ASSERT_TRUE(table.is_ok()) << table.status().message();
  ASSERT_EQ(table->rows().size(), 1U);
  EXPECT_EQ(table->place_of(table->rows()[0]), "FILE, line 3");
}

TEST(SharedTable, CarriesTheReasonWhyThereIsNone) {
  const auto table =
      read_shared_table(write_shared_table(error(Code::kSystem, "no plug-in today")), 1);
  ASSERT_FALSE(table.is_ok());
  EXPECT_EQ(table.status().code(), Code::kSystem);
  EXPECT_EQ(table.status().message(), "rank 0: no plug-in today");
}

TEST(SharedTable, AnyOtherBytesAreRefused) {
  for (const std::string bytes : {"", "+", "-", "-0fine", "-zwhy", "+FILE", "x\n", "*FILE\n"}) {
    const auto table = read_shared_table(bytes, 3);
    ASSERT_FALSE(table.is_ok()) << bytes;
    EXPECT_THAT(table.status().message(), HasSubstr("rank 3: rank 0's tuning table")) << bytes;
  }
  EXPECT_FALSE(read_shared_table("+FILE\nallreduce", 1).is_ok());
}

}  // namespace
}  // namespace libcomm::test
