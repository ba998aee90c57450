// What the knobs say to the TCP transport, and what its channels count.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

#include "src/base/knobs.h"

namespace libcomm {

struct TcpOptions {
  // A segment: a quarter of the staging memory that COMM_BUFFSIZE grants a channel, so that
  // filling, sending, receiving and reducing overlap; 256 KiB by default. At most 1 MiB: beyond, a
  // header and two system calls per segment are already lost in the noise, and a staged segment
  // should fit into an L2 cache. A multiple of 64, so that no element is cut.
  size_t segment_bytes = 256 << 10;
  // Staged segments per channel.
  int slots = 4;
  // Sockets of a channel: per helper thread, or in all when there is none.
  int sockets = 1;
  int threads = 0;

  int sockets_per_channel() const { return sockets * std::max(threads, 1); }

  static TcpOptions from(const Knobs& knobs) {
    TcpOptions options;
    const size_t buffer = static_cast<size_t>(knobs.get_size(Knob::kBuffsize));
    options.segment_bytes = std::min<size_t>(buffer / 4, 1 << 20) / 64 * 64;
    options.slots = static_cast<int>(buffer / options.segment_bytes);
    options.sockets = static_cast<int>(knobs.get_int(Knob::kNsocksPerthread));
    options.threads = static_cast<int>(knobs.get_int(Knob::kSocketNthreads));
    return options;
  }
};

// Shared by a transport and its channels; any thread.
struct TcpCounters {
  std::atomic<size_t> host_bytes{0};
  std::atomic<int> channels{0};
  std::atomic<int> sockets{0};
};

// Counts its channel for as long as it lives.
class ChannelCount {
 public:
  explicit ChannelCount(std::shared_ptr<TcpCounters> counters) : counters_(std::move(counters)) {
    ++counters_->channels;
  }
  ~ChannelCount() { --counters_->channels; }
  ChannelCount(const ChannelCount&) = delete;
  ChannelCount& operator=(const ChannelCount&) = delete;

 private:
  const std::shared_ptr<TcpCounters> counters_;
};

}  // namespace libcomm
