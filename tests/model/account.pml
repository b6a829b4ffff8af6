// account.pml - [permit]: one word says what there is and what is owed; tokens may come before their waiter
//
// What stands for what
//   word, closed  permit_account: permits, or less than none by what is owed. notice_account: -owed
//   queue, early  a queue that does each call in one step, as phase 0 does it under its mutex
//   waiter        acquire(n), inside, release(n); of a condvar: wait, and no more
//   leaver        a timer or cancel(); leave() says in the same step what the account says
//   flying        tokens between the account that owes them and the queue
//   over          told_list: told when what they returned is released
//
// Three scenes: waiters for one and for two, one permit there and one released by a stranger, and one of the
// waiters leaves; the one for two comes first, nothing is there, and close() comes or not; a condvar with two waiters,
// one that leaves, a notify_one() and, when nothing moves any more, notify_all(). `needs`, `inside` and
// `flying` only count.
//
// Store buffers need none: every change of the word is a read-modify-write, and the queue's steps are a lock's. A CAS
// loop is one step, the one that ends it; a hint it began with may be of any age. Left out: forget() and try_take(),
// which take nothing but permits that are there.
//
// mutant: UNLINKED_FIRST expects: assertion violated (((word==2) -- who leaves gives up its place, then asks the account
// mutant: PUT_BACK expects: assertion violated ((((early==0) -- who leaves adds its need, owed or not: a permit too many
// mutant: WITHDRAWN_FIRST expects: assertion violated (done==expected) -- the debt goes down before the place is held
// mutant: NOTICE_WITHDRAWN expects: assertion violated (done==expected) -- the same of a condvar: no notification reaches the other any more
// mutant: TOKEN_SWALLOWED expects: assertion violated (needs== -- a token that finds nobody is dropped
// mutant: DEBT_LOOKED_UP expects: assertion violated (needs== -- owed is read in a step of its own
// mutant: ONE_SENT expects: assertion violated (needs== -- two released, two owed, one token sent
// mutant: DEBT_KEPT expects: assertion violated (((word==2) -- close() sends tokens and leaves the debt
// mutant: GIVES_CLOSED expects: assertion violated (needs== -- what a late acquire() is about to undo is taken for debt
// mutant: TAKEN_CLOSED expects: assertion violated (((word==2) -- a late acquire() does not undo its step
// mutant: RETURNED_DROPPED expects: assertion violated (((word==2) -- who leaves keeps the permits that it had got
// mutant: DOOMED_TOLD expects: assertion violated (linked[me]==0) -- who leaves is told though tokens are on their way
// mutant: NEVER_SENT expects: acceptance cycle -- what a leaver returned, and others are owed, is not sent

#define TOTAL 2
#define WAITERS 3
#define GRANTED 0
#define CLOSED 1
#define LEFT 2
#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define OWED (word < 0 -> -word : 0)
#define SET(w) (1 << (w))

short word;
bit closed, notices;
chan queue = [WAITERS] of { byte };
byte early, early_closed;
byte need[WAITERS], held[WAITERS], status[WAITERS];
bit linked[WAITERS], promised[WAITERS];
byte told;                           // a set
byte inside, flying, needs;
byte done, expected, granted, sent;

// What waiters still need = tokens on their way + debt. Off where a mutant is to show what comes of it.
#if defined(MUTANT_UNLINKED_FIRST) || defined(MUTANT_PUT_BACK) || defined(MUTANT_WITHDRAWN_FIRST) || \
  defined(MUTANT_NOTICE_WITHDRAWN) || defined(MUTANT_DEBT_KEPT) || \
  defined(MUTANT_DOOMED_TOLD) || defined(MUTANT_NEVER_SENT)
#define BALANCE skip
#else
#define BALANCE assert(needs == flying + early + early_closed + (closed -> 0 : OWED))
#endif

