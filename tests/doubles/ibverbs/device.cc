#include "tests/doubles/ibverbs/device.h"

#include <arpa/inet.h>
#include <endian.h>

#include <cstdio>
#include <cstring>
#include <filesystem>

#include "tests/doubles/ibverbs/rules.h"

namespace rdma_double {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kMaxMessage = 1u << 31;

// 02-00-00 and the numbers of host and device: locally administered.
uint64_t guid_of(int device) {
  return 0x0200'00ff'fe00'0000ull | static_cast<uint64_t>(config().host & 0xffff) << 8 |
         static_cast<uint64_t>(device & 0xff);
}

ibv_gid link_local(int device, int port) {
  ibv_gid gid{};
  gid.global.subnet_prefix = htobe64(0xfe80'0000'0000'0000ull);
  gid.global.interface_id = htobe64(guid_of(device) | static_cast<uint64_t>(port - 1) << 32);
  return gid;
}

// ::ffff:10.(77+port).host.device+1
ibv_gid mapped_ipv4(int device, int port) {
  ibv_gid gid{};
  gid.raw[10] = gid.raw[11] = 0xff;
  gid.raw[12] = 10;
  gid.raw[13] = static_cast<uint8_t>(76 + port);
  gid.raw[14] = static_cast<uint8_t>(config().host);
  gid.raw[15] = static_cast<uint8_t>(device + 1);
  return gid;
}

ibv_gid parse_address(const std::string& address) {
  ibv_gid gid{};
  if (::inet_pton(AF_INET6, address.c_str(), gid.raw) == 1) return gid;
  if (::inet_pton(AF_INET, address.c_str(), gid.raw + 12) == 1) {
    gid.raw[10] = gid.raw[11] = 0xff;
    return gid;
  }
  fatal("RDMA_DOUBLE_GIDS: %s is no address", address.c_str());
}

GidEntry parse_gid(const std::string& entry) {
  if (entry == "none") return {{}, IBV_GID_TYPE_IB};
  const std::string version = entry.substr(0, 3);
  if (version != "v1:" && version != "v2:")
    fatal("RDMA_DOUBLE_GIDS: %s is not none, v1:ADDRESS or v2:ADDRESS", entry.c_str());
  return {parse_address(entry.substr(3)),
          version == "v1:" ? IBV_GID_TYPE_ROCE_V1 : IBV_GID_TYPE_ROCE_V2};
}

// The table that RoCE drivers make of a link-local and one IPv4 address.
std::vector<GidEntry> gid_table(int device, int port) {
  if (config().infiniband) return {{link_local(device, port), IBV_GID_TYPE_IB}};
  std::vector<GidEntry> table;
  for (const std::string& entry : config().gids) table.push_back(parse_gid(entry));
  if (!table.empty()) return table;
  const ibv_gid local = link_local(device, port), ipv4 = mapped_ipv4(device, port);
  return {{local, IBV_GID_TYPE_ROCE_V1},
          {local, IBV_GID_TYPE_ROCE_V2},
          {ipv4, IBV_GID_TYPE_ROCE_V1},
          {ipv4, IBV_GID_TYPE_ROCE_V2}};
}

// Callers may be reading a name of an earlier list: one that stays the same is left alone.
void copy(const std::string& from, char* to, size_t size) {
  if (from == to) return;
  std::snprintf(to, size, "%s", from.c_str());
}

// FOLDER/NAME/device links to FOLDER/pci/ADDRESS, as /sys/class/infiniband does to the PCI device.
void make_sysfs(const Device& device, const std::string& folder) {
  const size_t index = static_cast<size_t>(device.index);
  if (index >= config().pci.size()) return;
  std::error_code error;
  const fs::path pci = fs::path(folder) / "pci" / config().pci[index];
  fs::create_directories(pci, error);
  fs::create_directories(device.ibdev_path, error);
  fs::create_directory_symlink(fs::absolute(pci), fs::path(device.ibdev_path) / "device", error);
}

uint8_t speed_code(int gbps) {  // per lane, of 4 lanes: EDR and HDR
  return gbps > 100 ? 64 : 32;
}

}  // namespace

void set_up_device(Device& device, int index) {
  const Config& c = config();
  device.index = index;
  device.guid = guid_of(index);
  device.node_type = IBV_NODE_CA;
  device.transport_type = IBV_TRANSPORT_IB;
  const std::string name = c.name + std::to_string(index);
  const std::string folder = c.sysfs.empty() ? "/sys/class/infiniband" : c.sysfs;
  copy(name, device.name, sizeof(device.name));
  copy("uverbs" + std::to_string(index), device.dev_name, sizeof(device.dev_name));
  copy("/sys/class/infiniband_verbs/uverbs" + std::to_string(index), device.dev_path,
       sizeof(device.dev_path));
  copy(folder + "/" + name, device.ibdev_path, sizeof(device.ibdev_path));
  if (!c.sysfs.empty()) make_sysfs(device, c.sysfs);
  device.port.clear();
  for (int port = 1; port <= c.ports; ++port) device.port.push_back({true, gid_table(index, port)});
  const size_t rate = static_cast<size_t>(index);
  device.receive_rate = rate < c.receive_rates.size() ? c.receive_rates[rate] : 0;
  device.busy_until_ns = 0;
  device.counters = {};
}

void describe(const Device& device, ibv_device_attr* attributes) {
  const Config& c = config();
  ibv_device_attr& a = *attributes;
  a = {};
  copy("0.double", a.fw_ver, sizeof(a.fw_ver));
  a.node_guid = a.sys_image_guid = htobe64(device.guid);
  a.max_mr_size = UINT64_MAX;
  a.page_size_cap = 0xfffff000;
  a.vendor_id = 0xd0b1e;
  a.vendor_part_id = 1;
  a.max_qp = c.max_qp;
  a.max_qp_wr = c.max_qp_wr;
  a.device_cap_flags = IBV_DEVICE_RC_RNR_NAK_GEN | IBV_DEVICE_PORT_ACTIVE_EVENT |
                       IBV_DEVICE_SYS_IMAGE_GUID | IBV_DEVICE_CURR_QP_STATE_MOD;
  a.max_sge = a.max_sge_rd = c.max_sge;
  a.max_cq = c.max_cq;
  a.max_cqe = c.max_cqe;
  a.max_mr = c.max_mr;
  a.max_pd = c.max_pd;
  a.max_qp_rd_atom = a.max_qp_init_rd_atom = c.max_rd_atomic;
  a.max_res_rd_atom = c.max_rd_atomic * c.max_qp;
  a.atomic_cap = IBV_ATOMIC_NONE;
  a.max_pkeys = 1;
  a.local_ca_ack_delay = 15;
  a.phys_port_cnt = static_cast<uint8_t>(c.ports);
}

void describe(Device& device, int port, ibv_port_attr* attributes) {
  const Config& c = config();
  const Port& p = device.at(port);
  ibv_port_attr& a = *attributes;
  a = {};
  a.state = p.up ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
  a.phys_state = p.up ? 5 : 3;
  a.max_mtu = IBV_MTU_4096;
  a.active_mtu = c.mtu;
  a.gid_tbl_len = static_cast<int>(p.gids.size());
  a.port_cap_flags = c.infiniband ? IBV_PORT_CM_SUP : IBV_PORT_CM_SUP | IBV_PORT_IP_BASED_GIDS;
  a.max_msg_sz = kMaxMessage;
  a.pkey_tbl_len = 1;
  a.active_width = 2;  // 4 lanes
  a.active_speed = speed_code(c.speed_gbps);
  a.max_vl_num = 1;
  a.link_layer = c.infiniband ? IBV_LINK_LAYER_INFINIBAND : IBV_LINK_LAYER_ETHERNET;
  if (c.infiniband) {
    a.lid = static_cast<uint16_t>(c.host * 64 + device.index * 4 + port);
    a.sm_lid = 1;
  }
}

}  // namespace rdma_double
