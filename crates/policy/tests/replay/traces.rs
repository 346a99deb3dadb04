//! Generated page traces, each from a seed: the shapes of real programs, without their size.

use rackmem_policy::PageRef;

/// A small deterministic generator (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Independent accesses to `pages` pages, the popularity of the n-th being n^-`skew`, spread over the memory.
pub(crate) fn zipf(pages: u32, accesses: usize, skew: f64, seed: u64) -> Vec<PageRef> {
    let mut random = Random(seed);
    let mut cumulative: Vec<f64> = Vec::new();
    let mut total = 0.0;
    for rank in 1..=pages {
        total += f64::from(rank).powf(-skew);
        cumulative.push(total);
    }
    (0..accesses)
        .map(|_| {
            let at = random.unit() * total;
            let rank = cumulative.partition_point(|sum| *sum < at).min(pages as usize - 1) as u64;
            // An odd multiplier permutes the ranks when `pages` is a power of two.
            PageRef((rank.wrapping_mul(0x9e37_79b1) % u64::from(pages)) as u32)
        })
        .collect()
}

/// Zipf accesses, interrupted by scans over as many pages again, as a database does.
pub(crate) fn zipf_with_scans(pages: u32, accesses: usize, seed: u64) -> Vec<PageRef> {
    let mut trace = Vec::new();
    for (round, chunk) in zipf(pages, accesses, 0.9, seed).chunks(accesses / 8).enumerate() {
        trace.extend_from_slice(chunk);
        let start = pages + (round as u32 % 2) * pages / 2;
        trace.extend((start..start + pages / 2).map(PageRef));
    }
    trace
}

/// `rounds` rounds over `pages` pages in order.
pub(crate) fn cycle(pages: u32, rounds: usize) -> Vec<PageRef> {
    (0..rounds).flat_map(|_| (0..pages).map(PageRef)).collect()
}

/// First one loop, then a smaller one over other pages, that fits: what was kept of the first must not stay for ever.
pub(crate) fn two_loops(pages: u32, rounds: usize) -> Vec<PageRef> {
    let second = (0..rounds).flat_map(|_| (pages..pages + pages / 2).map(PageRef));
    cycle(pages, rounds).into_iter().chain(second).collect()
}

/// A merge sort between two halves of the memory: in each pass two runs are read and one is written.
pub(crate) fn merge_sort(pages: u32, seed: u64) -> Vec<PageRef> {
    let half = pages / 2;
    let mut random = Random(seed);
    let mut trace = Vec::new();
    let (mut from, mut to) = (0, half);
    let mut run = 8;
    while run < half {
        for start in (0..half).step_by(2 * run as usize) {
            let (mut left, mut right) = (start, (start + run).min(half));
            let (left_end, right_end) = (right, (start + 2 * run).min(half));
            for out in start..right_end {
                // Each page of output takes a page's worth of input from either side, page by page on average.
                let take_left = left < left_end && (right >= right_end || random.below(2) == 0);
                let source = if take_left { &mut left } else { &mut right };
                trace.push(PageRef(from + *source));
                *source += 1;
                trace.push(PageRef(to + out));
            }
        }
        std::mem::swap(&mut from, &mut to);
        run *= 2;
    }
    trace
}

/// Independent accesses that are all equally likely.
pub(crate) fn uniform(pages: u32, accesses: usize, seed: u64) -> Vec<PageRef> {
    let mut random = Random(seed);
    (0..accesses).map(|_| PageRef(random.below(u64::from(pages)) as u32)).collect()
}