inline give(n) {                     // account.give; of a condvar: notify. Sets k
#ifdef MUTANT_DEBT_LOOKED_UP
  k = (closed -> 0 : MIN(OWED, n));
  atomic { word = word + (notices -> k : n); flying = flying + k; BALANCE }
#else
  atomic {
    k = MIN(OWED, n);
#ifndef MUTANT_GIVES_CLOSED
    k = (closed -> 0 : k);
#endif
    word = word + (notices -> k : n);
#ifdef MUTANT_ONE_SENT
    k = MIN(k, 1);
#endif
    flying = flying + k; sent = sent + k;
    BALANCE
  }
#endif
}

inline add(w) {                      // told_list::add
  over = over | SET(w);
  if
  :: status[w] != GRANTED && held[w] -> returned = returned + held[w]; held[w] = 0
  :: else
  fi
}

inline send(kind) {                  // queue.send of k tokens
  atomic {
    if
    :: k > 0 ->
      flying = flying - k;
      do
      :: k > 0 && nempty(queue) ->
        queue?<w>;
        x = MIN(need[w], k);
        k = k - x; need[w] = need[w] - x; needs = needs - x;
        if
        :: kind == GRANTED -> held[w] = held[w] + x
        :: kind == CLOSED -> status[w] = (status[w] == GRANTED -> CLOSED : status[w])
        fi;
        if
        :: need[w] == 0 -> queue?w; linked[w] = false; add(w)
        :: else
        fi
      :: else -> break
      od;
#ifndef MUTANT_TOKEN_SWALLOWED
      if
      :: kind == GRANTED -> early = early + k
      :: kind == CLOSED -> early_closed = early_closed + k
      fi;
#endif
      w = 0; x = 0; k = 0;
      BALANCE
    :: else
    fi
  }
}

inline finish_closed() {             // returned by who was told so: nothing is owed any more
  if
  :: returned > 0 -> r = returned; returned = 0; give(r); assert(k == 0); r = 0
  :: else
  fi;
  atomic { told = told | over; over = 0 }
}

proctype giver(byte n; byte over) {  // somebody releases, or notifies; and whoever returns what others get first
  byte k, w, x, returned;
  do
  :: give(n);
#ifdef MUTANT_NEVER_SENT
    if
    :: over -> flying = flying - k; k = 0
    :: else
    fi;
#endif
    send(GRANTED);
    n = returned; returned = 0;
#ifdef MUTANT_RETURNED_DROPPED
    n = 0;
#endif
    if
    :: n == 0 -> break
    :: else
    fi
  od;
  atomic { told = told | over; over = 0 }
}

proctype waiter(byte me; byte n) {
  byte k, w, x, over, returned, r, had;
  bit refused;
  atomic {                                                // take; of a condvar: enter
    had = (word > 0 && !closed -> MIN(word, n) : 0);
    word = word - n; refused = closed;
    if
    :: !refused -> need[me] = n - had; held[me] = had; needs = needs + need[me]
    :: else -> status[me] = CLOSED
    fi;
    had = 0;
    BALANCE
  }
  if
  :: refused ->
#ifndef MUTANT_TAKEN_CLOSED
    atomic { word = word + n; BALANCE }
#else
    skip
#endif
  :: !refused && need[me] == 0
  :: !refused && need[me] > 0 ->
    atomic {                                              // queue.join
      x = MIN(early, need[me]);
      early = early - x; need[me] = need[me] - x; held[me] = held[me] + x; needs = needs - x;
      x = MIN(early_closed, need[me]);
      early_closed = early_closed - x; need[me] = need[me] - x; needs = needs - x;
      status[me] = (x > 0 -> CLOSED : status[me]); x = 0;
      if
      :: need[me] == 0 -> add(me)
      :: else -> queue!me; linked[me] = true
      fi;
      BALANCE
    }
    finish_closed();
    told & SET(me)
  fi;
  atomic {
    assert(linked[me] == 0);
    assert(need[me] == 0);
    assert(promised[me] == (status[me] == LEFT));         // who was promised hears so, and nobody else
    assert(status[me] == GRANTED || held[me] == 0);
    granted = granted + (status[me] == GRANTED);
    if
    :: status[me] == GRANTED && !notices -> assert(held[me] == n); inside = inside + n; assert(inside <= TOTAL)
    :: else
    fi
  }
  if
  :: status[me] == GRANTED && !notices ->
    atomic { inside = inside - n; run giver(n, 0) }
  :: else
  fi;
  done++
}

