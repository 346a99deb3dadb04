//! What a rack file comes to on one machine: namespaces, devices and addresses. Pure.
//!
//! Bricks are numbered in the order of the file. A brick has one address on the data net, whichever of its ports a circuit takes,
//! and one on the management net; both follow from its number. Racks do not see each other's, so all racks use the same.

use std::net::Ipv4Addr;

use rackmem_rack::{CableSpec, Event, Name, Offer, PortRef, Power, SwitchKind};
use serde::{Deserialize, Serialize};

use crate::EmulateError;

/// Most bricks: each is one or two processes and a namespace, and knows every other's address by heart.
pub const BRICKS_MAX: usize = 64;

/// Where a memory server listens.
const MEMORY_PORT: u16 = 7070;

/// Where an agent listens.
const AGENT_PORT: u16 = 7080;

/// A brick's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrickPlace {
    /// The brick.
    pub name: Name,
    /// Counted from 1.
    pub number: u8,
    /// The tray that it sits in.
    pub tray: Name,
    /// Its network namespace.
    pub namespace: String,
    /// Its address on the data net, which circuits carry.
    pub data: Ipv4Addr,
    /// Its address on the management net.
    pub management: Ipv4Addr,
    /// Where its memory server or its agent listens, on either net.
    pub port: u16,
    /// What it offers.
    pub offers: Offer,
    /// Whether its programs run.
    pub on: bool,
    /// Its ports that have a cable.
    pub cabled: Vec<u16>,
}

impl BrickPlace {
    /// Where the controller finds it. A memory server is used by others over the data net, which the controller is not on.
    pub(crate) fn address(&self) -> String {
        let Self { data, management, port, .. } = self;
        match self.offers {
            Offer::Memory { .. } => format!("{data}:{port},{management}:{port}"),
            _ => format!("{management}:{port}"),
        }
    }
}

/// A switch's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchPlace {
    /// The switch.
    pub name: Name,
    /// Its network namespace; its ports are the devices `p0`, `p1`, … there.
    pub namespace: String,
    /// Where its driver finds it.
    pub address: String,
}

/// A rack on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Its name.
    pub name: Name,
    /// What registers it: the file's events with the addresses here.
    pub events: Vec<Event>,
    /// Bricks in the order of the file.
    pub bricks: Vec<BrickPlace>,
    /// Switches in the order of the file.
    pub switches: Vec<SwitchPlace>,
}

impl Layout {
    /// The rack `name`, of a rack file's `events`.
    pub fn new(name: &Name, events: Vec<Event>) -> Result<Self, EmulateError> {
        let mut layout = Self { name: name.clone(), events, bricks: Vec::new(), switches: Vec::new() };
        let count = layout.events.iter().filter(|event| matches!(event, Event::BrickAdded(_))).count();
        if count > BRICKS_MAX {
            return Err(EmulateError::TooMany { count, max: BRICKS_MAX });
        }
        let ends: Vec<PortRef> = layout.cables().flat_map(|cable| cable.ends.clone()).collect();
        for event in &mut layout.events {
            match event {
                Event::BrickAdded(spec) => {
                    let number = layout.bricks.len() as u8 + 1;
                    let place = BrickPlace {
                        name: spec.name.clone(),
                        number,
                        tray: spec.tray.clone(),
                        namespace: format!("{name}:{}", spec.name),
                        data: Ipv4Addr::new(10, 77, 0, number),
                        management: Ipv4Addr::new(10, 78, 0, number),
                        port: if matches!(spec.offers, Offer::Memory { .. }) {
                            MEMORY_PORT
                        } else {
                            AGENT_PORT
                        },
                        offers: spec.offers.clone(),
                        on: spec.power == Power::On,
                        cabled: ends.iter().filter(|end| end.of == spec.name).map(|end| end.port).collect(),
                    };
                    spec.address = Some(place.address());
                    layout.bricks.push(place);
                }
                Event::SwitchAdded(spec) => {
                    if spec.kind == SwitchKind::Packet {
                        return Err(EmulateError::Packet(spec.name.clone()));
                    }
                    let namespace = format!("{name}:{}", spec.name);
                    let address = format!("tc:{namespace}");
                    spec.address = Some(address.clone());
                    layout.switches.push(SwitchPlace { name: spec.name.clone(), namespace, address });
                }
                _ => {}
            }
        }
        Ok(layout)
    }

