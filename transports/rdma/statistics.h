// What a channel counts: for tests, for `comm-check rdma`, and for whoever debugs a cluster.
#pragma once

#include <atomic>
#include <cstdint>

namespace libcomm::rdma {

// Of one end of one channel. Written by its thread, read by any.
struct ChannelStatistics {
  int rank = -1;
  int peer = -1;
  int lane = 0;
  bool sends = false;

  std::atomic<uint64_t> segments{0};              // accepted, or handed over
  std::atomic<uint64_t> small_segments{0};        // of them, those that needed no grant
  std::atomic<uint64_t> granted_bytes{0};         // large grants: received, or given
  std::atomic<uint64_t> written_bytes{0};         // of large segments
  std::atomic<uint64_t> in_flight_bytes{0};       // written and not known to have arrived
  std::atomic<uint64_t> peak_in_flight_bytes{0};  // the most of it
  std::atomic<uint64_t> open_grant_bytes{0};      // receiver: granted, not yet used up
  std::atomic<uint64_t> peak_open_grant_bytes{0};
  std::atomic<uint64_t> direct_segments{0};  // from or into user memory, without a copy
  std::atomic<uint64_t> filled_grants{0};    // of them, those that needed no header
  std::atomic<uint64_t> refused_grants{0};   // made for another segment
  std::atomic<uint64_t> entries{0};          // of the grant ring that were written, or read
  std::atomic<uint64_t> duplicates{0};       // immediates that had arrived before
  std::atomic<uint64_t> out_of_order{0};     // arrivals ahead of one that was still missing
  std::atomic<uint64_t> fenced_qps{0};       // queue pairs that failed and were fenced
  std::atomic<uint64_t> rebuilt_qps{0};
  std::atomic<uint64_t> sent_again{0};  // parts of segments, after a fence
  std::atomic<uint64_t> qps_used{0};    // bits of the data queue pairs that carried something

  static void raise(std::atomic<uint64_t>& peak, uint64_t value) {
    if (value > peak.load(std::memory_order_relaxed)) peak.store(value, std::memory_order_relaxed);
  }
  static void add(std::atomic<uint64_t>& counter, uint64_t value = 1) {
    counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
  }
  static void subtract(std::atomic<uint64_t>& counter, uint64_t value) {
    counter.store(counter.load(std::memory_order_relaxed) - value, std::memory_order_relaxed);
  }
};

}  // namespace libcomm::rdma
