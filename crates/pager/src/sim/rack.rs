//! Simulated memory servers, and ports to them: they answer late and in any order, come late to what was sent before a cut,
//! die, and, where that is asked for, answer with a page that is not the right one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rackmem_far::{Event, PageError, ReadRequest, WriteRequest};
use rackmem_types::{PageData, PageVersion, Slot};

use super::world::World;
use crate::sync::Mutex;
use crate::transfer::Transfer;

/// Slots of an extent. More than a batch, or nothing would ever leave.
const EXTENT: u32 = 160;
const SERVERS: usize = 2;

#[derive(Clone)]
struct Stored {
    version: PageVersion,
    checksum: u64,
    data: Box<PageData>,
}

/// All servers.
pub(super) struct Rack {
    pages: HashMap<u32, Stored>,
    /// What each slot had before.
    old: HashMap<u32, Stored>,
    extents: Vec<(Range<u32>, usize)>,
    alive: [bool; SERVERS],
    extents_max: usize,
    /// Extents that were shed: nobody may ask for what was there.
    gone: HashSet<usize>,
    /// Reads and stores under way, by extent.
    flying: HashMap<usize, usize>,
    /// Discards that a server has not come to yet.
    late: Vec<(Slot, PageVersion)>,
    /// How often a read is answered wrongly: once in so many.
    pub(super) lie_one_in: u64,
}

impl Rack {
    pub(super) fn new(extents_max: usize, lie_one_in: u64) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            pages: HashMap::new(),
            old: HashMap::new(),
            extents: Vec::new(),
            alive: [true; SERVERS],
            extents_max,
            gone: HashSet::new(),
            flying: HashMap::new(),
            late: Vec::new(),
            lie_one_in,
        }))
    }

    pub(super) fn grow(&mut self) -> Option<Range<u32>> {
        let number = self.extents.len();
        let alive: Vec<usize> = (0..SERVERS).filter(|&server| self.alive[server]).collect();
        if number - self.gone.len() == self.extents_max || alive.is_empty() {
            return None;
        }
        let slots = number as u32 * EXTENT..(number as u32 + 1) * EXTENT;
        self.extents.push((slots.clone(), alive[number % alive.len()]));
        Some(slots)
    }

    /// A server dies with all it has.
    pub(super) fn kill(&mut self, server: usize) {
        self.alive[server] = false;
        let dead: Vec<Range<u32>> = self.ranges(server);
        self.pages.retain(|slot, _| !dead.iter().any(|range| range.contains(slot)));
    }

    /// One of the extents that were not shed.
    pub(super) fn any_extent(&self, choice: u64) -> Option<Range<u32>> {
        let there: Vec<usize> =
            (0..self.extents.len()).filter(|extent| !self.gone.contains(extent)).collect();
        let chosen = there.get(choice as usize % there.len().max(1))?;
        Some(self.extents[*chosen].0.clone())
    }

    /// Nothing lies there any more. `false`: something is still on its way.
    pub(super) fn shed(&mut self, slots: &Range<u32>) -> bool {
        let extent = (slots.start / EXTENT) as usize;
        let settled = self.flying.get(&extent).is_none_or(|count| *count == 0);
        if settled {
            self.gone.insert(extent);
            self.pages.retain(|slot, _| !slots.contains(slot));
        }
        settled
    }

    fn asked(&mut self, slot: Slot) {
        let extent = (slot.0 / EXTENT) as usize;
        assert!(!self.gone.contains(&extent), "{slot:?} was shed");
        *self.flying.entry(extent).or_default() += 1;
    }

    fn answered(&mut self, slot: Slot) {
        *self.flying.entry((slot.0 / EXTENT) as usize).or_default() -= 1;
    }

    fn ranges(&self, server: usize) -> Vec<Range<u32>> {
        self.extents.iter().filter(|extent| extent.1 == server).map(|extent| extent.0.clone()).collect()
    }

    fn server(&self, slot: Slot) -> usize {
        self.extents[(slot.0 / EXTENT) as usize].1
    }

    fn discard(&mut self, slot: Slot, up_to: PageVersion) {
        if self.pages.get(&slot.0).is_some_and(|stored| stored.version <= up_to) {
            self.pages.remove(&slot.0);
        }
    }
}

