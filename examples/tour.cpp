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
#include <chrono>
#include <cinttypes>
#include <cstdint>
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
using crowd = std::vector<std::thread>;
using samples = std::vector<nanoseconds>;

constexpr std::size_t clients = 100;
constexpr std::size_t bursts_per_client = 300;
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

struct pipe_ends {
  unique_fd out, in;
};
pipe_ends make_pipe() {
  int ends[2];
  must(::pipe(ends), "pipe");
  return {unique_fd(ends[0]), unique_fd(ends[1])};
}

struct tour {
  // The loop thread writes these, and nobody else looks before the loop is at rest: nothing locks.
  std::size_t tasks = 0;
  std::size_t violations = 0;
  std::array<std::size_t, producers> next{};
  std::size_t connections = 0;
  std::size_t lines_echoed = 0;
  std::size_t partial_writes = 0;
  samples timer_errors;
  samples errors_under_load;
  std::vector<hybridloop::timer_id> tickers;
  bool ticking = true;

  // The clients write these.
  std::atomic<std::size_t> lines_sent{0};
  std::atomic<std::size_t> wrong_echoes{0};

  const pipe_ends pipe = make_pipe();
  hybridloop::loop loop;  // the last member, because what it holds refers to the others
};

template <class F>
void must_post(tour& t, F f) {
  if (t.loop.post(std::move(f)) != hybridloop::post_result::accepted) std::abort();
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
    if (ended_ && owed_.empty()) {
      tour_.loop.unwatch(what.id);
    } else {
      tour_.loop.modify(what.id, owed_.empty() ? interest::readable : interest::writable);
    }
  }

 private:
  // Whole lines are echoed, and at the end the rest.
  void receive() {
    char buffer[16384];
    const ssize_t got = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    ended_ = got == 0 || (got < 0 && errno != EAGAIN);
    if (got > 0) heard_.append(buffer, static_cast<std::size_t>(got));
    const std::size_t whole = ended_ ? heard_.size() : heard_.rfind('\n') + 1;  // npos + 1 is 0
    owed_.assign(heard_, 0, whole);
    heard_.erase(0, whole);
    const auto newlines = std::count(owed_.begin(), owed_.end(), '\n');
    tour_.lines_echoed += static_cast<std::size_t>(newlines) + (ended_ && whole != 0 ? 1 : 0);
  }

  void send() {
    const ssize_t put = ::send(fd_.get(), owed_.data(), owed_.size(), MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN) owed_.clear();  // nobody is there; the next read says so too
    if (put > 0) owed_.erase(0, static_cast<std::size_t>(put));
    if (!owed_.empty()) ++tour_.partial_writes;
  }

  tour& tour_;
  unique_fd fd_;
  std::string heard_;  // the beginning of a line
  std::string owed_;   // lines on their way back
  bool ended_ = false;
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

// So small that long lines do not fit, and are written in parts.
void make_small(const unique_fd& fd, int which) {
  const int size = 4096;
  must(::setsockopt(fd.get(), SOL_SOCKET, which, &size, sizeof size), "setsockopt");
}

// Accepts until everybody is here; then the listener is not watched any more.
void serve(tour& t, const unique_fd& listener) {
  t.loop.watch(listener.get(), interest::readable, [&t, &listener](ready what) {
    unique_fd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    const int number = fd.get();
    if (number < 0) return;
    make_small(fd, SO_SNDBUF);
    t.loop.watch(number, interest::readable, connection(t, std::move(fd)));
    if (++t.connections == clients) t.loop.unwatch(what.id);
  });
}

// ---- The clients and the producers, a thread each ----

