// What NCCL's calls cost on one GPU, in whatever library has them: ours, NVIDIA's, or both in turns
// in the same process. Ranks are threads or processes, and all of them share GPU 0.
//
// Libraries and the CUDA driver are opened at run time; nothing of CUDA is needed to build. The
// tables are Markdown: tests/gpu/day.sh puts them under the command that made them.
#include <dlfcn.h>
#include <getopt.h>
#include <nccl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "benchmarks/harness/launch.h"
#include "benchmarks/harness/options.h"

namespace {

constexpr char kProgram[] = "gpu_bench";
constexpr char kUsage[] =
    "USAGE: gpu_bench --library <path of a libnccl.so.2> [...]\n"
    "\t[--library <path>] one more, measured in turns with the first (at most 4)\n"
    "\t[--what allreduce|init|memory] (allreduce)\n"
    "\t[--ranks <n>] on GPU 0 (1)\n"
    "\t[--procs] ranks are processes, not threads\n"
    "\t[-b,--minbytes <size>] [-e,--maxbytes <size>] sizes of the all-reduce (64M to 64M)\n"
    "\t[-f,--stepfactor <n>] (2)\n"
    "\t[-n,--rounds <n>] (7)\n"
    "\t[-h,--help]\n";
constexpr int kMostRanks = 64;
constexpr int kMostLibraries = 4;
constexpr double kRoundSeconds = 0.1;  // about what one library takes in one round
constexpr int kMostCalls = 5000;

[[noreturn]] void fail(int rank, const std::string& text) {
  std::fprintf(stderr, "%s: rank %d: %s\n", kProgram, rank, text.c_str());
  std::fflush(nullptr);
  _exit(1);  // other threads may hold anything: no destructors
}

template <typename Function>
Function* symbol(int rank, void* library, const char* name) {
  void* found = dlsym(library, name);
  if (found == nullptr) fail(rank, std::string("no ") + name + " in a library: " + dlerror());
  return reinterpret_cast<Function*>(found);
}

// ---- The driver

using Address = unsigned long long;

// What this program needs of libcuda.so.1. Used by the thread that made it.
class Gpu {
 public:
  // Makes GPU 0 current in this thread.
  explicit Gpu(int rank);
  ~Gpu() {
    call("cuMemFreeHost", host_);
    call("cuStreamDestroy_v2", stream_);
  }
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  std::string name() const;
  // Bytes of the GPU that nobody holds.
  size_t free_bytes() const;
  void* allocate(size_t bytes) const;
  void release(void* memory) const { call("cuMemFree_v2", number(memory)); }
  // Queued.
  void copy(void* to, const void* from, size_t bytes) const {
    call("cuMemcpyAsync", number(to), number(from), bytes, stream_);
  }
  void wait() const { call("cuStreamSynchronize", stream_); }
  cudaStream_t stream() const { return static_cast<cudaStream_t>(stream_); }

  // floats[i] = value(i) for all i; the other way round: how many are not.
  void fill(void* floats, size_t count, const std::function<float(size_t)>& value) const;
  size_t wrong(const void* floats, size_t count, const std::function<float(size_t)>& value) const;

 private:
  static constexpr size_t kChunk = size_t{1} << 20;  // floats

  static Address number(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }
  template <typename... Arguments>
  void call(const char* name, Arguments... arguments) const {
    const int result = symbol<int(Arguments...)>(rank_, library_, name)(arguments...);
    if (result != 0) fail(rank_, std::string(name) + " gave " + std::to_string(result));
  }

