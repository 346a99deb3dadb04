//! Memory servers: segments are made, kept and destroyed by the page protocol, and all that a server has is listed.
//!
//! A segment is known by its name and by the secret that opens it, which is drawn before it is made. So whoever does not know
//! whether a step was done looks for a segment of that name that the secret opens. Pages are never moved here.

use std::time::Duration;

use rackmem_api::Problem;
use rackmem_api::problem::ProblemType;
use rackmem_far::{Credentials, FarError, PoolView, Segments};
use rackmem_rack::SegmentId;

use super::address::{self, is_simulated};
use super::{Seen, attachment_of};
use crate::deed::{Deed, Placed};

/// How long a segment waits for a pager or a controller to come back: as long as memory servers allow. The watch renews it.
pub(crate) const LEASE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Whoever asks memory servers, and what proves to them who asks.
#[derive(Debug, Default)]
pub(super) struct Memory {
    credentials: Credentials,
}

impl Memory {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials }
    }

    /// Makes the segment of a deed, or finds that it is there.
    pub(super) async fn create(
        &self,
        address: &str,
        segment: SegmentId,
        pages: u64,
        deed: &Deed,
    ) -> Result<Option<Placed>, Problem> {
        let (name, deed) = (attachment_of(segment), deed.clone());
        self.with(address, move |server| create(server, &name, pages, &deed)).await
    }

    /// Destroys the segment of a deed; one that is not there is no mistake.
    pub(super) async fn destroy(
        &self,
        address: &str,
        segment: SegmentId,
        deed: &Deed,
    ) -> Result<(), Problem> {
        let (name, deed) = (attachment_of(segment), deed.clone());
        self.with(address, move |server| destroy(server, &name, &deed)).await.map(|_| ())
    }

    /// What a memory server has.
    pub(super) async fn look(&self, address: &str) -> Result<Seen, Problem> {
        self.with(address, Segments::pool).await.map(Seen::Pool)
    }

    /// Asks a server on a thread that may block; none of a simulated one.
    async fn with<T: Send + 'static>(
        &self,
        address: &str,
        ask: impl FnOnce(&Segments) -> Result<T, FarError> + Send + 'static,
    ) -> Result<Option<T>, Problem> {
        if is_simulated(address) {
            return Ok(None);
        }
        let server = address::server(address).map_err(|error| Problem::new(ProblemType::Invalid, error))?;
        let credentials = self.credentials.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&Segments::connect(server, &credentials)?));
        let answer = asked.await.map_err(|error| Problem::new(ProblemType::Internal, error.to_string()))?;
        answer.map(Some).map_err(|error| told(&error))
    }
}

fn create(server: &Segments, name: &str, pages: u64, deed: &Deed) -> Result<Placed, FarError> {
    let (view, owner) = (server.pool()?, deed.owner);
    if let Some(place) = deed.place.filter(|place| place.epoch == view.epoch) {
        // It was made. To open it begins its lease anew; one that somebody destroyed is not made a second time.
        return server.keep(place.id, owner).map(|_| place);
    }
    let is_there = ours(&view, server, name, owner)?.iter().any(|(_, has)| *has == pages);
    if !is_there {
        server.create(name, pages, owner, LEASE)?;
    }
    // A connection that broke in the middle may have left a twin, an earlier step one of another size.
    let view = server.pool()?;
    let mut place = None;
    for (id, has) in ours(&view, server, name, owner)? {
        if has == pages && place.is_none() {
            place = Some(Placed { id, epoch: view.epoch });
        } else {
            gone_is_fine(server.destroy(id, owner))?;
        }
    }
    place.ok_or_else(|| FarError::Server {
        address: server.address(),
        text: format!("the segment '{name}' was made and is not listed"),
    })
}

fn destroy(server: &Segments, name: &str, deed: &Deed) -> Result<(), FarError> {
    let view = server.pool()?;
    let ids = match deed.place {
        Some(place) if place.epoch == view.epoch => vec![place.id],
        // It went with an earlier life of the server.
        Some(_) => Vec::new(),
        None => ours(&view, server, name, deed.owner)?.into_iter().map(|(id, _)| id).collect(),
    };
    ids.into_iter().try_for_each(|id| gone_is_fine(server.destroy(id, deed.owner)))
}

/// The segments of that name that `owner` opens, with their pages.
fn ours(
    view: &PoolView,
    server: &Segments,
    name: &str,
    owner: [u8; 16],
) -> Result<Vec<(u64, u64)>, FarError> {
    let mut found = Vec::new();
    for segment in view.segments.iter().filter(|segment| segment.name == name) {
        match server.keep(segment.id, owner) {
            Ok(pages) => found.push((segment.id, pages)),
            // Another controller's, or freed a moment ago.
            Err(FarError::NotOwner { .. } | FarError::NoSegment { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn gone_is_fine(destroyed: Result<(), FarError>) -> Result<(), FarError> {
    match destroyed {
        Err(FarError::NoSegment { .. }) => Ok(()),
        other => other,
    }
}

fn told(error: &FarError) -> Problem {
    let kind = match error {
        FarError::Full { .. } => ProblemType::Capacity,
        FarError::UnknownHost { .. }
        | FarError::Refused { .. }
        | FarError::Timeout { .. }
        | FarError::Closed { .. }
        | FarError::Restarted { .. }
        | FarError::Lost { .. }
        | FarError::Io { .. } => {
            return Problem::new(ProblemType::Unavailable, error.to_string()).retry_after(5);
        }
        _ => ProblemType::Backend,
    };
    Problem::new(kind, error.to_string())
}
