// cuGraph*: a captured graph, the executable one that is made from it, and its launches.
#include "tests/doubles/cuda/graph.h"

#include "tests/doubles/cuda/state.h"

namespace libcomm::cuda::doubled {

GraphExec::~GraphExec() {
  for (const StreamRef& each : lanes) each->close();
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* out, CUgraph handle, unsigned long long flags) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context*) -> CUresult {
    const auto found = state.graphs.find(handle);
    if (out == nullptr || flags != 0 || found == state.graphs.end() || found->second->captured)
      return kInvalidValue;
    const Graph& graph = *found->second;
    const auto made = std::make_shared<GraphExec>();
    made->nodes = graph.nodes;
    made->held = graph.held->copy();
    for (Context* each : graph.lanes) {
      made->lanes.push_back(std::make_shared<Stream>(state, *each, Stream::Kind::kNonBlocking));
      each->streams.push_back(made->lanes.back());
    }
    state.executables[made.get()] = made;
    *out = made.get();
    return kSuccess;
  });
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream on) {
  return call(__func__, Needs::kContext, [&](State& state, Lock&, Context* context) -> CUresult {
    const auto found = state.executables.find(handle);
    const StreamRef stream = stream_of(state, *context, on);
    if (stream == nullptr) return kInvalidHandle;
    if (found == state.executables.end())
      return misuse(nullptr, kInvalidHandle, "%p is no executable graph", handle);
    if (const CUresult may = check_legacy(state, *stream); may != kSuccess) return may;
    if (stream->capture != nullptr) return kNotSupported;  // graphs within graphs
    const auto graph = found->second;
    std::vector<Mark> before;
    if (graph->last.stream != nullptr) before.push_back(graph->last);
    const Mark begin = stream->enqueue({}, before);
    std::vector<Mark> marks;
    for (const Node& node : graph->nodes) {
      std::vector<Mark> after = {begin};
      for (const size_t each : node.after) after.push_back(marks[each]);
      marks.push_back(graph->lanes[node.lane]->enqueue(node.work, std::move(after)));
    }
    // Holds the graph until it has run.
    graph->last = stream->enqueue({[graph](Context&) {}, {}}, std::move(marks));
    return kSuccess;
  });
}

CUresult cuGraphExecDestroy(CUgraphExec handle) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    if (state.executables.erase(handle) == 0)
      return misuse(nullptr, kInvalidHandle, "%p is no executable graph", handle);
    return kSuccess;
  });
}

CUresult cuGraphDestroy(CUgraph handle) {
  return call(__func__, Needs::kDriver, [&](State& state, Lock&, Context*) -> CUresult {
    const auto found = state.graphs.find(handle);
    if (found == state.graphs.end() || found->second->captured)
      return misuse(nullptr, kInvalidHandle, "%p is no graph that could be destroyed", handle);
    state.graphs.erase(found);
    return kSuccess;
  });
}

}  // namespace libcomm::cuda::doubled
