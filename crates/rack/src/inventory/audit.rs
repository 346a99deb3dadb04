//! Everything that must always hold, computed anew from the reservations alone. Tests run it after every event; a controller
//! runs it after a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::graph::{Brick, CircuitState, Power, Role};
use crate::index::Index;
use crate::quota::Usage;
use crate::reservation::pages_of;
use crate::{CircuitId, LatencyClass, Name, PortRef, Rack, ReservationId, SegmentId};

impl Rack {
    /// Every invariant that does not hold, as a sentence. Empty unless there is a mistake in this crate or in a stored state.
    pub fn audit(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.audit_pages(&mut wrong);
        self.audit_circuits(&mut wrong);
        self.audit_bricks(&mut wrong);
        self.audit_derived(&mut wrong);
        wrong
    }

    /// No page has two owners, and every owner has its pages.
    fn audit_pages(&self, wrong: &mut Vec<String>) {
        let mut users: HashMap<SegmentId, Vec<ReservationId>> = HashMap::new();
        for reservation in self.reservations.values() {
            for mapping in &reservation.mappings {
                users.entry(mapping.segment).or_default().push(reservation.id);
                let entry = (mapping.range(), mapping.segment);
                if !self
                    .brick(&reservation.compute)
                    .is_ok_and(|brick| brick.extents().iter().any(|e| e == entry))
                {
                    wrong.push(format!("{} does not map {}", reservation.compute, mapping.segment));
                }
            }
        }
        for segment in self.segments.values() {
            let reservations = users.remove(&segment.id).unwrap_or_default();
            if reservations != segment.users || reservations.is_empty() {
                wrong.push(format!(
                    "segment {} is used by {reservations:?}, not {:?}",
                    segment.id, segment.users
                ));
            }
            if reservations.len() > 1 && segment.group.is_none() {
                wrong.push(format!("segment {} has several owners and is in no group", segment.id));
            }
            let projects: BTreeSet<_> = reservations
                .iter()
                .filter_map(|id| Some(&self.reservation(*id).ok()?.request.project))
                .collect();
            if projects.len() > 1 {
                wrong.push(format!("segment {} is shared by several projects", segment.id));
            }
        }
        wrong.extend(users.keys().map(|segment| format!("segment {segment} is mapped and is not there")));
        for brick in self.bricks() {
            let mut end = 0;
            let mut sum = 0;
            for (range, owner) in brick.extents().iter() {
                if range.start < end {
                    wrong.push(format!("page {} of {} has two owners", range.start, brick.name()));
                }
                (end, sum) = (range.end, sum + (range.end - range.start));
                if brick.role() == Role::Memory && self.segment(owner).is_none_or(|s| s.range() != range) {
                    wrong.push(format!("{} holds pages for {owner}, which does not lie there", brick.name()));
                }
            }
            if sum != brick.extents().used() {
                wrong.push(format!("{} counts {} pages, not {sum}", brick.name(), brick.extents().used()));
            }
        }
    }

    /// Circuits are edges: each is used, lies on cables that count it, and crosses no other in a circuit switch.
    fn audit_circuits(&self, wrong: &mut Vec<String>) {
        let mut users: BTreeMap<CircuitId, Vec<ReservationId>> = BTreeMap::new();
        for reservation in self.reservations.values() {
            for circuit in reservation.circuits_needed() {
                users.entry(circuit).or_default().push(reservation.id);
            }
        }
        let mut on_cable: HashMap<&PortRef, u32> = HashMap::new();
        for circuit in self.circuits() {
            let closing = matches!(circuit.state, CircuitState::Closing { .. });
            let same = users.remove(&circuit.id).unwrap_or_default() == circuit.users;
            if !same || circuit.users.is_empty() != closing {
                wrong.push(format!("circuit {} is not used by {:?}", circuit.id, circuit.users));
            }
            circuit.path.cables.iter().flatten().for_each(|end| *on_cable.entry(end).or_default() += 1);
        }
        wrong.extend(users.keys().map(|circuit| format!("circuit {circuit} is used and is not there")));
        for cable in self.cables() {
            for end in &cable.spec().ends {
                let counted = on_cable.remove(end).unwrap_or_default();
                if counted != cable.circuits() || (counted > 1 && !cable.shared) {
                    wrong.push(format!(
                        "{counted} circuits go through {end}, which counts {}",
                        cable.circuits()
                    ));
                }
            }
        }
        wrong.extend(on_cable.keys().map(|end| format!("a circuit goes through {end}, where no cable is")));
    }

