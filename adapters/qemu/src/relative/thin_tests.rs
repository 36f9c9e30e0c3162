//! Streams of every kind that the table at the head of the module allows, and of many that it does not.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Read;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::ram;

/// Pages of the guest's memory in these streams: more than one window of the template.
const MEMORY_PAGES: u64 = 40;
const BIOS_PAGES: u64 = 4;

/// What a page can hold here: one of a few fills. The template has `0, 1, 2, 0, 1, 2 ...`.
fn fill_of_template(page: u64) -> u8 {
    (page % 3) as u8
}

/// A template's memory.
struct Original {
    memory: File,
    held: Pages,
}

impl Original {
    fn of(bytes: u64) -> Self {
        Self { memory: ram::new_memory(bytes).unwrap(), held: Pages::none(bytes) }
    }

    fn template(&self) -> Option<Template<'_>> {
        Some(Template { memory: &self.memory, held: &self.held })
    }
}

fn template() -> Original {
    let mut original = Original::of(MEMORY_PAGES * PAGE as u64);
    for page in 0..MEMORY_PAGES {
        let (at, fill) = (page * PAGE as u64, fill_of_template(page));
        original.memory.write_all_at(&[fill; PAGE], at).unwrap();
        // Some empty pages are in the image, too.
        if fill != 0 || page % 2 == 0 {
            original.held.add(at);
        }
    }
    original
}

/// A stream in the making.
struct Stream {
    bytes: Vec<u8>,
    last: Option<&'static str>,
}

impl Stream {
    const ID: [u8; 4] = [0, 0, 0, 2];

    fn new() -> Self {
        let mut stream = Self { bytes: b"QEVM\0\0\0\x03\x07\0\0\0\x05q35-7".to_vec(), last: None };
        stream.add(&[SECTION_START]).add(&Self::ID).add(b"\x03ram").add(&[0, 0, 0, 0]).add(&[0, 0, 0, 4]);
        stream.word(((MEMORY_PAGES + BIOS_PAGES) * PAGE as u64) | SIZES);
        stream.add(b"\x02m0").word(MEMORY_PAGES * PAGE as u64);
        stream.add(b"\x07pc.bios").word(BIOS_PAGES * PAGE as u64);
        stream.end_section()
    }

