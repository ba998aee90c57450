// rdma_edge_cases [NAME-PART]: runs the cases whose name has that part, prints "case: outcome", a
// line each.
#include <cerrno>
#include <cstdio>
#include <exception>

#include "tests/doubles/edge_cases/cases.h"

namespace libcomm::test {

EndpointOptions patient() {
  EndpointOptions options;
  options.timeout = 14;  // 67 ms
  options.buffer_bytes = 64 * 1024;
  return options;
}

std::string words(ibv_wc_status status) {
  switch (status) {
    case IBV_WC_SUCCESS:
      return "success";
    case IBV_WC_LOC_LEN_ERR:
      return "local length error";
    case IBV_WC_LOC_QP_OP_ERR:
      return "local queue pair operation error";
    case IBV_WC_LOC_PROT_ERR:
      return "local protection error";
    case IBV_WC_WR_FLUSH_ERR:
      return "flushed";
    case IBV_WC_REM_INV_REQ_ERR:
      return "remote invalid request";
    case IBV_WC_REM_ACCESS_ERR:
      return "remote access error";
    case IBV_WC_REM_OP_ERR:
      return "remote operation error";
    case IBV_WC_RETRY_EXC_ERR:
      return "retries exceeded";
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return "receiver-not-ready retries exceeded";
    default:
      return "status " + std::to_string(status);
  }
}

std::string words(ibv_qp_state state) {
  static constexpr const char* kNames[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};
  return kNames[state];
}

std::string next(Endpoint& endpoint) {
  const std::optional<ibv_wc> wc = endpoint.completion_within(std::chrono::seconds(60));
  return wc ? words(wc->status) : "nothing";
}

std::string code(int result) {
  switch (result) {
    case 0:
      return "success";
    case EINVAL:
      return "EINVAL";
    case ENOMEM:
      return "ENOMEM";
    case EBUSY:
      return "EBUSY";
    case EFAULT:
      return "EFAULT";
    case EOPNOTSUPP:
      return "EOPNOTSUPP";
    case ENODATA:
      return "ENODATA";
    default:
      return "code " + std::to_string(result);
  }
}

}  // namespace libcomm::test

int main(int argc, char** argv) {
  using libcomm::test::EdgeCase;
  const std::string part = argc > 1 ? argv[1] : "";
  std::vector<EdgeCase> cases;
  libcomm::test::add_transfer_cases(&cases);
  libcomm::test::add_refusal_cases(&cases);
  libcomm::test::add_state_cases(&cases);
  libcomm::test::add_queue_cases(&cases);
  bool broken = false;
  for (const EdgeCase& one : cases) {
    if (one.name.find(part) == std::string::npos) continue;
    std::string outcome;
    try {
      outcome = one.run();
    } catch (const std::exception& error) {
      outcome = error.what();
      broken = true;
    }
    std::printf("%s: %s\n", one.name.c_str(), outcome.c_str());
    std::fflush(stdout);
  }
  return broken ? 1 : 0;
}
