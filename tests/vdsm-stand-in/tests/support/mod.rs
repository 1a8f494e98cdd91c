//! A stand-in for one test: a process of its own with a directory of its own.
#![allow(dead_code, reason = "each test program uses its own part of this")]

pub mod lab;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vdsm_client::{Client, Settings, TlsFiles};

/// Longer than anything here takes on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// How long silence must last before it counts as no answer.
const SILENCE: Duration = Duration::from_millis(200);

/// One of them.
pub struct StandIn {
    child: Child,
    pub root: PathBuf,
    pub address: SocketAddr,
    pub is_plain: bool,
}

impl StandIn {
    /// Over `root`, which is kept when it ends. Returns once it listens.
    pub fn start(root: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vdsm-stand-in"))
            .args(["--listen", "127.0.0.1:0", "--log-level", "debug"])
            .arg("--root")
            .arg(root)
            .arg("--control")
            .arg(root.join("c.sock"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}"));
        let address = address.parse().unwrap();
        Self { child, root: root.to_owned(), address, is_plain: more.contains(&"--plain") }
    }

    pub fn client(&self) -> Client {
        let pki = self.root.join("etc/pki/vdsm");
        let tls = (!self.is_plain).then(|| TlsFiles {
            ca: pki.join("certs/cacert.pem"),
            cert: pki.join("certs/vdsmcert.pem"),
            key: pki.join("keys/vdsmkey.pem"),
        });
        let mut settings = Settings::new("127.0.0.1", self.address.port(), tls);
        settings.recovery_pause = Duration::from_millis(50);
        settings.heart_beat = Duration::from_secs(1);
        Client::new(settings)
    }

    /// One line for the control socket; its answer.
    pub fn tell(&self, line: &str) -> String {
        let mut stream = UnixStream::connect(self.root.join("c.sock")).unwrap();
        writeln!(stream, "{line}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    /// SIGKILL; its guests go on.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection without a client.
pub struct Raw(TcpStream);

impl Raw {
    pub fn connect(stand_in: &StandIn) -> Self {
        let stream = TcpStream::connect(stand_in.address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// What comes next, as many bytes as were expected (fewer when it ends or falls silent).
    pub fn receive(&mut self, length: usize) -> String {
        self.0.set_read_timeout(Some(SOON)).unwrap();
        let mut bytes = vec![0; length];
        let mut have = 0;
        while have < length {
            match self.0.read(&mut bytes[have..]) {
                Ok(0) | Err(_) => break,
                Ok(more) => have += more,
            }
        }
        String::from_utf8_lossy(&bytes[..have]).into_owned()
    }

    /// What comes up to the end of a frame.
    pub fn receive_frame(&mut self) -> String {
        let mut text = String::new();
        while !text.ends_with('\0') {
            let more = self.receive(1);
            if more.is_empty() {
                break;
            }
            text.push_str(&more);
        }
        text
    }

    /// What comes until it falls silent.
    pub fn rest(&mut self) -> String {
        self.0.set_read_timeout(Some(SILENCE)).unwrap();
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// True when the other side ends it.
    pub fn ends(&mut self) -> bool {
        self.0.set_read_timeout(Some(SOON)).unwrap();
        match self.0.read(&mut [0; 1]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
