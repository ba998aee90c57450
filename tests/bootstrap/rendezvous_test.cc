// Rendezvous that go well in odd circumstances, and those that go wrong.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "src/bootstrap/dial.h"
#include "src/bootstrap/root.h"
#include "src/bootstrap/socket.h"
#include "src/bootstrap/unique_id.h"
#include "tests/base/held_port.h"
#include "tests/base/temp_folder.h"
#include "tests/bootstrap/support.h"

namespace libcomm::testing {
namespace {

using test::HeldPort;

const std::vector<std::pair<std::string, std::string>> kLoopback = {{"SOCKET_IFNAME", "lo"},
                                                                    {"SOCKET_FAMILY", "AF_INET"}};

Status join_status(const Rendezvous& rendezvous, int rank, int nranks,
                   const std::shared_ptr<const Knobs>& knobs) {
  auto joined = Bootstrap::join(rendezvous, rank, nranks, knobs, nullptr);
  if (!joined) return joined.status();
  return (*joined)->barrier();
}

Rendezvous served(const std::shared_ptr<const Knobs>& knobs) {
  auto id = make_unique_id(*knobs);
  EXPECT_OK(id.status());
  return Rendezvous{{*id}};
}

Rendezvous with_endpoint(const Rendezvous& rendezvous, const Endpoint& endpoint) {
  Meeting meeting = *decode(rendezvous.ids[0]);
  meeting.endpoint = endpoint;
  return Rendezvous{{*encode(meeting)}};
}

SocketAddress loopback() { return resolve_host("127.0.0.1", 0, AF_INET, "test")->front(); }

std::string scratch(const char* name) {
  return (std::filesystem::temp_directory_path() / fmt::format("libcomm-{}-{}", ::getpid(), name))
      .string();
}

// What the bootstrap logs meanwhile.
class Log {
 public:
  Log() {
    (void)knobs_with(
        {{"DEBUG", "INFO"}, {"DEBUG_SUBSYS", "BOOTSTRAP"}, {"DEBUG_FILE", folder_ / "log"}});
  }
  ~Log() { (void)knobs_with({}); }
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // Waits until a line holds `text`.
  bool await(const std::string& text) const {
    const Deadline deadline = Deadline::after(Seconds(60));
    while (test::read_file(folder_ / "log").find(text) == std::string::npos) {
      if (deadline.passed()) return false;
      ::usleep(1000);
    }
    return true;
  }

