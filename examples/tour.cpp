// tour.cpp - everything at once: an echo server, a million tasks, timers, watches that come and go
//
// Act one: a hundred TCP clients talk to a line-echo server on the loop, while eight threads post half
// a million tasks and timers tick. Act two: the other half, while a pipe is watched and unwatched, so
// that the loop changes between its two ways to sleep. Act three: quiet, and how long a post takes to
// run in each state of the loop. Then the tour checks its own totals.

// A lost wake is found after two seconds and fails the tour, instead of hanging it.
#define HYBRIDLOOP_RESCUE_MS 2000
#include <hybridloop.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

using namespace std::chrono_literals;
using hybridloop::interest;
using hybridloop::loop_stats;
using hybridloop::ready;
using std::chrono::microseconds;
using std::chrono::nanoseconds;
using time_point = hybridloop::loop::time_point;

constexpr std::size_t clients = 100;
constexpr std::size_t bursts_per_client = 100;
constexpr std::size_t producers = 8;
constexpr std::size_t tasks_per_producer = 125000;
constexpr int changes = 500;

time_point now() { return hybridloop::loop::clock::now(); }

template <class T>
T must(T result, const char* call) {
  if (result >= 0) return result;
  std::perror(call);
  std::exit(1);
}

class unique_fd {
 public:
  explicit unique_fd(int fd) noexcept : fd_(fd) {}
  unique_fd(unique_fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  unique_fd& operator=(unique_fd&&) = delete;
  ~unique_fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const noexcept { return fd_; }

 private:
  int fd_;
};

struct tour {
  // The loop thread counts; nobody else looks before it has ended, so nothing locks.
  std::size_t tasks = 0;
  std::size_t violations = 0;
  std::array<std::size_t, producers> next{};
  std::size_t connections = 0;
  std::size_t lines_echoed = 0;
  std::size_t partial_writes = 0;
  std::vector<nanoseconds> timer_errors;
  std::vector<hybridloop::timer_id> tickers;
  bool ticking = true;

  // The clients count.
  std::atomic<std::size_t> lines_sent{0};
  std::atomic<std::size_t> wrong_echoes{0};

  const time_point begin = now();
  hybridloop::loop loop;  // the last member: what it still holds refers to the others
};

template <class F>
void must_post(tour& t, F&& f) {
  if (t.loop.post(std::forward<F>(f)) == hybridloop::post_result::accepted) return;
  std::fputs("tour: a post was refused\n", stderr);
  std::exit(1);
}

template <class Condition>
void wait_until(const Condition& condition) {
  while (!condition()) std::this_thread::yield();
}

// ---- The server, on the loop thread ----

// One connection. It lives in the closure of its watch and goes with it. It reads while it owes
// nothing and writes while it does, so a client that does not listen is not read from either.
class connection {
 public:
  connection(tour& t, unique_fd fd) noexcept : tour_(t), fd_(std::move(fd)) {}

  void operator()(ready what) {
    if (owed_.empty()) receive();
    if (!owed_.empty()) send();
    if (broken_ || (ended_ && owed_.empty())) {
      tour_.loop.unwatch(what.id);
    } else {
      tour_.loop.modify(what.id, owed_.empty() ? interest::readable : interest::writable);
    }
  }

 private:
  void receive() {
    char buffer[16384];
    const ssize_t got = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    if (got < 0) return note_error();
    ended_ = got == 0;
    heard_.append(buffer, static_cast<std::size_t>(got));
    const std::size_t whole = ended_ ? heard_.size() : heard_.rfind('\n') + 1;  // npos + 1 is 0
    owed_.assign(heard_, 0, whole);
    heard_.erase(0, whole);
    const auto newlines = std::count(owed_.begin(), owed_.end(), '\n');
    tour_.lines_echoed += static_cast<std::size_t>(newlines) + (ended_ && whole != 0 ? 1 : 0);
  }

  void send() {
    const ssize_t put = ::send(fd_.get(), owed_.data(), owed_.size(), MSG_NOSIGNAL);
    if (put < 0) return note_error();
    owed_.erase(0, static_cast<std::size_t>(put));
    if (!owed_.empty()) ++tour_.partial_writes;
  }

  void note_error() noexcept { broken_ = errno != EAGAIN && errno != EINTR; }

