//! Waiting for the next request without going to sleep, where that helps.
//!
//! Most of a lone read's time is the wake-up of the thread that serves it. A thread that stays awake for a moment spares
//! that (a round trip between two cores went from 23 to 16 µs), but takes a core from whoever else could use it. So a
//! connection spins only while its client's requests do follow one another within [`SPIN`], and only a quarter of the
//! machine's cores may spin at one time: none on a machine with fewer than four, where the client, the network's softirqs
//! and other connections want the core.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread stays awake: about two wake-ups, so a wait that is spun in vain costs no more than twice what it
/// would have cost asleep.
pub(crate) const SPIN: Duration = Duration::from_micros(30);

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
        Self { max: cores / 4, now: AtomicUsize::new(0) }
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
                    std::hint::spin_loop();
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
        let few = Spinners::new(3);
        assert_eq!(wait(&mut Rhythm { short_waits: STREAK }, &few, true, Duration::ZERO), "asleep");
    }
}
