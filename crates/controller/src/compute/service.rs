//! The compute service's requests: each is judged by the books and becomes an operation, or an answer.

use rackmem_api::agent::{ElasticBounds, StopRequest};
use rackmem_api::controller::{MachineNew, MachineState, MachineView, Role, Who, kind};
use rackmem_api::problem::ProblemType;
use rackmem_api::{Change, Operation, Problem, VmName};
use rackmem_rack::{RackError, Request, SPREAD_DEFAULT};
use rackmem_types::Bytes;

use super::{Machine, MachineWork, images};
use crate::controller::Controller;
use crate::error::problem;
use crate::job::{Job, Work};
use crate::ledger::{State, now_ms};
use crate::views::class_asked;

/// Seconds after which a brick that was away may answer: it is looked at every few.
const AWAY_RETRY_S: u32 = 5;

impl Controller {
    pub(crate) fn machine_list(&self, who: &Who) -> Vec<MachineView> {
        let state = self.ledger.lock();
        let seen = state.machines.all().filter(|machine| who.sees(&machine.project));
        seen.map(|machine| state.machine_view(machine)).collect()
    }

    pub(crate) async fn machine_show(&self, who: &Who, name: &VmName) -> Result<MachineView, Problem> {
        let (mut view, asked) = {
            let state = self.ledger.lock();
            let machine = state.machine_of(who, name)?;
            let brick = state.machine_brick(machine);
            let asked = brick.and_then(|brick| Some((brick.name().clone(), brick.spec().address.clone()?)));
            (state.machine_view(machine), asked)
        };
        if let Some((brick, address)) = asked {
            // The books are shown without what an agent says that cannot be asked.
            let machines = self.hands.machines(&brick, &address).await.unwrap_or_default();
            view.machine = machines.into_iter().find(|machine| machine.name == *name);
        }
        Ok(view)
    }

    pub(crate) async fn machine_create(
        &self,
        change: &Change,
        who: &Who,
        new: MachineNew,
    ) -> Result<Operation, Problem> {
        new.check()?;
        let project = who.project(new.project.as_deref())?;
        images::check(self.images.as_ref(), who, &project, &new.boot)?;
        let request = request(&new, &project).map_err(|error| problem(&error))?;
        self.begin(change, kind::VM_CREATE, |state| {
            if let Some(compute) = &request.compute {
                state.rack.brick(compute).map_err(|error| problem(&error))?;
            }
            let name = new.name.clone();
            if state.machines.get(&name).is_some() {
                let detail = format!("there is a virtual machine '{name}' already: choose another name");
                return Err(Problem::new(ProblemType::Exists, detail));
            }
            let machine = Machine {
                project: project.clone(),
                reservation: state.reservation_new(),
                state: MachineState::Creating,
                reason: None,
                memory: new.memory,
                elastic: None,
                operation: Some(state.seq_next()),
                created_ms: now_ms(),
                version: 0,
                new,
            };
            state.machine_put(machine);
            let what = MachineWork::Create { request: Box::new(request) };
            Ok((name.to_string(), Job::new(Work::Machine { name, what }, Some(project))))
        })
        .await
    }

    pub(crate) async fn machine_start(
        &self,
        change: &Change,
        who: &Who,
        name: &VmName,
    ) -> Result<Operation, Problem> {
        self.of_machine(change, kind::VM_START, who, name, MachineWork::Start, |_, machine| {
            match machine.state {
                MachineState::Running => wrong_state(format!("'{name}' runs already")),
                MachineState::Paused => wrong_state(paused(name)),
                _ => Ok(()),
            }
        })
        .await
    }

    pub(crate) async fn machine_stop(
        &self,
        change: &Change,
        who: &Who,
        name: &VmName,
        how: StopRequest,
    ) -> Result<Operation, Problem> {
        how.check()?;
        self.of_machine(change, kind::VM_STOP, who, name, MachineWork::Stop(how), |_, machine| match machine
            .state
        {
            MachineState::Paused => Ok(()),
            _ => running(name, machine),
        })
        .await
    }

    pub(crate) async fn machine_pause(
        &self,
        change: &Change,
        who: &Who,
        name: &VmName,
    ) -> Result<Operation, Problem> {
        self.of_machine(change, kind::VM_PAUSE, who, name, MachineWork::Pause, |state, machine| {
            match machine.state {
                MachineState::Paused => wrong_state(format!("'{name}' is paused already")),
                _ => running(name, machine),
            }?;
            answers(state, machine)
        })
        .await
    }

    pub(crate) async fn machine_resume(
        &self,
        change: &Change,
        who: &Who,
        name: &VmName,
    ) -> Result<Operation, Problem> {
        self.of_machine(change, kind::VM_RESUME, who, name, MachineWork::Resume, |state, machine| {
            match machine.state {
                MachineState::Paused => answers(state, machine),
                MachineState::Running => wrong_state(format!("'{name}' is not paused, it runs")),
                _ => running(name, machine),
            }
        })
        .await
    }

