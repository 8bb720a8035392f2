#include "settings.h"

#include <charconv>
#include <optional>
#include <utility>

namespace dlferry::sim {
namespace {

using Number = std::int64_t Settings::*;

constexpr std::pair<std::string_view, Number> kNumbers[] = {
    {"devices", &Settings::devices},
    {"init_result", &Settings::init_result},
    {"missing_result", &Settings::missing_result},
    {"seed", &Settings::seed},
    {"delay_us", &Settings::delay_us},
    {"h2d_rate", &Settings::h2d_rate},
    {"d2h_rate", &Settings::d2h_rate},
    {"link_sleeps", &Settings::link_sleeps},
    {"inline_bytes", &Settings::inline_bytes},
    {"device_bytes", &Settings::device_bytes},
    {"host_limit", &Settings::host_limit},
    {"host_alloc_us", &Settings::host_alloc_us},
    {"host_free_syncs", &Settings::host_free_syncs},
    {"register_result", &Settings::register_result},
    {"register_page", &Settings::register_page},
    {"async_engines", &Settings::async_engines},
    {"pageable_access", &Settings::pageable_access},
    {"page_tables", &Settings::page_tables},
    {"register_supported", &Settings::register_supported},
    {"read_only_register", &Settings::read_only_register},
    {"shares_addresses", &Settings::shares_addresses},
    {"numa_node", &Settings::numa_node},
    {"log", &Settings::log},
};

std::optional<std::int64_t> number(std::string_view text) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || text.empty()) return std::nullopt;
  return value;
}

// "12.4" and 12040 are the same version.
std::optional<std::int64_t> version(std::string_view text) {
  const std::size_t dot = text.find('.');
  if (dot == std::string_view::npos) return number(text);
  const auto major = number(text.substr(0, dot));
  const auto minor = number(text.substr(dot + 1));
  if (!major || !minor) return std::nullopt;
  return *major * 1000 + *minor * 10;
}

bool assign(Settings& settings, std::string_view name, std::string_view text) {
  if (name == "report") {
    settings.report = text;
    return true;
  }
  if (name == "hidden") {  // may be given several times
    settings.hidden.emplace_back(text);
    return true;
  }
  const auto value = name == "version" ? version(text) : number(text);
  if (!value) return false;
  if (name == "version") {
    settings.version = *value;
    return true;
  }
  if (name == "rate") {
    settings.h2d_rate = settings.d2h_rate = *value;
    return true;
  }
  for (const auto& [known, member] : kNumbers) {
    if (name != known) continue;
    settings.*member = *value;
    return true;
  }
  return false;
}

}  // namespace

bool Settings::read(std::string_view text) {
  Settings changed = *this;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const std::size_t equals = item.find('=');
    if (equals == std::string_view::npos) return false;
    if (!assign(changed, item.substr(0, equals), item.substr(equals + 1))) return false;
  }
  *this = std::move(changed);
  return true;
}

}  // namespace dlferry::sim
