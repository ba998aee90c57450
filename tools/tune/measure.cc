#include "tools/tune/measure.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <thread>

#include "src/base/knobs.h"
#include "src/execute/board_layout.h"
#include "src/plan/chooser.h"
#include "tools/tune/ranks.h"
#include "transports/facts.h"

namespace libcomm::tune {
namespace {

using Clock = std::chrono::steady_clock;

#define TUNE_CALL(comm, call)                                        \
  do {                                                               \
    if (const commResult_t result_ = (call); result_ != commSuccess) \
      return failed_call(result_, #call, comm);                      \
  } while (false)

struct DestroyComm {
  void operator()(comm_t comm) const { commDestroy(comm); }
};
using OwnedComm = std::unique_ptr<comm, DestroyComm>;

// The group as the library sees it.
Result<GroupShape> look_at_group(comm_t comm, bool shared_memory) {
  GroupShape shape;
  TUNE_CALL(comm, commUserRank(comm, &shape.rank));
  TUNE_CALL(comm, commCount(comm, &shape.nranks));
  COMM_ASSIGN(const auto knobs, Knobs::load());
  const uint64_t mine = gather_facts(shape.rank, *knobs).host_hash;
  std::vector<uint64_t> hashes(static_cast<size_t>(shape.nranks));
  TUNE_CALL(comm, commAllGather(&mine, hashes.data(), 1, commUint64, comm, nullptr));
  std::map<uint64_t, int> numbers;
  for (const uint64_t hash : hashes) {
    const int next = static_cast<int>(numbers.size());
    shape.host_of.push_back(numbers.try_emplace(hash, next).first->second);
  }
  shape.hosts = static_cast<int>(numbers.size());
  shape.one_board = shape.hosts == 1 && shared_memory;
  const auto cores = static_cast<double>(std::max(1u, std::thread::hardware_concurrency()));
  shape.ranks_per_core = std::max(1.0, shape.most_per_host() / cores);
  return shape;
}

// A folder of rank 0's for the tables, the same name on all ranks.
class TableFolder {
 public:
  static Result<std::unique_ptr<TableFolder>> make(comm_t comm, int rank) {
    char name[64] = "/tmp/comm-tune-XXXXXX";
    if (rank == 0 && mkdtemp(name) == nullptr) name[0] = '\0';
    auto folder = std::unique_ptr<TableFolder>(new TableFolder(rank == 0 ? name : ""));
    TUNE_CALL(comm, commBroadcast(name, name, sizeof name, commInt8, 0, comm, nullptr));
    if (name[0] == '\0') return error(Code::kSystem, "rank 0 cannot make a folder in /tmp");
    folder->name_ = name;
    return folder;
  }
  ~TableFolder() {
    std::error_code code;
    if (!owned_.empty()) std::filesystem::remove_all(owned_, code);
  }
  TableFolder(const TableFolder&) = delete;
  TableFolder& operator=(const TableFolder&) = delete;

  std::string path(size_t variant) const { return name_ + "/" + std::to_string(variant); }
  bool is_owner() const { return !owned_.empty(); }

 private:
  explicit TableFolder(std::string owned) : owned_(std::move(owned)) {}
  std::string owned_;
  std::string name_;
};

// Settings worth trying beside the library's own.
std::vector<Variant> variants_of(const Options& options, const GroupShape& shape) {
  std::vector<Variant> variants;
  for (int i = 0; i < kNumWays; ++i) variants.push_back({static_cast<Way>(i), 0, 0});
  if (shape.one_board) {
    for (const Way way : {Way::kTwoshot, Way::kWindows})
      for (const size_t window : {size_t{64} << 10, size_t{256} << 10, size_t{1} << 20})
        if (window < options.max_bytes) variants.push_back({way, 0, window});
  } else if (options.max_bytes > size_t{64} << 10) {
    variants.push_back({Way::kRing, 2, 0});
    variants.push_back({Way::kRing, 4, 0});
  }
  return variants;
}

// Is it another thing to do than what a simpler variant does?
bool is_distinct(const Variant& variant, const Chooser& chooser, const Call& call) {
  const auto route = chooser.route_of(variant.way, call);
  if (!route) return false;
  if (variant.way == Way::kOneshot && (*route == Route::kReduction || *route == Route::kCopy))
    return false;
  if (variant.window > 0)
    return (*route == Route::kReduction || *route == Route::kCopy) && call.bytes > variant.window;
  if (variant.lanes > 0) return *route == Route::kSchedule && call.bytes > size_t{64} << 10;
  return true;
}

class Rank {
 public:
  Rank(comm_t base, const Options& options, GroupShape shape, std::unique_ptr<TableFolder> folder,
       std::shared_ptr<const Knobs> knobs)
      : base_(base),
        options_(options),
        shape_(std::move(shape)),
        folder_(std::move(folder)),
        variants_(variants_of(options, shape_)),
        chooser_(shape_, std::move(knobs), AlgorithmChoice(), {}),
        in_(options.max_bytes / sizeof(float) * static_cast<size_t>(shape_.nranks), 1.0F),
        out_(in_.size()) {}

  Result<std::vector<Measurement>> run() {
    std::vector<Measurement> all;
    for (const Collective collective : options_.collectives) {
      comms_.clear();
      comms_.resize(variants_.size());
      for (size_t bytes = options_.min_bytes; bytes <= options_.max_bytes;
           bytes *= options_.factor) {
        bytes = bytes / sizeof(float) * sizeof(float);
        COMM_ASSIGN(auto measurement, measure_size(collective, bytes));
        if (shape_.rank == 0) all.push_back(std::move(measurement));
      }
    }
    comms_.clear();
    return all;
  }

 private:
  Result<Measurement> measure_size(Collective collective, size_t bytes) {
    const Call call = Call::of(collective, bytes, shape_.nranks);
    Measurement result;
    result.key = {collective, bytes, shape_.nranks, shape_.hosts, shape_.medium()};
    COMM_ASSIGN(const Decision decision, chooser_.choose(call));
    result.by_model = {decision.way, 0, 0};

    struct Sampled {
      size_t variant;
      int times = 1;
      std::vector<double> us = {};
    };
    std::vector<Sampled> sampled;
    for (size_t i = 0; i < variants_.size(); ++i)
      if (is_distinct(variants_[i], chooser_, call)) sampled.push_back({i});
    double best = 0;
    for (Sampled& one : sampled) {
      if (comms_[one.variant] == nullptr) {
        COMM_TRY(open(one.variant));
        COMM_TRY(warm_up(collective, one.variant));
      }
      COMM_TRY(sample(collective, bytes, one.variant, 2).status());
      COMM_ASSIGN(const double first, sample(collective, bytes, one.variant, 3));
      COMM_ASSIGN(const double second, sample(collective, bytes, one.variant, 3));
      const double us = std::min(first, second);
      one.times = static_cast<int>(std::clamp(options_.sample_ms * 1e3 / us, 2.0, 5000.0));
      one.us.push_back(us);
      best = best == 0 ? us : std::min(best, us);
    }
    // Those that are far behind need no more looks. The times are the same on all ranks.
    for (int round = 0; round < options_.rounds; ++round) {
      for (Sampled& one : sampled) {
        if (one.us.front() > 5 * best) continue;
        if (round == 0) one.us.clear();
        COMM_ASSIGN(const double us, sample(collective, bytes, one.variant, one.times));
        one.us.push_back(us);
        if (round == 0) best = std::min(best, us);
      }
    }
    for (Sampled& one : sampled) {
      std::nth_element(one.us.begin(), one.us.begin() + static_cast<ptrdiff_t>(one.us.size() / 2),
                       one.us.end());
      const Variant& variant = variants_[one.variant];
      result.timings.push_back({variant, one.us[one.us.size() / 2],
                                chooser_.prices(call)[static_cast<size_t>(variant.way)]});
    }
    return result;
  }

  // Opens channels, and touches what is used in turn: the board's rings and windows.
  Status warm_up(Collective collective, size_t variant) {
    constexpr int kTimes = 40;
    const size_t most = kOneshotBytes / static_cast<size_t>(shape_.nranks);  // by one-shot, too
    return sample(collective, std::min(most, options_.max_bytes), variant, kTimes).status();
  }

  // A communicator that does everything this way.
  Status open(size_t variant) {
    const std::string path = folder_->path(variant);
    if (folder_->is_owner()) {
      TuningTable table("comm-tune", "one way for all");
      for (int i = 0; i < kNumCollectives; ++i) {
        if (!is_measured(static_cast<Collective>(i))) continue;
        TuningRow row;
        row.collective = static_cast<Collective>(i);
        row.way = variants_[variant].way;
        row.lanes = variants_[variant].lanes;
        row.window = variants_[variant].window;
        table.add(row);
      }
      std::ofstream(path) << table.to_text();
    }
    setenv("COMM_TUNER_FILE", path.c_str(), 1);
    comm_t made = nullptr;
    const commResult_t result = commSplit(base_, 0, shape_.rank, &made, nullptr);
    unsetenv("COMM_TUNER_FILE");
    if (result != commSuccess) return failed_call(result, "commSplit", base_);
    comms_[variant].reset(made);
    return Status::ok();
  }

  // Microseconds per call of the slowest rank.
  Result<double> sample(Collective collective, size_t bytes, size_t variant, int times) {
    comm_t comm = comms_[variant].get();
    TUNE_CALL(comm, commBarrier(comm, nullptr));
    const auto begin = Clock::now();
    for (int i = 0; i < times; ++i) COMM_TRY(do_once(comm, collective, bytes / sizeof(float)));
    float us = std::chrono::duration<float, std::micro>(Clock::now() - begin).count() /
               static_cast<float>(times);
    TUNE_CALL(base_, commAllReduce(&us, &us, 1, commFloat32, commMax, base_, nullptr));
    return us;
  }

  Status do_once(comm_t comm, Collective collective, size_t count) {
    const float* in = in_.data();
    float* out = out_.data();
    switch (collective) {
      case Collective::kAllReduce:
        TUNE_CALL(comm, commAllReduce(in, out, count, commFloat32, commSum, comm, nullptr));
        break;
      case Collective::kReduceScatter:
        TUNE_CALL(comm, commReduceScatter(in, out, count, commFloat32, commSum, comm, nullptr));
        break;
      case Collective::kAllGather:
        TUNE_CALL(comm, commAllGather(in, out, count, commFloat32, comm, nullptr));
        break;
      case Collective::kBroadcast:
        TUNE_CALL(comm, commBroadcast(in, out, count, commFloat32, 0, comm, nullptr));
        break;
      case Collective::kReduce:
        TUNE_CALL(comm, commReduce(in, out, count, commFloat32, commSum, 0, comm, nullptr));
        break;
      case Collective::kAllToAll:
        TUNE_CALL(comm, commAlltoAll(in, out, count, commFloat32, comm, nullptr));
        break;
      case Collective::kGather:
        TUNE_CALL(comm, commGather(in, out, count, commFloat32, 0, comm, nullptr));
        break;
      case Collective::kScatter:
        TUNE_CALL(comm, commScatter(in, out, count, commFloat32, 0, comm, nullptr));
        break;
      default:
        break;  // is_measured()
    }
    return Status::ok();
  }

  comm_t base_;
  const Options& options_;
  GroupShape shape_;
  std::unique_ptr<TableFolder> folder_;
  std::vector<Variant> variants_;
  Chooser chooser_;
  std::vector<float> in_, out_;
  std::vector<OwnedComm> comms_;  // by variant
};

}  // namespace

std::string Variant::to_string() const {
  std::string text = name_of(way);
  if (lanes > 0) text += fmt::format(", {} lanes", lanes);
  if (window > 0) text += fmt::format(", windows of {}K", window >> 10);
  return text;
}

Result<std::vector<Measurement>> measure(comm_t comm, const Options& options, bool shared_memory) {
  COMM_ASSIGN(GroupShape shape, look_at_group(comm, shared_memory));
  COMM_ASSIGN(auto folder, TableFolder::make(comm, shape.rank));
  COMM_ASSIGN(auto knobs, Knobs::load());
  return Rank(comm, options, std::move(shape), std::move(folder), std::move(knobs)).run();
}

std::string write_measurements(const std::vector<Measurement>& measurements) {
  std::string text;
  for (const Measurement& one : measurements) {
    text +=
        fmt::format("{} {} {} {} {} {} {}\n", static_cast<int>(one.key.collective), one.key.bytes,
                    one.key.nranks, one.key.hosts, static_cast<int>(one.key.medium),
                    static_cast<int>(one.by_model.way), one.timings.size());
    for (const Timing& timing : one.timings)
      text += fmt::format("{} {} {} {} {}\n", static_cast<int>(timing.variant.way),
                          timing.variant.lanes, timing.variant.window, timing.microseconds,
                          timing.model_us);
  }
  return text;
}

Result<std::vector<Measurement>> read_measurements(std::string_view text) {
  std::istringstream in{std::string(text)};
  std::vector<Measurement> measurements;
  int collective = 0, medium = 0, way = 0;
  Measurement one;
  for (size_t count = 0; in >> collective >> one.key.bytes >> one.key.nranks >> one.key.hosts >>
                         medium >> way >> count;) {
    one.key.collective = static_cast<Collective>(collective);
    one.key.medium = static_cast<Medium>(medium);
    one.by_model = {static_cast<Way>(way), 0, 0};
    one.timings.clear();
    for (; count > 0; --count) {
      Timing timing;
      in >> way >> timing.variant.lanes >> timing.variant.window >> timing.microseconds >>
          timing.model_us;
      timing.variant.way = static_cast<Way>(way);
      if (!in) return error(Code::kInternal, "rank 0's measurements break off");
      one.timings.push_back(timing);
    }
    measurements.push_back(one);
  }
  return measurements;
}

}  // namespace libcomm::tune
