#include "transports/rdma/verbs.h"

#include <dlfcn.h>

#include <cerrno>
#include <cstring>

namespace libcomm::rdma {
namespace {

constexpr const char* kLibrary = "libibverbs.so.1";

template <typename Function>
bool look_up(void* library, const char* name, Function* function) {
  void* symbol = ::dlsym(library, name);
  std::memcpy(function, &symbol, sizeof symbol);
  return symbol != nullptr;
}

}  // namespace

Result<std::shared_ptr<const Verbs>> Verbs::open() {
  void* library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    return error(Code::kSystem, "{} (install libibverbs1 and ibverbs-providers)", ::dlerror());
  }
  auto verbs = std::make_shared<Verbs>();
  std::string missing;
#define COMM_VERBS_REQUIRED(name) \
  if (!look_up(library, "ibv_" #name, &verbs->name)) missing += " ibv_" #name;
#define COMM_VERBS_OPTIONAL(name) look_up(library, "ibv_" #name, &verbs->name);
  COMM_VERBS_FUNCTIONS(COMM_VERBS_REQUIRED, COMM_VERBS_OPTIONAL)
#undef COMM_VERBS_REQUIRED
#undef COMM_VERBS_OPTIONAL
  look_up(library, "_ibv_query_gid_ex", &verbs->query_gid_ex);
  if (!look_up(library, "ibv_query_port", &verbs->plain_query_port_)) missing += " ibv_query_port";
  if (!look_up(library, "ibv_reg_mr", &verbs->plain_reg_mr_)) missing += " ibv_reg_mr";
  ::dlclose(library);  // RTLD_NODELETE: it stays
  if (!missing.empty()) return error(Code::kSystem, "{} lacks{}", kLibrary, missing);
  return std::shared_ptr<const Verbs>(std::move(verbs));
}

int Verbs::query_port(ibv_context* context, uint8_t port, ibv_port_attr* attributes) const {
  *attributes = {};
  verbs_context* extended = verbs_get_ctx_op(context, query_port);
  if (extended != nullptr) {
    return extended->query_port(context, port, attributes, sizeof *attributes);
  }
  return plain_query_port_(context, port, reinterpret_cast<_compat_ibv_port_attr*>(attributes));
}

ibv_mr* Verbs::reg_mr(ibv_pd* pd, void* address, size_t bytes, unsigned access) const {
  if ((access & IBV_ACCESS_OPTIONAL_RANGE) == 0) {
    return plain_reg_mr_(pd, address, bytes, static_cast<int>(access));
  }
  if (reg_mr_iova2 == nullptr) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  return reg_mr_iova2(pd, address, bytes, reinterpret_cast<uintptr_t>(address), access);
}

}  // namespace libcomm::rdma
