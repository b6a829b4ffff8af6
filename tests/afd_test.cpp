// afd_test.cpp - what Windows' poller promises beyond the contract: its packets, its requests, its handles
#if defined(_WIN32)
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <ostream>
#include <vector>

#include "support/watching.hpp"

using namespace support;
using hybridloop::interest;
using hybridloop::ready;
namespace detail = hybridloop::detail;

using detail::poll_event;
using detail::poll_token;
using kernel_here = detail::system_kernel;

namespace {

constexpr interest readable = interest::readable;
constexpr interest writable = interest::writable;
constexpr interest oneshot = interest::oneshot;

// Counts questions and packets, and refuses what it is told to refuse.
struct seam : kernel_here {
  static inline std::atomic<int> asked{0};
  static inline std::atomic<int> answered{0};
  static inline std::atomic<int> rung{0};
  static inline std::atomic<int> no_port{0};
  static inline std::atomic<int> no_afd{0};
  static inline std::atomic<int> no_poll{0};
  static inline std::atomic<int> posts_to_fail{0};

  static void reset() {
    asked = answered = rung = 0;
    no_port = no_afd = no_poll = posts_to_fail = 0;
  }

  static int port_open(descriptor& port) noexcept {
    return no_port != 0 ? -no_port : kernel_here::port_open(port);
  }
  static int afd_open(descriptor port, descriptor& afd) noexcept {
    return no_afd != 0 ? -no_afd : kernel_here::afd_open(port, afd);
  }
  static int afd_poll(descriptor afd, detail::port_request& r, descriptor socket, unsigned events) noexcept {
    if (no_poll != 0) return -no_poll;
    const int refused = kernel_here::afd_poll(afd, r, socket, events);
    if (refused == 0) ++asked;
    return refused;
  }
  static int port_post(descriptor port, std::uintptr_t key, void* what) noexcept {
    if (posts_to_fail > 0 && posts_to_fail-- > 0) return -ENOMEM;
    ++(key == bell_key ? rung : asked);
    return kernel_here::port_post(port, key, what);
  }
  static int port_wait(descriptor port, detail::port_packet* out, int room, detail::nanos timeout) noexcept {
    const int got = kernel_here::port_wait(port, out, room, timeout);
    for (int i = 0; i < got; ++i) answered += out[i].key == request_key;
    return got;
  }
};

template <class Kernel = seam>
struct opened : detail::afd_poller<Kernel> {
  opened() {
    seam::reset();
    if (this->open() != 0) std::abort();
  }
  std::vector<poll_event> wait_for(detail::nanos timeout) {
    std::vector<poll_event> found(detail::events_per_turn);
    const int got = this->wait(found.data(), found.size(), timeout);
    if (got < 0) std::abort();
    found.resize(static_cast<std::size_t>(got));
    return found;
  }
  // The only thing that is told, without a limit of time.
  poll_event one() {
    const auto found = wait_for(detail::never);
    CHECK(found.size() == 1);
    return found.empty() ? poll_event{} : found.front();
  }
  bool nothing() { return wait_for(readiness_takes / 4).empty(); }
  void ring() {
    if (detail::afd_poller<Kernel>::ring(this->bell()) != 0) std::abort();
  }
};

// Until it is not writable any more.
void fill(const socket_pair& pair) {
  const std::vector<char> much(1 << 16);
  while (send_bytes(pair.left(), much.data(), much.size()) != 0) {
  }
}

// Closed with its scope.
class event {
 public:
  explicit event(bool stays = false) : handle_(make_event(stays)) {}
  event(const event&) = delete;
  event& operator=(const event&) = delete;
  ~event() { close_file(handle_); }
  descriptor handle() const { return handle_; }
  void* as_pointer() const { return reinterpret_cast<void*>(handle_); }
  void set() const { set_event(handle_); }
  void reset() const { reset_event(handle_); }

 private:
  descriptor handle_;
};

// Which knows sockets only.
bool over_wsapoll() { return std::string(hybridloop::loop::poller_name()) == "poll"; }

}  // namespace

TEST_SUITE_BEGIN("poller");

// ---- Sockets ----

