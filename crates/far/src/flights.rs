//! The requests of one connection that are not answered yet, in a slab: no allocation per request once it is warm.
//!
//! Each request keeps its frame until it is answered, so that it can be sent again, byte for byte, on a new connection.

use std::collections::VecDeque;
use std::time::Instant;

use rackmem_types::{PAGE_SIZE, Slot};
use rackmem_wire::PAGES_PER_FRAME_MAX;

/// Requests that the slab holds before it has to grow; more than a pager's faults and windows at one time.
const WARM_FLIGHTS: usize = 64;

/// Frames up to this size keep their buffer with the slab entry: every READ, and the WRITE of one page.
const SMALL_FRAME_BYTES: usize = 8 << 10;

/// Large buffers that wait for their next use: one eviction batch each, 8 MiB in all.
const LARGE_BUFFERS_KEPT: usize = 8;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Free,
    Open,
    Read,
    Write,
    Discard,
}

/// One request.
pub(crate) struct Flight {
    pub(crate) kind: Kind,
    /// Counts the uses of this entry, so that an answer to an earlier use is recognised.
    generation: u32,
    /// Order of issue.
    pub(crate) order: u64,
    /// Position of its extent in the port's table.
    pub(crate) extent: usize,
    pub(crate) frame: Vec<u8>,
    /// Tag and slot of each page, in the order of the frame.
    pub(crate) pages: Vec<(u32, Slot)>,
    /// Whether this asks again for what came damaged.
    pub(crate) again: bool,
    /// When it was sent for the last time, while it is with the server.
    pub(crate) sent: Option<Instant>,
}

/// All requests of one connection.
pub(crate) struct Flights {
    slab: Vec<Flight>,
    free: Vec<u32>,
    large: Vec<Vec<u8>>,
    /// The own buffers of those entries that have a large one.
    small: Vec<Vec<u8>>,
    issued: u64,
    /// Those that wait for being sent, in order.
    pub(crate) unsent: VecDeque<u32>,
    /// Reads and writes that are not answered.
    pub(crate) open_pages: usize,
    /// Requests that are with the server.
    pub(crate) at_server: usize,
}

impl Flights {
    pub(crate) fn new() -> Self {
        let mut flights = Self {
            slab: Vec::with_capacity(WARM_FLIGHTS),
            free: Vec::with_capacity(WARM_FLIGHTS),
            large: Vec::with_capacity(LARGE_BUFFERS_KEPT),
            small: Vec::with_capacity(WARM_FLIGHTS),
            issued: 0,
            unsent: VecDeque::with_capacity(WARM_FLIGHTS),
            open_pages: 0,
            at_server: 0,
        };
        for index in (0..WARM_FLIGHTS as u32).rev() {
            flights.slab.push(Flight::empty());
            flights.free.push(index);
        }
        flights
    }

