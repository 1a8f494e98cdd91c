//! Peers that are not sanlock, or a broken one: each gives a typed error, in time.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;
use std::time::Duration;

use sanlock_client::wire::{Command, HEADER_LEN, Header};
use sanlock_client::{AcquireOptions, Client, LockspaceName, Registration, SanlockError};
use tempfile::TempDir;

/// Serves one connection with `serve`; the connection stays open until the guard is dropped.
struct Peer {
    directory: TempDir,
    _thread: JoinHandle<()>,
}

impl Peer {
    fn new(serve: impl FnOnce(UnixStream) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        Self { directory, _thread: thread }
    }

    fn client(&self) -> Client {
        Client::new(self.directory.path().join("s")).with_deadline(Duration::from_millis(300))
    }
}

fn read_request(stream: &mut UnixStream) -> Header {
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).unwrap();
    let header = Header::from_bytes(&head).unwrap();
    let mut body = vec![0; header.body_len().unwrap()];
    stream.read_exact(&mut body).unwrap();
    header
}

fn answer(command: Command, body: usize, data: u32, data2: u32) -> [u8; HEADER_LEN] {
    Header::request(command, 0, body, data, data2).to_bytes()
}

fn protocol_error(serve: impl FnOnce(UnixStream) + Send + 'static) -> String {
    let peer = Peer::new(serve);
    match peer.client().get_hosts(&LockspaceName::new("x").unwrap(), None) {
        Err(error @ SanlockError::Protocol { .. }) => error.to_string(),
        other => panic!("expected a protocol error, got {other:?}"),
    }
}

#[test]
fn a_peer_that_is_not_sanlock_is_not_believed() {
    let text = protocol_error(|mut stream| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    assert!(text.contains("it starts with 0x50545448 instead of 0x04282010"), "{text}");
}

#[test]
fn a_truncated_answer_is_named() {
    let text = protocol_error(|mut stream| {
        read_request(&mut stream);
        stream.write_all(&answer(Command::GetHosts, 64, 0, 2)).unwrap();
        stream.write_all(&[0; 40]).unwrap();
    });
    assert!(text.contains("the connection ended after 40 of 64 expected bytes"), "{text}");
}

#[test]
fn an_answer_that_lies_about_its_size_or_count_is_refused() {
    let text = protocol_error(|mut stream| {
        read_request(&mut stream);
        stream.write_all(&answer(Command::GetHosts, 3 << 30, 0, 0)).unwrap();
    });
    assert!(text.contains("its length is 3221225504"), "{text}");
    let text = protocol_error(|mut stream| {
        read_request(&mut stream);
        stream.write_all(&answer(Command::GetHosts, 32, 0, u32::MAX)).unwrap();
        stream.write_all(&[0; 32]).unwrap();
    });
    assert!(text.contains("announces 4294967295 items"), "{text}");
    let text = protocol_error(|mut stream| {
        read_request(&mut stream);
        stream.write_all(&answer(Command::Version, 0, 0, 0)).unwrap();
    });
    assert!(text.contains("it answers command 28 instead of 23"), "{text}");
}

#[test]
fn a_daemon_that_hangs_costs_one_deadline_and_the_registration() {
    let peer = Peer::new(|mut stream| {
        assert_eq!(read_request(&mut stream).command, Command::Register as u32);
        assert_eq!(read_request(&mut stream).command, Command::Version as u32);
        stream.write_all(&answer(Command::Version, 0, 0, 0x0308_0500)).unwrap();
        let mut rest = Vec::new();
        // Swallows the acquire and never answers; ends when the client hangs up.
        stream.read_to_end(&mut rest).unwrap();
    });
    let mut registration = Registration::register_self(&peer.client()).unwrap();
    let error = registration.inquire().unwrap_err();
    assert!(matches!(error, SanlockError::Deadline { .. }), "{error}");
    assert!(error.to_string().contains("within 0.3 s"), "{error}");
    let error = registration.inquire().unwrap_err();
    assert!(error.to_string().contains("cut short"), "{error}");
}

#[test]
fn nobody_there_and_nothing_to_acquire_are_said_plainly() {
    let error = Client::new("/nonexistent/sanlock.sock").version().unwrap_err();
    assert!(matches!(error, SanlockError::Connect { .. }));
    assert!(error.to_string().contains("/nonexistent/sanlock.sock"), "{error}");
    let error =
        Client::new("/nonexistent/s").acquire_for_pid(1, &[], &AcquireOptions::default()).unwrap_err();
    assert!(error.to_string().contains("0 resources in one call; 1 to 8 are possible"), "{error}");
}
