#include "src/communicator/introduction.h"

#include <sched.h>

#include <cstring>

#include "src/device/memory.h"

namespace libcomm {

std::string write_introduction(const Introduction& introduction, const std::string& knobs) {
  std::string text(sizeof introduction, '\0');
  std::memcpy(text.data(), &introduction, sizeof introduction);
  return text + knobs;
}

Status read_introduction(std::string_view text, int rank, Introduction* introduction,
                         std::string* knobs) {
  uint32_t version = 0;
  if (text.size() >= sizeof version) std::memcpy(&version, text.data(), sizeof version);
  if (text.size() < sizeof *introduction || version != kIntroductionVersion)
    return error(Code::kInvalidUsage,
                 "rank {} runs another version of libcomm (protocol {}, here {}); install the same "
                 "version everywhere",
                 rank, version, kIntroductionVersion);
  std::memcpy(introduction, text.data(), sizeof *introduction);
  *knobs = std::string(text.substr(sizeof *introduction));
  return Status::ok();
}

std::array<uint64_t, 2> current_gpu(int* ordinal) {
  *ordinal = -1;
  const cuda::Driver* driver = cuda::Driver::find();
  cuda::CUdevice device = 0;
  std::array<uint64_t, 2> uuid{};
  static_assert(sizeof uuid == 16);
  if (driver == nullptr || cuda::current_context(*driver) == nullptr ||
      driver->context_device(&device) != cuda::kSuccess ||
      driver->device_uuid(uuid.data(), device) != cuda::kSuccess)
    return {};
  *ordinal = device;
  return uuid;
}

Status check_gpus_differ(std::span<const Introduction> all) {
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t j = i + 1; j < all.size(); ++j)
      if (all[i].gpu == all[j].gpu && all[i].gpu != std::array<uint64_t, 2>{})
        return error(Code::kInvalidUsage,
                     "ranks {} and {} use the same GPU, which COMM_MULTI_RANK_GPU=0 forbids; give "
                     "each rank a GPU of its own (cudaSetDevice), or take the setting back",
                     i, j);
  return Status::ok();
}

std::array<uint64_t, kMaskWords> usable_core_mask() {
  std::array<uint64_t, kMaskWords> mask{};
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return mask;
  for (int core = 0; core < CPU_SETSIZE && core < kMaskWords * 64; ++core)
    if (CPU_ISSET(core, &set)) mask[static_cast<size_t>(core / 64)] |= uint64_t{1} << (core % 64);
  return mask;
}

}  // namespace libcomm
