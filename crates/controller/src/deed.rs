//! Deeds: the secrets that open the segments on memory servers, and where each segment is. A deed is on the disk before its
//! segment is made and is forgotten after the segment is gone, so that no segment is ever one that nobody can open.

use rackmem_rack::{Name, SegmentId};

use crate::ledger::State;
use crate::store::Row;

/// What makes a segment on a memory server ours.
#[derive(Clone, PartialEq, Eq)]
pub struct Deed {
    /// The memory brick.
    pub brick: Name,
    /// The secret that the segment is made with, and opened by.
    pub owner: [u8; 16],
    /// Where it is; none as long as nobody knows whether it was made.
    pub place: Option<Placed>,
}

/// Where a segment is on its memory server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its id there.
    pub id: u64,
    /// The life of the server in which it was made.
    pub epoch: u64,
}

impl std::fmt::Debug for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deed").field("brick", &self.brick).field("place", &self.place).finish_non_exhaustive()
    }
}

impl State {
    /// Draws up the deed of a segment that is about to be made, unless there is one.
    pub(crate) fn deed_draw(&mut self, segment: SegmentId, brick: &Name) {
        if !self.deeds.contains_key(&segment) {
            let owner = rackmem_far::Segments::owner();
            self.deed_keep(segment, Deed { brick: brick.clone(), owner, place: None });
        }
    }

    /// Notes where a segment is.
    pub(crate) fn deed_place(&mut self, segment: SegmentId, place: Placed) {
        if let Some(deed) = self.deeds.get(&segment)
            && deed.place != Some(place)
        {
            self.deed_keep(segment, Deed { place: Some(place), ..deed.clone() });
        }
    }

    fn deed_keep(&mut self, segment: SegmentId, deed: Deed) {
        self.rows.push(Row::Deed(segment, Box::new(deed.clone())));
        self.deeds.insert(segment, deed);
    }

    /// Forgets the deed of a segment that is gone.
    pub(crate) fn deed_end(&mut self, segment: SegmentId) {
        if self.deeds.remove(&segment).is_some() {
            self.rows.push(Row::DeedGone(segment));
        }
    }
}
