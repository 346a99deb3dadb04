//! One stream of faults: a position, a stride, and the window that was read ahead of it.

use super::{WINDOW_PAGES_MAX, WINDOW_PAGES_MIN, Window};

/// Pages behind a window's end where a fault still counts as its continuation: a few may have been resident already.
const OVERSHOOT: u64 = 8;

/// Faults of other streams that a stream with a window out may miss before it is taken for dead: while a window is used
/// the stream itself does not fault at all.
const PATIENCE: u64 = 64;

/// What a fault means to a stream that has a window out.
pub(super) enum Step {
    /// Nothing.
    Elsewhere,
    /// It asks for a page of the window that is still on its way or left before it was used.
    Inside,
    /// The same, in the later half of the window: the thread is faster than its pages come, and should not have to wait for
    /// the end. Of the `of` pages that it is past, `used` needed no fault of their own.
    Hurried { used: u32, of: u32 },
    /// The window is used up: `used` of its `of` pages needed no fault of their own.
    Continued { used: u32, of: u32 },
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stream {
    last: u64,
    /// Zero while unknown.
    stride: i64,
    /// How often in a row the stride was seen.
    streak: u32,
    /// Pages of the window that is out, of these the ones still ahead of `last`, and the ones that faulted anyway.
    /// A window of zero pages is none.
    window: u32,
    ahead: u32,
    late: u32,
    /// How long the newest window was meant to be.
    wish: u32,
    /// When it last moved, in faults; zero if never.
    used_at: u64,
}

impl Stream {
    /// The stream of least worth makes room for a new one: first those without a window, then the ones that rested
    /// longest.
    pub(super) fn worth(&self, now: u64) -> (bool, u64) {
        (self.window > 0 && now - self.used_at <= PATIENCE, self.used_at)
    }

    pub(super) fn streak(&self) -> u32 {
        self.streak
    }

    /// Pages between the stream's last fault and `page`.
    pub(super) fn distance(&self, page: u64) -> u64 {
        if self.used_at == 0 { u64::MAX } else { self.last.abs_diff(page) }
    }

    /// Takes a fault that lies where the window leads.
    pub(super) fn follow(&mut self, page: u64, now: u64) -> Step {
        if self.window == 0 {
            return Step::Elsewhere;
        }
        let reach = u64::from(self.ahead) + 1 + OVERSHOOT;
        let stride = self.stride.unsigned_abs();
        let distance = self.last.abs_diff(page);
        let forward = (page >= self.last) == (self.stride > 0);
        if !forward || distance > stride.saturating_mul(reach) || !distance.is_multiple_of(stride) {
            return Step::Elsewhere;
        }
        self.used_at = now;
        let steps = distance / stride;
        if steps <= u64::from(self.ahead) {
            // At most `ahead`, which is a u32.
            self.ahead -= steps as u32;
            self.late += u32::from(steps > 0);
            self.last = page;
            let of = self.window - self.ahead;
            if of < self.ahead || self.late * 2 > of {
                return Step::Inside;
            }
            return Step::Hurried { used: of - self.late, of };
        }
        Step::Continued { used: self.window.saturating_sub(self.late), of: self.window }
    }

    /// Takes a fault near by that is not where the window leads; answers how many pages of a window are given up.
    pub(super) fn turn(&mut self, page: u64, now: u64) -> u32 {
        self.used_at = now;
        // Page numbers are below 2⁵², so the difference of near ones fits.
        let delta = page.wrapping_sub(self.last).cast_signed();
        if delta == 0 {
            return 0;
        }
        self.streak = if delta == self.stride { self.streak + 1 } else { 1 };
        self.stride = delta;
        self.last = page;
        std::mem::take(&mut self.window)
    }

    /// Becomes another stream; answers how many pages of a window are given up.
    pub(super) fn restart(&mut self, page: u64, stride: Option<i64>, now: u64) -> u32 {
        let abandoned = self.window;
        *self = Self { last: page, stride: stride.unwrap_or(0), used_at: now, ..Self::default() };
        abandoned
    }

    /// The last `pages` of the window are not read; gives how many pages that are.
    pub(super) fn cut(&mut self, pages: u32) -> u32 {
        let pages = pages.min(self.ahead);
        self.window -= pages;
        self.ahead -= pages;
        pages
    }

    /// Makes the window that is out longer, by what the next one would be.
    pub(super) fn extend(&mut self, used: u32, of: u32) -> Window {
        let first = self.last.wrapping_add_signed(self.stride.wrapping_mul(self.ahead.into()));
        let count = self.next_count(used, of);
        self.ahead += count;
        self.window = self.ahead;
        self.late = 0;
        Window { first, stride: self.stride, count }
    }

    /// Opens the next window behind `page`. It starts at `page` itself: the caller moves it on by one stride.
    pub(super) fn open(&mut self, page: u64, used: u32, of: u32) -> Window {
        let count = self.next_count(used, of);
        self.last = page;
        self.window = count;
        self.ahead = count;
        self.late = 0;
        Window { first: page, stride: self.stride, count }
    }

    /// Twice what it was if the last window served well, half if most of its pages faulted anyway.
    fn next_count(&mut self, used: u32, of: u32) -> u32 {
        let wish = if used * 2 >= of { self.wish * 2 } else { self.wish / 2 };
        self.wish = wish.clamp(WINDOW_PAGES_MIN, WINDOW_PAGES_MAX);
        self.wish
    }
}