TEST_CASE("windows: an open or an add that is refused leaves nothing behind") {
  const socket_pair pair;
  const auto before = open_descriptors();
  seam::reset();
  {
    detail::afd_poller<seam> p;
    seam::no_port = EMFILE;
    CHECK(p.open() == EMFILE);
    CHECK(!p.is_open());
    CHECK(open_descriptors() == before);

    seam::no_port = 0;
    CHECK(p.open() == 0);
    const auto with_port = open_descriptors();
    seam::no_afd = EACCES;
    CHECK(p.add(pair.left(), readable, 1) == EACCES);
    CHECK(open_descriptors() == with_port);

    seam::no_afd = 0;
    CHECK(p.add(pair.left(), readable, 1) == 0);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("windows: a socket that is closed while it is watched is told so, once") {
  for (const interest asked : {readable, writable | oneshot, readable | oneshot, interest::none}) {
    opened<> p;
    socket_pair pair;
    const socket_pair beside;
    if (detail::has(asked, writable)) fill(pair);
    CHECK(p.add(pair.left(), asked, 1) == 0);
    CHECK(p.add(beside.left(), readable, 2) == 0);
    CHECK(p.nothing());

    const descriptor number = pair.left();
    pair.close_left();

    const poll_event told = p.one();
    CHECK(told.token == 1);
    CHECK(told.what.error);
    CHECK(told.what.native_error == EBADF);
    CHECK(p.nothing());
    CHECK(p.remove(number) == EBADF);
    beside.write_right();
    CHECK(p.one().token == 2);
  }
}

TEST_CASE("windows: a socket that was closed between two waits is told so by the next") {
  opened<> p;
  socket_pair pair;
  pair.write_right();
  CHECK(p.add(pair.left(), readable, 1) == 0);
  CHECK(p.one().what.readable);

  pair.close_left();

  CHECK(p.one().what.native_error == EBADF);
  CHECK(p.nothing());
}

TEST_CASE("windows: a connection that is reset is a hang-up and an error, whatever was asked for") {
  for (const interest asked : {readable, writable, interest::priority, interest::none}) {
    opened<> p;
    socket_pair pair;
    CHECK(p.add(pair.left(), asked, 1) == 0);
    pair.reset_right();

    poll_event told = p.one();
    while (!told.what.hangup) told = p.one();
    CHECK(told.what.error);
    CHECK(told.what.readable);
    CHECK(told.what.native_error == 0);
  }
}

TEST_CASE("windows: a change that asks for more is heard while the old question is out") {
  opened<> p;
  const socket_pair pair;
  CHECK(p.add(pair.left(), readable, 1) == 0);
  CHECK(p.nothing());

  CHECK(p.change(pair.left(), readable | writable, 2) == 0);
  const poll_event told = p.one();
  CHECK(told.token == 2);
  CHECK(told.what.writable);
  CHECK(!told.what.readable);

  CHECK(p.change(pair.left(), readable, 3) == 0);
  CHECK(p.nothing());
  pair.write_right();
  CHECK(p.one().token == 3);
}

TEST_CASE("windows: a question that is refused is told as an error, once") {
  opened<> p;
  const socket_pair pair;
  CHECK(p.add(pair.left(), readable, 1) == 0);
  seam::no_poll = ENOMEM;

  const poll_event told = p.one();
  seam::no_poll = 0;

  CHECK(told.what.error);
  CHECK(told.what.native_error == ENOMEM);
  CHECK(p.nothing());
  CHECK(p.remove(pair.left()) == ENOENT);
  CHECK(p.add(pair.left(), readable, 2) == 0);
}

TEST_CASE("windows: where there is no memory to tell of a refusal, the next wait asks again") {
  opened<> p;
  const socket_pair pair;
  pair.write_right();
  CHECK(p.add(pair.left(), readable, 1) == 0);
  seam::no_poll = ENOMEM;
  seam::posts_to_fail = 1 << 30;
  CHECK(p.nothing());

  seam::reset();

  CHECK(p.one().what.readable);
}

TEST_CASE("windows: what was taken back is answered, and its events are not believed") {
  detail::port_request r;
  r.poll.count = 1;
  r.poll.events = kernel_here::afd_receive;
  CHECK(kernel_here::afd_outcome(r) == kernel_here::afd_receive);
  r.poll.count = 0;
  CHECK(kernel_here::afd_outcome(r) == 0);
  r.poll.count = 1;
  r.outcome.status = static_cast<long>(0xC0000120);
  CHECK(kernel_here::afd_outcome(r) == 0);
  r.outcome.status = static_cast<long>(0xC0000008);
  CHECK(kernel_here::afd_outcome(r) == -EBADF);
}

TEST_CASE("windows: a close waits for the answer to every question, and none is left open") {
  const std::vector<socket_pair> pairs(100);
  const auto before = open_descriptors();
  {
    opened<> p;
    for (std::size_t round = 0; round < scaled(20); ++round) {
      for (const auto& pair : pairs) CHECK(p.add(pair.left(), readable, round) == 0);
      p.wait_for(0);
      for (std::size_t i = 0; i < pairs.size(); i += 2) {
        CHECK(p.change(pairs[i].left(), readable | interest::priority, round) == 0);
      }
      p.wait_for(0);
      if (round % 2 == 0) CHECK(p.renew() == 0);
    }
    p.close();

    CHECK(seam::asked > 100);
    CHECK(seam::answered == seam::asked);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("windows: an exposed port speaks again of what is still so, once it is settled") {
  opened<> p;
  const socket_pair pair;
  descriptor handle = -1;
  CHECK(p.expose(handle) == 0);
  CHECK(p.add(pair.left(), readable, 1) == 0);
  pair.write_right();
  CHECK(becomes_readable(handle, -1));
  CHECK(p.one().what.readable);
  CHECK(!becomes_readable(handle, 0));

  p.settle();

  CHECK(becomes_readable(handle, -1));
  CHECK(p.one().what.readable);
  pair.drain_left();
  p.settle();
  CHECK(!becomes_readable(handle, 20));
}

// ---- The bell and the time ----

TEST_CASE("windows: rings that nobody heard yet are one packet") {
  opened<> p;

  for (int i = 0; i < 1000; ++i) p.ring();
  CHECK(seam::rung == 1);
  CHECK(p.wait_for(detail::never).empty());
  p.ring();

  CHECK(seam::rung == 2);
  CHECK(p.wait_for(detail::never).empty());
}

TEST_CASE("windows: a ring is tried again while there is no memory for it, and reports what stays so") {
  opened<> p;
  seam::posts_to_fail = 50;
  CHECK(detail::afd_poller<seam>::ring(p.bell()) == 0);
  CHECK(p.wait_for(detail::never).empty());

  seam::posts_to_fail = 1 << 30;
  CHECK(detail::afd_poller<seam>::ring(p.bell()) == ENOMEM);
  seam::posts_to_fail = 0;
}

namespace {

// A kernel that ties timers to ports, and says what was asked of it.
struct tying_kernel : seam {
  static inline std::vector<detail::nanos> started;
  static inline std::vector<detail::nanos> waited;
  static inline int stopped = 0;
  static int timer_open(descriptor& timer, descriptor& tie) noexcept {
    timer = make_event(false);
    tie = make_event(false);
    return 0;
  }
  static int timer_start(descriptor, descriptor, descriptor, detail::nanos span) noexcept {
    started.push_back(span);
    return 0;
  }
  static void timer_stop(descriptor) noexcept { ++stopped; }
  static int port_wait(descriptor port, detail::port_packet* out, int room, detail::nanos timeout) noexcept {
    waited.push_back(timeout);
    return seam::port_wait(port, out, room, timeout);
  }
};

}  // namespace

TEST_CASE("windows: where a timer can be tied to a port, a wait of some length has one, to the nanosecond") {
  const auto before = open_descriptors();
  {
    opened<tying_kernel> p;
    tying_kernel::started.clear();
    p.wait_for(0);
    CHECK(tying_kernel::started.empty());
    p.ring();
    p.wait_for(detail::never);
    CHECK(tying_kernel::started.empty());
    p.ring();
    p.wait_for(1234567);

    CHECK(tying_kernel::started == std::vector<detail::nanos>{1234567});
    CHECK(tying_kernel::stopped == 1);
  }
  CHECK(open_descriptors() == before);
}

// ---- Other handles ----

TEST_CASE("windows: an event that resets itself is told once for each time it was set") {
  opened<> p;
  const event one;
  CHECK(p.add(one.handle(), readable, 7) == 0);
  CHECK(p.nothing());

  for (int round = 0; round < 5; ++round) {
    one.set();
    const poll_event told = p.one();
    CHECK(told.token == 7);
    CHECK(told.what.readable);
    CHECK(!told.what.hangup);
    CHECK(p.nothing());
  }
}

TEST_CASE("windows: an event that stays is told for as long, or once with oneshot until a change") {
  opened<> p;
  const event stays(true);
  stays.set();
  CHECK(p.add(stays.handle(), readable, 1) == 0);
  for (int round = 0; round < 3; ++round) CHECK(p.one().token == 1);
  stays.reset();
  p.wait_for(readiness_takes / 4);
  CHECK(p.nothing());

  CHECK(p.change(stays.handle(), readable | oneshot, 2) == 0);
  stays.set();
  CHECK(p.one().token == 2);
  CHECK(p.nothing());
  CHECK(p.change(stays.handle(), readable | oneshot, 3) == 0);
  CHECK(p.one().token == 3);
  CHECK(p.nothing());
}

TEST_CASE("windows: what is removed is not told, and its signal is left to others") {
  opened<> p;
  const event one;
  for (int round = 0; round < 20; ++round) {
    CHECK(p.add(one.handle(), readable, 1) == 0);
    p.wait_for(0);
    CHECK(p.remove(one.handle()) == 0);
    one.set();
    CHECK(p.wait_for(0).empty());
    CHECK(is_readable(one.handle()));
  }
}

TEST_CASE("windows: handles that are signalled while they are removed tell nothing, and nothing of them is left") {
  opened<> p;
  const std::vector<std::unique_ptr<event>> events = [] {
    std::vector<std::unique_ptr<event>> made;
    for (int i = 0; i < 10; ++i) made.push_back(std::make_unique<event>());
    return made;
  }();
  for (std::size_t round = 0; round < scaled(50); ++round) {
    for (const auto& each : events) CHECK(p.add(each->handle(), readable, round) == 0);
    p.wait_for(0);
    const scoped_thread other([&] {
      for (const auto& each : events) each->set();
    });
    for (const auto& each : events) CHECK(p.remove(each->handle()) == 0);
  }
  CHECK(p.nothing());
}

TEST_CASE("windows: any number of handles is waited for at once") {
  constexpr std::size_t many = 1000;
  opened<> p;
  std::vector<std::unique_ptr<event>> events;
  for (std::size_t i = 0; i < many; ++i) {
    events.push_back(std::make_unique<event>());
    CHECK(p.add(events.back()->handle(), readable, i) == 0);
  }
  CHECK(p.nothing());

  for (const auto& each : events) each->set();

  std::vector<int> told(many);
  for (std::size_t count = 0; count != many;) {
    for (const poll_event& e : p.wait_for(detail::never)) ++told[static_cast<std::size_t>(e.token)], ++count;
  }
  CHECK(told == std::vector<int>(many, 1));
  CHECK(p.nothing());
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("watch");

EVERY_POLICY("windows: a loop runs a callback when a handle is signalled, beside its sockets") {
  if (over_wsapoll()) return;
  constexpr std::size_t many = 100;
  hybridloop::loop l(on(path));
  const socket_pair pair;
  std::vector<std::unique_ptr<event>> events;
  std::vector<int> told(many);
  std::vector<hybridloop::watch_id> ids;
  int read = 0;
  std::size_t heard = 0;
  l.watch(pair.left(), readable, [&] { read += static_cast<int>(pair.drain_left()); });
  for (std::size_t i = 0; i < many; ++i) {
    events.push_back(std::make_unique<event>());
    ids.push_back(l.watch_handle(events.back()->as_pointer(), [&, i](const ready& what) {
      told[i] += what.readable;
      ++heard;
    }));
  }
  const scoped_thread other([&] {
    for (const auto& each : events) each->set();
    pair.write_right();
  });

  turn_until(l, [&] { return heard == many && read == 1; });

  CHECK(told == std::vector<int>(many, 1));
  for (const auto& id : ids) CHECK(l.unwatch(id));
  for (const auto& each : events) each->set();
  settle(l);
  CHECK(heard == many);
}

EVERY_POLICY("windows: a handle that cannot be waited for is refused") {
  hybridloop::loop l(on(path));
  std::error_code code;
  CHECK(!l.watch_handle(nullptr, [] {}, code));
  CHECK(code == system_error(EBADF));
  CHECK(!l.watch_handle(reinterpret_cast<void*>(std::intptr_t{-1}), [] {}, code));
  CHECK(code == system_error(EBADF));
}

TEST_SUITE_END();
#endif  // defined(_WIN32)
