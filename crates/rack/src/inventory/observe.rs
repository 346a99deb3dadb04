//! What is believed against what is really there. Every difference is named, and the events that correct it: reality wins.

use std::collections::{BTreeMap, BTreeSet};

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

use super::Event;
use crate::graph::{CircuitState, Power};
use crate::{CircuitId, Name, PortRef, Rack, RackError, SegmentId};

/// What a brick or switch reports of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Observation {
    /// A memory server: its pool, and the segments in it with their pages. What has no number is of strangers.
    Memory {
        /// The memory brick.
        brick: Name,
        /// Size of the pool.
        size: Bytes,
        /// Segments that carry one of our numbers, with their pages.
        segments: Vec<(SegmentId, u64)>,
        /// Pages of all other segments.
        others: u64,
    },
    /// A switch: the pairs of ports that it has connected.
    Switch {
        /// The switch.
        switch: Name,
        /// Its connected pairs.
        pairs: Vec<[u16; 2]>,
    },
    /// An agent: the segments in its NetPort table.
    Compute {
        /// The compute brick.
        brick: Name,
        /// The segments that its table has.
        segments: Vec<SegmentId>,
    },
    /// Nothing answers for this brick.
    Silent {
        /// The brick.
        brick: Name,
        /// Whether it is known to have no power; else it just does not answer.
        off: bool,
    },
}

/// How reality differs from what was believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Difference {
    /// A brick answers again.
    #[error("{0} answers")]
    Answers(Name),
    /// A brick does not answer.
    #[error("{0} does not answer")]
    Silent(Name),
    /// A brick is on that was believed off, or off that was believed on.
    #[error("{brick} is powered {}", if *on { "on" } else { "off" })]
    Power {
        /// The brick.
        brick: Name,
        /// Whether it is on.
        on: bool,
    },
    /// A pool has another size.
    #[error("{brick} has a pool of {is}, not {believed}")]
    Pool {
        /// The memory brick.
        brick: Name,
        /// Its size.
        is: Bytes,
        /// What was believed.
        believed: Bytes,
    },
    /// A segment is gone.
    #[error("{brick} does not have segment {segment}")]
    SegmentLost {
        /// The memory brick.
        brick: Name,
        /// The segment.
        segment: SegmentId,
    },
    /// A memory server holds pages for strangers, other than before.
    #[error("{brick} holds {pages} pages that nobody reserved")]
    Strays {
        /// The memory brick.
        brick: Name,
        /// How many pages.
        pages: u64,
    },
    /// A switch does not have a circuit, or has it again.
    #[error("circuit {circuit} is {}", if *up { "up" } else { "down" })]
    Circuit {
        /// The circuit.
        circuit: CircuitId,
        /// Whether it is there.
        up: bool,
    },
    /// A switch has a port connected for strangers, or not any more.
    #[error("{port} is {} by somebody else", if *connected { "connected" } else { "no longer connected" })]
    StrayPort {
        /// The port.
        port: PortRef,
        /// Whether it is.
        connected: bool,
    },
    /// A compute brick does not map a segment that its reservation has. Its agent has to be told again; the rack stays as it is.
    #[error("{brick} does not map segment {segment}")]
    NotMapped {
        /// The compute brick.
        brick: Name,
        /// The segment.
        segment: SegmentId,
    },
    /// A compute brick maps a segment that no reservation gives it. Its agent has to be told; the rack stays as it is.
    #[error("{brick} maps segment {segment}, which is not reserved for it")]
    StrayMapping {
        /// The compute brick.
        brick: Name,
        /// The segment.
        segment: SegmentId,
    },
}

impl Difference {
    /// The event that makes the rack believe what is there; none where the brick has to be put right instead.
    pub fn event(&self) -> Option<Event> {
        Some(match self.clone() {
            Self::Answers(brick) => Event::Reachable { brick, reachable: true },
            Self::Silent(brick) => Event::Reachable { brick, reachable: false },
            Self::Power { brick, on } => Event::PowerSeen { brick, on },
            Self::Pool { brick, is, .. } => Event::PoolSeen { brick, size: is },
            Self::SegmentLost { segment, .. } => Event::SegmentLost(segment),
            Self::Strays { brick, pages } => Event::StrayPages { brick, pages },
            Self::Circuit { circuit, up } => Event::CircuitSeen { circuit, up },
            Self::StrayPort { port, connected } => Event::StrayPort { port, connected },
            Self::NotMapped { .. } | Self::StrayMapping { .. } => return None,
        })
    }
}

