// loop/loop.hpp - the loop itself: everything a user calls
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <system_error>
#include <type_traits>

#include "base/error.hpp"
#include "loop/handle.hpp"
#include "loop/options.hpp"
#include "loop/producer.hpp"
#include "loop/traits.hpp"

HYBRIDLOOP_OPEN

template <class Traits>
class basic_loop;

namespace detail {

// For what is told on a loop.
template <class Traits>
struct loop_access {
  static core<Traits>& core_of(basic_loop<Traits>& l) noexcept { return *l.core_; }
};

}  // namespace detail

// An event loop. `Build` is never given by a user; see detail::build.
//
// "Any thread" means any thread at any time while the loop lives. "The loop thread" is whoever is
// inside run() or one of its sisters, that is: tasks, timers and callbacks; or inside an invoke() that it
// runs itself, see loop_options::caller_runs.
template <class Traits>
class basic_loop {
 public:
  using clock = typename Traits::clock;
  using duration = typename clock::duration;
  using time_point = typename clock::time_point;
  using handle_type = basic_handle<Traits>;
  using keep_alive = basic_keep_alive<Traits>;
  using producer_type = basic_producer<Traits>;

  using frame_report = basic_frame_report<clock>;

  struct range_result {
    post_result result;
    std::size_t accepted;
  };

  // Throws std::system_error: no memory, options out of range (errc::invalid_argument), or with
  // fast_path::off a refused poller. The twin never throws; a loop that answered an error may only
  // be destroyed.
  template <class Build = detail::build_tag>
  basic_loop() : basic_loop(loop_options{}) {}
  template <class Build = detail::build_tag>
  explicit basic_loop(const loop_options& options);
  basic_loop(const loop_options& options, std::error_code& code) noexcept
      : core_(core::create(options, code)) {}
  basic_loop(const basic_loop&) = delete;
  basic_loop& operator=(const basic_loop&) = delete;

  // Destroys what was never run, without running it. Not from inside run(), and not while another
  // thread is; posters may still be inside post(), if it was their own task that ended the loop, or if
  // they post through a handle.
  ~basic_loop();

  // ---- Giving work. Any thread. ----
  //
  // F is any callable without arguments, move-only ones included. It is moved from only when the
  // answer is `accepted`; then it runs exactly once on the loop thread, or is destroyed with the
  // loop. If post A happens before post B, A runs before B.

  // Follows loop_options::when_full. No lock, no allocation while ring or arena have room, and no
  // system call while the loop is awake and the ring has room.
  template <class F, class Build = detail::build_tag>
  post_result post(F&& f);

  // Never blocks and never spills: `full` as soon as the ring is.
  template <class F, class Build = detail::build_tag>
  post_result try_post(F&& f);

  // Posts *first, *(first + 1), ... with one wake for all. Stops at the first refusal. Elements are
  // moved from only through move iterators.
  template <class Iterator, class Sentinel, class Build = detail::build_tag>
  range_result post_range(Iterator first, Sentinel last);

  // At once if this thread is running the loop, else post.
  template <class F, class Build = detail::build_tag>
  post_result dispatch(F&& f);

  // Runs f on the loop, waits, and returns its value or throws its exception. On the loop thread at
  // once, overtaking what is queued. On a loop that nobody runs it waits until somebody does; on a
  // closed one, or one that ends before f ran, it throws errc::closed. Loops that invoke each other in
  // a circle would wait for ever: that is a broken contract.
  //
  // With loop_options::caller_runs, and while the loop thread sleeps in the channel, the caller is the
  // loop for the time of the call and wakes nobody: it runs what was accepted before, and then f. All
  // that f may do on the loop thread it may do there, run() included. What other tasks throw there
  // leaves run() on the loop thread, or goes to on_exception at once; f then waits its turn.
  template <class F, class Build = detail::build_tag>
  std::invoke_result_t<F&> invoke(F&& f);

  handle_type handle() const noexcept { return handle_type(*core_); }

  // A lane for one thread at a time, of `capacity` slots, rounded up to a power of two, 64 bytes each.
  // Throws std::system_error: no memory, or more than 16,777,216 slots (errc::invalid_argument). On a
  // closed loop it answers `closed`.
  template <class Build = detail::build_tag>
  producer_type make_producer(std::size_t capacity);

  // Ends a sleep, or the next one when the loop is awake, without a task. Also from a signal handler.
  void wake() noexcept { core_->door.tell(detail::status::wanted); }

  // ---- Giving work. The loop thread. ----

  // Runs f in the next turn. Without memory this throws, as microtask() does.
  template <class F, class Build = detail::build_tag>
  void defer(F&& f);

  // Runs f after the running task and before the next one. A turn runs 1024 at most; the rest waits
  // for the next turn, and is counted.
  template <class F, class Build = detail::build_tag>
  void microtask(F&& f);

