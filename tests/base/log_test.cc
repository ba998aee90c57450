// The log: levels and parts choose, a line stays a line, files carry host and process in their
// names, and many threads and a forked child can write at once. Each test works in a child of its
// own, because the sink belongs to the process.
#include "src/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "tests/base/child.h"
#include "tests/base/temp_folder.h"

namespace libcomm {
namespace {

using test::in_child;
using test::read_file;
using test::TempFolder;
using testing::HasSubstr;
using testing::Not;

constexpr unsigned kEverything = static_cast<unsigned>(Subsys::kAll);

// What a child writes into its log file with this level and these parts.
template <typename Body>
std::string logged(LogLevel level, unsigned subsystems, Body&& body) {
  const TempFolder folder;
  const std::string file = folder / "log";
  EXPECT_EQ(in_child([&] {
              configure_log(level, subsystems, file);
              body();
              return 0;
            }),
            0);
  return read_file(file);
}

void one_of_each() {
  log_version("a version");
  log_warn("a warning");
  log_info(Subsys::kNet, "an info");
  log_trace(Subsys::kShm, "a trace");
}

TEST(Log, ShowsWhatTheLevelAllows) {
  EXPECT_EQ(logged(LogLevel::kNone, kEverything, one_of_each), "");
  const std::string version = logged(LogLevel::kVersion, kEverything, one_of_each);
  EXPECT_THAT(version, HasSubstr("libcomm VERSION a version\n"));
  EXPECT_THAT(version, Not(HasSubstr("WARN")));
  const std::string warn = logged(LogLevel::kWarn, kEverything, one_of_each);
  EXPECT_THAT(warn, HasSubstr("libcomm WARN a warning\n"));
  EXPECT_THAT(warn, Not(HasSubstr("INFO")));
  const std::string info = logged(LogLevel::kInfo, kEverything, one_of_each);
  EXPECT_THAT(info, HasSubstr("libcomm INFO an info\n"));
  EXPECT_THAT(info, Not(HasSubstr("TRACE")));
  EXPECT_THAT(logged(LogLevel::kTrace, kEverything, one_of_each),
              HasSubstr("libcomm TRACE a trace\n"));
}

TEST(Log, ShowsTheChosenPartsAndAlwaysWarnings) {
  const std::string text = logged(LogLevel::kTrace, parse_subsystems("SHM,coll"), one_of_each);
  EXPECT_THAT(text, HasSubstr("a trace"));
  EXPECT_THAT(text, Not(HasSubstr("an info")));
  EXPECT_THAT(text, HasSubstr("a warning"));
}

TEST(Log, PartsCanBeExcluded) {
  const std::string text = logged(LogLevel::kTrace, parse_subsystems("^NET"), one_of_each);
  EXPECT_THAT(text, HasSubstr("a trace"));
  EXPECT_THAT(text, Not(HasSubstr("an info")));
}

TEST(Log, NamesAnUnknownPart) {
  std::string unknown;
  parse_subsystems("NET,NOSUCH", &unknown);
  EXPECT_EQ(unknown, "NOSUCH");
  unknown.clear();
  parse_subsystems("net,ALL", &unknown);
  EXPECT_EQ(unknown, "");
}

TEST(Log, FileNamesCarryHostAndProcess) {
  const TempFolder folder;
  char name[256] = {};
  ASSERT_EQ(::gethostname(name, sizeof name - 1), 0);
  const std::string host = std::string(name).substr(0, std::string(name).find('.'));
  EXPECT_EQ(in_child([&] {
              configure_log(LogLevel::kWarn, kEverything, folder / "log.%h.%p.%%.%z");
              log_warn("here");
              const std::string expected =
                  "log." + host + "." + std::to_string(::getpid()) + ".%.%z";
              return std::filesystem::exists(folder / expected) ? 0 : 1;
            }),
            0);
}

TEST(Log, AFileThatCannotBeOpenedIsSaidOnceAndStderrIsUsed) {
  const TempFolder folder;
  EXPECT_EQ(in_child([&] {
              (void)!::freopen((folder / "stderr").c_str(), "w", stderr);
              const std::string bad = folder / "no/such/folder/log";
              configure_log(LogLevel::kWarn, kEverything, bad);
              configure_log(LogLevel::kWarn, kEverything, bad);
              log_warn("still here");
              return 0;
            }),
            0);
  const std::string text = read_file(folder / "stderr");
  EXPECT_THAT(text, HasSubstr("No such file or directory; logging to stderr"));
  EXPECT_THAT(text, HasSubstr("still here"));
  EXPECT_EQ(text.find("logging to stderr"), text.rfind("logging to stderr"));
}

TEST(Log, MovesToAnotherFileAndBackToStderr) {
  const TempFolder folder;
  EXPECT_EQ(in_child([&] {
              (void)!::freopen((folder / "stderr").c_str(), "w", stderr);
              configure_log(LogLevel::kWarn, kEverything, folder / "a");
              log_warn("one");
              configure_log(LogLevel::kWarn, kEverything, folder / "b");
              log_warn("two");
              configure_log(LogLevel::kWarn, kEverything, "");
              log_warn("three");
              return 0;
            }),
            0);
  EXPECT_THAT(read_file(folder / "a"), HasSubstr("one"));
  EXPECT_THAT(read_file(folder / "b"), HasSubstr("two"));
  EXPECT_THAT(read_file(folder / "stderr"), HasSubstr("three"));
  EXPECT_THAT(read_file(folder / "a"), Not(HasSubstr("two")));
}

TEST(Log, UnprintableBytesFromAPeerCannotForgeALine) {
  const std::string text = logged(LogLevel::kWarn, kEverything, [] {
    log_warn("peer says {}", "hello\nhost:1:1 libcomm WARN x\x1b");
  });
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_THAT(text, HasSubstr("hello\\x0ahost"));
  EXPECT_THAT(text, HasSubstr("\\x1b"));
}

TEST(Log, LinesOfManyThreadsDoNotMix) {
  const std::string text = logged(LogLevel::kWarn, kEverything, [] {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([i] {
        for (int k = 0; k < 100; ++k)
          log_warn("<{}>", std::string(200, static_cast<char>('a' + i)));
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 400);
  for (char c = 'a'; c < 'e'; ++c) {
    const std::string whole = "WARN <" + std::string(200, c) + ">\n";
    size_t count = 0;
    for (size_t at = text.find(whole); at != std::string::npos; at = text.find(whole, at + 1))
      ++count;
    EXPECT_EQ(count, 100u) << c;
  }
}

TEST(Log, TheSinkMayChangeWhileOtherThreadsWrite) {
  const TempFolder folder;
  EXPECT_EQ(in_child([&] {
              configure_log(LogLevel::kWarn, kEverything, folder / "first");
              std::thread writer([] {
                for (int k = 0; k < 500; ++k) log_warn("line");
              });
              for (int k = 0; k < 20; ++k)
                configure_log(LogLevel::kWarn, kEverything, folder / (k % 2 ? "first" : "second"));
              writer.join();
              return 0;
            }),
            0);
  const std::string text = read_file(folder / "first") + read_file(folder / "second");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 500);
}

}  // namespace
}  // namespace libcomm
