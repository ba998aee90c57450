#include "transports/cuda/mapping.h"

#include <cstring>

#include "src/device/memory.h"
#include "src/device/scopes.h"

namespace libcomm::cuda {

bool is_still_there(const ExportedMemory& first, const ExportedMemory& later) {
  if (first.id != later.id) return false;
  if (first.id != kOfChunks) return true;
  ChunkSpan then, now;
  std::memcpy(&then, first.handle.reserved, sizeof then);
  std::memcpy(&now, later.handle.reserved, sizeof now);
  return now.newest <= then.newest;
}

Result<MappedMemory> MappedMemory::open(const Driver& driver, CUcontext context,
                                        const ExportedMemory& memory) {
  MappedMemory mapped;
  COMM_TRY(driver.check(driver.ipc_open(&mapped.at_, memory.handle, kLazyPeerAccess),
                        "cannot map GPU memory of another rank (cuIpcOpenMemHandle)"));
  mapped.driver_ = &driver;
  mapped.context_ = context;
  mapped.bytes_ = memory.bytes;
  mapped.id_ = memory.id;
  return mapped;
}

MappedMemory::~MappedMemory() {
  if (at_ == 0) return;
  end_when_idle(Ending::kSoon, [&driver = *driver_, context = context_, at = at_] {
    const ContextScope scope(driver, context);
    if (scope.status()) (void)driver.ipc_close(at);
  });
}

}  // namespace libcomm::cuda
