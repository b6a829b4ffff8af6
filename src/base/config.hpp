// base/config.hpp - every macro a user may set, an essay each, and the refusal of wrong values
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "base/os.hpp"

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
