#include "src/plan/tuner_plugin.h"

#include <comm/tuner.h>
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "src/base/log.h"

namespace libcomm {
namespace {

constexpr size_t kFirstStep = 8;               // the first question is about 0 to 8 bytes
constexpr size_t kLastStep = size_t{1} << 40;  // the last one about all that is larger
constexpr int kMostQuestions = 512;            // per collective
constexpr size_t kMostLogText = 1000;
static_assert(commTunerNumAlgorithms == kNumWays);
static_assert(commTunerHierarchical == static_cast<int>(Way::kHierarchical));
static_assert(commTunerNumCollectives == static_cast<int>(Collective::kSendRecv));
static_assert(commTunerBarrier == static_cast<int>(Collective::kBarrier));
static_assert(commTunerNetwork == static_cast<int>(Medium::kNetwork));

void plugin_log(commTunerLogLevel_t level, const char* text) {
  if (text == nullptr) return;
  const std::string_view line = std::string_view(text).substr(0, kMostLogText);
  if (level == commTunerLogWarn)
    log_warn("tuner plug-in: {}", line);
  else
    log_info(Subsys::kTuning, "tuner plug-in: {}", line);
}

// A plug-in's name stands in error texts and is the first line of the table that other ranks get.
std::string printable_name(const char* name) {
  constexpr size_t kMost = 64;
  std::string text;
  for (; *name != '\0' && text.size() < kMost; ++name) {
    const auto c = static_cast<unsigned char>(*name);
    if (c < 0x20 || c == 0x7f)
      text += fmt::format("\\x{:02x}", c);
    else
      text += *name;
  }
  return text;
}

struct CloseLibrary {
  void operator()(void* library) const { dlclose(library); }
};
using Library = std::unique_ptr<void, CloseLibrary>;

Result<Library> open_library(const std::string& name) {
  Library library(dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (library != nullptr) return library;
  std::string why = dlerror();
  if (name.find('/') == std::string::npos) {
    const std::string longer = "libcomm-tuner-" + name + ".so";
    library.reset(dlopen(longer.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (library != nullptr) return library;
    why += std::string("; ") + dlerror();
  }
  return error(Code::kInvalidArgument,
               "COMM_TUNER_PLUGIN={}: {}; give the path of the plug-in on rank 0's host", name,
               why);
}

// A plug-in between its init and destroy.
class Tuner {
 public:
  static Result<Tuner> start(const std::string& name, const GroupShape& shape,
                             const PricedGroup& priced) {
    COMM_ASSIGN(Library library, open_library(name));
    const auto* table =
        static_cast<const commTuner_v1_t*>(dlsym(library.get(), COMM_TUNER_PLUGIN_SYMBOL));
    if (table == nullptr)
      return error(
          Code::kInvalidArgument,
          "COMM_TUNER_PLUGIN={}: the library exports no {}; it is no tuner plug-in for this "
          "version of libcomm (comm/tuner.h)",
          name, COMM_TUNER_PLUGIN_SYMBOL);
    if (table->name == nullptr || *table->name == '\0' || table->init == nullptr ||
        table->getCollInfo == nullptr || table->destroy == nullptr)
      return error(Code::kInvalidArgument,
                   "COMM_TUNER_PLUGIN={}: an entry of its {} is NULL; all four must be set", name,
                   COMM_TUNER_PLUGIN_SYMBOL);
    commTunerGroup_t group{};
    group.size = sizeof group;
    group.nranks = shape.nranks;
    group.nhosts = shape.hosts;
    group.maxRanksPerHost = priced.most_per_host;
    group.path = static_cast<commTunerPath_t>(priced.medium);
    group.maxRanksPerCore = static_cast<float>(priced.ranks_per_core);
    group.maxLanes = std::max(1, shape.max_lanes);
    void* context = nullptr;
    const commResult_t result = table->init(&context, &group, plugin_log);
    if (result != commSuccess)
      return error(
          Code::kSystem,
          "COMM_TUNER_PLUGIN={}: init of '{}' failed with result {}; its own log lines may "
          "say why; unset COMM_TUNER_PLUGIN to go on without it",
          name, printable_name(table->name), static_cast<int>(result));
    return Tuner(std::move(library), table, context, group.maxLanes);
  }
  Tuner(Tuner&& other) noexcept
      : library_(std::move(other.library_)),
        table_(std::exchange(other.table_, nullptr)),
        context_(other.context_),
        max_lanes_(other.max_lanes_) {}
  Tuner& operator=(Tuner&&) = delete;
  ~Tuner() {
    if (table_ == nullptr) return;
    const commResult_t result = table_->destroy(context_);
    if (result != commSuccess)
      log_warn("tuner plug-in '{}': destroy failed with result {}", name(),
               static_cast<int>(result));
  }

  std::string name() const { return printable_name(table_->name); }
  int max_lanes() const { return max_lanes_; }
  commResult_t ask(commTunerCollInfo_t* info) const { return table_->getCollInfo(context_, info); }

 private:
  Tuner(Library library, const commTuner_v1_t* table, void* context, int max_lanes)
      : library_(std::move(library)), table_(table), context_(context), max_lanes_(max_lanes) {}

  Library library_;
  const commTuner_v1_t* table_;
  void* context_;
  int max_lanes_;
};

// Collects what a plug-in says about one collective.
class Questions {
 public:
  Questions(const Tuner& tuner, const Chooser& model, Collective collective, int nranks)
      : tuner_(tuner), model_(model), collective_(collective), nranks_(nranks) {}

  // The answers as rows, from 0 bytes to the largest; kInvalidArgument when one makes no sense.
  Result<std::vector<TuningRow>> ask() {
    std::vector<TuningRow> rows;
    size_t bytes = 0;
    for (int question = 0;; ++question) {
      if (question == kMostQuestions)
        return error(Code::kInvalidArgument, "more than {} ranges", kMostQuestions);
      TuningRow row;
      row.collective = collective_;
      row.min_bytes = bytes;
      row.nranks = nranks_;
      COMM_ASSIGN(const bool decided, ask_about(bytes, &row));
      if (decided) rows.push_back(row);
      if (row.max_bytes == SIZE_MAX) return rows;
      bytes = row.max_bytes + 1;
    }
  }

 private:
  // The end of the range from `bytes` in which the same ways are possible, at most a power of two.
  size_t reach(size_t bytes) const {
    size_t end = kFirstStep;
    while (end < bytes) end *= 2;
    if (end > kLastStep) return SIZE_MAX;
    const auto ways = possible(bytes);
    if (possible(end) == ways) return end;
    size_t same = bytes;
    while (end - same > 1) {
      const size_t middle = same + (end - same) / 2;
      (possible(middle) == ways ? same : end) = middle;
    }
    return same;
  }

  std::array<bool, kNumWays> possible(size_t bytes) const {
    const WayPrices prices = model_.prices(Call::of(collective_, bytes, nranks_));
    std::array<bool, kNumWays> ways;
    for (size_t i = 0; i < ways.size(); ++i) ways[i] = prices[i] >= 0;
    return ways;
  }

  // Fills in the row from max_bytes on. True: the plug-in has decided something.
  Result<bool> ask_about(size_t bytes, TuningRow* row) const {
    const Call call = Call::of(collective_, bytes, nranks_);
    const WayPrices prices = model_.prices(call);
    commTunerCollInfo_t info{};
    info.size = sizeof info;
    info.collective = static_cast<commTunerCollective_t>(collective_);
    info.bytes = bytes;
    info.through = row->max_bytes = reach(bytes);
    for (size_t i = 0; i < prices.size(); ++i)
      info.cost[i] = prices[i] < 0 ? COMM_TUNER_IMPOSSIBLE : static_cast<float>(prices[i]);
    const commTunerCollInfo_t asked = info;
    const commResult_t result = tuner_.ask(&info);
    if (result != commSuccess)
      return error(Code::kInvalidArgument, "getCollInfo failed with result {} for {} bytes",
                   static_cast<int>(result), bytes);
    if (info.through < bytes)
      return error(Code::kInvalidArgument, "through {} is less than {} bytes", info.through, bytes);
    if (info.lanes < 0 || info.lanes > tuner_.max_lanes())
      return error(Code::kInvalidArgument, "{} lanes for {} bytes; there are 1 to {}", info.lanes,
                   bytes, tuner_.max_lanes());
    if (info.window != 0 && (info.window < kLeastWindow || info.window > kMostWindow))
      return error(Code::kInvalidArgument, "a window of {} bytes; it may have {} to {}",
                   info.window, kLeastWindow, kMostWindow);
    row->max_bytes = std::min(row->max_bytes, info.through);
    row->lanes = info.lanes;
    row->window = info.window;

    bool changed = false;
    int best = -1;
    for (int i = 0; i < kNumWays; ++i) {
      if (std::isnan(info.cost[i]))
        return error(Code::kInvalidArgument, "the cost of {} for {} bytes is not a number",
                     name_of(static_cast<Way>(i)), bytes);
      changed = changed || info.cost[i] != asked.cost[i];
      if (asked.cost[i] < 0 || info.cost[i] < 0) continue;
      if (best < 0 || info.cost[i] < info.cost[best]) best = i;
    }
    if (best < 0)
      return error(Code::kInvalidArgument, "it leaves no algorithm for {} bytes", bytes);
    row->way = static_cast<Way>(best);
    if (!changed) {
      COMM_ASSIGN(const Decision decision, model_.choose(call));
      row->way = decision.way;
    }
    return changed || row->lanes != 0 || row->window != 0;
  }

  const Tuner& tuner_;
  const Chooser& model_;
  Collective collective_;
  int nranks_;
};

}  // namespace

Result<TuningTable> ask_tuner_plugin(const std::string& name, const GroupShape& shape,
                                     const Chooser& model) {
  COMM_ASSIGN(const Tuner tuner, Tuner::start(name, shape, model.group()));
  TuningTable table(fmt::format("tuner plug-in '{}'", tuner.name()), "as a plug-in said");
  for (int i = 0; i < commTunerNumCollectives; ++i) {
    const auto collective = static_cast<Collective>(i);
    const auto rows = Questions(tuner, model, collective, shape.nranks).ask();
    if (!rows) {
      log_warn("{}: {}: {}; it is not used for this collective", table.source(),
               name_of(collective), rows.status().message());
      continue;
    }
    for (const TuningRow& row : *rows) table.add(row);
  }
  return table;
}

}  // namespace libcomm
