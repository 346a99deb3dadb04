//! What is done for a machine: errands, and the plan for its reservation. The books and the rack in, a course out.

use rackmem_api::agent::{ElasticBounds, StopRequest};
use rackmem_api::{AttachmentId, VmName};
use rackmem_rack::{Event, Name, Plan, Quotas, RackError, Request, SegmentId, planner};
use rackmem_types::{Bytes, PAGE_SIZE};
use serde::{Deserialize, Serialize};

use super::{Course, Errand, Machine};
use crate::hands::attachment_of;
use crate::ledger::State;

/// What becomes of a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MachineWork {
    /// It is made, with a reservation for this request.
    Create { request: Box<Request> },
    /// It is started.
    Start,
    /// It is stopped.
    Stop(StopRequest),
    /// It is paused.
    Pause,
    /// It goes on.
    Resume,
    /// It follows its guest's need between these bounds, or no longer.
    Elastic(Option<ElasticBounds>),
    /// It gets another amount of memory.
    Resize(Bytes),
    /// What is reserved for it is made to fit a guest of this size.
    Fit(Bytes),
    /// It is deleted.
    Delete,
}

/// The next course for the machine `name`, accepted; none if nothing is left to do. `told` is the size that its guest said to have
/// after the course before.
pub(crate) fn course(
    state: &mut State,
    quotas: &Quotas,
    (name, what): (&VmName, &MachineWork),
    told: Option<Bytes>,
    seq: u64,
) -> Result<Option<Course>, RackError> {
    let machine = state.machines.get(name).cloned();
    let machine = machine.ok_or_else(|| RackError::Request(format!("the machine '{name}' is gone")))?;
    match what {
        MachineWork::Create { request } => create(state, quotas, &machine, request, seq).map(Some),
        MachineWork::Resize(to) => match told {
            None => resize(state, quotas, &machine, *to, seq).map(Some),
            Some(size) => give_back(state, &machine, size.max(*to), seq),
        },
        MachineWork::Fit(size) => fit(state, quotas, &machine, *size, seq),
        MachineWork::Delete => delete(state, &machine, seq),
        MachineWork::Start => start(state, &machine, seq).map(Some),
        MachineWork::Stop(how) => {
            errand(state, &machine, |brick, vm| Errand::Stop { brick, vm, how: *how }).map(Some)
        }
        MachineWork::Pause => errand(state, &machine, |brick, vm| Errand::Pause { brick, vm }).map(Some),
        MachineWork::Resume => errand(state, &machine, |brick, vm| Errand::Resume { brick, vm }).map(Some),
        MachineWork::Elastic(to) => {
            let (from, to) = (machine.elastic, *to);
            errand(state, &machine, |brick, vm| Errand::Elastic { brick, vm, from, to }).map(Some)
        }
    }
}

/// What needs no plan: one thing that the machine's agent is asked to do.
fn errand(
    state: &State,
    machine: &Machine,
    errand: impl FnOnce(Name, VmName) -> Errand,
) -> Result<Course, RackError> {
    let brick = state.rack.reservation(machine.reservation)?.compute.clone();
    Ok(Course::errands(vec![errand(brick, machine.new.name.clone())]))
}

/// What was lost of its memory while it did not run is reserved anew first, by a course of its own: it stays if the start fails.
fn start(state: &mut State, machine: &Machine, seq: u64) -> Result<Course, RackError> {
    match planner::replace_lost(&state.rack, machine.reservation)? {
        Some(plan) => {
            accept(state, &plan, seq)?;
            Ok(Course::of(plan))
        }
        None => errand(state, machine, |brick, vm| Errand::Start { brick, vm }),
    }
}

/// The brick that fits best, memory for it, and the machine there.
fn create(
    state: &mut State,
    quotas: &Quotas,
    machine: &Machine,
    request: &Request,
    seq: u64,
) -> Result<Course, RackError> {
    quotas.check(&state.rack, request)?;
    let plan = planner::reserve(&state.rack, machine.reservation, request)?;
    accept(state, &plan, seq)?;
    state.apply(Event::Started(machine.reservation), Some(seq))?;
    let spec = Box::new(machine.new.spec(added(&plan)?));
    let brick = plan.grant().compute.clone();
    Ok(Course::of(plan).then(vec![Errand::Create { brick, spec }]))
}

