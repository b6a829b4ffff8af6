// combining.pml - [inbox], [combine], [quiet]: whoever comes first serves the queue for all (phase 3)
//
// What stands for what
//   inside, rings the two halves of `work`, one word
//   joins, leaves, granted   the inboxes
//   list, early   waiter_list; the owner's, asserted at each touch
//   thread        join, send or leave, and `serve` if it is the owner
//   word          permit_account
//   gone          the last that was told destroys the queue, when Q1 lets it
//   known[w]      w waits and has not been told: asserted where a waiter is touched
//
// Scenes: a wait for two, two permits released by strangers, and destruction by the last that was told; a wait for two
// and one for one, one permit there, two released, and the first leaves; one for
// two alone, which leaves while the permits come one by one.
//
// Store buffers need none: all that is shared is changed by read-modify-writes, the list goes from owner to owner by
// `work`. take_all() reads an inbox first; a stale nothing is what it read a moment before. Left out: closed tokens
// (an inbox more, like `granted`), `patience`.
//
// mutant: PUBLISHED_FIRST expects: assertion violated  !(gone) -- the request is published, then C1
// mutant: RING_APART expects: assertion violated  !(gone) -- not inside any more, and then the ring
// mutant: NOT_QUIET expects: assertion violated  !(gone) -- the destructor does not wait
// mutant: TOLD_EARLY expects: assertion violated (known[0]&& -- who has a leave on its way is told before it was consumed
// mutant: FLAGS_UNCHECKED expects: assertion violated ((owner&&known[v]) -- who leaves does not ask whether it was told
// mutant: LEAVES_LAST expects: assertion violated ((status[v]==0)||(held -- leaves are taken out after the joins
// mutant: RINGS_UNREAD expects: acceptance cycle -- the owner goes without looking for rings that came since
// mutant: RINGS_FORGOTTEN expects: assertion violated (owner== -- the owner clears the rings and serves once more
// mutant: REQUEST_TAKEN_FIRST expects: assertion violated (done== -- the owner takes the requests, then counts the rings it answers
// mutant: NOT_PASSED_ON expects: assertion violated (destroys|| -- what came to who had left is dropped
// mutant: JOINS_NEWEST_FIRST expects: assertion violated ((owner&&known[w])&&(ticket -- the chain is not turned round

#define GRANTED 0
#define LEFT 2
#define OPEN 0
#define SAID 1
#define PROMISED 2
#define JOIN 0
#define SEND 1
#define LEAVE 2
#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define OWED (word < 0 -> -word : 0)
#define SET(w) (1 << (w))
#define THERE assert(!gone)

short word;
byte inside, rings;
chan joins = [2] of { byte };
byte leaves, granted;
chan list = [2] of { byte };
byte early;
bit owner, gone, destroys;
byte verdict[2] = SAID;
byte need[2], held[2], status[2], ticket[2], tickets = 1, turn = 1;
bit known[2], linked[2], promised[2], joined[2];
byte told, had, done, released, expected = 2, total;

inline own() { assert(owner == false); owner = true }

inline add(w) {                      // told_list::add
  assert(known[w] && !(over & SET(w)));
  over = over | SET(w);
  if
  :: status[w] != GRANTED -> returned = returned + held[w]; held[w] = 0
  :: else
  fi
}

inline judge(w) {                    // told, unless a leave is on its way
  if
#ifdef MUTANT_TOLD_EARLY
  :: true -> verdict[w] = SAID; add(w)
#else
  :: verdict[w] == OPEN || verdict[w] == SAID -> verdict[w] = SAID; add(w)
  :: verdict[w] == PROMISED
#endif
  fi
}