  int rank_;
  void* library_;
  void* stream_ = nullptr;
  float* host_ = nullptr;  // pinned
};

Gpu::Gpu(int rank) : rank_(rank), library_(dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL)) {
  if (library_ == nullptr) fail(rank, std::string("no CUDA driver: ") + dlerror());
  call("cuInit", 0U);
  int count = 0;
  call("cuDeviceGetCount", &count);
  if (count == 0) fail(rank, "the CUDA driver shows no GPU");
  int device = 0;
  void* context = nullptr;
  call("cuDeviceGet", &device, 0);
  call("cuDevicePrimaryCtxRetain", &context, device);
  call("cuCtxSetCurrent", context);
  call("cuStreamCreate", &stream_, 1U);  // does not wait for the default stream
  void* host = nullptr;
  call("cuMemHostAlloc", &host, kChunk * sizeof(float), 0U);
  host_ = static_cast<float*>(host);
}

std::string Gpu::name() const {
  char text[256] = "";
  int device = 0;
  call("cuDeviceGet", &device, 0);
  call("cuDeviceGetName", static_cast<char*>(text), static_cast<int>(sizeof text), device);
  return text;
}

size_t Gpu::free_bytes() const {
  size_t free = 0;
  size_t total = 0;
  call("cuMemGetInfo_v2", &free, &total);
  return free;
}

void* Gpu::allocate(size_t bytes) const {
  Address address = 0;
  call("cuMemAlloc_v2", &address, bytes);
  return reinterpret_cast<void*>(static_cast<uintptr_t>(address));
}

void Gpu::fill(void* floats, size_t count, const std::function<float(size_t)>& value) const {
  for (size_t first = 0; first < count; first += kChunk) {
    const size_t size = std::min(kChunk, count - first);
    for (size_t i = 0; i < size; ++i) host_[i] = value(first + i);
    copy(static_cast<float*>(floats) + first, host_, size * sizeof(float));
    wait();
  }
}

size_t Gpu::wrong(const void* floats, size_t count,
                  const std::function<float(size_t)>& value) const {
  size_t found = 0;
  for (size_t first = 0; first < count; first += kChunk) {
    const size_t size = std::min(kChunk, count - first);
    copy(host_, static_cast<const float*>(floats) + first, size * sizeof(float));
    wait();
    for (size_t i = 0; i < size; ++i) found += host_[i] != value(first + i);
  }
  return found;
}

// ---- The libraries

// The calls of one libnccl.so.2. Two of them live beside each other because each is opened by its
// path and keeps its names to itself.
class Nccl {
 public:
  Nccl(int rank, const std::string& path)
      : rank_(rank), path_(path), library_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) fail(rank, "cannot open " + path + ": " + dlerror());
  }

  const std::string& path() const { return path_; }
  int version() const {
    int number = 0;
    call("ncclGetVersion", &number);
    return number;
  }
  void make_id(ncclUniqueId* id) const { call("ncclGetUniqueId", id); }
  ncclComm_t init(int nranks, const ncclUniqueId& id) const {
    ncclComm_t comm = nullptr;
    call("ncclCommInitRank", &comm, nranks, id, rank_);
    return comm;
  }
  void sum(const void* send, void* recv, size_t count, ncclComm_t comm, cudaStream_t stream) const {
    call("ncclAllReduce", send, recv, count, ncclFloat32, ncclSum, comm, stream);
  }
  void destroy(ncclComm_t comm) const { call("ncclCommDestroy", comm); }

 private:
  template <typename... Arguments>
  void call(const char* name, Arguments... arguments) const {
    const ncclResult_t result =
        symbol<ncclResult_t(Arguments...)>(rank_, library_, name)(arguments...);
    if (result == ncclSuccess) return;
    const char* why = symbol<const char*(ncclComm_t)>(rank_, library_, "ncclGetLastError")(nullptr);
    fail(rank_, path_ + ": " + name + " gave " + std::to_string(result) + ": " + why);
  }

  int rank_;
  std::string path_;
  void* library_;
};

// ---- The run

struct Settings {
  std::vector<std::string> libraries;
  std::string what = "allreduce";
  int ranks = 1;
  bool processes = false;
  bench::Options sizes;  // min_bytes, max_bytes and step_factor of it
  int rounds = 7;
};

