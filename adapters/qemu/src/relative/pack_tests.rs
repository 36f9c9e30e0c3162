#![allow(clippy::unwrap_used)]

use std::io::{Read, Seek, SeekFrom};

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
    let (packing, mut end) = Packing::start(into.try_clone().unwrap(), None).unwrap();
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
