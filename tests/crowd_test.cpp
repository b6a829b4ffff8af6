// crowd_test.cpp - ten thousand descriptors in one loop; a thousand sockets where there are no eventfds
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/race.hpp"
#include "support/watching.hpp"
#if defined(__linux__)
#include <sys/eventfd.h>
#endif

namespace {

using namespace support;
using hybridloop::interest;
using hybridloop::watch_id;

#if defined(__linux__)
constexpr std::size_t many = 10000;
#else
constexpr std::size_t many = 1000;
#endif

// Descriptors that become readable when they are rung, until they are read.
#if defined(__linux__)
class bells {
 public:
  static std::size_t descriptors(std::size_t count) { return count; }

  explicit bells(std::size_t count) {
    while (fds_.size() != count) {
      fds_.push_back(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
      if (fds_.back() < 0) std::abort();
    }
  }
  bells(const bells&) = delete;
  bells& operator=(const bells&) = delete;
  ~bells() {
    for (const int fd : fds_) ::close(fd);
  }
  int operator[](std::size_t i) const { return fds_[i]; }
  std::size_t size() const { return fds_.size(); }
  void ring(std::size_t i) const {
    const std::uint64_t one = 1;
    if (::write(fds_[i], &one, sizeof one) != sizeof one) std::abort();
  }
  void hear(std::size_t i) const {
    std::uint64_t count = 0;
    if (::read(fds_[i], &count, sizeof count) != sizeof count) std::abort();
  }

 private:
  std::vector<int> fds_;
};
#else
class bells {
 public:
  static std::size_t descriptors(std::size_t count) { return 2 * count; }

  explicit bells(std::size_t count) : pairs_(count) {}
  descriptor operator[](std::size_t i) const { return pairs_[i].left(); }
  std::size_t size() const { return pairs_.size(); }
  void ring(std::size_t i) const { pairs_[i].write_right(); }
  void hear(std::size_t i) const {
    if (pairs_[i].drain_left() != 1) std::abort();
  }

 private:
  std::vector<socket_pair> pairs_;
};
#endif

#if SUPPORT_POSIX
// Whether the process may have so many bells, and some descriptors for itself.
bool may_open(std::size_t count) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
  const auto wanted = static_cast<rlim_t>(bells::descriptors(count) + 200);
  if (limit.rlim_cur >= wanted) return true;
  if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < wanted) return false;
  limit.rlim_cur = wanted;
  return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
}
#else
constexpr bool may_open(std::size_t) { return true; }
#endif

// Every third is level-triggered, edge-triggered and one-shot.
interest kind(std::size_t i) {
  if (i % 3 == 0) return interest::readable;
  return interest::readable | (i % 3 == 1 ? interest::edge : interest::oneshot);
}

#define NEEDS_DESCRIPTORS(count)                                                     \
  if (!may_open(count)) {                                                            \
    MESSAGE("skipped: the hard limit of descriptors is below what this test needs"); \
    return;                                                                          \
  }                                                                                  \
  static_cast<void>(0)

}  // namespace

TEST_SUITE_BEGIN("crowd");

EVERY_POLICY("of ten thousand watched descriptors those are told that are ready, once each") {
  NEEDS_DESCRIPTORS(many);
  const bells all(many);
  hybridloop::loop l(on(path));
  std::vector<std::size_t> told(many);
  std::vector<watch_id> ids;
  std::size_t heard = 0;
  for (std::size_t i = 0; i < many; ++i) {
    ids.push_back(l.watch(all[i], kind(i), [&, i] {
      all.hear(i);
      ++told[i];
      ++heard;
    }));
  }
  CHECK(l.stats().watches == many);
  std::vector<std::size_t> rung(many);
  dice chance(1);

  std::size_t expected = 0;
  for (int round = 0; round < 5; ++round) {
    for (int n = 0; n < 100; ++n) {
      const std::size_t i = chance.roll(many);
      if (rung[i] != told[i] || (i % 3 == 2 && rung[i] != 0)) continue;
      all.ring(i);
      ++rung[i];
      ++expected;
    }
    turn_until(l, [&] { return heard == expected; });
  }
  for (std::size_t i = 0; i < many; ++i) {
    if (rung[i] == 0) all.ring(i), ++rung[i], ++expected;
  }
  turn_until(l, [&] { return heard == expected; });

  CHECK(told == rung);
  for (const watch_id id : ids) l.unwatch(id);
  CHECK(l.stats().watches == 0);
  CHECK(l.run_until_idle() == 0);
}

EVERY_POLICY("a callback that takes everybody off is the last one of ten thousand that are ready") {
  NEEDS_DESCRIPTORS(many);
  const bells all(many);
  hybridloop::loop l(on(path));
  std::vector<watch_id> ids;
  std::size_t told = 0;
  for (std::size_t i = 0; i < many; ++i) {
    ids.push_back(l.watch(all[i], kind(i), [&] {
      ++told;
      for (const watch_id id : ids) l.unwatch(id);
    }));
    all.ring(i);
  }

  turn_until(l, [&told] { return told != 0; });
  l.run_until_idle();

  CHECK(told == 1);
  CHECK(l.stats().watches == 0);
}

EVERY_POLICY("ten thousand descriptors that are closed behind the loop's back harm nobody else") {
  NEEDS_DESCRIPTORS(many);
  hybridloop::loop l(on(path));
  const bells kept(1);
  std::size_t heard = 0;
  l.watch(kept[0], interest::readable, [&] {
    kept.hear(0);
    ++heard;
  });
  {
    const bells gone(many);
    for (std::size_t i = 0; i < many; ++i) l.watch(gone[i], kind(i), [] {});
  }

  for (std::size_t n = 1; n <= 10; ++n) {
    kept.ring(0);
    turn_until(l, [&] { return heard == n; });
  }

  CHECK(heard == 10);
}

TEST_SUITE_END();
