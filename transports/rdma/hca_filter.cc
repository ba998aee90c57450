#include "transports/rdma/hca_filter.h"

#include <charconv>

namespace libcomm::rdma {

Result<HcaFilter> HcaFilter::parse(std::string_view text) {
  HcaFilter filter;
  const std::string_view whole = text;
  const auto bad = [&](std::string_view why) {
    return error(Code::kInvalidArgument,
                 "COMM_IB_HCA={}: {}; it is a list such as mlx5_0:1,mlx5_1, with a leading = for "
                 "exact names or ^ to exclude",
                 whole, why);
  };
  for (; text.starts_with('^') || text.starts_with('='); text.remove_prefix(1)) {
    bool& flag = text.front() == '^' ? filter.excludes_ : filter.exact_;
    if (flag) return bad("a sign is given twice");
    flag = true;
  }
  if (text.empty() && (filter.excludes_ || filter.exact_)) return bad("no name follows the sign");
  while (!text.empty()) {
    const size_t comma = text.find(',');
    std::string_view item = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    Entry entry;
    if (const size_t colon = item.find(':'); colon != std::string_view::npos) {
      const std::string_view number = item.substr(colon + 1);
      const auto [end, err] =
          std::from_chars(number.data(), number.data() + number.size(), entry.port);
      if (err != std::errc() || end != number.data() + number.size() || entry.port < 1 ||
          entry.port > 255)
        return bad(fmt::format("'{}' is no port number", number));
      item = item.substr(0, colon);
    }
    if (item.empty()) return bad("a name is empty");
    entry.name = item;
    filter.entries_.push_back(std::move(entry));
  }
  return filter;
}

bool HcaFilter::accepts(std::string_view device, int port) const {
  if (entries_.empty()) return true;
  for (const Entry& entry : entries_) {
    const bool named = exact_ ? device == entry.name : device.starts_with(entry.name);
    if (named && (entry.port < 0 || entry.port == port)) return !excludes_;
  }
  return excludes_;
}

}  // namespace libcomm::rdma