/// More memory is reserved before the guest gets it; less memory the guest gives back before it is released.
fn resize(
    state: &mut State,
    quotas: &Quotas,
    machine: &Machine,
    to: Bytes,
    seq: u64,
) -> Result<Course, RackError> {
    let brick = state.rack.reservation(machine.reservation)?.compute.clone();
    let resize = Errand::Resize { brick, vm: machine.new.name.clone(), from: machine.memory, to };
    Ok(match lend(state, quotas, machine, to, seq)? {
        Some((plan, attach)) => Course::of(plan).then(vec![attach, resize]),
        None => Course::errands(vec![resize]),
    })
}

/// More for a guest that its agent is about to grow, or less for one that it has shrunk.
fn fit(
    state: &mut State,
    quotas: &Quotas,
    machine: &Machine,
    size: Bytes,
    seq: u64,
) -> Result<Option<Course>, RackError> {
    match lend(state, quotas, machine, size, seq)? {
        Some((plan, attach)) => Ok(Some(Course::of(plan).then(vec![attach]))),
        None => give_back(state, machine, size, seq),
    }
}

/// What a guest of `size` takes more than is reserved: the plan for it, accepted, and the errand that brings it to the machine.
fn lend(
    state: &mut State,
    quotas: &Quotas,
    machine: &Machine,
    size: Bytes,
    seq: u64,
) -> Result<Option<(Plan, Errand)>, RackError> {
    let reservation = state.rack.reservation(machine.reservation)?;
    let (brick, vm) = (reservation.compute.clone(), machine.new.name.clone());
    let has = Bytes::from_pages(reservation.pages());
    let needs = machine.new.far(size);
    if needs <= has {
        return Ok(None);
    }
    let more = Bytes(needs.0 - has.0);
    let (project, class) = (&reservation.request.project, reservation.request.class);
    quotas.check_more(&state.rack, project, class, more)?;
    let plan = planner::grow(&state.rack, machine.reservation, more)?;
    accept(state, &plan, seq)?;
    let attachments = added(&plan)?;
    Ok(Some((plan, Errand::Attach { brick, vm, attachments })))
}

/// What a guest of `size` does not need is released, by whole segments.
fn give_back(
    state: &mut State,
    machine: &Machine,
    size: Bytes,
    seq: u64,
) -> Result<Option<Course>, RackError> {
    let reservation = state.rack.reservation(machine.reservation)?;
    let needs = machine.new.far(size).0.next_multiple_of(PAGE_SIZE as u64);
    let surplus = Bytes::from_pages(reservation.pages()).0.saturating_sub(needs);
    let goes = |pages: u64| pages * PAGE_SIZE as u64 <= surplus;
    if !reservation.mappings.iter().any(|mapping| goes(mapping.pages)) {
        return Ok(None);
    }
    let plan = planner::shrink(&state.rack, machine.reservation, Bytes(surplus))?;
    accept(state, &plan, seq)?;
    Ok(Some(Course::of(plan)))
}

/// The machine goes first: nothing may use what is released.
fn delete(state: &mut State, machine: &Machine, seq: u64) -> Result<Option<Course>, RackError> {
    // Somebody with an old copy of the state may have released it.
    let Ok(reservation) = state.rack.reservation(machine.reservation) else { return Ok(None) };
    let brick = reservation.compute.clone();
    let attachments = reservation.mappings.iter().map(|mapping| attachment(mapping.segment));
    let spec = Box::new(machine.new.spec(attachments.collect::<Result<_, _>>()?));
    let plan = planner::release(&state.rack, machine.reservation)?;
    accept(state, &plan, seq)?;
    Ok(Some(Course::of(plan).after(vec![Errand::Delete { brick, spec }])))
}

fn accept(state: &mut State, plan: &Plan, seq: u64) -> Result<(), RackError> {
    state.apply(Event::Accepted(Box::new(plan.clone())), Some(seq))
}

/// The attachments that a plan brings to the compute brick.
fn added(plan: &Plan) -> Result<Vec<AttachmentId>, RackError> {
    plan.grant().mappings.iter().map(|mapping| attachment(mapping.segment)).collect()
}

fn attachment(segment: SegmentId) -> Result<AttachmentId, RackError> {
    attachment_of(segment)
        .parse()
        .map_err(|error: rackmem_api::NameError| RackError::Request(error.to_string()))
}