enum Request {
    Read(u32, Slot),
    Write(u32, Slot, Stored),
    Discard(Slot, PageVersion),
}

enum Answer {
    Page(u32, Slot, Stored),
    Stored(u32, Slot),
    ReadFailed(u32, Slot, PageError),
    StoreFailed(u32, Slot, PageError),
}

impl Answer {
    fn slot(&self) -> Slot {
        match *self {
            Self::Page(_, slot, _) | Self::Stored(_, slot) => slot,
            Self::ReadFailed(_, slot, _) | Self::StoreFailed(_, slot, _) => slot,
        }
    }
}

/// Connections of one thread.
pub(super) struct SimPort {
    world: Arc<World>,
    rack: Arc<Mutex<Rack>>,
    requests: VecDeque<Request>,
    answers: Vec<Answer>,
    told: [bool; SERVERS],
}

impl SimPort {
    pub(super) fn new(world: &Arc<World>, rack: &Arc<Mutex<Rack>>) -> Self {
        let (world, rack) = (Arc::clone(world), Arc::clone(rack));
        Self { world, rack, requests: VecDeque::new(), answers: Vec::new(), told: [false; SERVERS] }
    }

    /// The servers come to some of the requests, in order.
    fn serve(&mut self) {
        let mut kernel = self.world.kernel();
        let mut rack = self.rack.lock().unwrap();
        if !rack.late.is_empty() && kernel.rng.one_in(8) {
            for (slot, up_to) in std::mem::take(&mut rack.late) {
                rack.discard(slot, up_to);
            }
        }
        let count = kernel.rng.below(self.requests.len() as u64 + 1) as usize;
        for request in self.requests.drain(..count) {
            let answer = match request {
                Request::Discard(slot, up_to) => {
                    // A cut just then: the server comes to it only after what is sent on the next connection.
                    if kernel.rng.one_in(8) {
                        rack.late.push((slot, up_to));
                    } else {
                        rack.discard(slot, up_to);
                    }
                    continue;
                }
                Request::Read(tag, slot) if !rack.alive[rack.server(slot)] => {
                    Answer::ReadFailed(tag, slot, PageError::Lost)
                }
                Request::Write(tag, slot, _) if !rack.alive[rack.server(slot)] => {
                    Answer::StoreFailed(tag, slot, PageError::Lost)
                }
                Request::Read(tag, slot) => {
                    let lie = kernel.rng.one_in(rack.lie_one_in);
                    match rack.pages.get(&slot.0) {
                        Some(_) if lie && kernel.rng.one_in(2) => {
                            kernel.harm = true;
                            Answer::ReadFailed(tag, slot, PageError::Corrupt)
                        }
                        Some(_) if lie && rack.old.contains_key(&slot.0) => {
                            kernel.harm = true;
                            Answer::Page(tag, slot, rack.old[&slot.0].clone())
                        }
                        Some(stored) => Answer::Page(tag, slot, stored.clone()),
                        None => Answer::ReadFailed(tag, slot, PageError::Missing),
                    }
                }
                Request::Write(tag, slot, page) => {
                    match rack.pages.get(&slot.0).map(|stored| stored.version) {
                        Some(version) if version > page.version => {
                            Answer::StoreFailed(tag, slot, PageError::Stale)
                        }
                        _ => {
                            if let Some(before) = rack.pages.insert(slot.0, page) {
                                rack.old.insert(slot.0, before);
                            }
                            Answer::Stored(tag, slot)
                        }
                    }
                }
            };
            self.answers.push(answer);
        }
    }

