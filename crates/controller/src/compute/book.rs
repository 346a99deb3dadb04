//! The books of the compute service: which machines there are, and whose reservation is whose.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rackmem_api::agent::ElasticBounds;
use rackmem_api::controller::{MachineNew, MachineState, MachineView};
use rackmem_api::problem::ProblemType;
use rackmem_api::{OperationState, Problem, VmName};
use rackmem_rack::{Brick, Mapping, Name, ReservationId};
use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

use super::MachineWork;
use crate::job::Work;
use crate::ledger::State;
use crate::store::Row;
use crate::views::class_of;

/// A machine as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// What was asked for.
    pub(crate) new: MachineNew,
    /// Whose it is.
    pub(crate) project: String,
    /// The reservation that it owns.
    pub(crate) reservation: ReservationId,
    pub(crate) state: MachineState,
    pub(crate) reason: Option<String>,
    /// Memory that was asked for last.
    pub(crate) memory: Bytes,
    /// Between which sizes it follows its guest's need, if it does.
    #[serde(default)]
    pub(crate) elastic: Option<ElasticBounds>,
    /// The operation that is changing it.
    pub(crate) operation: Option<u64>,
    pub(crate) created_ms: u64,
    /// Rises with each change, so that what was looked at before one is not taken for what is after it.
    pub(crate) version: u64,
}

/// All machines.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    by_name: BTreeMap<VmName, Machine>,
    owners: HashMap<ReservationId, VmName>,
}

impl Machines {
    /// Those that were stored.
    pub(crate) fn new(stored: Vec<Machine>) -> Self {
        let mut machines = Self::default();
        for machine in stored {
            machines.put(machine);
        }
        machines
    }

    pub(crate) fn get(&self, name: &VmName) -> Option<&Machine> {
        self.by_name.get(name)
    }

    /// All, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Machine> {
        self.by_name.values()
    }

    /// The machine that owns the reservation.
    pub(crate) fn owner(&self, reservation: ReservationId) -> Option<&VmName> {
        self.owners.get(&reservation)
    }

    fn put(&mut self, machine: Machine) {
        self.owners.insert(machine.reservation, machine.new.name.clone());
        self.by_name.insert(machine.new.name.clone(), machine);
    }

    fn remove(&mut self, name: &VmName) -> Option<Machine> {
        let machine = self.by_name.remove(name)?;
        self.owners.remove(&machine.reservation);
        Some(machine)
    }
}

impl State {
    /// Takes a machine into the books, new or changed.
    pub(crate) fn machine_put(&mut self, mut machine: Machine) {
        machine.version += 1;
        self.note_row(Row::Machine(Box::new(machine.clone())));
        self.machines.put(machine);
    }

    fn machine_change(&mut self, name: &VmName, change: impl FnOnce(&mut Machine)) {
        if let Some(mut machine) = self.machines.get(name).cloned() {
            change(&mut machine);
            self.machine_put(machine);
        }
    }

    /// A machine is seen to be otherwise than the books have it.
    pub(crate) fn machine_seen(&mut self, name: &VmName, state: MachineState, reason: Option<String>) {
        self.machine_change(name, |machine| (machine.state, machine.reason) = (state, reason));
    }

    /// A machine is seen to follow its guest otherwise than the books have it.
    pub(crate) fn machine_follows(&mut self, name: &VmName, bounds: Option<ElasticBounds>) {
        self.machine_change(name, |machine| machine.elastic = bounds);
    }

