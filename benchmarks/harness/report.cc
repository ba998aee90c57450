#include "benchmarks/harness/report.h"

#include <comm.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>

#include "benchmarks/harness/json.h"

namespace bench {
namespace {

constexpr size_t kMostRowsKept = 100000;  // for JSON, in an endless run

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "host";
}

void copy_text(const std::string& from, char* to, size_t size) {
  const size_t length = std::min(from.size(), size - 1);
  std::memcpy(to, from.data(), length);
  to[length] = '\0';
}

void say_not_written(const char* program, const std::string& path) {
  std::fprintf(stderr, "%s: cannot write --output_file=%s: %s\n", program, path.c_str(),
               std::strerror(errno));
}

std::string columns_of(const Measurement& half) {
  char text[64];
  std::snprintf(text, sizeof text, "  %7s  %6s  %6s", fit_number(half.time_us, 7).c_str(),
                fit_number(half.algbw, 6).c_str(), fit_number(half.busbw, 6).c_str());
  std::string columns = text;
  if (half.wrong) {
    std::snprintf(text, sizeof text, "  %5g", static_cast<double>(*half.wrong));
    return columns + text;
  }
  return columns + "    N/A";
}

void write_half(JsonWriter& json, const char* name, const std::optional<Measurement>& half,
                bool cpu_time) {
  json.key(name);
  if (!half) {
    json.null();
    return;
  }
  json.begin_object();
  json.field(cpu_time ? "cpu_time" : "time", half->time_us);
  json.field("alg_bw", half->algbw).field("bus_bw", half->busbw);
  json.key("nwrong");
  half->wrong ? json.value(*half->wrong) : json.null();
  json.end_object();
}

}  // namespace

RankInfo describe_this_process(int rank, int device) {
  RankInfo info;
  info.rank = rank;
  info.pid = static_cast<int>(getpid());
  info.device = device;
  if (gethostname(info.host, sizeof info.host - 1) != 0) copy_text("unknown", info.host, 64);
  info.host[std::strcspn(info.host, ".")] = '\0';
  copy_text(processor_name(), info.model, sizeof info.model);
  return info;
}

std::string fit_number(double value, int width) {
  char text[64];
  for (const int decimals : {2, 1, 0}) {
    std::snprintf(text, sizeof text, "%*.*f", width, decimals, value);
    if (static_cast<int>(std::strlen(text)) <= width) return text;
  }
  std::snprintf(text, sizeof text, "%*.*e", width, width >= 7 ? 1 : 0, value);
  return text;
}

Report::Report(const char* program, const Options& options, std::vector<std::string> args,
               FILE* table, FILE* progress)
    : program_(program),
      options_(options),
      args_(std::move(args)),
      table_(table),
      progress_(progress),
      started_(now_text()) {}

void Report::header(RunInfo run) {
  info_ = std::move(run);
  const Options& o = options_;
  std::fprintf(table_, "# libcomm version %s comm-headers=%d comm-library=%d\n",
               info_.library_version.c_str(), COMM_VERSION_CODE, info_.api_level);
  std::fprintf(table_, "# Collective test starting: %s\n", program_);
  std::fprintf(
      table_,
      "# nThread %d nGpus %d minBytes %zu maxBytes %zu step: %zu(%s) warmup iters: %d iters: "
      "%d agg iters: %d validation: %d graph: 0\n",
      o.nthreads, o.ngpus, o.min_bytes, o.max_bytes,
      o.step_factor > 1 ? o.step_factor : o.step_bytes, o.step_factor > 1 ? "factor" : "bytes",
      o.warmup_iters.value_or(5), o.iters.value_or(20), o.agg_iters, o.check);
  if (!o.iters) {
    std::fprintf(table_,
                 "# iters without -n: 200 up to 64K, 20 up to 64M, then fewer, at least 5\n");
  }
  if (o.blocking) {
    std::fprintf(table_, "# Blocking Enabled: wait for completion after each collective\n");
  }
  if (o.parallel_init) {
    std::fprintf(table_, "# Parallel Init Enabled: threads call into commInitRank concurrently\n");
  }
  std::fprintf(table_, "#\n# Using devices\n");
  for (const RankInfo& info : info_.ranks) {
    std::fprintf(table_, "#  Rank %2d Group %2d Pid %6d on %10s device %2d [%s] %s\n", info.rank, 0,
                 info.pid, info.host, info.device, info.device < 0 ? "cpu" : "gpu", info.model);
  }
  const char* time = o.cpu_time ? "cputime" : "time";
  const int stamp_width = o.timestamps ? 19 : 0;
  std::fprintf(table_,
               "#\n# %10s  %12s  %8s  %6s  %6s           out-of-place                       "
               "in-place          \n",
               "", "", "", "", "");
  std::fprintf(table_, "# %10s  %12s  %8s  %6s  %6s  %7s  %6s  %6s %6s  %7s  %6s  %6s %6s %*s\n",
               "size", "count", "type", "redop", "root", time, "algbw", "busbw", "#wrong", time,
               "algbw", "busbw", "#wrong", stamp_width, o.timestamps ? "timestamp" : "");
  std::fprintf(table_, "# %10s  %12s  %8s  %6s  %6s  %7s  %6s  %6s  %5s  %7s  %6s  %6s  %5s %*s\n",
               "(B)", "(elements)", "", "", "", "(us)", "(GB/s)", "(GB/s)", "", "(us)", "(GB/s)",
               "(GB/s)", "", stamp_width, o.timestamps ? "%Y-%m-%d %H:%M:%S" : "");
  std::fflush(table_);
}

