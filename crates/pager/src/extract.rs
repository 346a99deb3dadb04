//! Takes pages out of a target, all at once or not at all, each.
//!
//! From Linux 6.8 on the resident thread moves them to a staging area (`UFFDIO_MOVE`): after the move the program's next
//! access is a fault, and no write can be lost in between. Before, the program stands still while its pages are copied
//! and dropped. Either way the content ends up in the pager's buffer.

use std::collections::HashMap;
use std::time::Duration;

use rackmem_inject::InjectError;
use rackmem_policy::PageRef;
use rackmem_types::PageData;

use crate::Shared;
use crate::core::PAGE;
use crate::kernel::{Advice, Move, Moved};
use crate::space::{BATCH_PAGES, Inside, STAGING_BYTES, STAGING_PAGES};
use crate::sync::sleep;
use crate::table::SpaceId;

/// What became of one page of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Out, and its content is in the buffer.
    Left,
    /// Still in the target; it may be tried again.
    Stayed,
    /// Still in the target, and its mapping does not let it go (locked, read-only, executable).
    Stuck,
    /// There was no page.
    Absent,
}

/// A run of pages at consecutive addresses: index of the first in the batch, and how many.
type Run = (usize, usize);

/// How pages are taken out on this kernel.
pub(crate) struct Extractor {
    can_move: bool,
    /// Pages in use of each space's staging area.
    staged: HashMap<SpaceId, usize>,
    /// Pages that are shared with a forked process: they must be the target's own before they can be moved.
    shared_pages: Vec<u64>,
    moves: Vec<Move>,
    moved: Vec<Moved>,
}