    fn add(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn word(&mut self, word: u64) -> &mut Self {
        self.add(&word.to_be_bytes())
    }

    fn end_section(mut self) -> Self {
        self.word(EOS).add(&[FOOTER]).add(&Self::ID);
        self
    }

    fn heading(&mut self, block: &'static str, page: u64, kind: u64) {
        let word = (page * PAGE as u64) | kind;
        if self.last == Some(block) {
            self.word(word | CONTINUE);
        } else {
            self.word(word).add(&[block.len() as u8]).add(block.as_bytes());
            self.last = Some(block);
        }
    }

    fn page(mut self, block: &'static str, page: u64, fill: u8) -> Self {
        if fill == 0 {
            self.heading(block, page, ZERO);
            self.add(&[0]);
        } else {
            self.heading(block, page, WHOLE);
            self.add(&[fill; PAGE]);
        }
        self
    }

    /// An empty page that was not noticed to be one.
    fn empty_page_in_full(mut self, block: &'static str, page: u64) -> Self {
        self.heading(block, page, WHOLE);
        self.add(&[0; PAGE]);
        self
    }

    fn part(mut self, kind: u8) -> Self {
        self.add(&[kind]).add(&Self::ID);
        self
    }

    /// What QEMU never leaves out: each page once, here as in the template.
    fn all_pages(mut self) -> Self {
        for page in 0..MEMORY_PAGES {
            self = self.page("m0", page, fill_of_template(page));
        }
        self
    }

    fn devices(mut self) -> Vec<u8> {
        self.add(&[SECTION_FULL, 0, 0, 0, 0]).add(b"\x05timer").add(&[0, 0, 0, 0, 0, 0, 0, 2]).add(b"state of a timer");
        // Looks like the end, and is not.
        self.add(&[END_OF_SECTIONS, DESCRIPTION, 0, 0, 0, 1, b'{']);
        self.add(&[FOOTER, 0, 0, 0, 0]);
        let json = br#"{"page_size": 4096, "devices": [{"name": "timer"}]}"#;
        self.add(&[END_OF_SECTIONS, DESCRIPTION]).add(&(json.len() as u32).to_be_bytes()).add(json);
        self.bytes
    }
}

type Loaded = BTreeMap<(Vec<u8>, u64), u8>;

/// What a machine holds that has loaded a stream: read in another way than the code under test reads it, and by one that
/// believes the stream. Pages that were not in it stay as they were.
fn load(stream: &[u8], mut machine: Loaded) -> (Loaded, Vec<u8>) {
    let mut rest = &stream[Stream::new().bytes.len()..];
    assert_eq!(stream[..stream.len() - rest.len()], Stream::new().bytes, "the beginning is as it was");
    let mut block = Vec::new();
    while rest[0] != SECTION_FULL {
        assert_eq!(rest[1..5], Stream::ID);
        rest = &rest[5..];
        loop {
            let word = u64::from_be_bytes(rest[..8].try_into().unwrap());
            rest = &rest[8..];
            if word == EOS {
                break;
            }
            if word & CONTINUE == 0 {
                let length = usize::from(rest[0]);
                block = rest[1..=length].to_vec();
                rest = &rest[length + 1..];
            }
            let length = if word & WHOLE != 0 { PAGE } else { 1 };
            assert!(rest[..length].iter().all(|byte| *byte == rest[0]));
            machine.insert((block.clone(), word / PAGE as u64), rest[0]);
            rest = &rest[length..];
        }
        assert_eq!(rest[0], FOOTER);
        rest = &rest[5..];
    }
    (machine, rest.to_vec())
}

fn machine_with_template() -> Loaded {
    let memory = (0..MEMORY_PAGES).map(|page| ((MEMORY.to_vec(), page), fill_of_template(page)));
    // Whatever is there when QEMU starts.
    memory.chain((0..BIOS_PAGES).map(|page| ((b"pc.bios".to_vec(), page), 99))).collect()
}

fn thinned(stream: &[u8], template: Option<&Original>) -> (Vec<u8>, Counts) {
    let mut out = Vec::new();
    let pages = thin(stream, &mut out, template.and_then(Original::template)).unwrap();
    (out, pages)
}

/// One of the few things that can be sent.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Page(&'static str, u64, u8),
    EmptyInFull(u64),
    NextSection,
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        // Few pages and few contents: most are sent again, and many are as in the template.
        8 => (0..6_u64, 0..4_u8).prop_map(|(page, fill)| Sent::Page("m0", page, fill)),
        4 => (0..MEMORY_PAGES, 0..4_u8).prop_map(|(page, fill)| Sent::Page("m0", page, fill)),
        2 => (0..BIOS_PAGES, 0..4_u8).prop_map(|(page, fill)| Sent::Page("pc.bios", page, fill)),
        1 => (0..MEMORY_PAGES).prop_map(Sent::EmptyInFull),
        1 => Just(Sent::NextSection),
    ]
}

fn stream_of(all: &[Sent]) -> Vec<u8> {
    let mut stream = Stream::new().part(SECTION_PART).all_pages();
    for sent in all {
        stream = match *sent {
            Sent::Page(block, page, fill) => stream.page(block, page, fill),
            Sent::EmptyInFull(page) => stream.empty_page_in_full("m0", page),
            Sent::NextSection => stream.end_section().part(SECTION_PART),
        };
    }
    stream.end_section().devices()
}

proptest! {
    #[test]
    fn over_the_template_the_copy_leaves_what_the_original_leaves(all in prop::collection::vec(sent(), 0..80)) {
        let stream = stream_of(&all);
        let (copy, pages) = thinned(&stream, Some(&template()));
        prop_assert_eq!(load(&copy, machine_with_template()), load(&stream, machine_with_template()));
        let records = all.iter().filter(|sent| !matches!(sent, Sent::NextSection)).count() as u64;
        prop_assert_eq!(pages.kept + pages.dropped, MEMORY_PAGES + records);
        prop_assert!(copy.len() <= stream.len() + 8 * all.len(), "blocks may be named more often, and that is all");
    }

    #[test]
    fn without_a_template_nothing_changes(all in prop::collection::vec(sent(), 0..40)) {
        let stream = stream_of(&all);
        prop_assert!(thinned(&stream, None).0 == stream);
    }
}

#[test]
fn pages_that_are_as_in_the_template_are_dropped_and_others_are_not() {
    let stream = Stream::new().part(SECTION_PART).all_pages();
    let stream = stream.page("m0", 7, 9).page("pc.bios", 0, 0).end_section().devices();
    let (copy, pages) = thinned(&stream, Some(&template()));
    assert_eq!(pages, Counts { kept: 2, dropped: MEMORY_PAGES });
    let expected = Stream::new().part(SECTION_PART).page("m0", 7, 9).page("pc.bios", 0, 0).end_section().devices();
    assert!(copy == expected, "with nothing of m0 before it, page 7 names its block");
}

