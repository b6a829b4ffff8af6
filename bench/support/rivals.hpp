// rivals.hpp - a thread that runs tasks for others: ours, and what a user would otherwise take
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include "bench.hpp"
#include "libraries.hpp"

namespace rivals {

// Each has: post(f) from any thread, and a thread of its own that runs until it is destroyed. Each is
// used as its own documentation says.

inline void accept(hybridloop::post_result answer) {
  if (answer != hybridloop::post_result::accepted) std::abort();
}

template <hybridloop::fast_path Path = hybridloop::fast_path::full>
class ours {
 public:
  static constexpr const char* name = Path == hybridloop::fast_path::full   ? "hybridloop"
                                      : Path == hybridloop::fast_path::mini ? "hybridloop mini"
                                                                            : "hybridloop off";
  ours() : ours(with_path()) {}
  explicit ours(const hybridloop::loop_options& options)
      : loop_(options), thread_([this] { loop_.run(); }) {}
  ~ours() {
    loop_.close();
    thread_.join();
  }
  template <class F>
  void post(F&& f) {
    accept(loop_.post(std::forward<F>(f)));
  }
  hybridloop::loop& loop() { return loop_; }

 private:
  static hybridloop::loop_options with_path() {
    hybridloop::loop_options options;
    options.path = Path;
    return options;
  }
  hybridloop::loop loop_;
  std::thread thread_;
};

// A private lane for each thread that posts.
template <class Loop, class = void>
struct has_lanes : std::false_type {};
template <class Loop>
struct has_lanes<Loop, std::void_t<decltype(std::declval<Loop&>().make_producer(std::size_t{1}))>>
    : std::true_type {};

template <class Loop>
class ours_lane : public ours<> {
 public:
  static constexpr const char* name = "hybridloop lane";

  class poster {
   public:
    explicit poster(Loop& loop) : lane_(loop.make_producer(4096)) {}
    template <class F>
    void post(F&& f) {
      accept(lane_.post(std::forward<F>(f)));
    }

   private:
    decltype(std::declval<Loop&>().make_producer(4096)) lane_;
  };

  template <class F>
  void post(F&& f) {
    first_.post(std::forward<F>(f));
  }
  poster another() { return poster(loop()); }

 private:
  poster first_{loop()};
};

// What one thread posts through: a lane of its own where there are lanes.
template <class Rival>
Rival& poster_of(Rival& rival) {
  return rival;
}
template <class Loop>
auto poster_of(ours_lane<Loop>& rival) {
  return rival.another();
}

// The idiom of the C libraries' users: a mutex, and a vector that the callback swaps.
class mailbox {
 public:
  template <class F>
  void put(F&& f) {
    const std::lock_guard<std::mutex> hold(mutex_);
    waiting_.emplace_back(std::forward<F>(f));
  }
  void run_all() {
    running_.clear();
    {
      const std::lock_guard<std::mutex> hold(mutex_);
      running_.swap(waiting_);
    }
    for (auto& f : running_) f();
  }

 private:
  std::mutex mutex_;
  std::vector<std::function<void()>> waiting_;
  std::vector<std::function<void()>> running_;
};

#if defined(HAVE_LIBUV)
class libuv {
 public:
  static constexpr const char* name = "libuv";

  libuv() {
    uv_loop_init(&loop_);
    uv_async_init(&loop_, &async_,
                  [](uv_async_t* a) { static_cast<libuv*>(a->data)->tasks_.run_all(); });
    async_.data = this;
    thread_ = std::thread([this] { uv_run(&loop_, UV_RUN_DEFAULT); });
  }
  ~libuv() {
    post([this] { uv_close(reinterpret_cast<uv_handle_t*>(&async_), nullptr); });
    thread_.join();
    uv_loop_close(&loop_);
  }
  template <class F>
  void post(F&& f) {
    tasks_.put(std::forward<F>(f));
    uv_async_send(&async_);
  }

 private:
  uv_loop_t loop_;
  uv_async_t async_;
  mailbox tasks_;
  std::thread thread_;
};
#else
struct libuv : absent {
  static constexpr const char* name = "libuv";
};
#endif

#if defined(HAVE_ASIO)
class asio_post {
 public:
  static constexpr const char* name = "Asio";

  asio_post() : work_(asio::make_work_guard(context_)), thread_([this] { context_.run(); }) {}
  ~asio_post() {
    work_.reset();
    thread_.join();
  }
  template <class F>
  void post(F&& f) {
    asio::post(context_, std::forward<F>(f));
  }

 private:
  asio::io_context context_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::thread thread_;
};
#else
struct asio_post : absent {
  static constexpr const char* name = "Asio";
};
#endif

#if defined(HAVE_LIBEVENT)
// An event without a descriptor, made active by the poster.
class libevent {
 public:
  static constexpr const char* name = "libevent";