  tour& tour_;
  unique_fd fd_;
  std::string heard_;  // the beginning of a line
  std::string owed_;   // lines on their way back
  bool ended_ = false;
  bool broken_ = false;
};

unique_fd listen_at(sockaddr_in& place) {
  unique_fd fd(must(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket"));
  place.sin_family = AF_INET;
  place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const address = reinterpret_cast<sockaddr*>(&place);
  socklen_t size = sizeof place;
  must(::bind(fd.get(), address, size), "bind");
  must(::listen(fd.get(), static_cast<int>(clients)), "listen");
  must(::getsockname(fd.get(), address, &size), "getsockname");
  return fd;
}

// Accepts until everybody is here; then the listener is not watched any more.
void serve(tour& t, const unique_fd& listener) {
  t.loop.watch(listener.get(), interest::readable, [&t, &listener](ready what) {
    const int fd = ::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    const int small = 4096;  // so that long lines do not fit
    must(::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), "setsockopt");
    t.loop.watch(fd, interest::readable, connection(t, unique_fd(fd)));
    if (++t.connections == clients) t.loop.unwatch(what.id);
  });
}

// ---- The clients and the producers, a thread each ----

// A few lines, mostly short; one in fifty is long enough to fill the server's send buffer.
std::string some_lines(std::minstd_rand& random, std::size_t count) {
  std::string text;
  for (; count != 0; --count) {
    const std::size_t length = random() % 50 == 0 ? 5000 + random() % 20000 : random() % 200;
    text.append(length, static_cast<char>('a' + random() % 26)) += '\n';
  }
  return text;
}

// What comes back of `size` bytes; less when the other side has ended.
std::string receive(const unique_fd& fd, std::size_t size) {
  std::string text(size, '\0');
  const ssize_t got = must(::recv(fd.get(), text.data(), size, MSG_WAITALL), "recv");
  text.resize(static_cast<std::size_t>(got));
  return text;
}

// Sends bursts of lines and checks what comes back. The last burst ends without a newline and with
// half a close: the server still owes all of it, and then the end.
void talk(tour& t, const sockaddr_in& place, unsigned seed) {
  std::minstd_rand random(seed);
  const unique_fd fd(must(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  must(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&place), sizeof place), "connect");
  for (std::size_t burst = 1; burst <= bursts_per_client; ++burst) {
    const bool last = burst == bursts_per_client;
    const std::size_t lines = 1 + random() % 8;
    const std::string text = some_lines(random, lines) + (last ? "goodbye" : "");
    t.lines_sent += lines + (last ? 1 : 0);
    must(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), "send");  // blocks until all went
    if (last) must(::shutdown(fd.get(), SHUT_WR), "shutdown");
    if (receive(fd, text.size()) != text) ++t.wrong_echoes;
  }
  if (!receive(fd, 1).empty()) ++t.wrong_echoes;
}

// Posts numbered tasks in bursts, with pauses in which the loop may go to sleep.
void produce(tour& t, std::size_t who, std::size_t from, std::size_t to) {
  std::minstd_rand random(static_cast<unsigned>(1 + who + from));
  while (from < to) {
    for (std::size_t burst = 1 + random() % 1000; burst != 0 && from < to; --burst, ++from) {
      must_post(t, [&t, who, from] {
        if (std::exchange(t.next[who], from + 1) != from) ++t.violations;
        ++t.tasks;
      });
    }
    std::this_thread::sleep_for(microseconds(random() % 20000));
  }
}

void start_producers(tour& t, std::vector<std::thread>& crowd, std::size_t from, std::size_t to) {
  for (std::size_t who = 0; who < producers; ++who) crowd.emplace_back(produce, std::ref(t), who, from, to);
}

// ---- Timers and the progress line, on the loop thread ----

// The clock is asked here a little earlier than by the loop, so errors are not flattered.
void tick(tour& t, nanoseconds period) {
  const time_point first = now() + period;
  t.tickers.push_back(t.loop.every(period, [&t, first, period, n = 0]() mutable {
    t.timer_errors.push_back(now() - (first + period * n++));
  }));
}

// A timer after a random time, and then another one.
void wander(tour& t, std::minstd_rand random) {
  const auto delay = microseconds(random() % 20000);
  const time_point deadline = now() + delay;
  t.loop.after(delay, [&t, random, deadline] {
    t.timer_errors.push_back(now() - deadline);
    if (t.ticking) wander(t, random);
  });
}

void show_progress(tour& t) {
  static const bool terminal = ::isatty(STDERR_FILENO) != 0;
  const loop_stats s = t.loop.stats();
  t.tickers.push_back(t.loop.every(terminal ? 100ms : 1s, [&t] {
    
  }));
}
