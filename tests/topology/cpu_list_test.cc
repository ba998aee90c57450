#include "src/topology/cpu_list.h"

#include <gtest/gtest.h>

namespace libcomm {
namespace {

std::vector<int> parsed(std::string_view text) {
  auto list = parse_cpu_list(text);
  EXPECT_TRUE(list) << list.status().to_string();
  return list ? *list : std::vector<int>();
}

TEST(CpuList, KeepsTheOrderAndRepeatsThatWereWritten) {
  EXPECT_EQ(parsed("0-3,8"), (std::vector<int>{0, 1, 2, 3, 8}));
  EXPECT_EQ(parsed("5, 1 ,5"), (std::vector<int>{5, 1, 5}));
  EXPECT_EQ(parsed("7-7"), std::vector<int>{7});
}

TEST(CpuList, RefusesWhatIsNoListAndNamesThePart) {
  for (const char* text : {"", ",", "1,", ",1", "a", "1-", "-1", "1--2", "1-2-3", "0x3", "1;2",
                           "+1", "99999999999999999999", "1 2", "1.5"}) {
    auto list = parse_cpu_list(text);
    ASSERT_FALSE(list) << text;
    EXPECT_EQ(list.status().code(), Code::kInvalidArgument) << text;
  }
  EXPECT_NE(parse_cpu_list("0,x7").status().message().find("'x7'"), std::string::npos);
  EXPECT_NE(parse_cpu_list("3-1").status().message().find("write 1-3"), std::string::npos);
}

TEST(CpuList, RefusesNumbersAndLengthsThatNoMachineHas) {
  EXPECT_FALSE(parse_cpu_list("0-65536"));
  EXPECT_FALSE(parse_cpu_list("70000"));
  EXPECT_FALSE(parse_cpu_list("0-65535,0"));
  EXPECT_EQ(parsed("0-65535").size(), 65536u);
}

TEST(CpuList, FormatsRunsAsRanges) {
  EXPECT_EQ(format_cpu_list(std::vector<int>{}), "");
  EXPECT_EQ(format_cpu_list(std::vector<int>{8, 0, 2, 1, 2}), "0-2,8");
  EXPECT_EQ(format_cpu_list(std::vector<int>{3, 5}), "3,5");
}

}  // namespace
}  // namespace libcomm
