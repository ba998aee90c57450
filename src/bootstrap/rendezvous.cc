// make_unique_id: an id and whoever serves it.
#include "src/bootstrap/rendezvous.h"

#include "src/bootstrap/root.h"
#include "src/bootstrap/unique_id.h"

namespace libcomm {

Result<UniqueIdBytes> make_unique_id(const Knobs& knobs) {
  if (const std::string& id = knobs.get_string(Knob::kId); !id.empty()) {
    COMM_ASSIGN(const Meeting meeting, meeting_of(knobs, id, "COMM_ID"));
    return encode(meeting);
  }
  COMM_ASSIGN(const Endpoint addresses, local_addresses(knobs));
  COMM_ASSIGN(Listeners listeners, Listeners::open(addresses));
  Meeting meeting;
  meeting.endpoint = listeners.endpoint;
  COMM_TRY(random_bytes(meeting.key));
  COMM_ASSIGN(const UniqueIdBytes id, encode(meeting));
  COMM_TRY(
      serve_root(std::move(listeners), meeting.key, knobs.get_seconds(Knob::kBootstrapTimeout)));
  return id;
}

}  // namespace libcomm
