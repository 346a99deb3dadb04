//! A rack as plain data, to store and to show. Reading one back goes through the same checks as registration did.

use serde::{Deserialize, Serialize};

use super::Event;
use crate::graph::{BrickSpec, CableSpec, Circuit, Power, SwitchSpec};
use crate::reservation::pages_of;
use crate::{Generation, LatencyClass, Name, PortRef, Rack, RackError, Reservation, Segment, State};

/// A brick with what was observed of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrickRecord {
    /// As it is registered.
    #[serde(flatten)]
    pub spec: BrickSpec,
    /// Whether a plan is waking it.
    pub waking: bool,
    /// Whether it answered.
    pub reachable: bool,
    /// Whether it drains.
    pub draining: bool,
    /// Pages it holds for strangers.
    pub stray_pages: u64,
}

/// Everything that a [`Rack`] knows. Derived tables are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// The rack's generation.
    pub generation: Generation,
    /// The racks.
    pub racks: Vec<Name>,
    /// The trays, each with its rack.
    pub trays: Vec<(Name, Name)>,
    /// The bricks.
    pub bricks: Vec<BrickRecord>,
    /// The switches.
    pub switches: Vec<SwitchSpec>,
    /// The cables.
    pub cables: Vec<CableSpec>,
    /// Ports that switches have connected for strangers.
    pub stray_ports: Vec<PortRef>,
    /// The circuits.
    pub circuits: Vec<Circuit>,
    /// The segments, by number.
    pub segments: Vec<Segment>,
    /// The reservations, by number.
    pub reservations: Vec<Reservation>,
}

impl Snapshot {
    /// The same in parts of at most `size` things, each of one kind: what a large rack is stored as, since its whole text would need
    /// as much memory again. [`Snapshot::add`] puts them together again.
    pub fn into_parts(self, size: usize) -> Vec<Self> {
        let Self { generation, racks, trays, bricks, switches, cables, stray_ports, .. } = self;
        let mut parts = vec![Self { generation, ..Self::default() }];
        cut(&mut parts, size, racks, |racks| Self { racks, ..Self::default() });
        cut(&mut parts, size, trays, |trays| Self { trays, ..Self::default() });
        cut(&mut parts, size, bricks, |bricks| Self { bricks, ..Self::default() });
        cut(&mut parts, size, switches, |switches| Self { switches, ..Self::default() });
        cut(&mut parts, size, cables, |cables| Self { cables, ..Self::default() });
        cut(&mut parts, size, stray_ports, |stray_ports| Self { stray_ports, ..Self::default() });
        cut(&mut parts, size, self.circuits, |circuits| Self { circuits, ..Self::default() });
        cut(&mut parts, size, self.segments, |segments| Self { segments, ..Self::default() });
        cut(&mut parts, size, self.reservations, |reservations| Self { reservations, ..Self::default() });
        parts
    }

    /// Adds the next part.
    pub fn add(&mut self, part: Self) {
        self.generation = self.generation.max(part.generation);
        self.racks.extend(part.racks);
        self.trays.extend(part.trays);
        self.bricks.extend(part.bricks);
        self.switches.extend(part.switches);
        self.cables.extend(part.cables);
        self.stray_ports.extend(part.stray_ports);
        self.circuits.extend(part.circuits);
        self.segments.extend(part.segments);
        self.reservations.extend(part.reservations);
    }
}

/// Adds a part for each `size` of `things`.
fn cut<T>(parts: &mut Vec<Snapshot>, size: usize, things: Vec<T>, part: impl Fn(Vec<T>) -> Snapshot) {
    let mut things = things.into_iter().peekable();
    while things.peek().is_some() {
        parts.push(part(things.by_ref().take(size.max(1)).collect()));
    }
}

impl Rack {
    /// Everything that is known, in an order that depends on nothing but the history.
    pub fn snapshot(&self) -> Snapshot {
        let mut circuits: Vec<_> = self.circuits().cloned().collect();
        circuits.sort_unstable_by_key(|circuit| circuit.id);
        let mut segments: Vec<_> = self.segments.values().cloned().collect();
        segments.sort_unstable_by_key(|segment| segment.id);
        let stray = self.cables().flat_map(|cable| cable.spec().ends.iter().zip(cable.stray));
        Snapshot {
            generation: self.generation,
            racks: self.racks().cloned().collect(),
            trays: self.trays().map(|(tray, rack)| (tray.clone(), rack.clone())).collect(),
            bricks: self
                .bricks()
                .map(|brick| BrickRecord {
                    spec: BrickSpec {
                        power: if brick.power() == Power::On { Power::On } else { Power::Off },
                        ..brick.spec().clone()
                    },
                    waking: brick.power() == Power::Waking,
                    reachable: brick.is_reachable(),
                    draining: brick.is_draining(),
                    stray_pages: brick.stray_pages,
                })
                .collect(),
            switches: self.switches().map(|switch| switch.spec().clone()).collect(),
            cables: self.cables().map(|cable| cable.spec().clone()).collect(),
            stray_ports: stray.filter(|(_, stray)| *stray).map(|(port, _)| port.clone()).collect(),
            circuits,
            segments,
            reservations: self.reservations.values().cloned().collect(),
        }
    }

