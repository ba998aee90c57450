// Measures RDMA between pairs of ranks, one pair at a time, over channels of the real transport.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "src/bootstrap/bootstrap.h"
#include "transports/rdma/transport.h"

namespace libcomm {

struct PairLoad {
  size_t bytes = 1 << 20;  // of a message
  int count = 64;          // messages each way
  int rounds = 200;        // of the ping-pong
};

// What a rank saw with one peer. The text is for people; an empty one: all went well.
struct PairResult {
  int rank = -1;
  int peer = -1;
  double microseconds = 0;      // one way, of 8 bytes
  double bytes_per_second = 0;  // to the peer
  // Of both channels' ends at this rank.
  uint64_t granted = 0, written = 0, peak_in_flight = 0, most_granted = 0;
  uint64_t slices = 0, direct = 0, failed_qps = 0, replaced_qps = 0, sent_again = 0;
  std::string complaint;

  std::string encode() const;
  static Result<PairResult> decode(const std::string& line);
};

// Which pairs there are: all of up to 16 ranks; of more, each with the next and the one half-way
// round. Lower rank first.
std::vector<std::pair<int, int>> pairs_of(int nranks);

// This rank's part in one pair. Ends, with a complaint, when `gone` says that a rank died, or after
// half a minute without progress.
PairResult measure_pair(Bootstrap& bootstrap, rdma::RdmaTransport& transport, int peer,
                        const PairLoad& load, std::byte* memory, const std::atomic<bool>& gone);

}  // namespace libcomm
