#include <algorithm>
#include <csignal>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <set>
#include <thread>

#include "support/pollers.hpp"
#include "support/watching.hpp"
#if SUPPORT_POSIX
#include <poll.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>
#endif

using namespace support;
using hybridloop::interest;
namespace detail = hybridloop::detail;

using detail::poll_event;
using detail::poll_token;
using kernel_here = detail::system_kernel;

// Every shim that compiles here keeps these promises.
#define POLLERS SUPPORT_POLLERS(kernel_here)

namespace {

constexpr detail::nanos ms = 1000000;
constexpr interest readable = interest::readable;
constexpr interest writable = interest::writable;

template <class Poller>
struct opened : Poller {
  opened() {
    if (this->open() != 0) std::abort();
  }
  // What there is; where a system needs a moment to notice, with that moment.
  std::vector<poll_event> look() {
    auto found = wait_for(0);
    return found.empty() && readiness_takes != 0 ? wait_for(readiness_takes) : found;
  }
  std::vector<poll_event> wait_for(detail::nanos timeout) {
    std::vector<poll_event> found(detail::events_per_turn);
    const int got = this->wait(found.data(), found.size(), timeout);
    if (got < 0) std::abort();
    found.resize(static_cast<std::size_t>(got));
    return found;
  }
  detail::nanos time_of_wait(detail::nanos timeout) {
    const auto begin = std::chrono::steady_clock::now();
    wait_for(timeout);
    return detail::to_nanos(std::chrono::steady_clock::now() - begin);
  }
  void ring() {
    if (Poller::ring(this->bell()) != 0) std::abort();
  }
};

template <class... Pollers>
std::string names() {
  return ((std::string(" ") + Pollers::name) + ...);
}

}  // namespace

TEST_SUITE_BEGIN("poller");

TEST_CASE("the poller of the loops is one of those that are tested") {
  const std::string used = hybridloop::loop::poller_name();
  MESSAGE("tested:" << names<POLLERS>() << "; used by loops: " << used);

  CHECK((names<POLLERS>() + ' ').find(' ' + used + ' ') != std::string::npos);
}

TEST_CASE_TEMPLATE("open and close may be repeated, and leave nothing behind", poller, POLLERS) {
  { const opened<poller> brings_what_stays; }
  const auto before = open_descriptors();
  poller p;
  CHECK(!p.is_open());

  for (int round = 0; round < 3; ++round) {
    CHECK(p.open() == 0);
    CHECK(p.is_open());
    const auto bell = p.bell();
    CHECK(p.open() == 0);
    CHECK(p.bell() == bell);
    p.close();
    p.close();
    CHECK(!p.is_open());
  }

  CHECK(open_descriptors() == before);
}

#if SUPPORT_POSIX
TEST_CASE_TEMPLATE("what a poller opens is not inherited by programs that are started", poller,
                   POLLERS) {
  const auto before = open_descriptors();
  const opened<poller> p;
  const auto after = open_descriptors();

  CHECK(after.size() > before.size());
  const std::set<std::string> known(before.begin(), before.end());
  for (const auto& name : after) {
    if (known.count(name) == 0) CHECK((::fcntl(std::stoi(name), F_GETFD) & FD_CLOEXEC) != 0);
  }
}
#endif

TEST_CASE_TEMPLATE("a wait ends when its time is over, and not before", poller, POLLERS) {
  opened<poller> p;

  for (const detail::nanos span : {0 * ms, ms / 10, ms / 2, ms, 3 * ms / 2, 12 * ms}) {
    CHECK(p.time_of_wait(span) >= span);
  }
}

TEST_CASE_TEMPLATE("a ring ends the wait that is going on", poller, POLLERS) {
  opened<poller> p;

  for (std::size_t i = 0; i < scaled(200); ++i) {
    const scoped_thread other([&p] { p.ring(); });
    CHECK(p.wait_for(detail::never).empty());
  }
}

TEST_CASE_TEMPLATE("a ring before the wait ends it", poller, POLLERS) {
  opened<poller> p;

  p.ring();

  CHECK(p.wait_for(detail::never).empty());
}

TEST_CASE_TEMPLATE("rings that nobody waited for are one", poller, POLLERS) {
  if (pairs_are_tcp && std::string(poller::name) == "poll") return;  // whose rings come one by one
  opened<poller> p;

  for (int i = 0; i < 1000; ++i) p.ring();
  p.wait_for(detail::never);

  CHECK(p.time_of_wait(3 * ms) >= 3 * ms);
}

TEST_CASE_TEMPLATE("a bell that nobody heard for very long still rings", poller, POLLERS) {
  opened<poller> p;

  for (std::size_t i = 0; i < 100000; ++i) p.ring();
  p.wait_for(detail::never);
  p.ring();

  CHECK(p.wait_for(detail::never).empty());
}

#if SUPPORT_POSIX
namespace {
volatile int signalled_bell = -1;
}

TEST_CASE_TEMPLATE("a bell may be rung by a signal handler", poller, POLLERS) {
  opened<poller> p;
  signalled_bell = p.bell();
  const auto before = std::signal(SIGUSR1, [](int) { poller::ring(signalled_bell); });

  for (std::size_t i = 0; i < scaled(100); ++i) {
    ::raise(SIGUSR1);
    CHECK(p.wait_for(detail::never).empty());
  }

  std::signal(SIGUSR1, before);
}