    /// What is taken is what reservations hold, and no more than there is.
    fn audit_bricks(&self, wrong: &mut Vec<String>) {
        let mut units: HashMap<&Name, (u32, u64)> = HashMap::new();
        for reservation in self.reservations.values() {
            let compute = units.entry(&reservation.compute).or_default();
            compute.0 += reservation.request.cores;
            compute.1 += pages_of(reservation.request.local);
            if let Some(accelerator) = &reservation.accelerator {
                units.entry(&accelerator.brick).or_default().0 += accelerator.slots;
            }
        }
        for brick in self.bricks() {
            let taken = units.remove(brick.name()).unwrap_or_default();
            if taken != (brick.units_used, brick.local_used) {
                wrong.push(format!(
                    "{} counts other cores, slots or local memory than {taken:?}",
                    brick.name()
                ));
            }
            if brick.role() == Role::Compute && brick.extents().count() > crate::NETPORTS_MAX {
                wrong.push(format!("{} has more NetPort entries than its table holds", brick.name()));
            }
            if brick.open != self.graph.has_free_port(brick) {
                wrong.push(format!("{} is not known to have, or to have no, free port", brick.name()));
            }
            self.audit_capacity(brick, wrong);
        }
    }

    fn audit_capacity(&self, brick: &Brick, wrong: &mut Vec<String>) {
        // A server that came back smaller is over its capacity until what it lost is released: reality wins.
        if brick.used() > brick.capacity()
            && brick.stray_pages == 0
            && brick.extents().limit() == brick.capacity()
        {
            wrong.push(format!("{} of {} are taken on {}", brick.used(), brick.capacity(), brick.name()));
        }
        if brick.power() == Power::Off
            && brick.is_reachable()
            && brick.extents().used() > 0
            && brick.role() == Role::Memory
        {
            wrong.push(format!("{} is off and holds memory", brick.name()));
        }
    }

    /// The index, quota use and expiries are what they would be if they were made anew.
    fn audit_derived(&self, wrong: &mut Vec<String>) {
        let mut index = Index::default();
        let mut usage: BTreeMap<String, Usage> = BTreeMap::new();
        for (node, brick) in self.graph.brick_nodes() {
            index.insert(node, brick);
        }
        for reservation in self.reservations.values() {
            let of = usage.entry(reservation.request.project.clone()).or_default();
            of.add(LatencyClass::Local, pages_of(reservation.request.local));
            of.add(reservation.request.class, reservation.pages());
        }
        usage.retain(|_, usage| !usage.is_zero());
        let known: BTreeMap<_, _> =
            self.usage.iter().filter(|(_, usage)| !usage.is_zero()).map(|(p, u)| (p.clone(), *u)).collect();
        if usage != known {
            wrong.push("the projects' use does not add up".to_owned());
        }
        if !index.is_same(&self.index) {
            wrong.push("the index of bricks is stale".to_owned());
        }
        wrong
            .extend(self.graph.mistaken().map(|name| format!("{name} does not know its cables or circuits")));
        for (expires, id) in &self.expiries {
            if self
                .reservations
                .get(id)
                .is_none_or(|reservation| reservation.request.expires != Some(*expires))
            {
                wrong.push(format!("reservation {id} would expire and is not there"));
            }
        }
    }
}
