#include "src/topology/json.h"

#include <gtest/gtest.h>

namespace libcomm {
namespace {

TEST(Json, QuotesAndEscapesWhatJsonForbidsInStrings) {
  EXPECT_EQ(json_quoted("eth0"), "\"eth0\"");
  EXPECT_EQ(json_quoted("a\"b\\c\nd\x01\x7f"), R"("a\"b\\c\u000ad\u0001\u007f")");
}

TEST(Json, KeepsUtf8AndReplacesEveryByteThatIsNot) {
  EXPECT_EQ(json_quoted("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
            "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
  EXPECT_EQ(json_quoted("\xff"), R"("\ufffd")");
  EXPECT_EQ(json_quoted("\xc0\xaf"), R"("\ufffd\ufffd")");                      // overlong
  EXPECT_EQ(json_quoted("\xed\xa0\x80"), R"("\ufffd\ufffd\ufffd")");            // surrogate
  EXPECT_EQ(json_quoted("\xe2\x82"), R"("\ufffd\ufffd")");                      // cut short
  EXPECT_EQ(json_quoted("\xf4\x90\x80\x80"), R"("\ufffd\ufffd\ufffd\ufffd")");  // beyond Unicode
}

}  // namespace
}  // namespace libcomm