TEST_CASE_TEMPLATE("a signal ends a wait with nothing to report", poller, POLLERS) {
  opened<poller> p;
  const auto before = std::signal(SIGUSR1, [](int) {});
  std::atomic<bool> over{false};
  const ::pthread_t waiter = ::pthread_self();
  scoped_thread other([&] {
    while (!over) {
      ::pthread_kill(waiter, SIGUSR1);
      std::this_thread::sleep_for(200us);
    }
  });

  const auto found = p.wait_for(detail::never);

  CHECK(found.empty());
  over = true;
  other.join();
  std::signal(SIGUSR1, before);
}
#endif

TEST_CASE_TEMPLATE("pollers do not hear each other's bells", poller, POLLERS) {
  opened<poller> ours;
  opened<poller> theirs;

  theirs.ring();

  CHECK(ours.time_of_wait(2 * ms) >= 2 * ms);
  CHECK(theirs.wait_for(detail::never).empty());
}

TEST_CASE_TEMPLATE("an event carries the token it was added with, whatever that is", poller,
                   POLLERS) {
  for (const poll_token token : {poll_token{0}, poll_token{1}, poll_token{0x8000000000000000u},
                                 poll_token{0xfffffffffffffffeu}}) {
    opened<poller> p;
    const socket_pair pair;
    CHECK(p.add(pair.left(), readable, token) == 0);
    pair.write_right();

    const auto found = p.wait_for(detail::never);

    CHECK(found.size() == 1);
    CHECK(found.at(0).token == token);
    CHECK(found.at(0).what.readable);
    CHECK(!found.at(0).what.writable);
    CHECK(!found.at(0).what.hangup);
    CHECK(!found.at(0).what.error);
    CHECK(!found.at(0).what.priority);
    CHECK(found.at(0).what.native_error == 0);
  }
}

TEST_CASE_TEMPLATE("only what was asked for is reported", poller, POLLERS) {
  opened<poller> p;
  const socket_pair pair;
  CHECK(p.add(pair.left(), writable, 1) == 0);

  pair.write_right();

  const auto found = p.look();
  CHECK(found.size() == 1);
  CHECK(found.at(0).what.writable);
  CHECK(!found.at(0).what.readable);
  CHECK(p.change(pair.left(), readable | writable, 2) == 0);
  const auto both = p.look();
  CHECK(both.size() == 1);
  CHECK(both.at(0).token == 2);
  CHECK(both.at(0).what.writable);
  CHECK(both.at(0).what.readable);
}

TEST_CASE_TEMPLATE("readiness is reported for as long as it lasts", poller, POLLERS) {
  opened<poller> p;
  const socket_pair pair;
  CHECK(p.add(pair.left(), readable, 1) == 0);
  CHECK(p.look().empty());

  pair.write_right();

  CHECK(p.look().size() == 1);
  CHECK(p.look().size() == 1);
  pair.drain_left();
  CHECK(p.look().empty());
}

TEST_CASE_TEMPLATE("with edge, a change is reported once, or like a level where there are no edges",
                   poller, POLLERS) {
  opened<poller> p;
  const socket_pair pair;
  CHECK(p.add(pair.left(), readable | interest::edge, 1) == 0);

  for (int round = 0; round < 3; ++round) {
    pair.write_right();
    CHECK(p.look().size() == 1);
    CHECK(p.look().empty() == poller::edges);
  }
  pair.drain_left();
  CHECK(p.look().empty());
}

TEST_CASE_TEMPLATE("a change of interest has an edge reported again", poller, POLLERS) {
  opened<poller> p;
  const socket_pair pair;
  CHECK(p.add(pair.left(), readable | interest::edge, 1) == 0);
  pair.write_right();
  CHECK(p.look().size() == 1);

  CHECK(p.change(pair.left(), readable | interest::edge, 2) == 0);

  const auto found = p.look();
  CHECK(found.size() == 1);
  CHECK(found.at(0).token == 2);
  CHECK(p.look().empty() == poller::edges);
}

TEST_CASE_TEMPLATE("with oneshot, nothing is reported after the first until a change", poller,
                   POLLERS) {
  opened<poller> p;
  const socket_pair pair;
  CHECK(p.add(pair.left(), readable | interest::oneshot, 1) == 0);
  pair.write_right();
  CHECK(p.look().size() == 1);

  pair.write_right();
  const bool silent = p.look().empty();
  const int changed = p.change(pair.left(), readable | interest::oneshot, 1);

  CHECK(silent);
  CHECK(changed == 0);
  CHECK(p.look().size() == 1);
  CHECK(p.look().empty());
}

TEST_CASE_TEMPLATE("without interest nothing is reported but a hang-up, at most once", poller,
                   POLLERS) {
  opened<poller> p;
  socket_pair pair;
  CHECK(p.add(pair.left(), interest::none, 1) == 0);
  pair.write_right();
  CHECK(p.look().empty());

  pair.close_right();

  CHECK(p.look().size() <= 1);
  CHECK(p.look().empty());
}

TEST_CASE_TEMPLATE("a hang-up comes as readable, as long as there is interest", poller, POLLERS) {
  opened<poller> p;
  socket_pair pair;
  CHECK(p.add(pair.left(), readable, 1) == 0);

  pair.close_right();

  for (int round = 0; round < 3; ++round) {
    const auto found = p.look();
    CHECK(found.size() == 1);
    CHECK(found.at(0).what.hangup);
    CHECK(found.at(0).what.readable);
  }
}

