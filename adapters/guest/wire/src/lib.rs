//! What a host and the agent in its guest say to each other: **this page is the protocol**, and the crate is both of its ends
//! as state machines that do no I/O. It needs neither `std` nor a heap, and nothing in it can panic.
//!
//! | | takes | gives |
//! |---|---|---|
//! | [`guest::Supervisor`] | bytes, time, the end of the program | bytes, and calls of a [`guest::System`] |
//! | [`host::Session`] | bytes, [`message::Request`]s | bytes, [`host::Event`]s |
//!
//! # The stream
//!
//! One stream of bytes in each direction, ordered, which may be cut at any byte: a guest that is restored from a checkpoint
//! goes on with whatever it had read and written by then, and the host is another one. Nothing is ever told by the end of the
//! stream, which a guest does not see.
//!
//! # Frames
//!
//! Numbers are little-endian. A frame has at most [`frame::FRAME`] bytes, whole.
//!
//! | bytes | |
//! |---|---|
//! | 2 | `d5 76` |
//! | 1 | kind of message |
//! | 1 | 0 |
//! | 4 | length of the payload |
//! | 4 | tag: the host numbers its requests, and replies bear the number of theirs; 0 for what nobody asked for |
//! | n | payload |
//! | 8 | XXH64, seed 0, of all that is before |
//!
//! Where a receiver finds no frame it goes on one byte later, until it does: it takes up again behind whatever was cut off.
//! The hash is against accidents. Nothing protects the host from a guest that wants to deceive it, except that it believes
//! nothing of what it reads to be of a size, an order or a place that it did not check.
//!
//! # Greeting
//!
//! The host sends 64 KiB of zeros and `Hello`, and repeats `Hello` until it gets the `Welcome` with its nonce.
//!
//! - The zeros end whatever frame the guest may be in the middle of: none is longer.
//! - The guest lets go of unfinished transfers, of a watch, and of what it had not sent. The program is not touched.
//! - Until the `Welcome`, the host takes nothing but a `Welcome` for a frame.
//! - A host with another version than the guest's asks for nothing. `Hello`, and the beginning of `Welcome` up to the version,
//!   are the same in all versions, and a `Welcome` has at most 64 bytes of payload.
//! - A host that is to go on with a restored guest must be connected before that guest runs: a guest that was sending stops
//!   for good otherwise (virtio-serial).
//!
//! # Requests
//!
//! The host need not wait for a reply before it sends the next request. Replies come in the order of requests. All requests
//! but `Launch` may be repeated in a new session with the same effect. A word is its length in 2 bytes, and itself.
//!
//! | kind | request | payload | answered by |
//! |---|---|---|---|
//! | 01 | Hello | nonce 8, version 2 | Welcome |
//! | 02 | Prepare: the clock, and the random pool of a clone | ns since 1970 8, seed | Done |
//! | 03 | Workdir: make `/work`, unless it is there | on a disk 1 | Done: bytes free |
//! | 04 | Put: a file comes, in `PutData` of the same tag | size 8, mode 4, name | Done when it is in its place |
//! | 05 | PutData | offset 8, bytes | nothing |
//! | 06 | Get: send a file, unless it is longer | limit 8, name | File, then FileData |
//! | 07 | Launch: start the program | linux32 1, words: program, stdout, stderr, progress; words' number 2, arguments; the same for the environment | Done |
//! | 08 | Status | | State |
//! | 09 | Watch: say State when it changes, so often; 0 ends that | ms 4 | Done |
//! | 0a | Acknowledge: the end of the program is known | | Done |
//! | 0b | Hold all of the program's processes, or let them go on | hold 1 | Done |
//! | 0c | Settle: give back what memory booting has used | | Done: MiB |
//! | 0d | PowerOff | | the machine's end |
//!
//! - One file comes in at a time, and its pieces one behind the other. It is seen in its place when it is whole, and not
//!   before. The host sends the pieces without waiting for anything; those of a refused file are passed over.
//! - A running Get holds up all requests but `Hello`, which ends it.
//! - A name is bytes, relative to the working directory, without parts that are empty, `.` or `..`. A link to a regular file
//!   in the working directory is as good as the file.
//! - A boot starts one program: a second `Launch` is refused. One that was refused started nothing, and may be repeated.
//! - Empty names of streams mean that output goes nowhere, and that there is no progress file. The program's own name may be
//!   absolute.
//!
//! # Replies
//!
//! | kind | reply | payload |
//! |---|---|---|
//! | 81 | Welcome | nonce 8, version 2, State |
//! | 82 | Done | a number 8 |
//! | 83 | File | size 8, mode 4 |
//! | 84 | FileData | offset 8, bytes |
//! | 85 | State | phase 1 (0 idle, 1 running, 2 exited, 3 killed), exit status or signal 1, processes left behind 4, killed for memory 4, working directory full 1, held 1, ms of processor time 8 (all ones: not known), word: first line of the progress file |
//! | 86 | Refused | about 1 (0 the request, 1 stdout, 2 stderr, 3 the progress file), cause 1, number 8, word |
//!
//! The end of the program comes as a State with tag 0, at once and then each second until it is acknowledged. By then
//! nothing of the program runs any more: what it left behind was killed, and counted.
//!
//! The causes of a refusal; number and word are 0 and empty where none is named.
//!
//! | | cause | | cause |
//! |---|---|---|---|
//! | 0 | a whole frame, and no message | 11 | this boot has launched before |
//! | 1 | no such file | 12 | nothing runs that could be held |
//! | 2 | no name as above | 13 | the program may not be executed |
//! | 3 | number: 0 a directory, 1 a dead link, 2 a FIFO, 3 a socket, 4 a device | 14 | it is empty |
//! | 4 | leads out of the working directory | 15 | it ends before all that its headers promise |
//! | 5 | over the limit; number: its size | 16 | word: its interpreter, which is not there |
//! | 6 | no room; number: bytes free | 17 | word: its interpreter, in a line that ends with CR LF |
//! | 7 | became shorter; number: where it ends | 18 | number: the foreign processor it is for, as in ELF |
//! | 8 | pieces out of order | 19 | no program and no script |
//! | 9 | no disk | 20 | arguments or environment hold a NUL, or are too long |
//! | 10 | the disk cannot be formatted | 21 | number: the kernel's `errno` |
#![no_std]
#![allow(
    clippy::result_large_err,
    clippy::large_enum_variant,
    reason = "there is no heap to keep an interpreter's name in"
)]

#[cfg(test)]
extern crate std;

pub mod frame;
pub mod guest;
mod hash;
pub mod host;
pub mod message;
pub mod refusal;
#[cfg(test)]
mod tests;

pub use hash::xxh64;
