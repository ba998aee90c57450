// The knob table as comm-info shows it: with this process's values, as text or JSON, and without
// them as the Markdown page docs/knobs.md.
#pragma once

#include <string>

#include "src/base/knobs.h"

namespace libcomm {

// One line per knob: name, value now, where it came from, default, what it may be, what it does.
std::string knobs_as_text(const Knobs& knobs);
std::string knobs_as_json(const Knobs& knobs);
// docs/knobs.md: a function of the table alone.
std::string knobs_as_markdown();

}  // namespace libcomm
