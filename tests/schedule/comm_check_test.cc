// The program: what it prints, and its exit status.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <string>

namespace {

struct Ran {
  int status;
  std::string output;
};

Ran run(const std::string& arguments) {
  std::FILE* pipe = popen((std::string(COMM_CHECK) + " " + arguments + " 2>&1").c_str(), "r");
  std::string output;
  char buffer[4096];
  while (size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, n);
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

TEST(CommCheck, ProvesTheSchedulesAndRejectsEveryCorruption) {
  const Ran ran = run("schedules --max-ranks 6 --mutations 60");
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_NE(ran.output.find("proving 1..6 ranks"), std::string::npos) << ran.output;
  EXPECT_NE(ran.output.find("60 made, 60 rejected"), std::string::npos) << ran.output;
  EXPECT_NE(ran.output.find("all proved"), std::string::npos) << ran.output;
}

TEST(CommCheck, ListsItsSubcommands) {
  const Ran ran = run("--help");
  EXPECT_EQ(ran.status, 0);
  EXPECT_NE(ran.output.find("schedules"), std::string::npos) << ran.output;
}

TEST(CommCheck, RefusesWrongUsageAndNamesTheValue) {
  EXPECT_EQ(run("").status, 2);
  const struct {
    const char* arguments;
    const char* named;
  } kWrong[] = {
      {"schedule", "schedule"},
      {"schedules --max-ranks 0", "--max-ranks 0"},
      {"schedules --max-ranks many", "many"},
      {"schedules --max-ranks", "--max-ranks"},
      {"schedules --algorithm rings", "rings"},
      {"schedules --fast 1", "--fast"},
  };
  for (const auto& wrong : kWrong) {
    const Ran ran = run(wrong.arguments);
    EXPECT_EQ(ran.status, 2) << wrong.arguments;
    EXPECT_NE(ran.output.find(wrong.named), std::string::npos) << ran.output;
  }
}

}  // namespace
