// Knobs: where values come from and which source wins, what is refused and how that is said, and
// how rank 0's values become everybody's.
#include "src/base/knobs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "src/base/log.h"
#include "tests/base/child.h"
#include "tests/base/temp_folder.h"

extern char** environ;

namespace libcomm {
namespace {

using test::in_child;
using test::read_file;
using test::TempFolder;
using test::write_file;
using testing::HasSubstr;
using testing::Not;

// No COMM_ variable but those that a test sets, and a home folder of its own.
class KnobsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::vector<std::string> names;
    for (char** entry = environ; *entry; ++entry) {
      const std::string pair = *entry;
      if (pair.starts_with("COMM_")) names.push_back(pair.substr(0, pair.find('=')));
    }
    for (const std::string& name : names) ::unsetenv(name.c_str());
    ::setenv("HOME", home_.path().c_str(), 1);
  }
  void TearDown() override { SetUp(); }

  static void set(const char* name, const char* value) { ::setenv(name, value, 1); }
  void conf(const std::string& text) { write_file(home_ / ".comm.conf", text); }

  static std::shared_ptr<const Knobs> load() {
    auto knobs = Knobs::load();
    EXPECT_TRUE(knobs.is_ok()) << knobs.status().to_string();
    return knobs ? *knobs : std::make_shared<const Knobs>();
  }
  // The text of the failure that loading with NAME=value gives; "" if it succeeds.
  static std::string refusal(const char* name, const char* value) {
    set(name, value);
    const auto knobs = Knobs::load();
    ::unsetenv(name);
    if (!knobs) {
      EXPECT_EQ(knobs.status().code(), Code::kInvalidArgument);
    }
    return knobs.status().message();
  }
  // What a fresh process with the present environment logs while it loads its knobs.
  std::string warnings() {
    const std::string file = home_ / "log";
    set("COMM_DEBUG_FILE", file.c_str());
    EXPECT_EQ(in_child([] {
                const auto first = Knobs::load();
                const auto second = Knobs::load();
                return first && second ? 0 : 1;
              }),
              0);
    ::unsetenv("COMM_DEBUG_FILE");
    return read_file(file);
  }

  TempFolder home_;
};

TEST_F(KnobsTest, HaveTheirDefaultsWhenNothingIsSet) {
  const auto knobs = load();
  EXPECT_EQ(knobs->get_size(Knob::kBuffsize), size_t{1} << 20);
  EXPECT_FALSE(knobs->get_bool(Knob::kShmDisable));
  EXPECT_EQ(knobs->get_int(Knob::kRank), -1);
  EXPECT_EQ(knobs->get_string(Knob::kAlgo), "");
  for (const KnobRow& row : knob_table()) {
    EXPECT_EQ(knobs->origin(row.id), "default") << row.name;
    EXPECT_FALSE(knobs->is_set(row.id)) << row.name;
  }
}

TEST_F(KnobsTest, TheTableHasOneCompleteRowPerKnob) {
  std::set<std::string> names;
  int position = 0;
  for (const KnobRow& row : knob_table()) {
    EXPECT_EQ(static_cast<int>(row.id), position++) << row.name;
    EXPECT_TRUE(names.insert(row.name).second) << row.name << " is there twice";
    EXPECT_GT(std::string_view(row.sentence).size(), 10u) << row.name;
    EXPECT_TRUE(std::string_view(row.sentence).ends_with(".")) << row.name;
    const bool ranged = row.type != KnobType::String;
    EXPECT_EQ(ranged, *row.range != '\0') << row.name << " needs a range exactly if it is no text";
  }
  EXPECT_EQ(position, static_cast<int>(Knob::kCount));
}

