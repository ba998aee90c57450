// The handshake that opens every connection of the library, and the keys it proves.
//
// Challenge and response in both directions with HMAC-SHA-256 (RFC 2104) over nonces from both
// sides:
//
//   caller -> callee  Hello      who calls whom, in which group, what for; the caller's nonce
//   callee -> caller  Challenge  the callee's nonce, HMAC(key, "callee" | Hello | callee's nonce)
//   caller -> callee  Proof      HMAC(key, "caller" | Hello | callee's nonce)
//
// Each side believes no byte before the other's proof. Role, ranks, group and purpose are under
// both MACs, so a proof can neither be reflected nor used for another purpose. What follows on the
// connection is neither encrypted nor authenticated: the network is trusted not to alter packets.
//
// Both sides are state machines on non-blocking sockets: a stranger that sends garbage, or nothing,
// holds nobody up.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "src/base/status.h"

namespace libcomm {

using Key = std::array<unsigned char, 32>;
using Mac = std::array<unsigned char, 32>;

// HMAC-SHA-256 of `label` and the parts in order. Labels keep the uses of one key apart.
Mac hmac(std::span<const unsigned char> key, std::string_view label,
         std::initializer_list<std::span<const unsigned char>> parts);
// Takes the same time wherever the difference is.
bool equal_secret(std::span<const unsigned char> a, std::span<const unsigned char> b);
// Cryptographically random; kSystem when the kernel has none to give.
Status random_bytes(std::span<unsigned char> out);

constexpr uint32_t kHandshakeMagic = 0x4d4d4f43;  // "COMM"
constexpr uint16_t kHandshakeVersion = 2;

// The library's own purposes, beside those of bootstrap.h's Purpose.
enum class Use : uint16_t {
  kRoot = 200,     // a rank to the server of the rendezvous
  kTree = 201,     // data of the bootstrap's own collectives
  kControl = 202,  // liveness and news
  kDerive = 203,   // tree of a derived group, opened through its parent
};

struct HelloWire {
  uint32_t magic;
  uint16_t version;
  uint16_t purpose;
  uint32_t from;   // rank of the caller
  uint32_t to;     // rank it wants to reach; 0 at a root
  uint32_t index;  // which of several connections between the two
  uint32_t reserved;
  uint64_t
      group;  // first bytes of a MAC under the key: tells groups apart without revealing the key
  unsigned char nonce[32];
};
static_assert(sizeof(HelloWire) == 64 && offsetof(HelloWire, group) == 24);

struct ChallengeWire {
  uint32_t magic;
  uint16_t version;
  uint16_t reserved;
  unsigned char nonce[32];
  unsigned char mac[32];
};
static_assert(sizeof(ChallengeWire) == 72);

struct ProofWire {
  unsigned char mac[32];
};
static_assert(sizeof(ProofWire) == 32);

// The group field that belongs to a key.
uint64_t group_of(const Key& key);

enum class Handshake {
  kAgain,     // wait until the socket is readable, then step() again
  kDone,      // the other side knows the key
  kClosed,    // it hung up
  kStranger,  // it does not speak the protocol, or does not know the key
  kVersion,   // it speaks another version of the protocol
};

// The side that connected. start() once, then step() whenever the socket is readable.
class CallerHandshake {
 public:
  CallerHandshake(const Key& key, uint16_t purpose, uint32_t from, uint32_t to, uint32_t index);
  Handshake start(int fd);
  Handshake step(int fd);

 private:
  Key key_;
  HelloWire hello_{};
  ChallengeWire challenge_{};
  size_t got_ = 0;
};

// The side that accepted.
class CalleeHandshake {
 public:
  // `self` is the rank that callers must want; `nranks` bounds the caller's rank.
  CalleeHandshake(const Key& key, uint32_t self, uint32_t nranks);
  Handshake step(int fd);
  // Valid once done.
  const HelloWire& hello() const { return hello_; }
  // True once a well-formed Hello came: what fails after that is a wrong key, not a stranger.
  bool challenged() const { return challenged_; }
  // True once one came that names this key's group.
  bool of_this_group() const { return of_this_group_; }

 private:
  Key key_;
  uint32_t self_;
  uint32_t nranks_;
  bool challenged_ = false;
  bool of_this_group_ = false;
  HelloWire hello_{};
  ChallengeWire challenge_{};
  ProofWire proof_{};
  size_t got_ = 0;
};

}  // namespace libcomm
