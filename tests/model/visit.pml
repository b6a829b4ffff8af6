// visit.pml - [arm], [visit], [late]: one who waits somewhere and is told on a loop
//
// What stands for what
//   registrar     loop_waiter::wait() on another thread: send_in, enter, arm
//   teller        whoever gives it a permit, if anybody does
//   loop          its task (delivery), its timer, close(), the end of its run, and its destructor
//   place         what it waits for: not yet, in the queue, taken out of it
//   marks         as there
//   gone          conclude(): the waiter is no more. Asserted at each touch
//
// Scenes: with or without a deadline, a teller, and room in the loop's queues; the loop closes at any time, and
// runs what it accepted or destroys it. It is destroyed after wait() has returned; tellers may still be on their way.
//
// Store buffers need none: every change of the marks and lists is a read-modify-write. Left out: redeem() that
// answers false and again() (delegate.pml has the waiter's side), tickets, waits that are settled by a coroutine in
// place, the loop thread as registrar, which is the same with less at once.
//
// mutant: ARMED_BLIND expects: acceptance cycle -- arming does not look at what came before
// mutant: DUE_LATE expects: assertion violated  !(gone) -- what came before is dealt with behind the CAS that arms
// mutant: TOLD_UNSEEN expects: assertion violated ended -- arming does not look whether it was told
// mutant: DELIVERED_UNARMED expects: assertion violated (permits<=given) -- told, it is delivered, armed or not: twice
// mutant: DUE_UNARMED expects: assertion violated (place==2) -- the timer has it leave before it is armed
// mutant: MARKS_BY_STORE expects: assertion violated ended -- told is a load and a store
// mutant: COLLECTED_EARLY expects: assertion violated  !(gone) -- collected though it is not stranded
// mutant: STRANDED_FIRST expects: assertion violated  !(gone) -- stranded, then its permit given back
// mutant: GIVEN_BACK_TWICE expects: assertion violated  !(gone) -- a refused delivery is destroyed as if it had been accepted
// mutant: NOT_GIVEN_BACK expects: assertion violated (permits==given) -- a refused delivery keeps its permit
// mutant: DESTROYED_SILENTLY expects: assertion violated ended -- a delivery that is destroyed unrun does nothing
// mutant: LATE_FORGOTTEN expects: assertion violated ended -- the destructor does not let in who came late
// mutant: ENDS_UNTOLD expects: assertion violated ended -- the end of the loop is not a mark
// mutant: TIMER_KEPT expects: assertion violated  !(gone) -- who goes leaves its timer

#define ARMED 1
#define TOLD 2
#define DUE 4
#define ENDING 8
#define STRANDED 16
#define OUT 0
#define QUEUED 1
#define TAKEN 2
#define GRANTED 0
#define TIMED_OUT 1
#define CLOSED 2
#define HERE assert(!gone)

byte marks, place, status;
bit gone, ended, timer, crowded;
bit closed, posted, late, registered, returned, visits, loop_done;
byte given, permits, told_times;

inline told_now(how) {               // the queue lets go of it; the caller then tells
  HERE; assert(place == QUEUED); place = TAKEN; status = how; told_times++; assert(told_times == 1)
}
inline give_back() {
  atomic {
    HERE;
    if
    :: status == GRANTED -> permits++; assert(permits <= given)
    :: else
    fi
  }
}
inline go(hears) {
  atomic {
    HERE; assert(!ended && visits);
#ifndef MUTANT_TIMER_KEPT
    timer = false;
#endif
    visits = false; ended = true; gone = true;
    permits = permits + (hears && status == GRANTED); assert(permits <= given)
  }
}
// deliver(), the last that a teller does. On the loop thread it may be slower here than it is.
proctype delivery() {
  bit refused;
  atomic {
    HERE;
    if
    :: closed -> refused = true
    :: !closed && crowded -> crowded = false; late = true       // be_late, and the bell
    :: !closed && !crowded -> assert(!posted); posted = true
    fi
  };
  if
  :: refused ->
#ifdef MUTANT_GIVEN_BACK_TWICE
    give_back();
    go(false);
#endif
#ifdef MUTANT_STRANDED_FIRST
    atomic { HERE; marks = marks | STRANDED };
#endif
#ifndef MUTANT_NOT_GIVEN_BACK
    give_back();
#endif
#ifndef MUTANT_STRANDED_FIRST
    atomic { HERE; marks = marks | STRANDED }
#endif
  :: else
  fi
}
inline tell() {
#ifdef MUTANT_MARKS_BY_STORE
  atomic { HERE; before = marks };
  atomic { HERE; marks = before | TOLD };
#else
  atomic { HERE; before = marks; marks = marks | TOLD };
#endif
  if
#ifdef MUTANT_DELIVERED_UNARMED
  :: true -> run delivery()
#else
  :: before & ARMED -> run delivery()
#endif
  :: else
  fi;
  before = 0
}
inline leave_for(reasons) {          // of_->leave
  atomic {
    HERE;
    if
    :: place == QUEUED -> told_now((reasons & ENDING -> CLOSED : TIMED_OUT)); won = true
    :: else -> assert(place == TAKEN)
    fi
  };
  if
  :: won -> won = false; tell()
  :: else
  fi
}
inline mark(reason) {
  atomic { HERE; before = marks; marks = marks | reason };
  if
#ifdef MUTANT_DUE_UNARMED
  :: (before & TOLD) == 0 -> leave_for(reason)
#else
  :: (before & (ARMED | TOLD)) == ARMED -> leave_for(reason)
#endif
  :: else
  fi;
  before = 0
}

