// Devices are what the environment says: names, addresses, links, limits, what they lack.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "tests/base/temp_folder.h"
#include "tests/doubles/endpoint.h"
#include "tests/doubles/environment.h"

namespace libcomm::test {
namespace {

class DoubleDevices : public testing::Test {
 protected:
  DoubleEnvironment environment_;
};

std::vector<std::string> names() {
  std::vector<std::string> all;
  ibv_device** devices = ibv_get_device_list(nullptr);
  for (ibv_device** device = devices; *device != nullptr; ++device)
    all.push_back(ibv_get_device_name(*device));
  ibv_free_device_list(devices);
  return all;
}

std::string address(const ibv_gid& gid) {
  char text[INET6_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET6, gid.raw, text, sizeof(text));
  return text;
}

struct OpenDevice {
  explicit OpenDevice(int index = 0) {
    ibv_device** devices = ibv_get_device_list(nullptr);
    context = ibv_open_device(devices[index]);
    ibv_free_device_list(devices);
  }
  ~OpenDevice() { ibv_close_device(context); }
  OpenDevice(const OpenDevice&) = delete;
  OpenDevice& operator=(const OpenDevice&) = delete;

  std::vector<ibv_gid_entry> gids() const {
    std::vector<ibv_gid_entry> table(64);
    const ssize_t count = ibv_query_gid_table(context, table.data(), table.size(), 0);
    table.resize(static_cast<size_t>(count < 0 ? 0 : count));
    return table;
  }
  ibv_port_attr port(uint8_t number = 1) const {
    ibv_port_attr attributes{};
    EXPECT_EQ(ibv_query_port(context, number, &attributes), 0);
    return attributes;
  }

