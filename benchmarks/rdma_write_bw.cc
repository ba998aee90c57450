// What verbs themselves move: one-way RDMA writes from one process to another, timed by the wall
// clock, and a ping-pong of small writes. The measure beside which sendrecv_perf --one_way is held
// over RDMA.
//
//   rdma_write_bw [--device NAME] [--gid INDEX] [--size BYTES] [--count N] [--window N]
//                 [--ping_pong] [--listen PORT | --connect ADDRESS:PORT]
//
// With neither --listen nor --connect it forks and is both ends. Otherwise --listen receives and
// --connect sends. One reliable connection; at most `window` writes are on their way.
#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Options {
  std::string device;  // empty: the first
  int gid = 1;         // of a RoCE v2 device with one IPv4 address: that address
  size_t size = size_t{1} << 20;
  int count = 100;
  int window = 8;
  bool ping_pong = false;
  std::string listen, connect;
};

struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void check(bool good, const std::string& what) {
  if (!good) throw Failed(what + " failed: " + std::strerror(errno));
}

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    (void)kFree(object);
  }
};
using Context = std::unique_ptr<ibv_context, Free<ibv_close_device>>;
using Domain = std::unique_ptr<ibv_pd, Free<ibv_dealloc_pd>>;
using Queue = std::unique_ptr<ibv_cq, Free<ibv_destroy_cq>>;
using Pair = std::unique_ptr<ibv_qp, Free<ibv_destroy_qp>>;
using Region = std::unique_ptr<ibv_mr, Free<ibv_dereg_mr>>;

// What the ends tell each other; both run on machines of one kind.
struct Card {
  ibv_gid gid;
  uint64_t address;
  uint32_t rkey, qp_number, packet_number;
};

// A connected stream to the other end.
class Line {
 public:
  explicit Line(int fd) : fd_(fd) {}
  ~Line() { close(fd_); }
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;

  void send(const void* data, size_t bytes) {
    check(write(fd_, data, bytes) == static_cast<ssize_t>(bytes), "writing to the other end");
  }
  void receive(void* data, size_t bytes) {
    check(recv(fd_, data, bytes, MSG_WAITALL) == static_cast<ssize_t>(bytes),
          "reading from the other end");
  }
  void meet() {
    char byte = 0;
    send(&byte, 1);
    receive(&byte, 1);
  }

 private:
  int fd_;
};

Context open_device(const std::string& name) {
  int count = 0;
  ibv_device** list = ibv_get_device_list(&count);
  check(list != nullptr, "ibv_get_device_list");
  Context context;
  for (int i = 0; i < count && !context; ++i)
    if (name.empty() || name == ibv_get_device_name(list[i]))
      context.reset(ibv_open_device(list[i]));
  ibv_free_device_list(list);
  if (!context) throw Failed(name.empty() ? "no RDMA device" : "no RDMA device " + name);
  return context;
}

