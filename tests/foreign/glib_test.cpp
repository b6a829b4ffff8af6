// glib_test.cpp - hybridloop inside GLib's main loop: a GSource with the handle and the timeout
#include <chrono>
#include <cstddef>
#include <deque>
#include <utility>

#include "foreign/host.hpp"

#include <glib-unix.h>
#include <glib.h>

namespace {

class glib_host {
 public:
  explicit glib_host(hybridloop::loop& guest)
      : guest_(guest), context_(g_main_context_new()), loop_(g_main_loop_new(context_, 0)) {
    static GSourceFuncs verbs = {prepare, check, dispatch, nullptr, nullptr, nullptr};
    source_ = reinterpret_cast<guest_source*>(g_source_new(&verbs, sizeof(guest_source)));
    source_->host = this;
    source_->handle = g_source_add_unix_fd(&source_->base, guest.backend_handle(), G_IO_IN);
    g_source_attach(&source_->base, context_);
  }
  glib_host(const glib_host&) = delete;
  glib_host& operator=(const glib_host&) = delete;
  ~glib_host() {
    drop(&source_->base);
    for (GSource* source : sources_) drop(source);
    g_main_loop_unref(loop_);
    g_main_context_unref(context_);
  }

  void every(std::chrono::milliseconds period, foreign::callback f) {
    calls_.push_back(std::move(f));
    GSource* timer = g_timeout_source_new(static_cast<unsigned>(period.count()));
    g_source_set_callback(timer, call, &calls_.back(), nullptr);
    attach(timer);
  }
  void watch(int fd, foreign::callback f) {
    calls_.push_back(std::move(f));
    GSource* watch = g_unix_fd_source_new(fd, G_IO_IN);
    const GUnixFDSourceFunc function = [](int, GIOCondition, void* f_) { return call(f_); };
    g_source_set_callback(watch, reinterpret_cast<GSourceFunc>(reinterpret_cast<void (*)()>(function)),
                          &calls_.back(), nullptr);
    attach(watch);
  }

  void run() { g_main_loop_run(loop_); }
  void quit() { g_main_loop_quit(loop_); }
  std::size_t turns() const { return turns_; }

 private:
  // GLib allocates it, so it is a struct of C.
  struct guest_source {
    GSource base;
    glib_host* host;
    void* handle;
  };

  static guest_source& of(GSource* source) { return *reinterpret_cast<guest_source*>(source); }
  static int call(void* f) {
    (*static_cast<foreign::callback*>(f))();
    return G_SOURCE_CONTINUE;
  }

  static int prepare(GSource* source, int* timeout) {
    glib_host& host = *of(source).host;
    ++host.turns_;
    const auto left = host.guest_.next_timeout();
    *timeout = left ? foreign::whole_milliseconds(*left) : -1;
    return left == std::chrono::nanoseconds(0);
  }
  static int check(GSource* source) {
    const bool called = (g_source_query_unix_fd(source, of(source).handle) & G_IO_IN) != 0;
    return called || of(source).host->guest_.next_timeout() == std::chrono::nanoseconds(0);
  }
  static int dispatch(GSource* source, GSourceFunc, void*) {
    of(source).host->guest_.poll();
    return G_SOURCE_CONTINUE;
  }

  void attach(GSource* source) {
    g_source_attach(source, context_);
    sources_.push_back(source);
  }
  static void drop(GSource* source) {
    g_source_destroy(source);
    g_source_unref(source);
  }

  hybridloop::loop& guest_;
  GMainContext* context_;
  GMainLoop* loop_;
  guest_source* source_;
  std::deque<foreign::callback> calls_;
  std::deque<GSource*> sources_;
  std::size_t turns_ = 0;
};

}  // namespace

TEST_SUITE_BEGIN("glib");

PROMISES_INSIDE(glib_host, "glib")

TEST_SUITE_END();
