// NCCL_* variables, of the environment and of NCCL's files (conf.h): each row of the table becomes
// the default of a COMM_* knob, so that what is set under libcomm's own name wins. Variables that
// are not in the table have no effect; values that the knob does not take have none either, but a
// warning. docs/nccl.md has the table for users.
#include <strings.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include "bindings/nccl/call.h"
#include "bindings/nccl/conf.h"

namespace nccl_binding {
namespace {

using Value = std::optional<std::string>;  // none: the variable says nothing to libcomm

bool same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") + 1 - begin);
}

// The part of *text before the first `separator`, which is taken away.
std::string_view next_item(std::string_view* text, char separator) {
  const size_t end = text->find(separator);
  const std::string_view item = trim(text->substr(0, end));
  *text = end == std::string_view::npos ? std::string_view() : text->substr(end + 1);
  return item;
}

std::optional<long long> number_of(const char* text) {
  char* end = nullptr;
  const long long value = std::strtoll(text, &end, 0);  // hexadecimal too, as NCCL reads them
  if (end == text || !trim(end).empty()) return {};
  return value;
}

Value as_it_is(const char* text) { return text; }

Value number(const char* text) {
  const auto value = number_of(text);
  return value ? Value(std::to_string(*value)) : Value();
}

Value yes_or_no(const char* text) {
  const auto value = number_of(text);
  return value ? Value(*value != 0 ? "1" : "0") : Value();
}

// NCCL has up to 64 channels, libcomm up to 16 lanes.
Value lanes(const char* text) {
  const auto value = number_of(text);
  if (!value || *value < 1) return {};
  return std::to_string(std::min(*value, 16LL));
}

Value log_level(const char* text) { return same_word(text, "ABORT") ? "INFO" : text; }

// Without the parts that only NCCL has.
Value log_parts(const char* text) {
  constexpr std::string_view kKnown[] = {"INIT",  "COLL",   "P2P", "SHM",   "NET",  "BOOTSTRAP",
                                         "GRAPH", "TUNING", "ENV", "ALLOC", "CALL", "ALL"};
  std::string_view rest = trim(text);
  const bool excluding = rest.starts_with('^');
  if (excluding) rest.remove_prefix(1);
  std::string kept;
  while (!rest.empty()) {
    const std::string_view part = next_item(&rest, ',');
    const auto is_part = [&](std::string_view known) { return same_word(part, known); };
    if (std::none_of(std::begin(kKnown), std::end(kKnown), is_part)) continue;
    if (!kept.empty()) kept += ',';
    kept += part;
  }
  if (excluding) return kept.empty() ? "ALL" : "^" + kept;
  return kept.empty() ? "^ALL" : kept;
}

// NCCL lists what is allowed ("ring,tree", "^nvls", "allreduce:tree;broadcast:ring"); libcomm is
// told what to use. A list that leaves one of libcomm's is that one; any other is no order.
Value algorithms(const char* text) {
  std::string orders;
  std::string_view rest = text;
  while (!rest.empty()) {
    std::string_view allowed = next_item(&rest, ';');
    std::string_view collective;
    if (allowed.find(':') != std::string_view::npos) collective = next_item(&allowed, ':');
    if (allowed.starts_with('^')) continue;
    std::string_view only;
    int found = 0;
    while (!allowed.empty()) {
      const std::string_view name = next_item(&allowed, ',');
      for (const std::string_view ours : {"ring", "tree"}) {
        if (!same_word(name, ours)) continue;
        only = ours;
        ++found;
      }
    }
    if (found != 1) continue;
    constexpr std::string_view kCollectives[] = {"allreduce", "reducescatter", "allgather",
                                                 "broadcast", "reduce"};
    const auto is_it = [&](std::string_view known) { return same_word(collective, known); };
    if (!collective.empty() &&
        std::none_of(std::begin(kCollectives), std::end(kCollectives), is_it))
      continue;
    if (!orders.empty()) orders += ';';
    if (!collective.empty()) orders.append(collective) += ':';
    orders += only;
  }
  return orders.empty() ? Value() : orders;
}

// NCCL_NET=Socket: no RDMA.
Value only_sockets(const char* text) {
  return same_word(trim(text), "socket") ? Value("1") : Value();
}

// One policy or several ("EFFICIENCY|ZERO"), of which libcomm knows only whether ZERO is one.
Value cta_policy(const char* text) {
  if (const auto value = number_of(text)) return std::to_string(*value);
  std::string_view rest = text;
  bool zero = false, known = true;
  do {
    const std::string_view policy = next_item(&rest, '|');
    zero = zero || same_word(policy, "ZERO");
    known = known && (same_word(policy, "ZERO") || same_word(policy, "EFFICIENCY") ||
                      same_word(policy, "DEFAULT"));
  } while (!rest.empty());
  if (!known) return text;  // the knob says that it does not take it
  return zero ? "ZERO" : "DEFAULT";
}

struct Row {
  const char* nccl;
  const char* comm;
  Value (*translate)(const char*);
};

// Rows of one knob are neighbours, and the first of them whose variable says something decides.
constexpr Row kRows[] = {
    {"NCCL_DEBUG", "COMM_DEBUG", log_level},
    {"NCCL_DEBUG_SUBSYS", "COMM_DEBUG_SUBSYS", log_parts},
    {"NCCL_DEBUG_FILE", "COMM_DEBUG_FILE", as_it_is},
    {"NCCL_COMM_ID", "COMM_ID", as_it_is},
    {"NCCL_HOSTID", "COMM_HOSTID", as_it_is},
    {"NCCL_SOCKET_IFNAME", "COMM_SOCKET_IFNAME", as_it_is},
    {"NCCL_SOCKET_FAMILY", "COMM_SOCKET_FAMILY", as_it_is},
    {"NCCL_SOCKET_NTHREADS", "COMM_SOCKET_NTHREADS", number},
    {"NCCL_NSOCKS_PERTHREAD", "COMM_NSOCKS_PERTHREAD", number},
    {"NCCL_IB_DISABLE", "COMM_IB_DISABLE", yes_or_no},
    {"NCCL_NET", "COMM_IB_DISABLE", only_sockets},
    {"NCCL_IB_HCA", "COMM_IB_HCA", as_it_is},
    {"NCCL_IB_GID_INDEX", "COMM_IB_GID_INDEX", number},
    {"NCCL_IB_ROCE_VERSION_NUM", "COMM_IB_ROCE_VERSION_NUM", number},
    {"NCCL_IB_ADDR_FAMILY", "COMM_IB_ADDR_FAMILY", as_it_is},
    {"NCCL_IB_ADDR_RANGE", "COMM_IB_ADDR_RANGE", as_it_is},
    {"NCCL_IB_TIMEOUT", "COMM_IB_TIMEOUT", number},
    {"NCCL_IB_RETRY_CNT", "COMM_IB_RETRY_CNT", number},
    {"NCCL_IB_SL", "COMM_IB_SL", number},
    {"NCCL_IB_TC", "COMM_IB_TC", number},
    {"NCCL_IB_FIFO_TC", "COMM_IB_FIFO_TC", number},
    {"NCCL_IB_PKEY", "COMM_IB_PKEY", number},
    {"NCCL_IB_QPS_PER_CONNECTION", "COMM_IB_QPS_PER_CONNECTION", number},
    {"NCCL_IB_SPLIT_DATA_ON_QPS", "COMM_IB_SPLIT_DATA_ON_QPS", yes_or_no},
    {"NCCL_IB_PCI_RELAXED_ORDERING", "COMM_IB_PCI_RELAXED_ORDERING", number},
    {"NCCL_IB_ECE_ENABLE", "COMM_IB_ECE_ENABLE", yes_or_no},
    {"NCCL_IB_CUDA_SUPPORT", "COMM_IB_CUDA_SUPPORT", number},
    {"NCCL_NET_GDR_LEVEL", "COMM_NET_GDR_LEVEL", as_it_is},
    {"NCCL_NET_GDR_READ", "COMM_NET_GDR_READ", yes_or_no},
    {"NCCL_P2P_DISABLE", "COMM_P2P_DISABLE", yes_or_no},
    {"NCCL_P2P_LEVEL", "COMM_P2P_LEVEL", as_it_is},
    {"NCCL_SHM_DISABLE", "COMM_SHM_DISABLE", yes_or_no},
    {"NCCL_BUFFSIZE", "COMM_BUFFSIZE", number},
    {"NCCL_MIN_CTAS", "COMM_MIN_NRINGS", lanes},
    {"NCCL_MIN_NCHANNELS", "COMM_MIN_NRINGS", lanes},
    {"NCCL_MIN_NRINGS", "COMM_MIN_NRINGS", lanes},
    {"NCCL_MAX_NCHANNELS", "COMM_MAX_NRINGS", lanes},
    {"NCCL_MAX_NRINGS", "COMM_MAX_NRINGS", lanes},
    {"NCCL_MAX_CTAS", "COMM_MAX_CTAS", lanes},
    {"NCCL_ALGO", "COMM_ALGO", algorithms},
    {"NCCL_SINGLE_RING_THRESHOLD", "COMM_SINGLE_RING_THRESHOLD", number},
    {"NCCL_LL_THRESHOLD", "COMM_LL_THRESHOLD", number},
    {"NCCL_CHECKS_DISABLE", "COMM_CHECKS_DISABLE", yes_or_no},
    {"NCCL_TOPO_FILE", "COMM_TOPO_FILE", as_it_is},
    {"NCCL_LAUNCH_MODE", "COMM_LAUNCH_MODE", as_it_is},
    {"NCCL_CTA_POLICY", "COMM_CTA_POLICY", cta_policy},
    {"NCCL_MULTI_RANK_GPU_ENABLE", "COMM_MULTI_RANK_GPU", yes_or_no},
};

}  // namespace

void read_environment() {
  try {
    Conf conf = Conf::read();
    const Row* const end = std::end(kRows);
    for (const Row *row = kRows, *next = row; row != end; row = next) {
      next = std::find_if(
          row, end, [&](const Row& other) { return std::string_view(other.comm) != row->comm; });
      // One call that changes the knob, so that another thread never sees it half decided.
      const bool taken = std::any_of(row, next, [&](const Row& one) {
        const Conf::Setting* said = conf.find(one.nccl);
        const Value value =
            said != nullptr && !said->value.empty() ? one.translate(said->value.c_str()) : Value();
        return value &&
               commSetKnobDefault(one.comm, value->c_str(), said->origin.c_str()) == commSuccess;
      });
      if (!taken) (void)commSetKnobDefault(row->comm, nullptr, nullptr);
    }
  } catch (const std::exception&) {
    // Out of memory: the call that follows will say so.
  }
}

}  // namespace nccl_binding
