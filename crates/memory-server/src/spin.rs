//! Waiting for the next request without going to sleep, where that helps.
//!
//! Most of a lone read's time is the wake-up of the thread that serves it: of 85 µs between two faults, 45 on a virtual
//! machine whose core had gone to rest. A thread that stays awake for a moment spares that. It must not take a core from
//! whoever else could use it, so it offers the core to them in every turn; a connection spins only while its client's
//! requests do follow one another within [`SPIN`], and only a quarter of the machine's cores may spin at one time: one, on
//! a machine with two or three.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread stays awake: what a program that waits for one page after the other takes from an answer to its next
/// request, over a fast network, with some to spare.
pub(crate) const SPIN: Duration = Duration::from_micros(100);

/// Short waits in a row after which a connection begins to spin.
const STREAK: u32 = 4;

/// How many threads may spin, and how many do.
#[derive(Debug)]
pub(crate) struct Spinners {
    max: usize,
    now: AtomicUsize,
}

impl Spinners {
    /// For a machine with `cores`.
    pub(crate) fn new(cores: usize) -> Self {
        Self { max: if cores < 2 { 0 } else { (cores / 4).max(1) }, now: AtomicUsize::new(0) }
    }
}

/// What one connection knows about its client's rhythm.
#[derive(Debug, Default)]
pub(crate) struct Rhythm {
    short_waits: u32,
}

impl Rhythm {
    /// Waits for `attempt` to give something: awake for a moment if that promises to help, then asleep in `sleep`.
    pub(crate) fn wait<T, E>(
        &mut self,
        spinners: &Spinners,
        mut attempt: impl FnMut() -> Option<Result<T, E>>,
        sleep: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if spinners.max == 0 {
            return sleep();
        }
        let begin = Instant::now();
        if self.short_waits >= STREAK {
            if spinners.now.fetch_add(1, Ordering::Relaxed) < spinners.max {
                while begin.elapsed() < SPIN {
                    if let Some(result) = attempt() {
                        spinners.now.fetch_sub(1, Ordering::Relaxed);
                        return result;
                    }
                    std::thread::yield_now();
                }
                self.short_waits = 0;
            }
            spinners.now.fetch_sub(1, Ordering::Relaxed);
        }
        let result = sleep();
        self.short_waits = if begin.elapsed() < SPIN { self.short_waits.saturating_add(1) } else { 0 };
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(rhythm: &mut Rhythm, spinners: &Spinners, ready: bool, sleep: Duration) -> &'static str {
        let attempt = || ready.then_some(Ok::<_, ()>("awake"));
        let asleep = || {
            std::thread::sleep(sleep);
            Ok("asleep")
        };
        rhythm.wait(spinners, attempt, asleep).unwrap()
    }

    /// Brings a rhythm to spinning; a busy machine may make a short wait long, so it tries again.
    fn in_rhythm(spinners: &Spinners) -> Rhythm {
        let mut rhythm = Rhythm::default();
        while rhythm.short_waits < STREAK {
            assert_eq!(wait(&mut rhythm, spinners, true, Duration::ZERO), "asleep");
        }
        rhythm
    }

    #[test]
    fn spins_after_short_waits_until_one_is_in_vain() {
        let spinners = Spinners::new(4);
        let mut rhythm = in_rhythm(&spinners);
        assert_eq!(wait(&mut rhythm, &spinners, true, Duration::ZERO), "awake");
        assert_eq!(wait(&mut rhythm, &spinners, true, Duration::ZERO), "awake");
        assert_eq!(wait(&mut rhythm, &spinners, false, Duration::from_millis(1)), "asleep");
        assert_eq!(
            wait(&mut rhythm, &spinners, true, Duration::ZERO),
            "asleep",
            "it does not spin for a slow client"
        );
        assert_eq!(spinners.now.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn leaves_cores_to_others() {
        let spinners = Spinners::new(4);
        let mut rhythm = in_rhythm(&spinners);
        spinners.now.store(1, Ordering::Relaxed);
        assert_eq!(wait(&mut rhythm, &spinners, true, Duration::ZERO), "asleep");
        assert_eq!(spinners.now.load(Ordering::Relaxed), 1);
        let lone = Spinners::new(1);
        assert_eq!(wait(&mut Rhythm { short_waits: STREAK }, &lone, true, Duration::ZERO), "asleep");
    }
}
