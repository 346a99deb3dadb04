//! From work to the course that does it: the planner is asked, and its plan accepted on the rack.

use std::cmp::Ordering;

use rackmem_rack::{Event, Plan, Quotas, RackError, State as Stand, planner};
use rackmem_types::Bytes;

use crate::compute::{self, Course, MachineWork};
use crate::job::{Job, Work};
use crate::ledger::State;

/// Whether another course may follow: of a drain the next plan, of a resize what is given back, of a start
/// that had memory to replace the start itself.
pub(crate) fn goes_on(job: &Job) -> bool {
    match &job.work {
        Work::Drain(_) => true,
        Work::Machine { what: MachineWork::Start, .. } => {
            job.course.as_ref().is_some_and(|course| course.plan().is_some())
        }
        Work::Machine { what: MachineWork::Resize(_), .. } => {
            job.told.is_some() && !job.course.as_ref().is_some_and(|course| course.gives_back())
        }
        _ => false,
    }
}

/// The course for some work, its plan accepted; none if nothing has to be carried out. `told` is what came of the one before.
pub(crate) fn course(
    state: &mut State,
    quotas: &Quotas,
    work: &Work,
    told: Option<Bytes>,
    seq: u64,
) -> Result<Option<Course>, RackError> {
    match work {
        Work::Machine { name, what } => compute::course(state, quotas, (name, what), told, seq),
        work => Ok(plan(state, quotas, work, seq)?.map(Course::of)),
    }
}

/// The plan for some work on the rack, accepted; none if nothing has to be carried out.
fn plan(state: &mut State, quotas: &Quotas, work: &Work, seq: u64) -> Result<Option<Plan>, RackError> {
    let rack = &state.rack;
    let plan = match work {
        // These have no plan.
        Work::Register(_) | Work::Repair(_) | Work::Machine { .. } => return Ok(None),
        Work::Drain(brick) => match planner::drain_next(rack, brick)? {
            Some(plan) => plan,
            None => return Ok(None),
        },
        Work::Reserve { id, request, apply } => {
            quotas.check(rack, request)?;
            let plan = planner::reserve(rack, *id, request)?;
            state.apply(Event::Accepted(Box::new(plan.clone())), Some(seq))?;
            if !apply {
                state.plan_hold(plan);
                return Ok(None);
            }
            state.apply(Event::Started(*id), Some(seq))?;
            return Ok(Some(plan));
        }
        Work::Apply(id) => {
            let is = rack.reservation(*id)?.state;
            let Some(plan) = state.plan_take(*id) else {
                return Err(RackError::State { id: *id, is, needs: "only a reserved one can be applied" });
            };
            state.apply(Event::Started(*id), Some(seq))?;
            return Ok(Some(plan));
        }
        Work::Resize { id, memory } => {
            let reservation = rack.reservation(*id)?;
            let has = Bytes::from_pages(reservation.pages());
            match memory.0.cmp(&has.0) {
                Ordering::Equal => return Ok(None),
                Ordering::Greater => {
                    let more = Bytes(memory.0 - has.0);
                    quotas.check_more(rack, &reservation.request.project, reservation.request.class, more)?;
                    planner::grow(rack, *id, more)?
                }
                Ordering::Less => planner::shrink(rack, *id, Bytes(has.0 - memory.0))?,
            }
        }
        Work::Release(id) => {
            let plan = planner::release(rack, *id)?;
            if rack.reservation(*id)?.state == Stand::Reserved {
                state.plan_take(*id);
            }
            plan
        }
    };
    state.apply(Event::Accepted(Box::new(plan.clone())), Some(seq))?;
    Ok(Some(plan))
}