 private:
  test::TempFolder folder_;
};

void expect_mentions(const Status& status, Code code, const std::vector<std::string>& texts) {
  EXPECT_EQ(status.code(), code) << status.to_string();
  for (const std::string& text : texts)
    EXPECT_NE(status.message().find(text), std::string::npos)
        << status.to_string() << " lacks " << text;
}

TEST(Rendezvous, NamesBothSizesWhenRanksDisagree) {
  auto knobs = knobs_with({});
  const Rendezvous id = served(knobs);
  run_ranks(3, [&](int rank) {
    const Status status = join_status(id, rank, rank == 2 ? 4 : 3, knobs);
    expect_mentions(status, Code::kInvalidUsage, {"3", "4", "nranks"});
  });
}

TEST(Rendezvous, TellsAllWhenARankIsTakenTwice) {
  auto knobs = knobs_with({});
  const Rendezvous id = served(knobs);
  run_ranks(3, [&](int thread) {
    const Status status = join_status(id, thread == 2 ? 1 : thread, 3, knobs);
    expect_mentions(status, Code::kInvalidUsage, {"rank 1 of 3 was taken twice"});
  });
}

TEST(Rendezvous, RefusesBadRanksAndIds) {
  auto knobs = knobs_with({});
  Rendezvous id;
  id.ids.push_back({});
  expect_mentions(join_status(id, 0, 2, knobs), Code::kInvalidArgument, {"commGetUniqueId"});
  expect_mentions(join_status(id, 2, 2, knobs), Code::kInvalidArgument, {"rank is 2", "0..1"});
  expect_mentions(join_status(id, 0, 0, knobs), Code::kInvalidArgument, {"nranks is 0"});
  expect_mentions(join_status({}, 0, 2, knobs), Code::kInvalidArgument, {"no unique id"});
  const Rendezvous one = served(knobs), other = served(knobs);
  Rendezvous twice{{one.ids[0], other.ids[0], one.ids[0]}};
  expect_mentions(join_status(twice, 0, 4, knobs), Code::kInvalidArgument, {"twice"});
  Rendezvous many{{one.ids[0], other.ids[0]}};
  expect_mentions(join_status(many, 0, 1, knobs), Code::kInvalidArgument,
                  {"2 unique ids for 1 ranks"});
}

TEST(Rendezvous, FailsWhenNobodyServesTheId) {
  auto knobs = knobs_with(kLoopback);
  const HeldPort port;
  const Rendezvous dead = with_endpoint(served(knobs), {loopback().with_port(port.number())});
  expect_mentions(join_status(dead, 1, 2, knobs), Code::kSystem, {"127.0.0.1:", "commGetUniqueId"});
}

// The server's time begins with the first rank: a second one may come after its end.
TEST(Rendezvous, NamesTheMissingRanksAtTheDeadline) {
  const Rendezvous id = served(knobs_with({{"BOOTSTRAP_TIMEOUT", "1"}}));
  expect_mentions(join_status(id, 2, 4, knobs_with({})), Code::kSystem,
                  {"3 of 4 ranks", "rank 0, 1, 3", "COMM_BOOTSTRAP_TIMEOUT"});
}

TEST(Rendezvous, EndsForAllWhenOneRankGivesUp) {
  auto knobs = knobs_with({});
  const Rendezvous id = served(knobs);
  const Log log;
  std::atomic<bool> cancel{false};
  std::thread patient([&] {
    expect_mentions(join_status(id, 0, 3, knobs), Code::kRemote, {"rank 1", "went away"});
  });
  std::thread impatient([&] {
    auto joined = Bootstrap::join(id, 1, 3, knobs, nullptr, &cancel);
    expect_mentions(joined.status(), Code::kInvalidUsage, {"cancelled"});
  });
  EXPECT_TRUE(log.await("rank 1 of 3 reported"));
  cancel = true;
  impatient.join();
  patient.join();
}

TEST(Rendezvous, TellsTheOthersWhenARankDiesWhileTheGroupAssembles) {
  auto knobs = knobs_with(kLoopback);
  const Rendezvous id = served(knobs);
  const Meeting meeting = *decode(id.ids[0]);
  // Rank 1 reports, gets its place, and is never heard of again. Ranks 3 and 4 have it as their
  // parent: nobody answers where it listened, and nobody refuses them either.
  SocketAddress bound;
  auto listener = listen_on(loopback(), &bound);
  ASSERT_OK(listener.status());
  std::thread dying([&] {
    ReportWire report{};
    report.nranks = 5;
    report.nparts = 1;
    report.endpoint = EndpointWire::from({bound});
    auto fd = dial(meeting.endpoint, {meeting.key, static_cast<uint16_t>(Use::kRoot), 1, 0, 0}, {},
                   {}, "the root");
    ASSERT_OK(fd.status());
    EXPECT_OK(report_to_root(*std::move(fd), report, {}, nullptr).status());
  });
  run_ranks(4, [&](int thread) {
    const int rank = thread == 0 ? 0 : thread + 1;
    const Status status = join_status(id, rank, 5, knobs);
    expect_mentions(status, Code::kRemote, {"rank 1 (from 127.0.0.1:", "went away while"});
    EXPECT_EQ(status.peer(), 1);
  });
  dying.join();
}

TEST(Rendezvous, TriesTheNextAddressWhenOneIsDeadOrSomebodyElses) {
  auto knobs = knobs_with(kLoopback);
  const Rendezvous id = served(knobs);
  // Accepts nothing: its queue is full, so that the kernel ignores further attempts.
  SocketAddress black_hole, stranger;
  auto hole = listen_on(loopback(), &black_hole);
  ASSERT_OK(hole.status());
  ASSERT_EQ(::listen(hole->get(), 0), 0);
  std::vector<UniqueFd> fill;
  for (int i = 0; i < 3; ++i) fill.push_back(*start_connect(black_hole));
  // Somebody else's server: answers, but not for us.
  auto other = listen_on(loopback(), &stranger);
  ASSERT_OK(other.status());
  std::atomic<bool> stop{false};
  std::thread answering([&] {
    std::vector<UniqueFd> guests;
    while (!stop) {
      SocketAddress from;
      int problem = 0;
      UniqueFd guest = accept_one(other->get(), &from, &problem);
      if (guest) {
        const std::string text(100, '!');
        (void)write_whole(guest.get(), text.data(), text.size());
        guests.push_back(std::move(guest));
      }
      ::usleep(1000);
    }
  });
  const Endpoint real = decode(id.ids[0])->endpoint;
  const Rendezvous odd = with_endpoint(id, {black_hole, stranger, real.front()});
  run_ranks(2, [&](int rank) { EXPECT_OK(join_status(odd, rank, 2, knobs)); });
  stop = true;
  answering.join();
}

TEST(Rendezvous, IsNotDisturbedByStrangersAtItsPort) {
  auto knobs = knobs_with(kLoopback);
  const Rendezvous id = served(knobs);
  const SocketAddress root = decode(id.ids[0])->endpoint.front();
  std::vector<UniqueFd> strangers;
  std::thread first([&] { EXPECT_OK(join_status(id, 0, 2, knobs)); });
  for (int i = 0; i < 200; ++i) {
    auto fd = start_connect(root);
    ASSERT_OK(fd.status());
    pollfd ready = {fd->get(), POLLOUT, 0};
    ASSERT_EQ(::poll(&ready, 1, 20000), 1);
    // A third says nothing, a third sends garbage, a third part of a Hello.
    std::string text;
    if (i % 3 == 1) text = std::string(300, 'G');
    if (i % 3 == 2) text.assign(reinterpret_cast<const char*>(&kHandshakeMagic), 4);
    if (!text.empty()) (void)write_whole(fd->get(), text.data(), text.size());
    strangers.push_back(*std::move(fd));
  }
  EXPECT_OK(join_status(id, 1, 2, knobs));
  first.join();
}

TEST(Rendezvous, NamesTheInterfacesWhenTheFilterMatchesNothing) {
  auto knobs = knobs_with({{"SOCKET_IFNAME", "nosuch"}});
  const auto id = make_unique_id(*knobs);
  expect_mentions(id.status(), Code::kSystem,
                  {"COMM_SOCKET_IFNAME=nosuch matches none of:", "lo", "unset it"});
}

TEST(RendezvousByAddress, WorksAgainAtTheSamePort) {
  const HeldPort port;
  auto knobs = knobs_with({{"ID", port.address()}, {"SECRET", "s3cret"}});
  run_ranks(4, [&](int rank) {
    for (int round = 0; round < 3; ++round) EXPECT_OK(join_status(served(knobs), rank, 4, knobs));
  });
}

// Rank 0's server is there before rank 0: its time begins when the other rank has had its answer.
TEST(RendezvousByAddress, FailsOnBothSidesWhenSecretsDiffer) {
  const HeldPort port;
  Meeting meeting = *decode(served(knobs_with({{"ID", port.address()}, {"SECRET", "one"}})).ids[0]);
  auto listeners = Listeners::open(meeting.endpoint);
  ASSERT_OK(listeners.status());
  ASSERT_OK(serve_root(*std::move(listeners), meeting.key, 1, true));
  auto wrong = knobs_with({{"ID", port.address()}, {"SECRET", "two"}});
  expect_mentions(join_status(served(wrong), 1, 2, wrong), Code::kSystem,
                  {"secret", "COMM_SECRET"});
  meeting.kind = Meeting::Kind::kServed;
  expect_mentions(join_status({{*encode(meeting)}}, 0, 2, knobs_with({})), Code::kSystem,
                  {"secret", "COMM_SECRET", "did not prove"});
}

TEST(RendezvousByAddress, NamesThePortThatIsTaken) {
  SocketAddress taken;
  auto holder = listen_on(loopback(), &taken);
  ASSERT_OK(holder.status());
  auto knobs = knobs_with({{"ID", taken.to_string()}, {"SECRET", "s"}, {"BOOTSTRAP_TIMEOUT", "1"}});
  expect_mentions(join_status(served(knobs), 0, 2, knobs), Code::kSystem,
                  {fmt::format("port {}", taken.port()), "COMM_ID", "in use"});
}

TEST(RendezvousByAddress, RefusesAMalformedAddress) {
  auto knobs = knobs_with({{"ID", "nowhere"}});
  expect_mentions(make_unique_id(*knobs).status(), Code::kInvalidArgument, {"COMM_ID=nowhere"});
}

void write_private(const std::string& path, const UniqueIdBytes& id) {
  std::ofstream(path, std::ios::binary).write(id.data(), 128);
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
}

TEST(RendezvousByFile, WorksAndRemovesTheFile) {
  const std::string path = scratch("id");
  auto knobs = knobs_with({{"ID", "file://" + path}});
  run_ranks(4, [&](int rank) {
    for (int round = 0; round < 2; ++round) EXPECT_OK(join_status(served(knobs), rank, 4, knobs));
  });
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(RendezvousByFile, IsNotConfusedByAnEarlierJobsFile) {
  const std::string path = scratch("stale");
  auto quiet = knobs_with(kLoopback);
  // First an id that nobody serves any more, then one that an earlier job's root still serves.
  const HeldPort port;
  const Rendezvous dead = with_endpoint(served(quiet), {loopback().with_port(port.number())});
  for (const Rendezvous& stale : {dead, served(quiet)}) {
    write_private(path, stale.ids[0]);
    auto knobs = knobs_with({{"ID", "file://" + path}});
    run_ranks(3, [&](int rank) {
      if (rank == 0) ::usleep(300'000);
      EXPECT_OK(join_status(served(knobs), rank, 3, knobs));
    });
    EXPECT_FALSE(std::filesystem::exists(path));
  }
}

TEST(RendezvousByFile, SaysThatRankZeroIsMissing) {
  auto knobs = knobs_with({{"ID", "file://" + scratch("never")}, {"BOOTSTRAP_TIMEOUT", "0.3"}});
  expect_mentions(join_status(served(knobs), 1, 2, knobs), Code::kSystem, {"never", "rank 0"});
}

// Anybody could have put it there, and have the ranks meet at a place of their choice.
TEST(RendezvousByFile, DoesNotBelieveAFileThatOthersMayReadOrOwn) {
  const std::string path = scratch("foreign");
  auto quiet = knobs_with(kLoopback);
  write_private(path, served(quiet).ids[0]);
  auto knobs = knobs_with({{"ID", "file://" + path}, {"BOOTSTRAP_TIMEOUT", "0.3"}});
  ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
  expect_mentions(join_status(served(knobs), 1, 2, knobs), Code::kSystem, {"mode 0644", "remove"});
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  if (::geteuid() == 0 && ::chown(path.c_str(), 4711, 4711) == 0)
    expect_mentions(join_status(served(knobs), 1, 2, knobs), Code::kSystem, {"user 4711"});
  std::filesystem::remove(path);
}

TEST(RendezvousByFile, LetsInOnlyWhoKnowsTheSecret) {
  const std::string path = scratch("guarded");
  run_ranks(2, [&](int rank) {
    auto knobs = knobs_with({{"ID", "file://" + path},
                             {"SECRET", rank == 0 ? "right" : "wrong"},
                             {"BOOTSTRAP_TIMEOUT", "1"}});
    EXPECT_FALSE(join_status(served(knobs), rank, 2, knobs));
  });
  run_ranks(2, [&](int rank) {
    auto knobs = knobs_with({{"ID", "file://" + path}, {"SECRET", "right"}});
    EXPECT_OK(join_status(served(knobs), rank, 2, knobs));
  });
}

// The first is the only one: a second might come after the server's time, which begins then.
TEST(Rendezvous, WaitsForItsFirstVisitorAsLongAsItTakes) {
  const Rendezvous id = served(knobs_with({{"BOOTSTRAP_TIMEOUT", "0.2"}}));
  ::usleep(500'000);
  EXPECT_OK(join_status(id, 0, 1, knobs_with({})));
}

TEST(SecretFile, IsRefusedWhenOthersCanReadIt) {
  const std::string path = scratch("secret");
  std::ofstream(path) << "hush\n";
  auto knobs = knobs_with({{"SECRET_FILE", path}});
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  expect_mentions(configured_secret(*knobs).status(), Code::kInvalidArgument, {path, "chmod 600"});
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  auto secret = configured_secret(*knobs);
  ASSERT_OK(secret.status());
  EXPECT_EQ(*secret, "hush");
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace libcomm::testing
