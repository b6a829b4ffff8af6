// timers.cpp - arming, cancelling, moving and firing while many timers stand, and how late they are
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/types.h>
#include <unistd.h>

#include <hybridloop.hpp>

#include "support/bench.hpp"
#include "support/libraries.hpp"

namespace {

using bench::kind;
using bench::sample;
using std::chrono::microseconds;

// A contender owns timers numbered from 0. What a library leaves to its user (a handle, an event)
// is there before the clock starts.
//
//   inside(f)        runs f where the library runs its callbacks: there it may know the time
//   arm(i, delay)    number i, which is not armed; when it fires, fired() has grown by one
//   cancel(i)        number i, which is armed
//   move(i, delay)   number i, which is armed, to another deadline
//   settle()         runs what cancels left behind, if they do
//   turn()           runs what is due, without sleeping
//   sleep()          sleeps until something is due, and runs it
//
// A delay counts from now, which costs a look at the clock, or from the time that the loop's turn
// began, which costs nothing and is late by what the turn has done so far. Ours and Asio count from
// now unless told otherwise, libuv, libevent and libev from the turn; most are measured in both ways.

enum class counts { from_now, from_turn };

template <counts From>
class ours {
 public:
  static constexpr const char* name = From == counts::from_now ? "hybridloop" : "hybridloop, from the turn";

  explicit ours(std::size_t numbers) : ids_(numbers) {}

  template <class F>
  void inside(F&& f) {
    if (loop_.post([&f] { f(); }) != hybridloop::post_result::accepted) std::abort();
    loop_.poll();
  }
  void arm(std::size_t i, microseconds delay) {
    const auto count = [this] { ++fired_; };
    ids_[i] = From == counts::from_now ? loop_.after(delay, count) : loop_.at(loop_.now() + delay, count);
  }
  void cancel(std::size_t i) { cancelled_ += loop_.cancel(ids_[i]) ? 1u : 0u; }
  void move(std::size_t i, microseconds delay) {
    const auto begin = From == counts::from_now ? bench::steady::now() : loop_.now();
    moved_ += loop_.reschedule(ids_[i], begin + delay) ? 1u : 0u;
  }
  void settle() {}
  void turn() { loop_.poll(); }
  void sleep() { loop_.run_once(); }
  std::size_t fired() const { return fired_; }
  std::size_t cancelled() const { return cancelled_; }
  std::size_t moved() const { return moved_; }

 private:
  hybridloop::loop loop_;
  std::vector<hybridloop::timer_id> ids_;
  std::size_t fired_ = 0;
  std::size_t cancelled_ = 0;
  std::size_t moved_ = 0;
};

// What the wheel is measured by: a heap of four children a node, for one thread, so without one
// atomic; its timers know their place in it.
class heap {
 public:
  static constexpr const char* name = "a 4-ary heap for one thread";

  explicit heap(std::size_t numbers) : timers_(numbers) {}

  template <class F>
  void inside(F&& f) {
    f();
  }
  void arm(std::size_t i, microseconds delay) {
    timer& t = timers_[i];
    task::room<counter> place(blocks_);
    t.run.emplace(place, counter{this});
    entries_.push_back({});
    sift_up(entries_.size() - 1, {now() + delay.count() * 1000, next_order_++, &t});
  }
  void cancel(std::size_t i) {
    erase(timers_[i].place);
    timers_[i].run.reset();
    ++cancelled_;
  }
  void move(std::size_t i, microseconds delay) {
    timer& t = timers_[i];
    erase(t.place);
    entries_.push_back({});
    sift_up(entries_.size() - 1, {now() + delay.count() * 1000, next_order_++, &t});
    ++moved_;
  }
  void settle() {}
  void turn() {
    const std::int64_t limit = now();
    while (!entries_.empty() && entries_.front().deadline <= limit) {
      timer& t = *entries_.front().who;
      erase(0);
      t.run();
      t.run.reset();
    }
  }
  std::size_t fired() const { return fired_; }
  std::size_t cancelled() const { return cancelled_; }
  std::size_t moved() const { return moved_; }

 private:
  using task = hybridloop::detail::unique_task;
  struct counter {
    heap* mine;
    void operator()() { ++mine->fired_; }
  };
  struct timer {
    std::size_t place = 0;
    task run;
  };
  struct entry {
    std::int64_t deadline;
    std::uint64_t order;
    timer* who;
    bool before(const entry& other) const {
      return deadline != other.deadline ? deadline < other.deadline : order < other.order;
    }
  };
  struct no_blocks final : hybridloop::detail::block_source {
    void* take(std::size_t, std::size_t) noexcept override { return nullptr; }
    void give(void*, std::size_t, std::size_t) noexcept override {}
  };