TEST_F(KnobsTest, ComeFromTheEnvironment) {
  set("COMM_SHM_DISABLE", "1");
  set("COMM_BUFFSIZE", "64K");
  set("COMM_TIMEOUT", "2.5");
  set("COMM_WAIT", "BLOCK");
  set("COMM_SOCKET_IFNAME", " ^lo,docker ");
  const auto knobs = load();
  EXPECT_TRUE(knobs->get_bool(Knob::kShmDisable));
  EXPECT_EQ(knobs->get_size(Knob::kBuffsize), 65536u);
  EXPECT_DOUBLE_EQ(knobs->get_seconds(Knob::kTimeout), 2.5);
  EXPECT_EQ(knobs->get_choice(Knob::kWait), 2);
  EXPECT_EQ(knobs->get_string(Knob::kSocketIfname), "^lo,docker");
  EXPECT_EQ(knobs->origin(Knob::kWait), "environment");
}

// It would break lines of the log and of what ranks tell each other.
TEST_F(KnobsTest, AValueOfSeveralLinesIsRefusedAndNotRepeated) {
  set("COMM_TUNER_FILE", "/etc/comm.tuning\nrank 0: all is well");
  const auto knobs = Knobs::load();
  ASSERT_FALSE(knobs.is_ok());
  EXPECT_EQ(knobs.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(knobs.status().message(), HasSubstr("COMM_TUNER_FILE (environment) is not valid"));
  EXPECT_EQ(knobs.status().message().find('\n'), std::string::npos);
}

TEST_F(KnobsTest, TheEnvironmentIsStrongerThanTheHomeFolder) {
  conf("COMM_MAX_NRINGS=3\nMIN_NRINGS = 2\n");
  set("COMM_MAX_NRINGS", "5");
  const auto knobs = load();
  EXPECT_EQ(knobs->get_int(Knob::kMaxNrings), 5);
  EXPECT_EQ(knobs->origin(Knob::kMaxNrings), "environment");
  EXPECT_EQ(knobs->get_int(Knob::kMinNrings), 2);
  EXPECT_EQ(knobs->origin(Knob::kMinNrings), "~/.comm.conf");
}

TEST_F(KnobsTest, TheHomeFolderIsStrongerThanEtc) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a process an /etc of its own";
  conf("MIN_NRINGS=2\n");
  const int verdict = in_child([] {
    // A mount namespace with an empty /etc, gone with this child.
    if (::unshare(CLONE_NEWNS) != 0) return 77;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 77;
    if (::mount("tmpfs", "/etc", "tmpfs", 0, nullptr) != 0) return 77;
    write_file("/etc/comm.conf", "MIN_NRINGS=4\nMAX_NRINGS=7\n");
    const auto knobs = Knobs::load();
    if (!knobs) return 1;
    if ((*knobs)->get_int(Knob::kMinNrings) != 2) return 2;
    if ((*knobs)->get_int(Knob::kMaxNrings) != 7) return 3;
    return (*knobs)->origin(Knob::kMaxNrings) == "/etc/comm.conf" ? 0 : 4;
  });
  if (verdict == 77) GTEST_SKIP() << "this machine refuses a mount namespace";
  EXPECT_EQ(verdict, 0);
}

TEST_F(KnobsTest, FilesMayHoldCommentsBlankLinesAndValuesWithAHash) {
  conf(
      "# a comment\n\n  BUFFSIZE = 2M   # two\nSECRET=a#b\nthis line means nothing\nALGO=ring\r\n");
  const auto knobs = load();
  EXPECT_EQ(knobs->get_size(Knob::kBuffsize), size_t{2} << 20);
  EXPECT_EQ(knobs->get_string(Knob::kSecret), "a#b");
  EXPECT_EQ(knobs->get_string(Knob::kAlgo), "ring");
}

TEST_F(KnobsTest, AFolderInPlaceOfTheFileIsNoFile) {
  std::filesystem::create_directory(home_ / ".comm.conf");
  EXPECT_EQ(load()->origin(Knob::kAlgo), "default");
}

TEST_F(KnobsTest, AnEmptyValueAsksForTheDefaultAndOverridesAWeakerSource) {
  conf("ALGO=ring\nMAX_NRINGS=3\n");
  set("COMM_ALGO", "");
  set("COMM_MAX_NRINGS", " ");
  const auto knobs = load();
  EXPECT_EQ(knobs->get_string(Knob::kAlgo), "");
  EXPECT_EQ(knobs->get_int(Knob::kMaxNrings), 8);
}

