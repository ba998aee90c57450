// Bytes of the bootstrap and of TCP segments that come as one piece: ids, addresses, peers, news,
// headers.
#include "src/bootstrap/address.h"
#include "src/bootstrap/news.h"
#include "src/bootstrap/peer.h"
#include "src/bootstrap/unique_id.h"
#include "tests/fuzz/fuzz.h"
#include "transports/tcp/wire.h"

namespace libcomm::fuzz {
namespace {

Endpoint some_endpoint() {
  EndpointWire wire{};
  wire.count = 2;
  wire.addresses[0] = {4, 0, 4711, {10, 0, 0, 1}};
  wire.addresses[1] = {6, 0, 4712, {0xfd}};
  Endpoint endpoint;
  FUZZ_CHECK(wire.decode(&endpoint));
  return endpoint;
}

void endpoints(Input input) {
  Endpoint endpoint;
  if (!input.take<EndpointWire>().decode(&endpoint)) return;
  FUZZ_CHECK(endpoint.size() <= kMaxAddresses);
  Endpoint again;
  FUZZ_CHECK(EndpointWire::from(endpoint).decode(&again) && again == endpoint);
  (void)to_string(endpoint);
}

// The last eight bytes are a checksum that mutations would never hit: half of the runs repair it.
void unique_ids(Input input) {
  const bool repair = (input.byte() & 1) != 0;
  auto id = input.take<UniqueIdBytes>();
  if (repair) {
    const Key zero{};
    const Mac mac = hmac(zero, "libcomm unique id",
                         {{reinterpret_cast<const unsigned char*>(id.data()), id.size() - 8}});
    std::memcpy(id.data() + id.size() - 8, mac.data(), 8);
  }
  const auto meeting = decode(id);
  if (!meeting) {
    FUZZ_CHECK(meeting.status().code() == Code::kInvalidArgument);
    return;
  }
  const auto encoded = encode(*meeting);
  FUZZ_CHECK(encoded.is_ok());
  const auto again = decode(*encoded);
  FUZZ_CHECK(again && again->kind == meeting->kind && again->key == meeting->key &&
             again->endpoint == meeting->endpoint && again->file == meeting->file);
  if (meeting->kind == Meeting::Kind::kFile)
    FUZZ_CHECK(meeting->file.starts_with('/'));
  else
    FUZZ_CHECK(!meeting->endpoint.empty() && meeting->endpoint.size() <= kMaxAddresses);
}

void peers(std::string_view bytes) {
  Peer peer;
  if (!peer.decode(std::string(bytes))) return;
  FUZZ_CHECK(peer.pid > 0 && !peer.endpoint.empty());
  for (const char c : peer.to_string()) FUZZ_CHECK(static_cast<unsigned char>(c) >= 0x20);
  Peer again;
  FUZZ_CHECK(again.decode(peer.encode()) && again.pid == peer.pid && again.host == peer.host &&
             again.endpoint == peer.endpoint);
}

void news(std::string_view bytes) {
  constexpr int kRanks = 7;
  const ParsedNews parsed = parse_news(bytes, kRanks);
  if (parsed.state != ParsedNews::kMessage) return;
  FUZZ_CHECK(parsed.bytes >= sizeof(NewsWire) && parsed.bytes <= bytes.size());
  FUZZ_CHECK(parsed.reason.rank() < kRanks && parsed.reason.peer() < kRanks);
  for (const char c : parsed.reason.message()) FUZZ_CHECK(static_cast<unsigned char>(c) >= 0x20);
  if (parsed.reason.is_ok()) return;
  const ParsedNews again = parse_news(encode_news(parsed.type, parsed.reason), kRanks);
  FUZZ_CHECK(again.state == ParsedNews::kMessage && again.type == parsed.type &&
             again.reason.to_string() == parsed.reason.to_string());
}

void segment_headers(Input input) {
  constexpr size_t kSegment = 4096;
  const auto header = input.take<SegmentHeader>();
  const Status status = check_header(header, 5, kSegment, {0, 1});
  if (status) FUZZ_CHECK(header.bytes <= kSegment && header.sequence == 5);
  if (!status) FUZZ_CHECK(status.code() == Code::kRemote && status.peer() == 1);
  (void)describe(header.signature);
}

}  // namespace

std::vector<std::string> seeds() {
  Meeting served;
  served.endpoint = some_endpoint();
  served.key.fill(7);
  Meeting file;
  file.kind = Meeting::Kind::kFile;
  file.file = "/shared/job.id";
  const auto id = [](const Meeting& meeting) {
    const auto bytes = encode(meeting);
    FUZZ_CHECK(bytes.is_ok());
    return "\1" + std::string(bytes->data(), bytes->size());
  };
  SegmentHeader header;
  header.bytes = 4096;
  header.sequence = 5;
  return {id(served),
          id(file),
          bytes_of(EndpointWire::from(some_endpoint())),
          Peer::self(some_endpoint()).encode(),
          encode_news(NewsType::kAbort, error(Code::kRemote, "gone").at_rank(1).with_peer(2)),
          encode_news(NewsType::kDeath, error(Code::kSystem, "{}", std::string(1000, 'x'))),
          encode_news(NewsType::kGoodbye, Status::ok()),
          bytes_of(header)};
}

}  // namespace libcomm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace libcomm::fuzz;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Input input(data, size);
  endpoints(input);
  unique_ids(input);
  peers(bytes);
  news(bytes);
  segment_headers(input);
  return 0;
}
