//! How an operation proceeds: a journal of its steps from which a later agent can go on.
//!
//! Pure: it is told what happened and says what is next. It never does a step and never writes a record; whoever does,
//! writes each record before it goes on, so that after a crash the journal is at most one step behind the world. A step
//! that has begun and is not recorded as done is done again, hence steps are idempotent, and so is taking them back.

#[cfg(test)]
mod tests;

use rackmem_api::Problem;
use serde::{Deserialize, Serialize};

/// Something that happened to an operation, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "record")]
pub enum Record {
    /// Step `step` is about to be done.
    Begun {
        /// Its index.
        step: usize,
    },
    /// Step `step` is done.
    Done {
        /// Its index.
        step: usize,
        /// What is to be known of it, for the user.
        note: Option<String>,
    },
    /// Step `step` cannot be done.
    Failed {
        /// Its index.
        step: usize,
        /// The reason, for the user.
        error: Problem,
    },
    /// Somebody wants it to stop.
    CancelAsked,
    /// Step `step` is taken back.
    Undone {
        /// Its index.
        step: usize,
    },
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Do this step.
    Do(usize),
    /// Take this step back.
    Undo(usize),
    /// Nothing: this is how it ended.
    End(End),
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Done,
    /// A step failed; what was done before it is taken back, where it can be.
    Failed(Problem),
    /// It was cancelled; what was done is taken back, where it can be.
    Cancelled,
}

/// What becomes of the steps that are done when an operation fails or is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They are taken back, last first: a VM that is half made is no VM.
    Undo,
    /// They stay: each is a good state by itself, like a step of a resize.
    Keep,
}

/// The state of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    steps: Vec<StepState>,
    on_failure: OnFailure,
    error: Option<Problem>,
    notes: Vec<String>,
    is_cancelled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepState {
    Waiting,
    Begun,
    Done,
}

impl Journal {
    /// An operation of so many steps, none begun.
    pub fn new(steps: usize, on_failure: OnFailure) -> Self {
        Self {
            steps: vec![StepState::Waiting; steps],
            on_failure,
            error: None,
            notes: Vec::new(),
            is_cancelled: false,
        }
    }

    /// The state after `records`.
    pub fn replay<'a>(
        steps: usize,
        on_failure: OnFailure,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Self {
        let mut journal = Self::new(steps, on_failure);
        records.into_iter().for_each(|record| journal.apply(record));
        journal
    }

    /// Takes a record in. Records of steps that there are not are ignored: they come from another version's file.
    pub fn apply(&mut self, record: &Record) {
        let mut set = |step: usize, state| {
            if let Some(known) = self.steps.get_mut(step) {
                *known = state;
            }
        };
        match record {
            Record::Begun { step } => set(*step, StepState::Begun),
            Record::Done { step, note } => {
                set(*step, StepState::Done);
                self.notes.extend(note.clone());
            }
            Record::Undone { step } => set(*step, StepState::Waiting),
            Record::Failed { error, .. } => {
                self.error.get_or_insert_with(|| error.clone());
            }
            Record::CancelAsked => self.is_cancelled = true,
        }
    }

    /// What is to be done next.
    pub fn next(&self) -> Next {
        let open = self.steps.iter().position(|state| *state != StepState::Done);
        match open {
            // Also if it was cancelled when all was done: that came too late.
            None => return Next::End(End::Done),
            Some(step) if self.error.is_none() && !self.is_cancelled => return Next::Do(step),
            Some(_) => {}
        }
        if self.on_failure == OnFailure::Undo
            && let Some(last) = self.steps.iter().rposition(|state| *state != StepState::Waiting)
        {
            return Next::Undo(last);
        }
        Next::End(self.error.clone().map_or(End::Cancelled, End::Failed))
    }

    /// What is to be known of the steps that are done, in one text.
    pub fn note(&self) -> Option<String> {
        (!self.notes.is_empty()).then(|| self.notes.join("; "))
    }

    /// Whether somebody wants it to stop.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }

    /// Whether it is on its way back.
    pub fn is_undoing(&self) -> bool {
        self.on_failure == OnFailure::Undo && (self.error.is_some() || self.is_cancelled)
    }

    /// How much of it is done, from 0 to 1.
    pub fn progress(&self) -> f64 {
        let done = self.steps.iter().filter(|state| **state == StepState::Done).count();
        if self.steps.is_empty() { 1.0 } else { done as f64 / self.steps.len() as f64 }
    }
}