impl Rack {
    /// How what was observed differs from what is believed. Whatever a plan under way may have done or not yet done is no difference.
    pub fn differences(&self, observation: &Observation) -> Result<Vec<Difference>, RackError> {
        let mut differences = Vec::new();
        match observation {
            Observation::Silent { brick, off } => {
                let believed = self.brick(brick)?;
                if *off && believed.power() == Power::On {
                    differences.push(Difference::Power { brick: brick.clone(), on: false });
                } else if !off && believed.power() == Power::On && believed.is_reachable() {
                    differences.push(Difference::Silent(brick.clone()));
                }
            }
            Observation::Memory { brick, size, segments, others } => {
                self.answers(brick, &mut differences)?;
                self.differences_memory(brick, *size, segments, *others, &mut differences)?;
            }
            Observation::Compute { brick, segments } => {
                self.answers(brick, &mut differences)?;
                self.differences_compute(brick, segments, &mut differences);
            }
            Observation::Switch { switch, pairs } => {
                self.differences_switch(switch, pairs, &mut differences)?
            }
        }
        Ok(differences)
    }

    fn answers(&self, name: &Name, differences: &mut Vec<Difference>) -> Result<(), RackError> {
        let brick = self.brick(name)?;
        if brick.power() != Power::On {
            differences.push(Difference::Power { brick: name.clone(), on: true });
        }
        if !brick.is_reachable() {
            differences.push(Difference::Answers(name.clone()));
        }
        Ok(())
    }

    fn differences_memory(
        &self,
        name: &Name,
        size: Bytes,
        segments: &[(SegmentId, u64)],
        others: u64,
        differences: &mut Vec<Difference>,
    ) -> Result<(), RackError> {
        let brick = self.brick(name)?;
        let there: BTreeMap<_, _> = segments.iter().copied().collect();
        for segment in self.segments_on(name)? {
            if !there.contains_key(&segment.id) && self.is_settled(segment.id) {
                differences.push(Difference::SegmentLost { brick: name.clone(), segment: segment.id });
            }
        }
        let strays =
            there.iter().filter(|(id, _)| self.segment(**id).is_none_or(|segment| segment.brick != *name));
        let pages = others + strays.map(|(_, pages)| pages).sum::<u64>();
        if pages != brick.stray_pages {
            differences.push(Difference::Strays { brick: name.clone(), pages });
        }
        if size.pages() != brick.capacity() {
            let believed = Bytes::from_pages(brick.capacity());
            differences.push(Difference::Pool { brick: name.clone(), is: size, believed });
        }
        Ok(())
    }

    fn differences_compute(&self, name: &Name, segments: &[SegmentId], differences: &mut Vec<Difference>) {
        let there: BTreeSet<_> = segments.iter().copied().collect();
        let holders = self.reservations().filter(|reservation| reservation.compute == *name);
        let mappings = holders.flat_map(|reservation| &reservation.mappings);
        let expected: BTreeSet<_> = mappings.map(|mapping| mapping.segment).collect();
        for segment in expected.difference(&there).copied().filter(|segment| self.is_settled(*segment)) {
            differences.push(Difference::NotMapped { brick: name.clone(), segment });
        }
        for segment in there.difference(&expected).copied() {
            differences.push(Difference::StrayMapping { brick: name.clone(), segment });
        }
    }

    /// Whether no plan under way creates or removes the segment, so that it must be there.
    fn is_settled(&self, id: SegmentId) -> bool {
        let Some(segment) = self.segment(id) else { return false };
        segment.users.iter().filter_map(|user| self.reservations.get(user)).any(|reservation| {
            let pending = reservation.pending.as_ref();
            let moves = pending.is_some_and(|p| p.added.contains(&id) || p.removed.contains(&id));
            reservation.state == crate::State::Applied && !moves
        })
    }

    fn differences_switch(
        &self,
        name: &Name,
        pairs: &[[u16; 2]],
        differences: &mut Vec<Difference>,
    ) -> Result<(), RackError> {
        let sorted = |[a, b]: [u16; 2]| [a.min(b), a.max(b)];
        let there: BTreeSet<_> = pairs.iter().copied().map(sorted).collect();
        let mut expected = BTreeSet::new();
        for circuit in self.circuits() {
            let mut ours =
                circuit.path.crossings().filter(|(switch, _)| *switch == name).map(|(_, pair)| sorted(pair));
            let Some(pair) = ours.next() else { continue };
            expected.insert(pair);
            let is_there = there.contains(&pair);
            if circuit.state == CircuitState::Up && !is_there {
                differences.push(Difference::Circuit { circuit: circuit.id, up: false });
            } else if circuit.state == CircuitState::Down && is_there && circuit.path.crossings().count() == 1
            {
                differences.push(Difference::Circuit { circuit: circuit.id, up: true });
            }
        }
        let strays: BTreeSet<u16> = there.difference(&expected).flatten().copied().collect();
        for (port, link) in (0..).zip(&self.switch(name)?.ports) {
            let Some(cable) = link.and_then(|link| self.graph.cable(link)) else { continue };
            let connected = strays.contains(&port);
            let believed = cable.stray[usize::from(cable.spec().ends[1].of == *name)];
            if connected != believed {
                differences
                    .push(Difference::StrayPort { port: PortRef { of: name.clone(), port }, connected });
            }
        }
        Ok(())
    }
}
