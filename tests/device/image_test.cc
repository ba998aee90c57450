// The image of the kernels that is inside the library, as far as it can be seen without a GPU.
#include "src/device/image.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "src/device/kernels/table.h"

namespace libcomm::cuda {
namespace {

namespace fs = std::filesystem;

TEST(Image, HasTheKernelsWhereNvccMadeIt) {
  const KernelImage image = kernel_image();
  if (image.made_by == nullptr) GTEST_SKIP() << "this build found no nvcc";
  constexpr uint32_t kFatbin = 0xBA55ED50;  // fatbinary_section.h of the CUDA toolkit
  uint32_t magic = 0;
  ASSERT_GT(image.size, size_t{100000});
  std::memcpy(&magic, image.data, sizeof magic);
  EXPECT_EQ(magic, kFatbin);
  std::ifstream file(COMM_KERNEL_IMAGE, std::ios::binary);
  const std::string made{std::istreambuf_iterator<char>(file), {}};
  EXPECT_TRUE(made == std::string_view(static_cast<const char*>(image.data), image.size));
}

// The image is compressed; what it was made of is beside it.
TEST(Image, HasEveryKernelForEveryArchitecture) {
  if (kernel_image().made_by == nullptr) GTEST_SKIP() << "this build found no nvcc";
  int architectures = 0;
  for (const auto& entry : fs::directory_iterator(COMM_KERNEL_IMAGE ".parts")) {
    if (entry.path().extension() != ".cubin") continue;
    ++architectures;
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string code{std::istreambuf_iterator<char>(file), {}};
#define COMM_LOOK(type, format)                                                           \
  EXPECT_NE(code.find(".text.libcomm_reduce_" #type), std::string::npos) << entry.path(); \
  EXPECT_NE(code.find(".text.libcomm_late_reduce_" #type), std::string::npos) << entry.path();
    COMM_REDUCE_KERNELS(COMM_LOOK)
#undef COMM_LOOK
    EXPECT_NE(code.find(".text.libcomm_copy"), std::string::npos) << entry.path();
    EXPECT_NE(code.find(".text.libcomm_late_copy"), std::string::npos) << entry.path();
  }
  EXPECT_GE(architectures, 1);
}

// What would change bits: products and sums in one (or without .rn, which lets the driver fuse
// them), divisions that are not rounded right, flushed subnormals. What would break reductions in
// place: loads through the read-only cache.
TEST(Image, HasNoInstructionsThatRoundOtherwiseThanTheHost) {
  if (kernel_image().made_by == nullptr) GTEST_SKIP() << "this build found no nvcc";
  int sources = 0;
  for (const auto& entry : fs::directory_iterator(COMM_KERNEL_IMAGE ".parts")) {
    if (entry.path().extension() != ".ptx") continue;
    ++sources;
    std::ifstream file(entry.path());
    const std::string code{std::istreambuf_iterator<char>(file), {}};
    for (const char* bad :
         {"fma.", "add.f", "sub.f", "mul.f", ".ftz", ".approx", ".full", "ld.global.nc"})
      EXPECT_EQ(code.find(bad), std::string::npos) << bad << " in " << entry.path();
    EXPECT_NE(code.find("div.rn.f32"), std::string::npos) << entry.path();
  }
  EXPECT_GE(sources, 1);
}

TEST(Image, IsAModuleWithoutKernelsWhereThereIsNoNvcc) {
  const KernelImage image = kernel_image();
  if (image.made_by != nullptr) GTEST_SKIP() << "this build has " << image.made_by;
  EXPECT_EQ(std::strncmp(static_cast<const char*>(image.data), ".version", 8), 0);
}

}  // namespace
}  // namespace libcomm::cuda