  static std::int64_t now() {
    return std::chrono::nanoseconds(bench::steady::now().time_since_epoch()).count();
  }
  void set(std::size_t at, const entry& e) {
    entries_[at] = e;
    e.who->place = at;
  }
  void sift_up(std::size_t at, const entry& e) {
    for (; at > 0 && e.before(entries_[(at - 1) / 4]); at = (at - 1) / 4) {
      set(at, entries_[(at - 1) / 4]);
    }
    set(at, e);
  }
  void sift_down(std::size_t at, const entry& e) {
    for (std::size_t child = 4 * at + 1; child < entries_.size(); child = 4 * at + 1) {
      const std::size_t end = std::min(child + 4, entries_.size());
      std::size_t least = child;
      for (std::size_t i = child + 1; i < end; ++i) {
        if (entries_[i].before(entries_[least])) least = i;
      }
      if (!entries_[least].before(e)) break;
      set(at, entries_[least]);
      at = least;
    }
    set(at, e);
  }
  void erase(std::size_t at) {
    const entry last = entries_.back();
    entries_.pop_back();
    if (at == entries_.size()) return;
    if (at > 0 && last.before(entries_[(at - 1) / 4])) {
      sift_up(at, last);
    } else {
      sift_down(at, last);
    }
  }

  no_blocks blocks_;
  std::vector<timer> timers_;
  std::vector<entry> entries_;
  std::uint64_t next_order_ = 0;
  std::size_t fired_ = 0;
  std::size_t cancelled_ = 0;
  std::size_t moved_ = 0;
};

#if defined(HAVE_LIBUV)
template <counts From>
class libuv {
 public:
  static constexpr const char* name = From == counts::from_turn ? "libuv" : "libuv, from now";

  explicit libuv(std::size_t numbers) : timers_(numbers) {
    uv_loop_init(&loop_);
    for (auto& t : timers_) {
      uv_timer_init(&loop_, &t);
      t.data = this;
    }
  }
  libuv(const libuv&) = delete;
  ~libuv() {
    for (auto& t : timers_) uv_close(reinterpret_cast<uv_handle_t*>(&t), nullptr);
    uv_run(&loop_, UV_RUN_DEFAULT);
    uv_loop_close(&loop_);
  }

  template <class F>
  void inside(F&& f) {
    uv_update_time(&loop_);
    f();
  }
  void arm(std::size_t i, microseconds delay) {
    if (From == counts::from_now) uv_update_time(&loop_);
    const auto count = [](uv_timer_t* t) { ++static_cast<libuv*>(t->data)->fired_; };
    uv_timer_start(&timers_[i], count, static_cast<std::uint64_t>(delay.count() / 1000), 0);
  }
  void cancel(std::size_t i) { cancelled_ += uv_timer_stop(&timers_[i]) == 0 ? 1u : 0u; }
  void settle() {}
  void move(std::size_t i, microseconds delay) {
    arm(i, delay);
    ++moved_;
  }
  void turn() { uv_run(&loop_, UV_RUN_NOWAIT); }
  void sleep() { uv_run(&loop_, UV_RUN_ONCE); }
  std::size_t fired() const { return fired_; }
  std::size_t cancelled() const { return cancelled_; }
  std::size_t moved() const { return moved_; }

 private:
  uv_loop_t loop_;
  std::vector<uv_timer_t> timers_;
  std::size_t fired_ = 0;
  std::size_t cancelled_ = 0;
  std::size_t moved_ = 0;
};
#else
template <counts>
struct libuv : rivals::absent {
  static constexpr const char* name = "libuv";
};
#endif

#if defined(HAVE_LIBEVENT)
template <counts From>
class libevent {
 public:
  static constexpr const char* name = From == counts::from_turn ? "libevent" : "libevent, from now";

  explicit libevent(std::size_t numbers) : base_(make_base()), timers_(numbers) {
    for (auto& t : timers_) {
      const auto count = [](evutil_socket_t, short, void* mine) {
        ++static_cast<libevent*>(mine)->fired_;
      };
      evtimer_assign(&t, base_, count, this);
    }
  }
  libevent(const libevent&) = delete;
  ~libevent() {
    for (auto& t : timers_) evtimer_del(&t);
    event_base_free(base_);
  }

