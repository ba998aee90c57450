// TCP transport: authenticated sockets between any two ranks that reach each other.
#pragma once

#include <memory>
#include <span>

#include "src/base/knobs.h"
#include "src/bootstrap/bootstrap.h"
#include "transports/transport.h"

namespace libcomm {

// `bootstrap` must outlive the transport.
Result<std::unique_ptr<Transport>> make_tcp_transport(Bootstrap& bootstrap,
                                                      std::shared_ptr<const Knobs> knobs);

}  // namespace libcomm