void Report::progress(size_t done, size_t total, size_t bytes, const char* type,
                      const char* redop) {
  if (progress_ == nullptr) return;
  if (total > 0) {
    std::fprintf(progress_, "\r[%zu/%zu] ", done + 1, total);
  } else {
    std::fprintf(progress_, "\r[%zu] ", done + 1);
  }
  std::fprintf(progress_, "%zu bytes, %s %s ...\033[K", bytes, type, redop);
  std::fflush(progress_);
  progress_shown_ = true;
}

void Report::clear_progress() {
  if (!progress_shown_) return;
  std::fprintf(progress_, "\r\033[K");
  std::fflush(progress_);
  progress_shown_ = false;
}

void Report::row(const Row& row) {
  clear_progress();
  std::fprintf(table_, "%12zu  %12zu  %8s  %6s  %6d", row.bytes, row.count, row.type, row.redop,
               row.root);
  const Measurement absent;
  std::fprintf(table_, "%s%s", columns_of(row.out_of_place).c_str(),
               columns_of(row.in_place.value_or(absent)).c_str());
  if (options_.timestamps) std::fprintf(table_, "%21s", now_text().c_str());
  std::fprintf(table_, "\n");
  std::fflush(table_);

  busbw_total_ += row.out_of_place.busbw;
  ++busbw_count_;
  if (row.in_place) {
    busbw_total_ += row.in_place->busbw;
    ++busbw_count_;
  }
  if (rows_.size() < kMostRowsKept) rows_.push_back(row);
}

double Report::average_busbw() const {
  return busbw_count_ == 0 ? 0 : busbw_total_ / static_cast<double>(busbw_count_);
}

void Report::footer(int64_t wrong) {
  clear_progress();
  wrong_ = wrong;
  std::fprintf(table_, "# Out of bounds values : %lld %s\n", static_cast<long long>(wrong),
               wrong != 0 ? "FAILED" : "OK");
  std::fprintf(table_, "# Avg bus bandwidth    : %g \n#\n", average_busbw());
  std::fprintf(table_, "# Collective test concluded: %s\n", program_);
  std::fflush(table_);
}

std::string Report::json() const {
  const Options& o = options_;
  JsonWriter json;
  json.begin_object().field("version", 1).field("program", program_);
  json.field("start_time", started_).field("end_time", now_text());
  json.key("args").begin_array();
  for (const std::string& arg : args_) json.value(arg);
  json.end_array();
  json.field("comm_version", info_.api_level).field("library_version", info_.library_version);

  json.key("config").begin_object();
  json.field("procs", info_.procs).field("nthreads", o.nthreads).field("ngpus", o.ngpus);
  json.field("minimum_bytes", o.min_bytes).field("maximum_bytes", o.max_bytes);
  if (o.step_factor > 1) {
    json.field("step_factor", o.step_factor);
  } else {
    json.field("step_bytes", o.step_bytes);
  }
  json.field("warmup_iters", o.warmup_iters.value_or(5)).field("iterations", o.iters.value_or(20));
  json.field("aggregated_iterations", o.agg_iters).field("validation", o.check);
  json.field("average", static_cast<int>(average_of(o))).field("blocking_collectives", o.blocking);
  json.field("stream", o.host_stream ? "host" : "null");
  json.field("memory", o.memory == Memory::kComm ? "comm" : "malloc");
  json.field("registration", static_cast<int>(o.registration));
  json.field("parallel_init", o.parallel_init);
  json.end_object();

  json.key("ranks").begin_array();
  for (const RankInfo& info : info_.ranks) {
    json.begin_object().field("rank", info.rank).field("group", 0).field("pid", info.pid);
    json.field("hostname", static_cast<const char*>(info.host)).field("device", info.device);
    json.field("device_info", static_cast<const char*>(info.model)).end_object();
  }
  json.end_array();

  json.key("results").begin_array();
  for (const Row& row : rows_) {
    json.begin_object().field("size", row.bytes).field("count", row.count);
    json.field("type", row.type).field("redop", row.redop).field("root", row.root);
    json.field("iterations", row.iterations);
    write_half(json, "out_of_place", row.out_of_place, o.cpu_time);
    write_half(json, "in_place", row.in_place, o.cpu_time);
    json.end_object();
  }
  json.end_array();
  json.key("out_of_bounds").begin_object();
  json.field("count", wrong_).field("okay", wrong_ == 0).end_object();
  json.key("average_bus_bandwidth").begin_object();
  json.field("bandwidth", average_busbw()).end_object();
  json.end_object();
  return json.text() + "\n";
}

bool Report::write_json(const std::string& path) const {
  std::ofstream file(path, std::ios::trunc);
  file << json();
  file.close();
  if (!file) say_not_written(program_, path);
  return static_cast<bool>(file);
}

bool can_write(const char* program, const std::string& path) {
  const bool can = static_cast<bool>(std::ofstream(path, std::ios::app));
  if (!can) say_not_written(program, path);
  return can;
}

}  // namespace bench
