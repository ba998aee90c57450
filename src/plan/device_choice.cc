#include "src/plan/device_choice.h"

#include <initializer_list>

#include "algorithms/registry.h"

namespace libcomm {
namespace {

// Not measured: no GPU has run it.
constexpr size_t kFewBytes = 8 << 10;

}  // namespace

const Algorithm* choose_for_gpus(const ScheduleRequest& request, size_t block_bytes,
                                 const std::string& forced) {
  const auto able = [&](const std::string& name) -> const Algorithm* {
    const Algorithm* algorithm = name.empty() ? nullptr : find_algorithm(name);
    return algorithm != nullptr && algorithm->supports(request) ? algorithm : nullptr;
  };
  if (const Algorithm* wanted = able(forced)) return wanted;
  // All-to-all in place needs that everything is sent before something comes.
  const bool few = block_bytes <= kFewBytes || request.collective == Collective::kAllToAll;
  const auto first_of = [&](std::initializer_list<const char*> names) -> const Algorithm* {
    for (const char* name : names)
      if (const Algorithm* algorithm = able(name)) return algorithm;
    return nullptr;
  };
  return few ? first_of({"oneshot", "binomial", "star", "ring"})
             : first_of({"ring", "oneshot", "star", "binomial"});
}

}  // namespace libcomm
