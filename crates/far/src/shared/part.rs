//! One range of one segment: pages looked at, and replaced if nobody else has replaced them since.

use std::ops::Range;
use std::time::{Duration, Instant};

use rackmem_types::{PAGE_SIZE, PageData, PageHash, PageVersion, ServerAddress};
use rackmem_wire::{Answer, ErrorCode, OwnerToken, PageStatus, Request, StoreStatus, WriteRecord};
use zerocopy::little_endian::U64;

use crate::config::{Credentials, GivenSegment, LOST_AFTER};
use crate::dial::Dialer;
use crate::error::FarError;
use crate::server::{CONTROL_TIMEOUT, fits};
use crate::session::Session;

/// Pause between two attempts to reach a server.
const PAUSE: Duration = Duration::from_millis(20);

/// How often a damaged or mixed page is asked for again: whoever writes it all the time is let through in between.
const DAMAGED_MAX: usize = 100;

/// Why what answers is no memory server.
const GARBLED: &str = "it answers something that was not asked";

/// A range of a segment.
pub(super) struct Part {
    /// Its bytes of the whole.
    pub(super) range: Range<u64>,
    dialer: Dialer,
    given: GivenSegment,
    /// The server's life when it was reached first: in another one the content is gone.
    epoch: Option<u64>,
    session: Option<Session>,
}

/// A page as the server has it; version 0 if it was never written.
type Seen = (PageVersion, PageData);

impl Part {
    /// Reaches the segment `given`, of which a range is bytes `range` of the whole.
    pub(super) fn open(
        range: Range<u64>,
        given: &GivenSegment,
        credentials: &Credentials,
    ) -> Result<Self, FarError> {
        let dialer = Dialer::new(given.server.clone(), credentials)?;
        let mut part = Self { range, dialer, given: given.clone(), epoch: None, session: None };
        part.session()?;
        Ok(part)
    }

    /// Writes bytes that begin `start` bytes into the first of `pages`.
    pub(super) fn write(&mut self, pages: Range<u64>, start: usize, bytes: &[u8]) -> Result<(), FarError> {
        let mut left: Vec<u64> = pages.clone().collect();
        let mut damaged = 0;
        while !left.is_empty() {
            let seen = self.look(&left)?;
            let wanted = |page: u64, data: &PageData| {
                let mut data = *data;
                let from = ((page - pages.start) as usize) * PAGE_SIZE;
                let (first, last) = (from.max(start), (from + PAGE_SIZE).min(start + bytes.len()));
                data[first - from..last - from].copy_from_slice(&bytes[first - start..last - start]);
                data
            };
            // What is there as it is to be was written already, by us or by others.
            let todo: Vec<(u64, Seen)> = left
                .iter()
                .zip(seen)
                .map(|(page, (version, data))| (*page, (version + 1, wanted(*page, &data)), data))
                .filter(|(_, (_, new), data)| new != data)
                .map(|(page, new, _)| (page, new))
                .collect();
            match self.store(&todo) {
                Ok(refused) => {
                    damaged += usize::from(refused.iter().any(|(_, status)| *status == StoreStatus::Corrupt));
                    if let Some((_, StoreStatus::Full)) =
                        refused.iter().find(|(_, status)| *status == StoreStatus::Full)
                    {
                        return Err(FarError::Full { address: self.address(), free_pages: 0 });
                    }
                    left = refused.into_iter().map(|(page, _)| page).collect();
                }
                Err(_) => left = self.after_a_cut(&todo)?,
            }
            if damaged > DAMAGED_MAX {
                return Err(self.damaged());
            }
        }
        Ok(())
    }

    /// The connection broke while these pages were stored: which are to be stored again.
    fn after_a_cut(&mut self, stored: &[(u64, Seen)]) -> Result<Vec<u64>, FarError> {
        let pages: Vec<u64> = stored.iter().map(|(page, _)| *page).collect();
        let seen = self.look(&pages)?;
        let mut again = Vec::new();
        for ((page, (version, new)), (now, data)) in stored.iter().zip(seen) {
            if now < *version {
                again.push(*page);
            } else if now > *version || data != *new {
                // Somebody else has written since, before or after us.
                return Err(FarError::Unsure { address: self.address() });
            }
        }
        Ok(again)
    }

    /// Pages as they are now.
    pub(super) fn pages(&mut self, pages: Range<u64>) -> Result<Vec<Seen>, FarError> {
        self.look(&pages.collect::<Vec<_>>())
    }

