// libuv_test.cpp - hybridloop inside libuv: the handle is a uv_poll_t, the timeout a uv_timer_t
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <utility>

#include "foreign/host.hpp"

#include <uv.h>

namespace {

class libuv_host {
 public:
  explicit libuv_host(hybridloop::loop& guest) : guest_(guest) {
    must(uv_loop_init(&loop_));
    must(uv_poll_init(&loop_, &handle_, guest.backend_handle()));
    must(uv_timer_init(&loop_, &deadline_));
    must(uv_prepare_init(&loop_, &prepare_));
    handle_.data = deadline_.data = prepare_.data = this;
    must(uv_poll_start(&handle_, UV_READABLE, [](uv_poll_t* h, int, int) { of(h).guest_.poll(); }));
    must(uv_prepare_start(&prepare_, [](uv_prepare_t* p) { of(p).before_the_wait(); }));
  }
  libuv_host(const libuv_host&) = delete;
  libuv_host& operator=(const libuv_host&) = delete;
  ~libuv_host() {
    uv_walk(&loop_, [](uv_handle_t* h, void*) { uv_close(h, nullptr); }, nullptr);
    uv_run(&loop_, UV_RUN_DEFAULT);
    must(uv_loop_close(&loop_));
  }

  void every(std::chrono::milliseconds period, foreign::callback f) {
    auto& mine = timers_.emplace_back();
    mine.call = std::move(f);
    must(uv_timer_init(&loop_, &mine.timer));
    mine.timer.data = &mine;
    const auto span = static_cast<std::uint64_t>(period.count());
    must(uv_timer_start(&mine.timer, [](uv_timer_t* t) { static_cast<own_timer*>(t->data)->call(); },
                        span, span));
  }
  void watch(int fd, foreign::callback f) {
    auto& mine = watches_.emplace_back();
    mine.call = std::move(f);
    must(uv_poll_init(&loop_, &mine.poll, fd));
    mine.poll.data = &mine;
    must(uv_poll_start(&mine.poll, UV_READABLE, [](uv_poll_t* p, int, int) {
      static_cast<own_watch*>(p->data)->call();
    }));
  }

  void run() { uv_run(&loop_, UV_RUN_DEFAULT); }
  void quit() { uv_stop(&loop_); }
  std::size_t turns() const { return turns_; }

 private:
  struct own_timer {
    uv_timer_t timer;
    foreign::callback call;
  };
  struct own_watch {
    uv_poll_t poll;
    foreign::callback call;
  };

  static void must(int result) {
    if (result != 0) std::abort();
  }
  template <class Handle>
  static libuv_host& of(Handle* handle) {
    return *static_cast<libuv_host*>(handle->data);
  }

  void before_the_wait() {
    ++turns_;
    const auto left = guest_.next_timeout();
    if (!left) {
      uv_timer_stop(&deadline_);
      return;
    }
    uv_update_time(&loop_);
    const auto span = static_cast<std::uint64_t>(foreign::whole_milliseconds(*left));
    must(uv_timer_start(&deadline_, [](uv_timer_t* t) { of(t).guest_.poll(); }, span, 0));
  }

  hybridloop::loop& guest_;
  uv_loop_t loop_;
  uv_poll_t handle_;
  uv_timer_t deadline_;
  uv_prepare_t prepare_;
  std::deque<own_timer> timers_;
  std::deque<own_watch> watches_;
  std::size_t turns_ = 0;
};

}  // namespace

TEST_SUITE_BEGIN("libuv");

PROMISES_INSIDE(libuv_host, "libuv")

TEST_SUITE_END();
