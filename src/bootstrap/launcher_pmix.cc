// PMIx, as mpirun (Open MPI) and `srun --mpi=pmix` offer it. libpmix.so.2 is opened at run time, so
// the library does not depend on it; the header is needed to build this file only.
//
// Rank 0 puts the unique id, a fence that collects data makes it visible, the others get it. PMIx
// stays initialised until the process ends: it counts its users, and ending it early would end it
// for an MPI that comes later. Interface: PMIx Standard 2.0 and later (PMIx_Init, Put, Commit,
// Fence_nb, Get).
#include <dlfcn.h>
#include <pmix.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>

#include "src/base/clock.h"
#include "src/bootstrap/launcher.h"

namespace libcomm {
namespace {

struct PmixCalls {
  decltype(&PMIx_Init) init;
  decltype(&PMIx_Finalize) finalize;
  decltype(&PMIx_Put) put;
  decltype(&PMIx_Commit) commit;
  decltype(&PMIx_Fence_nb) fence;
  decltype(&PMIx_Get) get;
  decltype(&PMIx_Error_string) error_string;
};

// An attribute by hand: the header's macros would need the library at link time.
pmix_info_t attribute(const char* key) {
  pmix_info_t info;
  std::memset(&info, 0, sizeof info);
  std::strncpy(info.key, key, sizeof info.key - 1);
  return info;
}

class Pmix {
 public:
  static Pmix& instance() {
    static Pmix session;
    return session;
  }

  std::mutex& mutex() { return mutex_; }
  int rank() const { return static_cast<int>(self_.rank); }

