// Facts: what a rank knows about its own process and host, for all others to compare.
#pragma once

#include "src/base/knobs.h"
#include "transports/transport.h"

namespace libcomm {

// Facts of the calling process and thread: boot id with COMM_HOSTID, a token that is random per
// process (drawn anew in a forked child), namespaces, effective user. `core` is set when the thread
// is bound to exactly one; `numa_node` stays -1, for who knows the topology to fill in. Any thread.
PeerFacts gather_facts(int rank, const Knobs& knobs);
// One address space.
bool same_process(const PeerFacts& a, const PeerFacts& b);
// Equal host hashes; whether memory can really be shared is proved by mapping it.
bool perhaps_same_host(const PeerFacts& a, const PeerFacts& b);

}  // namespace libcomm