    pub(crate) async fn machine_elastic_set(
        &self,
        change: &Change,
        who: &Who,
        name: &VmName,
        bounds: Option<ElasticBounds>,
    ) -> Result<Operation, Problem> {
        let work = MachineWork::Elastic(bounds);
        self.of_machine(change, kind::VM_ELASTIC, who, name, work, |state, machine| {
            bounds.map_or(Ok(()), |bounds| bounds.check(machine.new.memory_max()))?;
            answers(state, machine)
        })
        .await
    }

    pub(crate) async fn machine_resize(
        &self,
        change: &Change,
        who: &Who,
        name: &VmName,
        memory: Bytes,
    ) -> Result<Operation, Problem> {
        self.of_machine(change, kind::VM_RESIZE, who, name, MachineWork::Resize(memory), |_, machine| {
            machine.new.check_size(memory)?;
            running(name, machine)
        })
        .await
    }

    /// A brick's agent asks for its own machines only.
    pub(crate) async fn machine_fit(
        &self,
        change: &Change,
        who: &Who,
        name: &VmName,
        memory: Bytes,
    ) -> Result<Operation, Problem> {
        self.of_machine(change, kind::VM_FIT, who, name, MachineWork::Fit(memory), |state, machine| {
            let reservation = state.rack.reservation(machine.reservation).map_err(|error| problem(&error))?;
            if who.role == Role::Agent && reservation.compute.as_str() != who.name {
                return Err(Problem::not_found("virtual machine", name));
            }
            machine.new.check_size(memory)
        })
        .await
    }

    pub(crate) async fn machine_delete(
        &self,
        change: &Change,
        who: &Who,
        name: &VmName,
    ) -> Result<Operation, Problem> {
        self.of_machine(change, kind::VM_DELETE, who, name, MachineWork::Delete, |_, _| Ok(())).await
    }

    async fn of_machine(
        &self,
        change: &Change,
        kind: &str,
        who: &Who,
        name: &VmName,
        what: MachineWork,
        check: impl FnOnce(&State, &Machine) -> Result<(), Problem>,
    ) -> Result<Operation, Problem> {
        self.begin(change, kind, |state| {
            state.machine_of(who, name)?;
            let machine = state.machine_idle(name)?;
            check(state, machine)?;
            let mut machine = machine.clone();
            let project = machine.project.clone();
            machine.operation = Some(state.seq_next());
            if matches!(what, MachineWork::Delete) {
                machine.state = MachineState::Deleting;
            }
            state.machine_put(machine);
            Ok((name.to_string(), Job::new(Work::Machine { name: name.clone(), what }, Some(project))))
        })
        .await
    }
}

/// What is reserved for a machine: its processors, its local memory, and a far place for each of its pages.
fn request(new: &MachineNew, project: &str) -> Result<Request, RackError> {
    let compute = new.compute.as_deref().map(str::parse).transpose()?;
    Ok(Request {
        cores: new.vcpus,
        local: new.local(),
        spread: new.spread.unwrap_or(SPREAD_DEFAULT),
        ..Request::memory(project, compute, new.far(new.memory), class_asked(new.class))
    })
}

impl State {
    /// The machine, if `who` may know of it.
    pub(super) fn machine_of(&self, who: &Who, name: &VmName) -> Result<&Machine, Problem> {
        let machine = self.machines.get(name).filter(|machine| who.sees(&machine.project));
        machine.ok_or_else(|| Problem::not_found("virtual machine", name))
    }
}

fn running(name: &VmName, machine: &Machine) -> Result<(), Problem> {
    match machine.state {
        MachineState::Running => Ok(()),
        MachineState::Paused => wrong_state(paused(name)),
        _ => wrong_state(format!("'{name}' does not run: start it with 'rackmem vm start {name}'")),
    }
}

/// Refuses at once what its agent cannot be asked for now: its way back would have to wait for the agent, too.
fn answers(state: &State, machine: &Machine) -> Result<(), Problem> {
    match state.machine_brick(machine) {
        Some(brick) if !brick.is_reachable() => {
            let detail = format!(
                "'{}', which has the machine '{}', does not answer: try again when it does",
                brick.name(),
                machine.new.name
            );
            Err(Problem::new(ProblemType::Unavailable, detail).retry_after(AWAY_RETRY_S))
        }
        _ => Ok(()),
    }
}

fn paused(name: &VmName) -> String {
    format!("'{name}' is paused: let it go on first, with 'rackmem vm resume {name}'")
}

fn wrong_state(detail: String) -> Result<(), Problem> {
    Err(Problem::new(ProblemType::WrongState, detail))
}