// What ranks tell each other, in memory that all of them have.
struct Shared {
  pthread_barrier_t barrier;
  ncclUniqueId ids[kMostLibraries];
  double seconds[kMostRanks];
  size_t wrong[kMostRanks];
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// One rank of the run, in a thread of its own.
class Rank {
 public:
  Rank(const Settings& settings, Shared& shared, int rank)
      : settings_(settings), shared_(shared), rank_(rank), gpu_(rank) {
    for (const std::string& path : settings.libraries) libraries_.emplace_back(rank, path);
  }

  // Whether all results were right.
  bool run();

 private:
  using Comms = std::vector<ncclComm_t>;

  bool prints() const { return rank_ == 0; }
  void meet() const { pthread_barrier_wait(&shared_.barrier); }
  // The largest of all ranks' values.
  double slowest(double seconds) const;
  Comms init() const;
  void destroy(const Comms& comms) const;
  void heading() const;

  bool all_reduces() const;
  bool measure(size_t bytes, const Comms& comms, void* send, void* recv) const;
  size_t check(const Nccl& library, ncclComm_t comm, void* send, void* recv, size_t count) const;
  // Seconds per call of the slowest rank: `calls` queued at once, or each waited for.
  double time(int calls, bool each, const std::function<void()>& call) const;
  int calls_for(const std::function<void()>& call) const;
  void inits() const;
  void memory() const;

