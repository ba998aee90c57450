// Facts: what a rank knows about its own process and host, for all others to compare.
#pragma once

#include "src/base/knobs.h"
#include "transports/transport.h"

namespace libcomm {

PeerFacts gather_facts(int rank, const Knobs& knobs);
bool same_process(const PeerFacts& a, const PeerFacts& b);
// Equal host hashes; whether memory can really be shared is proved by mapping it.
bool perhaps_same_host(const PeerFacts& a, const PeerFacts& b);

}  // namespace libcomm
