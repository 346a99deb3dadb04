//! Plugging cables, and setting circuits through them.

use petgraph::visit::EdgeRef;

use super::{Cable, CableSpec, Circuit, CircuitEnd, Edge, Graph, Link, Node, Path, SwitchKind, Vertex};
use crate::{CircuitId, LatencyClass, Name, PortRef, RackError};

impl Graph {
    /// Plugs a cable, if both ports exist and are free.
    pub(crate) fn plug(&mut self, spec: CableSpec) -> Result<(), RackError> {
        let [a, b] = &spec.ends;
        let (port_a, port_b) = (a.port, b.port);
        if a.of == b.of {
            return Err(RackError::SelfLoop { ends: spec.ends });
        }
        let (node_a, node_b) = (self.free_port(a)?, self.free_port(b)?);
        let kinds = [node_a, node_b].map(|node| self.switch_at(node).map(|switch| switch.spec.kind));
        let shared = kinds.contains(&Some(SwitchKind::Packet)) && !kinds.contains(&Some(SwitchKind::Circuit));
        let latency_ns = spec.latency_ns;
        let cable = Cable { spec, shared, circuits: 0, stray: [false; 2] };
        let link = self.inner.add_edge(node_a, node_b, Edge::Cable(Box::new(cable)));
        for (node, port, other) in [(node_a, port_a, node_b), (node_b, port_b, node_a)] {
            let switch = self.switch_at(other).map(|switch| switch.ordinal);
            let site = self.brick_at(other).map(|brick| brick.site);
            match &mut self.inner[node] {
                Vertex::Brick(brick) => {
                    brick.ports[usize::from(port)] = Some(link);
                    brick.lanes.add(other, switch, latency_ns, link);
                }
                Vertex::Switch(here) => {
                    here.ports[usize::from(port)] = Some(link);
                    here.span = here.span.max(site.map(|site| here.site.distance(site)));
                    if switch.is_some() {
                        here.trunks.add(other, switch, latency_ns, link);
                    }
                }
                Vertex::Rack(_) | Vertex::Tray { .. } => {}
            }
        }
        self.tell_dead_ends([node_a, node_b]);
        Ok(())
    }

    /// What is at the other ends of a vertex' cables.
    pub(crate) fn neighbours(&self, name: &Name) -> Vec<Name> {
        let edges = self.node(name).into_iter().flat_map(|node| self.inner.edges(node));
        let cables = edges.filter_map(|edge| self.cable(edge.id()));
        cables.map(|cable| cable.far_end(name).of.clone()).collect()
    }

    /// Unplugs the cable at `port`, unless a circuit goes through it.
    pub(crate) fn unplug_at(&mut self, port: &PortRef) -> Result<(), RackError> {
        let link = self.link_at(port)?.ok_or_else(|| RackError::NoCable { port: port.clone() })?;
        match self.cable(link) {
            Some(cable) if cable.circuits > 0 => {
                let reasons = vec![format!("{} circuits go through it", cable.circuits)];
                Err(RackError::CableInUse { port: port.clone(), reasons })
            }
            _ => {
                self.unplug(link);
                Ok(())
            }
        }
    }

    pub(super) fn unplug(&mut self, link: Link) {
        let Some((a, b)) = self.inner.edge_endpoints(link) else { return };
        for node in [a, b] {
            let ports = match &mut self.inner[node] {
                Vertex::Brick(brick) => {
                    brick.lanes.remove(link);
                    &mut brick.ports
                }
                Vertex::Switch(switch) => {
                    switch.trunks.remove(link);
                    &mut switch.ports
                }
                Vertex::Rack(_) | Vertex::Tray { .. } => continue,
            };
            ports.iter_mut().filter(|port| **port == Some(link)).for_each(|port| *port = None);
        }
        self.inner.remove_edge(link);
        self.tell_dead_ends([a, b]);
        for node in [a, b] {
            let span = self.span(node);
            if let Vertex::Switch(switch) = &mut self.inner[node] {
                switch.span = span;
            }
        }
    }

    /// Tells the neighbours of switches whose lanes have changed whether a way may lead on through them.
    fn tell_dead_ends(&mut self, switches: [Node; 2]) {
        for node in switches {
            let Some(switch) = self.switch_at(node) else { continue };
            let dead_end = switch.trunks.only().is_some();
            let neighbours: Vec<Node> = switch.trunks.iter().map(|lane| lane.to).collect();
            for other in neighbours {
                if let Vertex::Switch(other) = &mut self.inner[other] {
                    other.trunks.dead_end_set(node, dead_end);
                }
            }
        }
    }

