use proptest::prelude::*;
use rackmem_api::problem::ProblemType;

use super::*;

fn problem(detail: &str) -> Problem {
    Problem::new(ProblemType::Backend, detail)
}

/// A world in which each step has one effect, and the agent that works in it and can die at any moment.
struct World {
    effects: Vec<bool>,
    written: Vec<Record>,
    on_failure: OnFailure,
    fails_at: Option<usize>,
    cancel_after: Option<usize>,
}

/// Whether the agent lives on.
type Alive = bool;

impl World {
    fn write(&mut self, journal: &mut Journal, record: Record, lives: &mut impl FnMut() -> Alive) -> Alive {
        if !lives() {
            return false;
        }
        journal.apply(&record);
        self.written.push(record);
        if self.cancel_after == Some(self.written.len()) {
            journal.apply(&Record::CancelAsked);
            self.written.push(Record::CancelAsked);
        }
        lives()
    }

    /// One life of an agent; `None` if it died.
    fn live(&mut self, mut lives: impl FnMut() -> Alive) -> Option<End> {
        let mut journal = Journal::replay(self.effects.len(), self.on_failure, &self.written);
        for _ in 0..1000 {
            match journal.next() {
                Next::End(end) => return Some(end),
                Next::Do(step) => {
                    self.write(&mut journal, Record::Begun { step }, &mut lives).then_some(())?;
                    let record = if self.fails_at == Some(step) {
                        Record::Failed { step, error: problem("no") }
                    } else {
                        self.effects[step] = true;
                        Record::Done { step, note: None }
                    };
                    self.write(&mut journal, record, &mut lives).then_some(())?;
                }
                Next::Undo(step) => {
                    self.effects[step] = false;
                    self.write(&mut journal, Record::Undone { step }, &mut lives).then_some(())?;
                }
            }
        }
        panic!("it never ends: {:?}", self.written);
    }
}

#[test]
fn a_failure_takes_back_what_was_done_last_first() {
    let mut journal = Journal::new(3, OnFailure::Undo);
    for record in [
        Record::Begun { step: 0 },
        Record::Done { step: 0, note: None },
        Record::Begun { step: 1 },
        Record::Failed { step: 1, error: problem("the disk is full") },
    ] {
        journal.apply(&record);
    }
    // Step 1 has begun, so there may be something of it.
    assert_eq!(journal.next(), Next::Undo(1));
    journal.apply(&Record::Undone { step: 1 });
    assert_eq!(journal.next(), Next::Undo(0));
    journal.apply(&Record::Undone { step: 0 });
    assert_eq!(journal.next(), Next::End(End::Failed(problem("the disk is full"))));
}

#[test]
fn a_cancel_that_comes_too_late_changes_nothing() {
    let mut journal = Journal::replay(
        1,
        OnFailure::Undo,
        &[Record::Begun { step: 0 }, Record::Done { step: 0, note: None }],
    );
    journal.apply(&Record::CancelAsked);
    assert_eq!(journal.next(), Next::End(End::Done));
}

#[test]
fn records_of_unknown_steps_are_ignored() {
    let journal = Journal::replay(1, OnFailure::Keep, &[Record::Done { step: 7, note: None }]);
    assert_eq!(journal.next(), Next::Do(0));
    assert!(journal.progress() < f64::EPSILON);
}

proptest! {
    #[test]
    fn an_operation_ends_whole_or_leaves_nothing_wherever_agents_die(
        steps in 1usize..8,
        fails_at in prop::option::of(0usize..8),
        cancel_after in prop::option::of(1usize..20),
        lives in prop::collection::vec(1usize..8, 0..20),
    ) {
        let effects = vec![false; steps];
        let mut world = World { effects, written: Vec::new(), on_failure: OnFailure::Undo, fails_at, cancel_after };
        for mut moments in lives {
            if world.live(|| { moments -= 1; moments > 0 }).is_some() {
                break;
            }
        }
        let end = world.live(|| true).unwrap();
        let expected = end == End::Done;
        prop_assert!(world.effects.iter().all(|effect| *effect == expected), "{:?} {:?}", end, world.effects);
        if fails_at.is_some_and(|step| step < steps) {
            prop_assert!(end != End::Done);
        }
        if fails_at.is_none() && cancel_after.is_none() {
            prop_assert_eq!(end, End::Done);
        }
    }

    #[test]
    fn steps_that_are_kept_are_kept_in_order(steps in 1usize..8, fails_at in 0usize..8) {
        let effects = vec![false; steps];
        let mut world = World { effects, written: Vec::new(), on_failure: OnFailure::Keep, fails_at: Some(fails_at), cancel_after: None };
        world.live(|| true).unwrap();
        let done = world.effects.iter().take_while(|effect| **effect).count();
        prop_assert_eq!(done, fails_at.min(steps));
        prop_assert!(world.effects[done..].iter().all(|effect| !effect));
    }
}
