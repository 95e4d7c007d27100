//! Threads that share the parts of one operation.
//!
//! A model of a hundred million weights hands over work some two hundred times per token, so a hand-off has to cost about a
//! microsecond: workers look for work for a while before they sleep. They are not pinned. They do not yield while they look
//! either: on a busy machine that would cost them their core for a time slice, which is far longer than the look.

use std::cell::UnsafeCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Rounds in which an idle worker looks for work before it sleeps: some 50 microseconds.
const LOOKS: usize = 4_000;
/// Set in [`Shared::gate`] while no worker may join.
const CLOSED: usize = 1 << 31;

/// A fixed number of threads; the caller is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Counts jobs; workers watch it.
    job: AtomicUsize,
    /// The current job; changed only while the gate is closed and nobody is inside.
    task: UnsafeCell<Task>,
    /// How many workers are inside the current job, and [`CLOSED`]. A worker that comes late finds the gate closed: a job ends
    /// when its parts are done, and waits for nobody who has not begun.
    gate: AtomicUsize,
    /// The next part to be taken.
    next: AtomicUsize,
    panicked: AtomicBool,
    beds: Mutex<Beds>,
    wake: Condvar,
    /// Held by the thread whose job runs.
    turn: Mutex<()>,
}

#[derive(Default)]
struct Beds {
    sleeping: usize,
    ending: bool,
}

/// A borrowed closure whose lifetime was erased; it is used only while [`Pool::run`] waits.
#[derive(Clone, Copy)]
struct Task {
    work: *const (dyn Fn(usize) + Sync),
    parts: usize,
}

// SAFETY: the closure is `Sync`, `task` is written only by the holder of `turn` while no worker is inside the gate, and read only
// inside the gate.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Pool {
    /// `threads` in all, at least one.
    pub fn new(threads: usize) -> Self {
        let nothing: &'static (dyn Fn(usize) + Sync) = &|_| ();
        let shared = Arc::new(Shared {
            job: AtomicUsize::new(0),
            task: UnsafeCell::new(Task { work: nothing, parts: 0 }),
            gate: AtomicUsize::new(CLOSED),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            beds: Mutex::default(),
            wake: Condvar::new(),
            turn: Mutex::new(()),
        });
        let spawn = |i: usize| {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("kernel-{i}")).spawn(move || shared.serve()).ok()
        };
        // A machine that gives out fewer threads than asked for is slower, not broken.
        let workers = (1..threads).filter_map(spawn).collect();
        Self { shared, workers }
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` with every number below `parts`, each once, spread over the threads. Returns when all are done. Calls from
    /// several threads take turns; a call from inside `work` would wait for itself.
    ///
    /// # Panics
    /// When `work` panicked, after all threads have stopped working on it.
    pub fn run(&self, parts: usize, work: impl Fn(usize) + Sync) {
        if self.workers.is_empty() || parts < 2 {
            return (0..parts).for_each(work);
        }
        let turn = lock(&self.shared.turn);
        let erased: *const (dyn Fn(usize) + Sync + '_) = &work;
        // SAFETY: only the lifetime changes; nobody uses the closure after this function has returned, see `Shared::gate`.
        let erased: *const (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(erased) };
        self.shared.open(Task { work: erased, parts });
        let own = catch_unwind(AssertUnwindSafe(|| self.shared.take_parts(parts, &work)));
        self.shared.close();
        let panicked = self.shared.panicked.swap(false, Ordering::Relaxed);
        drop(turn);
        if let Err(cause) = own {
            resume_unwind(cause);
        }
        assert!(!panicked, "a part of a parallel operation panicked");
    }

    /// Cuts `length` into about as many neighbouring ranges as there are threads, at multiples of `unit`, and calls `work`
    /// with each.
    pub fn split(&self, length: usize, unit: usize, work: impl Fn(std::ops::Range<usize>) + Sync) {
        let units = length.div_ceil(unit);
        let parts = self.threads().min(units);
        let cut = |i: usize| (i * units / parts.max(1) * unit).min(length);
        self.run(parts, |i| work(cut(i)..cut(i + 1)));
    }
}

impl Shared {
    fn open(&self, task: Task) {
        // SAFETY: the caller holds `turn`, the gate is closed and nobody is inside.
        unsafe { *self.task.get() = task };
        self.next.store(0, Ordering::Relaxed);
        // Not set to zero: somebody who came too late for the last job may just be going out.
        self.gate.fetch_and(!CLOSED, Ordering::AcqRel);
        let beds = lock(&self.beds);
        self.job.fetch_add(1, Ordering::Release);
        if beds.sleeping > 0 {
            self.wake.notify_all();
        }
    }

    fn close(&self) {
        self.gate.fetch_or(CLOSED, Ordering::AcqRel);
        let mut looks = 0;
        while self.gate.load(Ordering::Acquire) != CLOSED {
            look(&mut looks);
        }
    }

    fn take_parts(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return;
            }
            work(part);
        }
    }

    /// A worker's life.
    fn serve(&self) {
        let mut seen = 0;
        while self.wait(&mut seen) {
            if self.gate.fetch_add(1, Ordering::AcqRel) & CLOSED == 0 {
                // SAFETY: the gate was open when this worker came in, so the task is there, and stays until it goes out again.
                let (work, parts) = unsafe { (&*(*self.task.get()).work, (*self.task.get()).parts) };
                if catch_unwind(AssertUnwindSafe(|| self.take_parts(parts, work))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether there is a new job; no when the pool ends.
    fn wait(&self, seen: &mut usize) -> bool {
        let mut looks = 0;
        while self.job.load(Ordering::Acquire) == *seen && looks < LOOKS {
            look(&mut looks);
        }
        if self.job.load(Ordering::Acquire) == *seen {
            let mut beds = lock(&self.beds);
            beds.sleeping += 1;
            while self.job.load(Ordering::Acquire) == *seen && !beds.ending {
                beds = self.wake.wait(beds).unwrap_or_else(PoisonError::into_inner);
            }
            beds.sleeping -= 1;
            if beds.ending {
                return false;
            }
        }
        *seen = self.job.load(Ordering::Acquire);
        true
    }
}

/// Waits a moment; after many moments, for as long as somebody else needs the core.
fn look(looks: &mut usize) {
    *looks += 1;
    if *looks < LOOKS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

/// Nothing panics while it holds one of our locks, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.beds).ending = true;
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what it runs; there is nothing to learn from its end.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} threads", self.threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_done_once() {
        for threads in 1..5 {
            let pool = Pool::new(threads);
            for parts in [0, 1, 2, 3, 100] {
                let done: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                pool.run(parts, |i| {
                    done[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} threads, {parts} parts");
            }
        }
    }

    #[test]
    fn ranges_cover_all_at_multiples_of_the_unit() {
        let pool = Pool::new(3);
        for (length, unit) in [(0, 4), (1, 4), (4, 4), (10, 4), (100, 16), (7, 1)] {
            let done: Vec<AtomicUsize> = (0..length).map(|_| AtomicUsize::new(0)).collect();
            pool.split(length, unit, |range| {
                assert!(range.start % unit == 0 && !range.is_empty());
                done[range].iter().for_each(|n| {
                    n.fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{length} by {unit}");
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        for _ in 0..20 {
            let result = catch_unwind(AssertUnwindSafe(|| pool.run(4, |i| assert!(i != 3, "expected by the test"))));
            assert!(result.is_err());
            let sum = AtomicUsize::new(0);
            pool.run(4, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 6);
        }
    }

    #[test]
    fn callers_take_turns() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..100).for_each(|_| {
                        pool.run(5, |i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        })
                    })
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 100 * 10);
    }
}