// A few lines, mostly short. A burst of them fits into the buffers on the way there and back.
std::string some_lines(std::minstd_rand& random, std::size_t count) {
  std::string text;
  for (; count != 0; --count) {
    const std::size_t length = random() % 20 == 0 ? 4000 + random() % 4000 : random() % 200;
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
  make_small(fd, SO_RCVBUF);
  must(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&place), sizeof place), "connect");
  for (std::size_t left = bursts_per_client; left-- != 0;) {
    const std::size_t lines = 1 + random() % 8;
    const std::string text = some_lines(random, lines) + (left == 0 ? "goodbye" : "");
    t.lines_sent += lines + (left == 0 ? 1 : 0);
    must(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), "send");  // all of it: it blocks
    if (left == 0) must(::shutdown(fd.get(), SHUT_WR), "shutdown");
    if (receive(fd, text.size()) != text) ++t.wrong_echoes;
  }
  if (!receive(fd, 1).empty()) ++t.wrong_echoes;
}

// Posts numbered tasks in bursts, with pauses in which the loop may go to sleep.
void produce(tour& t, std::size_t who, std::size_t from, std::size_t to) {
  std::minstd_rand random(static_cast<unsigned>(1 + who + from));
  while (from < to) {
    const std::size_t burst = random() % 8 == 0 ? 8000 : random() % 800;
    for (const std::size_t end = (std::min)(to, from + burst); from < end; ++from) {
      must_post(t, [&t, who, from] {
        if (std::exchange(t.next[who], from + 1) != from) ++t.violations;
        ++t.tasks;
      });
    }
    std::this_thread::sleep_for(microseconds(random() % 40000));
  }
}

// ---- Timers, on the loop thread ----

// The clock is asked here a little earlier than by the loop, so errors are not flattered.
void tick(tour& t, nanoseconds period) {
  const time_point first = now() + period;
  t.tickers.push_back(t.loop.every(period, [&t, first, period, n = 0]() mutable {
    t.timer_errors.push_back(now() - (first + period * n++));
  }));
}

// A timer after a random time, and then another one.
void wander(tour& t, std::minstd_rand random) {
  const microseconds delay(random() % 20000);
  const time_point deadline = now() + delay;
  t.loop.after(delay, [&t, random, deadline] {
    t.timer_errors.push_back(now() - deadline);
    if (t.ticking) wander(t, random);
  });
}

// Says how far things are, once a second, or ten times on a terminal.
void show_progress(tour& t) {
  const bool terminal = ::isatty(STDERR_FILENO) != 0;
  t.tickers.push_back(t.loop.every(terminal ? 100ms : 1000ms, [&t, terminal] {
    std::fprintf(stderr, "%s%7zu tasks  %6zu lines  %5zu timers  %3zu watches%s",
                 terminal ? "\r" : "", t.tasks, t.lines_echoed, t.timer_errors.size(),
                 t.loop.stats().watches, terminal ? " " : "\n");
  }));
}

void start_timers(tour& t) {
  for (const auto period : {5ms, 7ms, 11ms, 20ms, 50ms}) tick(t, period);
  for (unsigned seed = 1; seed <= 8; ++seed) wander(t, std::minstd_rand(seed));
  show_progress(t);
}

void stop_timers(tour& t) {
  for (const auto id : t.tickers) t.loop.cancel(id);
  t.ticking = false;
}

// ---- Acts one and two ----

crowd start_producers(tour& t, std::size_t from, std::size_t to) {
  crowd all;
  for (std::size_t who = 0; who < producers; ++who) {
    all.emplace_back([&t, who, from, to] { produce(t, who, from, to); });
  }
  return all;
}

void traffic(tour& t) {
  sockaddr_in place{};
  const unique_fd listener = listen_at(place);
  serve(t, listener);
  crowd all = start_producers(t, 0, tasks_per_producer / 2);
  for (unsigned n = 1; n <= clients; ++n) all.emplace_back([&t, place, n] { talk(t, place, n); });
  for (std::thread& one : all) one.join();
}

