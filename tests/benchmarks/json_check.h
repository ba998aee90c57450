// Is this text one JSON value? For tests only: it accepts exactly RFC 8259's grammar and builds
// nothing.
#pragma once

#include <string>
#include <string_view>

namespace bench {

// Empty when it is; else where and what was wrong.
std::string json_error(std::string_view text);

}  // namespace bench