  libevent() : base_((evthread_use_pthreads(), event_base_new())) {
    const auto drain = [](evutil_socket_t, short, void* mine) {
      static_cast<libevent*>(mine)->tasks_.run_all();
    };
    posted_ = event_new(base_, -1, EV_PERSIST, drain, this);
    thread_ = std::thread([this] { event_base_loop(base_, EVLOOP_NO_EXIT_ON_EMPTY); });
  }
  libevent(const libevent&) = delete;
  ~libevent() {
    post([this] { event_base_loopbreak(base_); });
    thread_.join();
    event_free(posted_);
    event_base_free(base_);
  }
  template <class F>
  void post(F&& f) {
    tasks_.put(std::forward<F>(f));
    event_active(posted_, EV_READ, 0);
  }

 private:
  event_base* base_;
  event* posted_;
  mailbox tasks_;
  std::thread thread_;
};
#else
struct libevent : absent {
  static constexpr const char* name = "libevent";
};
#endif

#if defined(HAVE_LIBEV)
class libev {
 public:
  static constexpr const char* name = "libev";

  libev() : loop_(ev_loop_new(EVFLAG_AUTO)) {
    async_.data = this;
    ev_async_init(&async_, [](struct ev_loop*, ev_async* a, int) {
      static_cast<libev*>(a->data)->tasks_.run_all();
    });
    ev_async_start(loop_, &async_);
    thread_ = std::thread([this] { ev_run(loop_, 0); });
  }
  libev(const libev&) = delete;
  ~libev() {
    post([this] { ev_break(loop_, EVBREAK_ALL); });
    thread_.join();
    ev_async_stop(loop_, &async_);
    ev_loop_destroy(loop_);
  }
  template <class F>
  void post(F&& f) {
    tasks_.put(std::forward<F>(f));
    ev_async_send(loop_, &async_);
  }

 private:
  struct ev_loop* loop_;
  ev_async async_{};
  mailbox tasks_;
  std::thread thread_;
};
#else
struct libev : absent {
  static constexpr const char* name = "libev";
};
#endif

// What one writes without a library.
class condvar {
 public:
  static constexpr const char* name = "condvar + deque";

  condvar() : thread_([this] { serve(); }) {}
  ~condvar() {
    {
      const std::lock_guard<std::mutex> hold(mutex_);
      leaving_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }
  template <class F>
  void post(F&& f) {
    {
      const std::lock_guard<std::mutex> hold(mutex_);
      waiting_.emplace_back(std::forward<F>(f));
    }
    changed_.notify_one();
  }

 private:
  void serve() {
    std::unique_lock<std::mutex> hold(mutex_);
    for (;;) {
      changed_.wait(hold, [this] { return leaving_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      std::function<void()> f = std::move(waiting_.front());
      waiting_.pop_front();
      hold.unlock();
      f();
      hold.lock();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;
  bool leaving_ = false;
  std::thread thread_;
};

// ---- Rows of them ----

// One repetition: a fresh contender, so that none inherits another's state, and a task to see it
// running. `measure` takes the contender and answers a sample.
template <class Contender, class Measure>
auto repetition(Measure measure) {
  return [measure] {
    Contender contender;
    std::promise<void> runs;
    contender.post([&runs] { runs.set_value(); });
    runs.get_future().wait();
    return measure(contender);
  };
}

template <class Contender, class Measure>
void add(bench::family& table, bench::kind role, Measure measure,
         const char* name = Contender::name) {
  if constexpr (std::is_base_of_v<absent, Contender>) {
    table.skip(name);
  } else {
    table.add(role, name, repetition<Contender>(measure));
  }
}

// A template, so that the row is not built where loops have no lanes.
template <class Measure, class Loop = hybridloop::loop>
void add_lane(bench::family& table, Measure measure) {
  if constexpr (has_lanes<Loop>::value) add<ours_lane<Loop>>(table, bench::kind::ours, measure);
}

template <class Measure>
void add_rivals(bench::family& table, Measure measure) {
  add<libuv>(table, bench::kind::rival, measure);
  add<asio_post>(table, bench::kind::rival, measure);
  add<libevent>(table, bench::kind::rival, measure);
  add<libev>(table, bench::kind::rival, measure);
  add<condvar>(table, bench::kind::rival, measure);
}

template <class Measure>
void add_policies(bench::family& table, Measure measure) {
  using hybridloop::fast_path;
  add<ours<fast_path::full>>(table, bench::kind::ours, measure);
  add<ours<fast_path::mini>>(table, bench::kind::ours, measure);
  add<ours<fast_path::off>>(table, bench::kind::ours, measure);
}

}  // namespace rivals