  // ---- Running it. The calling thread becomes the loop thread for the time of the call. ----
  //
  // Calls may nest inside a task. Each returns how many tasks, timers and watch callbacks it ran
  // (microtasks are not counted, nor what a nested call counted). An exception that leaves a task
  // leaves the call, unless loop_options::on_exception takes it; the task counts as run and the
  // loop may be run again.

  template <class Build = detail::build_tag>
  std::size_t run();  // until stop(), or close() and all that was accepted has run
  template <class Build = detail::build_tag>
  std::size_t run_until_idle();  // also when no task, referenced timer, watch or keep_alive is left
  template <class Build = detail::build_tag>
  std::size_t run_once();  // one turn; sleeps for something to do
  template <class Build = detail::build_tag>
  std::size_t poll();  // one turn; never sleeps
  template <class Rep, class Period, class Build = detail::build_tag>
  std::size_t run_for(std::chrono::duration<Rep, Period> span);
  template <class Build = detail::build_tag>
  std::size_t run_until(time_point deadline);

  // For a frame: runs what is ready, and never sleeps. At least one task, and no further one that is
  // expected to overrun the budget by what tasks have cost of late; so it overruns by less than the
  // longest one. Timers, deferred tasks, posts and descriptors take turns. No system call while
  // nothing is watched.
  template <class Rep, class Period, class Build = detail::build_tag>
  frame_report run_budget(std::chrono::duration<Rep, Period> budget);

  // ---- Ending it. Any thread, any state. ----

  // Sticky: one run() returns after its current task, or before its first one if called before. Every
  // nested run returns, the outermost has heeded it. Two pending stops are one. Also from a signal
  // handler.
  void stop() noexcept { core_->door.tell(detail::status::stop); }

  // New posts answer `closed`; what was accepted runs, with what that defers; then run() returns.
  // Timers and watches end without running.
  void close() noexcept { core_->close(); }
  bool closed() const noexcept { return core_->in.closed(); }

  bool running_in_this_thread() const noexcept { return core_->runs_here(); }

  // ---- Time. Any thread. ----
  //
  // A timer never fires early, fires in the order of deadlines and FIFO among equals. Past deadlines
  // and a delay of 0 run in the next turn; `max()` never. A closed loop answers an empty id.

  // To who runs the loop the time of this turn, to others the true time. Delays count from the true time.
  time_point now() const noexcept {
    return detail::from_nanos<clock>(core_->runs_here() ? core_->cached_now() : core::read_now());
  }

  template <class Rep, class Period, class F, class Build = detail::build_tag>
  timer_id after(std::chrono::duration<Rep, Period> delay, F&& f);
  template <class F, class Build = detail::build_tag>
  timer_id at(time_point deadline, F&& f);
  // The first run is one period from now. A period below 1 ns is a broken contract.
  template <class Rep, class Period, class F, class Build = detail::build_tag>
  timer_id every(std::chrono::duration<Rep, Period> period, F&& f,
                 repeat how = repeat::fixed_rate);

  // True: it will run at the new deadline and not at the old one. False: it ran, is running for the
  // last time, or is unknown; a timer that fired is made anew, it is not revived.
  template <class Build = detail::build_tag>
  bool reschedule(timer_id id, time_point deadline);

  // Exact. True: it will not run (again; of a repeating one a run may be in progress). False: it
  // ran, is running for the last time, or is unknown. The closure is destroyed on the loop thread.
  template <class Build = detail::build_tag>
  bool cancel(timer_id id);

  // ---- Descriptors. Any thread. ----
  //
  // While nobody runs the loop, or on its thread, these answer at once; from another thread they
  // are posted, and a refusal reaches the callback as ready.error with native_error. F is called as
  // F(ready) or F(), also to tell an error; it may modify and unwatch any watch, its own too. It is destroyed on the loop
  // thread: by unwatch() there or in the turn that hears of it, or when it returns if it is running.
  // Several watches of one descriptor are allowed. unwatch() comes before close(2): epoll says nothing
  // of a descriptor that was closed, so its watch lives on, silent, until modify() finds it gone. A file that is always ready (epoll refuses it) is
  // reported once a turn, with `edge` once per modify().