    /// The rack that a snapshot was taken of.
    pub fn restore(snapshot: Snapshot) -> Result<Self, RackError> {
        let mut rack = Self::default();
        for name in snapshot.racks {
            rack.apply(&Event::RackAdded(name))?;
        }
        for (name, of) in snapshot.trays {
            rack.apply(&Event::TrayAdded { name, rack: of })?;
        }
        for record in snapshot.bricks {
            let name = record.spec.name.clone();
            rack.apply(&Event::BrickAdded(record.spec))?;
            rack.edit_named(&name, |brick| {
                if record.waking {
                    brick.power = Power::Waking;
                }
                brick.reachable = record.reachable;
                brick.draining = record.draining;
                brick.stray_pages = record.stray_pages;
            });
        }
        for switch in snapshot.switches {
            rack.apply(&Event::SwitchAdded(switch))?;
        }
        for cable in snapshot.cables {
            rack.apply(&Event::CableAdded(cable))?;
        }
        for circuit in snapshot.circuits {
            if let Some(obstacle) = rack.graph.path_obstacle(&circuit.path) {
                return Err(RackError::Snapshot(format!("circuit {}: {obstacle}", circuit.id)));
            }
            let ends = [circuit.path.near().of.clone(), circuit.path.far().of.clone()];
            rack.graph.circuit_add(circuit)?;
            rack.look_at_ports(&ends);
        }
        for port in snapshot.stray_ports {
            rack.apply(&Event::StrayPort { port, connected: true })?;
        }
        rack.restore_segments(snapshot.segments, &snapshot.reservations)?;
        for reservation in snapshot.reservations {
            rack.restore_reservation(reservation)?;
        }
        rack.generation = snapshot.generation;
        match rack.audit().into_iter().next() {
            Some(wrong) => Err(RackError::Snapshot(wrong)),
            None => Ok(rack),
        }
    }

    fn restore_segments(&mut self, segments: Vec<Segment>, holders: &[Reservation]) -> Result<(), RackError> {
        let mappings = holders.iter().flat_map(|reservation| &reservation.mappings);
        let lost: std::collections::HashSet<_> =
            mappings.filter(|mapping| mapping.lost).map(|mapping| mapping.segment).collect();
        for segment in segments {
            let mut obstacle = None;
            if !lost.contains(&segment.id) {
                self.edit_named(&segment.brick, |brick| {
                    obstacle = brick.extents.insert(&segment.range(), segment.id).err();
                });
            }
            if let Some(obstacle) = obstacle {
                return Err(RackError::Snapshot(format!(
                    "segment {}: {obstacle:?} is in the way",
                    segment.id
                )));
            }
            if let Some(group) = &segment.group {
                self.groups.entry(group.clone()).or_default().push(segment.id);
            }
            self.segments.insert(segment.id, segment);
        }
        Ok(())
    }

    fn restore_reservation(&mut self, reservation: Reservation) -> Result<(), RackError> {
        let request = &reservation.request;
        let mut obstacle = None;
        self.edit_named(&reservation.compute, |brick| {
            brick.units_used += request.cores;
            brick.local_used += pages_of(request.local);
            for mapping in &reservation.mappings {
                obstacle = obstacle.or(brick.extents.insert(&mapping.range(), mapping.segment).err());
            }
        });
        if let Some(obstacle) = obstacle {
            return Err(RackError::Snapshot(format!(
                "reservation {}: {obstacle:?} is in the way",
                reservation.id
            )));
        }
        if let Some(accelerator) = &reservation.accelerator {
            self.edit_named(&accelerator.brick, |brick| brick.units_used += accelerator.slots);
        }
        let usage = self.usage.entry(request.project.clone()).or_default();
        usage.add(LatencyClass::Local, pages_of(request.local));
        usage.add(request.class, reservation.pages());
        if reservation.state == State::Reserved {
            self.expiries.extend(request.expires.map(|expires| (expires, reservation.id)));
        }
        self.reservations.insert(reservation.id, reservation);
        Ok(())
    }
}
