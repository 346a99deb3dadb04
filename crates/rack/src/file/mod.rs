//! The rack file: racks, trays, bricks, switches and cables as people write them, in TOML.
//!
//! Reading gives the events that register everything, in order, or the first mistake with its line, its column and what is allowed
//! there. It reads no file: the text is handed in.

mod mistake;
mod schema;

use std::ops::Range;

pub use mistake::Mistake;
use schema::RackFile;
use toml::Spanned;

use crate::{BrickSpec, CableSpec, Event, Name, Offer, Place, Rack, RackError, SwitchSpec};

/// The text of a rack file, which is written in UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, Mistake> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let byte = bytes[error.valid_up_to()];
        let problem =
            format!("byte 0x{byte:02x} is no text: a rack file is TOML in UTF-8; save it as that, and without compression");
        Mistake::new(&good, good.len()..good.len(), &problem)
    })
}

/// Reads a rack file. Everything in it must be consistent in itself.
pub fn read(source: &str) -> Result<Vec<Event>, Mistake> {
    read_judged(source, &|_| Ok(()))
}

/// The same, and `judge` says what is wrong with the address that an event has: here addresses are only text.
pub fn read_judged(
    source: &str,
    judge: &dyn Fn(&Event) -> Result<(), String>,
) -> Result<Vec<Event>, Mistake> {
    // Some editors begin a file with a byte order mark; it is no column of the first line.
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let file: RackFile = toml::from_str(source).map_err(|error| {
        Mistake::new(source, error.span().unwrap_or(0..0), &mistake::sentence(error.message()))
    })?;
    let mut reader = Reader { source, judge, rack: Rack::default(), events: Vec::new() };
    reader.places(&file)?;
    reader.bricks(&file)?;
    reader.switches(&file)?;
    for cable in file.cable {
        let cable = cable.into_inner();
        let span = cable.ends.span();
        let (ends, latency_ns, mbps) = (cable.ends.into_inner().0, cable.latency, cable.bandwidth);
        reader.add(Event::CableAdded(CableSpec { ends, latency_ns, mbps }), span)?;
    }
    if reader.events.is_empty() {
        let problem =
            "the file registers nothing: write a [[rack]], its [[tray]]s, bricks, switches and cables";
        return Err(Mistake::new(source, 0..0, problem));
    }
    Ok(reader.events)
}

/// Tries everything on an empty rack, so that the file is judged by the very checks that registration makes.
struct Reader<'a> {
    source: &'a str,
    judge: &'a dyn Fn(&Event) -> Result<(), String>,
    rack: Rack,
    events: Vec<Event>,
}

impl Reader<'_> {
    fn add(&mut self, event: Event, span: Range<usize>) -> Result<(), Mistake> {
        let applied = self.rack.apply(&event);
        applied.map_err(|error| Mistake::new(self.source, span, &self.with_known(&error)))?;
        self.events.push(event);
        Ok(())
    }

    /// The same for what may have an address.
    fn add_with(
        &mut self,
        event: Event,
        span: Range<usize>,
        address: Option<&Spanned<String>>,
    ) -> Result<(), Mistake> {
        if let Some(address) = address {
            let judged = (self.judge)(&event);
            judged.map_err(|problem| Mistake::new(self.source, address.span(), &problem))?;
        }
        self.add(event, span)
    }

    /// The error, and for an unknown name those that there are.
    fn with_known(&self, error: &RackError) -> String {
        let known: Vec<&Name> = match error {
            RackError::Unknown { what: "rack", .. } => self.rack.racks().collect(),
            RackError::Unknown { what: "tray", .. } => self.rack.trays().map(|(tray, _)| tray).collect(),
            RackError::Unknown { what: "brick, switch, tray or rack", name } => {
                return format!("there is no brick or switch '{name}' in this file");
            }
            _ => return error.to_string(),
        };
        if known.is_empty() {
            return format!("{error}; this file has none");
        }
        let known = known.into_iter().map(Name::to_string).collect::<Vec<_>>().join(", ");
        format!("{error}; there are: {known}")
    }

    fn places(&mut self, file: &RackFile) -> Result<(), Mistake> {
        for rack in &file.rack {
            let name = &rack.as_ref().name;
            self.add(Event::RackAdded(name.as_ref().clone()), name.span())?;
        }
        for tray in &file.tray {
            let (name, rack) = (&tray.as_ref().name, &tray.as_ref().rack);
            let (span, event) = (
                if self.rack.racks().any(|known| known == rack.as_ref()) { name.span() } else { rack.span() },
                Event::TrayAdded { name: name.as_ref().clone(), rack: rack.as_ref().clone() },
            );
            self.add(event, span)?;
        }
        Ok(())
    }

    fn bricks(&mut self, file: &RackFile) -> Result<(), Mistake> {
        macro_rules! bricks {
            ($entries:expr, $entry:ident => $offers:expr) => {
                for entry in $entries {
                    let $entry = entry.as_ref();
                    let (name, tray) = (&$entry.name, &$entry.tray);
                    let spec = BrickSpec {
                        name: name.as_ref().clone(),
                        tray: tray.as_ref().clone(),
                        ports: $entry.ports,
                        offers: $offers,
                        power: $entry.power.into(),
                        watts: $entry.watts,
                        address: $entry.address.as_ref().map(|address| address.as_ref().clone()),
                    };
                    let known = self.rack.trays().any(|(known, _)| known == tray.as_ref());
                    let span = if known { name.span() } else { tray.span() };
                    self.add_with(Event::BrickAdded(spec), span, $entry.address.as_ref())?;
                }
            };
        }
        bricks!(&file.compute, brick => Offer::Compute { cores: brick.cores, local: brick.local });
        bricks!(&file.memory, brick => Offer::Memory { size: brick.size });
        bricks!(&file.accelerator, brick => Offer::Accelerator { model: brick.model.clone(), slots: brick.slots });
        Ok(())
    }

    fn switches(&mut self, file: &RackFile) -> Result<(), Mistake> {
        for entry in &file.switch {
            let switch = entry.as_ref();
            let mut span = switch.name.span();
            let place = match (&switch.tray, &switch.rack) {
                (Some(tray), Some(_)) => {
                    let problem =
                        format!("'{}' stands in a tray or in a rack; name one of them", switch.name.as_ref());
                    return Err(Mistake::new(self.source, tray.span(), &problem));
                }
                (Some(tray), None) => {
                    if !self.rack.trays().any(|(known, _)| known == tray.as_ref()) {
                        span = tray.span();
                    }
                    Place::Tray(tray.as_ref().clone())
                }
                (None, Some(rack)) => {
                    if !self.rack.racks().any(|known| known == rack.as_ref()) {
                        span = rack.span();
                    }
                    Place::Rack(rack.as_ref().clone())
                }
                (None, None) => Place::Between,
            };
            let spec = SwitchSpec {
                name: switch.name.as_ref().clone(),
                place,
                kind: switch.kind,
                ports: switch.ports,
                watts: switch.watts,
                address: switch.address.as_ref().map(|address| address.as_ref().clone()),
            };
            self.add_with(Event::SwitchAdded(spec), span, switch.address.as_ref())?;
        }
        Ok(())
    }
}
