#include "tests/gpu/chunks.h"

#include <string>
#include <type_traits>

#include "src/device/driver.h"
#include "tests/gpu/gpu.h"

namespace gpu {
namespace {

using namespace libcomm::cuda;  // NOLINT: the structures of the driver's calls

void check(CUresult result, const char* call) {
  if (result != kSuccess) throw Failed(std::string(call) + " gave " + std::to_string(result));
}

#define DRIVER(member, symbol) (*control<std::remove_pointer_t<decltype(Driver::member)>>(#symbol))

}  // namespace

Chunks::Chunks(int ordinal, size_t most, bool shared)
    : ordinal_(ordinal), most_(most), shared_(shared), mapped_(most) {
  check(DRIVER(address_reserve, cuMemAddressReserve)(&base_, most * kBytes, 0, 0, 0),
        "cuMemAddressReserve");
}

Chunks::~Chunks() {
  for (size_t i = 0; i < most_; ++i)
    if (mapped_[i]) unmap(i);
  (void)DRIVER(address_free, cuMemAddressFree)(base_, most_ * kBytes);
}

void* Chunks::data() const { return pointer_of(base_); }

void Chunks::map(size_t index) {
  CUmemAllocationProp wanted{};
  wanted.type = kPinnedChunk;
  wanted.handle_types = shared_ ? kDescriptorHandle : 0;
  wanted.location = {kOnDevice, ordinal_};
  CUmemHandle handle = 0;
  check(DRIVER(chunk_create, cuMemCreate)(&handle, kBytes, &wanted, 0), "cuMemCreate");
  const CUdeviceptr at = base_ + index * kBytes;
  check(DRIVER(chunk_map, cuMemMap)(at, kBytes, 0, handle, 0), "cuMemMap");
  const CUmemAccessDesc mine{{kOnDevice, ordinal_}, kReadWrite};
  check(DRIVER(chunk_allow, cuMemSetAccess)(at, kBytes, &mine, 1), "cuMemSetAccess");
  check(DRIVER(chunk_release, cuMemRelease)(handle), "cuMemRelease");
  mapped_[index] = true;
}

void Chunks::unmap(size_t index) {
  (void)DRIVER(chunk_unmap, cuMemUnmap)(base_ + index * kBytes, kBytes);
  mapped_[index] = false;
}

}  // namespace gpu