    /// A fresh request for `extent`, and the id that its frame must carry. It is queued for sending.
    pub(crate) fn issue(&mut self, kind: Kind, extent: usize, pages: usize) -> (u32, u64) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slab.push(Flight::empty());
            self.slab.len() as u32 - 1
        });
        self.issued += 1;
        if kind == Kind::Write && pages > 1 {
            let large = self.large.pop().unwrap_or_default();
            self.small.push(std::mem::replace(&mut self.slab[index as usize].frame, large));
        }
        let flight = &mut self.slab[index as usize];
        flight.kind = kind;
        flight.extent = extent;
        flight.order = self.issued;
        flight.again = false;
        flight.sent = None;
        flight.frame.clear();
        flight.pages.clear();
        if matches!(kind, Kind::Read | Kind::Write) {
            self.open_pages += pages;
        }
        self.unsent.push_back(index);
        (index, u64::from(flight.generation) << 32 | u64::from(index + 1))
    }

    /// The request that an answer's id names, if it is one that is with the server.
    pub(crate) fn find(&self, id: u64) -> Option<u32> {
        let index = (id as u32).checked_sub(1)?;
        let flight = self.slab.get(index as usize)?;
        let ours = flight.kind != Kind::Free && u64::from(flight.generation) == id >> 32;
        (ours && flight.sent.is_some()).then_some(index)
    }

    pub(crate) fn get(&self, index: u32) -> &Flight {
        &self.slab[index as usize]
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Flight {
        &mut self.slab[index as usize]
    }

    /// Notes that all of a request's frame is with the server.
    pub(crate) fn note_sent(&mut self, index: u32, now: Instant) {
        self.slab[index as usize].sent = Some(now);
        self.at_server += 1;
    }

    /// Ends a request.
    pub(crate) fn finish(&mut self, index: u32) {
        let flight = &mut self.slab[index as usize];
        if matches!(flight.kind, Kind::Read | Kind::Write) {
            self.open_pages -= flight.pages.len();
        }
        if flight.sent.take().is_some() {
            self.at_server -= 1;
        }
        flight.kind = Kind::Free;
        // Wraps after four billion uses of one entry; no answer is that late.
        flight.generation = flight.generation.wrapping_add(1);
        if flight.frame.capacity() > SMALL_FRAME_BYTES {
            let small = self.small.pop().unwrap_or_else(|| Vec::with_capacity(SMALL_FRAME_BYTES));
            let large = std::mem::replace(&mut flight.frame, small);
            if self.large.len() < LARGE_BUFFERS_KEPT {
                self.large.push(large);
            }
        }
        self.free.push(index);
    }

    /// When the request that waits longest for its answer was sent.
    pub(crate) fn oldest_sent(&self) -> Option<Instant> {
        self.slab.iter().filter_map(|flight| flight.sent).min()
    }

    /// Makes everything unsent again, in order of issue. What only concerned the old connection ends here.
    pub(crate) fn rewind(&mut self) {
        self.unsent.clear();
        for index in 0..self.slab.len() as u32 {
            match self.get(index).kind {
                Kind::Free => {}
                Kind::Open => self.finish(index),
                _ => {
                    self.get_mut(index).sent = None;
                    self.unsent.push_back(index);
                }
            }
        }
        self.at_server = 0;
        let slab = &self.slab;
        self.unsent.make_contiguous().sort_unstable_by_key(|index| slab[*index as usize].order);
    }

    /// All requests, in order of issue.
    pub(crate) fn all(&self) -> Vec<u32> {
        let mut all: Vec<u32> =
            (0..self.slab.len() as u32).filter(|index| self.get(*index).kind != Kind::Free).collect();
        all.sort_unstable_by_key(|index| self.get(*index).order);
        all
    }
}

impl Flight {
    fn empty() -> Self {
        Self {
            kind: Kind::Free,
            generation: 0,
            order: 0,
            extent: 0,
            frame: Vec::with_capacity(SMALL_FRAME_BYTES),
            pages: Vec::new(),
            again: false,
            sent: None,
        }
    }
}

const _: () =
    assert!(SMALL_FRAME_BYTES > 32 + 24 + PAGE_SIZE && SMALL_FRAME_BYTES > 32 + 8 * PAGES_PER_FRAME_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_an_earlier_use_finds_nothing() {
        let mut flights = Flights::new();
        let (index, id) = flights.issue(Kind::Read, 0, 0);
        assert_eq!(flights.find(id), None, "not sent yet");
        flights.note_sent(index, Instant::now());
        assert_eq!(flights.find(id), Some(index));
        flights.finish(index);
        let (again, other) = flights.issue(Kind::Read, 0, 0);
        flights.note_sent(again, Instant::now());
        assert_eq!((again, flights.find(id), flights.find(other)), (index, None, Some(index)));
    }

    #[test]
    fn rewinding_keeps_the_order_of_issue() {
        let mut flights = Flights::new();
        let first = flights.issue(Kind::Write, 0, 0).0;
        let open = flights.issue(Kind::Open, 0, 0).0;
        let third = flights.issue(Kind::Read, 0, 0).0;
        flights.unsent.clear();
        for index in [third, open, first] {
            flights.note_sent(index, Instant::now());
        }
        flights.rewind();
        assert_eq!(flights.unsent, [first, third]);
        assert_eq!((flights.at_server, flights.get(open).kind), (0, Kind::Free));
    }
}
