// The exported calls about devices, contexts and their events.
#include <endian.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "tests/doubles/ibverbs/abi.h"
#include "tests/doubles/ibverbs/device.h"
#include "tests/doubles/ibverbs/guard.h"

#undef ibv_query_port

using namespace rdma_double;

namespace {

int port_of(Context& context, uint32_t port, ibv_port_attr* attributes) {
  if (port < 1 || port > context.on->port.size()) return refuse(EINVAL);
  describe(*context.on, static_cast<int>(port), attributes);
  return 0;
}

int query_port(ibv_context* context, uint8_t port, ibv_port_attr* attributes, size_t size) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_query_port");
  ibv_port_attr all;
  if (const int code = port_of(c, port, &all); code != 0) return code;
  std::memcpy(attributes, &all, std::min(size, sizeof(all)));
  return 0;
}

int query_device_ex(ibv_context* context, const ibv_query_device_ex_input*,
                    ibv_device_attr_ex* attributes, size_t size) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_query_device_ex");
  if (size < sizeof(ibv_device_attr)) return refuse(EINVAL);
  std::memset(static_cast<void*>(attributes), 0, size);
  describe(*c.on, &attributes->orig_attr);
  if (size >= sizeof(ibv_device_attr_ex))
    attributes->phys_port_cnt_ex = attributes->orig_attr.phys_port_cnt;
  return 0;
}

int refuse_call(const char* call) {
  return violation(EOPNOTSUPP, "%s is not part of the double", call);
}

const GidEntry* gid_of(Context& context, uint32_t port, uint32_t index) {
  if (port < 1 || port > context.on->port.size()) return nullptr;
  const std::vector<GidEntry>& table = context.on->port[port - 1].gids;
  return index < table.size() ? &table[index] : nullptr;
}

bool empty(const ibv_gid& gid) {
  static constexpr ibv_gid kNone{};
  return std::memcmp(&gid, &kNone, sizeof(gid)) == 0;
}

void fill(ibv_gid_entry* entry, const GidEntry& from, uint32_t port, uint32_t index) {
  entry->gid = from.gid;
  entry->gid_index = index;
  entry->port_num = port;
  entry->gid_type = from.type;
  entry->ndev_ifindex = config().infiniband ? 0 : 1;
}

// The count of events got and not acknowledged that this one belongs to; null for events of ports.
uint64_t* unacknowledged(const ibv_async_event& event) {
  if (event.event_type == IBV_EVENT_CQ_ERR)
    return &static_cast<Cq*>(event.element.cq)->unacked_events;
  if (is_of_queue_pair(event.event_type))
    return &static_cast<Qp*>(event.element.qp)->unacked_events;
  return nullptr;
}

}  // namespace

extern "C" {

ibv_device** ibv_get_device_list(int* count) {
  Node& node = Node::current();
  const auto lock = node.lock();
  const std::vector<Device*> devices = node.devices();
  auto* list = static_cast<ibv_device**>(std::calloc(devices.size() + 1, sizeof(ibv_device*)));
  for (size_t i = 0; i < devices.size(); ++i) list[i] = devices[i];
  if (count != nullptr) *count = static_cast<int>(devices.size());
  return list;
}

void ibv_free_device_list(ibv_device** list) { std::free(static_cast<void*>(list)); }

const char* ibv_get_device_name(ibv_device* device) { return device->name; }

int ibv_get_device_index(ibv_device* device) { return static_cast<Device*>(device)->index; }

__be64 ibv_get_device_guid(ibv_device* device) {
  return htobe64(static_cast<Device*>(device)->guid);
}

ibv_context* ibv_open_device(ibv_device* device) {
  Node& node = Node::current();
  const auto life = node.life_lock();
  const auto lock = node.lock();
  if (config().lack("permission")) {
    errno = EACCES;
    return nullptr;
  }
  Context& context = node.make<Context>(nullptr);
  context.owner = &context;
  context.on = static_cast<Device*>(device);
  verbs_context& verbs = context.verbs;
  verbs.sz = sizeof(verbs);
  verbs.priv = reinterpret_cast<verbs_ex_private*>(&context);
  verbs.query_port = query_port;
  if (!config().lack("extended")) verbs.query_device_ex = query_device_ex;
  ibv_context& abi = verbs.context;
  abi.device = device;
  abi.abi_compat = __VERBS_ABI_IS_EXTENDED;
  abi.cmd_fd = -1;
  abi.async_fd = context.events.open();
  abi.num_comp_vectors = 1;
  ::pthread_mutex_init(&abi.mutex, nullptr);
  abi.ops.poll_cq = poll_cq;
  abi.ops.req_notify_cq = request_notification;
  abi.ops.post_send = post_send_call;
  abi.ops.post_recv = post_receive_call;
  if (abi.async_fd < 0) {
    context.live = false;
    return nullptr;
  }
  node.opened(context);
  return &abi;
}

int ibv_close_device(ibv_context* context) {
  Context& c = Context::of(context);
  const auto life = Node::current().life_lock();
  auto lock = enter(c, "device context", "ibv_close_device");
  if (c.domains > 0 || c.queues > 0 || c.channels > 0) {
    const int code = violation(
        EBUSY,
        "%s is closed with %d protection domains, %d completion queues and %d completion channels",
        c.on->name, c.domains, c.queues, c.channels);
    if (code != 0) return code;
  }
  c.live = false;
  c.events.close();
  c.node->closed(c, &lock);
  return 0;
}

int ibv_query_device(ibv_context* context, ibv_device_attr* attributes) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_query_device");
  describe(*c.on, attributes);
  return 0;
}

