// hybridloop.hpp - an event loop to put inside a game, a tool or an engine. MIT licence.
//
// One header, no dependencies. Any thread posts closures to the loop without a lock, without an
// allocation, and without a system call while the loop is awake. A loop that watches no descriptor
// sleeps on a word of memory and owns no kernel object; one that watches some sleeps in epoll, kqueue or
// a completion port. Nothing that was accepted is ever lost.
//
//   hybridloop::loop loop;
//   std::thread worker([&] {
//     if (loop.post([] { std::puts("on the loop"); }) != hybridloop::post_result::accepted) return;
//     loop.after(std::chrono::milliseconds(100), [&] { loop.close(); });
//   });
//   loop.run();
//   worker.join();
//
// Who may call what
//   any thread, any time        post try_post post_range dispatch invoke handle make_producer hold
//                               stop close closed after at every reschedule cancel watch modify
//                               unwatch ref unref wake now stats running_in_this_thread
//   one thread at a time        a producer's post and try_post
//   a signal handler too        wake stop
//   one thread at a time        run run_until_idle run_once poll run_for run_until run_budget; that
//                               thread is the loop thread for as long as the call lasts
//   the loop thread             defer microtask
//   the same, or any while      backend_handle next_timeout on_prepare on_check
//   nobody runs the loop
//   when nobody runs the loop   the destructor
//   the child of a fork         after_fork_child, before anything else; or the destructor
//
// What a task may throw leaves run(), and run() may be called again; or loop_options::on_exception
// takes it. Posts answer accepted, full or closed; what was not accepted is still yours. What the
// kernel refuses is thrown as std::system_error by constructors and watch(), and has a twin with a
// trailing std::error_code&. A broken contract stops the program with a sentence, see
// set_failure_handler(). Builds with -fno-exceptions -fno-rtti work; what would be thrown then ends
// in that handler.
//
// What it costs
//   sizeof(loop)                one pointer
//   memory                      one mapping: 64 bytes a ring slot, 132 bytes an arena block (8.9 MB
//                               of addresses by default); an idle loop touches about 20 kB of it
//   descriptors                 none until the first watch (fast_path::off: from the start), then
//                               an epoll set and an eventfd (poll: a pipe)
//   threads                     none; fast_path::mini has one from the first watch on
//   a task                      a slot of the ring, or an arena block when the ring is full or the
//                               closure is larger than 48 bytes; beyond both, pages that are kept for
//                               the next crowd; the heap for closures of more than 128 bytes
//   an idle loop                no CPU: all sleeps are infinite
//
// Macros, each with its essay below, behind `>>> base/config.hpp`. Set them alike for the whole
// program, best in one file that HYBRIDLOOP_CONFIG_HEADER names.
//   HYBRIDLOOP_CONFIG_HEADER    none          a file to read these from
//   HYBRIDLOOP_NAMESPACE        hybridloop    for a vendored copy
//   HYBRIDLOOP_FAST_PATH        full          full, mini, off: where a loop sleeps
//   HYBRIDLOOP_POLLER           auto          auto, epoll, kqueue, windows, poll: behind watch()
//   HYBRIDLOOP_PARKER           auto          auto, condvar: what a thread sleeps on
//   HYBRIDLOOP_NO_IO            0             1 leaves pollers out
//   HYBRIDLOOP_RING_CAPACITY    4096          slots of the hot queue
//   HYBRIDLOOP_ARENA_CAPACITY   65536         blocks behind it
//   HYBRIDLOOP_TASK_SIZE        48            bytes of a closure that stay in a slot
//   HYBRIDLOOP_CACHE_LINE       64            bytes between words of different threads
//   HYBRIDLOOP_SPIN_NS          20000         longest look before a sleep; 0 = never
//   HYBRIDLOOP_RESCUE_MS        0             a safety period on sleeps; 0 = off
//   HYBRIDLOOP_SYNC_PHASE       1             queue behind semaphore and condvar: 0 to 3
//   HYBRIDLOOP_STATS            1             0 leaves out what stats() costs
//   HYBRIDLOOP_MALLOC, _FREE    std::malloc   the heap behind the arena
//   HYBRIDLOOP_CONTRACT         aborts        (condition, sentence)
//   HYBRIDLOOP_SCHEDULE_POINT   nothing       (name), in every race window; for tests
// No other macro is left behind but HYBRIDLOOP_VERSION_MAJOR, _MINOR and _PATCH.
//
// Needs C++17. Run on Linux with g++ 12 and clang++ 14, as C++17 and C++20; compiled and linked for
// macOS, FreeBSD, OpenBSD and NetBSD, where nobody has run it.
//
// The interface: `>>> loop/loop.hpp` and `>>> loop/handle.hpp`; options, reports and counters in
// `>>> loop/options.hpp`, producers in `>>> loop/producer.hpp`, interest and ready in
// `>>> poller/contract.hpp`, overflow and post_result in `>>> ingress/room.hpp`, repeat in `>>> timer/record.hpp`.
// Waiting: `>>> sync/semaphore.hpp`, `>>> sync/condvar.hpp`, and mutex, event, latch, channel beside them; their names
// in `>>> sync/select.hpp`, wait_status in `>>> sync/waiter.hpp`.
//
// This file is joined from the parts in src/; edit those and `make join`, or edit this one and
// `make split`. Each part stands between `// >>> path` and `// <<< path`, and says what lives there
// on its first line:
//   base/    os config contract error clock bits pause handle
//   task/    unique_task memory plain_array fifo index_stack slab arena
//   wait/    kernel_kqueue kernel_posix monitor parking_lot kernel_linux kernel_unix kernel_macos
//            kernel_bsd windows_calls kernel_port kernel_winsock kernel_windows kernel parker
//            notice bell fence
//   poller/  contract epoll kqueue_bell kqueue_filters terminals kqueue poll afd_slots afd none
//            select
//   ingress/ slot_array ring lane_ring spill room queue lane ingress patience stream
//   timer/   record heap bag strays wheel timers
//   watch/   record registry watches
//   loop/    options traits frames blocked hook meter doorbell wakeup entrance lookout companion
//            lending visitors core ownership fork event_batch park loan runner invoke handle
//            producer loop loop_work commands loop_events loop_embed
//   sync/    waiter account queue0 small_lock waiter_list queue1 epoch segment queue2 queue3
//            queue_locked wait_refs primitive thread_waiter loop_waiter callback awaiter permits
//            barging semaphore condvar mutex gate event latch channel select
//   base/    undef

#pragma once

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <new>
#include <optional>
#include <ratio>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

#if defined(HYBRIDLOOP_VERSION_MAJOR)
#error "hybridloop: a second copy of hybridloop.hpp in one file; include one of them only"
#endif
#define HYBRIDLOOP_VERSION_MAJOR 0
#define HYBRIDLOOP_VERSION_MINOR 1
#define HYBRIDLOOP_VERSION_PATCH 0

// >>> base/os.hpp - which kernel and which build this is, as function-like facts
#if __cplusplus < 201703L && !(defined(_MSVC_LANG) && _MSVC_LANG >= 201703L)
#error "hybridloop: needs C++17 or later: -std=c++17"
#endif

// A misspelt HYBRIDLOOP_OS(X) is a syntax error instead of a silent 0.
#define HYBRIDLOOP_OS(name) HYBRIDLOOP_OS_##name()

#if defined(__linux__)
#define HYBRIDLOOP_OS_LINUX() 1
#else
#define HYBRIDLOOP_OS_LINUX() 0
#endif
#if defined(__APPLE__)
#define HYBRIDLOOP_OS_MACOS() 1
#else
#define HYBRIDLOOP_OS_MACOS() 0
#endif
#if defined(__FreeBSD__)
#define HYBRIDLOOP_OS_FREEBSD() 1
#else
#define HYBRIDLOOP_OS_FREEBSD() 0
#endif
#if defined(__OpenBSD__)
#define HYBRIDLOOP_OS_OPENBSD() 1
#else
#define HYBRIDLOOP_OS_OPENBSD() 0
#endif
#if defined(__NetBSD__)
#define HYBRIDLOOP_OS_NETBSD() 1
#else
#define HYBRIDLOOP_OS_NETBSD() 0
#endif
#if defined(_WIN32)
#define HYBRIDLOOP_OS_WINDOWS() 1
#else
#define HYBRIDLOOP_OS_WINDOWS() 0
#endif
// The five POSIX systems above and any other with POSIX threads, poll(2) and mmap(2).
#if !defined(_WIN32) && (defined(__unix__) || defined(__APPLE__))
#define HYBRIDLOOP_OS_POSIX() 1
#else
#define HYBRIDLOOP_OS_POSIX() 0
#endif

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define HYBRIDLOOP_SANITIZED() 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) || \
    __has_feature(memory_sanitizer)
#define HYBRIDLOOP_SANITIZED() 1
#else
#define HYBRIDLOOP_SANITIZED() 0
#endif
#else
#define HYBRIDLOOP_SANITIZED() 0
#endif

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
#define HYBRIDLOOP_EXCEPTIONS() 1
#else
#define HYBRIDLOOP_EXCEPTIONS() 0
#endif

#if !HYBRIDLOOP_OS(POSIX) && !HYBRIDLOOP_OS(WINDOWS)
#error "hybridloop: knows POSIX systems and Windows only"
#endif
// <<< base/os.hpp

// >>> base/config.hpp - every macro a user may set, an essay each, and the refusal of wrong values
// HYBRIDLOOP_CONFIG_HEADER       a file name in quotes         default: none
//
//   Read before anything below, so that a program keeps its settings in one place.
#if defined(HYBRIDLOOP_CONFIG_HEADER)
#include HYBRIDLOOP_CONFIG_HEADER
#endif

// HYBRIDLOOP_NAMESPACE           a name                        default hybridloop
//
//   For a vendored copy that must not meet another one in the same program.
#ifndef HYBRIDLOOP_NAMESPACE
#define HYBRIDLOOP_NAMESPACE hybridloop
#define HYBRIDLOOP_DEFAULTED_NAMESPACE
#endif

// HYBRIDLOOP_FAST_PATH           full | mini | off             default full
//
//   Where a loop sleeps unless loop_options::path says otherwise. full: on a futex word
//   while nothing is watched, in the poller while something is. mini: only ever on the
//   futex word; a companion thread sleeps in the poller. off: always in the poller.
#ifndef HYBRIDLOOP_FAST_PATH
#define HYBRIDLOOP_FAST_PATH full
#define HYBRIDLOOP_DEFAULTED_FAST_PATH
#endif
#define HYBRIDLOOP_PASTE_(a, b) a##b
#define HYBRIDLOOP_PASTE(a, b) HYBRIDLOOP_PASTE_(a, b)
#define HYBRIDLOOP_KNOWN_SWITCH_0 1
#define HYBRIDLOOP_KNOWN_SWITCH_1 1
#define HYBRIDLOOP_KNOWN_PATH_full 1
#define HYBRIDLOOP_KNOWN_PATH_mini 1
#define HYBRIDLOOP_KNOWN_PATH_off 1
#if !HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_PATH_, HYBRIDLOOP_FAST_PATH)
#error "HYBRIDLOOP_FAST_PATH: write full, mini or off, without quotes"
#endif

// HYBRIDLOOP_NO_IO               0 | 1                         default 0
//
//   1 leaves pollers out, and the headers they need: watch() is refused (ENOTSUP), so is
//   fast_path::off, and all else works. For a program that has its own way to wait for files.
//   Changes the layout: use one value for the whole program.
#ifndef HYBRIDLOOP_NO_IO
#define HYBRIDLOOP_NO_IO 0
#define HYBRIDLOOP_DEFAULTED_NO_IO
#endif
#if !HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_SWITCH_, HYBRIDLOOP_NO_IO)
#error "HYBRIDLOOP_NO_IO: 0 or 1"
#endif

// HYBRIDLOOP_POLLER              auto | epoll | kqueue | windows | poll  default auto
//
//   The kernel interface behind watch(). auto is epoll on Linux, kqueue on macOS and the BSDs, windows on
//   Windows, and poll elsewhere. poll is poll(2), or WSAPoll: each wait costs as much as there are descriptors, and `edge` is told like
//   a level-triggered watch. kqueue on Linux takes a library that brings <sys/event.h>.
//   Changes the layout: use one value for the whole program.
#ifndef HYBRIDLOOP_POLLER
#define HYBRIDLOOP_POLLER auto
#define HYBRIDLOOP_DEFAULTED_POLLER
#endif
#define HYBRIDLOOP_KNOWN_POLLER_auto 1
#define HYBRIDLOOP_KNOWN_POLLER_epoll 2
#define HYBRIDLOOP_KNOWN_POLLER_kqueue 3
#define HYBRIDLOOP_KNOWN_POLLER_poll 4
#define HYBRIDLOOP_KNOWN_POLLER_windows 5
#if !HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_POLLER_, HYBRIDLOOP_POLLER)
#error "HYBRIDLOOP_POLLER: write auto, epoll, kqueue, windows or poll, without quotes"
#endif
#if HYBRIDLOOP_OS(MACOS) || HYBRIDLOOP_OS(FREEBSD) || HYBRIDLOOP_OS(OPENBSD) || HYBRIDLOOP_OS(NETBSD)
#define HYBRIDLOOP_IS_BSD() 1
#else
#define HYBRIDLOOP_IS_BSD() 0
#endif
#if !HYBRIDLOOP_NO_IO && (HYBRIDLOOP_IS_BSD() || HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_POLLER_, HYBRIDLOOP_POLLER) == 3)
#define HYBRIDLOOP_HAS_KQUEUE() 1
#else
#define HYBRIDLOOP_HAS_KQUEUE() 0
#endif
#if HYBRIDLOOP_NO_IO
#define HYBRIDLOOP_SYSTEM_POLLER none_poller
#elif HYBRIDLOOP_OS(WINDOWS) && HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_POLLER_, HYBRIDLOOP_POLLER) != 4
#define HYBRIDLOOP_SYSTEM_POLLER afd_poller
#elif HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_POLLER_, HYBRIDLOOP_POLLER) == 4
#define HYBRIDLOOP_SYSTEM_POLLER poll_poller
#elif HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_POLLER_, HYBRIDLOOP_POLLER) == 3
#define HYBRIDLOOP_SYSTEM_POLLER kqueue_poller
#elif HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_POLLER_, HYBRIDLOOP_POLLER) == 2
#define HYBRIDLOOP_SYSTEM_POLLER epoll_poller
#elif HYBRIDLOOP_OS(LINUX)
#define HYBRIDLOOP_SYSTEM_POLLER epoll_poller
#elif HYBRIDLOOP_IS_BSD()
#define HYBRIDLOOP_SYSTEM_POLLER kqueue_poller
#else
#define HYBRIDLOOP_SYSTEM_POLLER poll_poller
#endif
#if HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_POLLER_, HYBRIDLOOP_POLLER) == 2 && !HYBRIDLOOP_OS(LINUX)
#error "HYBRIDLOOP_POLLER: epoll is Linux's; write auto, kqueue, windows or poll"
#endif
#if HYBRIDLOOP_OS(WINDOWS) && HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_POLLER_, HYBRIDLOOP_POLLER) == 3
#error "HYBRIDLOOP_POLLER: Windows has no kqueue; write auto, windows or poll"
#endif
#if HYBRIDLOOP_HAS_KQUEUE() && !__has_include(<sys/event.h>)
#error "HYBRIDLOOP_POLLER: kqueue needs <sys/event.h>, which on Linux a library brings; write auto, epoll or poll"
#endif
#if HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_POLLER_, HYBRIDLOOP_POLLER) == 5 && !HYBRIDLOOP_OS(WINDOWS)
#error "HYBRIDLOOP_POLLER: windows is for Windows; write auto, epoll, kqueue or poll"
#endif

// HYBRIDLOOP_PARKER              auto | condvar                default auto
//
//   What a thread sleeps on. auto is a word of memory that the kernel knows how to wait for: futex on
//   Linux, OpenBSD and NetBSD, umtx on FreeBSD, os_sync_wait_on_address on macOS 14.4, WaitOnAddress on
//   Windows; and condvar elsewhere. condvar is a table of mutexes and conditions, for POSIX, slower, and out of reach for signal
//   handlers: wake() and stop() are not for them then. Use one value for the whole program.
#ifndef HYBRIDLOOP_PARKER
#define HYBRIDLOOP_PARKER auto
#define HYBRIDLOOP_DEFAULTED_PARKER
#endif
#define HYBRIDLOOP_KNOWN_PARKER_auto 1
#define HYBRIDLOOP_KNOWN_PARKER_condvar 2
#if !HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_PARKER_, HYBRIDLOOP_PARKER)
#error "HYBRIDLOOP_PARKER: write auto or condvar, without quotes"
#endif
#if HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_PARKER_, HYBRIDLOOP_PARKER) == 2 && HYBRIDLOOP_OS(WINDOWS)
#error "HYBRIDLOOP_PARKER: Windows has words to sleep on; write auto"
#endif

// HYBRIDLOOP_RING_CAPACITY       slots, 2 to 2^24              default 4096
//
//   The hot queue between posters and the loop, 64 bytes a slot: 4096 slots stay in a
//   second-level cache. Rounded up to a power of two. Default of loop_options::ring_capacity.
#ifndef HYBRIDLOOP_RING_CAPACITY
#define HYBRIDLOOP_RING_CAPACITY 4096
#define HYBRIDLOOP_DEFAULTED_RING_CAPACITY
#endif
#if HYBRIDLOOP_RING_CAPACITY < 2 || HYBRIDLOOP_RING_CAPACITY > 16777216
#error "HYBRIDLOOP_RING_CAPACITY: between 2 and 16777216 slots"
#endif

// HYBRIDLOOP_ARENA_CAPACITY      blocks, 0 to 2^24             default 65536
//
//   Pre-allocated blocks of 128 bytes into which a full ring spills and which large closures
//   use. Untouched blocks cost address space only. Default of loop_options::arena_capacity.
#ifndef HYBRIDLOOP_ARENA_CAPACITY
#define HYBRIDLOOP_ARENA_CAPACITY 65536
#define HYBRIDLOOP_DEFAULTED_ARENA_CAPACITY
#endif
#if HYBRIDLOOP_ARENA_CAPACITY < 0 || HYBRIDLOOP_ARENA_CAPACITY > 16777216
#error "HYBRIDLOOP_ARENA_CAPACITY: between 0 and 16777216 blocks"
#endif

// HYBRIDLOOP_TASK_SIZE           bytes, a multiple of 16       default 48
//
//   Closures up to this size live in the ring's slot; larger ones take an arena block. 48
//   makes a slot of 64 bytes. Changes the layout: use one value for the whole program, and a
//   plain decimal number (it becomes part of a name).
#ifndef HYBRIDLOOP_TASK_SIZE
#define HYBRIDLOOP_TASK_SIZE 48
#define HYBRIDLOOP_DEFAULTED_TASK_SIZE
#endif
#if HYBRIDLOOP_TASK_SIZE < 32 || HYBRIDLOOP_TASK_SIZE > 1024 || HYBRIDLOOP_TASK_SIZE % 16 != 0
#error "HYBRIDLOOP_TASK_SIZE: a multiple of 16 between 32 and 1024"
#endif

// HYBRIDLOOP_CACHE_LINE          bytes, 32 to 256              default 64
//
//   Distance kept between words written by different threads. Ours rather than
//   std::hardware_destructive_interference_size, which moves with -mtune. Changes the layout.
#ifndef HYBRIDLOOP_CACHE_LINE
#define HYBRIDLOOP_CACHE_LINE 64
#define HYBRIDLOOP_DEFAULTED_CACHE_LINE
#endif
#if HYBRIDLOOP_CACHE_LINE != 32 && HYBRIDLOOP_CACHE_LINE != 64 && HYBRIDLOOP_CACHE_LINE != 128 && \
    HYBRIDLOOP_CACHE_LINE != 256
#error "HYBRIDLOOP_CACHE_LINE: 32, 64, 128 or 256"
#endif

// HYBRIDLOOP_SPIN_NS             nanoseconds, 0 to 1000000     default 20000
//
//   The longest look at empty queues before parking. Adaptive below that, 0 on one CPU. A thread that
//   blocks until its task has run is back with the next one in 7 to 15 us: the default outlasts that.
//   Default of loop_options::spin.
#ifndef HYBRIDLOOP_SPIN_NS
#define HYBRIDLOOP_SPIN_NS 20000
#define HYBRIDLOOP_DEFAULTED_SPIN_NS
#endif
#if HYBRIDLOOP_SPIN_NS < 0 || HYBRIDLOOP_SPIN_NS > 1000000
#error "HYBRIDLOOP_SPIN_NS: between 0 (never spin) and 1000000 (a millisecond)"
#endif

// HYBRIDLOOP_RESCUE_MS           milliseconds, 0 = off         default 0
//
//   A safety period: no sleep lasts longer, and one that ends this way and finds work is
//   counted as loop_stats::rescued. It would hide a lost wake, so it is off.
#ifndef HYBRIDLOOP_RESCUE_MS
#define HYBRIDLOOP_RESCUE_MS 0
#define HYBRIDLOOP_DEFAULTED_RESCUE_MS
#endif
#if HYBRIDLOOP_RESCUE_MS < 0
#error "HYBRIDLOOP_RESCUE_MS: 0 (off) or a positive number of milliseconds"
#endif

// HYBRIDLOOP_STATS               0 | 1                         default 1
//
//   0 leaves loop_stats at zero where counting costs a store of its own or a clock read.
#ifndef HYBRIDLOOP_STATS
#define HYBRIDLOOP_STATS 1
#define HYBRIDLOOP_DEFAULTED_STATS
#endif
#if !HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_SWITCH_, HYBRIDLOOP_STATS)
#error "HYBRIDLOOP_STATS: 0 or 1"
#endif

// HYBRIDLOOP_SYNC_PHASE          0 | 1 | 2 | 3                 default 1
//
//   The queue behind semaphore, condvar and their kin, where none is named. All four behave the same and are always
//   there, as sync::queue0 to sync::queue3: a mutex; a small lock, and none for a single waiter; lock-free;
//   in the waiters' own frames, without memory. README says when each one loses.
#ifndef HYBRIDLOOP_SYNC_PHASE
#define HYBRIDLOOP_SYNC_PHASE 1
#define HYBRIDLOOP_DEFAULTED_SYNC_PHASE
#endif
#define HYBRIDLOOP_KNOWN_PHASE_0 1
#define HYBRIDLOOP_KNOWN_PHASE_1 1
#define HYBRIDLOOP_KNOWN_PHASE_2 1
#define HYBRIDLOOP_KNOWN_PHASE_3 1
#if !HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_PHASE_, HYBRIDLOOP_SYNC_PHASE)
#error "HYBRIDLOOP_SYNC_PHASE: 0, 1, 2 or 3"
#endif
#define HYBRIDLOOP_DEFAULT_QUEUE HYBRIDLOOP_PASTE(queue, HYBRIDLOOP_SYNC_PHASE)

// HYBRIDLOOP_MALLOC, HYBRIDLOOP_FREE     functions             default std::malloc, std::free
//
//   What is not pre-allocated: closures larger than a block or that found none, the tables of
//   descriptors and due timers. Ring, arena, what spills beyond it and timer records come from the
//   kernel in whole pages, because those are zero and cost nothing until touched.
#if defined(HYBRIDLOOP_MALLOC) != defined(HYBRIDLOOP_FREE)
#error "HYBRIDLOOP_MALLOC and HYBRIDLOOP_FREE: define both or neither"
#endif
#ifndef HYBRIDLOOP_MALLOC
#define HYBRIDLOOP_MALLOC ::std::malloc
#define HYBRIDLOOP_FREE ::std::free
#define HYBRIDLOOP_DEFAULTED_MALLOC
#endif

// HYBRIDLOOP_SCHEDULE_POINT(name)        a statement           default: nothing
//
//   Stands in every race window of the default traits, so that a test can stop a thread there.
#ifndef HYBRIDLOOP_SCHEDULE_POINT
#define HYBRIDLOOP_SCHEDULE_POINT(name) static_cast<void>(name)
#define HYBRIDLOOP_DEFAULTED_SCHEDULE_POINT
#endif

// The inline namespace carries the version and the macros that change a layout, what is counted, or who
// wakes whom.
#define HYBRIDLOOP_ABI_(task, line, stats, rescue, poller, parker) \
  v0_1_task##task##_line##line##_s##stats##_r##rescue##_##poller##_##parker##_parker
#define HYBRIDLOOP_ABI_OF(task, line, stats, rescue, poller, parker) \
  HYBRIDLOOP_ABI_(task, line, stats, rescue, poller, parker)
#define HYBRIDLOOP_ABI                                                             \
  HYBRIDLOOP_ABI_OF(HYBRIDLOOP_TASK_SIZE, HYBRIDLOOP_CACHE_LINE, HYBRIDLOOP_STATS, \
                    HYBRIDLOOP_RESCUE_MS, HYBRIDLOOP_SYSTEM_POLLER, HYBRIDLOOP_PARKER)
// What is rare, kept out of what is not; and what runs for every event, kept in one function.
#if defined(__GNUC__) || defined(__clang__)
#define HYBRIDLOOP_OUT_OF_LINE __attribute__((noinline))
#define HYBRIDLOOP_IN_LINE inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define HYBRIDLOOP_OUT_OF_LINE __declspec(noinline)
#define HYBRIDLOOP_IN_LINE __forceinline
#else
#define HYBRIDLOOP_OUT_OF_LINE
#define HYBRIDLOOP_IN_LINE inline
#endif

#define HYBRIDLOOP_OPEN            \
  namespace HYBRIDLOOP_NAMESPACE { \
  inline namespace HYBRIDLOOP_ABI {
#define HYBRIDLOOP_CLOSE \
  }                      \
  }

HYBRIDLOOP_OPEN

// Where a loop may sleep.
enum class fast_path : std::uint8_t { full, mini, off };

namespace detail {

// From here on the code says these; the macros are never spelled again.
inline constexpr std::size_t default_ring_capacity = HYBRIDLOOP_RING_CAPACITY;
inline constexpr std::size_t default_arena_capacity = HYBRIDLOOP_ARENA_CAPACITY;
inline constexpr std::size_t task_size = HYBRIDLOOP_TASK_SIZE;
inline constexpr std::size_t cache_line = HYBRIDLOOP_CACHE_LINE;
inline constexpr std::chrono::nanoseconds default_spin{HYBRIDLOOP_SPIN_NS};
inline constexpr std::int64_t rescue_ns = std::int64_t{HYBRIDLOOP_RESCUE_MS} * 1000000;
inline constexpr bool stats_kept = HYBRIDLOOP_STATS == 1;
inline constexpr fast_path default_path = fast_path::HYBRIDLOOP_FAST_PATH;

// Bounds of one turn, so that nothing starves: what is over waits for the next turn.
inline constexpr std::size_t timers_per_turn = 1024;
inline constexpr std::size_t tasks_per_turn = 1024;
inline constexpr std::size_t microtasks_per_turn = 1024;
inline constexpr std::size_t events_per_turn = 128;

}  // namespace detail

HYBRIDLOOP_CLOSE
// <<< base/config.hpp

// >>> base/contract.hpp - a broken contract stops the program with the sentence that was broken
HYBRIDLOOP_OPEN

// What is called with a sentence when the program cannot go on: a broken contract, or, in a
// build without exceptions, a refusal that would have been thrown. It must not return.
using failure_handler = void (*)(const char* sentence);

namespace detail {

inline std::atomic<failure_handler>& failure_slot() noexcept {
  static std::atomic<failure_handler> slot{nullptr};
  return slot;
}

// Any thread. A handler that returns is followed by abort().
[[noreturn]] inline void fail(const char* sentence) {
  failure_handler handler =
      failure_slot().load(std::memory_order_acquire);  // [handler] what it was set up with
  if (handler != nullptr) handler(sentence);
  std::fputs("hybridloop: ", stderr);
  std::fputs(sentence, stderr);
  std::fputs("\n", stderr);
  std::abort();
}

}  // namespace detail

// Edge [handler]: a handler sees what its installer wrote before installing it (release by the
// exchange, acquire by the load in fail()). Rule: synchronises-with [atomics.order].
//
// Any thread. Returns the handler before it; nullptr is the default, which prints and aborts.
inline failure_handler set_failure_handler(failure_handler handler) noexcept {
  return detail::failure_slot().exchange(handler, std::memory_order_acq_rel);  // [handler]
}

HYBRIDLOOP_CLOSE

// HYBRIDLOOP_CONTRACT(condition, sentence)       a statement   default: fail(sentence)
//
//   Replaceable: map it to your engine's assert, or to nothing.
#ifndef HYBRIDLOOP_CONTRACT
#define HYBRIDLOOP_CONTRACT(condition, sentence) \
  ((condition) ? static_cast<void>(0) : ::HYBRIDLOOP_NAMESPACE::detail::fail(sentence))
#define HYBRIDLOOP_DEFAULTED_CONTRACT
#endif
// <<< base/contract.hpp

// >>> base/error.hpp - refusals: our error codes, how they are thrown, and builds without exceptions
HYBRIDLOOP_OPEN

// What hybridloop itself refuses. What the kernel refuses comes as its own errno in
// std::system_category().
enum class errc {
  closed = 1,        // the loop takes no more
  full,              // no room, and the policy is to fail
  not_found,         // no such timer or watch
  invalid_argument,  // a value outside its range
  unsupported,       // not with this poller, path or build
  wrong_thread,      // another thread is running the loop
};

namespace detail {

class error_category final : public std::error_category {
 public:
  const char* name() const noexcept override { return "hybridloop"; }
  std::string message(int value) const override {
    switch (static_cast<errc>(value)) {
      case errc::closed: return "the loop is closed";
      case errc::full: return "the loop is full";
      case errc::not_found: return "no such timer or watch";
      case errc::invalid_argument: return "a value outside of its range: capacities go up to 16777216, spin is not negative";
      case errc::unsupported: return "not with this poller, path or build";
      case errc::wrong_thread: return "another thread is running the loop";
    }
    return "unknown error";
  }
};

}  // namespace detail

inline const std::error_category& category() noexcept {
  static const detail::error_category instance;
  return instance;
}

inline std::error_code make_error_code(errc value) noexcept {
  return {static_cast<int>(value), category()};
}

namespace detail {

// The way a file was built, as a type. A function whose body depends on it takes it as a
// template parameter: files built differently then each have a copy of their own, and the
// linker never picks one for the other. Types and layouts never depend on it.
template <bool Exceptions, bool Sanitized>
struct build {};
using build_tag = build<HYBRIDLOOP_EXCEPTIONS() == 1, HYBRIDLOOP_SANITIZED() == 1>;

#if HYBRIDLOOP_OS(WINDOWS)
// There the system's category is for numbers that are no errnos.
inline std::error_code system_error_code(int number) noexcept { return {number, std::generic_category()}; }
#else
inline std::error_code system_error_code(int number) noexcept { return {number, std::system_category()}; }
#endif

#if HYBRIDLOOP_EXCEPTIONS()

template <class Build>
[[noreturn]] void refuse(std::error_code code, const char* call) {
  throw std::system_error(code, call);
}

// Runs f; what it throws goes to the handler.
template <class Build, class F, class Handler>
void trap(F&& f, Handler&& handler) {
  try {
    std::forward<F>(f)();
  } catch (...) {
    std::forward<Handler>(handler)(std::current_exception());
  }
}

template <class Build>
[[noreturn]] void rethrow(std::exception_ptr error) {
  std::rethrow_exception(std::move(error));
}

#else

template <class Build>
[[noreturn]] void refuse(std::error_code code, const char* call) {
  if (code == std::errc::not_enough_memory) fail("out of memory");  // for a sentence as well
  const std::string sentence = std::string(call) + ": " + code.message();
  fail(sentence.c_str());
}

template <class Build, class F, class Handler>
void trap(F&& f, Handler&&) {
  std::forward<F>(f)();
}

template <class Build>
[[noreturn]] void rethrow(const std::exception_ptr&) {
  fail("an exception met a build without exceptions");
}

#endif

// Throws what an error_code twin would have answered.
template <class Build>
void throw_if(std::error_code code, const char* call) {
  if (code) refuse<Build>(code, call);
}

}  // namespace detail

HYBRIDLOOP_CLOSE

template <>
struct std::is_error_code_enum<HYBRIDLOOP_NAMESPACE::errc> : std::true_type {};
// <<< base/error.hpp

// >>> base/clock.hpp - time inside the library: absolute nanoseconds that saturate, never overflow
HYBRIDLOOP_OPEN
namespace detail {

// Nanoseconds since the epoch of the loop's clock, or a span of them.
using nanos = std::int64_t;
inline constexpr nanos never = (std::numeric_limits<nanos>::max)();
inline constexpr nanos long_ago = (std::numeric_limits<nanos>::min)();

constexpr nanos saturating_add(nanos a, nanos b) noexcept {
  if (b > 0 && a > never - b) return never;
  if (b < 0 && a < long_ago - b) return long_ago;
  return a + b;
}

// None where the clock was set back.
constexpr nanos time_between(nanos begin, nanos end) noexcept { return end > begin ? end - begin : 0; }

// Rounded up, so that nothing is ever early; what does not fit is `never` or long ago.
template <class Rep, class Period>
constexpr nanos to_nanos(std::chrono::duration<Rep, Period> d) noexcept {
  using given = std::chrono::duration<Rep, Period>;
  if constexpr (std::is_floating_point_v<Rep>) {
    const auto exact = std::chrono::duration<long double, std::nano>(d).count();
    if (!(exact < 9.2e18L)) return never;
    if (exact < -9.2e18L) return long_ago;
    const auto whole = static_cast<nanos>(exact);
    return static_cast<long double>(whole) < exact ? whole + 1 : whole;
  } else {
    using scale = std::ratio_divide<Period, std::nano>;
    constexpr auto num = static_cast<std::uint64_t>(scale::num);
    constexpr auto den = static_cast<std::uint64_t>(scale::den);
    const bool past = std::is_signed_v<Rep> && d < given::zero();
    const auto count = static_cast<std::uint64_t>(d.count());
    const std::uint64_t size = past ? 0 - count : count;
    if (size / den >= static_cast<std::uint64_t>(never) / num) return past ? long_ago : never;
    const std::uint64_t rest = size % den * num + (past ? 0 : den - 1);
    const auto whole = static_cast<nanos>(size / den * num + rest / den);
    return past ? -whole : whole;
  }
}

template <class Clock, class Duration>
constexpr nanos to_nanos(std::chrono::time_point<Clock, Duration> t) noexcept {
  using point = std::chrono::time_point<Clock, Duration>;
  return t == (point::max)() ? never : to_nanos(t.time_since_epoch());
}

template <class Clock>
typename Clock::time_point from_nanos(nanos t) noexcept {
  using duration = typename Clock::duration;
  if (t == never) return (Clock::time_point::max)();
  return typename Clock::time_point(
      std::chrono::duration_cast<duration>(std::chrono::nanoseconds(t)));
}

template <class Clock>
nanos read_clock() noexcept {
  return to_nanos(Clock::now());
}

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< base/clock.hpp

// >>> base/bits.hpp - the highest and the lowest bit of a word
#if defined(_MSC_VER) && defined(_WIN64)
#include <intrin.h>
#endif

HYBRIDLOOP_OPEN
namespace detail {

// Both want a word that is not zero.
#if defined(__GNUC__) || defined(__clang__)
inline std::uint32_t highest_bit(std::uint64_t v) noexcept {
  return 63u - static_cast<std::uint32_t>(__builtin_clzll(v));
}
inline std::uint32_t lowest_bit(std::uint64_t v) noexcept {
  return static_cast<std::uint32_t>(__builtin_ctzll(v));
}
#elif defined(_MSC_VER) && defined(_WIN64)
inline std::uint32_t highest_bit(std::uint64_t v) noexcept {
  unsigned long bit;
  _BitScanReverse64(&bit, v);
  return bit;
}
inline std::uint32_t lowest_bit(std::uint64_t v) noexcept {
  unsigned long bit;
  _BitScanForward64(&bit, v);
  return bit;
}
#else
inline std::uint32_t highest_bit(std::uint64_t v) noexcept {
  std::uint32_t bit = 0;
  while ((v >>= 1) != 0) ++bit;
  return bit;
}
inline std::uint32_t lowest_bit(std::uint64_t v) noexcept { return highest_bit(v & (~v + 1)); }
#endif

inline std::size_t round_up_to_power_of_two(std::size_t n) noexcept {
  return n <= 2 ? 2 : std::size_t{1} << (highest_bit(n - 1) + 1);
}

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< base/bits.hpp

// >>> base/pause.hpp - one polite step of a spin
#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#include <intrin.h>
#endif

HYBRIDLOOP_OPEN
namespace detail {

// 10 to 140 cycles, by the CPU: spins are bounded by time, never by a count of these.
#if defined(__x86_64__) || defined(__i386__)
inline void cpu_pause() noexcept { __builtin_ia32_pause(); }
#elif defined(__aarch64__) || defined(__arm__)
inline void cpu_pause() noexcept { __asm__ __volatile__("yield" ::: "memory"); }
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
inline void cpu_pause() noexcept { _mm_pause(); }
#else
inline void cpu_pause() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }  // ours alone
#endif

// The line is about to be written, or read, by this thread: it may begin to travel. (GCC and clang mean
// `prefetchw` only where they are told of it; every x86-64 has it or takes it for nothing.)
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
inline void prefetch_to_write(const void* p) noexcept {
  __asm__ __volatile__("{prefetchw (%0)|prefetchw BYTE PTR [%0]}" : : "r"(p));
}
#elif defined(__GNUC__) || defined(__clang__)
inline void prefetch_to_write(const void* p) noexcept { __builtin_prefetch(p, 1); }
#else
inline void prefetch_to_write(const void*) noexcept {}
#endif

// Spins too short for the clock, which costs as much as they last, count pauses, whose length is
// measured once. The fastest of a few tries: one that was interrupted looks slow.
inline std::uint32_t measure_pauses() noexcept {
  using clock = std::chrono::steady_clock;
  constexpr std::uint32_t pauses = 32;
  std::int64_t fastest = 1 << 20;
  for (int tries = 0; tries < 8; ++tries) {
    const auto begin = clock::now();
    for (std::uint32_t i = 0; i < pauses; ++i) cpu_pause();
    const auto span = std::chrono::nanoseconds(clock::now() - begin).count();
    if (span > 0 && span < fastest) fastest = span;
  }
  return static_cast<std::uint32_t>(1024 * pauses / fastest) + 1;
}
inline std::uint32_t& pauses_per_1024_ns() noexcept {
  static std::uint32_t count = measure_pauses();
  return count;
}
inline std::uint32_t pauses_in(std::uint32_t ns) noexcept { return ns * pauses_per_1024_ns() / 1024 + 1; }

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< base/pause.hpp

// >>> base/handle.hpp - the small names users hold: descriptors, timers, watches
HYBRIDLOOP_OPEN

#if HYBRIDLOOP_OS(WINDOWS)
// A SOCKET, or a HANDLE cast to a number.
using native_handle = std::intptr_t;
#else
// A file descriptor.
using native_handle = int;
#endif

namespace detail {

// How far apart the system gives out their numbers, from 0 on.
#if HYBRIDLOOP_OS(WINDOWS)
inline constexpr std::size_t handle_step = 4;
#else
inline constexpr std::size_t handle_step = 1;
#endif

// An entry of a table and the generation it was handed out in; generation 0 is nobody.
template <class Kind>
class id {
 public:
  constexpr id() noexcept = default;
  constexpr id(std::uint32_t index, std::uint32_t generation) noexcept
      : index_(index), generation_(generation) {}

  constexpr explicit operator bool() const noexcept { return generation_ != 0; }
  constexpr std::uint32_t index() const noexcept { return index_; }
  constexpr std::uint32_t generation() const noexcept { return generation_; }

  friend constexpr bool operator==(id a, id b) noexcept {
    return a.index_ == b.index_ && a.generation_ == b.generation_;
  }
  friend constexpr bool operator!=(id a, id b) noexcept { return !(a == b); }
  friend constexpr bool operator<(id a, id b) noexcept { return a.packed() < b.packed(); }

  constexpr std::uint64_t packed() const noexcept {
    return std::uint64_t{generation_} << 32 | index_;
  }

 private:
  std::uint32_t index_ = 0;
  std::uint32_t generation_ = 0;
};

}  // namespace detail

// Trivially copyable, comparable, false in a condition when default-made.
struct timer_id : detail::id<timer_id> {
  using detail::id<timer_id>::id;
};
struct watch_id : detail::id<watch_id> {
  using detail::id<watch_id>::id;
};

HYBRIDLOOP_CLOSE

template <>
struct std::hash<HYBRIDLOOP_NAMESPACE::timer_id> {
  std::size_t operator()(HYBRIDLOOP_NAMESPACE::timer_id id) const noexcept {
    return std::hash<std::uint64_t>()(id.packed());
  }
};
template <>
struct std::hash<HYBRIDLOOP_NAMESPACE::watch_id> {
  std::size_t operator()(HYBRIDLOOP_NAMESPACE::watch_id id) const noexcept {
    return std::hash<std::uint64_t>()(id.packed());
  }
};
// <<< base/handle.hpp

// >>> task/unique_task.hpp - a closure that is called, moved and destroyed, and never copied
HYBRIDLOOP_OPEN
namespace detail {

// Where closures that do not fit inline come from; the arena of a loop is one.
class block_source {
 public:
  // nullptr when there is no memory at all. Any thread.
  virtual void* take(std::size_t bytes, std::size_t alignment) noexcept = 0;
  virtual void give(void* memory, std::size_t bytes, std::size_t alignment) noexcept = 0;

 protected:
  ~block_source() = default;
};

// A closure that the loop sends to itself: it runs in line with tasks and is not counted as one.
struct command_base {};

// A move-only closure of `Args...` with room for task_size bytes inside.
//
// Closures that are larger, over-aligned, or whose move may throw live in a block of their own;
// so a basic_task always moves without throwing, and a closure in a ring slot never moves.
template <class... Args>
class basic_task {
  static constexpr std::size_t alignment = 8;  // of a double too, where i386 asks for 4

 public:
  basic_task() noexcept = default;
  basic_task(basic_task&& other) noexcept { steal(other); }
  basic_task& operator=(basic_task&& other) noexcept {
    if (this != &other) {
      reset();
      steal(other);
    }
    return *this;
  }
  ~basic_task() { reset(); }

  template <class F>
  static constexpr bool fits = sizeof(F) <= task_size && alignof(F) <= alignment &&
                               std::is_nothrow_move_constructible_v<F>;

  // The closure's memory, had before anything is claimed for it; given back unless used.
  template <class F>
  class room {
   public:
    explicit room(block_source& home) : home_(home) {
      if constexpr (!fits<F>) memory_ = home.take(sizeof(F), alignof(F));
    }
    room(const room&) = delete;
    room& operator=(const room&) = delete;
    ~room() { give_back(); }
    // What was not used; touches nothing otherwise.
    void give_back() noexcept {
      if constexpr (!fits<F>) {
        if (memory_ != nullptr) home_.give(std::exchange(memory_, nullptr), sizeof(F), alignof(F));
      }
    }
    bool had() const noexcept { return fits<F> || memory_ != nullptr; }

   private:
    friend class basic_task;
    block_source& home_;
    void* memory_ = nullptr;
  };

  // The task is empty before, and still is if the closure's constructor throws.
  template <class F, class Given>
  void emplace(room<F>& place, Given&& f) {
    if constexpr (fits<F>) {
      construct<F>(std::forward<Given>(f));
    } else {
      F* made = ::new (place.memory_) F(std::forward<Given>(f));
      place.memory_ = nullptr;
      construct<boxed<F>>(boxed<F>(made, place.home_));
    }
    constexpr bool own = std::is_base_of_v<command_base, F>;
    ops_ = &table<std::conditional_t<fits<F>, F, boxed<F>>, own>;
  }

  explicit operator bool() const noexcept { return ops_ != nullptr; }
  bool counted() const noexcept { return ops_ != nullptr && !ops_->command; }
  void operator()(Args... args) { ops_->call(storage_, std::forward<Args>(args)...); }

  void reset() noexcept {
    if (ops_ == nullptr) return;
    const operations* was = std::exchange(ops_, nullptr);
    if (was->destroy != nullptr) was->destroy(storage_);
  }

  // For a task in a slot that producers write and the loop thread only reads, so that the line
  // never travels back dirty: destroyed without a mark, and marked empty before it is built again.
  void destroy_unmarked() noexcept {
    if (ops_ != nullptr && ops_->destroy != nullptr) ops_->destroy(storage_);
  }
  void mark_empty() noexcept { ops_ = nullptr; }

 private:
  struct operations {
    void (*call)(void*, Args...);
    void (*relocate)(void* from, void* to) noexcept;
    void (*destroy)(void*) noexcept;  // nullptr: nothing to do
    bool command;
  };

  template <class F>
  class boxed {
   public:
    boxed(F* object, block_source& home) noexcept : object_(object), home_(&home) {}
    boxed(boxed&& other) noexcept
        : object_(std::exchange(other.object_, nullptr)), home_(other.home_) {}
    boxed& operator=(boxed&&) = delete;
    ~boxed() {
      if (object_ == nullptr) return;
      object_->~F();
      home_->give(object_, sizeof(F), alignof(F));
    }
    void operator()(Args... args) { (*object_)(std::forward<Args>(args)...); }

   private:
    F* object_;
    block_source* home_;
  };

  template <class F>
  static void call(void* where, Args... args) {
    (*static_cast<F*>(where))(std::forward<Args>(args)...);
  }
  template <class F>
  static void relocate(void* from, void* to) noexcept {
    F* old = static_cast<F*>(from);
    ::new (to) F(std::move(*old));
    old->~F();
  }
  template <class F>
  static void destroy(void* where) noexcept {
    static_cast<F*>(where)->~F();
  }
  template <class F, bool Command>
  static constexpr operations table{
      &call<F>, &relocate<F>, std::is_trivially_destructible_v<F> ? nullptr : &destroy<F>, Command};

  template <class F, class Given>
  void construct(Given&& f) {
    ::new (static_cast<void*>(storage_)) F(std::forward<Given>(f));
  }

  void steal(basic_task& other) noexcept {
    if (other.ops_ == nullptr) return;
    other.ops_->relocate(other.storage_, storage_);
    ops_ = std::exchange(other.ops_, nullptr);
  }

  const operations* ops_ = nullptr;
  alignas(alignment) unsigned char storage_[task_size];
};

using unique_task = basic_task<>;

static_assert(sizeof(unique_task) <= task_size + 8, "a task and its lap fill a ring slot exactly");

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< task/unique_task.hpp

// >>> task/memory.hpp - the heap behind the arena, replaceable by HYBRIDLOOP_MALLOC
HYBRIDLOOP_OPEN
namespace detail {

// nullptr when there is none. Any alignment: what malloc does not promise is made room for, and
// the address malloc gave stands in front of the one handed out.
inline void* heap_take(std::size_t bytes, std::size_t alignment) noexcept {
  constexpr std::size_t usual = alignof(std::max_align_t);
  if (alignment <= usual) return HYBRIDLOOP_MALLOC(bytes);
  void* raw = HYBRIDLOOP_MALLOC(bytes + alignment + sizeof(void*));
  if (raw == nullptr) return nullptr;
  const auto first = reinterpret_cast<std::uintptr_t>(raw) + sizeof(void*);
  const auto aligned = (first + alignment - 1) / alignment * alignment;
  std::memcpy(reinterpret_cast<void*>(aligned - sizeof(void*)), &raw, sizeof(void*));
  return reinterpret_cast<void*>(aligned);
}

inline void heap_give(void* memory, std::size_t alignment) noexcept {
  if (alignment > alignof(std::max_align_t)) {
    void* raw = nullptr;
    std::memcpy(&raw, static_cast<unsigned char*>(memory) - sizeof(void*), sizeof(void*));
    memory = raw;
  }
  HYBRIDLOOP_FREE(memory);
}

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< task/memory.hpp

// >>> task/plain_array.hpp - plain values on the heap, by number
HYBRIDLOOP_OPEN
namespace detail {

// Zero until they are set; it only grows. One thread at a time.
template <class T>
class plain_array {
  static_assert(std::is_trivially_copyable_v<T>, "it is moved by memcpy");

 public:
  plain_array() noexcept = default;
  plain_array(const plain_array&) = delete;
  plain_array& operator=(const plain_array&) = delete;
  ~plain_array() {
    if (data_ != nullptr) heap_give(data_, alignof(T));
  }

  std::size_t room() const noexcept { return room_; }
  T* data() noexcept { return data_; }
  T& operator[](std::size_t i) noexcept { return data_[i]; }
  const T& operator[](std::size_t i) const noexcept { return data_[i]; }

  // Makes room for so many. False when there is no memory.
  bool reach(std::size_t count) noexcept {
    if (count <= room_) return true;
    std::size_t wider = room_ == 0 ? 32 : room_ * 2;
    while (wider < count) wider *= 2;
    void* memory = heap_take(wider * sizeof(T), alignof(T));
    if (memory == nullptr) return false;
    if (room_ != 0) std::memcpy(memory, data_, room_ * sizeof(T));
    std::memset(static_cast<unsigned char*>(memory) + room_ * sizeof(T), 0, (wider - room_) * sizeof(T));
    if (data_ != nullptr) heap_give(data_, alignof(T));
    data_ = static_cast<T*>(memory);
    room_ = wider;
    return true;
  }

  void swap(plain_array& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(room_, other.room_);
  }
  void zero() noexcept {
    if (room_ != 0) std::memset(static_cast<void*>(data_), 0, room_ * sizeof(T));
  }
  // What it holds belongs to nobody from here on.
  void leave_behind() noexcept {
    data_ = nullptr;
    room_ = 0;
  }

 private:
  T* data_ = nullptr;
  std::size_t room_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< task/plain_array.hpp

// >>> task/fifo.hpp - a growing queue of tasks for the loop thread alone
HYBRIDLOOP_OPEN
namespace detail {

// A circle of tasks that doubles when it is full and never shrinks: no allocation in steady
// state. Deferred tasks and microtasks wait here. The loop thread only.
class task_fifo {
 public:
  task_fifo() = default;
  task_fifo(const task_fifo&) = delete;
  task_fifo& operator=(const task_fifo&) = delete;
  ~task_fifo() {
    clear();
    if (slots_ != nullptr) heap_give(slots_, alignof(unique_task));
  }

  bool empty() const noexcept { return head_ == tail_; }
  std::size_t size() const noexcept { return tail_ - head_; }

  // For one more. False: there is no memory for it.
  bool make_room() noexcept { return size() != capacity_ || grow(); }

  // There is room.
  void push(unique_task&& task) noexcept {
    ::new (static_cast<void*>(&slots_[tail_ & (capacity_ - 1)])) unique_task(std::move(task));
    ++tail_;
  }

  unique_task pop() noexcept {
    unique_task& front = slots_[head_ & (capacity_ - 1)];
    unique_task task(std::move(front));
    front.~unique_task();
    ++head_;
    return task;
  }

  void clear() noexcept {
    while (!empty()) pop();
  }

 private:
  bool grow() noexcept {
    const std::size_t wider = capacity_ == 0 ? 16 : capacity_ * 2;
    void* memory = heap_take(wider * sizeof(unique_task), alignof(unique_task));
    if (memory == nullptr) return false;
    auto* larger = static_cast<unique_task*>(memory);
    std::size_t count = 0;
    for (; !empty(); ++count) ::new (static_cast<void*>(&larger[count])) unique_task(pop());
    if (slots_ != nullptr) heap_give(slots_, alignof(unique_task));
    slots_ = larger;
    capacity_ = wider;
    head_ = 0;
    tail_ = count;
    return true;
  }

  unique_task* slots_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t head_ = 0;
  std::size_t tail_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< task/fifo.hpp

// >>> task/index_stack.hpp - a lock-free stack of free indices, for tables whose entries never move
HYBRIDLOOP_OPEN
namespace detail {

// Treiber's stack (R. K. Treiber, 1986) over indices instead of pointers. The head carries the
// number of pops beside the index, so a pop that slept while its entry went out and came back
// (ABA) fails and looks again; the links are atomics that are never part of an entry's payload.
//
// Edge [free]: who takes an index sees everything its last holder did to the entry.
//
//   holder                                  taker
//   F1  head: CAS in, release               F2  head: load or failed CAS, acquire
//
// Rule: every change of the head is a read-modify-write, so F2 meets F1 through any number of pushes
// and pops in between (they continue its release sequence, [intro.races]).
//
// Any thread: everything.
template <class Traits>
class index_stack {
 public:
  static constexpr std::uint32_t none = 0xffffffff;

  // `link_of(i)` is the atomic link of entry i.
  template <class LinkOf>
  std::uint32_t pop(LinkOf&& link_of) noexcept {
    std::uint64_t head = head_.load(std::memory_order_seq_cst);  // [free] F2, [room] R2
    for (;;) {
      const auto top = static_cast<std::uint32_t>(head);
      if (top == 0) return none;
      const std::uint64_t next = link_of(top - 1).load(std::memory_order_relaxed);  // a hint; the CAS decides
      const std::uint64_t pops = (head >> 32) + 1;
      if (head_.compare_exchange_weak(head, pops << 32 | next, std::memory_order_acquire,  // [free] F2
                                      std::memory_order_acquire)) {  // [free] F2
        return top - 1;
      }
    }
  }

  // A chain whose links the caller has set from `first` on, in one step; what was on top follows
  // `last`. seq_cst because [room] counts on it: a poster that waits for a block looks for one here.
  template <class LinkOf>
  void push_chain(std::uint32_t first, std::uint32_t last, LinkOf&& link_of) noexcept {
    std::uint64_t head = head_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      link_of(last).store(static_cast<std::uint32_t>(head), std::memory_order_relaxed);  // ours alone until the CAS
      const std::uint64_t next = (head >> 32) << 32 | (first + 1);
      if (head_.compare_exchange_weak(head, next, std::memory_order_seq_cst,  // [free] F1, [room] R3
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return;
      }
    }
  }
  template <class LinkOf>
  void push(std::uint32_t index, LinkOf&& link_of) noexcept {
    push_chain(index, index, link_of);
  }

  // Before push_chain: `next` follows `index`, which nobody else can reach yet.
  template <class LinkOf>
  static void chain(std::uint32_t index, std::uint32_t next, LinkOf&& link_of) noexcept {
    link_of(index).store(next + 1, std::memory_order_relaxed);  // ours alone until the CAS
  }

  // Number of pops so far, modulo 2^32.
  std::uint32_t pops() const noexcept {
    return static_cast<std::uint32_t>(head_.load(std::memory_order_relaxed) >> 32);  // a hint; statistics
  }

 private:
  typename Traits::template atomic<std::uint64_t> head_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< task/index_stack.hpp

// >>> task/slab.hpp - a growing table whose entries never move and are named by index and generation
HYBRIDLOOP_OPEN
namespace detail {

// Chunks of 64, 128, 256, ... entries, mapped when first needed and kept until the table goes, so
// that any thread may look an index up at any time. Entry needs an atomic<uint32_t> `next_free`.
//
// Zeroed: an entry is valid as zeroed memory, needs no destructor and does not know its index. Then its
// memory is not touched before it is used.
//
// Edge [chunk]: who is given an index finds its chunk. G1 the chunk is built and its pointer set
// by CAS, release; G2 every look-up loads the pointer, acquire. Rule: synchronises-with [atomics.order].
//
// Any thread: take, give, find.
template <class Traits, class Entry, bool Zeroed = false>
class slab {
  template <class T>
  using atomic = typename Traits::template atomic<T>;
  using stack = index_stack<Traits>;

 public:
  static constexpr std::uint32_t none = stack::none;

  slab() noexcept = default;
  slab(const slab&) = delete;
  slab& operator=(const slab&) = delete;
  ~slab() {
    for (std::uint32_t k = 0; k < chunks; ++k) {
      Entry* chunk = chunks_[k].load(std::memory_order_relaxed);  // ours alone: nobody else is left
      if (chunk == nullptr) continue;
      destroy(chunk, k);
      Traits::kernel::unmap(chunk, bytes_of(k));
    }
  }

  // An index nobody holds, or `none` when there is no memory.
  std::uint32_t take() noexcept {
    const std::uint32_t old = free_.pop(link_of());
    if (old != none) return old;
    std::uint32_t fresh = fresh_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (fresh < limit && reach(chunk_of(fresh))) {
      if (fresh_.compare_exchange_weak(fresh, fresh + 1, std::memory_order_relaxed)) return fresh;  // ours alone: a number nobody had
    }
    return none;
  }

  void give(std::uint32_t index) noexcept { free_.push(index, link_of()); }

  // The same for many in one step, linked from `first` on by the one who holds them all.
  void chain(std::uint32_t index, std::uint32_t next) noexcept { stack::chain(index, next, link_of()); }
  void give_chain(std::uint32_t first, std::uint32_t last) noexcept {
    free_.push_chain(first, last, link_of());
  }

  // nullptr for an index that was never handed out.
  Entry* find(std::uint32_t index) noexcept {
    if (index >= limit) return nullptr;
    const std::uint32_t k = chunk_of(index);
    Entry* chunk = chunks_[k].load(std::memory_order_acquire);  // [chunk] G2
    return chunk == nullptr ? nullptr : chunk + (index - first_of(k));
  }
  Entry& at(std::uint32_t index) noexcept { return *find(index); }

  // Every entry that was ever in a chunk; the caller tells live ones apart.
  template <class F>
  void for_each(F&& f) {
    for (std::uint32_t k = 0; k < chunks; ++k) {
      Entry* chunk = chunks_[k].load(std::memory_order_acquire);  // [chunk] G2
      if (chunk == nullptr) continue;
      for (std::size_t i = 0; i < entries_of(k); ++i) f(chunk[i]);
    }
  }

 private:
  static constexpr std::uint32_t first_bits = 6;
  static constexpr std::uint32_t chunks = 22;
  static constexpr std::uint32_t limit = ((1u << chunks) - 1) << first_bits;

  static constexpr std::size_t entries_of(std::uint32_t k) noexcept {
    return std::size_t{1} << (k + first_bits);
  }
  static constexpr std::size_t bytes_of(std::uint32_t k) noexcept {
    return entries_of(k) * sizeof(Entry);
  }
  static constexpr std::uint32_t first_of(std::uint32_t k) noexcept {
    return ((1u << k) - 1) << first_bits;
  }
  static std::uint32_t chunk_of(std::uint32_t index) noexcept {
    return highest_bit((index >> first_bits) + 1);
  }

  auto link_of() noexcept {
    return [this](std::uint32_t index) -> atomic<std::uint32_t>& { return at(index).next_free; };
  }

  static void build(Entry* chunk, std::uint32_t k) noexcept {
    if constexpr (!Zeroed) {
      for (std::size_t i = 0; i < entries_of(k); ++i) {
        Entry* made = ::new (static_cast<void*>(chunk + i)) Entry;
        made->index = first_of(k) + static_cast<std::uint32_t>(i);
      }
    }
  }
  static void destroy(Entry* chunk, std::uint32_t k) noexcept {
    if constexpr (!Zeroed) {
      for (std::size_t i = 0; i < entries_of(k); ++i) chunk[i].~Entry();
    }
  }

  bool reach(std::uint32_t k) noexcept {
    if (chunks_[k].load(std::memory_order_acquire) != nullptr) return true;  // [chunk] G2
    void* memory = Traits::kernel::map(bytes_of(k));
    if (memory == nullptr) return chunks_[k].load(std::memory_order_acquire) != nullptr;  // [chunk] G2
    auto* mine = static_cast<Entry*>(memory);
    build(mine, k);
    Entry* expected = nullptr;
    if (chunks_[k].compare_exchange_strong(expected, mine, std::memory_order_acq_rel)) return true;  // [chunk] G1
    destroy(mine, k);
    Traits::kernel::unmap(memory, bytes_of(k));
    return true;
  }

  atomic<Entry*> chunks_[chunks] = {};
  stack free_;
  atomic<std::uint32_t> fresh_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< task/slab.hpp

// >>> task/arena.hpp - pre-allocated blocks for tasks that the ring cannot hold
HYBRIDLOOP_OPEN
namespace detail {

inline constexpr std::size_t block_size = task_size <= 80 ? 128 : (task_size + 48 + 63) / 64 * 64;

// A fixed number of blocks, taken and given back by any thread without a lock. Blocks that were
// never used are taken in order, so an arena that is never needed touches no memory. When it is used
// up, tasks that spill go into a table that grows and is kept for the next crowd. Behind both stands
// the heap, for what closures need beyond that.
template <class Traits>
class arena final : public block_source {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using link = atomic<std::uint32_t>;

  // Bytes of zeroed memory for `capacity` blocks and their links, aligned to a cache line.
  static constexpr std::size_t bytes(std::size_t capacity) noexcept {
    return capacity * (block_size + sizeof(link));
  }

  arena(void* zeroed, std::size_t capacity) noexcept
      : blocks_(static_cast<unsigned char*>(zeroed)),
        links_(reinterpret_cast<link*>(blocks_ + capacity * block_size)),
        capacity_(static_cast<std::uint32_t>(capacity)) {}

  // A block, or nullptr when all are in use.
  void* take_block() noexcept {
    const std::uint32_t index = free_.pop(link_of());
    if (index != stack::none) return blocks_ + std::size_t{index} * block_size;
    std::uint32_t fresh = fresh_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (fresh < capacity_) {
      if (fresh_.compare_exchange_weak(fresh, fresh + 1, std::memory_order_relaxed)) {  // ours alone: a block nobody had
        return blocks_ + std::size_t{fresh} * block_size;
      }
    }
    return nullptr;
  }

  void give_block(void* block) noexcept {
    const std::uint32_t index = index_of(block);
    give_chain(index, index, 1);
  }

  // Memory for one more spilled task, of all that a block has but a word, and its number; nullptr when
  // the system has none.
  void* take_spare(std::uint32_t& number) noexcept {
    const std::uint32_t index = spares_.take();
    if (index == spares_.none) return nullptr;
    heap_tasks_.fetch_add(1, std::memory_order_relaxed);  // a hint; statistics
    number = index + 1;
    return spares_.at(index).memory;
  }
  void give_spare(std::uint32_t number) noexcept { spares_.give(number - 1); }

  // Blocks on their way back, gathered by one thread and given in one step, in the order in which
  // they were used: whoever takes them next walks through memory in that order again.
  class returning {
   public:
    void add(arena& home, void* block) noexcept {
      blocks_.add(home.index_of(block), [&home](std::uint32_t last, std::uint32_t next) {
        stack::chain(last, next, home.link_of());
      });
    }
    void add_spare(arena& home, std::uint32_t number) noexcept {
      spares_.add(number - 1, [&home](std::uint32_t last, std::uint32_t next) {
        home.spares_.chain(last, next);
      });
    }
    void give(arena& home) noexcept {
      if (blocks_.count != 0) home.give_chain(blocks_.first, blocks_.last, std::exchange(blocks_.count, 0));
      if (spares_.count == 0) return;
      spares_.count = 0;
      home.spares_.give_chain(spares_.first, spares_.last);
    }

   private:
    struct chain {
      template <class Link>
      void add(std::uint32_t index, const Link& link) noexcept {
        if (count == 0) {
          first = index;
        } else {
          link(last, index);
        }
        last = index;
        ++count;
      }
      std::uint32_t first = 0;
      std::uint32_t last = 0;
      std::uint32_t count = 0;
    };
    chain blocks_;
    chain spares_;
  };

  // A block if one is left and large enough, else from the heap, counted.
  void* take(std::size_t size, std::size_t alignment) noexcept override {
    if (size <= block_size && alignment <= block_alignment) {
      if (void* block = take_block()) return block;
    }
    heap_tasks_.fetch_add(1, std::memory_order_relaxed);  // a hint; statistics
    return heap_take(size, alignment);
  }

  void give(void* memory, std::size_t, std::size_t alignment) noexcept override {
    if (owns(memory)) {
      give_block(memory);
    } else {
      heap_give(memory, alignment);
    }
  }

  bool owns(const void* memory) const noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    const auto first = reinterpret_cast<std::uintptr_t>(blocks_);
    return address >= first && address - first < std::size_t{capacity_} * block_size;
  }

  // Any thread; exact while nobody takes or gives, and never more than there were.
  std::size_t in_use() const noexcept {
    const std::uint32_t took = taken();
    const std::uint32_t used = took - given_.load(std::memory_order_relaxed);  // a hint; statistics
    return used <= capacity_ ? used : 0;  // more was given since than had been taken
  }
  std::size_t high() const noexcept {
    const std::size_t highest = high_.load(std::memory_order_relaxed);  // a hint; statistics
    const std::size_t now = in_use();
    return now > highest ? now : highest;
  }
  std::uint64_t heap_tasks() const noexcept {
    return heap_tasks_.load(std::memory_order_relaxed);  // a hint; statistics
  }

 private:
  using stack = index_stack<Traits>;
  static constexpr std::size_t block_alignment = 64;

  struct spare {
    link next_free;
    alignas(std::uint64_t) unsigned char memory[block_size - sizeof(std::uint64_t)];
  };

  std::uint32_t index_of(const void* block) const noexcept {
    const auto offset = static_cast<std::size_t>(static_cast<const unsigned char*>(block) - blocks_);
    return static_cast<std::uint32_t>(offset / block_size);
  }
  void give_chain(std::uint32_t first, std::uint32_t last, std::uint32_t count) noexcept {
    const std::uint32_t took = taken();  // first: what is taken meanwhile may be what others gave
    raise_high(took - given_.fetch_add(count, std::memory_order_relaxed));  // a hint; statistics
    free_.push_chain(first, last, link_of());
  }

  auto link_of() noexcept {
    return [this](std::uint32_t index) -> link& { return links_[index]; };
  }
  std::uint32_t taken() const noexcept {
    return free_.pops() + fresh_.load(std::memory_order_relaxed);  // a hint; statistics
  }
  // The number in use only falls when a block is given back, so looking here misses no peak.
  void raise_high(std::uint32_t used) noexcept {
    std::uint32_t high = high_.load(std::memory_order_relaxed);  // a hint; statistics
    while (used > high && used <= capacity_ &&
           !high_.compare_exchange_weak(high, used, std::memory_order_relaxed)) {  // a hint; statistics
    }
  }

  unsigned char* const blocks_;
  link* const links_;
  const std::uint32_t capacity_;

  alignas(cache_line) stack free_;
  atomic<std::uint32_t> fresh_{0};
  alignas(cache_line) atomic<std::uint32_t> given_{0};
  atomic<std::uint32_t> high_{0};
  alignas(cache_line) atomic<std::uint64_t> heap_tasks_{0};
  slab<Traits, spare, true> spares_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< task/arena.hpp

// >>> wait/kernel_kqueue.hpp - kqueue(2) as one poller calls it, over the differences of its systems
#if HYBRIDLOOP_HAS_KQUEUE()
#include <errno.h>
#include <fcntl.h>
#include <sys/types.h>
#include <sys/event.h>
#include <sys/select.h>
#include <sys/time.h>
#include <unistd.h>
#endif

HYBRIDLOOP_OPEN
namespace detail {

#if HYBRIDLOOP_HAS_KQUEUE()
struct kqueue_calls {
  using kernel_event = struct kevent;
  using kernel_filter = decltype(kernel_event::filter);

  // A library on top of another kernel has its descriptors copied by a fork.
  static constexpr bool kqueue_is_inherited = HYBRIDLOOP_OS(LINUX);

  static constexpr kernel_filter filter_read = EVFILT_READ;
  static constexpr kernel_filter filter_write = EVFILT_WRITE;
  static constexpr kernel_filter filter_user = EVFILT_USER;
#if defined(EVFILT_EXCEPT) && defined(NOTE_OOB)
  static constexpr bool kqueue_hears_priority = true;
  static constexpr kernel_filter filter_except = EVFILT_EXCEPT;
  static constexpr unsigned out_of_band = NOTE_OOB;
#else
  static constexpr bool kqueue_hears_priority = false;
  static constexpr kernel_filter filter_except = EVFILT_USER;
  static constexpr unsigned out_of_band = 0;
#endif

  static int kqueue() noexcept {
    const int made = ::kqueue();
    if (made < 0) return -errno;
    if (::fcntl(made, F_SETFD, FD_CLOEXEC) == 0) return made;
    const int refused = -errno;
    ::close(made);
    return refused;
  }

  // The timeout is relative; `never` waits for ever. A day at most, which every system takes: the caller
  // sleeps again.
  static int kevent_wait(int queue, kernel_event* out, int room, nanos timeout) noexcept {
    const nanos span = timeout < longest ? timeout : longest;
    timespec limit{};
    limit.tv_sec = static_cast<decltype(limit.tv_sec)>(span / 1000000000);
    limit.tv_nsec = static_cast<decltype(limit.tv_nsec)>(span % 1000000000);
    return answer_of(::kevent(queue, nullptr, 0, out, static_cast<count>(room), timeout == never ? nullptr : &limit));
  }

  // `mark` comes back with the events.
  static int kevent_add(int queue, int fd, kernel_filter filter, bool edge, std::uint64_t mark) noexcept {
    const unsigned flags = edge ? EV_ADD | EV_ENABLE | EV_CLEAR : EV_ADD | EV_ENABLE;
    const bool except = kqueue_hears_priority && filter == filter_except;
    return tell(queue, number_of(fd), filter, flags, except ? out_of_band : 0, mark);
  }
  static int kevent_delete(int queue, int fd, kernel_filter filter) noexcept {
    return tell(queue, number_of(fd), filter, EV_DELETE, 0, 0);
  }
  static int kevent_enable(int queue, int fd, kernel_filter filter) noexcept {
    return tell(queue, number_of(fd), filter, EV_ENABLE, 0, 0);
  }
  static int kevent_disable(int queue, int fd, kernel_filter filter) noexcept {
    return tell(queue, number_of(fd), filter, EV_DISABLE, 0, 0);
  }

  static int kevent_add_user(int queue) noexcept {
    return tell(queue, 0, filter_user, EV_ADD | EV_ENABLE | EV_CLEAR, NOTE_FFNOP, 0);
  }
  // Any thread, any signal handler.
  static int kevent_trigger(int queue) noexcept { return tell(queue, 0, filter_user, 0, NOTE_TRIGGER, 0); }

  static bool kevent_carries(const kernel_event& event, std::uint64_t mark) noexcept {
    decltype(event.udata) expected{};
    put(expected, static_cast<std::uintptr_t>(mark));
    return event.udata == expected;
  }
  // The numbers that select(2) is asked for, and then those that it answers.
  struct select_set {
    select_set() noexcept { FD_ZERO(&bits); }
    static bool takes(int fd) noexcept { return fd >= 0 && fd < FD_SETSIZE; }
    bool has(int fd) const noexcept { return FD_ISSET(fd, &bits) != 0; }
    void put(int fd) noexcept { FD_SET(fd, &bits); }
    void take(int fd) noexcept { FD_CLR(fd, &bits); }
    fd_set bits;
  };
  // Rounded up to microseconds; otherwise as kevent_wait().
  static int select(int count_of_numbers, select_set& reads, select_set& writes, nanos timeout) noexcept {
    const nanos span = timeout < longest ? timeout : longest;
    timeval limit{};
    limit.tv_sec = static_cast<decltype(limit.tv_sec)>((span + 999) / 1000000000);
    limit.tv_usec = static_cast<decltype(limit.tv_usec)>((span + 999) % 1000000000 / 1000);
    return answer_of(::select(count_of_numbers, &reads.bits, &writes.bits, nullptr, timeout == never ? nullptr : &limit));
  }
  static bool is_terminal(int fd) noexcept { return ::isatty(fd) == 1; }

  static bool kevent_is_end(const kernel_event& event) noexcept { return (event.flags & EV_EOF) != 0; }

 private:
#if HYBRIDLOOP_OS(NETBSD)
  using count = std::size_t;
#else
  using count = int;
#endif
  static constexpr nanos longest = nanos{24} * 3600 * 1000000000;

  static int answer_of(int result) noexcept { return result < 0 ? -errno : result; }
  static std::uintptr_t number_of(int fd) noexcept { return static_cast<std::uintptr_t>(fd); }

  // A pointer here, a number there.
  static void put(void*& at, std::uintptr_t mark) noexcept { at = reinterpret_cast<void*>(mark); }
  static void put(std::intptr_t& at, std::uintptr_t mark) noexcept { at = static_cast<std::intptr_t>(mark); }

  // One change, which is taken or refused at once.
  static int tell(int queue, std::uintptr_t ident, kernel_filter filter, unsigned flags, unsigned extra,
                  std::uint64_t mark) noexcept {
    kernel_event change{};
    change.ident = ident;
    change.filter = filter;
    change.flags = static_cast<decltype(change.flags)>(flags);
    change.fflags = static_cast<decltype(change.fflags)>(extra);
    put(change.udata, static_cast<std::uintptr_t>(mark));
    return answer_of(::kevent(queue, &change, 1, nullptr, 0, nullptr));
  }
};
#else
struct kqueue_calls {};
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< wait/kernel_kqueue.hpp

// >>> wait/kernel_posix.hpp - the system calls that all POSIX systems have
#if HYBRIDLOOP_OS(POSIX)
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#if !HYBRIDLOOP_NO_IO
#include <poll.h>
#include <sys/stat.h>
#endif

HYBRIDLOOP_OPEN
namespace detail {

// Which file a number names. Eventfds, timerfds and their like share one inode, so of these one is
// taken for another.
struct file_identity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool always_ready = false;  // a file that cannot be waited for
  bool pipe = false;

  friend bool operator==(const file_identity& a, const file_identity& b) noexcept {
    return a.device == b.device && a.inode == b.inode;
  }
};

// What each system lays over this: see wait/kernel.hpp.
struct posix_kernel : kqueue_calls {
  static int answer(long result) noexcept { return result < 0 ? -errno : static_cast<int>(result); }

  // Seconds of 32 bits end in 68 years: who sleeps so long is woken, and sleeps again.
  static timespec to_timespec(nanos t) noexcept {
    constexpr nanos last = (std::numeric_limits<decltype(timespec::tv_sec)>::max)();
    if (t < 0) t = 0;
    timespec out{};
    const nanos seconds = t / 1000000000;
    out.tv_sec = static_cast<decltype(out.tv_sec)>(seconds < last ? seconds : last);
    out.tv_nsec = static_cast<decltype(out.tv_nsec)>(t % 1000000000);
    return out;
  }

  // Rounded up, or the last millisecond would be spent spinning. A day at most: the caller sleeps again.
  static int whole_milliseconds(nanos timeout) noexcept {
    constexpr nanos longest = nanos{24} * 3600 * 1000;
    const nanos up = timeout / 1000000 + (timeout % 1000000 != 0 ? 1 : 0);
    return static_cast<int>(up < longest ? up : longest);
  }

  static int write(int fd, const void* bytes, std::size_t size) noexcept {
    return answer(::write(fd, bytes, size));
  }
  static int read(int fd, void* bytes, std::size_t size) noexcept {
    return answer(::read(fd, bytes, size));
  }
#if !HYBRIDLOOP_NO_IO
  using poll_entry = ::pollfd;
  static constexpr int poll_in = POLLIN;
  static constexpr int poll_out = POLLOUT;
  static constexpr int poll_priority = POLLPRI;
  static constexpr int poll_error = POLLERR;
  static constexpr int poll_hangup = POLLHUP;
  static constexpr int poll_invalid = POLLNVAL;
#endif

  static bool is_descriptor(int fd) noexcept { return ::fcntl(fd, F_GETFD) >= 0; }
  static int close(int fd) noexcept { return answer(::close(fd)); }

#if defined(MAP_NORESERVE)
  static constexpr int unreserved = MAP_NORESERVE;
#else
  static constexpr int unreserved = 0;
#endif

  // Zeroed pages that cost nothing until touched; nullptr when there are none.
  static void* map(std::size_t bytes) noexcept {
    void* got = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | unreserved, -1, 0);
    return got == MAP_FAILED ? nullptr : got;
  }
  static void unmap(void* memory, std::size_t bytes) noexcept { ::munmap(memory, bytes); }

  static void yield() noexcept { ::sched_yield(); }

  // How many forks lie between the process that asked first and this one. Counted by a handler, since
  // asking for the process id is a system call; so clone(2) by hand goes unseen.
  static std::uint32_t forks() noexcept {
    static std::atomic<std::uint32_t> count{0};
    static const int refused =
        ::pthread_atfork(nullptr, nullptr, [] { count.fetch_add(1, std::memory_order_relaxed); });  // ours alone: a child has one thread
    static_cast<void>(refused);
    return count.load(std::memory_order_relaxed);  // a hint; it changes before anybody looks
  }

  // A thread of the library's own. It blocks all signals: they are for threads the program knows.
  // (std::thread costs whoever includes it more than all of the library's own headers.)
  class thread {
   public:
    thread() noexcept = default;
    thread(const thread&) = delete;
    thread& operator=(const thread&) = delete;

    bool joinable() const noexcept { return run_ != nullptr; }

    // Calls run(with) there. 0, or the errno of a refused thread.
    int start(void (*run)(void*), void* with) noexcept {
      sigset_t all, before;
      (::sigfillset)(&all);  // a macro on some systems
      ::pthread_sigmask(SIG_SETMASK, &all, &before);
      run_ = run;
      with_ = with;
      const int refused = ::pthread_create(&thread_, nullptr, &thread::enter, this);
      if (refused != 0) run_ = nullptr;
      ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
      return refused;
    }
    void join() noexcept {
      ::pthread_join(thread_, nullptr);
      run_ = nullptr;
    }
    // The child of a fork, where it is not there to be joined.
    void forget() noexcept { run_ = nullptr; }

   private:
    static void* enter(void* me) {
      const thread& mine = *static_cast<thread*>(me);
      mine.run_(mine.with_);
      return nullptr;
    }
    pthread_t thread_{};
    void (*run_)(void*) = nullptr;
    void* with_ = nullptr;
  };

  // (As costly to include as std::thread.)
  class mutex {
   public:
    mutex() noexcept = default;
    mutex(const mutex&) = delete;
    mutex& operator=(const mutex&) = delete;
    ~mutex() { ::pthread_mutex_destroy(&mutex_); }
    void lock() noexcept { ::pthread_mutex_lock(&mutex_); }
    bool try_lock() noexcept { return ::pthread_mutex_trylock(&mutex_) == 0; }
    void unlock() noexcept { ::pthread_mutex_unlock(&mutex_); }

   private:
    pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  };
  class hold {
   public:
    explicit hold(mutex& m) noexcept : mutex_(m) { m.lock(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() { mutex_.unlock(); }

   private:
    mutex& mutex_;
  };

  static void nap(nanos span) noexcept {
    const timespec length = to_timespec(span);
    ::nanosleep(&length, nullptr);
  }

#if !HYBRIDLOOP_NO_IO
 protected:
  // What epoll refuses, and what a poller of another system is asked to refuse as well.
  static bool cannot_be_polled(const struct stat& file) noexcept {
    if (S_ISREG(file.st_mode) || S_ISDIR(file.st_mode) || S_ISBLK(file.st_mode)) return true;
    if (!S_ISCHR(file.st_mode)) return false;
    for (const char* device : {"/dev/null", "/dev/zero", "/dev/full"}) {
      struct stat known;
      if (::stat(device, &known) == 0 && known.st_rdev == file.st_rdev) return true;
    }
    return false;
  }
  static void identity_of(const struct stat& file, file_identity& out) noexcept {
    out.device = static_cast<std::uint64_t>(file.st_dev);
    out.inode = static_cast<std::uint64_t>(file.st_ino);
    out.always_ready = cannot_be_polled(file);
    out.pipe = S_ISFIFO(file.st_mode);
  }
#endif
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(POSIX)
// <<< wait/kernel_posix.hpp

// >>> wait/monitor.hpp - a mutex and a condition whose deadlines are those of the steady clock
#if HYBRIDLOOP_OS(POSIX)
HYBRIDLOOP_OPEN
namespace detail {

#if HYBRIDLOOP_OS(MACOS)
// Its conditions know the wall clock, which jumps, and spans of time.
struct condition_clock {
  static void set(pthread_cond_t& condition) noexcept { ::pthread_cond_init(&condition, nullptr); }
  static int wait(pthread_cond_t& condition, pthread_mutex_t& mutex, nanos deadline) noexcept {
    const timespec span = posix_kernel::to_timespec(time_between(read_clock<std::chrono::steady_clock>(), deadline));
    return ::pthread_cond_timedwait_relative_np(&condition, &mutex, &span);
  }
};
#else
struct condition_clock {
  static void set(pthread_cond_t& condition) noexcept {
    pthread_condattr_t how;
    ::pthread_condattr_init(&how);
    ::pthread_condattr_setclock(&how, CLOCK_MONOTONIC);
    ::pthread_cond_init(&condition, &how);
    ::pthread_condattr_destroy(&how);
  }
  static int wait(pthread_cond_t& condition, pthread_mutex_t& mutex, nanos deadline) noexcept {
    const timespec at = posix_kernel::to_timespec(deadline);
    return ::pthread_cond_timedwait(&condition, &mutex, &at);
  }
};
#endif

// Is never destroyed: who waits in it may be the last thread of a program that ends.
class monitor {
 public:
  monitor() noexcept { condition_clock::set(changed_); }
  monitor(const monitor&) = delete;
  monitor& operator=(const monitor&) = delete;

  void lock() noexcept { ::pthread_mutex_lock(&mutex_); }
  void unlock() noexcept { ::pthread_mutex_unlock(&mutex_); }

  // Locked: lets go of the lock until somebody tells, or for no reason. False: the deadline has passed.
  bool wait(nanos deadline) noexcept {
    if (deadline == never) return ::pthread_cond_wait(&changed_, &mutex_) == 0;
    return condition_clock::wait(changed_, mutex_, deadline) == 0;
  }
  void tell_all() noexcept { ::pthread_cond_broadcast(&changed_); }

 private:
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(POSIX)
// <<< wait/monitor.hpp

// >>> wait/parking_lot.hpp - sleeping on a word where the kernel has no such call: mutexes and conditions
#if HYBRIDLOOP_OS(POSIX)
HYBRIDLOOP_OPEN
namespace detail {

// Who sleeps stands in a table of the process, under the address of its word (F. Pizlo, Locking in WebKit,
// 2016). A wake goes by that address alone, and reads nothing there.
//
// No wake is lost: a sleeper looks at the word with its spot locked, and a waker locks the spot behind the
// change of the word. If the waker comes first, the sleeper sees the change, by the order of the lock;
// otherwise the waker finds the sleeper. Words whose addresses meet in a spot keep apart what they wake.
//
// It takes a lock, so signal handlers keep out: one may have interrupted who holds that lock.
class parking_lot {
 public:
  // 0, or -EAGAIN: the word was another one, or -ETIMEDOUT.
  static int wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    spot& here = spot_of(word);
    const hold locked(here);
    if (value_of(word) != expected) return -EAGAIN;
    sleeper me{word};
    here.enter(me);
    while (!me.woken) {
      if (here.changed.wait(deadline) || me.woken) continue;
      here.leave(me);
      return -ETIMEDOUT;
    }
    return 0;
  }

  // How many it woke: of those who sleep on the word the first that came.
  static int wake(const void* word, int count) noexcept {
    spot& here = spot_of(word);
    const hold locked(here);
    const int woken = here.wake(word, count);
    if (woken != 0) here.changed.tell_all();
    return woken;
  }

 private:
  struct sleeper {
    const void* const word;
    sleeper* next = nullptr;
    bool woken = false;  // and no longer in the line
  };

  // A line of sleepers, and what they sleep on. All under its lock.
  struct spot {
    monitor changed;
    sleeper* first = nullptr;

    void enter(sleeper& me) noexcept {
      sleeper** end = &first;
      while (*end != nullptr) end = &(*end)->next;
      *end = &me;
    }
    void leave(const sleeper& me) noexcept {
      sleeper** at = &first;
      while (*at != &me) at = &(*at)->next;
      *at = me.next;
    }
    int wake(const void* word, int count) noexcept {
      int woken = 0;
      for (sleeper** at = &first; *at != nullptr && woken < count;) {
        sleeper& it = **at;
        if (it.word != word) {
          at = &it.next;
          continue;
        }
        *at = it.next;
        it.woken = true;
        ++woken;
      }
      return woken;
    }
  };
  class hold {
   public:
    explicit hold(spot& s) noexcept : spot_(s) { s.changed.lock(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() { spot_.changed.unlock(); }

   private:
    spot& spot_;
  };

  static constexpr unsigned bits = 6;
  static constexpr std::size_t spots = std::size_t{1} << bits;

  static std::uint32_t value_of(const void* word) noexcept {
    return static_cast<const std::atomic<std::uint32_t>*>(word)->load(std::memory_order_relaxed);  // a hint; who has changed it takes our lock next, and finds us
  }

  static spot& spot_of(const void* word) noexcept {
    const std::uint64_t product = reinterpret_cast<std::uintptr_t>(word) * std::uint64_t{0x9e3779b97f4a7c15};
    return table()[product >> (64 - bits)];
  }
  static spot* table() noexcept {
    static spot* const made = furnished();
    return made;
  }
  // The child of a fork has nobody else in it, and locks as somebody left them.
  static spot* furnished() noexcept {
    spot* const all = clear();
    ::pthread_atfork(nullptr, nullptr, [] { clear(); });
    return all;
  }
  static spot* clear() noexcept {
    spot* first = nullptr;
    for (std::size_t i = spots; i-- != 0;) first = ::new (static_cast<void*>(ground + i * sizeof(spot))) spot;
    return first;
  }

  alignas(spot) static inline unsigned char ground[spots * sizeof(spot)];
};

// A kernel, all of it but its words: for HYBRIDLOOP_PARKER=condvar, and where there are none.
template <class Kernel>
struct without_words : Kernel {
  static constexpr const char* parking = "condvar";
  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    return parking_lot::wait(word, expected, deadline);
  }
  static int futex_wake(const void* word, int count) noexcept { return parking_lot::wake(word, count); }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(POSIX)
// <<< wait/parking_lot.hpp

// >>> wait/kernel_linux.hpp - the kernel seam on Linux: futex, membarrier, epoll, eventfd
#if HYBRIDLOOP_OS(LINUX)
#include <linux/futex.h>
#include <stdio.h>
#include <sys/syscall.h>
#if !HYBRIDLOOP_NO_IO
#include <sys/epoll.h>
#include <sys/eventfd.h>
#endif

HYBRIDLOOP_OPEN
namespace detail {

struct linux_kernel : posix_kernel {
  // 32-bit systems built with a 64-bit time_t need the call that takes one.
#if defined(SYS_futex_time64) && (!defined(SYS_futex) || defined(__USE_TIME_BITS64))
  static constexpr long futex_number = SYS_futex_time64;
#else
  static constexpr long futex_number = SYS_futex;
#endif
#if defined(SYS_epoll_pwait2)
  static constexpr long epoll_pwait2_number = SYS_epoll_pwait2;
#else
  static constexpr long epoll_pwait2_number = 441;  // on every CPU; headers before 5.11 lack it
#endif

  static constexpr const char* parking = "futex";

  // The deadline is one of CLOCK_MONOTONIC.
  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline,
                        std::uint32_t mask = FUTEX_BITSET_MATCH_ANY) noexcept {
    const timespec at = to_timespec(deadline);
    return answer(::syscall(futex_number, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
                            deadline == never ? nullptr : &at, nullptr, mask));
  }
  static int futex_wake(const void* word, int count, std::uint32_t mask = FUTEX_BITSET_MATCH_ANY) noexcept {
    return answer(::syscall(futex_number, word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, count, nullptr,
                            nullptr, mask));
  }

  // membarrier(2); the numbers are the kernel's own, older headers lack their names.
  static constexpr int membarrier_global = 1;
  static constexpr int membarrier_expedited = 1 << 3;
  static constexpr int membarrier_register_expedited = 1 << 4;
  static int membarrier(int command) noexcept {
    return answer(::syscall(SYS_membarrier, command, 0, 0));
  }

#if !HYBRIDLOOP_NO_IO
  static int epoll_create() noexcept { return answer(::epoll_create1(EPOLL_CLOEXEC)); }
  static int epoll_ctl(int epoll, int what, int fd, epoll_event* event) noexcept {
    return answer(::epoll_ctl(epoll, what, fd, event));
  }
  // The timeout is relative; `never` waits for ever.
  static int epoll_pwait2(int epoll, epoll_event* out, int room, nanos timeout) noexcept {
    struct {  // struct __kernel_timespec: 64-bit everywhere
      std::int64_t seconds, nanoseconds;
    } span{timeout / 1000000000, timeout % 1000000000};
    return answer(::syscall(epoll_pwait2_number, epoll, out, room, timeout == never ? nullptr : &span, nullptr,
                            std::size_t{0}));
  }
  static int epoll_wait(int epoll, epoll_event* out, int room, int milliseconds) noexcept {
    return answer(::epoll_wait(epoll, out, room, milliseconds));
  }

  static int eventfd() noexcept { return answer(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

  static int poll(pollfd* descriptors, std::size_t count, nanos timeout) noexcept {
    const timespec span = to_timespec(timeout);
    return answer(::ppoll(descriptors, count, timeout == never ? nullptr : &span, nullptr));
  }
  static constexpr short poll_half_close = POLLRDHUP;

  static int pipe(int (&ends)[2]) noexcept { return answer(::pipe2(ends, O_NONBLOCK | O_CLOEXEC)); }

  // Not fstat(), of which thread sanitizers think that it must not meet a close(). Here it may.
  static int identify(int fd, file_identity& out) noexcept {
    if (fd < 0) return -EBADF;
    struct stat file;
    if (::fstatat(fd, "", &file, AT_EMPTY_PATH) != 0) return -errno;
    identity_of(file, out);
    return 0;
  }
#endif

  static int replace(int number, int fd) noexcept { return answer(::dup3(fd, number, O_CLOEXEC)); }

  // The affinity masks of this thread and of the main one, since a thread may be kept on a CPU of its own; and never
  // more than the cgroup's quota.
  static unsigned usable_cpus() noexcept {
    static const unsigned quota = quota_cpus();
    cpu_set_t mine, all;
    CPU_ZERO(&mine);
    CPU_ZERO(&all);
    static_cast<void>(::sched_getaffinity(0, sizeof mine, &mine));  // refused, it says nothing: more CPUs than it has bits
    static_cast<void>(::sched_getaffinity(::getpid(), sizeof all, &all));
    CPU_OR(&all, &all, &mine);
    const auto allowed = static_cast<unsigned>(CPU_COUNT(&all));
    return allowed != 0 && allowed < quota ? allowed : quota;
  }

 private:
  static constexpr unsigned unlimited = 1u << 16;

  // "max 100000" or "150000 100000": quota and period in microseconds (cgroup v2), or the same
  // two numbers in two files (v1). Rounded down: one and a half CPUs are no place to spin on.
  static unsigned quota_cpus() noexcept {
    long long quota = -1;
    long long period = 0;
    if (std::FILE* both = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
      const int fields = std::fscanf(both, "%lld %lld", &quota, &period);
      std::fclose(both);
      if (fields != 2) return unlimited;
    } else {
      quota = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
      period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    }
    if (quota <= 0 || period <= 0) return unlimited;
    return quota < period ? 1u : static_cast<unsigned>(quota / period);
  }

  static long long read_number(const char* path) noexcept {
    long long value = -1;
    if (std::FILE* file = std::fopen(path, "re")) {
      if (std::fscanf(file, "%lld", &value) != 1) value = -1;
      std::fclose(file);
    }
    return value;
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(LINUX)
// <<< wait/kernel_linux.hpp

// >>> wait/kernel_unix.hpp - the kernel seam of POSIX systems that have nothing better to offer
#if HYBRIDLOOP_OS(POSIX)
HYBRIDLOOP_OPEN
namespace detail {

// Only what POSIX knows: what is not inherited is said in a second step, so a program that another
// thread starts in between inherits it; and timeouts are whole milliseconds, rounded up.
struct unix_kernel : without_words<posix_kernel> {
#if !HYBRIDLOOP_NO_IO
  static int poll(pollfd* descriptors, std::size_t count, nanos timeout) noexcept {
    return answer(::poll(descriptors, static_cast<nfds_t>(count),
                         timeout == never ? -1 : whole_milliseconds(timeout)));
  }
#if defined(POLLRDHUP)
  static constexpr short poll_half_close = POLLRDHUP;
#else
  static constexpr short poll_half_close = 0;
#endif

  static int pipe(int (&ends)[2]) noexcept {
    if (::pipe(ends) != 0) return -errno;
    for (const int end : ends) {
      if (!keep_to_ourselves(end) || ::fcntl(end, F_SETFL, O_NONBLOCK) != 0) {
        const int refused = -errno;
        ::close(ends[0]);
        ::close(ends[1]);
        ends[0] = ends[1] = -1;
        return refused;
      }
    }
    return 0;
  }

  static int identify(int fd, file_identity& out) noexcept {
    struct stat file;
    if (::fstat(fd, &file) != 0) return -errno;
    identity_of(file, out);
    return 0;
  }
#endif

  static int replace(int number, int fd) noexcept {
    if (::dup2(fd, number) < 0) return -errno;
    return keep_to_ourselves(number) ? number : -errno;
  }

  static unsigned usable_cpus() noexcept {
    const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? static_cast<unsigned>(online) : 1u;
  }

 protected:
  static bool keep_to_ourselves(int fd) noexcept { return ::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0; }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(POSIX)
// <<< wait/kernel_unix.hpp

// >>> wait/kernel_macos.hpp - the kernel seam on macOS: os_sync where the system has it
#if HYBRIDLOOP_OS(MACOS)
HYBRIDLOOP_OPEN
namespace detail {

// <os/os_sync_wait_on_address.h> came with macOS 14.4. Declared here, so that older headers do and older
// systems too, where these are null. Names of our own, so that they do not clash with that header's.
int os_sync_wait(void* word, std::uint64_t expected, std::size_t size, std::uint32_t flags) noexcept
    __asm("_os_sync_wait_on_address") __attribute__((weak_import));
int os_sync_wait_for(void* word, std::uint64_t expected, std::size_t size, std::uint32_t flags, std::uint32_t clock,
                     std::uint64_t span) noexcept
    __asm("_os_sync_wait_on_address_with_timeout") __attribute__((weak_import));
int os_sync_wake_one(void* word, std::size_t size, std::uint32_t flags) noexcept
    __asm("_os_sync_wake_by_address_any") __attribute__((weak_import));
int os_sync_wake_all(void* word, std::size_t size, std::uint32_t flags) noexcept
    __asm("_os_sync_wake_by_address_all") __attribute__((weak_import));

struct macos_kernel : unix_kernel {
  static constexpr const char* parking = "os_sync, or condvar before macOS 14.4";

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    if (!has_os_sync()) return parking_lot::wait(word, expected, deadline);
    if (deadline == never) return answer(os_sync_wait(of(word), expected, sizeof expected, 0));
    const nanos span = time_between(read_clock<std::chrono::steady_clock>(), deadline);
    if (span == 0) return -ETIMEDOUT;  // none at all would be refused
    return answer(os_sync_wait_for(of(word), expected, sizeof expected, 0, mach_absolute_time,
                                   static_cast<std::uint64_t>(span)));
  }
  static int futex_wake(const void* word, int count) noexcept {
    if (!has_os_sync()) return parking_lot::wake(word, count);
    return answer((count == 1 ? os_sync_wake_one : os_sync_wake_all)(of(word), sizeof(std::uint32_t), 0));
  }

 private:
  static constexpr std::uint32_t mach_absolute_time = 32;  // OS_CLOCK_MACH_ABSOLUTE_TIME

  // The same all the time, or those who sleep here would be woken there.
  static bool has_os_sync() noexcept {
    return &os_sync_wait != nullptr && &os_sync_wait_for != nullptr && &os_sync_wake_one != nullptr &&
           &os_sync_wake_all != nullptr;
  }
  static void* of(const void* word) noexcept { return const_cast<void*>(word); }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(MACOS)
// <<< wait/kernel_macos.hpp

// >>> wait/kernel_bsd.hpp - the kernel seam on FreeBSD, OpenBSD and NetBSD: their words to sleep on
#if HYBRIDLOOP_OS(FREEBSD)
#include <sys/types.h>
#include <sys/umtx.h>
#elif HYBRIDLOOP_OS(OPENBSD)
#include <sys/time.h>
#include <sys/futex.h>
#elif HYBRIDLOOP_OS(NETBSD)
#include <sys/syscall.h>
#if defined(SYS___futex)
#include <sys/futex.h>
#endif
#endif

HYBRIDLOOP_OPEN
namespace detail {

#if HYBRIDLOOP_OS(FREEBSD)
struct bsd_words : unix_kernel {
  static constexpr const char* parking = "umtx";

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    _umtx_time until{};
    until._timeout = to_timespec(deadline);
    until._flags = UMTX_ABSTIME;
    until._clockid = CLOCK_MONOTONIC;
    void* const size = reinterpret_cast<void*>(sizeof until);  // so says its manual
    return deadline == never ? ask(word, UMTX_OP_WAIT_UINT_PRIVATE, expected, nullptr, nullptr)
                             : ask(word, UMTX_OP_WAIT_UINT_PRIVATE, expected, size, &until);
  }
  static int futex_wake(const void* word, int count) noexcept {
    return ask(word, UMTX_OP_WAKE_PRIVATE, static_cast<u_long>(count), nullptr, nullptr);
  }

 private:
  static int ask(const void* word, int what, u_long value, void* size, void* until) noexcept {
    return answer(::_umtx_op(const_cast<void*>(word), what, value, size, until));
  }
};
#endif

#if HYBRIDLOOP_OS(OPENBSD)
struct bsd_words : unix_kernel {
  static constexpr const char* parking = "futex";

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    const timespec span = to_timespec(time_between(read_clock<std::chrono::steady_clock>(), deadline));
    return ask(word, FUTEX_WAIT_PRIVATE, static_cast<int>(expected), deadline == never ? nullptr : &span);
  }
  static int futex_wake(const void* word, int count) noexcept {
    return ask(word, FUTEX_WAKE_PRIVATE, count, nullptr);
  }

 private:
  static int ask(const void* word, int what, int value, const timespec* span) noexcept {
    void* const at = const_cast<void*>(word);
    return answer(::futex(static_cast<volatile std::uint32_t*>(at), what, value, span, nullptr));
  }
};
#endif

#if HYBRIDLOOP_OS(NETBSD) && !defined(SYS___futex)
using bsd_words = unix_kernel;
#endif

#if HYBRIDLOOP_OS(NETBSD) && defined(SYS___futex)
// A kernel before NetBSD 10 does not know the call.
struct bsd_words : unix_kernel {
  static constexpr const char* parking = "futex, or condvar before NetBSD 10";

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    if (!has_futex()) return parking_lot::wait(word, expected, deadline);
    const timespec at = to_timespec(deadline);
    return ask(word, FUTEX_WAIT_BITSET, static_cast<int>(expected), deadline == never ? nullptr : &at,
               FUTEX_BITSET_MATCH_ANY);
  }
  static int futex_wake(const void* word, int count) noexcept {
    return has_futex() ? ask(word, FUTEX_WAKE, count, nullptr, 0) : parking_lot::wake(word, count);
  }

 private:
  static int ask(const void* word, int what, int value, const timespec* at, int bits) noexcept {
    const int op = what | static_cast<int>(FUTEX_PRIVATE_FLAG);
    return answer(::syscall(SYS___futex, word, op, value, at, nullptr, 0, bits));
  }
  // The same all the time, or those who sleep here would be woken there.
  static bool has_futex() noexcept {
    static const std::uint32_t word = 0;
    static const bool known = ask(&word, FUTEX_WAKE, 1, nullptr, 0) != -ENOSYS;
    return known;
  }
};
#endif

#if HYBRIDLOOP_OS(FREEBSD) || HYBRIDLOOP_OS(OPENBSD) || HYBRIDLOOP_OS(NETBSD)
// They can say in one step what is not inherited.
struct bsd_kernel : bsd_words {
#if !HYBRIDLOOP_NO_IO
  static int pipe(int (&ends)[2]) noexcept { return answer(::pipe2(ends, O_NONBLOCK | O_CLOEXEC)); }
#endif
  static int replace(int number, int fd) noexcept { return answer(::dup3(fd, number, O_CLOEXEC)); }
};
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< wait/kernel_bsd.hpp

// >>> wait/windows_calls.hpp - functions of Windows, looked up by name: its headers would bring their macros
#if HYBRIDLOOP_OS(WINDOWS)
// The two that find the others, word for word as <windows.h> declares them, so that it may be included
// before this header, behind it, or not at all.
struct HINSTANCE__;
HYBRIDLOOP_OPEN
namespace detail {

#if defined(NO_STRICT)
using module_handle = void*;
#else
using module_handle = ::HINSTANCE__*;
#endif
#if defined(_WIN64)
using any_function = long long(__stdcall*)();
#else
using any_function = int(__stdcall*)();
#endif
extern "C" __declspec(dllimport) module_handle __stdcall LoadLibraryExA(const char*, void*, unsigned long);
extern "C" __declspec(dllimport) any_function __stdcall GetProcAddress(module_handle, const char*);

// A library of the system's own. It stays loaded.
class windows_library {
 public:
  explicit windows_library(const char* name) noexcept : module_(LoadLibraryExA(name, nullptr, from_system32)) {}

  bool is_here() const noexcept { return module_ != nullptr; }

  // False, and nullptr, where there is no such function.
  template <class Function>
  bool find(Function& out, const char* name) const noexcept {
    using untyped = void (*)();  // which compilers let through
    const auto found = is_here() ? GetProcAddress(module_, name) : nullptr;
    out = reinterpret_cast<Function>(reinterpret_cast<untyped>(found));
    return found != nullptr;
  }

 private:
  static constexpr unsigned long from_system32 = 0x800;
  module_handle module_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(WINDOWS)
// <<< wait/windows_calls.hpp

// >>> wait/kernel_port.hpp - completion ports, AFD and waits for handles, as one poller calls them: Windows
#if HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
HYBRIDLOOP_OPEN
namespace detail {

// What a completion port hands out.
struct port_packet {
  std::uintptr_t key;
  void* what;
  std::uintptr_t internal;
  unsigned long bytes;
};

// One question to the kernel, which is answered by one packet. Its memory is the kernel's from the call
// that asks until that packet was taken, also where the question was taken back.
struct port_request {
  struct {
    std::intptr_t status;
    std::uintptr_t bytes;
  } outcome{};
  struct {
    std::int64_t timeout;
    unsigned long count;
    unsigned long exclusive;
    void* socket;
    unsigned long events;
    long status;
  } poll{};
  native_handle port = -1;  // of a wait for a handle
  void* wait = nullptr;
  std::atomic<bool> signalled{false};
};

// Sockets are asked after by \Device\Afd, which is what select() and WSAPoll() are made of; the numbers
// are its own. Nothing of this is in a header of Windows, and no header of Windows is wanted here, so it
// is looked up by name.
struct port_calls {
  enum : std::uintptr_t { request_key = 1, bell_key, timer_key };

  enum : unsigned {
    afd_receive = 0x1,
    afd_expedited = 0x2,
    afd_send = 0x4,
    afd_disconnect = 0x8,
    afd_abort = 0x10,
    afd_local_close = 0x20,
    afd_accept = 0x80,
    afd_connect_fail = 0x100
  };

  static int port_open(native_handle& port) noexcept {
    const functions& f = all();
    if (!f.complete) return -ENOSYS;
    void* const nothing = reinterpret_cast<void*>(std::intptr_t{-1});
    void* const made = f.create_port(nothing, nullptr, 0, many_threads);
    port = number_of(made);
    return made != nullptr ? 0 : -ENOMEM;
  }

  static int port_post(native_handle port, std::uintptr_t key, void* what) noexcept {
    return all().post(object_of(port), 0, key, what) != 0 ? 0 : -ENOMEM;
  }

  // Rounded up, or the last millisecond would be spent spinning. A day at most: the caller waits again.
  static int port_wait(native_handle port, port_packet* out, int room, nanos timeout) noexcept {
    constexpr nanos longest = nanos{24} * 3600 * 1000;
    const nanos up = timeout / 1000000 + (timeout % 1000000 != 0 ? 1 : 0);
    const auto span = static_cast<unsigned long>(up < longest ? up : longest);
    const functions& f = all();
    unsigned long got = 0;
    const int done = f.wait(object_of(port), out, static_cast<unsigned long>(room), &got,
                            timeout == never ? for_ever : span, 0);
    if (done != 0) return static_cast<int>(got);
    return f.last_error() == timed_out ? 0 : -EBADF;
  }

  // ---- Sockets ----

  // What asks after some sockets. Its packets go to the port.
  static int afd_open(native_handle port, native_handle& afd) noexcept {
    static wchar_t path[] = L"\\Device\\Afd\\hybridloop";
    const counted_text name{sizeof path - sizeof path[0], sizeof path, path};
    const object_attributes which{sizeof which, nullptr, &name, 0, nullptr, nullptr};
    const functions& f = all();
    status_block outcome{};
    void* made = nullptr;
    const long refused = f.create_file(&made, may_synchronize, &which, &outcome, nullptr, 0, 3, 1, 0, nullptr, 0);
    if (refused != 0) return -errno_of(refused);
    afd = number_of(made);
    if (f.create_port(made, object_of(port), request_key, 0) != nullptr && f.set_modes(made, skip_event) != 0) return 0;
    f.close(made);
    return -ENOMEM;
  }

  // 0: a packet comes, maybe at once.
  static int afd_poll(native_handle afd, port_request& r, native_handle socket, unsigned events) noexcept {
    constexpr unsigned long poll_code = 0x00012024;
    r.poll = {never, 1, 0, object_of(socket), events, 0};
    r.outcome.status = pending;
    auto* const outcome = static_cast<void*>(&r.outcome);
    const long answer = all().control(object_of(afd), nullptr, nullptr, &r, outcome, poll_code, &r.poll,
                                      sizeof r.poll, &r.poll, sizeof r.poll);
    return answer == 0 || answer == pending ? 0 : -errno_of(answer);
  }

  // The packet comes nevertheless.
  static void afd_cancel(native_handle afd, port_request& r) noexcept {
    status_block outcome{};
    all().cancel(object_of(afd), &r.outcome, &outcome);
  }

  // What became of it: events, 0 for none, or -errno. A question that was taken back still has its events.
  static int afd_outcome(const port_request& r) noexcept {
    const auto status = static_cast<long>(r.outcome.status);
    if (status == cancelled) return 0;
    if (status < 0) return -errno_of(status);
    return r.poll.count != 0 ? static_cast<int>(r.poll.events) : 0;
  }

  static bool is_socket(native_handle handle) noexcept {
    const functions& f = all();
    int type = 0, size = sizeof type;
    const auto socket = static_cast<std::uintptr_t>(handle);
    return f.socket_option != nullptr && f.socket_option(socket, every_level, its_type, &type, &size) == 0;
  }

  // The socket below the layers that programs may put on top.
  static int base_socket(native_handle socket, native_handle& out) noexcept {
    constexpr unsigned long base_code = 0x48000022, base_for_poll_code = 0x4800001D;
    const functions& f = all();
    for (const unsigned long code : {base_code, base_for_poll_code}) {
      unsigned long bytes = 0;
      const auto handle = static_cast<std::uintptr_t>(socket);
      if (f.socket_control(handle, code, nullptr, 0, &out, sizeof out, &bytes, nullptr, nullptr) == 0) return 0;
    }
    return -EINVAL;
  }

  // ---- Other handles ----

  static bool is_file(native_handle handle) noexcept { return all().file_type(object_of(handle)) == 1; }
  static void close_handle(native_handle handle) noexcept { all().close(object_of(handle)); }

  // 0: a packet comes when the handle is signalled, or is there at once.
  static int handle_wait(native_handle port, port_request& r, native_handle handle) noexcept {
    const functions& f = all();
    r.port = port;
    if (f.packet_create != nullptr) {
      const long made = r.wait == nullptr ? f.packet_create(&r.wait, 1, nullptr) : 0;
      if (made != 0) return -errno_of(made);
      return -errno_of(f.packet_associate(r.wait, object_of(port), object_of(handle), number(request_key), &r, 0, 0, nullptr));
    }
    handle_forget(r);
    r.signalled.store(false, std::memory_order_relaxed);  // ours alone until it is registered
    constexpr unsigned long once_in_the_waiter = 8 | 4;
    const int done = f.register_wait(&r.wait, object_of(handle), &signalled, &r, for_ever, once_in_the_waiter);
    if (done == 0) r.wait = nullptr;
    return done != 0 ? 0 : -EINVAL;
  }

  // True: no packet comes.
  static bool handle_cancel(port_request& r) noexcept {
    const functions& f = all();
    if (f.packet_create != nullptr) return f.packet_cancel(r.wait, 1) == 0;
    handle_forget(r);
    return !r.signalled.load(std::memory_order_relaxed);  // ours alone: who sets it was waited for
  }

  static void handle_forget(port_request& r) noexcept {
    const functions& f = all();
    if (r.wait == nullptr) return;
    if (f.packet_create != nullptr) {
      f.close(r.wait);
    } else {
      f.unregister_wait(r.wait, reinterpret_cast<void*>(std::intptr_t{-1}));  // waits for signalled()
    }
    r.wait = nullptr;
  }

  // ---- A timer of finer grain, where the kernel can tie one to a port ----

  static int timer_open(native_handle& timer, native_handle& tie) noexcept {
    const functions& f = all();
    if (f.packet_create == nullptr || f.create_timer == nullptr) return -ENOSYS;
    constexpr unsigned long high_resolution = 2, all_access = 0x1F0003;
    void* const made = f.create_timer(nullptr, nullptr, high_resolution, all_access);
    if (made == nullptr) return -ENOSYS;
    timer = number_of(made);
    void* packet = nullptr;
    const long refused = f.packet_create(&packet, 1, nullptr);
    if (refused == 0) {
      tie = number_of(packet);
      return 0;
    }
    f.close(made);
    timer = -1;
    return -errno_of(refused);
  }
  // Rounded up to what it counts, 100 ns.
  static int timer_start(native_handle timer, native_handle tie, native_handle port, nanos span) noexcept {
    const std::int64_t due = -(span / 100 + (span % 100 != 0 ? 1 : 0));
    const functions& f = all();
    if (f.set_timer(object_of(timer), &due, 0, nullptr, nullptr, 0) == 0) return -EINVAL;
    return -errno_of(f.packet_associate(object_of(tie), object_of(port), object_of(timer), number(timer_key), nullptr, 0, 0, nullptr));
  }
  // Nothing of it is left in the port.
  static void timer_stop(native_handle tie) noexcept { all().packet_cancel(object_of(tie), 1); }

 private:
  struct status_block {
    std::intptr_t status;
    std::uintptr_t bytes;
  };
  struct counted_text {
    unsigned short bytes;
    unsigned short room;
    wchar_t* text;
  };
  struct object_attributes {
    unsigned long size;
    void* root;
    const counted_text* name;
    unsigned long attributes;
    void* security;
    void* quality;
  };

  static constexpr long pending = 0x103;
  static constexpr long cancelled = static_cast<long>(0xC0000120);
  static constexpr unsigned long timed_out = 258;
  static constexpr unsigned long for_ever = 0xffffffff;
  static constexpr unsigned long many_threads = 1024;  // the port keeps nobody from running
  static constexpr unsigned long may_synchronize = 0x00100000;
  static constexpr unsigned char skip_event = 2;
  static constexpr int every_level = 0xffff;
  static constexpr int its_type = 0x1008;

  struct functions {
    void*(__stdcall* create_port)(void*, void*, std::uintptr_t, unsigned long);
    int(__stdcall* post)(void*, unsigned long, std::uintptr_t, void*);
    int(__stdcall* wait)(void*, port_packet*, unsigned long, unsigned long*, unsigned long, int);
    int(__stdcall* set_modes)(void*, unsigned char);
    int(__stdcall* close)(void*);
    unsigned long(__stdcall* file_type)(void*);
    unsigned long(__stdcall* last_error)();
    int(__stdcall* register_wait)(void**, void*, void(__stdcall*)(void*, unsigned char), void*, unsigned long, unsigned long);
    int(__stdcall* unregister_wait)(void*, void*);
    void*(__stdcall* create_timer)(void*, const wchar_t*, unsigned long, unsigned long);
    int(__stdcall* set_timer)(void*, const std::int64_t*, long, void*, void*, int);
    long(__stdcall* create_file)(void**, unsigned long, const object_attributes*, status_block*, void*, unsigned long,
                                 unsigned long, unsigned long, unsigned long, void*, unsigned long);
    long(__stdcall* control)(void*, void*, void*, void*, void*, unsigned long, void*, unsigned long, void*, unsigned long);
    long(__stdcall* cancel)(void*, void*, status_block*);
    long(__stdcall* packet_create)(void**, unsigned long, void*);
    long(__stdcall* packet_associate)(void*, void*, void*, void*, void*, long, std::uintptr_t, unsigned char*);
    long(__stdcall* packet_cancel)(void*, unsigned char);
    int(__stdcall* socket_control)(std::uintptr_t, unsigned long, void*, unsigned long, void*, unsigned long, unsigned long*,
                                   void*, void*);
    int(__stdcall* socket_option)(std::uintptr_t, int, int, void*, int*);
    bool complete;
  };

  static const functions& all() noexcept {
    static const functions found = look_up();
    return found;
  }
  static functions look_up() noexcept {
    functions f{};
    const windows_library kernel("kernel32.dll"), native("ntdll.dll"), sockets("ws2_32.dll");
    f.complete = kernel.find(f.create_port, "CreateIoCompletionPort") && kernel.find(f.post, "PostQueuedCompletionStatus") &&
                 kernel.find(f.wait, "GetQueuedCompletionStatusEx") &&
                 kernel.find(f.set_modes, "SetFileCompletionNotificationModes") && kernel.find(f.close, "CloseHandle") &&
                 kernel.find(f.file_type, "GetFileType") &&
                 kernel.find(f.last_error, "GetLastError") && kernel.find(f.register_wait, "RegisterWaitForSingleObject") &&
                 kernel.find(f.unregister_wait, "UnregisterWaitEx") && native.find(f.create_file, "NtCreateFile") &&
                 native.find(f.control, "NtDeviceIoControlFile") && native.find(f.cancel, "NtCancelIoFileEx");
    kernel.find(f.create_timer, "CreateWaitableTimerExW");
    kernel.find(f.set_timer, "SetWaitableTimer");
    const bool ties = native.find(f.packet_create, "NtCreateWaitCompletionPacket") &&
                      native.find(f.packet_associate, "NtAssociateWaitCompletionPacket") &&
                      native.find(f.packet_cancel, "NtCancelWaitCompletionPacket");
    if (!ties) f.packet_create = nullptr;
    if (!sockets.find(f.socket_control, "WSAIoctl") || !sockets.find(f.socket_option, "getsockopt")) f.socket_option = nullptr;
    return f;
  }

  // A thread of the system's own.
  static void __stdcall signalled(void* with, unsigned char) noexcept {
    auto& r = *static_cast<port_request*>(with);
    r.signalled.store(true, std::memory_order_relaxed);  // a hint; who cancels waits for this function
    if (port_post(r.port, request_key, with) != 0) fail("the kernel has no memory to report a handle");
  }

  static void* object_of(native_handle handle) noexcept { return reinterpret_cast<void*>(handle); }
  static void* number(std::uintptr_t key) noexcept { return reinterpret_cast<void*>(key); }
  static native_handle number_of(void* object) noexcept { return reinterpret_cast<native_handle>(object); }

  static int errno_of(long status) noexcept {
    switch (static_cast<unsigned long>(status)) {
      case 0: return 0;
      case 0xC0000008: return EBADF;   // no handle
      case 0xC0000024: return EBADF;   // one of another kind
      case 0xC0000017: return ENOMEM;
      case 0xC000009A: return ENOMEM;
      case 0xC000011F: return EMFILE;
      case 0xC0000022: return EACCES;
      default: return EIO;
    }
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#elif HYBRIDLOOP_OS(WINDOWS)
HYBRIDLOOP_OPEN
namespace detail {
struct port_calls {};
}  // namespace detail
HYBRIDLOOP_CLOSE
#endif
// <<< wait/kernel_port.hpp

// >>> wait/kernel_winsock.hpp - sockets as the fallback over WSAPoll calls them: Windows
#if HYBRIDLOOP_OS(WINDOWS)
HYBRIDLOOP_OPEN
namespace detail {

// Nobody tells one socket from another that has its number by now.
struct file_identity {
  bool always_ready = false;  // a file that cannot be waited for

  friend constexpr bool operator==(const file_identity&, const file_identity&) noexcept { return true; }
};

#if !HYBRIDLOOP_NO_IO
struct winsock_calls : port_calls {
  struct poll_entry {
    std::uintptr_t fd;
    short events;
    short revents;
  };
  static constexpr int poll_in = 0x100;
  static constexpr int poll_out = 0x10;
  static constexpr int poll_priority = 0x200;
  static constexpr int poll_error = 0x1;
  static constexpr int poll_hangup = 0x2;
  static constexpr int poll_invalid = 0x4;
  static constexpr int poll_half_close = 0;

  static int poll(poll_entry* set, std::size_t count, nanos timeout) noexcept {
    constexpr nanos longest = nanos{24} * 3600 * 1000;
    const nanos up = timeout / 1000000 + (timeout % 1000000 != 0 ? 1 : 0);
    const int span = timeout == never ? -1 : static_cast<int>(up < longest ? up : longest);
    int got = answer(all().poll(set, static_cast<unsigned long>(count), span));
    for (std::size_t i = 0; i < count && got > 0; ++i) got -= keep_what_concerns(set[i]) ? 0 : 1;
    return got;
  }

  // Two ends of a connection over the loopback: Windows has no pipe that can be polled.
  static int pipe(native_handle (&ends)[2]) noexcept {
    if (!all().complete || all().started != 0) return -ENOTSUP;
    const std::uintptr_t listener = make();
    const std::uintptr_t client = make();
    address here{};
    std::uintptr_t server = none;
    if (listener != none && client != none && listen_at(listener, here) && all().connect(client, &here, sizeof here) == 0) {
      server = accept_own(listener, client);
    }
    if (listener != none) all().close_socket(listener);
    if (server != none && settle(server) && settle(client)) {
      ends[0] = static_cast<native_handle>(server);
      ends[1] = static_cast<native_handle>(client);
      return 0;
    }
    for (const std::uintptr_t each : {server, client}) {
      if (each != none) all().close_socket(each);
    }
    return -EMFILE;
  }

  static int write(native_handle socket, const void* bytes, std::size_t size) noexcept {
    return answer(all().send(static_cast<std::uintptr_t>(socket), bytes, static_cast<int>(size), 0));
  }
  static int read(native_handle socket, void* bytes, std::size_t size) noexcept {
    return answer(all().receive(static_cast<std::uintptr_t>(socket), bytes, static_cast<int>(size), 0));
  }
  static int close(native_handle socket) noexcept {
    return answer(all().close_socket(static_cast<std::uintptr_t>(socket)));
  }
  static int replace(native_handle, native_handle) noexcept { return -ENOTSUP; }

 private:
  // It tells of a half close what it tells of a hang-up, asked or not; that is nothing to who only writes. False:
  // nothing is left.
  static bool keep_what_concerns(poll_entry& e) noexcept {
    if (e.events != poll_out || (e.revents & poll_hangup) == 0 || (e.revents & poll_error) != 0) return true;
    e.revents = static_cast<short>(e.revents & ~poll_hangup);
    return e.revents != 0;
  }

  struct address {
    unsigned short family;
    unsigned char port[2];
    unsigned char host[4];
    unsigned char zero[8];

    bool is(const address& other) const noexcept { return port[0] == other.port[0] && port[1] == other.port[1]; }
  };

  static constexpr std::uintptr_t none = ~std::uintptr_t{0};
  static constexpr int would_block = 10035;

  static int answer(int result) noexcept {
    if (result >= 0) return result;
    return all().socket_error() == would_block ? -EAGAIN : -EIO;
  }

  static std::uintptr_t make() noexcept {
    constexpr int internet = 2, stream = 1;
    return all().socket(internet, stream, 0);
  }
  static bool listen_at(std::uintptr_t listener, address& here) noexcept {
    here.family = 2;
    here.host[0] = 127;
    here.host[3] = 1;
    int size = sizeof here;
    const functions& f = all();
    return f.bind(listener, &here, size) == 0 && f.listen(listener, 1) == 0 && f.name(listener, &here, &size) == 0;
  }
  // Somebody else may have been quicker to connect.
  static std::uintptr_t accept_own(std::uintptr_t listener, std::uintptr_t client) noexcept {
    address ours{}, theirs{};
    int size = sizeof ours;
    if (all().name(client, &ours, &size) != 0) return none;
    for (;;) {
      size = sizeof theirs;
      const std::uintptr_t got = all().accept(listener, &theirs, &size);
      if (got == none || theirs.is(ours)) return got;
      all().close_socket(got);
    }
  }
  // Neither blocks, nor is inherited, nor waits for more to send.
  static bool settle(std::uintptr_t socket) noexcept {
    constexpr long no_blocking = static_cast<long>(0x8004667E);
    constexpr unsigned long inherits = 1;
    unsigned long yes = 1;
    const functions& f = all();
    f.set_option(socket, 6, 1, &yes, sizeof yes);
    return f.control(socket, no_blocking, &yes) == 0 && f.set_information(reinterpret_cast<void*>(socket), inherits, 0) != 0;
  }

  struct functions {
    int(__stdcall* poll)(poll_entry*, unsigned long, int);
    std::uintptr_t(__stdcall* socket)(int, int, int);
    int(__stdcall* bind)(std::uintptr_t, const address*, int);
    int(__stdcall* listen)(std::uintptr_t, int);
    int(__stdcall* connect)(std::uintptr_t, const address*, int);
    std::uintptr_t(__stdcall* accept)(std::uintptr_t, address*, int*);
    int(__stdcall* name)(std::uintptr_t, address*, int*);
    int(__stdcall* send)(std::uintptr_t, const void*, int, int);
    int(__stdcall* receive)(std::uintptr_t, void*, int, int);
    int(__stdcall* close_socket)(std::uintptr_t);
    int(__stdcall* control)(std::uintptr_t, long, unsigned long*);
    int(__stdcall* set_option)(std::uintptr_t, int, int, const void*, int);
    int(__stdcall* socket_error)();
    int(__stdcall* set_information)(void*, unsigned long, unsigned long);
    bool complete;
    int started;
  };

  static const functions& all() noexcept {
    static const functions found = look_up();
    return found;
  }
  static functions look_up() noexcept {
    functions f{};
    const windows_library kernel("kernel32.dll"), sockets("ws2_32.dll");
    int(__stdcall * start)(unsigned short, void*) = nullptr;
    f.complete = sockets.find(start, "WSAStartup") && sockets.find(f.poll, "WSAPoll") && sockets.find(f.socket, "socket") &&
                 sockets.find(f.bind, "bind") && sockets.find(f.listen, "listen") && sockets.find(f.connect, "connect") &&
                 sockets.find(f.accept, "accept") && sockets.find(f.name, "getsockname") && sockets.find(f.send, "send") &&
                 sockets.find(f.receive, "recv") && sockets.find(f.close_socket, "closesocket") &&
                 sockets.find(f.control, "ioctlsocket") && sockets.find(f.set_option, "setsockopt") &&
                 sockets.find(f.socket_error, "WSAGetLastError") && kernel.find(f.set_information, "SetHandleInformation");
    alignas(std::uint64_t) unsigned char about[512];  // more than it writes
    f.started = f.complete ? start(0x202, about) : -1;
    return f;
  }
};
#else
struct winsock_calls : port_calls {};
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(WINDOWS)
// <<< wait/kernel_winsock.hpp

// >>> wait/kernel_windows.hpp - the kernel seam on Windows: WaitOnAddress, and what all threads and pages need
#if HYBRIDLOOP_OS(WINDOWS)
#include <process.h>

HYBRIDLOOP_OPEN
namespace detail {

struct windows_kernel : winsock_calls {
  static constexpr const char* parking = "WaitOnAddress";

  // Rounded up, or the last millisecond would be spent spinning. A day at most: the caller sleeps again.
  static unsigned long whole_milliseconds(nanos span) noexcept {
    constexpr nanos longest = nanos{24} * 3600 * 1000;
    const nanos up = span / 1000000 + (span % 1000000 != 0 ? 1 : 0);
    return static_cast<unsigned long>(up < longest ? up : longest);
  }

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    const unsigned long span =
        deadline == never ? for_ever
                          : whole_milliseconds(time_between(read_clock<std::chrono::steady_clock>(), deadline));
    const functions& f = all();
    if (f.wait_on_address(word, &expected, sizeof expected, span) != 0) return 0;
    return f.last_error() == timed_out ? -ETIMEDOUT : -EAGAIN;
  }
  static int futex_wake(const void* word, int count) noexcept {
    (count == 1 ? all().wake_one : all().wake_all)(word);
    return 0;
  }

  // Returns when every other thread of the process has passed a full barrier.
  static void flush_write_buffers() noexcept { all().flush_write_buffers(); }
  static bool can_flush_write_buffers() noexcept { return !all().is_wine; }

  // Zeroed pages that cost nothing until touched; nullptr when there are none. (Untouched ones count
  // against what the system has promised, though: it does not promise more than it has.)
  static void* map(std::size_t bytes) noexcept {
    constexpr unsigned long reserve_and_commit = 0x3000, read_and_write = 4;
    return all().map(nullptr, bytes, reserve_and_commit, read_and_write);
  }
  static void unmap(void* memory, std::size_t) noexcept {
    constexpr unsigned long release = 0x8000;
    all().unmap(memory, 0, release);
  }

  static void yield() noexcept { all().yield(); }
  static void nap(nanos span) noexcept { all().sleep(whole_milliseconds(span)); }

  // There are none.
  static constexpr std::uint32_t forks() noexcept { return 0; }

  // A thread of the library's own.
  class thread {
   public:
    thread() noexcept = default;
    thread(const thread&) = delete;
    thread& operator=(const thread&) = delete;

    bool joinable() const noexcept { return run_ != nullptr; }

    // Calls run(with) there. 0, or the errno of a refused thread.
    int start(void (*run)(void*), void* with) noexcept {
      run_ = run;
      with_ = with;
      thread_ = reinterpret_cast<void*>(::_beginthreadex(nullptr, 0, &thread::enter, this, 0, nullptr));
      if (thread_ != nullptr) return 0;
      run_ = nullptr;
      return errno;
    }
    void join() noexcept {
      all().wait_for(thread_, for_ever);
      all().close(thread_);
      run_ = nullptr;
    }
    // The child of a fork, of which there is none.
    void forget() noexcept { run_ = nullptr; }

   private:
    static unsigned __stdcall enter(void* me) {
      const thread& mine = *static_cast<thread*>(me);
      mine.run_(mine.with_);
      return 0;
    }
    void* thread_ = nullptr;
    void (*run_)(void*) = nullptr;
    void* with_ = nullptr;
  };

  // A slim reader/writer lock, which is one pointer.
  class mutex {
   public:
    mutex() noexcept = default;
    mutex(const mutex&) = delete;
    mutex& operator=(const mutex&) = delete;
    void lock() noexcept { all().lock(&word_); }
    bool try_lock() noexcept { return all().try_lock(&word_) != 0; }
    void unlock() noexcept { all().unlock(&word_); }

   private:
    void* word_ = nullptr;
  };
  class hold {
   public:
    explicit hold(mutex& m) noexcept : mutex_(m) { m.lock(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() { mutex_.unlock(); }

   private:
    mutex& mutex_;
  };

  // The process's affinity mask, since a thread may be kept on a CPU of its own. It is of 64 CPUs, and empty where
  // the process has more than those.
  static unsigned usable_cpus() noexcept {
    void* const this_process = reinterpret_cast<void*>(std::intptr_t{-1});
    std::uintptr_t ours = 0, of_all = 0;
    if (all().affinity(this_process, &ours, &of_all) == 0) return 1;
    if (ours == 0) return 64;
    unsigned count = 0;
    for (; ours != 0; ours &= ours - 1) ++count;
    return count;
  }

  // The lowest two bits of a number are the program's own, and none is wider than 32 bits.
  static bool is_descriptor(native_handle handle) noexcept {
    unsigned long flags = 0;
    const bool usual = handle > 0 && handle <= 0x7fffffff && handle % native_handle{handle_step} == 0;
    return usual && all().handle_information(reinterpret_cast<void*>(handle), &flags) != 0;
  }

#if !HYBRIDLOOP_NO_IO
  static int identify(native_handle handle, file_identity& out) noexcept {
    if (!is_descriptor(handle)) return -EBADF;
    if (is_socket(handle)) return 0;
    out.always_ready = is_file(handle);
    return out.always_ready ? 0 : -EBADF;
  }
#endif

 private:
  static constexpr unsigned long for_ever = 0xffffffff;
  static constexpr unsigned long timed_out = 1460;

  struct functions {
    int(__stdcall* wait_on_address)(const void*, const void*, std::size_t, unsigned long);
    void(__stdcall* wake_one)(const void*);
    void(__stdcall* wake_all)(const void*);
    unsigned long(__stdcall* last_error)();
    void(__stdcall* flush_write_buffers)();
    void*(__stdcall* map)(void*, std::size_t, unsigned long, unsigned long);
    int(__stdcall* unmap)(void*, std::size_t, unsigned long);
    int(__stdcall* yield)();
    void(__stdcall* sleep)(unsigned long);
    unsigned long(__stdcall* wait_for)(void*, unsigned long);
    int(__stdcall* close)(void*);
    void(__stdcall* lock)(void**);
    unsigned char(__stdcall* try_lock)(void**);
    void(__stdcall* unlock)(void**);
    int(__stdcall* affinity)(void*, std::uintptr_t*, std::uintptr_t*);
    int(__stdcall* handle_information)(void*, unsigned long*);
    bool is_wine;
  };

  static const functions& all() noexcept {
    static const functions found = look_up();
    return found;
  }
  static functions look_up() noexcept {
    functions f{};
    const windows_library kernel("kernel32.dll"), words("api-ms-win-core-synch-l1-2-0.dll"), native("ntdll.dll");
    const bool complete =
        words.find(f.wait_on_address, "WaitOnAddress") && words.find(f.wake_one, "WakeByAddressSingle") &&
        words.find(f.wake_all, "WakeByAddressAll") && kernel.find(f.last_error, "GetLastError") &&
        kernel.find(f.flush_write_buffers, "FlushProcessWriteBuffers") && kernel.find(f.map, "VirtualAlloc") &&
        kernel.find(f.unmap, "VirtualFree") && kernel.find(f.yield, "SwitchToThread") && kernel.find(f.sleep, "Sleep") &&
        kernel.find(f.wait_for, "WaitForSingleObject") && kernel.find(f.close, "CloseHandle") &&
        kernel.find(f.lock, "AcquireSRWLockExclusive") && kernel.find(f.try_lock, "TryAcquireSRWLockExclusive") &&
        kernel.find(f.unlock, "ReleaseSRWLockExclusive") && kernel.find(f.affinity, "GetProcessAffinityMask") &&
        kernel.find(f.handle_information, "GetHandleInformation");
    if (!complete) fail("needs Windows 8 or later: there is no WaitOnAddress");
    const char*(__cdecl* version)() = nullptr;
    f.is_wine = native.find(version, "wine_get_version");
    return f;
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(WINDOWS)
// <<< wait/kernel_windows.hpp

// >>> wait/kernel.hpp - the kernel seam: what every system call of the library answers, and whose they are
HYBRIDLOOP_OPEN
namespace detail {

// A traits type names its kernel, so a test can put one in between that injects failures, counts
// calls or moves a clock of its own. Answers are what the kernel answers: a value, or -errno.
//
// Every kernel has these. What only one poller or barrier calls (epoll_ctl, kevent, membarrier) is
// said where that kernel offers it.
//
//   futex_wait(word, expected, deadline)
//                        sleeps while the 32 bits at `word` are `expected`, until it is woken or the
//                        steady clock reaches the deadline; `never` is none. May end for no reason
//   futex_wake(word, n)  wakes up to n that sleep there. The address is never read, so it may belong to
//                        nobody any more
//   both, with a mask    where the system can: a wake reaches those whose mask has a bit of it
//   poll(set, n, timeout)          relative; `never` waits for ever
//   poll_entry, poll_in and so on    its set, and its words
//   poll_half_close      what poll() reports when the peer has sent its last; 0 where it says nothing
//   pipe(ends)           the end to read from, then the end to write to; neither blocks, nor is inherited
//   identify(fd, out)    which file a number names
//   write, read, close, is_descriptor
//   replace(number, fd)  makes `number` name what `fd` names; what it named before is closed, in one step
//   map(bytes)           zeroed pages that cost nothing until touched; nullptr when there are none
//   unmap(memory, bytes)
//   yield(), nap(span)
//   forks()              changes in the child of a fork
//   thread, mutex, hold
//   usable_cpus()        how many CPUs the process may use, as far as the system tells
//   parking              the name of what is behind the first two
#if HYBRIDLOOP_OS(LINUX)
using native_kernel = linux_kernel;
#elif HYBRIDLOOP_OS(MACOS)
using native_kernel = macos_kernel;
#elif HYBRIDLOOP_OS(FREEBSD) || HYBRIDLOOP_OS(OPENBSD) || HYBRIDLOOP_OS(NETBSD)
using native_kernel = bsd_kernel;
#elif HYBRIDLOOP_OS(POSIX)
using native_kernel = unix_kernel;
#elif HYBRIDLOOP_OS(WINDOWS)
using native_kernel = windows_kernel;
#endif

#if HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_PARKER_, HYBRIDLOOP_PARKER) == 2
using system_kernel = without_words<native_kernel>;
#else
using system_kernel = native_kernel;
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< wait/kernel.hpp

// >>> wait/parker.hpp - sleeping on a 32-bit word until another thread wakes it or a deadline comes
HYBRIDLOOP_OPEN
namespace detail {

// What a parker is. A traits type may bring another one of the same shape.
//
//   wait(word, expected, deadline)   returns when the word no longer holds `expected`, when it was
//                                    woken, when the deadline passed, or for no reason at all: the
//                                    caller looks at the word. Deadlines are absolute.
//   wake_one(word), wake_all(word)   any thread, any signal handler (but see wait/parking_lot.hpp).
//                                    Only the address is used: the word may be gone, then at worst a
//                                    stranger wakes for no reason.
//   wait(word, expected, deadline, mask), wake_all(word, mask)
//                                    where the kernel can: a wake reaches those whose mask has a bit of it
//
// This one leaves it to the kernel seam, where each system has its own way.
template <class Kernel>
struct system_parker {
  static constexpr const char* name = Kernel::parking;

  template <class Word>
  static void wait(const Word& word, std::uint32_t expected, nanos deadline) noexcept {
    static_assert(sizeof(Word) == 4, "the kernel compares 32 bits");
    Kernel::futex_wait(&word, expected, deadline);
  }
  template <class Word>
  static auto wait(const Word& word, std::uint32_t expected, nanos deadline, std::uint32_t mask) noexcept
      -> decltype(static_cast<void>(Kernel::futex_wait(&word, expected, deadline, mask))) {
    Kernel::futex_wait(&word, expected, deadline, mask);
  }
  template <class Word>
  static void wake_one(const Word& word) noexcept {
    Kernel::futex_wake(&word, 1);
  }
  template <class Word>
  static void wake_all(const Word& word) noexcept {
    Kernel::futex_wake(&word, (std::numeric_limits<int>::max)());
  }
  template <class Word>
  static auto wake_all(const Word& word, std::uint32_t mask) noexcept
      -> decltype(static_cast<void>(Kernel::futex_wake(&word, 1, mask))) {
    Kernel::futex_wake(&word, (std::numeric_limits<int>::max)(), mask);
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< wait/parker.hpp

// >>> wait/notice.hpp - a thread sleeps in its own frame until it is told, once
HYBRIDLOOP_OPEN
namespace detail {

// Whether a parker can wake some of those who sleep on a word.
template <class Parker, class Word, class = void>
inline constexpr bool tells_apart = false;
template <class Parker, class Word>
inline constexpr bool tells_apart<
    Parker, Word,
    std::void_t<decltype(Parker::wait(std::declval<Word&>(), std::uint32_t{}, nanos{}, std::uint32_t{}),
                         Parker::wake_all(std::declval<Word&>(), std::uint32_t{}))>> = true;

// What many wait for: they share a few words, the fewer the more often all are told at once.
struct common_wait {
  const void* what = nullptr;  // nullptr: each frame has a word of its own
  unsigned words = 8;          // a power of two, up to 8
};

// Who is told may leave the frame at once, so who tells must wake it by a word that is elsewhere, and
// never gone: by one of these, chosen by an address (F. Pizlo, Locking in WebKit, 2016: the parking lot).
// All who wait for one thing share a few words, where the parker can tell sleepers apart, so that few calls
// wake a herd; elsewhere each frame has its own. Whoever shares a word, or a bit of its mask there, wakes now
// and then for no reason.
//
// Edge [nudge]: Z1 behind the telling, count += 1 (release), and a wake. Z2 who is going to sleep reads
// the count (acquire), then looks whether it was told, then sleeps while the count is the same. Rule: a
// Z2 that reads Z1 or a later one synchronises with it, the counts being one release sequence
// [intro.races], and the look sees the telling. One that does not finds another count when it sleeps, or
// is woken.
template <class Traits>
class bed {
  using word = typename Traits::template atomic<std::uint32_t>;
  using parker = typename Traits::parker;

 public:
  bed() = default;
  bed(const void* frame, common_wait common) noexcept
      : count_(&all[place_of(mix(frame), mix(apart && common.what != nullptr ? common.what : frame), common.words)]),
        mask_(std::uint32_t{1} << (mix(frame) >> 59)) {}

  std::uint32_t count() const noexcept { return count_->load(std::memory_order_acquire); }  // [nudge] Z2
  void sleep(std::uint32_t count, nanos deadline) const noexcept {
    if constexpr (apart) {
      parker::wait(*count_, count, deadline, mask_);
    } else {
      parker::wait(*count_, count, deadline);
    }
  }
  void nudge() const noexcept {
    count_->fetch_add(1, std::memory_order_release);  // [nudge] Z1
    if constexpr (apart) {
      parker::wake_all(*count_, mask_);
    } else {
      parker::wake_all(*count_);
    }
  }

  // True: one nudge is for both now.
  bool join(const bed& other) noexcept {
    if (count_ != other.count_) return false;
    mask_ |= other.mask_;
    return true;
  }

 private:
  static constexpr bool apart = tells_apart<parker, word>;
  static constexpr unsigned rows = 7;  // a power of two of them, with 8 words in each

  // Stacks of threads lie at like distances: a product spreads them (D. Knuth, TAOCP 3, 6.4).
  static std::uint64_t mix(const void* address) noexcept {
    return reinterpret_cast<std::uintptr_t>(address) * std::uint64_t{0x9e3779b97f4a7c15};
  }

  static std::size_t place_of(std::uint64_t frame, std::uint64_t common, unsigned words) noexcept {
    return static_cast<std::size_t>(common >> (64 - rows) << 3 | (frame >> 56 & (words - 1)));
  }

  static inline word all[std::size_t{8} << rows] = {};
  word* count_;
  std::uint32_t mask_;
};

// Nudges that wait until all are told, one for each word.
template <class Traits>
class nudges {
 public:
  nudges() noexcept = default;
  nudges(const nudges&) = delete;
  nudges& operator=(const nudges&) = delete;
  ~nudges() { give(); }

  void add(const bed<Traits>& who) noexcept {
    for (std::size_t i = 0; i != count_; ++i) {
      if (beds_[i].join(who)) return;
    }
    if (count_ == most) give();
    beds_[count_++] = who;
  }

 private:
  static constexpr std::size_t most = 8;

  void give() noexcept {
    for (std::size_t i = 0; i != count_; ++i) beds_[i].nudge();
    count_ = 0;
  }

  bed<Traits> beds_[most];  // so many as are counted
  std::size_t count_ = 0;
};

// Edge [told]: T1 the teller leaves what it has to say, then word = the telling (release): its last touch
// of the frame. T2 the waiter sees it (acquire), and then the rest; it may leave the frame. Rule: T2
// synchronises with T1 [atomics.order].
//
// Who gives up says so in the same word, so that one of the two is first, and the other finds it.
template <class Traits>
class notice {
 public:
  static constexpr std::uint32_t nothing = 0;

  explicit notice(common_wait common = {}) noexcept : common_(common) {}
  notice(const notice&) = delete;
  notice& operator=(const notice&) = delete;

  // Any thread, while the frame is there. What was told, or nothing.
  std::uint32_t told() const noexcept {
    const std::uint32_t word = word_.load(std::memory_order_acquire);  // [told] T2
    return word >= leaving ? nothing : word;
  }

  // The owner. False: the deadline came first.
  bool wait(nanos deadline) noexcept {
    std::uint32_t seen = nothing;
    word_.compare_exchange_strong(seen, asleep, std::memory_order_relaxed);  // a hint; told() decides
    const bed<Traits> mine(&word_, common_);
    for (;;) {
      const std::uint32_t count = mine.count();
      if (told() != nothing) return true;
      if (deadline != never && read_clock<typename Traits::clock>() >= deadline) return false;
      mine.sleep(count, deadline);
    }
  }

  // Any thread, once: 1 or the like. The last touch, but for the nudge. False: the owner was leaving.
  bool tell(std::uint32_t what, nudges<Traits>& later) noexcept {
    const bed<Traits> its(&word_, common_);
    const std::uint32_t before = word_.exchange(what, std::memory_order_acq_rel);  // [told] T1
    if (before == asleep) later.add(its);
    return before != leaving;
  }
  // The same, but who is leaving is not told.
  bool tell_who_stays(std::uint32_t what, nudges<Traits>& later) noexcept {
    const bed<Traits> its(&word_, common_);
    std::uint32_t seen = asleep;
    while (!word_.compare_exchange_strong(seen, what, std::memory_order_acq_rel,  // [told] T1
                                          std::memory_order_relaxed)) {  // a hint; the loop repeats
      if (seen == leaving) return false;
    }
    if (seen == asleep) later.add(its);
    return true;
  }
  void tell(std::uint32_t what) noexcept {
    nudges<Traits> now;
    tell(what, now);
  }

  // The owner. False: it has been told.
  bool leave() noexcept {
    std::uint32_t seen = asleep;
    while (!word_.compare_exchange_strong(seen, leaving, std::memory_order_relaxed)) {  // a hint; told() decides
      if (seen != nothing) return false;
    }
    return true;
  }
  // And waits on until it is told. False: it has been, while it left.
  bool stay() noexcept {
    std::uint32_t seen = leaving;
    return word_.compare_exchange_strong(seen, nothing, std::memory_order_relaxed);  // a hint; told() decides
  }

  // The owner, who was told in vain: it is going to be told again.
  void forget() noexcept { word_.store(nothing, std::memory_order_relaxed); }  // ours alone until it is in reach again

 private:
  static constexpr std::uint32_t asleep = ~std::uint32_t{0};
  static constexpr std::uint32_t leaving = asleep - 1;

  typename Traits::template atomic<std::uint32_t> word_{nothing};
  const common_wait common_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< wait/notice.hpp

// >>> wait/bell.hpp - a kernel object that any thread can ring and a poller hears
HYBRIDLOOP_OPEN
namespace detail {

#if HYBRIDLOOP_OS(LINUX)
// An eventfd that sits in an epoll set edge-triggered and is never read: each write is an edge.
// Only a saturated counter (2^64 - 2 rings) makes no edge; then one read makes room again.
template <class Kernel>
struct eventfd_bell {
  static int open() noexcept { return Kernel::eventfd(); }

  // Any thread, any signal handler. 0, or the errno that could not be mended.
  static int ring(native_handle bell) noexcept {
    for (int tries = 0;; ++tries) {
      const std::uint64_t one = 1;
      const int wrote = Kernel::write(bell, &one, sizeof one);
      if (wrote == static_cast<int>(sizeof one)) return 0;
      if (wrote == -EAGAIN) {
        std::uint64_t count = 0;
        Kernel::read(bell, &count, sizeof count);
      } else if (wrote != -EINTR && tries >= ring_tries) {
        return wrote < 0 ? -wrote : EIO;
      } else if (wrote != -EINTR) {
        Kernel::yield();
      }
    }
  }

  static constexpr int ring_tries = 100;
};
#endif

// An event of the user's in a kqueue; the queue's own number rings it.
template <class Kernel>
struct user_bell {
  // Any thread, any signal handler. 0, or the errno that could not be mended.
  static int ring(native_handle queue) noexcept {
    for (int tries = 0;; ++tries) {
      const int answer = Kernel::kevent_trigger(queue);
      if (answer == 0) return 0;
      if (answer == -EINTR) continue;
      if (tries >= ring_tries) return -answer;
      Kernel::yield();
    }
  }

  static constexpr int ring_tries = 100;
};

// A pipe that does not block. One byte is as good as many, so a full pipe has been rung; who hears it
// reads it empty.
template <class Kernel>
struct pipe_bell {
  // When refused, the ends are as they were, whatever the system has written there.
  static int open(native_handle (&ends)[2]) noexcept {
    native_handle made[2];
    const int refused = Kernel::pipe(made);
    if (refused == 0) ends[0] = made[0], ends[1] = made[1];
    return refused;
  }

  // Any thread, any signal handler; the end to write to. 0, or the errno that could not be mended.
  static int ring(native_handle bell) noexcept {
    for (int tries = 0;; ++tries) {
      const char one = 1;
      const int wrote = Kernel::write(bell, &one, sizeof one);
      if (wrote == static_cast<int>(sizeof one) || wrote == -EAGAIN) return 0;
      if (wrote == -EINTR) continue;
      if (tries >= ring_tries) return wrote < 0 ? -wrote : EIO;
      Kernel::yield();
    }
  }

  // The end to read from.
  static void hear(native_handle bell) noexcept {
    char rings[1024];
    while (Kernel::read(bell, rings, sizeof rings) == static_cast<int>(sizeof rings)) {
    }
  }

  static constexpr int ring_tries = 100;
};

#if HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
// A packet in a completion port: one at a time, since each takes memory of the kernel's.
//
// Edge [rung]: whoever turns the word on posts the packet, and who takes the packet turns it off before it
// looks around.
//
//   ringer                                  waiter
//   R1  publishes; rung -> 1, exchange      R2  takes the packet; rung -> 0, exchange
//   if it was 0, posts the packet
//
// A ring that found 1 has a packet to come, whose R2 reads this R1 or a later one, and sees what was
// published. Rule: exchanges of one word are read-modify-writes, so R2 reads R1 or its release sequence
// [intro.races].
template <class Kernel>
struct port_bell {
  struct state {
    std::atomic<std::uint32_t> rung{0};
    native_handle port = -1;
  };

  static native_handle number_of(const state& bell) noexcept {
    return reinterpret_cast<native_handle>(&bell);
  }

  // Any thread. 0, or the errno that could not be mended.
  static int ring(native_handle bell) noexcept {
    auto& b = *reinterpret_cast<state*>(bell);
    if (b.rung.exchange(1, std::memory_order_acq_rel) != 0) return 0;  // [rung] R1
    for (int tries = 0;; ++tries) {
      const int answer = Kernel::port_post(b.port, Kernel::bell_key, nullptr);
      if (answer == 0) return 0;
      if (tries >= ring_tries) return -answer;
      Kernel::yield();
    }
  }

  static void hear(state& bell) noexcept { bell.rung.exchange(0, std::memory_order_acq_rel); }  // [rung] R2

  static constexpr int ring_tries = 100;
};
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< wait/bell.hpp

// >>> wait/fence.hpp - the barrier that a sleeper pays so that posters need not
HYBRIDLOOP_OPEN
namespace detail {

// membarrier(2), private expedited: returns when every other thread of the process has passed a
// full barrier. Registration is per process: microseconds while it has one thread, a grace period of
// the kernel (some 10 ms) when it has more, so a loop does it when it is made.
#if HYBRIDLOOP_OS(LINUX)
template <class Kernel>
struct process_barrier {
  // Whether issue() may be counted on.
  static bool available() noexcept {
    int state = known().load(std::memory_order_relaxed);  // a hint; asking twice is harmless
    if (state == unknown) {
      state = Kernel::membarrier(Kernel::membarrier_register_expedited) == 0 ? yes : no;
      known().store(state, std::memory_order_relaxed);  // a hint; asking twice is harmless
    }
    return state == yes;
  }

  // False when the kernel has come to refuse it (a sandbox, a restored checkpoint).
  static bool issue() noexcept {
    if (Kernel::membarrier(Kernel::membarrier_expedited) == 0) return true;
    return Kernel::membarrier(Kernel::membarrier_register_expedited) == 0 &&
           Kernel::membarrier(Kernel::membarrier_expedited) == 0;
  }

  // The one barrier on the way back to symmetric posting, after issue() failed: the slow command,
  // which needs no registration, and where even that is refused a pause in which the other CPUs'
  // store buffers have long drained.
  static void issue_last() noexcept {
    known().store(no, std::memory_order_relaxed);  // a hint; asking twice is harmless
    if (Kernel::membarrier(Kernel::membarrier_global) == 0) return;
    for (int i = 0; i < 1000; ++i) Kernel::yield();
  }

 private:
  enum : int { unknown, yes, no };
  static std::atomic<int>& known() noexcept {
    static std::atomic<int> state{unknown};
    return state;
  }
};

template <class Kernel>
using system_barrier = process_barrier<Kernel>;
#elif HYBRIDLOOP_OS(WINDOWS)
// FlushProcessWriteBuffers, which takes no registration. Wine's does nothing, or did for long.
template <class Kernel>
struct process_barrier {
  static bool available() noexcept { return Kernel::can_flush_write_buffers(); }
  static bool issue() noexcept {
    Kernel::flush_write_buffers();
    return true;
  }
  static void issue_last() noexcept { Kernel::flush_write_buffers(); }
};

template <class Kernel>
using system_barrier = process_barrier<Kernel>;
#else
// Where the kernel has no such call, posters pay for themselves.
template <class Kernel>
struct no_barrier {
  static bool available() noexcept { return false; }
  static bool issue() noexcept { return false; }
  static void issue_last() noexcept {}
};

template <class Kernel>
using system_barrier = no_barrier<Kernel>;
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< wait/fence.hpp

// >>> poller/contract.hpp - what a poller is, and the words it speaks
HYBRIDLOOP_OPEN

// What to watch a descriptor for; flags, combined with |.
enum class interest : unsigned {
  none = 0,
  readable = 1,
  writable = 2,
  edge = 4,      // once per change instead of as long as it is so
  oneshot = 8,   // once, then silent until modify()
  priority = 16  // out-of-band data
};

constexpr interest operator|(interest a, interest b) noexcept {
  return static_cast<interest>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr interest operator&(interest a, interest b) noexcept {
  return static_cast<interest>(static_cast<unsigned>(a) & static_cast<unsigned>(b));
}
constexpr interest operator~(interest a) noexcept {
  return static_cast<interest>(~static_cast<unsigned>(a) & 31u);
}
constexpr interest& operator|=(interest& a, interest b) noexcept { return a = a | b; }
constexpr interest& operator&=(interest& a, interest b) noexcept { return a = a & b; }

// What a watch's callback is told.
struct ready {
  bool readable = false;
  bool writable = false;
  bool hangup = false;    // the peer will send no more; comes with readable
  bool error = false;     // the descriptor has failed, or could not be watched
  bool priority = false;
  int native_error = 0;   // errno of a refused watch or modify; 0 otherwise
  watch_id id{};
};

namespace detail {

constexpr bool has(interest set, interest flag) noexcept {
  return (set & flag) != interest::none;
}
inline constexpr interest anything = interest::readable | interest::writable | interest::priority;

// Which registration an event belongs to; the poller hands it back and never looks inside.
using poll_token = std::uint64_t;
inline constexpr poll_token bell_token = ~poll_token{0};

struct poll_event {
  poll_token token;
  ready what;
};

// A poller has these verbs, in this order. All answer 0 or an errno; EINTR never leaves `wait`
// as an error. What a poller has opened for itself is no descriptor to it: EBADF. The loop thread
// calls them, except where it says otherwise.
//
//   open()                        creates the kernel objects; refused ones leave nothing behind
//   close()                       idempotent
//   is_open()
//   owns(fd)                      one of the kernel objects' own numbers
//   add(fd, interest, token)      EPERM: a file that is always ready and cannot be polled
//   change(fd, interest, token)   also makes an edge-triggered descriptor report again. EBADF, ENOENT
//                                 or EPERM: the number no longer names what was added
//   remove(fd)                    removing what is not there is an answer, not a failure; EBADF where
//                                 the number is no descriptor at all
//   renew()                       forgets every registration, also those that cannot be removed. The
//                                 bell stays; when refused, all stays. Not while another thread waits
//   expose(out)                   a handle that is readable while the bell was rung and not heard by
//                                 wait(), or a registered descriptor is ready. ENOTSUP: there is none
//   settle()                      before somebody waits for that handle: makes it speak of all that was reported
//                                 and is to be reported again
//   abandon()                     the child of a fork: closes its copies of the kernel objects, and tells
//                                 the kernel nothing about what the parent has registered there
//   reopen()                      the child of a fork: kernel objects of its own under the old numbers,
//                                 and nothing registered. When refused, it may only be closed
//   edges                         a constant: false where `edge` is told like level-triggered
//   wait(out, room, timeout)      relative nanoseconds, `never` for ever; the number of events, or
//                                 0 for a timeout, a signal or the bell alone, or -errno
//   bell()                        the handle that ring() takes; stays the same while open
//   ring(bell)                    static; any thread, any signal handler: ends a wait, or the next
//                                 one when none is going on. Never lost, may be coalesced
//
// With interest `none` a registration reports a hang-up at most once.

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< poller/contract.hpp

// >>> poller/epoll.hpp - readiness from epoll(7)
#if HYBRIDLOOP_OS(LINUX) && !HYBRIDLOOP_NO_IO
HYBRIDLOOP_OPEN
namespace detail {

template <class Kernel>
class epoll_poller {
 public:
  static constexpr const char* name = "epoll";
  static constexpr bool edges = true;

  epoll_poller() noexcept = default;
  epoll_poller(const epoll_poller&) = delete;
  epoll_poller& operator=(const epoll_poller&) = delete;
  ~epoll_poller() { close(); }

  int open() noexcept {
    if (is_open()) return 0;
    const int epoll = Kernel::epoll_create();
    if (epoll < 0) return -epoll;
    epoll_ = epoll;
    bell_ = eventfd_bell<Kernel>::open();
    const int refused = bell_ < 0 ? -bell_ : add_bell(bell_);
    if (refused != 0) close();
    return refused;
  }

  void close() noexcept {
    if (bell_ >= 0) Kernel::close(bell_);
    if (epoll_ >= 0) Kernel::close(epoll_);
    if (outer_ >= 0) Kernel::close(outer_);
    bell_ = -1;
    epoll_ = -1;
    outer_ = -1;
  }
  void abandon() noexcept { close(); }

  bool is_open() const noexcept { return epoll_ >= 0; }
  bool owns(native_handle fd) const noexcept {
    return fd >= 0 && (fd == epoll_ || fd == bell_ || fd == outer_);
  }

  // EEXIST: a registration stayed behind when the number was closed, and now it names that file again.
  int add(native_handle fd, interest what, poll_token token) noexcept {
    const int refused = control(EPOLL_CTL_ADD, fd, events_of(what), token);
    return refused == EEXIST ? change(fd, what, token) : refused;
  }
  int change(native_handle fd, interest what, poll_token token) noexcept {
    return control(EPOLL_CTL_MOD, fd, events_of(what), token);
  }
  int remove(native_handle fd) noexcept { return control(EPOLL_CTL_DEL, fd, 0, 0); }

  // A new set under the old number.
  int renew() noexcept {
    epoll_poller fresh;
    fresh.epoll_ = Kernel::epoll_create();
    if (fresh.epoll_ < 0) return -fresh.epoll_;
    const int refused = fresh.add_bell(bell_);
    if (refused != 0) return refused;
    // The old set may live on in the child of a fork, so it is taken out of the outer one by hand.
    if (outer_ >= 0) Kernel::epoll_ctl(outer_, EPOLL_CTL_DEL, epoll_, nullptr);
    const int moved = Kernel::replace(epoll_, fresh.epoll_);
    if (outer_ >= 0 && add_to_outer() != 0) fail("the kernel refuses to expose a loop's new epoll set");
    return moved < 0 ? -moved : 0;
  }

  // The numbers stay; what they name is new.
  int reopen() noexcept {
    epoll_poller fresh;
    const int refused = fresh.open();
    if (refused != 0) return refused;
    int moved = Kernel::replace(bell_, fresh.bell_);
    if (moved >= 0) moved = Kernel::replace(epoll_, fresh.epoll_);
    if (moved >= 0) moved = -add_bell(bell_);
    if (moved < 0) return -moved;
    return outer_ >= 0 ? reopen_outer() : 0;
  }

  // A set around the set, because renew() must not change what a foreign loop waits for.
  int expose(native_handle& out) noexcept {
    if (outer_ < 0) {
      const int made = Kernel::epoll_create();
      if (made < 0) return -made;
      outer_ = made;
      const int refused = add_to_outer();
      if (refused != 0) {
        Kernel::close(std::exchange(outer_, -1));
        return refused;
      }
    }
    out = outer_;
    return 0;
  }

  void settle() noexcept {}

  // Sub-millisecond where the kernel has epoll_pwait2 (5.11); otherwise rounded up, or the last
  // millisecond would be spent spinning.
  int wait(poll_event* out, std::size_t room, nanos timeout) noexcept {
    epoll_event events[batch];
    const int want = static_cast<int>(room < batch ? room : batch);
    int got = -ENOSYS;
    if (timeout == 0 || timeout == never) {
      got = Kernel::epoll_wait(epoll_, events, want, timeout == 0 ? 0 : -1);
    } else {
      if (has_pwait2()) got = Kernel::epoll_pwait2(epoll_, events, want, timeout);
      if (got == -ENOSYS || got == -EPERM) {  // EPERM: a sandbox that does not know the call
        no_pwait2().store(true, std::memory_order_relaxed);  // a hint; asking again is harmless
        got = Kernel::epoll_wait(epoll_, events, want, Kernel::whole_milliseconds(timeout));
      }
    }
    if (got < 0) return got == -EINTR ? 0 : got;
    return translate(events, got, out);
  }

  native_handle bell() const noexcept { return bell_; }
  static int ring(native_handle bell) noexcept { return eventfd_bell<Kernel>::ring(bell); }

 private:
  static constexpr std::size_t batch = events_per_turn;

  static std::uint32_t events_of(interest what) noexcept {
    std::uint32_t events = 0;
    if (has(what, interest::readable)) events |= EPOLLIN | EPOLLRDHUP;
    if (has(what, interest::writable)) events |= EPOLLOUT;
    if (has(what, interest::priority)) events |= EPOLLPRI;
    if (has(what, interest::edge)) events |= EPOLLET;
    if (has(what, interest::oneshot)) events |= EPOLLONESHOT;
    // The kernel reports hang-ups and errors unasked and for ever; here once is enough.
    if ((what & anything) == interest::none) events = EPOLLET | EPOLLONESHOT;
    return events;
  }

  static ready ready_of(std::uint32_t events) noexcept {
    ready what;
    what.hangup = (events & (EPOLLHUP | EPOLLRDHUP)) != 0;
    what.readable = (events & EPOLLIN) != 0 || what.hangup;
    what.writable = (events & EPOLLOUT) != 0;
    what.error = (events & EPOLLERR) != 0;
    what.priority = (events & EPOLLPRI) != 0;
    return what;
  }

  int add_bell(int bell) noexcept {
    return tell_kernel(EPOLL_CTL_ADD, bell, EPOLLIN | EPOLLET, bell_token);
  }

  int reopen_outer() noexcept {
    const int fresh = Kernel::epoll_create();
    if (fresh < 0) return -fresh;
    const int moved = Kernel::replace(outer_, fresh);
    Kernel::close(fresh);
    return moved < 0 ? -moved : add_to_outer();
  }

  int add_to_outer() noexcept {
    epoll_event event{};
    event.events = EPOLLIN;
    return -Kernel::epoll_ctl(outer_, EPOLL_CTL_ADD, epoll_, &event);
  }

  // A number that was closed may have become one of ours; it is no descriptor of the user's then.
  int control(int verb, int fd, std::uint32_t events, poll_token token) noexcept {
    return owns(fd) ? EBADF : tell_kernel(verb, fd, events, token);
  }

  int tell_kernel(int verb, int fd, std::uint32_t events, poll_token token) noexcept {
    epoll_event event{};
    event.events = events;
    event.data.u64 = token;
    return -Kernel::epoll_ctl(epoll_, verb, fd, &event);
  }

  static int translate(const epoll_event* events, int count, poll_event* out) noexcept {
    int kept = 0;
    for (int i = 0; i < count; ++i) {
      if (events[i].data.u64 == bell_token) continue;
      out[kept].token = events[i].data.u64;
      out[kept].what = ready_of(events[i].events);
      ++kept;
    }
    return kept;
  }

  static std::atomic<bool>& no_pwait2() noexcept {
    static std::atomic<bool> missing{false};
    return missing;
  }
  static bool has_pwait2() noexcept {
    return !no_pwait2().load(std::memory_order_relaxed);  // a hint; ENOSYS falls back
  }

  int epoll_ = -1;
  int bell_ = -1;
  int outer_ = -1;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(LINUX) && !HYBRIDLOOP_NO_IO
// <<< poller/epoll.hpp

// >>> poller/kqueue_bell.hpp - what ends a wait in a kqueue: an event of the user's, or a pipe where there are none
#if HYBRIDLOOP_HAS_KQUEUE()
HYBRIDLOOP_OPEN
namespace detail {

template <class Kernel>
class kqueue_bell {
 public:
  // For a queue that is empty yet. 0 or an errno.
  int open(int queue) noexcept {
    if (bells_.load(std::memory_order_relaxed) == untried) {  // a hint; asking twice is harmless
      int first = untried;  // whose answer is everybody's: a bell is rung as it was made
      bells_.compare_exchange_strong(first, try_user_events(queue) ? yes : no, std::memory_order_relaxed);  // a hint; settled before there is a bell
    }
    if (!has_user_events()) {
      const int refused = -pipe_bell<Kernel>::open(ends);
      if (refused != 0) return refused;
    }
    return tell(queue);
  }
  // That it is to hear the bell. 0 or an errno.
  int tell(int queue) const noexcept {
    if (has_user_events()) return -Kernel::kevent_add_user(queue);
    return -Kernel::kevent_add(queue, ends[0], Kernel::filter_read, false, 0);
  }

  // False: the event is none of the bell's.
  bool hears(const typename Kernel::kernel_event& event) const noexcept {
    if (event.filter == Kernel::filter_user) return true;
    if (static_cast<native_handle>(event.ident) != ends[0]) return false;
    pipe_bell<Kernel>::hear(ends[0]);
    return true;
  }

  native_handle handle(int queue) const noexcept { return ends[1] >= 0 ? ends[1] : queue; }
  // Any thread, any signal handler. 0 or an errno.
  static int ring(native_handle handle) noexcept {
    return has_user_events() ? user_bell<Kernel>::ring(handle) : pipe_bell<Kernel>::ring(handle);
  }

  int ends[2] = {-1, -1};  // of the pipe, where it takes one

 private:
  // Asked of the running kernel: some know the filter and do nothing about it.
  static bool try_user_events(int queue) noexcept {
    typename Kernel::kernel_event heard{};
    return Kernel::kevent_add_user(queue) == 0 && Kernel::kevent_trigger(queue) == 0 &&
           Kernel::kevent_wait(queue, &heard, 1, 0) == 1 && heard.filter == Kernel::filter_user;
  }
  static bool has_user_events() noexcept {
    return bells_.load(std::memory_order_relaxed) == yes;  // a hint; settled before there is a bell
  }
  enum : int { untried, yes, no };
  static inline std::atomic<int> bells_{untried};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_HAS_KQUEUE()
// <<< poller/kqueue_bell.hpp

// >>> poller/kqueue_filters.hpp - what a watch asks for and is told, in the filters of kqueue(2)
#if HYBRIDLOOP_HAS_KQUEUE()
HYBRIDLOOP_OPEN
namespace detail {

template <class Kernel>
struct kqueue_filters {
  enum : unsigned { reads = 1, writes = 2, excepts = 4 };
  static constexpr unsigned every[] = {reads, writes, excepts};

  static unsigned asked_by(interest what) noexcept {
    return (has(what, interest::readable) ? unsigned{reads} : 0u) | (has(what, interest::writable) ? unsigned{writes} : 0u) |
           (has(what, interest::priority) ? unsigned{excepts} : 0u);
  }
  static typename Kernel::kernel_filter one(unsigned which) noexcept {
    return which == reads ? Kernel::filter_read : which == writes ? Kernel::filter_write : Kernel::filter_except;
  }

  // The end of a pipe to write to has no hang-up: its reader is gone, which is an error.
  static void report(const typename Kernel::kernel_event& event, bool pipe, ready& what) noexcept {
    const bool over = Kernel::kevent_is_end(event);
    const bool failed = over && event.fflags != 0;
    if (event.filter == Kernel::filter_read) {
      what.readable = true;
      what.hangup = what.hangup || over;
      what.error = what.error || failed;
    } else if (event.filter == Kernel::filter_write) {
      what.writable = true;
      what.hangup = what.hangup || (over && !pipe);
      what.readable = what.readable || what.hangup;
      what.error = what.error || failed || (over && pipe);
    } else {
      what.priority = true;
    }
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_HAS_KQUEUE()
// <<< poller/kqueue_filters.hpp

// >>> poller/terminals.hpp - terminals that kqueue refuses, asked after by select(2) in one wait with the queue
#if HYBRIDLOOP_HAS_KQUEUE()
HYBRIDLOOP_OPEN
namespace detail {

// macOS hears nothing of /dev/tty by kqueue(2) nor by poll(2). Its select(2) does, and knows queues too, so no
// thread stands in between, as in libuv. Level-triggered, whatever was asked for. The poller's lock is held.
template <class Kernel>
class terminals {
 public:
  // What one wait asks for, and what it is answered.
  struct question {
    typename Kernel::select_set reads, writes;
    int top = -1;

    bool asks() const noexcept { return top >= 0; }
    // 0: the queue may have something. Or -errno; EBADF: somebody has closed one of them.
    int wait(int queue, nanos timeout) noexcept {
      reads.put(queue);
      const int got = Kernel::select((queue > top ? queue : top) + 1, reads, writes, timeout);
      return got < 0 ? got : 0;
    }
    bool speaks_of(int fd) const noexcept { return reads.has(fd) || writes.has(fd); }
    ready answer(int fd) const noexcept {
      ready what;
      what.readable = reads.has(fd);
      what.writable = writes.has(fd);
      return what;
    }
  };

  static bool takes(int fd, int queue) noexcept {
    return Kernel::select_set::takes(fd) && Kernel::select_set::takes(queue) && Kernel::is_terminal(fd);
  }

  const question& asked() const noexcept { return asked_; }

  void set(int fd, interest what) noexcept {
    erase(fd);
    if (has(what, interest::readable)) asked_.reads.put(fd);
    if (has(what, interest::writable)) asked_.writes.put(fd);
    if (asked_.speaks_of(fd) && fd > asked_.top) asked_.top = fd;
  }
  void erase(int fd) noexcept {
    asked_.reads.take(fd);
    asked_.writes.take(fd);
    while (asked_.asks() && !asked_.speaks_of(asked_.top)) --asked_.top;
  }
  void clear() noexcept { asked_ = question{}; }

 private:
  question asked_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_HAS_KQUEUE()
// <<< poller/terminals.hpp

// >>> poller/kqueue.hpp - readiness from kqueue(2): macOS and the BSDs
#if HYBRIDLOOP_HAS_KQUEUE()
HYBRIDLOOP_OPEN
namespace detail {

// One watch is up to three filters of the kernel: to read, to write, and out-of-band data where that is
// known. The table here says what was asked for which number, so that what they tell in one wait is one
// event; and it is what `oneshot` is made of, since that is for all three at once.
//
// A companion may sit in wait() while the loop thread changes the set. The kernel takes changes then; an
// event carries the count of changes at which its filters were set, so one that is older is dropped.
//
// A terminal that the kernel refuses is asked after by select(2), see poller/terminals.hpp.
//
// The kernel takes off what is closed. To delete or to enable a filter that it does not know any more fails,
// which is how a number that names another file by now is found out.
template <class Kernel>
class kqueue_poller {
 public:
  static constexpr const char* name = "kqueue";
  static constexpr bool edges = true;

  kqueue_poller() noexcept = default;
  kqueue_poller(const kqueue_poller&) = delete;
  kqueue_poller& operator=(const kqueue_poller&) = delete;
  ~kqueue_poller() { close(); }

  int open() noexcept {
    if (is_open()) return 0;
    const int made = Kernel::kqueue();
    if (made < 0) return -made;
    queue_ = made;
    const int refused = bell_.open(queue_);
    if (refused != 0) close();
    return refused;
  }

  void close() noexcept {
    for (int* each : {&bell_.ends[1], &bell_.ends[0], &queue_}) {
      if (*each >= 0) Kernel::close(*each);
      *each = -1;
    }
    forget();
  }

  // The queue is not there in the child, where its number may be somebody else's. A companion that is not
  // there either may have held the lock, in the middle of something.
  void abandon() noexcept {
    if (!Kernel::kqueue_is_inherited) queue_ = -1;
    if (mutex_.try_lock()) {
      mutex_.unlock();
    } else {
      ::new (static_cast<void*>(&mutex_)) typename Kernel::mutex;
    }
    close();
  }

  // Comes before anything else in the child, so the numbers are still free.
  int reopen() noexcept {
    const int old[3] = {std::exchange(queue_, -1), std::exchange(bell_.ends[0], -1), std::exchange(bell_.ends[1], -1)};
    abandon();
    kqueue_poller fresh;
    int moved = -fresh.open();
    int* const made[3] = {&fresh.queue_, &fresh.bell_.ends[0], &fresh.bell_.ends[1]};
    for (int i = 0; i < 3 && moved >= 0; ++i) {
      if (old[i] < 0 || *made[i] == old[i]) continue;
      moved = Kernel::replace(old[i], *made[i]);
      Kernel::close(std::exchange(*made[i], old[i]));
    }
    queue_ = std::exchange(fresh.queue_, -1);
    for (int i = 0; i < 2; ++i) bell_.ends[i] = std::exchange(fresh.bell_.ends[i], -1);
    return moved < 0 ? -moved : bell_.tell(queue_);
  }

  bool is_open() const noexcept { return queue_ >= 0; }
  bool owns(native_handle fd) const noexcept {
    return fd >= 0 && (fd == queue_ || fd == bell_.ends[0] || fd == bell_.ends[1]);
  }

  int add(native_handle fd, interest what, poll_token token) noexcept {
    file_identity file;
    const int unknown = identify(fd, file);
    if (unknown != 0) return unknown;
    if (file.always_ready) return EPERM;
    const typename Kernel::hold held(mutex_);
    if (!entries_.reach(number(fd) + 1)) return ENOMEM;
    entry& e = entries_[number(fd)];
    erase(fd, e);
    e.file = file;
    const int refused = set(fd, e, what, token);
    if (refused != 0) erase(fd, e);
    return refused;
  }

  int change(native_handle fd, interest what, poll_token token) noexcept {
    const typename Kernel::hold held(mutex_);
    entry* e = find(fd);
    if (e == nullptr) return unregistered(fd);
    const int gone = look_again(fd, *e);
    const entry was = *e;
    const int refused = gone != 0 ? gone : set(fd, *e, what, token);
    if (refused == EBADF || refused == ENOENT) {
      erase(fd, *e);
    } else if (refused != 0 && set(fd, *e, was.what, was.token) == 0 && was.silent) {
      silence(fd, *e);
    }
    return refused;
  }

  int remove(native_handle fd) noexcept {
    const typename Kernel::hold held(mutex_);
    entry* e = find(fd);
    if (e == nullptr) return unregistered(fd);
    erase(fd, *e);
    return 0;
  }

  // What was closed is off already, so everything can be removed.
  int renew() noexcept {
    const typename Kernel::hold held(mutex_);
    for (std::size_t i = 0; i < entries_.room(); ++i) {
      if (entries_[i].set_at != 0) erase(static_cast<native_handle>(i), entries_[i]);
    }
    return 0;
  }

  int expose(native_handle& out) const noexcept {
    out = queue_;
    return 0;
  }

  void settle() noexcept {}

  // A filter may have been heard while the other one of its watch was not set yet: both are told at once.
  int wait(poll_event* out, std::size_t room, nanos timeout) noexcept {
    kernel_event events[batch];
    question asked;
    const std::uint64_t seen = begin_wait(asked);
    std::size_t found = asked.asks() ? wait_for_terminals(asked, seen, out, room, timeout) : 0;
    const int want = static_cast<int>(room - found < batch ? room - found : batch);
    int got = Kernel::kevent_wait(queue_, events, want, asked.asks() ? 0 : timeout);
    if (got < 0 && found == 0) return got == -EINTR ? 0 : got;
    const typename Kernel::hold held(mutex_);
    waiting_ = false;
    if (changes_ != seen && got > 0 && got < want) {
      const int more = Kernel::kevent_wait(queue_, events + got, want - got, 0);
      if (more > 0) got += more;
    }
    ++waits_;
    for (int i = 0; i < got; ++i) translate(events[i], out, found);
    return static_cast<int>(found);
  }

  native_handle bell() const noexcept { return bell_.handle(queue_); }
  static int ring(native_handle bell) noexcept { return kqueue_bell<Kernel>::ring(bell); }

 private:
  using kernel_event = typename Kernel::kernel_event;
  using filters = kqueue_filters<Kernel>;
  using question = typename terminals<Kernel>::question;
  static constexpr std::size_t batch = events_per_turn;

  struct entry {
    std::uint64_t set_at = 0;  // 0: nobody's
    std::uint64_t told_in = 0;
    std::size_t told_as = 0;
    poll_token token = 0;
    unsigned filters = 0;  // that the kernel has
    interest what = interest::none;
    bool silent = false;  // until change()
    bool terminal = false;  // that the kernel refused
    file_identity file{};
  };

  std::uint64_t begin_wait(question& asked) noexcept {
    const typename Kernel::hold held(mutex_);
    if (terminals_.asked().asks()) asked = terminals_.asked();
    waiting_ = true;
    return changes_;
  }

  static std::size_t number(native_handle fd) noexcept { return static_cast<std::size_t>(fd); }

  int identify(native_handle fd, file_identity& file) const noexcept {
    return owns(fd) ? EBADF : -Kernel::identify(fd, file);
  }
  int unregistered(native_handle fd) const noexcept {
    file_identity file;
    const int unknown = identify(fd, file);
    return unknown != 0 ? unknown : ENOENT;
  }
  int look_again(native_handle fd, const entry& e) const noexcept {
    file_identity file;
    const int unknown = identify(fd, file);
    return unknown == 0 && !(e.file == file) ? ENOENT : unknown;
  }
  entry* find(native_handle fd) noexcept {
    if (fd < 0 || number(fd) >= entries_.room() || entries_[number(fd)].set_at == 0) return nullptr;
    return &entries_[number(fd)];
  }

  // A filter that is there keeps its place in the queue, so that a change puts nobody last, and its flags, so
  // for other ones it is made anew. To add it once more has its edge told again.
  int set(native_handle fd, entry& e, interest what, poll_token token) noexcept {
    if (has(what, interest::priority) && !Kernel::kqueue_hears_priority) return ENOTSUP;
    const bool edge = has(what, interest::edge);
    const unsigned wanted = filters::asked_by(what);
    const int gone = take_off(fd, e, has(e.what, interest::edge) == edge ? ~wanted : ~0u);
    if (gone != 0) return gone;
    e.set_at = ++changes_;
    e.token = token;
    e.what = what;
    e.silent = false;
    if (e.terminal) return ask_terminal(fd, what);
    for (const unsigned which : filters::every) {
      if ((wanted & which) == 0) continue;
      int refused = (e.filters & which) != 0 ? -Kernel::kevent_enable(queue_, fd, filters::one(which)) : 0;
      if (refused == 0) refused = -Kernel::kevent_add(queue_, fd, filters::one(which), edge, e.set_at);
      e.terminal = refused == EINVAL && e.filters == 0 && terminals<Kernel>::takes(fd, queue_);
      if (e.terminal) return ask_terminal(fd, what);
      if (refused != 0) return refused;
      e.filters |= which;
    }
    return 0;
  }

  // ENOENT or EBADF: the kernel had taken one off already.
  int take_off(native_handle fd, entry& e, unsigned those = ~0u) noexcept {
    int gone = 0;
    for (const unsigned which : filters::every) {
      if ((e.filters & those & which) == 0) continue;
      const int refused = -Kernel::kevent_delete(queue_, fd, filters::one(which));
      if (refused != 0) gone = refused;
    }
    e.filters &= ~those;
    return gone;
  }

  void erase(native_handle fd, entry& e) noexcept {
    take_off(fd, e);
    if (e.terminal) ask_terminal(fd, interest::none);
    e = entry{};
  }
  void forget() noexcept {
    terminals_.clear();
    waiting_ = false;
    for (std::size_t i = 0; i < entries_.room(); ++i) entries_[i] = entry{};
  }

  void translate(const kernel_event& event, poll_event* out, std::size_t& found) noexcept {
    const auto fd = static_cast<native_handle>(event.ident);
    if (bell_.hears(event)) return;
    entry* e = find(fd);
    if (e == nullptr || !Kernel::kevent_carries(event, e->set_at)) return;
    if (e->told_in != waits_) {
      if (e->silent) return;
      e->told_in = waits_;
      e->told_as = found++;
      out[e->told_as] = {e->token, ready{}};
      if (has(e->what, interest::oneshot)) silence(fd, *e);
    }
    filters::report(event, e->file.pipe, out[e->told_as].what);
  }

  // Stays there, so that the next change finds out whether the number was closed.
  void silence(native_handle fd, entry& e) noexcept {
    e.silent = true;
    if (e.terminal) terminals_.set(fd, interest::none);
    for (const unsigned which : filters::every) {
      if ((e.filters & which) != 0) Kernel::kevent_disable(queue_, fd, filters::one(which));
    }
  }

  // ---- Terminals ----

  // A wait that is going on asks for what was there when it began.
  int ask_terminal(native_handle fd, interest what) noexcept {
    if (has(what, interest::priority)) return ENOTSUP;
    terminals_.set(fd, what);
    return std::exchange(waiting_, false) ? ring(bell()) : 0;
  }

  // Until one has something, or the queue may have. What they have comes first, of which there is little.
  std::size_t wait_for_terminals(question& asked, std::uint64_t seen, poll_event* out, std::size_t room, nanos timeout) noexcept {
    const int failed = asked.wait(queue_, timeout);
    const typename Kernel::hold held(mutex_);
    if (failed != 0) asked = terminals_.asked();
    std::size_t found = 0;
    for (int fd = 0; fd <= asked.top && found < room; ++fd) {
      entry* e = asked.speaks_of(fd) ? find(fd) : nullptr;
      if (e == nullptr || !e->terminal || e->silent || e->set_at > seen) continue;
      if (look_again(fd, *e) != 0) {
        erase(fd, *e);
      } else if (failed == 0) {
        out[found++] = {e->token, asked.answer(fd)};
        if (has(e->what, interest::oneshot)) silence(fd, *e);
      }
    }
    return found;
  }

  int queue_ = -1;
  kqueue_bell<Kernel> bell_;

  // The waiter alone.
  std::uint64_t waits_ = 0;

  // Under the lock.
  typename Kernel::mutex mutex_;
  plain_array<entry> entries_;  // by number
  std::uint64_t changes_ = 0;
  terminals<Kernel> terminals_;
  bool waiting_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_HAS_KQUEUE()
// <<< poller/kqueue.hpp

// >>> poller/poll.hpp - readiness from poll(2), which every POSIX system has
#if !HYBRIDLOOP_NO_IO
HYBRIDLOOP_OPEN
namespace detail {

// The set stands here and goes to the kernel with every wait, which costs as much as there are
// descriptors. poll(2) has no edges: `edge` is told like a level, so nothing that was missed is lost.
//
// A companion may sit in wait() while the loop thread changes the set. So the waiter polls a copy; a
// change ends that wait, and what it found is looked up in the set as it is by then.
//
// Nobody tells of a number that is closed or names another file by now. Where poll(2) or a look at
// the file shows it, that is reported once (error, EBADF) and the registration is gone.
template <class Kernel>
class poll_poller {
 public:
  static constexpr const char* name = "poll";
  static constexpr bool edges = false;

  poll_poller() noexcept = default;
  poll_poller(const poll_poller&) = delete;
  poll_poller& operator=(const poll_poller&) = delete;
  ~poll_poller() { close(); }

  int open() noexcept {
    if (is_open()) return 0;
    if (!copy_.reach(1)) return ENOMEM;
    return -pipe_bell<Kernel>::open(ends_);
  }

  // First the end to write to: who still rang it would be sent a SIGPIPE otherwise.
  void close() noexcept {
    for (native_handle* end : {&ends_[1], &ends_[0]}) {
      if (*end >= 0) Kernel::close(*end);
      *end = -1;
    }
    renew();
    waiting_ = false;
  }

  // A companion that is not there in the child may have held the lock, in the middle of something.
  void abandon() noexcept {
    if (mutex_.try_lock()) {
      mutex_.unlock();
    } else {
      ::new (static_cast<void*>(&mutex_)) typename Kernel::mutex;
      copy_.leave_behind();
      spare_.leave_behind();
    }
    close();
  }

  int reopen() noexcept {
    const native_handle old[2] = {std::exchange(ends_[0], -1), std::exchange(ends_[1], -1)};
    abandon();
    if (!copy_.reach(1)) return ENOMEM;
    native_handle fresh[2] = {-1, -1};
    int moved = pipe_bell<Kernel>::open(fresh);
    for (int i = 1; i >= 0; --i) {
      if (moved >= 0) moved = Kernel::replace(old[i], fresh[i]);
      if (fresh[i] >= 0) Kernel::close(fresh[i]);
      ends_[i] = old[i];
    }
    return moved < 0 ? -moved : 0;
  }

  bool is_open() const noexcept { return ends_[0] >= 0; }
  bool owns(native_handle fd) const noexcept {
    return fd >= 0 && (fd == ends_[0] || fd == ends_[1]);
  }

  int add(native_handle fd, interest what, poll_token token) noexcept {
    file_identity file;
    const int unknown = identify(fd, file);
    if (unknown != 0) return unknown;
    if (file.always_ready) return EPERM;
    const typename Kernel::hold held(mutex_);
    if (!make_room(fd)) return ENOMEM;
    const int deaf = end_wait();
    if (deaf != 0) return deaf;
    if (places_[number(fd)] == 0) places_[number(fd)] = ++count_;
    entry& e = entries_[places_[number(fd)] - 1];
    e.file = file;
    set(e, fd, what, token);
    return 0;
  }

  int change(native_handle fd, interest what, poll_token token) noexcept {
    const typename Kernel::hold held(mutex_);
    entry* e = find(fd);
    if (e == nullptr) return unregistered(fd);
    const int deaf = end_wait();
    if (deaf != 0) return deaf;
    const int refused = look_again(*e);
    if (refused == 0) set(*e, fd, what, token);
    if (means_gone(refused)) erase(fd);
    return refused;
  }

  // A file that a waiter polls is not really closed before its wait has ended.
  int remove(native_handle fd) noexcept {
    const typename Kernel::hold held(mutex_);
    if (find(fd) == nullptr) return unregistered(fd);
    erase(fd);
    return end_wait();
  }

  int renew() noexcept {
    places_.zero();
    count_ = 0;
    return 0;
  }

  int expose(native_handle&) const noexcept { return ENOTSUP; }

  void settle() noexcept {}

  int wait(poll_event* out, std::size_t room, nanos timeout) noexcept {
    const std::size_t polled = begin_wait();
    const int got = Kernel::poll(copy_.data(), polled, timeout);
    const int bell = got > 0 ? copy_[0].revents : 0;
    if ((bell & Kernel::poll_in) != 0) pipe_bell<Kernel>::hear(ends_[0]);
    const typename Kernel::hold held(mutex_);
    waiting_ = false;
    if (got <= 0) return got == -EINTR ? 0 : got;
    if ((bell & ~Kernel::poll_in) != 0) return -EBADF;  // somebody has closed our own
    return translate(polled, got - (bell != 0 ? 1 : 0), out, room);
  }

  native_handle bell() const noexcept { return ends_[1]; }
  static int ring(native_handle bell) noexcept { return pipe_bell<Kernel>::ring(bell); }

 private:
  using poll_entry = typename Kernel::poll_entry;

  struct entry {
    native_handle fd;
    short events;
    bool once;
    bool silent;  // until change()
    poll_token token;
    std::uint64_t set_at;
    file_identity file;
  };

  static std::size_t number(native_handle fd) noexcept { return static_cast<std::size_t>(fd) / handle_step; }
  static auto poll_number(native_handle fd) noexcept { return static_cast<decltype(poll_entry::fd)>(fd); }

  int identify(native_handle fd, file_identity& file) const noexcept {
    return owns(fd) ? EBADF : -Kernel::identify(fd, file);
  }
  int unregistered(native_handle fd) const noexcept {
    file_identity file;
    const int unknown = identify(fd, file);
    return unknown != 0 ? unknown : ENOENT;
  }

  // 0 when the number still names what was added, as far as can be known.
  int look_again(const entry& e) const noexcept {
    file_identity file;
    const int unknown = identify(e.fd, file);
    return unknown == 0 && !(e.file == file) ? ENOENT : unknown;
  }
  static constexpr bool means_gone(int refused) noexcept {
    return refused == EBADF || refused == ENOENT;
  }

  entry* find(native_handle fd) noexcept {
    if (fd < 0 || number(fd) >= places_.room() || places_[number(fd)] == 0) return nullptr;
    return &entries_[places_[number(fd)] - 1];
  }

  // The copy is the waiter's, who takes the wider one when he needs it.
  bool make_room(native_handle fd) noexcept {
    const std::size_t polled = count_ + 2;  // with the bell and a new one
    return places_.reach(number(fd) + 1) && entries_.reach(count_ + 1) &&
           (polled <= copy_.room() || spare_.reach(polled));
  }

  void set(entry& e, native_handle fd, interest what, poll_token token) noexcept {
    e.fd = fd;
    e.events = events_of(what);
    e.once = has(what, interest::oneshot) || (what & anything) == interest::none;
    e.silent = false;
    e.token = token;
    e.set_at = ++changes_;
  }

  void erase(native_handle fd) noexcept {
    const std::size_t place = std::exchange(places_[number(fd)], 0);
    entry& last = entries_[--count_];
    if (last.fd == fd) return;
    entries_[place - 1] = last;
    places_[number(last.fd)] = place;
  }

  // One ring is enough for a wait.
  int end_wait() noexcept { return std::exchange(waiting_, false) ? ring(bell()) : 0; }

  // How many to poll: the bell, and all that is not silent.
  std::size_t begin_wait() noexcept {
    const typename Kernel::hold held(mutex_);
    if (copy_.room() <= count_) copy_.swap(spare_);
    copy_[0] = {poll_number(ends_[0]), Kernel::poll_in, 0};
    std::size_t polled = 1;
    for (std::size_t i = 0; i < count_; ++i) {
      if (!entries_[i].silent) copy_[polled++] = {poll_number(entries_[i].fd), entries_[i].events, 0};
    }
    copied_at_ = changes_;
    waiting_ = true;
    return polled;
  }

  // Goes round: where there is no room for all, the next batch begins with those that were left out.
  int translate(std::size_t polled, int ready_ones, poll_event* out, std::size_t room) noexcept {
    std::size_t found = 0;
    for (std::size_t looks = 1; looks < polled && ready_ones > 0 && found < room; ++looks) {
      next_ = next_ + 1 < polled ? next_ + 1 : 1;
      if (copy_[next_].revents == 0) continue;
      --ready_ones;
      if (report(copy_[next_], out[found])) ++found;
    }
    return static_cast<int>(found);
  }

  // False when its registration was changed or taken off meanwhile.
  bool report(const poll_entry& polled, poll_event& out) noexcept {
    const auto fd = static_cast<native_handle>(polled.fd);
    entry* e = find(fd);
    if (e == nullptr || e->set_at > copied_at_) return false;
    out.token = e->token;
    if ((polled.revents & Kernel::poll_invalid) == 0 && !means_gone(look_again(*e))) {
      out.what = ready_of(polled.revents);
      e->silent = e->once;
      return true;
    }
    out.what = ready{};
    out.what.error = true;
    out.what.native_error = EBADF;
    erase(fd);
    return true;
  }

  static short events_of(interest what) noexcept {
    int events = 0;
    if (has(what, interest::readable)) events |= Kernel::poll_in | Kernel::poll_half_close;
    if (has(what, interest::writable)) events |= Kernel::poll_out;
    if (has(what, interest::priority)) events |= Kernel::poll_priority;
    return static_cast<short>(events);
  }

  static ready ready_of(int events) noexcept {
    ready what;
    what.hangup = (events & (Kernel::poll_hangup | Kernel::poll_half_close)) != 0;
    what.readable = (events & Kernel::poll_in) != 0 || what.hangup;
    what.writable = (events & Kernel::poll_out) != 0;
    what.error = (events & Kernel::poll_error) != 0;
    what.priority = (events & Kernel::poll_priority) != 0;
    return what;
  }

  native_handle ends_[2] = {-1, -1};

  // The waiter alone, but for their room.
  plain_array<poll_entry> copy_;  // the bell, then what is polled
  std::size_t next_ = 0;      // where the latest batch ended

  // Under the lock.
  typename Kernel::mutex mutex_;
  plain_array<std::size_t> places_;  // by number: one more than the index of its entry, or 0
  plain_array<entry> entries_;
  plain_array<poll_entry> spare_;
  std::size_t count_ = 0;
  std::uint64_t changes_ = 0;
  std::uint64_t copied_at_ = 0;
  bool waiting_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // !HYBRIDLOOP_NO_IO
// <<< poller/poll.hpp

// >>> poller/afd_slots.hpp - what a poller has asked the kernel, at addresses that stay
#if HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
HYBRIDLOOP_OPEN
namespace detail {

// A registration, and its one question to the kernel. Taken off while a packet is still to come, it is
// given back when that has come.
struct afd_slot : port_request {
  poll_token token = 0;
  native_handle number = -1;
  native_handle base = -1;   // the socket that AFD is asked about
  std::uint32_t group = 0;
  unsigned wanted = 0;       // events
  unsigned asked = 0;        // events of the question that is out
  int refused = 0;           // the errno of a question that was not taken: a packet of our own says so
  bool live = false;         // registered
  bool object = false;       // no socket
  bool once = false;
  bool silent = false;       // until change()
  bool pending = false;      // a packet is to come
  bool due = false;          // to be asked by the next wait
  afd_slot* next = nullptr;  // due, or free
};

// The words that AFD has for an interest, and those it answers with.
template <class Kernel>
struct afd_questions {
  static unsigned events_of(interest what) noexcept {
    unsigned events = Kernel::afd_abort | Kernel::afd_connect_fail | Kernel::afd_local_close;
    if (has(what, interest::readable)) events |= Kernel::afd_receive | Kernel::afd_accept | Kernel::afd_disconnect;
    if (has(what, interest::writable)) events |= Kernel::afd_send;
    if (has(what, interest::priority)) events |= Kernel::afd_expedited;
    return events;
  }

  static ready ready_of(unsigned events) noexcept {
    ready what;
    what.error = (events & (Kernel::afd_abort | Kernel::afd_connect_fail)) != 0;
    what.hangup = what.error || (events & Kernel::afd_disconnect) != 0;
    what.readable = what.hangup || (events & (Kernel::afd_receive | Kernel::afd_accept)) != 0;
    what.writable = (events & Kernel::afd_send) != 0;
    what.priority = (events & Kernel::afd_expedited) != 0;
    return what;
  }
};

// Slots in groups of a size for which AFD is quick: it looks through all questions of one of its handles.
template <class Kernel>
class afd_slots {
 public:
  static constexpr std::size_t group_size = 32;

  afd_slots() noexcept = default;
  afd_slots(const afd_slots&) = delete;
  afd_slots& operator=(const afd_slots&) = delete;

  // 0 or an errno.
  int take(native_handle port, afd_slot*& out) noexcept {
    const int refused = free_ == nullptr ? grow(port) : 0;
    if (refused != 0) return refused;
    out = free_;
    free_ = out->next;
    out->next = nullptr;
    return 0;
  }
  void give(afd_slot& s) noexcept {
    Kernel::handle_forget(s);
    s.next = free_;
    free_ = &s;
  }

  native_handle afd_of(const afd_slot& s) const noexcept { return groups_[s.group]->afd; }
  bool owns(native_handle handle) const noexcept {
    for (std::size_t i = 0; i < count_; ++i) {
      if (groups_[i]->afd == handle) return true;
    }
    return false;
  }

  template <class F>
  void for_each(F&& f) noexcept {
    for (std::size_t i = 0; i < count_; ++i) {
      for (afd_slot& s : groups_[i]->slots) f(s);
    }
  }

  // No packet is to come.
  void clear() noexcept {
    for (std::size_t i = 0; i < count_; ++i) {
      group* g = groups_[i];
      Kernel::close_handle(g->afd);
      g->~group();
      heap_give(g, alignof(group));
    }
    count_ = 0;
    free_ = nullptr;
  }

 private:
  struct group {
    native_handle afd = -1;
    afd_slot slots[group_size];
  };

  int grow(native_handle port) noexcept {
    void* memory = groups_.reach(count_ + 1) ? heap_take(sizeof(group), alignof(group)) : nullptr;
    if (memory == nullptr) return ENOMEM;
    native_handle afd = -1;
    const int refused = -Kernel::afd_open(port, afd);
    if (refused != 0) {
      heap_give(memory, alignof(group));
      return refused;
    }
    auto* made = ::new (memory) group;
    made->afd = afd;
    for (afd_slot& s : made->slots) {
      s.group = static_cast<std::uint32_t>(count_);
      s.next = free_;
      free_ = &s;
    }
    groups_[count_++] = made;
    return 0;
  }

  plain_array<group*> groups_;
  std::size_t count_ = 0;
  afd_slot* free_ = nullptr;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
// <<< poller/afd_slots.hpp

// >>> poller/afd.hpp - readiness from a completion port: sockets by AFD, and any other handle that can be waited for
#if HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
HYBRIDLOOP_OPEN
namespace detail {

// The kernel is asked about each socket, and answers once, by a packet; as soon as what is wanted is so, or
// at once if it is. To go on is to ask again, which the next wait does: by then who was told has read. AFD
// knows no edges, so `edge` is told like a level.
//
// A question that is taken back is answered nevertheless, and its memory is the kernel's until then. So a
// change that asks for more takes another slot, and the old one is free when its packet has come.
//
// A companion may sit in wait() while the loop thread changes the set; then questions go out at once. The
// same where a foreign loop waits for the port.
template <class Kernel>
class afd_poller {
 public:
  static constexpr const char* name = "windows";
  static constexpr bool edges = false;

  afd_poller() noexcept = default;
  afd_poller(const afd_poller&) = delete;
  afd_poller& operator=(const afd_poller&) = delete;
  ~afd_poller() { close(); }

  int open() noexcept {
    if (is_open()) return 0;
    const int refused = -Kernel::port_open(port_);
    if (refused != 0) {
      port_ = -1;
      return refused;
    }
    bell_.port = port_;
    if (Kernel::timer_open(timer_, tie_) != 0) timer_ = tie_ = -1;
    return 0;
  }

  void close() noexcept {
    if (!is_open()) return;
    renew();
    collect();
    slots_.clear();
    for (native_handle* each : {&tie_, &timer_, &port_}) {
      if (*each >= 0) Kernel::close_handle(*each);
      *each = -1;
    }
    bell_.rung.store(0, std::memory_order_relaxed);  // ours alone
    exposed_ = false;
  }

  // No process of this system has a copy of another.
  void abandon() noexcept { close(); }
  int reopen() noexcept { return ENOTSUP; }

  bool is_open() const noexcept { return port_ >= 0; }
  bool owns(native_handle handle) const noexcept {
    return handle >= 0 && (handle == port_ || handle == timer_ || handle == tie_ || slots_.owns(handle));
  }

  int add(native_handle handle, interest what, poll_token token) noexcept {
    bool object = false;
    const int unknown = identify(handle, object);
    if (unknown != 0) return unknown;
    native_handle base = handle;
    const int baseless = object ? 0 : -Kernel::base_socket(handle, base);
    if (baseless != 0) return baseless;
    const typename Kernel::hold held(mutex_);
    afd_slot* s = nullptr;
    const int refused = places_.reach(place_of(handle) + 1) ? slots_.take(port_, s) : ENOMEM;
    if (refused != 0) return refused;
    if (afd_slot* old = find(handle)) erase(*old);
    enter(*s, handle, base, object);
    set(*s, what, token);
    schedule(*s);
    return 0;
  }

  int change(native_handle handle, interest what, poll_token token) noexcept {
    bool object = false;
    const int unknown = identify(handle, object);
    const typename Kernel::hold held(mutex_);
    afd_slot* s = find(handle);
    if (s == nullptr || unknown != 0 || object != s->object) {
      if (s != nullptr) erase(*s);
      return unknown != 0 ? unknown : ENOENT;
    }
    if (s->pending && !object && (questions::events_of(what) & ~s->asked) != 0) return ask_more(*s, what, token);
    set(*s, what, token);
    if (!s->pending) schedule(*s);
    return 0;
  }

  int remove(native_handle handle) noexcept {
    const typename Kernel::hold held(mutex_);
    if (afd_slot* s = find(handle)) {
      erase(*s);
      return 0;
    }
    return Kernel::is_descriptor(handle) && !owns(handle) ? ENOENT : EBADF;
  }

  int renew() noexcept {
    const typename Kernel::hold held(mutex_);
    slots_.for_each([this](afd_slot& s) {
      if (s.live) erase(s);
    });
    return 0;
  }

  // The port itself: it can be waited for, and is signalled while a packet is in it.
  int expose(native_handle& out) noexcept {
    out = port_;
    exposed_ = true;
    settle();
    return 0;
  }

  void settle() noexcept {
    const typename Kernel::hold held(mutex_);
    ask_all();
  }

  int wait(poll_event* out, std::size_t room, nanos timeout) noexcept {
    const nanos end = timeout == 0 || timeout == never ? timeout : saturating_add(read_now(), timeout);
    for (;;) {
      port_packet packets[batch];
      const int got = wait_once(packets, static_cast<int>(room < batch ? room : batch), timeout);
      if (got < 0) return got;
      bool rung = false;
      const int found = translate(packets, got, out, rung);
      if (found != 0 || rung || got == 0) return found;
      if (timeout == 0 || timeout == never) continue;
      timeout = time_between(read_now(), end);
      if (timeout == 0) return 0;
    }
  }

  native_handle bell() const noexcept { return is_open() ? port_bell<Kernel>::number_of(bell_) : -1; }
  static int ring(native_handle bell) noexcept { return port_bell<Kernel>::ring(bell); }

 private:
  using questions = afd_questions<Kernel>;
  static constexpr std::size_t batch = events_per_turn;

  // The system's own clock, whatever the loop's is.
  static nanos read_now() noexcept { return read_clock<std::chrono::steady_clock>(); }

  static std::size_t place_of(native_handle handle) noexcept {
    return static_cast<std::size_t>(handle) / handle_step;
  }

  // 0 or an errno. What is no socket is waited for as a whole; but a file's handle says nothing.
  int identify(native_handle handle, bool& object) const noexcept {
    if (!Kernel::is_descriptor(handle) || owns(handle)) return EBADF;
    object = !Kernel::is_socket(handle);
    return object && Kernel::is_file(handle) ? EPERM : 0;
  }

  afd_slot* find(native_handle handle) noexcept {
    const bool known = handle >= 0 && place_of(handle) < places_.room();
    return known ? places_[place_of(handle)] : nullptr;
  }

  // ---- Under the lock ----

  void set(afd_slot& s, interest what, poll_token token) noexcept {
    s.wanted = questions::events_of(what);
    s.once = has(what, interest::oneshot) || (what & anything) == interest::none;
    s.silent = s.object && (what & anything) == interest::none;
    s.token = token;
  }

  void enter(afd_slot& s, native_handle handle, native_handle base, bool object) noexcept {
    s.number = handle;
    s.base = base;
    s.object = object;
    s.refused = 0;
    s.live = true;
    places_[place_of(handle)] = &s;
  }

  int ask_more(afd_slot& s, interest what, poll_token token) noexcept {
    afd_slot* fresh = nullptr;
    const int refused = slots_.take(port_, fresh);
    if (refused != 0) return refused;
    erase(s);
    enter(*fresh, s.number, s.base, false);
    set(*fresh, what, token);
    schedule(*fresh);
    return 0;
  }

  void forget(afd_slot& s) noexcept {
    s.live = false;
    places_[place_of(s.number)] = nullptr;
  }
  void erase(afd_slot& s) noexcept {
    forget(s);
    if (s.pending && s.refused == 0) take_back(s);
    give_if_over(s);
  }
  void take_back(afd_slot& s) noexcept {
    if (!s.object) {
      Kernel::afd_cancel(slots_.afd_of(s), s);
    } else if (Kernel::handle_cancel(s)) {
      set_pending(s, false);
    }
  }
  void give_if_over(afd_slot& s) noexcept {
    if (!s.live && !s.pending && !s.due) slots_.give(s);
  }
  void set_pending(afd_slot& s, bool now) noexcept {
    s.pending = now;
    if (!s.object) sockets_pending_ = now ? sockets_pending_ + 1 : sockets_pending_ - 1;
  }

  void schedule(afd_slot& s) noexcept {
    if (s.due || s.silent) return;
    if (waiting_ || exposed_) return ask(s);
    postpone(s);
  }
  void postpone(afd_slot& s) noexcept {
    s.due = true;
    s.next = due_;
    due_ = &s;
  }
  void ask_all() noexcept {
    afd_slot* s = std::exchange(due_, nullptr);
    while (s != nullptr) {
      afd_slot* const next = std::exchange(s->next, nullptr);
      s->due = false;
      if (s->live && !s->silent && !s->pending) ask(*s);
      give_if_over(*s);
      s = next;
    }
  }
  // What is refused is told by a packet too; where there is no memory for one, the next wait asks again.
  void ask(afd_slot& s) noexcept {
    s.asked = s.wanted;
    s.refused = s.object ? -Kernel::handle_wait(port_, s, s.base)
                         : -Kernel::afd_poll(slots_.afd_of(s), s, s.base, s.asked);
    if (s.refused != 0 && Kernel::port_post(port_, Kernel::request_key, static_cast<port_request*>(&s)) != 0) {
      return postpone(s);
    }
    set_pending(s, true);
  }

  // ---- The waiter ----

  int wait_once(port_packet* packets, int want, nanos timeout) noexcept {
    set_waiting(true);
    const bool finer = tie_ >= 0 && timeout != 0 && timeout != never &&
                       Kernel::timer_start(timer_, tie_, port_, timeout) == 0;
    const int got = Kernel::port_wait(port_, packets, want, timeout);
    if (finer) Kernel::timer_stop(tie_);
    if (got <= 0) set_waiting(false);
    return got;
  }
  void set_waiting(bool now) noexcept {
    const typename Kernel::hold held(mutex_);
    if (now) ask_all();
    waiting_ = now;
  }

  int translate(const port_packet* packets, int got, poll_event* out, bool& rung) noexcept {
    const typename Kernel::hold held(mutex_);
    waiting_ = false;
    int found = 0;
    for (int i = 0; i < got; ++i) {
      if (packets[i].key == Kernel::bell_key) {
        port_bell<Kernel>::hear(bell_);
        rung = true;
      } else if (packets[i].key == Kernel::request_key) {
        afd_slot& s = slot_of(packets[i]);
        set_pending(s, false);
        if (report(s, out[found])) ++found;
        give_if_over(s);
      }
    }
    return found;
  }
  static afd_slot& slot_of(const port_packet& packet) noexcept {
    return *static_cast<afd_slot*>(static_cast<port_request*>(packet.what));
  }

  // False: nothing is to be told.
  bool report(afd_slot& s, poll_event& out) noexcept {
    if (!s.live || s.silent) return false;
    const int outcome = s.refused != 0 ? -s.refused : s.object ? int{Kernel::afd_receive} : Kernel::afd_outcome(s);
    const unsigned events = outcome < 0 ? 0u : static_cast<unsigned>(outcome) & s.wanted;
    const bool gone = outcome < 0 || (events & Kernel::afd_local_close) != 0;
    if (gone) {
      out = {s.token, ready{}};
      out.what.error = true;
      out.what.native_error = outcome < 0 ? -outcome : EBADF;
      forget(s);
      return true;
    }
    s.silent = s.once && events != 0;
    if (!s.silent) postpone(s);
    out = {s.token, questions::ready_of(events)};
    return events != 0;
  }

  // The kernel writes to the memory of a question about a socket until it is answered.
  void collect() noexcept {
    port_packet packets[batch];
    while (sockets_pending_ != 0) {
      const int got = Kernel::port_wait(port_, packets, static_cast<int>(batch), never);
      if (got < 0) fail("the kernel does not answer what it was asked");
      bool rung = false;
      poll_event none[batch];
      translate(packets, got, none, rung);
    }
    ask_all();
  }

  native_handle port_ = -1;
  native_handle timer_ = -1;  // where the kernel can tie one to a port
  native_handle tie_ = -1;
  typename port_bell<Kernel>::state bell_;

  // Under the lock.
  mutable typename Kernel::mutex mutex_;
  afd_slots<Kernel> slots_;
  plain_array<afd_slot*> places_;  // by number
  afd_slot* due_ = nullptr;
  std::size_t sockets_pending_ = 0;
  bool waiting_ = false;
  bool exposed_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
// <<< poller/afd.hpp

// >>> poller/none.hpp - no poller at all, for HYBRIDLOOP_NO_IO
HYBRIDLOOP_OPEN
namespace detail {

// It cannot be opened, so nobody comes to wait in it or to ring it.
template <class Kernel>
class none_poller {
 public:
  static constexpr const char* name = "none";
  static constexpr bool edges = false;

  int open() noexcept { return ENOTSUP; }
  void close() noexcept {}
  void abandon() noexcept {}
  int reopen() noexcept { return ENOTSUP; }
  bool is_open() const noexcept { return false; }
  bool owns(native_handle) const noexcept { return false; }
  int add(native_handle, interest, poll_token) noexcept { return ENOTSUP; }
  int change(native_handle, interest, poll_token) noexcept { return ENOTSUP; }
  int remove(native_handle) noexcept { return ENOTSUP; }
  int renew() noexcept { return ENOTSUP; }
  int expose(native_handle&) const noexcept { return ENOTSUP; }
  void settle() noexcept {}
  int wait(poll_event*, std::size_t, nanos) noexcept { return -ENOTSUP; }
  native_handle bell() const noexcept { return -1; }
  static int ring(native_handle) noexcept { return ENOTSUP; }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< poller/none.hpp

// >>> poller/select.hpp - the shim that base/config.hpp has chosen
HYBRIDLOOP_OPEN
namespace detail {

template <class Kernel>
using system_poller = HYBRIDLOOP_SYSTEM_POLLER<Kernel>;

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< poller/select.hpp

// >>> ingress/slot_array.hpp - slots that producers fill and the loop thread runs, in the order of their claims
HYBRIDLOOP_OPEN
namespace detail {

enum class claim_answer : std::uint8_t { claimed, full, closed };

// What a ring of many producers and one of a single producer share: all but the claim.
//
// A producer claims an index, builds its closure in the slot that the index names, and publishes the
// slot by writing its lap (index + 1: no two claims of a slot share one, and zeroed memory is an
// empty ring). The loop thread walks the slots in the order of the claims and runs each closure where
// it lies. Slots are written by producers only; the loop thread answers with one published head for
// a whole batch.
//
// Edge [slot]: the loop thread sees the closure.
//
//   producer                                loop thread
//   S1  closure built                       S3  lap: load, acquire; it is index + 1
//   S2  lap = index + 1, release            S4  closure runs
//
// Rule: S3 reads S2, and no other store of that value, and synchronises with it [atomics.order].
//
// Edge [head]: a producer never builds into a slot whose closure still lives.
//
//   loop thread                             producer
//   H1  closures destroyed                  H3  head: load, acquire (seq_cst serves [room] too)
//   H2  head, release (seq_cst: [room])     H4  claims index < head + capacity, builds
//
// Rule: H3 synchronises with H2 [atomics.order]. A producer that has the head from another one has it by
// a release too, so H1 happens before H4 all the same [intro.races].
template <class Traits>
class slot_array {
 protected:
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  struct slot {
    atomic<std::uint64_t> lap;
    unique_task task;
  };

  // `capacity` is a power of two, `zeroed` is capacity slots of zeroed memory.
  slot_array(void* zeroed, std::size_t capacity) noexcept
      : slots_(static_cast<slot*>(zeroed)), mask_(capacity - 1) {}
  slot_array(const slot_array&) = delete;
  slot_array& operator=(const slot_array&) = delete;

  // The claimer: the place to build in. Every slot was last read by the loop thread, and a store to it
  // would wait, or a locked instruction behind it, until its line is here: so a later one is asked for.
  unique_task& task_at(std::uint64_t index) noexcept {
    prefetch_to_write(&slots_[(index + 8) & mask_]);
    return slots_[index & mask_].task;
  }

  // The claimer, once. `strong` makes the store part of the total order that [sleep] needs.
  void publish(std::uint64_t index, bool strong) noexcept {
    atomic<std::uint64_t>& lap = slots_[index & mask_].lap;
    if (strong) {
      lap.store(index + 1, std::memory_order_seq_cst);  // [slot] S2, [sleep] P1
    } else {
      lap.store(index + 1, std::memory_order_release);  // [slot] S2, [sleep] P1 with a barrier
    }
  }

  std::size_t capacity() const noexcept { return static_cast<std::size_t>(mask_ + 1); }

  // The loop thread from here on.
  std::uint64_t head() const noexcept { return head_; }
  bool published(std::uint64_t index) const noexcept {
    return slots_[index & mask_].lap.load(std::memory_order_acquire) == index + 1;  // [slot] S3
  }
  // The last look before a sleep. Takes the index, because a thread that borrows the loop may move
  // the head meanwhile.
  bool published_before_sleep(std::uint64_t index) const noexcept {
    return slots_[index & mask_].lap.load(std::memory_order_seq_cst) == index + 1;  // [sleep] L2
  }
  void advance() noexcept { ++head_; }

  // Publishes the head, up to the oldest task that still runs in its slot. False: one does.
  bool publish_head(std::uint64_t bound) noexcept {
    const bool all = bound >= head_;
    head_out_.store(all ? head_ : bound, std::memory_order_seq_cst);  // [head] H2, [room] R3
    return all;
  }

 protected:
  // A claimer.
  std::uint64_t head_seen() const noexcept {
    return head_out_.load(std::memory_order_seq_cst);  // [head] H3, [room] R2
  }
  bool exceeds(std::uint64_t tail, std::uint64_t head) const noexcept {
    return static_cast<std::int64_t>(tail - head) > static_cast<std::int64_t>(mask_);
  }

 private:
  // Set once, read by all.
  slot* const slots_;
  const std::uint64_t mask_;

  // Written by the loop thread once a batch, read by producers.
  alignas(cache_line) atomic<std::uint64_t> head_out_{0};

  // The loop thread.
  alignas(cache_line) std::uint64_t head_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< ingress/slot_array.hpp

// >>> ingress/ring.hpp - a bounded ring of slots that many threads fill and the loop thread runs
HYBRIDLOOP_OPEN
namespace detail {

// Many producers, one consumer, after D. Vyukov's bounded queue (2010). A producer claims an index by
// advancing the tail.
//
// The tail also carries the closed bit, so that acceptance *is* the claim: what was claimed before
// the ring closed will be run, and nothing is claimed after.
//
// Edge [close]: everything claimed before the close is run or destroyed.
//
//   closer                                  loop thread
//   C1  tail |= closed                      C3  sees the close bit of the status word
//   C2  status |= close (release)           C4  tail: load; leaves when head has reached it
//
// The claim is a compare-and-swap on the word that C1 changes, so it lands before C1 and is
// counted, or fails and answers `closed`. Rule: a read-modify-write reads the last value before its own
// [atomics.order]; C3 synchronises with C2, so C4 reads C1 or later, and all claims with it.
template <class Traits>
class ring : public slot_array<Traits> {
 public:
  using answer = claim_answer;
  static constexpr std::uint64_t closed = std::uint64_t{1} << 63;

  using slot_array<Traits>::slot_array;

  // Any thread. On `claimed` the caller owes a publish() of the index, whatever happens.
  answer claim(std::uint64_t& index) noexcept {
    std::uint64_t tail = tail_.load(std::memory_order_seq_cst);  // [close] C1; the CAS decides
    for (;;) {
      if ((tail & closed) != 0) return answer::closed;
      // A negative difference is a tail that went stale while we slept: the CAS refuses it.
      if (this->exceeds(tail, known_head_.load(std::memory_order_acquire))) {  // [head] H3
        const std::uint64_t head = this->head_seen();
        known_head_.store(head, std::memory_order_release);  // [head] H3, handed on to other producers
        const std::uint64_t again = tail_.load(std::memory_order_seq_cst);  // [close] C1
        if (again == tail && this->exceeds(tail, head)) return answer::full;
        tail = again;
        continue;
      }
      if (tail_.compare_exchange_weak(tail, tail + 1, std::memory_order_seq_cst,  // [close] C1
                                      std::memory_order_seq_cst)) {  // [close] C1
        index = tail;
        return answer::claimed;
      }
    }
  }

  // Any thread: the claims so far.
  std::uint64_t tail() const noexcept {
    return tail_.load(std::memory_order_seq_cst) & ~closed;  // [close] C4
  }
  bool has_room() const noexcept { return !this->exceeds(tail(), this->head_seen()); }
  bool is_closed() const noexcept {
    return (tail_.load(std::memory_order_seq_cst) & closed) != 0;  // [close] C1, [room] R2
  }
  void close() noexcept { tail_.fetch_or(closed, std::memory_order_seq_cst); }  // [close] C1

 private:
  // Producers: with the tail, the last head that one of them has seen. The loop thread looks at
  // neither while it works, and they look at its head when this one says "full": in each direction
  // the line of the slot is all that travels.
  alignas(cache_line) typename Traits::template atomic<std::uint64_t> tail_{0};
  typename Traits::template atomic<std::uint64_t> known_head_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< ingress/ring.hpp

// >>> ingress/lane_ring.hpp - a bounded ring of slots that one thread fills and the loop thread runs
HYBRIDLOOP_OPEN
namespace detail {

// One producer: nobody contends for the tail, so a claim is a plain addition, and the producer asks
// for the head only when the one it knows says "full". After L. Lamport's queue (1983), with the
// head known of old as in MCRingBuffer by P. Lee, T. Bu and G. Chandranmenon (2010).
//
// A claim that nobody counts cannot be what a close waits for; the lane's busy flag is (edge [busy]).
template <class Traits>
class lane_ring : public slot_array<Traits> {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using answer = claim_answer;

  lane_ring(void* zeroed, std::size_t capacity, const atomic<std::uint32_t>& closed) noexcept
      : slot_array<Traits>(zeroed, capacity), closed_(closed) {}

  // The producer, while it is busy. On `claimed` it owes a publish() of the index, whatever happens.
  answer claim(std::uint64_t& index) noexcept {
    if (is_closed()) return answer::closed;
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);  // ours alone
    if (this->exceeds(tail, known_head_)) {
      known_head_ = this->head_seen();
      if (this->exceeds(tail, known_head_)) return answer::full;
    }
    tail_.store(tail + 1, std::memory_order_relaxed);  // ours alone to write
    index = tail;
    return answer::claimed;
  }

  // Any thread: the claims so far, of those that the caller knows to have begun.
  std::uint64_t tail() const noexcept {
    return tail_.load(std::memory_order_relaxed);  // a hint; who must know has seen the lane not busy
  }
  bool has_room() const noexcept { return !this->exceeds(tail(), this->head_seen()); }
  bool is_closed() const noexcept {
    return closed_.load(std::memory_order_seq_cst) != 0;  // [busy] D2, [room] R2
  }

 private:
  // The producer.
  alignas(cache_line) atomic<std::uint64_t> tail_{0};
  std::uint64_t known_head_ = 0;
  const atomic<std::uint32_t>& closed_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< ingress/lane_ring.hpp

// >>> ingress/spill.hpp - where posts go while the ring is full, without losing their order
HYBRIDLOOP_OPEN
namespace detail {

// A chain of nodes pushed by any thread and taken whole by the loop thread.
//
// "The ring until it is empty, then the spill" would break the order: a slot that is claimed and
// not yet published makes the ring look empty. So a node carries a ticket, the ring's tail as its
// producer read it in the same post, after its own earlier claims. The loop thread runs every ring
// entry below the ticket before the node, and none at or above it. A producer that finds the
// spill not empty spills too; one that finds it empty finds it taken, and its next claim is at or
// above every ticket that was taken.
//
// Edge [spill]: the loop thread sees the node, and then the closure in it.
//
//   producer                                  loop thread
//   K1  ticket set                            K3  chain = head.fetch_and(closed), acquire
//   K2  head: CAS in, release                 K6  ready: load, acquire
//   K4  closure built                         K7  closure runs
//   K5  ready = 1, release ([sleep] P1)
//
// Rule: K3 reads the newest K2, and the others in its release sequence, for every push is a
// read-modify-write [intro.races]; K6 reads K5 and synchronises with it [atomics.order].
//
// K2 comes before K4 for the same reason as in the ring: acceptance is the claim, and a closure is
// moved from only when it was accepted. A constructor that throws leaves an empty task: K5 still
// comes. The chain is only ever pushed to and taken whole, so an address that returns (ABA) is
// harmless.
template <class Traits>
class spill {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  struct node {
    node* next = nullptr;
    std::uint64_t ticket = 0;
    atomic<std::uint32_t> ready{0};
    std::uint32_t spare = 0;  // the number of its memory in the arena's table; 0: a block, or the heap
    unique_task task;
  };
  static_assert(sizeof(node) <= block_size - 8, "a spilled task fits an arena block, and a spare one");

  // Any thread. False when closed; the node is still the caller's.
  bool push(node& fresh) noexcept {
    std::uintptr_t head = head_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      if ((head & closed) != 0) return false;
      fresh.next = reinterpret_cast<node*>(head);
      if (head_.compare_exchange_weak(head, reinterpret_cast<std::uintptr_t>(&fresh),
                                      std::memory_order_seq_cst,  // [spill] K2, [close] C1
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return true;
      }
    }
  }

  // The pusher, once: the task is built, or will never be.
  static void publish(node& mine) noexcept {
    mine.ready.store(1, std::memory_order_seq_cst);  // [spill] K5, [sleep] P1
  }

  // Any thread. For the order coherence would be enough: a thread's own push is seen, or its taking.
  bool empty() const noexcept {
    return (head_.load(std::memory_order_seq_cst) & ~closed) == 0;  // [spill] K2, K3, [room] R2
  }

  void close() noexcept { head_.fetch_or(closed, std::memory_order_seq_cst); }  // [close] C1

  // Any thread: how many the loop thread has taken.
  std::uint64_t spilled() const noexcept {
    return spilled_.load(std::memory_order_relaxed);  // a hint; statistics
  }

  // The loop thread from here on.
  //
  // The next node to run, in the order of the pushes, or nullptr.
  node* front() noexcept {
    if (taken_ == nullptr) take_more();
    return taken_;
  }
  node* taken() const noexcept { return taken_; }
  std::size_t waiting() const noexcept { return waiting_; }
  void pop() noexcept {
    --waiting_;
    taken_ = taken_->next;
    if (taken_ == nullptr) last_ = nullptr;
  }
  void take_more() noexcept {
    if (!empty()) take();
  }

  static bool published(const node& n) noexcept {
    return n.ready.load(std::memory_order_acquire) != 0;  // [spill] K6
  }

  // The last look before a sleep: a chain that came, or a front that became ready.
  bool news_before_sleep(const node* front) const noexcept {
    if (front != nullptr) return front->ready.load(std::memory_order_seq_cst) != 0;  // [sleep] L2
    return (head_.load(std::memory_order_seq_cst) & ~closed) != 0;  // [sleep] L2
  }

 private:
  static constexpr std::uintptr_t closed = 1;

  // The chain comes newest first; it is turned round and hung behind what was taken before.
  void take() noexcept {
    const std::uintptr_t chain = head_.fetch_and(closed, std::memory_order_seq_cst);  // [spill] K3
    node* const newest = reinterpret_cast<node*>(chain & ~closed);
    node* oldest = nullptr;
    std::size_t count = 0;
    for (node* n = newest; n != nullptr; ++count) {
      node* older = n->next;
      n->next = oldest;
      oldest = n;
      n = older;
    }
    (last_ == nullptr ? taken_ : last_->next) = oldest;
    last_ = newest;
    waiting_ += count;
    spilled_.store(spilled() + count, std::memory_order_relaxed);  // ours alone to write
  }

  atomic<std::uintptr_t> head_{0};
  atomic<std::uint64_t> spilled_{0};

  // The loop thread.
  alignas(cache_line) node* taken_ = nullptr;
  node* last_ = nullptr;
  std::size_t waiting_ = 0;  // taken and not popped
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< ingress/spill.hpp

// >>> ingress/room.hpp - posters that wait until a full loop has room again
HYBRIDLOOP_OPEN

// The answer of a post. Look at it: only `accepted` means that the task will run, or be destroyed
// with the loop.
enum class [[nodiscard]] post_result : std::uint8_t {
  accepted,
  full,    // no room; the task is still yours
  closed,  // the loop takes no more; the task is still yours
};

// What a post does when ring and arena are both full. With the first two, a post that is the first to
// find the ring full looks for room for up to 16 us, and gives way to other threads, once and then now
// and again, before it goes on to the arena; on another thread than the loop's, while the loop is
// awake, and not with loop_options::spin 0 or where the process has one CPU only.
enum class overflow : std::uint8_t {
  spill,  // goes on with more memory, never answers full
  block,  // waits for room; inside run() and its sisters it spills, after close() it answers closed.
          // Between two calls of poll() or run_budget() their thread is any other one: on a full loop
          // it would wait for itself. Use try_post() there, or `fail`
  fail,   // answers full
};

namespace detail {

// Edge [room]: a poster that waits for room cannot miss it.
//
//   poster                                  loop thread
//   R1  waiting += 1                        R3  head published, or a block given back
//   R2  head and free blocks ? go on        R4  waiting ? epoch += 1, wake all
//       : sleep on the epoch
//
// All four are seq_cst, so they stand in one order: if R4 saw nobody, it stands before R1, hence R3
// before R2, and R2 sees the room. Rule: that order [atomics.order]. The epoch is read before R2, so a wake between R2 and the sleep
// changes the word and the sleep ends at once. No barrier of the loop's [sleep] edge helps here.
template <class Traits>
class waiting_room {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  // A poster stands here while it waits. The loop is not torn down under it.
  class visit {
   public:
    explicit visit(waiting_room& room) noexcept : room_(room) {
      room_.waiting_.fetch_add(1, std::memory_order_seq_cst);  // [room] R1
    }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;
    ~visit() { room_.waiting_.fetch_sub(1, std::memory_order_release); }  // [leave] W1

    std::uint32_t epoch() const noexcept {
      return room_.epoch_.load(std::memory_order_seq_cst);  // [room] R2
    }
    void sleep(std::uint32_t seen) const noexcept { Traits::parker::wait(room_.epoch_, seen, never); }

   private:
    waiting_room& room_;
  };

  // A poster stands here while it looks for room without sleeping; the loop thread then says sooner
  // that there is some.
  class glance {
   public:
    explicit glance(waiting_room& room) noexcept : room_(room) {
      room_.looking_.fetch_add(1, std::memory_order_relaxed);  // a hint
    }
    glance(const glance&) = delete;
    glance& operator=(const glance&) = delete;
    ~glance() { room_.looking_.fetch_sub(1, std::memory_order_release); }  // [leave] W1

   private:
    waiting_room& room_;
  };
  bool looked_for() const noexcept { return looking_.load(std::memory_order_relaxed) != 0; }  // a hint

  // The loop thread, after it made room; any thread, after closing.
  void call() noexcept {
    if (waiting_.load(std::memory_order_seq_cst) == 0) return;  // [room] R4
    epoch_.fetch_add(1, std::memory_order_seq_cst);             // [room] R4
    Traits::parker::wake_all(epoch_);
  }

  // The child of a fork: they are not there.
  void forget_all() noexcept {
    waiting_.store(0, std::memory_order_relaxed);  // ours alone
    looking_.store(0, std::memory_order_relaxed);  // ours alone
  }

  // Edge [leave]: W1 a poster leaves (release); W2 the destructor sees the room empty (acquire), so
  // nobody touches what it frees. Rule: each count is changed by read-modify-writes only, so its zero is
  // in the release sequence of every W1 [intro.races].
  bool empty() const noexcept {
    return waiting_.load(std::memory_order_acquire) == 0 &&  // [leave] W2
           looking_.load(std::memory_order_acquire) == 0;    // [leave] W2
  }

 private:
  atomic<std::uint32_t> waiting_{0};
  atomic<std::uint32_t> epoch_{0};
  atomic<std::uint32_t> looking_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< ingress/room.hpp

// >>> ingress/queue.hpp - a ring and, when it is full, the spill behind it, in one order
HYBRIDLOOP_OPEN
namespace detail {

// Ring is that of all threads or of one. Blocks and the waiting room are shared by all queues of a loop.
template <class Traits, class Ring>
class queue {
 public:
  using spill_type = spill<Traits>;
  using node = typename spill_type::node;

  template <class... Args>
  queue(arena<Traits>& blocks, waiting_room<Traits>& room, Args&&... ring) noexcept
      : arena_(blocks), room_(room), ring_(std::forward<Args>(ring)...), stride_(stride_of(ring_.capacity())) {}

  // Any thread. `strong` says how to publish, `look` is called after publishing and may find the loop
  // gone: nothing of this object is touched after that. `when_full` is asked when the ring is; on
  // the loop thread it first lets go of the slots that were run, so the ring is tried once more.
  template <class Build, class F, class Policy, class Look>
  post_result offer(F&& f, const Policy& when_full, bool strong, const Look& look) {
    std::optional<visit> waiting;  // left last, after a refused closure's block was given back
    unique_task::room<std::decay_t<F>> place(arena_);
    if (!place.had()) out_of_memory<Build>();
    std::uint64_t index = 0;
    overflow policy{};
    answer got = claim(index);
    if (got == answer::full) {
      policy = when_full();
      got = claim(index);
    }
    switch (got) {
      case answer::claimed: return fill<Build>(index, place, std::forward<F>(f), strong, look);
      case answer::closed: return post_result::closed;
      case answer::full: break;
    }
    if (policy == overflow::block) waiting.emplace(room_);
    return offer_spill<Build>(place, std::forward<F>(f), waiting, policy, strong, look);
  }

  // Any thread. The ring or nothing: never waits, never spills.
  template <class Build, class F, class Look>
  post_result offer_ring(F&& f, bool strong, const Look& look) {
    unique_task::room<std::decay_t<F>> place(arena_);
    if (!place.had()) out_of_memory<Build>();
    std::uint64_t index = 0;
    switch (claim(index)) {
      case answer::claimed: return fill<Build>(index, place, std::forward<F>(f), strong, look);
      case answer::closed: return post_result::closed;
      case answer::full: break;
    }
    return post_result::full;
  }

  // Any thread. The caller then sets the close bit of the status word; only that ends the loop.
  void close() noexcept {
    ring_.close();
    spill_.close();
    room_.call();
  }
  bool closed() const noexcept { return ring_.is_closed(); }

  bool has_spilled() const noexcept { return !spill_.empty(); }
  bool has_room() const noexcept { return ring_.has_room(); }
  waiting_room<Traits>& room() noexcept { return room_; }

  std::uint64_t posts() const noexcept { return ring_.tail() + spill_.spilled(); }
  std::uint64_t spilled() const noexcept { return spill_.spilled(); }
  std::uint64_t ran() const noexcept { return ring_.head() + spill_.spilled(); }  // the loop thread

  // The loop thread from here on.
  //
  // Runs the oldest accepted task that can run: run(task), then destroys it. False when there is
  // none, or when the oldest is claimed and not yet published.
  template <class Build, class Run>
  bool run_next(Run&& run) {
    node* spilled = spill_.taken();
    if (spilled == nullptr || ring_.head() < spilled->ticket) {
      if (ring_.published(ring_.head())) {
        run_slot<Build>(run);
        return true;
      }
      if (spilled != nullptr) return false;  // an unpublished slot below the ticket holds it back
      spilled = spill_.front();
      if (spilled == nullptr) return false;
      if (ring_.head() < spilled->ticket) return run_next<Build>(run);
    }
    if (!spill_type::published(*spilled)) return false;
    run_node<Build>(run, *spilled);
    return true;
  }

  // Takes what spilled behind what was taken before, so that producers find the spill empty and
  // come back to the ring. Cheap when nothing did.
  void take_spilled() noexcept { spill_.take_more(); }

  // Lets producers have the slots of what was run. At least every few hundred tasks, on every way
  // out of the drain, and before parking. (Inline, g++ 12 breaks down at it.)
  HYBRIDLOOP_OUT_OF_LINE void publish_head() noexcept {
    returning_.give(arena_);
    unpublished_ = ring_.publish_head(oldest_running_) ? 0 : 1;
    room_.call();
  }
  bool publish_head_in_time() noexcept {
    const bool due = unpublished_ >= stride_ || (unpublished_ >= stride_ / 4 && room_.looked_for());
    if (due) publish_head();
    return due;
  }
  bool owes_head() const noexcept { return unpublished_ != 0; }

  // Claimed, whether published or not, counts as work.
  bool empty() noexcept {
    return ring_.head() == ring_.tail() && spill_.front() == nullptr;
  }
  // How many are accepted and have not run.
  std::size_t pending() noexcept {
    spill_.take_more();
    return backlog() + spill_.waiting();
  }
  std::size_t owed = 0;  // accepted before a loan began, and not run yet
  std::size_t backlog() const noexcept {
    return static_cast<std::size_t>(ring_.tail() - ring_.head());
  }
  bool can_run() noexcept {
    const node* spilled = spill_.front();
    if (spilled != nullptr && ring_.head() >= spilled->ticket) return spill_type::published(*spilled);
    return ring_.published(ring_.head());
  }
  // Whether so many are waiting in the ring, as far as its slots tell; whether a quarter of it is.
  bool holds(std::size_t many) const noexcept {
    const std::size_t most = ring_.capacity();
    return ring_.published(ring_.head() + (many < most ? many : most) - 1);
  }
  bool fills_up() const noexcept { return holds(ring_.capacity() / 4 + 1) || has_spilled(); }

  // What the last look before a sleep compares: copied before the sleep is published, because
  // from then on the loop may be somebody else's.
  struct bookmark {
    std::uint64_t head;
    const node* front;
    bool front_is_next;
  };
  bookmark mark() noexcept {
    const node* front = spill_.front();
    return {ring_.head(), front, front != nullptr && ring_.head() >= front->ticket};
  }
  bool news_before_sleep(const bookmark& at) const noexcept {
    if (at.front_is_next) return spill_.news_before_sleep(at.front);
    if (ring_.published_before_sleep(at.head)) return true;
    return at.front == nullptr && spill_.news_before_sleep(nullptr);
  }

  // The child of a fork, where whoever had claimed a place is not there to fill it.
  void abandon_claims() noexcept {
    for (std::uint64_t i = ring_.head(); i != ring_.tail(); ++i) {
      if (ring_.published(i)) continue;
      ring_.task_at(i).mark_empty();
      ring_.publish(i, true);
    }
    for (node* n = spill_.front(); n != nullptr; n = n->next) spill_type::publish(*n);
  }

  // Destroys what was accepted and never run. Waits for claims that are not yet published.
  void destroy_all() noexcept {
    while (!empty()) {
      const bool some = run_next<build_tag>([](unique_task&) {});
      if (!some) Traits::kernel::yield();
    }
    publish_head();
  }

 private:
  using answer = claim_answer;
  using visit = typename waiting_room<Traits>::visit;
  static constexpr std::uint64_t nobody = ~std::uint64_t{0};

  template <class Build>
  [[noreturn]] static void out_of_memory() {
    refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: post");
  }

  // A producer that finds the spill not empty spills too.
  answer claim(std::uint64_t& index) noexcept {
    if (!spill_.empty()) return ring_.is_closed() ? answer::closed : answer::full;
    return ring_.claim(index);
  }

  // Publishes on every way out: a constructor that throws leaves an empty task, a tombstone, and its
  // block goes back first.
  template <class Place, class Publish, class Look>
  struct publisher {
    Place& place;
    const Publish& publish;
    const Look& look;
    ~publisher() {
      place.give_back();
      publish();
      Traits::schedule_point("published");
      look();
    }
  };

  template <class Build, class Place, class F, class Look>
  post_result fill(std::uint64_t index, Place& place, F&& f, bool strong, const Look& look) {
    Traits::schedule_point("claimed");
    const auto publish = [this, index, strong] { ring_.publish(index, strong); };
    const publisher<Place, decltype(publish), Look> on_exit{place, publish, look};
    unique_task& task = ring_.task_at(index);
    task.mark_empty();
    task.emplace(place, std::forward<F>(f));
    return post_result::accepted;
  }

  template <class Build, class Place, class F, class Look>
  post_result offer_spill(Place& place, F&& f, std::optional<visit>& waiting, overflow when_full,
                          bool strong, const Look& look) {
    void* memory = arena_.take_block();
    if (memory == nullptr && when_full == overflow::fail) return post_result::full;
    if (memory == nullptr && when_full == overflow::block) {
      std::uint64_t index = 0;
      switch (wait_for_room(*waiting, index, memory)) {
        case answer::claimed: return fill<Build>(index, place, std::forward<F>(f), strong, look);
        case answer::closed: return post_result::closed;
        case answer::full: break;  // but a block was had
      }
    }
    std::uint32_t spare = 0;
    if (memory == nullptr) memory = arena_.take_spare(spare);
    if (memory == nullptr) memory = arena_.take(sizeof(node), alignof(node));
    if (memory == nullptr) out_of_memory<Build>();
    node* mine = ::new (memory) node;
    mine->spare = spare;
    mine->ticket = ring_.tail();
    Traits::schedule_point("ticket");
    if (!spill_.push(*mine)) {
      give(*mine);
      return post_result::closed;
    }
    Traits::schedule_point("spilled");
    const auto publish = [mine] { spill_type::publish(*mine); };
    const publisher<Place, decltype(publish), Look> on_exit{place, publish, look};
    mine->task.emplace(place, std::forward<F>(f));
    return post_result::accepted;
  }

  answer wait_for_room(const visit& here, std::uint64_t& index, void*& memory) noexcept {
    for (;;) {
      const std::uint32_t seen = here.epoch();
      const answer got = claim(index);
      if (got != answer::full) return got;
      memory = arena_.take_block();
      if (memory != nullptr) return answer::full;
      Traits::schedule_point("no-room");
      here.sleep(seen);
    }
  }

  void give(node& n) noexcept {
    const std::uint32_t spare = n.spare;
    n.~node();
    if (spare != 0) return arena_.give_spare(spare);
    arena_.give(&n, sizeof(node), alignof(node));
  }

  // The loop thread: with the next published head.
  void give_later(node& n) noexcept {
    const std::uint32_t spare = n.spare;
    n.~node();
    if (spare != 0) {
      returning_.add_spare(arena_, spare);
    } else if (arena_.owns(&n)) {
      returning_.add(arena_, &n);
    } else {
      return arena_.give(&n, sizeof(node), alignof(node));
    }
    if (unpublished_ == 0) unpublished_ = 1;  // a nested run has published meanwhile
  }

  // Whatever leaves the task (a return, an exception), the closure is destroyed and the slot is
  // done. The private head has moved before, so a nested run goes on with the next slot; the
  // published one stops at the oldest slot that still runs.
  template <class Build, class Run>
  void run_slot(Run& run) {
    struct done {
      queue& in;
      unique_task& task;
      bool outermost;
      ~done() {
        task.destroy_unmarked();
        if (outermost) in.oldest_running_ = nobody;
      }
    };
    const std::uint64_t index = ring_.head();
    ring_.advance();
    ++unpublished_;
    const done guard{*this, ring_.task_at(index), oldest_running_ == nobody};
    if (guard.outermost) oldest_running_ = index;
    if (guard.task) run(guard.task);
  }

  template <class Build, class Run>
  void run_node(Run& run, node& n) {
    struct done {
      queue& in;
      node& mine;
      ~done() { in.give_later(mine); }
    };
    spill_.pop();
    ++unpublished_;
    const done guard{*this, n};
    if (n.task) run(n.task);
  }

  static constexpr std::uint32_t stride_of(std::size_t capacity) noexcept {
    return capacity < 8 ? 1 : capacity >= 1024 ? 256 : static_cast<std::uint32_t>(capacity / 4);
  }

  arena<Traits>& arena_;
  waiting_room<Traits>& room_;
  Ring ring_;
  spill_type spill_;

  // The loop thread.
  alignas(cache_line) typename arena<Traits>::returning returning_;
  std::uint64_t oldest_running_ = nobody;
  const std::uint32_t stride_;
  std::uint32_t unpublished_ = 0;  // run, and not yet in the published head
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< ingress/queue.hpp

// >>> ingress/lane.hpp - a private way into the loop for one thread at a time
HYBRIDLOOP_OPEN
namespace detail {

// A queue whose ring has a single producer, in a mapping of its own. Held by its producer and by the
// loop, and freed by the last of them.
//
// Edge [busy]: everything a lane accepted is run or destroyed.
//
//   producer                                closer, then loop thread
//   D1  busy = 1                            D3  closed = 1, before the close bit of the status word
//   D2  closed ? answer so : accept         D4  busy ? look again : what is in the lane is all
//   D5  busy = 0, release
//
// D1 and D2 against D3 and D4 is the quarrel of [sleep] once more. Who posts strong writes D1
// seq_cst; who does not leaves the barrier to the loop, which issues one between D3 and D4. Either
// the producer sees D3, or the loop sees D1, and then waits for D5. Rule: the one order of seq_cst
// operations, or what membarrier(2) promises; D4 synchronises with the D5 that it reads [atomics.order].
//
// Edge [part]: V1 the producer or the loop lets go (release); V2 the other one sees that it is the
// last (acquire), and frees the lane. Rule: a count that only read-modify-writes change is one release
// sequence [intro.races].
template <class Traits>
class lane {
  template <class T>
  using atomic = typename Traits::template atomic<T>;
  using kernel = typename Traits::kernel;

 public:
  using queue_type = queue<Traits, lane_ring<Traits>>;

  // nullptr: no memory. `capacity` is a power of two.
  static lane* create(std::size_t capacity, arena<Traits>& blocks, waiting_room<Traits>& room,
                      const atomic<std::uint32_t>& closed) noexcept {
    const std::size_t bytes = header + capacity * sizeof(typename slot_array<Traits>::slot);
    void* memory = kernel::map(bytes);
    return memory == nullptr ? nullptr : ::new (memory) lane(bytes, capacity, blocks, room, closed);
  }
  lane(const lane&) = delete;
  lane& operator=(const lane&) = delete;

  // The producer's hold, and the loop's.
  void let_go() noexcept {
    if (holders_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;  // [part] V1, V2
    const std::size_t bytes = bytes_;
    this->~lane();
    kernel::unmap(this, bytes);
  }

  // The producer, around each post. Posts nest, in the constructor of a closure: what the outer one
  // claimed is then known by the tail, which D5 of the inner one publishes.
  class post {
   public:
    post(lane& mine, bool strong) noexcept : lane_(mine) {
      if (strong) {
        lane_.busy_.store(1, std::memory_order_seq_cst);  // [busy] D1
      } else {
        lane_.busy_.store(1, std::memory_order_relaxed);      // [busy] D1 with a barrier
        std::atomic_signal_fence(std::memory_order_seq_cst);  // [busy] D1 stays before D2
      }
      Traits::schedule_point("lane-busy");
    }
    post(const post&) = delete;
    post& operator=(const post&) = delete;
    ~post() { lane_.busy_.store(0, std::memory_order_release); }  // [busy] D5

   private:
    lane& lane_;
  };

  // The loop thread from here on.
  //
  // Claimed, whether published or not, counts as work, and so does a post that may be about to claim.
  bool empty() noexcept {
    return busy_.load(std::memory_order_seq_cst) == 0 && tasks.empty();  // [busy] D4
  }
  bool parted() const noexcept { return holders_.load(std::memory_order_acquire) == 1; }  // [part] V2

  void mark() noexcept { marked_ = tasks.mark(); }
  bool news_before_sleep() const noexcept { return tasks.news_before_sleep(marked_); }

  // The child of a fork, where the producer is in no call.
  void abandon_claims() noexcept {
    tasks.abandon_claims();
    busy_.store(0, std::memory_order_relaxed);  // ours alone
  }
  void destroy_all() noexcept {
    while (busy_.load(std::memory_order_seq_cst) != 0) kernel::yield();  // [busy] D4
    tasks.destroy_all();
  }

  queue_type tasks;
  lane* next = nullptr;
  std::size_t visits = 0;  // by runs nested in each other

 private:
  static constexpr std::size_t header = 16 * cache_line;

  lane(std::size_t bytes, std::size_t capacity, arena<Traits>& blocks, waiting_room<Traits>& room,
       const atomic<std::uint32_t>& closed) noexcept
      : tasks(blocks, room, reinterpret_cast<unsigned char*>(this) + header, capacity, closed), bytes_(bytes) {
    static_assert(sizeof(lane) <= header);
  }
  ~lane() = default;

  typename queue_type::bookmark marked_{};  // before the sleep was published
  const std::size_t bytes_;
  atomic<std::uint32_t> holders_{2};

  // The producer.
  alignas(cache_line) atomic<std::uint32_t> busy_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< ingress/lane.hpp

// >>> ingress/ingress.hpp - all ways in: the queue that every thread posts to, and the lanes
HYBRIDLOOP_OPEN
namespace detail {

// Edge [join]: J1 a lane is put on the list of joiners (release), any thread; J2 the loop thread takes
// that list (acquire). Nothing else tells the loop of a lane: a task in one that has not been taken is
// found through the list, so that is looked at wherever lanes are, before a sleep too. It is seq_cst
// because a lane that joins after the loop has closed must see that, as in [busy]. Rule: J2 synchronises
// with every J1 of the list, a release sequence [intro.races]; and the one order [atomics.order].
template <class Traits>
class ingress {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using shared_queue = queue<Traits, ring<Traits>>;
  using lane_type = lane<Traits>;

  ingress(void* ring, std::size_t ring_capacity, void* blocks, std::size_t arena_capacity) noexcept
      : arena_(blocks, arena_capacity), shared(arena_, room_, ring, ring_capacity) {}
  ingress(const ingress&) = delete;
  ingress& operator=(const ingress&) = delete;

  // Any thread. The caller then sets the close bit of the status word; only that ends the loop.
  void close() noexcept {
    closed_.store(1, std::memory_order_seq_cst);  // [busy] D3
    shared.close();
  }
  bool closed() const noexcept { return shared.closed(); }

  // Any thread: a lane of the caller's, or nullptr without memory.
  lane_type* join(std::size_t capacity) noexcept {
    lane_type* const fresh = lane_type::create(capacity, arena_, room_, closed_);
    if (fresh == nullptr) return nullptr;
    fresh->next = joining_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (!joining_.compare_exchange_weak(fresh->next, fresh, std::memory_order_seq_cst,  // [join] J1
                                           std::memory_order_relaxed)) {  // a hint; the loop repeats
    }
    return fresh;
  }
  // Any thread, before the lane's producer lets go of it.
  void part() noexcept { parted_.fetch_add(1, std::memory_order_release); }  // [part] V1

  arena<Traits>& blocks() noexcept { return arena_; }
  const arena<Traits>& blocks() const noexcept { return arena_; }
  const waiting_room<Traits>& room() const noexcept { return room_; }

  // The loop thread from here on.

  // Takes lanes that joined.
  void adopt() noexcept {
    if (!lanes_wait()) return;
    lane_type* fresh = joining_.exchange(nullptr, std::memory_order_seq_cst);  // [join] J2
    while (fresh != nullptr) {
      lane_type* const after = fresh->next;
      fresh->next = lanes_;
      lanes_ = fresh;
      ++count_;
      fresh = after;
    }
  }
  // Lets go of lanes whose producers are gone, when they are empty; not of one that is being visited,
  // by an outer run.
  void reap() noexcept {
    if (parted_.load(std::memory_order_acquire) == reaped_) return;  // [part] V2
    for (lane_type** at = &lanes_; *at != nullptr;) {
      lane_type* const one = *at;
      if (one->visits != 0 || !one->parted() || !one->empty()) {
        at = &one->next;
        continue;
      }
      *at = one->next;
      if (next_ == one) next_ = one->next;
      drop(*one);
      ++reaped_;
    }
  }
  bool has_lanes() const noexcept { return lanes_ != nullptr || lanes_wait(); }

  // Gives each queue its turn, beginning behind the one that had the last: drain(queue, share) answers
  // how many it ran. Until `left` have run or halted() says so; answers what is left.
  template <class Drain, class Halted>
  std::size_t visit(std::size_t left, const Drain& drain, const Halted& halted) {
    if (lanes_ == nullptr) return left - drain(shared, left);
    for (std::size_t visits = count_ + 1; visits != 0 && left != 0 && !halted(); --visits) {
      lane_type* const now = next_;
      next_ = now == nullptr ? lanes_ : now->next;
      const std::size_t share = left < lane_share ? left : lane_share;
      const std::size_t ran = now == nullptr ? drain(shared, share) : visit_lane(*now, share, drain);
      left -= ran;
      if (ran == share) visits = count_ + 2;  // it has more: the round ends when no queue has
    }
    return left;
  }

  void publish_heads() noexcept {
    shared.publish_head();
    for (lane_type* l = lanes_; l != nullptr; l = l->next) {
      if (l->tasks.owes_head()) l->tasks.publish_head();
    }
  }

  // What the queues have taken in, statistics; of the lanes, what they have run.
  std::uint64_t lane_posts() const noexcept { return sum(lane_posts_, &lane_type::queue_type::ran); }
  std::uint64_t lane_spilled() const noexcept { return sum(lane_spilled_, &lane_type::queue_type::spilled); }

  // Claimed, whether published or not, counts as work.
  bool empty() noexcept {
    return shared.empty() && !lanes_wait() && no_lane([](lane_type& l) { return !l.empty(); });
  }
  // The same for who does not end the lanes: a post that has claimed nothing yet will wake the loop.
  bool idle() noexcept {
    adopt();
    return shared.empty() && no_lane([](lane_type& l) { return !l.tasks.empty(); });
  }
  // How many are accepted and have not run.
  std::size_t pending() noexcept {
    adopt();
    std::size_t all = shared.pending();
    for (lane_type* l = lanes_; l != nullptr; l = l->next) all += l->tasks.pending();
    return all;
  }
  // The same, and each queue notes how many of them are its own.
  std::size_t owe_pending() noexcept {
    adopt();
    std::size_t all = shared.owed = shared.pending();
    for (lane_type* l = lanes_; l != nullptr; l = l->next) all += l->tasks.owed = l->tasks.pending();
    return all;
  }
  bool can_run() noexcept {
    return shared.can_run() || lanes_wait() || !no_lane([](lane_type& l) { return l.tasks.can_run(); });
  }

  bool fills_up() const noexcept {
    return shared.fills_up() || !no_lane([](const lane_type& l) { return l.tasks.fills_up(); });
  }

  // What the last look before a sleep compares, see queue. The lanes keep their own.
  using bookmark = typename shared_queue::bookmark;
  bookmark mark() noexcept {
    for (lane_type* l = lanes_; l != nullptr; l = l->next) l->mark();
    return shared.mark();
  }
  bool news_before_sleep(const bookmark& at) const noexcept {
    return shared.news_before_sleep(at) || lanes_wait() ||
           !no_lane([](const lane_type& l) { return l.news_before_sleep(); });
  }

  // The child of a fork: nobody waits for room, and nobody is in the middle of a post.
  void abandon_claims() noexcept {
    adopt();
    shared.abandon_claims();
    for (lane_type* l = lanes_; l != nullptr; l = l->next) l->abandon_claims();
    room_.forget_all();
  }

  // Destroys what was accepted and never run. Waits for claims that are not yet published.
  void destroy_all() noexcept {
    adopt();
    shared.destroy_all();
    for (lane_type* l = lanes_; l != nullptr; l = l->next) l->destroy_all();
  }
  // After that: the lanes are their producers' alone.
  void drop_lanes() noexcept {
    while (lanes_ != nullptr) drop(*std::exchange(lanes_, lanes_->next));
    next_ = nullptr;
  }

 private:
  static constexpr std::size_t lane_share = 256;

  template <class Drain>
  static std::size_t visit_lane(lane_type& l, std::size_t share, const Drain& drain) {
    struct until_left {
      std::size_t& visits;
      ~until_left() { --visits; }
    };
    ++l.visits;
    const until_left here{l.visits};
    return drain(l.tasks, share);
  }

  bool lanes_wait() const noexcept {
    return joining_.load(std::memory_order_seq_cst) != nullptr;  // [join] J2, [sleep] L2
  }
  template <class Condition>
  bool no_lane(const Condition& holds) const noexcept {
    for (lane_type* l = lanes_; l != nullptr; l = l->next) {
      if (holds(*l)) return false;
    }
    return true;
  }
  std::uint64_t sum(std::uint64_t of_dropped,
                    std::uint64_t (lane_type::queue_type::*figure)() const) const noexcept {
    for (const lane_type* l = lanes_; l != nullptr; l = l->next) of_dropped += (l->tasks.*figure)();
    return of_dropped;
  }
  void drop(lane_type& one) noexcept {
    lane_posts_ += one.tasks.ran();
    lane_spilled_ += one.tasks.spilled();
    --count_;
    one.let_go();
  }

  // Read by every post of a lane, written when a lane comes or goes and when the loop closes.
  alignas(cache_line) atomic<std::uint32_t> closed_{0};
  atomic<std::uint32_t> parted_{0};
  atomic<lane_type*> joining_{nullptr};

  alignas(cache_line) waiting_room<Traits> room_;
  arena<Traits> arena_;

  // The loop thread.
  lane_type* lanes_ = nullptr;
  lane_type* next_ = nullptr;  // whose turn it is; nullptr: the shared queue's
  std::size_t count_ = 0;
  std::uint32_t reaped_ = 0;
  std::uint64_t lane_posts_ = 0;    // of lanes that are gone
  std::uint64_t lane_spilled_ = 0;

 public:
  shared_queue shared;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< ingress/ingress.hpp

// >>> ingress/patience.hpp - a poster that finds the ring full looks again for a moment before it spills
HYBRIDLOOP_OPEN
namespace detail {

// A spilled task costs several times what one in the ring does, and once some have spilled the next
// ones must follow. A loop that is at work gives back slots every few microseconds, and sooner when
// it is asked to; so the poster that would be the first to spill waits for as long as that takes, and
// then lets the loop have its CPU, in case it lost it. After that a poster gives way once in a while
// only. All bounded, because the loop may be in a task that lasts.
template <class Traits, class Queue>
void look_for_room(Queue& queue) noexcept {
  constexpr std::uint32_t posts_per_yield = 64;
  static thread_local std::uint32_t posts = 0;
  const auto look = [&queue](std::uint32_t ns) {
    std::uint32_t left = pauses_in(ns);
    for (; left != 0 && !queue.has_room(); --left) cpu_pause();
    return left != 0;
  };
  if (!queue.has_spilled()) {
    posts = 0;
    if (look(6000)) return;
    const typename waiting_room<Traits>::glance asks(queue.room());
    if (look(10000)) return;
  }
  if (posts++ % posts_per_yield == 0) Traits::kernel::yield();
}

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< ingress/patience.hpp

// >>> ingress/stream.hpp - keeps a fast consumer from chasing its producer through the ring
HYBRIDLOOP_OPEN
namespace detail {

// A consumer that is faster than its producer polls the very line that the producer is about to
// write; each task then costs a transfer of the line both ways, several times the cost of a task
// in a stream. So a consumer that finds its next task at once, many times in a row and sooner than
// a requester that waits for its answer could have sent it, lets some gather before it looks again:
// longer while batches are large, shorter while they are small, not at all when the stream ends.
//
// The loop thread only.
class stream_pace {
 public:
  // After a batch of `ran` tasks that ended at an empty ring; look() says whether there is more.
  // False: there is nothing more just now. A rest ends early when plenty() says that it would hold up
  // the producer.
  template <class Look, class Plenty>
  bool more(std::size_t ran, const Look& look, const Plenty& plenty) noexcept {
    if (rest_ns_ != 0) {
      adapt(ran);
      rest(plenty);
    }
    for (std::uint32_t left = pauses_in(at_once_ns); left != 0; --left) {
      if (look()) {
        if (rest_ns_ == 0 && ++streak_ >= many) rest_ns_ = shortest_ns;
        return true;
      }
      cpu_pause();
    }
    streak_ = 0;
    rest_ns_ = 0;
    return false;
  }

 private:
  // A line goes from one core to another and back in 300 ns and more.
  static constexpr std::uint32_t at_once_ns = 200;
  static constexpr std::uint32_t shortest_ns = 100;
  static constexpr std::uint32_t longest_ns = 12800;
  static constexpr std::uint32_t many = 16;
  static constexpr std::size_t large_batch = 8;

  void adapt(std::size_t ran) noexcept {
    if (ran >= large_batch) {
      if (rest_ns_ < longest_ns) rest_ns_ *= 2;
    } else if (rest_ns_ > shortest_ns) {
      rest_ns_ /= 2;
    }
  }

  template <class Plenty>
  void rest(const Plenty& plenty) noexcept {
    for (std::uint32_t ns = 0; ns < rest_ns_; ns += shortest_ns) {
      for (std::uint32_t left = pauses_in(shortest_ns); left != 0; --left) cpu_pause();
      if (plenty()) return;
    }
  }

  std::uint32_t streak_ = 0;
  std::uint32_t rest_ns_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< ingress/stream.hpp

// >>> timer/record.hpp - one timer: what any thread may ask of it, and what only the loop thread touches
HYBRIDLOOP_OPEN

// How a repeating timer counts.
enum class repeat : std::uint8_t {
  fixed_rate,   // every period from the first deadline on; what was missed is made up for
  fixed_delay,  // a period after the end of each run
  skip_missed   // every period from the first deadline on; what was missed is left out
};

namespace detail {

// The word of a timer is these flags, its generation, and the number of the last move that another
// thread asked for. A timer has runs left while it is armed, or runs and repeats.
//
// Edge [timer]: cancel() is exact, and so is firing.
//
//   any thread                              loop thread
//   T1  armed -> ended: it will not run     T2  armed -> running: it runs
//   T3  running and repeating -> ended:     T4  running -> armed, or finds `ended` and stops
//       it will not run again
//   T5  a move is announced: next number,   T6  the move arrives, and has the last number:
//       `moving`; it may not fire               it may fire again
//
// All are acq_rel read-modify-writes of one word: exactly one of T1 and T2 succeeds. Rule: each reads the
// last value, and synchronises with who wrote it [atomics.order]. Once no runs
// are left only the loop thread changes the word, so a store wipes it before the record goes back
// to the table. A record that is handed out again carries another generation: who comes late finds
// a stranger, and has touched nothing but this word.
namespace timer_flag {
inline constexpr std::uint64_t armed = 1;
inline constexpr std::uint64_t running = 2;
inline constexpr std::uint64_t repeats = 4;
inline constexpr std::uint64_t ended = 8;
inline constexpr std::uint64_t moving = 16;
inline constexpr std::uint64_t generation = 0xffffffffull << 8;
inline constexpr std::uint64_t one_move = 1ull << 40;
}  // namespace timer_flag

// Two lines of 64 bytes; what cancel() needs is in the first, with the first word of the closure.
template <class Traits>
struct alignas(64) timer_record {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

  // Any thread.
  atomic<std::uint64_t> word{0};
  atomic<std::uint32_t> next_free{0};
  std::uint32_t index = 0;  // set once

  // The loop thread; before it knows the timer, its maker.
  nanos deadline = 0;
  nanos period = 0;
  std::uint64_t order = 0;  // where it stands in the wheel; 0 is nowhere
  timer_record* next_spare = nullptr;
  repeat how = repeat::fixed_rate;
  bool ours = false;        // made by the loop thread
  bool held = false;        // stands aside until the next turn
  bool stray = false;       // stands among those for whom there was no memory
  bool started = false;     // counted
  bool moved = false;       // while running: the deadline is the next one already
  bool referenced = true;
  unique_task task;
  timer_record* previous_stray = nullptr;

  // Soon to be armed, or to fire. The clock that is read in between waits for every load before it, but
  // not for these.
  void bring_near() const noexcept {
    prefetch_to_write(this);
    prefetch_to_write(reinterpret_cast<const unsigned char*>(this) + 64);
  }

  // The loop thread: the next one of a repeating timer whose run has ended.
  nanos deadline_after(nanos now) const noexcept {
    if (how == repeat::fixed_delay) return saturating_add(now, period);
    const nanos next = saturating_add(deadline, period);
    if (how == repeat::fixed_rate || next > now) return next;
    const nanos missed = (now - deadline) / period;
    return saturating_add(deadline + missed * period, period);
  }

  static std::uint32_t generation_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> 8);
  }
  static std::uint64_t make_word(std::uint32_t generation, std::uint64_t flags) noexcept {
    return std::uint64_t{generation} << 8 | flags;
  }
  static bool has_runs_left(std::uint64_t word) noexcept {
    if ((word & timer_flag::ended) != 0) return false;
    constexpr std::uint64_t between_runs = timer_flag::running | timer_flag::repeats;
    return (word & timer_flag::armed) != 0 || (word & between_runs) == between_runs;
  }
};

// One standing of a timer. Each has a number of its own, and a timer leaves by forgetting it: nobody
// looks for the entry, which is dropped where it is met.
template <class Traits>
struct timer_entry {
  nanos deadline;
  std::uint64_t order;  // FIFO among equals
  timer_record<Traits>* timer;

  bool stands() const noexcept { return timer->order == order; }
  bool before(const timer_entry& other) const noexcept {
    return deadline != other.deadline ? deadline < other.deadline : order < other.order;
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< timer/record.hpp

// >>> timer/heap.hpp - the timers whose tick has come, in exact order
HYBRIDLOOP_OPEN
namespace detail {

// Four children a node: half as deep as a binary heap, and the four share two lines. The loop
// thread only.
template <class Traits>
class timer_heap {
 public:
  using entry = timer_entry<Traits>;

  timer_heap() noexcept = default;
  timer_heap(const timer_heap&) = delete;
  timer_heap& operator=(const timer_heap&) = delete;
  ~timer_heap() {
    if (entries_ != nullptr) heap_give(entries_, alignof(entry));
  }

  bool empty() const noexcept { return size_ == 0; }
  const entry& top() const noexcept { return entries_[0]; }

  // False: there is no memory for it.
  bool push(const entry& e) noexcept {
    if (size_ == room_ && !grow()) return false;
    std::size_t at = size_++;
    for (; at > 0 && e.before(entries_[(at - 1) / 4]); at = (at - 1) / 4) {
      entries_[at] = entries_[(at - 1) / 4];
    }
    entries_[at] = e;
    return true;
  }

  void pop() noexcept {
    if (!top().stands()) --gone_;
    if (--size_ != 0) sift_down(entry(entries_[size_]));
  }

  std::size_t standing() const noexcept { return size_ - gone_; }
  std::size_t count_due(nanos now) const noexcept {
    std::size_t count = 0;
    for (std::size_t i = 0; i < size_; ++i) {
      if (entries_[i].deadline <= now && entries_[i].stands()) ++count;
    }
    return count;
  }

  // A timer has left. Entries that came last go at once, the others when they are the larger part.
  void drop_gone() noexcept {
    ++gone_;
    for (; gone_ != 0 && !entries_[size_ - 1].stands(); --gone_) --size_;
    if (gone_ > size_ / 2 + few) drop_all_gone();
  }

 private:
  static constexpr std::size_t few = 64;

  void sift_down(const entry& e) noexcept {
    std::size_t at = 0;
    for (std::size_t child = 1; child < size_; child = 4 * at + 1) {
      const std::size_t end = child + 4 < size_ ? child + 4 : size_;
      std::size_t least = child;
      for (std::size_t i = child + 1; i < end; ++i) {
        if (entries_[i].before(entries_[least])) least = i;
      }
      if (!entries_[least].before(e)) break;
      entries_[at] = entries_[least];
      at = least;
    }
    entries_[at] = e;
  }

  void drop_all_gone() noexcept {
    const std::size_t all = std::exchange(size_, 0);
    gone_ = 0;
    for (std::size_t i = 0; i < all; ++i) {
      if (entries_[i].stands()) push(entry(entries_[i]));
    }
  }

  bool grow() noexcept {
    const std::size_t wider = room_ == 0 ? 64 : room_ * 2;
    auto* entries = static_cast<entry*>(heap_take(wider * sizeof(entry), alignof(entry)));
    if (entries == nullptr) return false;
    if (size_ != 0) std::memcpy(entries, entries_, size_ * sizeof(entry));
    if (entries_ != nullptr) heap_give(entries_, alignof(entry));
    entries_ = entries;
    room_ = wider;
    return true;
  }

  entry* entries_ = nullptr;
  std::size_t size_ = 0;
  std::size_t room_ = 0;
  std::size_t gone_ = 0;  // entries that do not stand
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< timer/heap.hpp

// >>> timer/bag.hpp - the timers of one bucket of the wheel, in no order
HYBRIDLOOP_OPEN
namespace detail {

// Memory for the bags of one loop, kept for the next one that needs it.
template <class Traits>
class timer_chunks {
 public:
  static constexpr std::uint32_t size = 32;
  struct chunk {
    chunk* older;
    timer_entry<Traits> entries[size];
  };

  timer_chunks() noexcept = default;
  timer_chunks(const timer_chunks&) = delete;
  timer_chunks& operator=(const timer_chunks&) = delete;
  ~timer_chunks() {
    while (free_ != nullptr) heap_give(take(), alignof(chunk));
  }

  // nullptr: the heap is empty.
  chunk* take() noexcept {
    if (free_ == nullptr) return static_cast<chunk*>(heap_take(sizeof(chunk), alignof(chunk)));
    return std::exchange(free_, free_->older);
  }
  void give(chunk* c) noexcept {
    c->older = free_;
    free_ = c;
  }

 private:
  chunk* free_ = nullptr;
};

// Putting an entry in writes where the last one was written, and taking all out reads in line: no
// timer's memory is touched for another timer's sake. Timers that left stay as entries until half of
// the bag has gone; then each one that leaves has a chunk looked through. So a bag is never much
// larger than twice what stands in it, and nobody ever waits for all of it. The loop thread only.
template <class Traits>
class timer_bag {
 public:
  using entry = timer_entry<Traits>;
  using chunks = timer_chunks<Traits>;

  bool empty() const noexcept { return size_ == 0; }

  // False: there is no memory for it.
  bool put(const entry& e, chunks& spare) noexcept {
    if (size_ % chunks::size == 0) {
      chunk* fresh = spare.take();
      if (fresh == nullptr) return false;
      fresh->older = newest_;
      newest_ = fresh;
    }
    ++size_;
    last() = e;
    return true;
  }

  // A timer has left. If it came last, as one that is armed and cancelled at once did, it goes now.
  void drop_gone(chunks& spare) noexcept {
    ++gone_;
    while (gone_ != 0 && !last().stands()) drop_last_gone(spare);
    if (gone_ > size_ / 2 + few) sweep(spare);
  }

  // Calls f for each entry, and is empty before the first call.
  template <class F>
  void empty_out(chunks& spare, const F& f) {
    timer_bag all = *this;
    *this = timer_bag();
    while (all.newest_ != nullptr) {
      chunk* c = all.newest_;
      const std::uint32_t count = all.filled(c);
      for (std::uint32_t i = 0; i < count; ++i) f(c->entries[i]);
      all.size_ -= count;
      all.newest_ = c->older;
      spare.give(c);
    }
  }
  bool all_stand() const noexcept { return gone_ == 0; }
  std::size_t standing() const noexcept { return size_ - gone_; }
  std::size_t count_due(nanos now) const noexcept {
    std::size_t count = 0;
    for_each([&count, now](const entry& e) { count += e.deadline <= now && e.stands() ? 1u : 0u; });
    return count;
  }

  // The earliest deadline, or `crowd` if there are more than a handful; `never` when nobody stands
  // here any more, and then the bag is empty. What it puts back has the chunks that it took out.
  nanos earliest(nanos crowd, chunks& spare) {
    entry kept[handful + 1];
    std::size_t count = 0;
    nanos least = never;
    while (size_ != 0 && count <= handful) {
      const entry e = last();
      if (e.stands()) {
        drop_last(spare);
        kept[count++] = e;
        if (e.deadline < least) least = e.deadline;
      } else {
        drop_last_gone(spare);
      }
    }
    for (std::size_t i = 0; i < count; ++i) put(kept[i], spare);
    return count > handful ? crowd : least;
  }

  // Exactly, however many there are; `none` when nobody stands here.
  entry soonest(const entry& none) const noexcept {
    entry least = none;
    for_each([&least](const entry& e) {
      if (e.stands() && e.before(least)) least = e;
    });
    return least;
  }

 private:
  using chunk = typename chunks::chunk;
  static constexpr std::size_t handful = 16;
  static constexpr std::uint32_t few = 64;

  template <class F>
  void for_each(const F& f) const {
    for (const chunk* c = newest_; c != nullptr; c = c->older) {
      for (std::uint32_t i = 0; i < filled(c); ++i) f(c->entries[i]);
    }
  }

  entry& last() const noexcept { return newest_->entries[(size_ - 1) % chunks::size]; }
  std::uint32_t filled(const chunk* c) const noexcept {
    return c == newest_ ? (size_ - 1) % chunks::size + 1 : chunks::size;
  }

  void drop_last(chunks& spare) noexcept {
    if (--size_ % chunks::size != 0) return;
    chunk* empty = newest_;
    newest_ = empty->older;
    if (swept_ == empty) swept_ = nullptr;
    spare.give(empty);
  }
  void drop_last_gone(chunks& spare) noexcept {
    --gone_;
    drop_last(spare);
  }

  // One chunk further than the last time. From its end, so that what the last entry of the bag is
  // moved over has been looked at.
  void sweep(chunks& spare) noexcept {
    chunk* c = swept_ != nullptr ? swept_->older : nullptr;
    if (c == nullptr) c = newest_;
    swept_ = c;
    for (std::uint32_t i = filled(c); i-- > 0;) {
      if (c->entries[i].stands()) continue;
      c->entries[i] = last();
      drop_last_gone(spare);
    }
  }

  chunk* newest_ = nullptr;  // the others are full
  chunk* swept_ = nullptr;
  std::uint32_t size_ = 0;
  std::uint32_t gone_ = 0;   // entries that do not stand
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< timer/bag.hpp

// >>> timer/strays.hpp - timers for whose place in the wheel there was no memory
HYBRIDLOOP_OPEN
namespace detail {

// Linked through their records, so that a timer which was accepted needs no memory to fire. All of them
// are looked through each time: there are some until the heap gives again. The loop thread only.
template <class Traits>
class timer_strays {
 public:
  using record = timer_record<Traits>;
  using entry = timer_entry<Traits>;

  bool empty() const noexcept { return first_ == nullptr; }

  void add(record& r) noexcept {
    r.stray = true;
    r.previous_stray = nullptr;
    r.next_spare = first_;
    if (first_ != nullptr) first_->previous_stray = &r;
    first_ = &r;
  }
  void remove(record& r) noexcept {
    (r.previous_stray != nullptr ? r.previous_stray->next_spare : first_) = r.next_spare;
    if (r.next_spare != nullptr) r.next_spare->previous_stray = r.previous_stray;
    r.stray = false;
  }

  // None is to wait for the next turn any more.
  void free_held() noexcept {
    for (record* r = first_; r != nullptr; r = r->next_spare) r->held = false;
  }
  // Calls f for one after the other, which may add it again; then there is still no memory, and the rest
  // stays.
  template <class F>
  void find_place(const F& f) {
    for (record* r = first_; r != nullptr;) {
      record& one = *std::exchange(r, r->next_spare);
      remove(one);
      f(one);
      if (one.stray) return;
    }
  }

  // The earliest that may fire, or of all; `none` if that is earlier.
  entry soonest(const entry& none, bool of_all = false) const noexcept {
    entry least = none;
    for (record* r = first_; r != nullptr; r = r->next_spare) {
      const entry e{r->deadline, r->order, r};
      if ((of_all || !r->held) && e.before(least)) least = e;
    }
    return least;
  }
  bool any_held() const noexcept {
    const record* r = first_;
    while (r != nullptr && !r->held) r = r->next_spare;
    return r != nullptr;
  }
  std::size_t count_due(nanos now) const noexcept {
    std::size_t count = 0;
    for (const record* r = first_; r != nullptr; r = r->next_spare) count += r->deadline <= now ? 1u : 0u;
    return count;
  }

 private:
  record* first_ = nullptr;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< timer/strays.hpp

// >>> timer/wheel.hpp - deadlines in order: a hierarchical wheel for the far ones, a heap for the near
HYBRIDLOOP_OPEN
namespace detail {

// Which timers stand in a bucket is known to the tick (65.5 us). When the clock has reached a tick
// and nothing earlier is left, its timers move into a small heap that orders them to the nanosecond.
// So arming and cancelling cost the same however many timers there are, and firing is exact all the
// same.
//
// Levels of 64 buckets after G. Varghese and A. Lauck, "Hashed and Hierarchical Timing Wheels"
// (1987). A timer stands at the level of the highest 6-bit digit in which its tick differs from
// the base, the first tick not yet moved to the heap; so the lowest level that is not empty always
// holds the earliest bucket, and a deadline alone tells where its timer stands. The loop thread only.
template <class Traits>
class timer_wheel {
 public:
  using record = timer_record<Traits>;

  timer_wheel() noexcept = default;
  timer_wheel(const timer_wheel&) = delete;
  timer_wheel& operator=(const timer_wheel&) = delete;
  ~timer_wheel() {
    for (bag& b : bags_) b.empty_out(chunks_, [](const entry&) {});
    held_.empty_out(chunks_, [](const entry&) {});
  }

  // The deadline is set, and stays as it is until the timer has left. `never` stands nowhere.
  void insert(record& r) {
    if (r.deadline == never) return;
    stand(number(r));
  }

  // A timer that is due already but must not fire before the next turn: aside until free_held().
  void hold(record& r) {
    r.held = true;
    if (!held_.put(number(r), chunks_)) strays_.add(r);
  }
  void free_held() {
    if (!strays_.empty()) free_strays();
    if (held_.empty()) return;
    held_.empty_out(chunks_, [this](const entry& e) {
      if (!e.stands()) return;
      e.timer->held = false;
      stand(e);
    });
  }

  void erase(record& r) noexcept {
    if (std::exchange(r.order, 0) == 0) return;
    const std::uint64_t tick = tick_of(r.deadline);
    const bool held = std::exchange(r.held, false);
    if (r.stray) {
      strays_.remove(r);
    } else if (held) {
      held_.drop_gone(chunks_);
    } else if (tick < base_) {
      heap_.drop_gone();
    } else {
      const std::uint32_t bucket = bucket_of(tick);
      bags_[bucket].drop_gone(chunks_);
      if (bags_[bucket].empty()) clear_bit(bucket);
    }
  }

  // Lets the base follow the clock, as far as the first tick that has timers. Deadlines are told
  // apart the better the nearer they are to the base.
  void advance(nanos now) {
    const std::uint64_t tick = tick_of(now);
    if (tick > base_) move_base(tick);
  }

  // The earliest timer leaves the wheel, if it is due at `now`; otherwise nullptr.
  record* take_due(nanos now) {
    for (;;) {
      if (heap_.empty() && refill(now)) continue;
      const bool due = !heap_.empty() && heap_.top().deadline <= now;
      const entry e = due ? heap_.top() : nobody;
      if (due && !e.stands()) {
        heap_.pop();
        continue;
      }
      if (!strays_.empty()) {
        if (record* r = take_stray(e, now)) return r;
      }
      if (!due) return nullptr;
      heap_.pop();
      e.timer->order = 0;
      return e.timer;
    }
  }

  // Not later than the earliest deadline, and equal to it unless more than a handful of timers
  // share the earliest bucket: then it is the bucket's beginning, and the wake there is for all.
  nanos next_wake() {
    if (held_.earliest(long_ago, chunks_) != never) return long_ago;  // all of these are due
    if (strays_.empty()) return next_wake_of_others();
    if (strays_.any_held()) return long_ago;
    const nanos soonest = strays_.soonest(nobody).deadline;
    const nanos others = next_wake_of_others();
    return soonest < others ? soonest : others;
  }

  // How many are due. Looks at single timers only where the clock is in the middle of a bucket.
  std::size_t count_due(nanos now) const noexcept {
    const std::uint64_t tick = tick_of(now);
    const std::size_t in_heap = tick >= base_ ? heap_.standing() : heap_.count_due(now);
    std::size_t count = held_.standing() + in_heap + strays_.count_due(now);
    for (std::uint32_t level = 0; level < levels; ++level) {
      for (std::uint64_t left = occupied_[level]; left != 0; left &= left - 1) {
        const std::uint32_t bucket = level * buckets_per_level + lowest_bit(left);
        const std::uint64_t start = start_of(level, bucket);
        const std::uint64_t next = start + (std::uint64_t{1} << (level * digit_bits));
        if (start > tick) break;
        count += next <= tick ? bags_[bucket].standing() : bags_[bucket].count_due(now);
      }
    }
    return count;
  }

  // The earliest deadline, exactly. Costs as much as the earliest bucket has timers, once for each
  // time that the earliest of all has left.
  nanos next_deadline() {
    if (soonest_.timer != nullptr && !soonest_.stands()) soonest_ = look_for_soonest();
    return soonest_.deadline;
  }

 private:
  using entry = timer_entry<Traits>;
  using bag = timer_bag<Traits>;
  static constexpr entry nobody{never, 0, nullptr};
  static constexpr std::uint32_t tick_bits = 16;
  static constexpr std::uint32_t levels = 8;
  static constexpr std::uint32_t digit_bits = 6;
  static constexpr std::uint32_t buckets_per_level = 1u << digit_bits;

  static std::uint64_t tick_of(nanos t) noexcept {
    return t <= 0 ? 0 : static_cast<std::uint64_t>(t) >> tick_bits;
  }
  static nanos time_of(std::uint64_t tick) noexcept { return static_cast<nanos>(tick << tick_bits); }

  std::uint32_t bucket_of(std::uint64_t tick) const noexcept {
    const std::uint32_t level = highest_bit((tick ^ base_) | (buckets_per_level - 1)) / digit_bits;
    const auto digit = static_cast<std::uint32_t>(tick >> (level * digit_bits)) % buckets_per_level;
    return level * buckets_per_level + digit;
  }

  std::uint32_t lowest_level() const noexcept {
    std::uint32_t level = 0;
    while (level < levels && occupied_[level] == 0) ++level;
    return level;
  }
  std::uint32_t earliest_bucket(std::uint32_t level) const noexcept {
    return level * buckets_per_level + lowest_bit(occupied_[level]);
  }
  std::uint64_t start_of(std::uint32_t level, std::uint32_t bucket) const noexcept {
    const std::uint32_t shift = level * digit_bits;
    const std::uint64_t above = base_ >> (shift + digit_bits) << (shift + digit_bits);
    return above | std::uint64_t{bucket % buckets_per_level} << shift;
  }

  void set_bit(std::uint32_t bucket) noexcept {
    occupied_[bucket / buckets_per_level] |= std::uint64_t{1} << bucket % buckets_per_level;
  }
  void clear_bit(std::uint32_t bucket) noexcept {
    occupied_[bucket / buckets_per_level] &= ~(std::uint64_t{1} << bucket % buckets_per_level);
  }

  entry number(record& r) noexcept {
    r.order = ++last_order_;
    const entry e{r.deadline, r.order, &r};
    if (e.before(soonest_)) soonest_ = e;
    return e;
  }

  nanos next_wake_of_others() {
    while (!heap_.empty() && !heap_.top().stands()) heap_.pop();
    if (!heap_.empty()) return heap_.top().deadline;
    for (std::uint32_t level = lowest_level(); level < levels; level = lowest_level()) {
      const std::uint32_t bucket = earliest_bucket(level);
      const nanos earliest = bags_[bucket].earliest(time_of(start_of(level, bucket)), chunks_);
      if (earliest != never) return earliest;
      clear_bit(bucket);
    }
    return never;
  }

  entry look_for_soonest() {
    const entry least = strays_.soonest(held_.soonest(nobody), true);
    while (!heap_.empty() && !heap_.top().stands()) heap_.pop();
    if (!heap_.empty()) return heap_.top().before(least) ? heap_.top() : least;
    for (std::uint32_t level = lowest_level(); level < levels; level = lowest_level()) {
      const std::uint32_t bucket = earliest_bucket(level);
      if (bags_[bucket].earliest(0, chunks_) != never) return bags_[bucket].soonest(least);
      clear_bit(bucket);
    }
    return least;
  }

  // Where the base says.
  void stand(const entry& e) {
    const std::uint64_t tick = tick_of(e.deadline);
    if (tick < base_) return be_near(e);
    const std::uint32_t bucket = bucket_of(tick);
    if (!bags_[bucket].put(e, chunks_)) return strays_.add(*e.timer);
    set_bit(bucket);
  }
  void be_near(const entry& e) {
    if (!heap_.push(e)) strays_.add(*e.timer);
  }

  void free_strays() {
    strays_.free_held();
    strays_.find_place([this](record& r) { stand({r.deadline, r.order, &r}); });
  }
  // If one of them comes before the earliest of the others and is due.
  record* take_stray(const entry& other, nanos now) {
    const entry e = strays_.soonest(other);
    if (e.timer == other.timer || e.deadline > now) return nullptr;
    strays_.remove(*e.timer);
    e.timer->order = 0;
    return e.timer;
  }

  // Up to `target` or the first tick with timers, whichever comes first. Buckets of higher levels
  // are spread as the base comes to them.
  void move_base(std::uint64_t target) {
    for (std::uint32_t level = lowest_level(); level < levels; level = lowest_level()) {
      const std::uint32_t bucket = earliest_bucket(level);
      const std::uint64_t start = start_of(level, bucket);
      if (start > target) break;
      base_ = start;
      if (level == 0) return;
      clear_bit(bucket);
      const bool all_stand = bags_[bucket].all_stand();
      bags_[bucket].empty_out(chunks_, [this, all_stand](const entry& e) {
        if (all_stand || e.stands()) stand(e);
      });
    }
    base_ = target;
  }

  // Moves the earliest tick that the clock has reached into the empty heap; looking whether its
  // timers stand brings them near before they fire. False: there is none.
  bool refill(nanos now) {
    const std::uint64_t tick = tick_of(now);
    if (tick > base_) move_base(tick);
    const std::uint32_t bucket = bucket_of(base_);
    if (base_ > tick || bags_[bucket].empty()) return false;
    ++base_;
    clear_bit(bucket);
    bags_[bucket].empty_out(chunks_, [this](const entry& e) {
      if (!e.stands()) return;
      e.timer->bring_near();
      be_near(e);
    });
    move_base(base_);
    return true;
  }

  std::uint64_t base_ = 0;
  std::uint64_t last_order_ = 0;
  entry soonest_ = nobody;  // may have left; nobody who stands is earlier
  std::uint64_t occupied_[levels] = {};
  timer_heap<Traits> heap_;
  timer_chunks<Traits> chunks_;
  timer_strays<Traits> strays_;
  bag held_;
  bag bags_[levels * buckets_per_level];
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< timer/wheel.hpp

// >>> timer/timers.hpp - all timers of a loop: made and cancelled anywhere, fired by the loop thread
HYBRIDLOOP_OPEN
namespace detail {

// A timer is made by any thread and *started* by the loop thread: other threads send the id of
// what they made, moved or ended through the ingress, in order with their posts. Ids carry a
// generation, so a command that comes late finds nobody instead of a stranger.
template <class Traits>
class timers {
 public:
  using record = timer_record<Traits>;

  // Any thread; `here` says that it is the loop thread. nullptr when there is no memory; throws what
  // the closure's constructor throws.
  template <class Build, class F>
  record* make(block_source& home, F&& f, nanos deadline, nanos period, repeat how, bool here) {
    unique_task::room<std::decay_t<F>> place(home);
    record* r = place.had() ? take(here) : nullptr;
    if (r == nullptr) return nullptr;
    give_back unless_made{this, r};
    r->task.emplace(place, std::forward<F>(f));
    unless_made.r = nullptr;
    r->deadline = deadline;
    r->period = period;
    r->how = how;
    r->referenced = true;
    r->ours = here;
    const std::uint64_t flags = timer_flag::armed | (period > 0 ? timer_flag::repeats : 0);
    r->word.store(record::make_word(next_generation(*r), flags), std::memory_order_release);  // [timer] T1
    return r;
  }

  timer_id id_of(const record& r) const noexcept {
    return {r.index, record::generation_of(r.word.load(std::memory_order_relaxed))};  // a hint; its holder asks
  }

  enum class ending : std::uint8_t { unknown, unplace, by_itself };

  // Any thread. `unplace`: it will not run; the loop thread owes a release(). `by_itself`: one run
  // is in progress, the last, and releases it.
  ending end(timer_id id) noexcept {
    std::uint64_t word = 0;
    record* r = find(id, word);
    while (names(id, word)) {
      const std::uint64_t next = (word & ~timer_flag::armed) | timer_flag::ended;
      if (r->word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T1, T3
                                        std::memory_order_acquire)) {  // [timer] T1, T3
        return (word & timer_flag::running) != 0 ? ending::by_itself : ending::unplace;
      }
    }
    return ending::unknown;
  }

  // Any thread but the loop's. The caller owes the loop thread an arrive() with the number given
  // here, and until that has come the timer does not fire; of several moves on their way the one
  // with the last number counts. 0: unknown.
  std::uint32_t announce_move(timer_id id) noexcept {
    std::uint64_t word = 0;
    record* r = find(id, word);
    while (names(id, word)) {
      const std::uint64_t next = (word + timer_flag::one_move) | timer_flag::moving;
      if (r->word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T5
                                        std::memory_order_acquire)) {  // [timer] T5
        return move_of(next);
      }
    }
    return 0;
  }

  // Whoever made a timer that the loop refused to start, and ended it. Only its maker knows of it,
  // so it may go on the maker's thread.
  void discard(record& r) noexcept {
    r.task.reset();
    table_.give(r.index);
  }

  // The loop thread from here on.
  void start(record& r, nanos now) {
    r.started = true;
    ++started_;
    if (r.referenced) ++referenced_;
    place(r, now);
  }
  void start(timer_id id, nanos now) {
    std::uint64_t word = 0;
    record* r = find(id, word);
    if (names(id, word)) start(*r, now);
  }

  // end(), and release() where it is owed.
  bool cancel(timer_id id) noexcept {
    std::uint64_t word = 0;
    record* r = find(id, word);
    while (names(id, word)) {
      const bool runs = (word & timer_flag::running) != 0;
      const std::uint64_t next = runs ? word | timer_flag::ended : word & timer_flag::generation;
      if (r->word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T1, T3
                                        std::memory_order_acquire)) {  // [timer] T1, T3
        if (!runs) free(*r);
        return true;
      }
    }
    return false;
  }

  void release(timer_id id) noexcept {
    std::uint64_t word = 0;
    record* r = find(id, word);
    const bool same = record::generation_of(word) == id.generation();
    // While its last run is in progress, the end of that releases it.
    constexpr std::uint64_t both = timer_flag::ended | timer_flag::running;
    if (same && (word & both) == timer_flag::ended) wipe_and_free(*r, word);
  }

  // What announce_move() announced. A timer that runs goes there afterwards, and one whose start is
  // still on its way starts there.
  void arrive(timer_id id, std::uint32_t move, nanos deadline, nanos now) {
    std::uint64_t word = 0;
    record* r = find(id, word);
    while (names(id, word) && move_of(word) == move) {
      if (r->word.compare_exchange_weak(word, word & ~timer_flag::moving, std::memory_order_acq_rel,  // [timer] T6
                                        std::memory_order_acquire)) {  // [timer] T6
        return put(*r, word, deadline, now);
      }
    }
  }

  // Overrides the moves that are on their way, if any. False: unknown.
  bool move(timer_id id, nanos deadline, nanos now) {
    std::uint64_t word = 0;
    record* r = find(id, word);
    while (names(id, word)) {
      const std::uint64_t next = (word + timer_flag::one_move) & ~timer_flag::moving;
      if ((word & timer_flag::moving) == 0 ||
          r->word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T6
                                        std::memory_order_acquire)) {  // [timer] T6
        put(*r, word, deadline, now);
        return true;
      }
    }
    return false;
  }

  void set_referenced(timer_id id, bool wanted) noexcept {
    std::uint64_t word = 0;
    record* r = find(id, word);
    if (!names(id, word) || r->referenced == wanted) return;
    r->referenced = wanted;
    if (r->started) referenced_ += wanted ? 1 : -1;
  }

  std::ptrdiff_t referenced() const noexcept { return referenced_; }
  std::size_t started() const noexcept { return started_; }
  nanos next_wake() { return wheel_.next_wake(); }
  nanos next_deadline() { return wheel_.next_deadline(); }
  std::size_t count_due(nanos now) const noexcept { return wheel_.count_due(now); }

  // Runs what is due at `now`, in order, at most `most`: run(task). What is armed meanwhile and due
  // already waits for the next call, so a timer of zero delay cannot starve the rest. `later` is
  // asked for the time after a run, where that matters.
  template <class Run, class Later>
  std::size_t fire(nanos now, std::size_t most, const Run& run, const Later& later) {
    wheel_.free_held();
    const firing_scope scope(*this, now);
    std::size_t fired = 0;
    while (fired < most) {
      record* r = wheel_.take_due(now);
      if (r == nullptr) break;
      if (!begin_run(*r)) continue;
      ++fired;
      const run_end<Later> guard{*this, *r, later};
      if (!run(r->task)) break;
    }
    return fired;
  }

  // Ends every timer that was started, without running any; on the way out, also those whose start
  // never arrived.
  void end_all(bool unstarted_too) noexcept {
    table_.for_each([this, unstarted_too](record& r) {
      if (!r.started && !(unstarted_too && r.task)) return;
      const std::uint64_t was = r.word.fetch_or(timer_flag::ended, std::memory_order_acq_rel);  // [timer] T1
      if ((was & timer_flag::running) == 0) wipe_and_free(r, was);
    });
  }

 private:
  struct give_back {
    timers* all;
    record* r;
    ~give_back() {
      if (r != nullptr) all->table_.give(r->index);
    }
  };

  // Restores the outer turn's view when a nested turn has fired timers.
  class firing_scope {
   public:
    firing_scope(timers& all, nanos now) noexcept : all_(all), outer_(all.firing_until_) {
      all.firing_until_ = now;
    }
    firing_scope(const firing_scope&) = delete;
    firing_scope& operator=(const firing_scope&) = delete;
    ~firing_scope() {
      all_.firing_until_ = outer_;
      all_.wheel_.free_held();
    }

   private:
    timers& all_;
    nanos outer_;
  };

  template <class Later>
  struct run_end {
    timers& all;
    record& r;
    const Later& later;
    ~run_end() { all.end_run(r, later); }
  };

  static bool names(timer_id id, std::uint64_t word) noexcept {
    return record::generation_of(word) == id.generation() && record::has_runs_left(word);
  }
  static std::uint32_t move_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word / timer_flag::one_move) + 1;
  }
  static std::uint32_t next_generation(const record& r) noexcept {
    const std::uint64_t word = r.word.load(std::memory_order_relaxed);  // ours alone until it is made
    const std::uint32_t next = record::generation_of(word) + 1;
    return next == 0 ? 1 : next;
  }

  // The record that an id points at, whoever has it now, and its word.
  record* find(timer_id id, std::uint64_t& word) noexcept {
    record* r = table_.find(id.index());
    if (r != nullptr) word = r->word.load(std::memory_order_acquire);  // [timer] T1, T2
    return r;
  }

  void place(record& r, nanos now) {
    if (r.deadline <= firing_until_) {
      wheel_.hold(r);
    } else {
      wheel_.advance(now);
      wheel_.insert(r);
    }
  }

  // A repeating timer that is sent into the past makes up for nothing.
  void put(record& r, std::uint64_t word, nanos deadline, nanos now) {
    const bool no_later = (word & timer_flag::repeats) != 0 && deadline < now;
    wheel_.erase(r);
    r.deadline = no_later ? now : deadline;
    r.moved = (word & timer_flag::running) != 0;
    if (!r.moved && r.started) place(r, now);
  }

  // False: ended, or on its way to another deadline.
  bool begin_run(record& r) noexcept {
    std::uint64_t word = r.word.load(std::memory_order_acquire);  // [timer] T2
    for (;;) {
      if ((word & (timer_flag::ended | timer_flag::moving)) != 0) return false;
      const std::uint64_t next = (word & ~timer_flag::armed) | timer_flag::running;
      if (r.word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T2
                                       std::memory_order_acquire)) {  // [timer] T2
        if ((word & timer_flag::repeats) == 0) uncount(r);  // a nested run does not wait for this one
        return true;
      }
    }
  }

  template <class Later>
  void end_run(record& r, const Later& later) {
    std::uint64_t word = r.word.load(std::memory_order_acquire);  // [timer] T4
    while ((word & timer_flag::repeats) != 0 && (word & timer_flag::ended) == 0) {
      const std::uint64_t next = (word & ~timer_flag::running) | timer_flag::armed;
      if (!r.word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T4
                                        std::memory_order_acquire)) {  // [timer] T4
        continue;
      }
      if ((word & timer_flag::moving) != 0) return;  // arrive() places it
      const nanos now = r.how == repeat::fixed_rate ? firing_until_ : later();
      if (!std::exchange(r.moved, false)) r.deadline = r.deadline_after(now);
      return place(r, now);
    }
    wipe_and_free(r, word);
  }

  void uncount(record& r) noexcept {
    if (!r.started) return;
    r.started = false;
    --started_;
    if (r.referenced) --referenced_;
  }

  void wipe_and_free(record& r, std::uint64_t word) noexcept {
    r.word.store(word & timer_flag::generation, std::memory_order_relaxed);  // ours alone: no runs are left
    free(r);
  }

  // The closure's destructor may do anything, so the record is nobody's until that is over.
  void free(record& r) noexcept {
    wheel_.erase(r);
    uncount(r);
    r.moved = false;
    r.task.reset();
    give(r);
  }

  // What the loop thread made waits here for its next timer, without a read-modify-write; what others
  // made goes back to where they take from.
  record* take(bool here) noexcept {
    if (here && spare_ != nullptr) {
      record* r = std::exchange(spare_, spare_->next_spare);
      if (spare_ != nullptr) spare_->bring_near();
      return r;
    }
    const std::uint32_t index = table_.take();
    return index == table_.none ? nullptr : &table_.at(index);
  }
  void give(record& r) noexcept {
    if (!r.ours) return table_.give(r.index);
    r.next_spare = std::exchange(spare_, &r);
  }

  slab<Traits, record> table_;

  // The loop thread.
  timer_wheel<Traits> wheel_;
  nanos firing_until_ = long_ago;
  std::size_t started_ = 0;
  std::ptrdiff_t referenced_ = 0;
  record* spare_ = nullptr;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< timer/timers.hpp

// >>> watch/record.hpp - one watch: its callback, and what any thread may ask of it
HYBRIDLOOP_OPEN
namespace detail {

using watch_callback = basic_task<const ready&>;

// F(ready) or F(), as the user wrote it.
template <class F>
struct ready_callable {
  F f;
  void operator()(const ready& what) {
    if constexpr (std::is_invocable_v<F&, const ready&>) {
      f(what);
    } else {
      f();
    }
  }
};

// Edge [watch]: a watch is ended once. Any thread moves its word from live to ended by CAS (acq_rel);
// the loop thread, told by a command, takes it off the poller and gives the record back, so a late
// id finds another generation. Rule: a CAS reads the last value [atomics.order], so one ends it; and who
// finds it live has read, by acquire, the store that made it.
template <class Traits>
struct watch_record {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

  static constexpr std::uint64_t live = 1;
  static constexpr std::uint64_t ended = 2;

  // Any thread.
  atomic<std::uint64_t> word{0};
  atomic<std::uint32_t> next_free{0};
  std::uint32_t index = 0;

  // The loop thread.
  native_handle handle = -1;
  interest what = interest::none;
  bool attached = false;
  bool armed = true;        // false: a oneshot that was delivered, or a hang-up that was told
  bool always = false;      // a file that is always ready
  int lost = 0;             // the errno that is still to be told: its descriptor is gone
  bool referenced = true;
  std::uint32_t running = 0;
  std::uint64_t served = 0;  // the latest event it was considered for
  watch_record* next = nullptr;
  watch_callback call;

  bool waits_for_no_event() const noexcept {
    return always && armed && (has(what, interest::readable) || has(what, interest::writable));
  }

  static std::uint32_t generation_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> 8);
  }
};

// Makes watches, finds them by id, and takes them back. Any thread.
template <class Traits>
class watch_table {
 public:
  using record = watch_record<Traits>;

  // nullptr when there is no memory; throws what the closure's constructor throws.
  template <class Build, class F>
  record* make(block_source& home, F&& f, native_handle handle, interest what) {
    watch_callback::room<std::decay_t<F>> place(home);
    const std::uint32_t index = place.had() ? table_.take() : table_.none;
    if (index == table_.none) return nullptr;
    record& r = table_.at(index);
    give_back unless_made{this, &r};
    r.call.emplace(place, std::forward<F>(f));
    unless_made.r = nullptr;
    r.handle = handle;
    r.what = what;
    r.armed = true;
    r.always = false;
    r.referenced = true;
    r.running = 0;
    r.served = 0;
    std::uint32_t generation = record::generation_of(r.word.load(std::memory_order_relaxed)) + 1;  // ours alone until it is made
    if (generation == 0) generation = 1;
    r.word.store(std::uint64_t{generation} << 8 | record::live, std::memory_order_release);  // [watch]
    return &r;
  }

  watch_id id_of(const record& r) const noexcept {
    return {r.index, record::generation_of(r.word.load(std::memory_order_relaxed))};  // a hint; its holder asks
  }

  // The record of a live watch, or nullptr.
  record* find(watch_id id) noexcept {
    record* r = any(id);
    return r != nullptr && (r->word.load(std::memory_order_acquire) & record::live) != 0 ? r : nullptr;  // [watch]
  }
  // The same, live or ended but not yet given back.
  record* any(watch_id id) noexcept {
    record* r = id ? table_.find(id.index()) : nullptr;
    if (r == nullptr) return nullptr;
    const std::uint64_t word = r->word.load(std::memory_order_acquire);  // [watch]
    const bool held = (word & (record::live | record::ended)) != 0;
    return held && record::generation_of(word) == id.generation() ? r : nullptr;
  }

  // True for exactly one caller.
  bool end(watch_id id) noexcept {
    record* r = any(id);
    if (r == nullptr) return false;
    std::uint64_t live = std::uint64_t{id.generation()} << 8 | record::live;
    const std::uint64_t ended = std::uint64_t{id.generation()} << 8 | record::ended;
    return r->word.compare_exchange_strong(live, ended, std::memory_order_acq_rel);  // [watch]
  }

  // The loop thread: nothing refers to it any more.
  void give(record& r) noexcept {
    const std::uint64_t word = r.word.load(std::memory_order_relaxed);  // a hint; its generation is fixed
    r.word.store(word >> 8 << 8, std::memory_order_release);            // [watch]
    watch_callback closure(std::move(r.call));
    table_.give(r.index);
  }

  template <class F>
  void for_each(F&& f) {
    table_.for_each(std::forward<F>(f));
  }

 private:
  struct give_back {
    watch_table* all;
    record* r;
    ~give_back() {
      if (r != nullptr) all->table_.give(r->index);
    }
  };

  slab<Traits, record> table_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< watch/record.hpp

// >>> watch/registry.hpp - the descriptors that the poller knows, each once for all of its watches
HYBRIDLOOP_OPEN
namespace detail {

// A descriptor is registered with the poller for all that its watches want together; the token
// carries the generation of that registration, so events of an earlier owner of the same number are
// dropped. The loop thread only (or who borrows an idle loop).
//
// While watches of one descriptor disagree about `edge`, it is level-triggered for all; so it is under
// a poller that has no edges.
//
// A descriptor may be closed without a word to us, and its number name a stranger soon after. When
// the kernel says so, its watches are moved to the lost, who are told once.
template <class Traits>
class registry {
 public:
  using record = watch_record<Traits>;
  using poller = typename Traits::poller;

  struct descriptor {
    record* first;
    std::uint32_t generation;
    interest registered;
    bool in_poller;
    bool oneshot;   // the kernel falls silent after one event
    bool disarmed;  // and has
    std::uint32_t serving;  // events being told, one per nested run
  };

  // With a companion thread, level-triggered registrations are one-shot and re-armed by us.
  void serve_companion() noexcept { companion_ = true; }

  std::size_t registered() const noexcept { return registered_; }
  record* lost() const noexcept { return lost_; }

  // Descriptors are addressed by number, whose place is below room() once it was reached.
  std::size_t room() const noexcept { return descriptors_.room(); }
  descriptor& operator[](native_handle fd) noexcept { return descriptors_[place_of(fd)]; }
  static native_handle handle_at(std::size_t place) noexcept {
    return static_cast<native_handle>(place * handle_step);
  }

  static native_handle handle_of(poll_token token) noexcept {
    return static_cast<native_handle>(token & 0xffffffffu);
  }
  static std::uint32_t generation_of(poll_token token) noexcept {
    return static_cast<std::uint32_t>(token >> 32);
  }
  bool is_current(native_handle fd, std::uint32_t generation) const noexcept {
    if (fd < 0 || place_of(fd) >= room()) return false;
    const descriptor& d = descriptors_[place_of(fd)];
    return d.in_poller && d.generation == generation;
  }

  // The descriptor's only watch, where an event leaves nothing to do but to tell it: no other waits
  // for its turn, and the kernel goes on reporting what it wants, which after a refused change it does
  // not. Otherwise nullptr.
  record* only_watch(native_handle fd) noexcept {
    const descriptor& d = (*this)[fd];
    record* const r = d.first;
    const bool alone = r != nullptr && r->next == nullptr && !r->always && r->armed;
    if (!alone || d.oneshot || d.disarmed) return nullptr;
    return (r->what & anything) == (d.registered & anything) ? r : nullptr;
  }

  // Makes room for the number. 0 or an errno.
  int reach(native_handle fd) noexcept {
    return descriptors_.reach(place_of(fd) + 1) ? 0 : ENOMEM;
  }

  void join(record& r) noexcept { link(r, (*this)[r.handle].first); }
  void leave(record& r) noexcept {
    record** at = r.lost != 0 ? &lost_ : &(*this)[r.handle].first;
    while (*at != &r) at = &(*at)->next;
    *at = r.next;
    r.lost = 0;
  }

  // How many wait for no event: counted off and on again around what changes that.
  std::size_t always_armed() const noexcept { return always_armed_; }
  void count_off(const record& r) noexcept { always_armed_ -= r.waits_for_no_event() ? 1u : 0u; }
  void count_on(const record& r) noexcept { always_armed_ += r.waits_for_no_event() ? 1u : 0u; }

  // Makes the poller's registration what the watches want. `again` asks the kernel in any case: it
  // says whether the descriptor is still the one it was, and reports an edge-triggered one once
  // more. 0 or an errno.
  int update(poller& p, native_handle fd, bool again) noexcept {
    descriptor& d = (*this)[fd];
    bool any = false;
    const interest want = wanted(d, any);
    if (!any) {
      forget(p, fd);
      return 0;
    }
    if (d.in_poller && !again) {
      if (want == d.registered && !d.disarmed) return 0;
      if (want == interest::none && d.disarmed) return 0;  // the kernel is silent already
      if (d.serving != 0 && d.disarmed) return 0;          // armed again when all were told
    }
    const int refused = tell_poller(p, fd, d, want);
    if (refused == 0) {
      d.registered = want;
      d.oneshot = has(want, interest::oneshot) || want == interest::none;
      d.disarmed = false;
    }
    return refused;
  }

  // The poller has it no more, or cannot be told; its watches are still to hear why.
  void lose(native_handle fd, int why) noexcept {
    drop(fd);
    haunted_ = true;
    while (record* r = (*this)[fd].first) {
      count_off(*r);
      leave(*r);
      r->always = false;
      r->lost = why;
      link(*r, lost_);
    }
  }

  // The kernel keeps a registration by number and file. Where a number is closed while its file lives
  // on through a duplicate, one stays behind that cannot be taken off any more and may be reported
  // for ever. Once such reports have cost as much as registering all descriptors anew, this does.
  // With a companion they fall silent by themselves.
  void heed_ghost(poller& p) noexcept {
    if (haunted_ && !companion_ && ++ghosts_ > registered_ + few_ghosts) start_anew(p);
  }

 private:
  // What all watches of a descriptor want together; `any`: that need the poller.
  interest wanted(const descriptor& d, bool& any) const noexcept {
    interest all = interest::none;
    bool edge = poller::edges;
    bool oneshot = true;
    std::size_t watchers = 0;
    for (const record* r = d.first; r != nullptr; r = r->next) {
      if (r->always) continue;
      any = true;
      ++watchers;
      if (!r->armed) continue;
      all |= r->what & anything;
      edge = edge && has(r->what, interest::edge);
      oneshot = oneshot && has(r->what, interest::oneshot);
    }
    if (all == interest::none) return all;
    if (edge) all |= interest::edge;
    if ((oneshot && watchers == 1) || (companion_ && !edge)) all |= interest::oneshot;
    return all;
  }

  int tell_poller(poller& p, native_handle fd, descriptor& d, interest want) noexcept {
    if (d.in_poller) {
      const int refused = p.change(fd, want, token_of(fd, d));
      if (!means_gone(refused)) return refused;
      lose(fd, EBADF);
      return EBADF;
    }
    ++d.generation;
    const int refused = p.add(fd, want, token_of(fd, d));
    if (refused == 0) {
      d.in_poller = true;
      ++registered_;
    }
    return refused;
  }

  static constexpr bool means_gone(int refused) noexcept {
    return refused == EBADF || refused == ENOENT || refused == EPERM;
  }

  void forget(poller& p, native_handle fd) noexcept {
    if (!(*this)[fd].in_poller) return;
    drop(fd);
    if (p.remove(fd) != 0) haunted_ = true;
  }

  void drop(native_handle fd) noexcept {
    (*this)[fd].in_poller = false;
    (*this)[fd].disarmed = false;
    --registered_;
  }

  void start_anew(poller& p) noexcept {
    ghosts_ = 0;
    if (p.renew() == 0) register_again(p);  // else another time
  }

 public:
  // Nothing is watched any more, and nothing is to be heard.
  void silence(poller& p) noexcept {
    if (haunted_ && p.renew() == 0) haunted_ = false;
  }

  // With a poller that has forgotten all.
  void register_again(poller& p) noexcept {
    for (std::size_t i = 0; i < room(); ++i) {
      const descriptor& d = descriptors_[i];
      if (!d.in_poller) continue;
      const native_handle fd = handle_at(i);
      const int refused = p.add(fd, d.registered, token_of(fd, d));
      if (refused != 0) lose(fd, means_gone(refused) ? EBADF : refused);
    }
    haunted_ = false;
  }

 private:
  static std::size_t place_of(native_handle fd) noexcept { return static_cast<std::size_t>(fd) / handle_step; }

  static poll_token token_of(native_handle fd, const descriptor& d) noexcept {
    return poll_token{d.generation} << 32 | static_cast<std::uint32_t>(fd);
  }

  static void link(record& r, record*& list) noexcept {
    record** at = &list;
    while (*at != nullptr) at = &(*at)->next;
    r.next = nullptr;
    *at = &r;
  }

  static constexpr std::uint64_t few_ghosts = 16;

  plain_array<descriptor> descriptors_;
  std::size_t registered_ = 0;
  record* lost_ = nullptr;
  std::size_t always_armed_ = 0;
  std::uint64_t ghosts_ = 0;
  bool haunted_ = false;  // a registration may have stayed behind
  bool companion_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< watch/registry.hpp

// >>> watch/watches.hpp - the descriptors a loop watches, and who is told when one is ready
HYBRIDLOOP_OPEN
namespace detail {

// The loop thread only (or who borrows an idle loop).
template <class Traits>
class watches {
 public:
  using record = watch_record<Traits>;
  using poller = typename Traits::poller;

  explicit watches(watch_table<Traits>& table) noexcept : table_(table) {}

  void serve_companion() noexcept { registry_.serve_companion(); }
  void register_again(poller& p) noexcept { registry_.register_again(p); }
  void silence(poller& p) noexcept { registry_.silence(p); }

  std::size_t count() const noexcept { return count_; }
  std::size_t registered() const noexcept { return registry_.registered(); }
  std::ptrdiff_t referenced() const noexcept { return referenced_; }
  std::uint64_t stale() const noexcept { return stale_; }
  // Somebody has to be told without the kernel: deliver_always().
  bool always_ready() const noexcept {
    return registry_.always_armed() != 0 || registry_.lost() != nullptr;
  }

  // 0, or the errno that refused it; then nothing is kept.
  int attach(poller& p, record& r) noexcept {
    int refused = registry_.reach(r.handle);
    if (refused != 0) return refused;
    r.served = serial_;
    registry_.join(r);
    refused = registry_.update(p, r.handle, true);
    if (r.lost != 0) {  // the number came again: the others watched what is gone
      registry_.leave(r);
      return attach(p, r);
    }
    if (refused == EPERM) {
      r.always = true;
      registry_.count_on(r);
      refused = 0;
    }
    if (refused != 0) {
      registry_.leave(r);
      return refused;
    }
    r.attached = true;
    ++count_;
    if (r.referenced) ++referenced_;
    return 0;
  }

  int modify(poller& p, record& r, interest what) noexcept {
    if (r.lost != 0) return r.lost;
    registry_.count_off(r);
    r.what = what;
    r.armed = true;
    registry_.count_on(r);
    return r.always ? 0 : registry_.update(p, r.handle, true);
  }

  // The callback does not run again. Destroyed here, or when it returns.
  void detach(poller& p, record& r) noexcept {
    if (r.attached) {
      take_off(r);
      registry_.update(p, r.handle, false);
    }
    if (r.running == 0) table_.give(r);
  }

  void set_referenced(record& r, bool wanted) noexcept {
    if (r.referenced == wanted) return;
    r.referenced = wanted;
    if (r.attached) referenced_ += wanted ? 1 : -1;
  }

  // Tells every watch of the event's descriptor: call(record, ready) runs the callback and answers
  // whether to go on. What is not told, because of that or an exception, is reported again.
  //
  // Inlined as far as the callback: who returns through a system call is not predicted, level by level.
  template <class Call>
  HYBRIDLOOP_IN_LINE void deliver(poller& p, const poll_event& event, const Call& call) {
    const native_handle fd = registry_.handle_of(event.token);
    const bool current = registry_.is_current(fd, registry_.generation_of(event.token));
    record* const only = current && event.what.native_error == 0 ? registry_.only_watch(fd) : nullptr;
    if (only == nullptr) return deliver_to_all(p, event, call);
    only->served = ++serial_;
    ready what = event.what;
    if (concerns(*only, what)) tell(*only, what, call);
  }

  // Tells the watches of lost descriptors, and, once a turn, those of files that are always ready.
  // Goes round, so that a callback that throws every time holds nobody up.
  template <class Call>
  void deliver_always(const Call& call) {
    if (!tell_lost(call)) return;
    const std::uint64_t serial = ++serial_;
    for (std::size_t left = registry_.room(); left != 0 && registry_.always_armed() != 0; --left) {
      always_at_ = always_at_ + 1 < registry_.room() ? always_at_ + 1 : 0;
      const native_handle fd = registry_.handle_at(always_at_);
      while (record* r = next_to_serve(registry_[fd].first, serial, true)) {
        r->served = serial;
        ready what;
        what.readable = true;
        what.writable = true;
        if (concerns(*r, what) && !tell(*r, what, call)) return;
      }
    }
  }

  // An event that was taken from the poller and not told: have it reported once more.
  void put_back(poller& p, const poll_event& event) noexcept {
    const native_handle fd = registry_.handle_of(event.token);
    if (registry_.is_current(fd, registry_.generation_of(event.token))) {
      registry_.update(p, fd, true);
    }
  }

  // Ends every watch that was attached; on the way out, also those whose attach never arrived.
  void end_all(poller& p, bool unattached_too) noexcept {
    table_.for_each([this, &p, unattached_too](record& r) {
      if (!r.attached && !(unattached_too && r.call)) return;
      table_.end(table_.id_of(r));
      detach(p, r);
    });
  }

 private:
  struct rearm {
    registry<Traits>& all;
    poller& p;
    native_handle fd;
    std::uint32_t generation;
    std::uint64_t serial;
    ~rearm() {
      auto& d = all[fd];
      --d.serving;
      if (!d.in_poller) return;
      const bool same = d.generation == generation;
      all.update(p, fd, same && next_to_serve(d.first, serial, false) != nullptr);
    }
  };

  struct call_end {
    watches& all;
    record& r;
    ~call_end() {
      if (--r.running == 0 && !r.attached) all.table_.give(r);
    }
  };

  // Who waited longest is first, so that a callback that throws every time holds nobody up.
  static record* next_to_serve(record* r, std::uint64_t serial, bool always) noexcept {
    record* next = nullptr;
    for (; r != nullptr; r = r->next) {
      if (r->always != always || r->served >= serial) continue;
      if (next == nullptr || r->served < next->served) next = r;
    }
    return next;
  }

  template <class Call>
  HYBRIDLOOP_OUT_OF_LINE void deliver_to_all(poller& p, const poll_event& event, const Call& call) {
    const native_handle fd = registry_.handle_of(event.token);
    const std::uint32_t generation = registry_.generation_of(event.token);
    if (!registry_.is_current(fd, generation)) {
      ++stale_;
      return registry_.heed_ghost(p);
    }
    if (event.what.native_error != 0) return registry_.lose(fd, event.what.native_error);
    if (registry_[fd].oneshot) registry_[fd].disarmed = true;
    ++registry_[fd].serving;
    const std::uint64_t serial = ++serial_;
    const rearm guard{registry_, p, fd, generation, serial};
    while (registry_.is_current(fd, generation)) {
      record* r = next_to_serve(registry_[fd].first, serial, false);
      if (r == nullptr) return;
      r->served = serial;
      ready what = event.what;
      if (concerns(*r, what) && !tell(*r, what, call)) return;
    }
  }

  // Narrows an event to what a watch asked for; false when nothing is left.
  HYBRIDLOOP_IN_LINE static bool concerns(const record& r, ready& what) noexcept {
    if (!r.armed) return false;
    what.readable = what.readable && (has(r.what, interest::readable) || what.hangup);
    what.writable = what.writable && has(r.what, interest::writable);
    what.priority = what.priority && has(r.what, interest::priority);
    return what.readable || what.writable || what.priority || what.hangup || what.error;
  }

  template <class Call>
  HYBRIDLOOP_IN_LINE bool tell(record& r, ready& what, const Call& call) {
    what.id = table_.id_of(r);
    const bool falls_silent = has(r.what, interest::oneshot) || (r.what & anything) == interest::none ||
                              (r.always && has(r.what, interest::edge));
    if (falls_silent) {
      registry_.count_off(r);
      r.armed = false;
    }
    ++r.running;
    const call_end guard{*this, r};
    return call(r, what);
  }

  template <class Call>
  bool tell_lost(const Call& call) {
    while (record* lost = registry_.lost()) {
      record& r = *lost;
      ready what;
      what.error = true;
      what.native_error = r.lost;
      what.id = table_.id_of(r);
      take_off(r);
      ++r.running;
      const call_end guard{*this, r};
      if (!call(r, what)) return false;
    }
    return true;
  }

  void take_off(record& r) noexcept {
    registry_.leave(r);
    r.attached = false;
    --count_;
    if (r.referenced) --referenced_;
    registry_.count_off(r);
  }

  watch_table<Traits>& table_;
  registry<Traits> registry_;
  std::size_t count_ = 0;
  std::size_t always_at_ = 0;
  std::ptrdiff_t referenced_ = 0;
  std::uint64_t serial_ = 0;
  std::uint64_t stale_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< watch/watches.hpp

// >>> loop/options.hpp - how a loop is made, and what it tells about itself
HYBRIDLOOP_OPEN

struct loop_options {
  // Slots of the hot queue, rounded up to a power of two, at least 2.
  std::size_t ring_capacity = detail::default_ring_capacity;

  // Pre-allocated blocks behind the ring; 0 is allowed.
  std::size_t arena_capacity = detail::default_arena_capacity;

  // When ring and arena are both full. Read by: post, dispatch, post_range, invoke.
  overflow when_full = overflow::spill;

  // Where the loop sleeps; see HYBRIDLOOP_FAST_PATH.
  fast_path path = detail::default_path;

  // The longest look at empty queues before parking; 0 = never. Ignored by: fast_path::off, and
  // a process that may use one CPU only.
  std::chrono::nanoseconds spin = detail::default_spin;

  // invoke() may be run by its caller, as the loop, while the loop thread sleeps in the channel: nobody
  // is woken for it. Gives up thread affinity: tasks, still one at a time and in order, may run on
  // any thread that calls invoke(), and "the loop thread" is the one that runs them. Ignored by:
  // fast_path::off, a loop that watches descriptors (but for fast_path::mini), run_once().
  bool caller_runs = false;

  // Takes what tasks, timers and watch callbacks throw; without it an exception leaves run().
  // Called where they ran.
  void (*on_exception)(std::exception_ptr) = nullptr;
};

// What run_budget() answers.
template <class Clock>
struct basic_frame_report {
  std::size_t ran = 0;      // tasks, timers and watch callbacks
  // What was ready and was not run: posted, deferred and microtasks, due timers, and descriptors that
  // the kernel had reported. What other threads sent about timers and watches counts as posted.
  std::size_t pending = 0;
  std::optional<typename Clock::time_point> next_deadline;  // the earliest timer's; none: no timer
  typename Clock::duration over_by{};                       // past the budget; 0 within
};

// Counters since construction. stats() may be called by any thread; each field is exact once the
// loop and its posters are at rest, and never torn.
struct loop_stats {
  std::uint64_t turns = 0;
  std::uint64_t tasks = 0;          // tasks, timers and watch callbacks run
  std::uint64_t posts = 0;          // accepted, and what callers of invoke() ran themselves
  std::uint64_t spilled = 0;        // accepted while the ring was full
  std::uint64_t heap_tasks = 0;     // closures and spilled tasks that the arena had no block for
  std::uint64_t wakes_channel = 0;  // a sleep in the channel ended by another thread
  std::uint64_t wakes_poller = 0;   // a sleep in the poller ended by another thread
  std::uint64_t wakes_saved = 0;    // posts that needed no wake
  std::uint64_t loans = 0;          // calls of invoke() whose caller ran it; see caller_runs
  std::uint64_t rescued = 0;        // HYBRIDLOOP_RESCUE_MS found work: a lost wake
  std::uint64_t parks = 0;
  std::uint64_t in_channel = 0;     // parks in the channel
  std::uint64_t in_poller = 0;      // parks in the poller
  std::uint64_t spun_ns = 0;
  std::uint64_t parked_ns = 0;
  std::size_t arena_in_use = 0;
  std::size_t arena_high = 0;
  std::size_t ring_high = 0;        // as the loop saw it; below 64, what it ran in one go
  std::size_t timers = 0;
  std::size_t watches = 0;
  std::uint64_t stale_events = 0;   // events of an earlier owner of a descriptor number, dropped
  std::uint64_t microtasks_deferred = 0;  // turns that ended with microtasks left over
  fast_path path = fast_path::full;
};

namespace detail {

// A number that one thread writes and any thread reads.
template <class Traits, class T = std::uint64_t>
class tally {
 public:
  void add(T n) noexcept {
    if constexpr (stats_kept) set(get() + n);
  }
  void set(T n) noexcept { value_.store(n, std::memory_order_relaxed); }  // ours alone to write
  T get() const noexcept { return value_.load(std::memory_order_relaxed); }  // a hint; statistics

 private:
  typename Traits::template atomic<T> value_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/options.hpp

// >>> loop/traits.hpp - what a loop is made of, so that tests can make it of something else
HYBRIDLOOP_OPEN

// How a poster and a loop that goes to sleep agree on who saw whom; see loop/doorbell.hpp.
enum class fence_policy : std::uint8_t {
  adaptive,    // by posts per park
  symmetric,   // the poster pays, a few nanoseconds a post
  asymmetric   // the loop pays, a microsecond or so a park; where the kernel can
};

// Derive from this one and shadow what you want to replace.
struct default_traits {
  template <class T>
  using atomic = std::atomic<T>;
  using clock = std::chrono::steady_clock;
  using kernel = detail::system_kernel;
  using parker = detail::system_parker<kernel>;
  using poller = detail::system_poller<kernel>;
  using barrier = detail::system_barrier<kernel>;
  static constexpr fence_policy fence = fence_policy::adaptive;
  static void schedule_point(const char* name) noexcept { HYBRIDLOOP_SCHEDULE_POINT(name); }
};

HYBRIDLOOP_CLOSE
// <<< loop/traits.hpp

// >>> loop/frames.hpp - which loops this thread is running, innermost first
HYBRIDLOOP_OPEN
namespace detail {

// Loops nest: an inner one may run inside a task of an outer one, and both then say
// running_in_this_thread(). One stack a thread; the frames lie in the callers of run(). Who borrows a
// loop from a thread that sleeps stands in for it in all loops that it runs.
class loop_frame {
 public:
  explicit loop_frame(const void* loop, const loop_frame* sleeper = nullptr) noexcept
      : loop_(loop), below_(top_), sleeper_(sleeper) {
    top_ = this;
  }
  loop_frame(const loop_frame&) = delete;
  loop_frame& operator=(const loop_frame&) = delete;
  ~loop_frame() { top_ = below_; }

  static bool runs(const void* loop) noexcept { return runs(top_, loop); }
  static bool runs(const loop_frame* innermost, const void* loop) noexcept {
    for (const loop_frame* f = innermost; f != nullptr; f = f->below_) {
      if (f->loop_ == loop || (f->sleeper_ != nullptr && runs(f->sleeper_, loop))) return true;
    }
    return false;
  }
  // Not for another thread that sleeps.
  static bool runs_itself(const void* loop) noexcept {
    const loop_frame* f = top_;
    while (f != nullptr && f->loop_ != loop) f = f->below_;
    return f != nullptr;
  }
  static const loop_frame* innermost() noexcept { return top_; }
  static const void* thread() noexcept { return &top_; }  // another one for each thread that lives

 private:
  const void* loop_;
  loop_frame* below_;
  const loop_frame* sleeper_;  // the innermost frame of the thread that lent the loop
  static inline thread_local loop_frame* top_ = nullptr;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/frames.hpp

// >>> loop/blocked.hpp - loops that wait for each other would wait for ever, and are told so
HYBRIDLOOP_OPEN
namespace detail {

// A thread that runs loops and waits in invoke() for another one. Whoever closes a circle of these
// finds it before it waits. A thread that runs none closes none, and pays nothing.
//
// Edge [circle]: the list changes under a lock, U1 given back (release), U2 taken (acquire). It holds
// the number of the process it was taken in, because in the child of a fork its holder may be missing.
// Rule: a mutex, of one CAS that one can win, and U2 synchronises with U1 [atomics.order].
template <class Traits>
class blocked_call {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  blocked_call(const void* target, const notice<Traits>& answer) noexcept
      : frames_(loop_frame::innermost()), target_(target), answer_(answer) {
    if (frames_ == nullptr) return;
    const locked list;
    circle_ = waits_for_us(target);
    if (circle_) return;  // it is not going to wait
    next_ = first();
    first() = this;
  }
  blocked_call(const blocked_call&) = delete;
  blocked_call& operator=(const blocked_call&) = delete;
  ~blocked_call() {
    if (frames_ == nullptr || circle_) return;
    const locked list;
    blocked_call** at = &first();
    while (*at != nullptr && *at != this) at = &(*at)->next_;
    if (*at == this) *at = next_;
  }

  bool closes_circle() const noexcept { return circle_; }

 private:
  class locked {
   public:
    locked() noexcept {
      const std::uint32_t mine = Traits::kernel::forks() + 1;
      for (std::uint32_t seen = 0; !word().compare_exchange_weak(seen, mine, std::memory_order_acquire);) {  // [circle] U2
        if (seen == mine) {
          Traits::kernel::yield();
          seen = 0;
        }
      }
      if (std::exchange(process(), mine) != mine) first() = nullptr;  // they are not in this one
    }
    locked(const locked&) = delete;
    locked& operator=(const locked&) = delete;
    ~locked() { word().store(0, std::memory_order_release); }  // [circle] U1

   private:
    static atomic<std::uint32_t>& word() noexcept {
      static atomic<std::uint32_t> holder{0};
      return holder;
    }
    static std::uint32_t& process() noexcept {
      static std::uint32_t number = 0;
      return number;
    }
  };
  static blocked_call*& first() noexcept {
    static blocked_call* head = nullptr;
    return head;
  }

  // From loop to loop; each is run by one thread, which waits for one other, or was answered and is on
  // its way back.
  bool waits_for_us(const void* loop) const noexcept {
    for (const blocked_call* call = first(); call != nullptr;) {
      if (!loop_frame::runs(call->frames_, loop) || !call->waits()) {
        call = call->next_;
        continue;
      }
      loop = call->target_;
      if (loop_frame::runs(frames_, loop)) return true;
      call = first();
    }
    return false;
  }
  bool waits() const noexcept { return answer_.told() == notice<Traits>::nothing; }

  const loop_frame* const frames_;
  const void* const target_;
  const notice<Traits>& answer_;
  blocked_call* next_ = nullptr;
  bool circle_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/blocked.hpp

// >>> loop/hook.hpp - a function of the user's that the loop calls again and again, and that may be replaced
HYBRIDLOOP_OPEN
namespace detail {

// It may replace itself while it runs, so it runs outside of its place. The loop thread only.
class hook {
 public:
  explicit operator bool() const noexcept { return static_cast<bool>(task_); }

  void set(unique_task&& task) noexcept {
    task_ = std::move(task);
    ++version_;
  }

  template <class Call>
  void call(const Call& run) {
    running mine{*this, std::move(task_), version_};
    run(mine.task);
  }

 private:
  struct running {
    hook& home;
    unique_task task;
    std::uint32_t version;
    ~running() {
      if (home.version_ == version) home.task_ = std::move(task);
    }
  };

  unique_task task_;
  std::uint32_t version_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/hook.hpp

// >>> loop/meter.hpp - when a frame has used up its budget, and whose turn it is within the frame
HYBRIDLOOP_OPEN
namespace detail {

// What a call of run_budget() answers.
struct frame_outcome {
  std::size_t ran;
  std::size_t pending;
  nanos next_deadline;
  nanos over_by;
};

// Asked after each task. Off, it never says stop.
//
// A frame is shared out in slices of an eighth of the budget, one source of work after the other, so
// that none of them can use it up; the next frame begins with the source after the last one served.
class meter {
 public:
  // What a task costs, learned over all frames of a loop: a mean in which the last eight or so count.
  // A single one that is far off (its thread lost the CPU) must not spoil the frames behind it.
  class estimate {
   public:
    void learn(nanos took) noexcept {
      const nanos most = 4 * cost() + (eighths_ == 0 ? 100000 : 1000);
      const nanos sane = took < 0 ? 0 : took < most ? took : most;  // a clock may be set back
      eighths_ += sane - eighths_ / 8;
    }
    nanos cost() const noexcept { return eighths_ / 8; }

   private:
    nanos eighths_ = 0;
  };

  bool on() const noexcept { return on_; }

  void start(nanos now, nanos budget) noexcept {
    on_ = true;
    last_ = now;
    end_ = saturating_add(now, budget);
    slice_ = budget / 8;
  }
  void start_slice(nanos now) noexcept {
    move_to(now);
    paused_ = false;
    slice_end_ = saturating_add(now, slice_);
  }

  // A task has run.
  void tick(nanos now, estimate& task) noexcept {
    task.learn(now - last_);
    move_to(now);
    paused_ = now >= slice_end_ || expects_to_overrun(now, task);
  }

  bool expects_to_overrun(nanos now, const estimate& task) const noexcept {
    return saturating_add(now, task.cost()) > end_;
  }

  // How many tasks are likely to fit into the slice, at least one.
  std::size_t likely(const estimate& task) const noexcept {
    const nanos cost = task.cost() > 0 ? task.cost() : 1;
    return static_cast<std::size_t>((slice_end_ - last_) / cost) + 1;
  }
  bool paused() const noexcept { return paused_; }

 private:
  // A clock that is set back takes the frame's end along, or the frame would last until it has come again.
  void move_to(nanos now) noexcept {
    if (now < last_) {
      end_ -= last_ - now;
      slice_end_ -= last_ - now;
    }
    last_ = now;
  }

  bool on_ = false;
  bool paused_ = false;
  nanos last_ = 0;
  nanos end_ = 0;
  nanos slice_ = 0;
  nanos slice_end_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/meter.hpp

// >>> loop/doorbell.hpp - the status word of a loop and all that a poster touches after it published
HYBRIDLOOP_OPEN
namespace detail {

// One 32-bit word is the state of the loop and the word its channel sleeps on: a mode, and bits
// that any thread may set. Nothing else decides how to wake the loop, and while it has one only
// read-modify-writes change it, so no change ever erases a bit it does not own.
namespace status {
inline constexpr std::uint32_t idle = 0;        // nobody is in run()
inline constexpr std::uint32_t awake = 1;       // the loop thread runs, or looks before it sleeps
inline constexpr std::uint32_t in_channel = 2;  // it sleeps on this word, or is about to
inline constexpr std::uint32_t in_poller = 3;   // it sleeps in the poller, or is about to
inline constexpr std::uint32_t lent = 4;        // another thread is the loop for a moment
inline constexpr std::uint32_t dead = 5;
inline constexpr std::uint32_t away = 6;        // nobody is in run(), but a foreign loop waits for the bell
inline constexpr std::uint32_t mode = 7;
inline constexpr std::uint32_t wanted = 8;      // look once more before you sleep
inline constexpr std::uint32_t stop = 16;
inline constexpr std::uint32_t close = 32;
inline constexpr std::uint32_t lendable = 64;  // the loop thread sleeps in the channel, or is about to, and
                                               // has looked: a caller may be the loop meanwhile
inline constexpr std::uint32_t offered = in_channel | lendable;
inline constexpr std::uint32_t borrowed = lent | lendable;

constexpr std::uint32_t mode_of(std::uint32_t word) noexcept { return word & mode; }
constexpr std::uint32_t with_mode(std::uint32_t word, std::uint32_t m) noexcept {
  return (word & ~mode) | m;
}
// What ends a sleep ends all that belongs to it.
constexpr std::uint32_t up(std::uint32_t word, std::uint32_t m) noexcept {
  return with_mode(word & ~(wanted | lendable), m);
}
constexpr bool asleep(std::uint32_t word) noexcept {
  return mode_of(word) == in_channel || mode_of(word) == in_poller;
}
constexpr bool wants_ring(std::uint32_t word) noexcept {
  return asleep(word) || mode_of(word) == away;
}
}  // namespace status

// Edge [sleep]: a loop that goes to sleep cannot miss a task.
//
//   poster                                  loop thread
//   P1  task published (lap, or ready)      L1  status: awake -> in_channel or in_poller, CAS
//   P2  status ? ring it : go on            L2  anything published ? stay up : sleep
//
// Symmetric: all four are seq_cst, so they stand in one order. If P2 saw "awake" it stands before
// L1, hence P1 before L2, and L2 sees the task. Rule: the one order of seq_cst operations
// [atomics.order]. Asymmetric: P1 and P2 are plain, and the loop issues a process-wide barrier between
// L1 and L2. A poster that has passed P2 by then has P1 behind the same barrier, and L2 sees it; one
// that has not will see L1. C++ has no rule for that: it is what membarrier(2) promises, and the signal
// fence in look() keeps the compiler from swapping P1 and P2. Weaker than either, P2 and L2 may both
// read old values, and nothing would wake the loop.
//
// A thread sanitizer sees the symmetric protocol whole, because none of it is atomic_thread_fence, which
// it does not model: the orders stand on the atomics themselves. Of the barrier it knows nothing and
// needs nothing: that decides whether L2 finds the task, not what is in it, which is [slot]'s.
//
// Of many posters one moves the word back to awake and rings. The word names what to ring; only
// the loop thread ever chooses it, so it cannot change under a sleeping loop, and a descriptor
// that is registered "meanwhile" does not exist: that is a task like any other.
//
// A loop that lives inside another one goes through in_poller, with L1 and L2, to `away`: its sleeper
// is whoever waits for the bell, and who rings turns the word to idle.
//
// Edge [fence]: `symmetric` may change while posters are on their way. They read it after P1. To
// asymmetric: flag, then a barrier in every park. To symmetric: flag, then one barrier: who read
// the old flag has P1 behind it, and who reads the new one looks with a read-modify-write. Rule: of two
// read-modify-writes of one word the later reads the earlier, or what was built on it [atomics.order].
// So P2 sees L1; or L1, an acquire, takes up P2, a release, and P1 happens before L2.
//
// Edge [bell]: nobody rings a bell that was closed, or that became somebody else's descriptor.
//
//   ringer                                  destructor
//   B1  ringers += 1                        B4  status -> dead
//   B2  status: asleep -> awake, CAS        B5  waits for ringers == 0, closes the bell
//   B3  rings; ringers -= 1, release
//
// If B2 succeeded it stands before B4 in the word's order, and B1 before both, so B5 waits for B3.
// Rule: B4, a read-modify-write, reads B2 or what was built on it and synchronises with it, so B5 reads
// B1 or later; a zero then is B3's, and an acquire [atomics.order].
//
// A doorbell outlives its loop: doorbells come from a process-wide list, are used again and never
// unmapped. So a poster whose own task ended the loop may look at the word of a later loop: at
// worst it wakes that one once for nothing.
template <class Traits>
struct alignas(cache_line) doorbell {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

  static constexpr const char* in_the_child =
      "the child of a fork destroys its copy of a loop, or calls after_fork_child() first";

  // Read by every poster, written when the loop parks or is told something.
  atomic<std::uint32_t> word{status::idle};
  atomic<std::uint32_t> symmetric{1};
  atomic<std::uint32_t> used{1};
  doorbell* next = nullptr;  // set once
  std::uint32_t born = 0;    // in which process its loop is at home

  // Written by ringers.
  alignas(cache_line) atomic<std::uint32_t> ringers{0};
  atomic<native_handle> bell{native_handle{-1}};
  atomic<std::uint64_t> wakes_channel{0};
  atomic<std::uint64_t> wakes_poller{0};

  // Any thread, any signal handler. How to publish before look().
  bool strong() const noexcept {
    return symmetric.load(std::memory_order_relaxed) != 0;  // a hint; look() asks again
  }

  // The poster, after it published, as its last touch of anything of the loop.
  void look(bool published_strong) noexcept {
    if (published_strong) {
      ring_if_asleep(word.load(std::memory_order_seq_cst));  // [sleep] P2
      return;
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);  // [sleep] P1 stays before P2; a barrier does the rest
    if (symmetric.load(std::memory_order_relaxed) != 0) {  // [fence] read after P1
      ring_if_asleep(word.fetch_add(0, std::memory_order_seq_cst));  // [sleep] P2, [fence]
    } else {
      ring_if_asleep(word.load(std::memory_order_acquire));  // [sleep] P2 with a barrier
    }
  }

  // Whether somebody runs the loop and is up.
  bool loop_is_awake() const noexcept {
    return status::mode_of(word.load(std::memory_order_relaxed)) == status::awake;  // a hint; a poster's patience
  }

  // Any thread, any signal handler: sets bits and ends a sleep.
  void tell(std::uint32_t bits) noexcept {
    std::uint32_t seen = word.load(std::memory_order_relaxed);  // a hint; the CAS decides
    move(seen, bits);
  }

  // Whoever turned the word to awake, if the loop thread waits on it.
  void rouse() noexcept {
    wakes_channel.fetch_add(1, std::memory_order_relaxed);  // a hint; statistics
    Traits::parker::wake_one(word);
  }

  // A doorbell nobody uses.
  static doorbell* acquire() noexcept {
    for (doorbell* d = list().load(std::memory_order_acquire); d != nullptr; d = d->next) {  // [list] A2
      std::uint32_t free = 0;
      if (d->used.load(std::memory_order_relaxed) == 0 &&  // a hint; the CAS decides
          d->used.compare_exchange_strong(free, 1, std::memory_order_acq_rel)) {  // [list] A4
        d->born = Traits::kernel::forks();
        return d;
      }
    }
    void* memory = heap_take(sizeof(doorbell), alignof(doorbell));
    if (memory == nullptr) return nullptr;
    auto* made = ::new (memory) doorbell;
    made->born = Traits::kernel::forks();
    doorbell* head = list().load(std::memory_order_relaxed);  // a hint; the CAS decides
    do {
      made->next = head;
    } while (!list().compare_exchange_weak(head, made, std::memory_order_release,  // [list] A1
                                           std::memory_order_relaxed));  // a hint; the loop repeats
    return made;
  }

  // Its loop is gone: ready for the next one.
  void release() noexcept {
    word.store(status::idle, std::memory_order_relaxed);     // ours alone; a late poster may look
    symmetric.store(1, std::memory_order_relaxed);           // ours alone; a late poster may look
    wakes_channel.store(0, std::memory_order_relaxed);       // ours alone
    wakes_poller.store(0, std::memory_order_relaxed);        // ours alone
    used.store(0, std::memory_order_release);                // [list] A3
  }

 private:
  void ring_if_asleep(std::uint32_t seen) noexcept {
    // An idle loop needs no ring: run() looks at everything before it sleeps.
    if (mode_is_quiet(seen)) return;
    move(seen, 0);
  }
  static bool mode_is_quiet(std::uint32_t seen) noexcept {
    const std::uint32_t m = status::mode_of(seen);
    return m == status::awake || m == status::idle || m == status::dead;
  }

  // One CAS that sets the bits and, from a sleep, the mode awake; its winner rings. A sleep that ends
  // is all that `wanted` wants: left standing, it would end the next one too.
  void move(std::uint32_t seen, std::uint32_t bits) noexcept {
    bool counted = false;
    for (;;) {
      const std::uint32_t m = status::mode_of(seen);
      std::uint32_t then = seen | bits;
      if (status::wants_ring(seen)) {
        const std::uint32_t after = m == status::away ? status::idle : status::awake;
        then = status::up(then, after);
      }
      if (m == status::lent) then |= status::wanted;
      // Even a bit that is set already is set again: who tells orders what it wrote before.
      if (m == status::dead || (then == seen && bits == 0)) break;
      if (status::wants_ring(seen) && !counted) {
        counted = true;
        ringers.fetch_add(1, std::memory_order_seq_cst);  // [bell] B1
      }
      Traits::schedule_point("before-ring");
      if (word.compare_exchange_weak(seen, then, std::memory_order_seq_cst,  // [bell] B2, [sleep] P2, [lend] P2
                                     std::memory_order_seq_cst)) {  // [sleep] P2
        if (m == status::in_channel) rouse();
        if (m == status::in_poller || m == status::away) wake_poller();
        break;
      }
    }
    if (counted) ringers.fetch_sub(1, std::memory_order_release);  // [bell] B3
  }

  void wake_poller() noexcept {
    wakes_poller.fetch_add(1, std::memory_order_relaxed);  // a hint; statistics
    HYBRIDLOOP_CONTRACT(born == Traits::kernel::forks(), in_the_child);
    const native_handle handle = bell.load(std::memory_order_acquire);  // [bell] B3
    if (Traits::poller::ring(handle) != 0) fail("the kernel refuses to ring the bell of a sleeping loop");
  }

  // Edge [list]: A1 a doorbell joins (release), A2 others walk to it (acquire). A3 its last loop
  // lets go of it (release), A4 the next one takes it (acquire); of several, the CAS lets one. Rule: a
  // release synchronises with the acquire that reads it, here through other A1s too, a release sequence
  // [intro.races].
  static atomic<doorbell*>& list() noexcept {
    static atomic<doorbell*> head{nullptr};
    return head;
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/doorbell.hpp

// >>> loop/wakeup.hpp - the loop's own side of its status word: entering, leaving, sleeping, lending
HYBRIDLOOP_OPEN
namespace detail {

// Edge [hand]: the loop's private state passes from one running thread to the next.
//
//   who stops being the loop                who becomes it
//   N1  status -> idle, CAS, release        N2  status: idle -> awake or lent, CAS, acquire
//
// Of several at N2 one succeeds, the others read what it wrote. Rule: all changes of the word are
// read-modify-writes, so N2 reads N1 or its release sequence, and synchronises with it [intro.races]:
// what the one has done happens before what the next one does. Who waits for a borrower sets `wanted`
// in the word that it sleeps on, and N1 takes its old value, so it is seen.
//
// A loop thread that sleeps and its callers take turns by the same CAS; see loop/lending.hpp.
template <class Traits>
class wakeup {
 public:
  explicit wakeup(doorbell<Traits>& door) noexcept : door_(door) {}

  std::uint32_t word() const noexcept {
    return door_.word.load(std::memory_order_acquire);  // [close] C3
  }
  bool running() const noexcept {
    const std::uint32_t seen = word();
    const std::uint32_t m = status::mode_of(seen);
    return m == status::awake || status::asleep(m) || (seen & status::lendable) != 0;
  }
  bool told(std::uint32_t bits) const noexcept { return (word() & bits) != 0; }
  void forget(std::uint32_t bits) noexcept {
    door_.word.fetch_and(~bits, std::memory_order_acq_rel);  // [close] C3
  }

  // Becomes the loop thread. Waits for a borrower; false when another thread is running the loop.
  bool enter() noexcept {
    std::uint32_t seen = word();
    for (;;) {
      const std::uint32_t m = status::mode_of(seen);
      if (m == status::idle || m == status::away) {
        if (change(seen, status::with_mode(seen, status::awake))) return true;
      } else if (m == status::lent && (seen & status::lendable) == 0) {
        await_give_back(seen);
        seen = word();
      } else {
        return false;
      }
    }
  }
  void leave() noexcept { turn_to(status::idle); }

  // Becomes the loop for a moment, while nobody runs it. `was` is what to give back to.
  bool borrow(std::uint32_t& was) noexcept {
    std::uint32_t seen = word();
    for (was = status::mode_of(seen); was == status::idle || was == status::away;
         was = status::mode_of(seen)) {
      if (change(seen, status::with_mode(seen, status::lent))) return true;
    }
    return false;
  }
  // Afterwards the loop may be gone: who waited for it may have run and destroyed it.
  void give_back() noexcept {
    doorbell<Traits>& door = door_;
    const std::uint32_t was = turn_to(status::idle);
    if ((was & status::wanted) != 0) Traits::parker::wake_all(door.word);
  }

  // For who cannot leave it to the loop thread: waits for another borrower. False: somebody runs it.
  bool borrow_in_turn(std::uint32_t& was) noexcept {
    while (!borrow(was)) {
      const std::uint32_t seen = word();
      if (was != status::lent || (seen & status::lendable) != 0) return false;
      await_give_back(seen);
    }
    return true;
  }

  // Gives back to a foreign loop that waits. It goes on waiting, unless somebody came meanwhile: posters
  // and tellers have left a bit on the word. False: the caller gives back, and rings.
  bool give_back_away() noexcept {
    std::uint32_t seen = word();
    while ((seen & urgent) == 0) {
      if (change(seen, status::with_mode(seen, status::away))) return true;
    }
    return false;
  }

  // After publish(in_poller) and a look that found nothing: the bell is a foreign loop's to hear from
  // now on, unless it was rung already.
  void leave_away() noexcept {
    std::uint32_t seen = word();
    while (status::asleep(seen)) {
      if (change(seen, status::with_mode(seen, status::away))) return;
    }
    leave();
  }

  // The child of a fork, whose one thread this is: who was ringing, or running the loop, is not there.
  void settle_in_child(std::uint32_t m) noexcept {
    const std::uint32_t now = status::with_mode(word() & ~status::lendable, m);
    door_.word.store(now, std::memory_order_relaxed);   // ours alone
    kept_.store(0, std::memory_order_relaxed);          // ours alone
    door_.ringers.store(0, std::memory_order_relaxed);                          // ours alone
    owes_barrier_ = !symmetric_;
  }

  void bury() noexcept { turn_to(status::dead); }

  // [sleep] L1. False when something was told that a sleeper would not hear; then look again. From true
  // on the word is `sleep` and nothing else, until somebody ends the sleep.
  bool publish(std::uint32_t sleep) noexcept {
    std::uint32_t seen = word();
    for (;;) {
      if ((seen & urgent) != 0) {
        forget(status::wanted);
        return false;
      }
      if (door_.word.compare_exchange_weak(seen, status::with_mode(seen, sleep),
                                           std::memory_order_seq_cst,   // [sleep] L1
                                           std::memory_order_acquire)) {  // a hint; the loop repeats
        return true;
      }
    }
  }

  // What the channel's wait looks at.
  const auto& sleeping_word() const noexcept { return door_.word; }

  // True when nobody else ended the sleep.
  bool wake_self() noexcept {
    std::uint32_t seen = word();
    while (status::asleep(seen)) {
      if (change(seen, status::up(seen, status::awake))) return true;
    }
    return false;
  }

  // ---- Lending, while the loop thread sleeps in the channel. See loop/lending.hpp. ----

  // The loop thread, after publish(in_channel) and a look that found nothing. From true on it owns
  // nothing. False: somebody has ended the sleep.
  bool offer() noexcept { return exchange(status::in_channel, status::offered); }

  // The loop thread that has offered itself, after its sleep. From here on it is the loop again. True
  // when nobody else ended the sleep.
  bool reclaim() noexcept {
    for (std::uint32_t seen = word();;) {
      if (seen == status::offered) {
        if (change(seen, status::awake)) return true;
      } else if ((seen & status::lendable) != 0) {
        await_give_back(seen);
        seen = word();
      } else if (kept_.load(std::memory_order_acquire) != 0) {  // [keep] V2, V4
        Traits::parker::wake_one(door_.word);  // what woke us was meant for the one who is the loop
        Traits::parker::wait(kept_, 1, never);
        seen = word();
      } else {
        return false;
      }
    }
  }

  // Any thread. True: it is the loop.
  bool borrow_sleeper() noexcept {
    return word() == status::offered && exchange(status::offered, status::borrowed);
  }

  // The loop thread sleeps on. False: somebody wants it.
  bool give_back_asleep() noexcept { return exchange(status::borrowed, status::offered); }

  // The loop may be gone as soon as the word is awake; its doorbell stays.
  void give_back_awake() noexcept {
    doorbell<Traits>& door = door_;
    std::uint32_t seen = word();
    while (!change(seen, status::up(seen, status::awake))) {
    }
    door.rouse();
  }

  // The borrower stays the loop until end_keep(), and may sleep on the word; not if it was told to look
  // once more.
  void keep() noexcept {
    kept_.store(1, std::memory_order_relaxed);  // [keep] V1 comes with the CAS
    std::uint32_t seen = word();
    while (!change(seen, status::with_mode(seen & ~status::lendable, status::awake))) {
    }
  }
  void forget_keep() noexcept { kept_.store(0, std::memory_order_relaxed); }  // ours alone, in the child of a fork
  void end_keep() noexcept {
    doorbell<Traits>& door = door_;
    auto& kept = kept_;
    kept.store(0, std::memory_order_release);  // [keep] V3
    Traits::parker::wake_one(kept);
    door.rouse();
  }

  // Chooses who pays for [sleep] from now on, by the posts since the last park. Call before
  // publish(); the barrier() after it is the one that makes a change safe.
  void choose_fence(std::uint64_t posts) noexcept {
    const std::uint64_t fresh = posts - posts_seen_;
    posts_seen_ = posts;
    posts_per_park_ = (posts_per_park_ * 7 + (fresh < 65536 ? fresh : 65536) * 16) / 8;
    owes_barrier_ = owes_barrier_ || !symmetric_;  // what a refused publish() left unpaid stays owed
    if (symmetric_ && wants_asymmetric() && Traits::barrier::available()) {
      set_symmetric(false);
      owes_barrier_ = true;
    } else if (!symmetric_ && wants_symmetric()) {
      set_symmetric(true);
    }
  }

  // In a stream the loop does not park, and posters need not pay: to asymmetric without a barrier,
  // which the next park will issue.
  void expect_stream(std::uint64_t posts) noexcept {
    if constexpr (Traits::fence != fence_policy::adaptive) return;
    if (!symmetric_ || posts - posts_seen_ < stream_posts) return;
    posts_per_park_ = 16 * stream_posts;
    if (Traits::barrier::available()) set_symmetric(false);
  }

  // After publish(), before the last look.
  void barrier() noexcept {
    if (!std::exchange(owes_barrier_, false) || Traits::barrier::issue()) return;
    set_symmetric(true);
    Traits::barrier::issue_last();
  }

  // Between D3 and D4 of [busy], when there are lanes: whoever posted without a fence is seen now.
  void settle_lanes(bool some) noexcept {
    if constexpr (Traits::fence == fence_policy::symmetric) return;
    if (some && !(Traits::barrier::available() && Traits::barrier::issue())) Traits::barrier::issue_last();
  }

 private:
  static constexpr std::uint32_t urgent = status::stop | status::close | status::wanted;
  static constexpr std::uint64_t many_posts = 16 * 64;
  static constexpr std::uint64_t few_posts = 16 * 16;
  static constexpr std::uint64_t stream_posts = 4096;

  bool wants_asymmetric() const noexcept {
    if constexpr (Traits::fence == fence_policy::adaptive) return posts_per_park_ > many_posts;
    return Traits::fence == fence_policy::asymmetric;
  }
  bool wants_symmetric() const noexcept {
    return Traits::fence == fence_policy::adaptive && posts_per_park_ < few_posts;
  }
  void set_symmetric(bool value) noexcept {
    symmetric_ = value;
    door_.symmetric.store(value ? 1 : 0, std::memory_order_seq_cst);  // [fence] the flag, then a barrier
  }

  void await_give_back(std::uint32_t seen) noexcept {
    const std::uint32_t asked = seen | status::wanted;
    if (status::mode_of(seen) != status::lent || (asked != seen && !change(seen, asked))) return;
    Traits::parker::wait(door_.word, asked, never);
  }

  bool change(std::uint32_t& seen, std::uint32_t next) noexcept {
    return door_.word.compare_exchange_weak(seen, next, std::memory_order_acq_rel,  // [hand] N1, N2
                                            std::memory_order_acquire);  // a hint; the caller repeats
  }
  bool exchange(std::uint32_t from, std::uint32_t to) noexcept {
    std::uint32_t seen = from;
    return door_.word.compare_exchange_strong(seen, to, std::memory_order_acq_rel,  // [lend] E0, E1; [lend] E2
                                              std::memory_order_relaxed);  // a hint; the caller gives up
  }
  std::uint32_t turn_to(std::uint32_t m) noexcept {
    std::uint32_t seen = word();
    while (!change(seen, status::with_mode(seen, m))) {
    }
    return seen;
  }

  doorbell<Traits>& door_;
  typename Traits::template atomic<std::uint32_t> kept_{0};
  bool symmetric_ = true;
  bool owes_barrier_ = false;
  std::uint64_t posts_seen_ = 0;
  std::uint64_t posts_per_park_ = 0;  // sixteenths, a running mean
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/wakeup.hpp

// >>> loop/entrance.hpp - what posters touch of a loop: its queues, its doorbell, and the rules for a full ring
HYBRIDLOOP_OPEN
namespace detail {

// A batch that tells of a backlog.
inline constexpr std::size_t backlog_batch = 64;

template <class Traits>
class entrance {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using doorbell_type = doorbell<Traits>;

  entrance(doorbell_type& d, const loop_options& o, void* ring, void* blocks, bool patient) noexcept
      : door(d), options(o), in(ring, o.ring_capacity, blocks, o.arena_capacity), patient_(patient) {}
  entrance(const entrance&) = delete;
  entrance& operator=(const entrance&) = delete;

  // Any thread, and a lane's producer for its lane.

  bool runs_here() const noexcept { return loop_frame::runs(&door); }

  // Posts follow the options; what the loop sends to itself is never refused for room.
  template <class Build, class F>
  post_result post(F&& f, overflow when_full) {
    return post_to<Build>(in.shared, std::forward<F>(f), when_full);
  }
  template <class Build, class Queue, class F>
  post_result post_to(Queue& queue, F&& f, overflow when_full) {
    doorbell_type* const bell = &door;
    const bool strong = bell->strong();
    return queue.template offer<Build>(
        std::forward<F>(f), [this, &queue, when_full] { return full_policy(queue, when_full); }, strong,
        [bell, strong] { bell->look(strong); });
  }

  template <class Build, class Queue, class F>
  post_result try_post_to(Queue& queue, F&& f) {
    doorbell_type* const bell = &door;
    const bool strong = bell->strong();
    const auto look = [bell, strong] { bell->look(strong); };
    const post_result first = queue.template offer_ring<Build>(std::forward<F>(f), strong, look);
    if (first != post_result::full || !runs_here()) return first;
    queue.publish_head();
    return queue.template offer_ring<Build>(std::forward<F>(f), strong, look);
  }

  // Without a look: the caller owes one. A full ring is looked after here, because nobody makes room
  // while the loop sleeps.
  template <class Build, class F>
  post_result post_quietly(F&& f) {
    const auto when_full = [this] {
      door.look(true);
      return full_policy(in.shared, options.when_full);
    };
    return in.shared.template offer<Build>(std::forward<F>(f), when_full, true, [] {});
  }

  template <class Build, class F>
  bool send(F&& f) {
    struct unless_accepted {
      atomic<std::uint64_t>* commands;
      ~unless_accepted() {
        if (commands != nullptr) commands->fetch_sub(1, std::memory_order_relaxed);  // a hint; statistics
      }
    };
    commands_.fetch_add(1, std::memory_order_relaxed);  // a hint; statistics
    unless_accepted refused{&commands_};
    const bool sent = post<Build>(std::forward<F>(f), overflow::spill) == post_result::accepted;
    if (sent) refused.commands = nullptr;
    return sent;
  }

  void close() noexcept {
    in.close();
    Traits::schedule_point("closing");
    door.tell(status::close);  // [close] C2, with the CAS in there
  }

  // Posts, not commands.
  std::uint64_t posts() const noexcept {
    const std::uint64_t all = in.shared.posts() + lane_posts.get();
    const std::uint64_t own = commands_.load(std::memory_order_relaxed);  // a hint; statistics
    return all > own ? all - own : 0;
  }

  // The loop thread.

  // For choosing a fence: tasks and commands that were run. (The ring's tail would say what was
  // posted, but its line is the producers'.)
  std::uint64_t taken_in() const noexcept { return in.shared.ran() + in.lane_posts(); }

  // For stats(). After large batches only, for the same reason: who waits for the answer to the one
  // task that it posted claims the next place meanwhile. What was run in one go says as much of small ones.
  void note_backlog() noexcept { raise_ring_high(in.shared.backlog()); }
  void note_batch(std::uint64_t ran) noexcept {
    if (ran < backlog_batch) raise_ring_high(static_cast<std::size_t>(ran));
  }
  void publish_lane_counts() noexcept {
    lane_posts.set(in.lane_posts());
    lane_spilled.set(in.lane_spilled());
  }

  doorbell_type& door;
  const loop_options options;
  ingress<Traits> in;

  // Written by the loop thread, read by stats().
  tally<Traits, std::size_t> ring_high;
  tally<Traits> lane_posts, lane_spilled;

 private:
  void raise_ring_high(std::size_t waiting) noexcept {
    const std::size_t most = waiting < options.ring_capacity ? waiting : options.ring_capacity;
    if (most > ring_high.get()) ring_high.set(most);
  }

  // Where a ring is full. On the loop thread nobody else would make room.
  template <class Queue>
  overflow full_policy(Queue& queue, overflow asked) noexcept {
    if (!runs_here()) {
      if (patient_ && asked != overflow::fail && door.loop_is_awake()) look_for_room<Traits>(queue);
      return asked;
    }
    queue.publish_head();
    return asked == overflow::block ? overflow::spill : asked;
  }

  atomic<std::uint64_t> commands_{0};
  const bool patient_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/entrance.hpp

// >>> loop/lookout.hpp - a bounded look at empty queues before the loop parks
HYBRIDLOOP_OPEN
namespace detail {

// Posters still find the loop awake while it looks. That pays when a task comes before a sleep and
// a wake would have been over, so the look is as long as it may be while it hits, or while the sleep
// behind it is so short that a longer one would have hit. Else it shrinks, down to nothing but a try now
// and then. Bounded by time, and none at all where the process has one CPU.
class lookout {
 public:
  // The loop thread. True: there is something to do.
  template <class Core>
  bool look(Core& c, nanos end) noexcept {
    const nanos most = c.options.spin.count();
    looked_ = 0;
    if (c.options.path == fast_path::off || most == 0) return false;
    if (misses_ % 64 == 0) {
      may_look_ = Core::kernel::usable_cpus() > 1;
      span_ = most;
    }
    if (!may_look_ || span_ < shortest) {
      ++misses_;
      return false;
    }
    const nanos begin = c.cached_now();
    const bool hit = look_until(c, begin, end);
    looked_ = time_between(begin, c.cached_now());
    c.spun_ns.add(static_cast<std::uint64_t>(looked_));
    span_ = hit ? most : span_ / 2;
    misses_ = hit ? 1 : misses_ + 1;
    return hit;
  }

  // The loop thread, after a sleep behind that look which others ended.
  template <class Core>
  void woken_after(Core& c, nanos slept) noexcept {
    const nanos most = c.options.spin.count();
    if (looked_ + slept < most) span_ = most;
  }

 private:
  template <class Core>
  bool look_until(Core& c, nanos begin, nanos end) noexcept {
    constexpr std::uint32_t urgent = status::stop | status::close | status::wanted;
    for (int reads = 0; reads < most_reads; ++reads) {
      if (c.cached_now() - begin >= span_ || c.cached_now() >= end) break;
      for (int i = 0; i < looks_per_clock; ++i) {
        if (c.in.can_run()) return true;
        if (c.wake.told(urgent)) {
          c.wake.forget(status::wanted);
          return true;
        }
        cpu_pause();
      }
      c.refresh_now();
    }
    return false;
  }

  static constexpr nanos shortest = 500;
  static constexpr int looks_per_clock = 8;
  static constexpr int most_reads = 1 << 16;  // for a clock that stands still

  nanos span_ = 0;  // how long the next one may last
  nanos looked_ = 0;  // how long the last one did
  std::uint32_t misses_ = 0;
  bool may_look_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/lookout.hpp

// >>> loop/companion.hpp - fast_path::mini's second thread, which sleeps in the poller for the loop
HYBRIDLOOP_OPEN
namespace detail {

// Started by the first watch. It waits in the poller and posts what became ready; level-triggered
// registrations are one-shot, so it hears of each once until the loop thread has run the callback
// and armed it again.
//
// Edge [companion]: Z1 the stopper sets the flag (release) and rings; Z2 the companion sees it
// (acquire) and leaves. A latched bell, so a ring before the wait ends the wait. Rule: synchronises-with
// [atomics.order]; that the flag is there when the ring is heard is the kernel's order of write and wait.
template <class Traits>
class companion {
 public:
  companion() = default;
  companion(const companion&) = delete;
  companion& operator=(const companion&) = delete;

  // The loop thread. 0, or the errno of a refused thread.
  template <class Build, class Core>
  int start(Core& c) noexcept {
    if (thread_.joinable()) return 0;
    return thread_.start(&serve_loop<Build, Core>, &c);
  }

  // The destructor of the loop.
  template <class Poller>
  void stop(Poller& p) noexcept {
    if (!thread_.joinable()) return;
    leave_.store(true, std::memory_order_release);  // [companion] Z1
    if (Poller::ring(p.bell()) != 0) fail("the kernel refuses to ring the companion's bell");
    thread_.join();
  }

  void forget() noexcept { thread_.forget(); }

 private:
  // A ready descriptor on its way to the loop thread.
  template <class Core>
  struct arrival : command_base {
    arrival(Core& c, const poll_event& e) noexcept : loop(&c), event(e) {}
    void operator()() { loop->calls.deliver(*loop, event); }
    Core* loop;
    poll_event event;
  };

  bool leaving() const noexcept { return leave_.load(std::memory_order_acquire); }  // [companion] Z2

  // What is out of order now is no reason to burn a core.
  static void nap() noexcept { Traits::kernel::nap(1000000); }

  template <class Build, class Core>
  static void serve_loop(void* with) {
    Core& c = *static_cast<Core*>(with);
    c.companion_.template serve<Build>(c);
  }

  template <class Build, class Core>
  void serve(Core& c) {
    poll_event events[events_per_turn];
    while (!leaving()) {
      const int got = c.poller.wait(events, events_per_turn, never);
      if (got < 0) nap();
      for (int i = 0; i < got; ++i) report<Build>(c, events[i]);
    }
  }

  // Again and again while there is no memory for it: the kernel reports a one-shot event once.
  template <class Build, class Core>
  void report(Core& c, const poll_event& event) {
    bool told = false;
    while (!told && !leaving()) {
      trap<Build>(
          [&] {
            c.template send<Build>(arrival<Core>(c, event));
            told = true;
          },
          [](const std::exception_ptr&) { nap(); });
    }
  }

  typename Traits::template atomic<bool> leave_{false};
  typename Traits::kernel::thread thread_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/companion.hpp

// >>> loop/lending.hpp - what a sleeping loop thread leaves behind for callers that borrow its loop
HYBRIDLOOP_OPEN
namespace detail {

// Edge [lend]: a loop that is lent misses no task, and has one owner.
//
//   poster                                  loop thread
//   P1  task published                      L1, L2 of [sleep], nothing found, then
//   P2  status ? awake: go on               E0  status: in_channel -> offered, CAS, release
//       in_channel, offered: ring it
//       lent: sets `wanted`, CAS            caller
//                                           E1  status: offered -> lent, CAS, acquire; is the loop
//                                           E2  status: lent -> offered, CAS, release; if that fails,
//                                               or a reason to be up has come: -> awake, and wakes
//
// A poster that saw "awake" before L1 was seen by L2, and L2 comes before any loan: so [sleep], with
// its barrier, is over when the loop is offered. Whoever reads the word from then on finds a sleeper
// or a borrower, and changes it with a read-modify-write: before E2, then E2 fails and the loop thread
// is woken; or after E2, then it finds a sleeper and rings. An old value of the word is no answer,
// since its CAS fails. So E2 needs no look after it, and a loan needs no barrier. Who finds
// lent | wanted goes on: that loop is on its way up and looks at everything, as if it were awake.
// Rule: of two read-modify-writes of one word the later reads the earlier [atomics.order]; what the owner
// has goes the way of [hand].
//
// Only the loop thread waits on the word. If it wakes while the loop is lent, it sets `wanted`, waits
// without a deadline, and is the loop again when it has turned offered to awake or finds awake (N2).
//
// Edge [keep]: a borrower that runs the loop inside its task may have to sleep, and then it is the one
// who waits on the word. For that it turns lent to awake and the loop thread stays away until the loan
// ends.
//
//   borrower                                loop thread, awake by a deadline or by a wake
//   V1  kept = 1, then status -> awake,     V2  status is not offered and not lent, acquire; kept ?
//       CAS, release                            passes the wake on, waits on `kept`
//   V3  kept = 0, release, wakes it         V4  kept == 0, acquire: it is the loop again
//
// A kept loop is not offered, so the word tells the loop thread apart from who sleeps in its place.
// Rule: V2 synchronises with V1's CAS and so reads kept == 1 or later; V4 synchronises with V3
// [atomics.order].
template <class Traits>
struct lending {
  // The loop thread, before it offers itself; then who borrows it.
  nanos limit = never;      // when the sleeper gets up by itself
  bool until_idle = false;  // whether it would, if nothing were left
  const loop_frame* sleeper = nullptr;  // the loops that it runs

  // Who has borrowed it.
  std::size_t runs = 0;     // how many calls of run() are nested in each other below the loan; 0: none
  bool kept = false;        // the borrower runs the loop, see [keep]
  std::exception_ptr error; // of a task that was not the borrower's; leaves the loop thread's run()

  tally<Traits> loans;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/lending.hpp

// >>> loop/visitors.hpp - those who wait for something elsewhere and are to be told on this loop
HYBRIDLOOP_OPEN
namespace detail {

// One who waits. The loop knows it from before it waits until it has been told, so that its end reaches
// it. Who it is knows `hear`.
template <class Traits>
struct visitor {
  enum class call : std::uint8_t {
    come_in,    // deliver what had no room; the loop thread
    loop_ends,  // wait no longer; the loop thread, or who destroys the loop
    collect     // nobody runs the loop any more: go, if all others have let go of you
  };
  using hear_type = void (*)(visitor&, call) noexcept;

  explicit visitor(hear_type h) noexcept : hear(h) {}
  visitor(const visitor&) = delete;
  visitor& operator=(const visitor&) = delete;

  const hear_type hear;
  visitor* next = nullptr;
  visitor* previous = nullptr;
  visitor* next_late = nullptr;
};

// Edge [visit]: N1 a visitor that comes from another thread is put on the list (release), N2 the loop thread
// takes that list (acquire). Rule: every change is a read-modify-write, so N2 meets each N1 [intro.races].
// And the other way round: when all are told that the loop ends, the list is taken even if it looks empty. A
// visitor that this did not meet has read, in N1 (acquire), what N2 left (release): behind it, it finds the
// loop closed.
//
// Edge [late]: one that had no room in the loop's queues. M1 it is put on the list (release), before the
// doorbell is rung; M2 the loop thread takes the list (acquire). Rule: as in [visit].
template <class Traits>
class visitors {
  template <class T>
  using atomic = typename Traits::template atomic<T>;
  using visitor_type = visitor<Traits>;
  using call = typename visitor_type::call;

 public:
  visitors() noexcept = default;
  visitors(const visitors&) = delete;
  visitors& operator=(const visitors&) = delete;

  // Any thread but the loop's.
  void send_in(visitor_type& v) noexcept {
    v.next = coming_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (!coming_.compare_exchange_weak(v.next, &v, std::memory_order_acq_rel,  // [visit] N1
                                          std::memory_order_relaxed)) {  // a hint; the loop repeats
    }
  }
  // Any thread. The doorbell is to be rung after it.
  void be_late(visitor_type& v) noexcept {
    v.next_late = late_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (!late_.compare_exchange_weak(v.next_late, &v, std::memory_order_release,  // [late] M1
                                        std::memory_order_relaxed)) {  // a hint; the loop repeats
    }
  }
  bool has_late() const noexcept { return late_.load(std::memory_order_relaxed) != nullptr; }  // a hint; who comes late rings

  // The loop thread from here on.

  void add(visitor_type& v) noexcept {
    v.previous = nullptr;
    v.next = first_;
    if (first_ != nullptr) first_->previous = &v;
    first_ = &v;
  }
  void remove(visitor_type& v) noexcept {
    adopt();
    (v.previous == nullptr ? first_ : v.previous->next) = v.next;
    if (v.next != nullptr) v.next->previous = v.previous;
  }

  // In the order in which they came.
  void let_late_in() noexcept {
    if (!has_late()) return;
    visitor_type* newest = late_.exchange(nullptr, std::memory_order_acquire);  // [late] M2
    visitor_type* oldest = nullptr;
    while (newest != nullptr) {
      visitor_type* const before = newest->next_late;
      newest->next_late = oldest;
      oldest = newest;
      newest = before;
    }
    while (oldest != nullptr) {
      visitor_type* const after = oldest->next_late;
      oldest->hear(*oldest, call::come_in);
      oldest = after;
    }
  }

  // Each may go by itself meanwhile, but no other.
  void tell_all(call what) noexcept {
    take_in();
    for (visitor_type* v = first_; v != nullptr;) {
      visitor_type* const after = v->next;
      v->hear(*v, what);
      v = after;
    }
  }
  bool empty() noexcept {
    adopt();
    return first_ == nullptr;
  }

 private:
  void adopt() noexcept {
    if (coming_.load(std::memory_order_relaxed) == nullptr) return;  // a hint; who looks for one it knows of has it in order
    take_in();
  }
  void take_in() noexcept {
    visitor_type* fresh = coming_.exchange(nullptr, std::memory_order_acq_rel);  // [visit] N2
    while (fresh != nullptr) {
      visitor_type* const after = fresh->next;
      add(*fresh);
      fresh = after;
    }
  }

  visitor_type* first_ = nullptr;
  atomic<visitor_type*> coming_{nullptr};
  atomic<visitor_type*> late_{nullptr};
};

// Where a callback waits: memory that stays, so that a ticket may be asked about at any time.
//
// Edge [ticket]: who frees a record comes after all who used it. K1 a user lets go, or the wait is over
// (release); K2 who finds that it was the last frees it (acquire). Rule: every change of the word is a
// read-modify-write, one release sequence [intro.races].
template <class Traits>
struct wait_record {
  static constexpr std::size_t room = task_size + 8 + 200;
  static constexpr std::uint64_t one_pin = 2;
  static constexpr std::uint64_t alive = 1;
  static constexpr std::uint64_t generation = ~std::uint64_t{0} << 32;

  std::uint32_t open() noexcept {
    const std::uint64_t was = word.fetch_or(alive, std::memory_order_relaxed);  // ours alone: nobody knows it yet
    return static_cast<std::uint32_t>(was >> 32);
  }
  // False: it is not that wait's any more.
  bool pin(std::uint32_t number) noexcept {
    std::uint64_t seen = word.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while ((seen & alive) != 0 && seen >> 32 == number) {
      if (word.compare_exchange_weak(seen, seen + one_pin, std::memory_order_acquire,  // [ticket] K2
                                     std::memory_order_relaxed)) {  // a hint; the loop repeats
        return true;
      }
    }
    return false;
  }
  // True: it is to be freed.
  bool unpin() noexcept { return last(word.fetch_sub(one_pin, std::memory_order_acq_rel) - one_pin); }  // [ticket] K1, K2
  bool end() noexcept { return last(word.fetch_sub(alive, std::memory_order_acq_rel) - alive); }        // [ticket] K1, K2
  void renew() noexcept {
    word.fetch_add(std::uint64_t{1} << 32, std::memory_order_relaxed);  // ours alone: nobody else knows it
  }

  typename Traits::template atomic<std::uint64_t> word{0};
  typename Traits::template atomic<std::uint32_t> next_free{0};
  std::uint32_t index = 0;
  const void* of = nullptr;  // what is waited for
  alignas(16) unsigned char storage[room];

 private:
  static bool last(std::uint64_t now) noexcept { return (now & ~generation) == 0; }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/visitors.hpp

// >>> loop/core.hpp - the memory of a loop: everything that its handles, timers and posters share
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
// <<< loop/core.hpp

// >>> loop/ownership.hpp - being the loop while nobody runs it, and leaving it to a foreign loop
HYBRIDLOOP_OPEN
namespace detail {

// For as long as one of these lives and is true, the caller is the loop: it runs it, or it has
// borrowed it while nobody did.
template <class Traits>
class ownership {
 public:
  explicit ownership(core<Traits>& c) noexcept : core_(c), runs_(c.runs_here()) {
    HYBRIDLOOP_CONTRACT(!c.forked(), doorbell<Traits>::in_the_child);
    if (!runs_) borrowed_ = c.wake.borrow(was_);
    if (borrowed_) c.lender.store(loop_frame::thread(), std::memory_order_relaxed);  // ours alone
  }
  // Waits for another borrower; where that is this very thread, it is the owner.
  static ownership patient(core<Traits>& c) noexcept { return ownership(c, true); }
  ownership(const ownership&) = delete;
  ownership& operator=(const ownership&) = delete;
  ~ownership() {
    if (borrowed_) give_back();
  }
  explicit operator bool() const noexcept { return runs_ || borrowed_; }

 private:
  ownership(core<Traits>& c, bool) noexcept : ownership(c) {
    if (*this) return;
    const void* const me = loop_frame::thread();
    runs_ = c.lender.load(std::memory_order_relaxed) == me;  // a hint; only we write our own name
    borrowed_ = !runs_ && c.wake.borrow_in_turn(was_);
    if (borrowed_) c.lender.store(me, std::memory_order_relaxed);  // ours alone
  }

  // A foreign loop goes on waiting, unless the loop was given work meanwhile.
  void give_back() noexcept {
    core_.publish_counts();
    core_.lender.store(nullptr, std::memory_order_relaxed);  // ours alone
    const bool awaited = was_ == status::away;
    if (awaited && !core_.watches_.always_ready() && core_.wake.give_back_away()) return;
    if (awaited) core_.ring_own_bell();
    core_.wake.give_back();
  }

  core<Traits>& core_;
  bool runs_;
  bool borrowed_ = false;
  std::uint32_t was_ = 0;
};

// The owner: a handle for a foreign loop. 0, or an errno. What came before anybody waited has rung no
// bell.
template <class Traits>
int expose(core<Traits>& c, native_handle& handle) noexcept {
  int refused = c.open_poller();
  if (refused == 0) refused = c.poller.expose(handle);
  if (refused != 0 || c.exposed) return refused;
  c.exposed = true;
  if (!c.runs_here()) c.ring_own_bell();
  return 0;
}

// The loop thread, at the end of the outermost run: nobody runs the loop any more. If a foreign loop
// waits for it, that is a sleep like any other, so posters must ring, and [sleep] holds: L1 and L2 are
// here, and only then others may become the loop.
template <class Traits>
void leave(core<Traits>& c) noexcept {
  if (!c.exposed) return c.wake.leave();
  if (c.ended && c.nothing_queued()) {  // nothing comes any more: the handle falls silent
    c.watches_.silence(c.poller);
    poll_event none[1];
    c.poller.wait(none, 1, 0);
    return c.wake.leave();
  }
  const bool more = c.can_run();  // takes in what spilled, so before the mark
  const auto mark = c.in.mark();
  c.wake.choose_fence(c.taken_in());
  Traits::schedule_point("before-away");
  c.poller.settle();
  if (!more && c.wake.publish(status::in_poller)) {
    Traits::schedule_point("away-published");
    c.wake.barrier();
    if (!c.in.news_before_sleep(mark)) return c.wake.leave_away();
  }
  c.ring_own_bell();
  c.wake.leave();
}

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/ownership.hpp

// >>> loop/fork.hpp - what becomes of a loop in the child of a fork
HYBRIDLOOP_OPEN
namespace detail {

// The child has one thread, the one that forked, and a copy of all memory; the kernel objects it
// shares with its parent. Threads that were in the middle of a call are gone, so what they had
// claimed stays unpublished, what they had counted stays counted, and a lock stays locked.

// Was the loop at rest when its process was copied? Not if another thread was running it and had not
// parked, or had parked inside a task, or had borrowed it: then what belongs to the loop thread may be
// half changed. If the one thread has borrowed it, the one it has from is not there.
template <class Traits>
bool copied_at_rest(core<Traits>& c) noexcept {
  const std::uint32_t m = status::mode_of(c.wake.word());
  if (loop_frame::runs_itself(&c.door)) return c.lending_.runs <= 1;
  return m != status::awake && m != status::lent && c.runs <= 1;
}

// The destructor of a loop, in the child. Touches no kernel object that the parent has too, beyond
// closing the child's own descriptors of it. False: the memory cannot be looked through, and is left.
template <class Traits>
bool abandon(core<Traits>& c) noexcept {
  const bool at_rest = copied_at_rest(c);
  c.companion_.forget();
  c.poller.abandon();
  c.in.close();
  if (!at_rest) return false;
  c.wake.settle_in_child(status::dead);
  c.in.abandon_claims();
  c.destroy_all_work();
  return true;
}

// Makes the copy a loop of its own: kernel objects of its own under the old numbers, with the same
// watches, and a companion. What was accepted stays accepted. 0 or an errno; then it can be destroyed,
// or the call be made again.
template <class Traits, class Build>
int go_on_in_child(core<Traits>& c) noexcept {
  HYBRIDLOOP_CONTRACT(copied_at_rest(c), "a loop that another thread was running when the process forked cannot go on in the child");
  const bool open = c.poller.is_open();
  int refused = open ? c.poller.reopen() : 0;
  if (refused != 0) return refused;
  c.wake.settle_in_child(c.runs_here() ? status::awake : status::idle);
  c.in.abandon_claims();
  c.companion_.forget();
  if (!c.runs_here()) c.runs = 0;
  if (open) c.watches_.register_again(c.poller);
  if (open && c.options.path == fast_path::mini) refused = c.companion_.template start<Build>(c);
  if (refused != 0) return refused;
  c.born = Traits::kernel::forks();
  c.door.born = c.born;
  if (open) c.door.bell.store(c.poller.bell(), std::memory_order_release);  // [bell] B3
  if (c.exposed && !c.runs_here()) c.ring_own_bell();
  return 0;
}

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/fork.hpp

// >>> loop/event_batch.hpp - what the kernel reported in one go, and who was not told yet
HYBRIDLOOP_OPEN
namespace detail {

// One for each nested run. The loop thread only.
template <class Traits>
class event_batch {
 public:
  explicit event_batch(core<Traits>& c) noexcept : core_(c) {}
  event_batch(const event_batch&) = delete;
  event_batch& operator=(const event_batch&) = delete;

  std::size_t left() const noexcept { return count_ - next_; }

  // Asks the poller for at most `room` events; the batch before this one must have been told. False:
  // the poller failed.
  bool wait(nanos timeout, std::size_t room = events_per_turn) noexcept {
    const int got = core_.poller.wait(events_, room, timeout);
    next_ = 0;
    count_ = got > 0 ? static_cast<std::size_t>(got) : 0;
    first_ = count_ != 0 ? std::exchange(core_.broken_off, 0) % count_ : 0;
    return got >= 0;
  }

  // Goes round: a batch begins where the last one was broken off, so that a callback that throws every
  // time holds nobody up.
  const poll_event& next() noexcept {
    const std::size_t at = first_ + next_++;
    return events_[at < count_ ? at : at - count_];
  }

  // Has the kernel report again what an exception, a stop or the end of a frame left behind.
  void put_back() noexcept {
    if (left() != 0) core_.broken_off = first_ + next_;
    while (left() != 0) core_.watches_.put_back(core_.poller, next());
  }

 private:
  core<Traits>& core_;
  std::size_t count_ = 0;
  std::size_t first_ = 0;
  std::size_t next_ = 0;
  poll_event events_[events_per_turn];
};

// What a companion reported. It arrives as a task, which runs the microtasks behind it. The callback may
// throw, so files built with and without exceptions have each their own.
template <class Traits, class Build>
void deliver_arrival(core<Traits>& c, const poll_event& event) {
  c.watches_.deliver(c.poller, event, [&c](watch_record<Traits>& r, const ready& what) {
    ++c.ran;
    r.call(what);
    return !c.wake.told(status::stop);
  });
}

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/event_batch.hpp

// >>> loop/park.hpp - how the loop thread goes to sleep, and what may end it
HYBRIDLOOP_OPEN
namespace detail {

// When a call of run() returns, other than by stop() or by close() and drained.
enum class until : std::uint8_t {
  ended,     // never
  idle,      // nothing is left that could happen
  turned,    // after one turn
  deadline,  // when the clock says so
};

// A poller that fails is no reason to burn a core: until it recovers, a look every millisecond.
template <class Traits>
void nap(core<Traits>& c, nanos limit) noexcept {
  const nanos soon = c.read_now() + 1000000;
  Traits::parker::wait(c.wake.sleeping_word(), status::in_poller, soon < limit ? soon : limit);
}

// The poller's answer of so many events took no sleep. A wrong yes costs one look at the poller.
inline constexpr bool came_at_once(nanos took, std::size_t events) noexcept {
  return events != 0 && took < 4000 + 500 * static_cast<nanos>(events);
}

// Until `end`, or until the word, which is `asleep`, is turned back to awake. What the loop thread
// offered is not its own before reclaim().
template <class Traits>
void sleep(core<Traits>& c, event_batch<Traits>& events, std::uint32_t asleep, nanos end) {
  Traits::schedule_point("before-sleep");
  const nanos begin = c.read_now();
  const nanos rescue = rescue_ns != 0 ? saturating_add(begin, rescue_ns) : never;
  const nanos limit = rescue < end ? rescue : end;
  if (asleep == status::in_poller) {
    const nanos span = limit == never ? never : time_between(begin, limit);
    if (!events.wait(span)) nap(c, limit);
  } else {
    Traits::parker::wait(c.wake.sleeping_word(), asleep, limit);
  }
  const bool by_itself = asleep == status::offered ? c.wake.reclaim() : c.wake.wake_self();
  c.refresh_now();
  const nanos now = c.cached_now();
  const nanos slept = time_between(begin, now);
  c.ready_at_once = came_at_once(slept, events.left());
  if (!by_itself) c.outlook.woken_after(c, slept);
  c.parked_ns.add(static_cast<std::uint64_t>(slept));
  if (by_itself && now >= rescue && rescue < end && c.in.can_run()) c.rescued.add(1);
}

// The loop thread, when a turn found nothing to do. From publish() on the loop is on the word of
// [sleep]: what is looked at after it is a shared atomic, or a copy made before. True: it has slept in
// the poller, and `events` holds what that reported.
//
// A run_once() is not lent: its caller wants to know that something happened.
template <class Traits>
bool park(core<Traits>& c, event_batch<Traits>& events, until goal, nanos deadline) {
  nanos end = c.timers_.next_wake();
  if (deadline < end) end = deadline;
  if ((end != never && end <= c.cached_now()) || c.outlook.look(c, end)) return false;
  const auto mark = c.in.mark();
  const bool in_poller = c.sleeps_in_poller();
  const bool lends = c.options.caller_runs && !in_poller && goal != until::turned && c.lending_.runs == 0;
  c.lending_.limit = end;
  c.lending_.until_idle = goal == until::idle;
  c.lending_.sleeper = loop_frame::innermost();
  std::uint32_t asleep = in_poller ? status::in_poller : status::in_channel;
  c.wake.choose_fence(c.taken_in());
  Traits::schedule_point("before-park");
  if (!c.wake.publish(asleep)) return false;
  Traits::schedule_point("park-published");
  c.wake.barrier();
  const bool slept = !c.in.news_before_sleep(mark);
  if (slept) {
    (in_poller ? c.parks_poller : c.parks_channel).add(1);
    if (lends && c.wake.offer()) asleep = status::offered;
    sleep(c, events, asleep, end);
  }
  c.wake.wake_self();
  if (!slept) c.forget_now();
  return slept && in_poller;
}

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/park.hpp

// >>> loop/loan.hpp - a caller of invoke() that is the loop itself, while the loop thread sleeps
HYBRIDLOOP_OPEN
namespace detail {

// Runs so many of the tasks that others gave to a lent loop, and the microtasks behind each; with
// `tasks` 0 the microtasks that are there. As the file was built whose run() sleeps: that is who is
// prepared for what they throw. False: not all of it, because of a stop, of an exception, of a claim
// that is not yet published, or because there is no end of microtasks.
template <class Traits, class Build>
bool serve_lent(core<Traits>& c, std::size_t tasks) noexcept {
  const auto keep = [&c](std::exception_ptr thrown) { c.lending_.error = std::move(thrown); };
  const auto run = [&c, &keep](unique_task& task) {
    trap<Build>(
        [&] {
          if (c.options.on_exception == nullptr) return task();
          trap<Build>([&task] { task(); }, c.options.on_exception);
        },
        keep);
  };
  std::size_t microtasks_left = microtasks_per_turn;
  for (;;) {
    for (; !c.microtasks.empty() && microtasks_left != 0 && !c.lending_.error; --microtasks_left) {
      unique_task task = c.microtasks.pop();
      run(task);
    }
    if (c.lending_.error || !c.microtasks.empty() || c.wake.told(status::stop)) return false;
    if (tasks-- == 0) return true;
    const auto run_counted = [&c, &run](unique_task& task) {
      if (task.counted()) ++c.ran;
      run(task);
    };
    const auto run_owed = [&run_counted](auto& queue, std::size_t) -> std::size_t {
      if (queue.owed == 0 || !queue.template run_next<Build>(run_counted)) return 0;
      --queue.owed;
      return 1;
    };
    if (c.in.visit(1, run_owed, [] { return false; }) != 0) return false;
    c.in.publish_heads();
  }
}

// The runner, before it runs the loop inside a task: if that is on loan, the loan is kept.
template <class Traits>
void keep_loan(core<Traits>& c) noexcept {
  if (c.lending_.runs == 0 || std::exchange(c.lending_.kept, true)) return;
  c.wake.keep();
}

// Tries to borrow; who did is the loop until end().
template <class Traits>
class loan {
 public:
  explicit loan(core<Traits>& c) noexcept : core_(c), borrowed_(c.wake.borrow_sleeper()) {
    if (!borrowed_) return;
    c.forget_now();
    HYBRIDLOOP_CONTRACT(!c.forked(), doorbell<Traits>::in_the_child);
    born_ = c.born;
    c.lending_.runs = c.runs;
    frame_.emplace(&c.door, c.lending_.sleeper);
    Traits::schedule_point("lent");
  }
  loan(const loan&) = delete;
  loan& operator=(const loan&) = delete;
  ~loan() { end(); }

  // Runs what was accepted before the loan. True: now it is the caller's turn. False: nothing was
  // borrowed, or some of that is left; then the caller's comes behind it, in the queue.
  bool serve() noexcept {
    if (!borrowed_) return false;
    const std::size_t queued = core_.in.owe_pending();
    served_ = queued == 0 || serve_queued(queued);
    if (served_) {
      ++core_.ran;
    } else {
      frame_.reset();  // the caller is about to wait, as a thread that does not run this loop
    }
    return served_;
  }

  // A borrower is the one who would make room.
  overflow when_full() const noexcept {
    const overflow asked = core_.options.when_full;
    return borrowed_ && asked == overflow::block ? overflow::spill : asked;
  }

  void end() noexcept {
    if (!std::exchange(borrowed_, false)) return;
    core<Traits>& c = core_;
    if (served_ && !c.microtasks.empty()) c.calls.serve(c, 0);
    if (served_) c.lending_.loans.add(1);
    c.publish_counts();
    frame_.reset();
    c.lending_.runs = 0;
    if (core<Traits>::kernel::forks() != born_) return leave_in_child();
    if (std::exchange(c.lending_.kept, false)) return c.wake.end_keep();
    const bool asleep = may_sleep_on();
    Traits::schedule_point("before-give-back");
    if (!asleep || !c.wake.give_back_asleep()) c.wake.give_back_awake();
  }

 private:
  bool serve_queued(std::size_t queued) noexcept {
    core_.note_backlog();
    return core_.calls.serve(core_, queued);
  }

  // What others post meanwhile is on the word.
  bool may_sleep_on() noexcept {
    core<Traits>& c = core_;
    if (!served_ || c.lending_.error || !c.deferred.empty() || !c.microtasks.empty()) return false;
    if (c.watches_.always_ready() || c.sleeps_in_poller()) return false;
    if (c.timers_.started() != 0 && c.timers_.next_wake() < c.lending_.limit) return false;
    return !(c.lending_.until_idle && c.nothing_left());
  }

  // The task has forked. In the child there is no loop thread to wake: nobody runs the loop, and if that
  // thread was parked inside a task, nobody can. Once the loop is the child's own, other threads of the
  // child may be posting to it.
  void leave_in_child() noexcept {
    if (core_.runs <= 1) core_.runs = 0;
    core_.lending_.kept = false;
    if (core_.forked()) return core_.wake.settle_in_child(status::idle);
    core_.wake.forget_keep();
    core_.wake.leave();
    if (core_.exposed) core_.ring_own_bell();
  }

  core<Traits>& core_;
  bool borrowed_;
  bool served_ = false;
  std::uint32_t born_ = 0;
  std::optional<loop_frame> frame_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/loan.hpp

// >>> loop/runner.hpp - one call of run(): the turns it makes, and what it does in each
HYBRIDLOOP_OPEN
namespace detail {

// Lives on the stack of the caller, who is the loop thread for that long. Calls nest inside a task:
// an inner runner goes on with the next task, and the outer ones return after it when it was stopped.
template <class Traits, class Build>
class runner {
  using core_type = core<Traits>;

 public:
  explicit runner(core_type& c)
      : core_(c), outermost_(!c.runs_here()), entered_(enter(c, outermost_)), frame_(&c.door),
        ran_before_(std::exchange(c.ran, 0)), counted_before_(std::exchange(c.counted, 0)),
        calls_before_(c.calls), events_(c) {
    c.calls = {&deliver_arrival<Traits, Build>, &serve_lent<Traits, Build>};
    ++c.runs;
  }
  runner(const runner&) = delete;
  runner& operator=(const runner&) = delete;
  ~runner() {
    events_.put_back();
    core_.publish_counts();
    --core_.runs;
    core_.ran = ran_before_;
    core_.counted = counted_before_;
    core_.calls = calls_before_;
    core_.in.publish_heads();
    if (!outermost_) return;
    if (stopped_) core_.wake.forget(status::stop);
    leave(core_);
  }

  // How many tasks, timers and watch callbacks it ran.
  std::size_t run(until goal, nanos deadline, bool may_sleep) {
    while (!stop_seen() && !finished(goal)) {
      turn(goal, deadline, may_sleep);
      if (goal == until::turned) break;
      if (goal == until::deadline && core_type::read_now() >= deadline) break;
    }
    return core_.ran;
  }

  // Ready work only, until it is done or the next task is expected to overrun. Turn after turn, but
  // in slices: each source of work in its turn, and in the next frame those that had none in this.
  frame_outcome run_frame(nanos budget) {
    const nanos begin = core_type::read_now();
    meter_.start(begin, budget);
    heed_close();
    for (std::size_t round = 0, barren = 0; !stop_seen() && barren != sources; ++round) {
      const bool some = core_.ran != 0 || round >= sources;
      if (some && meter_.expects_to_overrun(core_type::read_now(), core_.task_cost)) break;
      if (round % sources == 0) begin_turn();
      const std::size_t steps = steps_;
      meter_.start_slice(core_type::read_now());
      serve(core_.next_source++ % sources);
      barren = steps_ == steps && core_.microtasks.empty() ? barren + 1 : 0;
    }
    end_turn();
    const std::size_t due = core_.timers_.count_due(core_type::read_now());
    const std::size_t pending = core_.queued() + due + events_.left();
    const nanos next = core_.timers_.next_deadline();
    const nanos took = core_type::read_now() - begin;
    return {core_.ran, pending, next, took > budget ? took - budget : 0};
  }

 private:
  static constexpr std::size_t sources = 5;

  void serve(std::size_t source) {
    switch (source) {
      case 0: return fire_due_timers();
      case 1: return run_deferred();
      case 2: return drain_ingress();
      case 3: return tell_always_ready();
      default:
        if (events_.left() == 0) poll_without_sleeping(meter_.likely(core_.task_cost));
        return tell_ready();
    }
  }

  // One turn: due timers, posted work, then whatever the kernel reports. Sleeps only if none of
  // them had anything to offer, and then does what it was woken for.
  void turn(until goal, nanos deadline, bool may_sleep) {
    begin_turn();
    fire_due_timers();
    run_deferred();
    drain_ingress();
    if (may_sleep && nothing_happened() && !descriptors_are_busy()) {
      call_hook(core_.prepare);
      const bool sleep = !stop_seen() && !finished(goal) && nothing_happened() && !core_.lending_.error;
      if (sleep) asked_poller_ = park(core_, events_, goal, deadline);
      call_hook(core_.check);
      if (core_.lending_.error) rethrow<Build>(std::exchange(core_.lending_.error, nullptr));
      run_microtasks();  // left over from a loan
      core_.in.adopt();
      fire_due_timers();
      drain_ingress();
    }
    if (!asked_poller_) poll_without_sleeping(events_per_turn);
    tell_always_ready();
    int rounds = goal == until::ended ? 64 : 1;
    do tell_ready();
    while (--rounds != 0 && poller_goes_on());
    end_turn();
  }

  static bool enter(core_type& c, bool outermost) {
    HYBRIDLOOP_CONTRACT(!c.forked(), doorbell<Traits>::in_the_child);
    if (!outermost) keep_loan(c);
    const bool entered = !outermost || c.wake.enter();
    HYBRIDLOOP_CONTRACT(entered, "run() while another thread runs this loop: post to it, or make a second one");
    return entered;
  }

  bool stop_seen() noexcept {
    if (core_.wake.told(status::stop)) stopped_ = true;
    return stopped_;
  }

  bool finished(until goal) noexcept {
    heed_close();
    if (core_.ended) return drained();
    return goal == until::idle && core_.nothing_left();
  }

  void heed_close() noexcept {
    if (core_.ended || !core_.wake.told(status::close)) return;
    core_.ended = true;
    core_.wake.settle_lanes(core_.in.has_lanes());
    core_.end_timers_and_watches();
  }

  // Closed: what was accepted has run, and what that deferred. A slot that is claimed and not yet
  // published counts as accepted; its producer is between two lines of code.
  bool drained() noexcept {
    if (!core_.deferred.empty() || !core_.microtasks.empty() || core_.visitors_.has_late()) return false;
    if (core_.in.empty()) return true;
    if (!core_.in.can_run()) core_.wait_for_claims(claim_yields_);
    return false;
  }

  void begin_turn() {
    core_.turns.add(1);
    core_.forget_now();
    core_.let_in();
    steps_at_turn_ = steps_;
    asked_poller_ = false;
    microtasks_left_ = microtasks_per_turn;
    run_microtasks();  // left over from the turn before
  }

  void end_turn() noexcept {
    if (!core_.microtasks.empty()) core_.micro_left.add(1);
    core_.wake.expect_stream(core_.taken_in());
    core_.publish_counts();
  }

  // Commands, tombstones and microtasks are not counted as tasks, yet they may have been the last
  // thing that run_until_idle() was waiting for.
  bool nothing_happened() const noexcept {
    return steps_ == steps_at_turn_ && microtasks_left_ == microtasks_per_turn &&
           core_.deferred.empty() && core_.microtasks.empty() && !core_.watches_.always_ready();
  }

  // Where the poller has just answered at once it is asked before any sleep is prepared, for as long as
  // that finds something. Not where somebody wants to hear of each round.
  bool descriptors_are_busy() noexcept {
    if (!core_.ready_at_once || core_.prepare || core_.check) return false;
    poll_without_sleeping(events_per_turn);
    asked_poller_ = true;
    return core_.ready_at_once = events_.left() != 0;
  }

  // The same where nothing else can happen either: round after round in one turn.
  bool poller_goes_on() noexcept {
    if (!core_.ready_at_once || !core_.only_descriptors()) return false;
    core_.forget_now();
    core_.publish_counts();
    microtasks_left_ = microtasks_per_turn;
    poll_without_sleeping(events_per_turn);
    return core_.ready_at_once = events_.left() != 0;
  }

  // ---- What there is to do ----

  void fire_due_timers() {
    if (core_.timers_.started() == 0 || stop_seen()) return;
    core_.timers_.fire(
        core_.cached_now(), timers_per_turn,
        [this](unique_task& task) { return run_one([&task] { task(); }, true); },
        [] { return core_type::read_now(); });
  }

  // What was deferred before this turn; what these defer waits for the next one. A nested run may
  // have been there first.
  void run_deferred() {
    for (std::size_t n = core_.deferred.size(); n != 0 && !core_.deferred.empty() && !halted(); --n) {
      unique_task task = core_.deferred.pop();
      run_one([&task] { task(); }, true);
    }
  }

  // Posted work, a bounded number of tasks. Ends early when the loop is stopped.
  void drain_ingress() {
    struct let_producers_in {
      ingress<Traits>& in;
      ~let_producers_in() { in.publish_heads(); }
    };
    const let_producers_in on_exit{core_.in};
    if (std::exchange(much_came_, false) || core_.in.shared.holds(backlog_batch)) core_.note_backlog();
    const bool paced = core_.options.path != fast_path::off && !meter_.on();
    std::size_t left = tasks_per_turn;
    while (left != 0) {
      const std::size_t before = left;
      const std::uint64_t ran = core_.in.shared.ran();
      left = drain_batch(left);
      if (before - left >= backlog_batch) much_came_ = true;
      core_.note_batch(core_.in.shared.ran() - ran);
      if (halted() || left == 0 || before == left || !paced) break;
      const auto some = [this] { return core_.in.can_run(); };
      const auto plenty = [this] { return core_.in.fills_up(); };
      if (!core_.pace.more(before - left, some, plenty)) break;
    }
  }

  // Every queue in its turn, until nothing can run or `left` tasks have; answers what is left.
  std::size_t drain_batch(std::size_t left) {
    return core_.in.visit(
        left, [this](auto& queue, std::size_t share) { return this->drain(queue, share); },
        [this] { return halted(); });
  }

  // Until nothing of the queue can run, or `most` tasks have; answers how many.
  template <class Queue>
  std::size_t drain(Queue& queue, std::size_t most) {
    std::size_t count = 0;
    queue.take_spilled();
    while (count != most && !halted()) {
      const bool some = queue.template run_next<Build>([this](unique_task& task) {
        run_one([&task] { task(); }, task.counted());
      });
      if (!some) break;
      ++count;
      ++steps_;
      if (queue.publish_head_in_time()) queue.take_spilled();
    }
    return count;
  }

  void tell_always_ready() {
    if (!core_.watches_.always_ready() || stop_seen()) return;
    core_.watches_.deliver_always([this](watch_record<Traits>& r, const ready& what) {
      return run_one([&r, &what] { r.call(what); }, true);
    });
  }

  HYBRIDLOOP_IN_LINE void tell_ready() {
    while (events_.left() != 0 && !halted()) {
      const poll_event& event = events_.next();
      core_.watches_.deliver(core_.poller, event, [this](watch_record<Traits>& r, const ready& what) {
        return run_one([&r, &what] { r.call(what); }, true);
      });
    }
  }

  // One task, timer or callback, and the microtasks behind it. False when the loop was stopped.
  template <class F>
  HYBRIDLOOP_IN_LINE bool run_one(F&& f, bool counted) {
    if (counted) ++core_.ran;
    ++steps_;
    guarded(std::forward<F>(f));
    if (!core_.microtasks.empty()) run_microtasks();
    if (meter_.on()) meter_.tick(core_type::read_now(), core_.task_cost);
    return !halted();
  }

  bool halted() noexcept { return stop_seen() || meter_.paused(); }

  // A run inside a hook calls none.
  void call_hook(hook& h) {
    if (!h || core_.in_hook) return;
    struct raised {
      bool& flag;
      ~raised() { flag = false; }
    };
    core_.in_hook = true;
    const raised until_it_returns{core_.in_hook};
    h.call([this](unique_task& task) { guarded([&task] { task(); }); });
    run_microtasks();
  }

  void run_microtasks() {
    while (!core_.microtasks.empty() && microtasks_left_ != 0) {
      --microtasks_left_;
      unique_task task = core_.microtasks.pop();
      guarded([&task] { task(); });
    }
  }

  template <class F>
  HYBRIDLOOP_IN_LINE void guarded(F&& f) {
    if (core_.options.on_exception == nullptr) {
      std::forward<F>(f)();
    } else {
      trap<Build>(std::forward<F>(f), core_.options.on_exception);
    }
  }

  void poll_without_sleeping(std::size_t most) noexcept {
    if (core_.asks_poller()) events_.wait(0, most < events_per_turn ? most : events_per_turn);
  }

  core_type& core_;
  const bool outermost_;
  const bool entered_;
  const loop_frame frame_;
  const std::size_t ran_before_;
  const std::size_t counted_before_;
  const decltype(core_type::calls) calls_before_;
  bool stopped_ = false;

  std::size_t steps_ = 0;          // whatever was run, counted as a task or not
  std::size_t steps_at_turn_ = 0;
  bool asked_poller_ = false;      // in this turn
  bool much_came_ = true;          // or may have: the ring's tail is worth a look
  std::uint32_t claim_yields_ = 0;
  std::size_t microtasks_left_ = microtasks_per_turn;
  meter meter_;
  event_batch<Traits> events_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/runner.hpp

// >>> loop/invoke.hpp - a caller that waits for what its task returns
HYBRIDLOOP_OPEN
namespace detail {

// Where a result waits for its caller. A reference is kept as a pointer, void as nothing.
template <class R>
class result_place {
 public:
  template <class F>
  void fill(F&& f) {
    value_.emplace(std::forward<F>(f)());
  }
  void receive(result_place&& other) { value_.emplace(std::move(*other.value_)); }
  R take() { return std::move(*value_); }

 private:
  std::optional<R> value_;
};
template <class R>
class result_place<R&> {
 public:
  template <class F>
  void fill(F&& f) {
    value_ = &std::forward<F>(f)();
  }
  void receive(result_place&& other) noexcept { value_ = other.value_; }
  R& take() { return *value_; }

 private:
  R* value_ = nullptr;
};
template <>
class result_place<void> {
 public:
  template <class F>
  void fill(F&& f) {
    std::forward<F>(f)();
  }
  void receive(result_place&&) noexcept {}
  void take() {}
};

// Lives on the stack of the caller of invoke().
template <class Traits, class R, class Build>
class awaited {
 public:
  // The task that answers. Destroyed without having run, it answers "dropped".
  template <class F>
  class asking {
   public:
    asking(awaited& place, F& f) noexcept : place_(&place), f_(&f) {}
    asking(asking&& other) noexcept : place_(std::exchange(other.place_, nullptr)), f_(other.f_), born_(other.born_) {}
    asking& operator=(asking&&) = delete;
    ~asking() {
      if (place_ != nullptr && at_home()) place_->answer_.tell(dropped);
    }

    // In the child of a fork, also one that f makes, there is no caller any more, and its stack may
    // be anybody's.
    void operator()() {
      if (!at_home()) return;
      awaited& caller = *place_;
      result_place<R> result;
      std::exception_ptr error;
      trap<Build>([&] { result.fill(*f_); },
                  [&](std::exception_ptr thrown) { error = std::move(thrown); });
      if (!at_home()) return;
      trap<Build>(
          [&] {
            if (!error) caller.result_.receive(std::move(result));
          },
          [&](std::exception_ptr thrown) { error = std::move(thrown); });
      caller.error_ = std::move(error);
      place_ = nullptr;
      caller.answer_.tell(done);
    }

   private:
    bool at_home() const noexcept { return Traits::kernel::forks() == born_; }

    awaited* place_;
    F* f_;
    std::uint32_t born_ = Traits::kernel::forks();
  };

  // Any thread, while the caller is in the call.
  const notice<Traits>& answer() const noexcept { return answer_; }

  // False when the task was dropped.
  bool wait() noexcept {
    answer_.wait(never);
    return answer_.told() == done;
  }

  R take() {
    if (error_) rethrow<Build>(std::move(error_));
    return result_.take();
  }

 private:
  enum : std::uint32_t { done = 1, dropped };

  notice<Traits> answer_;
  result_place<R> result_;
  std::exception_ptr error_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/invoke.hpp

// >>> loop/handle.hpp - names of a loop that may outlive it: handles and keep_alive guards
HYBRIDLOOP_OPEN
namespace detail {

// A counted reference to a core; empty after a move.
template <class Traits>
class core_ref {
 public:
  core_ref() noexcept = default;
  explicit core_ref(core<Traits>& c) noexcept : core_(&c) { c.hold(); }
  core_ref(const core_ref& other) noexcept : core_(other.core_) {
    if (core_ != nullptr) core_->hold();
  }
  core_ref(core_ref&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
  core_ref& operator=(core_ref other) noexcept {
    std::swap(core_, other.core_);
    return *this;
  }
  ~core_ref() {
    if (core_ != nullptr) core_->let_go();
  }

  core<Traits>* operator->() const noexcept { return core_; }
  core<Traits>& operator*() const noexcept { return *core_; }
  friend bool operator==(const core_ref& a, const core_ref& b) noexcept { return a.core_ == b.core_; }
  explicit operator bool() const noexcept { return core_ != nullptr; }

 private:
  core<Traits>* core_ = nullptr;
};

}  // namespace detail

// What posts, stops, closes and wakes a loop; timers, watches and invoke() are the loop's own.
// Copyable, and valid for as long as anybody likes: once the loop is closed or gone, posts answer
// `closed` and the rest does nothing. Any thread. A moved-from handle answers like a closed loop.
template <class Traits>
class basic_handle {
 public:
  // As the loop's own; see basic_loop.
  template <class F, class Build = detail::build_tag>
  post_result post(F&& f) const {
    if (!core_) return post_result::closed;
    return core_->template post<Build>(std::forward<F>(f), core_->options.when_full);
  }
  template <class F, class Build = detail::build_tag>
  post_result try_post(F&& f) const {
    if (!core_) return post_result::closed;
    return core_->template try_post_to<Build>(core_->in.shared, std::forward<F>(f));
  }
  void stop() const noexcept {
    if (core_) core_->door.tell(detail::status::stop);
  }
  void close() const noexcept {
    if (core_) core_->close();
  }
  void wake() const noexcept {
    if (core_) core_->door.tell(detail::status::wanted);
  }
  bool closed() const noexcept { return !core_ || core_->in.closed(); }

 private:
  template <class>
  friend class basic_loop;
  explicit basic_handle(detail::core<Traits>& c) noexcept : core_(c) {}
  detail::core_ref<Traits> core_;
};

// As long as one lives, run_until_idle() does not return for want of work, and what was posted before
// the last one goes is run first. Any thread may drop it.
template <class Traits>
class [[nodiscard]] basic_keep_alive {
 public:
  basic_keep_alive(basic_keep_alive&&) noexcept = default;
  basic_keep_alive& operator=(basic_keep_alive&& other) noexcept {
    basic_keep_alive moved(std::move(other));
    std::swap(core_, moved.core_);
    return *this;
  }
  ~basic_keep_alive() {
    if (!core_) return;
    if (core_->holds.fetch_sub(1, std::memory_order_acq_rel) == 1 && !core_->forked()) {  // [hold] Y1
      core_->door.tell(detail::status::wanted);
    }
  }

 private:
  template <class>
  friend class basic_loop;
  explicit basic_keep_alive(detail::core<Traits>& c) noexcept : core_(c) {
    c.holds.fetch_add(1, std::memory_order_relaxed);  // a hint; only the way down is waited for
  }
  detail::core_ref<Traits> core_;
};

HYBRIDLOOP_CLOSE
// <<< loop/handle.hpp

// >>> loop/producer.hpp - a lane of one's own into the loop
HYBRIDLOOP_OPEN

// What loop.make_producer() gives: posts to the loop through a queue that no other thread uses, for a
// fraction of what a post costs otherwise, without a locked instruction while the loop is awake and
// takes the fence on itself (it does so in a stream of posts).
//
// One thread at a time, which may change if the threads synchronise. FIFO among its own posts; to all
// others there is no order, timers, watches and the same thread's loop.post() included. May outlive
// the loop, whose posts then answer `closed`. What was posted before it is destroyed is still run. It
// does not keep run_until_idle(). A moved-from one answers like a closed loop.
template <class Traits>
class [[nodiscard]] basic_producer {
 public:
  basic_producer(basic_producer&& other) noexcept
      : core_(std::move(other.core_)), lane_(std::exchange(other.lane_, nullptr)) {}
  basic_producer& operator=(basic_producer&& other) noexcept {
    basic_producer moved(std::move(other));
    std::swap(core_, moved.core_);
    std::swap(lane_, moved.lane_);
    return *this;
  }
  ~basic_producer() {
    if (lane_ == nullptr || !core_) return;
    core_->in.part();
    lane_->let_go();
    if (!core_->forked()) core_->door.tell(detail::status::wanted);
  }

  // Follows loop_options::when_full, in the lane's own order. F as in basic_loop::post().
  template <class F, class Build = detail::build_tag>
  post_result post(F&& f) {
    if (lane_ == nullptr) return post_result::closed;
    const busy until_posted(*lane_, core_->door.strong());
    return core_->template post_to<Build>(lane_->tasks, std::forward<F>(f), core_->options.when_full);
  }

  // Never blocks and never spills: `full` as soon as the lane is.
  template <class F, class Build = detail::build_tag>
  post_result try_post(F&& f) {
    if (lane_ == nullptr) return post_result::closed;
    const busy until_posted(*lane_, core_->door.strong());
    return core_->template try_post_to<Build>(lane_->tasks, std::forward<F>(f));
  }

  bool closed() const noexcept { return lane_ == nullptr || core_->in.closed(); }

 private:
  template <class>
  friend class basic_loop;
  using lane_type = detail::lane<Traits>;
  using busy = typename lane_type::post;
  basic_producer(detail::core<Traits>& c, lane_type& mine) noexcept : core_(c), lane_(&mine) {}

  detail::core_ref<Traits> core_;
  lane_type* lane_;
};

HYBRIDLOOP_CLOSE
// <<< loop/producer.hpp

// >>> loop/loop.hpp - the loop itself: everything a user calls
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
// <<< loop/loop.hpp

// >>> loop/loop_work.hpp - definitions: making, running and ending a loop, and giving it work
HYBRIDLOOP_OPEN

template <class Traits>
template <class Build>
basic_loop<Traits>::basic_loop(const loop_options& options) : core_(nullptr) {
  std::error_code code;
  core_ = core::create(options, code);
  detail::throw_if<Build>(code, "hybridloop: loop");
}

template <class Traits>
basic_loop<Traits>::~basic_loop() {
  if (core_ == nullptr) return;
  if (core_->forked()) {
    if (detail::abandon(*core_)) core_->let_go();
    return;
  }
  HYBRIDLOOP_CONTRACT(!core_->wake.running(), "a loop is destroyed inside its own run(), or while another thread runs it: stop() it and let run() return");
  core_->tear_down();
  core_->let_go();
}

// ---- Giving work ----

template <class Traits>
template <class F, class Build>
post_result basic_loop<Traits>::post(F&& f) {
  return core_->template post<Build>(std::forward<F>(f), core_->options.when_full);
}

template <class Traits>
template <class F, class Build>
post_result basic_loop<Traits>::try_post(F&& f) {
  return core_->template try_post_to<Build>(core_->in.shared, std::forward<F>(f));
}

template <class Traits>
template <class Iterator, class Sentinel, class Build>
typename basic_loop<Traits>::range_result basic_loop<Traits>::post_range(Iterator first,
                                                                         Sentinel last) {
  // Looks on every way out, also when an iterator throws: what was posted must be found. From the
  // first accepted element on, *this may be gone.
  struct look_once {
    typename core::doorbell_type& door;
    ~look_once() { door.look(true); }
  };
  const detail::core_ref<Traits> alive(*core_);
  const look_once on_exit{alive->door};
  range_result all{post_result::accepted, 0};
  for (; first != last; ++first) {
    all.result = alive->template post_quietly<Build>(*first);
    if (all.result != post_result::accepted) break;
    ++all.accepted;
  }
  return all;
}

template <class Traits>
template <class Build>
typename basic_loop<Traits>::producer_type basic_loop<Traits>::make_producer(std::size_t capacity) {
  constexpr std::size_t most = std::size_t{1} << 24;
  if (capacity > most) detail::refuse<Build>(errc::invalid_argument, "hybridloop: make_producer");
  detail::lane<Traits>* const lane = core_->in.join(detail::round_up_to_power_of_two(capacity));
  if (lane == nullptr) {
    detail::refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: make_producer");
  }
  return producer_type(*core_, *lane);
}

template <class Traits>
template <class F, class Build>
post_result basic_loop<Traits>::dispatch(F&& f) {
  if (!core_->runs_here()) return post<F, Build>(std::forward<F>(f));
  std::forward<F>(f)();
  return post_result::accepted;
}

template <class Traits>
template <class F, class Build>
std::invoke_result_t<F&> basic_loop<Traits>::invoke(F&& f) {
  if (core_->runs_here()) return f();
  if (core_->in.closed()) detail::refuse<Build>(errc::closed, "hybridloop: invoke");
  if (!core_->options.caller_runs) return ask<Build>(f, core_->options.when_full, [] {});
  detail::loan<Traits> mine(*core_);
  if (mine.serve()) return f();
  return ask<Build>(f, mine.when_full(), [&mine] { mine.end(); });
}

// Posts f and waits for the answer. After posted() the loop may be gone.
template <class Traits>
template <class Build, class F, class Posted>
std::invoke_result_t<F&> basic_loop<Traits>::ask(F& f, overflow when_full, const Posted& posted) {
  using awaited = detail::awaited<Traits, std::invoke_result_t<F&>, Build>;
  using asking = typename awaited::template asking<F>;
  awaited answer;
  const detail::blocked_call<Traits> blocked(&core_->door, answer.answer());
  HYBRIDLOOP_CONTRACT(!blocked.closes_circle(), "invoke() waits for a loop that waits for this one");
  const post_result result = core_->template post<Build>(asking(answer, f), when_full);
  posted();
  if (result == post_result::full) detail::refuse<Build>(errc::full, "hybridloop: invoke");
  if (!answer.wait()) detail::refuse<Build>(errc::closed, "hybridloop: invoke");
  return answer.take();
}

template <class Traits>
template <class Build, class F>
detail::unique_task basic_loop<Traits>::make_task(F&& f) {
  using closure = std::decay_t<F>;
  detail::unique_task task;
  detail::unique_task::room<closure> place(core_->in.blocks());
  if (!place.had()) {
    detail::refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: task");
  }
  task.emplace(place, std::forward<F>(f));
  return task;
}

// Room is made first, so that f is still the caller's where there is none; and once more, because the
// closure's constructor may have taken it.
template <class Traits>
template <class Build, class F>
void basic_loop<Traits>::put_aside(detail::task_fifo& queue, F&& f) {
  const auto make_room = [&queue] {
    if (!queue.make_room()) detail::refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: task");
  };
  make_room();
  detail::unique_task task = make_task<Build>(std::forward<F>(f));
  make_room();
  queue.push(std::move(task));
}

template <class Traits>
template <class F, class Build>
void basic_loop<Traits>::defer(F&& f) {
  HYBRIDLOOP_CONTRACT(core_->runs_here(), "defer() outside of the loop thread: post() instead");
  put_aside<Build>(core_->deferred, std::forward<F>(f));
}

template <class Traits>
template <class F, class Build>
void basic_loop<Traits>::microtask(F&& f) {
  HYBRIDLOOP_CONTRACT(core_->runs_here(), "microtask() outside of the loop thread: post() instead");
  put_aside<Build>(core_->microtasks, std::forward<F>(f));
}

// ---- Running it ----

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::run_as(detail::until goal, nanos deadline, bool may_sleep) {
  return detail::runner<Traits, Build>(*core_).run(goal, deadline, may_sleep);
}

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::run() {
  return run_as<Build>(detail::until::ended, detail::never, true);
}

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::run_until_idle() {
  return run_as<Build>(detail::until::idle, detail::never, true);
}

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::run_once() {
  return run_as<Build>(detail::until::turned, detail::never, true);
}

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::poll() {
  return run_as<Build>(detail::until::turned, detail::never, false);
}

template <class Traits>
template <class Rep, class Period, class Build>
std::size_t basic_loop<Traits>::run_for(std::chrono::duration<Rep, Period> span) {
  const nanos end = detail::saturating_add(core::read_now(), detail::to_nanos(span));
  return run_as<Build>(detail::until::deadline, end, true);
}

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::run_until(time_point deadline) {
  return run_as<Build>(detail::until::deadline, detail::to_nanos(deadline), true);
}

// ---- What it tells about itself ----

template <class Traits>
loop_stats basic_loop<Traits>::stats() const noexcept {
  const core& c = *core_;
  loop_stats s;
  s.turns = c.turns.get();
  s.tasks = c.tasks.get();
  s.posts = c.posts() + c.lending_.loans.get();
  s.spilled = c.in.shared.spilled() + c.lane_spilled.get();
  s.heap_tasks = c.in.blocks().heap_tasks();
  s.wakes_channel = c.door.wakes_channel.load(std::memory_order_relaxed);  // a hint; statistics
  s.wakes_poller = c.door.wakes_poller.load(std::memory_order_relaxed);    // a hint; statistics
  const std::uint64_t wakes = s.wakes_channel + s.wakes_poller;
  s.wakes_saved = s.posts > wakes ? s.posts - wakes : 0;
  s.loans = c.lending_.loans.get();
  s.rescued = c.rescued.get();
  s.in_channel = c.parks_channel.get();
  s.in_poller = c.parks_poller.get();
  s.parks = s.in_channel + s.in_poller;
  s.spun_ns = c.spun_ns.get();
  s.parked_ns = c.parked_ns.get();
  s.arena_in_use = c.in.blocks().in_use();
  s.arena_high = c.in.blocks().high();
  s.ring_high = c.ring_high.get();
  s.timers = c.timer_count.get();
  s.watches = c.watch_count.get();
  s.stale_events = c.stale_events.get();
  s.microtasks_deferred = c.micro_left.get();
  s.path = c.options.path;
  return s;
}

HYBRIDLOOP_CLOSE
// <<< loop/loop_work.hpp

// >>> loop/commands.hpp - what other threads have the loop thread do: timers and watches
HYBRIDLOOP_OPEN
namespace detail {

// Commands travel through the ingress, in order with the same thread's posts, are never refused for
// room, and are not counted as tasks. They carry ids, so a late one finds nobody.
//
// What a command changes at once, for any thread to see, it changes as it is built in its place: by
// then it had its memory and the loop was not closed, so nothing is changed that nobody completes.

template <class Traits>
struct timer_command : command_base {
  enum class verb : std::uint8_t { start, release, move, ref, unref };

  timer_command(core<Traits>& c, verb v, timer_id i) noexcept : loop(&c), id(i), what(v) {}

  void operator()() {
    auto& all = loop->timers_;
    switch (what) {
      case verb::start: return start();
      case verb::release: return all.release(id);
      case verb::move: return all.arrive(id, move, deadline, loop->cached_now());
      case verb::ref: return all.set_referenced(id, true);
      case verb::unref: return all.set_referenced(id, false);
    }
  }

  // A loop that is closing ends its timers, also those that are still on their way.
  void start() {
    if (!loop->ended) return loop->timers_.start(id, loop->cached_now());
    loop->timers_.cancel(id);
  }

  core<Traits>* loop;
  timer_id id;
  nanos deadline = 0;
  std::uint32_t move = 0;
  verb what;
};

// A cancel or a move from another thread. `known`, the answer, is the caller's.
template <class Traits>
struct timer_change : timer_command<Traits> {
  using base = timer_command<Traits>;

  timer_change(core<Traits>& c, timer_id i, bool& answer) noexcept
      : base(c, base::verb::release, i), known(&answer) {}
  timer_change(core<Traits>& c, timer_id i, nanos target, bool& answer) noexcept
      : base(c, base::verb::move, i), known(&answer) {
    this->deadline = target;
  }
  timer_change(timer_change&& given) noexcept : base(given), known(given.known) {
    auto& all = this->loop->timers_;
    if (this->what == base::verb::move) {
      this->move = all.announce_move(this->id);
      *known = this->move != 0;
    } else {
      *known = all.end(this->id) != timers<Traits>::ending::unknown;
    }
  }

  bool* known;
};

template <class Traits, class Build>
struct watch_command : command_base {
  enum class verb : std::uint8_t { attach, detach, modify, ref, unref };

  watch_command(core<Traits>& c, verb v, watch_id i, interest w = interest::none) noexcept
      : loop(&c), id(i), wanted(w), what(v) {}

  void operator()() {
    watch_record<Traits>* r = loop->watch_table_.any(id);
    if (r == nullptr) return;
    switch (what) {
      case verb::attach: return attach(*r);
      case verb::detach: return loop->watches_.detach(loop->poller, *r);
      case verb::modify: return modify(*r);
      case verb::ref: return loop->watches_.set_referenced(*r, true);
      case verb::unref: return loop->watches_.set_referenced(*r, false);
    }
  }

  void attach(watch_record<Traits>& r) {
    if (loop->watch_table_.find(id) == nullptr) {  // ended on its way here
      return loop->watches_.detach(loop->poller, r);
    }
    const int refused = loop->template attach<Build>(r);
    if (refused != 0) report(r, refused);
  }

  void modify(watch_record<Traits>& r) {
    if (!r.attached) return;
    const int refused = loop->watches_.modify(loop->poller, r, wanted);
    if (refused != 0) report(r, refused);
  }

  // The refusal reaches the callback, which then never runs again.
  void report(watch_record<Traits>& r, int number) {
    struct end {
      core<Traits>* loop;
      watch_record<Traits>& r;
      ~end() {
        --r.running;
        loop->watch_table_.end(loop->watch_table_.id_of(r));
        loop->watches_.detach(loop->poller, r);
      }
    };
    ready what_happened;
    what_happened.error = true;
    what_happened.native_error = number;
    what_happened.id = id;
    ++r.running;
    const end guard{loop, r};
    loop->watches_.detach(loop->poller, r);
    if (number == ECANCELED) return;
    ++loop->ran;
    r.call(what_happened);
  }

  core<Traits>* loop;
  watch_id id;
  interest wanted;
  verb what;
};

// An unwatch from another thread.
template <class Traits, class Build>
struct watch_end : watch_command<Traits, Build> {
  using base = watch_command<Traits, Build>;

  watch_end(core<Traits>& c, watch_id i, bool& answer) noexcept
      : base(c, base::verb::detach, i), known(&answer) {}
  watch_end(watch_end&& given) noexcept : base(given), known(given.known) {
    *known = this->loop->watch_table_.end(this->id);
  }

  bool* known;
};

// unwatch(id, done) from another thread: off the poller first, then done.
template <class Traits, class F>
struct unwatch_command : command_base {
  template <class Given>
  unwatch_command(core<Traits>& c, watch_id i, Given&& f, bool& answer)
      : loop(&c), id(i), done(std::forward<Given>(f)), known(&answer) {}
  unwatch_command(unwatch_command&& given)
      : loop(given.loop), id(given.id), done(std::move(given.done)), known(given.known) {
    ours = *known = loop->watch_table_.end(id);
  }

  void operator()() {
    if (!ours) return;
    if (watch_record<Traits>* r = loop->watch_table_.any(id)) loop->watches_.detach(loop->poller, *r);
    ++loop->ran;
    done();
  }

  core<Traits>* loop;
  watch_id id;
  F done;
  bool* known;
  bool ours = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< loop/commands.hpp

// >>> loop/loop_events.hpp - definitions: the loop's timers and watches
HYBRIDLOOP_OPEN

// ---- Time ----

template <class Traits>
template <class Build, class F>
timer_id basic_loop<Traits>::arm(nanos deadline, nanos period, repeat how, F&& f) {
  using command = detail::timer_command<Traits>;
  if (core_->in.closed()) return {};
  auto& all = core_->timers_;
  const bool here = core_->runs_here();
  auto* made = all.template make<Build>(core_->in.blocks(), std::forward<F>(f), deadline, period,
                                        how, here);
  if (made == nullptr) {
    detail::refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: timer");
  }
  const timer_id id = all.id_of(*made);
  if (here) {
    all.start(*made, core_->cached_now());
    return id;
  }
  struct unless_sent {
    detail::timers<Traits>& all;
    timer_id id;
    typename detail::timers<Traits>::record* r;
    ~unless_sent() {
      if (r == nullptr) return;
      all.end(id);
      all.discard(*r);
    }
  };
  unless_sent guard{all, id, made};
  if (!core_->template send<Build>(command(*core_, command::verb::start, id))) return {};
  guard.r = nullptr;
  return id;
}

template <class Traits>
template <class Rep, class Period, class F, class Build>
timer_id basic_loop<Traits>::after(std::chrono::duration<Rep, Period> delay, F&& f) {
  const nanos span = detail::to_nanos(delay);
  const nanos deadline =
      span == detail::never ? detail::never : detail::saturating_add(core::read_now(), span);
  return arm<Build>(deadline, 0, repeat::fixed_rate, std::forward<F>(f));
}

template <class Traits>
template <class F, class Build>
timer_id basic_loop<Traits>::at(time_point deadline, F&& f) {
  return arm<Build>(detail::to_nanos(deadline), 0, repeat::fixed_rate, std::forward<F>(f));
}

template <class Traits>
template <class Rep, class Period, class F, class Build>
timer_id basic_loop<Traits>::every(std::chrono::duration<Rep, Period> period, F&& f, repeat how) {
  const nanos span = detail::to_nanos(period);
  HYBRIDLOOP_CONTRACT(span > 0, "every() needs a period above zero");
  return arm<Build>(detail::saturating_add(core::read_now(), span), span, how, std::forward<F>(f));
}

template <class Traits>
template <class Build>
bool basic_loop<Traits>::reschedule(timer_id id, time_point deadline) {
  const nanos target = detail::to_nanos(deadline);
  if (core_->runs_here()) return core_->timers_.move(id, target, core_->cached_now());
  bool known = false;
  core_->template send<Build>(detail::timer_change<Traits>(*core_, id, target, known));
  return known;
}

template <class Traits>
template <class Build>
bool basic_loop<Traits>::cancel(timer_id id) {
  using ending = typename detail::timers<Traits>::ending;
  if (core_->runs_here()) return core_->timers_.cancel(id);
  bool known = false;
  if (core_->template send<Build>(detail::timer_change<Traits>(*core_, id, known))) return known;
  return core_->timers_.end(id) != ending::unknown;  // a closed loop's own end releases it
}

// ---- Descriptors ----

template <class Traits>
template <class F, class Build>
watch_id basic_loop<Traits>::watch(native_handle handle, interest what, F&& f) {
  std::error_code code;
  const watch_id id = watch<F, Build>(handle, what, std::forward<F>(f), code);
  detail::throw_if<Build>(code, "hybridloop: watch");
  return id;
}

template <class Traits>
template <class F, class Build>
watch_id basic_loop<Traits>::watch(native_handle handle, interest what, F&& f,
                                   std::error_code& code) {
  using command = detail::watch_command<Traits, Build>;
  using closure = std::decay_t<F>;
  code = core_->in.closed() ? make_error_code(errc::closed) : std::error_code();
  if (code) return {};
  auto* made = core_->watch_table_.template make<Build>(
      core_->in.blocks(), detail::ready_callable<closure>{std::forward<F>(f)}, handle, what);
  if (made == nullptr) {
    code = std::make_error_code(std::errc::not_enough_memory);
    return {};
  }
  const watch_id id = core_->watch_table_.id_of(*made);
  int refused = 0;
  if (const detail::ownership<Traits> own(*core_); own) {
    refused = core_->template attach<Build>(*made);
    if (refused == 0) return id;
  } else {
    bool sent = false;
    detail::trap<Build>(
        [&] { sent = core_->template send<Build>(command(*core_, command::verb::attach, id)); },
        [&refused](const std::exception_ptr&) { refused = ENOMEM; });
    if (sent) return id;
    if (refused == 0) refused = ECANCELED;
  }
  core_->watch_table_.end(id);
  core_->watch_table_.give(*made);
  code = refused == ECANCELED ? make_error_code(errc::closed) : detail::system_error_code(refused);
  return {};
}

template <class Traits>
template <class Build>
bool basic_loop<Traits>::modify(watch_id id, interest what) {
  using command = detail::watch_command<Traits, Build>;
  if (const detail::ownership<Traits> own(*core_); own) {
    auto* r = core_->watch_table_.find(id);
    return r != nullptr && r->attached && core_->watches_.modify(core_->poller, *r, what) == 0;
  }
  return core_->watch_table_.find(id) != nullptr &&
         core_->template send<Build>(command(*core_, command::verb::modify, id, what));
}

template <class Traits>
template <class Build>
bool basic_loop<Traits>::unwatch(watch_id id) {
  if (const detail::ownership<Traits> own(*core_); own) {
    if (!core_->watch_table_.end(id)) return false;
    if (auto* r = core_->watch_table_.any(id)) core_->watches_.detach(core_->poller, *r);
    return true;
  }
  bool known = false;
  if (core_->template send<Build>(detail::watch_end<Traits, Build>(*core_, id, known))) return known;
  return core_->watch_table_.end(id);  // a closed loop's own end takes it off
}

template <class Traits>
template <class F, class Build>
bool basic_loop<Traits>::unwatch(watch_id id, F&& done) {
  using command = detail::unwatch_command<Traits, std::decay_t<F>>;
  if (core_->watch_table_.find(id) == nullptr) return false;
  if (core_->runs_here()) {
    const detail::ownership<Traits> own(*core_);
    defer<F, Build>(std::forward<F>(done));
    core_->watch_table_.end(id);
    if (auto* r = core_->watch_table_.any(id)) core_->watches_.detach(core_->poller, *r);
    return true;
  }
  bool known = false;
  core_->template send<Build>(command(*core_, id, std::forward<F>(done), known));
  return known;
}

// ---- What keeps run_until_idle() ----

template <class Traits>
template <class Build, class Id>
void basic_loop<Traits>::set_referenced(Id id, bool wanted) {
  using command = std::conditional_t<std::is_same_v<Id, timer_id>, detail::timer_command<Traits>,
                                     detail::watch_command<Traits, Build>>;
  using verb = typename command::verb;
  command order(*core_, wanted ? verb::ref : verb::unref, id);
  if (core_->runs_here()) {
    order();
  } else {
    core_->template send<Build>(order);
  }
}

template <class Traits>
template <class Build>
void basic_loop<Traits>::ref(timer_id id) {
  set_referenced<Build>(id, true);
}
template <class Traits>
template <class Build>
void basic_loop<Traits>::unref(timer_id id) {
  set_referenced<Build>(id, false);
}
template <class Traits>
template <class Build>
void basic_loop<Traits>::ref(watch_id id) {
  set_referenced<Build>(id, true);
}
template <class Traits>
template <class Build>
void basic_loop<Traits>::unref(watch_id id) {
  set_referenced<Build>(id, false);
}

HYBRIDLOOP_CLOSE
// <<< loop/loop_events.hpp

// >>> loop/loop_embed.hpp - definitions: living in a frame, and inside another loop
HYBRIDLOOP_OPEN

template <class Traits>
template <class Rep, class Period, class Build>
typename basic_loop<Traits>::frame_report basic_loop<Traits>::run_budget(
    std::chrono::duration<Rep, Period> budget) {
  const nanos given = detail::to_nanos(budget);
  const detail::frame_outcome got =
      detail::runner<Traits, Build>(*core_).run_frame(given > 0 ? given : 0);
  frame_report report;
  report.ran = got.ran;
  report.pending = got.pending;
  if (got.next_deadline != detail::never) {
    report.next_deadline = detail::from_nanos<clock>(got.next_deadline);
  }
  report.over_by = std::chrono::duration_cast<duration>(std::chrono::nanoseconds(got.over_by));
  return report;
}

template <class Traits>
template <class Build>
native_handle basic_loop<Traits>::backend_handle() {
  std::error_code code;
  const native_handle handle = backend_handle(code);
  detail::throw_if<Build>(code, "hybridloop: backend_handle");
  return handle;
}

template <class Traits>
native_handle basic_loop<Traits>::backend_handle(std::error_code& code) noexcept {
  code.clear();
  native_handle handle{-1};
  const auto own = detail::ownership<Traits>::patient(*core_);
  if (!own) {
    code = errc::wrong_thread;
  } else if (core_->options.path == fast_path::mini) {
    code = errc::unsupported;
  } else {
    const int refused = detail::expose(*core_, handle);
    if (refused != 0) code = detail::system_error_code(refused);
    if (refused == ENOTSUP) code = errc::unsupported;
  }
  return handle;
}

template <class Traits>
template <class Build>
void basic_loop<Traits>::after_fork_child() {
  std::error_code code;
  after_fork_child<Build>(code);
  detail::throw_if<Build>(code, "hybridloop: after_fork_child");
}

template <class Traits>
template <class Build>
void basic_loop<Traits>::after_fork_child(std::error_code& code) {
  code.clear();
  if (!core_->forked()) return;
  const int refused = detail::go_on_in_child<Traits, Build>(*core_);
  if (refused != 0) code = detail::system_error_code(refused);
}

template <class Traits>
std::optional<typename basic_loop<Traits>::duration> basic_loop<Traits>::next_timeout() const {
  const auto own = detail::ownership<Traits>::patient(*core_);
  HYBRIDLOOP_CONTRACT(static_cast<bool>(own), "next_timeout() while another thread runs the loop");
  if (core_->can_run()) return duration::zero();
  const nanos next = core_->timers_.next_wake();
  if (next == detail::never) return std::nullopt;
  const nanos left = detail::time_between(core::read_now(), next);
  return std::chrono::ceil<duration>(std::chrono::nanoseconds(left));
}

template <class Traits>
template <class Build, class F>
void basic_loop<Traits>::set_hook(detail::hook& place, F&& f) {
  const auto own = detail::ownership<Traits>::patient(*core_);
  HYBRIDLOOP_CONTRACT(static_cast<bool>(own), "on_prepare() or on_check() while another thread runs the loop");
  if constexpr (std::is_null_pointer_v<std::decay_t<F>>) {
    place.set({});
  } else {
    place.set(make_task<Build>(std::forward<F>(f)));
  }
}

template <class Traits>
template <class F, class Build>
void basic_loop<Traits>::on_prepare(F&& f) {
  set_hook<Build>(core_->prepare, std::forward<F>(f));
}

template <class Traits>
template <class F, class Build>
void basic_loop<Traits>::on_check(F&& f) {
  set_hook<Build>(core_->check, std::forward<F>(f));
}

HYBRIDLOOP_CLOSE
// <<< loop/loop_embed.hpp

// >>> sync/waiter.hpp - one that waits, whoever it is: what a queue holds, and how it is told
HYBRIDLOOP_OPEN

// How a wait ended. Time running out is an answer.
enum class wait_status : std::uint8_t {
  granted,    // the permits are yours, or you were notified
  timed_out,  // the deadline came first; nothing was taken
  cancelled,  // cancel() came first; nothing was taken
  closed,     // what you waited for was closed; nothing was taken
};

namespace detail {

// Whether this is the process that made it. In the child of a fork those are not there who were on their way out, and
// nobody waits for them.
template <class Traits>
class birthplace {
 public:
  bool is_here() const noexcept { return Traits::kernel::forks() == born_; }

 private:
  const std::uint32_t born_ = Traits::kernel::forks();
};

// Stands in the frame of a blocked thread or of a coroutine, or in the record of a callback. The queue
// that it is in owns all of it but `tell`, and hands it on to whoever tells it.
//
// A token is a permit or a notification on its way through a queue; see sync/account.hpp.
template <class Traits>
struct waiter {
  using tell_type = void (*)(waiter&, nudges<Traits>&) noexcept;

  explicit waiter(tell_type how) noexcept : tell(how) {}
  waiter(const waiter&) = delete;
  waiter& operator=(const waiter&) = delete;

  // Before each wait: for `n` tokens, of which it holds some already.
  void begin(std::ptrdiff_t n, std::ptrdiff_t already) noexcept {
    need = n - already;
    held = already;
    status = wait_status::granted;
    linked = false;
  }

  // Takes what it needs of so many tokens.
  void feed(std::ptrdiff_t& tokens, wait_status kind) noexcept {
    const std::ptrdiff_t taken = tokens < need ? tokens : need;
    if (taken == 0) return;
    tokens -= taken;
    need -= taken;
    if (kind == wait_status::granted) {
      held += taken;
    } else if (status == wait_status::granted) {
      status = kind;
    }
  }
  // The one that it needs.
  void grant() noexcept {
    need = 0;
    ++held;
  }

  // Is called once for each wait, with `status` in place: the last touch of it by anybody but its owner,
  // and behind the last touch of what it waited for. Outside of all locks; does not throw, blocks or run
  // the user's code.
  const tell_type tell;
  void tell_now() noexcept {
    nudges<Traits> now;
    tell(*this, now);
  }

  std::ptrdiff_t need = 0;  // tokens that are missing
  std::ptrdiff_t held = 0;  // permits that it has; they go back unless it is granted
  wait_status status = wait_status::granted;
  bool linked = false;

  waiter* next = nullptr;
  waiter* previous = nullptr;
};

// Those whose wait is over, in order, until they are told. A thread's own.
template <class Traits>
class told_list {
 public:
  using waiter_type = waiter<Traits>;

  told_list() noexcept = default;
  told_list(const told_list&) = delete;
  told_list& operator=(const told_list&) = delete;

  void add(waiter_type& w) noexcept {
    if (w.status != wait_status::granted) {
      returned_ += w.held;
      w.held = 0;
    }
    w.next = nullptr;
    (last_ == nullptr ? first_ : last_->next) = &w;
    last_ = &w;
  }

  bool empty() const noexcept { return first_ == nullptr; }

  // Permits of those who leave without the rest: they are to be released, before anybody is told.
  std::ptrdiff_t take_returned() noexcept {
    const std::ptrdiff_t all = returned_;
    returned_ = 0;
    return all;
  }

  // Whoever is told may be gone at once, and what it waited for as well.
  void tell_all() noexcept {
    if (empty()) return;
    nudges<Traits> later;
    for (waiter_type* w = first_; w != nullptr;) {
      waiter_type* const after = w->next;
      w->tell(*w, later);
      w = after;
    }
    first_ = last_ = nullptr;
  }

 private:
  waiter_type* first_ = nullptr;
  waiter_type* last_ = nullptr;
  std::ptrdiff_t returned_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/waiter.hpp

// >>> sync/account.hpp - one word that says what there is and what is owed, so that no wake is looked for twice
HYBRIDLOOP_OPEN
namespace detail {

// Every primitive is an account and a queue. Whoever waits enters its debt into the account first, in one
// step with finding that there is nothing to take, and then joins the queue. Whoever gives sees in the
// account, again in one step, how many tokens are owed, and sends as many through the queue, where a
// token may arrive before the one that it is for. So nobody has to look twice, and
//
//   what waiters still need  =  tokens on their way  +  debt
//
// holds at each step. Whoever leaves takes its need off the debt. Where the debt is less, tokens for the
// rest are on their way: then it is too late to leave, or the waiter stays until it has got them and
// hands them back. (The signed count is J. Preshing's lightweight semaphore; that a token may
// overtake its waiter is the way of N. Koval, D. Khalanskiy and D. Alistarh, CQS, 2023.)

// Of a semaphore that hands released permits to those who wait: permits, or less than none by what is
// owed. The lowest bit says closed.
//
// Edge [permit]: who takes a permit sees what was done before it was released. A1 permits are added
// (release); A2 permits are taken (acquire). Rule: every change is a read-modify-write, so A2 meets each
// A1 before it in the release sequence [intro.races]. A permit that goes through the queue takes the
// queue's edge.
template <class Traits>
class permit_account {
 public:
  static constexpr bool collects = true;  // a waiter may hold some of what it needs

  // Permits are counted in 62 bits.
  static constexpr std::ptrdiff_t most = (std::numeric_limits<std::ptrdiff_t>::max)() / 4;

  explicit permit_account(std::ptrdiff_t permits) noexcept : word_(of(permits)) {}

  // How many of n are had at once; the rest is owed. Less than 0: closed, and nothing was taken.
  std::ptrdiff_t take(std::ptrdiff_t n) noexcept {
    const value before = word_.fetch_sub(of(n), std::memory_order_acquire);  // [permit] A2
    const std::ptrdiff_t there = permits_of(before);
    if (there >= n && (before & closed_bit) == 0) return n;
    return take_less(n, before);
  }

  bool try_take(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (permits_of(seen) >= n && (seen & closed_bit) == 0) {
      if (word_.compare_exchange_weak(seen, seen - of(n), std::memory_order_acquire,  // [permit] A2
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return true;
      }
    }
    return false;
  }

  // How many of them are owed: as many tokens are to be sent.
  std::ptrdiff_t give(std::ptrdiff_t n) noexcept {
    const value before = word_.fetch_add(of(n), std::memory_order_release);  // [permit] A1
    const std::ptrdiff_t there = permits_of(before);
    HYBRIDLOOP_CONTRACT(there <= most - n, "a semaphore has no more than max() permits");
    if (there >= 0 || (before & closed_bit) != 0) return 0;
    return -there < n ? -there : n;
  }

  // What came to somebody who had left: how many others get. A queue asks that decides about a leave before it
  // asks withdraw().
  std::ptrdiff_t pass_on(std::ptrdiff_t n) noexcept { return give(n); }

  // Takes up to `need` off the debt; for the rest tokens are on their way. Once closed, that is for all.
  std::ptrdiff_t withdraw(std::ptrdiff_t need) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (permits_of(seen) < 0 && (seen & closed_bit) == 0) {
      const std::ptrdiff_t owed = -permits_of(seen);
      const std::ptrdiff_t off = owed < need ? owed : need;
      if (word_.compare_exchange_weak(seen, seen + of(off), std::memory_order_relaxed)) return off;  // a hint; no permit moves
    }
    return 0;
  }

  // What is owed is owed no more: as many tokens that say "closed" are to be sent.
  std::ptrdiff_t close() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      if ((seen & closed_bit) != 0) return 0;
      const std::ptrdiff_t there = permits_of(seen);
      const value after = (there < 0 ? 0 : of(there)) | closed_bit;
      if (word_.compare_exchange_weak(seen, after, std::memory_order_acq_rel,  // [permit] A1, A2
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return there < 0 ? -there : 0;
      }
    }
  }
  bool closed() const noexcept { return (word_.load(std::memory_order_relaxed) & closed_bit) != 0; }  // a hint; it may change at once

  // Takes up to n that are there, and says how many.
  std::ptrdiff_t forget(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (permits_of(seen) > 0) {
      const std::ptrdiff_t off = permits_of(seen) < n ? permits_of(seen) : n;
      if (word_.compare_exchange_weak(seen, seen - of(off), std::memory_order_acquire,  // [permit] A2
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return off;
      }
    }
    return 0;
  }

  std::ptrdiff_t available() const noexcept {
    const std::ptrdiff_t now = there();
    return now < 0 ? 0 : now;
  }
  std::ptrdiff_t owed() const noexcept {
    const std::ptrdiff_t now = there();
    return now < 0 ? -now : 0;
  }

 private:
  using value = std::ptrdiff_t;
  static constexpr value closed_bit = 1;
  static constexpr value of(std::ptrdiff_t permits) noexcept { return permits * 2; }
  static constexpr std::ptrdiff_t permits_of(value word) noexcept {
    return (word - (word & closed_bit)) / 2;
  }

  std::ptrdiff_t there() const noexcept { return permits_of(word_.load(std::memory_order_relaxed)); }  // a hint; it may change at once

  std::ptrdiff_t take_less(std::ptrdiff_t n, value before) noexcept {
    const std::ptrdiff_t there = permits_of(before);
    if ((before & closed_bit) == 0) {
      HYBRIDLOOP_CONTRACT(n <= 2 * most + there, "those who wait for a semaphore need no more than twice max() together");
      return there < 0 ? 0 : there;
    }
    word_.fetch_add(of(n), std::memory_order_release);  // [permit] A1
    return -1;
  }

  typename Traits::template atomic<value> word_;
};

// Of a condvar: how many wait and have not been promised a notification.
//
// Memory is ordered by the caller's lock, and by the queue on the way from notifier to waiter.
template <class Traits>
class notice_account {
 public:
  static constexpr bool collects = false;

  void enter() noexcept { owed_.fetch_add(1, std::memory_order_relaxed); }  // a hint; the caller's lock orders it

  // How many of `most` tokens are to be sent.
  std::ptrdiff_t notify(std::ptrdiff_t most) noexcept { return withdraw(most); }
  // Notifications that were given to somebody who is not there any more: others get them.
  std::ptrdiff_t give(std::ptrdiff_t n) noexcept { return withdraw(n); }
  std::ptrdiff_t pass_on(std::ptrdiff_t n) noexcept { return withdraw(n); }
  std::ptrdiff_t notify_all() noexcept { return owed_.exchange(0, std::memory_order_relaxed); }  // a hint; as above

  std::ptrdiff_t withdraw(std::ptrdiff_t need) noexcept {
    std::ptrdiff_t seen = owed_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (seen > 0) {
      const std::ptrdiff_t off = seen < need ? seen : need;
      if (owed_.compare_exchange_weak(seen, seen - off, std::memory_order_relaxed)) return off;  // a hint; as above
    }
    return 0;
  }

  bool nobody() const noexcept { return owed_.load(std::memory_order_relaxed) == 0; }  // a hint; as above

 private:
  typename Traits::template atomic<std::ptrdiff_t> owed_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/account.hpp

// >>> sync/queue0.hpp - phase 0: a mutex and a circle of waiters; plain on purpose, the others are measured by it
HYBRIDLOOP_OPEN
namespace sync {

// What a queue is. Any thread. `account` is the one of the primitive that the queue is of, the same in
// each call; `out` takes those whose wait is over by it: whoever calls tells them, after what they
// have returned is released.
//
//   node                            what stands in a waiter: derived from detail::waiter
//   join(w, account, out)           w waits for w.need more tokens; some may have come before it
//   send(n, status, account, out)   n tokens, for those who have waited longest, or will come. A waiter that
//                                   gets one that says "closed" is told so when it has all that it needs
//   leave(w, why, account, out)     true: w is told `why`, in time. False: it is told something else, is
//                                   being told, or has left before
//
// A wait with several tokens is served at the head of the queue only, until it has all of them.

template <class Traits>
class basic_queue0 {
 public:
  using traits = Traits;
  static constexpr int phase = 0;

  struct node : detail::waiter<Traits> {
    using detail::waiter<Traits>::waiter;
  };
  using told_list = detail::told_list<Traits>;

  basic_queue0() noexcept = default;
  basic_queue0(const basic_queue0&) = delete;
  basic_queue0& operator=(const basic_queue0&) = delete;
  ~basic_queue0() {
    if (slots_ != nullptr) detail::heap_give(slots_, alignof(node*));
  }

  template <class Account>
  void join(node& w, Account&, told_list& out) noexcept {
    const hold locked(mutex_);
    w.feed(early_, wait_status::granted);
    w.feed(early_closed_, wait_status::closed);
    if (w.need == 0) return out.add(w);
    w.linked = true;
    if (strays_ != nullptr || !push(w)) add_stray(w);
  }

  template <class Account>
  void send(std::ptrdiff_t n, wait_status status, Account&, told_list& out) noexcept {
    const hold locked(mutex_);
    for (node* w = front(); w != nullptr && n != 0; w = front()) {
      w->feed(n, status);
      if (w->need != 0) return;
      pop();
      w->linked = false;
      out.add(*w);
    }
    (status == wait_status::granted ? early_ : early_closed_) += n;
  }

  template <class Account>
  bool leave(node& w, wait_status why, Account& account, told_list& out) noexcept {
    const hold locked(mutex_);
    if (!w.linked || w.status != wait_status::granted) return false;
    const std::ptrdiff_t off = account.withdraw(w.need);
    if (off == 0) return false;
    w.status = why;
    w.need -= off;
    if (w.need != 0) return true;  // it stays for what is on its way
    erase(w);
    out.add(w);
    return true;
  }

 private:
  using hold = typename Traits::kernel::hold;

  bool push(node& w) noexcept {
    if (count_ == capacity_ && !grow()) return false;
    at(count_++) = &w;
    return true;
  }
  node* front() noexcept { return count_ != 0 ? at(0) : static_cast<node*>(strays_); }
  void pop() noexcept {
    if (count_ == 0) {
      strays_ = strays_->next;
      return;
    }
    first_ = (first_ + 1) & (capacity_ - 1);
    --count_;
  }
  node*& at(std::size_t place) noexcept { return slots_[(first_ + place) & (capacity_ - 1)]; }

  bool grow() noexcept {
    const std::size_t wider = capacity_ == 0 ? 8 : capacity_ * 2;
    void* const memory = detail::heap_take(wider * sizeof(node*), alignof(node*));
    if (memory == nullptr) return false;
    auto* const larger = static_cast<node**>(memory);
    for (std::size_t i = 0; i < count_; ++i) larger[i] = at(i);
    if (slots_ != nullptr) detail::heap_give(slots_, alignof(node*));
    slots_ = larger;
    capacity_ = wider;
    first_ = 0;
    return true;
  }

  void erase(node& w) noexcept {
    w.linked = false;
    std::size_t place = 0;
    while (place != count_ && at(place) != &w) ++place;
    if (place == count_) return erase_stray(w);
    for (; place + 1 < count_; ++place) at(place) = at(place + 1);
    --count_;
  }

  // For whom there was no memory: linked through their nodes, behind those in the circle.
  void add_stray(node& w) noexcept {
    detail::waiter<Traits>** end = &strays_;
    while (*end != nullptr) end = &(*end)->next;
    w.next = nullptr;
    *end = &w;
  }
  void erase_stray(node& w) noexcept {
    detail::waiter<Traits>** link = &strays_;
    while (*link != &w) link = &(*link)->next;
    *link = w.next;
  }

  typename Traits::kernel::mutex mutex_;
  node** slots_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  detail::waiter<Traits>* strays_ = nullptr;
  std::ptrdiff_t early_ = 0;  // tokens that nobody has waited for yet
  std::ptrdiff_t early_closed_ = 0;
};

}  // namespace sync
HYBRIDLOOP_CLOSE
// <<< sync/queue0.hpp

// >>> sync/small_lock.hpp - a lock of one word, for a few lines at a time
HYBRIDLOOP_OPEN
namespace detail {

// Free, held, or held and somebody sleeps (U. Drepper, Futexes are tricky, 2011, mutex2). After the step that
// gives it back only its address is used, so whoever has it next may destroy it.
//
// Edge [small]: what was done under the lock. L8 given back (release); L9 taken (acquire). Rule: L9 reads
// L8, or what was built on it by read-modify-writes, and synchronises with it [intro.races].
template <class Traits>
class small_lock {
 public:
  small_lock() noexcept = default;
  small_lock(const small_lock&) = delete;
  small_lock& operator=(const small_lock&) = delete;

  void lock() noexcept {
    std::uint32_t seen = free;
    if (word_.compare_exchange_strong(seen, held, std::memory_order_acquire,  // [small] L9
                                      std::memory_order_relaxed)) {  // a hint; lock_slowly() looks again
      return;
    }
    lock_slowly();
  }
  void unlock() noexcept {
    auto& word = word_;
    if (word.exchange(free, std::memory_order_release) == slept_on) Traits::parker::wake_one(word);  // [small] L8
  }

 private:
  enum : std::uint32_t { free, held, slept_on };
  static constexpr int looks = 12;  // what a few lines take, several times over

  HYBRIDLOOP_OUT_OF_LINE void lock_slowly() noexcept {
    for (int i = 0; i < looks; ++i) {
      std::uint32_t seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
      if (seen == free && word_.compare_exchange_weak(seen, held, std::memory_order_acquire,  // [small] L9
                                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return;
      }
      for (int pauses = i < 4 ? 1 << i : 16; pauses != 0; --pauses) cpu_pause();
    }
    while (word_.exchange(slept_on, std::memory_order_acquire) != free) {  // [small] L9
      Traits::parker::wait(word_, slept_on, never);
    }
  }

  typename Traits::template atomic<std::uint32_t> word_{free};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/small_lock.hpp

// >>> sync/waiter_list.hpp - waiters in order, linked through themselves, and tokens that nobody waited for yet
HYBRIDLOOP_OPEN
namespace detail {

// For one thread at a time: behind a lock, or an owner's. What the calls mean: see sync/queue0.hpp. `out` has
// add(w) for those who have all that they need.
template <class Traits>
class waiter_list {
  using waiter_type = waiter<Traits>;
  using told = told_list<Traits>;

 public:
  waiter_list() noexcept = default;
  waiter_list(const waiter_list&) = delete;
  waiter_list& operator=(const waiter_list&) = delete;

  template <class Out>
  void join(waiter_type& w, Out& out) noexcept {
    w.feed(early_, wait_status::granted);
    w.feed(early_closed_, wait_status::closed);
    if (w.need == 0) return out.add(w);
    append(w);
  }

  template <class Out>
  void send(std::ptrdiff_t n, wait_status status, Out& out) noexcept {
    while (first_ != nullptr && n != 0) {
      waiter_type& w = *first_;
      w.feed(n, status);
      if (w.need != 0) return;
      remove(w);
      out.add(w);
    }
    (status == wait_status::granted ? early_ : early_closed_) += n;
  }

  template <class Account>
  bool leave(waiter_type& w, wait_status why, Account& account, told& out) noexcept {
    if (!w.linked || w.status != wait_status::granted) return false;
    const std::ptrdiff_t off = account.withdraw(w.need);
    if (off == 0) return false;
    w.status = why;
    w.need -= off;
    if (w.need != 0) return true;  // it stays for what is on its way
    remove(w);
    out.add(w);
    return true;
  }

  void append(waiter_type& w) noexcept {
    w.linked = true;
    w.next = nullptr;
    w.previous = last_;
    (last_ == nullptr ? first_ : last_->next) = &w;
    last_ = &w;
  }
  void remove(waiter_type& w) noexcept {
    w.linked = false;
    (w.previous == nullptr ? first_ : w.previous->next) = w.next;
    (w.next == nullptr ? last_ : w.next->previous) = w.previous;
  }

  // Neither waiters nor tokens.
  bool empty() const noexcept { return first_ == nullptr && early_ == 0 && early_closed_ == 0; }
  // One waiter, for one token, that has not left.
  waiter_type* alone() const noexcept {
    const bool plain = first_ != nullptr && first_ == last_ && first_->need == 1 && first_->status == wait_status::granted;
    return plain ? first_ : nullptr;
  }
  bool has_one_early() const noexcept { return early_ == 1 && early_closed_ == 0; }
  void add_early() noexcept { ++early_; }
  void take_early() noexcept { --early_; }

 private:
  waiter_type* first_ = nullptr;
  waiter_type* last_ = nullptr;
  std::ptrdiff_t early_ = 0;
  std::ptrdiff_t early_closed_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/waiter_list.hpp

// >>> sync/queue1.hpp - phase 1: a word that holds the one waiter there mostly is, and a small lock for more
HYBRIDLOOP_OPEN
namespace sync {

// One word is state and waiter at once, so that the two cannot disagree: nobody; one waiter, for one token;
// one token that came early; or `many`, and then the list behind the lock says what there is. Whoever
// has the lock and finds something else moves it into the list first; only who has the lock takes `many` away.
//
// Edge [single]: whoever takes what the word names sees it whole. S1 a waiter, a token or an empty list is put
// there (release); S2 it is taken out, by a CAS (acquire). Until that CAS nobody touches the waiter, so that one
// that went and came again (ABA) is a waiter like any other. Rule: S2 synchronises with the S1 that it reads;
// `many` is put there and taken away by holders of the lock, which orders them.
template <class Traits>
class basic_queue1 {
 public:
  using traits = Traits;
  static constexpr int phase = 1;

  struct node : detail::waiter<Traits> {
    using detail::waiter<Traits>::waiter;
  };
  using told_list = detail::told_list<Traits>;

  basic_queue1() noexcept = default;
  basic_queue1(const basic_queue1&) = delete;
  basic_queue1& operator=(const basic_queue1&) = delete;

  template <class Account>
  void join(node& w, Account&, told_list& out) noexcept {
    if (w.need == 1 && join_alone(w, out)) return;
    const hold locked(*this);
    list_.join(w, out);
  }

  template <class Account>
  void send(std::ptrdiff_t n, wait_status status, Account&, told_list& out) noexcept {
    if (n == 1 && status == wait_status::granted && send_one(out)) return;
    hold locked(*this);
    list_.send(n, status, out);
    locked.keep_list = out.empty();
  }

  template <class Account>
  bool leave(node& w, wait_status why, Account& account, told_list& out) noexcept {
    const hold locked(*this);
    return list_.leave(w, why, account, out);
  }

 private:
  using word = std::uintptr_t;
  static constexpr word nobody = 0;
  static constexpr word many = 1;
  static constexpr word early = 2;

  static word name(const node& w) noexcept { return reinterpret_cast<word>(&w); }
  static node* waiter_in(word seen) noexcept { return seen <= early ? nullptr : reinterpret_cast<node*>(seen); }

  // The lock, with everything in the list. Given back, the word says again what there is, if it can: then
  // others go on without the lock. A sender that has nobody to tell leaves that to whoever comes next,
  // because the one who takes what it sent may be the last, and destroy the lock before it is given back.
  class hold {
   public:
    explicit hold(basic_queue1& q) noexcept : queue_(q) {
      q.lock_.lock();
      q.move_into_list();
    }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() {
      if (!keep_list) queue_.move_out_of_list();
      queue_.lock_.unlock();
    }
    bool keep_list = false;

   private:
    basic_queue1& queue_;
  };

  bool join_alone(node& w, told_list& out) noexcept {
    word seen = nobody;
    if (slot_.compare_exchange_strong(seen, name(w), std::memory_order_release,  // [single] S1
                                      std::memory_order_relaxed)) {  // a hint; the CAS below decides
      return true;
    }
    if (seen != early || !slot_.compare_exchange_strong(seen, nobody, std::memory_order_acq_rel,  // [single] S2, S1
                                                        std::memory_order_relaxed)) {  // a hint; the lock decides
      return false;
    }
    w.grant();
    out.add(w);
    return true;
  }

  bool send_one(told_list& out) noexcept {
    word seen = slot_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    if (seen == many || seen == early) return false;
    const word then = seen == nobody ? early : nobody;
    Traits::schedule_point("slot-seen");
    if (!slot_.compare_exchange_strong(seen, then, std::memory_order_acq_rel,  // [single] S2, S1
                                       std::memory_order_relaxed)) {  // a hint; the lock decides
      return false;
    }
    if (node* const w = waiter_in(seen)) {
      w->grant();
      out.add(*w);
    }
    return true;
  }

  void move_into_list() noexcept {
    word seen = slot_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (seen != many && !slot_.compare_exchange_weak(seen, many, std::memory_order_acq_rel,  // [single] S2, S1
                                                        std::memory_order_relaxed)) {  // a hint; the loop repeats
    }
    if (node* const w = waiter_in(seen)) list_.append(*w);
    if (seen == early) list_.add_early();
  }

  void move_out_of_list() noexcept {
    word then = many;
    if (list_.empty()) {
      then = nobody;
    } else if (list_.has_one_early()) {
      list_.take_early();
      then = early;
    } else if (auto* const w = list_.alone()) {
      list_.remove(*w);
      then = name(static_cast<node&>(*w));
    }
    if (then != many) slot_.store(then, std::memory_order_release);  // [single] S1
  }

  typename Traits::template atomic<word> slot_{nobody};
  detail::small_lock<Traits> lock_;
  detail::waiter_list<Traits> list_;
};

}  // namespace sync
HYBRIDLOOP_CLOSE
// <<< sync/queue1.hpp

// >>> sync/epoch.hpp - what was taken out of a shared structure is used again when nobody can look at it any more
HYBRIDLOOP_OPEN
namespace detail {

// Where such objects come from. A test's traits may have another, and give back what has been waited for
// instead of using it again.
template <class Traits>
struct epoch_memory {
  static constexpr bool reuses = true;
  static void* take(std::size_t bytes, std::size_t alignment) noexcept { return heap_take(bytes, alignment); }
  static void give(void* memory, std::size_t, std::size_t alignment) noexcept { heap_give(memory, alignment); }
};

// Epochs (K. Fraser, Practical lock-freedom, 2004), one for the process and each kind of object. Who looks
// at shared objects is pinned: a record says so, and in which epoch. The epoch goes on when all that are
// pinned have come to it; what was retired two epochs ago is nobody's.
//
// Edge [epoch]: an object is not used again while somebody looks at it.
//
//   who looks                                      who takes X away
//   E1  reads the epoch (acquire)                  E4  X unlinked; reads the epoch, e, by a read-modify-write
//   E2  its record: 0 -> that epoch (acq_rel)      E5  asks each record by a read-modify-write: 0, or e?
//   E3  looks; then its record = 0 (release)           then the epoch: e -> e + 1 (acq_rel)
//                                                  E5  the same again, e + 1 -> e + 2; X is free
//
// Rule: of two read-modify-writes of one word the later reads the earlier, or what was built on it
// [atomics.order]. So e -> e + 1 has E4 behind it, and whoever reads e + 1 in E1 finds X nowhere. The
// second E5 finds in each record: an older epoch, and fails; or e + 1; or 0, and then E3 is over, or E2 is
// still to come and has that E5 behind it, or an E3 of one that has: it finds X nowhere.
//
// All orders stand on named words; a thread sanitizer sees all of it. A thread that stops while it is
// pinned keeps memory from being used again, and nobody from going on. What was once needed is kept for the
// next that needs it. In the child of a fork, what threads had pinned that are not there is not waited for.
//
// Object has an atomic<Object*> `link`, is valid when it is made, and needs no destructor.
//
// Any thread: everything but forget_all. Not in signal handlers.
template <class Traits, class Object>
class epochs {
  template <class T>
  using atomic = typename Traits::template atomic<T>;
  using memory = epoch_memory<Traits>;

  struct alignas(cache_line) record {
    atomic<std::uint64_t> word{0};  // 0, or who is pinned in which epoch
    record* next = nullptr;         // set once
  };

 public:
  // A record for the time of an operation. Not to be held while anybody is told, and one at a time.
  class pin {
   public:
    pin() noexcept : record_(enter()) {}
    pin(const pin&) = delete;
    pin& operator=(const pin&) = delete;
    ~pin() { record_.word.store(0, std::memory_order_release); }  // [epoch] E3

    // Nobody finds it any more who does not look at it already.
    void retire(Object& x) const noexcept {
      const std::uint64_t now = the.epoch.fetch_add(0, std::memory_order_acq_rel);  // [epoch] E4
      push(the.retired[now % 3], x);
      go_on();
    }

    // nullptr when there is no memory. Not as new.
    Object* take() const noexcept {
      Object* top = the.spare.load(std::memory_order_acquire);  // [spare] S2
      while (top != nullptr) {
        Object* const next = top->link.load(std::memory_order_relaxed);  // a hint; the CAS decides
        Traits::schedule_point("spare-seen");
        if (the.spare.compare_exchange_weak(top, next, std::memory_order_acquire,  // [spare] S2
                                            std::memory_order_acquire)) {  // [spare] S2
          return top;
        }
      }
      void* const fresh = memory::take(sizeof(Object), alignof(Object));
      return fresh == nullptr ? nullptr : ::new (fresh) Object;
    }

   private:
    // To the next epoch, if all are in this one; what was retired in the one before is free then. Until this
    // record moves on, nobody gets past the next one, so the list that is taken is still that epoch's.
    void go_on() const noexcept {
      std::uint64_t now = epoch_of(record_.word.load(std::memory_order_relaxed));  // ours alone
      if (the.epoch.load(std::memory_order_relaxed) != now) return;  // a hint; the CAS decides
      for (record& r : the.first) {
        if (!has_come(r, now)) return;
      }
      for (record* r = more(); r != nullptr; r = r->next) {
        if (!has_come(*r, now)) return;
      }
      Traits::schedule_point("epoch-ends");
      if (!the.epoch.compare_exchange_strong(now, now + 1, std::memory_order_acq_rel)) return;  // [epoch] E5
      Object* free = the.retired[(now + 2) % 3].exchange(nullptr, std::memory_order_acquire);  // [spare] S2
      while (free != nullptr) {
        Object* const next = free->link.load(std::memory_order_relaxed);  // ours alone
        put_by(*free);
        free = next;
      }
    }

    record& record_;
  };

  // While nobody is inside: as if nothing had been before. For tests.
  static void forget_all() noexcept {
    for (atomic<Object*>& list : the.retired) give_all(list);
    give_all(the.spare);
    the.epoch.store(first_epoch, std::memory_order_relaxed);  // ours alone
    last_used() = nullptr;
  }

 private:
  static constexpr std::uint64_t first_epoch = 3;

  // Edge [spare]: who takes an object finds it as it was left. S1 it is put on a list (release); S2 it is
  // taken (acquire). Rule: both change the head by read-modify-writes, so S2 meets each S1 below it in
  // the release sequence [intro.races]. That a head goes and comes again (ABA) would need two epochs to
  // pass, and who takes is pinned.
  static void push(atomic<Object*>& list, Object& x) noexcept {
    Object* top = list.load(std::memory_order_relaxed);  // a hint; the CAS decides
    do {
      x.link.store(top, std::memory_order_relaxed);  // ours alone until the CAS
    } while (!list.compare_exchange_weak(top, &x, std::memory_order_release,  // [spare] S1
                                         std::memory_order_relaxed));  // a hint; the loop repeats
  }
  static void put_by(Object& x) noexcept {
    if constexpr (memory::reuses) {
      push(the.spare, x);
    } else {
      memory::give(&x, sizeof(Object), alignof(Object));
    }
  }
  static void give_all(atomic<Object*>& list) noexcept {
    Object* x = list.exchange(nullptr, std::memory_order_acquire);  // [spare] S2
    while (x != nullptr) {
      Object* const next = x->link.load(std::memory_order_relaxed);  // ours alone
      memory::give(x, sizeof(Object), alignof(Object));
      x = next;
    }
  }

  // Epoch, the number of forks so far, and a bit that says "pinned".
  static constexpr std::uint64_t word_of(std::uint64_t epoch, std::uint32_t forks) noexcept {
    return epoch << 17 | (forks & 0xffffu) << 1 | 1u;
  }
  static constexpr std::uint64_t epoch_of(std::uint64_t word) noexcept { return word >> 17; }
  static bool holds_back(std::uint64_t word, std::uint64_t now) noexcept {
    return word != 0 && epoch_of(word) != now && word == word_of(epoch_of(word), Traits::kernel::forks());
  }
  static bool has_come(record& r, std::uint64_t now) noexcept {
    if (holds_back(r.word.load(std::memory_order_relaxed), now)) return false;  // a hint; it is asked again
    return !holds_back(r.word.fetch_add(0, std::memory_order_acq_rel), now);    // [epoch] E5
  }

  static record& enter() noexcept {
    const std::uint64_t now = the.epoch.load(std::memory_order_acquire);  // [epoch] E1
    const std::uint64_t word = word_of(now, Traits::kernel::forks());
    record* const mine = last_used();
    return mine != nullptr && pinned(*mine, word) ? *mine : look_for_one(word);
  }
  static bool pinned(record& r, std::uint64_t word) noexcept {
    std::uint64_t nobody = 0;
    return r.word.compare_exchange_strong(nobody, word, std::memory_order_acq_rel,  // [epoch] E2
                                          std::memory_order_relaxed);  // a hint; another one is tried
  }
  HYBRIDLOOP_OUT_OF_LINE static record& look_for_one(std::uint64_t word) noexcept {
    for (;;) {
      record* found = nullptr;
      for (record& r : the.first) {
        if (found == nullptr && is_free(r) && pinned(r, word)) found = &r;
      }
      for (record* r = found != nullptr ? nullptr : more(); r != nullptr && found == nullptr; r = r->next) {
        if (is_free(*r) && pinned(*r, word)) found = r;
      }
      if (found == nullptr) found = grow(word);
      if (found != nullptr) return *(last_used() = found);
      Traits::kernel::yield();  // no memory: one of the others is given back soon
    }
  }
  static bool is_free(const record& r) noexcept { return r.word.load(std::memory_order_relaxed) == 0; }  // a hint; the CAS decides

  // Records are never given back. The head is a number, so that it can be read by a read-modify-write: who
  // comes with a new record afterwards has seen the epoch that the reader has.
  static record* more() noexcept {
    return reinterpret_cast<record*>(the.more.fetch_add(0, std::memory_order_acq_rel));  // [epoch] E2, E5
  }
  static record* grow(std::uint64_t word) noexcept {
    void* const fresh = heap_take(sizeof(record), alignof(record));
    if (fresh == nullptr) return nullptr;
    auto* const made = ::new (fresh) record;
    made->word.store(word, std::memory_order_relaxed);  // ours alone until the CAS
    std::uintptr_t head = the.more.load(std::memory_order_relaxed);  // a hint; the CAS decides
    do {
      made->next = reinterpret_cast<record*>(head);
    } while (!the.more.compare_exchange_weak(head, reinterpret_cast<std::uintptr_t>(made), std::memory_order_acq_rel,  // [epoch] E2
                                             std::memory_order_relaxed));  // a hint; the loop repeats
    return made;
  }

  // A guess where to look first. Fibers of one thread may share it.
  static record*& last_used() noexcept {
    static thread_local record* last = nullptr;
    return last;
  }

  struct domain {
    alignas(cache_line) atomic<std::uint64_t> epoch{first_epoch};
    alignas(cache_line) atomic<Object*> spare{nullptr};
    alignas(cache_line) atomic<Object*> retired[3] = {};
    atomic<std::uintptr_t> more{0};
    record first[8];
  };
  static inline domain the;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/epoch.hpp

// >>> sync/segment.hpp - an endless row of cells, of which only those exist that somebody still needs
HYBRIDLOOP_OPEN
namespace detail {

// `left` counts what keeps it: cells that are not over, the queue's pointers to it, and one while it is
// the last. At 0 it is over, and taken out of the row.
template <class Traits, unsigned Cells>
struct segment {
  using cell = typename Traits::template atomic<std::uintptr_t>;

  typename Traits::template atomic<segment*> next{nullptr};
  typename Traits::template atomic<std::uint32_t> left{0};
  segment* previous = nullptr;  // whoever sweeps
  std::uint64_t number = 0;
  cell cells[Cells] = {};
  typename Traits::template atomic<segment*> link{nullptr};  // among those that are over

  cell& at(std::uint64_t index) noexcept { return cells[index % Cells]; }
};

// Cells are numbered, each is used once. Segments stand in a list; each is taken out of the middle as soon
// as all its cells are over, so what is skipped is skipped in one step, and costs no memory.
//
// Of the many that take segments out one at a time changes the list: whoever has put the first one on
// `over_`. Others leave theirs there and go on; nobody waits. Who stops in the middle keeps memory, no more.
//
// All of it while pinned, and on behalf of a waiter that has not been told yet: so the list is there.
//
// Edge [row]: who finds a segment finds it made, and finds nothing behind it that was taken out before.
// R1 a segment, or a pointer to one, is set (release); R2 it is followed (acquire). Rule: R2
// synchronises with R1, or with a read-modify-write behind it [intro.races].
//
// Edge [over]: who takes a segment out comes after all that needed it. O1 one less needs it (acq_rel), the last
// one puts it on `over_` (release); O2 who sweeps takes it from there (acquire), and the next one to sweep
// comes after that. Rule: every change of `left` and of `over_` is a read-modify-write, so each has
// those before it behind it [intro.races].
template <class Traits, unsigned Cells>
class segment_list {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using segment = detail::segment<Traits, Cells>;
  using memory = epochs<Traits, segment>;
  using pin = typename memory::pin;
  using pointer = atomic<segment*>;

  segment_list() noexcept = default;
  segment_list(const segment_list&) = delete;
  segment_list& operator=(const segment_list&) = delete;

  // Nobody waits. Who is still on its way out looks at no segment.
  ~segment_list() {
    segment* s = first_.load(std::memory_order_relaxed);  // ours alone
    if (s == nullptr) return;
    const pin here;
    while (s != nullptr) {
      segment* const next = s->next.load(std::memory_order_relaxed);  // ours alone
      here.retire(*s);
      s = next;
    }
  }

  // Where `p` points. Before a cell is claimed: the claimed one is not before it then.
  segment* start(pointer& p, const pin& here) noexcept {
    segment* s = p.load(std::memory_order_acquire);  // [row] R2
    return s != nullptr ? s : begin(p, here);
  }

  // The segment of that number, or, where that is over, the next one that is not.
  segment* reach(segment* s, std::uint64_t number, const pin& here) noexcept {
    while (s->number < number) {
      segment* const next = s->next.load(std::memory_order_acquire);  // [row] R2
      s = next != nullptr ? next : append(*s, here);
    }
    return s;
  }

  // `p` points to `s`, or behind it, unless that is over meanwhile.
  void follow(pointer& p, segment* s, const pin& here) noexcept {
    segment* seen = p.load(std::memory_order_acquire);  // [row] R2
    if (seen == s) return;
    while (seen->number < s->number && keep(*s)) {
      segment* const before = seen;
      Traits::schedule_point("pointer-moves");
      const bool moved = p.compare_exchange_strong(seen, s, std::memory_order_acq_rel,  // [row] R1
                                                   std::memory_order_acquire);           // [row] R2
      finish(*(moved ? before : s), 1, here);
      if (moved) return;
    }
  }

  // So many of what keeps it are over.
  void finish(segment& s, std::uint32_t count, const pin& here) noexcept {
    if (s.left.fetch_sub(count, std::memory_order_acq_rel) != count) return;  // [over] O1
    Traits::schedule_point("segment-over");
    segment* seen = over_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    do {
      s.link.store(seen, std::memory_order_relaxed);  // ours alone until the CAS
    } while (!over_.compare_exchange_weak(seen, &s, std::memory_order_acq_rel,  // [over] O1, O2
                                          std::memory_order_relaxed));  // a hint; the loop repeats
    if (seen == nullptr) sweep(here);
  }
  // `count` cells from `index` on, the first of them in `s`.
  void finish_cells(segment* s, std::uint64_t index, std::uint64_t count, const pin& here) noexcept {
    while (count != 0) {
      const std::uint64_t here_at_most = Cells - index % Cells;
      const std::uint64_t some = count < here_at_most ? count : here_at_most;
      segment* const next = s->next.load(std::memory_order_acquire);  // [row] R2
      finish(*s, static_cast<std::uint32_t>(some), here);
      index += some;
      count -= some;
      s = next;
    }
  }

 private:
  static constexpr std::uint32_t last = 1;
  static constexpr std::uint32_t pointers = 2;

  // What stands at the end of `over_` while somebody sweeps.
  segment* sweeping() noexcept { return reinterpret_cast<segment*>(&over_); }

  static bool keep(segment& s) noexcept {
    std::uint32_t left = s.left.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (left != 0) {
      if (s.left.compare_exchange_weak(left, left + 1, std::memory_order_acq_rel,  // [over] O1
                                       std::memory_order_relaxed)) {  // a hint; the loop repeats
        return true;
      }
    }
    return false;
  }

  // The first segment is kept by both pointers until they are set.
  segment* begin(pointer& p, const pin& here) noexcept {
    segment* s = first_.load(std::memory_order_acquire);  // [row] R2
    if (s == nullptr) {
      segment* const made = make(0, nullptr, pointers, here);
      const bool ours = first_.compare_exchange_strong(s, made, std::memory_order_acq_rel);  // [row] R1, R2
      if (ours) s = made;
      else here.retire(*made);
    }
    segment* seen = nullptr;
    return p.compare_exchange_strong(seen, s, std::memory_order_acq_rel) ? s : seen;  // [row] R1, R2
  }

  segment* append(segment& behind, const pin& here) noexcept {
    segment* const made = make(behind.number + 1, &behind, 0, here);
    segment* seen = nullptr;
    Traits::schedule_point("segment-made");
    if (!behind.next.compare_exchange_strong(seen, made, std::memory_order_acq_rel)) {  // [row] R1, R2
      here.retire(*made);
      return seen;
    }
    finish(behind, last, here);
    return made;
  }

  // Neither a wait nor a token can be refused any more: without memory this tries again until there is some.
  // Nothing is lost meanwhile, the cell is claimed and others go on. It stays pinned, since it stands in the
  // row; what others retire is not used again until then.
  segment* make(std::uint64_t number, segment* previous, std::uint32_t kept_by, const pin& here) noexcept {
    segment* s = here.take();
    for (; s == nullptr; s = here.take()) Traits::kernel::yield();
    for (auto& c : s->cells) c.store(0, std::memory_order_relaxed);         // ours alone until it is linked
    s->next.store(nullptr, std::memory_order_relaxed);                      // ours alone until it is linked
    s->left.store(Cells + last + kept_by, std::memory_order_relaxed);       // ours alone until it is linked
    s->previous = previous;
    s->number = number;
    return s;
  }

  // Takes out what is over, and what comes to be meanwhile.
  void sweep(const pin& here) noexcept {
    segment* busy = nullptr;
    do {
      segment* s = over_.exchange(sweeping(), std::memory_order_acq_rel);  // [over] O2
      while (s != nullptr && s != sweeping()) {
        segment* const link = s->link.load(std::memory_order_relaxed);  // ours alone
        Traits::schedule_point("sweeping");
        take_out(*s, here);
        s = link;
      }
      busy = sweeping();
    } while (!over_.compare_exchange_strong(busy, nullptr, std::memory_order_acq_rel,  // [over] O1
                                            std::memory_order_relaxed));  // a hint; the loop repeats
  }
  // It is not the last one. Who stands on it finds the way on.
  void take_out(segment& s, const pin& here) noexcept {
    segment* const next = s.next.load(std::memory_order_acquire);  // [row] R2
    next->previous = s.previous;
    pointer& before = s.previous != nullptr ? s.previous->next : first_;
    before.store(next, std::memory_order_release);  // [row] R1
    here.retire(s);
  }

  pointer first_{nullptr};
  pointer over_{nullptr};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/segment.hpp

// >>> sync/queue2.hpp - phase 2: a row of cells in which waiters and tokens meet, without any lock
HYBRIDLOOP_OPEN
namespace sync {

// A wait claims the next cell, a token the next one of its own count: so the first wait and the first token
// meet in the first cell, whoever comes first, and nobody looks for anybody. (N. Koval, D. Khalanskiy,
// D. Alistarh, CQS, 2023; what a collector does there, epochs do here.) A wait for n tokens claims n cells in
// a row, and keeps them until it has been told: who waits for millions at once waits better in another phase.
//
//   empty        nobody came yet
//   a waiter     waits. Whoever swaps it out, and nobody else, looks at it
//   token, token_closed   the token was first; or it found the waiter leaving
//   done         the waiter has got its token
//   leaving      somebody has it leave, and holds its place while the account is asked
//   cancelled    it has left. A token goes on to the next cell
//
// A token that finds `leaving` stays there, and who has the waiter leave passes it on, to the waiter or to
// the next cell. So a thread that is stopped there keeps one token, as one that is stopped with a
// token in hand does; all others go on.
//
// Who has put a token into a cell for somebody to find touches nothing after that: neither the queue, which may
// be gone, nor the cell. Whoever ends a cell does what is to be done about its segment before it
// tells its waiter.
//
// Edge [cell]: whoever takes from a cell sees what was done before it was put there. C1 a waiter or a token is put
// into the cell (release), or a waiter's share of tokens is counted in `pending` (release); C2 the cell is taken
// (acquire), or `pending` is found at 0 (acquire). Rule: C2 synchronises with C1; `pending` is changed by
// read-modify-writes while several may, so its 0 has each share behind it [intro.races].
template <class Traits, unsigned Cells = 32>
class basic_queue2 {
  template <class T>
  using atomic = typename Traits::template atomic<T>;
  using row = detail::segment_list<Traits, Cells>;
  using segment = typename row::segment;
  using cell = typename segment::cell;
  using pin = typename row::pin;
  using index = std::uint64_t;

 public:
  using traits = Traits;
  static constexpr int phase = 2;
  using told_list = detail::told_list<Traits>;
  using memory = typename row::memory;

  class node : public detail::waiter<Traits> {
   public:
    using detail::waiter<Traits>::waiter;

   private:
    friend class basic_queue2;

    // Its cells from `first` on, and the segment of the first. While `pending` is not 0, they are there for
    // whoever has been pinned before it looked.
    atomic<std::ptrdiff_t> pending{0};  // cells whose token it has not got, or joining
    atomic<std::ptrdiff_t> refused{0};  // tokens that said "closed"
    atomic<std::uint32_t> fixed{0};     // somebody has it leave, had, or it is still joining
    std::ptrdiff_t withdrawn = 0;       // cells that were cancelled
    std::ptrdiff_t cells = 0;
    index first = 0;
    segment* place = nullptr;
  };

  basic_queue2() noexcept = default;
  basic_queue2(const basic_queue2&) = delete;
  basic_queue2& operator=(const basic_queue2&) = delete;

  template <class Account>
  void join(node& w, Account&, told_list& out) noexcept {
    const pin here;
    segment* const from = row_.start(last_, here);
    w.cells = w.need;
    w.withdrawn = 0;
    w.refused.store(0, std::memory_order_relaxed);   // ours alone
    w.fixed.store(1, std::memory_order_relaxed);     // ours alone
    w.first = joined_.fetch_add(static_cast<index>(w.cells), std::memory_order_relaxed);  // ours alone: cells nobody had
    Traits::schedule_point("cells-claimed");
    w.place = row_.reach(from, w.first / Cells, here);
    row_.follow(last_, w.place, here);
    if (w.cells == 1) join_one(w, out, here);
    else join_many(w, out, here);
  }

  template <class Account>
  void send(std::ptrdiff_t n, wait_status status, Account&, told_list& out) noexcept {
    const pin here;
    deliver(n, status, out, here);
  }

  // After it has answered false once, it always does.
  template <class Account>
  bool leave(node& w, wait_status why, Account& account, told_list& out) noexcept {
    const pin here;
    if (w.pending.load(std::memory_order_acquire) == 0) return false;  // [cell] C2
    if (w.fixed.exchange(1, std::memory_order_acq_rel) != 0) return false;  // [cell] C2
    Traits::schedule_point("reserving");
    const std::ptrdiff_t reserved = reserve(w);
    if (reserved == 0) return false;
    Traits::schedule_point("leaving");
    const std::ptrdiff_t off = account.withdraw(reserved);
    if (off != 0) {
      w.status = why;
      w.withdrawn = off;
    }
    Traits::schedule_point("withdrawn");
    let_go(w, reserved - off, off, out, here);
    return off != 0;
  }

 private:
  enum : std::uintptr_t { empty, token, token_closed, done, leaving, cancelled };

  static std::uintptr_t name(node& w) noexcept { return reinterpret_cast<std::uintptr_t>(&w); }
  static std::uintptr_t token_of(wait_status status) noexcept { return status == wait_status::granted ? token : token_closed; }

  // ---- Who comes ----

  void join_one(node& w, told_list& out, const pin& here) noexcept {
    w.pending.store(1, std::memory_order_relaxed);  // ours alone until the CAS
    w.fixed.store(0, std::memory_order_relaxed);    // ours alone until the CAS
    std::uintptr_t seen = empty;
    cell& c = w.place->at(w.first);
    if (c.compare_exchange_strong(seen, name(w), std::memory_order_acq_rel)) return;  // [cell] C1, C2
    if (seen == token_closed) w.refused.store(1, std::memory_order_relaxed);  // ours alone: it was not let in
    w.pending.store(0, std::memory_order_relaxed);                            // ours alone: it was not let in
    settle(w, out, here);
  }

  // One more in `pending`, so that it is not told before it stands in all of them.
  void join_many(node& w, told_list& out, const pin& here) noexcept {
    w.pending.store(w.cells + 1, std::memory_order_relaxed);  // ours alone until the first CAS
    std::ptrdiff_t got = 1;
    segment* s = w.place;
    const index end = w.first + static_cast<index>(w.cells);
    for (index i = w.first; i != end; ++i) {
      s = row_.reach(s, i / Cells, here);
      std::uintptr_t seen = empty;
      if (s->at(i).compare_exchange_strong(seen, name(w), std::memory_order_acq_rel)) continue;  // [cell] C1, C2
      if (seen == token_closed) w.refused.fetch_add(1, std::memory_order_relaxed);  // ours alone; `pending` publishes it
      s->at(i).store(done, std::memory_order_relaxed);                              // ours alone: who leaves passes it by
      ++got;
    }
    row_.follow(last_, s, here);
    w.fixed.store(0, std::memory_order_release);  // [cell] C1
    Traits::schedule_point("joined");
    count(w, got, out, here);
  }

  // ---- Who brings tokens ----

  void deliver(std::ptrdiff_t n, wait_status status, told_list& out, const pin& here) noexcept {
    while (n != 0) {
      segment* const from = row_.start(first_, here);
      const auto many = static_cast<index>(n);
      const index i = sent_.fetch_add(many, std::memory_order_relaxed);  // ours alone: cells nobody had
      Traits::schedule_point("token-in-hand");
      n = static_cast<std::ptrdiff_t>(put(from, i, i + many, status, out, here));
    }
  }

  // One token into each of the cells; says how many were cancelled. After the last it touches nothing.
  index put(segment* s, index i, index end, wait_status status, told_list& out, const pin& here) noexcept {
    index cancelled_ones = 0;
    while (i != end) {
      s = row_.reach(s, i / Cells, here);
      const index there = s->number * Cells;
      if (there > i) {  // all in between are over, that is, cancelled
        const index to = there < end ? there : end;
        if (there > end) skip_to(there);
        cancelled_ones += to - i;
        i = to;
        continue;
      }
      row_.follow(first_, s, here);
      const index stop = there + Cells < end ? there + Cells : end;
      for (; i != stop; ++i) {
        if (!put_one(s->at(i), status, out, here)) ++cancelled_ones;
      }
    }
    return cancelled_ones;
  }

  // Nobody has been sent to the cells before `to`, so nobody will be.
  void skip_to(index to) noexcept {
    index seen = sent_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (seen < to && !sent_.compare_exchange_weak(seen, to, std::memory_order_relaxed)) {  // a hint; a cell that is over is passed by
    }
  }

  // False: cancelled.
  bool put_one(cell& c, wait_status status, told_list& out, const pin& here) noexcept {
    std::uintptr_t seen = c.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      if (seen == cancelled) return false;
      const bool waits = seen > cancelled;
      Traits::schedule_point("cell-seen");
      if (!c.compare_exchange_strong(seen, waits ? std::uintptr_t{done} : token_of(status), std::memory_order_acq_rel,  // [cell] C1, C2
                                     std::memory_order_relaxed)) {  // a hint; the loop repeats
        continue;
      }
      if (waits) feed(*reinterpret_cast<node*>(seen), status, out, here);
      return true;
    }
  }

  void feed(node& w, wait_status status, told_list& out, const pin& here) noexcept {
    if (status != wait_status::granted) w.refused.fetch_add(1, std::memory_order_relaxed);  // a hint; `pending` publishes it
    if (w.cells != 1) return count(w, 1, out, here);
    w.pending.store(0, std::memory_order_release);  // [cell] C1
    settle(w, out, here);
  }
  // So many of its cells are done, for the waiter. Who counts the last has it; others have touched it for
  // the last time.
  void count(node& w, std::ptrdiff_t n, told_list& out, const pin& here) noexcept {
    if (w.pending.fetch_sub(n, std::memory_order_acq_rel) == n) settle(w, out, here);  // [cell] C1, C2
  }

  // It has all that it will get. Its cells are over only now, when `pending` says so: until then who has it
  // leave may look at them.
  void settle(node& w, told_list& out, const pin& here) noexcept {
    const std::ptrdiff_t refused = w.refused.load(std::memory_order_relaxed);  // ours alone by now
    w.held += w.cells - w.withdrawn - refused;
    w.need = 0;
    if (refused != 0 && w.status == wait_status::granted) w.status = wait_status::closed;
    row_.finish_cells(w.place, w.first, static_cast<index>(w.cells), here);
    out.add(w);
  }

  // ---- Who goes ----

  // Its places, against tokens; says how many. Others had theirs already.
  std::ptrdiff_t reserve(node& w) noexcept {
    std::ptrdiff_t reserved = 0;
    segment* s = w.place;
    for (std::ptrdiff_t k = 0; k != w.cells; ++k) {
      const index i = w.first + static_cast<index>(k);
      s = next_of(s, i);
      if (s->number != i / Cells) break;  // it has been served meanwhile, all of it
      std::uintptr_t seen = name(w);
      if (s->at(i).compare_exchange_strong(seen, leaving, std::memory_order_acq_rel,  // [cell] C1, C2
                                           std::memory_order_relaxed)) {  // a hint; it is done
        ++reserved;
      }
    }
    return reserved;
  }

  // The first `back` of its places wait on, for tokens that are on their way; the other `off` are cancelled.
  // With the last of them it may be told, and be gone, unless something is left to count.
  void let_go(node& w, std::ptrdiff_t back, std::ptrdiff_t off, told_list& out, const pin& here) noexcept {
    std::ptrdiff_t counted = off, passed_on = 0, passed_on_closed = 0;
    segment* s = w.place;
    index i = w.first;
    for (std::ptrdiff_t reserved = back + off; reserved != 0; ++i) {
      s = next_of(s, i);
      cell& c = s->at(i);
      if (c.load(std::memory_order_relaxed) == done) continue;  // a hint; what was reserved is never done
      --reserved;
      if (back != 0) {
        --back;
        const std::uintptr_t got = give_back(c, w);
        if (got == token_closed) w.refused.fetch_add(1, std::memory_order_relaxed);  // a hint; `pending` publishes it
        if (got != leaving) ++counted;
      } else {
        const std::uintptr_t got = c.exchange(cancelled, std::memory_order_acq_rel);  // [cell] C1, C2
        if (got == token) ++passed_on;
        if (got == token_closed) ++passed_on_closed;
      }
    }
    if (counted != 0) count(w, counted, out, here);
    deliver(passed_on, wait_status::granted, out, here);
    deliver(passed_on_closed, wait_status::closed, out, here);
  }
  // What was found in its place: `leaving`, or a token.
  static std::uintptr_t give_back(cell& c, node& w) noexcept {
    std::uintptr_t seen = leaving;
    c.compare_exchange_strong(seen, name(w), std::memory_order_acq_rel);  // [cell] C1, C2
    return seen;
  }
  // While none of a waiter's segments is over they stand in a row.
  static segment* next_of(segment* s, index i) noexcept {
    return s->number < i / Cells ? s->next.load(std::memory_order_acquire) : s;  // [row] R2
  }

  // Who waits writes the first, who brings tokens the second.
  alignas(detail::cache_line) atomic<index> joined_{0};
  typename row::pointer last_{nullptr};
  alignas(detail::cache_line) atomic<index> sent_{0};
  typename row::pointer first_{nullptr};
  row row_;
};

}  // namespace sync
HYBRIDLOOP_CLOSE
// <<< sync/queue2.hpp

// >>> sync/queue3.hpp - phase 3: waiters linked through their own frames, served by whoever comes first; no lock, no heap
HYBRIDLOOP_OPEN
namespace sync {

// The list belongs to one thread at a time, the owner; nobody waits to be it. Who finds nobody at work is
// the owner at once. Everybody else leaves a request (a waiter that joins, one that leaves, a number of
// tokens), rings, and goes on; the ring that finds none before it makes an owner. The owner serves until it has
// answered every ring (combining: D. Hendler, I. Incze, N. Shavit, M. Tzafrir, 2010).
//
// Edge [inbox]: the owner sees what a request was made after. I1 a request is pushed, tokens are added (release);
// I2 the owner takes them all (acquire). Rule: only read-modify-writes change an inbox, so I2 meets every I1 in
// the release sequence of what it reads [intro.races]. I2 empties it and nobody else pops: no ABA.
//
// Edge [combine]: the list goes from owner to owner, and no request is overlooked.
//
//   who asks                                owner
//   C1  work: one inside                    C4  work: nobody -> one ring, or C3
//       request (I1)                            serves (I2)
//   C3  work: one ring, and not inside      C5  work: less the rings answered; others since ? serve again
//
// C3, C4 and C5 change one word, the owner's last touch is C5. A C3 before C5 is in what C5 reads, and its request
// before it; one behind C5 finds no ring and is an owner, with the list as C5 left it. Rule: each acquires and
// releases as it needs, all are read-modify-writes, so each synchronises with all before it [intro.races].
//
// Edge [quiet]: the destructor comes after everybody's last touch. C3, C5 release; Q1 it reads that nobody is inside
// and no ring stands (acquire). The request that ended the last wait is behind C1 of whoever made it, so
// that Q1 cannot read a word older than C1, though it may come before C3: that is what it waits for. Rule: coherence,
// and Q1 synchronises with all C3 and C5 in the release sequence that it reads [intro.races].
//
// Who leaves decides at once, by its waiter's verdict; the waiter is told when the owner has had the request,
// because that lies in the waiter. Served meanwhile, it is held back until then, and what it was given is passed on.
template <class Traits>
class basic_queue3 {
  using waiter = detail::waiter<Traits>;
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using traits = Traits;
  static constexpr int phase = 3;

  struct node : waiter {
    using waiter::waiter;

   private:
    friend basic_queue3;
    waiter* next_leaver = nullptr;
    atomic<std::uint32_t> verdict{said};
  };
  using told_list = detail::told_list<Traits>;

  basic_queue3() noexcept = default;
  basic_queue3(const basic_queue3&) = delete;
  basic_queue3& operator=(const basic_queue3&) = delete;
  // Who was told last may be here before others are on their way out: a few steps, or an owner's round.
  ~basic_queue3() {
    while (work_.load(std::memory_order_acquire) != 0 && home_.is_here()) Traits::kernel::yield();  // [quiet] Q1
  }

  template <class Account>
  void join(node& w, Account& account, told_list& out) noexcept {
    w.verdict.store(open, std::memory_order_relaxed);  // ours alone until it has joined
    if (begin_alone()) {
      judge each{out};
      list_.join(w, each);
    } else {
      enter();
      push(joins_, w, w.next);
      if (!ring()) return;
      take_requests(account, out);
    }
    serve(account, out);
  }

  template <class Account>
  void send(std::ptrdiff_t n, wait_status status, Account& account, told_list& out) noexcept {
    if (begin_alone()) {
      judge each{out};
      list_.send(n, status, each);
    } else {
      enter();
      Traits::schedule_point("entered");
      (status == wait_status::granted ? granted_ : closed_).fetch_add(n, std::memory_order_release);  // [inbox] I1
      if (!ring()) return;
      take_requests(account, out);
    }
    serve(account, out);
  }

  template <class Account>
  bool leave(node& w, wait_status why, Account& account, told_list& out) noexcept {
    std::uint32_t seen = open;
    if (!w.verdict.compare_exchange_strong(seen, promise(why), std::memory_order_relaxed,  // [inbox] brings the rest
                                           std::memory_order_relaxed)) {  // a hint; whoever was first has its way
      return false;
    }
    Traits::schedule_point("promised");
    if (begin_alone()) {
      let_go(w, account, out);
    } else {
      enter();
      push(leaves_, w, w.next_leaver);
      if (!ring()) return true;
      take_requests(account, out);
    }
    serve(account, out);
    return true;
  }

 private:
  // What is decided about a wait: nothing yet, how it ends, or that it ends by a leave on its way.
  static constexpr std::uint32_t open = 0;
  static constexpr std::uint32_t said = 1;
  static constexpr std::uint32_t promise(wait_status why) noexcept { return 2 + static_cast<std::uint32_t>(why); }

  // Rings in the lower bits of `work`, who is inside above them.
  using word = std::uint64_t;
  static constexpr word one_ring = 1;
  static constexpr word one_inside = word{1} << 40;
  static constexpr word rings_in(word seen) noexcept { return seen % one_inside; }
  static constexpr unsigned patience = 64;

  static node& as_node(waiter& w) noexcept { return static_cast<node&>(w); }

  // ---- Anybody ----

  bool begin_alone() noexcept {
    word nobody = 0;
    const bool alone = work_.compare_exchange_strong(nobody, one_ring, std::memory_order_acquire,  // [combine] C4
                                                     std::memory_order_relaxed);  // a hint; it asks others then
    if (alone) Traits::schedule_point("owner");
    return alone;
  }

  void enter() noexcept { work_.fetch_add(one_inside, std::memory_order_relaxed); }  // [combine] C1, [quiet]

  // The waiter may be gone as soon as it is in.
  static void push(atomic<waiter*>& inbox, waiter& w, waiter*& link) noexcept {
    Traits::schedule_point("entered");
    waiter* seen = inbox.load(std::memory_order_relaxed);  // a hint; the CAS decides
    do {
      link = seen;
    } while (!inbox.compare_exchange_weak(seen, &w, std::memory_order_release,  // [inbox] I1
                                          std::memory_order_relaxed));  // a hint; the loop repeats
  }

  // True: the caller is the owner. False: the queue may be gone.
  bool ring() noexcept {
    Traits::schedule_point("asked");
    return rings_in(work_.fetch_add(one_ring - one_inside, std::memory_order_acq_rel)) == 0;  // [combine] C3
  }

  // ---- The owner ----

  // Whoever has all tokens: to be told, unless a leave is on its way, which ends it.
  struct judge {
    void add(waiter& w) noexcept {
      std::uint32_t seen = open;
      as_node(w).verdict.compare_exchange_strong(seen, said, std::memory_order_relaxed,  // [inbox] brings the rest
                                                 std::memory_order_relaxed);  // a hint; a promise is no race
      if (seen == open || seen == said) out.add(w);
    }
    told_list& out;
  };

  // Until no ring is left unanswered; the queue may be gone then. Under a storm of them those whose wait is over
  // are told in between: should one destroy the queue, the destructor waits for C5.
  template <class Account>
  void serve(Account& account, told_list& out) noexcept {
    word rings = one_ring;
    for (unsigned rounds = 1;; ++rounds) {
      pass_on(account, out);
      Traits::schedule_point("served");
      const word seen = rings_in(work_.fetch_sub(rings, std::memory_order_acq_rel));  // [combine] C5
      if (seen == rings) return;
      rings = seen - rings;
      if (rounds % patience == 0) out.tell_all();
      take_requests(account, out);
    }
  }

  // Leaves are taken out first, and served last: whoever is in there has joined.
  template <class Account>
  void take_requests(Account& account, told_list& out) noexcept {
    judge each{out};
    Traits::schedule_point("requests-there");
    waiter* leaver = take_all(leaves_);
    Traits::schedule_point("leaves-taken");
    for (waiter* w = in_order(take_all(joins_)); w != nullptr;) {
      waiter* const after = w->next;
      list_.join(*w, each);
      w = after;
    }
    while (leaver != nullptr) {
      node& w = as_node(*leaver);
      leaver = w.next_leaver;
      let_go(w, account, out);
    }
    Traits::schedule_point("waiters-served");
    list_.send(take_all(granted_), wait_status::granted, each);
    list_.send(take_all(closed_), wait_status::closed, each);
  }

  // The debt goes down while the waiter has its place: what is not taken off comes to it.
  template <class Account>
  void let_go(node& w, Account& account, told_list& out) noexcept {
    const std::uint32_t promised = w.verdict.load(std::memory_order_relaxed);  // ours alone, once promised
    w.status = static_cast<wait_status>(promised - promise(wait_status{}));
    w.verdict.store(said, std::memory_order_relaxed);  // ours alone
    if (w.linked) {
      w.need -= account.withdraw(w.need);
      if (w.need != 0) return;
      list_.remove(w);
    }
    out.add(w);
  }

  // Tokens that came to those who had left.
  template <class Account>
  void pass_on(Account& account, told_list& out) noexcept {
    judge each{out};
    for (std::ptrdiff_t back = out.take_returned(); back != 0; back = out.take_returned()) {
      list_.send(account.pass_on(back), wait_status::granted, each);
    }
  }

  // Whoever asks rings behind it: what is not seen here is seen in the next round.
  template <class T>
  static T take_all(atomic<T>& inbox) noexcept {
    if (inbox.load(std::memory_order_relaxed) == T{}) return T{};  // a hint; the next round corrects it
    return inbox.exchange(T{}, std::memory_order_acquire);  // [inbox] I2
  }
  static waiter* in_order(waiter* last) noexcept {
    waiter* first = nullptr;
    while (last != nullptr) {
      waiter* const before = last->next;
      last->next = first;
      first = last;
      last = before;
    }
    return first;
  }

  // Everybody.
  detail::birthplace<Traits> home_;
  atomic<word> work_{0};
  atomic<waiter*> joins_{nullptr};
  atomic<waiter*> leaves_{nullptr};
  atomic<std::ptrdiff_t> granted_{0};
  atomic<std::ptrdiff_t> closed_{0};

  // The owner.
  detail::waiter_list<Traits> list_;
};

}  // namespace sync
HYBRIDLOOP_CLOSE
// <<< sync/queue3.hpp

// >>> sync/queue_locked.hpp - a small lock around waiters in their own frames: what phase 3 has to be better than
HYBRIDLOOP_OPEN
namespace sync {

// The way of Tokio's batch_semaphore: leaving costs O(1), nothing is allocated, nobody is told under the lock. What
// gives back the lock is the last touch: of those who had it, only who was told by one that had it later
// may destroy it, and a token of a sender that waits for the lock is one that somebody still needs.
template <class Traits>
class basic_queue_locked {
 public:
  using traits = Traits;
  static constexpr int phase = 3;

  struct node : detail::waiter<Traits> {
    using detail::waiter<Traits>::waiter;
  };
  using told_list = detail::told_list<Traits>;

  basic_queue_locked() noexcept = default;
  basic_queue_locked(const basic_queue_locked&) = delete;
  basic_queue_locked& operator=(const basic_queue_locked&) = delete;

  template <class Account>
  void join(node& w, Account&, told_list& out) noexcept {
    const hold locked(lock_);
    list_.join(w, out);
  }
  template <class Account>
  void send(std::ptrdiff_t n, wait_status status, Account&, told_list& out) noexcept {
    const hold locked(lock_);
    list_.send(n, status, out);
  }
  template <class Account>
  bool leave(node& w, wait_status why, Account& account, told_list& out) noexcept {
    const hold locked(lock_);
    return list_.leave(w, why, account, out);
  }

 private:
  class hold {
   public:
    explicit hold(detail::small_lock<Traits>& lock) noexcept : lock_(lock) { lock_.lock(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() { lock_.unlock(); }

   private:
    detail::small_lock<Traits>& lock_;
  };

  detail::small_lock<Traits> lock_;
  detail::waiter_list<Traits> list_;
};

}  // namespace sync
HYBRIDLOOP_CLOSE
// <<< sync/queue_locked.hpp

// >>> sync/wait_refs.hpp - what was waited for stays until those are out of it who gave up in the last moment
HYBRIDLOOP_OPEN
namespace detail {

// Whose deadline comes, or whose loop ends, takes itself out of what it waits for. Meanwhile it may be told, and so may
// all others, and the last of them destroy it. So a wait's own word says `leaving` first: who has been
// told by then touches it no more; who is told later is counted, by who tells it before it tells it. Who leaves counts
// itself as well, because it may be out of the account before it is told, and all that are in it are told then:
//
//   who leaves                              who tells it
//   R1  word: waits -> leaving              R5  word: waits -> told, and that is all. Or it says `leaving`:
//   R2  count += 1                          R6  count += 1
//   R3  leaves                              R7  word: -> told. It had left by then ? count -= 1
//   R4  word: leaving -> waits ?
//       count -= 1 : told, count -= 2
//
// The count is 0 unless somebody is on its way, so the destructor waits for a few steps, and for nobody who sleeps. (The
// condition variable of glibc counts all that wait, until they are awake: T. Riegel, 2016.)
//
// Edge [ref]: one less is the last touch of it all by who counts it off (release); R8 the destructor finds none (acquire).
// Rule: every change is a read-modify-write, so R8 meets each in the release sequence of what it reads
// [intro.races]. It reads nothing older than R6, which is behind R1 and before who leaves is told, nor than R2, before
// which it is still owed a token.
template <class Traits>
class wait_refs {
 public:
  wait_refs() noexcept = default;
  wait_refs(const wait_refs&) = delete;
  wait_refs& operator=(const wait_refs&) = delete;

  void add() noexcept { count_.fetch_add(1, std::memory_order_relaxed); }  // [ref] R2, R6
  void drop(std::uint32_t n = 1) noexcept { count_.fetch_sub(n, std::memory_order_release); }  // [ref] R4, R7
  void wait_for_all() const noexcept {
    while (count_.load(std::memory_order_acquire) != 0 && are_here()) Traits::kernel::yield();  // [ref] R8
  }

  // Whether this is the process in which they are on their way.
  bool are_here() const noexcept { return home_.is_here(); }

 private:
  typename Traits::template atomic<std::uint32_t> count_{0};
  birthplace<Traits> home_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/wait_refs.hpp

// >>> sync/primitive.hpp - an account and a queue: what semaphore, condvar and their kin are made of
HYBRIDLOOP_OPEN
namespace detail {

// Any thread. Each call ends by telling those whose wait is over, and touches nothing after that: who is
// told last may destroy it.
template <class Queue, class Account>
class primitive {
  using Traits = typename Queue::traits;

 public:
  using traits = Traits;
  using node = typename Queue::node;

  template <class... Args>
  explicit primitive(Args... args) noexcept : account(args...) {}
  primitive(const primitive&) = delete;
  primitive& operator=(const primitive&) = delete;
  ~primitive() { refs.wait_for_all(); }

  // Its need is in the account already.
  void join(node& w) noexcept {
    told_list<Traits> out;
    Traits::schedule_point("joining");
    queue_.join(w, account, out);
    finish(out);
  }
  void send(std::ptrdiff_t n, wait_status status) noexcept {
    if (n == 0) return;
    told_list<Traits> out;
    Traits::schedule_point("sending");
    queue_.send(n, status, account, out);
    finish(out);
  }
  bool leave(node& w, wait_status why) noexcept {
    told_list<Traits> out;
    const bool left = queue_.leave(w, why, account, out);
    finish(out);
    return left;
  }

  // What was given to somebody who is not there to take it.
  void give_back(node& w) noexcept {
    const std::ptrdiff_t n = w.held;
    if (n != 0) send(account.give(n), wait_status::granted);
  }
  // Whether who was told has what it waited for.
  static bool redeem(node&) noexcept { return true; }

  Account account;
  wait_refs<Traits> refs;

 private:
  // What those who left had taken is somebody else's first.
  void finish(told_list<Traits>& out) noexcept {
    if constexpr (Account::collects) {
      for (std::ptrdiff_t back = out.take_returned(); back != 0; back = out.take_returned()) {
        const std::ptrdiff_t owed = account.give(back);
        if (owed != 0) queue_.send(owed, wait_status::granted, account, out);
      }
    }
    out.tell_all();
  }

  Queue queue_;
};

inline void must_not_run_a_loop() {
  HYBRIDLOOP_CONTRACT(loop_frame::innermost() == nullptr,
                      "a thread that runs a loop may not block: use the form that takes the loop, or try_acquire()");
}

// Blocks, as somebody who has joined, until told or timed out. Who times out is told so too. Of who was told before
// that nothing is touched but its own frame.
template <class Core, class Waiter>
wait_status wait_until_told(Core& c, Waiter& w, nanos deadline) noexcept {
  do {
    if (!w.wait(deadline)) {
      w.leave(wait_status::timed_out);
      w.wait(never);
    }
  } while (!c.redeem(w));
  return w.status;
}

template <class Clock, class Rep, class Period>
nanos deadline_in(std::chrono::duration<Rep, Period> span) noexcept {
  const nanos length = to_nanos(span);
  return length == never ? length : saturating_add(read_clock<Clock>(), length);
}

// A deadline by another clock than the loop's: that one may be set, so it is asked again each time.
template <class Own, class Clock, class Duration, class Try>
bool wait_by_clock(std::chrono::time_point<Clock, Duration> deadline, const Try& attempt) {
  if constexpr (std::is_same_v<Own, Clock>) {
    return attempt(to_nanos(deadline));
  } else {
    const nanos end = to_nanos(deadline);
    if (end == never) return attempt(never);
    for (;;) {
      const nanos now = read_clock<Clock>();
      const nanos left = end > now ? saturating_add(end, -now) : 0;
      if (attempt(saturating_add(read_clock<Own>(), left))) return true;
      if (read_clock<Clock>() >= end) return false;
    }
  }
}

// A lock that its holder has not, until the end of the scope.
template <class Lock>
class given_back {
 public:
  explicit given_back(Lock& lock) : lock_(lock) { lock.unlock(); }
  given_back(const given_back&) = delete;
  given_back& operator=(const given_back&) = delete;
  ~given_back() { lock_.lock(); }

 private:
  Lock& lock_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/primitive.hpp

// >>> sync/thread_waiter.hpp - a thread that blocks until it is told
HYBRIDLOOP_OPEN
namespace detail {

// How long it pays to look before going to sleep, learned by each thread for itself: up to as long as a
// wake takes while looks end in time, half as long after each that did not, and then no more but for a try now and
// then, ever more seldom. None where the process has one CPU.
class patience {
 public:
  // True: it holds, by now. It is looked at ever more seldom, down to every so many pauses.
  template <class Kernel, class Condition>
  static bool look(const Condition& holds, std::uint32_t seldom = 1) noexcept {
    patience& mine = own();
    if (mine.span_ < shortest && !mine.tries_again<Kernel>()) return false;
    const bool hit = look_for(mine.span_, holds, seldom);
    mine.span_ = hit ? longest : mine.span_ / 2;
    if (hit) mine.rest_ = shortest_rest;
    return hit;
  }

 private:
  static constexpr std::uint32_t shortest = 500;  // nanoseconds
  static constexpr std::uint32_t longest = 16000;
  static constexpr std::uint32_t shortest_rest = 16;  // waits without a look, while looks pay now and then
  static constexpr std::uint32_t first_rest = 64;
  static constexpr std::uint32_t longest_rest = 1024;

  template <class Kernel>
  bool tries_again() noexcept {
    if (rested_++ < rest_) return false;
    rested_ = 0;
    rest_ = rest_ == 0 ? first_rest : rest_ < longest_rest ? 2 * rest_ : rest_;
    span_ = Kernel::usable_cpus() > 1 ? longest : 0;
    return span_ != 0;
  }

  template <class Condition>
  static bool look_for(std::uint32_t span, const Condition& holds, std::uint32_t seldom) noexcept {
    std::uint32_t step = 1;
    for (std::uint32_t left = pauses_in(span); left >= step; step = step < seldom ? 2 * step : step) {
      if (holds()) return true;
      left -= step;
      for (std::uint32_t i = 0; i != step; ++i) cpu_pause();
    }
    return holds();
  }
  static patience& own() noexcept {
    static thread_local patience mine;
    return mine;
  }

  std::uint32_t span_ = 0;
  std::uint32_t rest_ = 0;
  std::uint32_t rested_ = 0;
};

template <class Core>
class thread_waiter : public Core::node {
  using Traits = typename Core::traits;

 public:
  // Whoever is not the next waits for others first, longer than a look, and takes a CPU from them by looking.
  thread_waiter(Core& of, bool looks, unsigned words = 8) noexcept
      : Core::node(&tell_thread), of_(of), notice_(common_wait{&of, words}), looks_(looks) {}

  // False: the deadline came first.
  bool wait(nanos deadline) noexcept { return (looks_ && look()) || notice_.wait(deadline); }

  // As somebody who has joined. Told already, it stays so; else it is going to be told how this ends.
  void leave(wait_status why) noexcept {
    if (!notice_.leave()) return;  // [ref] R1
    Traits::schedule_point("giving-up");
    of_.refs.add();  // [ref] R2
    of_.leave(*this, why);
    of_.refs.drop(notice_.stay() ? 1 : 2);  // [ref] R4
  }

  // It was told in vain, and is going to be told again.
  void again() noexcept { notice_.forget(); }

 private:
  static constexpr std::uint32_t done = 1;

  bool look() const noexcept {
    return patience::look<typename Traits::kernel>([this] { return notice_.told() != notice<Traits>::nothing; });
  }
  static void tell_thread(waiter<Traits>& w, nudges<Traits>& later) noexcept {
    auto& me = static_cast<thread_waiter&>(w);
    if (!me.notice_.tell_who_stays(done, later)) tell_who_leaves(me, later);  // [ref] R5
  }
  static void tell_who_leaves(thread_waiter& me, nudges<Traits>& later) noexcept {
    Core& of = me.of_;
    of.refs.add();  // [ref] R6
    Traits::schedule_point("kept");
    if (me.notice_.tell(done, later)) of.refs.drop();  // [ref] R7
  }

  Core& of_;
  notice<Traits> notice_;
  const bool looks_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/thread_waiter.hpp

// >>> sync/loop_waiter.hpp - one who is told on a loop: what callbacks and coroutines have in common
HYBRIDLOOP_OPEN
namespace detail {

// Registered with its loop, then entered into what it waits for, then armed; whoever comes in between, be
// it a grant, its deadline or the end of the loop, leaves a mark, and arming finds it. From being told on
// it is its loop's: a task delivers it. A closed loop takes no task: then it gives back what it
// was granted, and waits for the loop's end to collect it.
//
// Edge [arm]: E1 who arms it has written all of it (release), E2 whoever finds it armed may touch it (acquire);
// and the other way round: what a mark says was written before it. Rule: every change of the marks is a
// read-modify-write, one release sequence [intro.races]; of two, one comes first and the other finds it.
template <class Core>
class loop_waiter : public Core::node, public visitor<typename Core::traits> {
 public:
  using traits = typename Core::traits;

 private:
  using visitor_type = visitor<traits>;
  using call = typename visitor_type::call;
  using loop_core = core<traits>;

 public:
  // How it ends, on the loop thread or, unheard, wherever the loop ends: its last touch.
  using conclude_type = void (*)(loop_waiter&, bool heard);

  template <class Build>
  loop_waiter(Build, loop_core& home, Core& of, conclude_type conclude) noexcept
      : Core::node(&tell_on_loop<Build>), visitor_type(&hear<Build>), home_(&home), of_(&of), conclude_(conclude) {}

  loop_core& home() const noexcept { return *home_; }
  Core& of() const noexcept { return *of_; }

  // The thread that makes it. False: the loop is closed, and nothing has happened. Throws what arming a
  // timer does, and then too. Calls entered() as soon as neither can be; the waiter is gone afterwards.
  template <class Build, class Entered>
  bool wait(basic_loop<traits>& l, std::ptrdiff_t n, nanos deadline, const Entered& entered) {
    const bool in_time = deadline == never || deadline > loop_core::read_now();
    if (in_time && deadline != never) {
      const auto late = [this] { mark(due); };
      timer_ = l.template at<decltype(late)&, Build>(from_nanos<typename traits::clock>(deadline), late);
      if (!timer_) return false;
    } else if (home_->in.closed()) {
      return false;
    }
    traits::schedule_point("coming");
    home_->runs_here() ? home_->visitors_.add(*this) : home_->visitors_.send_in(*this);
    entered();
    traits::schedule_point("registered");
    if (of_->enter(*this, n, in_time)) {
      marks_.fetch_or(told, std::memory_order_relaxed);  // ours alone: it waits nowhere
    }
    // The loop's end may have come by before this was known there. [visit]
    if (home_->in.closed()) marks_.fetch_or(ending, std::memory_order_relaxed);  // ours alone: arm() heeds it
    traits::schedule_point("arming");
    arm<Build>();
    return true;
  }

  // It was told in vain, and is going to be told again. What was put off because it was told comes now. The
  // loop thread.
  void again() noexcept {
    const std::uint32_t before = marks_.fetch_and(~std::uint32_t{told}, std::memory_order_acq_rel);  // [arm] E1, E2
    if ((before & cut_short) != 0) of_->leave(*this, status_for(before));
  }

 private:
  enum : std::uint32_t { armed = 1, told = 2, due = 4, ending = 8, cut_short = due | ending, stranded = 16, leaving = 32 };

  // Posted when it is to be delivered. Destroyed unrun, the loop has ended.
  struct delivery {
    explicit delivery(loop_waiter& w) noexcept : whose(&w) {}
    delivery(delivery&& other) noexcept : whose(std::exchange(other.whose, nullptr)) {}
    delivery& operator=(delivery&&) = delete;
    ~delivery() {
      if (whose != nullptr) whose->pass_by();
    }
    void operator()() { std::exchange(whose, nullptr)->arrive(); }
    loop_waiter* whose;
  };

  template <class Build>
  static void tell_on_loop(waiter<traits>& w, nudges<traits>&) noexcept {
    auto& me = static_cast<loop_waiter&>(static_cast<typename Core::node&>(w));
    std::uint32_t seen = armed;
    while (!me.marks_.compare_exchange_strong(seen, seen | told, std::memory_order_acq_rel,  // [arm] E1, E2, [ref] R5
                                              std::memory_order_relaxed)) {  // a hint; the loop repeats
      if ((seen & leaving) != 0) {
        seen = me.tell_who_leaves();
        break;
      }
    }
    if ((seen & armed) != 0) me.template deliver<Build>();
  }
  std::uint32_t tell_who_leaves() noexcept {
    Core* const of = of_;
    of->refs.add();  // [ref] R6
    traits::schedule_point("kept");
    const std::uint32_t before = marks_.fetch_or(told, std::memory_order_acq_rel);  // [arm] E1, E2, [ref] R7
    if ((before & leaving) == 0) of->refs.drop();  // [ref] R7
    return before;
  }

  // From the CAS on it may be delivered at any time, and be gone. So what came before that is dealt with before.
  template <class Build>
  void arm() noexcept {
    std::uint32_t seen = marks_.load(std::memory_order_acquire);  // [arm] E2
    for (bool left = false;;) {
      const bool leaves = !left && (seen & told) == 0 && (seen & cut_short) != 0;
      if (!marks_.compare_exchange_weak(seen, seen | (leaves ? leaving : armed), std::memory_order_acq_rel,  // [arm] E1, E2, [ref] R1
                                        std::memory_order_acquire)) {  // [arm] E2
        continue;
      }
      if (!leaves) break;
      left = true;
      leave_for(seen);
      seen = marks_.load(std::memory_order_acquire);  // [arm] E2
    }
    if ((seen & told) != 0) deliver<Build>();
  }

  // Needs no memory but what the loop has: whoever finds no room there is let in a turn later, and so is who
  // comes after that.
  template <class Build>
  void deliver() noexcept {
    loop_core& c = *home_;
    auto& bell = c.door;
    if ((!c.visitors_.has_late() || c.in.closed()) && send<Build>()) return;
    c.visitors_.be_late(*this);
    bell.tell(status::wanted);
  }
  // False: there is no room.
  template <class Build>
  bool send() noexcept {
    delivery mine(*this);
    const post_result sent = home_->template post<Build>(std::move(mine), overflow::fail);
    if (sent == post_result::accepted) return true;
    mine.whose = nullptr;
    if (sent == post_result::closed) strand();
    return sent == post_result::closed;
  }

  // The loop thread. Where nothing in the full queues can run, all slots are held by tasks that this one runs
  // inside of; then nobody is overtaken by another way.
  template <class Build>
  void come_in() noexcept {
    loop_core& c = *home_;
    if (send<Build>() || (!c.in.can_run() && put_aside(c))) return;
    c.visitors_.be_late(*this);
    c.door.tell(status::wanted);
  }
  bool put_aside(loop_core& c) noexcept {
    unique_task::room<delivery> space(c.in.blocks());
    if (!space.had() || !c.deferred.make_room()) return false;
    unique_task task;
    task.emplace(space, delivery(*this));
    c.deferred.push(std::move(task));
    return true;
  }

  // The loop thread.
  void mark(std::uint32_t reason) noexcept {
    std::uint32_t seen = marks_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    bool leaves = false;
    do {
      leaves = (seen & (armed | told)) == armed;
    } while (!marks_.compare_exchange_weak(seen, seen | reason | (leaves ? leaving : 0u), std::memory_order_acq_rel,  // [arm] E1, E2, [ref] R1
                                           std::memory_order_relaxed));  // a hint; the loop repeats
    if (leaves) leave_for(reason);
  }
  // It said that it is leaving before it was told.
  void leave_for(std::uint32_t reasons) noexcept {
    Core* const of = of_;
    traits::schedule_point("giving-up");
    of->refs.add();  // [ref] R2
    of->leave(*this, status_for(reasons));
    const std::uint32_t before = marks_.fetch_and(~std::uint32_t{leaving}, std::memory_order_acq_rel);  // [arm] E1, E2, [ref] R4
    of->refs.drop((before & told) != 0 ? 2 : 1);  // [ref] R4
  }
  static wait_status status_for(std::uint32_t reasons) noexcept {
    return (reasons & ending) != 0 ? wait_status::closed : wait_status::timed_out;
  }

  // What one gives back may be granted to the next that no loop takes, and so on: one after the other, and
  // not one inside the other, because they may be many.
  void strand() noexcept {
    static thread_local visitor_type* last = nullptr;
    this->next_late = nullptr;
    const bool inside = last != nullptr;
    if (inside) last->next_late = this;
    last = this;
    if (inside) return;
    for (loop_waiter* w = this; w != nullptr;) {
      w->give_back();
      auto* const after = static_cast<loop_waiter*>(w->next_late);
      if (after == nullptr) last = nullptr;
      w->marks_.fetch_or(stranded, std::memory_order_release);  // [arm] E1
      w = after;
    }
  }
  void give_back() noexcept {
    if (this->status == wait_status::granted) of_->give_back(*this);
  }

  // The loop thread.
  void arrive() {
    if (!of_->redeem(*this)) return;
    const bool ended = (marks_.load(std::memory_order_relaxed) & ending) != 0;  // ours alone: the loop thread's own mark
    go(!ended || this->status != wait_status::closed);
  }
  // Who destroys the loop, or heeds its close.
  void pass_by() noexcept {
    give_back();
    go(false);
  }
  void go(bool heard) {
    if (timer_) home_->timers_.cancel(timer_);
    home_->visitors_.remove(*this);
    conclude_(*this, heard);
  }

  template <class Build>
  static void hear(visitor_type& v, call what) noexcept {
    auto& me = static_cast<loop_waiter&>(v);
    if (what == call::come_in) return me.template come_in<Build>();
    if (what == call::loop_ends) me.mark(ending);
    if ((me.marks_.load(std::memory_order_acquire) & stranded) != 0) me.go(false);  // [arm] E2
  }

  loop_core* const home_;
  Core* const of_;
  const conclude_type conclude_;
  timer_id timer_;
  typename traits::template atomic<std::uint32_t> marks_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/loop_waiter.hpp

// >>> sync/callback.hpp - callbacks that wait, and the tickets by which they are cancelled
HYBRIDLOOP_OPEN
namespace detail {

template <class Traits>
struct ticket_access;

}  // namespace detail

template <class Clock>
struct basic_wait_options {
  std::ptrdiff_t n = 1;  // how many permits
  std::optional<typename Clock::time_point> deadline;

  detail::nanos end() const noexcept { return deadline ? detail::to_nanos(*deadline) : detail::never; }
};

// Names one wait. Copyable; may outlive the wait, what was waited for, and the loop. False in a
// condition: none.
template <class Traits>
class basic_wait_ticket {
 public:
  basic_wait_ticket() noexcept = default;

  explicit operator bool() const noexcept { return static_cast<bool>(home_); }
  friend bool operator==(const basic_wait_ticket& a, const basic_wait_ticket& b) noexcept {
    return a.home_ == b.home_ && a.index_ == b.index_ && a.generation_ == b.generation_;
  }
  friend bool operator!=(const basic_wait_ticket& a, const basic_wait_ticket& b) noexcept { return !(a == b); }

 private:
  template <class>
  friend struct detail::ticket_access;

  detail::core_ref<Traits> home_;
  std::uint32_t index_ = 0;
  std::uint32_t generation_ = 0;
};

namespace detail {

// Stands in a record of its loop. What it calls is moved out before it is called; the rest of it needs no
// destructor, because who cancels may still be looking at it then.
template <class Core>
class callback_waiter : public loop_waiter<Core> {
  using traits = typename Core::traits;
  using base = loop_waiter<Core>;
  using record = wait_record<traits>;

 public:
  using callback = basic_task<wait_status>;

  template <class Build>
  callback_waiter(Build built, core<traits>& home, Core& of, record& mine) noexcept
      : base(built, home, of, &conclude), record_(mine) {
    static_assert(sizeof(callback_waiter) <= record::room, "a waiter and its callback fit a record");
  }

  callback f;

  static void free(core<traits>& home, record& r) noexcept {
    r.renew();
    home.waits_.give(r.index);
  }

 private:
  static void conclude(base& w, bool heard) {
    auto& me = static_cast<callback_waiter&>(w);
    callback f = std::move(me.f);
    const wait_status status = me.status;
    core<traits>& home = me.home();
    record& mine = me.record_;
    if (mine.end()) free(home, mine);
    if (heard) f(status);
  }

  record& record_;
};

template <class Traits>
struct ticket_access {
  using ticket = basic_wait_ticket<Traits>;
  using loop_core = core<Traits>;

  static ticket make(loop_core& home, std::uint32_t index, std::uint32_t generation) noexcept {
    ticket made;
    made.home_ = core_ref<Traits>(home);
    made.index_ = index;
    made.generation_ = generation;
    return made;
  }

  // While it stands, the wait's record is not used for another.
  class pinned {
   public:
    explicit pinned(const ticket& t) noexcept {
      if (!t.home_) return;
      wait_record<Traits>& there = t.home_->waits_.at(t.index_);
      if (!there.pin(t.generation_)) return;
      home_ = &*t.home_;
      record_ = &there;
    }
    pinned(const pinned&) = delete;
    pinned& operator=(const pinned&) = delete;
    ~pinned() {
      if (record_ == nullptr || !record_->unpin()) return;
      record_->renew();
      home_->waits_.give(record_->index);
    }
    wait_record<Traits>* get() const noexcept { return record_; }

   private:
    loop_core* home_ = nullptr;
    wait_record<Traits>* record_ = nullptr;
  };
};

template <class Build, class Core, class F>
basic_wait_ticket<typename Core::traits> wait_on_loop(Core& of, basic_loop<typename Core::traits>& l, F&& f,
                                                      std::ptrdiff_t n, nanos deadline) {
  using traits = typename Core::traits;
  using waiting = callback_waiter<Core>;
  using closure = std::decay_t<F>;
  core<traits>& home = loop_access<traits>::core_of(l);
  typename waiting::callback::template room<closure> place(home.in.blocks());
  const std::uint32_t index = place.had() ? home.waits_.take() : slab<traits, wait_record<traits>>::none;
  if (index == slab<traits, wait_record<traits>>::none) {
    refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: wait");
  }
  wait_record<traits>& record = home.waits_.at(index);
  auto* const made = ::new (static_cast<void*>(record.storage)) waiting(Build(), home, of, record);
  record.of = &of;
  const std::uint32_t generation = record.open();
  struct unless_waiting {
    core<traits>& home;
    wait_record<traits>* record;
    waiting* made;
    ~unless_waiting() {
      if (record == nullptr) return;
      made->f.reset();
      if (record->end()) waiting::free(home, *record);
    }
  };
  unless_waiting undo{home, &record, made};
  made->f.template emplace<closure>(place, std::forward<F>(f));
  auto ticket = ticket_access<traits>::make(home, index, generation);
  const bool waits = made->template wait<Build>(l, n, deadline, [&undo] { undo.record = nullptr; });
  if (!waits) return {};
  return ticket;
}

template <class Core>
bool cancel_wait(Core& of, const basic_wait_ticket<typename Core::traits>& wait) noexcept {
  const typename ticket_access<typename Core::traits>::pinned here(wait);
  if (here.get() == nullptr || here.get()->of != &of) return false;
  auto& w = *reinterpret_cast<callback_waiter<Core>*>(here.get()->storage);
  return of.leave(w, wait_status::cancelled);
}

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/callback.hpp

// >>> sync/awaiter.hpp - coroutines that wait: `co_await`, without a coroutine type of ours
HYBRIDLOOP_OPEN
namespace detail {

// Stands in the coroutine's frame, and needs nothing else. The coroutine goes on in a task of that loop, or at
// once where it is on that loop already and there is nothing to wait for. Any handle that has address() and
// from_address() will do, so this is C++17.
template <class Core>
class [[nodiscard]] wait_awaiter : loop_waiter<Core> {
  using traits = typename Core::traits;
  using base = loop_waiter<Core>;

 public:
  template <class Build>
  wait_awaiter(Build built, basic_loop<traits>& l, Core& of, std::ptrdiff_t n, nanos deadline) noexcept
      : base(built, loop_access<traits>::core_of(l), of, &conclude), loop_(l), n_(n), deadline_(deadline) {}
  ~wait_awaiter() {
    HYBRIDLOOP_CONTRACT(!suspended_, "a coroutine that waits may not be destroyed before its wait is over, or its loop");
  }

  bool await_ready() noexcept { return this->home().runs_here() && this->of().enter_at_once(*this, n_); }

  // A closed loop: the coroutine goes on at once, and hears so.
  template <class Handle, class Build = build_tag>
  bool await_suspend(Handle frame) {
    frame_ = frame.address();
    resume_ = [](void* f) { Handle::from_address(f).resume(); };
    struct unless_waiting {
      bool* flag;
      ~unless_waiting() {
        if (flag != nullptr) *flag = false;
      }
    };
    suspended_ = true;
    unless_waiting undo{&suspended_};
    // Where it does wait, all of this may be gone by now.
    const bool waits = this->template wait<Build>(loop_, n_, deadline_, [&undo] { undo.flag = nullptr; });
    if (!waits) this->status = wait_status::closed;
    return waits;
  }

  wait_status await_resume() const noexcept { return this->status; }

 private:
  // Unheard, it stays suspended; whoever owns the frame may destroy it now.
  static void conclude(base& w, bool heard) {
    auto& me = static_cast<wait_awaiter&>(w);
    me.suspended_ = false;
    if (heard) me.resume_(me.frame_);
  }

  basic_loop<traits>& loop_;
  const std::ptrdiff_t n_;
  const nanos deadline_;
  void* frame_ = nullptr;
  void (*resume_)(void*) = nullptr;
  bool suspended_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/awaiter.hpp

// >>> sync/permits.hpp - what a semaphore does with a released permit: hand it to whoever has waited longest
HYBRIDLOOP_OPEN
namespace sync {

// A released permit goes to whoever has waited longest. Nobody starves, and nobody overtakes.
struct fifo {};

}  // namespace sync

namespace detail {

// Any thread, everything. What a primitive is to those who wait for it:
//
//   take(n)             all of n at once, or how many of them until the rest comes; less than 0: closed
//   queue_up(w, n, had) after a take() that was not enough. True: settled at once, and w says how
//   enter(w, n, ...)    both. Who may not wait is told that time ran out
//   enter_at_once(w, n) false: there is too little
//   look_for(n)         whether they could be had by looking for a moment, before it queues up
//   is_next(n)          a hint, behind take() and before queue_up(): nobody waits before it
//   leave(w, why)       as a queue's; not before w has queued up
//   redeem(w)           whoever was told asks whether that is all, and waits again if not
//   give_back(n)        what was granted to somebody who is not there to take it
template <class Queue, class Fairness>
class permits;

template <class Queue>
class permits<Queue, sync::fifo> : public primitive<Queue, permit_account<typename Queue::traits>> {
  using base = primitive<Queue, permit_account<typename Queue::traits>>;

 public:
  using typename base::node;
  using base::account;
  static constexpr std::ptrdiff_t most = decltype(base::account)::most;

  explicit permits(std::ptrdiff_t n) noexcept : base(n) {}

  std::ptrdiff_t take(std::ptrdiff_t n) noexcept { return account.take(n); }
  bool try_take(std::ptrdiff_t n) noexcept { return account.try_take(n); }
  void give(std::ptrdiff_t n) noexcept {
    const std::ptrdiff_t owed = account.give(n);
    if (owed != 0) this->send(owed, wait_status::granted);
  }
  void close() noexcept { this->send(account.close(), wait_status::closed); }

  // Less than all of n goes to whoever has waited longest, as any permit: who kept it, and came into the queue behind
  // one that came later for several, would wait for that one, and that one for what is kept.
  bool queue_up(node& w, std::ptrdiff_t n, std::ptrdiff_t had) noexcept {
    w.begin(n, had == n ? n : 0);
    if (had < 0) w.status = wait_status::closed;
    if (had == n || had < 0) return true;
    this->send(had, wait_status::granted);
    this->join(w);
    return false;
  }
  bool enter(node& w, std::ptrdiff_t n, bool may_wait) noexcept {
    if (may_wait) return queue_up(w, n, take(n));
    if (enter_at_once(w, n)) return true;
    w.status = account.closed() ? wait_status::closed : wait_status::timed_out;
    return true;
  }
  bool enter_at_once(node& w, std::ptrdiff_t n) noexcept {
    const bool had = try_take(n);
    w.begin(n, had ? n : 0);
    return had;
  }
  static bool look_for(std::ptrdiff_t) noexcept { return false; }
  bool is_next(std::ptrdiff_t n) const noexcept { return account.owed() <= n; }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/permits.hpp

// >>> sync/barging.hpp - what a semaphore does with a released permit: put it back, and wake one to compete for it
HYBRIDLOOP_OPEN
namespace sync {

// A released permit is anybody's, and the one that has waited longest is woken to compete for it. Robbed, it
// waits on in front of all others. No promise of fairness; many times the throughput where threads block.
struct barging {};

}  // namespace sync

namespace detail {

// One of those who wait is the delegate while there is somebody to be woken: on its way, or in front of the
// queue again. So a stream of releases wakes one, not all, and
//
//   permits enough for one who is in the queue  =>  there is a delegate
//
// holds at each step: who makes it so names one in the same step, and the delegate, when it has taken
// its permits, names the next if there are more.
template <class Traits>
class barging_account {
 public:
  static constexpr bool collects = false;
  static constexpr std::ptrdiff_t most = 0x7fffffff;
  enum class answer : std::uint8_t { taken, closed, too_few };
  struct verdict {
    answer what;
    bool next;  // somebody is the delegate now: a token is to be sent
  };

  explicit barging_account(std::ptrdiff_t permits) noexcept : word_(of(permits)) {}

  bool may_have(std::ptrdiff_t n) const noexcept { return has(word_.load(std::memory_order_relaxed), n); }  // a hint
  bool try_take(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (has(seen, n)) {
      if (change(seen, seen - of(n))) return true;
    }
    return false;
  }

  // Takes them, or is in the queue's count from now on.
  answer enter(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      if ((seen & closed_bit) != 0) return answer::closed;
      HYBRIDLOOP_CONTRACT((seen & waiting_bits) != waiting_bits, "no more than 4194303 wait for a semaphore that barges");
      const bool there = has(seen, n);
      if (change(seen, there ? seen - of(n) : seen + one_waiting)) return there ? answer::taken : answer::too_few;
    }
  }

  // The delegate. With too few it is that still.
  verdict compete(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_seq_cst);  // [front] F8
    for (;;) {
      const bool there = has(seen, n);
      if (!there && (seen & closed_bit) == 0) return {answer::too_few, false};
      const value after = there ? resigned(seen - of(n)) : seen & ~delegate;
      if (change(seen, after)) return {there ? answer::taken : answer::closed, (after & delegate) != 0};
    }
  }
  // Whether it would be worth the delegate's while.
  bool worth(std::ptrdiff_t n) const noexcept {
    const value seen = word_.load(std::memory_order_seq_cst);  // [front] F8
    return has(seen, n) || (seen & closed_bit) != 0;
  }
  bool resign() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      const value after = resigned(seen);
      if (change(seen, after)) return (after & delegate) != 0;
    }
  }

  // The delegate had left before it was called.
  std::ptrdiff_t pass_on(std::ptrdiff_t) noexcept { return resign() ? 1 : 0; }

  enum class errand : std::uint8_t { none, call, send };
  errand give(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      HYBRIDLOOP_CONTRACT(permits_of(seen) <= most - n, "a semaphore has no more than max() permits");
      const bool call = (seen & delegate) != 0;
      const bool send = !call && (seen & closed_bit) == 0 && (seen & waiting_bits) != 0;
      if (call && !may_call(seen)) continue;
      const value after = seen + of(n) + (call ? one_call : send ? delegate - one_waiting : 0);
      if (change(seen, after)) return send ? errand::send : call ? errand::call : errand::none;
    }
  }

  // Whoever looks at the front when it has changed the word, or is about to, is counted in the word: the
  // delegate may not need its call, be done, and destroy it all.
  void begin_call() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (!may_call(seen) || !change(seen, seen + one_call)) {
    }
  }
  void end_call() noexcept { word_.fetch_sub(one_call, std::memory_order_release); }  // [call] C8
  bool called() const noexcept { return (word_.load(std::memory_order_acquire) & call_bits) != 0; }  // [call] C9

  std::ptrdiff_t withdraw(std::ptrdiff_t) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while ((seen & waiting_bits) != 0) {
      if (change(seen, seen - one_waiting)) return 1;
    }
    return 0;
  }

  // How many are in the queue. It is a call as well.
  std::ptrdiff_t close() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (!may_call(seen) || !change(seen, ((seen & ~waiting_bits) | closed_bit) + one_call)) {
    }
    return static_cast<std::ptrdiff_t>((seen & waiting_bits) / one_waiting);
  }
  bool closed() const noexcept { return (word_.load(std::memory_order_relaxed) & closed_bit) != 0; }  // a hint; it may change at once

  std::ptrdiff_t forget(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      const std::ptrdiff_t there = permits_of(seen);
      const std::ptrdiff_t off = there < n ? there : n;
      if (off == 0 || change(seen, seen - of(off))) return off;
    }
  }
  std::ptrdiff_t available() const noexcept { return permits_of(word_.load(std::memory_order_relaxed)); }  // a hint; it may change at once

 private:
  using value = std::uint64_t;
  static constexpr value closed_bit = 1;
  static constexpr value delegate = 2;
  static constexpr value one_call = 4;
  static constexpr value call_bits = 0x3fc;
  static constexpr value one_waiting = 0x400;
  static constexpr value waiting_bits = 0xfffffc00;

  static constexpr value of(std::ptrdiff_t permits) noexcept { return static_cast<value>(permits) << 32; }
  static constexpr std::ptrdiff_t permits_of(value word) noexcept { return static_cast<std::ptrdiff_t>(word >> 32); }
  static constexpr bool has(value word, std::ptrdiff_t n) noexcept {
    return permits_of(word) >= n && (word & closed_bit) == 0;
  }
  // The delegate is none any more; another is, where there is something to take.
  static constexpr value resigned(value word) noexcept {
    const bool next = permits_of(word) > 0 && (word & waiting_bits) != 0 && (word & closed_bit) == 0;
    return next ? word - one_waiting : word & ~delegate;
  }

  // So many calls at once that they cannot be counted: some are over in a moment.
  bool may_call(value& seen) noexcept {
    if ((seen & call_bits) != call_bits) return true;
    Traits::kernel::yield();
    seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    return false;
  }
  // False: somebody else was there first. The line is left to them for a moment, so that they get on with
  // what they do (D. Dice et al., Lightweight contention management, 2013).
  bool change(value& seen, value after) noexcept {
    if (word_.compare_exchange_weak(seen, after, std::memory_order_seq_cst,  // [permit] A1, A2, [front] F5
                                    std::memory_order_relaxed)) {  // a hint; it looks again
      return true;
    }
    for (int i = 0; i < 8; ++i) cpu_pause();
    seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    return false;
  }

  typename Traits::template atomic<value> word_;
};

// Edge [front]: a delegate that waits in front is not overlooked.
//
//   delegate                                whoever gives, closes, or has it leave
//   F7  front = w                           F5  permits there, or closed, or w's fate said
//   F8  nothing to take? not told to leave? F6  front ? tell it
//       sleep
//
// All are seq_cst, so they stand in one order: either F8 sees F5, or F6 sees F7. Who takes w out of `front` by an
// exchange or a CAS tells it; if that is the delegate itself, nobody does. Rule: that order [atomics.order].
//
// Edge [call]: who looks at the front is not destroyed under. C8 it has looked (release); C9 the destructor sees
// that nobody does (acquire). Rule: every change is a read-modify-write, so C9 meets each C8 [intro.races].
template <class Queue>
class permits<Queue, sync::barging> : public primitive<Queue, barging_account<typename Queue::traits>> {
  using Traits = typename Queue::traits;
  using base = primitive<Queue, barging_account<Traits>>;
  using account_type = barging_account<Traits>;
  using answer = typename account_type::answer;

 public:
  using base::account;
  static constexpr std::ptrdiff_t most = account_type::most;

  struct node : base::node {
    using base::node::node;
    std::ptrdiff_t asked = 0;
    typename Traits::template atomic<std::uint32_t> fate{open};
  };

  explicit permits(std::ptrdiff_t n) noexcept : base(n) {}
  permits(const permits&) = delete;
  permits& operator=(const permits&) = delete;
  ~permits() {
    while (account.called() && this->refs.are_here()) Traits::kernel::yield();
  }

  bool try_take(std::ptrdiff_t n) noexcept { return account.try_take(n); }
  std::ptrdiff_t take(std::ptrdiff_t n) noexcept { return try_take(n) ? n : -1; }  // queue_up() asks why

  void give(std::ptrdiff_t n) noexcept {
    switch (account.give(n)) {
      case account_type::errand::none: return;
      case account_type::errand::call: return call_front();
      case account_type::errand::send: return this->send(1, wait_status::granted);
    }
  }
  void close() noexcept {
    const std::ptrdiff_t waiting = account.close();
    this->send(waiting, wait_status::closed);
    call_front();
  }

  bool queue_up(node& w, std::ptrdiff_t n, std::ptrdiff_t had) noexcept {
    w.asked = n;
    if (had == n) return settle(w, wait_status::granted);
    switch (account.enter(n)) {
      case answer::taken: return settle(w, wait_status::granted);
      case answer::closed: return settle(w, wait_status::closed);
      case answer::too_few: break;
    }
    w.begin(1, 0);
    w.fate.store(open, std::memory_order_relaxed);  // ours alone until it joins
    this->join(w);
    return false;
  }
  bool enter(node& w, std::ptrdiff_t n, bool may_wait) noexcept {
    if (may_wait) return queue_up(w, n, take(n));
    if (enter_at_once(w, n)) return true;
    return settle(w, account.closed() ? wait_status::closed : wait_status::timed_out);
  }
  bool enter_at_once(node& w, std::ptrdiff_t n) noexcept {
    w.asked = n;
    return try_take(n) && settle(w, wait_status::granted);
  }
  bool look_for(std::ptrdiff_t n) noexcept {
    return patience::look<typename Traits::kernel>([this, n] { return account.may_have(n) && try_take(n); }, 16);
  }

  static bool is_next(std::ptrdiff_t) noexcept { return true; }  // anybody may be

  bool leave(node& w, wait_status why) noexcept {
    account.begin_call();
    std::uint32_t fate = open;
    const bool left = w.fate.compare_exchange_strong(fate, told_by(why), std::memory_order_seq_cst);  // [front] F5
    node* here = &w;
    const bool in_front = left && !base::leave(w, why) &&
                          front_.compare_exchange_strong(here, nullptr, std::memory_order_seq_cst);  // [front] F6
    account.end_call();
    if (in_front) w.tell_now();
    return left;
  }

  // The one that was told. W has again(): it is to be told once more.
  template <class W>
  bool redeem(W& w) noexcept {
    const std::uint32_t fate = w.fate.load(std::memory_order_acquire);  // [front] F8
    if (fate == over || w.status != wait_status::granted) return conclude(w, w.status);
    for (;;) {
      const auto got = account.compete(w.asked);
      if (got.next) this->send(1, wait_status::granted);
      if (got.what == answer::closed) return conclude(w, wait_status::closed);
      if (got.what == answer::taken) {
        if (!conclude_granted(w)) give(w.asked);
        return true;
      }
      if (w.fate.load(std::memory_order_acquire) != open) {  // [front] F8
        resign();
        return conclude(w, wait_status::granted);
      }
      if (waits_in_front(w)) return false;
    }
  }

  // It was told, and cannot take it.
  void give_back(node& w) noexcept {
    if (w.fate.load(std::memory_order_acquire) == over) return give(w.asked);  // [front] F8
    resign();
  }

 private:
  // A wait's fate: open, decided by the one who waits, or by who has it leave: 2 + the status.
  static constexpr std::uint32_t open = 0;
  static constexpr std::uint32_t over = 1;
  static constexpr std::uint32_t told_by(wait_status why) noexcept { return 2 + static_cast<std::uint32_t>(why); }

  static bool settle(node& w, wait_status how) noexcept {
    w.status = how;
    w.fate.store(over, std::memory_order_relaxed);  // ours alone: it waits nowhere
    return true;
  }
  // Whoever had it leave was promised that it hears so.
  static bool conclude(node& w, wait_status otherwise) noexcept {
    std::uint32_t fate = open;
    const bool ours = w.fate.compare_exchange_strong(fate, over, std::memory_order_acq_rel) || fate == over;  // [front] F8
    w.status = ours ? otherwise : static_cast<wait_status>(fate - 2);
    return true;
  }
  static bool conclude_granted(node& w) noexcept {
    conclude(w, wait_status::granted);
    return w.status == wait_status::granted;
  }

  void resign() noexcept {
    if (account.resign()) this->send(1, wait_status::granted);
  }

  template <class W>
  bool waits_in_front(W& w) noexcept {
    w.again();
    front_.store(&w, std::memory_order_seq_cst);  // [front] F7
    Traits::schedule_point("in-front");
    const bool stay = !account.worth(w.asked) && w.fate.load(std::memory_order_seq_cst) == open;  // [front] F8
    node* here = &w;
    return stay || !front_.compare_exchange_strong(here, nullptr, std::memory_order_seq_cst);  // [front] F6
  }
  // Ends the call that the account has counted.
  void call_front() noexcept {
    node* w = front_.load(std::memory_order_seq_cst);  // [front] F6
    if (w != nullptr) w = front_.exchange(nullptr, std::memory_order_seq_cst);  // [front] F6
    account.end_call();
    if (w != nullptr) w->tell_now();
  }

  typename Traits::template atomic<node*> front_{nullptr};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
// <<< sync/barging.hpp

// >>> sync/semaphore.hpp - permits: taken by threads, callbacks and coroutines, never lost
HYBRIDLOOP_OPEN
// What hold() answers: permits that are released with it. False in a condition: it has none. One thread
// at a time; the semaphore outlives it.
template <class Semaphore>
class [[nodiscard]] basic_permit {
 public:
  basic_permit() noexcept = default;
  basic_permit(Semaphore& from, std::ptrdiff_t n) noexcept : from_(&from), count_(n) {}  // had already
  basic_permit(basic_permit&& other) noexcept
      : from_(std::exchange(other.from_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  basic_permit& operator=(basic_permit&& other) noexcept {
    basic_permit moved(std::move(other));
    std::swap(from_, moved.from_);
    std::swap(count_, moved.count_);
    return *this;
  }
  ~basic_permit() { release(); }

  explicit operator bool() const noexcept { return count_ != 0; }
  std::ptrdiff_t count() const noexcept { return count_; }

  void release() noexcept {
    if (from_ != nullptr) std::exchange(from_, nullptr)->release(std::exchange(count_, 0));
  }
  // The permits are not released; says how many they were.
  std::ptrdiff_t forget() noexcept {
    from_ = nullptr;
    return std::exchange(count_, 0);
  }
  // n of its permits, or none when it has fewer.
  basic_permit split(std::ptrdiff_t n) noexcept {
    if (n <= 0 || n > count_) return {};
    count_ -= n;
    return basic_permit(*from_, n);
  }
  // Takes over the other's. Of another semaphore: a broken contract.
  void merge(basic_permit&& other) noexcept {
    HYBRIDLOOP_CONTRACT(from_ == nullptr || other.from_ == nullptr || from_ == other.from_,
                        "permits of two semaphores cannot be merged");
    const std::ptrdiff_t more = std::exchange(other.count_, 0);
    if (auto* const from = std::exchange(other.from_, nullptr)) from_ = from;
    count_ += more;
  }

 private:
  Semaphore* from_ = nullptr;
  std::ptrdiff_t count_ = 0;
};

// A counting semaphore. Any thread, everything, unless it says otherwise; the destructor while nobody
// waits. Whoever was told last may destroy it at once, also while the release() that told it is still
// on its way out, or others who were told are, whose deadline came then. A wait on a loop is over when its callback
// has run or its coroutine has gone on; one of a semaphore that barges, when its call has returned.
//
// n is from 0 to max(), else it is a broken contract; so it is when those who wait need more than twice max()
// together. A wait for several permits is served whole, in its turn: those behind it wait until it has all of them.
template <class Queue, class Fairness = sync::fifo>
class basic_semaphore {
  using Traits = typename Queue::traits;
  using core = detail::permits<Queue, Fairness>;
  using thread_waiter = detail::thread_waiter<core>;
  using awaiter = detail::wait_awaiter<core>;
  using nanos = detail::nanos;

 public:
  using clock = typename Traits::clock;
  using time_point = typename clock::time_point;
  using permit = basic_permit<basic_semaphore>;
  using ticket = basic_wait_ticket<Traits>;
  using options = basic_wait_options<clock>;

  // More than max() or fewer than 0 permits are a broken contract.
  explicit basic_semaphore(std::ptrdiff_t permits) noexcept : core_(checked(permits)) {}
  basic_semaphore(const basic_semaphore&) = delete;
  basic_semaphore& operator=(const basic_semaphore&) = delete;

  static constexpr std::ptrdiff_t (max)() noexcept { return core::most; }

  // Blocks. `closed` if it was, or is while this waits; else `granted`. Not on a thread that is running a
  // loop: that is a broken contract.
  wait_status acquire(std::ptrdiff_t n = 1) noexcept {
    detail::must_not_run_a_loop();
    const std::ptrdiff_t had = core_.take(checked(n));
    return had == n ? wait_status::granted : block(n, had, detail::never);
  }

  // Never blocks, never overtakes who waits. It may fail while another thread is about to wait.
  [[nodiscard]] bool try_acquire(std::ptrdiff_t n = 1) noexcept { return core_.try_take(checked(n)); }

  // False: the time ran out, or it is closed. A permit is never taken by a call that answers false.
  template <class Rep, class Period>
  [[nodiscard]] bool try_acquire_for(std::chrono::duration<Rep, Period> span, std::ptrdiff_t n = 1) noexcept {
    return try_until(detail::deadline_in<clock>(span), n);
  }
  template <class Clock, class Duration>
  [[nodiscard]] bool try_acquire_until(std::chrono::time_point<Clock, Duration> deadline, std::ptrdiff_t n = 1) noexcept {
    return detail::wait_by_clock<clock>(deadline, [this, n](nanos end) { return try_until(end, n); });
  }

  // Calls f(wait_status) once, in a task of that loop (so not before this returns, where it is called on
  // that loop's thread), when the wait is over: granted, timed out at options.deadline, cancelled, or closed.
  // Throws without memory for f, and then nothing has happened. A closed loop: f is destroyed, the ticket is empty. A loop that closes, or is destroyed,
  // ends the wait: f is destroyed there without being called, and permits that it was granted go to others.
  // run_until_idle() waits for a deadline, as for a timer, and for nothing else of this.
  template <class F, class Build = detail::build_tag>
  ticket async_acquire(basic_loop<Traits>& l, F&& f, options how = {}) {
    return detail::wait_on_loop<Build>(core_, l, std::forward<F>(f), checked(how.n), how.end());
  }
  // `wait_status s = co_await semaphore.acquire_on(loop);` The coroutine goes on in a task of that loop, or at
  // once where this is its thread and the permits are there; then they are the coroutine's. What is
  // awaited is this very object, once. A loop that closes: it hears `closed`, or stays suspended. The frame may
  // not be destroyed while it waits, but with the loop.
  template <class Build = detail::build_tag>
  awaiter acquire_on(basic_loop<Traits>& l, options how = {}) noexcept {
    return awaiter(Build(), l, core_, checked(how.n), how.end());
  }

  // True, for one call of those that meet: it is not granted any more, and hears `cancelled`. False: it
  // was told something else, is about to be, or is unknown here.
  bool cancel(const ticket& wait) noexcept { return detail::cancel_wait(core_, wait); }

  // Never fails. Allocates nothing, but for a segment now and then in phase 2, where it tries again until there is
  // memory. More than max() permits are a broken contract.
  void release(std::ptrdiff_t n = 1) noexcept { core_.give(checked(n)); }

  // Whoever waits is told `closed`, and so is whoever comes. Permits may still be released, and forgotten.
  void close() noexcept { core_.close(); }
  bool closed() const noexcept { return core_.account.closed(); }

  std::ptrdiff_t available() const noexcept { return core_.account.available(); }
  // Takes up to n permits that are there for good; how many it took.
  std::ptrdiff_t forget(std::ptrdiff_t n) noexcept { return core_.account.forget(checked(n)); }

  // acquire(), and the permits are released with what this answers; none of it when closed.
  permit hold(std::ptrdiff_t n = 1) noexcept {
    return acquire(n) == wait_status::granted ? permit(*this, n) : permit();
  }

 private:
  static std::ptrdiff_t checked(std::ptrdiff_t n) noexcept {
    HYBRIDLOOP_CONTRACT(n >= 0 && n <= (max)(), "a number of permits is from 0 to max()");
    return n;
  }

  bool try_until(nanos deadline, std::ptrdiff_t n) noexcept {
    if (try_acquire(n)) return true;
    if (deadline <= detail::read_clock<clock>()) return false;
    detail::must_not_run_a_loop();
    const std::ptrdiff_t had = core_.take(n);
    return had == n || block(n, had, deadline) == wait_status::granted;
  }

  HYBRIDLOOP_OUT_OF_LINE wait_status block(std::ptrdiff_t n, std::ptrdiff_t had, nanos deadline) noexcept {
    if (core_.look_for(n)) return wait_status::granted;
    thread_waiter w(core_, core_.is_next(n));
    return core_.queue_up(w, n, had) ? w.status : detail::wait_until_told(core_, w, deadline);
  }

  template <class, class>
  friend class basic_channel;
  core core_;
};

HYBRIDLOOP_CLOSE
// <<< sync/semaphore.hpp

// >>> sync/condvar.hpp - waiting for what a lock protects
HYBRIDLOOP_OPEN
namespace detail {

// GCC 12 for Windows with threads of its own making has none.
#if defined(__GLIBCXX__) && !defined(_GLIBCXX_HAS_GTHREADS)
enum class cv_status { no_timeout, timeout };
#else
using std::cv_status;
#endif

template <class Queue>
class notices : public primitive<Queue, notice_account<typename Queue::traits>> {
 public:
  using typename primitive<Queue, notice_account<typename Queue::traits>>::node;

  bool enter(node& w, std::ptrdiff_t, bool may_wait) noexcept {
    w.begin(1, 0);
    if (!may_wait) {
      w.status = wait_status::timed_out;
      return true;
    }
    this->account.enter();
    this->join(w);
    return false;
  }
  static bool enter_at_once(node&, std::ptrdiff_t) noexcept { return false; }
};

}  // namespace detail

// A condition variable for any lock that has lock() and unlock(). Any thread, everything; the destructor
// when all who waited have been told, though they may not have returned. Whoever was told last may destroy it at once.
//
// A wait is entered before the lock is given back, so whoever changes what the lock protects and then
// notifies, with the lock or without it, is heard. Blocking forms not on a thread that is running a loop: that
// is a broken contract. What a predicate throws leaves the call, with the lock held; and so does what unlock() throws,
// and then nothing has happened.
template <class Queue>
class basic_condvar {
  using Traits = typename Queue::traits;
  using core = detail::notices<Queue>;
  using thread_waiter = detail::thread_waiter<core>;
  using awaiter = detail::wait_awaiter<core>;
  using nanos = detail::nanos;

 public:
  using clock = typename Traits::clock;
  using time_point = typename clock::time_point;
  using ticket = basic_wait_ticket<Traits>;
  using options = basic_wait_options<clock>;

  basic_condvar() noexcept = default;
  basic_condvar(const basic_condvar&) = delete;
  basic_condvar& operator=(const basic_condvar&) = delete;

  // Returns when it is notified, and at times for no reason.
  template <class Lock>
  void wait(Lock& lock) {
    static_cast<void>(block(lock, detail::never));
  }
  template <class Lock, class Predicate>
  void wait(Lock& lock, Predicate holds) {
    while (!holds()) wait(lock);
  }

  // `timeout` is answered only by who was not notified.
  template <class Lock, class Rep, class Period>
  detail::cv_status wait_for(Lock& lock, std::chrono::duration<Rep, Period> span) {
    return block(lock, detail::deadline_in<clock>(span)) ? detail::cv_status::no_timeout : detail::cv_status::timeout;
  }
  template <class Lock, class Clock, class Duration>
  detail::cv_status wait_until(Lock& lock, std::chrono::time_point<Clock, Duration> deadline) {
    bool notified = false;
    // Not again, if that clock says that it is too early: the caller looks first at what it waits for.
    detail::wait_by_clock<clock>(deadline, [&](nanos end) {
      notified = block(lock, end);
      return true;
    });
    const bool over = !notified && detail::to_nanos(Clock::now()) >= detail::to_nanos(deadline);
    return over ? detail::cv_status::timeout : detail::cv_status::no_timeout;
  }
  // What the predicate says in the end.
  template <class Lock, class Rep, class Period, class Predicate>
  bool wait_for(Lock& lock, std::chrono::duration<Rep, Period> span, Predicate holds) {
    return wait_while(lock, detail::deadline_in<clock>(span), holds);
  }
  template <class Lock, class Clock, class Duration, class Predicate>
  bool wait_until(Lock& lock, std::chrono::time_point<Clock, Duration> deadline, Predicate holds) {
    return detail::wait_by_clock<clock>(deadline, [&](nanos end) { return wait_while(lock, end, holds); });
  }

  // Calls f(wait_status) once, in a task of that loop, when it was notified, timed out at options.deadline or
  // was cancelled. Entered before this returns: who notifies after that is heard. Otherwise as
  // basic_semaphore::async_acquire(); a notification to a loop that has closed goes to another waiter.
  template <class F, class Build = detail::build_tag>
  ticket async_wait(basic_loop<Traits>& l, F&& f, options how = {}) {
    return detail::wait_on_loop<Build>(core_, l, std::forward<F>(f), 1, how.end());
  }
  // As basic_semaphore::acquire_on(); the wait is entered by co_await.
  template <class Build = detail::build_tag>
  awaiter wait_on(basic_loop<Traits>& l, options how = {}) noexcept {
    return awaiter(Build(), l, core_, 1, how.end());
  }
  // As basic_semaphore::cancel().
  bool cancel(const ticket& wait) noexcept { return detail::cancel_wait(core_, wait); }

  // The one that has waited longest; those who wait now. One who is just being entered may be counted and passed over
  // for one that comes right behind it; and what comes to one who is giving up goes to another, who may have come
  // later: for that one it is a return for no reason.
  void notify_one() noexcept { core_.send(core_.account.notify(1), wait_status::granted); }
  void notify_all() noexcept { core_.send(core_.account.notify_all(), wait_status::granted); }

 private:
  // What unlock() throws leaves the call: the waiter leaves first, and what it was told meanwhile goes to the next.
  struct unless_open {
    core& of;
    thread_waiter& w;
    bool open = false;
    ~unless_open() {
      if (open) return;
      w.leave(wait_status::cancelled);
      w.wait(detail::never);
      if (w.status == wait_status::granted) of.give_back(w);
    }
  };

  // False: the deadline came first.
  template <class Lock>
  bool block(Lock& lock, nanos deadline) {
    detail::must_not_run_a_loop();
    thread_waiter w(core_, core_.account.nobody(), 2);
    core_.enter(w, 1, true);
    unless_open undo{core_, w};
    const detail::given_back<Lock> open(lock);
    undo.open = true;
    return detail::wait_until_told(core_, w, deadline) == wait_status::granted;
  }

  template <class Lock, class Predicate>
  bool wait_while(Lock& lock, nanos deadline, Predicate& holds) {
    while (!holds()) {
      if (!block(lock, deadline)) return holds();
    }
    return true;
  }

  core core_;
};

HYBRIDLOOP_CLOSE
// <<< sync/condvar.hpp

// >>> sync/mutex.hpp - a lock for threads, callbacks and coroutines alike
HYBRIDLOOP_OPEN

// Not recursive. Any thread, everything: it belongs to whoever was told that it is locked, not to a thread, so it may
// be unlocked elsewhere. Works with std::lock_guard, std::unique_lock and basic_condvar.
template <class Queue, class Fairness = sync::fifo>
class basic_mutex {
  using semaphore_type = basic_semaphore<Queue, Fairness>;
  using loop_type = basic_loop<typename Queue::traits>;

 public:
  using clock = typename semaphore_type::clock;
  using ticket = typename semaphore_type::ticket;
  using options = typename semaphore_type::options;

  basic_mutex() noexcept : turn_(1) {}

  // Blocks; not on a thread that is running a loop: that is a broken contract.
  void lock() noexcept { static_cast<void>(turn_.acquire()); }
  [[nodiscard]] bool try_lock() noexcept { return turn_.try_acquire(); }
  template <class Rep, class Period>
  [[nodiscard]] bool try_lock_for(std::chrono::duration<Rep, Period> span) noexcept {
    return turn_.try_acquire_for(span);
  }
  template <class Clock, class Duration>
  [[nodiscard]] bool try_lock_until(std::chrono::time_point<Clock, Duration> deadline) noexcept {
    return turn_.try_acquire_until(deadline);
  }
  // What nobody has locked: a broken contract.
  void unlock() noexcept {
    HYBRIDLOOP_CONTRACT(turn_.available() == 0, "a mutex is unlocked that is not locked");
    turn_.release();
  }

  // As basic_semaphore::async_acquire(), acquire_on() and cancel(). Told `granted`, it is locked, until somebody
  // calls unlock().
  template <class F, class Build = detail::build_tag>
  ticket async_lock(loop_type& l, F&& f, options how = {}) {
    how.n = 1;
    return turn_.template async_acquire<F, Build>(l, std::forward<F>(f), how);
  }
  template <class Build = detail::build_tag>
  auto lock_on(loop_type& l, options how = {}) noexcept {
    how.n = 1;
    return turn_.template acquire_on<Build>(l, how);
  }
  bool cancel(const ticket& wait) noexcept { return turn_.cancel(wait); }

 private:
  semaphore_type turn_;
};

HYBRIDLOOP_CLOSE
// <<< sync/mutex.hpp

// >>> sync/gate.hpp - waiting until something is so: what event and latch have in common
HYBRIDLOOP_OPEN
namespace detail {

// The account has enter(): true if it is open, else one more is owed, and arrived() follows when that has joined;
// enter_if_open(); nobody(): a hint, none is owed; set_out() before a leave, and arrived() behind it. Where
// passed_through() answers no, somebody is still about to call arrived().
template <class Queue, class Account>
class gate_core : public primitive<Queue, Account> {
 public:
  using typename primitive<Queue, Account>::node;
  using primitive<Queue, Account>::primitive;
  gate_core(const gate_core&) = delete;
  gate_core& operator=(const gate_core&) = delete;
  // Who was told last may be here before others are on their way out: a step.
  ~gate_core() {
    while (!this->account.passed_through() && this->refs.are_here()) Queue::traits::kernel::yield();
  }

  bool enter(node& w, std::ptrdiff_t, bool may_wait) noexcept {
    if (!may_wait) {
      if (!enter_at_once(w, 1)) w.status = wait_status::timed_out;
      return true;
    }
    const bool open = this->account.enter();
    if (open) w.begin(1, 1);
    else join_entered(w);
    return open;
  }
  void join_entered(node& w) noexcept {
    w.begin(1, 0);
    this->join(w);
    this->account.arrived();
  }
  bool leave(node& w, wait_status why) noexcept {
    this->account.set_out();
    const bool left = primitive<Queue, Account>::leave(w, why);
    this->account.arrived();
    return left;
  }
  bool enter_at_once(node& w, std::ptrdiff_t) noexcept {
    const bool open = this->account.enter_if_open();
    w.begin(1, open ? 1 : 0);
    return open;
  }
};

}  // namespace detail

// Any thread, everything; the destructor while nobody waits. Whoever was told last may destroy it at once. Blocking
// forms not on a thread that is running a loop: that is a broken contract.
template <class Queue, class Account>
class basic_gate {
 protected:
  using Traits = typename Queue::traits;
  using core = detail::gate_core<Queue, Account>;
  using nanos = detail::nanos;

 public:
  using clock = typename Traits::clock;
  using time_point = typename clock::time_point;
  using ticket = basic_wait_ticket<Traits>;
  using options = basic_wait_options<clock>;

  basic_gate(const basic_gate&) = delete;
  basic_gate& operator=(const basic_gate&) = delete;

  [[nodiscard]] bool try_wait() noexcept { return core_.account.enter_if_open(); }

  void wait() noexcept { static_cast<void>(wait_until_nanos(detail::never)); }
  // False: the time ran out.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> span) noexcept {
    return wait_until_nanos(detail::deadline_in<clock>(span));
  }
  template <class Clock, class Duration>
  bool wait_until(std::chrono::time_point<Clock, Duration> deadline) noexcept {
    return detail::wait_by_clock<clock>(deadline, [this](nanos end) { return wait_until_nanos(end); });
  }

  // As basic_semaphore::async_acquire(), acquire_on() and cancel().
  template <class F, class Build = detail::build_tag>
  ticket async_wait(basic_loop<Traits>& l, F&& f, options how = {}) {
    return detail::wait_on_loop<Build>(core_, l, std::forward<F>(f), 1, how.end());
  }
  template <class Build = detail::build_tag>
  detail::wait_awaiter<core> wait_on(basic_loop<Traits>& l, options how = {}) noexcept {
    return detail::wait_awaiter<core>(Build(), l, core_, 1, how.end());
  }
  bool cancel(const ticket& wait) noexcept { return detail::cancel_wait(core_, wait); }

 protected:
  template <class... Args>
  explicit basic_gate(Args... args) noexcept : core_(args...) {}
  ~basic_gate() = default;

  // As somebody who is in the account already.
  void wait_entered() noexcept {
    detail::must_not_run_a_loop();
    detail::thread_waiter<core> w(core_, core_.account.nobody(), 2);
    core_.join_entered(w);
    static_cast<void>(detail::wait_until_told(core_, w, detail::never));
  }

  core core_;

 private:
  bool wait_until_nanos(nanos deadline) noexcept {
    if (core_.account.enter_if_open()) return true;
    if (deadline != detail::never && deadline <= detail::read_clock<clock>()) return false;
    detail::must_not_run_a_loop();
    detail::thread_waiter<core> w(core_, core_.account.nobody(), 2);
    const bool open = core_.enter(w, 1, true);
    return open || detail::wait_until_told(core_, w, deadline) == wait_status::granted;
  }
};

HYBRIDLOOP_CLOSE
// <<< sync/gate.hpp

// >>> sync/event.hpp - something has happened: heard by all who wait, or by one
HYBRIDLOOP_OPEN
namespace sync {

struct manual_reset {};  // set() opens it for all, until reset()
struct auto_reset {};    // set() lets one through; several without anybody there are one

}  // namespace sync

namespace detail {

// Set, and nobody waits; or how many wait. And how many are between here and the queue: they join, leave, or bring
// tokens. reset() and the destructor let those pass: else who comes behind reset() would find a token of the set()
// before it, for one who was counted and has not joined yet, or has left on the newcomer's account.
//
// Edge [event]: V8 set() (release); V9 who is let through at once (acquire). V6 the queue has it (release); V7 nobody
// is on the way any more (acquire). Rule: every change is a read-modify-write, so V9 meets each V8 before it in
// the release sequence, and V7 each V6 [intro.races]. Who had to wait takes the queue's edge.
template <class Traits, class Reset>
class event_account {
  static constexpr bool one_by_one = std::is_same_v<Reset, sync::auto_reset>;

 public:
  static constexpr bool collects = false;

  explicit event_account(bool set) noexcept : word_(set ? is_set : 0) {}

  bool enter() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      const bool open = (seen & is_set) != 0;
      const value after = !open ? seen + one_waiting + one_on_its_way : one_by_one ? 0 : seen;
      if (change(seen, after)) return open;
    }
  }
  bool enter_if_open() noexcept {
    if constexpr (!one_by_one) return open();
    value seen = is_set;
    return word_.compare_exchange_strong(seen, 0, std::memory_order_acq_rel);  // [event] V8, V9
  }
  bool open() const noexcept { return (word_.load(std::memory_order_acquire) & is_set) != 0; }  // [event] V9
  bool nobody() const noexcept { return word_.load(std::memory_order_relaxed) < one_waiting; }  // a hint; it may change at once

  // How many are let through that wait.
  std::ptrdiff_t set() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      const bool waited_for = seen >= one_waiting;
      const value all = (seen & on_their_way) | is_set;
      if (change(seen, !waited_for ? seen | is_set : one_by_one ? seen - one_waiting : all + one_on_its_way)) {
        return !waited_for ? 0 : one_by_one ? 1 : static_cast<std::ptrdiff_t>(seen / one_waiting);
      }
    }
  }
  void reset() noexcept {
    value seen = word_.load(std::memory_order_acquire);  // [event] V9
    while ((seen & is_set) != 0) {
      if (seen == is_set) {
        if (change(seen, 0)) return;
      } else {
        Traits::kernel::yield();
        seen = word_.load(std::memory_order_acquire);  // [event] V7, V9
      }
    }
  }

  // Who is going to leave; a set() and who enters are counted in their own step.
  void set_out() noexcept {
    if constexpr (!one_by_one) word_.fetch_add(one_on_its_way, std::memory_order_acq_rel);  // [event] V6, V7
  }
  // The queue has dealt with it.
  void arrived() noexcept {
    if constexpr (!one_by_one) word_.fetch_sub(one_on_its_way, std::memory_order_release);  // [event] V6
  }
  bool passed_through() const noexcept { return (word_.load(std::memory_order_acquire) & on_their_way) == 0; }  // [event] V7

  std::ptrdiff_t withdraw(std::ptrdiff_t) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (seen >= one_waiting) {
      if (change(seen, seen - one_waiting)) return 1;
    }
    return 0;
  }
  // So many who were let through are not there: of those that are let through one by one others are.
  std::ptrdiff_t give(std::ptrdiff_t n) noexcept {
    std::ptrdiff_t through = 0;
    for (; one_by_one && n != 0; --n) through += set();
    return through;
  }
  std::ptrdiff_t pass_on(std::ptrdiff_t n) noexcept { return give(n); }

 private:
  using value = std::uint64_t;
  static constexpr value is_set = 1;
  static constexpr value one_on_its_way = one_by_one ? 0 : 2;
  static constexpr value on_their_way = 0xfffffffe;
  static constexpr value one_waiting = value{1} << 32;

  bool change(value& seen, value after) noexcept {
    return word_.compare_exchange_weak(seen, after, std::memory_order_acq_rel,  // [event] V8, V9
                                       std::memory_order_relaxed);  // a hint; the caller looks again
  }

  typename Traits::template atomic<value> word_;
};

}  // namespace detail

template <class Queue, class Reset>
class basic_event : public basic_gate<Queue, detail::event_account<typename Queue::traits, Reset>> {
  using base = basic_gate<Queue, detail::event_account<typename Queue::traits, Reset>>;

 public:
  explicit basic_event(bool set = false) noexcept : base(set) {}

  // Also from a callback that it called. Allocates as release() does.
  void set() noexcept {
    const std::ptrdiff_t through = this->core_.account.set();
    if (through == 0) return;
    this->core_.send(through, wait_status::granted);
    this->core_.account.arrived();
  }
  // Who waited at a set() is let through all the same, and nobody who comes later. It may have to let others,
  // who set it, come or leave, take a few steps first.
  void reset() noexcept { this->core_.account.reset(); }
  bool is_set() const noexcept { return this->core_.account.open(); }
};

HYBRIDLOOP_CLOSE
// <<< sync/event.hpp

// >>> sync/latch.hpp - waiting until so many things are done
HYBRIDLOOP_OPEN
namespace detail {

// What is to be done above, how many wait for it below.
//
// Edge [latch]: X8 something is done (release); X9 who finds all done goes on (acquire). Rule: every change
// is a read-modify-write, so X9 meets each X8 [intro.races]. Who had to wait takes the queue's edge from the last X8,
// which is an acquire as well.
template <class Traits>
class latch_account {
 public:
  static constexpr bool collects = false;
  static constexpr std::ptrdiff_t most = 0x7fffffff;

  explicit latch_account(std::ptrdiff_t count) noexcept : word_(static_cast<value>(count) * one_left) {}

  bool enter_if_open() const noexcept { return word_.load(std::memory_order_acquire) < one_left; }  // [latch] X9
  bool enter() noexcept {
    value seen = word_.load(std::memory_order_acquire);  // [latch] X9
    while (seen >= one_left) {
      if (word_.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel,  // [latch] X8, X9
                                      std::memory_order_acquire)) {  // [latch] X9
        return false;
      }
    }
    return true;
  }

  bool nobody() const noexcept { return word_.load(std::memory_order_relaxed) % one_left == 0; }  // a hint; it may change at once
  static void set_out() noexcept {}
  static void arrived() noexcept {}
  static bool passed_through() noexcept { return true; }

  struct verdict {
    bool opens;
    std::ptrdiff_t through;  // how many that wait
  };
  // `stays`: who counts waits in the same step, unless that opens it.
  verdict count_down(std::ptrdiff_t n, bool stays) noexcept {
    const value step = static_cast<value>(n) * one_left;
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      HYBRIDLOOP_CONTRACT(seen / one_left >= static_cast<value>(n), "a latch is counted down to 0 and not below");
      const value after = seen - step;
      const bool opens = after < one_left;
      if (word_.compare_exchange_weak(seen, opens ? 0 : after + (stays ? 1 : 0), std::memory_order_acq_rel,  // [latch] X8, X9
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return {opens, opens ? static_cast<std::ptrdiff_t>(after) : 0};
      }
    }
  }

  std::ptrdiff_t withdraw(std::ptrdiff_t) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (seen % one_left != 0) {
      if (word_.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel,  // [latch] X8, X9
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return 1;
      }
    }
    return 0;
  }
  static std::ptrdiff_t give(std::ptrdiff_t) noexcept { return 0; }
  static std::ptrdiff_t pass_on(std::ptrdiff_t) noexcept { return 0; }

 private:
  using value = std::uint64_t;
  static constexpr value one_left = value{1} << 32;

  typename Traits::template atomic<value> word_;
};

}  // namespace detail

template <class Queue>
class basic_latch : public basic_gate<Queue, detail::latch_account<typename Queue::traits>> {
  using account_type = detail::latch_account<typename Queue::traits>;
  using base = basic_gate<Queue, account_type>;

 public:
  // From 0 to max(), else it is a broken contract.
  explicit basic_latch(std::ptrdiff_t count) noexcept : base(checked(count)) {}

  static constexpr std::ptrdiff_t (max)() noexcept { return account_type::most; }

  // Below 0 is a broken contract.
  void count_down(std::ptrdiff_t n = 1) noexcept {
    this->core_.send(this->core_.account.count_down(checked(n), false).through, wait_status::granted);
  }
  // Both in one step: whose count opens it touches it no more than count_down() does.
  void arrive_and_wait(std::ptrdiff_t n = 1) noexcept {
    const auto count = this->core_.account.count_down(checked(n), true);
    if (count.opens) return this->core_.send(count.through, wait_status::granted);
    this->wait_entered();
  }

 private:
  static std::ptrdiff_t checked(std::ptrdiff_t n) noexcept {
    HYBRIDLOOP_CONTRACT(n >= 0 && n <= (max)(), "a latch counts from 0 to max()");
    return n;
  }
};

HYBRIDLOOP_CLOSE
// <<< sync/latch.hpp

// >>> sync/channel.hpp - values from any thread to any thread, a bounded number on their way
HYBRIDLOOP_OPEN
namespace detail {

// A circle of values behind a lock of a few lines. Who counts how many there are is the channel.
template <class Traits, class T>
class value_circle {
 public:
  explicit value_circle(std::size_t capacity) noexcept
      : capacity_(capacity), slots_(capacity > most ? nullptr : static_cast<T*>(heap_take(capacity * sizeof(T), alignof(T)))) {}
  value_circle(const value_circle&) = delete;
  value_circle& operator=(const value_circle&) = delete;
  ~value_circle() {
    if (slots_ == nullptr) return;
    for (; count_ != 0; --count_) take_first().~T();
    heap_give(slots_, alignof(T));
  }
  bool had() const noexcept { return slots_ != nullptr; }

  // False: closed. There is room.
  bool push(T& value) noexcept {
    const hold locked(lock_);
    if (closed_) return false;
    ::new (static_cast<void*>(slots_ + (first_ + count_++) % capacity_)) T(std::move(value));
    return true;
  }
  std::optional<T> pop() noexcept {
    const hold locked(lock_);
    if (count_ == 0) return std::nullopt;
    --count_;
    T& from = take_first();
    std::optional<T> value(std::move(from));
    from.~T();
    return value;
  }
  void close() noexcept {
    const hold locked(lock_);
    closed_ = true;
  }

 private:
  class hold {
   public:
    explicit hold(small_lock<Traits>& lock) noexcept : lock_(lock) { lock.lock(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() { lock_.unlock(); }

   private:
    small_lock<Traits>& lock_;
  };

  T& take_first() noexcept {
    T& value = slots_[first_];
    first_ = (first_ + 1) % capacity_;
    return value;
  }

  static constexpr std::size_t most = (std::numeric_limits<std::ptrdiff_t>::max)() / sizeof(T);

  small_lock<Traits> lock_;
  const std::size_t capacity_;
  T* const slots_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  bool closed_ = false;
};

}  // namespace detail

// At most `capacity` values that were sent and not received. Any thread, everything; the destructor while
// nobody waits. Values come out in the order in which they were put in: a sender that waits on a loop puts its
// own when its turn comes there, though it had room before. T moves without throwing. Blocking forms not on a
// thread that is running a loop: that is a broken contract.
//
// close(): who sends is told `closed`; who receives gets what is left, and then nothing.
template <class T, class Queue>
class basic_channel {
  using Traits = typename Queue::traits;
  using semaphore_type = basic_semaphore<Queue, sync::fifo>;
  using loop_type = basic_loop<Traits>;
  static_assert(std::is_nothrow_move_constructible_v<T>, "a channel's value moves without throwing");

 public:
  using clock = typename semaphore_type::clock;
  using ticket = typename semaphore_type::ticket;
  using options = typename semaphore_type::options;

  // At least 1, else it is a broken contract. Throws std::system_error without memory.
  template <class Build = detail::build_tag>
  explicit basic_channel(std::size_t capacity)
      : values_(capacity), room_(static_cast<std::ptrdiff_t>(capacity)), filled_(0) {
    HYBRIDLOOP_CONTRACT(capacity != 0, "a channel has room for one value at least");
    if (!values_.had()) detail::refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: channel");
  }

  // `granted`, or `closed`, and then the value is still the caller's.
  wait_status send(T&& value) noexcept {
    const wait_status had = room_.acquire();
    return had == wait_status::granted ? put(value) : had;
  }
  // False: full, or closed; the value is still the caller's.
  [[nodiscard]] bool try_send(T&& value) noexcept { return room_.try_acquire() && put(value) == wait_status::granted; }
  template <class Rep, class Period>
  [[nodiscard]] bool try_send_for(std::chrono::duration<Rep, Period> span, T&& value) noexcept {
    return room_.try_acquire_for(span) && put(value) == wait_status::granted;
  }

  // Nothing: closed, and all was received.
  [[nodiscard]] std::optional<T> receive() noexcept { return take(filled_.acquire()); }
  [[nodiscard]] std::optional<T> try_receive() noexcept {
    return take(filled_.try_acquire() ? wait_status::granted : now_status());
  }
  template <class Rep, class Period>
  [[nodiscard]] std::optional<T> try_receive_for(std::chrono::duration<Rep, Period> span) noexcept {
    return take(filled_.try_acquire_for(span) ? wait_status::granted : now_status());
  }

  // Calls f(wait_status) in a task of that loop; the value is gone if it was granted, and destroyed if not. Tickets,
  // options and ends as with basic_semaphore::async_acquire().
  template <class F, class Build = detail::build_tag>
  ticket async_send(loop_type& l, T value, F&& f, options how = {}) {
    auto sent = [this, kept = std::move(value), g = std::forward<F>(f)](wait_status had) mutable {
      g(had == wait_status::granted ? put(kept) : had);
    };
    how.n = 1;
    return room_.template async_acquire<decltype(sent), Build>(l, std::move(sent), how);
  }
  // Calls f(wait_status, std::optional<T>): granted, with a value, or what became of the wait, without.
  template <class F, class Build = detail::build_tag>
  ticket async_receive(loop_type& l, F&& f, options how = {}) {
    auto received = [this, g = std::forward<F>(f)](wait_status had) mutable {
      std::optional<T> value = take(had);
      g(value ? wait_status::granted : had == wait_status::granted ? wait_status::closed : had, std::move(value));
    };
    how.n = 1;
    return filled_.template async_acquire<decltype(received), Build>(l, std::move(received), how);
  }
  bool cancel(const ticket& wait) noexcept { return room_.cancel(wait) || filled_.cancel(wait); }

  // `wait_status s = co_await channel.send_on(loop, value);` Otherwise as basic_semaphore::acquire_on().
  template <class Build = detail::build_tag>
  auto send_on(loop_type& l, T& value, options how = {}) noexcept {
    how.n = 1;
    return sending<decltype(room_.template acquire_on<Build>(l, how))>(*this, value, l, how);
  }
  // `std::optional<T> v = co_await channel.receive_on(loop);`
  template <class Build = detail::build_tag>
  auto receive_on(loop_type& l, options how = {}) noexcept {
    how.n = 1;
    return receiving<decltype(filled_.template acquire_on<Build>(l, how))>(*this, l, how);
  }

  void close() noexcept {
    values_.close();
    room_.close();
    filled_.close();
  }
  bool closed() const noexcept { return filled_.closed(); }

 private:
  template <class Awaiter>
  struct [[nodiscard]] sending : Awaiter {
    sending(basic_channel& c, T& v, loop_type& l, const options& how) noexcept
        : Awaiter(detail::build_tag(), l, c.room_.core_, 1, how.end()), channel(c), value(v) {}
    wait_status await_resume() noexcept {
      const wait_status had = Awaiter::await_resume();
      return had == wait_status::granted ? channel.put(value) : had;
    }
    basic_channel& channel;
    T& value;
  };
  template <class Awaiter>
  struct [[nodiscard]] receiving : Awaiter {
    receiving(basic_channel& c, loop_type& l, const options& how) noexcept
        : Awaiter(detail::build_tag(), l, c.filled_.core_, 1, how.end()), channel(c) {}
    std::optional<T> await_resume() noexcept { return channel.take(Awaiter::await_resume()); }
    basic_channel& channel;
  };

  wait_status now_status() const noexcept { return closed() ? wait_status::closed : wait_status::timed_out; }

  wait_status put(T& value) noexcept {
    if (!values_.push(value)) return wait_status::closed;
    filled_.release();
    return wait_status::granted;
  }
  // Once closed, what is left is for whoever comes. Whose loop is closed hears `closed` as well, and has no permit
  // for a value.
  std::optional<T> take(wait_status had) noexcept {
    if (had != wait_status::granted && !(had == wait_status::closed && closed())) return std::nullopt;
    std::optional<T> value = values_.pop();
    if (value) room_.release();
    return value;
  }

  detail::value_circle<Traits, T> values_;
  semaphore_type room_;    // for so many values
  semaphore_type filled_;  // so many are there
};

HYBRIDLOOP_CLOSE
// <<< sync/channel.hpp

// >>> sync/select.hpp - the phases by name, and the one that is meant where none is named
HYBRIDLOOP_OPEN
namespace sync {

using queue0 = basic_queue0<default_traits>;
using queue1 = basic_queue1<default_traits>;
using queue2 = basic_queue2<default_traits>;
using queue3 = basic_queue3<default_traits>;
using queue_locked = basic_queue_locked<default_traits>;

using default_queue = HYBRIDLOOP_DEFAULT_QUEUE;

}  // namespace sync

// Files that choose different phases name different types, so what passes one of these between them does not
// link.
using semaphore = basic_semaphore<sync::default_queue>;
using condvar = basic_condvar<sync::default_queue>;
using mutex = basic_mutex<sync::default_queue>;
using event = basic_event<sync::default_queue, sync::manual_reset>;
using auto_event = basic_event<sync::default_queue, sync::auto_reset>;
using latch = basic_latch<sync::default_queue>;
template <class T>
using channel = basic_channel<T, sync::default_queue>;
using wait_ticket = basic_wait_ticket<default_traits>;
using wait_options = basic_wait_options<default_traits::clock>;

HYBRIDLOOP_CLOSE
// <<< sync/select.hpp

// >>> base/undef.hpp - takes back every macro that is ours and leaves those that a user set
#undef HYBRIDLOOP_OS
#undef HYBRIDLOOP_OS_LINUX
#undef HYBRIDLOOP_OS_MACOS
#undef HYBRIDLOOP_OS_FREEBSD
#undef HYBRIDLOOP_OS_OPENBSD
#undef HYBRIDLOOP_OS_NETBSD
#undef HYBRIDLOOP_OS_WINDOWS
#undef HYBRIDLOOP_OS_POSIX
#undef HYBRIDLOOP_SANITIZED
#undef HYBRIDLOOP_EXCEPTIONS
#undef HYBRIDLOOP_PASTE
#undef HYBRIDLOOP_PASTE_
#undef HYBRIDLOOP_KNOWN_SWITCH_0
#undef HYBRIDLOOP_KNOWN_SWITCH_1
#undef HYBRIDLOOP_KNOWN_PATH_full
#undef HYBRIDLOOP_KNOWN_PATH_mini
#undef HYBRIDLOOP_KNOWN_PATH_off
#undef HYBRIDLOOP_KNOWN_POLLER_auto
#undef HYBRIDLOOP_KNOWN_POLLER_epoll
#undef HYBRIDLOOP_KNOWN_POLLER_kqueue
#undef HYBRIDLOOP_KNOWN_POLLER_poll
#undef HYBRIDLOOP_KNOWN_POLLER_windows
#undef HYBRIDLOOP_IS_BSD
#undef HYBRIDLOOP_HAS_KQUEUE
#undef HYBRIDLOOP_KNOWN_PARKER_auto
#undef HYBRIDLOOP_KNOWN_PARKER_condvar
#undef HYBRIDLOOP_SYSTEM_POLLER
#undef HYBRIDLOOP_ABI
#undef HYBRIDLOOP_ABI_
#undef HYBRIDLOOP_ABI_OF
#undef HYBRIDLOOP_OUT_OF_LINE
#undef HYBRIDLOOP_IN_LINE
#undef HYBRIDLOOP_OPEN
#undef HYBRIDLOOP_CLOSE

#ifdef HYBRIDLOOP_DEFAULTED_NAMESPACE
#undef HYBRIDLOOP_DEFAULTED_NAMESPACE
#undef HYBRIDLOOP_NAMESPACE
#endif
#ifdef HYBRIDLOOP_DEFAULTED_FAST_PATH
#undef HYBRIDLOOP_DEFAULTED_FAST_PATH
#undef HYBRIDLOOP_FAST_PATH
#endif
#ifdef HYBRIDLOOP_DEFAULTED_NO_IO
#undef HYBRIDLOOP_DEFAULTED_NO_IO
#undef HYBRIDLOOP_NO_IO
#endif
#ifdef HYBRIDLOOP_DEFAULTED_POLLER
#undef HYBRIDLOOP_DEFAULTED_POLLER
#undef HYBRIDLOOP_POLLER
#endif
#ifdef HYBRIDLOOP_DEFAULTED_PARKER
#undef HYBRIDLOOP_DEFAULTED_PARKER
#undef HYBRIDLOOP_PARKER
#endif
#ifdef HYBRIDLOOP_DEFAULTED_RING_CAPACITY
#undef HYBRIDLOOP_DEFAULTED_RING_CAPACITY
#undef HYBRIDLOOP_RING_CAPACITY
#endif
#ifdef HYBRIDLOOP_DEFAULTED_ARENA_CAPACITY
#undef HYBRIDLOOP_DEFAULTED_ARENA_CAPACITY
#undef HYBRIDLOOP_ARENA_CAPACITY
#endif
#ifdef HYBRIDLOOP_DEFAULTED_TASK_SIZE
#undef HYBRIDLOOP_DEFAULTED_TASK_SIZE
#undef HYBRIDLOOP_TASK_SIZE
#endif
#ifdef HYBRIDLOOP_DEFAULTED_CACHE_LINE
#undef HYBRIDLOOP_DEFAULTED_CACHE_LINE
#undef HYBRIDLOOP_CACHE_LINE
#endif
#ifdef HYBRIDLOOP_DEFAULTED_SPIN_NS
#undef HYBRIDLOOP_DEFAULTED_SPIN_NS
#undef HYBRIDLOOP_SPIN_NS
#endif
#ifdef HYBRIDLOOP_DEFAULTED_RESCUE_MS
#undef HYBRIDLOOP_DEFAULTED_RESCUE_MS
#undef HYBRIDLOOP_RESCUE_MS
#endif
#ifdef HYBRIDLOOP_DEFAULTED_STATS
#undef HYBRIDLOOP_DEFAULTED_STATS
#undef HYBRIDLOOP_STATS
#endif
#undef HYBRIDLOOP_KNOWN_PHASE_0
#undef HYBRIDLOOP_KNOWN_PHASE_1
#undef HYBRIDLOOP_KNOWN_PHASE_2
#undef HYBRIDLOOP_KNOWN_PHASE_3
#undef HYBRIDLOOP_DEFAULT_QUEUE
#ifdef HYBRIDLOOP_DEFAULTED_SYNC_PHASE
#undef HYBRIDLOOP_DEFAULTED_SYNC_PHASE
#undef HYBRIDLOOP_SYNC_PHASE
#endif
#ifdef HYBRIDLOOP_DEFAULTED_MALLOC
#undef HYBRIDLOOP_DEFAULTED_MALLOC
#undef HYBRIDLOOP_MALLOC
#undef HYBRIDLOOP_FREE
#endif
#ifdef HYBRIDLOOP_DEFAULTED_SCHEDULE_POINT
#undef HYBRIDLOOP_DEFAULTED_SCHEDULE_POINT
#undef HYBRIDLOOP_SCHEDULE_POINT
#endif
#ifdef HYBRIDLOOP_DEFAULTED_CONTRACT
#undef HYBRIDLOOP_DEFAULTED_CONTRACT
#undef HYBRIDLOOP_CONTRACT
#endif
// <<< base/undef.hpp