    /// The rack file `source` with the addresses that its bricks and switches have here: what the controller registers.
    pub fn registration(&self, source: &str) -> Result<String, EmulateError> {
        // It was read as a rack file before; to this reader it cannot be wrong.
        let unreadable = |error: String| EmulateError::State {
            path: self.name.as_str().into(),
            reason: std::io::Error::other(error),
        };
        let mut file: toml::Table =
            source.parse().map_err(|error: toml::de::Error| unreadable(error.to_string()))?;
        let bricks = self.bricks.iter().map(|brick| (&brick.name, brick.address()));
        let switches = self.switches.iter().map(|switch| (&switch.name, switch.address.clone()));
        for (name, address) in bricks.chain(switches) {
            let entries = file.iter_mut().filter_map(|(_, value)| value.as_array_mut()).flatten();
            let mut tables = entries.filter_map(toml::Value::as_table_mut);
            let named = tables.find(|entry| {
                entry.get("name").and_then(toml::Value::as_str) == Some(name.as_str())
                    && (entry.contains_key("ports"))
            });
            if let Some(entry) = named {
                entry.insert("address".to_owned(), address.into());
            }
        }
        toml::to_string(&file).map_err(|error| unreadable(error.to_string()))
    }

    /// The namespace where the controller belongs: the only one from which every brick is reached.
    pub fn management(&self) -> &str {
        self.name.as_str()
    }

    /// Every namespace, the management's first.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        let bricks = self.bricks.iter().map(|brick| brick.namespace.as_str());
        [self.management()]
            .into_iter()
            .chain(bricks)
            .chain(self.switches.iter().map(|one| one.namespace.as_str()))
    }

    /// The cables.
    pub fn cables(&self) -> impl Iterator<Item = &CableSpec> {
        self.events.iter().filter_map(|event| match event {
            Event::CableAdded(cable) => Some(cable),
            _ => None,
        })
    }

    /// The brick `name`.
    pub fn brick(&self, name: &Name) -> Result<&BrickPlace, EmulateError> {
        let known = self.bricks.iter().map(|brick| &brick.name);
        let found = self.bricks.iter().find(|brick| brick.name == *name);
        found.ok_or_else(|| self.unknown("brick", name, known))
    }

    /// The switch `name`.
    pub fn switch(&self, name: &Name) -> Result<&SwitchPlace, EmulateError> {
        let known = self.switches.iter().map(|switch| &switch.name);
        let found = self.switches.iter().find(|switch| switch.name == *name);
        found.ok_or_else(|| self.unknown("switch", name, known))
    }

    fn unknown<'a>(
        &self,
        what: &'static str,
        name: &Name,
        known: impl Iterator<Item = &'a Name>,
    ) -> EmulateError {
        let known = known.map(Name::as_str).collect::<Vec<_>>().join(", ");
        EmulateError::Unknown { rack: self.name.clone(), what, name: name.clone(), known }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../examples/rack-4x4.toml");

    fn layout(source: &str) -> Result<Layout, EmulateError> {
        Layout::new(&"r".parse().unwrap(), rackmem_rack::file::read(source).unwrap())
    }

    #[test]
    fn addresses_follow_from_the_order_of_the_file() {
        let layout = layout(EXAMPLE).unwrap();
        let m1 = layout.brick(&"m1".parse().unwrap()).unwrap();
        assert_eq!((m1.data.to_string().as_str(), m1.namespace.as_str()), ("10.77.0.5", "r:m1"));
        assert_eq!(m1.cabled, [0, 1]);
        assert_eq!(layout.namespaces().count(), 1 + 8 + 3);
        let registered = layout.events.iter().find_map(|event| match event {
            Event::BrickAdded(spec) if spec.name == m1.name => spec.address.clone(),
            _ => None,
        });
        assert_eq!(registered.as_deref(), Some("10.77.0.5:7070,10.78.0.5:7070"));
        assert_eq!(layout.switch(&"s3".parse().unwrap()).unwrap().address, "tc:r:s3");
        let unknown = layout.brick(&"m9".parse().unwrap()).unwrap_err().to_string();
        assert!(unknown.contains("it has: c1, c2"), "{unknown}");
    }

    #[test]
    fn the_controller_registers_what_stands_here() {
        let layout = layout(EXAMPLE).unwrap();
        let registered = rackmem_rack::file::read(&layout.registration(EXAMPLE).unwrap()).unwrap();
        for event in &layout.events {
            assert!(registered.contains(event), "{event:?}");
        }
        assert_eq!(registered.len(), layout.events.len());
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let packet = EXAMPLE.replace("kind = \"circuit\"", "kind = \"packet\"");
        assert!(matches!(layout(&packet), Err(EmulateError::Packet(_))));
        let many: String = (0..65)
            .map(|n| format!("[[memory]]\nname = \"x{n}\"\ntray = \"t1\"\nsize = \"1GiB\"\nports = 1\n"))
            .collect();
        assert!(matches!(
            layout(&(EXAMPLE.to_owned() + "\n" + &many)),
            Err(EmulateError::TooMany { count: 73, .. })
        ));
    }
}