// What programs call that were built before the extended one: attributes end before link_layer's
// end.
int ibv_query_port(ibv_context* context, uint8_t port, _compat_ibv_port_attr* attributes) {
  return query_port(context, port, reinterpret_cast<ibv_port_attr*>(attributes),
                    offsetof(ibv_port_attr, port_cap_flags2));
}

int ibv_query_gid(ibv_context* context, uint8_t port, int index, ibv_gid* gid) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_query_gid");
  const GidEntry* entry = gid_of(c, port, static_cast<uint32_t>(index));
  if (entry == nullptr) {
    errno = EINVAL;
    return -1;
  }
  *gid = entry->gid;
  return 0;
}

int _ibv_query_gid_ex(ibv_context* context, uint32_t port, uint32_t index, ibv_gid_entry* out,
                      uint32_t flags, size_t size) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_query_gid_ex");
  if (flags != 0 || size < sizeof(ibv_gid_entry)) return refuse(EINVAL);
  const GidEntry* entry = gid_of(c, port, index);
  if (entry == nullptr) return refuse(EINVAL);
  if (empty(entry->gid)) return refuse(ENODATA);
  fill(out, *entry, port, index);
  return 0;
}

ssize_t _ibv_query_gid_table(ibv_context* context, ibv_gid_entry* out, size_t room, uint32_t flags,
                             size_t size) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_query_gid_table");
  if (flags != 0 || size < sizeof(ibv_gid_entry)) return -EINVAL;
  size_t count = 0;
  for (uint32_t port = 1; port <= c.on->port.size(); ++port) {
    const std::vector<GidEntry>& table = c.on->port[port - 1].gids;
    for (uint32_t index = 0; index < table.size(); ++index) {
      if (empty(table[index].gid)) continue;
      if (count == room) return -EINVAL;
      fill(&out[count++], table[index], port, index);
    }
  }
  return static_cast<ssize_t>(count);
}

// Of the real library's private part; ibv_devinfo asks by it: 0 for InfiniBand and RoCE v1, 1 for
// v2.
int ibv_query_gid_type(ibv_context* context, uint8_t port, unsigned index, int* type) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_query_gid_type");
  const GidEntry* entry = gid_of(c, port, index);
  if (entry == nullptr || empty(entry->gid)) {
    errno = EINVAL;
    return -1;
  }
  *type = entry->type == IBV_GID_TYPE_ROCE_V2 ? 1 : 0;
  return 0;
}

int ibv_query_pkey(ibv_context* context, uint8_t port, int index, __be16* pkey) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_query_pkey");
  if (port < 1 || port > c.on->port.size() || index != 0) {
    errno = EINVAL;
    return -1;
  }
  *pkey = htobe16(0xffff);
  return 0;
}

int ibv_get_pkey_index(ibv_context* context, uint8_t port, __be16 pkey) {
  Context& c = Context::of(context);
  const auto lock = enter(c, "device context", "ibv_get_pkey_index");
  if (port >= 1 && port <= c.on->port.size() && pkey == htobe16(0xffff)) return 0;
  errno = EINVAL;
  return -1;
}

int ibv_get_async_event(ibv_context* context, ibv_async_event* event) {
  Context& c = Context::of(context);
  for (;;) {
    if (!c.events.await()) return -1;
    const auto lock = enter(c, "device context", "ibv_get_async_event");
    if (!c.events.pop(event)) continue;
    if (uint64_t* unacked = unacknowledged(*event)) ++*unacked;
    return 0;
  }
}

void ibv_ack_async_event(ibv_async_event* event) {
  Node& node = Node::current();
  const auto lock = node.lock();
  uint64_t* unacked = unacknowledged(*event);
  if (unacked == nullptr) return;
  if (*unacked == 0) fatal("ibv_ack_async_event: an event is acknowledged that nobody got");
  --*unacked;
  node.changed().notify_all();
}

int ibv_fork_init() { return 0; }

ibv_fork_status ibv_is_fork_initialized() { return IBV_FORK_UNNEEDED; }

// There is no sysfs behind the double but RDMA_DOUBLE_SYSFS.
int ibv_read_sysfs_file(const char*, const char*, char*, size_t) { return -1; }

const char* ibv_get_sysfs_path() {
  return config().sysfs.empty() ? "/sys" : config().sysfs.c_str();
}

ibv_ah* ibv_create_ah(ibv_pd*, ibv_ah_attr*) {
  refuse_call("ibv_create_ah");
  return nullptr;
}

ibv_ah* ibv_create_ah_from_wc(ibv_pd*, ibv_wc*, ibv_grh*, uint8_t) {
  refuse_call("ibv_create_ah_from_wc");
  return nullptr;
}

int ibv_destroy_ah(ibv_ah*) { return refuse_call("ibv_destroy_ah"); }

ibv_srq* ibv_create_srq(ibv_pd*, ibv_srq_init_attr*) {
  refuse_call("ibv_create_srq");
  return nullptr;
}

int ibv_destroy_srq(ibv_srq*) { return refuse_call("ibv_destroy_srq"); }

}  // extern "C"
