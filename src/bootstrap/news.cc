#include "src/bootstrap/news.h"

#include <cstring>

namespace libcomm {

std::string encode_news(NewsType type, const Status& reason) {
  NewsWire wire{};
  const std::string_view text = std::string_view(reason.message()).substr(0, kMaxNewsText);
  wire.type = static_cast<uint16_t>(type);
  wire.text_bytes = static_cast<uint16_t>(text.size());
  wire.code = static_cast<int32_t>(reason.code());
  wire.rank = reason.rank();
  wire.peer = reason.peer();
  wire.op = reason.op();
  std::string bytes(reinterpret_cast<const char*>(&wire), sizeof wire);
  return bytes.append(text);
}

std::string encode_left(int rank) {
  NewsWire wire{};
  wire.type = static_cast<uint16_t>(NewsType::kLeft);
  wire.rank = -1;
  wire.peer = rank;
  return std::string(reinterpret_cast<const char*>(&wire), sizeof wire);
}

ParsedNews parse_news(std::string_view bytes, int nranks) {
  ParsedNews parsed;
  NewsWire wire;
  if (bytes.size() < sizeof wire) return parsed;
  std::memcpy(&wire, bytes.data(), sizeof wire);
  const auto rank_ok = [nranks](int32_t rank) { return rank >= -1 && rank < nranks; };
  const bool failure = wire.type >= static_cast<uint16_t>(NewsType::kAbort) &&
                       wire.type <= static_cast<uint16_t>(NewsType::kRevoke);
  if (wire.type < static_cast<uint16_t>(NewsType::kAbort) ||
      wire.type > static_cast<uint16_t>(NewsType::kAsk) || wire.text_bytes > kMaxNewsText ||
      !rank_ok(wire.rank) || !rank_ok(wire.peer) || wire.code < 0 ||
      wire.code >= static_cast<int32_t>(Code::kInProgress) || failure != (wire.code != 0) ||
      (wire.type == static_cast<uint16_t>(NewsType::kLeft) && wire.peer < 0)) {
    parsed.state = ParsedNews::kMalformed;
    return parsed;
  }
  if (bytes.size() < sizeof wire + wire.text_bytes) return parsed;
  parsed.state = ParsedNews::kMessage;
  parsed.type = static_cast<NewsType>(wire.type);
  parsed.bytes = sizeof wire + wire.text_bytes;
  if (parsed.type == NewsType::kLeft) parsed.left = wire.peer;
  if (failure) {
    // It will be printed: one line, whatever the peer wrote.
    std::string text(bytes.substr(sizeof wire, wire.text_bytes));
    for (char& c : text)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    parsed.reason = Status(static_cast<Code>(wire.code), std::move(text))
                        .at_rank(wire.rank)
                        .with_peer(wire.peer)
                        .in_op(wire.op);
  }
  return parsed;
}

}  // namespace libcomm