/// What a live copy does: page 4 is sent changed, changes back, and is sent again.
#[test]
fn a_page_that_has_gone_back_to_the_templates_content_is_kept_if_it_was_kept_before() {
    let back = fill_of_template(4);
    let live = Stream::new().part(SECTION_PART).all_pages().page("m0", 4, 77).end_section();
    let stream = live.part(SECTION_END).page("m0", 4, back).page("m0", 5, fill_of_template(5)).end_section().devices();
    let (copy, pages) = thinned(&stream, Some(&template()));
    assert_eq!(pages, Counts { kept: 2, dropped: MEMORY_PAGES + 1 });
    assert_eq!(load(&copy, machine_with_template()).0[&(MEMORY.to_vec(), 4)], back);
}

#[test]
fn a_stream_that_is_cut_anywhere_is_an_error() {
    // Empty pages are short, and every byte can be tried.
    let template = Original::of(MEMORY_PAGES * PAGE as u64);
    let stream = (0..MEMORY_PAGES).fold(Stream::new().part(SECTION_PART), |stream, page| stream.page("m0", page, 0));
    let stream = stream
        .page("m0", 0, 8)
        .page("pc.bios", 1, 0)
        .end_section()
        .part(SECTION_END)
        .page("m0", 3, 0)
        .end_section()
        .devices();
    for length in 0..stream.len() {
        let error = thin(&stream[..length], io::sink(), template.template()).unwrap_err();
        assert!(matches!(error, ThinError::Cut { at } if at <= length as u64), "cut at {length}: {error}");
    }
    thin(&stream[..], io::sink(), template.template()).unwrap();
}

#[test]
fn a_stream_that_leaves_out_a_page_of_the_template_is_an_error() {
    let stream = (1..MEMORY_PAGES).fold(begun(), |stream, page| stream.page("m0", page, 7).page("m0", page, 8));
    let stream = stream.end_section().devices();
    let error = thin(&stream[..], io::sink(), template().template()).unwrap_err().to_string();
    assert!(error.contains("leaves out 1 pages of the memory"), "{error}");
    thin(&stream[..], io::sink(), None).unwrap();
}

/// The beginning of a stream that is sound as far as it goes.
fn begun() -> Stream {
    Stream::new().part(SECTION_PART)
}