  ibv_context* context;
};

TEST_F(DoubleDevices, AreAsManyAndCalledAsAsked) {
  EXPECT_EQ(names(), std::vector<std::string>{"double0"});
  environment_.set("DEVICES", "3");
  environment_.set("NAME", "mlx5_");
  EXPECT_EQ(names(), (std::vector<std::string>{"mlx5_0", "mlx5_1", "mlx5_2"}));
  environment_.set("DEVICES", "0");
  EXPECT_TRUE(names().empty());
}

TEST_F(DoubleDevices, HaveTheGidTableOfRoce) {
  environment_.set("HOST", "5");
  environment_.set("DEVICES", "2");
  environment_.set("PORTS", "2");
  const OpenDevice device(1);
  const std::vector<ibv_gid_entry> gids = device.gids();
  ASSERT_EQ(gids.size(), 8u);
  const uint32_t types[] = {IBV_GID_TYPE_ROCE_V1, IBV_GID_TYPE_ROCE_V2, IBV_GID_TYPE_ROCE_V1,
                            IBV_GID_TYPE_ROCE_V2};
  for (uint32_t i = 0; i < 8; ++i) {
    EXPECT_EQ(gids[i].gid_index, i % 4);
    EXPECT_EQ(gids[i].port_num, 1 + i / 4);
    EXPECT_EQ(gids[i].gid_type, types[i % 4]);
  }
  EXPECT_TRUE(address(gids[1].gid).starts_with("fe80::"));
  EXPECT_EQ(address(gids[3].gid), "::ffff:10.77.5.2");
  EXPECT_EQ(address(gids[7].gid), "::ffff:10.78.5.2");
  EXPECT_EQ(device.port().gid_tbl_len, 4);
  EXPECT_EQ(device.port().link_layer, IBV_LINK_LAYER_ETHERNET);
}

TEST_F(DoubleDevices, TakeTheirGidsFromAList) {
  environment_.set("GIDS", "none,v2:192.168.7.9,v1:2001:db8::3,none");
  const OpenDevice device;
  const std::vector<ibv_gid_entry> gids = device.gids();
  ASSERT_EQ(gids.size(), 2u);
  EXPECT_EQ(gids[0].gid_index, 1u);
  EXPECT_EQ(address(gids[0].gid), "::ffff:192.168.7.9");
  EXPECT_EQ(gids[1].gid_type, static_cast<uint32_t>(IBV_GID_TYPE_ROCE_V1));
  EXPECT_EQ(address(gids[1].gid), "2001:db8::3");
  EXPECT_EQ(device.port().gid_tbl_len, 4);
  ibv_gid_entry entry;
  EXPECT_EQ(ibv_query_gid_ex(device.context, 1, 0, &entry, 0), ENODATA);
  EXPECT_EQ(ibv_query_gid_ex(device.context, 1, 4, &entry, 0), EINVAL);
  ibv_gid gid;
  EXPECT_EQ(ibv_query_gid(device.context, 1, 0, &gid), 0);
  EXPECT_EQ(address(gid), "::");
  EXPECT_EQ(ibv_query_gid(device.context, 1, 4, &gid), -1);
}

TEST_F(DoubleDevices, SpeakInfiniBandIfAsked) {
  environment_.set("LINK", "infiniband");
  const OpenDevice device;
  EXPECT_EQ(device.port().link_layer, IBV_LINK_LAYER_INFINIBAND);
  EXPECT_NE(device.port().lid, 0);
  ASSERT_EQ(device.gids().size(), 1u);
  EXPECT_EQ(device.gids()[0].gid_type, static_cast<uint32_t>(IBV_GID_TYPE_IB));
}

TEST_F(DoubleDevices, HaveThePortThatWasAskedFor) {
  environment_.set("MTU", "2048");
  environment_.set("SPEED_GBPS", "200");
  const OpenDevice device;
  EXPECT_EQ(device.port().active_mtu, IBV_MTU_2048);
  EXPECT_EQ(device.port().state, IBV_PORT_ACTIVE);
  EXPECT_EQ(device.port().active_speed, 64);
}

TEST_F(DoubleDevices, LeadToTheirPciDevice) {
  const TempFolder folder;
  environment_.set("DEVICES", "2");
  environment_.set("SYSFS", folder.path());
  environment_.set("PCI", "0000:3b:00.0,0000:5e:00.1");
  const OpenDevice device(1);
  EXPECT_EQ(device.context->device->ibdev_path, folder.path() + "/double1");
  const std::filesystem::path path =
      std::filesystem::canonical(std::string(device.context->device->ibdev_path) + "/device");
  EXPECT_EQ(path.filename(), "0000:5e:00.1");
}

TEST_F(DoubleDevices, RegisterDmaBufsAsFarAsTheyHaveThem) {
  const int fd = ::memfd_create("dmabuf", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(fd, 1 << 16), 0);
  {
    Pair pair;
    ibv_mr* mr = ibv_reg_dmabuf_mr(pair.b.pd, 4096, 8192, 0x70000000, fd,
                                   IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    ASSERT_NE(mr, nullptr);
    pair.a.fill(0, 8000, 5);
    ibv_send_wr& request = pair.a.request(IBV_WR_RDMA_WRITE, 1, 8000);
    request.wr.rdma.remote_addr = 0x70000000 + 192;
    request.wr.rdma.rkey = mr->rkey;
    ASSERT_EQ(pair.a.post(request), 0);
    EXPECT_EQ(pair.a.completion().status, IBV_WC_SUCCESS);
    ASSERT_EQ(::pread(fd, pair.b.data(), 8000, 4096 + 192), 8000);
    EXPECT_TRUE(pair.b.filled(0, 8000, 5));
    EXPECT_EQ(ibv_dereg_mr(mr), 0);
    EXPECT_EQ(ibv_reg_dmabuf_mr(pair.b.pd, 0, 1 << 17, 0, fd, IBV_ACCESS_LOCAL_WRITE), nullptr);
    EXPECT_EQ(errno, EINVAL);
  }
  environment_.set("LACKS", "dmabuf,ece");
  Endpoint endpoint;
  EXPECT_EQ(ibv_reg_dmabuf_mr(endpoint.pd, 0, 4096, 0, fd, IBV_ACCESS_LOCAL_WRITE), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  ibv_ece ece{};
  EXPECT_EQ(ibv_query_ece(endpoint.qp, &ece), EOPNOTSUPP);
  ::close(fd);
}

TEST_F(DoubleDevices, AgreeOnEnhancedConnectionEstablishment) {
  Endpoint endpoint;
  ibv_ece ece{};
  ASSERT_EQ(ibv_query_ece(endpoint.qp, &ece), 0);
  EXPECT_NE(ece.vendor_id, 0u);
  EXPECT_EQ(ibv_set_ece(endpoint.qp, &ece), 0);
}

TEST_F(DoubleDevices, KeepHostsApartByTheirAddresses) {
  // The queue pair answers only what was sent to its own GID.
  EndpointOptions options;
  options.timeout = 8;
  Endpoint a(options), b(options);
  Address wrong = b.address();
  wrong.gid.raw[15] ^= 7;
  a.connect(wrong);
  b.connect(a.address());
  ASSERT_EQ(a.send(IBV_WR_RDMA_WRITE, 1, 8), 0);
  EXPECT_EQ(a.completion().status, IBV_WC_RETRY_EXC_ERR);
}

using DoubleDevicesDeathTest = DoubleDevices;

TEST_F(DoubleDevicesDeathTest, SayWhatTheyDoNotUnderstand) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  environment_.set("MTU", "9000");
  EXPECT_DEATH(names(), "RDMA_DOUBLE_MTU=9000 is no MTU");
  environment_.set("MTU", "1024");
  environment_.set("FAIL", "pq=1");
  EXPECT_DEATH(names(), "RDMA_DOUBLE_FAIL: no key pq");
}

}  // namespace
}  // namespace libcomm::test
