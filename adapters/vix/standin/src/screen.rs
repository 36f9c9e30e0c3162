//! A picture for guests that have no screen, which says so.

/// Five columns of seven dots for each letter, the top dot in the lowest bit.
const LETTERS: [(char, [u8; 5]); 9] = [
    ('A', [0x7E, 0x09, 0x09, 0x09, 0x7E]),
    ('D', [0x7F, 0x41, 0x41, 0x41, 0x3E]),
    ('E', [0x7F, 0x49, 0x49, 0x49, 0x41]),
    ('I', [0x00, 0x41, 0x7F, 0x41, 0x00]),
    ('L', [0x7F, 0x40, 0x40, 0x40, 0x40]),
    ('M', [0x7F, 0x02, 0x0C, 0x02, 0x7F]),
    ('S', [0x46, 0x49, 0x49, 0x49, 0x31]),
    ('T', [0x01, 0x01, 0x7F, 0x01, 0x01]),
    ('U', [0x3F, 0x40, 0x40, 0x40, 0x3F]),
];

const TEXT: &str = "SIMULATED";
/// Dots for each dot.
const SCALE: usize = 3;
const MARGIN: usize = 4;

/// A PNG that says SIMULATED, white on black, in its dots and in a comment.
pub(crate) fn simulated() -> Vec<u8> {
    let width = (TEXT.len() * 6 - 1 + 2 * MARGIN) * SCALE;
    let height = (7 + 2 * MARGIN) * SCALE;
    let mut rows = Vec::with_capacity((width + 1) * height);
    for y in 0..height {
        // Each row begins with its filter: none.
        rows.push(0);
        rows.extend((0..width).map(|x| if is_lit(x / SCALE, y / SCALE) { 255 } else { 0 }));
    }
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend_from_slice(&(width as u32).to_be_bytes());
    header.extend_from_slice(&(height as u32).to_be_bytes());
    // Eight bits of grey, not interlaced.
    header.extend_from_slice(&[8, 0, 0, 0, 0]);
    chunk(&mut png, b"IHDR", &header);
    chunk(&mut png, b"tEXt", b"Comment\0simulated by vmtask's stand-in for VIX");
    chunk(&mut png, b"IDAT", &stored(&rows));
    chunk(&mut png, b"IEND", b"");
    png
}

fn is_lit(x: usize, y: usize) -> bool {
    let (Some(x), Some(y)) = (x.checked_sub(MARGIN), y.checked_sub(MARGIN)) else { return false };
    let letter = TEXT.chars().nth(x / 6);
    let columns = letter.and_then(|letter| LETTERS.iter().find(|(known, _)| *known == letter));
    y < 7 && columns.and_then(|(_, columns)| columns.get(x % 6)).is_some_and(|column| column >> y & 1 == 1)
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    png.extend_from_slice(&(data.len() as u32).to_be_bytes());
    let start = png.len();
    png.extend_from_slice(kind);
    png.extend_from_slice(data);
    let sum = crc32fast::hash(&png[start..]);
    png.extend_from_slice(&sum.to_be_bytes());
}

/// As zlib keeps what it does not compress.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks: Vec<&[u8]> = data.chunks(0xFFFF).collect();
    for (index, block) in blocks.iter().enumerate() {
        let size = block.len() as u16;
        out.push(u8::from(index + 1 == blocks.len()));
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&(!size).to_le_bytes());
        out.extend_from_slice(block);
    }
    let (a, b) = data.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    out.extend_from_slice(&(b << 16 | a).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_of_the_text_can_be_drawn() {
        for letter in TEXT.chars() {
            assert!(LETTERS.iter().any(|(known, _)| *known == letter), "{letter}");
        }
        assert!(is_lit(MARGIN + 1, MARGIN) && !is_lit(0, 0));
    }

    #[test]
    fn the_picture_is_a_png_that_says_what_it_is() {
        let png = simulated();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.ends_with(&[0xAE, 0x42, 0x60, 0x82]));
        assert!(png.windows(9).any(|words| words == b"simulated"));
    }
}
