//! How the rack changes: events in, the next state out. It plans nothing, and an event that cannot be changes nothing.

mod audit;
mod check;
mod event;
mod hold;
mod observe;
mod snapshot;

pub use event::{Effect, Event};
pub use observe::{Difference, Observation};
pub use snapshot::{BrickRecord, Snapshot};

use crate::graph::{CircuitState, Offer, Power, Role};
use crate::{CircuitId, Name, Plan, Rack, RackError, Reservation, ReservationId, State};

impl Rack {
    /// Applies an event. An error means that nothing has changed.
    pub fn apply(&mut self, event: &Event) -> Result<Effect, RackError> {
        let ended = self.transition(event)?;
        self.generation.0 += 1;
        Ok(Effect { generation: self.generation, ended })
    }

    fn transition(&mut self, event: &Event) -> Result<Option<Reservation>, RackError> {
        match event {
            Event::RackAdded(name) => self.graph.add_rack(name).map(|_| None),
            Event::TrayAdded { name, rack } => self.graph.add_tray(name, rack).map(|_| None),
            Event::BrickAdded(spec) => {
                let node = self.graph.add_brick(spec.clone())?;
                if let Some(brick) = self.graph.brick_at(node) {
                    self.index.insert(node, brick);
                }
                Ok(None)
            }
            Event::SwitchAdded(spec) => self.graph.add_switch(spec.clone()).map(|_| None),
            Event::CableAdded(spec) => {
                self.graph.plug(spec.clone())?;
                self.look_at_ports(&[spec.ends[0].of.clone(), spec.ends[1].of.clone()]);
                Ok(None)
            }
            Event::Removed(name) => self.remove(name).map(|()| None),
            Event::CableRemoved(port) => {
                let mut ends = self.graph.neighbours(&port.of);
                ends.push(port.of.clone());
                self.graph.unplug_at(port)?;
                self.look_at_ports(&ends);
                Ok(None)
            }
            Event::Draining { brick, draining } => {
                let node = self.graph.brick_node(brick)?;
                self.edit(node, |brick| brick.draining = *draining);
                Ok(None)
            }
            Event::Accepted(plan) => self.accept(plan).map(|()| None),
            Event::Started(id) => self.start(*id).map(|()| None),
            Event::Done(id) => self.done(*id),
            Event::Undoing(id) => self.undoing(*id).map(|()| None),
            Event::Undone(id) => self.undone(*id),
            Event::Expired(id) => self.expire(*id),
            Event::PowerSeen { .. }
            | Event::Reachable { .. }
            | Event::PoolSeen { .. }
            | Event::SegmentLost(_)
            | Event::StrayPages { .. }
            | Event::CircuitSeen { .. }
            | Event::StrayPort { .. } => self.observe(event).map(|()| None),
        }
    }

    /// Removes what nothing is reserved of.
    fn remove(&mut self, name: &Name) -> Result<(), RackError> {
        let neighbours = self.graph.neighbours(name);
        let Ok(node) = self.graph.brick_node(name) else {
            self.graph.remove(name)?;
            self.look_at_ports(&neighbours);
            return Ok(());
        };
        let brick = self.graph.brick(name)?;
        let mut reasons = Vec::new();
        if brick.role() == Role::Memory {
            reasons
                .extend(brick.extents().iter().map(|(_, segment)| format!("segment {segment} lies on it")));
        } else if !brick.is_idle() {
            let holds = self.reservations.values().filter(|reservation| {
                let accelerator = reservation.accelerator.as_ref();
                reservation.compute == *name
                    || accelerator.is_some_and(|accelerator| accelerator.brick == *name)
            });
            reasons
                .extend(holds.map(|reservation| format!("reservation {} holds some of it", reservation.id)));
        }
        if !reasons.is_empty() {
            return Err(RackError::InUse { name: name.clone(), reasons });
        }
        let before = brick.clone();
        self.graph.remove(name)?;
        self.index.remove(node, &before);
        self.look_at_ports(&neighbours);
        Ok(())
    }

