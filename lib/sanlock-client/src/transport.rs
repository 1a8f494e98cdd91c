//! One connection to the daemon: whole messages out and in, each with a deadline.
//!
//! Touches the socket only. A connection on which a message was cut short is never used again.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Operation, SanlockError};
use crate::wire::{self, Command, HEADER_LEN, Header};

/// How long a busy process is waited for.
const TURN: Duration = Duration::from_secs(1);
/// Time between two tries.
const TURN_PAUSE: Duration = Duration::from_millis(10);
/// -EBUSY.
const BUSY: i32 = -16;

/// A moment after which waiting ends, on the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    operation: Operation,
    after: Duration,
    ends: Duration,
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

impl Deadline {
    fn new(operation: Operation, after: Duration) -> Self {
        Self { operation, after, ends: now().saturating_add(after) }
    }

    fn passed(&self) -> SanlockError {
        SanlockError::Deadline { operation: self.operation, after: self.after }
    }

    /// What is left; at least a microsecond, because zero would mean "for ever" to the socket.
    fn left(&self) -> Result<Duration, SanlockError> {
        match self.ends.checked_sub(now()) {
            Some(left) if !left.is_zero() => Ok(left.max(Duration::from_micros(1))),
            _ => Err(self.passed()),
        }
    }

    fn error(&self, source: io::Error) -> SanlockError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.passed(),
            _ => SanlockError::Io { operation: self.operation, source },
        }
    }
}

/// A request that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    pub operation: Operation,
    pub command: Command,
    pub flags: u32,
    pub data: u32,
    pub data2: u32,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(operation: Operation, command: Command) -> Self {
        Self { operation, command, flags: 0, data: 0, data2: 0, body: Vec::new() }
    }
}

/// A whole answer whose result was not negative.
#[derive(Debug)]
pub(crate) struct Answer {
    pub header: Header,
    pub body: Vec<u8>,
}

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    deadline: Duration,
    broken: bool,
}