proctype registrar() {
  byte seen;
#ifdef MUTANT_DUE_LATE
  byte before;
#endif
  bit leaves, won;
  atomic {
    if
    :: closed -> returned = true; ended = true; goto end  // nothing has happened
    :: else -> visits = true; registered = true           // [visit] N1
    fi
  };
  atomic { HERE; place = QUEUED };                        // enter
  atomic { HERE; seen = marks };                          // arm: [arm] E2
  do
#if !defined(MUTANT_ARMED_BLIND) && !defined(MUTANT_DUE_LATE)
  :: !(seen & TOLD) && (seen & (DUE | ENDING)) && !leaves ->
    leaves = true;
    atomic {                                              // leave_for(), which tells it
      if
      :: place == QUEUED -> told_now((seen & ENDING -> CLOSED : TIMED_OUT)); won = true
      :: else -> assert(place == TAKEN)
      fi
    };
    if
    :: won -> atomic { won = false; marks = marks | TOLD }
    :: else
    fi;
    atomic { HERE; seen = marks }
  :: else ->
#else
  :: true ->
#endif
    atomic {
      HERE;
      if
      :: marks == seen -> marks = marks | ARMED; break
      :: else -> seen = marks
      fi
    }
  od;
#ifdef MUTANT_DUE_LATE
  if
  :: !(seen & TOLD) && (seen & (DUE | ENDING)) -> leave_for(seen)
  :: else
  fi;
#endif
#ifndef MUTANT_TOLD_UNSEEN
  if
  :: seen & TOLD -> run delivery()
  :: else
  fi;
#endif
  returned = true;
end: skip
}

proctype teller() {
  byte before;
  bit won;
  atomic { place != OUT || returned ->
    if
    :: place == QUEUED -> told_now(GRANTED); given++; won = true
    :: else
    fi
  };
  if
  :: won -> tell()
  :: else
  fi
}

proctype loop() {
  byte before;
  bit won, over;
  do
  :: atomic { posted -> posted = false };                 // arrive
    go(true)
  :: atomic { late -> late = false };                     // let_late_in
    run delivery()
  :: atomic { timer && (registered || returned) -> timer = false };
    if
    :: visits -> mark(DUE)
#ifdef MUTANT_TIMER_KEPT
    :: !visits && registered -> mark(DUE)
#endif
    :: else
    fi
#ifdef LIVE
  :: ended && returned -> break
#else
  :: closed = true; break
#endif
  od;
ends:                                                     // end_timers_and_watches; tear_down
  if
  :: visits ->
#ifndef MUTANT_ENDS_UNTOLD
    mark(ENDING);
#endif
    if
    :: visits && (marks & STRANDED) -> go(false)
    :: else
    fi
  :: else
  fi;
  if
  :: !over ->
    timer = false; over = true;
    do
    :: atomic { posted -> posted = false };               // what was accepted is run
      go(true)
    :: returned -> break                                  // destroyed after wait() has returned, and all tasks or none
    od;
    goto ends
  :: else
  fi;
  do
  :: !visits -> break
  :: visits && posted ->                                  // destroy_all_work: pass_by
    posted = false;
#ifndef MUTANT_DESTROYED_SILENTLY
    give_back();
    go(false)
#endif
  :: visits && late ->
#ifndef MUTANT_LATE_FORGOTTEN
    late = false; run delivery()
#else
    late = false
#endif
#ifdef MUTANT_COLLECTED_EARLY
  :: visits && !posted && !late -> go(false)
#else
  :: visits && !posted && !late && (marks & STRANDED) -> go(false)
#endif
  od;
  loop_done = true
}

init {
  atomic {
    if
    :: timer = true
    :: skip
    fi;
    if
    :: crowded = true
    :: skip
    fi;
    run registrar(); run loop();
    if
    :: run teller()
    :: timer -> skip
#ifndef LIVE
    :: !timer -> skip
#endif
    fi
  }
#ifndef LIVE
  timeout ->                                              // nothing moves any more
  assert(ended);
  assert(loop_done);
  assert(permits == given)
#endif
}

#ifdef LIVE
// A run in which nothing moves any more is a fair one too.
bit tick;
active proctype time_passes() {
  do
  :: tick == 0
  od
}
ltl live { <> ended }
#endif