  const Settings& settings_;
  Shared& shared_;
  int rank_;
  Gpu gpu_;
  std::vector<Nccl> libraries_;
};

double Rank::slowest(double seconds) const {
  shared_.seconds[rank_] = seconds;
  meet();
  const double most = *std::max_element(shared_.seconds, shared_.seconds + settings_.ranks);
  meet();  // nobody writes the next before all have read
  return most;
}

Rank::Comms Rank::init() const {
  if (prints()) {
    for (size_t i = 0; i < libraries_.size(); ++i) libraries_[i].make_id(&shared_.ids[i]);
  }
  meet();
  Comms comms;
  for (size_t i = 0; i < libraries_.size(); ++i) {
    comms.push_back(libraries_[i].init(settings_.ranks, shared_.ids[i]));
  }
  meet();
  return comms;
}

void Rank::destroy(const Comms& comms) const {
  for (size_t i = 0; i < comms.size(); ++i) libraries_[i].destroy(comms[i]);
  meet();
}

void Rank::heading() const {
  if (!prints()) return;
  const char* way = settings_.processes ? "ranks as processes" : "ranks as threads of one process";
  std::printf("%d %s on %s.\n\n", settings_.ranks, settings_.ranks == 1 ? "rank" : way,
              gpu_.name().c_str());
  for (size_t i = 0; i < libraries_.size(); ++i) {
    std::printf("- library %zu: `%s`, ncclGetVersion %d\n", i + 1, libraries_[i].path().c_str(),
                libraries_[i].version());
  }
  std::printf("\n");
}

bool Rank::run() {
  meet();  // all have the GPU
  heading();
  bool right = true;
  if (settings_.what == "init") {
    inits();
  } else if (settings_.what == "memory") {
    memory();
  } else {
    right = all_reduces();
  }
  if (prints()) std::fflush(stdout);
  return right;
}

// ---- All-reduce

float input(int rank, size_t i) {
  return static_cast<float>((i * 31 + static_cast<size_t>(rank) * 7) % 1021);
}

bool Rank::all_reduces() const {
  const Comms comms = init();
  void* send = gpu_.allocate(settings_.sizes.max_bytes);
  void* recv = gpu_.allocate(settings_.sizes.max_bytes);
  if (prints()) {
    std::printf(
        "| bytes | library | queued: median us | least | most | call and wait: median us | copy us "
        "| "
        "floor us | queued / floor |\n|---|---|---|---|---|---|---|---|---|\n");
  }
  bool right = true;
  for (const size_t bytes : bench::sizes_of(settings_.sizes)) {
    right = measure(bytes, comms, send, recv) && right;
  }
  if (prints()) {
    std::printf(
        "\nfloat, sum, out of place; times are the slowest rank's; %d rounds. copy: the driver's "
        "copy of "
        "as many bytes on the GPU, queued. floor: one copy per rank, since each rank's input is "
        "read "
        "and each rank's output is written.\n",
        settings_.rounds);
  }
  gpu_.release(send);
  gpu_.release(recv);
  destroy(comms);
  return right;
}

bool Rank::measure(size_t bytes, const Comms& comms, void* send, void* recv) const {
  const size_t count = bytes / sizeof(float);
  gpu_.fill(send, count, [this](size_t i) { return input(rank_, i); });
  size_t wrong = 0;
  std::vector<std::function<void()>> work;
  std::vector<int> calls;
  for (size_t i = 0; i < comms.size(); ++i) {
    wrong += check(libraries_[i], comms[i], send, recv, count);
    work.emplace_back([this, i, send, recv, count, &comms] {
      libraries_[i].sum(send, recv, count, comms[i], gpu_.stream());
    });
    calls.push_back(calls_for(work.back()));
  }
  const auto copy = [&] {
    if (prints()) gpu_.copy(recv, send, bytes);
  };
  const int copies = calls_for(copy);
  std::vector<std::vector<double>> queued(comms.size()), waited(comms.size());
  std::vector<double> copied;
  for (int round = 0; round < settings_.rounds; ++round) {
    for (size_t i = 0; i < comms.size(); ++i) {
      queued[i].push_back(time(calls[i], false, work[i]));
      waited[i].push_back(time(calls[i], true, work[i]));
    }
    copied.push_back(time(copies, false, copy));
  }
  shared_.wrong[rank_] = wrong;
  meet();
  size_t all = 0;
  for (int rank = 0; rank < settings_.ranks; ++rank) all += shared_.wrong[rank];
  meet();
  if (!prints()) return all == 0;
  const double copy_us = median_of(copied) * 1e6;
  const double floor_us = copy_us * settings_.ranks;
  for (size_t i = 0; i < comms.size(); ++i) {
    const double median = median_of(queued[i]) * 1e6;
    std::printf("| %zu | %zu | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f | %.3f |\n", bytes, i + 1,
                median, *std::min_element(queued[i].begin(), queued[i].end()) * 1e6,
                *std::max_element(queued[i].begin(), queued[i].end()) * 1e6,
                median_of(waited[i]) * 1e6, copy_us, floor_us,
                floor_us > 0 ? median / floor_us : 0.0);
  }
  std::fflush(stdout);
  if (all > 0) {
    std::fprintf(stderr, "%s: %zu wrong elements of %zu bytes\n", kProgram, all, bytes);
  }
  return all == 0;
}

// One call into poisoned memory. Returns the elements that are wrong on this rank.
size_t Rank::check(const Nccl& library, ncclComm_t comm, void* send, void* recv,
                   size_t count) const {
  gpu_.fill(recv, count, [](size_t) { return -1.0F; });
  meet();
  library.sum(send, recv, count, comm, gpu_.stream());
  gpu_.wait();
  return gpu_.wrong(recv, count, [this](size_t i) {
    float sum = 0;  // of small integers: exact
    for (int rank = 0; rank < settings_.ranks; ++rank) sum += input(rank, i);
    return sum;
  });
}

double Rank::time(int calls, bool each, const std::function<void()>& call) const {
  gpu_.wait();
  meet();
  const double start = now();
  for (int i = 0; i < calls; ++i) {
    call();
    if (each) gpu_.wait();
  }
  gpu_.wait();
  return slowest((now() - start) / calls);
}

// The same on all ranks. Warms up, too.
int Rank::calls_for(const std::function<void()>& call) const {
  (void)time(2, false, call);
  const double seconds = std::max(time(3, true, call), 1e-9);
  return std::clamp(static_cast<int>(kRoundSeconds / 2 / seconds), 3, kMostCalls);
}

// ---- Making communicators

void Rank::inits() const {
  if (prints()) {
    std::printf(
        "| library | init: median ms | least | most | destroy: median ms |\n"
        "|---|---|---|---|---|\n");
  }
  for (size_t i = 0; i < libraries_.size(); ++i) {
    std::vector<double> init_ms, destroy_ms;
    for (int round = -1; round < settings_.rounds; ++round) {
      if (prints()) libraries_[i].make_id(&shared_.ids[i]);
      meet();
      double start = now();
      const ncclComm_t comm = libraries_[i].init(settings_.ranks, shared_.ids[i]);
      const double init = slowest(now() - start);
      start = now();
      libraries_[i].destroy(comm);
      const double destroy = slowest(now() - start);
      if (round < 0) continue;  // what is done once in a process
      init_ms.push_back(init * 1e3);
      destroy_ms.push_back(destroy * 1e3);
    }
    if (!prints()) continue;
    std::printf("| %zu | %.2f | %.2f | %.2f | %.2f |\n", i + 1, median_of(init_ms),
                *std::min_element(init_ms.begin(), init_ms.end()),
                *std::max_element(init_ms.begin(), init_ms.end()), median_of(destroy_ms));
  }
  if (prints()) {
    std::printf("\nTimes are the slowest rank's; %d rounds, after one that is not counted.\n",
                settings_.rounds);
  }
}

// ---- GPU memory of a communicator

void Rank::memory() const {
  constexpr size_t kBytes = size_t{64} << 20;
  void* send = gpu_.allocate(kBytes);
  void* recv = gpu_.allocate(kBytes);
  gpu_.fill(send, kBytes / sizeof(float), [this](size_t i) { return input(rank_, i); });
  if (prints()) {
    std::printf(
        "| library | communicator | held after init, bytes per rank | after an all-reduce of 64 "
        "MiB | after destroy |\n|---|---|---|---|---|\n");
  }
  for (size_t i = 0; i < libraries_.size(); ++i) {
    for (int turn = 1; turn <= 3; ++turn) {
      meet();
      const size_t before = prints() ? gpu_.free_bytes() : 0;
      meet();  // rank 0 has looked
      if (prints()) libraries_[i].make_id(&shared_.ids[i]);
      meet();
      const ncclComm_t comm = libraries_[i].init(settings_.ranks, shared_.ids[i]);
      meet();
      const size_t made = prints() ? gpu_.free_bytes() : 0;
      meet();
      libraries_[i].sum(send, recv, kBytes / sizeof(float), comm, gpu_.stream());
      gpu_.wait();
      meet();
      const size_t used = prints() ? gpu_.free_bytes() : 0;
      meet();
      libraries_[i].destroy(comm);
      meet();
      if (!prints()) continue;
      const auto held = [&](size_t free) {
        return (static_cast<double>(before) - static_cast<double>(free)) / settings_.ranks;
      };
      std::printf("| %zu | %d | %.0f | %.0f | %.0f |\n", i + 1, turn, held(made), held(used),
                  held(gpu_.free_bytes()));
    }
  }
  if (prints()) {
    std::printf(
        "\nBy cuMemGetInfo. What the first communicator leaves, such as loaded kernels, the next "
        "ones find.\n");
  }
  gpu_.release(send);
  gpu_.release(recv);
}

// ---- The command line

int number(const char* name, const char* text, int least, int most) {
  char* end = nullptr;
  errno = 0;
  const long value = std::strtol(text, &end, 10);
  if (end != text && *end == '\0' && errno == 0 && value >= least && value <= most) {
    return static_cast<int>(value);
  }
  std::fprintf(stderr, "%s: --%s=%s is not a number from %d to %d\n", kProgram, name, text, least,
               most);
  std::exit(2);
}

size_t size(const char* name, const char* text) {
  const auto bytes = bench::parse_size(text);
  if (bytes && *bytes >= sizeof(float)) return *bytes / sizeof(float) * sizeof(float);
  std::fprintf(stderr, "%s: --%s=%s is not a size of at least 4, such as 8, 4K or 1G\n", kProgram,
               name, text);
  std::exit(2);
}

// Ends the program on --help and on a bad flag.
Settings parse(int argc, char** argv) {
  const option flags[] = {{"library", required_argument, nullptr, 'l'},
                          {"what", required_argument, nullptr, 'w'},
                          {"ranks", required_argument, nullptr, 'r'},
                          {"procs", no_argument, nullptr, 'p'},
                          {"minbytes", required_argument, nullptr, 'b'},
                          {"maxbytes", required_argument, nullptr, 'e'},
                          {"stepfactor", required_argument, nullptr, 'f'},
                          {"rounds", required_argument, nullptr, 'n'},
                          {"help", no_argument, nullptr, 'h'},
                          {nullptr, 0, nullptr, 0}};
  Settings settings;
  settings.sizes.min_bytes = settings.sizes.max_bytes = size_t{64} << 20;
  settings.sizes.step_factor = 2;
  for (int flag; (flag = getopt_long(argc, argv, "b:e:f:n:h", flags, nullptr)) != -1;) {
    switch (flag) {
      case 'l':
        settings.libraries.emplace_back(optarg);
        break;
      case 'w':
        settings.what = optarg;
        break;
      case 'r':
        settings.ranks = number("ranks", optarg, 1, kMostRanks);
        break;
      case 'p':
        settings.processes = true;
        break;
      case 'b':
        settings.sizes.min_bytes = size("minbytes", optarg);
        break;
      case 'e':
        settings.sizes.max_bytes = size("maxbytes", optarg);
        break;
      case 'f':
        settings.sizes.step_factor = static_cast<size_t>(number("stepfactor", optarg, 2, 1 << 20));
        break;
      case 'n':
        settings.rounds = number("rounds", optarg, 1, 1000);
        break;
      case 'h':
        std::fputs(kUsage, stdout);
        std::exit(0);
      default:
        std::exit(2);
    }
  }
  const bool known =
      settings.what == "allreduce" || settings.what == "init" || settings.what == "memory";
  if (optind < argc || !known || settings.libraries.empty() ||
      settings.libraries.size() > kMostLibraries ||
      settings.sizes.min_bytes > settings.sizes.max_bytes) {
    std::fputs(kUsage, stderr);
    std::exit(2);
  }
  return settings;
}

Shared* share(int ranks) {
  void* memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail(-1, std::string("mmap: ") + std::strerror(errno));
  auto* shared = new (memory) Shared{};
  pthread_barrierattr_t attributes;
  pthread_barrierattr_init(&attributes);
  pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  const int failure =
      pthread_barrier_init(&shared->barrier, &attributes, static_cast<unsigned>(ranks));
  if (failure != 0) fail(-1, std::string("pthread_barrier_init: ") + std::strerror(failure));
  return shared;
}

int run_threads(const Settings& settings, Shared& shared) {
  std::vector<char> right(static_cast<size_t>(settings.ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < settings.ranks; ++rank) {
    threads.emplace_back([&, rank] {
      right[static_cast<size_t>(rank)] = Rank(settings, shared, rank).run() ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  return std::count(right.begin(), right.end(), 0) == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const Settings settings = parse(argc, argv);
  Shared* shared = share(settings.ranks);
  if (!settings.processes || settings.ranks == 1) return run_threads(settings, *shared);
  return bench::run_local_processes(kProgram, settings.ranks, [&](int rank, bench::Relay&) {
    return Rank(settings, *shared, rank).run() ? 0 : 1;
  });
}
