//! What Linux calls the signals that end a program. The guest is Linux, whatever the host is.

/// Names and meanings of the signals 1 to 31, as in signal(7), on all processors that there are platforms for.
const SIGNALS: [(&str, &str); 31] = [
    ("SIGHUP", "hang-up"),
    ("SIGINT", "interrupt"),
    ("SIGQUIT", "quit"),
    ("SIGILL", "illegal instruction"),
    ("SIGTRAP", "trap"),
    ("SIGABRT", "it gave up by itself, with abort()"),
    ("SIGBUS", "access to memory that is not there"),
    ("SIGFPE", "illegal arithmetic, as a division by zero"),
    ("SIGKILL", "killed, often for want of memory"),
    ("SIGUSR1", "user-defined"),
    ("SIGSEGV", "access to memory that is not its own"),
    ("SIGUSR2", "user-defined"),
    ("SIGPIPE", "nobody reads what it writes"),
    ("SIGALRM", "its alarm went off"),
    ("SIGTERM", "asked to end"),
    ("SIGSTKFLT", "stack fault"),
    ("SIGCHLD", "a child ended"),
    ("SIGCONT", "continue"),
    ("SIGSTOP", "stop"),
    ("SIGTSTP", "stop, from a terminal"),
    ("SIGTTIN", "reads from a terminal in the background"),
    ("SIGTTOU", "writes to a terminal in the background"),
    ("SIGURG", "urgent data"),
    ("SIGXCPU", "limit of processor time"),
    ("SIGXFSZ", "limit of a file's size"),
    ("SIGVTALRM", "its virtual alarm went off"),
    ("SIGPROF", "its profiling timer went off"),
    ("SIGWINCH", "the window changed"),
    ("SIGIO", "input or output is possible"),
    ("SIGPWR", "power failure"),
    ("SIGSYS", "unknown system call"),
];

/// A signal as people know it; a real-time signal has a number only.
pub(crate) fn told(number: u8) -> String {
    let known = number.checked_sub(1).and_then(|index| SIGNALS.get(usize::from(index)));
    known.map_or_else(|| format!("signal {number}"), |(name, meaning)| format!("{name} (signal {number}: {meaning})"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(1, "SIGHUP (signal 1: hang-up)")]
    #[case(9, "SIGKILL (signal 9: killed, often for want of memory)")]
    #[case(11, "SIGSEGV (signal 11: access to memory that is not its own)")]
    #[case(31, "SIGSYS (signal 31: unknown system call)")]
    #[case(0, "signal 0")]
    #[case(34, "signal 34")]
    fn a_signal_has_its_number_in_linux(#[case] number: u8, #[case] text: &str) {
        assert_eq!(told(number), text);
    }
}