    /// How far from a switch the farthest brick stands that has a cable to it.
    fn span(&self, node: Node) -> Option<LatencyClass> {
        let switch = self.switch_at(node)?;
        let ends = switch.ports.iter().flatten().filter_map(|link| self.inner.edge_endpoints(*link));
        let bricks = ends.filter_map(|(a, b)| self.brick_at(if a == node { b } else { a }));
        bricks.map(|brick| switch.site.distance(brick.site)).max()
    }

    /// The vertex of `port`, if the port exists and no cable is in it.
    fn free_port(&self, port: &PortRef) -> Result<Node, RackError> {
        if let Some(link) = self.link_at(port)?
            && let Some(cable) = self.cable(link)
        {
            return Err(RackError::PortTaken { port: port.clone(), by: cable.far_end(&port.of).clone() });
        }
        self.node(&port.of)
    }

    /// The cable in `port`, or none; refused if there is no such port.
    pub(crate) fn link_at(&self, port: &PortRef) -> Result<Option<Link>, RackError> {
        let node = self.node(&port.of)?;
        let ports = match &self.inner[node] {
            Vertex::Brick(brick) => &brick.ports,
            Vertex::Switch(switch) => &switch.ports,
            Vertex::Rack(_) | Vertex::Tray { .. } => {
                return Err(RackError::NoPorts { name: port.of.clone() });
            }
        };
        ports
            .get(usize::from(port.port))
            .copied()
            .ok_or_else(|| RackError::UnknownPort { port: port.clone(), ports: ports.len() })
    }

    pub(crate) fn cable(&self, link: Link) -> Option<&Cable> {
        match self.inner.edge_weight(link) {
            Some(Edge::Cable(cable)) => Some(cable),
            _ => None,
        }
    }

    /// Changes a cable, if it is there; not its ends.
    pub(crate) fn cable_edit<T>(&mut self, link: Link, edit: impl FnOnce(&mut Cable) -> T) -> Option<T> {
        let Some(Edge::Cable(cable)) = self.inner.edge_weight_mut(link) else { return None };
        let had_room = cable.has_room();
        let result = edit(cable);
        let room = cable.has_room();
        if room != had_room
            && let Some((a, b)) = self.inner.edge_endpoints(link)
        {
            for node in [a, b] {
                match &mut self.inner[node] {
                    Vertex::Brick(brick) => brick.lanes.room_set(link, room),
                    Vertex::Switch(switch) => switch.trunks.room_set(link, room),
                    Vertex::Rack(_) | Vertex::Tray { .. } => {}
                }
            }
        }
        Some(result)
    }

    /// The cable that really connects these two ports.
    pub(crate) fn cable_between(&self, ends: &[PortRef; 2]) -> Option<Link> {
        let link = self.link_at(&ends[0]).ok().flatten()?;
        (self.link_at(&ends[1]).ok().flatten() == Some(link)).then_some(link)
    }

    /// Adds a circuit as an edge and takes its cables. The caller has checked that they have room.
    pub(crate) fn circuit_add(&mut self, circuit: Circuit) -> Result<(), RackError> {
        let near = self.node(&circuit.path.near().of)?;
        let far = self.node(&circuit.path.far().of)?;
        for ends in &circuit.path.cables {
            let link =
                self.cable_between(ends).ok_or_else(|| RackError::NoCable { port: ends[0].clone() })?;
            self.cable_edit(link, |cable| cable.circuits += 1);
        }
        let (id, class, usable) = (circuit.id, circuit.path.class, circuit.state.is_usable());
        let link = self.inner.add_edge(near, far, Edge::Circuit(Box::new(circuit)));
        self.circuits.insert(id, link);
        for (node, to) in [(near, far), (far, near)] {
            if let Vertex::Brick(brick) = &mut self.inner[node] {
                let end = CircuitEnd { to, class, id, link, usable };
                let place = brick.circuits.partition_point(|other| *other < end);
                brick.circuits.insert(place, end);
            }
        }
        Ok(())
    }

