//! Requests, and what became of them: reservations, the segments they hold, and groups that share segments.

use std::fmt;
use std::ops::Range;

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

use crate::{CircuitId, LatencyClass, Name, ReservationId, SegmentId, Timestamp};

/// Memory bricks that one request may be spread over if it does not say: the more bricks, the more of them can take a
/// virtual machine down with them.
pub const SPREAD_DEFAULT: u8 = 4;

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Whose quota it counts against.
    pub project: String,
    /// The compute brick, or none for any that fits.
    pub compute: Option<Name>,
    /// Cores on it.
    pub cores: u32,
    /// Local memory on it.
    pub local: Bytes,
    /// Far memory; rounded up to whole pages.
    pub memory: Bytes,
    /// How far away that memory may be.
    pub class: LatencyClass,
    /// How many memory bricks it may be spread over.
    pub spread: u8,
    /// An accelerator beside it.
    pub accelerator: Option<AcceleratorNeed>,
    /// Shared memory, instead of memory of one's own.
    pub group: Option<GroupNeed>,
    /// When the reservation ends if nobody has begun to apply it.
    pub expires: Option<Timestamp>,
}

impl Request {
    /// `memory` within `class` for the compute brick `compute`, and nothing else.
    pub fn memory(project: &str, compute: Option<Name>, memory: Bytes, class: LatencyClass) -> Self {
        Self {
            project: project.to_owned(),
            compute,
            cores: 0,
            local: Bytes(0),
            memory,
            class,
            spread: SPREAD_DEFAULT,
            accelerator: None,
            group: None,
            expires: None,
        }
    }
}

/// An accelerator that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceleratorNeed {
    /// The model, or none for any.
    pub model: Option<String>,
    /// How many regions of it.
    pub slots: u32,
}

/// Shared memory that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupNeed {
    /// A new group; the request says how much memory it shares.
    Init(Name),
    /// To map all memory of a group that is there. One leaves by releasing the reservation.
    Join(Name),
}

/// Where a reservation stands.
///
/// ```text
/// proposed ──► reserved ──► applying ──► applied ──► releasing ──► released
///                 │  └► expired   └► released (undone)
///                 └► released
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A plan that nobody has accepted. It holds nothing.
    Proposed,
    /// It holds what the plan names; nothing was carried out.
    Reserved,
    /// Executors carry the plan out. It cannot expire any more.
    Applying,
    /// Carried out.
    Applied,
    /// Executors undo it.
    Releasing,
    /// Over; it holds nothing.
    Released,
    /// Over, because nobody applied it in time.
    Expired,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Proposed => "proposed",
            Self::Reserved => "reserved",
            Self::Applying => "applying",
            Self::Applied => "applied",
            Self::Releasing => "releasing",
            Self::Released => "released",
            Self::Expired => "expired",
        })
    }
}

/// A reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Its number.
    pub id: ReservationId,
    /// What was wanted.
    pub request: Request,
    /// The compute brick that it has.
    pub compute: Name,
    /// Where it stands.
    pub state: State,
    /// The far memory that its compute brick maps, by start.
    pub mappings: Vec<Mapping>,
    /// The accelerator that it has.
    pub accelerator: Option<AcceleratorGrant>,
    /// The shared group it is in.
    pub group: Option<Name>,
    /// A plan that is under way on an applied reservation.
    pub pending: Option<Pending>,
    /// Segments numbered so far.
    pub segments_made: u32,
    /// Circuits numbered so far.
    pub circuits_made: u32,
}

impl Reservation {
    /// Far pages that it maps.
    pub fn pages(&self) -> u64 {
        self.mappings.iter().map(|mapping| mapping.pages).sum()
    }

    /// A request for so much memory more, and nothing else, where and how this one's was asked for.
    pub(crate) fn more(&self, memory: Bytes) -> Request {
        Request {
            compute: Some(self.compute.clone()),
            memory,
            cores: 0,
            local: Bytes(0),
            accelerator: None,
            ..self.request.clone()
        }
    }

    /// The circuits of its mappings and its accelerator, each once.
    pub fn circuits(&self) -> Vec<CircuitId> {
        self.circuits_without(&[])
    }

    /// The circuits that it still needs when what a plan under way takes from it is gone.
    pub(crate) fn circuits_needed(&self) -> Vec<CircuitId> {
        match &self.pending {
            _ if self.state == State::Releasing => Vec::new(),
            Some(pending) => self.circuits_without(&pending.removed),
            None => self.circuits(),
        }
    }

    pub(crate) fn circuits_without(&self, gone: &[SegmentId]) -> Vec<CircuitId> {
        let accelerator = self.accelerator.iter().map(|accelerator| accelerator.circuit);
        let kept = self.mappings.iter().filter(|mapping| !gone.contains(&mapping.segment));
        let mut circuits: Vec<_> = kept.map(|mapping| mapping.circuit).chain(accelerator).collect();
        circuits.sort_unstable();
        circuits.dedup();
        circuits
    }
}

/// A segment as a compute brick sees it: an entry of its NetPort table (D4.1, Appendix I).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The segment.
    pub segment: SegmentId,
    /// First page in the brick's far address space.
    pub start: u64,
    /// Pages.
    pub pages: u64,
    /// The circuit that leads there.
    pub circuit: CircuitId,
    /// The memory server does not have the segment any more.
    pub lost: bool,
}

impl Mapping {
    /// The pages of the far address space.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.pages
    }
}

/// Slots of an accelerator brick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceleratorGrant {
    /// The brick.
    pub brick: Name,
    /// How many of its slots.
    pub slots: u32,
    /// The circuit that leads there.
    pub circuit: CircuitId,
}

/// What a plan under way will have added or taken away when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Segments that go if the plan is undone.
    pub added: Vec<SegmentId>,
    /// Segments that go when the plan is done.
    pub removed: Vec<SegmentId>,
}

/// A segment: contiguous pages of one memory brick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its number.
    pub id: SegmentId,
    /// The memory brick.
    pub brick: Name,
    /// First page in the brick's pool.
    pub start: u64,
    /// Pages.
    pub pages: u64,
    /// The group that owns it; else the reservation that maps it does.
    pub group: Option<Name>,
    /// The reservations that map it, ascending. It goes with the last of them.
    pub users: Vec<ReservationId>,
}

impl Segment {
    /// The pages of the brick's pool.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.pages
    }
}

/// Whole pages that hold so much.
pub(crate) fn pages_of(bytes: Bytes) -> u64 {
    bytes.0.div_ceil(rackmem_types::PAGE_SIZE as u64)
}