    /// The operation `seq` has ended: what that means for its machine.
    pub(crate) fn machine_settle(&mut self, seq: u64, how: OperationState) {
        let Some(entry) = self.operations.get(&seq) else { return };
        let Work::Machine { name, what } = entry.job.work.clone() else { return };
        let is_done = how == OperationState::Done;
        let error = entry.operation.error.as_ref().map(|problem| problem.detail.clone());
        match what {
            MachineWork::Delete if is_done => self.machine_drop(&name),
            MachineWork::Create { .. } if !is_done => self.machine_drop(&name),
            _ => self.machine_change(&name, |machine| {
                machine.operation = None;
                match what {
                    _ if !is_done && machine.state == MachineState::Deleting => {
                        (machine.state, machine.reason) = (MachineState::Failed, error);
                    }
                    MachineWork::Create { .. } if !machine.new.start => machine.state = MachineState::Stopped,
                    MachineWork::Create { .. } | MachineWork::Start | MachineWork::Resume if is_done => {
                        (machine.state, machine.reason) = (MachineState::Running, None);
                    }
                    MachineWork::Stop(_) if is_done => {
                        (machine.state, machine.reason) = (MachineState::Stopped, None);
                    }
                    MachineWork::Pause if is_done => {
                        (machine.state, machine.reason) = (MachineState::Paused, None);
                    }
                    MachineWork::Elastic(bounds) if is_done => machine.elastic = bounds,
                    MachineWork::Resize(memory) | MachineWork::Fit(memory) if is_done => {
                        machine.memory = memory
                    }
                    _ => {}
                }
            }),
        }
    }

    fn machine_drop(&mut self, name: &VmName) {
        if self.machines.remove(name).is_some() {
            self.note_row(Row::MachineGone(name.clone()));
        }
    }

    /// A machine that nothing is changing now.
    pub(crate) fn machine_idle(&self, name: &VmName) -> Result<&Machine, Problem> {
        let machine = self.machines.get(name).ok_or_else(|| Problem::not_found("virtual machine", name))?;
        let changing = machine.operation.and_then(|seq| self.operations.get(&seq));
        match changing {
            None => Ok(machine),
            Some(entry) => {
                let detail = format!(
                    "'{name}' is being changed by the operation {} ({}): wait for it, or cancel it",
                    entry.operation.id, entry.operation.kind
                );
                Err(Problem::new(ProblemType::Busy, detail))
            }
        }
    }

    /// The compute brick that a machine is on; none before one is chosen.
    pub(crate) fn machine_brick(&self, machine: &Machine) -> Option<&Brick> {
        let reservation = self.rack.reservation(machine.reservation).ok()?;
        self.rack.brick(&reservation.compute).ok()
    }

    /// A machine as it is shown, without what its agent says.
    pub(crate) fn machine_view(&self, machine: &Machine) -> MachineView {
        let Machine {
            new,
            project,
            reservation: id,
            state,
            reason,
            memory,
            elastic,
            operation,
            created_ms,
            ..
        } = machine;
        let reservation = self.rack.reservation(*id).ok();
        let bricks = |is_meant: fn(&Mapping) -> bool| -> Vec<String> {
            let meant = reservation.iter().flat_map(|of| &of.mappings).filter(|mapping| is_meant(mapping));
            let names = meant.filter_map(|mapping| Some(&self.rack.segment(mapping.segment)?.brick));
            names.collect::<BTreeSet<_>>().into_iter().map(Name::to_string).collect()
        };
        let entry = operation.and_then(|seq| self.operations.get(&seq));
        MachineView {
            name: new.name.clone(),
            project: project.clone(),
            state: *state,
            reason: reason.clone(),
            compute: reservation.map(|of| of.compute.to_string()),
            reservation: id.0,
            vcpus: new.vcpus,
            memory: *memory,
            memory_max: new.memory_max(),
            local: new.local(),
            class: reservation.map_or(new.class, |of| class_of(of.request.class)),
            far: Bytes::from_pages(reservation.map_or(0, |of| of.pages())),
            memory_bricks: bricks(|_| true),
            memory_lost: bricks(|mapping| mapping.lost),
            elastic: *elastic,
            operation: entry.map(|entry| entry.operation.id),
            created_ms: *created_ms,
            machine: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_was_stored_before_machines_could_be_elastic_is_read() {
        let text = r#"{"new":{"name":"web1","project":null,"compute":null,"memory":1073741824,"memory_max":null,"local":null,
            "class":"rack","spread":null,"vcpus":1,"boot":{"kernel":"/k","initrd":null,"append":null,"disks":[],"cloud_init":null},
            "far_node":null,"start":true},"project":"default","reservation":1,"state":"running","reason":null,
            "memory":1073741824,"operation":null,"created_ms":7,"version":3}"#;
        let machine: Machine = serde_json::from_str(text).unwrap();
        assert_eq!((machine.state, machine.elastic), (MachineState::Running, None));
    }
}
