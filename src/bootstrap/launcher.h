// Launchers: what each of them tells a process, and how the unique id gets from rank 0 to the
// others. One function per launcher; join_launcher() (rendezvous.h) asks them in order.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "src/bootstrap/rendezvous.h"
#include "src/bootstrap/unique_id.h"

namespace libcomm {

// Nothing when the process was not started by that launcher.
using LauncherAnswer = Result<std::optional<LauncherInfo>>;

LauncherAnswer ask_comm_variables(const Knobs& knobs);
LauncherAnswer ask_pmix(const Knobs& knobs);
LauncherAnswer ask_pmi1(const Knobs& knobs);
LauncherAnswer ask_torchrun(const Knobs& knobs);
LauncherAnswer ask_slurm(const Knobs& knobs);

// An environment variable; nothing when unset or empty.
std::optional<std::string> environment(const char* name);
// As a number of at least `least`. kInvalidArgument names the variable and its value.
Result<int> number_from(const char* name, const std::string& text, int least);
// The variable's number, or `fallback` when it is not set.
Result<int> environment_number(const char* name, int least, int fallback);
// kInvalidArgument unless rank < nranks; names both variables.
Status check_rank(const char* rank_name, int rank, const char* nranks_name, int nranks);

// The rendezvous of a group of one: nobody serves it, nobody asks.
Result<Rendezvous> solo_rendezvous();
// A rendezvous at `host`, on ports that every rank derives from `name` (never `avoid`): rank 0
// takes the first that is free, the others find it by handshake. Without a configured secret,
// unauthenticated.
Result<Rendezvous> derived_rendezvous(const Knobs& knobs, const std::string& host,
                                      std::string_view name, int avoid, std::string_view what);

// Ids as text, for key-value stores that want printable values.
std::string to_hex(const UniqueIdBytes& id);
Result<UniqueIdBytes> from_hex(std::string_view text, std::string_view who);

}  // namespace libcomm