impl Connection {
    pub fn open(path: &Path, deadline: Duration) -> Result<Self, SanlockError> {
        let connect = || -> io::Result<UnixStream> {
            let address = SocketAddrUnix::new(path)?;
            let flags = SocketFlags::CLOEXEC;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            // The send time-out also bounds a connect to a daemon that no longer accepts.
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(deadline))?;
            rustix::net::connect(&socket, &address)?;
            Ok(UnixStream::from(socket))
        };
        let stream = connect().map_err(|source| SanlockError::Connect { path: path.to_owned(), source })?;
        Ok(Self { stream, deadline, broken: false })
    }

    /// Sends a request that has no answer.
    pub fn tell(&mut self, request: &Request) -> Result<(), SanlockError> {
        let deadline = Deadline::new(request.operation, self.deadline);
        self.guarded(request.operation, |stream| send(stream, request, &deadline))
    }

    /// Sends a request and reads its answer. A negative result is an error, its body read and dropped.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, SanlockError> {
        let deadline = Deadline::new(request.operation, self.deadline);
        let answer = self.guarded(request.operation, |stream| {
            send(stream, request, &deadline)?;
            receive(stream, request, &deadline)
        })?;
        match wire::result_of(&answer.header) {
            Ok(_) => Ok(answer),
            Err(code) => Err(SanlockError::refused(request.operation, code)),
        }
    }

    /// As [`Self::ask`], for a command about a registered process. The daemon does one such command at a time for
    /// each process and refuses a second at once, whoever sent the first: a look at what a process holds would make
    /// its acquire fail. So a busy refusal, after which nothing was done, is asked again for a while.
    pub fn ask_in_turn(&mut self, request: &Request) -> Result<Answer, SanlockError> {
        let patience = now().saturating_add(TURN.min(self.deadline));
        loop {
            match self.ask(request) {
                Err(e) if e.code() == Some(BUSY) && now() < patience => {}
                result => return result,
            }
            #[allow(
                clippy::disallowed_methods,
                reason = "the daemon tells nobody when it is free; bounded by TURN"
            )]
            std::thread::sleep(TURN_PAUSE);
        }
    }

    /// Asks for states and reads the text of the first. More may follow: nothing else can be asked here then.
    pub fn ask_for_state(mut self, request: &Request) -> Result<Vec<u8>, SanlockError> {
        let deadline = Deadline::new(request.operation, self.deadline);
        let stream = &mut self.stream;
        send(stream, request, &deadline)?;
        receive(stream, request, &deadline)?;
        let mut head = [0; wire::STATE_LEN];
        fill(stream, &mut head, &deadline)?;
        let len = wire::state_text_len(&head).map_err(|e| SanlockError::protocol(request.operation, e.0))?;
        let mut text = vec![0; len];
        fill(stream, &mut text, &deadline)?;
        Ok(text)
    }

    /// Fills `buffer` with what the daemon sends by itself. False when nothing has come within `patience`.
    pub fn listen(
        &mut self,
        operation: Operation,
        buffer: &mut [u8],
        patience: Duration,
    ) -> Result<bool, SanlockError> {
        let io = |source: rustix::io::Errno| SanlockError::Io { operation, source: source.into() };
        let timeout =
            Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 });
        let mut polled = [PollFd::new(&self.stream, PollFlags::IN)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(io(error)),
        }
        let deadline = Deadline::new(operation, self.deadline);
        self.guarded(operation, |stream| fill(stream, buffer, &deadline))?;
        Ok(true)
    }

    /// Sends bare bytes.
    pub fn whisper(&mut self, operation: Operation, bytes: &[u8]) -> Result<(), SanlockError> {
        self.guarded(operation, |stream| {
            stream.write_all(bytes).map_err(|source| SanlockError::Io { operation, source })
        })
    }

    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Runs one exchange; if it is cut short the connection is out of step and stays unusable.
    fn guarded<T>(
        &mut self,
        operation: Operation,
        exchange: impl FnOnce(&mut UnixStream) -> Result<T, SanlockError>,
    ) -> Result<T, SanlockError> {
        if self.broken {
            let detail = "an earlier call on this registration was cut short, so that answers cannot be told \
                          apart; ask through the client by process id";
            return Err(SanlockError::protocol(operation, detail));
        }
        self.broken = true;
        let result = exchange(&mut self.stream)?;
        self.broken = false;
        Ok(result)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> Self {
        connection.stream.into()
    }
}

fn send(stream: &mut UnixStream, request: &Request, deadline: &Deadline) -> Result<(), SanlockError> {
    let header =
        Header::request(request.command, request.flags, request.body.len(), request.data, request.data2);
    let message = [&header.to_bytes()[..], &request.body].concat();
    let mut rest = &message[..];
    while !rest.is_empty() {
        stream.set_write_timeout(Some(deadline.left()?)).map_err(|e| deadline.error(e))?;
        match stream.write(rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(deadline.error(e)),
        }
    }
    Ok(())
}

fn receive(stream: &mut UnixStream, request: &Request, deadline: &Deadline) -> Result<Answer, SanlockError> {
    let protocol = |e: wire::WireError| SanlockError::protocol(request.operation, e.0);
    let mut head = [0; HEADER_LEN];
    fill(stream, &mut head, deadline)?;
    let header = Header::from_bytes(&head).map_err(protocol)?;
    if header.command != request.command as u32 {
        let detail = format!("it answers command {} instead of {}", header.command, request.command as u32);
        return Err(SanlockError::protocol(request.operation, detail));
    }
    let mut body = vec![0; header.body_len().map_err(protocol)?];
    fill(stream, &mut body, deadline)?;
    Ok(Answer { header, body })
}

fn fill(stream: &mut UnixStream, buffer: &mut [u8], deadline: &Deadline) -> Result<(), SanlockError> {
    let mut filled = 0;
    while filled < buffer.len() {
        stream.set_read_timeout(Some(deadline.left()?)).map_err(|e| deadline.error(e))?;
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => {
                let detail =
                    format!("the connection ended after {filled} of {} expected bytes", buffer.len());
                return Err(SanlockError::protocol(deadline.operation, detail));
            }
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(deadline.error(e)),
        }
    }
    Ok(())
}
