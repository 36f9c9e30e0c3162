//! Tells one story of the conformance suite for VIX, in a process whose environment sets up the stand-in: see
//! `vmtask_tests::conformance::vix`.

use std::path::PathBuf;

use clap::Parser;
use vmtask_tests::conformance::vix::{Guest, Place, Vix};
use vmtask_tests::conformance::{stories, vix_faults};
use vmtask_tests::wait::until;

#[derive(Parser)]
struct Args {
    /// workstation, player, fusion or server2
    product: String,
    /// world, root or qemu
    guest: String,
    /// Its name
    story: String,
    /// Where everything of it is
    home: PathBuf,
}

fn main() {
    let args = Args::parse();
    let guest = Guest::of(&args.guest).unwrap_or_else(|| panic!("no guest {:?}", args.guest));
    let vix = Vix::new(Place::new(&args.home, &args.product), guest);
    let story = stories::ALL.iter().find(|(name, _)| *name == args.story);
    let fault = vix_faults::ALL.iter().find(|(name, _)| *name == args.story);
    match (story, fault) {
        (Some((_, story)), _) => story(&vix),
        (None, Some((_, story))) => story(&vix),
        (None, None) => panic!("no story {:?}", args.story),
    }
    // A worker that was abandoned gives back what it holds when its call returns.
    until("abandoned workers", || vix.place.alive().iter().all(|kind| kind.starts_with("leaked")).then_some(()));
}