TEST_F(KnobsTest, RefuseValuesOutsideTheirRangeByNameValueAndRange) {
  EXPECT_EQ(refusal("COMM_MAX_NRINGS", "17"),
            "COMM_MAX_NRINGS=17 (environment) is not valid: expected 1..16");
  EXPECT_THAT(refusal("COMM_MAX_NRINGS", "0"), HasSubstr("expected 1..16"));
  EXPECT_THAT(refusal("COMM_MAX_NRINGS", "four"), HasSubstr("COMM_MAX_NRINGS=four"));
  EXPECT_THAT(refusal("COMM_MAX_NRINGS", "4 5"), HasSubstr("COMM_MAX_NRINGS=4 5"));
  EXPECT_THAT(refusal("COMM_MAX_NRINGS", "99999999999999999999"), HasSubstr("is not valid"));
  EXPECT_THAT(refusal("COMM_BUFFSIZE", "1K"), HasSubstr("expected 4K..256M"));
  EXPECT_THAT(refusal("COMM_BUFFSIZE", "-4M"), HasSubstr("COMM_BUFFSIZE=-4M"));
  EXPECT_THAT(refusal("COMM_TIMEOUT", "-1"), HasSubstr("expected seconds, 0..864000"));
  EXPECT_THAT(refusal("COMM_TIMEOUT", "nan"), HasSubstr("COMM_TIMEOUT=nan"));
  EXPECT_THAT(refusal("COMM_TIMEOUT", "inf"), HasSubstr("COMM_TIMEOUT=inf"));
  EXPECT_THAT(refusal("COMM_SHM_DISABLE", "maybe"), HasSubstr("COMM_SHM_DISABLE=maybe"));
  EXPECT_THAT(refusal("COMM_WAIT", "sleep"), HasSubstr("expected spin|adaptive|block"));
  EXPECT_THAT(refusal("COMM_DEBUG_SUBSYS", "NET,NOSUCH"), HasSubstr("NOSUCH is not one of"));
  EXPECT_EQ(refusal("COMM_MAX_NRINGS", "16"), "");
}

TEST_F(KnobsTest, EveryRangeAcceptsItsEndsAndRefusesWhatLiesBeyond) {
  for (const KnobRow& row : knob_table()) {
    const std::string name = std::string("COMM_") + row.name;
    const std::string range = row.range;
    if (row.type == KnobType::String) continue;
    if (row.type == KnobType::Choice || row.type == KnobType::Bool) {
      for (size_t at = 0; at != std::string::npos;) {
        const size_t bar = range.find('|', at);
        const std::string word = range.substr(at, bar - at);
        // DEBUG's words change what the test itself logs; they are tried by the log's tests.
        if (row.id != Knob::kDebug) {
          EXPECT_EQ(refusal(name.c_str(), word.c_str()), "");
        }
        at = bar == std::string::npos ? bar : bar + 1;
      }
      EXPECT_NE(refusal(name.c_str(), "nonsense"), "") << name;
      continue;
    }
    const size_t dots = range.find("..");
    ASSERT_NE(dots, std::string::npos) << name;
    EXPECT_EQ(refusal(name.c_str(), range.substr(0, dots).c_str()), "") << name;
    EXPECT_EQ(refusal(name.c_str(), range.substr(dots + 2).c_str()), "") << name;
    EXPECT_NE(refusal(name.c_str(), "-2"), "") << name;
    EXPECT_NE(refusal(name.c_str(), "900T"), "") << name;
  }
}

