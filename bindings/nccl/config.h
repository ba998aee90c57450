// ncclConfig_t as libcomm takes it.
#pragma once

#include "bindings/nccl/call.h"

namespace nccl_binding {

// A caller's options in a struct of this version. The caller's may be shorter or longer, and what
// its version did not have yet is undefined here, whatever bytes (padding, say) are there.
class Config {
 public:
  // May be null.
  explicit Config(const ncclConfig_t* given);
  // What to hand to libcomm: null for null. A size or magic that is none is handed on as it is;
  // libcomm refuses it and says why.
  commConfig_t* get() { return given_ ? &config_ : nullptr; }

 private:
  bool given_;
  commConfig_t config_ = COMM_CONFIG_INITIALIZER;
};

}  // namespace nccl_binding
