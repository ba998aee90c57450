// News: the messages of control links, and their bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "src/base/status.h"

namespace libcomm {

enum class NewsType : uint16_t {
  kAbort = 1,
  kDeath = 2,
  kRevoke = 3,
  kGoodbye = 4,  // the sender leaves in good order
  kWelcome = 5,  // the sender has taken up a link that it accepted
  kLeft = 6,     // a rank, named as the peer, has left in good order; passed on by all
  kAsk = 7,      // somebody waits in vain: does everybody's neighbour answer? passed on by all
};

constexpr size_t kMaxNewsText = 1024;

struct NewsWire {
  uint16_t type;
  uint16_t text_bytes;  // follow the struct
  int32_t code;         // a libcomm::Code
  int32_t rank;         // who noticed; -1 unknown
  int32_t peer;         // the culprit; -1 unknown
  uint64_t op;          // the communicator's operation number; 0 none
};
static_assert(sizeof(NewsWire) == 24);

std::string encode_news(NewsType type, const Status& reason);
std::string encode_left(int rank);

// The outcome of looking for a message at the front of `bytes`.
struct ParsedNews {
  enum { kIncomplete, kMalformed, kMessage } state = kIncomplete;
  NewsType type{};
  Status reason;
  int left = -1;     // kLeft: who
  size_t bytes = 0;  // used up by the message
};
ParsedNews parse_news(std::string_view bytes, int nranks);

}  // namespace libcomm
