// rivals.hpp - what a user would otherwise take, each used as its own documentation says
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#if defined(HAVE_LIBUV)
#include <uv.h>
#endif
#if defined(HAVE_ASIO)
#include <asio.hpp>
#endif

namespace rivals {

// Each has: post(f) from any thread, and a thread of its own that runs until it is destroyed.

template <class Traits = hybridloop::default_traits>
class ours {
 public:
  explicit ours(const hybridloop::loop_options& options = {})
      : loop_(options), thread_([this] { loop_.run(); }) {}
  ~ours() {
    loop_.close();
    thread_.join();
  }
  template <class F>
  void post(F&& f) {
    if (loop_.post(std::forward<F>(f)) != hybridloop::post_result::accepted) std::abort();
  }
  hybridloop::basic_loop<Traits>& loop() { return loop_; }

 private:
  hybridloop::basic_loop<Traits> loop_;
  std::thread thread_;
};

#if defined(HAVE_LIBUV)
// uv_async_send with a mutex and a vector that the callback swaps: the idiom of libuv's users.
class libuv {
 public:
  libuv() {
    uv_loop_init(&loop_);
    uv_async_init(&loop_, &async_, [](uv_async_t* a) { static_cast<libuv*>(a->data)->drain(); });
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
    {
      const std::lock_guard<std::mutex> hold(mutex_);
      waiting_.emplace_back(std::forward<F>(f));
    }
    uv_async_send(&async_);
  }

 private:
  void drain() {
    running_.clear();
    {
      const std::lock_guard<std::mutex> hold(mutex_);
      running_.swap(waiting_);
    }
    for (auto& f : running_) f();
  }
  uv_loop_t loop_;
  uv_async_t async_;
  std::mutex mutex_;
  std::vector<std::function<void()>> waiting_;
  std::vector<std::function<void()>> running_;
  std::thread thread_;
};
#endif

#if defined(HAVE_ASIO)
class asio_post {
 public:
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
#endif

// What one writes without a library.
class condvar {
 public:
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

}  // namespace rivals