TEST_CASE_TEMPLATE("a half close is a hang-up for who reads, and nothing for who writes", poller,
                   POLLERS) {
  opened<poller> p;
  const socket_pair pair;
  CHECK(p.add(pair.left(), readable, 1) == 0);

  send_no_more(pair.right());

  const auto reading = p.look();
  CHECK(reading.size() == 1);
  CHECK(reading.at(0).what.hangup);
  CHECK(reading.at(0).what.readable);
  CHECK(p.change(pair.left(), writable, 1) == 0);
  const auto writing = p.look();
  CHECK(writing.size() == 1);
  CHECK(writing.at(0).what.writable);
  CHECK(!writing.at(0).what.hangup);
}

#if SUPPORT_POSIX
TEST_CASE_TEMPLATE("a pipe nobody reads any more is an error for who writes", poller, POLLERS) {
  opened<poller> p;
  int ends[2];
  make_pipe(ends);
  CHECK(p.add(ends[1], writable, 1) == 0);

  ::close(ends[0]);

  const auto found = p.look();
  CHECK(found.size() == 1);
  CHECK(found.at(0).what.error);
  ::close(ends[1]);
}
#endif

TEST_CASE_TEMPLATE("out-of-band data is priority, for who asks for it", poller, POLLERS) {
  opened<poller> p;
  const tcp_pair pair;
  const int refused = p.add(pair.left(), interest::priority, 1);
  if (refused != 0) {
    CHECK(refused == ENOTSUP);
    return;
  }

  send_urgent(pair.right());

  const auto found = p.wait_for(detail::never);
  CHECK(found.size() == 1);
  CHECK(found.at(0).what.priority);
  CHECK(!found.at(0).what.readable);
  CHECK(p.change(pair.left(), readable, 1) == 0);
  CHECK(p.look().empty());
}

TEST_CASE_TEMPLATE("a number that names nothing is refused as such", poller, POLLERS) {
  opened<poller> p;
  descriptor closed = -1;
  {
    const socket_pair pair;
    closed = pair.left();
  }

  for (const descriptor fd : {descriptor{-1}, descriptor{-100}, closed, descriptor{1 << 30}}) {
    CHECK(p.add(fd, readable, 1) == EBADF);
    CHECK(p.change(fd, readable, 1) == EBADF);
    CHECK(p.remove(fd) == EBADF);
  }
}

TEST_CASE_TEMPLATE("a number that became one of the poller's own is refused, and does no harm",
                   poller, POLLERS) {
  const auto before = open_descriptors();
  opened<poller> p;
  const std::set<std::string> known(before.begin(), before.end());
  for (const auto& name : open_descriptors()) {
    if (known.count(name) != 0) continue;
    CHECK(p.add(std::stoi(name), readable, 1) == EBADF);
    CHECK(p.change(std::stoi(name), readable, 1) == EBADF);
    CHECK(p.remove(std::stoi(name)) == EBADF);
  }

  p.ring();

  CHECK(p.wait_for(detail::never).empty());
}

TEST_CASE_TEMPLATE("a file that is always ready is polled, or refused in the one way agreed",
                   poller, POLLERS) {
  opened<poller> p;
  for (const descriptor fd : always_ready_files()) {

    const int refused = p.add(fd, readable, 1);

    if (refused == 0) {
      CHECK(p.look().size() == 1);
      CHECK(p.remove(fd) == 0);
    } else {
      CHECK(refused == EPERM);
    }
    close_file(fd);
  }
}

TEST_CASE_TEMPLATE("what was removed is not reported, and removing it twice is an answer", poller,
                   POLLERS) {
  opened<poller> p;
  const socket_pair pair;
  CHECK(p.add(pair.left(), readable, 1) == 0);
  pair.write_right();

  CHECK(p.remove(pair.left()) == 0);

  CHECK(p.look().empty());
  CHECK(p.remove(pair.left()) != EBADF);
  CHECK(p.add(pair.left(), readable, 2) == 0);
  CHECK(p.look().size() == 1);
}

#if SUPPORT_POSIX
TEST_CASE_TEMPLATE("a change of a number that names another file by now is refused", poller,
                   POLLERS) {
  opened<poller> p;
  socket_pair gone;
  const int number = gone.left();
  CHECK(p.add(number, readable, 1) == 0);
  gone.close_left();
  CHECK(p.change(number, readable, 1) == EBADF);

  const socket_pair stranger;
  CHECK(::dup2(stranger.left(), number) == number);
  stranger.write_right();
  CHECK(p.change(number, readable, 1) == ENOENT);
  CHECK(p.look().empty());
  const int file = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK(::dup2(file, number) == number);
  const int refused = p.change(number, readable, 1);

  CHECK((refused == EPERM || refused == ENOENT));
  ::close(number);
  ::close(file);
}

TEST_CASE_TEMPLATE("a number that comes back with its file can be added", poller, POLLERS) {
  opened<poller> p;
  socket_pair pair;
  const int number = pair.left();
  CHECK(p.add(number, readable, 1) == 0);
  const int other_name = ::dup(number);
  pair.close_left();
  CHECK(::dup2(other_name, number) == number);

  CHECK(p.add(number, readable, 2) == 0);

  pair.write_right();
  const auto found = p.look();
  CHECK(found.size() == 1);
  CHECK(found.at(0).token == 2);
  ::close(number);
  ::close(other_name);
}
#endif

