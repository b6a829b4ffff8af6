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
//   @contents

#pragma once

// @includes

#if defined(HYBRIDLOOP_VERSION_MAJOR)
#error "hybridloop: a second copy of hybridloop.hpp in one file; include one of them only"
#endif
#define HYBRIDLOOP_VERSION_MAJOR 0
#define HYBRIDLOOP_VERSION_MINOR 1
#define HYBRIDLOOP_VERSION_PATCH 0

#include "base/os.hpp"
#include "base/config.hpp"
#include "base/contract.hpp"
#include "base/error.hpp"
#include "base/clock.hpp"
#include "base/bits.hpp"
#include "base/pause.hpp"
#include "base/handle.hpp"

#include "task/unique_task.hpp"
#include "task/memory.hpp"
#include "task/plain_array.hpp"
#include "task/fifo.hpp"
#include "task/index_stack.hpp"
#include "task/slab.hpp"
#include "task/arena.hpp"

#include "wait/kernel_kqueue.hpp"
#include "wait/kernel_posix.hpp"
#include "wait/monitor.hpp"
#include "wait/parking_lot.hpp"
#include "wait/kernel_linux.hpp"
#include "wait/kernel_unix.hpp"
#include "wait/kernel_macos.hpp"
#include "wait/kernel_bsd.hpp"
#include "wait/windows_calls.hpp"
#include "wait/kernel_port.hpp"
#include "wait/kernel_winsock.hpp"
#include "wait/kernel_windows.hpp"
#include "wait/kernel.hpp"
#include "wait/parker.hpp"
#include "wait/notice.hpp"
#include "wait/bell.hpp"
#include "wait/fence.hpp"

#include "poller/contract.hpp"
#include "poller/epoll.hpp"
#include "poller/kqueue_bell.hpp"
#include "poller/kqueue_filters.hpp"
#include "poller/terminals.hpp"
#include "poller/kqueue.hpp"
#include "poller/poll.hpp"
#include "poller/afd_slots.hpp"
#include "poller/afd.hpp"
#include "poller/none.hpp"
#include "poller/select.hpp"

#include "ingress/slot_array.hpp"
#include "ingress/ring.hpp"
#include "ingress/lane_ring.hpp"
#include "ingress/spill.hpp"
#include "ingress/room.hpp"
#include "ingress/queue.hpp"
#include "ingress/lane.hpp"
#include "ingress/ingress.hpp"
#include "ingress/patience.hpp"
#include "ingress/stream.hpp"

#include "timer/record.hpp"
#include "timer/heap.hpp"
#include "timer/bag.hpp"
#include "timer/strays.hpp"
#include "timer/wheel.hpp"
#include "timer/timers.hpp"

#include "watch/record.hpp"
#include "watch/registry.hpp"
#include "watch/watches.hpp"

#include "loop/options.hpp"
#include "loop/traits.hpp"
#include "loop/frames.hpp"
#include "loop/blocked.hpp"
#include "loop/hook.hpp"
#include "loop/meter.hpp"
#include "loop/doorbell.hpp"
#include "loop/wakeup.hpp"
#include "loop/entrance.hpp"
#include "loop/lookout.hpp"
#include "loop/companion.hpp"
#include "loop/lending.hpp"
#include "loop/visitors.hpp"
#include "loop/core.hpp"
#include "loop/ownership.hpp"
#include "loop/fork.hpp"
#include "loop/event_batch.hpp"
#include "loop/park.hpp"
#include "loop/loan.hpp"
#include "loop/runner.hpp"
#include "loop/invoke.hpp"
#include "loop/handle.hpp"
#include "loop/producer.hpp"
#include "loop/loop.hpp"
#include "loop/loop_work.hpp"
#include "loop/commands.hpp"
#include "loop/loop_events.hpp"
#include "loop/loop_embed.hpp"

#include "sync/waiter.hpp"
#include "sync/account.hpp"
#include "sync/queue0.hpp"
#include "sync/small_lock.hpp"
#include "sync/waiter_list.hpp"
#include "sync/queue1.hpp"
#include "sync/epoch.hpp"
#include "sync/segment.hpp"
#include "sync/queue2.hpp"
#include "sync/queue3.hpp"
#include "sync/queue_locked.hpp"
#include "sync/wait_refs.hpp"
#include "sync/primitive.hpp"
#include "sync/thread_waiter.hpp"
#include "sync/loop_waiter.hpp"
#include "sync/callback.hpp"
#include "sync/awaiter.hpp"
#include "sync/permits.hpp"
#include "sync/barging.hpp"
#include "sync/semaphore.hpp"
#include "sync/condvar.hpp"
#include "sync/mutex.hpp"
#include "sync/gate.hpp"
#include "sync/event.hpp"
#include "sync/latch.hpp"
#include "sync/channel.hpp"
#include "sync/select.hpp"

#include "base/undef.hpp"
