// The small languages of knobs: sizes, CPU lists, log parts, interface filters, algorithms,
// addresses.
#include <arpa/inet.h>

#include <algorithm>
#include <set>

#include "src/base/knobs.h"
#include "src/base/log.h"
#include "src/bootstrap/address.h"
#include "src/plan/algorithm_choice.h"
#include "src/topology/cpu_list.h"
#include "src/topology/json.h"
#include "tests/fuzz/fuzz.h"

namespace libcomm::fuzz {
namespace {

void sizes(std::string_view text) {
  uint64_t bytes = 0;
  if (!parse_size(text, &bytes)) return;
  FUZZ_CHECK(bytes <= uint64_t{INT64_MAX});
  uint64_t again = 0;
  FUZZ_CHECK(parse_size(std::to_string(bytes), &again) && again == bytes);
}

void cpu_lists(std::string_view text) {
  const auto list = parse_cpu_list(text);
  if (!list) {
    FUZZ_CHECK(list.status().code() == Code::kInvalidArgument && !list.status().message().empty());
    return;
  }
  FUZZ_CHECK(!list->empty() && list->size() <= kMaxCpuNumber + 1);
  for (int cpu : *list) FUZZ_CHECK(cpu >= 0 && cpu <= kMaxCpuNumber);
  const auto again = parse_cpu_list(format_cpu_list(*list));
  FUZZ_CHECK(again &&
             std::set(again->begin(), again->end()) == std::set(list->begin(), list->end()));
}

void json(std::string_view text) {
  const std::string quoted = json_quoted(text);
  FUZZ_CHECK(quoted.size() >= 2 && quoted.front() == '"' && quoted.back() == '"');
  for (const char c : quoted) FUZZ_CHECK(static_cast<unsigned char>(c) >= 0x20);
  // What came out is UTF-8: quoting it again replaces nothing more.
  const auto replaced = [](std::string_view in) {
    size_t count = 0;
    for (size_t at = 0; (at = in.find("\\ufffd", at)) != in.npos; ++at) ++count;
    return count;
  };
  FUZZ_CHECK(replaced(json_quoted(quoted)) == replaced(quoted));
}

void log_parts(std::string_view text) {
  std::string unknown;
  const unsigned bits = parse_subsystems(text, &unknown);
  const unsigned excluded = parse_subsystems("^" + std::string(text));
  if (!text.starts_with('^')) FUZZ_CHECK(bits == ~excluded);
  FUZZ_CHECK(text.find(unknown) != text.npos);
}

void interfaces(std::string_view filter) {
  std::vector<Interface> list;
  for (const char* name : {"lo", "eth0", "eth1", "docker0", "ib0"}) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(list.empty() ? INADDR_LOOPBACK : 0x0a000001);
    list.push_back({name, {SocketAddress::from(reinterpret_cast<sockaddr*>(&address))}});
  }
  size_t matching = 0;
  for (const Interface& interface : list) matching += interface_matches(filter, interface.name);
  const auto chosen = choose_addresses(list, filter);
  FUZZ_CHECK(chosen.is_ok() == (matching > 0));
  if (chosen) FUZZ_CHECK(!chosen->empty() && chosen->size() <= kMaxAddresses);
}

void addresses(std::string_view text) {
  // Names would be looked up in the network: only what has a numeric host goes further.
  const size_t colon = text.rfind(':');
  std::string host(text.substr(0, colon));
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  unsigned char bytes[16];
  std::string numeric(text);
  if (inet_pton(AF_INET, host.c_str(), bytes) != 1 && inet_pton(AF_INET6, host.c_str(), bytes) != 1)
    numeric = "127.0.0.1" + (colon == text.npos ? std::string() : std::string(text.substr(colon)));
  const auto endpoint = resolve_host_port(numeric, AF_UNSPEC, "COMM_ID");
  if (!endpoint) return;
  FUZZ_CHECK(!endpoint->empty() && endpoint->size() <= kMaxAddresses);
  for (const SocketAddress& address : *endpoint) FUZZ_CHECK(address.valid() && address.port() != 0);
}

void algorithm_choice(std::string_view text) {
  AlgorithmChoice choice;
  const Status status = choice.parse(text);
  if (!status) FUZZ_CHECK(status.code() == Code::kInvalidArgument);
}

}  // namespace

std::vector<std::string> seeds() {
  return {"0-3,8",
          "4K",
          "1T",
          "17",
          "9223372036854775807",
          "INIT,NET",
          "^NET,ALL",
          "=eth0,ib",
          "^lo,docker",
          "ring",
          "allreduce:ring;allgather:hd",
          "127.0.0.1:4711",
          "[::1]:65535",
          "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \"\\",
          "0-65535"};
}

}  // namespace libcomm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace libcomm::fuzz;
  [[maybe_unused]] static const bool quiet = [] {
    libcomm::configure_log(libcomm::LogLevel::kNone, 0, "");
    return true;
  }();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  sizes(text);
  cpu_lists(text);
  json(text);
  log_parts(text);
  interfaces(text);
  addresses(text);
  algorithm_choice(text);
  return 0;
}
