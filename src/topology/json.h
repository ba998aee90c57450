// JSON text, the little that the topology needs: correct strings and finite numbers.
#pragma once

#include <string>
#include <string_view>

namespace libcomm {

// `text` in double quotes. Control characters are escaped; bytes that are not UTF-8 become U+FFFD,
// so that the document stays valid whatever a device is called.
std::string json_quoted(std::string_view text);

}  // namespace libcomm
