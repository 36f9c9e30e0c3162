//! The sockets between manager and QEMU: in a directory of our own that nobody else may enter.
//!
//! We listen and QEMU inherits the listening descriptors. So a connection can be made before QEMU has even loaded its
//! libraries, nothing needs to be waited for or polled, and QEMU opens no path. Addresses go through
//! `/proc/self/fd/DIRECTORY/NAME`, since a socket's address holds 107 bytes and a task's directory may be deeper.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// QEMU's control protocol.
    Qmp,
    /// The guest agent.
    Agent,
    /// Files on their way.
    Files,
    /// The guest's calls for attention.
    Events,
}

impl Channel {
    /// In the order in which [`Sockets::listen`] hands them out.
    pub const ALL: [Self; 4] = [Self::Qmp, Self::Agent, Self::Files, Self::Events];

    /// The file's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qmp => "qmp",
            Self::Agent => "agent",
            Self::Files => "files",
            Self::Events => "events",
        }
    }
}

/// Where the sockets are.
#[derive(Clone, Debug)]
pub struct Sockets {
    dir: Arc<File>,
}

impl Sockets {
    /// Makes the sockets in `dir`, which is made as well, and hands out the listening ends in the order of
    /// [`Channel::ALL`].
    ///
    /// # Errors
    /// If the directory or a socket cannot be made.
    pub fn listen(dir: &Path) -> io::Result<(Self, [OwnedFd; 4])> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let sockets = Self { dir: Arc::new(File::open(dir)?) };
        let mut ends = Vec::new();
        for channel in Channel::ALL {
            let _ = std::fs::remove_file(dir.join(channel.name()));
            ends.push(OwnedFd::from(UnixListener::bind(sockets.address(channel))?));
        }
        let ends = ends.try_into();
        Ok((sockets, ends.map_err(|_| io::Error::other("four channels, four sockets"))?))
    }

    /// Sockets that QEMU makes itself: see [`crate::cmdline::Listen::Named`].
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn of(dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: Arc::new(File::open(dir)?) })
    }

    /// Connects to one.
    ///
    /// # Errors
    /// If nobody holds its other end.
    pub fn connect(&self, channel: Channel) -> io::Result<UnixStream> {
        UnixStream::connect(self.address(channel))
    }

    fn address(&self, channel: Channel) -> String {
        format!("/proc/self/fd/{}/{}", self.dir.as_raw_fd(), channel.name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn sockets_work_however_deep_the_directory_is_and_whatever_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        for _ in 0..2 {
            let (sockets, [qmp, ..]) = Sockets::listen(&deep).unwrap();
            let mut ours = sockets.connect(Channel::Qmp).unwrap();
            let (mut theirs, _) = UnixListener::from(qmp).accept().unwrap();
            ours.write_all(b"x").unwrap();
            let mut got = [0];
            theirs.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"x");
        }
        assert_eq!(std::fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
