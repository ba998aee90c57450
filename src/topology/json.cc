#include "src/topology/json.h"

#include <fmt/format.h>

#include <cstdint>

namespace libcomm {
namespace {

// The length of the UTF-8 character at the front of `text` (RFC 3629: shortest form, no surrogates,
// at most U+10FFFF), 0 when there is none.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  if ((lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xed && byte(1) > 0x9f)) return 0;
  if ((lead == 0xf0 && byte(1) < 0x90) || (lead == 0xf4 && byte(1) > 0x8f)) return 0;
  return length;
}

}  // namespace

std::string json_quoted(std::string_view text) {
  std::string quoted = "\"";
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) {
      quoted += "\\ufffd";
    } else if (text.front() == '"' || text.front() == '\\') {
      quoted += '\\';
      quoted += text.front();
    } else if (length == 1 && (static_cast<uint8_t>(text.front()) < 0x20 || text.front() == 0x7f)) {
      quoted += fmt::format("\\u{:04x}", static_cast<unsigned>(text.front()));
    } else {
      quoted += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return quoted += '"';
}

}  // namespace libcomm
