//! Other memory for what memory servers have lost.

use rackmem_types::Bytes;

use super::relocate::relocate;
use super::{Plan, compute};
use crate::{Rack, RackError, ReservationId};

/// Plans as much memory as a reservation has lost, in the place of it; none if it has lost nothing.
///
/// Its content is gone: this is for a virtual machine that does not run, whose pages are nowhere. It may be on the brick that
/// lost it.
pub fn replace_lost(rack: &Rack, id: ReservationId) -> Result<Option<Plan>, RackError> {
    let reservation = super::applied(rack, id)?;
    let lost = || reservation.mappings.iter().filter(|mapping| mapping.lost);
    if lost().next().is_none() {
        return Ok(None);
    }
    if reservation.group.is_some() {
        return Err(RackError::Request(
            "shared memory that was lost is not replaced; leave the group".to_owned(),
        ));
    }
    let request = reservation.more(Bytes::from_pages(lost().map(|mapping| mapping.pages).sum()));
    let found = compute::named(rack, &reservation.compute, &request)?;
    relocate(rack, reservation, &found, lost().map(|mapping| mapping.segment).collect()).map(Some)
}
