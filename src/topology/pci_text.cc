// PCI addresses and link speeds as people and kernels write them.
#include <charconv>
#include <cstdint>

#include "src/topology/nccl_file.h"

namespace libcomm {
namespace {

// The whole of `text` as a number; false when it is none.
template <typename T, typename... Base>
bool whole(std::string_view text, T* value, Base... base) {
  if (text.empty()) return false;
  const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), *value, base...);
  return err == std::errc() && end == text.data() + text.size() && text.front() != '-';
}

// A hexadecimal field of at most `digits` digits.
bool field(std::string_view text, size_t digits, uint32_t* value) {
  return text.size() <= digits && whole(text, value, 16);
}

}  // namespace

std::string normal_pci_address(std::string_view text) {
  uint32_t domain = 0, bus = 0, device = 0, function = 0;
  if (const size_t dot = text.find('.'); dot != text.npos) {
    if (!field(text.substr(dot + 1), 1, &function)) return {};
    text = text.substr(0, dot);
  }
  const size_t last = text.rfind(':');
  if (last == text.npos || !field(text.substr(last + 1), 2, &device)) return {};
  text = text.substr(0, last);
  if (const size_t first = text.find(':'); first != text.npos) {
    if (!field(text.substr(0, first), 8, &domain)) return {};
    text = text.substr(first + 1);
  }
  if (!field(text, 2, &bus)) return {};
  return fmt::format("{:04x}:{:02x}:{:02x}.{:x}", domain, bus, device, function);
}

double pcie_gbytes_per_second(std::string_view rate, std::string_view width) {
  const size_t unit = rate.find(" GT/s");
  double gigatransfers = 0;
  int lanes = 0;
  if (unit == rate.npos || !whole(rate.substr(0, unit), &gigatransfers)) return 0;
  if (!whole(width, &lanes)) return 0;
  if (!(gigatransfers > 0 && gigatransfers <= 1024) || lanes < 1 || lanes > 32) return 0;
  // Generations 1 and 2 send 8 bits as 10, 3 to 5 128 bits as 130, later ones 242 bytes in 256.
  const double efficiency = gigatransfers <= 5    ? 8.0 / 10
                            : gigatransfers <= 32 ? 128.0 / 130
                                                  : 242.0 / 256;
  return gigatransfers * efficiency * lanes / 8;
}

}  // namespace libcomm
