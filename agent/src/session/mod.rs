//! A login session, and what a worker and the process in it say to each other.
//!
//! The guest's systemd opens the session, with all that its PAM says, and starts one process there: the **usher**, the agent's
//! own binary as the same user. It starts one program at the worker's word, tells how it ended, and goes.
//!
//! ```text
//! listener ──► systemd-run ──► systemd ──► usher: session, limits and environment are there
//!    └─ one end of a socket pair ──► worker         │ the other end is its descriptor 0
//!
//! usher → worker    Greeting(environment)           first, once it has verified that it is the user
//! worker → usher    three descriptors, Launch       what to start
//! usher → worker    Launched(pid, or the step)      and if there is a program:
//! usher → worker    Ended(status, usage)            it is not reaped yet, so that its numbers stay its own
//! worker → usher    the end of the stream           reap it and go
//! ```
//!
//! Both ends are the same user's, and either may be a stranger's: messages are bounded, and nothing here has a privilege.
//! An usher that is told of no program within [`PATIENCE`] goes.

pub(crate) mod usher;

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::sys::{
    child::{Status, Usage},
    descriptors,
    spawn::{Program, Step},
};

/// Of what is said here. The two ends may be of two binaries, where one replaced the other after the worker's start: with two
/// versions there is no session.
const VERSION: u32 = 1;

/// How long either end waits for the other before there is a program: PAM may have to ask a directory.
const PATIENCE: Duration = Duration::from_secs(30);

/// Room for the arguments and the environment of a program, which `rpc` keeps to 2 MiB, and for those that PAM sets.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// The usher's first word.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    version: u32,
    pid: i32,
    environment: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What to start. Its descriptors 0, 1 and 2 came just before.
#[derive(Debug, Serialize, Deserialize)]
struct Launch {
    program: Program,
    terminal: bool,
}

/// The pid, or the step that failed and its errno.
#[derive(Debug, Serialize, Deserialize)]
struct Launched(Result<i32, (Step, i32)>);

/// The program has exited.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) status: Status,
    pub(crate) usage: Usage,
}

/// A message with its length before it.
fn send<M: Serialize>(mut stream: &UnixStream, message: &M) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())
}

fn receive<M: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<M> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}

/// One byte, because descriptors travel with bytes.
fn send_descriptors(stream: &UnixStream, descriptors: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    let raw = descriptors.map(|descriptor| descriptor.as_raw_fd());
    let rights = [ControlMessage::ScmRights(&raw)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(b"!")],
        &rights,
        flags,
        None,
    )?;
    Ok(())
}

fn receive_descriptors(stream: &UnixStream) -> io::Result<[OwnedFd; 3]> {
    let mut byte = [0];
    let mut space = nix::cmsg_space!([RawFd; 3]);
    let mut slices = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            received.extend(raw.into_iter().map(descriptors::own_received));
        }
    }
    received
        .try_into()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

/// What the usher says at the end, of bytes that arrived. `None`: not all of it.
pub(crate) fn ended(bytes: &[u8]) -> Option<io::Result<Ended>> {
    let (length, message) = bytes.split_first_chunk::<4>()?;
    let message = message.get(..u32::from_be_bytes(*length) as usize)?;
    Some(postcard::from_bytes(message).map_err(io::Error::other))
}

/// The worker's end of a session whose usher has greeted.
#[derive(Debug)]
pub(crate) struct Session {
    stream: UnixStream,
    /// Its pid, as it says itself.
    pub(crate) usher: i32,
    /// What PAM and systemd made of the environment.
    pub(crate) environment: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Session {
    /// Waits for the usher's greeting. Blocks.
    pub(crate) fn meet(socket: OwnedFd) -> io::Result<Self> {
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let greeting: Greeting = receive(&stream)?;
        if greeting.version != VERSION {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self {
            stream,
            usher: greeting.pid,
            environment: greeting.environment,
        })
    }

    /// Has the program started with these descriptors: its pid, or the step that failed. Blocks until its exec. What comes
    /// back is where its end is told.
    pub(crate) fn launch(
        self,
        program: &Program,
        descriptors: [BorrowedFd<'_>; 3],
        terminal: bool,
    ) -> io::Result<Result<(i32, UnixStream), (Step, i32)>> {
        send_descriptors(&self.stream, descriptors)?;
        let program = program.clone();
        send(&self.stream, &Launch { program, terminal })?;
        let Launched(launched) = receive(&self.stream)?;
        Ok(launched.map(|pid| (pid, self.stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_no_message_is_an_error_within_its_bound() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&theirs).write_all(&u32::MAX.to_be_bytes()).unwrap();
        let error = receive::<Greeting>(&ours).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        (&theirs).write_all(&[0, 0, 0, 1, 0xff]).unwrap();
        assert!(receive::<Greeting>(&ours).is_err());
        drop(theirs);
        assert!(receive::<Greeting>(&ours).is_err());
    }

    #[test]
    fn an_usher_of_another_version_is_not_met() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let greeting = Greeting {
            version: VERSION + 1,
            pid: 1,
            environment: Vec::new(),
        };
        send(&theirs, &greeting).unwrap();
        let error = Session::meet(ours.into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn descriptors_arrive_in_their_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let (null, zero) = (
            std::fs::File::open("/dev/null").unwrap(),
            std::fs::File::open("/dev/zero").unwrap(),
        );
        send_descriptors(&ours, [null.as_fd(), reader.as_fd(), zero.as_fd()]).unwrap();
        let [_, received, _] = receive_descriptors(&theirs).unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(nix::unistd::read(&received, &mut [0; 8]), Ok(1));
    }

    #[test]
    fn an_end_is_read_once_it_is_whole() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let end = Ended {
            status: Status::Code(3),
            usage: Usage {
                user_time: Duration::from_millis(1),
                system_time: Duration::ZERO,
                max_resident: 4096,
            },
        };
        send(&theirs, &end).unwrap();
        let mut bytes = [0; 256];
        let length = (&ours).read(&mut bytes).unwrap();
        for short in 0..length {
            assert!(ended(&bytes[..short]).is_none());
        }
        let read = ended(&bytes[..length]).unwrap().unwrap();
        assert_eq!((read.status, read.usage), (end.status, end.usage));
    }
}