// The pipe is watched from this thread, heard once and given up; then nothing is for a while.
void come_and_go(tour& t) {
  crowd all = start_producers(t, tasks_per_producer / 2, tasks_per_producer);
  std::atomic<int> heard{0}, gone{0};
  for (int round = 1; round <= changes; ++round) {
    const auto id = t.loop.watch(t.pipe.out.get(), interest::readable, [&t, &heard] {
      char byte = 0;
      heard += static_cast<int>(::read(t.pipe.out.get(), &byte, 1));
    });
    must(::write(t.pipe.in.get(), "x", 1), "write");
    wait_until([&] { return heard == round; });
    t.loop.unwatch(id, [&gone] { ++gone; });
    wait_until([&] { return gone == round; });
    std::this_thread::sleep_for(1ms);
  }
  for (std::thread& one : all) one.join();
}

// ---- Act three ----

// How long a task took from post to run, and one of the loop's counters at that moment.
using counter = std::uint64_t loop_stats::*;
struct sample {
  nanoseconds took{0};
  std::uint64_t count = 0;
};

sample post_to_run(tour& t, counter what) {
  sample s;
  std::atomic<bool> done{false};
  const time_point posted = now();
  must_post(t, [&t, &s, &done, posted, what] {
    s = {now() - posted, t.loop.stats().*what};
    done = true;
  });
  wait_until([&done] { return done.load(); });
  return s;
}

void be_busy(nanoseconds span) {
  for (const time_point end = now() + span; now() < end;) continue;
}

// Runs for a microsecond, and again in the next turn.
struct keep_awake {
  tour& t;
  const std::atomic<bool>& wanted;
  void operator()() const {
    be_busy(1us);
    if (wanted) t.loop.defer(*this);
  }
};

samples while_awake(tour& t) {
  samples seen;
  std::atomic<bool> wanted{true};
  must_post(t, keep_awake{t, wanted});
  while (seen.size() < 20000) seen.push_back(post_to_run(t, &loop_stats::parks).took);
  wanted = false;
  wait_until([&t, parks = t.loop.stats().parks] { return t.loop.stats().parks > parks; });
  return seen;
}

// Posts soon after the task before. If the loop has not parked in between, it was looking.
samples while_spinning(tour& t) {
  samples seen;
  sample before = post_to_run(t, &loop_stats::parks);
  for (int tries = 0; seen.size() < 20000 && tries < 40000; ++tries) {
    be_busy(2us);
    const sample s = post_to_run(t, &loop_stats::parks);
    if (s.count == before.count) seen.push_back(s.took);
    before = s;
  }
  return seen;
}

// Posts when the loop has parked once more, in the place that the counter counts.
samples while_parked(tour& t, counter place) {
  samples seen;
  sample before = post_to_run(t, place);
  while (seen.size() < 2000) {
    wait_until([&] { return t.loop.stats().*place > before.count; });
    std::this_thread::sleep_for(200us);
    before = post_to_run(t, place);
    seen.push_back(before.took);
  }
  return seen;
}

// ---- The table, and what must be true ----

void print_times(const char* what, samples times) {
  if (times.empty()) times.push_back(0ns);  // one CPU: nobody spins
  std::sort(times.begin(), times.end());
  const auto us = [](nanoseconds n) { return static_cast<double>(n.count()) / 1000; };
  const std::size_t n = times.size();
  std::printf("%-24s%9zu%10.1f%10.1f%10.1f\n", what, n, us(times[n / 2]), us(times[n * 99 / 100]),
              us(times[n - 1]));
}

struct fact {
  std::uint64_t count;
  const char* what;
};
void print_facts(const char* head, fact one, fact two) {
  std::printf("%-7s%10" PRIu64 " %-17s%10" PRIu64 " %s\n", head, one.count, one.what, two.count,
              two.what);
}

void print_counts(const tour& t, const loop_stats& s) {
  std::puts("");
  print_facts("tasks", {t.tasks, "run"}, {t.violations, "out of order"});
  print_facts("lines", {t.lines_echoed, "echoed"}, {t.lines_sent, "sent"});
  print_facts("server", {t.connections, "connections"}, {t.partial_writes, "partial writes"});
  print_facts("parks", {s.in_channel, "in the channel"}, {s.in_poller, "in the poller"});
  print_facts("wakes", {s.wakes_channel, "of the channel"}, {s.wakes_poller, "of the poller"});
  print_facts("posts", {s.posts, "accepted"}, {s.wakes_saved, "without a wake"});
  print_facts("room", {s.spilled, "beyond the ring"}, {s.arena_high, "arena blocks at most"});
  print_facts("time", {s.spun_ns / 1000000, "ms spun"}, {s.parked_ns / 1000000, "ms parked"});
}