#[rstest]
#[case::another_file(|| b"\x7fELF\0\0\0\x03".to_vec(), "does not begin as one of version 3")]
#[case::an_older_version(|| b"QEVM\0\0\0\x02".to_vec(), "does not begin as one of version 3")]
#[case::a_long_machine_type(|| b"QEVM\0\0\0\x03\x07\xff\0\0\0".to_vec(), "a machine type of")]
#[case::a_second_configuration(|| { let mut s = Stream::new(); s.add(&[CONFIGURATION]); s.bytes }, "a section of the kind 0x07")]
#[case::a_subsection(|| b"QEVM\0\0\0\x03\x07\0\0\0\x01q\x05".to_vec(), "a section of the kind 0x05")]
#[case::a_command(|| b"QEVM\0\0\0\x03\x08\0\x01\0\0".to_vec(), "a section of the kind 0x08")]
#[case::no_memory(|| b"QEVM\0\0\0\x03\0".to_vec(), "a section of the kind 0x00")]
#[case::devices_before_the_memory(|| b"QEVM\0\0\0\x03\x04".to_vec(), "a section of the kind 0x04")]
#[case::block_migration(|| b"QEVM\0\0\0\x03\x01\0\0\0\x02\x05block\0\0\0\0\0\0\0\x01".to_vec(), "begins with a section \"block\" of version 1")]
#[case::another_memory(|| b"QEVM\0\0\0\x03\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x05".to_vec(), "a section \"ram\" of version 5")]
#[case::another_iterated_section(|| { let mut s = Stream::new(); s.add(&[SECTION_START]); s.bytes }, "a section of the kind 0x01")]
#[case::another_id(|| { let mut s = Stream::new(); s.add(&[SECTION_PART, 0, 0, 0, 9]); s.bytes }, "a section 9 that is not the memory's")]
#[case::no_footer(|| { let mut s = begun(); s.word(EOS).add(&[SECTION_PART, 0, 0, 0, 2]); s.bytes }, "does not end section 2")]
#[case::anothers_footer(|| { let mut s = begun(); s.word(EOS).add(&[FOOTER, 0, 0, 0, 3]); s.bytes }, "does not end section 2")]
#[case::flag_full(|| { let mut s = begun(); s.word(0x01); s.bytes }, "flags 0x001")]
#[case::flag_xbzrle(|| { let mut s = begun(); s.word(0x40); s.bytes }, "flags 0x040")]
#[case::flag_hook(|| { let mut s = begun(); s.word(0x80); s.bytes }, "flags 0x080")]
#[case::flag_compress(|| { let mut s = begun(); s.word(0x120); s.bytes }, "flags 0x120")]
#[case::flag_multifd(|| { let mut s = begun(); s.word(0x200); s.bytes }, "flags 0x200")]
#[case::flag_of_the_future(|| { let mut s = begun(); s.word(0x408); s.bytes }, "flags 0x408")]
#[case::no_flag(|| { let mut s = begun(); s.word(0x1000); s.bytes }, "flags 0x000")]
#[case::two_kinds(|| { let mut s = begun(); s.word(0x0a); s.bytes }, "flags 0x00a")]
#[case::an_end_with_an_address(|| { let mut s = begun(); s.word(0x1010); s.bytes }, "flags 0x010")]
#[case::sizes_twice(|| { let mut s = begun(); s.word(0x1004); s.bytes }, "flags 0x004")]
#[case::same_block_as_none(|| { let mut s = begun(); s.word(WHOLE | CONTINUE); s.bytes }, "did not announce")]
#[case::an_unknown_block(|| { let mut s = begun(); s.word(ZERO).add(b"\x03vga\0"); s.bytes }, "did not announce")]
#[case::the_same_as_an_unknown_block(|| { let mut s = begun().page("m0", 0, 0); s.word(ZERO).add(b"\x03vga\0"); s.bytes }, "did not announce")]
#[case::a_page_behind_the_end(|| begun().page("m0", MEMORY_PAGES, 5).bytes, "a page at 0x28000 of \"m0\"")]
#[case::a_page_far_behind_the_end(|| begun().page("m0", u64::MAX / PAGE as u64, 5).bytes, "a page at 0xfffffffffffff000")]
#[case::another_fill(|| { let mut s = begun(); s.word(ZERO).add(b"\x02m0\xff"); s.bytes }, "full of the byte 0xff")]
fn what_is_not_known_is_named_and_never_skipped(#[case] stream: fn() -> Vec<u8>, #[case] words: &str) {
    let mut stream = stream();
    // Whatever follows, it is not reached.
    stream.extend(Stream::new().devices());
    let error = thin(&stream[..], io::sink(), template().template()).unwrap_err();
    assert!(matches!(error, ThinError::Unknown { .. }), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[rstest]
#[case::longer_than_the_template((MEMORY_PAGES + 1) * PAGE as u64, "and its template 163840")]
#[case::shorter_than_the_template((MEMORY_PAGES - 1) * PAGE as u64, "and its template 163840")]
#[case::longer_than_all(!FLAGS, "make no sense")]
#[case::half_a_page(100, "make no sense")]
fn blocks_that_cannot_be_are_refused(#[case] length: u64, #[case] words: &str) {
    let mut stream = Stream { bytes: b"QEVM\0\0\0\x03\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04".to_vec(), last: None };
    stream.word(1 << 20 | SIZES).add(b"\x02m0").word(length);
    let error = thin(&stream.bytes[..], io::sink(), template().template()).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn an_endless_list_of_blocks_ends() {
    let mut stream = b"QEVM\0\0\0\x03\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\x10\x04".to_vec();
    stream.extend([0; 9].repeat(MOST_BLOCKS + 1));
    let error = thin(&stream[..], io::sink(), None).unwrap_err().to_string();
    assert!(error.contains("make no sense"), "{error}");
}

#[test]
fn endless_devices_end() {
    let stream = begun().end_section().part(SECTION_FULL).bytes;
    let error = thin(stream.chain(io::repeat(0)), io::sink(), None).unwrap_err().to_string();
    assert!(error.contains("more than 64 MiB of devices"), "{error}");
}

/// QEMU 7.2's own, of a guest of 256 MiB in the background, from which all but a few of the memory's pages were taken.
#[test]
fn a_recorded_stream_is_understood_to_its_last_byte() {
    let packed = &include_bytes!("../../tests/records/qemu-7.2-background.lz4")[..];
    let mut stream = Vec::new();
    lz4_flex::frame::FrameDecoder::new(packed).read_to_end(&mut stream).unwrap();
    let (copy, pages) = thinned(&stream, None);
    assert!(copy == stream);
    assert_eq!(pages.dropped, 0);
    assert!(pages.kept > 30);
    let template = Original::of(256 << 20);
    let error = thin(&stream[..], io::sink(), template.template()).unwrap_err().to_string();
    assert!(error.contains("leaves out 65499 pages of the memory"), "{error}");
    for length in (0..stream.len()).step_by(991) {
        let error = thin(&stream[..length], io::sink(), None).unwrap_err();
        assert!(matches!(error, ThinError::Cut { .. }), "cut at {length}: {error}");
    }
}
