// What a rank publishes of the operation that it is in, for peers to look at while it goes on:
// under a sequence lock, so that half of one call and half of another are never taken for a call.
#pragma once

#include <optional>

#include "transports/shm/layout.h"
#include "transports/transport.h"

namespace libcomm::shm {

// To be called by the owner only.
void publish(SignatureRecord* to, const Signature& signature);

// None before the first, and while the owner writes the next: it may have lost its core, or its
// life, in the middle of that, and must hold nobody up.
std::optional<Signature> published(const SignatureRecord& from);

}  // namespace libcomm::shm
