// The unique id: 128 bytes that tell a rank where its group meets and with which key.
#pragma once

#include <string>

#include "src/bootstrap/address.h"
#include "src/bootstrap/handshake.h"
#include "src/bootstrap/rendezvous.h"

namespace libcomm {

// What an id says.
struct Meeting {
  enum class Kind : uint8_t {
    kServed = 1,   // the process that made the id serves it at one of the addresses
    kAddress = 2,  // rank 0 serves at the first of the ports that it can bind
    kFile = 3,     // rank 0 writes a served id to the file
  };
  Kind kind = Kind::kServed;
  Key key{};          // kServed, kAddress
  Endpoint endpoint;  // kServed, kAddress
  std::string file;   // kFile: an absolute path
};

// kInvalidArgument: the path of a kFile meeting is too long.
Result<UniqueIdBytes> encode(const Meeting& meeting);
// kInvalidArgument: the bytes are not an id, or one of another version of the library.
Result<Meeting> decode(const UniqueIdBytes& id);

// COMM_SECRET, or the content of COMM_SECRET_FILE without trailing newlines; empty when neither is
// set. kInvalidArgument: both are set; the file is empty or others can read it. kSystem: it cannot
// be read.
Result<std::string> configured_secret(const Knobs& knobs);

// The key of a rendezvous by address: from the job's secret, or, without one, from the address text
// alone (anyone can compute it: the unauthenticated mode, with one warning per process).
Result<Key> address_key(const Knobs& knobs, std::string_view address);

// The meeting that COMM_ID describes. `text` is its value, `what` the setting's name for errors.
Result<Meeting> meeting_of(const Knobs& knobs, const std::string& text, std::string_view what);

}  // namespace libcomm
