//! A firmware of 160 bytes that asks one question: does a virtual CPU run at the speed of a real one? It goes from real mode
//! through protected mode into long mode with paging on, stores to memory fifty million times, and tells by a port that it
//! has. An accelerator that runs it in a blink runs a kernel too. One that only emulates kernel mode (KVM without hardware
//! support, as in some containers and nested hosts) needs minutes, although it starts a BIOS without complaint.

/// The port of QEMU's `isa-debug-exit` device.
pub(crate) const PORT: u8 = 0xf4;

/// What is written to the port; QEMU then ends with [`EXIT_CODE`].
const DONE: u8 = 0x2a;

/// How QEMU ends when the question is answered.
pub(crate) const EXIT_CODE: i32 = ((DONE as i32) << 1) | 1;

/// Stores in the loop: 20 ms on a processor of today, 150 ms translated, minutes if each is emulated.
const ROUNDS: u32 = 50_000_000;

/// The firmware appears at the end of the first MiB.
const BASE: u32 = 0xf_0000;

const ROM_BYTES: usize = 64 << 10;
const PROTECTED_MODE: usize = 0x18;
const LONG_MODE: usize = 0x6a;
const GDT_POINTER: usize = 0x81;
const GDT: usize = 0x87;
/// Where a processor begins.
const RESET: usize = 0xfff0;

/// Null, 32-bit code, data, 64-bit code.
const DESCRIPTORS: [u64; 4] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00af_9b00_0000_ffff];

/// The firmware's image.
pub(crate) fn rom() -> Vec<u8> {
    let mut rom = real_mode();
    assert_eq!(rom.len(), PROTECTED_MODE);
    rom.extend(protected_mode());
    assert_eq!(rom.len(), LONG_MODE);
    rom.extend(long_mode());
    assert_eq!(rom.len(), GDT_POINTER);
    rom.extend((size_of_val(&DESCRIPTORS) as u16 - 1).to_le_bytes());
    rom.extend((BASE + GDT as u32).to_le_bytes());
    assert_eq!(rom.len(), GDT);
    rom.extend(DESCRIPTORS.iter().flat_map(|descriptor| descriptor.to_le_bytes()));
    rom.resize(ROM_BYTES, 0);
    // jmp 0, relative to what follows the three bytes
    let back = (ROM_BYTES - (RESET + 3)) as u16;
    rom[RESET] = 0xe9;
    rom[RESET + 1..RESET + 3].copy_from_slice(&back.to_le_bytes());
    rom
}

fn real_mode() -> Vec<u8> {
    let mut code = vec![0xfa]; // cli
    code.extend([0x2e, 0x66, 0x0f, 0x01, 0x16, GDT_POINTER as u8, 0]); // lgdtl %cs:GDT_POINTER
    code.extend([0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0]); // cr0 |= protection
    code.extend([0x66, 0xea]); // ljmpl $8, PROTECTED_MODE
    code.extend((BASE + PROTECTED_MODE as u32).to_le_bytes());
    code.extend([0x08, 0x00]);
    code
}

fn protected_mode() -> Vec<u8> {
    let mut code = vec![0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8]; // ds = data
    // Three tables that map the first 2 MiB to themselves.
    for (place, entry) in [(0x1000u32, 0x2003u32), (0x2000, 0x3003), (0x3000, 0x83)] {
        code.extend([0xc7, 0x05]); // movl $entry, place
        code.extend(place.to_le_bytes());
        code.extend(entry.to_le_bytes());
    }
    code.extend([0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8]); // cr3 = 0x1000
    code.extend([0x0f, 0x20, 0xe0, 0x0c, 0x20, 0x0f, 0x22, 0xe0]); // cr4 |= PAE
    code.extend([0xb9, 0x80, 0x00, 0x00, 0xc0]); // ecx = EFER
    code.extend([0x0f, 0x32, 0x80, 0xcc, 0x01, 0x0f, 0x30]); // EFER |= long mode
    code.extend([0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0]); // cr0 |= paging
    code.push(0xea); // ljmp $0x18, LONG_MODE
    code.extend((BASE + LONG_MODE as u32).to_le_bytes());
    code.extend([0x18, 0x00]);
    code
}

fn long_mode() -> Vec<u8> {
    let mut code = vec![0xb9]; // ecx = ROUNDS
    code.extend(ROUNDS.to_le_bytes());
    code.extend([0x89, 0x0c, 0x25, 0x00, 0x40, 0x00, 0x00]); // store: movl %ecx, 0x4000
    code.extend([0xff, 0xc9, 0x75, 0xf5]); // decl %ecx; jnz store
    code.extend([0xb0, DONE, 0xe6, PORT]); // outb DONE, PORT
    code.extend([0xf4, 0xeb, 0xfd]); // hlt for ever
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_begins_where_a_processor_does() {
        let rom = rom();
        assert_eq!(rom.len(), ROM_BYTES);
        assert_eq!(rom[0], 0xfa);
        assert_eq!(&rom[RESET..RESET + 3], [0xe9, 0x0d, 0x00]);
    }
}
