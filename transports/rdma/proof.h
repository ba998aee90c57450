// Proof: that bytes really come through between ranks, before RDMA is promised to anybody.
//
// Every rank opens a channel to one other, sends an empty segment and closes it again: a ring of
// handshakes over the ranks that have ports. What it finds becomes known to all, so that all fall
// back to sockets or none does.
#pragma once

#include <span>

#include "src/bootstrap/bootstrap.h"
#include "transports/rdma/offer.h"
#include "transports/transport.h"

namespace libcomm::rdma {

// The rank that `rank` proves its route to: the next one that it has rails with; -1: there is none.
int proof_partner(std::span<const RankOffer> offers, int rank);

// Collective. OK on every rank, or on none: then it names a pair and what was wrong. Blocks for at
// most 20 seconds. Failures of the bootstrap itself are in *exchange.
Status prove_routes(Bootstrap& bootstrap, Transport& transport, std::span<const RankOffer> offers,
                    Status* exchange);

}  // namespace libcomm::rdma
