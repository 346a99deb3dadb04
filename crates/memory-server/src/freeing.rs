//! Gives large amounts of memory back to the kernel in a thread of its own, so that a connection that discards or destroys
//! much is answered at once: the kernel needs a quarter of a second for 4 GiB.
//!
//! It decides nothing. Whatever is handed over is out of use already, and what came into use again is left alone. The pool
//! counts it as free from the beginning, since the kernel takes pages back ten times faster than a network brings new ones.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rackmem_segment::Segment;

/// Jobs that may wait. A whole target's far memory in segments of 64 MiB fits; who brings more than that frees it itself,
/// which slows it down as it should.
const QUEUE_JOBS: usize = 1024;

/// Memory to be given back.
#[derive(Debug)]
pub(crate) enum Job {
    /// Pages that were discarded.
    Pages(Arc<Segment>, Range<u64>),
    /// All of a segment that is closed.
    Segment(Arc<Segment>),
}

impl Job {
    fn run(self) {
        match self {
            Self::Pages(segment, pages) => segment.free(pages),
            Self::Segment(segment) => segment.clear(),
        }
    }
}

/// The way to the thread that frees. While there is none, everything is freed at once.
#[derive(Debug, Default)]
pub(crate) struct Freeing(Mutex<Option<SyncSender<Job>>>);

impl Freeing {
    /// Begins to queue; the thread that is to free takes the other end to [`run`].
    pub(crate) fn open(&self) -> Receiver<Job> {
        let (sender, receiver) = sync_channel(QUEUE_JOBS);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Lets the thread end when it has done what is queued.
    pub(crate) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Has a job done: by the thread, or here where it has too much to do.
    pub(crate) fn give(&self, job: Job) {
        let refused = match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Some(job),
            Some(queue) => match queue.try_send(job) {
                Ok(()) => None,
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Some(job),
            },
        };
        if let Some(job) = refused {
            job.run();
        }
    }
}

/// Does the jobs until the queue is closed.
pub(crate) fn run(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job.run();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::thread;

    use rackmem_segment::Pool;
    use rackmem_types::{PAGE_SIZE, PageHash};
    use rackmem_wire::{OwnerToken, WriteRecord};

    const PAGES: u64 = 64;

    fn filled() -> Arc<Segment> {
        let segment = Pool::new(PAGES).create("test", PAGES, OwnerToken([1; 16]), 0).unwrap();
        let data = vec![[7; PAGE_SIZE]; PAGES as usize];
        let checksum = PageHash::of(&data[0]).checksum();
        let records: Vec<_> = (0..PAGES).map(|page| WriteRecord::new(page, 1, checksum)).collect();
        segment.write(&records, &data, &mut Vec::new()).unwrap();
        segment
    }

    fn used(segment: &Segment) -> i64 {
        rustix::fs::fstat(segment.memory().as_fd()).unwrap().st_blocks
    }

    #[test]
    fn everything_is_freed_with_a_thread_and_without_and_when_it_has_too_much_to_do() {
        let freeing = Freeing::default();
        let alone = filled();
        freeing.give(Job::Segment(Arc::clone(&alone)));
        assert_eq!(used(&alone), 0, "there is no thread");

        let jobs = freeing.open();
        let queued: Vec<_> = (0..QUEUE_JOBS).map(|_| filled()).collect();
        queued.iter().for_each(|segment| freeing.give(Job::Segment(Arc::clone(segment))));
        assert!(queued.iter().all(|segment| used(segment) > 0), "the thread does not run yet");
        let one_more = filled();
        freeing.give(Job::Segment(Arc::clone(&one_more)));
        assert_eq!(used(&one_more), 0, "the queue is full");

        let thread = thread::spawn(move || run(&jobs));
        freeing.close();
        thread.join().unwrap();
        assert!(queued.iter().all(|segment| used(segment) == 0), "what was queued is done before the end");
    }
}
