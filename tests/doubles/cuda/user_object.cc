// cuUserObject*: what graphs hold, with a destructor that runs when the last of them is gone.
#include "tests/doubles/cuda/graph.h"
#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {

Held::~Held() {
  for (const auto& [object, count] : counts_) {
    object->references -= count;
    if (object->references > 0) continue;
    state_.host.post(state_, object->destroy, object->pointer);
    state_.user_objects.erase(object.get());
  }
}

void Held::add(const std::shared_ptr<UserObject>& object, unsigned count) {
  counts_[object] += count;
}

std::unique_ptr<Held> Held::copy() const {
  auto made = std::make_unique<Held>(state_);
  for (const auto& [object, count] : counts_) {
    object->references += count;
    made->add(object, count);
  }
  return made;
}

CUresult cuUserObjectCreate(CUuserObject* out, void* pointer, CUhostFn destroy, unsigned count,
                            unsigned flags) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    if (out == nullptr || destroy == nullptr || count == 0 || flags != kNoDestructorSync)
      return kInvalidValue;
    const auto made = std::make_shared<UserObject>();
    made->pointer = pointer;
    made->destroy = destroy;
    made->references = count;
    made->of_program = count;
    state.user_objects[made.get()] = made;
    *out = made.get();
    return kSuccess;
  });
}

CUresult cuGraphRetainUserObject(CUgraph handle, CUuserObject object, unsigned count,
                                 unsigned flags) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    const auto graph = state.graphs.find(handle);
    const auto held = state.user_objects.find(object);
    if (graph == state.graphs.end() || held == state.user_objects.end())
      return misuse(nullptr, kInvalidHandle, "no live graph %p or user object %p", handle, object);
    if (count == 0 || flags > kMoveReference) return kInvalidValue;
    if (flags == kMoveReference) {
      if (held->second->of_program < count)
        return misuse(nullptr, kInvalidValue, "%u references are moved, the program has %u", count,
                      held->second->of_program);
      held->second->of_program -= count;
    } else {
      held->second->references += count;
    }
    graph->second->held->add(held->second, count);
    return kSuccess;
  });
}

}  // namespace libcomm::cuda::doubled
