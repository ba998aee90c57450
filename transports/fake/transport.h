// Fake transport: ranks as threads of one test, with everything that a network does to one's plans.
//
// It moves bytes through memory, late, in bits and pieces, and out of order between channels, as a
// seed says: the n-th segment of a channel has the same fate in every run, however the threads
// interleave. A rank can be killed at its N-th step or stopped. Time does not enter: delays are
// counted in polls of the receiver.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "src/base/status.h"
#include "transports/transport.h"

namespace libcomm {

struct FakeOptions {
  uint64_t seed = 1;
  size_t segment_bytes = 4096;
  int credits = 2;        // segments of a channel on their way, at least 1
  int max_delay = 0;      // a segment shows itself after 0..max_delay polls
  bool short_io = false;  // post() and receive_into() move a random part per call
  bool direct = true;     // kDirectSend and kDirectRecv
};

class FakePipe;

// What the ranks of one test share. Thread safe.
class FakeNetwork {
 public:
  FakeNetwork(int nranks, const FakeOptions& options);

  int nranks() const { return static_cast<int>(ranks_.size()); }
  const FakeOptions& options() const { return options_; }

  // From now on: what the rank had sent whole still arrives, its own calls fail with kSystem, those
  // of its peers with kRemote naming it.
  void kill(int rank);
  // As kill(), in the middle of the rank's step number `step`, from 1. A step is an accepted
  // commit, post or release, or a receive_into that is done.
  void kill_at(int rank, uint64_t step);
  // The rank's calls do nothing any more, as if its process was stopped.
  void stall(int rank);

  // How many steps the rank has done.
  uint64_t steps(int rank) const;

  // For the channels.
  bool is_dead(int rank) const;
  bool is_stalled(int rank) const;
  // Counts a step; false when the rank died in it.
  bool step(int rank);
  // The n-th (`generation`) pipe from one rank to another on a lane; made by who comes first.
  std::shared_ptr<FakePipe> pipe(int from, int to, int lane, int generation);

 private:
  struct Rank {
    std::atomic<uint64_t> steps{0};
    std::atomic<uint64_t> dies_at{~uint64_t{0}};
    std::atomic<bool> dead{false};
    std::atomic<bool> stalled{false};
  };
  Rank& at(int rank) { return *ranks_[static_cast<size_t>(rank)]; }
  const Rank& at(int rank) const { return *ranks_[static_cast<size_t>(rank)]; }

  const FakeOptions options_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::mutex mutex_;
  std::map<std::tuple<int, int, int, int>, std::shared_ptr<FakePipe>> pipes_;
};

// One rank's end of the network.
std::unique_ptr<Transport> make_fake_transport(std::shared_ptr<FakeNetwork> network, int rank);

}  // namespace libcomm
