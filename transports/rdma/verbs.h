// Verbs: libibverbs, opened at run time, so that one binary also runs where there is none.
//
// Only what this transport calls is looked up. What the header defines inline (posting, polling,
// arming) goes through the context's own table and needs no symbol. The library is never closed:
// device drivers that it has loaded keep state.
#pragma once

#include <infiniband/verbs.h>

#include <memory>

#include "src/base/status.h"

namespace libcomm::rdma {

struct Verbs {
  // kSystem with the loader's text when there is no libibverbs.so.1, or one that lacks a function.
  static Result<std::shared_ptr<const Verbs>> open();

  // ibv_query_port is a macro in the header that may call the provider directly.
  int query_port(ibv_context* context, uint8_t port, ibv_port_attr* attributes) const;
  // ibv_reg_mr is one, too; relaxed ordering needs the newer entry.
  ibv_mr* reg_mr(ibv_pd* pd, void* address, size_t bytes, unsigned access) const;

#define COMM_VERBS_FUNCTIONS(REQUIRED, OPTIONAL) \
  REQUIRED(get_device_list)                      \
  REQUIRED(free_device_list)                     \
  REQUIRED(get_device_name)                      \
  REQUIRED(open_device)                          \
  REQUIRED(close_device)                         \
  REQUIRED(query_device)                         \
  REQUIRED(query_gid)                            \
  REQUIRED(alloc_pd)                             \
  REQUIRED(dealloc_pd)                           \
  REQUIRED(dereg_mr)                             \
  REQUIRED(create_comp_channel)                  \
  REQUIRED(destroy_comp_channel)                 \
  REQUIRED(create_cq)                            \
  REQUIRED(destroy_cq)                           \
  REQUIRED(get_cq_event)                         \
  REQUIRED(ack_cq_events)                        \
  REQUIRED(create_qp)                            \
  REQUIRED(modify_qp)                            \
  REQUIRED(query_qp)                             \
  REQUIRED(destroy_qp)                           \
  REQUIRED(get_async_event)                      \
  REQUIRED(ack_async_event)                      \
  REQUIRED(wc_status_str)                        \
  REQUIRED(event_type_str)                       \
  OPTIONAL(query_ece)                            \
  OPTIONAL(set_ece)                              \
  OPTIONAL(reg_mr_iova2)                         \
  OPTIONAL(reg_dmabuf_mr)

#define COMM_VERBS_MEMBER(name) decltype(&::ibv_##name) name = nullptr;
  COMM_VERBS_FUNCTIONS(COMM_VERBS_MEMBER, COMM_VERBS_MEMBER)
#undef COMM_VERBS_MEMBER
  decltype(&::_ibv_query_gid_ex) query_gid_ex = nullptr;  // optional

 private:
  decltype(&::ibv_query_port) plain_query_port_ = nullptr;
  decltype(&::ibv_reg_mr) plain_reg_mr_ = nullptr;
};

}  // namespace libcomm::rdma
