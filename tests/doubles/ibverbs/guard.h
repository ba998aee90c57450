// What every entry point does first: the lock, and whether the object may still be used.
#pragma once

#include <mutex>

#include "tests/doubles/ibverbs/node.h"
#include "tests/doubles/ibverbs/rules.h"

namespace rdma_double {

// Fatal when `object` was destroyed or belongs to the parent of a forked child.
template <typename T>
void must_live(const T& object, const char* what, const char* call) {
  if (object.node != &Node::current())
    fatal("%s: this %s was made before fork(), in the parent", call, what);
  if (!object.live) fatal("%s on a %s that was destroyed", call, what);
}

// Locks the node of a living object.
template <typename T>
std::unique_lock<std::mutex> enter(const T& object, const char* what, const char* call) {
  auto lock = Node::current().lock();
  must_live(object, what, call);
  return lock;
}

}  // namespace rdma_double
