//! The ELF kernel inside a distribution's bzImage.
//!
//! Booting vmlinux itself saves a quarter of a second under software emulation: nothing is unpacked in the guest.

/// Where the setup header says what its payload is (Linux x86 boot protocol 2.08 and later).
const SETUP_SECTORS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

const LZ4_LEGACY_MAGIC: u32 = 0x184c_2102;
const LZ4_LEGACY_BLOCK: usize = 8 << 20;
/// Far above any kernel: a damaged size must not make us ask for all memory.
const VMLINUX_MAX: usize = 512 << 20;

/// Unpacks the kernel's payload.
///
/// # Errors
/// What is wrong with the image, as a phrase.
pub(crate) fn vmlinux(bz_image: &[u8]) -> Result<Vec<u8>, String> {
    let word = |at: usize| read_u32(bz_image, at).ok_or("too short for a bzImage");
    if bz_image.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS") {
        return Err("no bzImage: its boot header is missing".to_owned());
    }
    let sectors = match bz_image[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * SECTOR + word(PAYLOAD_OFFSET)? as usize;
    let length = word(PAYLOAD_LENGTH)? as usize;
    let payload = start
        .checked_add(length)
        .and_then(|end| bz_image.get(start..end))
        .ok_or("its boot header points behind its end")?;
    let elf = unpack_lz4(payload)?;
    if elf.starts_with(b"\x7fELF") { Ok(elf) } else { Err("its payload is no ELF kernel".to_owned()) }
}

/// An lz4 "legacy" stream (magic, then blocks with their packed size before them) and the kernel build's trailer: the
/// unpacked size.
fn unpack_lz4(payload: &[u8]) -> Result<Vec<u8>, String> {
    if read_u32(payload, 0) != Some(LZ4_LEGACY_MAGIC) {
        return Err("its payload is not compressed with lz4, and nothing else can be read".to_owned());
    }
    let end = payload.len() - 4;
    let size = read_u32(payload, end).unwrap_or_default() as usize;
    if size > VMLINUX_MAX {
        return Err(format!("its payload claims to unpack to {size} bytes"));
    }
    let mut out = Vec::with_capacity(size);
    let mut at = 4;
    while at < end {
        let packed = read_u32(payload, at).ok_or("its payload ends early")? as usize;
        at += 4;
        let block = payload[..end].get(at..at + packed).ok_or("its payload ends early")?;
        let unpacked = lz4_flex::block::decompress(block, LZ4_LEGACY_BLOCK)
            .map_err(|error| format!("its payload is damaged: {error}"))?;
        out.extend(unpacked);
        at += packed;
    }
    if out.len() == size {
        Ok(out)
    } else {
        Err(format!("its payload unpacks to {} bytes and should to {size}", out.len()))
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    word.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A bzImage with this payload, in two blocks.
    pub(crate) fn make_bz_image(elf: &[u8]) -> Vec<u8> {
        let mut payload = LZ4_LEGACY_MAGIC.to_le_bytes().to_vec();
        for block in elf.chunks(elf.len() / 2 + 1) {
            let packed = lz4_flex::block::compress(block);
            payload.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
            payload.extend(packed);
        }
        payload.extend(u32::try_from(elf.len()).unwrap().to_le_bytes());
        let mut image = vec![0; SECTOR * 2 + 16];
        image[SETUP_SECTORS] = 1;
        image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16_u32.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend(payload);
        image
    }

    #[test]
    fn the_payload_of_a_bz_image_comes_out_whole() {
        let elf = [b"\x7fELF".as_slice(), &[7; 5000], b"the end"].concat();
        assert_eq!(vmlinux(&make_bz_image(&elf)).unwrap(), elf);
    }

    #[test]
    fn a_kernel_cut_anywhere_is_an_error_and_no_panic() {
        let image = make_bz_image(&[b"\x7fELF".as_slice(), &[7; 300]].concat());
        for length in 0..image.len() {
            assert!(vmlinux(&image[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_payload_that_is_no_elf_file_is_refused() {
        assert!(vmlinux(&make_bz_image(b"something else")).unwrap_err().contains("no ELF"));
    }
}
