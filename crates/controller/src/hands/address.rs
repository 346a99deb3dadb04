//! Addresses of bricks and switches, as they are registered: what can be asked there, and so what is refused before it is registered.

use rackmem_api::client::Endpoint;
use rackmem_rack::{BrickSpec, Event, Offer, SwitchSpec};
use rackmem_switch::SwitchAddress;
use rackmem_types::ServerAddress;

/// Addresses of memory servers that are only numbers: nothing is there to be asked.
const SIMULATED: &str = "sim:";

/// Room for two names of hosts and a path.
const ADDRESS_MAX: usize = 1024;

/// The part that compute bricks reach.
pub(super) fn data(address: &str) -> &str {
    address.split_once(',').map_or(address, |(data, _)| data)
}

/// The part that the controller reaches.
pub(super) fn management(address: &str) -> &str {
    address.split_once(',').map_or(address, |(_, management)| management)
}

/// Whether nothing is there to be asked.
pub(super) fn is_simulated(part: &str) -> bool {
    part.starts_with(SIMULATED)
}

/// The agent at a part of an address.
pub(super) fn agent(part: &str) -> Result<Endpoint, String> {
    part.parse().map_err(|error: rackmem_api::ApiError| error.to_string())
}

/// The memory server at a part of an address, simulated ones by their numbers.
pub(super) fn server(part: &str) -> Result<ServerAddress, String> {
    let part = part.strip_prefix(SIMULATED).unwrap_or(part);
    part.parse().map_err(|error: rackmem_types::ParseServerError| error.to_string())
}

/// Refuses what registers a brick or a switch with an address at which nobody could be asked.
pub(crate) fn judge(event: &Event) -> Result<(), String> {
    let (name, judged) = match event {
        Event::BrickAdded(BrickSpec { name, address: Some(address), offers, .. }) => {
            let part = |part| match offers {
                Offer::Memory { .. } => server(part).map(drop),
                Offer::Compute { .. } | Offer::Accelerator { .. } => agent(part).map(drop),
            };
            let parts = |()| [data(address), management(address)].into_iter().try_for_each(part);
            (name, plain(address).and_then(parts))
        }
        Event::SwitchAdded(SwitchSpec { name, address: Some(address), .. }) => {
            let parsed = |()| address.parse::<SwitchAddress>().map(drop).map_err(|error| error.to_string());
            (name, plain(address).and_then(parsed))
        }
        _ => return Ok(()),
    };
    judged.map_err(|error| format!("'{name}' cannot be asked at its address: {error}"))
}

/// Refuses what is not even worth being repeated in a refusal.
fn plain(address: &str) -> Result<(), String> {
    if address.len() > ADDRESS_MAX {
        return Err(format!("it has {} bytes, at most {ADDRESS_MAX} can be used", address.len()));
    }
    if address.contains(char::is_control) {
        return Err("it has control characters, a line break for example".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rackmem_rack::file;

    use super::judge;

    /// What is said to a rack with this brick or switch in it.
    fn told(kind: &str, address: &str) -> Result<(), String> {
        let more = match kind {
            "compute" => "cores = 1, local = \"1GiB\"",
            "memory" => "size = \"1GiB\"",
            "accelerator" => "model = \"a\", slots = 1",
            _ => "kind = \"circuit\"",
        };
        let address = serde_json::to_string(address).unwrap();
        let source = format!(
            "rack = [{{ name = \"r1\" }}]\ntray = [{{ name = \"t1\", rack = \"r1\" }}]\n\
             {kind} = [{{ name = \"x1\", tray = \"t1\", ports = 2, {more}, address = {address} }}]\n"
        );
        file::read_judged(&source, &judge).map(drop).map_err(|mistake| {
            assert_eq!(mistake.line, 3, "{mistake}");
            assert!(mistake.text[..mistake.column - 1].ends_with("address = "), "{mistake}");
            mistake.problem
        })
    }

    #[test]
    fn what_hands_can_ask_is_registered() {
        for address in
            ["10.0.0.1:7080", "http://a:1/agents/c1", "https://[::1]:7080", "unix:/run/a.sock", "a:1,b:2"]
        {
            assert_eq!(told("compute", address), Ok(()));
            assert_eq!(told("accelerator", address), Ok(()));
        }
        for address in ["10.0.0.1:7070", "m1:1,m1:2", "unix:/run/m.sock", "shm:/run/m.sock", "sim:m1:7070"] {
            assert_eq!(told("memory", address), Ok(()));
        }
        for address in ["tc:rack:s1", "sim:8"] {
            assert_eq!(told("switch", address), Ok(()));
        }
    }

    #[test]
    fn what_nobody_could_ask_is_refused_with_what_to_write() {
        let long = format!("{}:1", "a".repeat(200_000));
        for (kind, words) in [
            ("compute", "unix:PATH"),
            ("accelerator", "unix:PATH"),
            ("memory", "shm:PATH"),
            ("switch", "sim:PORTS"),
        ] {
            for address in ["", "not an address", "host", "a:99999", ",", "a:1,"] {
                let told = told(kind, address).unwrap_err();
                assert!(told.contains("'x1'") && told.contains(words), "{told}");
            }
            for (address, words) in [("127.0.0.1:1\r\nX: y", "control"), (&long, "at most")] {
                let told = told(kind, address).unwrap_err();
                assert!(told.contains(words) && told.len() < 200, "{told}");
            }
        }
        for (kind, address) in
            [("compute", "shm:/etc/passwd"), ("memory", "http://m1:7070"), ("memory", "sim:7")]
        {
            assert!(told(kind, address).is_err(), "{address}");
        }
    }
}
