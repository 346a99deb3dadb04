//! What an operation does, in order: errands to an agent, the steps of a plan, errands to an agent. Pure.

use std::fmt;

use rackmem_rack::{Plan, Purpose, Rack, RackError, Step, planner};
use serde::{Deserialize, Serialize};

use super::Errand;

/// A course, made once and not changed any more. Each leg may be done twice.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Course {
    before: Vec<Errand>,
    plan: Option<Box<Plan>>,
    after: Vec<Errand>,
}

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Leg {
    /// A step of a plan.
    Step(Step),
    /// An errand to an agent.
    Errand(Errand),
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => step.fmt(f),
            Self::Errand(errand) => errand.fmt(f),
        }
    }
}

impl Course {
    /// The steps of a plan and nothing else.
    pub(crate) fn of(plan: Plan) -> Self {
        Self { plan: Some(Box::new(plan)), ..Self::default() }
    }

    /// Errands alone.
    pub(crate) fn errands(errands: Vec<Errand>) -> Self {
        Self { before: errands, ..Self::default() }
    }

    /// The same, with errands before the plan's steps.
    pub(crate) fn after(self, before: Vec<Errand>) -> Self {
        Self { before, ..self }
    }

    /// The same, with errands after the plan's steps.
    pub(crate) fn then(self, after: Vec<Errand>) -> Self {
        Self { after, ..self }
    }

    /// The plan in it.
    pub(crate) fn plan(&self) -> Option<&Plan> {
        self.plan.as_deref()
    }

    /// Whether its plan takes something away.
    pub(crate) fn gives_back(&self) -> bool {
        self.plan().is_some_and(|plan| matches!(plan.purpose(), Purpose::Shrink | Purpose::Release))
    }

    fn steps(&self) -> &[Step] {
        self.plan.as_ref().map_or(&[], |plan| plan.steps())
    }

    /// All legs, in order.
    pub(crate) fn legs(&self) -> Vec<Leg> {
        let before = self.before.iter().cloned().map(Leg::Errand);
        let steps = self.steps().iter().cloned().map(Leg::Step);
        before.chain(steps).chain(self.after.iter().cloned().map(Leg::Errand)).collect()
    }

    /// How many legs may have been begun so that all can be undone; from then on it is carried through.
    pub(crate) fn undoable_until(&self) -> usize {
        let all = self.before.len() + self.steps().len() + self.after.len();
        match self.plan.as_deref().map(|plan| (plan, plan.purpose())) {
            None | Some((_, Purpose::Reserve(_) | Purpose::Grow)) => all,
            Some((plan, Purpose::Move)) => plan.undoable_until(),
            Some((_, Purpose::Shrink | Purpose::Release)) => 0,
        }
    }

    /// Whether it can be ended and undone where `begun` legs were begun, before another one is.
    pub(crate) fn turns_back(&self, rack: &Rack, begun: usize) -> bool {
        let last = self.undoable_until();
        begun <= last && last > 0 && self.undo(rack, begun).is_ok()
    }

    /// What undoes it when `begun` legs were begun, the last one first.
    pub(crate) fn undo(&self, rack: &Rack, begun: usize) -> Result<Vec<Leg>, RackError> {
        if let Some(plan) = self.plan().filter(|_| begun > self.undoable_until()) {
            let id = plan.reservation();
            let is = rack.reservation(id)?.state;
            return Err(RackError::State { id, is, needs: "its plan can only be carried through" });
        }
        let begun_steps = begun.saturating_sub(self.before.len());
        let begun_after = begun_steps.saturating_sub(self.steps().len()).min(self.after.len());
        let back = |errands: &[Errand]| -> Vec<Leg> {
            errands.iter().rev().filter_map(Errand::undo).map(Leg::Errand).collect()
        };
        let mut legs = back(&self.after[..begun_after]);
        if let Some(plan) = self.plan() {
            let steps = planner::undo(rack, plan, begun_steps.min(plan.steps().len()))?;
            legs.extend(steps.into_iter().map(Leg::Step));
        }
        legs.extend(back(&self.before[..begun.min(self.before.len())]));
        Ok(legs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackmem_api::agent::ElasticBounds;

    #[test]
    fn legs_are_read_as_they_were_written() {
        let brick: rackmem_rack::Name = "c1".parse().unwrap();
        let start = Errand::Start { brick: brick.clone(), vm: "web1".parse().unwrap() };
        let pause = Errand::Pause { brick: brick.clone(), vm: "web1".parse().unwrap() };
        let back = pause.undo().unwrap();
        for leg in
            [Leg::Step(Step::PowerOn { brick }), Leg::Errand(start), Leg::Errand(pause), Leg::Errand(back)]
        {
            let text = serde_json::to_string(&leg).unwrap();
            assert_eq!(serde_json::from_str::<Leg>(&text).unwrap(), leg, "{text}");
        }
    }

    #[test]
    fn errands_without_a_plan_are_undone_in_reverse() {
        let (brick, vm): (rackmem_rack::Name, rackmem_api::VmName) =
            ("c1".parse().unwrap(), "web1".parse().unwrap());
        let sizes = [rackmem_types::Bytes(1), rackmem_types::Bytes(2)];
        let [from, to] = sizes;
        let resize = Errand::Resize { brick: brick.clone(), vm: vm.clone(), from, to };
        let start = Errand::Start { brick: brick.clone(), vm: vm.clone() };
        let rack = Rack::default();
        let course = Course::errands(vec![start, resize]);
        assert_eq!(course.undo(&rack, 1).unwrap(), []);
        let restore = Errand::Restore { brick: brick.clone(), vm: vm.clone(), to: from };
        assert_eq!(course.undo(&rack, 2).unwrap(), [Leg::Errand(restore)]);
        let bounds = Some(ElasticBounds { min: from, max: to });
        let follow = Errand::Elastic { brick: brick.clone(), vm: vm.clone(), from: None, to: bounds };
        let course = Course::errands(vec![follow]);
        let no_longer = Box::new(Errand::Elastic { brick, vm, from: bounds, to: None });
        assert_eq!(course.undo(&rack, 0).unwrap(), []);
        assert_eq!(course.undo(&rack, 1).unwrap(), [Leg::Errand(Errand::Back { of: no_longer })]);
    }
}
