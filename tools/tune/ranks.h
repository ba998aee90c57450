// Ranks as processes that comm-tune starts: each runs `body` with a communicator of all of them.
#pragma once

#include <comm.h>

#include <functional>
#include <string>

#include "src/base/status.h"

namespace libcomm::tune {

// What a rank says when it has failed, after the call's own text.
Status failed_call(commResult_t result, const char* call, comm_t comm);

// Starts `nranks` processes and waits for them. What rank 0's body returns comes back; the first
// failure of any rank ends all of them, which the others' deaths then follow from. The calling
// process must not have used the library before.
Result<std::string> run_ranks(int nranks, const std::function<Result<std::string>(comm_t)>& body);

}  // namespace libcomm::tune
