// permits.cpp - semaphores: permits that are there, permits that are waited for, hand-offs, batches, and loops
#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__cpp_impl_coroutine)
#include <coroutine>
#include <exception>
#endif

#include "support/bench.hpp"
#include "support/crowd.hpp"
#include "support/place.hpp"
#include "support/processes.hpp"
#include "support/queues.hpp"
#include "support/rivals.hpp"
#include "support/semaphores.hpp"
#include "support/workloads.hpp"

namespace {

using bench::kind;
using bench::sample;
using bench::scaled;
using crowd::dice;
using crowd::work;
using hybridloop::wait_status;

namespace sync = hybridloop::sync;

constexpr std::chrono::seconds never_comes(100);

std::string counted(std::size_t n, const char* what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

// Asked when nobody waits.
template <class Semaphore>
void must_hold(Semaphore& semaphore, std::size_t permits) {
  std::size_t there = 0;
  while (there <= permits && semaphore.try_acquire()) ++there;
  bench::must(there == permits, "every permit came back, once");
}
void must_hold(semaphores::bare&, std::size_t) {}

// ---- Permits that are there ----

// Sleeps. C libraries leave out the atomic part of their locks for as long as a process has one thread only, and one
// that has semaphores has more.
class bystander {
 public:
  bystander() : thread_([this] { leave_.pass(); }) {}
  bystander(const bystander&) = delete;
  ~bystander() {
    leave_.open();
    thread_.join();
  }

 private:
  workloads::gate leave_;
  std::thread thread_;
};

template <class Pass>
sample repeated(std::size_t times, const Pass& pass) {
  const bystander beside;
  const std::size_t n = scaled(times);
  return bench::timed(n, [&] {
    for (std::size_t i = 0; i < n; ++i) pass();
  });
}

void uncontended(const bench::options& how) {
  bench::family both("semaphore: uncontended, acquire + release");
  const auto alone = [](auto chosen) {
    typename decltype(chosen)::type semaphore(1);
    const sample s = repeated(1000000, [&] {
      semaphore.acquire();
      semaphore.release();
    });
    must_hold(semaphore, 1);
    return s;
  };
  semaphores::add_all(both, alone);
  processes::add_semaphores(both, [](const std::string& who) {
    return "uncontended " + who + " " + std::to_string(scaled(1000000));
  });
  semaphores::add<semaphores::bare>(both, kind::limit, semaphores::bare::name, alone);
  both.run(how);

  bench::family hit("semaphore: uncontended, try_acquire + release");
  semaphores::add_all(hit, [](auto chosen) {
    typename decltype(chosen)::type semaphore(1);
    std::size_t got = 0;
    const sample s = repeated(1000000, [&] {
      if (semaphore.try_acquire()) ++got;
      semaphore.release();
    });
    bench::must(got == scaled(1000000), "a permit that is there is had");
    must_hold(semaphore, 1);
    return s;
  });
  hit.run(how);

  bench::family miss("semaphore: try_acquire, no permit");
  semaphores::add_all(miss, [](auto chosen) {
    typename decltype(chosen)::type semaphore(0);
    std::size_t got = 0;
    const sample s = repeated(100000, [&] {
      if (semaphore.try_acquire()) ++got;
    });
    bench::must(got == 0, "no permit, none had");
    return s;
  });
  miss.run(how);
}

#if defined(__cpp_impl_coroutine)
// Starts at once, and destroys itself at its end.
struct detached {
  struct promise_type {
    detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};

template <class Semaphore>
detached acquire_often(Semaphore& semaphore, hybridloop::loop& loop, std::size_t times,
                       workloads::gate& done) {
  for (std::size_t i = 0; i < times; ++i) {
    static_cast<void>(co_await semaphore.acquire_on(loop));
    semaphore.release();
  }
  done.open();
}

template <class Queue, class Fairness>
sample coroutine() {
  hybridloop::basic_semaphore<Queue, Fairness> semaphore(1);
  rivals::ours<> thread;
  const std::size_t times = scaled(500000);
  workloads::gate done;
  const sample s = bench::timed(times, [&] {
    thread.post([&] { acquire_often(semaphore, thread.loop(), times, done); });
    done.pass();
  });
  bench::must(semaphore.available() == 1, "the permit came back");
  return s;
}

void coroutines(const bench::options& how) {
  bench::family table("semaphore: uncontended, a coroutine on its loop");
  queues::for_each([&](auto queue, const std::string& name) {
    using type = typename decltype(queue)::type;
    table.add(kind::ours, name, coroutine<type, sync::fifo>);
  });
  queues::for_barging([&](auto queue, const std::string& name) {
    using type = typename decltype(queue)::type;
    table.add(kind::ours, name + ", barging", coroutine<type, sync::barging>);
  });
  table.run(how);
}
#else
void coroutines(const bench::options&) {}
#endif

// ---- Threads that wait ----

template <class Semaphore>
sample taken_in_turns(std::size_t threads, std::size_t permits, work::amount amount,
                      bool busy_neighbour) {
  const crowd::neighbour beside(busy_neighbour);
  alignas(128) Semaphore semaphore(static_cast<std::ptrdiff_t>(permits));
  const sample s = crowd::run(threads, [&](std::size_t i) {
    return [&semaphore, random = dice(i), busy = work(amount)]() mutable {
      semaphore.acquire();
      busy(random);
      semaphore.release();
      busy(random);
    };
  });
  must_hold(semaphore, permits);
  return s;
}

auto in_turns(std::size_t threads, std::size_t permits, work::amount amount,
              bool busy_neighbour = false) {
  return [=](auto chosen) {
    return taken_in_turns<typename decltype(chosen)::type>(threads, permits, amount,
                                                           busy_neighbour);
  };
}

void add_other_processes(bench::family& table, std::size_t threads, std::size_t permits) {
  processes::add_semaphores(table, [=](const std::string& who) {
    return "turns " + who + " " + std::to_string(threads) + " " + std::to_string(permits) + " " +
           std::to_string(crowd::span_of(threads));
  });
}

std::size_t cores() { return (std::max)(std::size_t{2}, bench::cpus().size()); }

void enough_permits(const bench::options& how) {
  std::vector<std::size_t> sizes{1, 2};
  for (std::size_t threads = 4; threads <= 2 * cores(); threads *= 2) sizes.push_back(threads);
  for (const std::size_t threads : sizes) {
    bench::family table("semaphore: " + counted(threads, "thread") + ", a permit for each");
    const auto measure = in_turns(threads, threads, work::amount::nothing);
    semaphores::add_all(table, measure);
    add_other_processes(table, threads, threads);
    semaphores::add<semaphores::bare>(table, kind::limit, semaphores::bare::name, measure);
    table.aside(": Jain index", "jain").run(how);
  }
}

void contended(const bench::options& how) {
  using amount = work::amount;
  // Among many threads most of the time goes into their start and their end.
  std::vector<std::tuple<std::size_t, std::size_t, amount>> shapes{
      {2, 1, amount::nothing},  {4, 1, amount::nothing},  {8, 1, amount::nothing},
      {16, 1, amount::nothing}, {64, 1, amount::nothing}, {8, 4, amount::nothing},
      {16, 8, amount::nothing}, {4, 2, amount::some},     {8, 1, amount::some},
      {16, 8, amount::some}};
  if (bench::full) {
    shapes.clear();
    for (const auto busy : {amount::nothing, amount::some}) {
      for (const std::size_t threads : {1u, 2u, 4u, 8u, 16u, 32u, 64u}) {
        for (const std::size_t permits : {1u, 2u, 4u, 8u, 32u})
          shapes.emplace_back(threads, permits, busy);
      }
    }
  }
  for (const auto& [threads, permits, busy] : shapes) {
    const char* const beside = busy == amount::some ? ", 50 ns of work" : "";
    bench::family table("semaphore: " + counted(threads, "thread") + ", " +
                        counted(permits, "permit") + beside);
    semaphores::add_all(table, in_turns(threads, permits, busy));
    if (busy == amount::nothing) add_other_processes(table, threads, permits);
    table.aside(": Jain index", "jain").run(how);
  }
}

// How much somebody loses to a thread that takes a core away.
void oversubscribed(const bench::options& how) {
  bench::family table("semaphore: busy neighbour, 4 threads a core, 2 permits, 50 ns of work");
  const std::size_t threads = 4 * cores();
  for (const bool busy : {false, true}) {
    semaphores::add_all(table, in_turns(threads, 2, work::amount::some, busy),
                        busy ? ", busy neighbour" : "");
  }
  table.run(how);
}

// Who waits for many holds up those behind, or is overtaken by them: so each thread does as many passes.
void batches(const bench::options& how) {
  bench::family table("semaphore: 8 threads, 32 permits, batches of 1, 2, 8 and 32");
  const auto measure = [](auto chosen) {
    alignas(128) typename decltype(chosen)::type semaphore(32);
    const sample s = crowd::run_each(8, 16000, [&](std::size_t i) {
      constexpr std::ptrdiff_t sizes[] = {1, 2, 1, 8, 1, 32, 1, 1};
      return
          [&semaphore, n = sizes[i], random = dice(i), busy = work(work::amount::some)]() mutable {
            semaphore.acquire(n);
            busy(random);
            semaphore.release(n);
            busy(random);
          };
    });
    must_hold(semaphore, 32);
    return s;
  };
  semaphores::add_ours(table, measure);
  semaphores::add_rivals_of_several(table, measure);
  table.run(how);
}

// As many who release as there are on one side, as many who acquire on the other.
template <class Semaphore>
sample one_sided(std::size_t releasers, std::size_t waiters) {
  alignas(128) Semaphore semaphore(0);
  const std::size_t lots = releasers * waiters;
  const std::size_t each = (scaled(40000) + lots - 1) / lots;
  workloads::gate start;
  std::vector<std::thread> all;
  for (std::size_t i = 0; i < waiters; ++i) {
    all.emplace_back([&] {
      start.pass();
      for (std::size_t n = 0; n < each * releasers; ++n) semaphore.acquire();
    });
  }
  for (std::size_t i = 0; i < releasers; ++i) {
    all.emplace_back([&] {
      start.pass();
      for (std::size_t n = 0; n < each * waiters; ++n) semaphore.release();
    });
  }
  const sample s = bench::timed(each * lots, [&] {
    start.open();
    for (std::thread& t : all) t.join();
  });
  must_hold(semaphore, 0);
  return s;
}

void asymmetric(const bench::options& how) {
  for (const auto& [releasers, waiters] : {std::pair<std::size_t, std::size_t>{1, 8}, {8, 1}}) {
    bench::family table("semaphore: " + counted(releasers, "releaser") + ", " +
                        counted(waiters, "waiter"));
    semaphores::add_all(table, [from = releasers, to = waiters](auto chosen) {
      return one_sided<typename decltype(chosen)::type>(from, to);
    });
    table.run(how);
  }
}

// ---- Hand-offs ----

enum class patience { endless, with_deadline };

// Two threads that begin on one CPU stay there for longer than this lasts, or not, by chance; then neither who
// spins nor who sleeps shows what it costs. So they are put on two.
template <class Semaphore, class Acquire>
sample there_and_back(std::size_t trips, const Acquire& acquire) {
  alignas(128) Semaphore there(0);
  alignas(128) Semaphore back(0);
  const std::vector<std::size_t> cpus = bench::cpus();
  const auto put_on = [&](std::size_t which) {
    if (cpus.size() > 1) bench::pin({cpus[which]});
  };
  std::thread partner([&] {
    put_on(1);
    for (std::size_t i = 0; i <= trips; ++i) {
      acquire(there);
      back.release();
    }
  });
  sample s{};
  std::thread asker([&] {
    put_on(0);
    there.release();
    acquire(back);
    s = bench::timed(2 * trips, [&] {
      for (std::size_t i = 0; i < trips; ++i) {
        there.release();
        acquire(back);
      }
    });
  });
  asker.join();
  partner.join();
  return s;
}

auto handing(patience p, bool busy_neighbour = false) {
  return [=](auto chosen) {
    using semaphore = typename decltype(chosen)::type;
    const crowd::neighbour beside(busy_neighbour);
    const std::size_t trips = scaled(20000);
    if (p == patience::with_deadline) {
      return there_and_back<semaphore>(trips, [](semaphore& s) {
        while (!s.try_acquire_for(never_comes)) {
        }
      });
    }
    return there_and_back<semaphore>(trips, [](semaphore& s) { s.acquire(); });
  };
}

// A limit knows no deadlines.
constexpr auto handing_barely = [](auto chosen) {
  using semaphore = typename decltype(chosen)::type;
  return there_and_back<semaphore>(scaled(20000), [](semaphore& s) { s.acquire(); });
};

void threads_hand_over(const bench::options& how) {
  for (const auto p : {patience::endless, patience::with_deadline}) {
    const char* const late = p == patience::with_deadline ? ", a deadline that never comes" : "";
    bench::family table(std::string("semaphore: hand-off, thread to thread") + late);
    semaphores::add_all(table, handing(p));
    if (p == patience::endless) {
      const std::string trips = std::to_string(scaled(20000));
      processes::add(table, "tokio::sync::Semaphore", "handoff tokio " + trips);
      processes::add(table, "tokio::sync::Notify", "handoff tokio-notify " + trips);
    }
    if (bench::cpus().size() != 1)  // it spins
      semaphores::add<semaphores::bare_line>(table, kind::limit, semaphores::bare_line::name,
                                             handing_barely);
    semaphores::add<semaphores::bare_futex>(table, kind::limit, semaphores::bare_futex::name,
                                            handing_barely);
    table.run(how);
  }
  bench::family disturbed("semaphore: busy neighbour, hand-off, thread to thread");
  for (const bool busy : {false, true}) {
    semaphores::add_all(disturbed, handing(patience::endless, busy),
                        busy ? ", busy neighbour" : "");
  }
  disturbed.run(how);
}

// A callback that waits for one semaphore and releases the other, again and again.
template <class Semaphore>
class echo {
 public:
  echo(Semaphore& in, Semaphore& out, hybridloop::loop& loop, std::size_t times,
       workloads::gate& done)
      : in_(in), out_(out), loop_(loop), left_(times), done_(done) {}
  void wait() {
    in_.async_acquire(loop_, [this](wait_status) {
      const bool last = --left_ == 0;
      out_.release();
      last ? done_.open() : wait();
    });
  }

 private:
  Semaphore& in_;
  Semaphore& out_;
  hybridloop::loop& loop_;
  std::size_t left_;
  workloads::gate& done_;
};

template <class Semaphore>
sample loop_to_loop(bool same) {
  const std::size_t trips = scaled(10000);
  Semaphore ping(0), pong(0);
  workloads::gate first_done, second_done;
  rivals::ours<> one;
  const auto other = same ? nullptr : std::make_unique<rivals::ours<>>();
  echo<Semaphore> first(ping, pong, one.loop(), trips, first_done);
  echo<Semaphore> second(pong, ping, same ? one.loop() : other->loop(), trips, second_done);
  first.wait();
  second.wait();
  const sample s = bench::timed(2 * trips, [&] {
    ping.release();
    second_done.pass();
  });
  first_done.pass();
  bench::must(ping.available() == 1 && pong.available() == 0, "every permit once");
  return s;
}

template <class Semaphore>
sample thread_to_loop() {
  const std::size_t trips = scaled(10000);
  Semaphore there(0), back(0);
  workloads::gate done;
  rivals::ours<> thread;
  echo<Semaphore> partner(there, back, thread.loop(), trips, done);
  partner.wait();
  const sample s = bench::timed(2 * trips, [&] {
    for (std::size_t i = 0; i < trips; ++i) {
      there.release();
      static_cast<void>(back.acquire());
    }
  });
  done.pass();
  return s;
}

// What there is without semaphores that loops can wait for.
class posted {
 public:
  posted(hybridloop::loop& one, hybridloop::loop& other, std::size_t times)
      : one_(one), other_(other), left_(times) {}
  void step(bool back) {
    if (left_-- == 0) return done_.open();
    rivals::accept((back ? one_ : other_).post([this, back] { step(!back); }));
  }
  void wait() { done_.pass(); }

 private:
  hybridloop::loop& one_;
  hybridloop::loop& other_;
  std::size_t left_;
  workloads::gate done_;
};

sample posts(bool same) {
  const std::size_t trips = scaled(10000);
  rivals::ours<> one;
  const auto other = same ? nullptr : std::make_unique<rivals::ours<>>();
  posted ball(one.loop(), same ? one.loop() : other->loop(), 2 * trips);
  return bench::timed(2 * trips, [&] {
    ball.step(false);
    ball.wait();
  });
}

template <class Semaphore>
sample post_and_signal() {
  const std::size_t trips = scaled(10000);
  Semaphore back(0);
  rivals::ours<> thread;
  return bench::timed(2 * trips, [&] {
    for (std::size_t i = 0; i < trips; ++i) {
      thread.post([&back] { back.release(); });
      back.acquire();
    }
  });
}

// With both kinds of fairness; measure(pick<basic_semaphore>()).
template <class Measure>
void add_on_loops(bench::family& table, const Measure& measure) {
  queues::for_each([&](auto queue, const std::string& name) {
    using type = hybridloop::basic_semaphore<typename decltype(queue)::type, sync::fifo>;
    table.add(kind::ours, name, [measure] { return measure(semaphores::pick<type>()); });
  });
  queues::for_barging([&](auto queue, const std::string& name) {
    using type = hybridloop::basic_semaphore<typename decltype(queue)::type, sync::barging>;
    table.add(kind::ours, name + ", barging",
              [measure] { return measure(semaphores::pick<type>()); });
  });
}

void loops_hand_over(const bench::options& how) {
  for (const bool same : {false, true}) {
    bench::family table(same ? "semaphore: hand-off, on one loop"
                             : "semaphore: hand-off, loop to loop");
    add_on_loops(
        table, [same](auto chosen) { return loop_to_loop<typename decltype(chosen)::type>(same); });
    table.add(kind::limit, "a bare post", [same] { return posts(same); });
    table.run(how);
  }
  bench::family table("semaphore: hand-off, thread to loop and back");
  add_on_loops(table,
               [](auto chosen) { return thread_to_loop<typename decltype(chosen)::type>(); });
  const auto by_post = [](auto chosen) {
    return post_and_signal<typename decltype(chosen)::type>();
  };
  const std::string prefix = "post + ";
  semaphores::add<semaphores::lightweight>(table, kind::rival,
                                           prefix + semaphores::lightweight::name, by_post);
  semaphores::add<semaphores::textbook>(table, kind::rival, prefix + semaphores::textbook::name,
                                        by_post);
  table.run(how);
}

// ---- Callbacks and coroutines that wait ----

struct shape {
  std::size_t clients, loops, permits;
};

template <class Wait>
sample on_loops(shape of, const Wait& wait_for) {
  struct client {
    hybridloop::loop* loop;
    std::size_t left;
  };
  const std::size_t each = (scaled(20000) + of.clients - 1) / of.clients;
  workloads::gate all_done;
  std::atomic<std::size_t> busy{of.clients};
  std::deque<rivals::ours<>> threads(of.loops);
  std::vector<client> clients;
  for (std::size_t i = 0; i < of.clients; ++i)
    clients.push_back({&threads[i % of.loops].loop(), each});
  return bench::timed(each * of.clients, [&] {
    for (client& c : clients) {
      wait_for(c, [&](client& mine) {
        if (--mine.left != 0) return true;
        if (busy.fetch_sub(1, std::memory_order_acq_rel) == 1) all_done.open();
        return false;
      });
    }
    all_done.pass();
  });
}

// Goes on for as long as more(client) says.
template <class Semaphore, class Client, class More>
void hold_in_turns(Semaphore& semaphore, Client& client, const More& more) {
  semaphore.async_acquire(*client.loop, [&semaphore, &client, more](wait_status) {
    semaphore.release();
    if (more(client)) hold_in_turns(semaphore, client, more);
  });
}
template <class Client, class More>
void run_in_turns(Client& client, const More& more) {
  rivals::accept(client.loop->post([&client, more] {
    if (more(client)) run_in_turns(client, more);
  }));
}

std::vector<shape> every_shape() {
  std::vector<shape> all;
  for (const std::size_t clients : {6u, 64u, 1000u, 10000u}) {
    for (const std::size_t loops : {1u, 2u, 4u, 8u}) {
      for (const std::size_t permits : {1u, 4u, 100u}) all.push_back({clients, loops, permits});
    }
  }
  return all;
}

// start(semaphore, client, more) has a client hold a permit and release it, and again while more(client).
template <class Start>
void clients_on_loops(const bench::options& how, const char* what, std::vector<shape> shapes,
                      const Start& start) {
  if (bench::full) shapes = every_shape();
  for (const shape of : shapes) {
    bench::family table("semaphore: " + counted(of.clients, what) + ", " +
                        counted(of.loops, "loop") + ", " + counted(of.permits, "permit"));
    add_on_loops(table, [of, start](auto chosen) {
      alignas(128)
          typename decltype(chosen)::type semaphore(static_cast<std::ptrdiff_t>(of.permits));
      const sample s =
          on_loops(of, [&](auto& client, auto more) { start(semaphore, client, more); });
      bench::must(semaphore.available() == static_cast<std::ptrdiff_t>(of.permits),
                  "every permit came back");
      return s;
    });
    table.add(kind::limit, "a bare post", [of] {
      return on_loops(of, [](auto& client, auto more) { run_in_turns(client, more); });
    });
    table.run(how);
  }
}

void callbacks(const bench::options& how) {
  clients_on_loops(
      how, "callback", {{64, 1, 4}, {64, 2, 4}, {1000, 1, 100}, {1000, 2, 1}, {10000, 4, 100}},
      [](auto& semaphore, auto& client, auto more) { hold_in_turns(semaphore, client, more); });
}

#if defined(__cpp_impl_coroutine)
// Its turn comes again when all that were there before have had theirs.
struct next_turn {
  hybridloop::loop& on;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> frame) const {
    rivals::accept(on.post([frame] { frame.resume(); }));
  }
  void await_resume() const noexcept {}
};

// On its loop. It holds the permit for a turn: else nobody on the same loop would ever wait.
template <class Semaphore, class Client, class More>
detached hold_for_a_turn(Semaphore& semaphore, Client& client, More more) {
  do {
    static_cast<void>(co_await semaphore.acquire_on(*client.loop));
    co_await next_turn{*client.loop};
    semaphore.release();
  } while (more(client));
}

void coroutines_in_turns(const bench::options& how) {
  std::vector<shape> shapes;
  for (const std::size_t clients : {6u, 64u, 1000u}) {
    for (const std::size_t loops : {1u, 2u}) {
      for (const std::size_t permits : {1u, 4u, 100u}) {
        if (permits < clients) shapes.push_back({clients, loops, permits});
      }
    }
  }
  clients_on_loops(how, "coroutine", std::move(shapes),
                   [](auto& semaphore, auto& client, auto more) {
                     rivals::accept(client.loop->post([&semaphore, &client, more] {
                       hold_for_a_turn(semaphore, client, more);
                     }));
                   });
}
#else
void coroutines_in_turns(const bench::options&) {}
#endif

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  uncontended(how);
  coroutines(how);
  enough_permits(how);
  contended(how);
  oversubscribed(how);
  batches(how);
  asymmetric(how);
  threads_hand_over(how);
  loops_hand_over(how);
  callbacks(how);
  coroutines_in_turns(how);
}
