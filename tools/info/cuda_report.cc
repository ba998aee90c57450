// What GPU memory finds on this machine, for comm-info: the CUDA driver, and the GPUs it shows.
#include <dlfcn.h>
#include <fmt/format.h>

#include "src/device/driver.h"
#include "src/device/image.h"
#include "tools/info/machine_report.h"

namespace libcomm {
namespace {

Finding no_cuda(std::string why) { return {"cuda", false, std::move(why)}; }

// "NVIDIA H200 (0000:1B:00.0)"
std::string describe(const cuda::Driver& driver, int number) {
  cuda::CUdevice device = 0;
  char name[256] = "", address[32] = "";
  if (const Status status = driver.check(driver.device_get(&device, number), "cuDeviceGet");
      !status)
    return fmt::format("GPU {} not: {}", number, status.message());
  (void)driver.device_name(name, sizeof name, device);
  (void)driver.device_pci(address, sizeof address, device);
  return fmt::format("{} ({})", name, address);
}

}  // namespace

Finding find_cuda() {
  // The library uses the driver that its program has loaded; here nobody else loads it.
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NODELETE);
  if (library == nullptr)
    return no_cuda(fmt::format("no CUDA driver to be opened here: {}", ::dlerror()));
  const auto init = reinterpret_cast<cuda::CUresult (*)(unsigned)>(::dlsym(library, "cuInit"));
  const cuda::Driver* driver = cuda::Driver::find();
  if (driver == nullptr || init == nullptr)
    return no_cuda("the CUDA driver here is too old: libcomm needs one of CUDA 11.7 or later");
  if (const Status status = driver->check(init(0), "cuInit"); !status)
    return no_cuda(status.message());
  int count = 0;
  if (const Status status = driver->check(driver->device_count(&count), "cuDeviceGetCount");
      !status)
    return no_cuda(status.message());
  if (count == 0)
    return no_cuda(
        "the CUDA driver shows no GPU (CUDA_VISIBLE_DEVICES, or the container, may "
        "hide them)");
  Finding found{"cuda", true, ""};
  for (int i = 0; i < count; ++i) found.detail += (i == 0 ? "" : ", ") + describe(*driver, i);
  if (cuda::kernel_image().made_by == nullptr)
    found.detail += "; built without nvcc: all goes through pinned host memory";
  return found;
}

}  // namespace libcomm