proctype leaver(byte v) {
  byte k, x, over, returned;
#if defined(MUTANT_WITHDRAWN_FIRST) || defined(MUTANT_NOTICE_WITHDRAWN)
  bit joined;
  atomic { joined = linked[v]; k = (closed || !joined -> 0 : MIN(OWED, need[v])); word = word + k }
#endif
  atomic {
    if
#if defined(MUTANT_WITHDRAWN_FIRST) || defined(MUTANT_NOTICE_WITHDRAWN)
    :: k > 0 && linked[v] && status[v] == GRANTED ->
      k = MIN(k, need[v]);
#elif defined(MUTANT_UNLINKED_FIRST)
    :: linked[v] && status[v] == GRANTED ->
      queue??eval(v); linked[v] = false; needs = needs - need[v];
      k = need[v]
    :: else
    fi
  }
  atomic {
    if
    :: k > 0 ->
      x = (closed -> 0 : MIN(OWED, k)); word = word + x; k = 0; x = 0;
      promised[v] = true; status[v] = LEFT; need[v] = 0; add(v)
    :: else
    fi;
    if
    :: false ->
#elif defined(MUTANT_PUT_BACK)
    :: linked[v] && status[v] == GRANTED && !closed ->
      k = need[v]; word = word + k;
#else
    :: linked[v] && status[v] == GRANTED && !closed && OWED > 0 ->
      k = MIN(OWED, need[v]); word = word + k;
#endif
      promised[v] = true; status[v] = LEFT;
      need[v] = need[v] - k; needs = needs - k; k = 0;
      if
#ifndef MUTANT_DOOMED_TOLD
      :: need[v] == 0 -> queue??eval(v); linked[v] = false; add(v)
      :: else                                             // it stays for what is on its way
#else
      :: true -> add(v)
#endif
      fi
    :: else
    fi;
    BALANCE;
#ifdef MUTANT_RETURNED_DROPPED
    returned = 0;
#endif
    if                                                    // what was returned is others' first
    :: returned > 0 -> run giver(returned, over)
    :: else -> told = told | over
    fi
  }
}

proctype closer() {
  byte k, w, x, over, returned, r;
  atomic {
    k = OWED;
#ifndef MUTANT_DEBT_KEPT
    word = word + k;
#endif
    closed = true; flying = flying + k;
    BALANCE
  }
  send(CLOSED);
  finish_closed()
}

init {
  atomic {
    if
#if !defined(MUTANT_NOTICE_WITHDRAWN)
#ifndef LIVE
    :: word = 1; expected = 2; run waiter(0, 1); run waiter(1, 2); run giver(1, 0); run leaver(1)
    :: expected = 2; run waiter(0, 2); run waiter(1, 1); run giver(1, 0); run giver(1, 0); run leaver(0)
#else
    :: word = 1; expected = 2; run waiter(0, 2); run waiter(1, 1); run giver(1, 0); run leaver(0)
#endif
#endif
#ifndef LIVE
#ifndef MUTANT_NOTICE_WITHDRAWN
    :: word = 1; expected = 2; run waiter(0, 2); run waiter(1, 1); run giver(1, 0); run leaver(0); run closer()
#endif
    :: notices = true; expected = 2; run waiter(0, 1); run waiter(1, 1); run leaver(0); run giver(1, 0)
#endif
    fi
  }
#ifndef LIVE
  timeout ->                                              // nothing moves any more
  if
  :: notices ->
    assert(granted == sent);                              // of those that came in time
    run giver(WAITERS, 0);
    timeout -> skip
  :: else
  fi;
  assert(done == expected);
  assert((word == TOTAL || notices) && (word == 0 || !notices));
  assert(early == 0 && early_closed == 0 && needs == 0 && flying == 0)
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
ltl live { <> (done == 2) }
#endif
