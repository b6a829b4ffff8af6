// timers.cpp - arming, cancelling and firing while many timers stand, against the rivals and a heap
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/bench.hpp"

#if defined(HAVE_LIBUV)
#include <uv.h>
#endif
#if defined(HAVE_LIBEVENT)
#include <event2/event.h>
#include <event2/event_struct.h>
#endif
#if defined(HAVE_ASIO)
#include <asio.hpp>
#endif

namespace {

using std::chrono::microseconds;

// A contender owns timers numbered from 0. What a library leaves to its user (a handle, an event)
// is there before the clock starts.
//
//   inside(f)        runs f where the library runs its callbacks: there it may know the time
//   arm(i, delay)    number i, which is not armed; when it fires, fired() has grown by one
//   cancel(i)        number i, which is armed
//   settle()         runs what cancels left behind, if they do
//   turn()           runs what is due, without sleeping

class ours {
 public:
  static constexpr const char* name = "hybridloop, clock read included";

  explicit ours(std::size_t numbers) : ids_(numbers) {}

  template <class F>
  void inside(F&& f) {
    if (loop_.post([&f] { f(); }) != hybridloop::post_result::accepted) std::abort();
    loop_.poll();
  }
  void arm(std::size_t i, microseconds delay) {
    ids_[i] = loop_.after(delay, [this] { ++fired_; });
  }
  void cancel(std::size_t i) { cancelled_ += loop_.cancel(ids_[i]) ? 1u : 0u; }
  void settle() {}
  void turn() { loop_.poll(); }
  std::size_t fired() const { return fired_; }
  std::size_t cancelled() const { return cancelled_; }

 private:
  hybridloop::loop loop_;
  std::vector<hybridloop::timer_id> ids_;
  std::size_t fired_ = 0;
  std::size_t cancelled_ = 0;
};

// What the wheel is measured by: a heap of four children a node, for one thread, so without one
// atomic; its timers know their place in it.
class heap {
 public:
  static constexpr const char* name = "(4-ary heap, one thread, clock read included)";

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
};

#if defined(HAVE_LIBUV)
class libuv {
 public:
  static constexpr const char* name = "libuv uv_timer, cached time, milliseconds";

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
    const auto count = [](uv_timer_t* t) { ++static_cast<libuv*>(t->data)->fired_; };
    uv_timer_start(&timers_[i], count, static_cast<std::uint64_t>(delay.count() / 1000), 0);
  }
  void cancel(std::size_t i) { cancelled_ += uv_timer_stop(&timers_[i]) == 0 ? 1u : 0u; }
  void settle() {}
  void turn() { uv_run(&loop_, UV_RUN_NOWAIT); }
  std::size_t fired() const { return fired_; }
  std::size_t cancelled() const { return cancelled_; }

 private:
  uv_loop_t loop_;
  std::vector<uv_timer_t> timers_;
  std::size_t fired_ = 0;
  std::size_t cancelled_ = 0;
};
#endif

#if defined(HAVE_LIBEVENT)
class libevent {
 public:
  static constexpr const char* name = "libevent evtimer, cached time";

  explicit libevent(std::size_t numbers) : base_(event_base_new()), timers_(numbers) {
    for (auto& t : timers_) {
      evtimer_assign(&t, base_, [](evutil_socket_t, short, void* mine) { ++static_cast<libevent*>(mine)->fired_; },
                     this);
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
    const auto call = [](evutil_socket_t, short, void* g) { (*static_cast<std::remove_reference_t<F>*>(g))(); };
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
  void turn() { event_base_loop(base_, EVLOOP_NONBLOCK); }
  std::size_t fired() const { return fired_; }
  std::size_t cancelled() const { return cancelled_; }

 private:
  event_base* base_;
  std::vector<event> timers_;
  std::size_t fired_ = 0;
  std::size_t cancelled_ = 0;
};
#endif

#if defined(HAVE_ASIO)
class asio_timer {
 public:
  static constexpr const char* name = "Asio steady_timer, one thread";

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
    timers_[i].async_wait([this](const asio::error_code& code) { ++(code ? aborted_ : fired_); });
  }
  void cancel(std::size_t i) { cancelled_ += timers_[i].cancel(); }
  void settle() {
    context_.restart();
    while (aborted_ != cancelled_) context_.poll();
  }
  void turn() {
    context_.restart();
    context_.poll();
  }
  std::size_t fired() const { return fired_; }
  std::size_t cancelled() const { return cancelled_; }

 private:
  asio::io_context context_;
  std::vector<asio::steady_timer> timers_;
  std::size_t fired_ = 0;
  std::size_t aborted_ = 0;
  std::size_t cancelled_ = 0;
};
#endif

// `live` timers stand for one to two hours; `batch` more numbers come and go among them.
template <class Contender>
class population {
 public:
  explicit population(std::size_t live, std::size_t batch)
      : timers_(live + batch), live_(live), batch_(batch) {
    timers_.inside([this] {
      for (std::size_t i = 0; i < live_; ++i) timers_.arm(i, far());
    });
  }

