// What only the double can do: tests find these functions with dlsym in the library that is loaded.
// All act on the queue pairs and devices of the calling process and give 0, or ENOENT for what is
// not there.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  uint32_t number;       // qp_num
  uint32_t destination;  // of the peer's
  uint64_t serial;       // the how-manieth of the process, from 1: what fault rules call qp
  int state;             // ibv_qp_state
  int device;
  uint64_t posted_sends;
  uint64_t sent_bytes;  // retransmissions count again
  uint64_t received_bytes;
  uint64_t in_flight_packets;  // sent, not acknowledged, in packets of the path MTU
  uint64_t max_in_flight_packets;
  uint64_t retransmissions;
  uint64_t receiver_not_ready;  // RNR NAKs taken
  uint64_t underway_packets;    // on their way to this queue pair: delayed or held
} rdma_double_qp_t;

typedef struct {
  uint64_t received_bytes;
  uint64_t received_packets;
  uint64_t dropped_packets;
  uint64_t backlog_bytes;  // arrived, not yet executed
  uint64_t max_backlog_bytes;
  // By the simulated clock of RDMA_DOUBLE_RECEIVE_RATE: a packet takes its bytes divided by the
  // rate, whatever this machine does. 0 without a rate.
  uint64_t busy_ns;
  uint64_t span_ns;        // from the first packet's beginning to the last one's end
  uint64_t registrations;  // memory regions made so far
} rdma_double_device_t;

// The living queue pairs, in the order of their making; the result is how many there are.
int rdma_double_list(rdma_double_qp_t* out, int room);
int rdma_double_qp(uint32_t number, rdma_double_qp_t* out);
int rdma_double_device(const char* name, rdma_double_device_t* out);

// How many registered regions of the process overlap [address, address + bytes).
int rdma_double_regions(const void* address, uint64_t bytes);

// The queue pair fails as by a fault of the hardware: ERR, all flushed, IBV_EVENT_QP_FATAL.
int rdma_double_kill(uint32_t number);
// When the queue pair goes to ERR its posted receives do not come back, as Soft-RoCE sometimes has
// it.
int rdma_double_keep_receives(uint32_t number);
// The next request posted on the queue pair ends with `status` (ibv_wc_status).
int rdma_double_fail_next(uint32_t number, int status);
// So many of the next packets that the queue pair sends are lost; it sends again after its timeout.
int rdma_double_lose_next(uint32_t number, uint64_t packets);
// From now on packets to this queue pair wait on the wire. With `sender_times_out` their sender
// takes them for lost, as when a switch holds them for long; they may still arrive.
int rdma_double_hold(uint32_t number, int sender_times_out);
// The same for what answers its own requests: acknowledgements and what is read. The queue pair
// waits for them without a limit.
int rdma_double_hold_answers(uint32_t number);
// The held packets arrive, if the queue pair still takes them.
int rdma_double_release(uint32_t number);
// Takes the cable out or puts it back: events to all contexts of the device in this process.
int rdma_double_port(const char* device, int port, int up);
// Bytes per second that the device takes in; 0: any.
int rdma_double_receive_rate(const char* device, uint64_t rate);

#ifdef __cplusplus
}
#endif
