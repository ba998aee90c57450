// RDMA transport: reliable connections between network adapters, with admission by the receiver.
//
//   verbs, handles        libibverbs, opened at run time; objects that destroy themselves
//   nic, gid, hca_filter  ports: which there are, which address, events
//   probe, offer, proof   whether a port works; what ranks tell each other; whether bytes come
//   through queue_pair, bundle    connections with exact accounting; all of one end of a channel
//   wire, control         what crosses the network
//   pinned, registration  memory: the library's own, the user's
//   gpu_direct, flush     GPU memory: whether and how it is used in place; order of what arrives
//   channel_end           what both ends do; how failed queue pairs are replaced
//   sender, receiver      the two ends: grants, segments
#pragma once

#include <memory>
#include <vector>

#include "src/base/knobs.h"
#include "src/bootstrap/bootstrap.h"
#include "transports/device_memory.h"
#include "transports/rdma/nic.h"
#include "transports/rdma/statistics.h"
#include "transports/transport.h"
#include "transports/user_memory.h"

namespace libcomm::rdma {

class RdmaTransport : public Transport {
 public:
  // The ports that this rank uses, first rail first.
  virtual std::vector<PortInfo> ports() const = 0;
  // Of the channels that are open.
  virtual std::vector<std::shared_ptr<const ChannelStatistics>> statistics() const = 0;
};

struct RdmaSetup {
  std::shared_ptr<const Knobs> knobs;
  std::shared_ptr<const UserMemory> memory;               // may be null
  int numa_node = -1;                                     // where this rank runs, when it is bound
  std::shared_ptr<const DeviceMemory> devices = nullptr;  // null: there is no GPU memory
};

// Collective. Null, on every rank alike, when no two ranks can talk by RDMA; else reaches() says,
// from what was exchanged, which can. Ports that do not work are left out with a word in the log.
// kInvalidArgument, on every rank alike, when a rank's knobs cannot be read. `bootstrap` must
// outlive the transport.
Result<std::unique_ptr<RdmaTransport>> make_rdma_transport(Bootstrap& bootstrap,
                                                           const RdmaSetup& setup);

}  // namespace libcomm::rdma
