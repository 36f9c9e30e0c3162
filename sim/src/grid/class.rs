//! What a computer answers: Table 1 of the paper.
//!
//! *Reducing Heterogeneity in Volunteer Computing using Virtual Machines* sums the first thousand terms of the Leibniz
//! series with several compilers, and gets 3.140592860 on openSUSE 11 and in the virtual machine, and something else
//! elsewhere. The table's experiment, repeated with the compilers of today (`vmtask demo` does it again), gives five
//! values from one source. A class is the hosts on which a native program gives one of them. How many hosts are of
//! which class nobody has counted: here it goes by the number of builds that print its value, those that differ in
//! nothing but `-O1` to `-O3` counted once.

use crate::choose::Prng;

/// Hosts whose results are the same to the last digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// What the program prints there.
    pub value: &'static str,
    /// A build that prints it.
    pub build: &'static str,
    /// How many of the builds do.
    pub builds: u8,
}

/// The classes. The paper's own is the first.
pub const CLASSES: [Class; 5] = [
    Class { value: "3.140592860", build: "gcc -m32 -mfpmath=387 -O3, the paper's on openSUSE 11", builds: 2 },
    Class { value: "3.140592575", build: "gcc -m64, clang -m64, MinGW x86_64: SSE", builds: 5 },
    Class { value: "3.140592813", build: "gcc -m32 -mfpmath=387 -O0, MinGW i686 -O0", builds: 5 },
    Class { value: "3.140593529", build: "gcc -m64 -O3 -ffast-math", builds: 1 },
    Class { value: "3.140592654", build: "clang -m32 -march=i586 -O3", builds: 1 },
];

/// The place in [`CLASSES`] of what every virtual machine answers: the paper's guest is openSUSE 11.
pub(super) const VIRTUAL: u8 = 0;

/// The class of some volunteer's computer.
pub(super) fn draw(prng: &mut Prng) -> u8 {
    let all = CLASSES.iter().map(|class| u64::from(class.builds)).sum();
    let mut left = prng.below(all);
    for (at, class) in (0..).zip(&CLASSES) {
        match left.checked_sub(u64::from(class.builds)) {
            None => return at,
            Some(rest) => left = rest,
        }
    }
    VIRTUAL
}