int failures(tour& t, const loop_stats& s, std::size_t ran) {
  int failed = 0;
  const auto expect = [&failed](bool kept, const char* promise) {
    if (kept) return;
    ++failed;
    std::fprintf(stderr, "tour: broken: %s\n", promise);
  };
  const auto early = [](const samples& errors) {
    return std::any_of(errors.begin(), errors.end(), [](nanoseconds n) { return n < 0ns; });
  };
  expect(t.tasks == producers * tasks_per_producer, "every task runs exactly once");
  expect(t.violations == 0, "the tasks of a thread run in the order of their posts");
  expect(t.connections == clients, "every client is accepted");
  expect(t.lines_echoed == t.lines_sent, "every line is echoed");
  expect(t.wrong_echoes == 0, "every echo is what was sent, and then the end");
  expect(!early(t.timer_errors) && !early(t.errors_under_load), "no timer is early");
  expect(s.in_channel >= changes && s.in_poller >= changes, "the loop sleeps in both places");
  expect(s.rescued == 0, "no wake is lost");
  expect(s.tasks == ran, "run() answers how many tasks it ran");
  expect(s.timers == 0 && s.watches == 0 && s.arena_in_use == 0, "a closed loop is drained");
  expect(t.loop.post([] {}) == hybridloop::post_result::closed, "a closed loop takes no task");
  return failed;
}

}  // namespace

int main() {
  std::puts(
      "One loop on one thread: a TCP echo server with 100 clients, a million tasks from 8 "
      "threads,\n"
      "timers, and watches that come and go, so that it keeps changing the place where it sleeps.");
  tour t;
  std::size_t ran = 0;
  std::thread runner([&t, &ran] { ran = t.loop.run(); });

  t.loop.invoke([&t] { start_timers(t); });
  traffic(t);
  come_and_go(t);
  t.loop.invoke([&t] { t.errors_under_load.swap(t.timer_errors); });
  std::this_thread::sleep_for(1s);
  t.loop.invoke([&t] { stop_timers(t); });
  wait_until([&t] { return t.loop.stats().timers == 0; });

  const samples awake = while_awake(t);
  const samples spinning = while_spinning(t);
  const samples in_channel = while_parked(t, &loop_stats::in_channel);
  t.loop.watch(t.pipe.out.get(), interest::readable, [] {});  // nobody writes any more
  const samples in_poller = while_parked(t, &loop_stats::in_poller);

  t.loop.after(1h, [] {});  // close() waits neither for this nor for the watch
  t.loop.close();
  runner.join();

  std::puts(
      "\nFrom post() to the first line of the task, by what the loop was doing at that moment. "
      "Asleep in\n"
      "the channel: on a word of memory, nothing watched; in the poller: epoll. Then how late "
      "timers\n"
      "ran; the kernel's timer slack is some 50 us.");
  std::printf("\n%-24s%9s%10s%10s%10s\n", "microseconds", "count", "p50", "p99", "max");
  print_times("post to run, awake", awake);
  print_times("  spinning", spinning);
  print_times("  parked in the channel", in_channel);
  print_times("  parked in the poller", in_poller);
  print_times("timer error, quiet", t.timer_errors);
  print_times("  under load", t.errors_under_load);
  print_counts(t, t.loop.stats());
  const int failed = failures(t, t.loop.stats(), ran);
  if (failed == 0)
    std::puts(
        "\nAll that was accepted has run, once and in order; no timer was early, no wake was "
        "lost.");
  return failed == 0 ? 0 : 1;
}