TEST_F(KnobsTest, WarnOncePerProcessAboutAnUnknownNameAndNameTheNearest) {
  set("COMM_SHM_DISABEL", "1");
  set("COMM_ZZZZZZZZZZZZZZ", "1");
  const std::string text = warnings();
  EXPECT_THAT(text,
              HasSubstr("COMM_SHM_DISABEL (environment) is not a knob of this library; did you "
                        "mean COMM_SHM_DISABLE?"));
  EXPECT_THAT(text,
              HasSubstr("COMM_ZZZZZZZZZZZZZZ (environment) is not a knob of this library; see"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
}

TEST_F(KnobsTest, WarnAboutAnUnknownNameInAFileToo) {
  conf("BUFFSIZES=1M\n");
  EXPECT_THAT(warnings(), HasSubstr("COMM_BUFFSIZES (~/.comm.conf) is not a knob"));
}

TEST_F(KnobsTest, WarnOnceAboutLinesOfAFileThatSetNothing) {
  conf("ALGO=ring\n# a comment\n\nSECRET hush # and one\n  \nMAX_NRINGS 3\n");
  const std::string text = warnings();
  EXPECT_THAT(text, HasSubstr("lines 4, 6 of ~/.comm.conf: no '=', so no effect"));
  EXPECT_THAT(text, Not(HasSubstr("hush")));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST_F(KnobsTest, SayNothingAboutNamesThatBelongToPrograms) {
  set("COMM_TESTS_SPLIT", "0x7");
  EXPECT_EQ(warnings(), "");
}

TEST_F(KnobsTest, KeepTheValuesOfTheMomentTheyWereLoaded) {
  set("COMM_MAX_NRINGS", "5");
  const auto before = load();
  set("COMM_MAX_NRINGS", "6");
  const auto after = load();
  EXPECT_EQ(before->get_int(Knob::kMaxNrings), 5);
  EXPECT_EQ(after->get_int(Knob::kMaxNrings), 6);
}

TEST_F(KnobsTest, AgreedOnesTakeRankZerosValues) {
  set("COMM_ALGO", "allreduce:ring;allgather:hd");
  set("COMM_MAX_NRINGS", "5");
  set("COMM_WAIT", "block");
  const std::string rank0 = load()->agreed_text();
  EXPECT_THAT(rank0, HasSubstr("ALGO=allreduce:ring;allgather:hd\n"));
  EXPECT_THAT(rank0, Not(HasSubstr("WAIT"))) << "how a rank waits is its own affair";

  ::unsetenv("COMM_ALGO");
  set("COMM_MAX_NRINGS", "7");
  set("COMM_SHM_DISABLE", "1");
  set("COMM_WAIT", "spin");
  std::string differing;
  const auto agreed = load()->with_agreed(rank0, &differing);
  ASSERT_TRUE(agreed.is_ok());
  const Knobs& knobs = **agreed;
  EXPECT_EQ(knobs.get_string(Knob::kAlgo), "allreduce:ring;allgather:hd");
  EXPECT_EQ(knobs.get_int(Knob::kMaxNrings), 5);
  EXPECT_FALSE(knobs.get_bool(Knob::kShmDisable)) << "rank 0 left it at its default";
  EXPECT_EQ(knobs.get_choice(Knob::kWait), 0);
  EXPECT_EQ(knobs.origin(Knob::kMaxNrings), "rank 0");
  EXPECT_EQ(knobs.origin(Knob::kWait), "environment");
  EXPECT_THAT(differing, HasSubstr("COMM_MAX_NRINGS"));
  EXPECT_THAT(differing, HasSubstr("COMM_SHM_DISABLE"));
  EXPECT_THAT(differing, HasSubstr("COMM_ALGO"));
}

TEST_F(KnobsTest, EqualValuesDoNotDiffer) {
  set("COMM_MAX_NRINGS", "5");
  const auto knobs = load();
  std::string differing;
  ASSERT_TRUE(knobs->with_agreed(knobs->agreed_text(), &differing).is_ok());
  EXPECT_EQ(differing, "");
}

TEST_F(KnobsTest, AgreedTextFromAHostilePeerIsCheckedLikeAnyValue) {
  const auto knobs = load();
  EXPECT_EQ(knobs->with_agreed("MAX_NRINGS=1000000\n", nullptr).status().code(),
            Code::kInvalidArgument);
  EXPECT_TRUE(knobs->with_agreed("NOSUCH=1\n=\n\ngarbage", nullptr).is_ok());
  const auto secret = knobs->with_agreed("SECRET=stolen\n", nullptr);
  ASSERT_TRUE(secret.is_ok());
  EXPECT_EQ((*secret)->get_string(Knob::kSecret), "") << "not a knob that rank 0 decides";
}

TEST(NearestKnob, FindsSmallMistakesAndNothingFarAway) {
  ASSERT_NE(nearest_knob("SOCKET_IFNAM"), nullptr);
  EXPECT_STREQ(nearest_knob("SOCKET_IFNAM")->name, "SOCKET_IFNAME");
  EXPECT_EQ(nearest_knob("QWERTYUIOPASDF"), nullptr);
}

TEST(ParseSize, ReadsUnitsAndRefusesTheRest) {
  uint64_t bytes = 0;
  const struct {
    const char* text;
    uint64_t bytes;
  } good[] = {{"0", 0},         {"17", 17},           {"4K", 4096},      {"4k", 4096},
              {"1MB", 1 << 20}, {" 2G ", 2ull << 30}, {"1T", 1ull << 40}};
  for (const auto& [text, expected] : good) {
    EXPECT_TRUE(parse_size(text, &bytes)) << text;
    EXPECT_EQ(bytes, expected) << text;
  }
  for (const char* text : {"", "K", "B", "-1", "1X", "1.5M", "0x10", "9223372036854775807K", "1 K"})
    EXPECT_FALSE(parse_size(text, &bytes)) << text;
}

TEST_F(KnobsTest, TakeAGivenDefaultWhereNothingElseSetsThem) {
  ASSERT_TRUE(set_knob_default("COMM_BUFFSIZE", "64K", "NCCL_BUFFSIZE"));
  ASSERT_TRUE(set_knob_default("COMM_MAX_NRINGS", "3", "NCCL_MAX_NRINGS"));
  ASSERT_TRUE(set_knob_default("COMM_TIMEOUT", "7", "program"));
  conf("MAX_NRINGS=5\n");
  set("COMM_TIMEOUT", "2.5");
  const auto knobs = load();
  EXPECT_EQ(knobs->get_size(Knob::kBuffsize), 65536u);
  EXPECT_EQ(knobs->origin(Knob::kBuffsize), "NCCL_BUFFSIZE");
  EXPECT_TRUE(knobs->is_set(Knob::kBuffsize));
  EXPECT_EQ(knobs->get_int(Knob::kMaxNrings), 5);
  EXPECT_EQ(knobs->origin(Knob::kMaxNrings), "~/.comm.conf");
  EXPECT_DOUBLE_EQ(knobs->get_seconds(Knob::kTimeout), 2.5);
  for (const char* knob : {"COMM_BUFFSIZE", "COMM_MAX_NRINGS", "COMM_TIMEOUT"})
    ASSERT_TRUE(set_knob_default(knob, nullptr, ""));
  EXPECT_EQ(load()->get_size(Knob::kBuffsize), size_t{1} << 20);
  EXPECT_FALSE(load()->is_set(Knob::kBuffsize));
}

TEST_F(KnobsTest, RefuseADefaultThatIsNoneAndKeepTheOneBefore) {
  ASSERT_TRUE(set_knob_default("COMM_BUFFSIZE", "64K", "program"));
  const Status bad = set_knob_default("COMM_BUFFSIZE", "lots", "the command line");
  EXPECT_EQ(bad.code(), Code::kInvalidArgument);
  EXPECT_THAT(bad.message(), HasSubstr("COMM_BUFFSIZE=lots (the command line) is not valid"));
  EXPECT_EQ(load()->get_size(Knob::kBuffsize), 65536u);
  ASSERT_TRUE(set_knob_default("COMM_BUFFSIZE", nullptr, ""));
  for (const char* none : {"BUFFSIZE", "COMM_BUFSIZE", "", "COMM_"})
    EXPECT_EQ(set_knob_default(none, "64K", "program").code(), Code::kInvalidArgument) << none;
}

}  // namespace
}  // namespace libcomm