impl Extractor {
    pub(crate) fn new(can_move: bool) -> Self {
        Self {
            can_move,
            staged: HashMap::new(),
            shared_pages: Vec::new(),
            moves: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// A dead pager may have left pages in the staging area of this space: it is emptied before anything else.
    pub(crate) fn inherit(&mut self, id: SpaceId, inside: &Inside) {
        self.staged.insert(id, STAGING_PAGES);
        self.tidy(id, inside);
    }

    /// Takes the pages of `batch` (sorted by address) out; one outcome each. `false`: the program could not be stopped for it.
    pub(crate) fn extract(
        &mut self,
        shared: &Shared,
        id: SpaceId,
        inside: &Inside,
        batch: &[(PageRef, u64)],
        pages: &mut [PageData],
        outcomes: &mut Vec<Outcome>,
    ) -> bool {
        outcomes.resize(batch.len(), Outcome::Stayed);
        if self.can_move {
            let base = inside.staging + *self.staged.entry(id).or_insert(0) as u64 * PAGE;
            shared.lock().estate.batch_begin(id, Some(base), batch);
            self.move_out(id, inside, batch, pages, outcomes);
            true
        } else {
            shared.lock().estate.batch_begin(id, None, batch);
            // If the program cannot be stopped just now, everything stays and is tried again.
            let mut work = || drop_out(shared, id, inside, batch, pages, outcomes);
            inside.resident.paused(&mut work).is_ok()
        }
    }

    fn move_out(
        &mut self,
        id: SpaceId,
        inside: &Inside,
        batch: &[(PageRef, u64)],
        pages: &mut [PageData],
        outcomes: &mut [Outcome],
    ) {
        let staged = self.staged.entry(id).or_insert(0);
        let base = inside.staging + *staged as u64 * PAGE;
        *staged += batch.len();
        let runs = runs(batch);
        let mut again = Vec::new();
        if self.move_runs(inside, base, batch, &runs, outcomes, &mut again).is_err() {
            return; // the process is gone, and its space will be closed
        }
        if !again.is_empty() {
            // A run may have crossed from one mapping into the next: page by page it does not.
            let singles: Vec<Run> =
                again.iter().flat_map(|&(at, len)| (at..at + len).map(|i| (i, 1))).collect();
            let _ = self.move_runs(inside, base, batch, &singles, outcomes, &mut Vec::new());
        }
        for (at, len) in left_runs(outcomes) {
            read_staged(inside, base + at as u64 * PAGE, &mut pages[at..at + len]);
        }
    }

    fn move_runs(
        &mut self,
        inside: &Inside,
        base: u64,
        batch: &[(PageRef, u64)],
        runs: &[Run],
        outcomes: &mut [Outcome],
        again: &mut Vec<Run>,
    ) -> Result<(), InjectError> {
        self.moves.clear();
        self.moves.extend(runs.iter().map(|&(at, len)| Move {
            to: base + at as u64 * PAGE,
            from: batch[at].1,
            pages: len,
        }));
        inside.resident.move_out(inside.uffd, &self.moves, &mut self.moved)?;
        for (&(at, len), moved) in runs.iter().zip(&self.moved) {
            outcomes[at..at + moved.pages].fill(Outcome::Left);
            if moved.errno == 0 {
                continue;
            }
            // The kernel (Linux 6.18) does not count a page that it moves at its second try, because the program was just
            // touching it. What lies in the staging area tells what has moved: nothing else ever puts a page there.
            let mut any = moved.pages > 0;
            for (i, _) in
                (at..).zip(staged(inside, base + at as u64 * PAGE, len)).filter(|&(_, staged)| staged)
            {
                outcomes[i] = Outcome::Left;
                any = true;
            }
            if any {
                continue;
            }
            match moved.errno {
                libc::ENOENT => outcomes[at] = Outcome::Absent,
                libc::EBUSY => self.shared_pages.push(batch[at].1),
                libc::EINVAL if len > 1 => again.push((at, len)),
                libc::EINVAL => outcomes[at] = Outcome::Stuck,
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts things in order between batches: empties a full staging area, and makes shared pages the target's own.
    pub(crate) fn tidy(&mut self, id: SpaceId, inside: &Inside) {
        if !self.can_move {
            return;
        }
        let mut advice = Vec::new();
        let staged = self.staged.entry(id).or_insert(0);
        if *staged + BATCH_PAGES > STAGING_PAGES {
            *staged = 0;
            advice.push((inside.staging, STAGING_BYTES, libc::MADV_DONTNEED));
        }
        advice.extend(self.shared_pages.drain(..).map(|address| (address, PAGE, libc::MADV_POPULATE_WRITE)));
        if !advice.is_empty() {
            // Fails only when the process is gone; a page that could not be made its own is tried again in its turn.
            let _ = inside.resident.advise(&advice, &mut Vec::new());
        }
    }
}

/// Reads pages that have been moved out.
fn read_staged(inside: &Inside, address: u64, pages: &mut [PageData]) {
    insist(inside, || inside.resident.read(address, pages).then_some(()));
}

/// For each of `count` pages of the staging area, whether it is there.
fn staged(inside: &Inside, address: u64, count: usize) -> Vec<bool> {
    insist(inside, || inside.resident.present(address, count).ok()).unwrap_or_default()
}

/// Looks into the staging area. A process that is being torn down cannot be looked into, and nobody will ask for its pages;
/// its resident thread goes a little later: `None`. If it lives on unread, the pager ends rather than take something else
/// for these pages: they are safe in the staging area, and the program waits.
fn insist<T>(inside: &Inside, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    const TRIES_MAX: u32 = 1000; // a second: far longer than a process takes from its last memory to its last thread
    for _ in 0..TRIES_MAX {
        let seen = look();
        if seen.is_some() || inside.resident.is_gone() {
            return seen;
        }
        sleep(Duration::from_millis(1));
    }
    panic!("pages that were moved out of process {} cannot be read", inside.resident.pid());
}

/// Without `UFFDIO_MOVE`, while the program stands still: copy and drop.
fn drop_out(
    shared: &Shared,
    id: SpaceId,
    inside: &Inside,
    batch: &[(PageRef, u64)],
    pages: &mut [PageData],
    outcomes: &mut [Outcome],
) {
    // With every thread stopped none can be inside a change of mappings, so no message is unread. If one was read since
    // the batch was planned, the plan is void.
    {
        let mut core = shared.lock();
        if inside.resident.is_cancelled() {
            return;
        }
        core.dropping = Some(id);
    }
    for (at, len) in runs(batch) {
        let present = inside.resident.present(batch[at].1, len).unwrap_or_default();
        for (i, outcome) in outcomes[at..at + len].iter_mut().enumerate() {
            *outcome = if present.get(i).copied().unwrap_or(false) { Outcome::Left } else { Outcome::Absent };
        }
    }
    let mut drops: Vec<Run> = Vec::new();
    for (at, len) in left_runs(outcomes) {
        for (at, len) in runs(&batch[at..at + len]).into_iter().map(|(first, len)| (at + first, len)) {
            if inside.resident.read(batch[at].1, &mut pages[at..at + len]) {
                drops.push((at, len));
            } else {
                outcomes[at..at + len].fill(Outcome::Stayed);
            }
        }
    }
    // Once dropped they are only here.
    let mut core = shared.lock();
    for index in drops.iter().flat_map(|&(at, len)| at..at + len) {
        core.estate.batch_keep(index, &pages[index]);
    }
    drop(core);
    let advice = |&(at, len): &Run| (batch[at].1, len as u64 * PAGE, libc::MADV_DONTNEED);
    let advice: Vec<Advice> = drops.iter().map(advice).collect();
    let mut results = Vec::new();
    let ran = inside.resident.advise(&advice, &mut results);
    for (i, (at, len)) in drops.into_iter().enumerate() {
        if ran.is_err() || results[i] != 0 {
            outcomes[at..at + len].fill(Outcome::Stuck);
        }
    }
    shared.lock().dropping = None;
}

/// Consecutive addresses in a sorted batch.
fn runs(batch: &[(PageRef, u64)]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(batch.len());
    for (i, &(_, address)) in batch.iter().enumerate() {
        match runs.last_mut() {
            Some((at, len)) if batch[*at].1 + *len as u64 * PAGE == address => *len += 1,
            _ => runs.push((i, 1)),
        }
    }
    runs
}

/// Neighbours in the batch that left.
fn left_runs(outcomes: &[Outcome]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (i, outcome) in outcomes.iter().enumerate() {
        if *outcome == Outcome::Left {
            match runs.last_mut() {
                Some((at, len)) if *at + *len == i => *len += 1,
                _ => runs.push((i, 1)),
            }
        }
    }
    runs
}