    /// What is under way to servers that died fails, and then the loss is told.
    fn tell_losses(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        let (mut failed, mut lost) = (Vec::new(), Vec::new());
        {
            let rack = self.rack.lock().unwrap();
            for server in (0..SERVERS).filter(|&server| !rack.alive[server]) {
                if !std::mem::replace(&mut self.told[server], true) {
                    let (there, dead): (Vec<_>, Vec<_>) = std::mem::take(&mut self.answers)
                        .into_iter()
                        .partition(|answer| rack.server(answer.slot()) != server);
                    self.answers = there;
                    failed.extend(dead);
                    for request in std::mem::take(&mut self.requests) {
                        match request {
                            Request::Read(tag, slot) if rack.server(slot) == server => {
                                failed.push(Answer::ReadFailed(tag, slot, PageError::Lost));
                            }
                            Request::Write(tag, slot, _) if rack.server(slot) == server => {
                                failed.push(Answer::StoreFailed(tag, slot, PageError::Lost));
                            }
                            request => self.requests.push_back(request),
                        }
                    }
                    lost.push(rack.ranges(server));
                }
            }
        }
        for answer in failed {
            self.rack.lock().unwrap().answered(answer.slot());
            match answer {
                Answer::Page(tag, slot, _) | Answer::ReadFailed(tag, slot, _) => {
                    sink(Event::ReadFailed { tag, slot, error: PageError::Lost });
                }
                Answer::Stored(tag, slot) | Answer::StoreFailed(tag, slot, _) => {
                    sink(Event::StoreFailed { tag, slot, error: PageError::Lost });
                }
            }
        }
        for slots in lost {
            sink(Event::ServerLost { slots, reason: "a server died".to_owned() });
        }
    }
}

impl Transfer for SimPort {
    fn read(&mut self, requests: &[ReadRequest]) {
        let mut rack = self.rack.lock().unwrap();
        requests.iter().for_each(|request| rack.asked(request.slot));
        drop(rack);
        self.requests.extend(requests.iter().map(|request| Request::Read(request.tag, request.slot)));
    }

    fn write(&mut self, pages: &[WriteRequest<'_>]) {
        let mut rack = self.rack.lock().unwrap();
        pages.iter().for_each(|page| rack.asked(page.slot));
        drop(rack);
        self.requests.extend(pages.iter().map(|page| {
            let stored =
                Stored { version: page.version, checksum: page.checksum, data: Box::new(*page.data) };
            Request::Write(page.tag, page.slot, stored)
        }));
    }

    fn discard(&mut self, slots: &[Slot], up_to: PageVersion) {
        self.requests.extend(slots.iter().map(|&slot| Request::Discard(slot, up_to)));
    }

    fn in_flight(&self) -> usize {
        let pages = self.requests.iter().filter(|request| !matches!(request, Request::Discard(..)));
        pages.count() + self.answers.len()
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn advance(&mut self, _now: Instant, sink: &mut dyn FnMut(Event<'_>)) {
        self.serve();
        self.tell_losses(sink);
        let count = self.world.below(self.answers.len() as u64 + 1);
        for _ in 0..count {
            let index = self.world.below(self.answers.len() as u64) as usize;
            let answer = self.answers.swap_remove(index);
            self.rack.lock().unwrap().answered(answer.slot());
            match answer {
                Answer::Page(tag, slot, Stored { version, checksum, data }) => {
                    sink(Event::Page { tag, slot, version, checksum, data: &data });
                }
                Answer::Stored(tag, slot) => sink(Event::Stored { tag, slot }),
                Answer::ReadFailed(tag, slot, error) => sink(Event::ReadFailed { tag, slot, error }),
                Answer::StoreFailed(tag, slot, error) => sink(Event::StoreFailed { tag, slot, error }),
            }
        }
    }

    fn wait(&mut self, _timeout: Option<Duration>, sink: &mut dyn FnMut(Event<'_>)) {
        self.advance(Instant::now(), sink);
    }
}