inline list_join(w) {
  assert(owner && known[w] && ticket[w] == turn);
  turn++;
  x = MIN(early, need[w]); early = early - x; need[w] = need[w] - x; held[w] = held[w] + x; x = 0;
  if
  :: need[w] == 0 && !promised[w] -> verdict[w] = SAID; over = over | SET(w)
#ifdef MUTANT_TOLD_EARLY
  :: need[w] == 0 && promised[w] -> over = over | SET(w)
#else
  :: need[w] == 0 && promised[w]
#endif
  :: else -> list!w; linked[w] = true
  fi
}

inline list_send() {                 // k tokens
  assert(owner);
  do
  :: k > 0 && nempty(list) ->
    list?<w>;
    assert(known[w]);
    x = MIN(k, need[w]); k = k - x; need[w] = need[w] - x; held[w] = held[w] + x; x = 0;
    if
    :: need[w] == 0 -> list?w; linked[w] = false; judge(w)
    :: else
    fi
  :: else -> break
  od;
  early = early + k; k = 0; w = 0
}

inline let_go(w) {
  assert(owner && known[w] && verdict[w] == PROMISED);
  status[w] = LEFT; verdict[w] = SAID;
  if
  :: linked[w] -> x = MIN(OWED, need[w]); word = word + x; need[w] = need[w] - x; x = 0
  :: else
  fi;
  if
  :: linked[w] && need[w] == 0 -> list??eval(w); linked[w] = false; add(w)
  :: linked[w] && need[w] > 0                             // it stays for what is on its way
  :: !linked[w] -> add(w)
  fi
}

