// What travels between two queue pairs. A packet here stands for a run of packets on a real wire:
// up to kMaxPayload bytes of one message, with the first packet sequence number (PSN) and their
// count.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace rdma_double {

constexpr uint32_t kMaxPayload = 32 * 1024;
constexpr uint32_t kPsnMask = 0xffffff;

enum class Kind : uint8_t {
  kHello,         // first on a connection: who speaks (source = number of the process)
  kRequest,       // write, send, or the request of a read
  kReadResponse,  // bytes of a read
  kAck,           // all up to and with psn is done
  kNak,           // psn failed with `status`; the responder is in the error state
  kNotReady,      // psn found no posted receive (RNR); try again after `timer`
  kLost,  // psn was dropped. Real wires say nothing; here the loss is told to the requester,
          // who waits its timeout and sends again. So a slow machine is never taken for loss.
};

enum class Operation : uint8_t { kWrite, kSend, kRead };

enum Flags : uint8_t {
  kLast = 1,       // ends its message
  kImmediate = 2,  // carries immediate data
  kSolicited = 4,
};

struct Header {
  Kind kind;
  Operation operation;
  uint8_t flags;
  uint8_t status;  // ibv_wc_status of a kNak
  uint8_t timer;   // min_rnr_timer of a kNotReady
  uint8_t reserved[3];
  uint32_t source;       // queue pair number of the sender
  uint32_t destination;  // queue pair number of the receiver
  uint32_t psn;
  uint32_t packets;  // PSNs used
  uint32_t wave;  // counts the requester's retransmissions: old kLost and kNotReady are known by it
  uint32_t mtu;   // bytes
  uint32_t immediate;
  uint32_t rkey;
  uint32_t payload;  // bytes that follow
  uint64_t address;  // of the first byte at the target
  uint64_t offset;   // of the payload in its message
  uint64_t length;   // of the whole message
  ibv_gid destination_gid;
};
static_assert(std::is_trivially_copyable_v<Header> && sizeof(Header) == 88);

struct Packet {
  Header header{};
  std::unique_ptr<std::byte[]> payload;
};

}  // namespace rdma_double
