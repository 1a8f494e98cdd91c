//! A sanlock that knows one lockspace, on a socket, for tests of what is asked of it. It renews nothing.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sanlock_client::Lockspace;
use sanlock_client::wire::{self, Command, HEADER_LEN, Header};

type Held = Arc<Mutex<Option<Lockspace>>>;

/// Its thread ends with the test's process.
pub struct FakeSanlock {
    _directory: tempfile::TempDir,
    socket: PathBuf,
    held: Held,
}

impl FakeSanlock {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("sanlock.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let held = Held::default();
        let shared = Arc::clone(&held);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that went away needs no answer.
                let _ = serve(stream.unwrap(), &shared);
            }
        });
        Self { _directory: directory, socket, held }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn hold(&self, lockspace: Option<Lockspace>) {
        *self.held.lock().unwrap() = lockspace;
    }

    pub fn held(&self) -> Option<Lockspace> {
        self.held.lock().unwrap().clone()
    }
}

fn serve(mut stream: UnixStream, known: &Held) -> std::io::Result<()> {
    const EEXIST: i32 = -17;
    const EINVAL: i32 = -22;
    const ENOENT: i32 = -2;
    loop {
        let mut first = [0; HEADER_LEN];
        stream.read_exact(&mut first)?;
        let header = Header::from_bytes(&first).unwrap();
        let mut body = vec![0; header.body_len().unwrap()];
        stream.read_exact(&mut body)?;
        let mut held = known.lock().unwrap();
        let (command, result, answer): (_, i32, Vec<u8>) = match header.command {
            command if command == Command::AddLockspace as u32 => {
                let asked = wire::read_lockspace(&body).unwrap();
                let result = match &*held {
                    Some(own) if *own == asked => EEXIST,
                    Some(own) if own.name == asked.name => EINVAL,
                    Some(_) | None => {
                        *held = Some(asked);
                        0
                    }
                };
                (Command::AddLockspace, result, Vec::new())
            }
            command if command == Command::RemLockspace as u32 => {
                let asked = wire::read_lockspace(&body).unwrap();
                let result = if held.as_ref() == Some(&asked) { 0 } else { ENOENT };
                if result == 0 {
                    *held = None;
                }
                (Command::RemLockspace, result, Vec::new())
            }
            command if command == Command::InqLockspace as u32 => {
                let asked = wire::read_lockspace(&body).unwrap();
                let result = if held.as_ref() == Some(&asked) { 0 } else { ENOENT };
                (Command::InqLockspace, result, Vec::new())
            }
            command if command == Command::GetLockspaces as u32 => {
                let answer = held.as_ref().map_or_else(Vec::new, |own| wire::lockspace_body(own, 0));
                (Command::GetLockspaces, 0, answer)
            }
            command => panic!("command {command} is not expected"),
        };
        let count = u32::from(!answer.is_empty());
        let begin = Header::request(command, 0, answer.len(), result.cast_unsigned(), count);
        stream.write_all(&begin.to_bytes())?;
        stream.write_all(&answer)?;
    }
}