proctype thread(byte role; byte v; byte n) {
  byte k, w, x, over, returned, leavers, seen;
  bit alone;
  if
  :: role == JOIN ->
    atomic {
      had = (word > 0 -> MIN(word, n) : 0); word = word - n;
      held[v] = had; need[v] = n - had; had = 0;
      verdict[v] = (need[v] > 0 -> OPEN : SAID); known[v] = (need[v] > 0)
    };
    if
    :: need[v] == 0 -> goto concluded
    :: else
    fi
  :: role == SEND ->
    atomic { THERE; k = MIN(OWED, n); word = word + n };
    if
    :: k == 0 -> goto end
    :: else
    fi
  :: role == LEAVE ->
    joined[v];                                            // nobody knows it before
    atomic {
      if
#ifdef MUTANT_FLAGS_UNCHECKED
      :: ticket[v] != 0 && !promised[v] -> verdict[v] = PROMISED; promised[v] = true
#endif
      :: verdict[v] == OPEN -> verdict[v] = PROMISED; promised[v] = true
      :: else -> goto end
      fi
    }
  fi;
  atomic {                                                // [combine] C4
    THERE;
    alone = (inside == 0 && rings == 0);
    if
    :: alone ->
      rings = 1; own();
      if
      :: role == JOIN ->
        ticket[v] = tickets; tickets++; turn++;
        x = MIN(early, need[v]); early = early - x; need[v] = need[v] - x; held[v] = held[v] + x; x = 0;
        if
        :: need[v] == 0 -> verdict[v] = SAID; over = over | SET(v)
        :: else -> list!v; linked[v] = true
        fi
      :: role == SEND -> list_send()
      :: role == LEAVE -> let_go(v)
      fi
    :: else
    fi
  }
  if
  :: alone
  :: else ->
#ifndef MUTANT_PUBLISHED_FIRST
    atomic { THERE; inside++ };                           // [combine] C1
#endif
    atomic {                                              // [inbox] I1
      THERE;
      if
      :: role == JOIN -> joins!v; ticket[v] = tickets; tickets++
      :: role == SEND -> granted = granted + k; k = 0
      :: role == LEAVE -> assert(known[v]); leaves = leaves | SET(v)
      fi
    };
#ifdef MUTANT_PUBLISHED_FIRST
    atomic { THERE; inside++ };
#endif
#ifdef MUTANT_RING_APART
    atomic { THERE; inside-- };
    atomic { THERE; inside++ }; 
#endif
    atomic {                                              // [combine] C3
      THERE;
      seen = rings; rings++; inside--;
      if
      :: seen == 0 -> own()
      :: else -> seen = 0; goto wait
      fi
    };
    goto requests
  fi;
  seen = 1;
  do                                                      // serve
  :: if
    :: returned > 0 ->                                    // pass_on
      atomic { k = MIN(OWED, returned); word = word + returned; returned = 0 };
#ifdef MUTANT_NOT_PASSED_ON
      word = word - k; k = 0;
#endif
      goto feed
    :: else
    fi;
#ifdef MUTANT_REQUEST_TAKEN_FIRST
    seen = rings;
#endif
    atomic {                                              // [combine] C5
      THERE;
#ifdef MUTANT_RINGS_UNREAD
      rings = 0; owner = false; seen = 0; break;
#endif
      if
      :: rings == seen -> rings = 0; owner = false; seen = 0; break
#ifdef MUTANT_RINGS_FORGOTTEN
      :: rings > seen -> rings = 0; seen = 0
#else
      :: rings > seen -> rings = rings - seen; seen = rings
#endif
      fi
    };
requests:
#ifdef MUTANT_RINGS_FORGOTTEN
    skip;
#else
    seen = (seen == 0 -> 1 : seen);
#endif
#ifndef MUTANT_LEAVES_LAST
    atomic { THERE; leavers = leaves; leaves = 0 };       // [inbox] I2
#endif
    atomic {                                              // [inbox] I2
      THERE;
#ifdef MUTANT_JOINS_NEWEST_FIRST
      if
      :: len(joins) == 2 -> joins?w; joins!w
      :: else
      fi;
#endif
      do
      :: nempty(joins) -> joins?w; list_join(w)
      :: else -> break
      od;
      w = 0;
#ifdef MUTANT_LEAVES_LAST
    };
    atomic {
      leavers = leaves; leaves = 0;
#endif
      if
      :: leavers & SET(0) -> let_go(0)
      :: else
      fi;
      leavers = 0
    };
    atomic { THERE; k = granted; granted = 0 };           // [inbox] I2
feed:
    atomic { list_send() }
  od;
wait:
  atomic { told = told | over; over = 0; joined[v] = joined[v] | (role == JOIN); seen = 0 };
  if
  :: role == JOIN ->
    told & SET(v);
    known[v] = false;
concluded:
    atomic {
      joined[v] = true;
      assert(need[v] == 0 && !linked[v]);
      assert(promised[v] == (status[v] == LEFT));         // who was promised hears so, and nobody else
      assert(status[v] == GRANTED || held[v] == 0);
      done++
    };
    if
    :: atomic { destroys ->
#ifndef MUTANT_NOT_QUIET
        inside + rings == 0;                              // [quiet] Q1
#endif
        gone = true }
    :: atomic { !destroys && status[v] == GRANTED -> assert(held[v] == n); released = released + n }
    :: !destroys && status[v] == LEFT
    fi
  :: else
  fi;
end: skip
}

init {
  atomic {
    if
    :: destroys = true; expected = 1; run thread(JOIN, 0, 2); run thread(SEND, 0, 1); run thread(SEND, 0, 1)
    :: expected = 1; total = 2;
      run thread(JOIN, 0, 2); run thread(SEND, 0, 1); run thread(SEND, 0, 1); run thread(LEAVE, 0, 0)
#ifndef LIVE
    :: word = 1; expected = 2; total = 3;
      run thread(JOIN, 0, 2); run thread(JOIN, 1, 1); run thread(SEND, 0, 2); run thread(LEAVE, 0, 0)
#else
    :: run thread(JOIN, 0, 1); run thread(JOIN, 1, 1); run thread(SEND, 0, 2)
#endif
    fi
  }
#ifndef LIVE
  timeout ->                                              // nothing moves any more
  assert(done == expected);
  assert(destroys || word + released == total);
  assert(early == 0 && !owner)
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
ltl live { <> (done == expected) }
#endif
