//! Segments that somebody else made for this far memory: they are taken into use piece by piece, like extents that are
//! reserved, and emptied before and after. Who made them destroys them.

use std::ops::Range;
use std::sync::Arc;

use rackmem_wire::OwnerToken;

use crate::config::GivenSegment;
use crate::error::FarError;
use crate::memory::Shared;
use crate::resume::ExtentRecord;
use crate::server::{Part, Server};

/// Empties all that was given: a former owner may have left pages there, with versions that ours would lose against.
pub(crate) fn empty(given: &[GivenSegment], servers: &[Arc<Server>]) -> Result<(), FarError> {
    for GivenSegment { server, segment, owner, first, pages } in given {
        let part = Part { segment: *segment, owner: OwnerToken(*owner), first: *first, pages: *pages };
        let lives = |one: &&Arc<Server>| one.dialer.address == *server && one.serves();
        if let Some(server) = servers.iter().find(lives) {
            server.segment_empty(&part)?;
        }
    }
    Ok(())
}

impl GivenSegment {
    /// Whether an extent was taken of this part.
    pub(crate) fn has(&self, record: &ExtentRecord) -> bool {
        let part = self.first..self.first.saturating_add(self.pages);
        record.given
            && !record.gone
            && (&record.server, record.segment) == (&self.server, self.segment)
            && part.contains(&record.first)
    }
}

/// What is left of `given`, the next one last, once `records` are in use: pieces are taken from the front.
pub(crate) fn left(given: &[GivenSegment], records: &[ExtentRecord]) -> Vec<GivenSegment> {
    let rest = |given: &GivenSegment| {
        let end = given.first.saturating_add(given.pages);
        let taken = records.iter().filter(|record| given.has(record));
        let ends = taken.map(|record| record.first + u64::from(record.pages));
        let first = ends.max().unwrap_or(given.first).min(end);
        (first < end).then(|| GivenSegment { first, pages: end - first, ..given.clone() })
    };
    given.iter().rev().filter_map(rest).collect()
}

impl Shared {
    /// Takes up to `wanted` pages of what was given into use, as slots from `start` on. `None`: nothing is left.
    pub(crate) fn take_given(
        &self,
        given: &mut Vec<GivenSegment>,
        servers: &[Arc<Server>],
        start: u32,
        wanted: u32,
    ) -> Option<Result<Range<u32>, FarError>> {
        let mut failure = None;
        for index in (0..given.len()).rev() {
            let one = &mut given[index];
            let lives = |server: &Arc<Server>| server.dialer.address == one.server && server.serves();
            let Some(server) = servers.iter().position(lives) else { continue };
            let pages = one.pages.min(wanted.into()) as u32;
            let record = ExtentRecord {
                server: one.server.clone(),
                epoch: servers[server].epoch,
                segment: one.segment,
                owner: one.owner,
                start,
                pages,
                first: one.first,
                given: true,
                gone: false,
            };
            match servers[server].segment_resume(server, &record) {
                Ok(extent) => {
                    one.first += u64::from(pages);
                    one.pages -= u64::from(pages);
                    if one.pages == 0 {
                        given.remove(index);
                    }
                    return Some(Ok(self.add(extent)));
                }
                Err(error) => failure = Some(error),
            }
        }
        failure.map(Err)
    }
}

#[cfg(test)]
mod tests {
    use rackmem_types::ServerAddress;

    use super::*;

    #[test]
    fn what_is_left_lies_behind_what_is_used() {
        let server: ServerAddress = "host:7".parse().unwrap();
        let given = |segment, first, pages| GivenSegment {
            server: server.clone(),
            segment,
            owner: [1; 16],
            first,
            pages,
        };
        let used = |segment, first, pages| ExtentRecord {
            server: server.clone(),
            epoch: 1,
            segment,
            owner: [1; 16],
            start: 0,
            pages,
            first,
            given: true,
            gone: false,
        };
        let all = [given(1, 0, 100), given(1, 200, 100), given(2, 0, 10)];
        let records = [used(1, 0, 60), used(1, 60, 40), used(1, 200, 30)];
        assert_eq!(left(&all, &records), [given(2, 0, 10), given(1, 230, 70)]);
        // A segment of ours may have the same number on a server that was restarted.
        let own = ExtentRecord { given: false, ..used(2, 0, 10) };
        assert_eq!(left(&all[2..], &[own]), [given(2, 0, 10)]);
    }
}
