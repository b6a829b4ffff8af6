// loop/core.hpp - the memory of a loop: everything that its handles, timers and posters share
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "base/bits.hpp"
#include "base/clock.hpp"
#include "base/error.hpp"
#include "ingress/stream.hpp"
#include "loop/companion.hpp"
#include "loop/entrance.hpp"
#include "loop/hook.hpp"
#include "loop/lending.hpp"
#include "loop/lookout.hpp"
#include "loop/meter.hpp"
#include "loop/options.hpp"
#include "loop/visitors.hpp"
#include "loop/wakeup.hpp"
#include "task/fifo.hpp"
#include "timer/timers.hpp"
#include "watch/watches.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// One mapping holds the core, the ring and the arena; pages are touched when they are used. It is
// counted: the loop holds it, and every handle, and it goes with the last of them.
//
// Edge [core]: who frees it sees everything the others did. Q1 a holder lets go (release), Q2 the
// last one finds zero (acquire). Rule: a count that only read-modify-writes change is one release
// sequence [intro.races].
template <class Traits>
class core : public entrance<Traits> {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using typename entrance<Traits>::doorbell_type;
  using entrance<Traits>::door;
  using entrance<Traits>::options;
  using entrance<Traits>::in;
  using entrance<Traits>::runs_here;
  using poller_type = typename Traits::poller;
  using kernel = typename Traits::kernel;
  using clock = typename Traits::clock;

  // nullptr, and the code says why.
  static core* create(const loop_options& asked, std::error_code& code) noexcept {
    code.clear();
    loop_options options = asked;
    constexpr std::size_t most = std::size_t{1} << 24;
    if (options.ring_capacity > most || options.arena_capacity > most || options.spin.count() < 0) {
      code = errc::invalid_argument;
      return nullptr;
    }
    options.ring_capacity = round_up_to_power_of_two(options.ring_capacity);
    const layout sizes(options);
    void* memory = Traits::kernel::map(sizes.total);
    doorbell_type* door = memory == nullptr ? nullptr : doorbell_type::acquire();
    if (door == nullptr) {
      if (memory != nullptr) Traits::kernel::unmap(memory, sizes.total);
      code = std::make_error_code(std::errc::not_enough_memory);
      return nullptr;
    }
    core* made = ::new (memory) core(options, sizes, *door);
    // What is asked once in a process is better asked here than in the middle of the first stream of
    // posts: registering costs microseconds while there is one thread and milliseconds later.
    if constexpr (Traits::fence != fence_policy::symmetric) Traits::barrier::available();
    const int refused = options.path == fast_path::off ? made->open_poller() : 0;
    if (refused == 0) return made;
    code = system_error_code(refused);
    made->let_go();
    return nullptr;
  }

  core(const core&) = delete;
  core& operator=(const core&) = delete;

