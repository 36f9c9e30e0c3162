//! A kernel that never runs.
//!
//! A machine that takes over a saved state needs the same devices and ROMs as the one that was saved, and QEMU makes the
//! boot ROM only for a machine with a kernel. Its contents come with the saved state, though, so a file of some 250
//! bytes serves as well as 53 MB that QEMU would read and copy at each start.

/// An ELF file with a PVH entry point, at which it halts.
pub(crate) fn kernel() -> Vec<u8> {
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    const LOAD_AT: u64 = 0x10_0000;
    const CODE: [u8; 3] = [0xf4, 0xeb, 0xfd]; // hlt; jmp back
    let mut note = Vec::new();
    // XEN_ELFNOTE_PHYS32_ENTRY of owner "Xen".
    for word in [4_u32, 8, 18] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    note.extend_from_slice(b"Xen\0");
    note.extend_from_slice(&LOAD_AT.to_le_bytes());
    let note_at = HEADER + 2 * SEGMENT;
    let code_at = note_at + note.len() as u64;

    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend_from_slice(&2_u16.to_le_bytes()); // an executable
    elf.extend_from_slice(&62_u16.to_le_bytes()); // for x86-64
    elf.extend_from_slice(&1_u32.to_le_bytes());
    for word in [LOAD_AT, HEADER, 0] {
        elf.extend_from_slice(&word.to_le_bytes()); // entry, segments, sections
    }
    elf.extend_from_slice(&0_u32.to_le_bytes());
    for half in [HEADER as u16, SEGMENT as u16, 2, 0, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    let mut segment = |kind: u32, flags: u32, at: u64, address: u64, size: u64, align: u64| {
        elf.extend_from_slice(&kind.to_le_bytes());
        elf.extend_from_slice(&flags.to_le_bytes());
        for word in [at, address, address, size, size, align] {
            elf.extend_from_slice(&word.to_le_bytes());
        }
    };
    segment(1, 5, code_at, LOAD_AT, CODE.len() as u64, 1);
    segment(4, 4, note_at, 0, note.len() as u64, 4);
    elf.extend_from_slice(&note);
    elf.extend_from_slice(&CODE);
    elf
}
