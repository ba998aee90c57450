// Preloaded into a rank: breaks one of its queue pairs in the middle of the work.
//
// The library finds libibverbs by dlopen and dlsym, so this dlsym stands before the real one and
// hands out an ibv_create_qp and an ibv_destroy_qp that remember the living queue pairs. When the
// file /tmp/kill-qp-RANK appears (RANK from COMM_RANK), the queue pair whose number the file holds,
// counted from 0 in order of creation, is moved to the error state, as a broken adapter would, and
// the file becomes /tmp/killed-qp-RANK.
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using DlSym = void* (*)(void*, const char*);
DlSym real_dlsym() {
  static const auto real = reinterpret_cast<DlSym>(dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5"));
  return real;
}

std::mutex mutex;
std::vector<ibv_qp*> living;  // guarded by mutex
decltype(&ibv_create_qp) real_create = nullptr;
decltype(&ibv_destroy_qp) real_destroy = nullptr;
decltype(&ibv_modify_qp) real_modify = nullptr;

[[noreturn]] void watch() {
  const char* rank = std::getenv("COMM_RANK");
  const std::string name = std::string("qp-") + (rank != nullptr ? rank : "0");
  for (;; usleep(5000)) {
    std::ifstream file("/tmp/kill-" + name);
    size_t which = 0;
    if (!(file >> which)) continue;
    const std::lock_guard lock(mutex);
    if (which < living.size()) {
      ibv_qp_attr error{};
      error.qp_state = IBV_QPS_ERR;
      std::printf("queue pair %zu of %zu killed: %d\n", which, living.size(),
                  real_modify(living[which], &error, IBV_QP_STATE));
    } else {
      std::printf("no queue pair %zu of %zu to kill\n", which, living.size());
    }
    std::rename(("/tmp/kill-" + name).c_str(), ("/tmp/killed-" + name).c_str());
  }
}

ibv_qp* create(ibv_pd* pd, ibv_qp_init_attr* attributes) {
  static std::once_flag started;
  std::call_once(started, [] { std::thread(watch).detach(); });
  ibv_qp* made = real_create(pd, attributes);
  const std::lock_guard lock(mutex);
  if (made != nullptr) living.push_back(made);
  return made;
}

int destroy(ibv_qp* qp) {
  const std::lock_guard lock(mutex);
  living.erase(std::remove(living.begin(), living.end(), qp), living.end());
  return real_destroy(qp);
}

}  // namespace

extern "C" [[gnu::visibility("default")]] void* dlsym(void* handle, const char* name) noexcept {
  void* found = real_dlsym()(handle, name);
  if (found == nullptr) return nullptr;
  if (std::strcmp(name, "ibv_create_qp") == 0) {
    real_create = reinterpret_cast<decltype(real_create)>(found);
    return reinterpret_cast<void*>(&create);
  }
  if (std::strcmp(name, "ibv_destroy_qp") == 0) {
    real_destroy = reinterpret_cast<decltype(real_destroy)>(found);
    return reinterpret_cast<void*>(&destroy);
  }
  if (std::strcmp(name, "ibv_modify_qp") == 0)
    real_modify = reinterpret_cast<decltype(real_modify)>(found);
  return found;
}
