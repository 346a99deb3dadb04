//! A plan: what will be held, and the exact steps to carry it out. Immutable once made.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::graph::Path;
use crate::{
    AcceleratorGrant, CircuitId, Generation, Mapping, Name, Request, ReservationId, Segment, SegmentId,
};

/// What a plan is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A new reservation.
    Reserve(Box<Request>),
    /// More memory for a reservation that is applied.
    Grow,
    /// Less memory for a reservation that is applied.
    Shrink,
    /// The end of a reservation.
    Release,
    /// A segment moves to another memory brick.
    Move,
}

/// A plan. It holds no matter what happens to the rack after; whether it may still be carried out, [`crate::Rack::overtaken`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub(crate) parent: Generation,
    pub(crate) reservation: ReservationId,
    pub(crate) purpose: Purpose,
    pub(crate) grant: Grant,
    pub(crate) removed: Vec<SegmentId>,
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// The generation of the rack that the plan was made on.
    pub fn parent(&self) -> Generation {
        self.parent
    }

    /// The reservation that it makes or changes.
    pub fn reservation(&self) -> ReservationId {
        self.reservation
    }

    /// What it is for.
    pub fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// What the reservation holds more from the moment the plan is accepted.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Segments that the reservation holds no more once the plan is done; of a release, all of them.
    pub fn removed(&self) -> &[SegmentId] {
        &self.removed
    }

    /// The steps, in order. Each may be carried out twice.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// What a plan adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The compute brick.
    pub compute: Name,
    /// Bricks that it needs powered on and that were off.
    pub wake: Vec<Name>,
    /// New segments.
    pub segments: Vec<Segment>,
    /// New circuits.
    pub circuits: Vec<(CircuitId, Path)>,
    /// Circuits that are there and that the reservation will need, each once.
    pub reused: Vec<CircuitId>,
    /// New entries of the compute brick's NetPort table.
    pub mappings: Vec<Mapping>,
    /// Slots of an accelerator.
    pub accelerator: Option<AcceleratorGrant>,
}

impl Grant {
    pub(crate) fn empty(compute: Name) -> Self {
        Self {
            compute,
            wake: Vec::new(),
            segments: Vec::new(),
            circuits: Vec::new(),
            reused: Vec::new(),
            mappings: Vec::new(),
            accelerator: None,
        }
    }
}

/// An entry of a NetPort table (D4.1, Appendix I), in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetPort {
    /// First page of the compute brick's far address space.
    pub start: u64,
    /// One behind the last page.
    pub end: u64,
    /// The compute brick's port.
    pub port: u16,
    /// Added to a page of the far address space it gives the page in the segment.
    pub offset: i64,
}

/// One thing that an executor does. Doing it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Step {
    /// Power a brick on and wait until it answers.
    PowerOn {
        /// The brick.
        brick: Name,
    },
    /// Power a brick off, if nothing of it is in use.
    PowerOff {
        /// The brick.
        brick: Name,
    },
    /// Create a segment on a memory server.
    SegmentCreate {
        /// The memory brick.
        brick: Name,
        /// The segment.
        segment: SegmentId,
        /// First page in the brick's pool.
        start: u64,
        /// Pages.
        pages: u64,
    },
    /// Remove a segment from a memory server.
    SegmentRemove {
        /// The memory brick.
        brick: Name,
        /// The segment.
        segment: SegmentId,
        /// First page in the brick's pool.
        start: u64,
        /// Pages.
        pages: u64,
    },
    /// Connect ports of a switch, all or none.
    Connect {
        /// The switch.
        switch: Name,
        /// The pairs of ports.
        pairs: Vec<[u16; 2]>,
    },
    /// Disconnect ports of a switch, all or none.
    Disconnect {
        /// The switch.
        switch: Name,
        /// The pairs of ports.
        pairs: Vec<[u16; 2]>,
    },
    /// Enter a segment into a compute brick's NetPort table: its physical attachment.
    NetPortAdd {
        /// The compute brick.
        brick: Name,
        /// The memory brick that has the segment.
        server: Name,
        /// The segment.
        segment: SegmentId,
        /// The entry.
        entry: NetPort,
    },
    /// Take an entry out of a compute brick's NetPort table.
    NetPortRemove {
        /// The compute brick.
        brick: Name,
        /// The memory brick that has the segment.
        server: Name,
        /// The segment.
        segment: SegmentId,
        /// The entry.
        entry: NetPort,
    },
    /// Bind slots of an accelerator to a compute brick.
    AcceleratorBind {
        /// The compute brick.
        brick: Name,
        /// The accelerator brick.
        accelerator: Name,
        /// How many slots.
        slots: u32,
    },
    /// Unbind slots of an accelerator.
    AcceleratorUnbind {
        /// The compute brick.
        brick: Name,
        /// The accelerator brick.
        accelerator: Name,
        /// How many slots.
        slots: u32,
    },
    /// Give segments to the virtual machine of the reservation: their logical attachment.
    Attach {
        /// The compute brick.
        brick: Name,
        /// The segments.
        segments: Vec<SegmentId>,
    },
    /// Take segments from the virtual machine. Its pages in them come home first.
    Detach {
        /// The compute brick.
        brick: Name,
        /// The segments.
        segments: Vec<SegmentId>,
    },
    /// Move all pages of some segments to others, while the virtual machine runs. It is undone by moving them back.
    Migrate {
        /// The compute brick.
        brick: Name,
        /// From here.
        from: Vec<SegmentId>,
        /// To here.
        to: Vec<SegmentId>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOn { brick } => write!(f, "{brick}: power on"),
            Self::PowerOff { brick } => write!(f, "{brick}: power off"),
            Self::SegmentCreate { brick, segment, start, pages } => {
                write!(f, "{brick}: create segment {segment} of {pages} pages at {start}")
            }
            Self::SegmentRemove { brick, segment, .. } => write!(f, "{brick}: remove segment {segment}"),
            Self::Connect { switch, pairs } => write!(f, "{switch}: connect {pairs:?}"),
            Self::Disconnect { switch, pairs } => write!(f, "{switch}: disconnect {pairs:?}"),
            Self::NetPortAdd { brick, server, segment, entry } => {
                let NetPort { start, end, port, offset } = entry;
                write!(
                    f,
                    "{brick}: netport {start}..{end} port {port} offset {offset} → {segment} on {server}"
                )
            }
            Self::NetPortRemove { brick, segment, entry, .. } => {
                write!(f, "{brick}: remove netport {}..{} of {segment}", entry.start, entry.end)
            }
            Self::AcceleratorBind { brick, accelerator, slots } => {
                write!(f, "{brick}: bind {slots} slots of {accelerator}")
            }
            Self::AcceleratorUnbind { brick, accelerator, slots } => {
                write!(f, "{brick}: unbind {slots} slots of {accelerator}")
            }
            Self::Attach { brick, segments } => write!(f, "{brick}: attach {}", List(segments)),
            Self::Detach { brick, segments } => write!(f, "{brick}: detach {}", List(segments)),
            Self::Migrate { brick, from, to } => {
                write!(f, "{brick}: move the pages of {} to {}", List(from), List(to))
            }
        }
    }
}

struct List<'a>(&'a [SegmentId]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{segment}")?;
        }
        Ok(())
    }
}