TEST_CASE_TEMPLATE("a small room is filled, and the rest is reported in turn", poller, POLLERS) {
  constexpr std::size_t many = 50;
  constexpr std::size_t room = 3;
  opened<poller> p;
  std::vector<socket_pair> pairs(many);
  for (std::size_t i = 0; i < many; ++i) {
    CHECK(p.add(pairs[i].left(), readable, i) == 0);
    pairs[i].write_right();
  }

  std::set<poll_token> seen;
  bool in_bounds = true;
  for (std::size_t calls = 0; calls < 2 * many / room; ++calls) {
    poll_event found[room + 1];
    found[room].token = 12345;
    const int got = p.wait(found, room, 0);
    in_bounds = in_bounds && got > 0 && got <= static_cast<int>(room) && found[room].token == 12345;
    for (int i = 0; i < got; ++i) seen.insert(found[i].token);
  }

  CHECK(in_bounds);
  CHECK(seen.size() == many);
}

TEST_CASE_TEMPLATE("a renewed poller has forgotten everything but its bell", poller, POLLERS) {
  opened<poller> p;
  socket_pair ghost;
  const socket_pair pair;
  CHECK(p.add(ghost.left(), readable, 1) == 0);
  CHECK(p.add(pair.left(), readable, 2) == 0);
  const descriptor other_name = duplicate(ghost.left());
  ghost.close_left();
  ghost.write_right();
  pair.write_right();
  std::set<poll_token> told;
  for (int looks = 0; looks < 2; ++looks) {
    for (const auto& event : p.look()) told.insert(event.token);
  }
  CHECK(told == std::set<poll_token>{1, 2});
  const auto before = open_descriptors();
  const auto bell = p.bell();

  CHECK(p.renew() == 0);

  CHECK(p.look().empty());
  CHECK(p.bell() == bell);
  CHECK(open_descriptors() == before);
  CHECK(p.add(pair.left(), readable, 3) == 0);
  const auto found = p.look();
  CHECK(found.size() == 1);
  CHECK(found.at(0).token == 3);
  CHECK(p.remove(pair.left()) == 0);
  p.look();
  p.ring();
  CHECK(p.wait_for(detail::never).empty());
  close_file(other_name);
}

