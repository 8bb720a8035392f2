#include "settings.h"

namespace dlferry::sim {

const int kDefaultVersion = 11080;

}  // namespace dlferry::sim