    fn accept(&mut self, plan: &Plan) -> Result<(), RackError> {
        let conflicts = self.overtaken(plan);
        if !conflicts.is_empty() {
            return Err(RackError::Overtaken(conflicts));
        }
        self.hold(plan)
    }

    fn start(&mut self, id: ReservationId) -> Result<(), RackError> {
        let reservation = self.reservations.get_mut(&id).ok_or(RackError::UnknownReservation(id))?;
        match reservation.state {
            State::Reserved => {
                reservation.state = State::Applying;
                if let Some(expires) = reservation.request.expires {
                    self.expiries.remove(&(expires, id));
                }
                Ok(())
            }
            // Whoever starts it again after a crash is right to do so.
            State::Applying => Ok(()),
            is => Err(RackError::State { id, is, needs: "only a reserved one can be applied" }),
        }
    }

    fn done(&mut self, id: ReservationId) -> Result<Option<Reservation>, RackError> {
        let reservation = self.reservations.get_mut(&id).ok_or(RackError::UnknownReservation(id))?;
        match (reservation.state, reservation.pending.take()) {
            (State::Applying, _) => reservation.state = State::Applied,
            (State::Applied, Some(pending)) => self.withdraw(id, &pending.removed),
            (State::Releasing, _) => return Ok(self.end(id, State::Released)),
            (is, _) => return Err(RackError::State { id, is, needs: "no plan is under way" }),
        }
        self.settle(id);
        Ok(None)
    }

    /// What a carried-out plan needed is there: its circuits are up and its bricks are on.
    fn settle(&mut self, id: ReservationId) {
        let Some(reservation) = self.reservations.get(&id) else { return };
        let segments = reservation.mappings.iter().filter_map(|mapping| self.segments.get(&mapping.segment));
        let mut bricks: Vec<Name> = segments.map(|segment| segment.brick.clone()).collect();
        bricks.push(reservation.compute.clone());
        bricks.extend(reservation.accelerator.iter().map(|accelerator| accelerator.brick.clone()));
        for circuit in reservation.circuits() {
            self.graph.circuit_edit(circuit, |circuit| {
                if circuit.state == CircuitState::Planned {
                    circuit.state = CircuitState::Up;
                }
            });
        }
        for name in bricks {
            self.edit_named(&name, |brick| {
                if brick.power == Power::Waking {
                    brick.power = Power::On;
                }
            });
        }
    }

    fn undoing(&mut self, id: ReservationId) -> Result<(), RackError> {
        self.check_way_back(self.reservation(id)?)?;
        let reservation = self.reservations.get_mut(&id).ok_or(RackError::UnknownReservation(id))?;
        match (reservation.state, &mut reservation.pending) {
            (State::Reserved | State::Applying | State::Releasing, _) => {
                reservation.state = State::Releasing;
                if let Some(expires) = reservation.request.expires {
                    self.expiries.remove(&(expires, id));
                }
            }
            // Until it is undone, what was to be added is what goes.
            (State::Applied, Some(pending)) => pending.removed = pending.added.clone(),
            (is, _) => {
                return Err(RackError::State { id, is, needs: "there is no plan that could be undone" });
            }
        }
        self.leave_circuits(id);
        Ok(())
    }

    /// A plan leaves the circuits that it makes needless when it is accepted. Whoever used them last has them disconnected since
    /// then, and an undo would race with that: the plan is carried through instead.
    pub(crate) fn check_way_back(&self, reservation: &Reservation) -> Result<(), RackError> {
        let (State::Applied, Some(pending)) = (reservation.state, &reservation.pending) else {
            return Ok(());
        };
        let is_lost = |circuit: &CircuitId| {
            self.graph.circuit(*circuit).is_none_or(
                |circuit| matches!(circuit.state, CircuitState::Closing { by } if by != reservation.id),
            )
        };
        if reservation.circuits_without(&pending.added).iter().any(is_lost) {
            return Err(RackError::State {
                id: reservation.id,
                is: reservation.state,
                needs: "its plan can only be carried through: the last user of a circuit that it left has it disconnected",
            });
        }
        Ok(())
    }

