// main.cpp - the scenarios, each in a process of its own, as many at once as there are CPUs
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>

#include <sys/wait.h>
#include <unistd.h>

#include "explore/session.hpp"

namespace explore {

std::vector<scenario>& scenarios() {
  static std::vector<scenario> all;
  return all;
}

namespace {

[[noreturn]] void usage() {
  std::fputs("explore [--list] [--only PART-OF-NAME] [--preemptions N] [--random N] [--seed S]\n"
             "        [--replay SCHEDULE]\n", stderr);
  std::exit(2);
}

void take_schedule(const char* text, orders& o) {
  const char* at = std::strchr(text, '@');
  if (at == nullptr) usage();
  o.only.assign(text, at);
  o.replays = true;
  char* rest = nullptr;
  o.replay_after = std::strtoull(at + 1, &rest, 10);
  while (*rest == ':' || *rest == ',') {
    if (rest[1] == '\0') break;
    const auto tick = static_cast<std::uint32_t>(std::strtoul(rest + 1, &rest, 10));
    if (*rest != '.') usage();
    o.replay.push_back({tick, static_cast<unsigned>(std::strtoul(rest + 1, &rest, 10))});
  }
}

orders read_orders(int argc, char** argv) {
  orders o;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--list") {
      for (const scenario& s : scenarios()) std::puts(s.name);
      std::exit(0);
    }
    if (++i == argc) usage();
    const char* value = argv[i];
    if (word == "--only") {
      o.only = value;
    } else if (word == "--preemptions") {
      o.preemptions = std::atoi(value);
    } else if (word == "--random") {
      o.random = std::strtoull(value, nullptr, 10);
    } else if (word == "--seed") {
      o.seed = std::strtoull(value, nullptr, 10);
    } else if (word == "--replay") {
      take_schedule(value, o);
    } else {
      usage();
    }
  }
  return o;
}

// The child's side.
[[noreturn]] void explore_one(const scenario& s, const orders& o) {
  session one(s, o);
  const auto begin = std::chrono::steady_clock::now();
  one.run();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::printf("ok      %-40s %s, %.1f s\n", s.name, one.summary().c_str(), took.count());
  std::fflush(stdout);
  ::_exit(0);
}

class children {
 public:
  void start(const scenario& s, const orders& o) {
    std::fflush(stdout);
    const pid_t child = ::fork();
    if (child == 0) explore_one(s, o);
    if (child < 0) std::abort();
    ++running_;
  }
  void wait_for_fewer_than(unsigned most) {
    for (; running_ >= most && running_ != 0; --running_) {
      int status = 0;
      ::wait(&status);
      ++(status == 0 ? passed : failed);
    }
  }
  unsigned passed = 0, failed = 0;

 private:
  unsigned running_ = 0;
};

int run_all(const orders& o) {
  const long cpus = ::sysconf(_SC_NPROCESSORS_ONLN);
  const unsigned most = cpus > 1 ? static_cast<unsigned>(cpus) : 1;
  bool by_name = false;
  for (const scenario& s : scenarios()) by_name = by_name || s.name == o.only;
  children all;
  std::printf("explore: seed %llu\n", static_cast<unsigned long long>(o.seed));
  for (const scenario& s : scenarios()) {
    const std::string name = s.name;
    if (by_name ? name != o.only : name.find(o.only) == std::string::npos) continue;
    all.start(s, o);
    all.wait_for_fewer_than(most);
  }
  all.wait_for_fewer_than(1);
  std::printf("%u passed, %u failed\n", all.passed, all.failed);
  return all.failed == 0 && all.passed != 0 ? 0 : 1;
}

}  // namespace
}  // namespace explore

int main(int argc, char** argv) { return explore::run_all(explore::read_orders(argc, argv)); }