    /// As [`Part::pages`]. A broken connection is made anew.
    fn look(&mut self, pages: &[u64]) -> Result<Vec<Seen>, FarError> {
        let deadline = Instant::now() + LOST_AFTER;
        let mut damaged = 0;
        loop {
            match self.try_look(pages) {
                Ok(Some(seen)) => return Ok(seen),
                Ok(None) if damaged < DAMAGED_MAX => damaged += 1,
                Ok(None) => return Err(self.damaged()),
                Err(error) if is_final(&error) || Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// `None`: a page was being written meanwhile, or was damaged on its way.
    fn try_look(&mut self, pages: &[u64]) -> Result<Option<Vec<Seen>>, FarError> {
        let first = self.given.first;
        let wanted: Vec<U64> = pages.iter().map(|page| U64::new(first + page)).collect();
        let request = Request::Read { segment: self.given.segment, pages: &wanted };
        self.exchange(&request, |answer| {
            let Answer::Pages { records, data } = answer else { return Err(None) };
            let mut data = data.iter();
            let mut seen = Vec::with_capacity(records.len());
            for (record, wanted) in records.iter().zip(&wanted) {
                let page = match record.status() {
                    Some(PageStatus::Ok) => *data.next().ok_or(Some(GARBLED))?,
                    Some(PageStatus::Missing) => [0; PAGE_SIZE],
                    _ => return Err(Some(GARBLED)),
                };
                if record.page != *wanted {
                    return Err(Some(GARBLED));
                }
                if record.is_ok() && !fits(&page, record.checksum.get()) {
                    return Ok(None);
                }
                seen.push((record.version.get(), page));
            }
            if seen.len() == wanted.len() { Ok(Some(seen)) } else { Err(Some(GARBLED)) }
        })
    }

    /// Stores pages; those that were not, and why.
    fn store(&mut self, pages: &[(u64, Seen)]) -> Result<Vec<(u64, StoreStatus)>, FarError> {
        if pages.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.given.first;
        let record = |(page, (version, data)): &(u64, Seen)| {
            WriteRecord::new(first + page, *version, PageHash::of(data).checksum())
        };
        let records: Vec<_> = pages.iter().map(record).collect();
        let data: Vec<_> = pages.iter().map(|(_, (_, data))| *data).collect();
        let request = Request::Write { segment: self.given.segment, records: &records, data: &data };
        self.exchange(&request, |answer| {
            let Answer::Stored(statuses) = answer else { return Err(None) };
            if statuses.len() != pages.len() {
                return Err(Some(GARBLED));
            }
            let mut refused = Vec::new();
            for ((page, _), status) in pages.iter().zip(statuses) {
                match StoreStatus::from_wire(*status) {
                    Some(StoreStatus::Ok) => {}
                    Some(status @ (StoreStatus::Stale | StoreStatus::Corrupt | StoreStatus::Full)) => {
                        refused.push((*page, status));
                    }
                    _ => return Err(Some(GARBLED)),
                }
            }
            Ok(refused)
        })
    }

    /// One request and its answer. `take` says `Err(None)` for an answer that is of another kind. After an error the connection is of no
    /// more use.
    fn exchange<T>(
        &mut self,
        request: &Request<'_>,
        take: impl FnOnce(Answer<'_>) -> Result<T, Option<&'static str>>,
    ) -> Result<T, FarError> {
        let (dialer, segment) = (self.dialer.clone(), self.given.segment);
        let session = self.session()?;
        let taken = session.call(request, Instant::now() + CONTROL_TIMEOUT, |answer| {
            take(answer).map_err(|reason| match reason {
                Some(reason) => {
                    FarError::NotAServer { address: dialer.address.clone(), reason: reason.to_owned() }
                }
                None => refused(&dialer, segment, &answer),
            })
        });
        let result = taken.map_err(|error| dialer.explain(error, CONTROL_TIMEOUT)).flatten();
        if result.is_err() {
            self.session = None;
        }
        result
    }

    /// A connection that has the segment open.
    fn session(&mut self) -> Result<&mut Session, FarError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.dial()?,
        };
        Ok(self.session.insert(session))
    }

    fn dial(&mut self) -> Result<Session, FarError> {
        let (mut session, welcome) = self.dialer.dial(CONTROL_TIMEOUT)?;
        let epoch = *self.epoch.get_or_insert(welcome.epoch);
        let GivenSegment { segment, owner, first, pages, .. } = self.given;
        let open = Request::SegmentOpen { segment, owner: OwnerToken(owner), epoch };
        let dialer = &self.dialer;
        let size = session
            .call(&open, Instant::now() + CONTROL_TIMEOUT, |answer| match answer {
                Answer::Segment { pages, .. } => Ok(pages),
                other => Err(refused(dialer, segment, &other)),
            })
            .map_err(|error| dialer.explain(error, CONTROL_TIMEOUT))
            .flatten()?;
        let end = first.saturating_add(pages);
        if end > size {
            return Err(FarError::SegmentTooSmall { address: self.address(), segment, pages: size, end });
        }
        Ok(session)
    }

    fn address(&self) -> ServerAddress {
        self.dialer.address.clone()
    }

    fn damaged(&self) -> FarError {
        FarError::Server {
            address: self.address(),
            text: "a page arrives damaged again and again".to_owned(),
        }
    }
}

/// The error for an answer that is not the one hoped for.
fn refused(dialer: &Dialer, segment: u64, answer: &Answer<'_>) -> FarError {
    match answer {
        Answer::Error { code: ErrorCode::NoSegment | ErrorCode::Epoch, .. } => {
            FarError::NoSegment { address: dialer.address.clone(), segment }
        }
        other => dialer.unexpected(other),
    }
}

/// Whether it stays so. All else, a damaged frame too, may be a matter of this connection.
fn is_final(error: &FarError) -> bool {
    matches!(
        error,
        FarError::NoSegment { .. }
            | FarError::NotOwner { .. }
            | FarError::SegmentTooSmall { .. }
            | FarError::TokenNeeded { .. }
            | FarError::WrongToken { .. }
            | FarError::CertificateRefused { .. }
            | FarError::ServerNotTrusted { .. }
            | FarError::TlsFile { .. }
            | FarError::Version { .. }
    )
}