TEST_CASE_TEMPLATE("whatever comes and goes, what is registered and ready is reported, once", poller,
                   POLLERS) {
  constexpr std::size_t many = 40;
  opened<poller> p;
  const std::vector<socket_pair> pairs(many);
  std::vector<poll_token> tokens(many);
  for (std::size_t i = 0; i < many; i += 2) pairs[i].write_right();
  std::size_t wrong = 0;
  std::uint32_t dice = 1;

  for (poll_token step = 1; step <= scaled(3000); ++step) {
    dice = dice * 1664525 + 1013904223;
    const std::size_t i = (dice >> 16) % many;
    const bool registered = tokens[i] != 0;
    const bool off = registered && dice % 2 == 0;
    const int refused = off          ? p.remove(pairs[i].left())
                        : registered ? p.change(pairs[i].left(), readable, step)
                                     : p.add(pairs[i].left(), readable, step);
    tokens[i] = off ? 0 : step;
    std::multiset<poll_token> expected;
    for (std::size_t k = 0; k < many; k += 2) {
      if (tokens[k] != 0) expected.insert(tokens[k]);
    }
    std::multiset<poll_token> reported;
    for (const auto& event : p.look()) reported.insert(event.token);
    wrong += refused != 0 || reported != expected;
  }

  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("an exposed handle is readable while there is a ring or an event to hear", poller,
                   POLLERS) {
  opened<poller> p;
  const socket_pair pair;
  hybridloop::native_handle handle = -1;
  const int refused = p.expose(handle);
  if (refused != 0) {
    CHECK(refused == ENOTSUP);
    return;
  }
  CHECK(p.add(pair.left(), readable, 1) == 0);
  CHECK(!is_readable(handle));

  p.ring();
  CHECK(is_readable(handle));
  p.look();
  CHECK(!is_readable(handle));
  pair.write_right();

  CHECK(is_readable(handle));
  CHECK(p.renew() == 0);
  p.look();
  CHECK(!is_readable(handle));
  p.ring();
  CHECK(is_readable(handle));
}

TEST_CASE_TEMPLATE("an abandoned poller has closed its own and can be opened again", poller, POLLERS) {
  const auto before = open_descriptors();
  poller p;
  const socket_pair pair;
  const auto with_the_pair = open_descriptors();
  pair.write_right();
  CHECK(p.open() == 0);
  CHECK(p.add(pair.left(), readable, 1) == 0);

  p.abandon();

  CHECK(!p.is_open());
  CHECK(open_descriptors() == with_the_pair);
  CHECK(p.open() == 0);
  poll_event found[2];
  CHECK(p.wait(found, 2, 0) == 0);
  CHECK(p.add(pair.left(), readable, 2) == 0);
  CHECK(p.wait(found, 2, 0) == 1);
  CHECK(found[0].token == 2);
}

// ---- While another thread waits ----

namespace {

// Another thread waits without end and keeps what it was told, while this lives.
template <class Poller>
class waiter {
 public:
  explicit waiter(opened<Poller>& p) : poller_(p), thread_([this] { serve(); }) {}
  ~waiter() {
    over_ = true;
    poller_.ring();
  }
  void await(poll_token token) const {
    while (latest_ != token) std::this_thread::sleep_for(20us);
  }

 private:
  void serve() {
    while (!over_) {
      for (const auto& event : poller_.wait_for(detail::never)) latest_ = event.token;
    }
  }
  opened<Poller>& poller_;
  std::atomic<poll_token> latest_{0};
  std::atomic<bool> over_{false};
  scoped_thread thread_;
};

}  // namespace

TEST_CASE_TEMPLATE("what is added or changed while another thread waits is heard by it", poller,
                   POLLERS) {
  opened<poller> p;
  const socket_pair pair;
  pair.write_right();
  const waiter<poller> other(p);
  bool refused = false;

  for (poll_token token = 1; token <= 3 * scaled(200); token += 3) {
    refused = p.add(pair.left(), readable | interest::oneshot, token) != 0 || refused;
    other.await(token);
    refused = p.change(pair.left(), readable | interest::oneshot, token + 1) != 0 || refused;
    other.await(token + 1);
    refused = p.change(pair.left(), interest::none, token + 2) != 0 || refused;
    if (token % 2 == 0) std::this_thread::sleep_for(50us);
    refused = p.change(pair.left(), writable | interest::oneshot, token + 2) != 0 || refused;
    other.await(token + 2);
    refused = p.remove(pair.left()) != 0 || refused;
  }

  CHECK(!refused);
}

#if SUPPORT_POSIX
TEST_CASE_TEMPLATE("what is removed while another thread waits is closed when it is closed", poller,
                   POLLERS) {
  opened<poller> p;
  const waiter<poller> other(p);
  bool refused = false;

  for (std::size_t i = 0; i < scaled(100); ++i) {
    int ends[2];
    CHECK(::pipe(ends) == 0);
    refused = p.add(ends[1], interest::none, 1) != 0 || refused;
    std::this_thread::sleep_for(50us);
    refused = p.remove(ends[1]) != 0 || refused;
    ::close(ends[1]);
    char end_of_file;
    refused = ::read(ends[0], &end_of_file, 1) != 0 || refused;
    ::close(ends[0]);
  }

  CHECK(!refused);
}
#endif

#if SUPPORT_POSIX
// ---- Terminals, which some kernels refuse ----

namespace {

// What is written to the one end can be read from the other, which is a terminal.
class pseudo_terminal {
 public:
  pseudo_terminal() : master_(::posix_openpt(O_RDWR | O_NOCTTY)) {
    if (master_ < 0 || ::grantpt(master_) != 0 || ::unlockpt(master_) != 0) std::abort();
    terminal_ = ::open(::ptsname(master_), O_RDWR | O_NOCTTY);
    termios raw{};
    if (::tcgetattr(terminal_, &raw) != 0) std::abort();
    ::cfmakeraw(&raw);
    ::tcsetattr(terminal_, TCSANOW, &raw);
  }
  pseudo_terminal(const pseudo_terminal&) = delete;
  pseudo_terminal& operator=(const pseudo_terminal&) = delete;
  ~pseudo_terminal() {
    close();
    ::close(master_);
  }

  int fd() const { return terminal_; }
  void close() {
    if (terminal_ >= 0) ::close(std::exchange(terminal_, -1));
  }
  void type() const { must(::write(master_, "x", 1)); }
  void read() const {
    char byte;
    must(::read(terminal_, &byte, 1));
  }

 private:
  static void must(ssize_t moved) {
    if (moved != 1) std::abort();
  }
  int master_;
  int terminal_ = -1;
};

}  // namespace

TEST_CASE_TEMPLATE("a terminal is heard for as long as it has something", poller, POLLERS) {
  opened<poller> p;
  const pseudo_terminal terminal;
  const socket_pair pair;
  REQUIRE(p.add(terminal.fd(), readable, 7) == 0);
  REQUIRE(p.add(pair.left(), readable, 8) == 0);
  CHECK(p.wait_for(0).empty());
  CHECK(p.time_of_wait(2 * ms) >= 2 * ms);

  terminal.type();
  for (int round = 0; round < 2; ++round) {
    const auto found = p.wait_for(detail::never);
    REQUIRE(found.size() == 1);
    CHECK(found[0].token == 7);
    CHECK(found[0].what.readable);
    CHECK(!found[0].what.writable);
  }

  pair.write_right();
  CHECK(p.wait_for(0).size() == 2);
  terminal.read();
  const auto rest = p.wait_for(detail::never);
  REQUIRE(rest.size() == 1);
  CHECK(rest[0].token == 8);
}

TEST_CASE_TEMPLATE("a terminal is told what is asked: writable, once, or nothing any more", poller, POLLERS) {
  opened<poller> p;
  const pseudo_terminal terminal;
  terminal.type();

  REQUIRE(p.add(terminal.fd(), readable | writable | interest::oneshot, 1) == 0);
  const auto both = p.wait_for(detail::never);
  REQUIRE(both.size() == 1);
  CHECK(both[0].what.readable);
  CHECK(both[0].what.writable);
  CHECK(p.wait_for(0).empty());

  REQUIRE(p.change(terminal.fd(), writable, 2) == 0);
  const auto one = p.wait_for(detail::never);
  REQUIRE(one.size() == 1);
  CHECK(one[0].token == 2);
  CHECK(!one[0].what.readable);

  CHECK(p.change(terminal.fd(), interest::none, 3) == 0);
  CHECK(p.wait_for(0).empty());
  CHECK(p.change(terminal.fd(), readable, 4) == 0);
  CHECK(p.wait_for(0).size() == 1);
  CHECK(p.remove(terminal.fd()) == 0);
  CHECK(p.remove(terminal.fd()) == ENOENT);
  CHECK(p.wait_for(0).empty());
}

TEST_CASE_TEMPLATE("a ring ends a wait for a terminal", poller, POLLERS) {
  opened<poller> p;
  const pseudo_terminal terminal;
  REQUIRE(p.add(terminal.fd(), readable, 1) == 0);

  const scoped_thread other([&p] {
    std::this_thread::sleep_for(2ms);
    p.ring();
  });

  CHECK(p.wait_for(detail::never).empty());
}

TEST_CASE_TEMPLATE("a terminal that was closed is forgotten, and its number may name another file", poller, POLLERS) {
  opened<poller> p;
  pseudo_terminal terminal;
  pseudo_terminal lasting;
  const int number = terminal.fd();
  terminal.type();
  REQUIRE(p.add(lasting.fd(), readable, 1) == 0);
  REQUIRE(p.add(number, readable, 2) == 0);
  terminal.close();
  for (int round = 0; round < 2; ++round) {
    for (const poll_event& each : p.wait_for(0)) CHECK(each.what.error);
  }
  lasting.type();
  const auto found = p.wait_for(detail::never);
  REQUIRE(found.size() == 1);
  CHECK(found[0].token == 1);
  CHECK(p.change(number, readable, 3) == EBADF);

  const socket_pair pair;
  pair.write_right();
  const int moved = ::dup2(pair.left(), number);
  CHECK(moved == number);
  CHECK(p.change(number, readable, 4) == ENOENT);
  CHECK(p.add(number, readable, 5) == 0);
  CHECK(p.wait_for(0).size() == 2);
  ::close(number);
}

TEST_CASE_TEMPLATE("a terminal that is added while another thread waits is heard by it", poller, POLLERS) {
  opened<poller> p;
  const pseudo_terminal terminal;
  terminal.type();
  const waiter<poller> other(p);
  bool refused = false;

  for (poll_token token = 1; token <= 2 * scaled(200); token += 2) {
    refused = p.add(terminal.fd(), readable | interest::oneshot, token) != 0 || refused;
    other.await(token);
    refused = p.change(terminal.fd(), writable | interest::oneshot, token + 1) != 0 || refused;
    other.await(token + 1);
    if (token % 4 == 1) std::this_thread::sleep_for(50us);
    refused = p.remove(terminal.fd()) != 0 || refused;
  }

  CHECK(!refused);
}

// ---- A kernel with moods ----

namespace {

// Answers a wait, or the writes of a bell, as it is told to.
struct moody_kernel : kernel_here {
  static inline int wait_answer = 0;
  static inline std::vector<int> write_answers;
  static inline int reads = 0;
  static inline int writes = 0;
  static int epoll_wait(int, epoll_event*, int, int) noexcept { return wait_answer; }
  static int poll(pollfd*, std::size_t, detail::nanos) noexcept { return wait_answer; }
  static int write(int, const void*, std::size_t size) noexcept {
    const auto at = static_cast<std::size_t>(writes++);
    return at < write_answers.size() ? write_answers[at] : static_cast<int>(size);
  }
  static int read(int, void*, std::size_t size) noexcept {
    ++reads;
    return static_cast<int>(size);
  }
  static void script(std::initializer_list<int> answers) {
    write_answers = answers;
    reads = writes = 0;
  }
};
using moody_pipe = detail::pipe_bell<moody_kernel>;

}  // namespace

#if defined(__linux__)
// ---- epoll ----

namespace {

// Refuses the nth call of those that make a kernel object.
struct stingy_kernel : kernel_here {
  static inline int calls_granted = 0;
  static bool grants() { return calls_granted-- > 0; }
  static int epoll_create() noexcept { return grants() ? kernel_here::epoll_create() : -EMFILE; }
  static int eventfd() noexcept { return grants() ? kernel_here::eventfd() : -ENFILE; }
  static int epoll_ctl(int epoll, int what, int fd, epoll_event* event) noexcept {
    return grants() ? kernel_here::epoll_ctl(epoll, what, fd, event) : -ENOSPC;
  }
  static int replace(int number, int fd) noexcept {
    return grants() ? kernel_here::replace(number, fd) : -EBUSY;
  }
};

// Linux before 5.11, and what it was asked instead.
struct old_kernel : kernel_here {
  static inline std::vector<int> waits;
  static inline int refusals = 0;
  static int epoll_pwait2(int, epoll_event*, int, detail::nanos) noexcept {
    ++refusals;
    return -ENOSYS;
  }
  static int epoll_wait(int, epoll_event*, int, int milliseconds) noexcept {
    waits.push_back(milliseconds);
    return 0;
  }
};

using moody_bell = detail::eventfd_bell<moody_kernel>;

}  // namespace

TEST_CASE("epoll: an open that is refused half-way leaves nothing behind") {
  const auto before = open_descriptors();
  const int answers[] = {EMFILE, ENFILE, ENOSPC, 0};

  for (int granted = 0; granted < 4; ++granted) {
    detail::epoll_poller<stingy_kernel> p;
    stingy_kernel::calls_granted = granted;

    CHECK(p.open() == answers[granted]);

    CHECK(p.is_open() == (granted == 3));
    if (granted < 3) CHECK(open_descriptors() == before);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("epoll: a renewal that is refused half-way changes nothing") {
  detail::epoll_poller<stingy_kernel> p;
  stingy_kernel::calls_granted = 4;
  const socket_pair pair;
  CHECK(p.open() == 0);
  CHECK(p.add(pair.left(), readable, 7) == 0);
  pair.write_right();
  const auto before = open_descriptors();
  const int answers[] = {EMFILE, ENOSPC, EBUSY};

  for (int granted = 0; granted < 3; ++granted) {
    stingy_kernel::calls_granted = granted;

    CHECK(p.renew() == answers[granted]);

    CHECK(open_descriptors() == before);
    poll_event found[2];
    CHECK(p.wait(found, 2, 0) == 1);
    CHECK(found[0].token == 7);
  }
}

TEST_CASE("epoll: without epoll_pwait2 a wait is rounded up, and the kernel is asked for it once") {
  detail::epoll_poller<old_kernel> p;
  CHECK(p.open() == 0);
  poll_event found[1];
  constexpr detail::nanos day = 24ll * 3600 * 1000 * ms;

  for (const detail::nanos span : {0 * ms, 1 * ms / 1000000, ms - 1, ms, ms + 1, 5 * ms / 2, day,
                                   400 * day, detail::never - 1, detail::never}) {
    CHECK(p.wait(found, 1, span) == 0);
  }

  const int day_ms = 24 * 3600 * 1000;
  CHECK(old_kernel::waits == std::vector<int>{0, 1, 1, 1, 2, 3, day_ms, day_ms, day_ms, -1});
  CHECK(old_kernel::refusals == 1);
}

TEST_CASE("epoll: an interrupted wait is an empty one, and a failed one says so") {
  detail::epoll_poller<moody_kernel> p;
  CHECK(p.open() == 0);
  poll_event found[1];

  moody_kernel::wait_answer = -EINTR;
  CHECK(p.wait(found, 1, detail::never) == 0);
  moody_kernel::wait_answer = -EBADF;
  CHECK(p.wait(found, 1, detail::never) == -EBADF);
}

TEST_CASE(
    "epoll: a ring repeats what was interrupted, makes room for itself, and reports what fails") {
  moody_kernel::script({-EINTR, -EINTR, -EINTR});
  CHECK(moody_bell::ring(3) == 0);
  CHECK(moody_kernel::writes == 4);

  moody_kernel::script({-EAGAIN});
  CHECK(moody_bell::ring(3) == 0);
  CHECK(moody_kernel::reads == 1);
  CHECK(moody_kernel::writes == 2);

  moody_kernel::script({-EIO, 3, 0, -ENOMEM});
  CHECK(moody_bell::ring(3) == 0);
  CHECK(moody_kernel::writes == 5);

  moody_kernel::script({});
  moody_kernel::write_answers.assign(1000, -EBADF);
  CHECK(moody_bell::ring(3) == EBADF);
  CHECK(moody_kernel::writes < 1000);
}

TEST_CASE("epoll: a saturated bell makes an edge") {
  opened<detail::epoll_poller<kernel_here>> p;
  const std::uint64_t all_but_one = ~std::uint64_t{0} - 1;
  CHECK(::write(p.bell(), &all_but_one, sizeof all_but_one) == sizeof all_but_one);
  CHECK(p.wait_for(detail::never).empty());

  p.ring();

  CHECK(p.wait_for(detail::never).empty());
  CHECK(p.time_of_wait(2 * ms) >= 2 * ms);
}

#endif

// ---- poll ----

namespace {

// Does something behind the next poll, before its answer is looked at; refuses pipes; says when it is
// asked which file a number names.
struct busy_kernel : kernel_here {
  static inline std::function<void()> behind_poll;
  static inline std::function<void()> identified;
  static inline int pipe_answer = 0;
  static int poll(pollfd* descriptors, std::size_t count, detail::nanos timeout) noexcept {
    const int got = kernel_here::poll(descriptors, count, timeout);
    if (behind_poll) std::exchange(behind_poll, nullptr)();
    return got;
  }
  // Some leave numbers that are not theirs.
  static int pipe(int (&ends)[2]) noexcept {
    if (pipe_answer == 0) return kernel_here::pipe(ends);
    ends[0] = ends[1] = 0;
    return pipe_answer;
  }
  static int identify(int fd, detail::file_identity& out) noexcept {
    if (identified) std::exchange(identified, nullptr)();
    return kernel_here::identify(fd, out);
  }
};
using poll_here = detail::poll_poller<kernel_here>;
using busy_poller = detail::poll_poller<busy_kernel>;

template <class Poller>
int hearing_end(const Poller& p) {
  for (int fd = 0; fd < 1024; ++fd) {
    if (fd != p.bell() && p.owns(fd)) return fd;
  }
  return -1;
}

// The one report of what names another file by now, or nothing.
bool is_goodbye(const std::vector<poll_event>& found, poll_token token) {
  if (found.size() != 1) return false;
  const auto& what = found.front().what;
  return found.front().token == token && what.error && what.native_error == EBADF &&
         !what.readable && !what.writable && !what.hangup;
}

}  // namespace

TEST_CASE("poll: an open that is refused leaves nothing behind") {
  const auto before = open_descriptors();
  busy_poller p;

  busy_kernel::pipe_answer = -EMFILE;
  CHECK(p.open() == EMFILE);
  busy_kernel::pipe_answer = 0;

  CHECK(!p.is_open());
  CHECK(open_descriptors() == before);
  CHECK(p.open() == 0);
}

TEST_CASE("poll: a wait leaves nothing in the bell, whatever else it found") {
  opened<poll_here> p;
  const socket_pair pair;
  CHECK(p.add(pair.left(), readable, 1) == 0);
  const int bell = hearing_end(p);

  for (const int rings : {1, 5, 1024, 2048, 100000}) {
    for (int i = 0; i < rings; ++i) p.ring();
    CHECK(is_readable(bell));
    CHECK(p.wait_for(detail::never).empty());
    CHECK(!is_readable(bell));
  }
  pair.write_right();
  p.ring();
  CHECK(p.wait_for(detail::never).size() == 1);
  CHECK(!is_readable(bell));
}

TEST_CASE("poll: a ring repeats what was interrupted, is heard in a full pipe, and reports what fails") {
  moody_kernel::script({-EINTR, -EINTR, -EINTR});
  CHECK(moody_pipe::ring(3) == 0);
  CHECK(moody_kernel::writes == 4);

  moody_kernel::script({-EAGAIN});
  CHECK(moody_pipe::ring(3) == 0);
  CHECK(moody_kernel::reads == 0);
  CHECK(moody_kernel::writes == 1);

  moody_kernel::script({-EIO, 0, -ENOMEM});
  CHECK(moody_pipe::ring(3) == 0);
  CHECK(moody_kernel::writes == 4);

  moody_kernel::script({});
  moody_kernel::write_answers.assign(1000, -EBADF);
  CHECK(moody_pipe::ring(3) == EBADF);
  CHECK(moody_kernel::writes < 1000);
}

TEST_CASE("poll: an interrupted wait is an empty one, and a failed one says so") {
  detail::poll_poller<moody_kernel> p;
  CHECK(p.open() == 0);
  poll_event found[1];

  moody_kernel::wait_answer = -EINTR;
  CHECK(p.wait(found, 1, detail::never) == 0);
  moody_kernel::wait_answer = -ENOMEM;
  CHECK(p.wait(found, 1, detail::never) == -ENOMEM);
}

TEST_CASE("poll: a wait whose bell was closed by somebody says so") {
  for (const bool hears : {false, true}) {
    poll_here p;
    CHECK(p.open() == 0);
    poll_event found[1];

    ::close(hears ? hearing_end(p) : p.bell());

    CHECK(p.wait(found, 1, detail::never) == -EBADF);
  }
}

TEST_CASE("poll: where more is ready than there is room for, none is reported twice before all were") {
  constexpr std::size_t many = 50;
  constexpr std::size_t room = 3;
  opened<poll_here> p;
  const std::vector<socket_pair> pairs(many);
  for (std::size_t i = 0; i < many; ++i) {
    CHECK(p.add(pairs[i].left(), readable, i) == 0);
    pairs[i].write_right();
  }

  std::vector<int> seen(many);
  for (std::size_t reports = 0; reports < 3 * many;) {
    poll_event found[room];
    const int got = p.wait(found, (std::min)(room, many - reports % many), 0);
    CHECK(got > 0);
    for (int i = 0; i < got; ++i, ++reports) ++seen[static_cast<std::size_t>(found[i].token)];
    if (reports % many == 0) CHECK(seen == std::vector<int>(many, static_cast<int>(reports / many)));
  }
}

TEST_CASE("poll: what is changed or removed during a wait is not reported by it") {
  opened<busy_poller> p;
  socket_pair pair;
  const int number = pair.left();
  pair.write_right();
  CHECK(p.add(number, readable, 1) == 0);

  busy_kernel::behind_poll = [&] { p.change(number, readable | writable, 2); };
  CHECK(p.look().empty());
  CHECK(p.look().at(0).token == 2);
  busy_kernel::behind_poll = [&] { p.remove(number); };
  CHECK(p.look().empty());
  CHECK(p.look().empty());

  CHECK(p.add(number, readable, 3) == 0);
  std::unique_ptr<socket_pair> stranger;
  busy_kernel::behind_poll = [&] {
    p.remove(number);
    pair.close_left();
    stranger = std::make_unique<socket_pair>();
    p.add(number, readable, 4);
  };
  CHECK(p.look().empty());
  CHECK(stranger->left() == number);
  stranger->write_right();
  CHECK(p.look().at(0).token == 4);
}

TEST_CASE("poll: a descriptor that was closed is reported as such, once, and polled no more") {
  for (const interest asked : {readable, writable | interest::oneshot, interest::none}) {
    opened<poll_here> p;
    socket_pair pair;
    const socket_pair beside;
    const int number = pair.left();
    CHECK(p.add(number, asked, 1) == 0);
    CHECK(p.add(beside.left(), readable, 2) == 0);

    pair.close_left();

    CHECK(is_goodbye(p.look(), 1));
    CHECK(p.look().empty());
    CHECK(p.remove(number) == EBADF);
    const socket_pair again;
    CHECK(again.left() == number);
    CHECK(p.add(number, readable, 3) == 0);
    again.write_right();
    CHECK(p.look().at(0).token == 3);
  }
}

TEST_CASE("poll: a number that names a stranger is not reported for it, but as closed") {
  opened<poll_here> p;
  socket_pair pair;
  const int number = pair.left();
  CHECK(p.add(number, readable, 1) == 0);
  pair.close_left();
  const socket_pair stranger;
  CHECK(stranger.left() == number);
  CHECK(p.look().empty());

  stranger.write_right();

  CHECK(is_goodbye(p.look(), 1));
  CHECK(p.look().empty());
  CHECK(p.change(number, readable, 1) == ENOENT);
}

TEST_CASE("poll: a child may abandon what another thread was in the middle of") {
  const auto p = std::make_unique<opened<busy_poller>>();
  const socket_pair pair;
  pair.write_right();
  CHECK(p->add(pair.left(), readable, 1) == 0);
  gate in_the_middle;
  gate go;
  busy_kernel::identified = [&] {
    in_the_middle.open();
    go.pass();
  };
  const scoped_thread other([&] { p->look(); });
  in_the_middle.pass();

  const ::pid_t child = ::fork();
  if (child == 0) {
    p->abandon();
    const bool works = p->open() == 0 && p->look().empty() && p->add(pair.left(), readable, 2) == 0 &&
                       p->look().size() == 1;
    ::_exit(works ? 0 : 1);
  }
  go.open();
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

#endif  // SUPPORT_POSIX

TEST_SUITE_END();
