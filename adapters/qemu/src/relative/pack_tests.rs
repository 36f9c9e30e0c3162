#![allow(clippy::unwrap_used)]

use std::io::{Read, Seek, SeekFrom};

use rstest::rstest;
use vmtask_core::FaultKind;
use vmtask_driver::Digest;

use super::*;

fn recorded() -> Vec<u8> {
    let packed = &include_bytes!("../../tests/records/qemu-7.2-background.lz4")[..];
    let mut stream = Vec::new();
    FrameDecoder::new(packed).read_to_end(&mut stream).unwrap();
    stream
}

fn packed(stream: &[u8], into: &File) -> Result<Packed, PackError> {
    let (packing, mut end) = Packing::beside(into.try_clone().unwrap(), None).unwrap();
    // Never refused and never stuck, whatever becomes of it.
    end.write_all(stream).unwrap();
    drop(end);
    packing.finish()
}

#[test]
fn what_is_packed_is_measured_and_comes_out_as_it_was() {
    let (stream, mut file) = (recorded(), tempfile::tempfile().unwrap());
    // As reserved.
    file.set_len(300 << 20).unwrap();
    let Packed { bytes, sha256 } = packed(&stream, &file).unwrap();
    assert_eq!(file.metadata().unwrap().len(), bytes, "what was reserved is cut off");
    file.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(Digest::of_reader(&file).unwrap(), (bytes, sha256));
    assert!(bytes < stream.len() as u64 / 2);
    file.seek(SeekFrom::Start(0)).unwrap();
    let (feed, mut end) = Feed::start(file).unwrap();
    let mut fed = Vec::new();
    end.read_to_end(&mut fed).unwrap();
    assert!(fed == stream);
    assert!(feed.failure().is_none());
}

/// A stream of so many pages of noise, which no packing makes shorter.
fn noise(pages: u64) -> Vec<u8> {
    let recorded = recorded();
    let find = |what: &[u8]| recorded.windows(what.len()).position(|window| window == what).unwrap();
    let mut stream = recorded[..find(b"\x7e\0\0\0\x02") + 5].to_vec();
    stream.extend(b"\x02\0\0\0\x02");
    let mut state = 1_u64;
    for page in 0..pages {
        let same_block = if page == 0 { 0 } else { 0x20 };
        stream.extend(((page * 4096) | 0x08 | same_block).to_be_bytes());
        stream.extend(if page == 0 { &b"\x02m0"[..] } else { b"" });
        stream.extend((0..512).flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state ^ state >> 29).to_be_bytes()
        }));
    }
    stream.extend(0x10_u64.to_be_bytes());
    stream.extend(b"\x7e\0\0\0\x02");
    stream.extend(&recorded[find(b"\x04\0\0\0\0\x05timer")..]);
    stream
}

#[rstest]
#[case::of_a_guest(recorded())]
#[case::that_does_not_pack(noise(3000))]
fn a_stream_is_packed_in_its_place_as_it_is_beside(#[case] stream: Vec<u8>) {
    let beside = tempfile::tempfile().unwrap();
    let expected = packed(&stream, &beside).unwrap();
    let file = tempfile::tempfile().unwrap();
    // As reserved, and with what was there before.
    file.write_all_at(&vec![0xa5; stream.len() + (1 << 20)], 0).unwrap();
    let (packing, mut end) = Packing::after(file.try_clone().unwrap(), None).unwrap();
    end.write_all(&stream).unwrap();
    drop(end);
    assert_eq!(packing.finish().unwrap(), expected);
    let bytes = |file: &File| {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    assert!(bytes(&file) == bytes(&beside));
    assert_eq!(Digest::of(&bytes(&file)), expected.sha256);
}

/// Which only a stream of many gigabytes would come to by itself.
#[test]
fn what_was_not_read_yet_is_not_written_over() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[7; 40], 0).unwrap();
    let read = Cell::new(0);
    let mut ahead = Ahead { file: &file, read: &read, end: 40 };
    let mut behind = Behind { file: &file, read: &read, written: 0, waiting: Vec::new() };
    ahead.read_exact(&mut [0; 10]).unwrap();
    behind.write_all(&[1; 25]).unwrap();
    let mut rest = Vec::new();
    ahead.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [7; 30]);
    behind.write_all(&[2; 25]).unwrap();
    behind.write_up_to(u64::MAX).unwrap();
    let mut all = [0; 50];
    file.read_exact_at(&mut all, 0).unwrap();
    assert_eq!(all, [[1; 25], [2; 25]].concat()[..]);
}

#[test]
fn a_stream_that_is_not_understood_is_read_to_its_end_all_the_same() {
    let mut stream = recorded();
    stream[8] = 0xaa;
    let long = stream.repeat(20);
    let error = packed(&long, &tempfile::tempfile().unwrap()).err().unwrap();
    assert!(error.to_string().contains("a section of the kind 0xaa"), "{error}");
    assert_eq!(error.kind(), FaultKind::Refused);
}

#[test]
fn a_stream_for_which_there_is_no_room_is_read_to_its_end_all_the_same() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = packed(&recorded(), &full).err().unwrap();
    assert_eq!(error.kind(), FaultKind::NoSpace, "{error}");
}

#[test]
fn a_stream_that_breaks_off_is_no_checkpoint() {
    let stream = recorded();
    let error = packed(&stream[..stream.len() - 1], &tempfile::tempfile().unwrap()).err().unwrap();
    assert!(error.to_string().contains("breaks off"), "{error}");
}

#[test]
fn whoever_hangs_up_has_reasons_of_its_own() {
    let mut file = tempfile::tempfile().unwrap();
    packed(&recorded(), &file).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let (feed, end) = Feed::start(file).unwrap();
    let failure = Arc::clone(&feed.failure);
    drop((end, feed));
    // The thread ends: it is the last to hold this.
    while Arc::strong_count(&failure) > 1 {
        thread::yield_now();
    }
}

#[test]
fn what_cannot_be_unpacked_is_told_once_its_end_is_closed() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"this is no LZ4 frame, although it is long enough").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let (feed, mut end) = Feed::start(file).unwrap();
    let mut fed = Vec::new();
    end.read_to_end(&mut fed).unwrap();
    assert_eq!(fed, b"");
    assert_eq!(feed.failure().unwrap().kind(), io::ErrorKind::InvalidData);
}