  template <class F>
  void inside(F&& f) {
    const timeval at_once{};
    const auto call = [](evutil_socket_t, short, void* g) {
      (*static_cast<std::remove_reference_t<F>*>(g))();
    };
    event_base_once(base_, -1, EV_TIMEOUT, call, &f, &at_once);
    event_base_loop(base_, EVLOOP_ONCE);
  }
  void arm(std::size_t i, microseconds delay) {
    const timeval span{static_cast<time_t>(delay.count() / 1000000),
                       static_cast<suseconds_t>(delay.count() % 1000000)};
    evtimer_add(&timers_[i], &span);
  }
  void cancel(std::size_t i) { cancelled_ += evtimer_del(&timers_[i]) == 0 ? 1u : 0u; }
  void settle() {}
  void move(std::size_t i, microseconds delay) {
    arm(i, delay);
    ++moved_;
  }
  void turn() { event_base_loop(base_, EVLOOP_NONBLOCK); }
  void sleep() { event_base_loop(base_, EVLOOP_ONCE); }
  std::size_t fired() const { return fired_; }
  std::size_t cancelled() const { return cancelled_; }
  std::size_t moved() const { return moved_; }

 private:
  static event_base* make_base() {
    event_config* const wanted = event_config_new();
    if (From == counts::from_now) {
      event_config_set_flag(wanted, EVENT_BASE_FLAG_NO_CACHE_TIME);
      event_config_set_flag(wanted, EVENT_BASE_FLAG_PRECISE_TIMER);  // not the kernel's coarse clock
    }
    event_base* const made = event_base_new_with_config(wanted);
    event_config_free(wanted);
    return made;
  }
  event_base* base_;
  std::vector<event> timers_;
  std::size_t fired_ = 0;
  std::size_t cancelled_ = 0;
  std::size_t moved_ = 0;
};
#else
template <counts>
struct libevent : rivals::absent {
  static constexpr const char* name = "libevent";
};
#endif

#if defined(HAVE_ASIO)
class asio_timer {
 public:
  static constexpr const char* name = "Asio";

  explicit asio_timer(std::size_t numbers) : context_(1) {
    timers_.reserve(numbers);
    for (std::size_t i = 0; i < numbers; ++i) timers_.emplace_back(context_);
  }

  template <class F>
  void inside(F&& f) {
    asio::post(context_, [&f] { f(); });
    context_.restart();
    context_.poll_one();
  }
  void arm(std::size_t i, microseconds delay) {
    timers_[i].expires_after(delay);
    wait(i);
  }
  void cancel(std::size_t i) { cancelled_ += timers_[i].cancel(); }
  void settle() {
    context_.restart();
    while (aborted_ != cancelled_) context_.poll();
  }
  void move(std::size_t i, microseconds delay) {
    cancelled_ += timers_[i].expires_after(delay);
    wait(i);
    ++moved_;
  }
  void turn() {
    context_.restart();
    context_.poll();
  }
  void sleep() {
    context_.restart();
    context_.run_one();
  }
  std::size_t fired() const { return fired_; }
  std::size_t cancelled() const { return cancelled_; }
  std::size_t moved() const { return moved_; }

 private:
  void wait(std::size_t i) {
    timers_[i].async_wait([this](const asio::error_code& code) { ++(code ? aborted_ : fired_); });
  }
  asio::io_context context_;
  std::vector<asio::steady_timer> timers_;
  std::size_t fired_ = 0;
  std::size_t aborted_ = 0;
  std::size_t cancelled_ = 0;
  std::size_t moved_ = 0;
};
#else
struct asio_timer : rivals::absent {
  static constexpr const char* name = "Asio";
};
#endif

#if defined(HAVE_LIBEV)
class libev {
 public:
  static constexpr const char* name = "libev";

  explicit libev(std::size_t numbers) : loop_(ev_loop_new(EVFLAG_AUTO)), timers_(numbers) {
    for (auto& t : timers_) {
      ev_timer_init(
          &t, [](struct ev_loop*, ev_timer* one, int) { ++static_cast<libev*>(one->data)->fired_; },
          0., 0.);
      t.data = this;
    }
  }
  libev(const libev&) = delete;
  ~libev() {
    for (auto& t : timers_) ev_timer_stop(loop_, &t);
    ev_loop_destroy(loop_);
  }

