//! Reads ahead of need: finds the streams that each thread's faults follow, and says which pages to read with the one
//! that was asked for. It never decides whether a page is managed or far: the pager filters.
//!
//! No access bit tells whether a page that was read ahead was used. What tells is where the stream faults next: after a
//! window that was used to the end, exactly one stride behind that end.

mod stream;
mod trend;

use stream::{Step, Stream};
use trend::Trend;

/// The largest window, in pages: 512 KiB, where the cost of a request is spread thin and waste is still bearable.
pub const WINDOW_PAGES_MAX: u32 = 128;

/// The first window of a stream, in pages.
const WINDOW_PAGES_MIN: u32 = 8;

/// Threads that are followed at once; a new one takes the place of the one that faulted longest ago.
const THREADS: usize = 64;

/// Streams of one thread: a merge reads several inputs and writes an output.
const STREAMS: usize = 4;

/// A fault this near to a stream's last one, in pages, belongs to the stream; larger strides are the trend's business.
const NEAR_PAGES: u64 = 64;

/// Pages that the throttle looks back at; older outcomes weigh half.
const THROTTLE_PAGES: u32 = 1024;

/// Pages to read ahead, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Page number of the first page.
    pub first: u64,
    /// Distance from page to page.
    pub stride: i64,
    /// Number of pages, 1 to [`WINDOW_PAGES_MAX`].
    pub count: u32,
}

impl Window {
    /// The page numbers, in the order in which the stream will want them.
    pub fn pages(self) -> impl Iterator<Item = u64> {
        let step = move |page: &u64| page.checked_add_signed(self.stride);
        std::iter::successors(Some(self.first), step).take(self.count as usize)
    }
}

/// Follows the faults of up to 64 threads. It allocates once, when it is made.
#[derive(Debug)]
pub struct Prefetcher {
    /// Thread ids apart from the rest, so that a search touches four cache lines.
    ids: [Option<u32>; THREADS],
    threads: Box<[Thread]>,
    latest: usize,
    faults: u64,
    issued: u64,
    hits: u64,
    recent_issued: u32,
    recent_hits: u32,
}

#[derive(Clone, Debug)]
struct Thread {
    last_fault: u64,
    streams: [Stream; STREAMS],
    /// The one that the newest window belongs to.
    newest: usize,
    trend: Trend,
}

impl Thread {
    fn new() -> Self {
        Self { last_fault: 0, streams: [Stream::default(); STREAMS], newest: 0, trend: Trend::default() }
    }
}

impl Prefetcher {
    /// A prefetcher that has seen no fault.
    pub fn new() -> Self {
        Self {
            ids: [None; THREADS],
            threads: vec![Thread::new(); THREADS].into_boxed_slice(),
            latest: 0,
            faults: 0,
            issued: 0,
            hits: 0,
            recent_issued: 0,
            recent_hits: 0,
        }
    }

    /// `thread` faulted on page number `page` (address / 4096), which was far or is still on its way; answers what to
    /// read ahead. Faults on fresh memory do not belong here.
    pub fn fault(&mut self, thread: u32, page: u64) -> Option<Window> {
        self.faults += 1;
        let now = self.faults;
        let slot = self.slot(thread);
        let confirmations = self.confirmations();
        let thread = &mut self.threads[slot];
        thread.last_fault = now;
        thread.trend.record(page);
        for (at, stream) in thread.streams.iter_mut().enumerate() {
            match stream.follow(page, now) {
                Step::Elsewhere => {}
                Step::Inside => return None,
                Step::Hurried { used, of } => {
                    thread.newest = at;
                    let window = stream.extend(used, of);
                    self.settle(used, of);
                    return self.issue(window);
                }
                Step::Continued { used, of } => {
                    thread.newest = at;
                    let window = stream.open(page, used, of);
                    self.settle(used, of);
                    return self.issue(window);
                }
            }
        }
        let nearest = thread.streams.iter_mut().enumerate().min_by_key(|(_, stream)| stream.distance(page));
        if let Some((at, stream)) = nearest.filter(|(_, stream)| stream.distance(page) <= NEAR_PAGES) {
            thread.newest = at;
            let abandoned = stream.turn(page, now);
            let window = (stream.streak() >= confirmations).then(|| stream.open(page, 0, 0));
            self.settle(0, abandoned);
            return window.and_then(|window| self.issue(window));
        }
        let stride = thread.trend.majority(confirmations);
        let (at, oldest) =
            thread.streams.iter_mut().enumerate().min_by_key(|(_, stream)| stream.worth(now))?;
        thread.newest = at;
        let abandoned = oldest.restart(page, stride, now);
        let window = stride.map(|_| oldest.open(page, 0, 0));
        self.settle(0, abandoned);
        window.and_then(|window| self.issue(window))
    }

    /// Of the window that the last [`fault`](Self::fault) of `thread` named, the last `pages` are not read: there is no room for
    /// them. The stream will ask for them when it comes there.
    pub fn cut(&mut self, thread: u32, pages: u32) {
        if self.ids[self.latest] == Some(thread) {
            let thread = &mut self.threads[self.latest];
            self.issued -= u64::from(thread.streams[thread.newest].cut(pages));
        }
    }

    /// Pages that windows have named so far.
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// Of these, pages that were used, as far as it is known.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    fn slot(&mut self, thread: u32) -> usize {
        if self.ids[self.latest] != Some(thread) {
            self.latest =
                self.ids.iter().position(|id| *id == Some(thread)).unwrap_or_else(|| self.evict(thread));
        }
        self.latest
    }

    fn evict(&mut self, thread: u32) -> usize {
        let oldest = (0..THREADS).min_by_key(|slot| self.threads[*slot].last_fault).unwrap_or(0);
        self.ids[oldest] = Some(thread);
        self.threads[oldest] = Thread::new();
        oldest
    }

    /// How many equal deltas a stream has to show before anything is read ahead: more, the worse the guesses were.
    fn confirmations(&self) -> u32 {
        match (self.recent_hits, self.recent_issued) {
            (_, issued) if issued < 2 * WINDOW_PAGES_MIN => 2,
            (hits, issued) if hits * 2 >= issued => 2,
            (hits, issued) if hits * 4 >= issued => 3,
            (hits, issued) if hits * 16 >= issued => 5,
            _ => 8,
        }
    }

    /// The outcome of a window is known.
    fn settle(&mut self, used: u32, of: u32) {
        self.hits += u64::from(used);
        self.recent_hits += used;
        self.recent_issued += of;
        if self.recent_issued > THROTTLE_PAGES {
            self.recent_hits /= 2;
            self.recent_issued /= 2;
        }
    }

    fn issue(&mut self, window: Window) -> Option<Window> {
        // A stream may run into the end of the address space.
        let first = window.first.checked_add_signed(window.stride)?;
        let window = Window { first, ..window };
        self.issued += u64::from(window.count);
        Some(window)
    }
}

impl Default for Prefetcher {
    fn default() -> Self {
        Self::new()
    }
}
