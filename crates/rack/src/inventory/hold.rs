//! Taking hold of what a plan grants, and letting go of it. All bookkeeping of reservations happens here.

use crate::graph::{Circuit, CircuitState, Power};
use crate::planner::{Plan, Purpose};
use crate::reservation::pages_of;
use crate::{
    CircuitId, LatencyClass, Name, Pending, Rack, RackError, Reservation, ReservationId, SegmentId, State,
};

impl Rack {
    /// Takes what `plan` grants. [`Rack::overtaken`] has found nothing in the way.
    pub(super) fn hold(&mut self, plan: &Plan) -> Result<(), RackError> {
        let id = plan.reservation;
        match &plan.purpose {
            Purpose::Reserve(request) => {
                let group = plan.grant.segments.iter().find_map(|segment| segment.group.clone());
                let joined = match &request.group {
                    Some(crate::GroupNeed::Join(name)) => Some(name.clone()),
                    _ => None,
                };
                self.reservations.insert(
                    id,
                    Reservation {
                        id,
                        request: (**request).clone(),
                        compute: plan.grant.compute.clone(),
                        state: State::Reserved,
                        mappings: Vec::new(),
                        accelerator: plan.grant.accelerator.clone(),
                        group: group.or(joined),
                        pending: None,
                        segments_made: 0,
                        circuits_made: 0,
                    },
                );
                self.expiries.extend(request.expires.map(|expires| (expires, id)));
                self.hold_brick_parts(id);
            }
            Purpose::Release => {
                if let Some(reservation) = self.reservations.get_mut(&id) {
                    reservation.state = State::Releasing;
                    if let Some(expires) = reservation.request.expires {
                        self.expiries.remove(&(expires, id));
                    }
                }
                self.leave_circuits(id);
                return Ok(());
            }
            Purpose::Grow | Purpose::Shrink | Purpose::Move => {
                if let Some(reservation) = self.reservations.get_mut(&id) {
                    let added = plan.grant.segments.iter().map(|segment| segment.id).collect();
                    reservation.pending = Some(Pending { added, removed: plan.removed.clone() });
                }
            }
        }
        self.hold_far_memory(id, plan)?;
        self.leave_circuits(id);
        Ok(())
    }

    /// Leaves the circuits that the plan under way makes needless, so that nobody relies on one that is about to be disconnected;
    /// takes up again those that are needed.
    pub(super) fn leave_circuits(&mut self, id: ReservationId) {
        let Some(reservation) = self.reservations.get(&id) else { return };
        let needed = reservation.circuits_needed();
        for circuit in reservation.circuits() {
            self.graph.circuit_edit(circuit, |circuit| {
                let place = circuit.users.binary_search(&id);
                match (needed.binary_search(&circuit.id), place) {
                    (Ok(_), Err(place)) => {
                        circuit.users.insert(place, id);
                        if circuit.state == (CircuitState::Closing { by: id }) {
                            circuit.state = CircuitState::Planned;
                        }
                    }
                    (Err(_), Ok(place)) => {
                        circuit.users.remove(place);
                        if circuit.users.is_empty() {
                            circuit.state = CircuitState::Closing { by: id };
                        }
                    }
                    _ => {}
                }
            });
        }
    }

    /// Cores, local memory and accelerator slots of a new reservation.
    fn hold_brick_parts(&mut self, id: ReservationId) {
        let Some(reservation) = self.reservations.get(&id) else { return };
        let (compute, request) = (reservation.compute.clone(), reservation.request.clone());
        let accelerator = reservation.accelerator.clone();
        self.edit_named(&compute, |brick| {
            brick.units_used += request.cores;
            brick.local_used += pages_of(request.local);
        });
        if let Some(accelerator) = accelerator {
            self.edit_named(&accelerator.brick, |brick| brick.units_used += accelerator.slots);
        }
        let usage = self.usage.entry(request.project).or_default();
        usage.add(LatencyClass::Local, pages_of(request.local));
    }

    fn hold_far_memory(&mut self, id: ReservationId, plan: &Plan) -> Result<(), RackError> {
        let grant = &plan.grant;
        for name in &grant.wake {
            self.edit_named(name, |brick| {
                if brick.power == Power::Off {
                    brick.power = Power::Waking;
                }
            });
        }
        for (circuit, path) in &grant.circuits {
            let ends = [path.near().of.clone(), path.far().of.clone()];
            let (path, users) = (path.clone(), vec![id]);
            self.graph.circuit_add(Circuit { id: *circuit, path, state: CircuitState::Planned, users })?;
            self.look_at_ports(&ends);
        }
        for circuit in &grant.reused {
            self.graph.circuit_edit(*circuit, |circuit| {
                if let Err(place) = circuit.users.binary_search(&id) {
                    circuit.users.insert(place, id);
                }
            });
        }
        for segment in &grant.segments {
            let range = segment.range();
            self.edit_named(&segment.brick, |brick| {
                // Checked before; a second check costs nothing and keeps two owners off one page whatever happens.
                assert!(brick.extents.insert(&range, segment.id).is_ok(), "{} had another owner", segment.id);
            });
            if let Some(group) = &segment.group {
                self.groups.entry(group.clone()).or_default().push(segment.id);
            }
            self.segments.insert(segment.id, segment.clone());
        }
        self.hold_mappings(id, plan);
        Ok(())
    }

