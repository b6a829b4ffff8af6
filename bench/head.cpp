// head.cpp - the head of a report: all that one needs to doubt its figures
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>

#include <hybridloop.hpp>

#include <sys/utsname.h>

#include "support/bench.hpp"
#include "support/libraries.hpp"

#if defined(HAVE_ABSL)
#include <absl/base/config.h>
#endif

#if !defined(BENCH_FLAGS)
#define BENCH_FLAGS "flags unknown"
#endif

namespace {

#if defined(__clang__)
constexpr const char* compiler = "clang++ " __clang_version__;
#else
constexpr const char* compiler = "g++ " __VERSION__;
#endif

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const auto colon = line.find(": ");
    if (line.compare(0, 10, "model name") == 0 && colon != std::string::npos)
      return line.substr(colon + 2);
  }
  return "unknown cpu";
}

std::string commit() {
  std::string text;
  if (FILE* git = ::popen("git describe --always --dirty 2>/dev/null", "r")) {
    char line[64] = "";
    if (std::fgets(line, sizeof line, git) != nullptr) text = line;
    ::pclose(git);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.empty() ? "no commit" : text;
}

std::string dotted(int major, int minor, int patch) {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

#if defined(HAVE_LIBUV)
std::string libuv() { return std::string("libuv ") + uv_version_string(); }
#else
std::string libuv() { return "no libuv"; }
#endif
#if defined(HAVE_ASIO)
std::string asio_here() {
  return "Asio " + dotted(ASIO_VERSION / 100000, ASIO_VERSION / 100 % 1000, ASIO_VERSION % 100);
}
#else
std::string asio_here() { return "no Asio"; }
#endif
#if defined(HAVE_LIBEVENT)
std::string libevent() { return std::string("libevent ") + event_get_version(); }
#else
std::string libevent() { return "no libevent"; }
#endif
#if defined(HAVE_LIBEV)
std::string libev() {
  return "libev " + std::to_string(ev_version_major()) + "." + std::to_string(ev_version_minor());
}
#else
std::string libev() { return "no libev"; }
#endif

#if defined(HAVE_LIGHTWEIGHTSEMAPHORE)
std::string lightweight() { return "LightweightSemaphore"; }
#else
std::string lightweight() { return "no LightweightSemaphore"; }
#endif
#if defined(HAVE_NSYNC)
std::string nsync_here() { return "nsync"; }
#else
std::string nsync_here() { return "no nsync"; }
#endif
#if defined(HAVE_ABSL) && !defined(ABSL_LTS_RELEASE_VERSION)
std::string abseil() { return "Abseil"; }
#elif defined(HAVE_ABSL)
std::string abseil() { return "Abseil " + std::to_string(ABSL_LTS_RELEASE_VERSION); }
#else
std::string abseil() { return "no Abseil"; }
#endif

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  utsname system{};
  ::uname(&system);
  struct {
    const char* name;
    std::string value;
  } const facts[] = {
      {"library", "hybridloop " + dotted(HYBRIDLOOP_VERSION_MAJOR, HYBRIDLOOP_VERSION_MINOR,
                                         HYBRIDLOOP_VERSION_PATCH)},
      {"commit", commit()},
      {"compiler", compiler},
      {"flags", BENCH_FLAGS},
      {"cpu", cpu_name()},
      {"cores", std::to_string(std::thread::hardware_concurrency()) + " cpus"},
      {"kernel", std::string(system.sysname) + " " + system.release},
      {"sleeps", std::string(hybridloop::default_traits::parker::name) + " + " +
                     hybridloop::loop::poller_name()},
      {"repetitions", std::to_string(how.reps) + " repetitions"},
      {"scale", "scale " + bench::number(bench::scale, "")},
      {"rivals", libuv() + ", " + asio_here() + ", " + libevent() + ", " + libev() + ", " +
                     lightweight() + ", " + nsync_here() + ", " + abseil()},
      {"syscalls", std::string("syscalls counted by ") + bench::syscalls_counted_by()},
  };
  const char* between = "";
  if (how.as == bench::format::csv) std::printf("# ");
  if (how.as == bench::format::json) std::printf("{");
  for (const auto& fact : facts) {
    if (how.as == bench::format::json) {
      std::printf("%s\"%s\": \"%s\"", between, fact.name, fact.value.c_str());
      between = ", ";
    } else {
      std::printf("%s%s", between, fact.value.c_str());
      between = "   ";
    }
  }
  std::printf("%s\n", how.as == bench::format::json ? "}" : "");
  if (how.as == bench::format::csv) bench::print_csv_header();
}
