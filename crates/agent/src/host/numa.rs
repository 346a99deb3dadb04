//! NUMA nodes, from `/sys/devices/system/node`.

use std::fs;
use std::path::Path;

use rackmem_api::agent::NumaNode;

use super::meminfo;

/// All nodes, by number.
pub(crate) fn numa() -> Vec<NumaNode> {
    nodes(Path::new("/sys/devices/system/node"))
}

fn nodes(directory: &Path) -> Vec<NumaNode> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut nodes: Vec<NumaNode> = entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            Some(node(&entry.path(), id))
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}

fn node(directory: &Path, id: u32) -> NumaNode {
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let memory = read("meminfo");
    NumaNode {
        id,
        cpus: list(&read("cpulist")),
        memory: meminfo(&memory, &format!("Node {id} MemTotal:")),
        free: meminfo(&memory, &format!("Node {id} MemFree:")),
        distances: read("distance").split_whitespace().filter_map(|number| number.parse().ok()).collect(),
    }
}

/// The numbers of a list like `0-3,8`.
fn list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackmem_types::Bytes;

    #[test]
    fn a_far_node_is_one_without_processors() {
        let directory = tempfile::tempdir().unwrap();
        for (id, cpus, distance) in [(0, "0-1,4\n", "10 80\n"), (1, "\n", "80 10\n")] {
            let node = directory.path().join(format!("node{id}"));
            fs::create_dir(&node).unwrap();
            fs::write(node.join("cpulist"), cpus).unwrap();
            fs::write(node.join("distance"), distance).unwrap();
            let memory = format!("Node {id} MemTotal:  2048 kB\nNode {id} MemFree:  1024 kB\n");
            fs::write(node.join("meminfo"), memory).unwrap();
        }
        fs::write(directory.path().join("online"), "0-1").unwrap();
        let nodes = nodes(directory.path());
        assert_eq!(nodes.len(), 2);
        assert_eq!((&nodes[0].cpus, &nodes[0].distances), (&vec![0, 1, 4], &vec![10, 80]));
        assert_eq!(
            (nodes[1].cpus.len(), nodes[1].memory, nodes[1].free),
            (0, Bytes(2 << 20), Bytes(1 << 20))
        );
    }
}
