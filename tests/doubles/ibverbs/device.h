// Devices as the environment describes them, and what queries say about them.
#pragma once

#include "tests/doubles/ibverbs/objects.h"

namespace rdma_double {

// Fills the device in from the configuration, ports up.
void set_up_device(Device& device, int index);
void describe(const Device& device, ibv_device_attr* attributes);
void describe(Device& device, int port, ibv_port_attr* attributes);

}  // namespace rdma_double
