// main.rs - semaphores of Rust, in the shapes of permits.cpp: one repetition for each call
//
//   rivals uncontended WHO TIMES | turns WHO THREADS PERMITS MICROSECONDS | handoff WHO TRIPS
//
// WHO is tokio, tokio-notify or async-lock. Prints nanoseconds per operation, and Jain's index or 0. What does not end
// is ended after 15 seconds. (Version 2 of async-lock has no way to release what was not acquired: no hand-offs.)
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{mpsc, Arc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

// ---- A thread that runs one future ----

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future: Pin<Box<F>> = Box::pin(future);
    let unpark = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(unpark.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return answer;
        }
        while !unpark.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

// ---- Permits that are taken and come back ----

trait Passes: Send + Sync + 'static {
    fn new(permits: usize) -> Self;
    // Takes a permit and gives it back, until `more` says no.
    fn pass<M: FnMut() -> bool + Send>(&self, more: M) -> Pin<Box<dyn Future<Output = ()> + '_>>
    where
        M: 'static;
    // Asked when nobody waits.
    fn available(&self, most: usize) -> usize;
}

impl Passes for tokio::sync::Semaphore {
    fn new(permits: usize) -> Self {
        tokio::sync::Semaphore::new(permits)
    }
    fn pass<M: FnMut() -> bool + Send + 'static>(&self, mut more: M) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async move {
            while more() {
                drop(self.acquire().await.expect("it is never closed"));
            }
        })
    }
    fn available(&self, _: usize) -> usize {
        self.available_permits()
    }
}

impl Passes for async_lock::Semaphore {
    fn new(permits: usize) -> Self {
        async_lock::Semaphore::new(permits)
    }
    fn pass<M: FnMut() -> bool + Send + 'static>(&self, mut more: M) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async move {
            while more() {
                drop(self.acquire().await);
            }
        })
    }
    fn available(&self, most: usize) -> usize {
        let all: Vec<_> = (0..=most).map_while(|_| self.try_acquire()).collect();
        all.len()
    }
}

fn must_hold<S: Passes>(semaphore: &S, permits: usize) {
    assert_eq!(semaphore.available(permits), permits, "every permit came back, once");
}

fn nanos_each(span: Duration, operations: u64) -> f64 {
    span.as_nanos() as f64 / operations as f64
}

fn uncontended<S: Passes>(times: u64) -> (f64, f64) {
    let semaphore = S::new(1);
    let mut left = times;
    let begin = Instant::now();
    block_on(semaphore.pass(move || {
        let more = left != 0;
        left = left.wrapping_sub(1);
        more
    }));
    let span = begin.elapsed();
    must_hold(&semaphore, 1);
    (nanos_each(span, times), 0.0)
}

// As crowd::run: the clock starts when each has done one, and stops while all still run.
fn turns<S: Passes>(threads: usize, permits: usize, span: Duration) -> (f64, f64) {
    #[repr(align(128))]
    struct Counter(AtomicU64);
    let semaphore = Arc::new(S::new(permits));
    let over = Arc::new(AtomicBool::new(false));
    let counters: Arc<Vec<Counter>> = Arc::new((0..threads).map(|_| Counter(AtomicU64::new(0))).collect());
    let all: Vec<_> = (0..threads)
        .map(|i| {
            let (semaphore, over, counters) = (semaphore.clone(), over.clone(), counters.clone());
            thread::spawn(move || {
                let mut passes = 0;
                block_on(semaphore.pass(move || {
                    counters[i].0.store(passes, Ordering::Relaxed);
                    passes += 1;
                    !over.load(Ordering::Relaxed)
                }))
            })
        })
        .collect();
    let count = || -> Vec<u64> { counters.iter().map(|c| c.0.load(Ordering::Relaxed)).collect() };
    while count().contains(&0) {
        thread::sleep(Duration::from_micros(100));
    }
    let before = count();
    let begin = Instant::now();
    thread::sleep(span);
    let after = count();
    let took = begin.elapsed();
    over.store(true, Ordering::Relaxed);
    for one in all {
        one.join().expect("a thread");
    }
    must_hold(&*semaphore, permits);
    let shares: Vec<f64> = after.iter().zip(&before).map(|(a, b)| (a - b) as f64).collect();
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|s| s * s).sum();
    let jain = if squares > 0.0 { sum * sum / (shares.len() as f64 * squares) } else { 0.0 };
    (nanos_each(took, (sum as u64).max(1)), jain)
}

// ---- Permits that go from one to the other ----

trait Signal: Send + Sync + 'static {
    fn new() -> Self;
    fn give(&self);
    fn take(&self) -> Pin<Box<dyn Future<Output = ()> + '_>>;
}

impl Signal for tokio::sync::Semaphore {
    fn new() -> Self {
        tokio::sync::Semaphore::new(0)
    }
    fn give(&self) {
        self.add_permits(1);
    }
    fn take(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async move { self.acquire().await.expect("it is never closed").forget() })
    }
}

impl Signal for tokio::sync::Notify {
    fn new() -> Self {
        tokio::sync::Notify::new()
    }
    fn give(&self) {
        self.notify_one();
    }
    fn take(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(self.notified())
    }
}

fn handoff<S: Signal>(trips: u64) -> (f64, f64) {
    let there = Arc::new(S::new());
    let back = Arc::new(S::new());
    let (gone, echo) = (there.clone(), back.clone());
    let (ready, waits) = mpsc::channel();
    let partner = thread::spawn(move || {
        block_on(async move {
            ready.send(()).expect("somebody listens");
            for _ in 0..=trips {
                gone.take().await;
                echo.give();
            }
        })
    });
    waits.recv().expect("the partner");
    let span = block_on(async {
        there.give();
        back.take().await;
        let begin = Instant::now();
        for _ in 0..trips {
            there.give();
            back.take().await;
        }
        begin.elapsed()
    });
    partner.join().expect("a thread");
    (nanos_each(span, 2 * trips), 0.0)
}

fn main() {
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(15));
        std::process::exit(1);
    });
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| -> u64 { words.get(i).and_then(|w| w.parse().ok()).expect("a number") };
    let shape = words.first().map_or("", |w| w.as_str());
    let who = words.get(1).map_or("", |w| w.as_str());
    let size = |i: usize| number(i) as usize;
    let (figure, aside) = match (shape, who) {
        ("uncontended", "tokio") => uncontended::<tokio::sync::Semaphore>(number(2)),
        ("uncontended", "async-lock") => uncontended::<async_lock::Semaphore>(number(2)),
        ("turns", "tokio") => turns::<tokio::sync::Semaphore>(size(2), size(3), Duration::from_micros(number(4))),
        ("turns", "async-lock") => turns::<async_lock::Semaphore>(size(2), size(3), Duration::from_micros(number(4))),
        ("handoff", "tokio") => handoff::<tokio::sync::Semaphore>(number(2)),
        ("handoff", "tokio-notify") => handoff::<tokio::sync::Notify>(number(2)),
        _ => panic!("unknown: {words:?}"),
    };
    println!("{figure} {aside}");
}
