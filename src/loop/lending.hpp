// loop/lending.hpp - what a sleeping loop thread leaves behind for callers that borrow its loop
#pragma once

#include <cstddef>
#include <exception>

#include "base/clock.hpp"
#include "loop/frames.hpp"
#include "loop/options.hpp"

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