    fn undone(&mut self, id: ReservationId) -> Result<Option<Reservation>, RackError> {
        let reservation = self.reservations.get_mut(&id).ok_or(RackError::UnknownReservation(id))?;
        match (reservation.state, reservation.pending.take()) {
            (State::Reserved | State::Applying | State::Releasing, _) => Ok(self.end(id, State::Released)),
            (State::Applied, Some(pending)) => {
                self.withdraw(id, &pending.added);
                self.leave_circuits(id);
                Ok(None)
            }
            (is, pending) => {
                reservation.pending = pending;
                Err(RackError::State { id, is, needs: "there is no plan that could be undone" })
            }
        }
    }

    fn expire(&mut self, id: ReservationId) -> Result<Option<Reservation>, RackError> {
        let reservation = self.reservation(id)?;
        match reservation.state {
            State::Reserved if self.has_circuit_to_disconnect(reservation) => Err(RackError::State {
                id,
                is: State::Reserved,
                needs: "release it: it is the last user of a circuit",
            }),
            State::Reserved => Ok(self.end(id, State::Expired)),
            is => Err(RackError::State { id, is, needs: "only a reserved one can expire" }),
        }
    }

    /// Whether it came to be the only user of a circuit that somebody else has set.
    fn has_circuit_to_disconnect(&self, reservation: &Reservation) -> bool {
        let circuits = reservation.circuits().into_iter().filter_map(|id| self.graph.circuit(id));
        circuits
            .into_iter()
            .any(|circuit| circuit.users == [reservation.id] && circuit.state != CircuitState::Planned)
    }

    fn observe(&mut self, event: &Event) -> Result<(), RackError> {
        match event {
            Event::PowerSeen { brick, on } => {
                let node = self.graph.brick_node(brick)?;
                // Memory without power has forgotten everything.
                let lost: Vec<_> = match self.graph.brick(brick)?.role() {
                    Role::Memory if !on => self.segments_on(brick)?.map(|segment| segment.id).collect(),
                    _ => Vec::new(),
                };
                lost.into_iter().try_for_each(|segment| self.lose(segment))?;
                self.edit(node, |brick| brick.power = if *on { Power::On } else { Power::Off });
            }
            Event::Reachable { brick, reachable } => {
                let node = self.graph.brick_node(brick)?;
                self.edit(node, |brick| brick.reachable = *reachable);
            }
            Event::PoolSeen { brick, size } => {
                let node = self.memory_node(brick)?;
                self.edit(node, |brick| {
                    brick.spec.offers = Offer::Memory { size: *size };
                    brick.extents.resize(size.pages());
                });
            }
            Event::StrayPages { brick, pages } => {
                let node = self.memory_node(brick)?;
                self.edit(node, |brick| brick.stray_pages = *pages);
            }
            Event::SegmentLost(segment) => self.lose(*segment)?,
            Event::CircuitSeen { circuit, up } => {
                let state = if *up { CircuitState::Up } else { CircuitState::Down };
                self.graph
                    .circuit_edit(*circuit, |circuit| circuit.state = state)
                    .ok_or_else(|| RackError::Request(format!("there is no circuit {circuit}")))?;
            }
            Event::StrayPort { port, connected } => {
                let link =
                    self.graph.link_at(port)?.ok_or_else(|| RackError::NoCable { port: port.clone() })?;
                let ends = self.graph.cable_edit(link, |cable| {
                    let end = usize::from(cable.spec.ends[1] == *port);
                    cable.stray[end] = *connected;
                    cable.spec.ends.clone().map(|end| end.of)
                });
                if let Some(ends) = ends {
                    self.look_at_ports(&ends);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn memory_node(&self, name: &Name) -> Result<crate::graph::Node, RackError> {
        let node = self.graph.brick_node(name)?;
        match self.graph.brick(name)?.role() {
            Role::Memory => Ok(node),
            _ => Err(RackError::Unknown { what: "memory brick", name: name.clone() }),
        }
    }
}
