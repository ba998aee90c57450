#include "src/bootstrap/handshake.h"

// SHA-256 by OpenSSL's plain functions: the ones that replace them keep locks and state per thread,
// which a process that forks while another thread is inside them leaves locked in the child.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "src/bootstrap/socket.h"

namespace libcomm {
namespace {

template <typename T>
std::span<const unsigned char> bytes_of(const T& value) {
  return {reinterpret_cast<const unsigned char*>(&value), sizeof value};
}

Mac sha256(std::initializer_list<std::span<const unsigned char>> parts) {
  SHA256_CTX context;
  SHA256_Init(&context);
  for (std::span<const unsigned char> part : parts)
    SHA256_Update(&context, part.data(), part.size());
  Mac digest{};
  SHA256_Final(digest.data(), &context);
  OPENSSL_cleanse(&context, sizeof context);
  return digest;
}

constexpr std::string_view kCalleeLabel = "libcomm handshake 1 callee";
constexpr std::string_view kCallerLabel = "libcomm handshake 1 caller";

Mac proof_of(const Key& key, std::string_view label, const HelloWire& hello,
             const ChallengeWire& challenge) {
  return hmac(key, label, {bytes_of(hello), challenge.nonce});
}

// Reads towards a whole T; kDone when it is there.
template <typename T>
Handshake read_into(int fd, T* target, size_t* got) {
  while (*got < sizeof(T)) {
    size_t count = 0;
    switch (read_some(fd, reinterpret_cast<char*>(target) + *got, sizeof(T) - *got, &count)) {
      case Moved::kSome:
        *got += count;
        break;
      case Moved::kNothing:
        return Handshake::kAgain;
      case Moved::kClosed:
        return Handshake::kClosed;
    }
  }
  return Handshake::kDone;
}

}  // namespace

Mac hmac(std::span<const unsigned char> key, std::string_view label,
         std::initializer_list<std::span<const unsigned char>> parts) {
  // The label ends with a zero byte, so no label is the beginning of another.
  std::vector<unsigned char> text(label.begin(), label.end());
  text.push_back(0);
  for (std::span<const unsigned char> part : parts)
    text.insert(text.end(), part.begin(), part.end());
  // RFC 2104: H(key ^ opad | H(key ^ ipad | text)), the key as a block of the hash.
  std::array<unsigned char, SHA256_CBLOCK> block{};
  if (key.size() > block.size()) {
    const Mac digest = sha256({key});
    std::copy(digest.begin(), digest.end(), block.begin());
  } else {
    std::copy(key.begin(), key.end(), block.begin());
  }
  for (unsigned char& byte : block) byte ^= 0x36;
  const Mac inner = sha256({block, text});
  for (unsigned char& byte : block) byte ^= 0x36 ^ 0x5c;
  const Mac mac = sha256({block, inner});
  OPENSSL_cleanse(block.data(), block.size());
  OPENSSL_cleanse(text.data(), text.size());
  return mac;
}

bool equal_secret(std::span<const unsigned char> a, std::span<const unsigned char> b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

Status random_bytes(std::span<unsigned char> out) {
  for (size_t done = 0; done < out.size();) {
    const ssize_t got = ::getrandom(out.data() + done, out.size() - done, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return system_error(errno, "the system gives no random bytes (getrandom)");
    done += static_cast<size_t>(got);
  }
  return Status::ok();
}

uint64_t group_of(const Key& key) {
  const Mac mac = hmac(key, "libcomm group name", {});
  uint64_t group = 0;
  std::memcpy(&group, mac.data(), sizeof group);
  return group;
}

CallerHandshake::CallerHandshake(const Key& key, uint16_t purpose, uint32_t from, uint32_t to,
                                 uint32_t index)
    : key_(key) {
  hello_.magic = kHandshakeMagic;
  hello_.version = kHandshakeVersion;
  hello_.purpose = purpose;
  hello_.from = from;
  hello_.to = to;
  hello_.index = index;
  hello_.group = group_of(key);
}

Handshake CallerHandshake::start(int fd) {
  if (!random_bytes(hello_.nonce)) return Handshake::kClosed;
  return write_whole(fd, &hello_, sizeof hello_) ? Handshake::kAgain : Handshake::kClosed;
}

Handshake CallerHandshake::step(int fd) {
  const Handshake read = read_into(fd, &challenge_, &got_);
  if (got_ >= 4 && challenge_.magic != kHandshakeMagic) return Handshake::kStranger;
  if (got_ >= 6 && challenge_.version != kHandshakeVersion) return Handshake::kVersion;
  if (read != Handshake::kDone) return read;
  const Mac expected = proof_of(key_, kCalleeLabel, hello_, challenge_);
  if (!equal_secret(expected, challenge_.mac)) return Handshake::kStranger;
  const Mac mine = proof_of(key_, kCallerLabel, hello_, challenge_);
  ProofWire proof;
  std::memcpy(proof.mac, mine.data(), mine.size());
  return write_whole(fd, &proof, sizeof proof) ? Handshake::kDone : Handshake::kClosed;
}

CalleeHandshake::CalleeHandshake(const Key& key, uint32_t self, uint32_t nranks)
    : key_(key), self_(self), nranks_(nranks) {}

Handshake CalleeHandshake::step(int fd) {
  if (!challenged_) {
    const Handshake read = read_into(fd, &hello_, &got_);
    if (got_ >= 4 && hello_.magic != kHandshakeMagic) return Handshake::kStranger;
    if (read != Handshake::kDone) return read;
    // A caller of another version, or one with another key, gets a Challenge all the same: its
    // version and MAC tell the caller which of the two it is.
    challenge_.magic = kHandshakeMagic;
    challenge_.version = kHandshakeVersion;
    if (!random_bytes(challenge_.nonce)) return Handshake::kClosed;
    const Mac mac = proof_of(key_, kCalleeLabel, hello_, challenge_);
    std::memcpy(challenge_.mac, mac.data(), mac.size());
    if (!write_whole(fd, &challenge_, sizeof challenge_)) return Handshake::kClosed;
    challenged_ = true;
    of_this_group_ = hello_.group == group_of(key_);
    got_ = 0;
  }
  const Handshake read = read_into(fd, &proof_, &got_);
  if (read != Handshake::kDone) return read;
  const Mac expected = proof_of(key_, kCallerLabel, hello_, challenge_);
  if (!equal_secret(expected, proof_.mac)) return Handshake::kStranger;
  if (hello_.version != kHandshakeVersion) return Handshake::kVersion;
  if (!of_this_group_ || hello_.to != self_ || hello_.from >= nranks_) return Handshake::kStranger;
  return Handshake::kDone;
}

}  // namespace libcomm
