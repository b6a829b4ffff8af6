// companion.pml - [companion]: mini's second thread waits in the poller and posts what became ready
//
// What stands for what
//   companion     companion::serve, report, leaving
//   loop          deliver_arrival, watches::deliver with its rearm guard, unwatch and watch anew; then
//                 companion::stop and poller.close() of core::tear_down
//   world         what makes the descriptor readable
//   armed         the one-shot registration: the kernel reports it once, then not until it is armed again
//   edge          the bell, edge-triggered and latched
//   generation    of the registration; an arrival carries the one that the kernel had
//
// The callback reads all there is. A post by the companion may find no memory; then it naps and tries
// again. How the loop is woken is sleep.pml's subject: here it waits for an arrival.
//
// No store buffers: everything that meets goes through a system call, which locks, or through the
// ingress. leave_ is written before the ring; the ring is a system call, and so is the wait that it ends.
// Left out: several watches of a descriptor, signals (blocked), a refused thread (watch() answers errno).
//
// mutant: RING_BEFORE_FLAG expects: invalid end state -- Z1 rings and then sets the flag
// mutant: NO_RING expects: acceptance cycle -- Z1 only sets the flag
// mutant: NOT_ONESHOT expects: assertion violated readable -- the registration stays armed when it was reported
// mutant: REARMED_EARLY expects: assertion violated readable -- armed again before the callback
// mutant: NOT_REARMED expects: assertion violated ( !(readable) -- not armed again
// mutant: NO_RETRY expects: assertion violated ( !(readable) -- an arrival that found no memory is dropped
// mutant: NO_GENERATION expects: assertion violated (g==generation) -- an arrival for an earlier watch is delivered
// mutant: CLOSED_UNDER_IT expects: assertion violated poller_open -- the poller is closed before the thread was joined
// mutant: RETRIES_FOR_EVER expects: acceptance cycle -- the retry does not look at the flag

#define EVENTS 2

bit armed = 1, readable, edge, leave, poller_open = 1, joined, no_memory;
byte generation, arrivals[2], sent;   // arrivals by generation
bit rewatched;

active proctype world() {
  do
  :: sent < EVENTS -> atomic { !readable -> readable = true; sent++ }
  :: else -> break
  od
}

active proctype companion() {
  byte about;
  bit got, told;
  do
  :: leave -> break                                      // leaving(): [companion] Z2
  :: else ->
    assert(poller_open);
    if                                                   // poller.wait(never)
    :: atomic {
        armed && readable -> assert(poller_open);
#ifndef MUTANT_NOT_ONESHOT
        armed = false;
#endif
        about = generation; got = true
      }
    :: atomic { edge -> edge = false; assert(poller_open) }
    fi;
    told = !got; got = false;
    do                                                   // report()
    :: told -> break
#ifndef MUTANT_RETRIES_FOR_EVER
    :: !told && leave -> break
#endif
    :: !told && !no_memory -> atomic { arrivals[about]++; assert(arrivals[about] < 3); told = true }   // send()
#ifdef MUTANT_NO_RETRY
    :: !told && no_memory -> break
#elif defined(MUTANT_RETRIES_FOR_EVER)
    :: !told && no_memory -> skip
#else
    :: !told && no_memory && !leave -> skip              // nap()
#endif
    od
  od;
  joined = true
}

// Memory comes and goes; the last word depends on the scene.
active proctype memory() {
  if
  :: no_memory = true;
#ifndef LIVE
    no_memory = false
#endif
  :: skip
  fi
}

active proctype loop() {
  byte g;
  do
  :: atomic { arrivals[0] + arrivals[1] > 0 -> g = (arrivals[0] > 0 -> 0 : 1); arrivals[g]-- }
    if
#ifndef MUTANT_NO_GENERATION
    :: g != generation                                     // is_current: dropped
    :: else ->
#else
    :: true ->
#endif
#ifdef MUTANT_REARMED_EARLY
      armed = true;
#endif
      atomic { assert(g == generation); assert(readable); readable = false }   // the callback
#if !defined(MUTANT_NOT_REARMED) && !defined(MUTANT_REARMED_EARLY)
      armed = true                                         // ~rearm
#endif
    fi;
    g = 0
  :: atomic { !rewatched -> rewatched = true; generation = 1; armed = true }   // unwatch(), then watch()
#ifdef LIVE
  :: break                                                 // destroyed at any time
#else
  :: timeout -> assert(!readable && sent == EVENTS); break
#endif
  od;
#ifdef MUTANT_CLOSED_UNDER_IT
  poller_open = false;
#endif
#if defined(MUTANT_RING_BEFORE_FLAG)
  edge = true; leave = true;
#elif defined(MUTANT_NO_RING)
  leave = true;
#else
  leave = true;                                            // [companion] Z1
  edge = true;                                             // ring
#endif
  joined;                                                  // thread_.join()
  poller_open = false
}

#ifdef LIVE
// A run in which nothing moves any more is a fair one too.
bit tick;
active proctype time_passes() {
  do
  :: tick == 0
  od
}
ltl live { <> joined }
#endif