// One end: its memory, its queue pair, connected to the other's.
class End {
 public:
  End(const Options& options, Line& line)
      : options_(options), context_(open_device(options.device)), memory_(options.size) {
    domain_.reset(ibv_alloc_pd(context_.get()));
    check(domain_ != nullptr, "ibv_alloc_pd");
    queue_.reset(ibv_create_cq(context_.get(), options.window + 1, nullptr, nullptr, 0));
    check(queue_ != nullptr, "ibv_create_cq");
    region_.reset(ibv_reg_mr(domain_.get(), memory_.data(), memory_.size(),
                             IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
    check(region_ != nullptr, "ibv_reg_mr");
    ibv_qp_init_attr attributes{};
    attributes.send_cq = attributes.recv_cq = queue_.get();
    attributes.qp_type = IBV_QPT_RC;
    attributes.cap = {static_cast<uint32_t>(options.window), 1, 1, 1, 0};
    pair_.reset(ibv_create_qp(domain_.get(), &attributes));
    check(pair_ != nullptr, "ibv_create_qp");
    connect(line);
  }

  // Writes the first `bytes` of this end's memory over those of the other's.
  void post(size_t bytes) {
    ibv_sge piece{reinterpret_cast<uint64_t>(memory_.data()), static_cast<uint32_t>(bytes),
                  region_->lkey};
    ibv_send_wr request{}, *bad = nullptr;
    request.sg_list = &piece;
    request.num_sge = 1;
    request.opcode = IBV_WR_RDMA_WRITE;
    request.send_flags = IBV_SEND_SIGNALED;
    request.wr.rdma = {other_.address, other_.rkey};
    errno = ibv_post_send(pair_.get(), &request, &bad);
    check(errno == 0, "ibv_post_send");
  }

  // Waits for one of the posted writes; whoever polls lets others run in between.
  void finish() {
    ibv_wc completion{};
    int got = 0;
    while ((got = ibv_poll_cq(queue_.get(), 1, &completion)) == 0) sched_yield();
    check(got > 0, "ibv_poll_cq");
    if (completion.status != IBV_WC_SUCCESS)
      throw Failed(std::string("a write ended with: ") + ibv_wc_status_str(completion.status));
  }

  volatile uint64_t& word() { return *reinterpret_cast<volatile uint64_t*>(memory_.data()); }

 private:
  void connect(Line& line) {
    Card mine{};
    check(ibv_query_gid(context_.get(), 1, options_.gid, &mine.gid) == 0, "ibv_query_gid");
    mine.address = reinterpret_cast<uint64_t>(memory_.data());
    mine.rkey = region_->rkey;
    mine.qp_number = pair_->qp_num;
    mine.packet_number = static_cast<uint32_t>(getpid()) & 0xffffff;
    line.send(&mine, sizeof mine);
    line.receive(&other_, sizeof other_);

    ibv_qp_attr init{};
    init.qp_state = IBV_QPS_INIT;
    init.port_num = 1;
    init.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
    modify(init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, "INIT");

    ibv_port_attr port{};
    check(ibv_query_port(context_.get(), 1, &port) == 0, "ibv_query_port");
    ibv_qp_attr ready{};
    ready.qp_state = IBV_QPS_RTR;
    ready.path_mtu = port.active_mtu;
    ready.dest_qp_num = other_.qp_number;
    ready.rq_psn = other_.packet_number;
    ready.max_dest_rd_atomic = 1;
    ready.min_rnr_timer = 12;
    ready.ah_attr.is_global = 1;
    ready.ah_attr.port_num = 1;
    ready.ah_attr.grh = {other_.gid, 0, static_cast<uint8_t>(options_.gid), 64, 0};
    modify(ready,
           IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
               IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
           "RTR");

    ibv_qp_attr send{};
    send.qp_state = IBV_QPS_RTS;
    send.sq_psn = mine.packet_number;
    send.timeout = 18;  // a second: what takes long here is a slow machine, not a lost packet
    send.retry_cnt = 7;
    send.rnr_retry = 7;
    send.max_rd_atomic = 1;
    modify(send,
           IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
               IBV_QP_MAX_QP_RD_ATOMIC,
           "RTS");
    line.meet();
  }

  void modify(ibv_qp_attr& attributes, int mask, const char* state) {
    errno = ibv_modify_qp(pair_.get(), &attributes, mask);
    check(errno == 0, std::string("bringing the queue pair to ") + state);
  }

  const Options& options_;
  Context context_;
  Domain domain_;
  Queue queue_;
  std::vector<unsigned char> memory_;
  Region region_;
  Pair pair_;
  Card other_{};
};

double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void write_all(End& end, const Options& options) {
  const int window = std::min(options.window, options.count);
  for (int i = 0; i < window; ++i) end.post(options.size);
  for (int i = 0; i < options.count; ++i) {
    end.finish();
    if (i + window < options.count) end.post(options.size);
  }
}

// Odd numbers go one way, even ones come back.
void ping_pong(End& end, const Options& options, bool first) {
  const auto rounds = static_cast<uint64_t>(options.count);
  for (uint64_t turn = 1; turn <= 2 * rounds; ++turn) {
    if ((turn % 2 == 1) == first) {
      end.word() = turn;
      end.post(sizeof turn);
      end.finish();
    } else {
      while (end.word() < turn) sched_yield();
    }
  }
}

int run(const Options& options, Line& line, bool sends) {
  End end(options, line);
  if (options.ping_pong) {
    ping_pong(end, options, sends);  // the first round of all warms up
    line.meet();
    end.word() = 0;
    line.meet();
    const double seconds = seconds_of([&] { ping_pong(end, options, sends); });
    if (sends)
      std::printf("ping_pong bytes 8 count %d usec_one_way %.2f\n", options.count,
                  seconds * 1e6 / (2.0 * options.count));
  } else if (sends) {
    end.post(options.size);
    end.finish();
    const double seconds = seconds_of([&] { write_all(end, options); });
    std::printf("write bytes %zu count %d window %d MB_per_s %.3f\n", options.size, options.count,
                options.window, static_cast<double>(options.size) * options.count / seconds / 1e6);
  }
  line.meet();  // no end goes while the other may still write to it
  return 0;
}

sockaddr_in address_of(const std::string& host, const std::string& port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::strtoul(port.c_str(), nullptr, 10)));
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1)
    throw Failed(host + " is no IPv4 address");
  return address;
}