  template <class F>
  void inside(F&& f) {
    ev_now_update(loop_);
    f();
  }
  void arm(std::size_t i, microseconds delay) {
    ev_timer_set(&timers_[i], static_cast<double>(delay.count()) * 1e-6, 0.);
    ev_timer_start(loop_, &timers_[i]);
  }
  void cancel(std::size_t i) {
    cancelled_ += ev_is_active(&timers_[i]) ? 1u : 0u;
    ev_timer_stop(loop_, &timers_[i]);
  }
  // ev_timer_again() counts from `repeat`; after it has fired, it would repeat, so it is a plain one again.
  void move(std::size_t i, microseconds delay) {
    timers_[i].repeat = static_cast<double>(delay.count()) * 1e-6;
    ev_timer_again(loop_, &timers_[i]);
    timers_[i].repeat = 0.;
    ++moved_;
  }
  void settle() {}
  void turn() { ev_run(loop_, EVRUN_NOWAIT); }
  void sleep() { ev_run(loop_, EVRUN_ONCE); }
  std::size_t fired() const { return fired_; }
  std::size_t cancelled() const { return cancelled_; }
  std::size_t moved() const { return moved_; }

 private:
  struct ev_loop* loop_;
  std::vector<ev_timer> timers_;
  std::size_t fired_ = 0;
  std::size_t cancelled_ = 0;
  std::size_t moved_ = 0;
};
#else
struct libev : rivals::absent {
  static constexpr const char* name = "libev";
};
#endif

// ---- Many timers ----

// `live` timers stand for one to two hours; `batch` more numbers come and go among them.
template <class Contender>
class population {
 public:
  explicit population(std::size_t live)
      : timers_(live + (std::min)(live, most_at_once)),
        live_(live),
        batch_((std::min)(live, most_at_once)) {
    timers_.inside([this] {
      for (std::size_t i = 0; i < live_; ++i) timers_.arm(i, far());
    });
  }

  sample run(int which) {
    constexpr sample (population::*work[])() = {&population::replace, &population::arm_and_cancel,
                                                &population::rearm, &population::arm_and_fire};
    return (this->*work[which])();
  }

 private:
  // A timeout that is not needed after all: one of the live ones goes, another comes.
  sample replace() {
    const auto plan = choices();
    const std::size_t before = timers_.cancelled();
    const sample s = inside_and_settled(plan.size(), [&] {
      for (const auto& [i, delay] : plan) {
        timers_.cancel(i);
        timers_.arm(i, delay);
      }
    });
    bench::must(timers_.cancelled() - before == plan.size(), "every cancel was heard");
    return s;
  }

  // A timeout around something short: armed, and cancelled before anything else happens.
  sample arm_and_cancel() {
    const auto plan = choices();
    const std::size_t before = timers_.cancelled();
    const sample s = inside_and_settled(plan.size(), [&] {
      for (const auto& [i, delay] : plan) {
        timers_.arm(live_, delay);
        timers_.cancel(live_);
      }
    });
    bench::must(timers_.cancelled() - before == plan.size(), "every cancel was heard");
    return s;
  }

  // A timeout that starts again, because something has come.
  sample rearm() {
    const auto plan = choices();
    const std::size_t before = timers_.moved();
    const sample s = inside_and_settled(plan.size(), [&] {
      for (const auto& [i, delay] : plan) timers_.move(i, delay);
    });
    bench::must(timers_.moved() - before == plan.size(), "every timer was moved");
    return s;
  }

  // A batch is armed and fires. The wait until the last one is due is not counted.
  sample arm_and_fire() {
    constexpr int longest = 8000;
    std::uniform_int_distribution<int> soon(1000, longest);
    std::vector<microseconds> plan(batch_);
    for (auto& delay : plan) delay = microseconds(soon(random_));
    const std::size_t before = timers_.fired();
    sample s;
    timers_.inside([&] {
      s = bench::timed(batch_, [&] {
        for (std::size_t i = 0; i < batch_; ++i) timers_.arm(live_ + i, plan[i]);
      });
    });
    const auto due = bench::steady::now() + microseconds(longest + 1000);
    while (bench::steady::now() < due) std::this_thread::yield();
    s += bench::timed(batch_, [&] {
      while (timers_.fired() - before < batch_) timers_.turn();
    });
    bench::must(timers_.fired() - before == batch_, "every timer fired once");
    return s;
  }

  static constexpr std::size_t most_at_once = 10000;

  template <class F>
  sample inside_and_settled(std::size_t operations, F&& f) {
    sample s;
    timers_.inside([&] { s = bench::timed(operations, f); });
    s += bench::timed(operations, [&] { timers_.settle(); });
    return s;
  }

