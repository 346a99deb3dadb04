//! A writer of cpio archives in the "newc" form, which the kernel unpacks as its first root directory
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`). It needs no root: owners and devices are only numbers in it.

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File {
        content: Vec<u8>,
        executable: bool,
    },
    Link {
        target: String,
    },
    /// A character device by its numbers.
    Device {
        major: u32,
        minor: u32,
    },
}

/// An archive that grows entry by entry. A directory has to stand in it before what lies in the directory.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const MAGIC: &str = "070701";
const END: &str = "TRAILER!!!";

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Archive {
    /// Adds `node` at `path`, which is relative to the root.
    pub(super) fn add(&mut self, path: &str, node: &Node) {
        match node {
            Node::Directory => self.entry(path, DIRECTORY, &[], (0, 0)),
            Node::File { content, executable: false } => self.entry(path, FILE, content, (0, 0)),
            Node::File { content, executable: true } => self.entry(path, PROGRAM, content, (0, 0)),
            Node::Link { target } => self.entry(path, LINK, target.as_bytes(), (0, 0)),
            Node::Device { major, minor } => self.entry(path, CHARACTER_DEVICE, &[], (*major, *minor)),
        }
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(END, 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.entries += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let (inode, time, name) = (self.entries, 0, path.len() + 1);
        let (owner, group, own_device, check) = (0, 0, (0, 0), 0);
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        let length = u32::try_from(content.len()).expect("a file of an initramfs is smaller than 4 GiB");
        let name = u32::try_from(name).expect("a path is shorter than 4 GiB");
        for field in [
            inode,
            mode,
            owner,
            group,
            links,
            time,
            length,
            own_device.0,
            own_device.1,
            device.0,
            device.1,
            name,
            check,
        ] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads an archive back by the format's description, not by the writer's code.
    fn read(bytes: &[u8]) -> Vec<(String, Node)> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            let field = |n: usize| {
                let start = at + 6 + 8 * n;
                u32::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (mode, length, name_length) = (field(1), field(6) as usize, field(11) as usize);
            let device = (field(9), field(10));
            let name = &bytes[at + 110..at + 110 + name_length];
            assert_eq!(name.last(), Some(&0));
            let name = String::from_utf8(name[..name_length - 1].to_vec()).unwrap();
            let start = (at + 110 + name_length).next_multiple_of(4);
            let content = bytes[start..start + length].to_vec();
            at = (start + length).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(at, bytes.len());
                return found;
            }
            let node = match mode >> 12 {
                0o04 => Node::Directory,
                0o10 => Node::File { content, executable: mode & 0o111 != 0 },
                0o12 => Node::Link { target: String::from_utf8(content).unwrap() },
                0o02 => Node::Device { major: device.0, minor: device.1 },
                other => panic!("mode {other:o}"),
            };
            found.push((name, node));
        }
    }

    fn node() -> impl Strategy<Value = Node> {
        prop_oneof![
            Just(Node::Directory),
            (prop::collection::vec(any::<u8>(), 0..50), any::<bool>())
                .prop_map(|(content, executable)| Node::File { content, executable }),
            "[a-z/.]{1,20}".prop_map(|target| Node::Link { target }),
            (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Node::Device { major, minor }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_added_is_read_back(entries in prop::collection::vec(("[a-zäö/.-]{1,30}", node()), 0..8)) {
            let mut archive = Archive::default();
            for (path, node) in &entries {
                archive.add(path, node);
            }
            prop_assert_eq!(read(&archive.finish()), entries);
        }
    }
}