  void hold() noexcept { holders_.fetch_add(1, std::memory_order_relaxed); }  // a hint; the caller holds one
  void let_go() noexcept {
    if (holders_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;  // [core] Q1, Q2
    doorbell_type& bell = door;
    const std::size_t bytes = mapped_;
    this->~core();
    Traits::kernel::unmap(this, bytes);
    bell.release();
  }

  // ---- Any thread ----

  static nanos read_now() noexcept { return read_clock<clock>(); }

  // ---- The loop thread ----

  int open_poller() noexcept {
    const int refused = poller.open();
    if (refused == 0) door.bell.store(poller.bell(), std::memory_order_release);  // [bell] B3
    return refused;
  }

  // 0, or an errno; ECANCELED: the loop has ended its watches.
  template <class Build>
  int attach(watch_record<Traits>& r) noexcept {
    if (ended) return ECANCELED;
    // Asked before the poller opens, which would take a number that was closed for itself; what has
    // become the poller's own since is no more the caller's than a closed one.
    if (!Traits::kernel::is_descriptor(r.handle)) return EBADF;
    const int refused = open_poller();
    if (refused != 0) return refused;
    if (poller.owns(r.handle)) return EBADF;
    if (options.path == fast_path::mini) {
      watches_.serve_companion();
      const int unstarted = companion_.template start<Build>(*this);
      if (unstarted != 0) return unstarted;
    }
    return watches_.attach(poller, r);
  }

  bool sleeps_in_poller() const noexcept {
    return options.path == fast_path::off || asks_poller();
  }
  // Whether the poller has anything to say to the loop thread.
  bool asks_poller() const noexcept {
    return options.path != fast_path::mini && (exposed || watches_.registered() != 0);
  }

  // Makes the handle readable that a foreign loop waits for.
  void ring_own_bell() noexcept {
    if (poller_type::ring(poller.bell()) != 0) fail("the kernel refuses to ring a loop's own bell");
  }

  // The time of this turn, read when it is first asked for: not every turn needs it, and the clock costs
  // as much as a task.
  nanos cached_now() noexcept {
    if (now_is_old_) refresh_now();
    return now_;
  }
  void forget_now() noexcept { now_is_old_ = true; }
  void refresh_now() noexcept {
    now_is_old_ = false;
    now_ = read_now();
  }

  // For stats(): whoever is the loop, at the end of a turn and on every way out.
  void publish_counts() noexcept {
    tasks.add(ran - counted);
    counted = ran;
    timer_count.set(timers_.started());
    watch_count.set(watches_.count());
    stale_events.set(watches_.stale());
    this->publish_lane_counts();
  }

  // Lanes that come and go, and who had no room in the queues.
  void let_in() noexcept {
    in.adopt();
    in.reap();
    visitors_.let_late_in();
  }

  // Not behind a slot that is claimed and not yet published: its poster will ring.
  bool can_run() noexcept {
    return in.can_run() || !deferred.empty() || !microtasks.empty() || watches_.always_ready() ||
           visitors_.has_late();
  }
  // A slot that is claimed and not yet published counts.
  bool nothing_queued() noexcept {
    return in.empty() && deferred.empty() && microtasks.empty() && !visitors_.has_late();
  }
  std::size_t queued() noexcept { return in.pending() + deferred.size() + microtasks.size(); }

  // Nothing can happen on this loop but what the poller reports.
  bool only_descriptors() noexcept {
    const bool quiet = timers_.started() == 0 && deferred.empty() && microtasks.empty();
    return quiet && !prepare && !check && !watches_.always_ready() && !in.can_run() &&
           !wake.told(status::stop | status::close);
  }

  // A few yields for a producer that was preempted, then a nap at a time for one whose closure takes
  // long to build.
  void wait_for_claims(std::uint32_t& yields) noexcept {
    if (++yields < 64) return Traits::kernel::yield();
    Traits::parker::wait(wake.sleeping_word(), wake.word(), read_now() + 50000);
  }

  // No task, timer, watch or guard that would keep run_until_idle(). The guards come first: what was
  // posted before the last of them went is then seen.
  bool nothing_left() noexcept {
    return holds.load(std::memory_order_acquire) == 0 &&  // [hold] Y2
           in.idle() && deferred.empty() && microtasks.empty() && timers_.referenced() <= 0 &&
           watches_.referenced() <= 0 && !visitors_.has_late();
  }

  // Once closed: what it would have told nobody hears any more.
  void end_timers_and_watches() noexcept {
    timers_.end_all(false);
    watches_.end_all(poller, false);
    visitors_.tell_all(visitor<Traits>::call::loop_ends);
  }

  // The destructor of the loop: nothing runs, everything is destroyed.
  void tear_down() noexcept {
    this->close();
    while (!in.room().empty()) Traits::kernel::yield();
    companion_.stop(poller);
    std::uint32_t was = 0;
    while (!wake.borrow(was)) Traits::kernel::yield();
    wake.bury();
    while (door.ringers.load(std::memory_order_seq_cst) != 0) Traits::kernel::yield();  // [bell] B5
    wake.settle_lanes(in.has_lanes());
    visitors_.tell_all(visitor<Traits>::call::loop_ends);
    destroy_all_work();
    // Whoever is being told by another thread: that finds the loop closed, and lets go.
    while (!visitors_.empty()) {
      visitors_.let_late_in();
      visitors_.tell_all(visitor<Traits>::call::collect);
      Traits::kernel::yield();
    }
    poller.close();
  }

  // Closures that are destroyed may post, and destroy others.
  void destroy_all_work() noexcept {
    do {
      in.destroy_all();
      deferred.clear();
      microtasks.clear();
      prepare.set({});
      check.set({});
      timers_.end_all(true);
      watches_.end_all(poller, true);
    } while (!in.empty());
    in.drop_lanes();
  }

  bool forked() const noexcept { return Traits::kernel::forks() != born; }

 private:
  // Where things lie in the mapping.
  struct layout {
    explicit layout(const loop_options& options) noexcept
        : ring(round_up(sizeof(core))),
          arena(round_up(ring + options.ring_capacity * sizeof(typename detail::ring<Traits>::slot))),
          total(arena + detail::arena<Traits>::bytes(options.arena_capacity)) {}
    static std::size_t round_up(std::size_t n) noexcept { return (n + 127) / 128 * 128; }
    std::size_t ring, arena, total;
  };

  core(const loop_options& o, const layout& sizes, doorbell_type& d) noexcept
      : entrance<Traits>(d, o, reinterpret_cast<unsigned char*>(this) + sizes.ring,
                         reinterpret_cast<unsigned char*>(this) + sizes.arena, spins(o)),
        wake(d),
        watches_(watch_table_),
        mapped_(sizes.total) {
    refresh_now();
  }
  ~core() = default;

  // Asked here too because the quota of CPUs is read from a file, once.
  static bool spins(const loop_options& o) noexcept {
    return o.path != fast_path::off && o.spin.count() != 0 && kernel::usable_cpus() > 1;
  }

 public:
  wakeup<Traits> wake;
  task_fifo deferred;
  task_fifo microtasks;
  timers<Traits> timers_;
  watch_table<Traits> watch_table_;
  watches<Traits> watches_;
  poller_type poller;
  companion<Traits> companion_;
  slab<Traits, wait_record<Traits>> waits_;
  visitors<Traits> visitors_;

  // Edge [hold]: Y1 a keep_alive guard goes (release); Y2 run_until_idle sees none left (acquire). Rule:
  // as in [core].
  atomic<std::size_t> holds{0};

  // Which thread has borrowed the idle loop.
  atomic<const void*> lender{nullptr};

  // Written by the loop thread, read by stats().
  tally<Traits> turns, tasks, rescued, parks_channel, parks_poller, spun_ns, parked_ns, micro_left;
  tally<Traits, std::size_t> timer_count, watch_count;
  tally<Traits> stale_events;

  // The loop thread.
  std::uint32_t born = Traits::kernel::forks();  // in which process
  std::size_t ran = 0;      // by the innermost run()
  std::size_t counted = 0;  // of these, in stats()
  std::size_t runs = 0;  // how many are nested in each other
  bool ended = false;   // close was seen; timers and watches are gone
  stream_pace pace;
  bool exposed = false; // a foreign loop waits for its handle
  lookout outlook;
  meter::estimate task_cost;
  std::size_t next_source = 0;  // where the next frame begins
  bool in_hook = false;
  bool ready_at_once = false;  // the poller's last answer came without a sleep
  hook prepare;
  hook check;
  std::size_t broken_off = 0;  // where a batch of events was left by an exception or a stop

  // How a companion's event is delivered, and what others gave is run on a loan: as the file was built
  // whose run() is the innermost.
  struct {
    void (*deliver)(core&, const poll_event&);
    bool (*serve)(core&, std::size_t);
  } calls{};

  // Who is the loop, or was before it went to sleep.
  lending<Traits> lending_;

 private:
  atomic<std::size_t> holders_{1};
  nanos now_ = 0;
  bool now_is_old_ = false;
  const std::size_t mapped_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
