// Tuner plug-ins (include/comm/tuner.h): asked once per communicator, by rank 0, for a tuning
// table.
#pragma once

#include <string>

#include "src/base/status.h"
#include "src/plan/chooser.h"
#include "src/plan/group_shape.h"
#include "src/plan/tuning_table.h"

namespace libcomm {

// Loads COMM_TUNER_PLUGIN=`name`, asks it about every collective and size, unloads it. `model`: the
// chooser of this group without tables. The table holds rows where the plug-in has an opinion; its
// source() names the plug-in. kInvalidArgument: it cannot be loaded, or is none. kSystem: its init
// failed. Answers that make no sense are a warning.
Result<TuningTable> ask_tuner_plugin(const std::string& name, const GroupShape& shape,
                                     const Chooser& model);

}  // namespace libcomm
