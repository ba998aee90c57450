// commConfig_t, read as NCCL reads it: a caller's struct may be shorter or longer than ours.
#pragma once

#include "comm.h"
#include "src/communicator/communicator.h"

namespace libcomm {

// `config` may be null: `inherited` then. kInvalidArgument names the field and its value.
Result<CommOptions> read_config(const commConfig_t* config, const CommOptions& inherited);

}  // namespace libcomm