  // A timeout that is not needed after all: one of the live ones goes, another comes.
  double replace() {
    constexpr std::size_t times = 20000;
    std::uniform_int_distribution<std::size_t> any(0, live_ - 1);
    std::vector<std::pair<std::size_t, microseconds>> plan(times);
    for (auto& [i, delay] : plan) {
      i = any(random_);
      delay = far();
    }
    const std::size_t before = timers_.cancelled();
    double figure = 0;
    timers_.inside([&] {
      figure = bench::time_per_op(times, [&] {
        for (const auto& [i, delay] : plan) {
          timers_.cancel(i);
          timers_.arm(i, delay);
        }
      });
    });
    figure += bench::time_per_op(times, [&] { timers_.settle(); });
    bench::must(timers_.cancelled() - before == times, "every cancel was heard");
    return figure;
  }

  // A timeout around something short: armed, and cancelled before anything else happens.
  double arm_and_cancel() {
    constexpr std::size_t times = 20000;
    std::vector<microseconds> plan(times);
    for (auto& delay : plan) delay = far();
    const std::size_t before = timers_.cancelled();
    double figure = 0;
    timers_.inside([&] {
      figure = bench::time_per_op(times, [&] {
        for (const auto& delay : plan) {
          timers_.arm(live_, delay);
          timers_.cancel(live_);
        }
      });
    });
    figure += bench::time_per_op(times, [&] { timers_.settle(); });
    bench::must(timers_.cancelled() - before == times, "every cancel was heard");
    return figure;
  }

  // A batch is armed and fires. The wait until the last one is due is not counted.
  double arm_and_fire() {
    constexpr int longest = 8000;
    std::uniform_int_distribution<int> soon(1000, longest);
    std::vector<microseconds> plan(batch_);
    for (auto& delay : plan) delay = microseconds(soon(random_));
    const std::size_t before = timers_.fired();
    double figure = 0;
    timers_.inside([&] {
      figure = bench::time_per_op(batch_, [&] {
        for (std::size_t i = 0; i < batch_; ++i) timers_.arm(live_ + i, plan[i]);
      });
    });
    const auto due = bench::steady::now() + microseconds(longest + 1000);
    while (bench::steady::now() < due) std::this_thread::yield();
    figure += bench::time_per_op(batch_, [&] {
      while (timers_.fired() - before < batch_) timers_.turn();
    });
    bench::must(timers_.fired() - before == batch_, "every timer fired once");
    return figure;
  }

 private:
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
constexpr workload workloads[] = {
    {"cancel one of many, arm another", 0}, {"arm, cancel at once", 1}, {"arm, fire", 2}};

template <class Contender>
void add(std::vector<bench::row> (&tables)[3], std::size_t live) {
  const auto all = std::make_shared<population<Contender>>(live, std::min<std::size_t>(live, 10000));
  tables[0].push_back({Contender::name, [all] { return all->replace(); }});
  tables[1].push_back({Contender::name, [all] { return all->arm_and_cancel(); }});
  tables[2].push_back({Contender::name, [all] { return all->arm_and_fire(); }});
}

void measure(const bench::options& how, std::size_t live) {
  std::vector<bench::row> tables[3];
  add<ours>(tables, live);
#if defined(HAVE_LIBUV)
  add<libuv>(tables, live);
#endif
#if defined(HAVE_LIBEVENT)
  add<libevent>(tables, live);
#endif
#if defined(HAVE_ASIO)
  add<asio_timer>(tables, live);
#endif
  add<heap>(tables, live);
  for (const workload& w : workloads) {
    const std::string title = std::string(w.name) + ", " + std::to_string(live) + " live";
    bench::family(how, title.c_str(), std::move(tables[w.which]));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  bench::head_line();
#if defined(HAVE_LIBUV)
  std::printf("libuv %s   ", uv_version_string());
#endif
#if defined(HAVE_LIBEVENT)
  std::printf("libevent %s   ", event_get_version());
#endif
#if defined(HAVE_ASIO)
  std::printf("Asio %d.%d.%d", ASIO_VERSION / 100000, ASIO_VERSION / 100 % 1000, ASIO_VERSION % 100);
#endif
  std::printf("\n");
  for (const std::size_t live : {1000u, 20000u, 200000u, 1000000u}) measure(how, live);
}
