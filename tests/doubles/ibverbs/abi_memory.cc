// The exported calls about protection domains and memory regions.
#include <cerrno>

#include "tests/doubles/ibverbs/guard.h"
#include "tests/doubles/ibverbs/memory.h"

#undef ibv_reg_mr
#undef ibv_reg_mr_iova

using namespace rdma_double;

extern "C" {

ibv_pd* ibv_alloc_pd(ibv_context* context) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_alloc_pd");
  if (c.on->domains >= config().max_pd) {
    refuse(ENOMEM);
    return nullptr;
  }
  Pd& pd = c.node->make<Pd>(&c);
  pd.context = context;
  ++c.domains;
  ++c.on->domains;
  return &pd;
}

int ibv_dealloc_pd(ibv_pd* domain) {
  Pd& pd = *static_cast<Pd*>(domain);
  const auto lock = enter(pd, "protection domain", "ibv_dealloc_pd");
  if (pd.regions > 0 || pd.queue_pairs > 0)
    return violation(EBUSY,
                     "a protection domain is deallocated with %d memory regions and %d queue pairs",
                     pd.regions, pd.queue_pairs);
  pd.live = false;
  --pd.owner->domains;
  --pd.owner->on->domains;
  return 0;
}

ibv_mr* ibv_reg_mr_iova2(ibv_pd* domain, void* address, size_t length, uint64_t iova,
                         unsigned access) {
  Pd& pd = *static_cast<Pd*>(domain);
  const auto lock = enter(pd, "protection domain", "ibv_reg_mr");
  // As where the kernel does not know an optional flag: it is left out.
  if (config().lack("relaxed")) access &= ~static_cast<unsigned>(IBV_ACCESS_RELAXED_ORDERING);
  return register_memory(pd, address, length, iova, access);
}

ibv_mr* ibv_reg_mr_iova(ibv_pd* domain, void* address, size_t length, uint64_t iova, int access) {
  return ibv_reg_mr_iova2(domain, address, length, iova, static_cast<unsigned>(access));
}

ibv_mr* ibv_reg_mr(ibv_pd* domain, void* address, size_t length, int access) {
  return ibv_reg_mr_iova2(domain, address, length, reinterpret_cast<uintptr_t>(address),
                          static_cast<unsigned>(access));
}

ibv_mr* ibv_reg_dmabuf_mr(ibv_pd* domain, uint64_t offset, size_t length, uint64_t iova, int fd,
                          int access) {
  Pd& pd = *static_cast<Pd*>(domain);
  const auto lock = enter(pd, "protection domain", "ibv_reg_dmabuf_mr");
  return register_dmabuf(pd, offset, length, iova, fd, static_cast<unsigned>(access));
}

int ibv_dereg_mr(ibv_mr* region) {
  Mr& mr = *static_cast<Mr*>(region);
  const auto lock = enter(mr, "memory region", "ibv_dereg_mr");
  return deregister_memory(mr);
}

}  // extern "C"
