#pragma once

#include "monoid/models/import.h"

namespace monoid {

/// One table a reference: data only.
const std::vector<ImportTable>& import_tables();

}  // namespace monoid
