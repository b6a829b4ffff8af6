// main.cpp - one binary for all tests; says first what it was built from
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include <hybridloop.hpp>

// fork_test starts threads in the child of a process that has several, which TSan would end otherwise.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }

int main(int argc, char** argv) {
  std::printf("hybridloop %d.%d.%d, parker %s, poller %s\n", HYBRIDLOOP_VERSION_MAJOR,
              HYBRIDLOOP_VERSION_MINOR, HYBRIDLOOP_VERSION_PATCH,
              hybridloop::default_traits::parker::name, hybridloop::loop::poller_name());
  doctest::Context context(argc, argv);
  return context.run();
}