  // Some of the live ones, and a far deadline for each.
  std::vector<std::pair<std::size_t, microseconds>> choices() {
    std::uniform_int_distribution<std::size_t> any(0, live_ - 1);
    std::vector<std::pair<std::size_t, microseconds>> plan(bench::scaled(20000));
    for (auto& [i, delay] : plan) {
      i = any(random_);
      delay = far();
    }
    return plan;
  }
  microseconds far() {
    constexpr std::int64_t hour = 3600ll * 1000000;
    return microseconds(std::uniform_int_distribution<std::int64_t>(hour, 2 * hour)(random_));
  }

  Contender timers_;
  const std::size_t live_;
  const std::size_t batch_;
  std::mt19937_64 random_{2024};
};

struct workload {
  const char* name;
  int which;
};
constexpr workload workloads[] = {{"cancel one of many, arm another", 0},
                                  {"arm, cancel at once", 1},
                                  {"re-arm one of many", 2},
                                  {"arm, fire", 3}};

// The population is made by the first repetition and lives for all workloads. A child that only
// counts makes a small one of its own, and leaves the inherited one alone: its kernel objects are shared.
template <class Contender>
class made_once {
 public:
  population<Contender>& get(std::size_t live) {
    if (maker_ != ::getpid()) {
      static_cast<void>(all_.release());
      all_ = std::make_unique<population<Contender>>(bench::scaled(live));
      maker_ = ::getpid();
    }
    return *all_;
  }

 private:
  std::unique_ptr<population<Contender>> all_;
  pid_t maker_ = -1;
};

template <class Contender>
void add(std::vector<bench::family>& tables, kind role, std::size_t live) {
  const auto all = std::make_shared<made_once<Contender>>();
  for (const workload& w : workloads) {
    tables[static_cast<std::size_t>(w.which)].add(
        role, Contender::name, [all, live, which = w.which] { return all->get(live).run(which); });
  }
}

template <class Contender>
void add_rival(std::vector<bench::family>& tables, std::size_t live) {
  if constexpr (std::is_base_of_v<rivals::absent, Contender>) {
    for (auto& table : tables) table.skip(Contender::name);
  } else {
    add<Contender>(tables, kind::rival, live);
  }
}

void measure(const bench::options& how, std::size_t live) {
  std::vector<bench::family> tables;
  for (const workload& w : workloads) {
    tables.emplace_back(std::string("timers: ") + w.name + ", " +
                        std::to_string(bench::scaled(live)) + " live");
  }
  add<ours<counts::from_now>>(tables, kind::ours, live);
  add<ours<counts::from_turn>>(tables, kind::ours, live);
  add_rival<libuv<counts::from_now>>(tables, live);
  add_rival<libuv<counts::from_turn>>(tables, live);
  add_rival<asio_timer>(tables, live);
  add_rival<libevent<counts::from_now>>(tables, live);
  add_rival<libevent<counts::from_turn>>(tables, live);
  add_rival<libev>(tables, live);
  add<heap>(tables, kind::limit, live);
  for (auto& table : tables) table.run(how);
}

// ---- Precision ----

// Timers of 1 to 20 ms, one at a time on a loop that sleeps: how many microseconds too late. What
// fires early is below zero.
template <class Contender>
sample lateness() {
  Contender timers(1);
  std::mt19937 random(2024);
  std::uniform_int_distribution<int> any(1000, 20000);
  const std::size_t times = bench::scaled(64);
  const sample s = bench::spread(times, [&](std::vector<double>& values) {
    for (std::size_t i = 0; i < times; ++i) {
      const microseconds delay(any(random));
      bench::steady::time_point due;
      timers.inside([&] {
        due = bench::steady::now() + delay;
        timers.arm(0, delay);
      });
      while (timers.fired() == i) timers.sleep();
      values.push_back(bench::nanos_between(due, bench::steady::now()) / 1000);
    }
  });
  bench::must(timers.fired() == times, "every timer fired once");
  return s;
}

template <class Contender>
void add_lateness(bench::family& table) {
  if constexpr (std::is_base_of_v<rivals::absent, Contender>) {
    table.skip(Contender::name);
  } else {
    table.add(std::is_same_v<Contender, ours<counts::from_now>> ? kind::ours : kind::rival,
              Contender::name, lateness<Contender>);
  }
}

void measure_precision(const bench::options& how) {
  bench::family table("timers: how late, delays of 1 to 20 ms", "us");
  add_lateness<ours<counts::from_now>>(table);
  add_lateness<libuv<counts::from_turn>>(table);
  add_lateness<asio_timer>(table);
  add_lateness<libevent<counts::from_turn>>(table);
  add_lateness<libev>(table);
  table.uncounted().run(how);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  for (const std::size_t live : {1000u, 20000u, 200000u, 1000000u}) measure(how, live);
  measure_precision(how);
}