int accept_one(const std::string& port) {
  sockaddr_in address = address_of("0.0.0.0", port);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  check(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "bind");
  check(listen(listener, 1) == 0, "listen");
  const int fd = accept(listener, nullptr, nullptr);
  check(fd >= 0, "accept");
  close(listener);
  return fd;
}

// The listener may not be there yet.
int connect_to(const std::string& where) {
  const size_t colon = where.find(':');
  if (colon == std::string::npos) throw Failed("--connect=" + where + " is not ADDRESS:PORT");
  sockaddr_in address = address_of(where.substr(0, colon), where.substr(colon + 1));
  for (int attempt = 0;; ++attempt) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
    close(fd);
    check(attempt < 100, "connecting to " + where);
    usleep(100000);
  }
}

int run_both(const Options& options) {
  int ends[2];
  check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
  const pid_t child = fork();
  check(child >= 0, "fork");
  close(ends[child == 0 ? 0 : 1]);
  Line line(ends[child == 0 ? 1 : 0]);
  if (child == 0) {
    run(options, line, false);
    _exit(0);
  }
  run(options, line, true);
  int status = 0;
  waitpid(child, &status, 0);
  return status == 0 ? 0 : 1;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--ping_pong") {
      options.ping_pong = true;
      continue;
    }
    if (i + 1 == argc) throw Failed(flag + " is unknown or needs a value");
    const std::string value = argv[++i];
    const long number = std::atol(value.c_str());
    if (flag == "--device") {
      options.device = value;
    } else if (flag == "--listen") {
      options.listen = value;
    } else if (flag == "--connect") {
      options.connect = value;
    } else if (flag == "--gid" && number >= 0 && number < 256) {
      options.gid = static_cast<int>(number);
    } else if (flag == "--size" && number >= 8 && number <= 1L << 30) {
      options.size = static_cast<size_t>(number);
    } else if (flag == "--count" && number > 0 && number <= 1 << 30) {
      options.count = static_cast<int>(number);
    } else if (flag == "--window" && number > 0 && number <= 4096) {
      options.window = static_cast<int>(number);
    } else {
      throw Failed(flag + "=" + value + ": unknown flag or bad value");
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) try {
  const Options options = parse(argc, argv);
  if (options.listen.empty() && options.connect.empty()) return run_both(options);
  const bool sends = !options.connect.empty();
  Line line(sends ? connect_to(options.connect) : accept_one(options.listen));
  return run(options, line, sends);
} catch (const std::exception& error) {
  std::fprintf(stderr, "rdma_write_bw: %s\n", error.what());
  return 1;
}
