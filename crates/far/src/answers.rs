//! What a server's answers mean for the requests they answer.

use rackmem_types::PageData;
use rackmem_wire::{Answer, ErrorCode, PageRecord, PageStatus, Request, StoreStatus};

use crate::event::{Event, PageError, WriteRequest};
use crate::flights::Kind;
use crate::link::Link;
use crate::memory::Table;
use crate::server::fits;

/// What is wrong with a connection or its server.
pub(crate) enum Trouble {
    /// The connection is of no more use; another one may be.
    Broken(String),
    /// The server no longer has what it held.
    Lost(String),
}

impl Link {
    /// Takes all whole answers from `bytes`; how many bytes that were.
    pub(crate) fn take_apart(
        &mut self,
        table: &Table,
        bytes: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Trouble> {
        let mut taken = 0;
        loop {
            let answer =
                Answer::parse(&bytes[taken..]).map_err(|error| Trouble::Broken(error.to_string()))?;
            let Some((id, answer, len)) = answer else { return Ok(taken) };
            self.take_answer(table, id, &answer, sink)?;
            taken += len;
        }
    }

    fn take_answer(
        &mut self,
        table: &Table,
        id: u64,
        answer: &Answer<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Trouble> {
        if let Answer::Error { code, text, .. } = *answer {
            self.take_refusal(id, code, text, sink)?;
            self.broken_since = None;
            return Ok(());
        }
        let unasked = || Trouble::Broken("it answers what was not asked".into());
        let index = self.flights.find(id).ok_or_else(unasked)?;
        match (self.flights.get(index).kind, answer) {
            (Kind::Open, Answer::Segment { .. }) => {}
            (Kind::Read, Answer::Pages { records, data }) => {
                self.take_pages(table, index, records, data, sink)?
            }
            (Kind::Write, Answer::Stored(statuses)) => self.take_stored(table, index, statuses, sink)?,
            _ => return Err(unasked()),
        }
        self.flights.finish(index);
        // Opening a segment shows that the server lives, not that it serves pages.
        if !matches!(answer, Answer::Segment { .. }) {
            self.broken_since = None;
        }
        Ok(())
    }

    fn take_pages(
        &mut self,
        table: &Table,
        index: u32,
        records: &[PageRecord],
        data: &[PageData],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Trouble> {
        let flight = self.flights.get(index);
        let (extent, again) = (flight.extent, flight.again);
        let place = &table.extents[extent];
        if flight.pages.len() != records.len() {
            return Err(Trouble::Broken("it answers another number of pages".into()));
        }
        let mut damaged = Vec::new();
        let mut data = data.iter();
        for (&(tag, slot), record) in flight.pages.iter().zip(records) {
            let page = if record.is_ok() { data.next() } else { None };
            let (version, checksum) = (record.version.get(), record.checksum.get());
            let right_page = record.page.get() == place.page(slot);
            match page {
                Some(data) if right_page && version > 0 && fits(data, checksum) => {
                    sink(Event::Page { tag, slot, version, checksum, data });
                }
                None if right_page && record.status() == Some(PageStatus::Missing) => {
                    sink(Event::ReadFailed { tag, slot, error: PageError::Missing });
                }
                None if right_page => sink(Event::ReadFailed { tag, slot, error: PageError::Refused }),
                _ if again => sink(Event::ReadFailed { tag, slot, error: PageError::Corrupt }),
                // Damage is rare, so that this may allocate.
                _ => damaged.push((tag, slot)),
            }
        }
        if !damaged.is_empty() {
            tracing::warn!(server = %self.host().dialer.address, pages = damaged.len(), "damaged pages are read again");
            self.issue_read(table, extent, damaged.into_iter(), true);
        }
        Ok(())
    }

    fn take_stored(
        &mut self,
        table: &Table,
        index: u32,
        statuses: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Trouble> {
        let flight = self.flights.get(index);
        let (extent, again) = (flight.extent, flight.again);
        let place = &table.extents[extent];
        if flight.pages.len() != statuses.len() {
            return Err(Trouble::Broken("it answers another number of pages".into()));
        }
        let mut damaged = Vec::new();
        let mut fresh = 0;
        for (position, (&(tag, slot), status)) in flight.pages.iter().zip(statuses).enumerate() {
            let error = match StoreStatus::from_wire(*status) {
                Some(StoreStatus::Ok) => {
                    fresh += usize::from(place.note_stored(slot));
                    sink(Event::Stored { tag, slot });
                    continue;
                }
                Some(StoreStatus::Corrupt) if !again => {
                    damaged.push(position);
                    continue;
                }
                Some(StoreStatus::Corrupt) => PageError::Corrupt,
                Some(StoreStatus::Stale) => PageError::Stale,
                Some(StoreStatus::Full) => PageError::Full,
                Some(StoreStatus::OutOfRange) | None => PageError::Refused,
            };
            sink(Event::StoreFailed { tag, slot, error });
        }
        self.host().note_used(fresh, 0);
        if !damaged.is_empty() {
            tracing::warn!(server = %self.host().dialer.address, pages = damaged.len(), "pages damaged on their way are sent again");
            self.store_again(table, index, &damaged);
        }
        Ok(())
    }

    /// Sends the pages at `positions` of a WRITE once more.
    fn store_again(&mut self, table: &Table, index: u32, positions: &[usize]) {
        let flight = self.flights.get_mut(index);
        let extent = flight.extent;
        let (frame, pages) = (std::mem::take(&mut flight.frame), flight.pages.clone());
        let Ok(Some((_, Request::Write { records, data, .. }, _))) = Request::parse(&frame) else {
            unreachable!("the frame of a WRITE is one that we made");
        };
        let requests = positions.iter().map(|&position| WriteRequest {
            tag: pages[position].0,
            slot: pages[position].1,
            version: records[position].version.get(),
            checksum: records[position].checksum.get(),
            data: &data[position],
        });
        self.issue_write(table, extent, requests, true);
    }

    fn take_refusal(
        &mut self,
        id: u64,
        code: ErrorCode,
        text: &str,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Trouble> {
        let index = self.flights.find(id);
        let error = match code {
            ErrorCode::NoSegment | ErrorCode::NotOwner | ErrorCode::Epoch => {
                return Err(Trouble::Lost(text.to_owned()));
            }
            ErrorCode::Full => PageError::Full,
            ErrorCode::Limit | ErrorCode::NotLocal | ErrorCode::Internal => PageError::Refused,
            _ => return Err(Trouble::Broken(text.to_owned())),
        };
        let Some(index) = index else { return Err(Trouble::Broken(text.to_owned())) };
        let flight = self.flights.get(index);
        match flight.kind {
            // Without the segment none of its pages can be reached by this port.
            Kind::Open => return Err(Trouble::Lost(text.to_owned())),
            Kind::Write => {
                flight.pages.iter().for_each(|&(tag, slot)| sink(Event::StoreFailed { tag, slot, error }));
            }
            _ => flight.pages.iter().for_each(|&(tag, slot)| sink(Event::ReadFailed { tag, slot, error })),
        }
        self.flights.finish(index);
        Ok(())
    }
}
