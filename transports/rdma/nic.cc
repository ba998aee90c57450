#include "transports/rdma/nic.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include "src/base/log.h"

namespace libcomm::rdma {
namespace {

constexpr unsigned kAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
constexpr unsigned kGpuAccess = kAccess | IBV_ACCESS_REMOTE_READ;  // for flushes

double gbits_of(const ibv_port_attr& port) {
  const auto lanes = [&] {
    switch (port.active_width) {
      case 1:
        return 1.0;
      case 2:
        return 4.0;
      case 4:
        return 8.0;
      case 8:
        return 12.0;
      case 16:
        return 2.0;
      default:
        return 1.0;
    }
  }();
  const auto lane = [&] {
    switch (port.active_speed) {
      case 1:
        return 2.5;
      case 2:
        return 5.0;
      case 4:
      case 8:
        return 10.0;
      case 16:
        return 14.0;
      case 32:
        return 25.0;
      case 64:
        return 50.0;
      default:
        return port.active_speed == 128 ? 100.0 : 0.0;
    }
  }();
  return lanes * lane;
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Where the kernel does not say through the library.
int version_in_sysfs(const std::string& device, int port, int index) {
  const std::string text = first_line(
      fmt::format("/sys/class/infiniband/{}/ports/{}/gid_attrs/types/{}", device, port, index));
  if (text.find("v2") != std::string::npos) return 2;
  return text.find("RoCE v1") != std::string::npos ? 1 : 0;
}

std::string memory_limit_hint() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return "";
  return fmt::format(" (this process may lock {} KiB: raise `ulimit -l`, best to unlimited)",
                     limit.rlim_cur / 1024);
}

}  // namespace

int bytes_of(ibv_mtu mtu) { return 128 << static_cast<int>(mtu); }

std::string PortInfo::to_text() const {
  std::string address =
      ethernet ? fmt::format("Ethernet, RoCE v{} {}", gid.roce_version, rdma::to_text(gid.gid))
               : fmt::format("InfiniBand, LID {}", lid);
  return fmt::format("{} ({}, MTU {}, {:g} Gb/s)", name(), address, bytes_of(mtu),
                     gbits_per_second);
}

Result<std::shared_ptr<Nic>> Nic::open(std::shared_ptr<const Verbs> verbs, ibv_device* device,
                                       int port, const Options& options) {
  COMM_ASSIGN(Context context, Context::open(verbs, device));
  std::shared_ptr<Nic> nic(new Nic(verbs, std::move(context)));
  nic->info_.device = verbs->get_device_name(device);
  nic->info_.port = port;
  ibv_device_attr limits{};
  if (const int err = verbs->query_device(nic->context(), &limits); err != 0)
    return system_error(err, "ibv_query_device");
  if (port > limits.phys_port_cnt)
    return error(Code::kInvalidArgument, "the device has {} ports", limits.phys_port_cnt);
  nic->info_.max_qp = limits.max_qp;
  nic->info_.max_cqe = limits.max_cqe;
  nic->info_.max_qp_wr = limits.max_qp_wr;
  nic->info_.max_mr = limits.max_mr;
  COMM_TRY(nic->read_port(options));
  nic->read_place();
  errno = 0;
  ibv_pd* pd = verbs->alloc_pd(nic->context());
  if (pd == nullptr) return system_error(errno == 0 ? ENOMEM : errno, "ibv_alloc_pd");
  nic->pd_ = Pd(pd, {verbs});
  nic->relaxed_ = options.relaxed_ordering && verbs->reg_mr_iova2 != nullptr;
  return nic;
}

Status Nic::read_port(const Options& options) {
  ibv_port_attr port{};
  if (const int err = verbs_->query_port(context(), static_cast<uint8_t>(info_.port), &port);
      err != 0)
    return system_error(err, "ibv_query_port");
  info_.ethernet = port.link_layer == IBV_LINK_LAYER_ETHERNET;
  info_.state = port.state;
  info_.mtu = port.active_mtu;
  info_.gbits_per_second = gbits_of(port);
  info_.lid = port.lid;
  if (port.state != IBV_PORT_ACTIVE && port.state != IBV_PORT_ACTIVE_DEFER)
    return error(Code::kSystem, "the port is not active: check cable, switch and `ip link`");
  if (options.pkey_index >= std::max<int>(port.pkey_tbl_len, 1))
    return error(Code::kInvalidArgument,
                 "COMM_IB_PKEY={}, but the port has {} partition keys: use a smaller index",
                 options.pkey_index, port.pkey_tbl_len);
  return read_gid(options, port.gid_tbl_len);
}

Status Nic::read_gid(const Options& options, int table_length) {
  std::vector<GidEntry> table;
  for (int index = 0; index < table_length; ++index) {
    GidEntry entry;
    entry.index = index;
    ibv_gid_entry extended{};
    const auto port = static_cast<uint32_t>(info_.port);
    if (verbs_->query_gid_ex != nullptr &&
        verbs_->query_gid_ex(context(), port, static_cast<uint32_t>(index), &extended, 0,
                             sizeof extended) == 0) {
      entry.gid = extended.gid;
      entry.roce_version = extended.gid_type == IBV_GID_TYPE_ROCE_V2   ? 2
                           : extended.gid_type == IBV_GID_TYPE_ROCE_V1 ? 1
                                                                       : 0;
    } else {
      if (verbs_->query_gid(context(), static_cast<uint8_t>(info_.port), index, &entry.gid) != 0)
        continue;
      if (info_.ethernet) entry.roce_version = version_in_sysfs(info_.device, info_.port, index);
    }
    if (!is_zero(entry.gid)) table.push_back(entry);
  }
  info_.gids = static_cast<int>(table.size());
  const GidWish& wish = options.gid;
  if (wish.index >= 0) {
    const auto found = std::find_if(table.begin(), table.end(),
                                    [&](const GidEntry& e) { return e.index == wish.index; });
    if (found == table.end())
      return error(Code::kInvalidArgument,
                   "COMM_IB_GID_INDEX={}, but this port has no GID there: unset it, or see "
                   "`rdma link` and `ibv_devinfo -v`",
                   wish.index);
    info_.gid = *found;
    return Status::ok();
  }
  if (!info_.ethernet) {
    if (!table.empty()) info_.gid = table.front();
    return Status::ok();
  }
  const auto chosen = choose_gid(table, wish);
  if (!chosen)
    return error(Code::kSystem,
                 "none of its {} GIDs is RoCE v{} over {}{}: give its interface an address, or see "
                 "COMM_IB_ADDR_FAMILY, COMM_IB_ADDR_RANGE and COMM_IB_ROCE_VERSION_NUM",
                 table.size(), wish.roce_version, wish.v4 ? "IPv4" : "IPv6",
                 wish.range.bits > 0 ? " in the wanted range" : "");
  info_.gid = *chosen;
  return Status::ok();
}

void Nic::read_place() {
  const std::string link = fmt::format("/sys/class/infiniband/{}/device", info_.device);
  std::error_code none;
  const auto target = std::filesystem::read_symlink(link, none);
  if (none) return;  // a software device
  info_.pci = target.filename().string();
  const std::string node = first_line(link + "/numa_node");
  if (!node.empty()) info_.numa_node = std::atoi(node.c_str());
}

void Nic::describe(RailWire* rail) const {
  rail->gid = info_.gid.gid;
  rail->lid = info_.lid;
  rail->link_layer = info_.ethernet ? IBV_LINK_LAYER_ETHERNET : IBV_LINK_LAYER_INFINIBAND;
  rail->mtu = static_cast<uint8_t>(info_.mtu);
}

Result<Mr> Nic::register_memory(void* address, size_t bytes, bool data) const {
  errno = 0;
  unsigned access = kAccess;
  if (data && relaxed_) access |= IBV_ACCESS_RELAXED_ORDERING;
  ibv_mr* mr = verbs_->reg_mr(pd(), address, bytes, access);
  if (mr == nullptr) {
    const int err = errno == 0 ? ENOMEM : errno;
    return system_error(
        err, fmt::format("registering {} bytes with {}{}", bytes, info_.name(),
                         err == ENOMEM || err == EPERM ? memory_limit_hint() : std::string()));
  }
  return Mr(mr, {verbs_});
}

Result<Mr> Nic::register_dmabuf(int fd, size_t offset, size_t bytes, const void* address) const {
  unsigned access = kGpuAccess;
  if (relaxed_) access |= IBV_ACCESS_RELAXED_ORDERING;
  errno = 0;
  ibv_mr* mr = verbs_->reg_dmabuf_mr(pd(), offset, bytes, reinterpret_cast<uintptr_t>(address), fd,
                                     static_cast<int>(access));
  if (mr == nullptr)
    return system_error(errno == 0 ? ENOMEM : errno,
                        fmt::format("ibv_reg_dmabuf_mr of {} bytes on {}", bytes, info_.name()));
  return Mr(mr, {verbs_});
}

Result<Mr> Nic::register_peer_memory(void* address, size_t bytes) const {
  unsigned access = kGpuAccess;
  if (relaxed_) access |= IBV_ACCESS_RELAXED_ORDERING;
  errno = 0;
  ibv_mr* mr = verbs_->reg_mr(pd(), address, bytes, access);
  if (mr == nullptr)
    return system_error(errno == 0 ? ENOMEM : errno,
                        fmt::format("ibv_reg_mr of {} bytes on {}", bytes, info_.name()));
  return Mr(mr, {verbs_});
}

void Nic::take_events() {
  ibv_async_event event{};
  while (verbs_->get_async_event(context(), &event) == 0) {
    note(event);
    verbs_->ack_async_event(&event);
  }
}

void Nic::note(const ibv_async_event& event) {
  const std::lock_guard lock(mutex_);
  switch (event.event_type) {
    case IBV_EVENT_PORT_ERR:
      if (event.element.port_num != info_.port) return;
      port_up_ = false;
      last_event_ = fmt::format("port {} went down", info_.name());
      break;
    case IBV_EVENT_PORT_ACTIVE:
      if (event.element.port_num != info_.port) return;
      port_up_ = true;
      last_event_ = fmt::format("port {} came up", info_.name());
      break;
    case IBV_EVENT_DEVICE_FATAL:
      port_up_ = false;
      last_event_ = fmt::format("device {} failed", info_.device);
      break;
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_PATH_MIG_ERR:
      broken_.insert(event.element.qp->qp_num);
      last_event_ = fmt::format("{}: {}", info_.name(), verbs_->event_type_str(event.event_type));
      break;
    default:
      log_info(Subsys::kNet, "{}: {}", info_.name(), verbs_->event_type_str(event.event_type));
      return;
  }
  log_info(Subsys::kNet, "{}", last_event_);
  events_.fetch_add(1, std::memory_order_release);
}

bool Nic::take_broken(uint32_t qp_number) {
  const std::lock_guard lock(mutex_);
  return broken_.erase(qp_number) > 0;
}

std::string Nic::last_event() const {
  const std::lock_guard lock(mutex_);
  return last_event_;
}

Result<Survey> survey(const std::shared_ptr<const Verbs>& verbs, const Options& options) {
  int count = 0;
  errno = 0;
  ibv_device** list = verbs->get_device_list(&count);
  if (list == nullptr && errno != ENOSYS && errno != 0)
    return system_error(errno, "ibv_get_device_list");
  const std::unique_ptr<ibv_device*, Destroy<&Verbs::free_device_list>> owned(list, {verbs});
  Survey found;
  std::string names;
  for (int i = 0; i < count; ++i) {
    const std::string device = verbs->get_device_name(list[i]);
    // A device that cannot be opened has one port that says why.
    const auto context = Context::open(verbs, list[i]);
    ibv_device_attr limits{};
    limits.phys_port_cnt = 1;
    if (context) (void)verbs->query_device(context->get(), &limits);
    for (int port = 1; port <= limits.phys_port_cnt; ++port) {
      names += fmt::format("{}{}:{}", names.empty() ? "" : ", ", device, port);
      if (!options.hca.accepts(device, port)) continue;
      auto nic = Nic::open(verbs, list[i], port, options);
      if (nic) {
        found.nics.push_back(*std::move(nic));
      } else {
        found.left_out.push_back({fmt::format("{}:{}", device, port), nic.status().message()});
      }
    }
  }
  if (!options.hca.empty() && found.nics.empty() && found.left_out.empty())
    found.unmatched =
        names.empty() ? "this host has no RDMA device" : "it matches none of: " + names;
  return found;
}

}  // namespace libcomm::rdma
