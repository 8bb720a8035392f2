#include "settings.h"

namespace dlferry::sim {

const int kDefaultVersion = 13000;

}  // namespace dlferry::sim
