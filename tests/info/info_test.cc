// comm-info: what it prints about knobs, transports and the build, and that docs/knobs.md is its
// output.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <string>
#include <vector>

#include "src/base/knobs.h"
#include "tests/base/temp_folder.h"
#include "tools/info/knob_report.h"

namespace libcomm {
namespace {

using test::read_file;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

struct Output {
  int status = -1;
  std::string text;
};

// Runs comm-info with these variables in front and arguments behind, in an empty home folder; both
// its outputs.
Output comm_info(const std::string& variables, const std::string& arguments) {
  const std::string command =
      "env HOME=/nonexistent " + variables + " " + COMM_INFO_PROGRAM + " " + arguments + " 2>&1";
  Output output;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return output;
  std::array<char, 4096> buffer;
  for (size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    output.text.append(buffer.data(), n);
  const int status = ::pclose(pipe);
  output.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return output;
}

TEST(Docs, KnobsPageIsCurrent) {
  EXPECT_EQ(read_file(COMM_SOURCE_DIR "/docs/knobs.md"), knobs_as_markdown()) << "run ./dev docs";
}

TEST(Docs, EveryKnobIsOnItsPageWithASentence) {
  const std::string page = knobs_as_markdown();
  for (const KnobRow& row : knob_table()) {
    EXPECT_THAT(page, HasSubstr(std::string("| `COMM_") + row.name + "` |"));
  }
}

TEST(Docs, LinksBetweenPagesPointToFilesThatExist) {
  namespace fs = std::filesystem;
  const fs::path root = COMM_SOURCE_DIR;
  std::vector<fs::path> pages = {root / "README.md", root / "bindings" / "README.md"};
  for (const auto& entry : fs::directory_iterator(root / "docs")) {
    if (entry.path().extension() == ".md") pages.push_back(entry.path());
  }
  static const std::regex link(R"(\]\(([^)#:]+)(#[^)]*)?\))");
  for (const fs::path& page : pages) {
    const std::string text = read_file(page.string());
    EXPECT_FALSE(text.empty()) << page;
    for (std::sregex_iterator it(text.begin(), text.end(), link), end; it != end; ++it)
      EXPECT_TRUE(fs::exists(page.parent_path() / (*it)[1].str()))
          << page << " links to " << (*it)[1];
  }
}

TEST(CommInfo, PrintsVersionBuildAndEveryTransportWithItsReason) {
  const Output output = comm_info("", "");
  EXPECT_EQ(output.status, 0) << output.text;
  EXPECT_THAT(output.text, ContainsRegex("libcomm [0-9.]+, API level 22809"));
  for (const char* part : {"\n  compiler ", "\n  shm ", "\n  tcp ", "\n  pmix "})
    EXPECT_THAT(output.text, HasSubstr(part));
  EXPECT_THAT(output.text, ContainsRegex("\n  rdma +(no|yes) +[a-zA-Z]"));
  EXPECT_THAT(output.text, ContainsRegex("\n  cuda +(no|yes) +[a-zA-Z]"));
}

TEST(CommInfo, SaysWhichKnobDisabledATransport) {
  EXPECT_THAT(comm_info("COMM_SHM_DISABLE=1", "").text,
              ContainsRegex("\n  shm +no +disabled by COMM_SHM_DISABLE=1 \\(environment\\)"));
}

TEST(CommInfo, ListsRdmaPortsOrSaysWhyThereAreNone) {
  EXPECT_THAT(comm_info("COMM_IB_DISABLE=1", "").text,
              ContainsRegex("\n  rdma +no +disabled by COMM_IB_DISABLE=1"));
#ifdef COMM_RDMA_DOUBLE
  const std::string two = "RDMA_DOUBLE_DEVICES=2 LD_LIBRARY_PATH=" COMM_RDMA_DOUBLE " ";
  EXPECT_THAT(
      comm_info(two, "").text,
      ContainsRegex("\n  rdma +yes +double0:1 \\(Ethernet, RoCE v2 10.77.1.1, MTU 4096, 100 "
                    "Gb/s\\); double1:1"));
  EXPECT_THAT(
      comm_info(two + "COMM_IB_HCA=mlx5", "").text,
      ContainsRegex("\n  rdma +no +COMM_IB_HCA=mlx5: it matches none of: double0:1, double1:1"));
#else
  GTEST_SKIP() << "built without verbs headers: there is no double of libibverbs";
#endif
}

TEST(CommInfo, ListsGpusOrSaysWhyThereAreNone) {
  const std::string driver = "LD_LIBRARY_PATH=" COMM_CUDA_DOUBLE " ";
  EXPECT_THAT(comm_info(driver, "").text, ContainsRegex("\n  cuda +yes +double of a GPU"));
  EXPECT_THAT(comm_info(driver, "--json").text,
              ContainsRegex("\"name\": \"cuda\", \"available\": true, \"detail\": \"double"));
}

TEST(CommInfo, SaysWhyNoInterfaceCanBeUsed) {
  EXPECT_THAT(comm_info("COMM_SOCKET_IFNAME=nosuch9", "").text,
              ContainsRegex("\n  tcp +no +.*COMM_SOCKET_IFNAME=nosuch9"));
}

TEST(CommInfo, ShowsKnobsWithValueAndOrigin) {
  const test::TempFolder home;
  test::write_file(home / ".comm.conf", "MAX_NRINGS=5\n");
  const Output output = comm_info("COMM_WAIT=block HOME=" + home.path(), "--knobs");
  EXPECT_EQ(output.status, 0);
  EXPECT_THAT(output.text, ContainsRegex("\nCOMM_WAIT +block +environment +adaptive +spin"));
  EXPECT_THAT(output.text, ContainsRegex("\nCOMM_MAX_NRINGS +5 +~/.comm.conf +8 +1..16"));
  EXPECT_THAT(output.text, ContainsRegex("\nCOMM_BUFFSIZE +1M +default +1M"));
}

TEST(CommInfo, NeverShowsTheSecret) {
  for (const char* arguments : {"--knobs", "--knobs --json", "--json", ""}) {
    const Output output = comm_info("COMM_SECRET=hush-hush", arguments);
    EXPECT_THAT(output.text, Not(HasSubstr("hush-hush"))) << arguments;
  }
  EXPECT_THAT(comm_info("COMM_SECRET=hush-hush", "--knobs").text, HasSubstr("(hidden)"));
}

TEST(CommInfo, RefusesABadKnobByName) {
  const Output output = comm_info("COMM_MAX_NRINGS=99", "--knobs");
  EXPECT_EQ(output.status, 1);
  EXPECT_THAT(output.text,
              HasSubstr("COMM_MAX_NRINGS=99 (environment) is not valid: expected 1..16"));
}

TEST(CommInfo, PrintsJsonWithBalancedBrackets) {
  const Output output = comm_info("", "--json");
  EXPECT_EQ(output.status, 0);
  EXPECT_THAT(output.text, testing::StartsWith("{"));
  EXPECT_THAT(output.text, HasSubstr("\"transports\": ["));
  EXPECT_THAT(output.text, HasSubstr("\"name\": \"COMM_ALGO\""));
  EXPECT_EQ(std::count(output.text.begin(), output.text.end(), '['),
            std::count(output.text.begin(), output.text.end(), ']'));
}

TEST(CommInfo, RefusesWrongUsageWithTheUsage) {
  const Output output = comm_info("", "--nosuch");
  EXPECT_EQ(output.status, 2);
  EXPECT_THAT(output.text, HasSubstr("unknown argument --nosuch"));
  EXPECT_EQ(comm_info("", "--markdown").status, 2);
}

}  // namespace
}  // namespace libcomm
