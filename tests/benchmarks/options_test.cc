// The command line: nccl-tests' spellings mean what they mean there, and mistakes are named.
#include "benchmarks/harness/options.h"

#include <gtest/gtest.h>

namespace bench {
namespace {

struct Parsed {
  bool ok = false;
  Options options;
  std::string error;
};

Parsed parse(std::vector<std::string> words, bool has_one_way = false) {
  words.insert(words.begin(), "all_reduce_perf");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  Parsed parsed;
  parsed.ok = parse_options(static_cast<int>(words.size()), argv.data(),
                            {"all_reduce_perf", has_one_way}, &parsed.options, &parsed.error);
  return parsed;
}

TEST(Options, DefaultToWhatNcclTestsDoes) {
  const Parsed parsed = parse({});
  ASSERT_TRUE(parsed.ok);
  const Options& o = parsed.options;
  EXPECT_EQ(o.min_bytes, size_t{32} << 20);
  EXPECT_EQ(o.max_bytes, size_t{32} << 20);
  EXPECT_EQ(o.types, std::vector{commFloat32});
  EXPECT_EQ(o.ops, std::vector{Op::kSum});
  EXPECT_EQ(o.root, 0);
  EXPECT_EQ(o.check, 1);
  EXPECT_EQ(iterations_for(o, o.min_bytes), 20);
  EXPECT_EQ(warmups_for(o, o.min_bytes), 5);
  EXPECT_EQ(average_of(o), Average::kMean);
  EXPECT_FALSE(o.procs);
}

TEST(Options, TakeNcclTestsLetters) {
  const Parsed parsed =
      parse({"-b", "8",    "-e", "128M", "-f", "2",  "-n", "7",  "-w", "3",  "-m",
             "4",  "-N",   "2",  "-a",   "3",  "-p", "1",  "-c", "5",  "-o", "max",
             "-d", "half", "-r", "2",    "-z", "1",  "-y", "1",  "-T", "9",  "-G",
             "0",  "-C",   "1",  "-R",   "1",  "-t", "3",  "-g", "2",  "-J", "out.json"});
  ASSERT_TRUE(parsed.ok) << parsed.error;
  const Options& o = parsed.options;
  EXPECT_EQ(o.min_bytes, 8u);
  EXPECT_EQ(o.max_bytes, size_t{128} << 20);
  EXPECT_EQ(o.step_factor, 2u);
  EXPECT_EQ(o.iters, 7);
  EXPECT_EQ(o.warmup_iters, 3);
  EXPECT_EQ(o.agg_iters, 4);
  EXPECT_EQ(o.run_cycles, 2);
  EXPECT_EQ(o.average, Average::kMax);
  EXPECT_TRUE(o.parallel_init);
  EXPECT_EQ(o.check, 5);
  EXPECT_EQ(o.ops, std::vector{Op::kMax});
  EXPECT_EQ(o.types, std::vector{commFloat16});
  EXPECT_EQ(o.root, 2);
  EXPECT_TRUE(o.blocking);
  EXPECT_EQ(o.timeout_s, 9);
  EXPECT_TRUE(o.cpu_time);
  EXPECT_EQ(o.registration, Registration::kLocal);
  EXPECT_EQ(o.nthreads, 3);
  EXPECT_EQ(o.ngpus, 2);
  EXPECT_EQ(o.json_file, "out.json");
}

TEST(Options, TakeNcclTestsLongNames) {
  const Parsed parsed = parse({"--minbytes", "1K", "--maxbytes=4K", "--stepbytes", "1K", "--op",
                               "all", "--datatype", "all", "--root", "all", "--iters=3",
                               "--local_register", "2", "--procs", "4", "--stream"});
  ASSERT_TRUE(parsed.ok) << parsed.error;
  const Options& o = parsed.options;
  EXPECT_EQ(sizes_of(o), (std::vector<size_t>{1024, 2048, 3072, 4096}));
  EXPECT_EQ(o.ops.size(), 6u);
  EXPECT_EQ(o.types.size(), size_t{commNumTypes});
  EXPECT_FALSE(o.root);
  EXPECT_EQ(o.memory, Memory::kComm) << "symmetric windows need commMemAlloc memory";
  EXPECT_EQ(o.procs, 4);
  EXPECT_TRUE(o.host_stream);
}

TEST(Options, StreamNullWinsOverAHostStream) {
  EXPECT_FALSE(parse({"--stream", "-y", "1"}).options.host_stream);
}

TEST(Options, SizesGrowByFactorUpToTheLargest) {
  EXPECT_EQ(sizes_of(parse({"-b", "8", "-e", "70", "-f", "2"}).options),
            (std::vector<size_t>{8, 16, 32, 64}));
  EXPECT_EQ(sizes_of(parse({"-b", "0", "-e", "0"}).options), std::vector<size_t>{0});
}

TEST(Options, IterateMoreOnSmallAndLessOnHugeSizesUnlessTold) {
  const Options free = parse({}).options;
  EXPECT_EQ(iterations_for(free, 8), 200);
  EXPECT_EQ(iterations_for(free, size_t{128} << 20), 10);
  EXPECT_EQ(iterations_for(free, size_t{64} << 30), 5);
  const Options told = parse({"-n", "33", "-w", "0"}).options;
  EXPECT_EQ(iterations_for(told, 8), 33);
  EXPECT_EQ(iterations_for(told, size_t{64} << 30), 33);
  EXPECT_EQ(warmups_for(told, 8), 0);
}

TEST(Options, OneWayBelongsToSendrecvAndReportsTheReceiversTime) {
  EXPECT_FALSE(parse({"--one_way"}).ok);
  const Parsed parsed = parse({"--one_way"}, true);
  ASSERT_TRUE(parsed.ok);
  EXPECT_EQ(average_of(parsed.options), Average::kMax);
  EXPECT_EQ(average_of(parse({"--one_way", "-a", "0"}, true).options), Average::kRank0);
}

TEST(Options, HelpListsEveryLetter) {
  EXPECT_TRUE(parse({"-h"}).options.help);
  const std::string text = usage({"sendrecv_perf", true});
  for (const char letter : std::string("tgbeifnwmNapcodrzyTGCSRJh")) {
    EXPECT_NE(text.find(std::string("[-") + letter + ","), std::string::npos) << letter;
  }
  EXPECT_NE(text.find("--one_way"), std::string::npos);
  EXPECT_EQ(usage({"all_reduce_perf", false}).find("--one_way"), std::string::npos);
}

TEST(Options, NameTheFlagAndTheValueOfAMistake) {
  const struct {
    std::vector<std::string> words;
    const char* text;
  } mistakes[] = {
      {{"-d", "float128"}, "--datatype=float128 is not one of int8,"},
      {{"-o", "median"}, "--op=median is not one of sum,"},
      {{"-b", "8X"}, "--minbytes=8X is not a size"},
      {{"-b", "-8"}, "--minbytes=-8 is not a size"},
      {{"-n", "0"}, "--iters=0 is not a number from 1"},
      {{"-n", "12x"}, "--iters=12x"},
      {{"-f", "1"}, "--stepfactor=1"},
      {{"-z", "2"}, "--blocking=2"},
      {{"-r", "first"}, "--root=first is not a rank or all"},
      {{"-r", "-1"}, "--root=-1"},
      {{"-G", "1"}, "--cudagraph=1"},
      {{"--memory", "gpu"}, "--memory=gpu is not malloc or comm"},
      {{"--procs", "0"}, "--procs=0"},
      {{"-b", "1M", "-e", "1K"}, "invalid sizes for 'minbytes' and 'maxbytes': 1048576 > 1024"},
      {{"-b", "0", "-e", "8", "-f", "2"}, "--minbytes=0 never grows"},
      {{"-i", "4", "-f", "2"}, "exclude each other"},
      {{"--minbites", "8"}, "unknown flag, or one without its value: --minbites"},
      {{"-b"}, "unknown flag, or one without its value: -b"},
      {{"fast"}, "unexpected argument 'fast'"},
  };
  for (const auto& mistake : mistakes) {
    const Parsed parsed = parse(mistake.words);
    EXPECT_FALSE(parsed.ok) << mistake.text;
    EXPECT_EQ(parsed.error.rfind("all_reduce_perf: ", 0), 0u);
    EXPECT_NE(parsed.error.find(mistake.text), std::string::npos) << parsed.error;
  }
}

TEST(ParseSize, TakesBinaryMultiplesAndFractions) {
  EXPECT_EQ(parse_size("0"), 0u);
  EXPECT_EQ(parse_size("8"), 8u);
  EXPECT_EQ(parse_size("4k"), 4096u);
  EXPECT_EQ(parse_size("1.5M"), 1572864u);
  EXPECT_EQ(parse_size("2G"), size_t{2} << 30);
  EXPECT_EQ(parse_size("1T"), size_t{1} << 40);
  for (const char* bad : {"", "K", "4KB", "-1", "+1", " 1", "inf", "nan", "1e30", "1Q"}) {
    EXPECT_EQ(parse_size(bad), std::nullopt) << bad;
  }
}

}  // namespace
}  // namespace bench
