// The project's own includes obey the layers, and each rule is seen to catch what it forbids.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/base/temp_folder.h"
#include "tests/layering/include_rules.h"

namespace libcomm::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Layering, ArrowsInThisTreePointDown) {
  EXPECT_THAT(include_violations(COMM_SOURCE_DIR), IsEmpty());
}

// A tree with one header per layer and one file under test.
class LayeringRules : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* header :
         {"include/comm.h", "src/api/calls.h", "src/communicator/communicator.h", "src/plan/plan.h",
          "src/execute/executor.h", "algorithms/registry.h", "src/schedule/schedule.h",
          "transports/transport.h", "transports/shm/slots.h", "transports/tcp/socket.h",
          "src/bootstrap/bootstrap.h", "src/base/status.h", "benchmarks/args.h", "elsewhere/x.h"}) {
      put(header, "#pragma once\n");
    }
  }
  void put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(tree_ / path).parent_path());
    write_file(tree_ / path, text);
  }
  std::vector<std::string> with(const std::string& path, const std::string& text) {
    put(path, text);
    return include_violations(tree_.path());
  }

  TempFolder tree_;
};

TEST_F(LayeringRules, AllowIncludesThatPointDownAndTheLayersOwn) {
  EXPECT_THAT(with("src/execute/executor.cc",
                   "#include \"src/execute/executor.h\"\n#include <vector>\n"
                   "#include \"src/schedule/schedule.h\"\n#include \"transports/transport.h\"\n"),
              IsEmpty());
  EXPECT_THAT(with("transports/shm/slots.cc",
                   "#include \"transports/shm/slots.h\"\n#include \"transports/transport.h\"\n"
                   "#include \"src/base/status.h\"\n"),
              IsEmpty());
}

TEST_F(LayeringRules, CatchAnArrowThatPointsUp) {
  EXPECT_THAT(with("src/base/status.cc", "#include <string>\n  #  include \"src/plan/plan.h\"\n"),
              ElementsAre("src/base/status.cc:2 includes src/plan/plan.h: the arrow points up"));
  EXPECT_THAT(with("src/base/status.cc", "#include \"transports/shm/slots.h\"\n"),
              ElementsAre(HasSubstr("the arrow points up")));
}

TEST_F(LayeringRules, CatchAnAlgorithmThatKnowsMoreThanSchedules) {
  EXPECT_THAT(with("algorithms/ring.cc",
                   "#include \"algorithms/registry.h\"\n#include \"src/schedule/schedule.h\"\n"
                   "#include \"src/base/status.h\"\n"),
              ElementsAre(HasSubstr(
                  "ring.cc:3 includes src/base/status.h: algorithms know src/schedule only")));
}

TEST_F(LayeringRules, CatchATransportThatKnowsAnother) {
  EXPECT_THAT(with("transports/tcp/socket.cc", "#include \"transports/shm/slots.h\"\n"),
              ElementsAre(HasSubstr("a transport knows no other transport")));
}

TEST_F(LayeringRules, CatchMoreThanEnumsOfThePublicApiOutsideSrcApi) {
  EXPECT_THAT(with("src/plan/plan.cc", "#include <comm.h>\ncommResult_t code = commSuccess;\n"),
              IsEmpty());
  EXPECT_THAT(
      with("src/plan/plan.cc", "#include \"comm.h\"\nint f(comm_t c);\n"),
      ElementsAre("src/plan/plan.cc:2 uses more of comm.h than its enums: only src/api may"));
  EXPECT_THAT(with("src/plan/plan.cc", "#include <comm.h>\nint f() { return commGroupStart(); }\n"),
              ElementsAre(HasSubstr("plan.cc:2 uses more of comm.h")));
  put("src/plan/plan.cc", "");
  EXPECT_THAT(with("src/api/calls.cc", "#include <comm.h>\nint f() { return commGroupStart(); }\n"),
              IsEmpty());
}

TEST_F(LayeringRules, CatchPathsThatAreNotFromTheRootOrInNoLayer) {
  EXPECT_THAT(with("src/base/status.cc", "#include \"status.h\"\n"),
              ElementsAre(HasSubstr("no such file from the root")));
  EXPECT_THAT(with("src/base/status.cc", "#include \"elsewhere/x.h\"\n"),
              ElementsAre(HasSubstr("in no layer")));
}

TEST_F(LayeringRules, CatchTheLibraryKnowingAProgramAndAProgramKnowingTheLibrarysInside) {
  EXPECT_THAT(with("src/plan/plan.cc", "#include \"benchmarks/args.h\"\n"),
              ElementsAre(HasSubstr("nothing includes a program's files")));
  put("src/plan/plan.cc", "");
  EXPECT_THAT(
      with("benchmarks/perf.cc",
           "#include <comm.h>\n#include \"benchmarks/args.h\"\n#include \"src/base/status.h\"\n"),
      IsEmpty());
  EXPECT_THAT(with("benchmarks/perf.cc", "#include \"src/communicator/communicator.h\"\n"),
              ElementsAre(HasSubstr("programs use the public API")));
  put("benchmarks/perf.cc", "");
  EXPECT_THAT(with("bindings/nccl/nccl.cc", "#include \"src/base/status.h\"\n"),
              ElementsAre(HasSubstr("bindings use the public API only")));
}

}  // namespace
}  // namespace libcomm::test