    /// Removes a circuit and frees its cables.
    pub(crate) fn circuit_remove(&mut self, id: CircuitId) {
        let Some(link) = self.circuits.remove(&id) else { return };
        self.each_end(link, |ends| ends.retain(|end| end.link != link));
        let Some(Edge::Circuit(circuit)) = self.inner.remove_edge(link) else { return };
        for ends in &circuit.path.cables {
            if let Some(link) = self.cable_between(ends) {
                self.cable_edit(link, |cable| cable.circuits -= 1);
            }
        }
    }

    pub(crate) fn circuit(&self, id: CircuitId) -> Option<&Circuit> {
        match self.inner.edge_weight(*self.circuits.get(&id)?) {
            Some(Edge::Circuit(circuit)) => Some(circuit),
            _ => None,
        }
    }

    /// Changes a circuit, if it is there; not its way.
    pub(crate) fn circuit_edit<T>(
        &mut self,
        id: CircuitId,
        edit: impl FnOnce(&mut Circuit) -> T,
    ) -> Option<T> {
        let link = *self.circuits.get(&id)?;
        let Some(Edge::Circuit(circuit)) = self.inner.edge_weight_mut(link) else { return None };
        let result = edit(circuit);
        let usable = circuit.state.is_usable();
        self.each_end(link, |ends| {
            ends.iter_mut().filter(|end| end.link == link).for_each(|end| end.usable = usable);
        });
        Some(result)
    }

    /// What the bricks at both ends of a circuit know of their circuits.
    fn each_end(&mut self, link: Link, mut change: impl FnMut(&mut Vec<CircuitEnd>)) {
        let Some((near, far)) = self.inner.edge_endpoints(link) else { return };
        for node in [near, far] {
            if let Vertex::Brick(brick) = &mut self.inner[node] {
                change(&mut brick.circuits);
            }
        }
    }

    pub(crate) fn circuits(&self) -> impl Iterator<Item = &Circuit> {
        self.inner.edge_weights().filter_map(|edge| match edge {
            Edge::Circuit(circuit) => Some(&**circuit),
            _ => None,
        })
    }

    /// The circuits of a brick, with the brick at the other end.
    pub(crate) fn circuits_of(&self, node: Node) -> impl Iterator<Item = (Node, &Circuit)> {
        self.circuit_ends(node).filter_map(|end| match self.inner.edge_weight(end.link) {
            Some(Edge::Circuit(circuit)) => Some((end.to, &**circuit)),
            _ => None,
        })
    }

    /// Vertices that keep something else beside them than their edges say. None, unless there is a mistake in this module.
    pub(crate) fn mistaken(&self) -> impl Iterator<Item = &Name> {
        let has_room = |link| self.cable(link).is_some_and(Cable::has_room);
        let mistaken = move |node: &Node| match &self.inner[*node] {
            Vertex::Brick(brick) => {
                !brick.lanes.are_true(has_room) || !self.circuits_at(*node).eq(brick.circuits.iter().copied())
            }
            Vertex::Switch(switch) => !switch.trunks.are_true(has_room),
            Vertex::Rack(_) | Vertex::Tray { .. } => false,
        };
        self.inner.node_indices().filter(mistaken).map(|node| self.inner[node].name())
    }

    /// The circuits of a brick as its edges say, ascending.
    fn circuits_at(&self, node: Node) -> impl Iterator<Item = CircuitEnd> {
        let ends = self.inner.edges(node).filter_map(|edge| match edge.weight() {
            Edge::Circuit(circuit) => Some(CircuitEnd {
                to: if edge.source() == node { edge.target() } else { edge.source() },
                class: circuit.path.class,
                id: circuit.id,
                link: edge.id(),
                usable: circuit.state.is_usable(),
            }),
            _ => None,
        });
        let mut ends: Vec<_> = ends.collect();
        ends.sort_unstable();
        ends.into_iter()
    }

    /// What a brick knows of its circuits, by the brick at the other end.
    pub(crate) fn circuit_ends(&self, node: Node) -> impl Iterator<Item = &CircuitEnd> {
        self.brick_at(node).into_iter().flat_map(|brick| &brick.circuits)
    }

    /// What is not as `path` needs it: the first cable that is gone or has no room.
    pub(crate) fn path_obstacle(&self, path: &Path) -> Option<String> {
        path.cables.iter().find_map(|ends| {
            let Some(cable) = self.cable_between(ends).and_then(|link| self.cable(link)) else {
                return Some(format!("the cable {} – {} is gone", ends[0], ends[1]));
            };
            (!cable.has_room())
                .then(|| format!("the cable {} – {} is now used by another circuit", ends[0], ends[1]))
        })
    }
}