  template <class F, class Build = detail::build_tag>
  watch_id watch(native_handle handle, interest what, F&& f);
  template <class F, class Build = detail::build_tag>
  watch_id watch(native_handle handle, interest what, F&& f, std::error_code& code);
#if HYBRIDLOOP_OS(WINDOWS)
  // The same of any HANDLE that can be waited for, and any number of them: f runs whenever it is signalled,
  // which for an auto-reset event is once for each signal that was taken. Not of a mutex, which would
  // belong to a thread of the system's. unwatch() comes before CloseHandle().
  template <class F, class Build = detail::build_tag>
  watch_id watch_handle(void* handle, F&& f) {
    return watch<F, Build>(reinterpret_cast<native_handle>(handle), interest::readable, std::forward<F>(f));
  }
  template <class F, class Build = detail::build_tag>
  watch_id watch_handle(void* handle, F&& f, std::error_code& code) {
    return watch<F, Build>(reinterpret_cast<native_handle>(handle), interest::readable, std::forward<F>(f), code);
  }
#endif
  // False: unknown, or the kernel refused. Of a descriptor that was closed, every watch is told so once
  // (error, EBADF) and ends.
  template <class Build = detail::build_tag>
  bool modify(watch_id id, interest what);
  // On the loop thread F does not run again. Elsewhere true means known, and F may still run until
  // `done` has run on the loop: then the descriptor may be closed. With `done` false also on a closed
  // loop, whose watches end by themselves: then once run() has returned.
  template <class Build = detail::build_tag>
  bool unwatch(watch_id id);
  template <class F, class Build = detail::build_tag>
  bool unwatch(watch_id id, F&& done);

  // ---- What keeps run_until_idle(). Any thread; timers and watches do by default. ----
  template <class Build = detail::build_tag>
  void ref(timer_id id);
  template <class Build = detail::build_tag>
  void unref(timer_id id);
  template <class Build = detail::build_tag>
  void ref(watch_id id);
  template <class Build = detail::build_tag>
  void unref(watch_id id);
  keep_alive hold() noexcept { return keep_alive(*core_); }

  // ---- Living inside another loop. The loop thread, or any while nobody runs the loop. ----
  //
  // The other loop waits until the handle is readable or next_timeout() is over, and calls poll().

  // Readable from when there is posted work, a ready descriptor, a stop, a close or a wake until the
  // next poll() has dealt with it; deadlines do not make it so. After a close, run() once more: it runs
  // what was accepted, and returns. The same for the life of the loop, closed on
  // exec (on Windows a HANDLE, as a number), and from the first call on the loop sleeps in the poller. Refused with errc::unsupported
  // by fast_path::mini and by pollers that have no such thing, with errc::wrong_thread while another
  // thread runs the loop; throws what the twin answers.
  template <class Build = detail::build_tag>
  native_handle backend_handle();
  native_handle backend_handle(std::error_code& code) noexcept;

  // How long to wait for the handle: 0 when work is queued, nothing when nothing is scheduled. Never
  // later than the earliest deadline; with many timers it may be earlier, and is asked again. A broken
  // contract while another thread runs the loop.
  std::optional<duration> next_timeout() const;

  // The child of a fork, before it uses the loop in any other way but destroying it: the loop is the
  // child's own from here on, with the tasks, timers and watches that it had, and the child's handles
  // have the same numbers. Tasks that other threads were in the middle of posting are gone, and their
  // callers of invoke() too. Does nothing in the process in which the loop was made. The one thread of
  // the child; a broken contract if another thread was awake in run() at the fork. Throws what the
  // kernel refuses; then the loop can be destroyed, or the call be made again. Not from a handler of
  // pthread_atfork.
  //
  // Without it the child may only destroy the loop, which leaves the parent's alone; closures are
  // destroyed, except if another thread was awake in run(): then they are left.
  template <class Build = detail::build_tag>
  void after_fork_child();
  template <class Build = detail::build_tag>
  void after_fork_child(std::error_code& code);

  // Called each time before run() and its sisters sleep, and each time after, in pairs. on_prepare's
  // may post, defer, arm timers: then there is no sleep. One of each; the last one given counts, and
  // nullptr takes it away. poll() and run_budget() never sleep, so they call neither.
  template <class F, class Build = detail::build_tag>
  void on_prepare(F&& f);
  template <class F, class Build = detail::build_tag>
  void on_check(F&& f);

  // Any thread.
  loop_stats stats() const noexcept;
  static const char* poller_name() noexcept { return Traits::poller::name; }

 private:
  friend struct detail::loop_access<Traits>;
  using core = detail::core<Traits>;
  using nanos = detail::nanos;

  template <class Build>
  std::size_t run_as(detail::until goal, nanos deadline, bool may_sleep);
  template <class Build, class F>
  timer_id arm(nanos deadline, nanos period, repeat how, F&& f);
  template <class Build, class Id>
  void set_referenced(Id id, bool wanted);
  template <class Build, class F>
  detail::unique_task make_task(F&& f);
  template <class Build, class F>
  void put_aside(detail::task_fifo& queue, F&& f);
  template <class Build, class F, class Posted>
  std::invoke_result_t<F&> ask(F& f, overflow when_full, const Posted& posted);
  template <class Build, class F>
  void set_hook(detail::hook& place, F&& f);

  core* core_;
};

using loop = basic_loop<default_traits>;
using loop_handle = basic_handle<default_traits>;
using producer = basic_producer<default_traits>;
using frame_report = loop::frame_report;
using keep_alive = basic_keep_alive<default_traits>;

HYBRIDLOOP_CLOSE