  Status open() {
    if (open_) return Status::ok();
    if (library_ == nullptr) library_ = ::dlopen("libpmix.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr)
      return error(
          Code::kSystem,
          "this process was started through PMIx (PMIX_NAMESPACE is set), but libpmix.so.2 cannot "
          "be opened: {}; install libpmix2, or set COMM_RANK, COMM_NRANKS and COMM_ID",
          ::dlerror());
    const bool complete = find("PMIx_Init", &calls_.init) &&
                          find("PMIx_Finalize", &calls_.finalize) &&
                          find("PMIx_Put", &calls_.put) && find("PMIx_Commit", &calls_.commit) &&
                          find("PMIx_Fence_nb", &calls_.fence) && find("PMIx_Get", &calls_.get) &&
                          find("PMIx_Error_string", &calls_.error_string);
    if (!complete) return error(Code::kSystem, "libpmix.so.2 lacks functions: {}", ::dlerror());
    COMM_TRY(check("PMIx_Init", calls_.init(&self_, nullptr, 0)));
    open_ = true;
    pid_ = ::getpid();
    return Status::ok();
  }

  // A number that the launcher publishes about the whole job or about this process; -1: it does
  // not.
  int number(const char* key, bool of_job) {
    pmix_proc_t who = self_;
    if (of_job) who.rank = PMIX_RANK_WILDCARD;
    pmix_value_t* value = nullptr;
    if (calls_.get(&who, key, nullptr, 0, &value) != PMIX_SUCCESS || value == nullptr) return -1;
    int result = -1;
    if (value->type == PMIX_UINT32) result = static_cast<int>(value->data.uint32);
    if (value->type == PMIX_UINT16) result = value->data.uint16;
    std::free(value);
    return result;
  }

  Status put(const std::string& key, std::string text) {
    pmix_value_t value;
    std::memset(&value, 0, sizeof value);
    value.type = PMIX_STRING;
    value.data.string = text.data();  // copied by the call
    COMM_TRY(check("PMIx_Put", calls_.put(PMIX_GLOBAL, key.c_str(), &value)));
    return check("PMIx_Commit", calls_.commit());
  }

  // Everyone's puts are visible afterwards.
  Status fence(const Deadline& deadline) {
    // Outlives this call: when the deadline passes first, the answer may still come.
    struct Outcome {
      std::mutex mutex;
      std::condition_variable changed;
      bool done = false;
      pmix_status_t status = PMIX_SUCCESS;
      pmix_info_t collect;
    };
    auto outcome = std::make_shared<Outcome>();
    outcome->collect = attribute(PMIX_COLLECT_DATA);
    outcome->collect.value.type = PMIX_BOOL;
    outcome->collect.value.data.flag = true;
    auto* held = new std::shared_ptr<Outcome>(outcome);
    const auto answered = [](pmix_status_t status, void* data) {
      std::unique_ptr<std::shared_ptr<Outcome>> mine(static_cast<std::shared_ptr<Outcome>*>(data));
      std::lock_guard lock((*mine)->mutex);
      (*mine)->done = true;
      (*mine)->status = status;
      (*mine)->changed.notify_all();
    };
    const pmix_status_t started = calls_.fence(nullptr, 0, &outcome->collect, 1, answered, held);
    if (started == PMIX_OPERATION_SUCCEEDED) {
      delete held;
      return Status::ok();
    }
    if (started != PMIX_SUCCESS) {
      delete held;
      return check("PMIx_Fence", started);
    }
    std::unique_lock lock(outcome->mutex);
    while (!outcome->done) {
      if (deadline.passed())
        return error(Code::kSystem,
                     "PMIx_Fence did not end before COMM_BOOTSTRAP_TIMEOUT: did all ranks call "
                     "commInitFromLauncher?");
      outcome->changed.wait_for(lock, std::chrono::milliseconds(deadline.poll_ms(1000)));
    }
    return check("PMIx_Fence", outcome->status);
  }

  Result<std::string> get(const std::string& key, int from, double timeout) {
    pmix_proc_t who = self_;
    who.rank = static_cast<pmix_rank_t>(from);
    pmix_info_t limit = attribute(PMIX_TIMEOUT);
    limit.value.type = PMIX_INT;
    limit.value.data.integer = static_cast<int>(timeout) + 1;
    pmix_value_t* value = nullptr;
    COMM_TRY(check("PMIx_Get", calls_.get(&who, key.c_str(), &limit, timeout > 0 ? 1 : 0, &value)));
    std::string text;
    if (value->type == PMIX_STRING && value->data.string != nullptr) {
      text = value->data.string;
      std::free(value->data.string);
    }
    std::free(value);
    return text;
  }

  int next_group() { return groups_++; }

  // Without it the launcher would take the process's end for a failure.
  ~Pmix() {
    if (open_ && pid_ == ::getpid()) (void)calls_.finalize(nullptr, 0);
  }

 private:
  template <typename F>
  bool find(const char* name, F* function) {
    *function = reinterpret_cast<F>(::dlsym(library_, name));
    return *function != nullptr;
  }

  Status check(const char* what, pmix_status_t status) const {
    if (status == PMIX_SUCCESS) return Status::ok();
    return error(Code::kSystem, "{} failed: {}", what, calls_.error_string(status));
  }

  std::mutex mutex_;
  void* library_ = nullptr;  // never closed: PMIx has threads
  PmixCalls calls_{};
  bool open_ = false;
  pid_t pid_ = 0;
  pmix_proc_t self_{};
  int groups_ = 0;
};

}  // namespace

LauncherAnswer ask_pmix(const Knobs& knobs) {
  if (!environment("PMIX_NAMESPACE").has_value() || !environment("PMIX_RANK").has_value())
    return std::optional<LauncherInfo>();
  LauncherInfo info;
  info.launcher = "pmix";
  Pmix& session = Pmix::instance();
  std::lock_guard lock(session.mutex());
  COMM_TRY(session.open());
  info.rank = session.rank();
  info.nranks = session.number(PMIX_JOB_SIZE, true);
  info.local_rank = session.number(PMIX_LOCAL_RANK, false);
  info.local_nranks = session.number(PMIX_LOCAL_SIZE, true);
  if (info.nranks < 1 || info.rank < 0 || info.rank >= info.nranks)
    return error(Code::kInvalidArgument, "PMIX_RANK={} contradicts the job's size of {}", info.rank,
                 info.nranks);
  if (info.nranks == 1) {
    COMM_ASSIGN(info.rendezvous, solo_rendezvous());
    return std::optional<LauncherInfo>(std::move(info));
  }
  const double timeout = knobs.get_seconds(Knob::kBootstrapTimeout);
  const std::string key = fmt::format("libcomm.id.{}", session.next_group());
  UniqueIdBytes id;
  if (info.rank == 0) {
    COMM_ASSIGN(id, make_unique_id(knobs));
    COMM_TRY(session.put(key, to_hex(id)));
  }
  COMM_TRY(session.fence(Deadline::from_knob(timeout)));
  if (info.rank != 0) {
    COMM_ASSIGN(const std::string text, session.get(key, 0, timeout));
    COMM_ASSIGN(id, from_hex(text, "PMIx"));
  }
  info.rendezvous.ids.push_back(id);
  return std::optional<LauncherInfo>(std::move(info));
}

}  // namespace libcomm
