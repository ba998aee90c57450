#include "src/api/config.h"

#include <strings.h>

#include <algorithm>
#include <cstring>

namespace libcomm {
namespace {

constexpr unsigned kMagic = 0xcafebeef;

bool is_set(int value) { return value != COMM_CONFIG_UNDEF_INT; }

}  // namespace

Result<CommOptions> read_config(const commConfig_t* config, const CommOptions& inherited) {
  if (config == nullptr) return inherited;
  constexpr size_t kHead = offsetof(commConfig_t, blocking);
  size_t size = 0;
  std::memcpy(&size, config, sizeof size);
  if (size < kHead)
    return error(Code::kInvalidArgument,
                 "config.size {} is too small; start from COMM_CONFIG_INITIALIZER", size);
  commConfig_t known = COMM_CONFIG_INITIALIZER;
  std::memcpy(&known, config, std::min(size, sizeof known));
  if (known.magic != kMagic)
    return error(Code::kInvalidArgument,
                 "config.magic {:#x} is not {:#x}; start from COMM_CONFIG_INITIALIZER", known.magic,
                 kMagic);
  CommOptions options = inherited;
  if (is_set(known.blocking)) {
    if (known.blocking != 0 && known.blocking != 1)
      return error(Code::kInvalidArgument, "config.blocking {} is neither 0 nor 1", known.blocking);
    options.blocking = known.blocking == 1;
  }
  if (is_set(known.minCTAs)) {
    if (known.minCTAs < 1)
      return error(Code::kInvalidArgument, "config.minCTAs {} is less than 1", known.minCTAs);
    options.min_lanes = known.minCTAs;
  }
  if (is_set(known.maxCTAs)) {
    if (known.maxCTAs < 1)
      return error(Code::kInvalidArgument, "config.maxCTAs {} is less than 1", known.maxCTAs);
    options.max_lanes = known.maxCTAs;
  }
  if (options.min_lanes > 0 && options.max_lanes > 0 && options.min_lanes > options.max_lanes)
    return error(Code::kInvalidArgument, "config.minCTAs {} is more than config.maxCTAs {}",
                 options.min_lanes, options.max_lanes);
  if (is_set(known.CTAPolicy)) options.no_kernels = (known.CTAPolicy & COMM_CTA_POLICY_ZERO) != 0;
  if (known.netName != nullptr) {
    if (strcasecmp(known.netName, "tcp") != 0 && strcasecmp(known.netName, "socket") != 0)
      return error(
          Code::kInvalidArgument,
          "config.netName \"{}\" is not a network of this library; there is: tcp (or Socket)",
          known.netName);
    options.net_name = known.netName;
  }
  if (known.commName != nullptr) options.name = known.commName;
  return options;
}

}  // namespace libcomm
