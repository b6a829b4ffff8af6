#include <csignal>
#include <cstdint>
#include <initializer_list>
#include <set>

#include "support/watching.hpp"

using namespace support;
using hybridloop::interest;
namespace detail = hybridloop::detail;

using detail::poll_event;
using detail::poll_token;
using kernel_here = detail::system_kernel;

// Every shim that compiles here keeps these promises.
#define POLLERS detail::epoll_poller<kernel_here>

namespace {

constexpr detail::nanos ms = 1000000;
constexpr interest readable = interest::readable;
constexpr interest writable = interest::writable;

template <class Poller>
struct opened : Poller {
  opened() {
    if (this->open() != 0) std::abort();
  }
  // What there is at once.
  std::vector<poll_event> look() { return wait_for(0); }
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

}  // namespace

TEST_SUITE_BEGIN("poller");

TEST_CASE_TEMPLATE("open and close may be repeated, and leave nothing behind", poller, POLLERS) {
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

TEST_CASE_TEMPLATE("with edge, a change is reported once", poller, POLLERS) {
  opened<poller> p;
  const socket_pair pair;
  CHECK(p.add(pair.left(), readable | interest::edge, 1) == 0);

  for (int round = 0; round < 3; ++round) {
    pair.write_right();
    CHECK(p.look().size() == 1);
    CHECK(p.look().empty());
  }
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
  CHECK(p.look().empty());
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

  CHECK(::shutdown(pair.right(), SHUT_WR) == 0);

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

TEST_CASE_TEMPLATE("a pipe nobody reads any more is an error for who writes", poller, POLLERS) {
  opened<poller> p;
  int ends[2];
  CHECK(::pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
  CHECK(p.add(ends[1], writable, 1) == 0);

  ::close(ends[0]);

  const auto found = p.look();
  CHECK(found.size() == 1);
  CHECK(found.at(0).what.error);
  ::close(ends[1]);
}

TEST_CASE_TEMPLATE("out-of-band data is priority, for who asks for it", poller, POLLERS) {
  opened<poller> p;
  const tcp_pair pair;
  CHECK(p.add(pair.left(), interest::priority, 1) == 0);

  CHECK(::send(pair.right(), "!", 1, MSG_OOB) == 1);

  const auto found = p.wait_for(detail::never);
  CHECK(found.size() == 1);
  CHECK(found.at(0).what.priority);
  CHECK(!found.at(0).what.readable);
  CHECK(p.change(pair.left(), readable, 1) == 0);
  CHECK(p.look().empty());
}

TEST_CASE_TEMPLATE("a number that names nothing is refused as such", poller, POLLERS) {
  opened<poller> p;
  const int closed = ::dup(0);
  ::close(closed);

  for (const int fd : {-1, closed, 1 << 30}) {
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
  for (const char* path : {"/dev/null", "/proc/self/exe"}) {
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC);

    const int refused = p.add(fd, readable, 1);

    if (refused == 0) {
      CHECK(p.look().size() == 1);
      CHECK(p.remove(fd) == 0);
    } else {
      CHECK(refused == EPERM);
    }
    ::close(fd);
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
  const int other_name = ::dup(ghost.left());
  ghost.close_left();
  ghost.write_right();
  pair.write_right();
  CHECK(p.look().size() == 2);
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
  ::close(other_name);
}

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

// Answers a wait, or the writes of a bell, as it is told to.
struct moody_kernel : kernel_here {
  static inline int wait_answer = 0;
  static inline std::vector<int> write_answers;
  static inline int reads = 0;
  static inline int writes = 0;
  static int epoll_wait(int, epoll_event*, int, int) noexcept { return wait_answer; }
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

TEST_SUITE_END();