    fn hold_mappings(&mut self, id: ReservationId, plan: &Plan) {
        let grant = &plan.grant;
        for mapping in &grant.mappings {
            let range = mapping.range();
            self.edit_named(&grant.compute, |brick| {
                assert!(
                    brick.extents.insert(&range, mapping.segment).is_ok(),
                    "{} was mapped over",
                    mapping.segment
                );
            });
            if let Some(segment) = self.segments.get_mut(&mapping.segment)
                && let Err(place) = segment.users.binary_search(&id)
            {
                segment.users.insert(place, id);
            }
        }
        let Some(reservation) = self.reservations.get_mut(&id) else { return };
        reservation.mappings.extend(&grant.mappings);
        reservation.mappings.sort_unstable_by_key(|mapping| mapping.start);
        reservation.segments_made += grant.segments.len() as u32;
        reservation.circuits_made += grant.circuits.len() as u32;
        let pages = grant.mappings.iter().map(|mapping| mapping.pages).sum();
        let usage = self.usage.entry(reservation.request.project.clone()).or_default();
        usage.add(reservation.request.class, pages);
    }

    /// Ends a reservation: everything that it held is free.
    pub(super) fn end(&mut self, id: ReservationId, state: State) -> Option<Reservation> {
        let all: Vec<_> =
            self.reservations.get(&id)?.mappings.iter().map(|mapping| mapping.segment).collect();
        let mut whole = self.reservations.get(&id)?.clone();
        self.withdraw(id, &all);
        let rest = self.reservations.remove(&id)?;
        if let Some(expires) = rest.request.expires {
            self.expiries.remove(&(expires, id));
        }
        if let Some(accelerator) = &rest.accelerator {
            self.edit_named(&accelerator.brick, |brick| brick.units_used -= accelerator.slots);
            self.let_go_of_circuits(id, &[accelerator.circuit]);
            self.rest_if_woken_for_nothing(&accelerator.brick);
        }
        self.edit_named(&rest.compute, |brick| {
            brick.units_used -= rest.request.cores;
            brick.local_used -= pages_of(rest.request.local);
        });
        self.rest_if_woken_for_nothing(&rest.compute);
        let usage = self.usage.entry(rest.request.project.clone()).or_default();
        usage.subtract(LatencyClass::Local, pages_of(rest.request.local));
        if usage.is_zero() {
            self.usage.remove(&rest.request.project);
        }
        whole.state = state;
        whole.pending = None;
        Some(whole)
    }

    /// Takes some segments from a reservation, and its circuits that led only there.
    pub(super) fn withdraw(&mut self, id: ReservationId, segments: &[SegmentId]) {
        let Some(reservation) = self.reservations.get_mut(&id) else { return };
        let before = reservation.circuits();
        let (gone, kept): (Vec<_>, Vec<_>) =
            reservation.mappings.iter().copied().partition(|mapping| segments.contains(&mapping.segment));
        reservation.mappings = kept;
        let after = reservation.circuits();
        let (compute, class) = (reservation.compute.clone(), reservation.request.class);
        if let Some(usage) = self.usage.get_mut(&reservation.request.project) {
            usage.subtract(class, gone.iter().map(|mapping| mapping.pages).sum());
        }
        for mapping in &gone {
            self.edit_named(&compute, |brick| brick.extents.remove(mapping.start, mapping.segment));
            self.let_go_of_segment(id, mapping.segment);
        }
        let idle: Vec<_> =
            before.into_iter().filter(|circuit| after.binary_search(circuit).is_err()).collect();
        self.let_go_of_circuits(id, &idle);
    }

    fn let_go_of_segment(&mut self, user: ReservationId, id: SegmentId) {
        let Some(segment) = self.segments.get_mut(&id) else { return };
        segment.users.retain(|held_by| *held_by != user);
        if !segment.users.is_empty() {
            return;
        }
        let Some(segment) = self.segments.remove(&id) else { return };
        self.edit_named(&segment.brick, |brick| brick.extents.remove(segment.start, id));
        self.rest_if_woken_for_nothing(&segment.brick);
        if let Some(name) = &segment.group
            && let Some(members) = self.groups.get_mut(name)
        {
            members.retain(|member| *member != id);
            if members.is_empty() {
                self.groups.remove(name);
            }
        }
    }

    fn let_go_of_circuits(&mut self, user: ReservationId, circuits: &[CircuitId]) {
        for &id in circuits {
            let over = self.graph.circuit_edit(id, |circuit| {
                circuit.users.retain(|held_by| *held_by != user);
                let ours = !matches!(circuit.state, CircuitState::Closing { by } if by != user);
                let ends = || [circuit.path.near().of.clone(), circuit.path.far().of.clone()];
                (circuit.users.is_empty() && ours).then(ends)
            });
            if let Some(ends) = over.flatten() {
                self.graph.circuit_remove(id);
                self.look_at_ports(&ends);
            }
        }
    }

    /// A brick that was to be woken for a plan that came to nothing stays off.
    fn rest_if_woken_for_nothing(&mut self, name: &Name) {
        self.edit_named(name, |brick| {
            if brick.power == Power::Waking && brick.is_idle() {
                brick.power = Power::Off;
            }
        });
    }

    /// A segment is gone from its memory server: nobody owns its pages, whoever mapped it knows that it is lost.
    pub(super) fn lose(&mut self, id: SegmentId) -> Result<(), RackError> {
        let segment =
            self.segments.get(&id).ok_or_else(|| RackError::Request(format!("there is no segment {id}")))?;
        let (brick, start, users) = (segment.brick.clone(), segment.start, segment.users.clone());
        self.edit_named(&brick, |brick| brick.extents.remove(start, id));
        for user in users {
            let Some(reservation) = self.reservations.get_mut(&user) else { continue };
            let lost = reservation.mappings.iter_mut().filter(|mapping| mapping.segment == id);
            lost.for_each(|mapping| mapping.lost = true);
        }
        Ok(())
    }
}
