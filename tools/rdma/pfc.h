// Priority flow control of a network device: which priorities are lossless, that is, which a full
// receiver pauses instead of dropping their packets. Drivers tell over DCB netlink, as
// `dcb pfc show` asks them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace libcomm {

// Bits 0 to 7 are the priorities with PFC; none when the driver does not say, or there is no such
// device.
std::optional<uint8_t> lossless_priorities(const std::string& interface);

// What is asked, and what an answer says: the two halves of lossless_priorities().
std::vector<std::byte> pfc_question(const std::string& interface);
std::optional<uint8_t> read_pfc_answer(std::span<const std::byte> answer);

}  // namespace libcomm
